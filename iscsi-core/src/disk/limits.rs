//! The facts of a LUN as a virtual disk's configuration wants them: plain numbers, no virtio types.

use super::facts::LunFacts;
use super::plan::MAX_TRANSFER_BYTES;
use super::request::SECTOR_LENGTH_BYTES;

/// The largest physical block exponent that is passed on: 2^3 blocks of 512 bytes are the usual
/// value; beyond 2^11 (1 MiB) a report is taken for a mistake.
const MAX_PHYSICAL_BLOCK_EXPONENT: u8 = 11;

/// What the device's configuration space says (virtio 1.2 section 5.2.4).
///
/// "Blocks" are logical blocks of the LUN, as in virtio's topology fields; "sectors" are 512
/// bytes, as in its capacity, discard and write zeroes fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// `capacity`.
    pub capacity_sectors: u64,
    /// `blk_size`.
    pub block_length_bytes: u32,
    /// `physical_block_exp`: a physical block is 2^this logical blocks.
    pub physical_block_exponent: u8,
    /// `alignment_offset`: the first logical block that starts a physical one.
    pub alignment_offset_blocks: u8,
    /// `min_io_size`: no smaller request should be made without need; never 0.
    pub minimum_io_blocks: u16,
    /// `opt_io_size`: the best length of a sequential request; 0 when the LUN names none.
    pub optimal_io_blocks: u32,
    /// The most that one command moves; larger requests are cut into several.
    pub max_transfer_bytes: u32,
    /// The disk may only be read.
    pub read_only: bool,
    /// Writes may be lost with the power until they are flushed.
    pub has_volatile_cache: bool,
    /// Limits of discards; `None` when the LUN cannot deallocate, or may not be written.
    pub discard: Option<DiscardLimits>,
    /// Limits of writing zeros; `None` when the LUN may not be written.
    pub write_zeroes: Option<WriteZeroesLimits>,
}

/// Limits of discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardLimits {
    /// `max_discard_sectors`: whole blocks; never 0.
    pub max_sectors: u32,
    /// `discard_sector_alignment`: the granularity of deallocation, whole blocks; never 0.
    pub alignment_sectors: u32,
}

/// Limits of writing zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteZeroesLimits {
    /// `max_write_zeroes_sectors`: whole blocks; never 0.
    pub max_sectors: u32,
    /// `write_zeroes_may_unmap`: the unmap flag can lead to deallocation.
    pub may_unmap: bool,
}

impl DeviceLimits {
    /// The limits of the disk with these facts.
    pub fn of(facts: &LunFacts) -> Self {
        let (physical_block_exponent, alignment_offset_blocks) = physical_blocks(facts);
        Self {
            capacity_sectors: facts.capacity_bytes() / SECTOR_LENGTH_BYTES,
            block_length_bytes: facts.block_length_bytes,
            physical_block_exponent,
            alignment_offset_blocks,
            minimum_io_blocks: minimum_io_blocks(facts, physical_block_exponent),
            optimal_io_blocks: optimal_io_blocks(facts, physical_block_exponent),
            max_transfer_bytes: max_transfer_bytes(facts),
            read_only: facts.write_protected,
            has_volatile_cache: facts.write_cache && !facts.write_protected,
            discard: discard(facts),
            write_zeroes: write_zeroes(facts),
        }
    }
}

/// Exponent and alignment offset of physical blocks. An offset that virtio's 8 bits cannot hold
/// means that no alignment can be told, so then a physical block is a logical one.
fn physical_blocks(facts: &LunFacts) -> (u8, u8) {
    let exponent = facts.physical_block_exponent;
    if exponent > MAX_PHYSICAL_BLOCK_EXPONENT {
        return (0, 0);
    }
    let offset_blocks = facts.lowest_aligned_block % (1 << exponent);
    u8::try_from(offset_blocks).map_or((0, 0), |offset_blocks| (exponent, offset_blocks))
}

/// The optimal transfer length granularity where it is a multiple of the physical block, else the
/// physical block.
fn minimum_io_blocks(facts: &LunFacts, physical_block_exponent: u8) -> u16 {
    let physical_blocks = 1 << physical_block_exponent;
    let granularity = facts.limits.optimal_granularity_blocks;
    granularity
        .filter(|&blocks| blocks != 0 && blocks.is_multiple_of(physical_blocks))
        .unwrap_or(physical_blocks)
}

/// The optimal transfer length, where it makes sense: no more than one command can move, and a
/// multiple of the physical block (Linux applies the same doubt to what LUNs report).
fn optimal_io_blocks(facts: &LunFacts, physical_block_exponent: u8) -> u32 {
    let makes_sense = |blocks: &u32| {
        u64::from(*blocks) <= facts.max_transfer_blocks()
            && blocks.is_multiple_of(1 << physical_block_exponent)
    };
    facts
        .limits
        .optimal_transfer_blocks
        .filter(makes_sense)
        .unwrap_or(0)
}

fn max_transfer_bytes(facts: &LunFacts) -> u32 {
    let bytes = facts.max_transfer_blocks() * facts.block_bytes();
    u32::try_from(bytes).unwrap_or(MAX_TRANSFER_BYTES)
}

fn discard(facts: &LunFacts) -> Option<DiscardLimits> {
    let max_blocks = facts.max_discard_blocks();
    // A granularity that no command can cover is one that no guest could make use of.
    let granularity = facts.limits.unmap_granularity_blocks.map(u64::from);
    let granularity_blocks = granularity
        .filter(|blocks| (1..=max_blocks).contains(blocks))
        .unwrap_or(1);
    (facts.can_discard() && !facts.write_protected).then(|| DiscardLimits {
        max_sectors: whole_sectors(facts, max_blocks),
        alignment_sectors: whole_sectors(facts, granularity_blocks),
    })
}

