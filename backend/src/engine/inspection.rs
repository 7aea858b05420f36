//! A look at the LUN on a lane's own session, between the guest's requests: what a probe asks, without
//! a login.
//!
//! The control plane says when, and what becomes of what was found. The commands are none of the
//! guest's: they have a tag beyond those of requests, and a buffer of ours.

use std::time::Duration;

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::{Probe, ProbeStep};
use iscsi_core::disk::probe_error::ProbeError;
use iscsi_core::pdu::command::Response;
use iscsi_core::scsi::command::{ScsiAnswer, ScsiCommand, ScsiData};
use iscsi_core::session::{Command, Outcome, RequestTag, Session};
use tokio::sync::oneshot::Sender;

use super::lane::Lane;

/// The tag of these commands. Those of requests are below `MAX_REQUESTS`.
const TAG: RequestTag = RequestTag(u32::MAX);

/// Why a look at the LUN came to nothing. The next login, or the next look, may find more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectionError {
    /// There is no session to ask on, or it ended meanwhile.
    #[error("the session ended")]
    NoSession,
    /// It took too long.
    #[error("the target has not answered within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The target did not carry out one of the commands.
    #[error("the target did not carry out {0}")]
    NotCarriedOut(&'static str),
    /// What it answered is not what a disk would.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// What came of a look at the LUN.
pub(crate) type Inspected = Result<LunFacts, InspectionError>;

/// A look at the LUN that was asked for.
#[derive(Debug)]
pub(super) struct Inspection {
    probe: Box<Probe>,
    reply: Sender<Inspected>,
}

impl Inspection {
    pub(super) fn new(probe: Probe, reply: Sender<Inspected>) -> Self {
        Self {
            probe: Box::new(probe),
            reply,
        }
    }
}

/// The present look, if there is one. One command of it is in flight at a time.
#[derive(Debug, Default)]
pub(super) struct Inspector {
    present: Option<Inspection>,
    awaited: Awaited,
    /// What the command has brought so far.
    data: Vec<u8>,
}

/// Whose answer is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaited {
    /// Nobody's.
    #[default]
    Nothing,
    /// That of the present look.
    Answer,
    /// That of a former look, which nobody waits for any more. Until it is there no other command goes
    /// out: a target that never answers must not fill the session's table.
    Stale,
}

/// Whether a command is one of these rather than a request's.
pub(super) fn is_inspection(tag: RequestTag) -> bool {
    tag == TAG
}

impl Inspector {
    /// Begins; whoever waits for a former one gets no answer any more.
    fn begin(&mut self, inspection: Inspection) {
        self.present = Some(inspection);
        if self.awaited == Awaited::Answer {
            self.awaited = Awaited::Stale;
        }
    }

    /// The session has ended, and with it the command.
    pub(super) fn session_lost(&mut self) {
        self.awaited = Awaited::Nothing;
        self.end(Err(InspectionError::NoSession));
    }

    /// Submits the next command, as soon as there is room for it.
    pub(super) fn submit_to(&mut self, session: &mut Session, lun: u64, now_ms: u64) {
        let Some(Inspection { probe, .. }) = &self.present else {
            return;
        };
        if self.awaited != Awaited::Nothing {
            return;
        }
        match probe.next() {
            ProbeStep::Done(facts) => self.end(Ok(facts)),
            ProbeStep::Run(scsi) => {
                let request = TAG;
                let command = Command { request, lun, scsi };
                if session.submit(command, now_ms).is_ok() {
                    self.submitted(&scsi);
                }
            }
        }
    }

    fn submitted(&mut self, scsi: &ScsiCommand) {
        self.awaited = Awaited::Answer;
        let length_bytes = match scsi.data {
            // As much as a page of INQUIRY data has at most.
            ScsiData::In { length_bytes, .. } => length_bytes.min(u16::MAX.into()),
            _ => 0,
        };
        self.data.clear();
        self.data.resize(length_bytes as usize, 0);
    }

    /// Takes data of the command.
    pub(super) fn place(&mut self, offset_bytes: u32, bytes: &[u8]) {
        let start = offset_bytes as usize;
        let end = start.saturating_add(bytes.len());
        if let Some(room) = self.data.get_mut(start..end) {
            room.copy_from_slice(bytes);
        }
    }

