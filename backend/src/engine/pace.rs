//! How a lane waits: awake for a while, asleep until something happens, or a little longer so that
//! answers arrive in company.
//!
//! **Polling.** Waking a sleeping thread costs more than a short request. When waits have been
//! short lately, the lane looks at its rings and its connection for up to the limit that was
//! configured before it goes to sleep; the first look in vain ends this until waits are short
//! again. A disk that is idle is asleep.
//!
//! **Coalescing.** Many targets answer one command at a time. To be woken for each answer costs
//! several times what the answer itself costs, so while many commands are in flight and answers
//! come fast, the lane asks to be woken for several ([`Pace::low_water_bytes`], SO_RCVLOWAT). No
//! answer waits longer than [`COALESCE_LIMIT`] for others: the option has no time-out of its own,
//! so the lane's wait has one.

use std::time::{Duration, Instant};

/// The longest that an answer waits for the next ones. Half of what a request takes at a queue
/// depth where coalescing sets in, on a loopback connection to a fast target; much less than that
/// over a network.
pub(super) const COALESCE_LIMIT: Duration = Duration::from_micros(100);

/// What is asked for at once is what arrives in this time at the present rate, so that the limit
/// is the exception.
const COALESCE_AIM_US: u64 = 75;

/// How many answers are not waited for: the target is to have something to do until what arrived
/// has woken the lane, was handled, and has brought new commands. A target that runs dry goes to
/// sleep, and to wake it costs the lane more than many answers do. With a depth below this nothing
/// is coalesced: measured against tgt at a depth of 8, waiting for half of the answers took away
/// 40 % of the requests per second.
const RESERVED_ANSWERS: u64 = 16;

/// The most that is waited for: a receive buffer's worth would keep a fast target waiting for us
/// to make room, and so does much less than that.
const MAX_LOW_WATER_BYTES: u64 = 64 * 1024;

/// The weight of a new sample in the average rate, as a divisor.
const SMOOTHING: u64 = 4;

/// What a lane knows about its waits. Times are measured by the caller, who has them anyway.
#[derive(Debug)]
pub(super) struct Pace {
    /// The longest that polling takes; zero for never.
    poll_limit: Duration,
    /// Waits have been short lately.
    poll_pays: bool,
    /// Arrived bytes per millisecond, of late.
    rate: u64,
    /// How many answers are usually awaited. Up at once, down slowly: between the completion of
    /// requests and the next ones of the guest there are fewer.
    depth: u64,
    last_receive: Instant,
    low_water_bytes: u64,
    /// When what arrived is to be taken in, low water or not.
    receive_by: Option<Instant>,
}

impl Pace {
    pub(super) fn new(poll_limit: Duration, now: Instant) -> Self {
        Self {
            poll_limit,
            poll_pays: false,
            rate: 0,
            depth: 0,
            last_receive: now,
            low_water_bytes: 1,
            receive_by: None,
        }
    }

    /// How long to poll before sleeping; `None` when that would not pay.
    pub(super) fn poll_limit(&self) -> Option<Duration> {
        let is_worth_it = self.poll_pays && self.low_water_bytes == 1;
        is_worth_it.then_some(self.poll_limit)
    }

    /// A wait is over that took `waited`, asleep or not.
    pub(super) fn waited(&mut self, waited: Duration) {
        self.poll_pays = waited < self.poll_limit;
    }

    /// `length_bytes` were received, all there was, at `now`.
    pub(super) fn received(&mut self, length_bytes: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.last_receive);
        let elapsed_us = u64::try_from(elapsed.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = length_bytes.saturating_mul(1000) / elapsed_us;
        let is_late = self.receive_by.is_some_and(|by| by <= now);
        self.rate = if is_late {
            // Fewer came than expected: believe it at once.
            self.rate.min(rate)
        } else {
            self.rate - self.rate / SMOOTHING + rate / SMOOTHING
        };
        self.last_receive = now;
        self.receive_by = None;
    }

    /// The number of bytes to be woken for, when `answers` are awaited that have `awaited_bytes`
    /// in all; 1 is "at once".
    ///
    /// Never all that is awaited: the last answers of a burst may be the slow ones.
    pub(super) fn low_water_bytes(&mut self, answers: u64, awaited_bytes: u64) -> u64 {
        if answers == 0 {
            // Nothing to wait for: what comes next is probably as many as before.
            return self.low_water_bytes;
        }
        self.depth = answers.max(self.depth - self.depth.div_ceil(8));
        let answer_bytes = awaited_bytes / answers;
        let wanted = (self.rate.saturating_mul(COALESCE_AIM_US) / 1000)
            .min(answer_bytes * self.depth.saturating_sub(RESERVED_ANSWERS))
            .min(awaited_bytes / 4 * 3)
            .min(MAX_LOW_WATER_BYTES);
        if wanted < 2 * answer_bytes {
            self.low_water_bytes = 1;
        } else if !(wanted / 2..=wanted).contains(&self.low_water_bytes) {
            // A band rather than a value: each change is a system call.
            self.low_water_bytes = wanted * 3 / 4;
        }
        self.low_water_bytes
    }

