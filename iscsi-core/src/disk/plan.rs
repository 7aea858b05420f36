//! How a block request becomes commands: checked once, then cut into parts that fit the limits.
//!
//! A request that passes [`LunFacts::check`] is carried out by the commands of
//! [`LunFacts::part`], one after the other or several at once: a part depends on nothing but the
//! number of bytes before it. When the last has succeeded and [`LunFacts::needs_sync`] says so,
//! [`LunFacts::flush_command`] follows.

use core::num::NonZeroU32;

use thiserror::Error;

use super::facts::{CommandWidth, LunFacts};
use super::request::{BlockOperation, Extent, SECTOR_LENGTH_BYTES};
use crate::scsi::command::{Cdb, ScsiCommand, ScsiData};
use crate::scsi::{read_write, sync_cache, unmap, write_same};

/// The most that one READ or WRITE moves, whatever the LUN allows: large enough that the cost of a
/// command does not matter, small enough that it ends well before any time-out.
pub const MAX_TRANSFER_BYTES: u32 = 16 << 20;
/// The most that one WRITE SAME covers: a disk that really writes the zeros is done with it in a
/// few seconds.
pub const MAX_WRITE_SAME_BYTES: u64 = 256 << 20;
/// The most blocks of a WRITE SAME when the LUN reports no limit: what a 16-bit block count, as
/// that of WRITE SAME(10), can hold; Linux assumes the same.
pub const DEFAULT_MAX_WRITE_SAME_BLOCKS: u64 = 0xffff;
/// The most that one UNMAP covers: deallocation costs time for each extent that a pool tracks.
pub const MAX_UNMAP_BYTES: u64 = 4 << 30;
/// The most blocks of an UNMAP when the LUN reports no limit: 2 GiB at 512 bytes.
pub const DEFAULT_MAX_UNMAP_BLOCKS: u32 = 1 << 22;
/// The longest buffer of a request: offsets into it are `u32`.
pub const MAX_BUFFER_BYTES: u64 = u32::MAX as u64;
/// The most blocks of a READ(10) or WRITE(10).
const MAX_BLOCKS_10: u64 = u16::MAX as u64;

/// Why a request cannot be carried out; it is the guest's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestFault {
    /// It would write to a disk that may only be read.
    #[error("the disk is write-protected")]
    ReadOnly,
    /// The LUN cannot do this; it was not offered.
    #[error("the LUN cannot deallocate blocks")]
    Unsupported,
    /// It covers nothing.
    #[error("the request has a length of 0")]
    ZeroLength,
    /// Its start or its length is not a multiple of the logical block length.
    #[error("the request is not aligned to the block length of {block_length_bytes} bytes")]
    Unaligned {
        /// The logical block length.
        block_length_bytes: u32,
    },
    /// It ends beyond the last block, or its end is no 64-bit number of bytes.
    #[error("the request goes beyond the end of the disk at {capacity_bytes} bytes")]
    BeyondEnd {
        /// The capacity of the disk.
        capacity_bytes: u64,
    },
    /// Its buffer is larger than [`MAX_BUFFER_BYTES`].
    #[error(
        "the request has {length_bytes} bytes of data; at most {MAX_BUFFER_BYTES} are possible"
    )]
    TooLong {
        /// The length of the request.
        length_bytes: u64,
    },
}

/// How zeros get onto the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// WRITE SAME(16) with the UNMAP bit: blocks are deallocated and read as zeros. Only for
    /// requests that allow it; for others this is the same as `WriteSame`.
    WriteSameUnmap,
    /// WRITE SAME(16) of a block of zeros.
    WriteSame,
    /// WRITE of as many zeros as there are.
    Write,
}

impl Zeroing {
    /// What to try when the target refuses the command as not implemented; `None` when nothing is
    /// left. Parts that have succeeded stay done.
    pub fn fallback(self) -> Option<Self> {
        match self {
            Self::WriteSameUnmap => Some(Self::WriteSame),
            Self::WriteSame => Some(Self::Write),
            Self::Write => None,
        }
    }
}

/// One command of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The command.
    pub command: ScsiCommand,
    /// How many bytes of the request's extent it covers; never 0. For WRITE SAME and UNMAP this is
    /// not the length of the data that is sent.
    pub length_bytes: u64,
}

