//! Chains that are no request: what is wrong with them, and what the guest is told.

use super::{MAX_RANGES, Status};
use crate::device::chain::ChainError;
use crate::guest_memory::GuestMemoryError;

/// A chain that is no request. Either way the queue goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The request has a status byte, for
    /// [`ParsedRequest::complete`](super::ParsedRequest::complete) with this status.
    #[error("{reason}")]
    WithStatus {
        /// What the guest is told.
        status: Status,
        /// What is wrong, for the log.
        reason: Reason,
    },
    /// There is no place for a status: goes back with used length 0 and a line in the log.
    #[error("{reason}")]
    NoStatus {
        /// What is wrong, for the log.
        reason: Reason,
    },
}

/// What is wrong with a chain, from the guest's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Its descriptors make no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Its data or status is not in guest memory.
    #[error(transparent)]
    Memory(#[from] GuestMemoryError),
    /// A descriptor that the device reads comes after one that it writes (2.7.4.2).
    #[error("a readable descriptor after a writable one")]
    ReadableAfterWritable,
    /// There is no writable byte for the status.
    #[error("no writable byte for the status")]
    StatusMissing,
    /// Fewer than 16 readable bytes.
    #[error("a header of {length_bytes} bytes instead of 16")]
    HeaderShort {
        /// How many there are.
        length_bytes: u64,
    },
    /// Data the device would have to read where it writes, or the reverse.
    #[error("data in the wrong direction")]
    WrongDirection,
    /// Not a multiple of 512 bytes, none, or more than a used length can say (2.7.4.2: 2^32).
    #[error("{length_bytes} bytes of data")]
    DataLength {
        /// How many.
        length_bytes: u64,
    },
    /// Not whole segments, none, or more than [`MAX_RANGES`].
    #[error("{length_bytes} bytes of segments of 16 bytes, at most {MAX_RANGES} of them")]
    RangesLength {
        /// How many bytes.
        length_bytes: u64,
    },
    /// Reserved flags, or unmap on a discard.
    #[error("flags {flags:#x} in a segment")]
    RangeFlags {
        /// The flags.
        flags: u32,
    },
    /// A type that is not known or was not negotiated.
    #[error("request type {kind}")]
    UnsupportedType {
        /// The type.
        kind: u32,
    },
}

impl Reason {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::RangeFlags { .. } | Self::UnsupportedType { .. } => Status::Unsupp,
            _ => Status::IoErr,
        }
    }
}
