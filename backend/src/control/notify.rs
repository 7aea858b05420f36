//! What the service manager is told (sd_notify(3)): that we are ready, how the disks are, that we are
//! reloading or ending, and that the control plane still turns.
//!
//! Where `NOTIFY_SOCKET` is not set nothing is sent, and no task runs. The variables stay set: to take
//! them away while other threads read the environment is unsafe, and nobody is started who could
//! inherit them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use super::registry::Registry;
use crate::status::DiskState;

/// How often it is looked whether all disks have been started.
const START_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked how the disks are.
const STATUS_PAUSE: Duration = Duration::from_secs(2);

/// Whether the service manager was told so: before that a reload is part of the start.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// How many disks there are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskCounts {
    starting: usize,
    waiting: usize,
    serving: usize,
    ended: usize,
}

impl DiskCounts {
    /// Of disks in these states.
    pub(super) fn of(states: impl Iterator<Item = DiskState>) -> Self {
        let mut counts = Self::default();
        for state in states {
            *match state {
                DiskState::Starting => &mut counts.starting,
                DiskState::WaitingForTarget => &mut counts.waiting,
                DiskState::Serving => &mut counts.serving,
                DiskState::Ended => &mut counts.ended,
            } += 1;
        }
        counts
    }
}

impl fmt::Display for DiskCounts {
    /// `3 disks served, 1 waits for its target`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disks = |count| if count == 1 { "disk" } else { "disks" };
        write!(f, "{} {} served", self.serving, disks(self.serving))?;
        for (count, what) in [
            (self.starting, "being started"),
            (self.waiting, "waiting for the target"),
            (self.ended, "ended"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Says from now on how things are: ready once every disk has been started, which one whose target is
/// away does not put off; and that the control plane turns, when that is asked for.
pub(super) fn watch(registry: &Arc<Registry>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    tokio::spawn(report(Arc::clone(registry)));
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tokio::spawn(feed_watchdog(limit));
    }
}

/// A reload has begun; [`reloaded`] has to follow.
pub(super) fn reloading() {
    if !IS_READY.load(Ordering::Relaxed) {
        return;
    }
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("no clock for the service manager: {error}"),
    }
}

/// The reload is over, whatever came of it.
pub(super) fn reloaded() {
    if IS_READY.load(Ordering::Relaxed) {
        tell(&[NotifyState::Ready]);
    }
}

/// The process is about to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager cannot be told: {error}");
    }
}

async fn report(registry: Arc<Registry>) {
    let mut counts = registry.counts();
    while counts.starting > 0 {
        tokio::time::sleep(START_PAUSE).await;
        counts = registry.counts();
    }
    IS_READY.store(true, Ordering::Relaxed);
    tell(&[NotifyState::Ready, NotifyState::Status(&counts.to_string())]);
    loop {
        tokio::time::sleep(STATUS_PAUSE).await;
        let now = registry.counts();
        if now != counts {
            counts = now;
            tell(&[NotifyState::Status(&counts.to_string())]);
        }
    }
}

/// Twice as often as is asked for, from a task of the runtime: a runtime that does not turn sends nothing.
async fn feed_watchdog(limit: Duration) {
    // An interval may not be nothing.
    let mut interval = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_what_there_is() {
        use DiskState::{Ended, Serving, Starting, WaitingForTarget};
        let shown = |states: &[DiskState]| DiskCounts::of(states.iter().copied()).to_string();
        assert_eq!(shown(&[]), "0 disks served");
        assert_eq!(shown(&[Serving]), "1 disk served");
        assert_eq!(
            shown(&[Serving, WaitingForTarget, Serving, Ended, Starting]),
            "2 disks served, 1 being started, 1 waiting for the target, 1 ended"
        );
    }
}
