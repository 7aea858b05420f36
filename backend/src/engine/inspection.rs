//! A look at the LUN on a lane's own session, between the guest's requests: what a probe asks, without
//! a login.
//!
//! The control plane says when, and what becomes of what was found. The commands are none of the
//! guest's: they have tags beyond those of requests, and buffers of ours.

use std::time::Duration;

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::{Probe, ProbeStep};
use iscsi_core::disk::probe_error::ProbeError;
use iscsi_core::pdu::command::Response;
use iscsi_core::scsi::command::{ScsiAnswer, ScsiCommand, ScsiData};
use iscsi_core::session::{Command, Outcome, RequestTag, Session};
use tokio::sync::oneshot::Sender;

use super::lane::Lane;
use super::message::SessionNumber;
use super::unit::{Unit, UnitId};

/// How many LUNs are looked at at once on a session, each with one command: that of a target that does
/// not answer stays there.
const MAX_LOOKS: u32 = 64;

/// The first of the tags of these commands. Those of requests are the first ones there are.
const FIRST_TAG: u32 = u32::MAX - MAX_LOOKS;

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
    /// As many others are being looked at as there may be.
    #[error("too many LUNs are being looked at")]
    TooMany,
}

/// What was seen, and on which session.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What the LUN is like.
    pub(crate) facts: LunFacts,
    /// The session leads there.
    pub(crate) session: SessionNumber,
}

/// What came of a look at the LUN.
pub(crate) type Inspected = Result<Seen, InspectionError>;

/// A look at the LUN that was asked for.
#[derive(Debug)]
pub(super) struct Inspection {
    /// The LUN field.
    lun: u64,
    probe: Box<Probe>,
    reply: Sender<Inspected>,
}

impl Inspection {
    pub(super) fn new(lun: u64, probe: Probe, reply: Sender<Inspected>) -> Self {
        Self {
            lun,
            probe: Box::new(probe),
            reply,
        }
    }
}

/// The looks at the LUNs of a session's target, by their tags.
#[derive(Debug, Default)]
pub(super) struct Inspectors(Vec<Inspector>);

impl Inspectors {
    /// The one whose command has this tag.
    fn of(&mut self, tag: RequestTag) -> Option<&mut Inspector> {
        self.0.get_mut(tag.0.checked_sub(FIRST_TAG)? as usize)
    }

    /// Takes data of a command.
    pub(super) fn place(&mut self, tag: RequestTag, offset_bytes: u32, bytes: &[u8]) {
        if let Some(inspector) = self.of(tag) {
            inspector.place(offset_bytes, bytes);
        }
    }

    /// The session has ended, and with it all commands.
    pub(super) fn session_lost(&mut self) {
        self.0.iter_mut().for_each(Inspector::session_lost);
    }

    /// Submits the next command of each, as far as there is room.
    pub(super) fn submit_to(&mut self, session: &mut Session, number: SessionNumber, now_ms: u64) {
        for (inspector, tag) in self.0.iter_mut().zip(FIRST_TAG..) {
            inspector.submit_to(session, number, RequestTag(tag), now_ms);
        }
    }

    /// The one that looks at this LUN, else one that looks at none.
    fn for_lun(&mut self, lun: u64) -> Option<&mut Inspector> {
        let at = self.0.iter().position(|inspector| inspector.lun == lun);
        let at = at.or_else(|| self.0.iter().position(Inspector::is_idle));
        let at = at.unwrap_or(self.0.len());
        if at == self.0.len() && at < MAX_LOOKS as usize {
            self.0.push(Inspector::default());
        }
        self.0.get_mut(at)
    }
}

/// The present look, if there is one. One command of it is in flight at a time.
#[derive(Debug, Default)]
struct Inspector {
    /// The LUN field of the present look, or of the last one.
    lun: u64,
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
    tag.0 >= FIRST_TAG
}

impl Inspector {
    fn is_idle(&self) -> bool {
        self.present.is_none() && self.awaited == Awaited::Nothing
    }

    /// Begins; whoever waits for a former one gets no answer any more.
    fn begin(&mut self, inspection: Inspection) {
        self.lun = inspection.lun;
        self.present = Some(inspection);
        if self.awaited == Awaited::Answer {
            self.awaited = Awaited::Stale;
        }
    }

    /// The session has ended, and with it the command.
    fn session_lost(&mut self) {
        self.awaited = Awaited::Nothing;
        self.end(Err(InspectionError::NoSession));
    }

    /// Submits the next command, as soon as there is room for it.
    fn submit_to(
        &mut self,
        session: &mut Session,
        number: SessionNumber,
        request: RequestTag,
        now_ms: u64,
    ) {
        let Some(Inspection { probe, .. }) = &self.present else {
            return;
        };
        if self.awaited != Awaited::Nothing {
            return;
        }
        match probe.next() {
            ProbeStep::Done(facts) => self.end(Ok(Seen {
                facts,
                session: number,
            })),
            ProbeStep::Run(scsi) => {
                let lun = self.lun;
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
    fn place(&mut self, offset_bytes: u32, bytes: &[u8]) {
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
        let Some(inspector) = self.inspectors.for_lun(inspection.lun) else {
            let _ = inspection.reply.send(Err(InspectionError::TooMany));
            return;
        };
        inspector.begin(inspection);
        if self.connection.is_none() || self.closing.is_some() {
            inspector.session_lost();
        }
    }

    /// What the target tells once, it may have told here. Returns whom it concerns: no two disks of a
    /// session have the same LUN.
    pub(super) fn inspection_answered(
        &mut self,
        tag: RequestTag,
        outcome: &Outcome,
    ) -> Option<UnitId> {
        let inspector = self.inspectors.of(tag)?;
        inspector.answered(outcome);
        let lun = inspector.lun;
        let is_of_lun = |unit: &Option<Unit>| unit.as_ref().is_some_and(|u| u.config.lun == lun);
        let id = UnitId(self.units.iter().position(is_of_lun)?);
        self.unit(id)?.requests.foreign_command_done(outcome);
        Some(id)
    }

    pub(super) fn inspection_dropped(&mut self, tag: RequestTag) {
        if let Some(inspector) = self.inspectors.of(tag) {
            inspector.dropped();
        }
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
        inspector.begin(Inspection::new(7, Probe::review(test_facts()), reply));
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
    fn as_many_luns_are_looked_at_as_there_may_be_and_each_has_its_tag() {
        let mut inspectors = Inspectors::default();
        for lun in 0..u64::from(MAX_LOOKS) {
            let inspector = inspectors.for_lun(lun).unwrap();
            drop(begin(inspector));
            inspector.lun = lun;
        }
        assert!(inspectors.for_lun(1000).is_none());
        assert_eq!(inspectors.for_lun(7).unwrap().lun, 7);
        for (lun, tag) in (0..u64::from(MAX_LOOKS)).zip(FIRST_TAG..) {
            assert!(is_inspection(RequestTag(tag)));
            assert_eq!(inspectors.of(RequestTag(tag)).unwrap().lun, lun);
        }
        inspectors.session_lost();
        assert_eq!(inspectors.for_lun(1000).map(|found| found.lun), Some(0));
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
