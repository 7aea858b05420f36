//! What keeps a request from being carried out, though it passes.

use core::fmt;

use crate::pdu::reject::RejectReason;
use crate::scsi::sense::Sense;
use crate::scsi::status::ScsiStatus;

/// Why a command is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// A status that asks for another try, or says that the command was ended.
    Status(ScsiStatus),
    /// CHECK CONDITION with sense data of this kind.
    Sense(Sense),
    /// CHECK CONDITION with no sense data, or none that can be read.
    NoSense,
    /// The target was too short of something to take the command's PDU.
    Rejected(RejectReason),
    /// There was no answer in time, and the command was aborted.
    TimedOut,
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "SCSI status {status}"),
            Self::Sense(sense) => write!(f, "{sense}"),
            Self::NoSense => f.write_str("CHECK CONDITION without sense data"),
            Self::Rejected(reason) => write!(f, "the target rejected the command: {reason}"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}
