//! How a request ends, and why it failed.

use crate::disk::durability::Loss;
use crate::disk::setback::Setback;
use crate::pdu::reject::RejectReason;
use crate::pdu::task_management::FunctionResponse;
use crate::scsi::sense::Sense;
use crate::scsi::sense_action::{GiveUp, SenseAction};
use crate::scsi::status::ScsiStatus;
use crate::session::RequestTag;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which request.
    pub request: RequestTag,
    /// `Ok` when it was done, else why it could not be.
    pub result: Result<(), Failure>,
}

/// Why a request failed, for the log; the guest sees an I/O error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The target could not carry out the command at all (RFC 7143 section 11.4.3).
    #[error("the target failed to run the command (iSCSI response {0:#04x})")]
    TargetFailure(u8),
    /// A SCSI status other than GOOD and CHECK CONDITION that does not pass by itself.
    #[error("SCSI status {0}")]
    Status(ScsiStatus),
    /// CHECK CONDITION with sense data that makes another try pointless.
    #[error("{0}")]
    Sense(Sense),
    /// The cache was written out, but a write that had been called good was lost before.
    #[error("an earlier write was lost after it had been acknowledged: {0}")]
    LostWrite(Sense),
    /// The same may be so: the target says that it lost power while there were writes in its cache.
    #[error("the target lost power with acknowledged writes in its volatile cache: {0}")]
    PowerLoss(Sense),
    /// GOOD status, but less data than asked for.
    #[error("the target moved {transferred_bytes} of {expected_bytes} bytes and called it good")]
    Short {
        /// What was moved.
        transferred_bytes: u32,
        /// What was asked for.
        expected_bytes: u32,
    },
    /// The target did not take the command's PDU.
    #[error("the target rejected the command: {0}")]
    Rejected(RejectReason),
    /// What passes has not passed for as long as the owner is patient.
    #[error("tried again for {tried_ms} ms, at last: {last}")]
    OutOfPatience {
        /// What the last try came to.
        last: Setback,
        /// How long ago the first one was in vain.
        tried_ms: u64,
    },
}

impl Failure {
    /// Whether the target does not know the command, in this form or at all.
    pub fn is_refusal(&self) -> bool {
        let Self::Sense(sense) = self else {
            return false;
        };
        let action = SenseAction::of(sense);
        matches!(
            action,
            SenseAction::GiveUp(GiveUp::InvalidOpcode | GiveUp::InvalidField)
        )
    }
}

impl From<Loss> for Failure {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Deferred(sense) => Self::LostWrite(sense),
            Loss::Power(sense) => Self::PowerLoss(sense),
        }
    }
}

/// The target did not end a command that it was asked to end, so the command may still run. Only the
/// reinstatement of the session ends it (RFC 7143 section 6.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target did not end a late command: {0}")]
pub struct AbortRefused(pub FunctionResponse);
