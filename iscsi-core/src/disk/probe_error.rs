//! Why a logical unit cannot serve as a disk.

use core::fmt;

use thiserror::Error;

use crate::scsi::ParameterError;
use crate::scsi::inquiry::DeviceType;
use crate::scsi::sense::Sense;
use crate::scsi::status::ScsiStatus;

/// How a command ended: its status, and the sense data with it, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The status.
    pub status: ScsiStatus,
    /// The sense data, when there was any that could be understood.
    pub sense: Option<Sense>,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.sense) {
            (ScsiStatus::CHECK_CONDITION, Some(sense)) => write!(f, "{sense}"),
            (ScsiStatus::CHECK_CONDITION, None) => {
                f.write_str("CHECK CONDITION without sense data")
            }
            (status, _) => write!(f, "{status}"),
        }
    }
}

/// Why a logical unit cannot serve as a disk, for good or for now ([`ProbeError::is_retryable`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// The target has no such LUN, or, after a restart, not yet.
    #[error(
        "the target has no such LUN: check the number, and whether it is exported to this initiator"
    )]
    NoSuchLun,
    /// Peripheral qualifier 001b: the target could have the LUN, but it is not connected.
    #[error("the target knows the LUN, but nothing is connected to it now")]
    NotConnected,
    /// It is something else than a disk.
    #[error("the LUN is {} (device type {:02X}h), not a disk", .0.name(), .0.0)]
    NotADisk(DeviceType),
    /// It will be ready by itself, or this path will lead to it.
    #[error("the LUN is not ready yet: {0}")]
    NotReady(Sense),
    /// BUSY, TASK SET FULL or ACA ACTIVE.
    #[error("the LUN is too busy to answer {command}: {status}")]
    Busy {
        /// The command's name.
        command: &'static str,
        /// The status.
        status: ScsiStatus,
    },
    /// Another initiator has reserved the LUN.
    #[error(
        "the LUN is reserved by another initiator ({command} ended with RESERVATION CONFLICT): \
         have the reservation released, or register with it"
    )]
    Reserved {
        /// The command's name.
        command: &'static str,
    },
    /// A command was interrupted by one condition after the other.
    #[error("{command} was not carried out after {tries} tries; the last ended with: {ending}")]
    Unsettled {
        /// The command's name.
        command: &'static str,
        /// How many commands of the probe were sent in vain.
        tries: u32,
        /// How the last one ended.
        ending: Ending,
    },
    /// A command that every disk has failed.
    #[error("{command} failed: {ending}")]
    Failed {
        /// The command's name.
        command: &'static str,
        /// How it ended.
        ending: Ending,
    },
    /// A command succeeded with data that makes no sense.
    #[error("the target's answer to {command} cannot be understood: {reason}")]
    Malformed {
        /// The command's name.
        command: &'static str,
        /// What is wrong with it.
        reason: ParameterError,
    },
    /// The logical block length is none that can be served.
    #[error("the LUN has logical blocks of {0} bytes; only 512 and 4096 can be served")]
    BlockLength(u32),
    /// There is not one block.
    #[error("the LUN has a capacity of 0 blocks")]
    ZeroCapacity,
    /// The capacity is no 63-bit number of bytes.
    #[error(
        "the LUN reports {blocks} blocks of {block_length_bytes} bytes, more than can be addressed"
    )]
    TooLarge {
        /// How many blocks.
        blocks: u64,
        /// Of which length.
        block_length_bytes: u32,
    },
    /// READ CAPACITY(10) cannot tell the size, READ CAPACITY(16) was refused.
    #[error(
        "the LUN has more blocks than READ CAPACITY(10) can tell, and refuses READ CAPACITY(16)"
    )]
    SizeUnknown,
}

impl ProbeError {
    /// Whether there is no such disk: no LUN, or one that is something else.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NoSuchLun | Self::NotConnected | Self::NotADisk(_)
        )
    }

    /// Whether the same probe may succeed a little later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotConnected | Self::NotReady(_) | Self::Busy { .. } | Self::Unsettled { .. }
        )
    }
}
