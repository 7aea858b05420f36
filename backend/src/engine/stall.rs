//! Storage that is away: since when, and whether requests still wait for it.

use std::time::{Duration, Instant};

use super::lane::Lane;
use super::unit::UnitId;
use crate::device::request::Status;

/// How long requests wait at least until a lane can send for the first time: a login that is under way is
/// no loss, nor is what has to be ended first after a predecessor was killed. More than a login takes.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// Since when a lane cannot send anything, and what that means for its requests.
#[derive(Debug)]
pub(super) struct Stall {
    /// How long requests wait; `None` for ever.
    limit: Option<Duration>,
    /// The lane could send, once.
    has_sent: bool,
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
            has_sent: false,
            since: None,
            is_over_limit: false,
        }
    }

    /// Whether requests fail rather than wait.
    pub(super) fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }

    /// When requests will fail, if storage does not come back before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.is_over_limit)?;
        let limit = if self.has_sent {
            self.limit?
        } else {
            self.limit?.max(FIRST_WAIT)
        };
        since.checked_add(limit)
    }

    fn update(&mut self, is_stalled: bool, now: Instant) -> Change {
        if !is_stalled {
            self.has_sent = true;
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

impl Change {
    fn log(self, lane: usize) {
        match self {
            Self::None => {}
            Self::GaveUp => log::error!(
                "lane {lane}: storage is away for longer than --io-timeout: requests end with an \
                 I/O error until it is back"
            ),
            Self::Recovered => {
                log::warn!("lane {lane}: storage is back, requests no longer fail");
            }
        }
    }
}

impl Lane {
    /// Notes whether anything can be sent, and ends what has waited for that too long.
    pub(super) fn handle_stalls(&mut self) {
        let is_held_up = self.connection.is_none() || self.config.barrier.is_raised();
        for id in self.unit_ids() {
            self.handle_stall(id, is_held_up);
        }
    }

    fn handle_stall(&mut self, id: UnitId, is_held_up: bool) {
        let (lane, now) = (self.config.index, self.now);
        let Some(unit) = self.unit(id) else { return };
        let is_stalled = is_held_up || !unit.is_admitted;
        let change = unit.stall.update(is_stalled, now);
        if change != Change::None {
            unit.config.log.about(|| change.log(lane));
        }
        if unit.stall.is_over_limit() {
            self.wake_rings();
            self.fail_waiting(id);
        }
    }

    /// Ends everything that waits. Its tasks, if it had any, are of a connection that was dropped,
    /// so the barrier stands until the target has ended them: none can run after what the guest
    /// writes next.
    fn fail_waiting(&mut self, id: UnitId) {
        let in_flight = self.unit(id).map_or(0, |unit| unit.requests.in_flight());
        if in_flight == 0 {
            return;
        }
        for tag in self.in_flight.tags(id) {
            let unit = self.unit(id);
            if unit.is_some_and(|unit| unit.requests.abandon(tag)) {
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
        stall.update(false, start);
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
    fn the_first_session_is_waited_for_longer() {
        let mut stall = Stall::new(Some(Duration::ZERO));
        let start = Instant::now();
        assert_eq!(stall.update(true, start), Change::None);
        let just_before = start + FIRST_WAIT - Duration::from_nanos(1);
        assert_eq!(stall.update(true, just_before), Change::None);
        assert_eq!(stall.update(true, start + FIRST_WAIT), Change::GaveUp);
        let limit = 2 * FIRST_WAIT;
        let mut stall = Stall::new(Some(limit));
        stall.update(true, start);
        assert_eq!(stall.deadline(), Some(start + limit));
    }

    #[test]
    fn a_limit_of_zero_waits_for_nothing_and_none_for_ever() {
        let start = Instant::now();
        let mut at_once = Stall::new(Some(Duration::ZERO));
        at_once.update(false, start);
        assert_eq!(at_once.update(true, start), Change::GaveUp);
        let mut patient = Stall::new(None);
        patient.update(false, start);
        assert_eq!(patient.update(true, start), Change::None);
        assert_eq!(patient.deadline(), None);
        assert_eq!(
            patient.update(true, start + Duration::from_secs(1 << 30)),
            Change::None
        );
    }
}
