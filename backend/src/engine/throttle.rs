//! The limits of a disk in force: buckets that all its lanes share, and what a request takes of them.

use std::time::{Duration, Instant};

use super::bucket::Bucket;
use crate::device::request::{ParsedRequest, RequestKind};
use crate::limits::{Limits, Rate};

/// How far a guest may be ahead of a rate, as in QEMU: without that it would be behind for each moment
/// in which it asked for less, and every request would be held for a little.
const AHEAD: Duration = Duration::from_millis(100);

/// The buckets of a disk. A change of the limits makes new ones.
#[derive(Debug)]
pub(super) struct Throttle {
    epoch: Instant,
    requests: Meters,
    bytes: Meters,
}

/// A limit of both directions, or of each.
#[derive(Debug)]
struct Meters {
    total: Option<Meter>,
    reads: Option<Meter>,
    writes: Option<Meter>,
}

/// One limit.
#[derive(Debug)]
struct Meter {
    average: Bucket,
    /// How fast a burst may be.
    burst: Option<Bucket>,
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    direction: Direction,
    requests: u32,
    bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// A request that stays in its ring: it has paid, and waits for its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// What it has paid for.
    pub(super) load: Load,
    /// When it may go.
    pub(super) until: Instant,
    /// When it came.
    pub(super) since: Instant,
}

impl Throttle {
    /// `None` where there is no limit.
    pub(super) fn new(limits: &Limits, epoch: Instant) -> Option<Self> {
        let throttle = Self {
            epoch,
            requests: Meters::new([limits.iops_total, limits.iops_read, limits.iops_write]),
            bytes: Meters::new([limits.bps_total, limits.bps_read, limits.bps_write]),
        };
        (!limits.is_none()).then_some(throttle)
    }

    /// Takes what a request needs. When it may go, where that is not now.
    pub(super) fn take(&self, load: Load, now: Instant) -> Option<Held> {
        let now_ns = self.ns(now);
        let requests = self.requests.of(load.direction);
        let bytes = self.bytes.of(load.direction);
        let requests_at = requests.map(|meter| meter.take(load.requests, now_ns));
        let bytes_at = bytes.map(|meter| meter.take(load.bytes, now_ns));
        let at_ns = requests_at.chain(bytes_at).max().unwrap_or(0);
        (at_ns > now_ns).then(|| Held {
            load,
            // Beyond what a clock can say is beyond whatever happens.
            until: now
                .checked_add(Duration::from_nanos(at_ns - now_ns))
                .unwrap_or(now + Duration::from_secs(u32::MAX.into())),
            since: now,
        })
    }

    /// A request that was held will not come.
    pub(super) fn give_back(&self, load: Load) {
        for meter in self.requests.of(load.direction) {
            meter.give_back(load.requests);
        }
        for meter in self.bytes.of(load.direction) {
            meter.give_back(load.bytes);
        }
    }

    fn ns(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.epoch);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Meters {
    fn new(rates: [Option<Rate>; 3]) -> Self {
        let [total, reads, writes] = rates.map(|rate| rate.as_ref().map(Meter::new));
        Self {
            total,
            reads,
            writes,
        }
    }

    fn of(&self, direction: Direction) -> impl Iterator<Item = &Meter> {
        let part = match direction {
            Direction::Read => &self.reads,
            Direction::Write => &self.writes,
        };
        self.total.iter().chain(part)
    }
}

impl Meter {
    /// A burst goes on at its rate until what is more than the average has filled the bucket: after
    /// just the length that was asked for.
    fn new(rate: &Rate) -> Self {
        let burst_ahead = |max_per_s: u64| {
            let more = u128::from(max_per_s.saturating_sub(rate.per_s));
            let tokens = more * u128::from(rate.burst_length_s());
            let ns = tokens * 1_000_000_000 / u128::from(rate.per_s.max(1));
            Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
        };
        let ahead = rate.max_per_s.map_or(AHEAD, burst_ahead).max(AHEAD);
        Self {
            average: Bucket::new(rate.per_s, ahead),
            burst: rate.max_per_s.map(|max| Bucket::new(max, AHEAD)),
        }
    }

    fn take(&self, tokens: u32, now_ns: u64) -> u64 {
        let average = self.average.take(tokens, now_ns);
        let burst = self.burst.as_ref();
        burst.map_or(average, |burst| average.max(burst.take(tokens, now_ns)))
    }

    fn give_back(&self, tokens: u32) {
        self.average.give_back(tokens);
        self.burst.iter().for_each(|burst| burst.give_back(tokens));
    }
}

impl Load {
    /// `None` for what is not limited: it moves no data, and waits for what does.
    ///
    /// Bytes are those that the network carries. A discard carries none, nor do zeros where the target
    /// has a command for them; each of their ranges is a command, though, and counts as a request.
    pub(super) fn of(request: &ParsedRequest, writes_zeros_as_data: bool) -> Option<Self> {
        let ranges = u32::try_from(request.ranges.len()).unwrap_or(u32::MAX);
        let (direction, requests, bytes) = match request.kind {
            RequestKind::Read => (Direction::Read, 1, request.data_length_bytes.into()),
            RequestKind::Write => (Direction::Write, 1, request.data_length_bytes.into()),
            RequestKind::WriteZeroes if writes_zeros_as_data => {
                let lengths = request.extents().map(|extent| extent.length_bytes);
                (Direction::Write, ranges.max(1), lengths.sum())
            }
            RequestKind::Discard | RequestKind::WriteZeroes => (Direction::Write, ranges.max(1), 0),
            RequestKind::Flush | RequestKind::GetId => return None,
        };
        Some(Self {
            direction,
            requests,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        })
    }
}
