//! What a lane counts, for whoever looks into the process.
//!
//! Each counter is written by one lane and read by anybody: an atomic that is loaded, changed and stored,
//! each relaxed, which costs what a plain variable does. Nothing is ever waited for, allocated or asked
//! of the system here, and the clock is that of the lane's turn: a latency is exact to the length of
//! a turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::request::{RequestKind, Status};
use crate::stats::{Bucket, Histogram, OperationStats, Operations, SessionStats};

/// How many buckets a histogram has: two for each doubling up to 2^27 µs, which is two minutes; the last
/// one takes all that is longer.
const BUCKETS: usize = 54;

/// What a lane has counted so far. On cache lines of its own: lanes do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct LaneStats {
    operations: [OperationCounters; 6],
    /// Requests in flight, at the end of the last turn.
    pub(super) in_flight: Counter,
    pub(super) sessions_lost: Counter,
    pub(super) commands_timed_out: Counter,
    pub(super) commands_aborted: Counter,
    /// As counted by the core, at the end of the last turn.
    pub(super) retries: Counter,
    pub(super) rejects: Counter,
    window_closed: Counter,
    table_full: Counter,
    target_busy: Counter,
    /// Requests that a limit has held.
    pub(super) throttled: Counter,
    throttled_us: Counter,
}

/// Why requests stay in their ring for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// There is no session, the barrier stands, or the session is about to end: the status says so.
    Away,
    /// The target takes no further command for now.
    WindowClosed,
    /// As much is in flight as there may be.
    TableFull,
    /// The target has said that it has too much to do.
    TargetBusy,
}

/// A number that one thread writes.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct OperationCounters {
    requests: Counter,
    bytes: Counter,
    errors: Counter,
    latency_us: Counter,
    buckets: [Counter; BUCKETS],
}

