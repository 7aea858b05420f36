//! The block requests in flight: split into commands, tried again, replayed, completed once.
//!
//! One table serves one session at a time. Its owner
//!
//! - **admits** requests ([`Requests::next_free`], [`Requests::admit`]) while there is room,
//! - lets them **submit** their commands ([`Requests::submit_to`]) after each admission and after
//!   each answer,
//! - reports each **answer** ([`Requests::command_done`], [`Requests::command_rejected`],
//!   [`Requests::command_aborted`]) and gets a [`Completion`] when it was the last one of its request,
//! - **releases** the slot ([`Requests::release`]) when nothing refers to the request any more,
//! - and after the loss of a session ([`Requests::session_lost`]) goes on with the next one: what
//!   was in flight is sent again in order of admission.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::deferred::{Deferred, delay_ms};
use super::depth::Depth;
use super::durability::Loss;
use super::facts::LunFacts;
use super::plan::{Part, RequestFault, Zeroing};
use super::request::{BlockOperation, Extent};
use super::setback::Setback;
use super::shared::SharedDisk;
use crate::limits::MAX_IMMEDIATE_RETRIES;
use crate::pdu::command::Response;
use crate::pdu::reject::RejectAction;
use crate::pdu::task_management::FunctionResponse;
use crate::scsi::sense::{Sense, SenseKey, UnitAttention};
use crate::scsi::sense_action::{GiveUp, Retry, SenseAction};
use crate::scsi::status::ScsiStatus;
use crate::session::{Command, Outcome, RequestTag, Session};

/// The table. The module's documentation says how to drive it.
#[derive(Debug)]
pub struct Requests {
    facts: LunFacts,
    lun: u64,
    /// The best way of writing zeros that the target has not refused.
    zeroing: Zeroing,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Requests with commands to submit, the first in the middle of it.
    to_submit: VecDeque<RequestTag>,
    /// Requests that wait until a time before they are sent again.
    deferred: Deferred,
    /// How many commands the target gets at once.
    depth: Depth,
    patience_ms: Option<u64>,
    /// The target has told that it may have ended tasks without an answer.
    tasks_cleared: bool,
    /// What is known of the disk may not be so any more.
    facts_outdated: bool,
    admitted: u64,
    /// How often a request was begun again on the same session.
    retries: u64,
    /// With the other sessions of the disk.
    shared: Arc<SharedDisk>,
}

/// What became of a request that was to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is in flight.
    InFlight,
    /// It had nothing to do, as a flush of a disk without a cache or a discard of nothing, and is to
    /// be released.
    Done,
    /// There was no room.
    Full,
}

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
    Rejected(crate::pdu::reject::RejectReason),
    /// What passes has not passed for as long as the owner is patient.
    #[error("tried again for {tried_ms} ms, at last: {last}")]
    OutOfPatience {
        /// What the last try came to.
        last: Setback,
        /// How long ago the first one was in vain.
        tried_ms: u64,
    },
}

/// The target did not end a command that it was asked to end, so the command may still run. Only the
/// reinstatement of the session ends it (RFC 7143 section 6.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target did not end a late command: {0}")]
pub struct AbortRefused(pub FunctionResponse);

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

#[derive(Debug)]
struct Slot {
    state: State,
    extents: Vec<Extent>,
    /// The place in the order of admission.
    order: u64,
    /// What has been submitted.
    progress: Progress,
    /// Commands without an answer.
    outstanding: u32,
    /// How zeros are written, as long as this goes well.
    zeroing: Zeroing,
    /// What is to happen when the last answer is in, instead of going on.
    verdict: Option<Verdict>,
    /// Its SYNCHRONIZE CACHE covers writes that no other flush does.
    covers_writes: bool,
    immediate_retries: u32,
    /// Waits in a row.
    delays: u32,
    /// When a try was in vain for the first time.
    refused_since_ms: Option<u64>,
    /// The number of its first command since it was started; 0 for none.
    first_sent: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    Live(BlockOperation),
    /// Completed, not yet released.
    Ended,
}