/// A run of whole logical blocks.
#[derive(Clone, Copy, Debug)]
struct Run {
    block: u64,
    count_blocks: NonZeroU32,
}

impl LunFacts {
    /// Whether the request can be carried out: a disk that can be written, an extent on the disk,
    /// whole blocks. A flush always can.
    pub fn check(&self, operation: BlockOperation, extent: Extent) -> Result<(), RequestFault> {
        match operation {
            BlockOperation::Flush => return Ok(()),
            BlockOperation::Read => {}
            _ if self.write_protected => return Err(RequestFault::ReadOnly),
            BlockOperation::Discard if !self.can_discard() => {
                return Err(RequestFault::Unsupported);
            }
            BlockOperation::Write { .. }
            | BlockOperation::Discard
            | BlockOperation::WriteZeroes { .. } => {}
        }
        self.check_extent(extent)?;
        let length_bytes = extent.length_bytes;
        if has_buffer(operation) && length_bytes > MAX_BUFFER_BYTES {
            return Err(RequestFault::TooLong { length_bytes });
        }
        Ok(())
    }

    fn check_extent(&self, extent: Extent) -> Result<(), RequestFault> {
        let capacity_bytes = self.capacity_bytes();
        let beyond_end = RequestFault::BeyondEnd { capacity_bytes };
        let start_bytes = extent
            .sector
            .checked_mul(SECTOR_LENGTH_BYTES)
            .ok_or(beyond_end)?;
        let end_bytes = start_bytes
            .checked_add(extent.length_bytes)
            .ok_or(beyond_end)?;
        if extent.length_bytes == 0 {
            return Err(RequestFault::ZeroLength);
        }
        if end_bytes > capacity_bytes {
            return Err(beyond_end);
        }
        if start_bytes % self.block_bytes() != 0 || end_bytes % self.block_bytes() != 0 {
            return Err(RequestFault::Unaligned {
                block_length_bytes: self.block_length_bytes,
            });
        }
        Ok(())
    }

    /// The next command of a request of which `done_bytes` are covered by earlier parts.
    ///
    /// `None` when nothing is left. A flush has no parts. The request must have passed
    /// [`LunFacts::check`], and `done_bytes` must be a sum of the lengths of parts.
    pub fn part(
        &self,
        operation: BlockOperation,
        extent: Extent,
        done_bytes: u64,
        zeroing: Zeroing,
    ) -> Option<Part> {
        let run = self.next_run(operation, extent, done_bytes, zeroing)?;
        let length_bytes = u64::from(run.count_blocks.get()) * self.block_bytes();
        let command = match operation {
            BlockOperation::Flush => return None,
            BlockOperation::Read => self.read(run, buffer_piece(done_bytes, length_bytes)?),
            BlockOperation::Write { stable } => {
                let (offset_bytes, length_bytes) = buffer_piece(done_bytes, length_bytes)?;
                self.write(
                    run,
                    stable,
                    ScsiData::Out {
                        offset_bytes,
                        length_bytes,
                    },
                )
            }
            BlockOperation::WriteZeroes { stable, .. } if zeroing == Zeroing::Write => {
                let length_bytes = u32::try_from(length_bytes).ok()?;
                self.write(run, stable, ScsiData::Zeros { length_bytes })
            }
            BlockOperation::WriteZeroes { unmap, .. } => {
                self.write_same(run, unmap && zeroing == Zeroing::WriteSameUnmap)
            }
            BlockOperation::Discard if self.can_unmap() => {
                unmap::command(run.block, run.count_blocks)
            }
            BlockOperation::Discard => self.write_same(run, true),
        };
        Some(Part {
            command,
            length_bytes,
        })
    }

