//! Task management: tasks that are to end, one after the other, and the reset of their logical unit
//! as the last thing to ask for.
//!
//! RFC 7143 section 4.2.2.1 has a target take one immediate task management request at a time; more
//! it may reject. So one ABORT TASK is out at a time, and the next follows its answer.

use alloc::collections::VecDeque;

use super::inbound::Pdu;
use super::outbound::{ABORT_BIT, Outgoing, RESET_TAG};
use super::task::TaskId;
use super::{Event, RequestTag, Session, Transmit};
use crate::error::{Misbehaviour, SessionError};
use crate::limits::{ABORT_TIMEOUT_MS, MAX_TASKS, RESET_TIMEOUT_MS};
use crate::pdu::RESERVED_TAG;
use crate::pdu::task_management::{
    Function, FunctionResponse, TaskManagementRequest, TaskManagementResponse,
};

/// What the target was asked to end, or will be.
#[derive(Debug)]
pub(super) struct Aborts {
    /// Tasks, each at most once; the first is the one that the target is asked for.
    queue: VecDeque<TaskId>,
    /// The ABORT TASK for the first one went into the sink.
    is_sent: bool,
    /// When the first one is to be answered; `u64::MAX` when there is none.
    answer_by_ms: u64,
    reset: Option<Reset>,
    /// An abort that did not work is followed by a reset.
    resets: bool,
}

#[derive(Clone, Copy, Debug)]
struct Reset {
    lun: u64,
    is_sent: bool,
    /// `u64::MAX` once it is answered.
    answer_by_ms: u64,
}

impl Aborts {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(MAX_TASKS),
            is_sent: false,
            answer_by_ms: u64::MAX,
            reset: None,
            resets: false,
        }
    }

    /// Adds a task; [`Session::next_abort`] is to follow.
    pub(super) fn push(&mut self, task: TaskId) {
        self.queue.push_back(task);
    }

    pub(super) fn is_resetting(&self) -> bool {
        self.reset.is_some()
    }

    /// When an answer is overdue; `u64::MAX` for never.
    pub(super) fn next_timeout_ms(&self) -> u64 {
        self.reset
            .map_or(self.answer_by_ms, |reset| reset.answer_by_ms)
    }

    /// The task whose abort is under way and carries `tag`.
    fn sent(&self, tag: u32) -> Option<TaskId> {
        let first = self.queue.front().copied().filter(|_| self.is_sent);
        first.filter(|task| task.tag() | ABORT_BIT == tag)
    }
}

impl Session {
    /// Asks the target to end every command of `request`: each is answered by an
    /// [`Event::AbortDone`], and what still arrives for it is dropped. Says how many there were.
    ///
    /// One that has not been sent yet is sent first, for its CmdSN is given away: a command that is
    /// left out would keep all later ones waiting (RFC 7143 section 4.2.2.1).
    pub fn abort(&mut self, request: RequestTag) -> usize {
        let mut count = 0;
        for (id, task) in self.tasks.iter_mut() {
            if task.command.request == request && !task.abort_asked {
                task.abort_asked = true;
                self.aborts.push(id);
                count += 1;
            }
        }
        self.next_abort();
        count
    }

    /// Whether an abort that is refused or not answered is followed by a LOGICAL UNIT RESET before
    /// the session is given up. Off unless set: it ends the tasks of other sessions and of other
    /// hosts, too, and often nobody tells them.
    ///
    /// The owner then waits for [`Event::ResetDone`] while [`Session::is_resetting`], and ends the
    /// session after it.
    pub fn set_resets_after_abort(&mut self, resets: bool) {
        self.aborts.resets = resets;
    }

    /// Asks the target to end all tasks of the logical unit, whoever they belong to: answered by
    /// [`Event::ResetDone`]. No command is taken any more; the session is to be dropped then, for
    /// what has become of its tasks is best learned by reinstating it.
    pub fn reset_logical_unit(&mut self, lun: u64) {
        if self.aborts.reset.is_none() && !self.closing {
            self.aborts.reset = Some(Reset {
                lun,
                is_sent: false,
                answer_by_ms: self.now_ms.saturating_add(RESET_TIMEOUT_MS),
            });
            self.outbox.push_first(Outgoing::Reset);
        }
    }

    /// Whether a LOGICAL UNIT RESET was asked for.
    pub fn is_resetting(&self) -> bool {
        self.aborts.is_resetting()
    }

    /// Asks for the end of the first task that waits for it, unless that is done already.
    pub(super) fn next_abort(&mut self) {
        let is_under_way = self.aborts.answer_by_ms != u64::MAX;
        if is_under_way || self.closing || self.aborts.is_resetting() {
            return;
        }
        while let Some(id) = self.aborts.queue.front().copied() {
            if let Some(task) = self.tasks.get(id) {
                let outgoing = Outgoing::Abort { task: id };
                if task.sent {
                    self.outbox.push_first(outgoing);
                } else {
                    self.outbox.push(outgoing);
                }
                self.aborts.answer_by_ms = self.now_ms.saturating_add(ABORT_TIMEOUT_MS);
                return;
            }
            self.aborts.queue.pop_front();
        }
    }

