//! How many commands the logical unit gets at once: what it takes, found out by asking.
//!
//! A logical unit that has too many answers TASK SET FULL or BUSY (SAM-6, "Status codes"), and no
//! target tells the number beforehand. So it is halved by such an answer, once per round trip, and
//! raised by one after each round of commands that went well: additive increase, multiplicative
//! decrease, as TCP does with its window.

use crate::limits::MAX_TASKS;

/// How many commands may be outstanding, and how many are.
#[derive(Debug)]
pub(super) struct Depth {
    limit: u32,
    outstanding: u32,
    /// The number of the last command that was sent.
    sent: u64,
    /// What was sent up to here tells nothing new: the limit has been lowered since.
    lowered_at: u64,
    /// Commands that went well since the limit was changed.
    successes: u32,
}

impl Depth {
    #[allow(clippy::cast_possible_truncation, reason = "a few hundred")]
    const MOST: u32 = MAX_TASKS as u32;

    /// No limit but the table of a session.
    pub(super) fn new() -> Self {
        Self {
            limit: Self::MOST,
            outstanding: 0,
            sent: 0,
            lowered_at: 0,
            successes: 0,
        }
    }

    /// Whether the next command has to wait for an answer to another.
    pub(super) fn is_reached(&self) -> bool {
        self.outstanding >= self.limit
    }

    /// How many commands have not ended.
    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// A command was sent; the result is its number.
    pub(super) fn sent(&mut self) -> u64 {
        self.outstanding = self.outstanding.saturating_add(1);
        self.sent = self.sent.saturating_add(1);
        self.sent
    }

    /// A command has ended, in whichever way.
    pub(super) fn ended(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// It went well.
    pub(super) fn succeeded(&mut self) {
        if self.limit == Self::MOST {
            return;
        }
        self.successes += 1;
        if self.successes >= self.limit {
            self.successes = 0;
            self.limit += 1;
        }
    }

    /// The command of this number was one too many; it has [`Depth::ended`] before.
    pub(super) fn refused(&mut self, number: u64) {
        if number <= self.lowered_at {
            return;
        }
        self.lowered_at = self.sent;
        self.successes = 0;
        let outstanding = self.outstanding.saturating_add(1);
        self.limit = (outstanding / 2).clamp(1, self.limit);
    }

    /// All commands are gone with their session. What was learned stays: it is about the logical
    /// unit, and has to be learned again only as far as it is wrong.
    pub(super) fn session_lost(&mut self) {
        self.outstanding = 0;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn with_outstanding(count: u32) -> (Depth, Vec<u64>) {
        let mut depth = Depth::new();
        let numbers = (0..count).map(|_| depth.sent()).collect();
        (depth, numbers)
    }

    fn refuse(depth: &mut Depth, number: u64) -> u32 {
        depth.ended();
        depth.refused(number);
        depth.limit
    }

    fn succeed(depth: &mut Depth) -> u32 {
        depth.sent();
        depth.ended();
        depth.succeeded();
        depth.limit
    }

    #[test]
    fn nothing_but_the_table_limits_a_target_that_takes_all() {
        let (mut depth, _) = with_outstanding(Depth::MOST - 1);
        assert!(!depth.is_reached());
        depth.sent();
        assert!(depth.is_reached());
        depth.ended();
        depth.succeeded();
        assert_eq!(depth.limit, Depth::MOST);
    }

    #[test]
    fn a_refusal_halves_what_is_outstanding_and_one_is_always_left() {
        for (outstanding, limit) in [(32, 16), (3, 1), (2, 1), (1, 1)] {
            let (mut depth, numbers) = with_outstanding(outstanding);
            assert_eq!(refuse(&mut depth, numbers[0]), limit, "{outstanding}");
        }
    }

    #[test]
    fn the_answers_of_one_round_trip_lower_it_once() {
        let (mut depth, numbers) = with_outstanding(32);
        for number in numbers.iter().rev() {
            assert_eq!(refuse(&mut depth, *number), 16);
        }
        for _ in 0..16 {
            depth.sent();
        }
        assert_eq!(depth.limit, 16);
        let last = depth.sent;
        assert_eq!(refuse(&mut depth, last), 8);
    }

    #[test]
    fn a_refusal_never_raises_it() {
        let (mut depth, _) = with_outstanding(4);
        let number = depth.sent;
        assert_eq!(refuse(&mut depth, number), 2);
        // Those from before are still there, besides a new one.
        for _ in 0..8 {
            depth.sent();
        }
        let number = depth.sent;
        assert_eq!(refuse(&mut depth, number), 2);
    }

    #[test]
    fn a_round_of_successes_raises_it_by_one_up_to_the_table() {
        let (mut depth, numbers) = with_outstanding(6);
        assert_eq!(refuse(&mut depth, numbers[0]), 3);
        for limit in [3, 3, 4, 4, 4, 4, 5] {
            assert_eq!(succeed(&mut depth), limit);
        }
        for _ in 0..Depth::MOST * Depth::MOST {
            succeed(&mut depth);
        }
        assert_eq!(depth.limit, Depth::MOST);
    }

    #[test]
    fn a_round_begins_anew_when_the_limit_is_lowered() {
        let (mut depth, numbers) = with_outstanding(32);
        assert_eq!(refuse(&mut depth, numbers[0]), 16);
        (1..32).for_each(|_| depth.ended());
        (0..15).for_each(|_| assert_eq!(succeed(&mut depth), 16));
        (0..16).for_each(|_| assert!(depth.sent() > 0));
        let number = depth.sent;
        assert_eq!(refuse(&mut depth, number), 8);
        assert_eq!(succeed(&mut depth), 8);
    }

    #[test]
    fn a_lost_session_leaves_nothing_outstanding_and_the_limit() {
        let (mut depth, numbers) = with_outstanding(8);
        refuse(&mut depth, numbers[0]);
        depth.session_lost();
        assert_eq!((depth.outstanding, depth.limit), (0, 4));
    }
}
