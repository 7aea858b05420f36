//! Commands that move blocks: READ, WRITE, VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, and those
//! that move none: SYNCHRONIZE CACHE, PRE-FETCH (SBC-4 section 5).

use super::{Cdb, Lun, Outcome, Reply, Sense};
use crate::bytes::{be16, be24, be32, be64, len32, u8_at};
use crate::config::opcode;
use crate::data::DataOut;

/// Blocks a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) block: u64,
    pub(super) blocks: u64,
}

impl Extent {
    /// Reads LOGICAL BLOCK ADDRESS and TRANSFER LENGTH; where they are follows from the CDB's
    /// length, and that from the operation code's group.
    pub(super) fn of(cdb: &Cdb) -> Self {
        let (block, blocks) = match cdb[0] >> 5 {
            0 => (be24(cdb, 1) & 0x001f_ffff, short_length(cdb[4])),
            1 | 2 => (be32(cdb, 2), u32::from(be16(cdb, 7))),
            5 => (be32(cdb, 2), be32(cdb, 6)),
            _ => {
                return Self {
                    block: be64(cdb, 2),
                    blocks: u64::from(be32(cdb, 10)),
                };
            }
        };
        Self {
            block: u64::from(block),
            blocks: u64::from(blocks),
        }
    }

    /// Offset and length in bytes, when all of it is on the disk.
    pub(super) fn bytes(self, lun: &Lun) -> Result<(u64, u64), Sense> {
        let end = self
            .block
            .checked_add(self.blocks)
            .ok_or(Sense::OUT_OF_RANGE)?;
        if end > lun.blocks() {
            return Err(Sense::OUT_OF_RANGE);
        }
        Ok((
            self.block * lun.block_bytes(),
            self.blocks * lun.block_bytes(),
        ))
    }
}

/// TRANSFER LENGTH of READ(6): 0 means 256.
fn short_length(length: u8) -> u32 {
    if length == 0 { 256 } else { u32::from(length) }
}

/// Whether a command stores data and does nothing else with it.
pub(super) fn is_write(cdb: &Cdb) -> bool {
    matches!(cdb[0], 0x2a | 0xaa | 0x8a | 0x2e | 0xae | 0x8e)
}

pub(super) fn execute(lun: &Lun, cdb: &Cdb, data_out: &DataOut<'_>) -> Outcome {
    match cdb[0] {
        0x08 => read(lun, cdb),
        0x28 | 0xa8 | 0x88 => protected(lun, cdb).and_then(|()| read(lun, cdb)),
        0x2a | 0xaa | 0x8a => protected(lun, cdb).and_then(|()| write(lun, cdb, data_out)),
        0x2e | 0xae | 0x8e => no_protection(cdb).and_then(|()| write(lun, cdb, data_out)),
        0x2f | 0xaf | 0x8f => no_protection(cdb).and_then(|()| verify(lun, cdb, data_out.bytes())),
        0x34 | 0x90 | 0x35 | 0x91 => Extent::of(cdb).bytes(lun).map(|_| Reply::good()),
        opcode::COMPARE_AND_WRITE => {
            protected(lun, cdb).and_then(|()| compare_and_write(lun, cdb, data_out.bytes()))
        }
        _ => Err(Sense::INVALID_OPCODE),
    }
}

/// RDPROTECT, WRPROTECT, VRPROTECT: there is no protection information here.
pub(super) fn no_protection(cdb: &Cdb) -> Result<(), Sense> {
    if cdb[1] & 0xe0 == 0 {
        Ok(())
    } else {
        Err(Sense::INVALID_FIELD)
    }
}

/// The same, and DPO and FUA only where the mode parameter header says so.
fn protected(lun: &Lun, cdb: &Cdb) -> Result<(), Sense> {
    no_protection(cdb)?;
    if cdb[1] & 0x18 != 0 && !lun.config.dpo_fua {
        Err(Sense::INVALID_FIELD)
    } else {
        Ok(())
    }
}