/// How far a request has been submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    extent: usize,
    done_bytes: u64,
    sync: Sync,
}

/// Whether the cache has still to be written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sync {
    /// Not yet known: the data comes first.
    #[default]
    Later,
    /// The next command is a SYNCHRONIZE CACHE.
    Due,
    /// It has been submitted.
    Submitted,
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// Without a setback it is our own change of mind.
    Again {
        delayed: bool,
        setback: Option<Setback>,
    },
    Fail(Failure),
}

impl Verdict {
    fn at_once(setback: Setback) -> Self {
        Self::Again {
            delayed: false,
            setback: Some(setback),
        }
    }

    fn delayed(setback: Setback) -> Self {
        Self::Again {
            delayed: true,
            setback: Some(setback),
        }
    }
}

/// What an answer means.
enum Judgement {
    Done,
    Verdict(Verdict),
    /// An earlier write has failed; this command has not run (SPC-5, "Deferred errors").
    DeferredError(Sense),
    /// The command is not to be had, or not in this form.
    Refused(Sense),
}

impl Requests {
    /// An empty table of `length` slots for the disk `facts` at the LUN field `lun`. `shared` is the
    /// same for all sessions of the disk.
    pub fn new(facts: LunFacts, lun: u64, length: usize, shared: Arc<SharedDisk>) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Self {
            zeroing: Zeroing::WriteSameUnmap,
            facts,
            lun,
            slots: (0..length).map(|_| Slot::new()).collect(),
            free: (0..length).rev().collect(),
            to_submit: VecDeque::with_capacity(length as usize),
            deferred: Deferred::new(length as usize),
            depth: Depth::new(),
            patience_ms: None,
            tasks_cleared: false,
            facts_outdated: false,
            admitted: 0,
            retries: 0,
            shared,
        }
    }

    /// The disk has been probed again: what may have changed (size, cache, protection) counts from
    /// now on, also for the commands to come of requests that are in flight. The logical block
    /// length must be as before.
    pub fn set_facts(&mut self, facts: LunFacts) {
        self.facts = facts;
    }

    /// How long a request is tried again, in milliseconds, counted from the first time that the target
    /// did not carry it out though it might have later (busy, not ready, LUN not there, aborted, no
    /// answer in time …); `None`, as at first, for ever. After that it fails with
    /// [`Failure::OutOfPatience`].
    ///
    /// The count starts anew with each request. A new session does not start it anew: it is the same
    /// guest that waits, and a target that drops each session would be waited for without end. The
    /// time for which there is no session at all is nobody's refusal, and has no end here.
    pub fn set_patience_ms(&mut self, patience_ms: Option<u64>) {
        self.patience_ms = patience_ms;
    }

    /// What is known about the disk.
    pub fn facts(&self) -> &LunFacts {
        &self.facts
    }

    /// The tag that the next admitted request will have; `None` when the table is full.
    pub fn next_free(&self) -> Option<RequestTag> {
        self.free.last().copied().map(RequestTag)
    }

    /// How often a request was begun again on the same session, since the table was made.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// How many requests are admitted and not released.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether the session or the target is the bottleneck: admitted requests still have commands to
    /// submit, or as many are out as the target takes. More requests would only wait here instead of
    /// in their ring.
    pub fn has_backlog(&self) -> bool {
        !self.to_submit.is_empty() || self.depth.is_reached()
    }

    /// Takes a request in, under the tag that [`Requests::next_free`] told.
    ///
    /// # Errors
    /// When the disk cannot do it; nothing was taken in.
    pub fn admit(
        &mut self,
        operation: BlockOperation,
        extents: impl Iterator<Item = Extent> + Clone,
    ) -> Result<Admitted, RequestFault> {
        for extent in extents.clone() {
            self.facts.check(operation, extent)?;
        }
        let is_done = match operation {
            BlockOperation::Flush => !self.facts.write_cache && !self.shared.durability.has_loss(),
            _ => extents.clone().next().is_none(),
        };
        let zeroing = self.best_zeroing(operation);
        let Some(index) = self.free.pop() else {
            return Ok(Admitted::Full);
        };
        let order = self.admitted;
        self.admitted += 1;
        let request = RequestTag(index);
        if let Some(slot) = self.slot(request) {
            slot.extents.clear();
            slot.extents.extend(extents);
            slot.state = if is_done {
                State::Ended
            } else {
                State::Live(operation)
            };
            slot.order = order;
            slot.immediate_retries = 0;
            slot.delays = 0;
            slot.refused_since_ms = None;
            slot.start(zeroing);
        }
        if is_done {
            return Ok(Admitted::Done);
        }
        self.to_submit.push_back(request);
        Ok(Admitted::InFlight)
    }

    /// Gives the slot of an ended request back.
    pub fn release(&mut self, request: RequestTag) {
        if let Some(slot) = self.slot(request)
            && matches!(slot.state, State::Ended)
        {
            slot.state = State::Free;
            self.free.push(request.0);
        }
    }

    /// Submits commands for as long as there are any, `session` takes them, and the target has not
    /// shown that it wants no more at once; none while the barrier of the disk is raised.
    pub fn submit_to(&mut self, session: &mut Session, now_ms: u64) {
        while let Some(request) = self.deferred.pop_due(now_ms) {
            self.to_submit.push_back(request);
        }
        if self.shared.barrier.is_raised() {
            return;
        }
        while let Some(request) = self.to_submit.front().copied() {
            let Some((scsi, progress)) = self.next_command(request) else {
                self.to_submit.pop_front();
                continue;
            };
            let command = Command {
                request,
                lun: self.lun,
                scsi,
            };
            if self.depth.is_reached() || session.submit(command, now_ms).is_err() {
                return;
            }
            let is_flush = progress.sync == Sync::Submitted;
            let covers_writes = is_flush && self.shared.durability.flush_begins();
            let number = self.depth.sent();
            if let Some(slot) = self.slot(request) {
                slot.progress = progress;
                slot.outstanding += 1;
                slot.covers_writes |= covers_writes;
                if slot.first_sent == 0 {
                    slot.first_sent = number;
                }
            }
            if self.is_all_submitted(request) {
                self.to_submit.pop_front();
            }
        }
    }

    /// When [`Requests::submit_to`] will have something to submit by the passing of time alone.
    pub fn next_timeout_ms(&self) -> Option<u64> {
        self.deferred.next_due_ms()
    }

    /// Whether since the last call the target has told that tasks may have been ended without an
    /// answer (unit attention 29h or 2Fh). The owner then calls
    /// [`Session::expect_answers_by`] for every session of the logical unit: which of them is told is
    /// the target's affair (SAM-6, "Unit attention conditions").
    pub fn take_tasks_cleared(&mut self) -> bool {
        core::mem::take(&mut self.tasks_cleared)
    }

    /// Whether since the last call the target has told that the disk is not as it was probed: by a unit
    /// attention (capacity, mode parameters, INQUIRY data, medium, logical units), or by refusing to
    /// write to a disk that could be written. The owner then probes it, and calls
    /// [`Requests::set_facts`].
    pub fn take_facts_outdated(&mut self) -> bool {
        core::mem::take(&mut self.facts_outdated)
    }

    /// A command of `request` has ended.
    pub fn command_done(
        &mut self,
        request: RequestTag,
        outcome: &Outcome,
        now_ms: u64,
    ) -> Option<Completion> {
        self.depth.ended();
        self.learn(request, outcome);
        let operation = self.operation(request)?;
        let moves_guest_data = self.moves_guest_data(request, operation);
        match judge(outcome, moves_guest_data) {
            Judgement::Done => self.depth.succeeded(),
            Judgement::Verdict(verdict) => self.decide(request, verdict),
            Judgement::DeferredError(sense) => {
                if sense.key != SenseKey::RECOVERED_ERROR {
                    self.shared.durability.lose(Loss::Deferred(sense));
                }
                self.decide(request, Verdict::at_once(Setback::Sense(sense)));
            }
            Judgement::Refused(sense) => self.refused(request, operation, sense),
        }
        self.answered(request, now_ms)
    }

    /// What an answer says about the target rather than about its command.
    fn learn(&mut self, request: RequestTag, outcome: &Outcome) {
        if outcome.response != Response::Completed {
            return;
        }
        if ScsiStatus(outcome.status).is_busy() {
            let slot = self.slots.get(request.0 as usize);
            self.depth.refused(slot.map_or(0, |slot| slot.first_sent));
        }
        if let Some(sense) = check_condition(outcome) {
            self.learn_from(&sense);
            self.facts_outdated |= self.is_outdated_by(&sense);
        }
    }

    /// A command has ended that is none of a request's: its owner probes the disk on the same session.
    /// What the target tells once, it may have told there.
    pub fn foreign_command_done(&mut self, outcome: &Outcome) {
        if outcome.response != Response::Completed {
            return;
        }
        if let Some(sense) = check_condition(outcome) {
            self.learn_from(&sense);
            if sense.deferred && sense.key != SenseKey::RECOVERED_ERROR {
                self.shared.durability.lose(Loss::Deferred(sense));
            }
        }
    }

    fn learn_from(&mut self, sense: &Sense) {
        let attention = sense.unit_attention();
        self.tasks_cleared |= attention.is_some_and(UnitAttention::may_have_ended_tasks);
        if sense.tells_of_power_loss() {
            self.shared.durability.power_lost(*sense);
        }
    }

    /// Whether the disk is not as it was probed.
    fn is_outdated_by(&self, sense: &Sense) -> bool {
        let is_protected = SenseAction::of(sense) == SenseAction::GiveUp(GiveUp::WriteProtected);
        let tells_of_change = |attention: UnitAttention| {
            // The number may lead to another logical unit now.
            attention.outdates_facts() || attention == UnitAttention::ReportedLunsChanged
        };
        is_protected && !self.facts.write_protected
            || sense.unit_attention().is_some_and(tells_of_change)
    }

    /// Whether the target has to move every byte: the data of the guest, or zeros in its place. For
    /// the block of WRITE SAME and the list of UNMAP the status says all: tgt counts an UNMAP's
    /// list as not moved.
    fn moves_guest_data(&self, request: RequestTag, operation: BlockOperation) -> bool {
        let zeroing = self.slots.get(request.0 as usize).map(|slot| slot.zeroing);
        match operation {
            BlockOperation::Read | BlockOperation::Write { .. } => true,
            BlockOperation::WriteZeroes { .. } => zeroing == Some(Zeroing::Write),
            BlockOperation::Flush | BlockOperation::Discard => false,
        }
    }

    /// The target did not take a command of `request`: for want of something, then it is tried again,
    /// or because it never will.
    pub fn command_rejected(
        &mut self,
        request: RequestTag,
        reason: crate::pdu::reject::RejectReason,
        now_ms: u64,
    ) -> Option<Completion> {
        self.depth.ended();
        self.operation(request)?;
        let verdict = match reason.action() {
            RejectAction::TryAgain => Verdict::delayed(Setback::Rejected(reason)),
            RejectAction::Fail | RejectAction::EndSession => {
                Verdict::Fail(Failure::Rejected(reason))
            }
        };
        self.decide(request, verdict);
        self.answered(request, now_ms)
    }

    /// The target was asked to end a command of `request`, and this is what it said. Once the command
    /// is over, whether ended or never known, its request is tried again from its beginning.
    ///
    /// # Errors
    /// The command may still run. The owner has to drop the session; no other answer for the command
    /// will come, and [`Requests::session_lost`] takes care of its request.
    pub fn command_aborted(
        &mut self,
        request: RequestTag,
        response: FunctionResponse,
        now_ms: u64,
    ) -> Result<Option<Completion>, AbortRefused> {
        if !response.is_over() {
            return Err(AbortRefused(response));
        }
        self.depth.ended();
        if self.operation(request).is_none() {
            return Ok(None);
        }
        self.decide(request, Verdict::at_once(Setback::TimedOut));
        Ok(self.answered(request, now_ms))
    }

    /// The session is gone, and with it every command that was in flight: all requests that have
    /// not ended start again, in the order in which they were admitted.
    pub fn session_lost(&mut self) {
        self.deferred.clear();
        self.depth.session_lost();
        self.to_submit.clear();
        for request in (0u32..)
            .zip(&self.slots)
            .map(|(index, _)| RequestTag(index))
        {
            if self.operation(request).is_some() {
                self.to_submit.push_back(request);
            }
        }
        for at in 0..self.to_submit.len() {
            if let Some(request) = self.to_submit.get(at).copied() {
                self.restart(request);
                if let Some(slot) = self.slot(request) {
                    slot.delays = 0;
                }
            }
        }
        let slots = &self.slots;
        let order = |request: &RequestTag| slots.get(request.0 as usize).map(|slot| slot.order);
        self.to_submit.make_contiguous().sort_unstable_by_key(order);
    }

    /// Ends a request that will not be carried out. `false` when it had ended already, or has
    /// commands in flight: after [`Requests::session_lost`] none has.
    pub fn abandon(&mut self, request: RequestTag) -> bool {
        let has_commands = |slot: &Slot| slot.outstanding > 0;
        let is_busy = self.slots.get(request.0 as usize).is_none_or(has_commands);
        if is_busy || self.operation(request).is_none() {
            return false;
        }
        self.to_submit.retain(|waiting| *waiting != request);
        self.deferred.remove(request);
        if let Some(slot) = self.slot(request) {
            slot.state = State::Ended;
        }
        true
    }

    fn slot(&mut self, request: RequestTag) -> Option<&mut Slot> {
        self.slots.get_mut(request.0 as usize)
    }

    fn operation(&self, request: RequestTag) -> Option<BlockOperation> {
        match self.slots.get(request.0 as usize)?.state {
            State::Live(operation) => Some(operation),
            State::Free | State::Ended => None,
        }
    }

    /// Whether [`Requests::next_command`] would find nothing, told without making a command.
    fn is_all_submitted(&self, request: RequestTag) -> bool {
        self.slots.get(request.0 as usize).is_some_and(|slot| {
            let is_flush = matches!(slot.state, State::Live(BlockOperation::Flush));
            let is_synced = match slot.progress.sync {
                Sync::Later => !is_flush,
                Sync::Due => false,
                Sync::Submitted => true,
            };
            slot.progress.extent >= slot.extents.len() && is_synced
        })
    }

    /// The next command of a request, and how far it is then submitted.
    fn next_command(
        &self,
        request: RequestTag,
    ) -> Option<(crate::scsi::command::ScsiCommand, Progress)> {
        let operation = self.operation(request)?;
        let slot = self.slots.get(request.0 as usize)?;
        if slot.verdict.is_some() {
            return None;
        }
        let mut progress = slot.progress;
        if let Some(extent) = slot.extents.get(progress.extent) {
            let Part {
                command,
                length_bytes,
            } = self
                .facts
                .part(operation, *extent, progress.done_bytes, slot.zeroing)?;
            progress.done_bytes += length_bytes;
            if progress.done_bytes >= extent.length_bytes {
                progress.extent += 1;
                progress.done_bytes = 0;
            }
            return Some((command, progress));
        }
        let is_flush = operation == BlockOperation::Flush;
        if progress.sync == Sync::Due || is_flush && progress.sync == Sync::Later {
            progress.sync = Sync::Submitted;
            return Some((self.facts.flush_command(), progress));
        }
        None
    }

    /// Whether zeros are written as data, for want of a command for them.
    pub fn writes_zeros_as_data(&self) -> bool {
        weaker(self.facts.zeroing(false), self.zeroing) == Zeroing::Write
    }

    /// How zeros for `operation` are written now.
    fn best_zeroing(&self, operation: BlockOperation) -> Zeroing {
        let unmap = matches!(operation, BlockOperation::WriteZeroes { unmap: true, .. });
        weaker(self.facts.zeroing(unmap), self.zeroing)
    }

    /// The target does not implement a command: for WRITE SAME there is another way.
    fn refused(&mut self, request: RequestTag, operation: BlockOperation, sense: Sense) {
        let is_zeroing = matches!(operation, BlockOperation::WriteZeroes { .. });
        let is_sync = self
            .slot(request)
            .is_some_and(|slot| slot.progress.sync == Sync::Submitted);
        if is_zeroing && !is_sync {
            self.weaken_zeroing(request, sense);
        } else {
            self.decide(request, Verdict::Fail(Failure::Sense(sense)));
        }
    }

    /// From now on zeros are written the next weaker way; plain writes are the weakest. Several
    /// commands of the old way may be refused: that weakens it once.
    fn weaken_zeroing(&mut self, request: RequestTag, sense: Sense) {
        let used = self
            .slot(request)
            .map_or(Zeroing::Write, |slot| slot.zeroing);
        match used.fallback() {
            Some(fallback) => {
                self.zeroing = weaker(self.zeroing, fallback);
                self.decide(
                    request,
                    Verdict::Again {
                        delayed: false,
                        setback: None,
                    },
                );
            }
            None => self.decide(request, Verdict::Fail(Failure::Sense(sense))),
        }
    }

    /// The first failure counts; before one, the longest delay.
    fn decide(&mut self, request: RequestTag, verdict: Verdict) {
        let Some(slot) = self.slot(request) else {
            return;
        };
        slot.verdict = match (slot.verdict, verdict) {
            (Some(Verdict::Fail(failure)), _) => Some(Verdict::Fail(failure)),
            (Some(delayed @ Verdict::Again { delayed: true, .. }), Verdict::Again { .. }) => {
                Some(delayed)
            }
            (_, verdict) => Some(verdict),
        };
    }

    /// One answer less to wait for; after the last one, what follows.
    fn answered(&mut self, request: RequestTag, now_ms: u64) -> Option<Completion> {
        let slot = self.slot(request)?;
        slot.outstanding = slot.outstanding.saturating_sub(1);
        if slot.outstanding > 0 {
            return None;
        }
        match slot.verdict {
            Some(Verdict::Fail(failure)) => {
                self.to_submit.retain(|waiting| *waiting != request);
                self.end(request, Err(failure))
            }
            Some(Verdict::Again { delayed, setback }) => {
                self.to_submit.retain(|waiting| *waiting != request);
                match self.out_of_patience(request, setback, now_ms) {
                    Some(failure) => self.end(request, Err(failure)),
                    None => {
                        self.again(request, delayed, now_ms);
                        None
                    }
                }
            }
            None => self.go_on(request),
        }
    }

    /// All commands so far have succeeded: is anything left to do?
    fn go_on(&mut self, request: RequestTag) -> Option<Completion> {
        let operation = self.operation(request)?;
        if !self.is_all_submitted(request) && self.next_command(request).is_some() {
            // It stands at the front of `to_submit`: the session had no room for all of it.
            return None;
        }
        let zeroing = self.slot(request)?.zeroing;
        let needs_sync = self.facts.needs_sync(operation, zeroing);
        let slot = self.slot(request)?;
        if needs_sync && slot.progress.sync == Sync::Later {
            slot.progress.sync = Sync::Due;
            self.to_submit.push_back(request);
            return None;
        }
        if slot.progress.sync == Sync::Submitted {
            slot.covers_writes = false;
            if let Some(loss) = self.shared.durability.take_loss() {
                return self.end(request, Err(loss.into()));
            }
        } else if self.facts.may_be_volatile(operation, zeroing) {
            self.shared.durability.written();
        }
        self.end(request, Ok(()))
    }

    /// Takes a living request back to its beginning.
    fn restart(&mut self, request: RequestTag) {
        if let Some(operation) = self.operation(request) {
            let zeroing = self.best_zeroing(operation);
            self.flush_undone(request);
            if let Some(slot) = self.slot(request) {
                slot.start(zeroing);
            }
        }
    }

    /// If a SYNCHRONIZE CACHE of `request` was submitted, it has not ended well.
    fn flush_undone(&mut self, request: RequestTag) {
        if let Some(slot) = self.slot(request)
            && core::mem::take(&mut slot.covers_writes)
        {
            self.shared.durability.written();
        }
    }

    /// Notes the first try in vain, and gives up when that is too long ago.
    fn out_of_patience(
        &mut self,
        request: RequestTag,
        setback: Option<Setback>,
        now_ms: u64,
    ) -> Option<Failure> {
        let last = setback?;
        let since_ms = *self.slot(request)?.refused_since_ms.get_or_insert(now_ms);
        let tried_ms = now_ms.saturating_sub(since_ms);
        let is_over = self.patience_ms.is_some_and(|most_ms| tried_ms >= most_ms);
        is_over.then_some(Failure::OutOfPatience { last, tried_ms })
    }

    fn again(&mut self, request: RequestTag, delayed: bool, now_ms: u64) {
        self.retries += 1;
        self.restart(request);
        let patience_ms = self.patience_ms;
        let Some(slot) = self.slot(request) else {
            return;
        };
        slot.immediate_retries = slot.immediate_retries.saturating_add(1);
        if delayed || slot.immediate_retries > MAX_IMMEDIATE_RETRIES {
            let due_ms = now_ms.saturating_add(delay_ms(slot.delays));
            slot.delays = slot.delays.saturating_add(1);
            // The last try is made when patience ends, not some time after.
            let end_ms = slot.refused_since_ms.zip(patience_ms);
            let end_ms = end_ms.map_or(u64::MAX, |(since_ms, most_ms)| {
                since_ms.saturating_add(most_ms)
            });
            let order = slot.order;
            self.deferred.push(due_ms.min(end_ms), order, request);
        } else {
            self.to_submit.push_back(request);
        }
    }

    fn end(&mut self, request: RequestTag, result: Result<(), Failure>) -> Option<Completion> {
        self.flush_undone(request);
        self.slot(request)?.state = State::Ended;
        Some(Completion { request, result })
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

/// The weaker of two ways of writing zeros.
fn weaker(a: Zeroing, b: Zeroing) -> Zeroing {
    match (a, b) {
        (Zeroing::Write, _) | (_, Zeroing::Write) => Zeroing::Write,
        (Zeroing::WriteSame, _) | (_, Zeroing::WriteSame) => Zeroing::WriteSame,
        (Zeroing::WriteSameUnmap, Zeroing::WriteSameUnmap) => Zeroing::WriteSameUnmap,
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            state: State::Free,
            extents: Vec::new(),
            order: 0,
            progress: Progress::default(),
            outstanding: 0,
            zeroing: Zeroing::Write,
            verdict: None,
            covers_writes: false,
            immediate_retries: 0,
            delays: 0,
            refused_since_ms: None,
            first_sent: 0,
        }
    }

    /// From the beginning.
    fn start(&mut self, zeroing: Zeroing) {
        self.zeroing = zeroing;
        self.progress = Progress::default();
        self.outstanding = 0;
        self.verdict = None;
        self.first_sent = 0;
    }
}

/// The sense data of a CHECK CONDITION.
fn check_condition(outcome: &Outcome) -> Option<Sense> {
    let is_check_condition = ScsiStatus(outcome.status) == ScsiStatus::CHECK_CONDITION;
    Sense::parse(outcome.sense.as_bytes()).filter(|_| is_check_condition)
}

/// What the end of a command means.
fn judge(outcome: &Outcome, moves_guest_data: bool) -> Judgement {
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

#[cfg(test)]
mod tests;
