//! What a serving process has counted: plain data, made by the engine and `control`, sent over the
//! control socket, rendered by `cli` and as metrics.
//!
//! The names of the fields are a promise to programs, as those of [`status`](crate::status).

use serde::{Deserialize, Serialize};

use crate::status::Timestamp;

/// A whole process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Since when it runs.
    pub started: Timestamp,
    /// When all of this was so.
    pub now: Timestamp,
    /// Its disks, or the one that was asked for.
    pub disks: Vec<DiskStats>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// What people call it.
    pub name: String,
    /// Since when it is counted: its first login. `null` before.
    pub since: Option<Timestamp>,
    /// By their number; one that is gone keeps what was counted.
    pub sessions: Vec<SessionStats>,
}

/// A session, and the lane that carries its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStats {
    /// Which one of the disk.
    pub session: usize,
    /// Requests in flight now.
    pub in_flight: u64,
    /// How often the session was lost.
    pub sessions_lost: u64,
    /// Commands that were not answered within `--command-timeout`.
    pub commands_timed_out: u64,
    /// Commands that the target ended when it was asked to.
    pub commands_aborted: u64,
    /// Requests that were begun again: the target was busy, not ready, reported a unit attention, or had
    /// ended a command. Those of a lost session are not among them.
    pub retries: u64,
    /// PDUs that the target rejected.
    pub rejects: u64,
    /// Turns of the lane in which requests stayed in their ring because the target's command window was
    /// closed.
    pub window_closed: u64,
    /// The same because as many requests were in flight as there may be.
    pub table_full: u64,
    /// The same because the target had said that it is busy (BUSY, TASK SET FULL).
    pub target_busy: u64,
    /// Requests that a limit of the disk has held in their ring.
    #[serde(default)]
    pub throttled: u64,
    /// For how long, of those that have gone since. Those behind them are not counted.
    #[serde(default)]
    pub throttled_us: u64,
    /// What guests asked for.
    pub operations: Operations,
}

/// Requests of guests that have ended, by what they asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the operations'")]
pub struct Operations {
    pub read: OperationStats,
    pub write: OperationStats,
    pub flush: OperationStats,
    pub discard: OperationStats,
    pub write_zeroes: OperationStats,
    /// The disk's serial, which takes no command.
    pub other: OperationStats,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStats {
    /// How many have ended.
    pub requests: u64,
    /// What those that succeeded were about.
    pub bytes: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// From the ring and back to it.
    pub latency: Histogram,
}

/// How long requests took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Of all of them together.
    pub sum_us: u64,
    /// In ascending order; those of no request are left out.
    pub buckets: Vec<Bucket>,
}

/// Requests that took about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Less than this, and no less than the bucket before says; `null` for whatever took longer.
    pub below_us: Option<u64>,
    /// How many.
    pub requests: u64,
}

impl Operations {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, &OperationStats); 6] {
        [
            ("read", &self.read),
            ("write", &self.write),
            ("flush", &self.flush),
            ("discard", &self.discard),
            ("write_zeroes", &self.write_zeroes),
            ("other", &self.other),
        ]
    }

    /// What was counted since an earlier answer; `None` when that is not of the same count.
    fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            read: self.read.since(&earlier.read)?,
            write: self.write.since(&earlier.write)?,
            flush: self.flush.since(&earlier.flush)?,
            discard: self.discard.since(&earlier.discard)?,
            write_zeroes: self.write_zeroes.since(&earlier.write_zeroes)?,
            other: self.other.since(&earlier.other)?,
        })
    }

    /// Adds what another session has counted.
    pub fn add(&mut self, other: &Self) {
        self.read.add(&other.read);
        self.write.add(&other.write);
        self.flush.add(&other.flush);
        self.discard.add(&other.discard);
        self.write_zeroes.add(&other.write_zeroes);
        self.other.add(&other.other);
    }
}

impl SessionStats {
    /// What was counted since an earlier answer about the same session; `None` when something has
    /// become less, so that it was another process that counted then. `in_flight` is that of now.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let less = u64::checked_sub;
        Some(Self {
            session: self.session,
            in_flight: self.in_flight,
            sessions_lost: less(self.sessions_lost, earlier.sessions_lost)?,
            commands_timed_out: less(self.commands_timed_out, earlier.commands_timed_out)?,
            commands_aborted: less(self.commands_aborted, earlier.commands_aborted)?,
            retries: less(self.retries, earlier.retries)?,
            rejects: less(self.rejects, earlier.rejects)?,
            window_closed: less(self.window_closed, earlier.window_closed)?,
            table_full: less(self.table_full, earlier.table_full)?,
            target_busy: less(self.target_busy, earlier.target_busy)?,
            throttled: less(self.throttled, earlier.throttled)?,
            throttled_us: less(self.throttled_us, earlier.throttled_us)?,
            operations: self.operations.since(&earlier.operations)?,
        })
    }

    /// Adds what another session has counted; the number stays.
    pub fn add(&mut self, other: &Self) {
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        for (sum, more) in [
            (&mut self.sessions_lost, other.sessions_lost),
            (&mut self.commands_timed_out, other.commands_timed_out),
            (&mut self.commands_aborted, other.commands_aborted),
            (&mut self.retries, other.retries),
            (&mut self.rejects, other.rejects),
            (&mut self.window_closed, other.window_closed),
            (&mut self.table_full, other.table_full),
            (&mut self.target_busy, other.target_busy),
            (&mut self.throttled, other.throttled),
            (&mut self.throttled_us, other.throttled_us),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.operations.add(&other.operations);
    }
}

