//! READ CAPACITY(10) and (16), GET LBA STATUS (SBC-4 sections 5.5, 5.15, 5.16).

use super::{Cdb, Lun, Outcome, Sense, truncated};
use crate::bytes::{be32, be64, put};
use crate::config::opcode;

pub(super) fn execute(lun: &Lun, cdb: &Cdb) -> Outcome {
    match (cdb[0], cdb[1] & 0x1f) {
        (opcode::READ_CAPACITY_10, _) => Ok(truncated(short(lun), 8)),
        (_, 0x10) => Ok(truncated(long(lun), be32(cdb, 10) as usize)),
        (_, 0x12) if lun.config.thin.is_some() => lba_status(lun, cdb),
        _ => Err(Sense::INVALID_FIELD),
    }
}

/// The number of the last block; of a LUN without blocks, the count below zero, wrapped.
fn last_block(lun: &Lun) -> u64 {
    lun.blocks().wrapping_sub(1)
}

fn short(lun: &Lun) -> Vec<u8> {
    // A capacity that does not fit is all ones: ask READ CAPACITY(16).
    let last = u32::try_from(last_block(lun)).unwrap_or(u32::MAX);
    [last.to_be_bytes(), lun.config.block_bytes.to_be_bytes()].concat()
}

fn long(lun: &Lun) -> Vec<u8> {
    let config = &lun.config;
    let mut data = vec![0; 32];
    put(&mut data, 0, &last_block(lun).to_be_bytes());
    put(&mut data, 8, &config.block_bytes.to_be_bytes());
    put(&mut data, 13, &[config.physical_exponent & 0x0f]);
    let managed = config
        .thin
        .map_or(0, |thin| if thin.reads_zeros { 0xc000 } else { 0x8000 });
    put(
        &mut data,
        14,
        &(managed | config.lowest_aligned_block & 0x3fff).to_be_bytes(),
    );
    data
}

/// One descriptor: from the block asked for to the end of what has the same state.
fn lba_status(lun: &Lun, cdb: &Cdb) -> Outcome {
    let start = be64(cdb, 2);
    if start >= lun.blocks() {
        return Err(Sense::OUT_OF_RANGE);
    }
    let (mapped, end_bytes) = lun.disk.mapped(start * lun.block_bytes());
    let end = (end_bytes / lun.block_bytes()).min(lun.blocks());
    let blocks = u32::try_from(end - start).unwrap_or(u32::MAX);
    let mut data = vec![0; 24];
    put(&mut data, 0, &20_u32.to_be_bytes());
    put(&mut data, 8, &start.to_be_bytes());
    put(&mut data, 16, &blocks.to_be_bytes());
    put(&mut data, 20, &[u8::from(!mapped)]);
    Ok(truncated(data, be32(cdb, 10) as usize))
}

#[cfg(test)]
mod tests {
    use super::super::lun_for_tests;
    use super::*;
    use crate::config::LunConfig;

    #[test]
    fn short_form_saturates_where_the_long_one_does_not() {
        let with = |blocks: u64| lun_for_tests(LunConfig::of_bytes(blocks * 512));
        assert_eq!(be32(&short(&with(0xffff_ffff)), 0), 0xffff_fffe);
        assert_eq!(be32(&short(&with(0x1_0000_0001)), 0), 0xffff_ffff);
        assert_eq!(be64(&long(&with(0x1_0000_0001)), 0), 0x1_0000_0000);
    }

    #[test]
    fn zero_capacity_wraps() {
        assert_eq!(
            be64(&long(&lun_for_tests(LunConfig::of_bytes(0))), 0),
            u64::MAX
        );
    }
}
