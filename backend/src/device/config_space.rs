//! The configuration space: `struct virtio_blk_config` (virtio 1.2 section 5.2.4), which tells the
//! driver the truth about the LUN.

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::request::SECTOR_LENGTH_BYTES;

use super::backend::DeviceSettings;
use super::request::MAX_RANGES;

/// The length of the structure up to and including the zoned characteristics.
pub const CONFIG_SPACE_BYTES: usize = 96;

/// Where the writeback byte is: the only field that the driver may write.
pub const WRITEBACK_OFFSET: usize = 32;

/// The largest length of one discard or write zeroes range, for LUNs that report no limit: block
/// layers count the bytes of one request in 32 bits.
const MAX_RANGE_SECTORS: u64 = (u32::MAX as u64) / SECTOR_LENGTH_BYTES;

/// Header and status of a request each take a descriptor beside the data.
const OVERHEAD_DESCRIPTORS: u16 = 2;

/// The limits of one LUN in the units of the configuration space.
struct Limits {
    capacity_sectors: u64,
    max_discard_sectors: u32,
    discard_sector_alignment: u32,
    max_write_zeroes_sectors: u32,
    alignment_offset_blocks: u8,
    min_io_blocks: u16,
    opt_io_blocks: u32,
}

/// From the facts of the LUN to numbers: the only arithmetic of this file.
fn limits(facts: &LunFacts) -> Limits {
    let block_sectors = u64::from(facts.block_length_bytes) / SECTOR_LENGTH_BYTES;
    let discard_blocks = match facts.limits.max_unmap_blocks {
        Some(blocks @ 1..) => Some(u64::from(blocks)),
        _ => facts.limits.max_write_same_blocks,
    };
    let granularity_blocks = facts.limits.unmap_granularity_blocks.unwrap_or(1).max(1);
    let alignment_sectors = block_sectors.saturating_mul(granularity_blocks.into());
    Limits {
        capacity_sectors: facts.capacity_blocks.saturating_mul(block_sectors),
        max_discard_sectors: range_sectors(discard_blocks, block_sectors),
        discard_sector_alignment: u32::try_from(alignment_sectors).unwrap_or(0),
        max_write_zeroes_sectors: range_sectors(facts.limits.max_write_same_blocks, block_sectors),
        alignment_offset_blocks: u8::try_from(facts.lowest_aligned_block).unwrap_or(0),
        min_io_blocks: facts.limits.optimal_granularity_blocks.unwrap_or(0),
        opt_io_blocks: facts.limits.optimal_transfer_blocks.unwrap_or(0),
    }
}

/// A limit in blocks as whole blocks in sectors that fit 32 bits of bytes.
fn range_sectors(max_blocks: Option<u64>, block_sectors: u64) -> u32 {
    let most_blocks = MAX_RANGE_SECTORS / block_sectors.max(1);
    let blocks = max_blocks
        .filter(|&blocks| blocks > 0)
        .unwrap_or(most_blocks)
        .min(most_blocks);
    u32::try_from(blocks * block_sectors).unwrap_or(u32::MAX)
}

/// The most data segments of a request, so that it fits the ring even without indirect
/// descriptors: a driver whose request never fits would wait for ever.
fn seg_max(settings: &DeviceSettings) -> u32 {
    u32::from(
        settings
            .queue_size
            .saturating_sub(OVERHEAD_DESCRIPTORS)
            .max(1),
    )
}

/// The whole structure. All fields are little-endian; those of features that are never offered
/// (size_max, geometry, secure erase, zones) are zero.
pub fn config_space(
    facts: &LunFacts,
    settings: &DeviceSettings,
    writeback: bool,
) -> [u8; CONFIG_SPACE_BYTES] {
    let limits = limits(facts);
    let may_unmap = facts.provisioning.thin && facts.provisioning.write_same_unmap;
    let mut space = Writer {
        bytes: [0; CONFIG_SPACE_BYTES],
    };
    space.put(0, &limits.capacity_sectors.to_le_bytes());
    space.put(12, &seg_max(settings).to_le_bytes());
    space.put(20, &facts.block_length_bytes.to_le_bytes());
    space.put(
        24,
        &[
            facts.physical_block_exponent,
            limits.alignment_offset_blocks,
        ],
    );
    space.put(26, &limits.min_io_blocks.to_le_bytes());
    space.put(28, &limits.opt_io_blocks.to_le_bytes());
    space.put(WRITEBACK_OFFSET, &[u8::from(writeback)]);
    space.put(34, &settings.num_queues.to_le_bytes());
    space.put(36, &limits.max_discard_sectors.to_le_bytes());
    space.put(40, &MAX_RANGES.to_le_bytes());
    space.put(44, &limits.discard_sector_alignment.to_le_bytes());
    space.put(48, &limits.max_write_zeroes_sectors.to_le_bytes());
    space.put(52, &MAX_RANGES.to_le_bytes());
    space.put(56, &[u8::from(may_unmap)]);
    space.bytes
}