impl OperationStats {
    fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(earlier.requests)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
            errors: self.errors.checked_sub(earlier.errors)?,
            latency: self.latency.since(&earlier.latency)?,
        })
    }

    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.add(&other.latency);
    }
}

impl Histogram {
    fn since(&self, earlier: &Self) -> Option<Self> {
        let mut earlier_buckets = earlier.buckets.iter().peekable();
        let mut buckets = Vec::new();
        for bucket in &self.buckets {
            let before = earlier_buckets.next_if(|before| before.below_us == bucket.below_us);
            let requests = bucket
                .requests
                .checked_sub(before.map_or(0, |b| b.requests))?;
            buckets.extend((requests > 0).then_some(Bucket {
                requests,
                ..*bucket
            }));
        }
        // One that was there and is gone: something has become less.
        earlier_buckets.next().is_none().then_some(Self {
            sum_us: self.sum_us.checked_sub(earlier.sum_us)?,
            buckets,
        })
    }

    fn add(&mut self, other: &Self) {
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        for more in &other.buckets {
            let order = |bucket: &Bucket| bucket.below_us.unwrap_or(u64::MAX);
            match self.buckets.binary_search_by_key(&order(more), order) {
                Ok(at) => {
                    if let Some(bucket) = self.buckets.get_mut(at) {
                        bucket.requests = bucket.requests.saturating_add(more.requests);
                    }
                }
                Err(at) => self.buckets.insert(at, *more),
            }
        }
    }

    /// How many requests there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.requests).sum()
    }

    /// How many requests took less than `bound_us`, which has to be the bound of a bucket.
    pub fn below(&self, bound_us: u64) -> u64 {
        let is_below = |bucket: &&Bucket| bucket.below_us.is_some_and(|below| below <= bound_us);
        let buckets = self.buckets.iter().take_while(is_below);
        buckets.map(|bucket| bucket.requests).sum()
    }

    /// What `per_mille` of a thousand requests took less than: the bound of a bucket, so up to a half
    /// too much. `None` without a request; `Some(None)` when it is beyond all bounds.
    pub fn percentile_us(&self, per_mille: u64) -> Option<Option<u64>> {
        let count = u128::from(self.count());
        let rank = (count * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|bucket| {
            seen += u128::from(bucket.requests);
            seen >= rank
        });
        bucket.map(|bucket| bucket.below_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(buckets: &[(u64, u64)]) -> Histogram {
        let bucket = |&(below_us, requests): &(u64, u64)| Bucket {
            below_us: (below_us > 0).then_some(below_us),
            requests,
        };
        Histogram {
            sum_us: 0,
            buckets: buckets.iter().map(bucket).collect(),
        }
    }

    #[test]
    fn a_percentile_is_the_bound_of_the_bucket_that_it_falls_into() {
        let latency = histogram(&[(8, 500), (16, 490), (64, 9), (0, 1)]);
        assert_eq!(latency.percentile_us(500), Some(Some(8)));
        assert_eq!(latency.percentile_us(501), Some(Some(16)));
        assert_eq!(latency.percentile_us(990), Some(Some(16)));
        assert_eq!(latency.percentile_us(991), Some(Some(64)));
        assert_eq!(latency.percentile_us(999), Some(Some(64)));
        assert_eq!(latency.percentile_us(1000), Some(None));
        assert_eq!(histogram(&[]).percentile_us(500), None);
        assert_eq!(histogram(&[(4, 1)]).percentile_us(0), Some(Some(4)));
        assert_eq!(
            [4, 8, 16, 1024].map(|bound| latency.below(bound)),
            [0, 500, 990, 999]
        );
    }

    #[test]
    fn a_difference_is_what_came_in_between() {
        let later = histogram(&[(4, 1), (8, 3), (16, 3), (0, 5)]);
        let earlier = histogram(&[(8, 3), (16, 1)]);
        assert_eq!(
            later.since(&earlier),
            Some(histogram(&[(4, 1), (16, 2), (0, 5)]))
        );
        assert_eq!(later.since(&later), Some(histogram(&[])));
        assert_eq!(later.since(&histogram(&[])), Some(later.clone()));
    }

    #[test]
    fn there_is_no_difference_to_another_count() {
        let later = histogram(&[(8, 3), (16, 1)]);
        for earlier in [
            histogram(&[(8, 4)]),
            histogram(&[(4, 1)]),
            histogram(&[(64, 1)]),
        ] {
            assert_eq!(later.since(&earlier), None, "{earlier:?}");
        }
        let session = |retries| SessionStats {
            retries,
            in_flight: retries,
            ..SessionStats::default()
        };
        assert_eq!(session(2).since(&session(3)), None);
        let since = session(5).since(&session(3)).unwrap();
        assert_eq!((since.retries, since.in_flight), (2, 5));
    }

    #[test]
    fn a_sum_has_the_buckets_of_both_in_order() {
        let mut sum = histogram(&[(8, 1), (0, 1)]);
        sum.add(&histogram(&[(4, 1), (8, 2), (16, 3), (0, 4)]));
        assert_eq!(sum, histogram(&[(4, 1), (8, 3), (16, 3), (0, 5)]));
    }
}
