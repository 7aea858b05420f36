//! UNMAP and WRITE SAME (SBC-4 sections 5.35, 5.52 and 5.53).

use super::block::{Extent, no_protection, store, writable};
use super::{Cdb, Lun, Outcome, Reply, Sense};
use crate::bytes::{be16, be32, be64, len32};
use crate::config::opcode;

pub(super) fn write_same(lun: &Lun, cdb: &Cdb, data_out: &[u8]) -> Outcome {
    no_protection(cdb)?;
    writable(lun)?;
    let extent = extent(lun, cdb)?;
    let (offset, length) = extent.bytes(lun)?;
    let block = pattern(lun, cdb, data_out)?;
    if unmaps(lun, cdb)? && block.iter().all(|byte| *byte == 0) {
        lun.disk.discard(offset, length);
    } else {
        fill(lun, offset, length, &block)?;
    }
    Ok(Reply::took(len32(data_out.len().min(block.len()))))
}

/// 0 blocks means "to the end", unless the LUN says that it does not.
fn extent(lun: &Lun, cdb: &Cdb) -> Result<Extent, Sense> {
    let mut extent = Extent::of(cdb);
    let limits = &lun.config.limits;
    if extent.block > lun.blocks() {
        return Err(Sense::OUT_OF_RANGE);
    }
    if extent.blocks == 0 {
        if limits.write_same_non_zero {
            return Err(Sense::INVALID_FIELD);
        }
        extent.blocks = lun.blocks() - extent.block;
    }
    let limit = limits.max_write_same_blocks;
    if limit > 0 && extent.blocks > limit {
        Err(Sense::INVALID_FIELD)
    } else {
        Ok(extent)
    }
}

/// The block to write everywhere. NDOB, without a data-out buffer, means zeros.
fn pattern(lun: &Lun, cdb: &Cdb, data_out: &[u8]) -> Result<Vec<u8>, Sense> {
    let block_bytes = usize::try_from(lun.block_bytes()).unwrap_or(512);
    if cdb[0] == opcode::WRITE_SAME_16 && cdb[1] & 0x01 != 0 {
        return Ok(vec![0; block_bytes]);
    }
    if data_out.len() == block_bytes {
        Ok(data_out.to_vec())
    } else {
        Err(Sense::INVALID_FIELD)
    }
}

/// The UNMAP bit, refused where the LUN does not offer it. ANCHOR is not served.
fn unmaps(lun: &Lun, cdb: &Cdb) -> Result<bool, Sense> {
    let offered = lun.config.thin.is_some_and(|thin| match cdb[0] {
        opcode::WRITE_SAME_16 => thin.write_same,
        _ => thin.write_same_10,
    });
    match (cdb[1] & 0x10 != 0, cdb[1] & 0x08 != 0) {
        (true, _) => Err(Sense::INVALID_FIELD),
        (false, true) if !offered => Err(Sense::INVALID_FIELD),
        (false, asked) => Ok(asked),
    }
}

/// Writes `block` over and over, in pieces that do not need the whole length in memory.
fn fill(lun: &Lun, offset: u64, length: u64, block: &[u8]) -> Result<(), Sense> {
    let piece = block.repeat(128);
    let mut done = 0;
    while done < length {
        let left = usize::try_from(length - done).unwrap_or(usize::MAX);
        let part = piece.get(..left).unwrap_or(&piece);
        store(lun, offset + done, part)?;
        done += part.len() as u64;
    }
    Ok(())
}

pub(super) fn unmap(lun: &Lun, cdb: &Cdb, data_out: &[u8]) -> Outcome {
    if !lun.config.thin.is_some_and(|thin| thin.unmap) {
        return Err(Sense::INVALID_OPCODE);
    }
    writable(lun)?;
    let list_bytes = usize::from(be16(cdb, 7));
    if cdb[1] & 0x01 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    if list_bytes == 0 {
        return Ok(Reply::good());
    }
    let list = data_out.get(..list_bytes).ok_or(Sense::PARAMETER_LENGTH)?;
    for (offset, length) in ranges(lun, list)? {
        lun.disk.discard(offset, length);
    }
    Ok(Reply::took(len32(list_bytes)))
}