    /// What is left of the extent, as far as one command can cover it.
    fn next_run(
        &self,
        operation: BlockOperation,
        extent: Extent,
        done_bytes: u64,
        zeroing: Zeroing,
    ) -> Option<Run> {
        let left_blocks = extent.length_bytes.checked_sub(done_bytes)? / self.block_bytes();
        let start_bytes = extent
            .sector
            .checked_mul(SECTOR_LENGTH_BYTES)?
            .checked_add(done_bytes)?;
        let block = start_bytes / self.block_bytes();
        let count_blocks = match operation {
            BlockOperation::Flush => return None,
            BlockOperation::Read | BlockOperation::Write { .. } => {
                left_blocks.min(self.max_transfer_blocks())
            }
            BlockOperation::WriteZeroes { .. } if zeroing == Zeroing::Write => {
                left_blocks.min(self.max_transfer_blocks())
            }
            BlockOperation::WriteZeroes { .. } => left_blocks.min(self.max_write_same_blocks()),
            BlockOperation::Discard => self.discard_blocks(block, left_blocks),
        };
        let count_blocks = u32::try_from(count_blocks).ok().and_then(NonZeroU32::new)?;
        Some(Run {
            block,
            count_blocks,
        })
    }

    /// How many of `left_blocks` one command deallocates: when it cannot be all, then up to the
    /// last boundary of the granularity, so that no granule is cut in two and stays allocated.
    fn discard_blocks(&self, block: u64, left_blocks: u64) -> u64 {
        let most = self.max_discard_blocks();
        if left_blocks <= most {
            return left_blocks;
        }
        let granularity = u64::from(self.limits.unmap_granularity_blocks.unwrap_or(1).max(1));
        let alignment = u64::from(self.limits.unmap_alignment_blocks.unwrap_or(0)) % granularity;
        let end = block.saturating_add(most);
        let excess = (end % granularity + granularity - alignment) % granularity;
        if excess < most { most - excess } else { most }
    }

    fn read(&self, run: Run, (offset_bytes, length_bytes): (u32, u32)) -> ScsiCommand {
        let cdb = match self.ten(run) {
            Some((block, count_blocks)) => read_write::read_10(block, count_blocks),
            None => read_write::read_16(run.block, run.count_blocks.get()),
        };
        ScsiCommand {
            cdb,
            data: ScsiData::In {
                offset_bytes,
                length_bytes,
            },
        }
    }

    fn write(&self, run: Run, stable: bool, data: ScsiData) -> ScsiCommand {
        // Without a volatile cache every write is stable, and FUA only slows some arrays down.
        let fua = stable && self.fua && self.write_cache;
        let cdb: Cdb = match self.ten(run) {
            Some((block, count_blocks)) => read_write::write_10(block, count_blocks, fua),
            None => read_write::write_16(run.block, run.count_blocks.get(), fua),
        };
        ScsiCommand { cdb, data }
    }

    fn write_same(&self, run: Run, unmap: bool) -> ScsiCommand {
        write_same::zeros(run.block, run.count_blocks, unmap, self.block_length_bytes)
    }

    /// Address and count for a 10-byte command, where such is to be used and they fit.
    fn ten(&self, run: Run) -> Option<(u32, u16)> {
        let block = u32::try_from(run.block).ok()?;
        let count_blocks = u16::try_from(run.count_blocks.get()).ok()?;
        (self.width == CommandWidth::Ten).then_some((block, count_blocks))
    }

    /// How zeros are best written; `unmap` says whether the request allows deallocation.
    ///
    /// The UNMAP bit is used only where deallocated blocks read as zeros. A LUN without 16-byte
    /// commands is not asked for WRITE SAME(16).
    pub fn zeroing(&self, unmap: bool) -> Zeroing {
        if self.width == CommandWidth::Ten {
            Zeroing::Write
        } else if unmap && self.can_unmap_zeroes() {
            Zeroing::WriteSameUnmap
        } else {
            Zeroing::WriteSame
        }
    }

    /// Whether writing zeros may deallocate: WRITE SAME takes the UNMAP bit and zeros come back.
    pub(super) fn can_unmap_zeroes(&self) -> bool {
        self.provisioning.thin
            && self.provisioning.write_same_unmap
            && self.provisioning.reads_zeros
    }

    /// Whether a discard deallocates anything: the LUN is thin and has a command for it.
    pub fn can_discard(&self) -> bool {
        let provisioning = &self.provisioning;
        provisioning.thin && (self.can_unmap() || provisioning.write_same_unmap)
    }