struct Writer {
    bytes: [u8; CONFIG_SPACE_BYTES],
}

impl Writer {
    fn put(&mut self, offset: usize, field: &[u8]) {
        if let Some(place) = self.bytes.get_mut(offset..offset + field.len()) {
            place.copy_from_slice(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend::test_facts;
    use super::*;
    use iscsi_core::disk::facts::{BlockLimits, Provisioning};
    use std::mem::offset_of;
    use virtio_bindings::virtio_blk::virtio_blk_config as Layout;

    const SETTINGS: DeviceSettings = DeviceSettings {
        num_queues: 64,
        queue_size: 128,
        read_only: false,
    };

    fn u32_at(space: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(space[offset..offset + 4].try_into().unwrap())
    }

    fn u16_at(space: &[u8], offset: usize) -> u16 {
        u16::from_le_bytes(space[offset..offset + 2].try_into().unwrap())
    }

    /// Field by field, at the offsets of the kernel's own header.
    #[test]
    fn tells_the_facts_of_a_4096_byte_lun_at_the_offsets_of_the_specification() {
        let facts = LunFacts {
            block_length_bytes: 4096,
            capacity_blocks: 1_000_001,
            physical_block_exponent: 2,
            lowest_aligned_block: 3,
            provisioning: Provisioning {
                thin: true,
                unmap: true,
                write_same_unmap: true,
                reads_zeros: true,
            },
            limits: BlockLimits {
                optimal_transfer_blocks: Some(256),
                optimal_granularity_blocks: Some(16),
                max_unmap_blocks: Some(1000),
                unmap_granularity_blocks: Some(4),
                max_write_same_blocks: Some(500),
                ..BlockLimits::default()
            },
            ..test_facts()
        };
        let space = config_space(&facts, &SETTINGS, true);
        assert_eq!(space[..8], (8 * 1_000_001_u64).to_le_bytes());
        assert_eq!(u32_at(&space, offset_of!(Layout, size_max)), 0);
        assert_eq!(u32_at(&space, offset_of!(Layout, seg_max)), 126);
        assert_eq!(u32_at(&space, offset_of!(Layout, blk_size)), 4096);
        assert_eq!(space[offset_of!(Layout, physical_block_exp)], 2);
        assert_eq!(space[offset_of!(Layout, alignment_offset)], 3);
        assert_eq!(u16_at(&space, offset_of!(Layout, min_io_size)), 16);
        assert_eq!(u32_at(&space, offset_of!(Layout, opt_io_size)), 256);
        assert_eq!(offset_of!(Layout, wce), WRITEBACK_OFFSET);
        assert_eq!(space[WRITEBACK_OFFSET], 1);
        assert_eq!(u16_at(&space, offset_of!(Layout, num_queues)), 64);
        assert_eq!(
            u32_at(&space, offset_of!(Layout, max_discard_sectors)),
            8000
        );
        assert_eq!(u32_at(&space, offset_of!(Layout, max_discard_seg)), 32);
        assert_eq!(
            u32_at(&space, offset_of!(Layout, discard_sector_alignment)),
            32
        );
        assert_eq!(
            u32_at(&space, offset_of!(Layout, max_write_zeroes_sectors)),
            4000
        );
        assert_eq!(u32_at(&space, offset_of!(Layout, max_write_zeroes_seg)), 32);
        assert_eq!(space[offset_of!(Layout, write_zeroes_may_unmap)], 1);
        assert_eq!(size_of::<Layout>(), CONFIG_SPACE_BYTES);
    }

    #[test]
    fn keeps_unlimited_ranges_within_32_bits_of_bytes_and_whole_blocks() {
        for (block_length_bytes, expected) in [(512, 8_388_607), (4096, 8_388_600)] {
            let facts = LunFacts {
                block_length_bytes,
                ..test_facts()
            };
            let space = config_space(&facts, &SETTINGS, false);
            assert_eq!(u32_at(&space, 36), expected);
            assert_eq!(u32_at(&space, 48), expected);
        }
    }

    #[test]
    fn takes_the_limit_of_write_same_where_unmap_is_not_implemented() {
        let limits = BlockLimits {
            max_unmap_blocks: Some(0),
            max_write_same_blocks: Some(64),
            ..BlockLimits::default()
        };
        let space = config_space(
            &LunFacts {
                limits,
                ..test_facts()
            },
            &SETTINGS,
            false,
        );
        assert_eq!(u32_at(&space, 36), 64);
    }

    #[test]
    fn keeps_room_for_header_and_status_in_the_smallest_rings() {
        for (queue_size, expected) in [(1, 1), (2, 1), (4, 2), (32_768, 32_766)] {
            let settings = DeviceSettings {
                queue_size,
                ..SETTINGS
            };
            assert_eq!(seg_max(&settings), expected);
        }
    }
}
