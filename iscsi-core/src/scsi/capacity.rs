//! READ CAPACITY, of 10 and 16 bytes (SBC-4, clause of each command).

use super::ParameterError;
use super::bytes::{be16_at, be32_at, be64_at, byte_at};
use super::command::ScsiCommand;
use super::opcode;

/// The length of READ CAPACITY(10)'s answer in bytes.
const LENGTH_10_BYTES: u32 = 8;
/// The length of READ CAPACITY(16)'s answer in bytes.
const LENGTH_16_BYTES: u32 = 32;
/// How much of READ CAPACITY(16)'s answer must arrive: the last block and the block length.
const NEEDED_16_BYTES: usize = 12;
/// SERVICE ACTION field of READ CAPACITY(16).
const READ_CAPACITY_16_ACTION: u8 = 0x10;

/// How large a disk is, as the target said it: nothing of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The address of the last logical block.
    pub last_block: u64,
    /// The logical block length in bytes.
    pub block_length_bytes: u32,
    /// A physical block is 2^this logical blocks; at most 15.
    pub physical_block_exponent: u8,
    /// The first logical block that starts a physical one; at most 16,383.
    pub lowest_aligned_block: u16,
    /// LBPME: logical block provisioning management is enabled.
    pub provisioning_management: bool,
    /// LBPRZ: deallocated blocks read as zeros.
    pub reads_zeros: bool,
}

/// READ CAPACITY(10).
pub fn command_10() -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = opcode::READ_CAPACITY_10;
    ScsiCommand::reading(cdb, LENGTH_10_BYTES)
}

/// READ CAPACITY(16).
pub fn command_16() -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = opcode::SERVICE_ACTION_IN_16;
    cdb[1] = READ_CAPACITY_16_ACTION;
    cdb[10..14].copy_from_slice(&LENGTH_16_BYTES.to_be_bytes());
    ScsiCommand::reading(cdb, LENGTH_16_BYTES)
}

/// Parses the answer to READ CAPACITY(10), which must be whole.
///
/// A last block of `u32::MAX` means that the disk is too large for this command.
pub fn parse_10(data: &[u8]) -> Result<Capacity, ParameterError> {
    let fields = be32_at(data, 0).zip(be32_at(data, 4));
    let (last_block, block_length_bytes) =
        fields.ok_or_else(|| too_short(LENGTH_10_BYTES as usize, data))?;
    Ok(Capacity {
        last_block: u64::from(last_block),
        block_length_bytes,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        provisioning_management: false,
        reads_zeros: false,
    })
}

/// Parses the answer to READ CAPACITY(16), of which at least 12 bytes must have arrived.
pub fn parse_16(data: &[u8]) -> Result<Capacity, ParameterError> {
    let fields = be64_at(data, 0).zip(be32_at(data, 8));
    let (last_block, block_length_bytes) =
        fields.ok_or_else(|| too_short(NEEDED_16_BYTES, data))?;
    let provisioning = be16_at(data, 14).unwrap_or(0);
    Ok(Capacity {
        last_block,
        block_length_bytes,
        physical_block_exponent: byte_at(data, 13).unwrap_or(0) & 0x0f,
        lowest_aligned_block: provisioning & 0x3fff,
        provisioning_management: provisioning & 0x8000 != 0,
        reads_zeros: provisioning & 0x4000 != 0,
    })
}

fn too_short(needed_bytes: usize, data: &[u8]) -> ParameterError {
    ParameterError::TooShort {
        needed_bytes,
        arrived_bytes: data.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const THIN_4K_DISK: [u8; 32] = [
        0, 0, 0, 1, 0, 0, 0, 0xff, // last block
        0, 0, 0x10, 0, // block length
        0, // no protection
        0x03, // 8 logical blocks per physical block
        0xc0, 0x05, // LBPME, LBPRZ, lowest aligned block
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn the_commands_have_the_layout_of_the_standard() {
        assert_eq!(
            command_10().cdb,
            [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(command_10().data.length_bytes(), 8);
        assert_eq!(
            command_16().cdb,
            [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]
        );
        assert_eq!(command_16().data.length_bytes(), 32);
    }

    #[test]
    fn sixteen_bytes_tell_about_alignment_and_provisioning() {
        let capacity = parse_16(&THIN_4K_DISK).unwrap();
        assert_eq!(
            capacity,
            Capacity {
                last_block: 0x1_0000_00ff,
                block_length_bytes: 4096,
                physical_block_exponent: 3,
                lowest_aligned_block: 5,
                provisioning_management: true,
                reads_zeros: true,
            }
        );
    }

    #[test]
    fn an_answer_of_twelve_bytes_will_do_and_eleven_will_not() {
        let capacity = parse_16(&THIN_4K_DISK[..12]).unwrap();
        assert_eq!(capacity.last_block, 0x1_0000_00ff);
        assert!(!capacity.provisioning_management);
        for length in 0..12 {
            assert_eq!(
                parse_16(&THIN_4K_DISK[..length]),
                Err(ParameterError::TooShort {
                    needed_bytes: 12,
                    arrived_bytes: length
                })
            );
        }
    }

    #[test]
    fn ten_bytes_tell_the_size_and_must_be_whole() {
        let data = [0xff, 0xff, 0xff, 0xfe, 0, 0, 2, 0];
        let capacity = parse_10(&data).unwrap();
        assert_eq!(
            (capacity.last_block, capacity.block_length_bytes),
            (0xffff_fffe, 512)
        );
        for length in 0..8 {
            assert!(parse_10(&data[..length]).is_err());
        }
    }
}