    /// The command has ended; what follows is submitted with the next turn.
    fn answered(&mut self, outcome: &Outcome) {
        let awaited = std::mem::take(&mut self.awaited);
        let Some(Inspection { probe, .. }) = &mut self.present else {
            return;
        };
        if awaited != Awaited::Answer {
            return;
        }
        let data = self.data.get(..outcome.transferred_bytes as usize);
        let answer = ScsiAnswer {
            status: outcome.scsi_status(),
            sense: outcome.sense.as_bytes(),
            data: data.unwrap_or(&self.data),
        };
        let result = match outcome.response {
            Response::Completed => probe.answer(answer).map_err(InspectionError::from),
            Response::Failed(_) => Err(not_carried_out(probe)),
        };
        if let Err(error) = result {
            self.end(Err(error));
        }
    }

    /// The command was rejected, or ended for being late.
    fn dropped(&mut self) {
        let awaited = std::mem::take(&mut self.awaited);
        if awaited == Awaited::Answer
            && let Some(Inspection { probe, .. }) = &self.present
        {
            let error = not_carried_out(probe);
            self.end(Err(error));
        }
    }

    fn end(&mut self, result: Inspected) {
        self.data = Vec::new();
        if let Some(inspection) = self.present.take() {
            // Whoever asked may not wait any more.
            let _ = inspection.reply.send(result);
        }
    }
}

fn not_carried_out(probe: &Probe) -> InspectionError {
    match probe.next() {
        ProbeStep::Run(command) => InspectionError::NotCarriedOut(command.name()),
        ProbeStep::Done(_) => InspectionError::NoSession,
    }
}

impl Lane {
    pub(super) fn inspect(&mut self, inspection: Inspection) {
        self.inspector.begin(inspection);
        if self.connection.is_none() || self.closing.is_some() {
            self.inspector.session_lost();
        }
    }

    pub(super) fn inspection_answered(&mut self, outcome: &Outcome) {
        self.requests.foreign_command_done(outcome);
        self.inspector.answered(outcome);
    }

    pub(super) fn inspection_dropped(&mut self) {
        self.inspector.dropped();
    }
}

#[cfg(test)]
mod tests {
    use iscsi_core::session::SenseData;
    use tokio::sync::oneshot::{Receiver, channel};

    use super::*;
    use crate::device::backend::test_facts;

    fn begin(inspector: &mut Inspector) -> Receiver<Inspected> {
        let (reply, inspected) = channel();
        inspector.begin(Inspection::new(Probe::review(test_facts()), reply));
        inspected
    }

    fn submitted(inspector: &mut Inspector) {
        let probe = inspector
            .present
            .as_ref()
            .map(|present| present.probe.next());
        let Some(ProbeStep::Run(command)) = probe else {
            panic!("nothing to ask");
        };
        inspector.submitted(&command);
    }

    fn failed() -> Outcome {
        Outcome {
            response: Response::Failed(1),
            status: 0,
            transferred_bytes: 0,
            expected_bytes: 0,
            sense: SenseData::EMPTY,
        }
    }

    #[test]
    fn an_answer_to_a_former_look_is_not_taken_for_one_to_the_present() {
        let mut inspector = Inspector::default();
        let mut former = begin(&mut inspector);
        submitted(&mut inspector);
        let mut present = begin(&mut inspector);
        assert_eq!(inspector.awaited, Awaited::Stale);
        assert!(former.try_recv().is_err());
        inspector.answered(&failed());
        assert_eq!(inspector.awaited, Awaited::Nothing);
        assert!(present.try_recv().is_err(), "it has not been asked yet");
        submitted(&mut inspector);
        inspector.answered(&failed());
        let error = present.try_recv().unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the target did not carry out READ CAPACITY(16)"
        );
    }

    #[test]
    fn a_lost_session_ends_the_look() {
        let mut inspector = Inspector::default();
        let mut inspected = begin(&mut inspector);
        submitted(&mut inspector);
        inspector.session_lost();
        let error = inspected.try_recv().unwrap().unwrap_err();
        assert!(matches!(error, InspectionError::NoSession));
        assert_eq!(inspector.awaited, Awaited::Nothing);
    }

    /// More than was asked for, or beside it.
    #[test]
    fn data_that_has_no_room_goes_into_the_void() {
        let mut inspector = Inspector::default();
        let _inspected = begin(&mut inspector);
        submitted(&mut inspector);
        let length = inspector.data.len();
        for offset_bytes in [0, 1, u32::MAX] {
            inspector.place(offset_bytes, &vec![7; length + 1]);
        }
        assert!(inspector.data.iter().all(|byte| *byte == 0));
    }
}
