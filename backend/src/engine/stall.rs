//! Storage that is away: since when, and whether requests still wait for it.

use std::time::{Duration, Instant};

use super::lane::Lane;
use crate::device::request::Status;

/// Since when a lane cannot send anything, and what that means for its requests.
#[derive(Debug)]
pub(super) struct Stall {
    /// How long requests wait; `None` for ever.
    limit: Option<Duration>,
    /// There was a session. Before the first one nothing is lost: either it comes, or the rings move
    /// to another lane.
    has_had_session: bool,
    since: Option<Instant>,
    /// The limit has passed: requests end with an error until storage is back.
    is_over_limit: bool,
}

/// What [`Stall::update`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    /// Requests wait no longer.
    GaveUp,
    /// Storage is back, after requests have failed.
    Recovered,
}

impl Stall {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            has_had_session: false,
            since: None,
            is_over_limit: false,
        }
    }

    /// There is a session.
    pub(super) fn connected(&mut self) {
        self.has_had_session = true;
    }

    /// Whether requests fail rather than wait.
    pub(super) fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }

    /// When requests will fail, if storage does not come back before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.is_over_limit)?;
        since.checked_add(self.limit?)
    }

    fn update(&mut self, is_stalled: bool, now: Instant) -> Change {
        if !is_stalled || !self.has_had_session {
            self.since = None;
            let has_failed = std::mem::take(&mut self.is_over_limit);
            return if has_failed {
                Change::Recovered
            } else {
                Change::None
            };
        }
        self.since.get_or_insert(now);
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.is_over_limit = true;
            return Change::GaveUp;
        }
        Change::None
    }
}

impl Lane {
    /// Notes whether anything can be sent, and ends what has waited for that too long.
    pub(super) fn handle_stall(&mut self) {
        let is_stalled = self.connection.is_none() || self.config.shared.barrier.is_raised();
        let lane = self.config.index;
        match self.stall.update(is_stalled, self.now) {
            Change::None => {}
            Change::GaveUp => log::error!(
                "lane {lane}: storage is away for longer than --io-timeout: requests end with an \
                 I/O error until it is back"
            ),
            Change::Recovered => {
                log::warn!("lane {lane}: storage is back, requests no longer fail")
            }
        }
        if self.stall.is_over_limit() {
            self.wake_rings();
            self.fail_waiting();
        }
    }

    /// Ends everything that waits. Its tasks, if it had any, are of a connection that was dropped,
    /// so the barrier stands until the target has ended them: none can run after what the guest
    /// writes next.
    fn fail_waiting(&mut self) {
        if self.requests.in_flight() == 0 {
            return;
        }
        for tag in self.in_flight.tags() {
            if self.requests.abandon(tag) {
                self.finish(tag, Status::IoErr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    #[test]
    fn requests_fail_from_the_limit_on_until_storage_is_back() {
        let mut stall = Stall::new(Some(LIMIT));
        let start = Instant::now();
        stall.connected();
        assert_eq!(stall.update(true, start), Change::None);
        assert_eq!(stall.deadline(), Some(start + LIMIT));
        let just_before = start + LIMIT - Duration::from_nanos(1);
        assert_eq!(stall.update(true, just_before), Change::None);
        assert!(!stall.is_over_limit());
        assert_eq!(stall.update(true, start + LIMIT), Change::GaveUp);
        assert!(stall.is_over_limit());
        assert_eq!(stall.deadline(), None);
        assert_eq!(stall.update(true, start + 2 * LIMIT), Change::None);
        assert_eq!(stall.update(false, start + 2 * LIMIT), Change::Recovered);
        assert!(!stall.is_over_limit());
        assert_eq!(stall.update(true, start + 3 * LIMIT), Change::None);
        assert_eq!(stall.deadline(), Some(start + 4 * LIMIT));
    }

    #[test]
    fn nothing_is_lost_before_the_first_session() {
        let mut stall = Stall::new(Some(Duration::ZERO));
        assert_eq!(stall.update(true, Instant::now()), Change::None);
        assert!(!stall.is_over_limit());
    }

    #[test]
    fn a_limit_of_zero_waits_for_nothing_and_none_for_ever() {
        let start = Instant::now();
        let mut at_once = Stall::new(Some(Duration::ZERO));
        at_once.connected();
        assert_eq!(at_once.update(true, start), Change::GaveUp);
        let mut patient = Stall::new(None);
        patient.connected();
        assert_eq!(patient.update(true, start), Change::None);
        assert_eq!(patient.deadline(), None);
        assert_eq!(
            patient.update(true, start + Duration::from_secs(1 << 30)),
            Change::None
        );
    }
}
