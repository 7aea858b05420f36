//! When a lane looks for work for a while before it goes to sleep.
//!
//! To fall asleep and be woken costs more than a short request, most of all on virtual processors
//! that halt. Polling avoids both, but takes the processor. So it has a limit for each wait, and is
//! left alone while it does not pay: a look in vain is followed by several waits asleep, twice as
//! many each time, and only those count that were short enough for another look to make sense. A
//! disk that is idle is asleep and stays so.

use std::time::Duration;

/// What a wait asleep may take longer than the polling limit and still mean that polling would
/// have paid: the time that it takes to be woken.
const WAKE_UP: Duration = Duration::from_micros(50);

/// The most short waits asleep that follow a look in vain; the first is followed by one, for a
/// single late answer means nothing.
const LAST_PENALTY: u32 = 256;

/// How often in a row a look may find something of a guest before the connection was listened to: a
/// guest that always has more must not keep the lane from its target.
const MOST_UNHEARD: u32 = 16;

/// The polling of one kind of wait.
#[derive(Debug)]
pub(super) struct Polling {
    /// The longest that one look takes; zero for never.
    limit: Duration,
    /// How many short waits asleep are due before the next look.
    due: u32,
    /// How many were due last time.
    penalty: u32,
    /// How many looks in a row have ended before the connection was listened to.
    unheard: u32,
}

impl Polling {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            due: 1,
            penalty: 0,
            unheard: 0,
        }
    }

    /// How long to look before this wait; `None` to sleep at once.
    pub(super) fn limit(&self) -> Option<Duration> {
        let may = self.due == 0 && self.unheard < MOST_UNHEARD && !self.limit.is_zero();
        may.then_some(self.limit)
    }

    /// A look has found something before it came to listen to the connection.
    pub(super) fn did_not_listen(&mut self) {
        self.unheard = self.unheard.saturating_add(1);
    }

    /// A look has listened to the connection.
    pub(super) fn listened(&mut self) {
        self.unheard = 0;
    }

    /// A look is over that found something, or did not.
    pub(super) fn looked(&mut self, found: bool) {
        if found {
            self.penalty = 0;
        } else {
            self.penalty = (2 * self.penalty).clamp(1, LAST_PENALTY);
            self.due = self.penalty;
        }
    }

    /// A wait is over that was spent asleep, or at least went by way of all descriptors.
    pub(super) fn slept(&mut self, slept: Duration) {
        self.listened();
        if slept < self.limit + WAKE_UP {
            self.due = self.due.saturating_sub(1);
        } else {
            self.due = self.due.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(30);
    const LONG: Duration = Duration::from_millis(1);

    /// How many short sleeps it takes until the next look.
    fn sleeps_until_next_look(polling: &mut Polling) -> u32 {
        let mut count = 0;
        while polling.limit().is_none() {
            polling.slept(LIMIT);
            count += 1;
        }
        count
    }

    #[test]
    fn looks_after_a_short_sleep_and_for_as_long_as_it_finds_something() {
        let mut polling = Polling::new(LIMIT);
        assert_eq!(polling.limit(), None);
        polling.slept(LONG);
        assert_eq!(polling.limit(), None);
        polling.slept(LIMIT + WAKE_UP / 2);
        for _ in 0..100 {
            assert_eq!(polling.limit(), Some(LIMIT));
            polling.looked(true);
        }
    }

    #[test]
    fn looks_less_and_less_often_in_vain() {
        let mut polling = Polling::new(LIMIT);
        polling.slept(LIMIT);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            polling.looked(false);
            pauses.push(sleeps_until_next_look(&mut polling));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        polling.looked(true);
        polling.looked(false);
        assert_eq!(sleeps_until_next_look(&mut polling), 1);
    }

    #[test]
    fn long_sleeps_bring_no_look() {
        let mut polling = Polling::new(LIMIT);
        polling.slept(LIMIT);
        polling.looked(false);
        for _ in 0..1000 {
            polling.slept(LONG);
        }
        assert_eq!(sleeps_until_next_look(&mut polling), 1);
        polling.slept(LONG);
        assert_eq!(polling.limit(), None);
    }

    #[test]
    fn a_guest_that_always_has_more_does_not_keep_it_from_the_connection() {
        let mut polling = Polling::new(LIMIT);
        polling.slept(LIMIT);
        for _ in 0..MOST_UNHEARD {
            assert_eq!(polling.limit(), Some(LIMIT));
            polling.did_not_listen();
            polling.looked(true);
        }
        assert_eq!(polling.limit(), None);
        polling.slept(Duration::ZERO);
        assert_eq!(polling.limit(), Some(LIMIT));
        polling.did_not_listen();
        polling.listened();
        for _ in 1..MOST_UNHEARD {
            polling.did_not_listen();
        }
        assert_eq!(polling.limit(), Some(LIMIT));
    }

    #[test]
    fn never_looks_without_a_limit() {
        let mut polling = Polling::new(Duration::ZERO);
        for _ in 0..1000 {
            polling.slept(Duration::ZERO);
        }
        assert_eq!(polling.limit(), None);
    }
}
