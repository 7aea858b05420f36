//! UNMAP (SBC-4, clause of the command).

use core::num::NonZeroU32;

use super::command::{PARAMETER_LIST_LENGTH_BYTES, ScsiCommand, ScsiData};
use super::opcode;

/// PARAMETER LIST LENGTH: the header of 8 bytes and one descriptor of 16.
const LIST_LENGTH_BYTES: u16 = 24;
/// UNMAP DATA LENGTH: what follows its own two bytes.
const DATA_LENGTH_BYTES: u16 = LIST_LENGTH_BYTES - 2;
/// UNMAP BLOCK DESCRIPTOR DATA LENGTH: one descriptor.
const DESCRIPTORS_LENGTH_BYTES: u16 = LIST_LENGTH_BYTES - 8;

const _: () = assert!(LIST_LENGTH_BYTES as usize == PARAMETER_LIST_LENGTH_BYTES);

/// UNMAP of `count_blocks` from logical block `block` on, with one block descriptor.
pub fn command(block: u64, count_blocks: NonZeroU32) -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = opcode::UNMAP;
    cdb[7..9].copy_from_slice(&LIST_LENGTH_BYTES.to_be_bytes());

    let mut bytes = [0; PARAMETER_LIST_LENGTH_BYTES];
    bytes[0..2].copy_from_slice(&DATA_LENGTH_BYTES.to_be_bytes());
    bytes[2..4].copy_from_slice(&DESCRIPTORS_LENGTH_BYTES.to_be_bytes());
    bytes[8..16].copy_from_slice(&block.to_be_bytes());
    bytes[16..20].copy_from_slice(&count_blocks.get().to_be_bytes());
    ScsiCommand {
        cdb,
        data: ScsiData::Parameters { bytes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_descriptor_has_the_layout_of_the_standard() {
        let count_blocks = NonZeroU32::new(0x090a_0b0c).unwrap();
        let command = command(0x0102_0304_0506_0708, count_blocks);
        assert_eq!(
            command.cdb,
            [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0]
        );
        #[rustfmt::skip]
        let expected = [
            0, 22, 0, 16, 0, 0, 0, 0,
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0,
        ];
        assert_eq!(command.data, ScsiData::Parameters { bytes: expected });
        assert_eq!(command.data.length_bytes(), 24);
    }
}