fn check_length(lun: &Lun, blocks: u64) -> Result<(), Sense> {
    let limit = u64::from(lun.config.limits.max_transfer_blocks);
    if limit > 0 && blocks > limit {
        Err(Sense::INVALID_FIELD)
    } else {
        Ok(())
    }
}

/// A length that is allowed to be held in memory.
fn in_memory(length_bytes: u64) -> Result<usize, Sense> {
    /// More than any session lets through; a CDB alone can ask for 16 TiB.
    const MOST_BYTES: u64 = 256 << 20;
    usize::try_from(length_bytes)
        .ok()
        .filter(|_| length_bytes <= MOST_BYTES)
        .ok_or(Sense::INVALID_FIELD)
}

fn read(lun: &Lun, cdb: &Cdb) -> Outcome {
    let extent = Extent::of(cdb);
    check_length(lun, extent.blocks)?;
    let (offset, length) = extent.bytes(lun)?;
    Ok(Reply::data(lun.disk.data(offset, in_memory(length)?)))
}

fn write(lun: &Lun, cdb: &Cdb, data_out: &DataOut<'_>) -> Outcome {
    let extent = Extent::of(cdb);
    check_length(lun, extent.blocks)?;
    let (offset, length) = extent.bytes(lun)?;
    let length = in_memory(length)?;
    writable(lun)?;
    // Less data than the command wants: what there is, in whole blocks, and the rest is residual.
    let block = usize::try_from(lun.block_bytes()).unwrap_or(512);
    let there = data_out.len().min(length) / block * block;
    store(
        lun,
        offset,
        data_out.bytes().get(..there).unwrap_or_default(),
    )?;
    Ok(Reply::took(len32(length)))
}

pub(super) fn writable(lun: &Lun) -> Result<(), Sense> {
    if lun.write_protected() {
        Err(Sense::WRITE_PROTECTED)
    } else {
        Ok(())
    }
}

pub(super) fn store(lun: &Lun, offset: u64, data: &[u8]) -> Result<(), Sense> {
    lun.disk.write(offset, data).map_err(|_| Sense::NO_SPACE)
}

/// VERIFY: BYTCHK 0 reads only, 1 compares every block, 3 compares all to one block.
fn verify(lun: &Lun, cdb: &Cdb, data_out: &[u8]) -> Outcome {
    let (offset, length) = Extent::of(cdb).bytes(lun)?;
    if cdb[1] & 0x10 != 0 && !lun.config.dpo_fua {
        return Err(Sense::INVALID_FIELD);
    }
    let expected = match cdb[1] >> 1 & 3 {
        0 => return Ok(Reply::good()),
        1 => data_out
            .get(..in_memory(length)?)
            .ok_or(Sense::PARAMETER_LENGTH)?
            .to_vec(),
        3 => repeated(lun, data_out, length)?,
        _ => return Err(Sense::INVALID_FIELD),
    };
    let mut stored = vec![0; expected.len()];
    lun.disk.read(offset, &mut stored);
    if stored == expected {
        Ok(Reply::took(len32(data_out.len())))
    } else {
        Err(Sense::MISCOMPARE)
    }
}

fn repeated(lun: &Lun, data_out: &[u8], length: u64) -> Result<Vec<u8>, Sense> {
    let block = usize::try_from(lun.block_bytes()).unwrap_or(512);
    let one = data_out.get(..block).ok_or(Sense::PARAMETER_LENGTH)?;
    Ok(one.repeat(in_memory(length)? / block))
}

