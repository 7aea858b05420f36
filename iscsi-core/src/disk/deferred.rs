//! Requests that wait until a time before they are sent again, in the order of that time.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::limits::{MAX_RETRY_DELAY_MS, RETRY_DELAY_MS};
use crate::session::RequestTag;

/// A queue by due time, then by order of admission. It never holds more than it was made for, so
/// it never allocates.
#[derive(Debug)]
pub(super) struct Deferred {
    /// When it is due, its order, its tag; the smallest first.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
}

impl Deferred {
    /// Room for `length` requests.
    pub(super) fn new(length: usize) -> Self {
        Self {
            heap: BinaryHeap::with_capacity(length),
        }
    }

    /// Keeps a request, which is not kept already, until `due_ms`.
    pub(super) fn push(&mut self, due_ms: u64, order: u64, request: RequestTag) {
        self.heap.push(Reverse((due_ms, order, request.0)));
    }

    /// When the first one is due.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due_ms, ..))| *due_ms)
    }

    /// Takes the first one, when it is due.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<RequestTag> {
        self.next_due_ms().filter(|due_ms| *due_ms <= now_ms)?;
        let Reverse((.., tag)) = self.heap.pop()?;
        Some(RequestTag(tag))
    }

    pub(super) fn remove(&mut self, request: RequestTag) {
        self.heap.retain(|Reverse((.., tag))| *tag != request.0);
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.heap.capacity()
    }
}

/// How long to wait after `earlier` waits in a row that did not help.
pub(super) fn delay_ms(earlier: u32) -> u64 {
    let factor = 1u64.checked_shl(earlier).unwrap_or(u64::MAX);
    RETRY_DELAY_MS
        .saturating_mul(factor)
        .min(MAX_RETRY_DELAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_due_comes_first_and_the_older_of_two() {
        let mut deferred = Deferred::new(4);
        for (due_ms, order, tag) in [(200, 1, 10), (100, 3, 11), (100, 2, 12)] {
            deferred.push(due_ms, order, RequestTag(tag));
        }
        assert_eq!(deferred.next_due_ms(), Some(100));
        assert_eq!(deferred.pop_due(99), None);
        assert_eq!(deferred.pop_due(100), Some(RequestTag(12)));
        assert_eq!(deferred.pop_due(100), Some(RequestTag(11)));
        assert_eq!(deferred.pop_due(100), None);
        deferred.remove(RequestTag(10));
        assert_eq!(deferred.next_due_ms(), None);
    }

    #[test]
    fn the_delay_doubles_up_to_its_limit() {
        let delays = (0..6).map(delay_ms);
        assert!(delays.eq([100, 200, 400, 800, 1_600, 1_600]));
        assert_eq!(delay_ms(u32::MAX), MAX_RETRY_DELAY_MS);
    }
}
