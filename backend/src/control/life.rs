//! The life of a disk that is served: what is wished of it, and what it tells of itself.
//!
//! Only the disk's own task knows whether a front-end is there at this moment, so it is the one that
//! decides when a wish to end without harm comes true. Whoever wishes waits for what came of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long a disk may take to end: its rings drain, its sessions log out, each with a bound
/// (`engine::DRAIN_LIMIT`, `engine::LOGOUT_LIMIT`), and some of them twice. More than all of that on a
/// busy machine.
const END_LIMIT: Duration = Duration::from_secs(10);

/// By when disks that are told now to end have ended.
pub(super) fn end_limit() -> Instant {
    Instant::now() + END_LIMIT
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Serve,
    /// End as soon as no front-end is connected.
    EndWhenUnused,
    /// End now.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Unused,
    /// A front-end is connected.
    Used,
    /// It has ended, and holds nothing any more: its socket and its ISIDs can be another's.
    Ended,
}

/// What became of a disk that should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has ended.
    Ended,
    /// A front-end is connected, and the wish stands.
    Used,
    /// Neither within the limit.
    Overdue,
}

/// The end of those who wish.
#[derive(Debug)]
pub(super) struct Reins {
    wish: watch::Sender<Wish>,
    phase: watch::Receiver<Phase>,
}

/// The disk's end. Dropped, the disk has ended.
#[derive(Debug)]
pub(super) struct Stop {
    wish: watch::Receiver<Wish>,
    phase: watch::Sender<Phase>,
    process: watch::Receiver<bool>,
}

/// The two ends for one disk; `process` tells that all of them are to end.
pub(super) fn life(process: watch::Receiver<bool>) -> (Reins, Stop) {
    let (wish, wished) = watch::channel(Wish::Serve);
    let (phase, seen) = watch::channel(Phase::Unused);
    let reins = Reins { wish, phase: seen };
    let stop = Stop {
        wish: wished,
        phase,
        process,
    };
    (reins, stop)
}

impl Reins {
    /// It is to end as soon as no front-end is connected.
    pub(super) fn retire(&self) {
        self.wish.send_replace(Wish::EndWhenUnused);
    }

    /// It is not to end after all. It may have, meanwhile.
    pub(super) fn stay(&self) {
        self.wish.send_replace(Wish::Serve);
    }

    /// It is to end now, whoever uses it.
    pub(super) fn end(&self) {
        self.wish.send_replace(Wish::End);
    }

    /// Whether it is to end when it is not used any more.
    pub(super) fn is_retiring(&self) -> bool {
        *self.wish.borrow() == Wish::EndWhenUnused
    }

    pub(super) fn is_used(&self) -> bool {
        *self.phase.borrow() == Phase::Used
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.phase.borrow() == Phase::Ended
    }

    /// What becomes of [`Reins::retire`] until then.
    pub(super) async fn retired(&self, limit: Instant) -> Outcome {
        self.outcome(limit, |phase| phase != Phase::Unused).await
    }

    /// What becomes of [`Reins::end`] until then.
    pub(super) async fn ended(&self, limit: Instant) -> Outcome {
        self.outcome(limit, |phase| phase == Phase::Ended).await
    }

    async fn outcome(&self, limit: Instant, is_final: impl Fn(Phase) -> bool) -> Outcome {
        let mut phase = self.phase.clone();
        let waited = tokio::time::timeout_at(limit, phase.wait_for(|phase| is_final(*phase)));
        match waited.await {
            Ok(Ok(phase)) if *phase == Phase::Used => Outcome::Used,
            // Without a disk's end there is no disk.
            Ok(_) => Outcome::Ended,
            Err(_) => Outcome::Overdue,
        }
    }
}

impl Stop {
    /// Returns when the disk is to end, which depends on whether a front-end uses it.
    pub(super) async fn asked(&mut self, is_used: bool) {
        let is_due = |wish: &Wish| match wish {
            Wish::Serve => false,
            Wish::EndWhenUnused => !is_used,
            Wish::End => true,
        };
        // When nobody can wish any more the process is ending, too.
        tokio::select! {
            _ = self.wish.wait_for(is_due) => {}
            _ = self.process.wait_for(|is_ending| *is_ending) => {}
        }
    }

    /// Whether the process is ending, and not this disk alone.
    pub(super) fn is_of_process(&self) -> bool {
        *self.process.borrow()
    }

    /// Whether a front-end uses the disk, from now on.
    pub(super) fn note_use(&self, is_used: bool) {
        let phase = if is_used { Phase::Used } else { Phase::Unused };
        self.phase.send_replace(phase);
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    }

    /// The process's own end has to live as long as the disk.
    fn disk() -> (watch::Sender<bool>, Reins, Stop) {
        let (process, ending) = watch::channel(false);
        let (reins, stop) = life(ending);
        (process, reins, stop)
    }

    #[test]
    fn one_that_is_used_ends_when_it_is_not_used_any_more() {
        let (_process, reins, mut stop) = disk();
        stop.note_use(true);
        reins.retire();
        runtime().block_on(async {
            assert_eq!(reins.retired(end_limit()).await, Outcome::Used);
            tokio::select! {
                biased;
                () = stop.asked(true) => panic!("a front-end is there"),
                () = std::future::ready(()) => {}
            }
            stop.note_use(false);
            stop.asked(false).await;
            drop(stop);
            assert_eq!(reins.retired(end_limit()).await, Outcome::Ended);
            assert!(reins.has_ended());
        });
    }

    #[test]
    fn a_wish_can_be_taken_back_and_an_order_asks_nobody() {
        let (_process, reins, mut stop) = disk();
        stop.note_use(true);
        reins.retire();
        reins.stay();
        assert!(!reins.is_retiring());
        runtime().block_on(async {
            tokio::select! {
                biased;
                () = stop.asked(false) => panic!("nobody wishes it any more"),
                () = std::future::ready(()) => {}
            }
            reins.end();
            stop.asked(true).await;
            assert!(!stop.is_of_process());
        });
    }

    #[test]
    fn the_end_of_the_process_is_that_of_the_disk() {
        let (process, _reins, mut stop) = disk();
        process.send_replace(true);
        runtime().block_on(stop.asked(true));
        assert!(stop.is_of_process());
    }
}