/// COMPARE AND WRITE: the first half is compared, the second written.
fn compare_and_write(lun: &Lun, cdb: &Cdb, data_out: &[u8]) -> Outcome {
    let blocks = u8_at(cdb, 13);
    if blocks > lun.config.limits.max_compare_and_write_blocks {
        return Err(Sense::INVALID_FIELD);
    }
    let extent = Extent {
        block: be64(cdb, 2),
        blocks: u64::from(blocks),
    };
    let (offset, length) = extent.bytes(lun)?;
    let length = in_memory(length)?;
    writable(lun)?;
    if data_out.len() != length * 2 {
        return Err(Sense::INVALID_FIELD);
    }
    let (expected, new) = data_out.split_at(length);
    let mut stored = vec![0; length];
    lun.disk.read(offset, &mut stored);
    if stored != expected {
        return Err(Sense::MISCOMPARE);
    }
    store(lun, offset, new)?;
    Ok(Reply::took(len32(data_out.len())))
}

#[cfg(test)]
mod tests {
    use super::super::lun_for_tests;
    use super::*;
    use crate::bytes::put;
    use crate::config::{BlockLimits, LunConfig};

    fn cdb16(opcode: u8, block: u64, blocks: u32) -> Cdb {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        put(&mut cdb, 2, &block.to_be_bytes());
        put(&mut cdb, 10, &blocks.to_be_bytes());
        cdb
    }

    #[test]
    fn finds_address_and_length_in_every_cdb_length() {
        let six = Extent::of(&[0x08, 0xe1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            six,
            Extent {
                block: 0x01_0203,
                blocks: 256
            }
        );
        let ten = Extent::of(&[0x28, 0, 1, 2, 3, 4, 9, 5, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            ten,
            Extent {
                block: 0x0102_0304,
                blocks: 0x0506
            }
        );
        let twelve = Extent::of(&[0xa8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            twelve,
            Extent {
                block: 0x0102_0304,
                blocks: 0x0506_0708
            }
        );
        assert_eq!(
            Extent::of(&cdb16(0x88, 1 << 40, 7)),
            Extent {
                block: 1 << 40,
                blocks: 7
            }
        );
    }

    #[test]
    fn serves_the_last_block_and_not_the_next() {
        let lun = lun_for_tests(LunConfig::of_bytes(8 * 512));
        assert!(execute(&lun, &cdb16(0x88, 7, 1), &DataOut::NONE).is_ok());
        assert_eq!(
            execute(&lun, &cdb16(0x88, 8, 1), &DataOut::NONE).unwrap_err(),
            Sense::OUT_OF_RANGE
        );
        assert_eq!(
            execute(&lun, &cdb16(0x88, u64::MAX, 1), &DataOut::NONE).unwrap_err(),
            Sense::OUT_OF_RANGE
        );
    }

    #[test]
    fn enforces_the_maximum_transfer_length_on_both_sides_of_it() {
        let limits = BlockLimits {
            max_transfer_blocks: 4,
            ..BlockLimits::default()
        };
        let lun = lun_for_tests(LunConfig {
            limits,
            ..LunConfig::default()
        });
        assert!(execute(&lun, &cdb16(0x8a, 0, 4), &DataOut::of(&[0; 2048], true)).is_ok());
        let refused = execute(&lun, &cdb16(0x8a, 0, 5), &DataOut::of(&[0; 2560], true));
        assert_eq!(refused.unwrap_err(), Sense::INVALID_FIELD);
    }

    #[test]
    fn stores_nothing_when_write_protected_or_miscompared() {
        let lun = lun_for_tests(LunConfig::default());
        let mut cdb = cdb16(0x89, 0, 0);
        cdb[13] = 1;
        let refused = execute(&lun, &cdb, &DataOut::of(&[1; 1024], true));
        assert_eq!(refused.unwrap_err(), Sense::MISCOMPARE);
        lun.set_write_protected(true);
        let refused = execute(&lun, &cdb16(0x8a, 0, 1), &DataOut::of(&[1; 512], true));
        assert_eq!(refused.unwrap_err(), Sense::WRITE_PROTECTED);
        assert_eq!(lun.disk.stored_bytes(), 0);
    }
}
