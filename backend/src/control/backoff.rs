//! How long to wait between tries.

use std::time::{Duration, Instant};

use super::error::ControlError;

/// The pause before the second try of a login; the first one comes at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between tries.
pub(super) const LAST_PAUSE: Duration = Duration::from_secs(5);

/// How often a lane has lost its session shortly after it came up.
#[derive(Debug, Default)]
pub(super) struct Losses {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Losses {
    /// How long to wait before the next login: not at all after a session that lived, longer and
    /// longer when one after the other is lost at once.
    pub(super) fn next_pause(&mut self, now: Instant) -> Duration {
        let is_quick = self
            .last
            .is_some_and(|last| now.duration_since(last) < 2 * LAST_PAUSE);
        self.in_a_row = if is_quick {
            self.in_a_row.saturating_add(1)
        } else {
            0
        };
        self.last = Some(now);
        match self.in_a_row {
            0 | 1 => Duration::ZERO,
            count => with_jitter(LAST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(count - 2))),
        }
    }
}

/// Waiting for a target between tries: longer and longer, and in the log once for each reason; each
/// further try only for those who debug.
pub(super) struct Waiting {
    lane: usize,
    consequence: &'static str,
    pause: Duration,
    reason: String,
}

impl Waiting {
    pub(super) fn new(lane: usize, consequence: &'static str) -> Self {
        Self {
            lane,
            consequence,
            pause: FIRST_PAUSE,
            reason: String::new(),
        }
    }

    /// A try has failed with `error`; returns when the next one is due.
    pub(super) async fn again(&mut self, error: &ControlError) {
        let former = std::mem::replace(&mut self.reason, error.to_string());
        let level = if self.reason == former {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        let Self {
            lane,
            consequence,
            reason,
            ..
        } = self;
        log::log!(level, "session {lane}: {reason}; {consequence}");
        tokio::time::sleep(with_jitter(self.pause)).await;
        self.pause = LAST_PAUSE.min(self.pause * 2);
    }
}

/// Between the half and the whole of `pause`, so that many hosts do not come back at once.
fn with_jitter(pause: Duration) -> Duration {
    let part = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + part / 2.0)
}

/// The pauses between tries at the start of the process, with `--wait-for-target`.
pub(super) fn start_pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_PAUSE), |pause| Some(LAST_PAUSE.min(*pause * 2)))
        .map(with_jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_are_lost_at_once_are_made_again_more_and_more_slowly() {
        let mut losses = Losses::default();
        let start = Instant::now();
        assert_eq!(losses.next_pause(start), Duration::ZERO);
        assert_eq!(losses.next_pause(start), Duration::ZERO);
        let pauses: Vec<_> = (0..10).map(|_| losses.next_pause(start)).collect();
        assert!(pauses[0] >= FIRST_PAUSE / 2 && pauses[0] <= FIRST_PAUSE);
        assert!(pauses[9] >= LAST_PAUSE / 2 && pauses[9] <= LAST_PAUSE);
        assert_eq!(losses.next_pause(start + 3 * LAST_PAUSE), Duration::ZERO);
    }
}