    /// Whether there is an UNMAP command that takes at least one block.
    fn can_unmap(&self) -> bool {
        self.provisioning.unmap && self.limits.max_unmap_blocks != Some(0)
    }

    /// Whether the request is complete only after [`LunFacts::flush_command`] has succeeded, which
    /// is sent when all its parts have.
    ///
    /// Never on a write-through LUN, whose writes are stable when they complete, nor on one that
    /// is write-protected.
    pub fn needs_sync(&self, operation: BlockOperation, zeroing: Zeroing) -> bool {
        let may_hold_data_back = self.write_cache && !self.write_protected;
        may_hold_data_back
            && match operation {
                BlockOperation::Read | BlockOperation::Discard => false,
                BlockOperation::Flush => true,
                BlockOperation::Write { stable } => stable && !self.fua,
                // WRITE SAME has no FUA bit.
                BlockOperation::WriteZeroes { stable, .. } => {
                    stable && !(self.fua && zeroing == Zeroing::Write)
                }
            }
    }

    /// Whether what an operation changed may be in a volatile cache only, when it has ended without a
    /// SYNCHRONIZE CACHE.
    pub fn may_be_volatile(&self, operation: BlockOperation, zeroing: Zeroing) -> bool {
        self.write_cache
            && match operation {
                BlockOperation::Read | BlockOperation::Flush => false,
                BlockOperation::Discard => true,
                BlockOperation::Write { stable } => !(stable && self.fua),
                BlockOperation::WriteZeroes { stable, .. } => {
                    !(stable && self.fua && zeroing == Zeroing::Write)
                }
            }
    }

    /// SYNCHRONIZE CACHE for the whole disk, in the form that the LUN implements.
    pub fn flush_command(&self) -> ScsiCommand {
        match self.sync_cache {
            CommandWidth::Ten => sync_cache::command_10(),
            CommandWidth::Sixteen => sync_cache::command_16(),
        }
    }

    /// The capacity in bytes; a probed disk's fits into an `i64`.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_blocks.saturating_mul(self.block_bytes())
    }

    /// The most blocks of one READ or WRITE; at least 1.
    pub(super) fn max_transfer_blocks(&self) -> u64 {
        let cap = u64::from(MAX_TRANSFER_BYTES) / self.block_bytes();
        let reported = self.limits.max_transfer_blocks.map_or(cap, u64::from);
        let addressable = match self.width {
            CommandWidth::Ten => MAX_BLOCKS_10,
            CommandWidth::Sixteen => cap,
        };
        cap.min(reported).min(addressable).max(1)
    }

    /// The most blocks of one WRITE SAME; at least 1.
    pub(super) fn max_write_same_blocks(&self) -> u64 {
        let cap = MAX_WRITE_SAME_BYTES / self.block_bytes();
        let reported = self
            .limits
            .max_write_same_blocks
            .unwrap_or(DEFAULT_MAX_WRITE_SAME_BLOCKS);
        cap.min(reported).max(1)
    }

    /// The most blocks of one command of a discard; at least 1.
    pub(super) fn max_discard_blocks(&self) -> u64 {
        if !self.can_unmap() {
            return self.max_write_same_blocks();
        }
        let cap = MAX_UNMAP_BYTES / self.block_bytes();
        let reported = self
            .limits
            .max_unmap_blocks
            .unwrap_or(DEFAULT_MAX_UNMAP_BLOCKS);
        cap.min(u64::from(reported)).max(1)
    }

    /// The logical block length, never below a sector: a divisor that is not 0.
    pub(super) fn block_bytes(&self) -> u64 {
        u64::from(self.block_length_bytes).max(SECTOR_LENGTH_BYTES)
    }
}

/// Whether the request's data is in a buffer of the guest.
fn has_buffer(operation: BlockOperation) -> bool {
    matches!(
        operation,
        BlockOperation::Read | BlockOperation::Write { .. }
    )
}

/// Offset and length of a piece of the request's buffer.
fn buffer_piece(offset_bytes: u64, length_bytes: u64) -> Option<(u32, u32)> {
    let offset_bytes = u32::try_from(offset_bytes).ok()?;
    let length_bytes = u32::try_from(length_bytes).ok()?;
    Some((offset_bytes, length_bytes))
}

#[cfg(test)]
mod tests;
