//! READ and WRITE, of 10 and 16 bytes (SBC-4, clause of each command).

use super::command::{Cdb, block_cdb_10, block_cdb_16};
use super::opcode;

/// Force unit access: the status comes when the data is on the medium (SBC-4, "Caches").
const FUA: u8 = 1 << 3;

/// READ(10) of `count_blocks` from logical block `block` on. A count of 0 reads nothing.
pub fn read_10(block: u32, count_blocks: u16) -> Cdb {
    block_cdb_10(opcode::READ_10, 0, block, count_blocks)
}

/// READ(16) of `count_blocks` from logical block `block` on. A count of 0 reads nothing.
pub fn read_16(block: u64, count_blocks: u32) -> Cdb {
    block_cdb_16(opcode::READ_16, 0, block, count_blocks)
}

/// WRITE(10) of `count_blocks` from logical block `block` on; with `fua`, past the write cache.
pub fn write_10(block: u32, count_blocks: u16, fua: bool) -> Cdb {
    block_cdb_10(opcode::WRITE_10, fua_flag(fua), block, count_blocks)
}

/// WRITE(16) of `count_blocks` from logical block `block` on; with `fua`, past the write cache.
pub fn write_16(block: u64, count_blocks: u32, fua: bool) -> Cdb {
    block_cdb_16(opcode::WRITE_16, fua_flag(fua), block, count_blocks)
}

fn fua_flag(fua: bool) -> u8 {
    if fua { FUA } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_10_has_the_layout_of_the_standard() {
        assert_eq!(
            read_10(0x0102_0304, 0x0506),
            [0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn read_16_has_the_layout_of_the_standard() {
        assert_eq!(
            read_16(0x0102_0304_0506_0708, 0x090a_0b0c),
            [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0, 0]
        );
    }

    #[test]
    fn writes_set_fua_only_when_asked() {
        assert_eq!(
            write_10(0x0102_0304, 0x0506, true),
            [0x2a, 0x08, 1, 2, 3, 4, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(write_10(0, 1, false)[1], 0);
        assert_eq!(
            write_16(u64::MAX, u32::MAX, true),
            [
                0x8a, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0
            ]
        );
        assert_eq!(write_16(0, 1, false)[1], 0);
    }
}