    /// When the lane, about to wait at `now`, has to wake up for what arrived below the low water
    /// mark.
    pub(super) fn receive_by(&mut self, now: Instant) -> Option<Instant> {
        if self.low_water_bytes == 1 {
            self.receive_by = None;
        } else if self.receive_by.is_none() {
            self.receive_by = Some(now + COALESCE_LIMIT);
        }
        self.receive_by
    }

    /// Whether what arrived is to be taken in now, though the connection did not report it.
    pub(super) fn is_receive_due(&self, now: Instant) -> bool {
        self.receive_by.is_some_and(|by| by <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER_BYTES: u64 = 48 + 4096;
    const AT_ONCE: u64 = 1;

    /// A pace that has seen an answer every `every_us` for a while, and the time.
    fn with_answers_every(every_us: u64) -> (Pace, Instant) {
        let mut now = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, now);
        for _ in 0..50 {
            now += Duration::from_micros(every_us);
            pace.received(ANSWER_BYTES, now);
        }
        (pace, now)
    }

    fn low_water(pace: &mut Pace, answers: u64) -> u64 {
        pace.low_water_bytes(answers, answers * ANSWER_BYTES)
    }

    #[test]
    fn few_answers_or_slow_ones_come_alone() {
        let (mut fast, _) = with_answers_every(10);
        for answers in 1..=RESERVED_ANSWERS {
            assert_eq!(low_water(&mut fast, answers), AT_ONCE, "{answers}");
        }
        let (mut slow, now) = with_answers_every(COALESCE_AIM_US / 2 + 1);
        assert_eq!(low_water(&mut slow, 128), AT_ONCE);
        assert_eq!(slow.receive_by(now), None);
    }

    #[test]
    fn what_arrives_within_the_aim_comes_together_but_for_the_reserve() {
        let (mut pace, now) = with_answers_every(10);
        let many = low_water(&mut pace, 128);
        let aimed = ANSWER_BYTES * COALESCE_AIM_US / 10;
        assert!((aimed / 2..=aimed).contains(&many), "{many} of {aimed}");
        assert_eq!(pace.receive_by(now), Some(now + COALESCE_LIMIT));
        let (mut pace, _) = with_answers_every(1);
        let spared = ANSWER_BYTES * (20 - RESERVED_ANSWERS);
        assert!((spared / 2..=spared).contains(&low_water(&mut pace, 20)));
    }

    #[test]
    fn the_limit_counts_from_the_first_wait_and_holds_until_the_receive() {
        let (mut pace, now) = with_answers_every(10);
        low_water(&mut pace, 32);
        let by = pace.receive_by(now).unwrap();
        // A kick wakes the lane meanwhile, and it waits again.
        let later = now + COALESCE_LIMIT / 2;
        assert_eq!(pace.receive_by(later), Some(by));
        assert!(!pace.is_receive_due(later));
        assert!(pace.is_receive_due(by));
        pace.received(ANSWER_BYTES, by);
        assert!(!pace.is_receive_due(by));
    }

    #[test]
    fn a_target_that_stops_answering_is_believed_at_once() {
        let (mut pace, now) = with_answers_every(10);
        low_water(&mut pace, 32);
        let by = pace.receive_by(now).unwrap();
        pace.received(0, by);
        assert_eq!(low_water(&mut pace, 32), AT_ONCE);
    }

    #[test]
    fn the_last_answers_of_a_burst_are_not_waited_for() {
        let (mut pace, _) = with_answers_every(1);
        for answers in (1..=32).rev() {
            let mark = low_water(&mut pace, answers);
            assert!(mark == AT_ONCE || mark < answers * ANSWER_BYTES);
        }
        assert_eq!(low_water(&mut pace, 1), AT_ONCE);
    }

    #[test]
    fn a_steady_load_changes_the_mark_once() {
        let (mut pace, _) = with_answers_every(10);
        let mark = low_water(&mut pace, 32);
        for answers in [31, 20, 0, 16, 34, 0, 32] {
            assert_eq!(low_water(&mut pace, answers), mark, "{answers}");
        }
    }

    #[test]
    fn polls_after_a_short_wait_until_one_was_in_vain() {
        let limit = Duration::from_micros(50);
        let mut pace = Pace::new(limit, Instant::now());
        assert_eq!(pace.poll_limit(), None);
        pace.waited(limit / 2);
        assert_eq!(pace.poll_limit(), Some(limit));
        pace.waited(limit);
        assert_eq!(pace.poll_limit(), None);
    }

    #[test]
    fn never_polls_without_a_limit() {
        let mut pace = Pace::new(Duration::ZERO, Instant::now());
        pace.waited(Duration::ZERO);
        assert_eq!(pace.poll_limit(), None);
    }
}
