//! The configuration space of a block device (virtio 1.3, section 5.2.4).

use super::error::{Error, Result};

/// Length of the part this client knows, up to and with `write_zeroes_may_unmap` and padding.
pub const CONFIG_BYTES: u32 = 60;
/// Offset of `writeback`.
pub const WRITEBACK_OFFSET: u32 = 32;

/// `struct virtio_blk_config`; counts of sectors are in units of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the standard's own names say it")]
pub struct BlockConfig {
    pub capacity_sectors: u64,
    pub size_max_bytes: u32,
    pub seg_max: u32,
    pub blk_size_bytes: u32,
    pub physical_block_exp: u8,
    pub alignment_offset: u8,
    pub min_io_size_blocks: u16,
    pub opt_io_size_blocks: u32,
    pub writeback: u8,
    pub num_queues: u16,
    pub max_discard_sectors: u32,
    pub max_discard_seg: u32,
    pub discard_sector_alignment: u32,
    pub max_write_zeroes_sectors: u32,
    pub max_write_zeroes_seg: u32,
    pub write_zeroes_may_unmap: u8,
}

impl BlockConfig {
    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`Error::ShortConfig`] with fewer than [`CONFIG_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (asked, got) = (CONFIG_BYTES as usize, bytes.len());
        if got < asked {
            return Err(Error::ShortConfig { asked, got });
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        Ok(Self {
            capacity_sectors: u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32,
            size_max_bytes: u32_at(8),
            seg_max: u32_at(12),
            blk_size_bytes: u32_at(20),
            physical_block_exp: bytes[24],
            alignment_offset: bytes[25],
            min_io_size_blocks: u16_at(26),
            opt_io_size_blocks: u32_at(28),
            writeback: bytes[32],
            num_queues: u16_at(34),
            max_discard_sectors: u32_at(36),
            max_discard_seg: u32_at(40),
            discard_sector_alignment: u32_at(44),
            max_write_zeroes_sectors: u32_at(48),
            max_write_zeroes_seg: u32_at(52),
            write_zeroes_may_unmap: bytes[56],
        })
    }
}
