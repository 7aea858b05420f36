//! The configuration space: `struct virtio_blk_config` (virtio 1.2 section 5.2.4), which tells the
//! driver the truth about the LUN.

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::limits::{DeviceLimits, DiscardLimits, WriteZeroesLimits};

use super::backend::DeviceSettings;
use super::request::MAX_RANGES;

/// The length of the structure up to and including the zoned characteristics.
pub const CONFIG_SPACE_BYTES: usize = 96;

/// Where the capacity is, in sectors: the only field that may change.
pub const CAPACITY: std::ops::Range<usize> = 0..8;

/// Where the writeback byte is: the only field that the driver may write.
pub const WRITEBACK_OFFSET: usize = 32;

/// Header and status of a request each take a descriptor beside the data.
const OVERHEAD_DESCRIPTORS: u16 = 2;

/// The ring that a front-end has unless told otherwise: QEMU's default.
const USUAL_QUEUE_SIZE: u16 = 128;

/// The most data segments of a request, so that it fits a usual ring even without indirect
/// descriptors: a driver whose request never fits would wait for ever. The size of the ring is the
/// front-end's choice, and not known yet when the driver asks; larger rings are served, but gain
/// no longer requests.
fn seg_max(settings: &DeviceSettings) -> u32 {
    let queue_size = settings.queue_size.min(USUAL_QUEUE_SIZE);
    u32::from(queue_size.saturating_sub(OVERHEAD_DESCRIPTORS).max(1))
}

/// The whole structure. All fields are little-endian; those of features that are never offered
/// (size_max, geometry, secure erase, zones) are zero.
pub fn config_space(
    facts: &LunFacts,
    settings: &DeviceSettings,
    writeback: bool,
) -> [u8; CONFIG_SPACE_BYTES] {
    let limits = DeviceLimits::of(facts);
    let mut space = Writer {
        bytes: [0; CONFIG_SPACE_BYTES],
    };
    space.put(CAPACITY.start, &limits.capacity_sectors.to_le_bytes());
    space.put(12, &seg_max(settings).to_le_bytes());
    space.put(20, &limits.block_length_bytes.to_le_bytes());
    space.put(
        24,
        &[
            limits.physical_block_exponent,
            limits.alignment_offset_blocks,
        ],
    );
    space.put(26, &limits.minimum_io_blocks.to_le_bytes());
    space.put(28, &limits.optimal_io_blocks.to_le_bytes());
    space.put(WRITEBACK_OFFSET, &[u8::from(writeback)]);
    space.put(34, &settings.num_queues.to_le_bytes());
    if let Some(DiscardLimits {
        max_sectors,
        alignment_sectors,
        ..
    }) = limits.discard
    {
        space.put(36, &max_sectors.to_le_bytes());
        space.put(40, &MAX_RANGES.to_le_bytes());
        space.put(44, &alignment_sectors.to_le_bytes());
    }
    if let Some(WriteZeroesLimits {
        max_sectors,
        may_unmap,
        ..
    }) = limits.write_zeroes
    {
        space.put(48, &max_sectors.to_le_bytes());
        space.put(52, &MAX_RANGES.to_le_bytes());
        space.put(56, &[u8::from(may_unmap)]);
    }
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
    fn keeps_room_for_header_and_status_in_the_smallest_rings() {
        for (queue_size, expected) in [(1, 1), (2, 1), (4, 2), (128, 126), (32_768, 126)] {
            let settings = DeviceSettings {
                queue_size,
                ..SETTINGS
            };
            assert_eq!(seg_max(&settings), expected);
        }
    }
}