impl Default for OperationCounters {
    fn default() -> Self {
        Self {
            requests: Counter::default(),
            bytes: Counter::default(),
            errors: Counter::default(),
            latency_us: Counter::default(),
            buckets: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl LaneStats {
    /// A request has ended, after this time. `length_bytes` is what it was about.
    pub(super) fn ended(
        &self,
        kind: RequestKind,
        length_bytes: u64,
        status: Status,
        latency: Duration,
    ) {
        let [read, write, flush, discard, write_zeroes, other] = &self.operations;
        let counters = match kind {
            RequestKind::Read => read,
            RequestKind::Write => write,
            RequestKind::Flush => flush,
            RequestKind::Discard => discard,
            RequestKind::WriteZeroes => write_zeroes,
            RequestKind::GetId => other,
        };
        counters.requests.add(1);
        match status {
            Status::Ok => counters.bytes.add(length_bytes),
            Status::IoErr | Status::Unsupp => counters.errors.add(1),
        }
        let latency_us = in_us(latency);
        counters.latency_us.add(latency_us);
        if let Some(bucket) = counters.buckets.get(bucket_of(latency_us)) {
            bucket.add(1);
        }
    }

    /// Requests stayed in their ring in this turn.
    pub(super) fn held(&self, hold: Hold) {
        match hold {
            Hold::Away => {}
            Hold::WindowClosed => self.window_closed.add(1),
            Hold::TableFull => self.table_full.add(1),
            Hold::TargetBusy => self.target_busy.add(1),
        }
    }

    /// A request goes that a limit has held.
    pub(super) fn was_held(&self, now: Instant, since: Instant) {
        let held = now.saturating_duration_since(since);
        self.throttled_us.add(in_us(held));
    }

    fn read(&self, session: usize) -> SessionStats {
        let [read, write, flush, discard, write_zeroes, other] = &self.operations;
        SessionStats {
            session,
            in_flight: self.in_flight.get(),
            sessions_lost: self.sessions_lost.get(),
            commands_timed_out: self.commands_timed_out.get(),
            commands_aborted: self.commands_aborted.get(),
            retries: self.retries.get(),
            rejects: self.rejects.get(),
            window_closed: self.window_closed.get(),
            table_full: self.table_full.get(),
            target_busy: self.target_busy.get(),
            throttled: self.throttled.get(),
            throttled_us: self.throttled_us.get(),
            operations: Operations {
                read: read.read(),
                write: write.read(),
                flush: flush.read(),
                discard: discard.read(),
                write_zeroes: write_zeroes.read(),
                other: other.read(),
            },
        }
    }
}

impl OperationCounters {
    /// What requests there are is taken from the histogram, so that the two agree while a lane counts on.
    fn read(&self) -> OperationStats {
        let buckets = self
            .buckets
            .iter()
            .enumerate()
            .map(|(index, count)| Bucket {
                below_us: (index + 1 < BUCKETS).then(|| lower_bound_us(index + 1)),
                requests: count.get(),
            });
        let latency = Histogram {
            sum_us: self.latency_us.get(),
            buckets: buckets.filter(|bucket| bucket.requests > 0).collect(),
        };
        OperationStats {
            requests: latency.count(),
            bytes: self.bytes.get(),
            errors: self.errors.get(),
            latency,
        }
    }
}

/// To the nearest microsecond.
fn in_us(time: Duration) -> u64 {
    time.as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(u64::from(time.subsec_nanos() + 500) / 1000)
}

/// Which bucket a latency belongs to: the two highest bits decide, those below are left out.
fn bucket_of(latency_us: u64) -> usize {
    let Some(octave) = latency_us.checked_ilog2().filter(|octave| *octave > 0) else {
        return usize::from(latency_us > 0);
    };
    let half = (latency_us >> (octave - 1)) & 1;
    (2 * octave as usize + usize::from(half == 1)).min(BUCKETS - 1)
}

/// The least latency of a bucket.
const fn lower_bound_us(bucket: usize) -> u64 {
    match bucket {
        0 | 1 => bucket as u64,
        _ => (2 + bucket as u64 % 2) << (bucket / 2 - 1),
    }
}

/// What all lanes of a disk have counted, also those that have ended.
#[derive(Debug, Default)]
pub(super) struct StatsBook(Mutex<Vec<Page>>);

/// The lanes of one index: they come and go with front-ends.
#[derive(Debug, Default)]
struct Page {
    /// Those that run, or have just ended.
    running: Vec<Arc<LaneStats>>,
    /// The sum of all others.
    ended: SessionStats,
}

impl StatsBook {
    /// The counters of another lane. A former one of the same index may still be about to end, so each
    /// has its own.
    pub(super) fn add_lane(&self, index: usize) -> Arc<LaneStats> {
        let stats = Arc::new(LaneStats::default());
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while pages.len() <= index {
            pages.push(Page::default());
        }
        if let Some(page) = pages.get_mut(index) {
            page.close_ended();
            page.running.push(Arc::clone(&stats));
        }
        stats
    }

    /// The sums, by session.
    pub(super) fn read(&self) -> Vec<SessionStats> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(session, page): (usize, &mut Page)| {
            page.close_ended();
            let mut sum = SessionStats {
                session,
                ..page.ended.clone()
            };
            page.running
                .iter()
                .for_each(|lane| sum.add(&lane.read(session)));
            sum
        };
        pages.iter_mut().enumerate().map(read).collect()
    }
}

impl Page {
    /// Adds up the lanes that nobody writes for any more.
    fn close_ended(&mut self) {
        let ended = &mut self.ended;
        self.running.retain(|lane| {
            let is_running = Arc::strong_count(lane) > 1;
            if !is_running {
                let last = SessionStats {
                    in_flight: 0,
                    ..lane.read(0)
                };
                ended.add(&last);
            }
            is_running
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_is_in_the_one_bucket_whose_bounds_hold_it() {
        let mut bounds: Vec<_> = (0..BUCKETS).map(lower_bound_us).collect();
        assert_eq!(bounds[..10], [0, 1, 2, 3, 4, 6, 8, 12, 16, 24]);
        assert!(bounds.is_sorted_by(|a, b| a < b));
        bounds.push(u64::MAX);
        for (bucket, bounds) in bounds.windows(2).enumerate() {
            assert_eq!(bucket_of(bounds[0]), bucket);
            assert_eq!(bucket_of(bounds[1] - 1), bucket);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_time_is_rounded_to_microseconds() {
        for (nanoseconds, us) in [
            (0, 0),
            (499, 0),
            (500, 1),
            (1_499, 1),
            (1_000_000_500, 1_000_001),
        ] {
            assert_eq!(in_us(Duration::from_nanos(nanoseconds)), us);
        }
        assert_eq!(in_us(Duration::MAX), u64::MAX);
    }

    #[test]
    fn requests_bytes_and_errors_are_counted_where_they_belong() {
        let book = StatsBook::default();
        let lane = book.add_lane(1);
        let us = Duration::from_micros;
        lane.ended(RequestKind::Read, 4096, Status::Ok, us(100));
        lane.ended(RequestKind::Read, 4096, Status::IoErr, us(5));
        lane.ended(RequestKind::Discard, 512, Status::Unsupp, us(1 << 40));
        let sessions = book.read();
        assert_eq!(sessions.len(), 2);
        let Operations { read, discard, .. } = &sessions[1].operations;
        assert_eq!((read.requests, read.bytes, read.errors), (2, 4096, 1));
        assert_eq!(read.latency.sum_us, 105);
        assert_eq!(read.latency.percentile_us(1000), Some(Some(128)));
        assert_eq!((discard.requests, discard.bytes, discard.errors), (1, 0, 1));
        assert_eq!(discard.latency.percentile_us(500), Some(None));
        assert_eq!(sessions[0].operations, Operations::default());
    }

    #[test]
    fn what_a_lane_has_counted_outlives_it() {
        let book = StatsBook::default();
        for _ in 0..3 {
            let lane = book.add_lane(0);
            lane.ended(RequestKind::Write, 512, Status::Ok, Duration::ZERO);
            lane.in_flight.set(7);
            lane.held(Hold::WindowClosed);
        }
        let [session] = &book.read()[..] else {
            panic!("one session");
        };
        assert_eq!(session.operations.write.bytes, 3 * 512);
        assert_eq!((session.window_closed, session.in_flight), (3, 0));
        assert_eq!(book.0.lock().unwrap()[0].running.len(), 0);
    }
}
