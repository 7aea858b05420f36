//! Which requests a client makes.

use std::fmt;

use vhost_user_iscsi_tests::rng::Rng;

/// Unit of sectors in a request, whatever the block size.
pub(crate) const SECTOR_BYTES: u32 = 512;
/// The share of reads in a mixed load, percent.
const MIXED_READ_PERCENT: u64 = 70;
/// The same choices in every round and for everybody.
const SEED: u64 = 0x6973_6373_6900;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Reads only.
    Read,
    /// Writes only.
    Write,
    /// 70 reads to 30 writes.
    Mixed,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Mixed => "mixed",
        })
    }
}

/// In which order the disk is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// At random multiples of the request's length.
    Random,
    /// One after the other, each queue in a part of its own.
    Sequential,
}

/// The requests of one queue.
pub(super) struct Pattern {
    operation: Operation,
    order: Order,
    rng: Rng,
    sectors_per_request: u64,
    /// In units of requests: where this queue begins, how many there are, which one is next.
    places: u64,
    next: u64,
}

impl Pattern {
    /// For queue `index` of `queues` on a disk of `capacity_sectors`, which is longer than one
    /// request.
    pub(super) fn new(
        operation: Operation,
        order: Order,
        request_bytes: u32,
        capacity_sectors: u64,
        (index, queues): (u16, u16),
    ) -> Self {
        let sectors_per_request = u64::from(request_bytes / SECTOR_BYTES);
        let places = capacity_sectors / sectors_per_request;
        Self {
            operation,
            order,
            rng: Rng::new(SEED + u64::from(index)),
            sectors_per_request,
            places,
            next: places / u64::from(queues) * u64::from(index),
        }
    }

    /// The next request: whether it writes, and at which sector.
    pub(super) fn next(&mut self) -> (bool, u64) {
        let place = match self.order {
            Order::Random => self.rng.below(self.places),
            Order::Sequential => self.step(),
        };
        let write = match self.operation {
            Operation::Read => false,
            Operation::Write => true,
            Operation::Mixed => !self.rng.chance(MIXED_READ_PERCENT),
        };
        (write, place * self.sectors_per_request)
    }

    fn step(&mut self) -> u64 {
        let place = self.next;
        self.next = (place + 1) % self.places;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(operation: Operation, order: Order) -> Pattern {
        Pattern::new(operation, order, 4096, 8 * 100, (1, 2))
    }

    #[test]
    fn a_random_place_is_aligned_and_within_the_disk() {
        let mut pattern = pattern(Operation::Read, Order::Random);
        for _ in 0..1000 {
            let (write, sector) = pattern.next();
            assert!(!write && sector % 8 == 0 && sector <= 8 * 99);
        }
    }

    #[test]
    fn a_queue_goes_round_from_its_own_part_of_the_disk() {
        let mut pattern = pattern(Operation::Write, Order::Sequential);
        assert_eq!(
            [pattern.next(), pattern.next()],
            [(true, 8 * 50), (true, 8 * 51)]
        );
        assert_eq!(pattern.nth_sector(47), 8 * 99);
        assert_eq!(pattern.next().1, 0);
    }

    #[test]
    fn three_in_ten_of_a_mixed_load_are_writes() {
        let mut pattern = pattern(Operation::Mixed, Order::Random);
        let writes = (0..10_000).filter(|_| pattern.next().0).count();
        assert!((2_800..3_200).contains(&writes), "{writes}");
    }

    impl Pattern {
        fn nth_sector(&mut self, skipped: usize) -> u64 {
            for _ in 0..skipped {
                self.next();
            }
            self.next().1
        }
    }
}
