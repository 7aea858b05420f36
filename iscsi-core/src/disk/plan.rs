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
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::disk::example::{disk, thin_disk};
    use crate::disk::facts::{BlockLimits, Provisioning};
    use crate::scsi::opcode;

    const WRITE: BlockOperation = BlockOperation::Write { stable: false };
    const STABLE_WRITE: BlockOperation = BlockOperation::Write { stable: true };
    const ZEROES: BlockOperation = BlockOperation::WriteZeroes {
        unmap: true,
        stable: false,
    };
    const STABLE_ZEROES: BlockOperation = BlockOperation::WriteZeroes {
        unmap: false,
        stable: true,
    };

    fn extent(sector: u64, length_bytes: u64) -> Extent {
        Extent {
            sector,
            length_bytes,
        }
    }

    fn with_limits(facts: LunFacts, limits: BlockLimits) -> LunFacts {
        LunFacts { limits, ..facts }
    }

    fn parts(
        facts: &LunFacts,
        operation: BlockOperation,
        extent: Extent,
        zeroing: Zeroing,
    ) -> Vec<Part> {
        let mut done_bytes = 0;
        let next = || {
            let part = facts.part(operation, extent, done_bytes, zeroing)?;
            done_bytes += part.length_bytes;
            Some(part)
        };
        core::iter::from_fn(next).collect()
    }

    /// The only command of a request that needs one.
    fn command(facts: &LunFacts, operation: BlockOperation, extent: Extent) -> ScsiCommand {
        let parts = parts(facts, operation, extent, facts.zeroing(true));
        assert_eq!(parts.len(), 1);
        parts[0].command
    }

    fn beyond_end(facts: &LunFacts) -> Result<(), RequestFault> {
        Err(RequestFault::BeyondEnd {
            capacity_bytes: facts.capacity_bytes(),
        })
    }

    #[test]
    fn the_last_block_is_on_the_disk_and_the_next_is_not() {
        let facts = disk(512, 1000);
        assert_eq!(facts.check(BlockOperation::Read, extent(999, 512)), Ok(()));
        assert_eq!(
            facts.check(BlockOperation::Read, extent(1000, 512)),
            beyond_end(&facts)
        );
        assert_eq!(facts.check(WRITE, extent(999, 1024)), beyond_end(&facts));
        assert_eq!(facts.check(WRITE, extent(0, 512_000)), Ok(()));
    }

    #[test]
    fn sectors_that_wrap_around_are_beyond_the_end() {
        let facts = disk(512, 1000);
        for sector in [1 << 55, u64::MAX, (1 << 55) - 1] {
            assert_eq!(
                facts.check(BlockOperation::Read, extent(sector, 512)),
                beyond_end(&facts)
            );
        }
        assert_eq!(facts.check(ZEROES, extent(1, u64::MAX)), beyond_end(&facts));
    }

    #[test]
    fn extents_are_whole_blocks_of_the_lun() {
        let facts = disk(4096, 1000);
        let unaligned = Err(RequestFault::Unaligned {
            block_length_bytes: 4096,
        });
        assert_eq!(facts.check(WRITE, extent(8, 4096)), Ok(()));
        assert_eq!(facts.check(WRITE, extent(7, 4096)), unaligned);
        assert_eq!(facts.check(WRITE, extent(8, 512)), unaligned);
        assert_eq!(
            facts.check(BlockOperation::Read, extent(1, 7 * 512)),
            unaligned
        );
        assert_eq!(disk(512, 1000).check(WRITE, extent(0, 511)), {
            Err(RequestFault::Unaligned {
                block_length_bytes: 512,
            })
        });
    }

    #[test]
    fn a_request_covers_something_unless_it_is_a_flush() {
        let facts = disk(512, 1000);
        assert_eq!(
            facts.check(WRITE, extent(0, 0)),
            Err(RequestFault::ZeroLength)
        );
        assert_eq!(
            facts.check(BlockOperation::Flush, extent(u64::MAX, 0)),
            Ok(())
        );
    }

    #[test]
    fn a_write_protected_disk_is_read_and_flushed_only() {
        let facts = LunFacts {
            write_protected: true,
            ..thin_disk(512, 1000)
        };
        let whole = extent(0, 512);
        assert_eq!(facts.check(BlockOperation::Read, whole), Ok(()));
        assert_eq!(facts.check(BlockOperation::Flush, whole), Ok(()));
        for operation in [WRITE, ZEROES, BlockOperation::Discard] {
            assert_eq!(facts.check(operation, whole), Err(RequestFault::ReadOnly));
        }
    }

    #[test]
    fn a_discard_needs_a_lun_that_can_deallocate() {
        let discard = |facts: LunFacts| facts.check(BlockOperation::Discard, extent(0, 512));
        assert_eq!(discard(thin_disk(512, 1000)), Ok(()));
        assert_eq!(discard(disk(512, 1000)), Err(RequestFault::Unsupported));
    }

    #[test]
    fn buffers_end_at_4_gib_and_zeroes_do_not() {
        let facts = disk(512, 1 << 40);
        let too_long = Err(RequestFault::TooLong {
            length_bytes: 1 << 32,
        });
        assert_eq!(facts.check(WRITE, extent(0, (1 << 32) - 512)), Ok(()));
        assert_eq!(facts.check(WRITE, extent(0, 1 << 32)), too_long);
        assert_eq!(facts.check(ZEROES, extent(0, 1 << 32)), Ok(()));
    }

    #[test]
    fn addresses_are_in_blocks_of_the_lun() {
        let facts = disk(4096, 1 << 40);
        let command = command(
            &facts,
            BlockOperation::Read,
            extent(8 * 0x1_2345_6789, 8192),
        );
        assert_eq!(command.cdb, read_write::read_16(0x1_2345_6789, 2));
        assert_eq!(
            command.data,
            ScsiData::In {
                offset_bytes: 0,
                length_bytes: 8192
            }
        );
    }

    #[test]
    fn a_long_request_is_cut_at_the_maximum_transfer_length() {
        let limits = BlockLimits {
            max_transfer_blocks: Some(8),
            ..BlockLimits::default()
        };
        let facts = with_limits(disk(512, 1000), limits);
        let parts = parts(&facts, WRITE, extent(100, 20 * 512), Zeroing::Write);
        let out = |offset_bytes, length_bytes| ScsiData::Out {
            offset_bytes,
            length_bytes,
        };
        let expected = [
            (read_write::write_16(100, 8, false), out(0, 4096)),
            (read_write::write_16(108, 8, false), out(4096, 4096)),
            (read_write::write_16(116, 4, false), out(8192, 2048)),
        ];
        assert!(
            parts
                .iter()
                .map(|part| (part.command.cdb, part.command.data))
                .eq(expected)
        );
    }

    #[test]
    fn a_request_of_exactly_the_maximum_is_not_cut() {
        let cap_bytes = u64::from(MAX_TRANSFER_BYTES);
        let facts = disk(4096, 1 << 30);
        let count = |length_bytes| {
            parts(
                &facts,
                BlockOperation::Read,
                extent(0, length_bytes),
                Zeroing::Write,
            )
            .len()
        };
        assert_eq!(count(cap_bytes), 1);
        assert_eq!(count(cap_bytes + 4096), 2);
    }

    #[test]
    fn ten_byte_commands_move_at_most_65535_blocks() {
        let limits = BlockLimits {
            max_transfer_blocks: Some(0x2_0000),
            ..BlockLimits::default()
        };
        let width = CommandWidth::Ten;
        let facts = LunFacts {
            width,
            ..with_limits(disk(512, 1 << 32), limits)
        };
        assert_eq!(facts.max_transfer_blocks(), 32_768, "16 MiB come first");
        let last = command(&facts, BlockOperation::Read, extent((1 << 32) - 1, 512));
        assert_eq!(last.cdb, read_write::read_10(u32::MAX, 1));
        let write = command(&facts, WRITE, extent(5, 1024));
        assert_eq!(write.cdb, read_write::write_10(5, 2, false));
    }

    #[test]
    fn a_stable_write_uses_fua_where_there_is_one_and_else_a_flush() {
        let write_through = LunFacts {
            write_cache: false,
            ..disk(512, 1000)
        };
        let with_fua = LunFacts {
            fua: true,
            ..disk(512, 1000)
        };
        let without = disk(512, 1000);
        let fua_bit = |facts, operation| command(facts, operation, extent(0, 512)).cdb[1];
        assert_eq!(fua_bit(&with_fua, STABLE_WRITE), 0x08);
        assert_eq!(fua_bit(&with_fua, WRITE), 0);
        assert_eq!(fua_bit(&without, STABLE_WRITE), 0);
        assert!(!with_fua.needs_sync(STABLE_WRITE, Zeroing::Write));
        assert!(without.needs_sync(STABLE_WRITE, Zeroing::Write));
        assert!(!without.needs_sync(WRITE, Zeroing::Write));
        assert!(!write_through.needs_sync(STABLE_WRITE, Zeroing::Write));
    }

    #[test]
    fn stable_zeros_need_a_flush_unless_they_are_written_with_fua() {
        let facts = LunFacts {
            fua: true,
            ..disk(512, 1000)
        };
        assert!(facts.needs_sync(STABLE_ZEROES, Zeroing::WriteSame));
        assert!(!facts.needs_sync(STABLE_ZEROES, Zeroing::Write));
        assert!(!facts.needs_sync(ZEROES, Zeroing::WriteSame));
        let part = facts
            .part(STABLE_ZEROES, extent(0, 1024), 0, Zeroing::Write)
            .unwrap();
        assert_eq!(part.command.cdb, read_write::write_16(0, 2, true));
        assert_eq!(part.command.data, ScsiData::Zeros { length_bytes: 1024 });
    }

    #[test]
    fn a_flush_is_sent_only_where_something_may_be_held_back() {
        let flush = BlockOperation::Flush;
        let needs = |facts: LunFacts| facts.needs_sync(flush, Zeroing::Write);
        assert!(needs(disk(512, 1000)));
        assert!(!needs(LunFacts {
            write_cache: false,
            ..disk(512, 1000)
        }));
        assert!(!needs(LunFacts {
            write_protected: true,
            ..disk(512, 1000)
        }));
        assert_eq!(
            disk(512, 1000).part(flush, extent(0, 512), 0, Zeroing::Write),
            None
        );
    }

    #[test]
    fn a_flush_has_the_form_that_the_lun_implements() {
        let facts = disk(512, 1000);
        assert_eq!(facts.flush_command().cdb[0], opcode::SYNCHRONIZE_CACHE_16);
        let facts = LunFacts {
            sync_cache: CommandWidth::Ten,
            ..facts
        };
        assert_eq!(facts.flush_command().cdb[0], opcode::SYNCHRONIZE_CACHE_10);
    }

    #[test]
    fn zeros_are_deallocated_only_if_request_and_lun_agree() {
        let thin = thin_disk(512, 1000);
        assert_eq!(thin.zeroing(true), Zeroing::WriteSameUnmap);
        assert_eq!(thin.zeroing(false), Zeroing::WriteSame);
        assert_eq!(disk(512, 1000).zeroing(true), Zeroing::WriteSame);
        let provisioning = Provisioning {
            reads_zeros: false,
            ..thin.provisioning
        };
        assert_eq!(
            LunFacts {
                provisioning,
                ..thin.clone()
            }
            .zeroing(true),
            Zeroing::WriteSame
        );
        let flags = |operation, zeroing| {
            thin.part(operation, extent(0, 512), 0, zeroing)
                .unwrap()
                .command
                .cdb[1]
        };
        assert_eq!(flags(ZEROES, Zeroing::WriteSameUnmap), 0x08);
        assert_eq!(flags(ZEROES, Zeroing::WriteSame), 0);
        assert_eq!(
            flags(STABLE_ZEROES, Zeroing::WriteSameUnmap),
            0,
            "the request forbids it"
        );
    }

    #[test]
    fn zeroing_falls_back_until_plain_writes() {
        assert_eq!(Zeroing::WriteSameUnmap.fallback(), Some(Zeroing::WriteSame));
        assert_eq!(Zeroing::WriteSame.fallback(), Some(Zeroing::Write));
        assert_eq!(Zeroing::Write.fallback(), None);
        let ten = LunFacts {
            width: CommandWidth::Ten,
            ..thin_disk(512, 1000)
        };
        assert_eq!(ten.zeroing(true), Zeroing::Write);
    }

    #[test]
    fn write_same_covers_65535_blocks_where_the_lun_reports_no_limit() {
        let facts = disk(512, 1 << 30);
        let length_bytes = 0x1_0000 * 512;
        let parts = parts(&facts, ZEROES, extent(0, length_bytes), Zeroing::WriteSame);
        let one = NonZeroU32::MIN;
        let most = NonZeroU32::new(0xffff).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].command, write_same::zeros(0, most, false, 512));
        assert_eq!(parts[1].command, write_same::zeros(0xffff, one, false, 512));
    }

    #[test]
    fn a_discard_is_unmap_where_there_is_one_and_else_write_same() {
        let mut facts = thin_disk(4096, 1000);
        let whole = extent(8, 3 * 4096);
        let three = NonZeroU32::new(3).unwrap();
        assert_eq!(
            command(&facts, BlockOperation::Discard, whole),
            unmap::command(1, three)
        );
        facts.provisioning.unmap = false;
        let expected = write_same::zeros(1, three, true, 4096);
        assert_eq!(command(&facts, BlockOperation::Discard, whole), expected);
    }

    #[test]
    fn a_discard_is_cut_between_granules() {
        let limits = BlockLimits {
            max_unmap_blocks: Some(20),
            unmap_granularity_blocks: Some(8),
            unmap_alignment_blocks: Some(2),
            ..BlockLimits::default()
        };
        let facts = with_limits(thin_disk(512, 1000), limits);
        let parts = parts(
            &facts,
            BlockOperation::Discard,
            extent(5, 50 * 512),
            Zeroing::Write,
        );
        // Granules start at 2, 10, 18, 26, …
        let lengths = parts.iter().map(|part| part.length_bytes / 512);
        assert!(lengths.eq([13, 16, 16, 5]));
    }

    #[test]
    fn a_granularity_beyond_the_limit_does_not_stop_a_discard() {
        let limits = BlockLimits {
            max_unmap_blocks: Some(20),
            unmap_granularity_blocks: Some(64),
            ..BlockLimits::default()
        };
        let facts = with_limits(thin_disk(512, 1000), limits);
        let parts = parts(
            &facts,
            BlockOperation::Discard,
            extent(0, 50 * 512),
            Zeroing::Write,
        );
        assert!(
            parts
                .iter()
                .map(|part| part.length_bytes / 512)
                .eq([20, 20, 10])
        );
    }

    fn any_limits() -> impl Strategy<Value = BlockLimits> {
        let small = || proptest::option::of(prop_oneof![0..100_u32, any::<u32>()]);
        (
            small(),
            small(),
            small(),
            small(),
            proptest::option::of(0..200_000_u64),
        )
            .prop_map(|(transfer, unmap, granularity, alignment, write_same)| {
                BlockLimits {
                    max_transfer_blocks: transfer,
                    max_unmap_blocks: unmap,
                    unmap_granularity_blocks: granularity,
                    unmap_alignment_blocks: alignment,
                    max_write_same_blocks: write_same,
                    ..BlockLimits::default()
                }
            })
    }

    fn any_operation() -> impl Strategy<Value = BlockOperation> {
        prop_oneof![
            Just(BlockOperation::Read),
            any::<bool>().prop_map(|stable| BlockOperation::Write { stable }),
            Just(BlockOperation::Discard),
            any::<(bool, bool)>()
                .prop_map(|(unmap, stable)| BlockOperation::WriteZeroes { unmap, stable }),
        ]
    }

    fn any_zeroing() -> impl Strategy<Value = Zeroing> {
        prop_oneof![
            Just(Zeroing::WriteSameUnmap),
            Just(Zeroing::WriteSame),
            Just(Zeroing::Write)
        ]
    }

    /// Address and count of a command, read from its bytes.
    fn range_of(command: &ScsiCommand) -> (u64, u64) {
        let cdb = &command.cdb;
        match (cdb[0], command.data) {
            (opcode::READ_10 | opcode::WRITE_10, _) => (
                u64::from(u32::from_be_bytes(cdb[2..6].try_into().unwrap())),
                u64::from(u16::from_be_bytes(cdb[7..9].try_into().unwrap())),
            ),
            (opcode::UNMAP, ScsiData::Parameters { bytes }) => (
                u64::from_be_bytes(bytes[8..16].try_into().unwrap()),
                u64::from(u32::from_be_bytes(bytes[16..20].try_into().unwrap())),
            ),
            _ => (
                u64::from_be_bytes(cdb[2..10].try_into().unwrap()),
                u64::from(u32::from_be_bytes(cdb[10..14].try_into().unwrap())),
            ),
        }
    }

    proptest! {
        #[test]
        fn parts_cover_the_extent_once_and_in_order(
            limits in any_limits(),
            operation in any_operation(),
            zeroing in any_zeroing(),
            ten: bool,
            block_length_bytes in prop_oneof![Just(512_u32), Just(4096)],
            block in 0..1_u64 << 31,
            count_blocks in 1..2000_u64,
        ) {
            let width = if ten { CommandWidth::Ten } else { CommandWidth::Sixteen };
            let facts = LunFacts {
                width,
                ..with_limits(thin_disk(block_length_bytes, 1 << 32), limits)
            };
            let block_bytes = u64::from(block_length_bytes);
            let request = extent(block * block_bytes / 512, count_blocks * block_bytes);
            prop_assert_eq!(facts.check(operation, request), Ok(()));

            let mut next_block = block;
            for part in parts(&facts, operation, request, zeroing) {
                let (first, count) = range_of(&part.command);
                prop_assert_eq!(first, next_block);
                prop_assert_eq!(count * block_bytes, part.length_bytes);
                prop_assert!(count > 0, "a count of 0 may mean the whole disk");
                next_block += count;
            }
            prop_assert_eq!(next_block, block + count_blocks);
        }

        #[test]
        fn no_request_and_no_facts_cause_a_panic(
            limits in any_limits(),
            operation in any_operation(),
            zeroing in any_zeroing(),
            block_length_bytes: u32,
            capacity_blocks: u64,
            sector: u64,
            length_bytes: u64,
            done_bytes: u64,
        ) {
            let facts = with_limits(thin_disk(block_length_bytes, capacity_blocks), limits);
            let request = extent(sector, length_bytes);
            let _ = facts.check(operation, request);
            let _ = facts.part(operation, request, done_bytes, zeroing);
        }
    }
}
