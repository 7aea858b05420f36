//! The block requests in flight: split into commands, tried again, replayed, completed once.
//!
//! One table serves one disk on one session at a time; a session may have a table for each of several
//! disks ([`Requests::sharing`]). Its owner
//!
//! - **admits** requests ([`Requests::next_free`], [`Requests::admit`]) while there is room,
//! - lets them **submit** their commands ([`Requests::submit_to`]) after each admission and after
//!   each answer,
//! - reports each **answer** ([`Requests::command_done`], [`Requests::command_rejected`],
//!   [`Requests::command_aborted`]) and gets a [`Completion`] when it was the last one of its request,
//! - **releases** the slot ([`Requests::release`]) when nothing refers to the request any more,
//! - and after the loss of a session ([`Requests::session_lost`]) goes on with the next one: what
//!   was in flight is sent again in order of admission.

mod failure;
mod judgement;
mod learning;
mod retrying;
mod sharing;
mod slot;
mod zeroing;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use self::failure::{AbortRefused, Completion, Failure};

use self::judgement::{Judgement, Verdict, judge};
use self::slot::{Progress, Slot, State, Sync};
use super::deferred::Deferred;
use super::depth::Depth;
use super::durability::Loss;
use super::facts::LunFacts;
use super::plan::{Part, RequestFault, Zeroing};
use super::request::{BlockOperation, Extent};
use super::setback::Setback;
use super::shared::SharedDisk;
use crate::pdu::reject::{RejectAction, RejectReason};
use crate::pdu::task_management::FunctionResponse;
use crate::scsi::command::ScsiCommand;
use crate::scsi::sense::SenseKey;
use crate::session::{Command, Outcome, RequestTag, Session};

/// The table. The module's documentation says how to drive it.
#[derive(Debug)]
pub struct Requests {
    facts: LunFacts,
    lun: u64,
    /// The best way of writing zeros that the target has not refused.
    zeroing: Zeroing,
    slots: Vec<Slot>,
    /// The tag of the first slot; the others follow.
    first_tag: u32,
    /// The slots that are free.
    free: Vec<u32>,
    /// Requests with commands to submit, the first in the middle of it.
    to_submit: VecDeque<RequestTag>,
    /// Requests that wait until a time before they are sent again.
    deferred: Deferred,
    /// How many commands the target gets at once.
    depth: Depth,
    /// Its session is that of other disks, too.
    shares_session: bool,
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
            first_tag: 0,
            free: (0..length).rev().collect(),
            to_submit: VecDeque::with_capacity(length as usize),
            deferred: Deferred::new(length as usize),
            depth: Depth::new(),
            shares_session: false,
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

    /// What is known about the disk.
    pub fn facts(&self) -> &LunFacts {
        &self.facts
    }

    /// The tag that the next admitted request will have; `None` when the table is full.
    pub fn next_free(&self) -> Option<RequestTag> {
        self.free.last().map(|index| self.tag(*index))
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
        let request = self.tag(index);
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
            self.free.push(request.0.wrapping_sub(self.first_tag));
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
            if self.depth.is_reached() || self.is_over_share(session) {
                return;
            }
            if session.submit(command, now_ms).is_err() {
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

    /// The target did not take a command of `request`: for want of something, then it is tried again,
    /// or because it never will.
    pub fn command_rejected(
        &mut self,
        request: RequestTag,
        reason: RejectReason,
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

    /// Ends a request that will not be carried out. `false` when it had ended already, or has
    /// commands in flight: after [`Requests::session_lost`] none has.
    pub fn abandon(&mut self, request: RequestTag) -> bool {
        let has_commands = |slot: &Slot| slot.outstanding > 0;
        let is_busy = self.slot_of(request).is_none_or(has_commands);
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
        let index = request.0.wrapping_sub(self.first_tag);
        self.slots.get_mut(index as usize)
    }

    fn slot_of(&self, request: RequestTag) -> Option<&Slot> {
        let index = request.0.wrapping_sub(self.first_tag);
        self.slots.get(index as usize)
    }

    fn tag(&self, index: u32) -> RequestTag {
        RequestTag(self.first_tag.wrapping_add(index))
    }

    fn operation(&self, request: RequestTag) -> Option<BlockOperation> {
        match self.slot_of(request)?.state {
            State::Live(operation) => Some(operation),
            State::Free | State::Ended => None,
        }
    }

    /// Whether [`Requests::next_command`] would find nothing, told without making a command.
    fn is_all_submitted(&self, request: RequestTag) -> bool {
        self.slot_of(request).is_some_and(|slot| {
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
    fn next_command(&self, request: RequestTag) -> Option<(ScsiCommand, Progress)> {
        let operation = self.operation(request)?;
        let slot = self.slot_of(request)?;
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

    /// If a SYNCHRONIZE CACHE of `request` was submitted, it has not ended well.
    fn flush_undone(&mut self, request: RequestTag) {
        if let Some(slot) = self.slot(request)
            && core::mem::take(&mut slot.covers_writes)
        {
            self.shared.durability.written();
        }
    }

    fn end(&mut self, request: RequestTag, result: Result<(), Failure>) -> Option<Completion> {
        self.flush_undone(request);
        self.slot(request)?.state = State::Ended;
        Some(Completion { request, result })
    }
}

#[cfg(test)]
mod tests;
