//! What the answer to a command means for its request.

use super::Requests;
use super::failure::Failure;
use crate::disk::plan::Zeroing;
use crate::disk::request::BlockOperation;
use crate::disk::setback::Setback;
use crate::pdu::command::Response;
use crate::scsi::sense::Sense;
use crate::scsi::sense_action::{GiveUp, Retry, SenseAction};
use crate::scsi::status::ScsiStatus;
use crate::session::{Outcome, RequestTag};

/// What is to become of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// Without a setback it is our own change of mind.
    Again {
        delayed: bool,
        setback: Option<Setback>,
    },
    Fail(Failure),
}

impl Verdict {
    pub(super) fn at_once(setback: Setback) -> Self {
        Self::Again {
            delayed: false,
            setback: Some(setback),
        }
    }

    pub(super) fn delayed(setback: Setback) -> Self {
        Self::Again {
            delayed: true,
            setback: Some(setback),
        }
    }
}

/// What an answer means.
pub(super) enum Judgement {
    Done,
    Verdict(Verdict),
    /// An earlier write has failed; this command has not run (SPC-5, "Deferred errors").
    DeferredError(Sense),
    /// The command is not to be had, or not in this form.
    Refused(Sense),
}

impl Requests {
    /// Whether the target has to move every byte: the data of the guest, or zeros in its place. For
    /// the block of WRITE SAME and the list of UNMAP the status says all: tgt counts an UNMAP's
    /// list as not moved.
    pub(super) fn moves_guest_data(&self, request: RequestTag, operation: BlockOperation) -> bool {
        let zeroing = self.slot_of(request).map(|slot| slot.zeroing);
        match operation {
            BlockOperation::Read | BlockOperation::Write { .. } => true,
            BlockOperation::WriteZeroes { .. } => zeroing == Some(Zeroing::Write),
            BlockOperation::Flush | BlockOperation::Discard => false,
        }
    }
}

/// What the end of a command means.
pub(super) fn judge(outcome: &Outcome, moves_guest_data: bool) -> Judgement {
    if let Response::Failed(code) = outcome.response {
        return Judgement::Verdict(Verdict::Fail(Failure::TargetFailure(code)));
    }
    let status = ScsiStatus(outcome.status);
    if status == ScsiStatus::CHECK_CONDITION {
        return judge_sense(outcome, moves_guest_data);
    }
    if status.is_success() {
        return judge_length(outcome, moves_guest_data);
    }
    if status.is_busy() || status == ScsiStatus::TASK_ABORTED {
        return Judgement::Verdict(Verdict::delayed(Setback::Status(status)));
    }
    Judgement::Verdict(Verdict::Fail(Failure::Status(status)))
}

fn judge_length(outcome: &Outcome, moves_guest_data: bool) -> Judgement {
    let Outcome {
        transferred_bytes,
        expected_bytes,
        ..
    } = *outcome;
    if transferred_bytes == expected_bytes || !moves_guest_data {
        return Judgement::Done;
    }
    Judgement::Verdict(Verdict::Fail(Failure::Short {
        transferred_bytes,
        expected_bytes,
    }))
}

fn judge_sense(outcome: &Outcome, moves_guest_data: bool) -> Judgement {
    let Some(sense) = Sense::parse(outcome.sense.as_bytes()) else {
        return Judgement::Verdict(Verdict::delayed(Setback::NoSense));
    };
    let setback = Setback::Sense(sense);
    match SenseAction::of(&sense) {
        SenseAction::Success => judge_length(outcome, moves_guest_data),
        SenseAction::Retry(Retry::DeferredError) => Judgement::DeferredError(sense),
        SenseAction::Retry(Retry::UnitAttention | Retry::Aborted | Retry::NoReason) => {
            Judgement::Verdict(Verdict::at_once(setback))
        }
        // The disk was there when the session was made, so it will be again: a target that comes
        // up answers this until it has found its logical units, and one that needs a hand gets it.
        SenseAction::Retry(_)
        | SenseAction::GiveUp(GiveUp::LunNotSupported | GiveUp::NeedsAttendance) => {
            Judgement::Verdict(Verdict::delayed(setback))
        }
        SenseAction::GiveUp(GiveUp::InvalidOpcode | GiveUp::InvalidField) => {
            Judgement::Refused(sense)
        }
        SenseAction::GiveUp(_) => Judgement::Verdict(Verdict::Fail(Failure::Sense(sense))),
    }
}
