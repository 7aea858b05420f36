//! WRITE SAME(16) (SBC-4, clause of the command).

use core::num::NonZeroU32;

use super::command::{ScsiCommand, ScsiData, block_cdb_16};
use super::opcode;

/// The target may deallocate the blocks, provided they then read as the block sent.
const UNMAP: u8 = 1 << 3;

/// WRITE SAME(16): fills `count_blocks` from logical block `block` on with zeros, and with `unmap`
/// lets the target deallocate them instead.
///
/// One zero block of `block_length_bytes` is sent: NDOB, which would save it, is not implemented
/// everywhere. The count cannot be 0, which may mean "to the end of the disk" (WSNZ).
pub fn zeros(
    block: u64,
    count_blocks: NonZeroU32,
    unmap: bool,
    block_length_bytes: u32,
) -> ScsiCommand {
    let flags = if unmap { UNMAP } else { 0 };
    ScsiCommand {
        cdb: block_cdb_16(opcode::WRITE_SAME_16, flags, block, count_blocks.get()),
        data: ScsiData::Zeros {
            length_bytes: block_length_bytes,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_of_zeros_goes_with_the_command() {
        let count_blocks = NonZeroU32::new(0x090a_0b0c).unwrap();
        let command = zeros(0x0102_0304_0506_0708, count_blocks, false, 4096);
        assert_eq!(
            command.cdb,
            [0x93, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]
        );
        assert_eq!(command.data, ScsiData::Zeros { length_bytes: 4096 });
    }

    #[test]
    fn unmap_is_bit_3_and_not_the_anchor_bit_beside_it() {
        assert_eq!(zeros(0, NonZeroU32::MIN, true, 512).cdb[1], 0x08);
    }
}
