//! A SCSI command as the session carries it: descriptor block, direction, lengths; and what
//! comes back.

use super::opcode;

/// A command descriptor block; shorter ones are filled up with zeros (RFC 7143 section 11.3.5).
pub type Cdb = [u8; 16];

/// One SCSI command for one logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiCommand {
    /// The command descriptor block.
    pub cdb: Cdb,
    /// What data goes with it, and where it comes from or goes to.
    pub data: ScsiData,
}

/// How a command ended, and the data it brought.
///
/// None of it is trusted: each slice may have any length and any content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiAnswer<'a> {
    /// The status code of the SCSI Response or of the last Data-In (SAM-6, "Status codes").
    pub status: u8,
    /// The sense data, without the SenseLength field that RFC 7143 section 11.4.7.2 puts before
    /// it; empty when there was none.
    pub sense: &'a [u8],
    /// The data that arrived, which may be less than the command asked for.
    pub data: &'a [u8],
}

impl ScsiCommand {
    /// A command that moves no data.
    pub(super) fn without_data(cdb: Cdb) -> Self {
        Self {
            cdb,
            data: ScsiData::None,
        }
    }

    /// A command that brings at most `length_bytes`, to the start of the request's buffer.
    pub(super) fn reading(cdb: Cdb, length_bytes: u32) -> Self {
        Self {
            cdb,
            data: ScsiData::In {
                offset_bytes: 0,
                length_bytes,
            },
        }
    }

    /// The standard's name of the command, for messages.
    pub fn name(&self) -> &'static str {
        opcode::name(self.cdb[0])
    }
}

/// A 10-byte descriptor block with an address and a block count: READ, WRITE and SYNCHRONIZE
/// CACHE share this layout (SBC-4, clause of each).
pub(super) fn block_cdb_10(opcode: u8, flags: u8, block: u32, count_blocks: u16) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[7..9].copy_from_slice(&count_blocks.to_be_bytes());
    cdb
}

/// The 16-byte form of [`block_cdb_10`], which WRITE SAME shares too (SBC-4, clause of each).
pub(super) fn block_cdb_16(opcode: u8, flags: u8, block: u64, count_blocks: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&block.to_be_bytes());
    cdb[10..14].copy_from_slice(&count_blocks.to_be_bytes());
    cdb
}

/// The data of a command, seen from the initiator.
///
/// Offsets are into the buffer of the request that the command serves: the owner of the buffers
/// (guest memory, or a vector for a probe) resolves them, the core never sees the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScsiData {
    /// No data either way.
    None,
    /// `length_bytes` from the target into the request's buffer at `offset_bytes`.
    In {
        /// Where in the request's buffer the first byte goes.
        offset_bytes: u32,
        /// How many bytes at most: the Expected Data Transfer Length.
        length_bytes: u32,
    },
    /// `length_bytes` of the request's buffer from `offset_bytes` to the target.
    Out {
        /// Where in the request's buffer the first byte is.
        offset_bytes: u32,
        /// How many bytes: the Expected Data Transfer Length.
        length_bytes: u32,
    },
    /// `length_bytes` zero bytes to the target (WRITE SAME, written zeros).
    Zeros {
        /// How many bytes: the Expected Data Transfer Length.
        length_bytes: u32,
    },
    /// A parameter list to the target, carried in the command itself (UNMAP).
    Parameters {
        /// The parameter list; all of it is sent.
        bytes: [u8; PARAMETER_LIST_LENGTH_BYTES],
    },
}

/// The length of the one parameter list we send: UNMAP with one block descriptor (SBC-4,
/// "UNMAP parameter list").
pub const PARAMETER_LIST_LENGTH_BYTES: usize = 24;

impl ScsiData {
    /// The Expected Data Transfer Length in bytes.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the length of the list is 24"
    )]
    pub fn length_bytes(&self) -> u32 {
        match *self {
            Self::None => 0,
            Self::In { length_bytes, .. }
            | Self::Out { length_bytes, .. }
            | Self::Zeros { length_bytes } => length_bytes,
            Self::Parameters { .. } => PARAMETER_LIST_LENGTH_BYTES as u32,
        }
    }
}
