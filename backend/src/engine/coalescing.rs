//! When answers are waited for in company.
//!
//! Many targets answer one command at a time. To be woken for each answer costs several times what
//! the answer itself costs, so while many commands are in flight and answers come fast, the lane
//! asks to be woken for several ([`Coalescing::low_water_bytes`], SO_RCVLOWAT). No answer waits
//! longer than [`COALESCE_LIMIT`] for others: the option has no time-out of its own, so the lane's
//! wait has one.

use std::time::{Duration, Instant};

/// The longest that an answer waits for the next ones. At the queue depths where coalescing sets
/// in a request takes about as long on a loopback connection to a fast target, and several times
/// that over a network.
pub(super) const COALESCE_LIMIT: Duration = Duration::from_micros(200);

/// What is asked for at once is what arrives at the present rate within [`AIM_SHARE`] of the time
/// that a request takes, but not less than the one and not more than the other of these times: the
/// limit is the exception.
const SHORTEST_AIM_US: u64 = 75;
const LONGEST_AIM_US: u64 = 150;
const AIM_SHARE: u64 = 6;

/// How many answers are not waited for: the target is to have something to do until what arrived
/// has woken the lane, was handled, and has brought new commands. A target that runs dry goes to
/// sleep, and to wake it costs the lane more than many answers do. With a depth below this nothing
/// is coalesced: measured against tgt at a depth of 8, waiting for half of the answers took away
/// 40 % of the requests per second.
const RESERVED_ANSWERS: u64 = 16;
/// The same for long answers, of which fewer keep the target busy: what arrives in this time.
const RESERVED_US: u64 = 100;

/// An answer as large as that needs no company; it may as well arrive in pieces of this size at
/// least.
const COMPANY_BYTES: u64 = 32 * 1024;

/// The most that is waited for, well below what the kernel lets a receive buffer grow to: a target
/// must not have to stop sending.
const MAX_LOW_WATER_BYTES: u64 = 512 * 1024;

/// The weight of a new sample in the average rate, as a divisor.
const SMOOTHING: u64 = 4;