fn write_zeroes(facts: &LunFacts) -> Option<WriteZeroesLimits> {
    (!facts.write_protected).then(|| WriteZeroesLimits {
        max_sectors: whole_sectors(facts, facts.max_write_same_blocks()),
        may_unmap: facts.can_unmap_zeroes(),
    })
}

/// `blocks` in sectors, or as many whole blocks as 32 bits can count.
fn whole_sectors(facts: &LunFacts, blocks: u64) -> u32 {
    let sectors_per_block = sectors_per_block(facts);
    let most = u64::from(u32::MAX) / sectors_per_block;
    u32::try_from(blocks.min(most) * sectors_per_block).unwrap_or(u32::MAX)
}

fn sectors_per_block(facts: &LunFacts) -> u64 {
    facts.block_bytes() / SECTOR_LENGTH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::example::{disk, thin_disk};
    use crate::disk::facts::BlockLimits;

    fn limits_of(facts: LunFacts, limits: BlockLimits) -> DeviceLimits {
        DeviceLimits::of(&LunFacts { limits, ..facts })
    }

    #[test]
    fn a_plain_disk_has_no_discard_and_unhinted_topology() {
        assert_eq!(
            DeviceLimits::of(&disk(512, 1000)),
            DeviceLimits {
                capacity_sectors: 1000,
                block_length_bytes: 512,
                physical_block_exponent: 0,
                alignment_offset_blocks: 0,
                minimum_io_blocks: 1,
                optimal_io_blocks: 0,
                max_transfer_bytes: MAX_TRANSFER_BYTES,
                read_only: false,
                has_volatile_cache: true,
                discard: None,
                write_zeroes: Some(WriteZeroesLimits {
                    max_sectors: 0xffff,
                    may_unmap: false,
                }),
            }
        );
    }

    #[test]
    fn sectors_stay_512_bytes_on_a_disk_with_4096() {
        let limits = BlockLimits {
            max_transfer_blocks: Some(256),
            max_unmap_blocks: Some(1000),
            unmap_granularity_blocks: Some(16),
            max_write_same_blocks: Some(100),
            ..BlockLimits::default()
        };
        let found = limits_of(thin_disk(4096, 1 << 32), limits);
        assert_eq!(found.capacity_sectors, 1 << 35);
        assert_eq!(found.max_transfer_bytes, 1 << 20);
        let discard = DiscardLimits {
            max_sectors: 8000,
            alignment_sectors: 128,
        };
        assert_eq!(found.discard, Some(discard));
        let zeroes = WriteZeroesLimits {
            max_sectors: 800,
            may_unmap: true,
        };
        assert_eq!(found.write_zeroes, Some(zeroes));
    }

    #[test]
    fn a_write_protected_disk_has_nothing_to_write_or_lose() {
        let found = DeviceLimits::of(&LunFacts {
            write_protected: true,
            ..thin_disk(512, 1000)
        });
        assert!(found.read_only && !found.has_volatile_cache);
        assert_eq!((found.discard, found.write_zeroes), (None, None));
    }

    #[test]
    fn discards_have_a_bound_where_the_lun_has_none() {
        let limits = BlockLimits {
            max_unmap_blocks: Some(u32::MAX),
            ..BlockLimits::default()
        };
        let found = limits_of(thin_disk(512, 1 << 40), limits).discard.unwrap();
        assert_eq!(found.max_sectors, 1 << 23);
        assert_eq!(found.alignment_sectors, 1);
    }

    #[test]
    fn a_granularity_larger_than_a_command_is_not_passed_on() {
        let granularity = |blocks| {
            let limits = BlockLimits {
                max_unmap_blocks: Some(64),
                unmap_granularity_blocks: Some(blocks),
                ..BlockLimits::default()
            };
            limits_of(thin_disk(512, 1000), limits)
                .discard
                .unwrap()
                .alignment_sectors
        };
        assert_eq!(granularity(64), 64);
        assert_eq!(granularity(65), 1);
    }

    #[test]
    fn alignment_is_told_within_a_physical_block() {
        let physical = |physical_block_exponent, lowest_aligned_block| {
            let facts = LunFacts {
                physical_block_exponent,
                lowest_aligned_block,
                ..disk(512, 1000)
            };
            let found = DeviceLimits::of(&facts);
            (found.physical_block_exponent, found.alignment_offset_blocks)
        };
        assert_eq!(physical(3, 7), (3, 7));
        assert_eq!(physical(3, 15), (3, 7));
        assert_eq!(physical(0, 9), (0, 0));
        assert_eq!(physical(11, 255), (11, 255));
        assert_eq!(physical(11, 256), (0, 0));
        assert_eq!(physical(12, 0), (0, 0));
    }

    #[test]
    fn hints_that_contradict_the_disk_are_not_passed_on() {
        let hints = |granularity, optimal| {
            let facts = LunFacts {
                physical_block_exponent: 3,
                ..disk(512, 1000)
            };
            let limits = BlockLimits {
                max_transfer_blocks: Some(1024),
                optimal_granularity_blocks: Some(granularity),
                optimal_transfer_blocks: Some(optimal),
                ..BlockLimits::default()
            };
            let found = limits_of(facts, limits);
            (found.minimum_io_blocks, found.optimal_io_blocks)
        };
        assert_eq!(hints(16, 1024), (16, 1024));
        assert_eq!(hints(12, 1032), (8, 0));
        assert_eq!(hints(0, 100), (8, 0));
    }
}
