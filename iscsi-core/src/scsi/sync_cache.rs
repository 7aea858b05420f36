//! SYNCHRONIZE CACHE, of 10 and 16 bytes (SBC-4, clause of each command).
//!
//! IMMED stays 0: the status comes when the data is on the medium. A range that starts at block 0
//! with a count of 0 means the whole medium, so the 10-byte form also serves disks above 2 TiB.

use super::command::{ScsiCommand, block_cdb_10, block_cdb_16};
use super::opcode;

/// SYNCHRONIZE CACHE(10) for the whole medium.
pub fn command_10() -> ScsiCommand {
    ScsiCommand::without_data(block_cdb_10(opcode::SYNCHRONIZE_CACHE_10, 0, 0, 0))
}

/// SYNCHRONIZE CACHE(16) for the whole medium.
pub fn command_16() -> ScsiCommand {
    ScsiCommand::without_data(block_cdb_16(opcode::SYNCHRONIZE_CACHE_16, 0, 0, 0))
}

/// SYNCHRONIZE CACHE(10) for the first block only: costs little, shows whether it is implemented.
pub fn probe_10() -> ScsiCommand {
    ScsiCommand::without_data(block_cdb_10(opcode::SYNCHRONIZE_CACHE_10, 0, 0, 1))
}

/// SYNCHRONIZE CACHE(16) for the first block only: costs little, shows whether it is implemented.
pub fn probe_16() -> ScsiCommand {
    ScsiCommand::without_data(block_cdb_16(opcode::SYNCHRONIZE_CACHE_16, 0, 0, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::command::ScsiData;

    #[test]
    fn a_flush_covers_the_whole_medium_and_waits_for_it() {
        let ten = command_10();
        assert_eq!(ten.cdb, [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ten.data, ScsiData::None);
        let sixteen = command_16();
        assert_eq!(
            sixteen.cdb,
            [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(sixteen.data, ScsiData::None);
    }

    #[test]
    fn a_probe_covers_one_block() {
        assert_eq!(probe_10().cdb[7..9], [0, 1]);
        assert_eq!(probe_16().cdb[10..14], [0, 0, 0, 1]);
    }
}