/// What a lane knows about the answers that it waits for. Times are measured by the caller, who
/// has them anyway.
#[derive(Debug)]
pub(super) struct Coalescing {
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

impl Coalescing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: 0,
            depth: 0,
            last_receive: now,
            low_water_bytes: 1,
            receive_by: None,
        }
    }

    /// Whether answers are waited for in company at present.
    fn is_on(&self) -> bool {
        self.low_water_bytes > 1
    }

    /// Whether it takes longer than `limit` until as much has arrived as was last asked for.
    pub(super) fn takes_longer_than(&self, limit: Duration) -> bool {
        let wait_us = self.low_water_bytes.saturating_mul(1000) / self.rate.max(1);
        self.is_on() && Duration::from_micros(wait_us) >= limit
    }

    /// `length_bytes` were received, all there was, at `now`.
    pub(super) fn received(&mut self, length_bytes: u64, now: Instant) {
        let is_late = self.is_receive_due(now);
        if length_bytes == 0 && !is_late {
            // A look in vain, as polling makes them.
            return;
        }
        let elapsed = now.saturating_duration_since(self.last_receive);
        let elapsed_us = u64::try_from(elapsed.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = length_bytes.saturating_mul(1000) / elapsed_us;
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
            return self.low_water_while_idle();
        }
        self.depth = answers.max(self.depth - self.depth.div_ceil(8));
        let answer_bytes = awaited_bytes / answers;
        let usual_bytes = answer_bytes * self.depth;
        let usual_us = usual_bytes.saturating_mul(1000) / self.rate.max(1);
        let aim_us = (usual_us / AIM_SHARE).clamp(SHORTEST_AIM_US, LONGEST_AIM_US);
        let reserved_bytes = self
            .bytes_in(RESERVED_US)
            .min(answer_bytes * RESERVED_ANSWERS);
        let wanted = self
            .bytes_in(aim_us)
            .min(usual_bytes.saturating_sub(reserved_bytes))
            .min(awaited_bytes / 4 * 3)
            .min(MAX_LOW_WATER_BYTES);
        if wanted < COMPANY_BYTES.min(2 * answer_bytes) {
            self.low_water_bytes = 1;
        } else if !(wanted / 2..=wanted).contains(&self.low_water_bytes) {
            // A band rather than a value: each change is a system call.
            self.low_water_bytes = wanted * 3 / 4;
        }
        self.low_water_bytes
    }

    /// What arrives in that time at the present rate.
    fn bytes_in(&self, time_us: u64) -> u64 {
        self.rate.saturating_mul(time_us) / 1000
    }

    /// No command is in flight: soon there will be as many as before. But when that has not come
    /// true by the time that something had to be received, pings are all that arrives.
    fn low_water_while_idle(&mut self) -> u64 {
        if self.rate == 0 {
            self.low_water_bytes = 1;
        }
        self.low_water_bytes
    }

    /// When the lane, about to wait at `now`, has to wake up for what arrived below the low water
    /// mark.
    pub(super) fn receive_by(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_on() {
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

    /// One that has seen an answer every `every_us` for a while, and the time.
    fn with_answers_every(every_us: u64) -> (Coalescing, Instant) {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(now);
        for _ in 0..50 {
            now += Duration::from_micros(every_us);
            coalescing.received(ANSWER_BYTES, now);
        }
        (coalescing, now)
    }

    fn low_water(coalescing: &mut Coalescing, answers: u64) -> u64 {
        coalescing.low_water_bytes(answers, answers * ANSWER_BYTES)
    }

    #[test]
    fn few_answers_or_slow_ones_come_alone() {
        let (mut fast, _) = with_answers_every(RESERVED_US / RESERVED_ANSWERS);
        for answers in 1..=RESERVED_ANSWERS {
            assert_eq!(low_water(&mut fast, answers), AT_ONCE, "{answers}");
        }
        let (mut slow, now) = with_answers_every(LONGEST_AIM_US / 2 + 1);
        assert_eq!(low_water(&mut slow, 128), AT_ONCE);
        assert_eq!(slow.receive_by(now), None);
    }

    #[test]
    fn what_arrives_within_the_aim_comes_together_but_for_the_reserve() {
        let (mut coalescing, now) = with_answers_every(10);
        let many = low_water(&mut coalescing, 128);
        let aimed = ANSWER_BYTES * LONGEST_AIM_US / 10;
        assert!((aimed / 2..=aimed).contains(&many), "{many} of {aimed}");
        assert_eq!(coalescing.receive_by(now), Some(now + COALESCE_LIMIT));
        let (mut coalescing, _) = with_answers_every(1);
        let spared = ANSWER_BYTES * (20 - RESERVED_ANSWERS);
        assert!((spared / 2..=spared).contains(&low_water(&mut coalescing, 20)));
    }

    #[test]
    fn the_limit_counts_from_the_first_wait_and_holds_until_the_receive() {
        let (mut coalescing, now) = with_answers_every(10);
        low_water(&mut coalescing, 32);
        let by = coalescing.receive_by(now).unwrap();
        // A kick wakes the lane meanwhile, and it waits again.
        let later = now + COALESCE_LIMIT / 2;
        assert_eq!(coalescing.receive_by(later), Some(by));
        assert!(!coalescing.is_receive_due(later));
        assert!(coalescing.is_receive_due(by));
        coalescing.received(ANSWER_BYTES, by);
        assert!(!coalescing.is_receive_due(by));
    }

    #[test]
    fn a_target_that_stops_answering_is_believed_at_once() {
        let (mut coalescing, now) = with_answers_every(10);
        low_water(&mut coalescing, 32);
        let by = coalescing.receive_by(now).unwrap();
        coalescing.received(0, by);
        assert_eq!(low_water(&mut coalescing, 32), AT_ONCE);
    }

    #[test]
    fn the_last_answers_of_a_burst_are_not_waited_for() {
        let (mut coalescing, _) = with_answers_every(1);
        for answers in (1..=32).rev() {
            let mark = low_water(&mut coalescing, answers);
            assert!(mark == AT_ONCE || mark < answers * ANSWER_BYTES);
        }
        assert_eq!(low_water(&mut coalescing, 1), AT_ONCE);
    }

    #[test]
    fn a_mark_that_nothing_reaches_does_not_outlast_the_limit() {
        let (mut coalescing, now) = with_answers_every(10);
        let mark = low_water(&mut coalescing, 32);
        assert_eq!(low_water(&mut coalescing, 0), mark);
        let by = coalescing.receive_by(now).unwrap();
        coalescing.received(0, by);
        assert_eq!(low_water(&mut coalescing, 0), AT_ONCE);
        assert_eq!(coalescing.receive_by(by), None);
    }

    #[test]
    fn large_answers_come_in_large_pieces() {
        let (mut coalescing, mut now) = with_answers_every(10);
        for _ in 0..50 {
            now += Duration::from_micros(25);
            coalescing.received(48 + 65_536, now);
        }
        let mut mark = |answers: u64| coalescing.low_water_bytes(answers, answers * (48 + 65_536));
        assert!((COMPANY_BYTES..=MAX_LOW_WATER_BYTES).contains(&mark(16)));
    }

    #[test]
    fn a_steady_load_changes_the_mark_once() {
        let (mut coalescing, _) = with_answers_every(10);
        let mark = low_water(&mut coalescing, 32);
        for answers in [31, 20, 0, 16, 34, 0, 32] {
            assert_eq!(low_water(&mut coalescing, answers), mark, "{answers}");
        }
    }
}
