//! A SCSI command as the session carries it: descriptor block, direction, lengths.

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

/// The length of the one parameter list we send: UNMAP with one block descriptor (SBC-4 5.32).
pub const PARAMETER_LIST_LENGTH_BYTES: usize = 24;

impl ScsiData {
    /// The Expected Data Transfer Length in bytes.
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