/// Offset and length, bytes, of every descriptor; all are checked before the first is carried out.
fn ranges(lun: &Lun, list: &[u8]) -> Result<Vec<(u64, u64)>, Sense> {
    let body = list.get(8..).ok_or(Sense::PARAMETER_LENGTH)?;
    let claimed = usize::from(be16(list, 2));
    let descriptors: Vec<&[u8]> = body.chunks_exact(16).take(claimed / 16).collect();
    let limits = &lun.config.limits;
    let limit = limits.max_unmap_descriptors;
    if limit > 0 && len32(descriptors.len()) > limit {
        return Err(Sense::INVALID_PARAMETER);
    }
    let extents: Vec<Extent> = descriptors
        .iter()
        .map(|d| Extent {
            block: be64(d, 0),
            blocks: u64::from(be32(d, 8)),
        })
        .collect();
    let total: u64 = extents.iter().map(|extent| extent.blocks).sum();
    if limits.max_unmap_blocks > 0 && total > u64::from(limits.max_unmap_blocks) {
        return Err(Sense::INVALID_PARAMETER);
    }
    extents
        .into_iter()
        .map(|extent| extent.bytes(lun))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::lun_for_tests;
    use super::*;
    use crate::bytes::put;
    use crate::config::{BlockLimits, LunConfig, Thin};

    fn thin(limits: BlockLimits) -> Lun {
        lun_for_tests(LunConfig {
            thin: Some(Thin::default()),
            limits,
            ..LunConfig::default()
        })
    }

    fn unmap_list(ranges: &[(u64, u32)]) -> (Cdb, Vec<u8>) {
        let mut list = vec![0; 8];
        let length = u16::try_from(ranges.len() * 16).unwrap();
        put(&mut list, 2, &length.to_be_bytes());
        for (block, blocks) in ranges {
            list.extend(block.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        let mut cdb = [0; 16];
        cdb[0] = opcode::UNMAP;
        put(&mut cdb, 7, &(length + 8).to_be_bytes());
        (cdb, list)
    }

    #[test]
    fn unmaps_nothing_when_one_descriptor_is_out_of_range() {
        let lun = thin(BlockLimits::default());
        lun.disk.write(0, &[9; 512]).unwrap();
        let (cdb, list) = unmap_list(&[(0, 1), (u64::MAX, 1)]);
        assert_eq!(unmap(&lun, &cdb, &list).unwrap_err(), Sense::OUT_OF_RANGE);
        let mut block = [0; 512];
        lun.disk.read(0, &mut block);
        assert_eq!(block, [9; 512]);
    }

    #[test]
    fn enforces_both_unmap_limits_on_both_sides() {
        let limits = BlockLimits {
            max_unmap_blocks: 8,
            max_unmap_descriptors: 2,
            ..BlockLimits::default()
        };
        let lun = thin(limits);
        let ask = |ranges: &[(u64, u32)]| {
            let (cdb, list) = unmap_list(ranges);
            unmap(&lun, &cdb, &list).err()
        };
        assert_eq!(ask(&[(0, 4), (8, 4)]), None);
        assert_eq!(ask(&[(0, 4), (8, 5)]), Some(Sense::INVALID_PARAMETER));
        assert_eq!(
            ask(&[(0, 1), (8, 1), (9, 1)]),
            Some(Sense::INVALID_PARAMETER)
        );
    }

    #[test]
    fn write_same_of_nothing_goes_to_the_end_unless_wsnz() {
        let mut cdb = [0; 16];
        cdb[0] = opcode::WRITE_SAME_16;
        let blocks = |non_zero| {
            let limits = BlockLimits {
                write_same_non_zero: non_zero,
                ..BlockLimits::default()
            };
            extent(&thin(limits), &cdb).map(|extent| extent.blocks)
        };
        assert_eq!(blocks(false), Ok((64 << 20) / 512));
        assert_eq!(blocks(true), Err(Sense::INVALID_FIELD));
    }
}
