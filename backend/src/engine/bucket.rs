//! A bucket of tokens: so many a second, and how far ahead of that one may be.
//!
//! All of it is one point in time, that at which everything taken so far is paid for at the rate (the
//! generic cell rate algorithm); so lanes share it without a lock. Taking always succeeds, and says from
//! when on what was taken may be used. That is a place in a line: those who wait are served in the order
//! in which they came, nobody tries again in vain, and a request that is larger than the bucket passes as
//! any other, for those behind it wait until it is paid for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NS_PER_S: u64 = 1_000_000_000;

/// Times are in nanoseconds since a start that all who use it agree on.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Tokens per second; at least one.
    per_s: u64,
    /// How long it takes at the rate to pay for a full bucket.
    ahead_ns: u64,
    /// When all that was taken is paid for.
    paid_at_ns: AtomicU64,
}

impl Bucket {
    /// A full bucket, which holds what `ahead` brings at the rate.
    pub(super) fn new(per_s: u64, ahead: Duration) -> Self {
        Self {
            per_s: per_s.max(1),
            ahead_ns: u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX),
            paid_at_ns: AtomicU64::new(0),
        }
    }

    /// Takes tokens. From when on they may be used, which may be past.
    pub(super) fn take(&self, tokens: u32, now_ns: u64) -> u64 {
        let cost_ns = self.cost_ns(tokens);
        let pay = |paid_at_ns: u64| Some(paid_at_ns.max(now_ns).saturating_add(cost_ns));
        // Nothing else is read or written by what it says, so no order is needed.
        let (Ok(before_ns) | Err(before_ns)) =
            self.paid_at_ns
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        before_ns.saturating_sub(self.ahead_ns)
    }

    /// Gives back what was taken and not used. Those who came after keep their times.
    pub(super) fn give_back(&self, tokens: u32) {
        let cost_ns = self.cost_ns(tokens);
        let refund = |paid_at_ns: u64| Some(paid_at_ns.saturating_sub(cost_ns));
        let _ = self
            .paid_at_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, refund);
    }

    /// How long it takes to pay for tokens, to the nearest nanosecond.
    fn cost_ns(&self, tokens: u32) -> u64 {
        // At most 2^32 times 10^9, with half a rate of 2^40: that fits.
        (u64::from(tokens) * NS_PER_S + self.per_s / 2) / self.per_s
    }
}