    /// The first abort is over, one way or another.
    fn end_abort(&mut self) {
        self.aborts.queue.pop_front();
        self.aborts.is_sent = false;
        self.aborts.answer_by_ms = u64::MAX;
        self.next_abort();
    }

    /// Looks for answers that are overdue. `true` when a reset was asked for.
    pub(super) fn check_aborts(&mut self, now_ms: u64) -> Result<bool, SessionError> {
        if now_ms < self.aborts.next_timeout_ms() {
            return Ok(false);
        }
        if self.aborts.is_resetting() {
            let waited_ms = RESET_TIMEOUT_MS;
            return Err(SessionError::ResetUnanswered { waited_ms });
        }
        let first = self.aborts.queue.front().copied();
        let task = first.and_then(|id| self.tasks.get(id));
        match task.map(|task| task.command.lun) {
            // It was answered while its abort waited for the connection.
            None if !self.aborts.is_sent => {
                self.end_abort();
                Ok(false)
            }
            Some(lun) if self.aborts.resets => {
                self.reset_logical_unit(lun);
                Ok(true)
            }
            _ => Err(SessionError::AbortUnanswered {
                waited_ms: ABORT_TIMEOUT_MS,
            }),
        }
    }

    /// Asks for the end of a task that is still there.
    pub(super) fn send_abort(&mut self, id: TaskId, sink: &mut impl Transmit) {
        if self.aborts.queue.front() != Some(&id) || self.aborts.is_sent {
            return;
        }
        let Some(task) = self.tasks.get_mut(id) else {
            self.end_abort();
            return;
        };
        task.aborted = true;
        self.aborts.is_sent = true;
        let function = Function::AbortTask {
            referenced_task_tag: id.tag(),
            ref_cmd_sn: task.cmd_sn,
        };
        let lun = task.command.lun;
        self.send_management(function, lun, id.tag() | ABORT_BIT, sink);
    }

    pub(super) fn send_reset(&mut self, sink: &mut impl Transmit) {
        if let Some(reset) = &mut self.aborts.reset {
            reset.is_sent = true;
            let lun = reset.lun;
            self.send_management(Function::LogicalUnitReset, lun, RESET_TAG, sink);
        }
    }

    fn send_management(
        &self,
        function: Function,
        lun: u64,
        initiator_task_tag: u32,
        sink: &mut impl Transmit,
    ) {
        let pdu = TaskManagementRequest {
            function,
            lun,
            initiator_task_tag,
            cmd_sn: self.unsent_cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
        };
        self.send_header(&pdu.emit(), sink);
    }

    pub(super) fn task_management_response(
        &mut self,
        pdu: &TaskManagementResponse,
    ) -> Result<Pdu, SessionError> {
        const PDU: &str = "Task Management Function Response";
        let tag = pdu.initiator_task_tag;
        if !self.is_managing(tag) {
            return Err(Misbehaviour::UnknownTask {
                pdu: PDU,
                initiator_task_tag: tag,
            }
            .into());
        }
        self.consume_stat_sn(PDU, &pdu.numbers)?;
        let event = self.management_done(tag, pdu.response);
        // The task may have been rejected while the abort was on its way.
        Ok(event.map_or(Pdu::Ignored, Pdu::Event))
    }

    /// A Reject PDU for a request that [`Session::is_managing`]: nothing was done, and no answer will
    /// come.
    pub(super) fn management_rejected(&mut self, tag: u32) -> Option<Event> {
        self.management_done(tag, FunctionResponse::REJECTED)
    }

    /// Whether a task management request with this tag waits for its answer.
    pub(super) fn is_managing(&self, tag: u32) -> bool {
        let is_reset =
            |reset: Reset| tag == RESET_TAG && reset.is_sent && reset.answer_by_ms != u64::MAX;
        tag != RESERVED_TAG
            && (self.aborts.sent(tag).is_some() || self.aborts.reset.is_some_and(is_reset))
    }

    fn management_done(&mut self, tag: u32, response: FunctionResponse) -> Option<Event> {
        match self.aborts.sent(tag) {
            Some(id) => self.abort_done(id, response),
            None => {
                self.aborts.reset.as_mut()?.answer_by_ms = u64::MAX;
                Some(Event::ResetDone { response })
            }
        }
    }

    /// A task that was not ended stays: its answer may still come, and is dropped.
    fn abort_done(&mut self, id: TaskId, response: FunctionResponse) -> Option<Event> {
        let task = self.tasks.get(id).copied();
        if response.is_over() {
            self.tasks.remove(id);
        } else if let Some(task) = task
            && self.aborts.resets
        {
            self.reset_logical_unit(task.command.lun);
        }
        self.end_abort();
        task.map(|task| Event::AbortDone {
            request: task.command.request,
            response,
        })
    }
}
