//! What comes in: each PDU of the target checked against the state of the session.

use super::outbound::{LOGOUT_TAG, Outgoing, PING_TAG};
use super::task::TaskId;
use super::{Event, Outcome, Placement, Received, RequestTag, SenseData, Session, Way};
use crate::error::{Misbehaviour, SessionError};
use crate::framer::Frame;
use crate::limits::MAX_COLLECTED_BYTES;
use crate::pdu::async_message::AsyncMessage;
use crate::pdu::command::{Response, ScsiResponse, sense_data};
use crate::pdu::data::{DataIn, ReadyToTransfer};
use crate::pdu::logout::LogoutResponse;
use crate::pdu::nop::NopIn;
use crate::pdu::reject::{Reject, RejectAction};
use crate::pdu::task_management::TaskManagementResponse;
use crate::pdu::{Bhs, Numbers, Opcode, RESERVED_TAG, Residual, initiator_task_tag};
use crate::sequence::SerialNumber;

/// SCSI status CHECK CONDITION (SAM-5 section 5.3.1).
const CHECK_CONDITION: u8 = 0x02;

/// The PDU whose data segment is being received.
#[derive(Debug)]
pub(super) struct Inbound {
    pdu: Pdu,
    collected: [u8; MAX_COLLECTED_BYTES],
    collected_bytes: usize,
}

/// What to do with the data segment, and at its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pdu {
    /// Nothing: the PDU was dealt with, its data is of no interest.
    Ignored,
    /// Into the buffer of a request; at the end the status, if the PDU had one.
    DataIn {
        task: TaskId,
        request: RequestTag,
        offset_bytes: u32,
        pdu: DataIn,
    },
    /// A status with sense data.
    Response { task: TaskId, pdu: ScsiResponse },
    /// The header that the target refused.
    Reject(Reject),
    /// Known from the header alone; reported when the PDU is complete.
    Event(Event),
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            pdu: Pdu::Ignored,
            collected: [0; MAX_COLLECTED_BYTES],
            collected_bytes: 0,
        }
    }

    fn collect(&mut self, bytes: &[u8]) {
        if let Some(room) = self.collected.get_mut(self.collected_bytes..) {
            for (to, from) in room.iter_mut().zip(bytes) {
                *to = *from;
                self.collected_bytes += 1;
            }
        }
    }

    fn collected(&self) -> &[u8] {
        self.collected
            .get(..self.collected_bytes)
            .unwrap_or_default()
    }
}

impl Session {
    /// Looks at the start of `bytes`: says how many of them were consumed, and what they brought.
    ///
    /// To be called until it answers [`Received::NeedBytes`], each time with what was not
    /// consumed; after [`Received::Payload`] with what follows the bytes that were placed.
    ///
    /// # Errors
    /// The session is over; nothing that was not reported before will be.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
    ) -> Result<(usize, Received), SessionError> {
        self.tick(now_ms);
        if !bytes.is_empty() {
            self.ping.heard(now_ms);
        }
        let mut consumed = 0;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            let (used, frame) = self.framer.next(rest)?;
            consumed += used;
            let rest = rest.get(used..).unwrap_or_default();
            match frame {
                Frame::NeedBytes { at_least } => {
                    return Ok((consumed, Received::NeedBytes { at_least }));
                }
                Frame::Header(bhs) => self.header(&bhs)?,
                Frame::Data { remaining_bytes } => {
                    if let Some(placement) = self.placement(remaining_bytes) {
                        return Ok((consumed, Received::Payload(placement)));
                    }
                    if rest.is_empty() {
                        return Ok((consumed, Received::NeedBytes { at_least: 1 }));
                    }
                    consumed += self.collect(rest, remaining_bytes);
                }
                Frame::End => {
                    if let Some(event) = self.end_of_pdu()? {
                        return Ok((consumed, Received::Event(event)));
                    }
                }
            }
        }
    }

    /// `bytes` of the last [`Placement`] were copied into the buffer, from its start on; they may
    /// be fewer than it has.
    pub fn placed(&mut self, bytes: &[u8]) {
        self.framer.take(bytes);
        self.advance(bytes.len());
    }

    /// `length_bytes` of the last [`Placement`] were read straight into the buffer, which
    /// [`Placement::may_be_direct`] allowed; they may be fewer than it has.
    pub fn placed_directly(&mut self, length_bytes: usize, now_ms: u64) {
        debug_assert!(!self.framer.digests_data());
        self.tick(now_ms);
        self.ping.heard(now_ms);
        self.framer.skip(length_bytes);
        self.advance(length_bytes);
    }

    fn advance(&mut self, length_bytes: usize) {
        if let Pdu::DataIn { offset_bytes, .. } = &mut self.inbound.pdu {
            *offset_bytes =
                offset_bytes.saturating_add(u32::try_from(length_bytes).unwrap_or(u32::MAX));
        }
    }

    /// Where the rest of the present data segment goes; `None` when it is not payload.
    fn placement(&self, remaining_bytes: usize) -> Option<Placement> {
        let Pdu::DataIn {
            request,
            offset_bytes,
            ..
        } = self.inbound.pdu
        else {
            return None;
        };
        Some(Placement {
            request,
            offset_bytes,
            length_bytes: u32::try_from(remaining_bytes).ok()?,
            may_be_direct: !self.framer.digests_data(),
        })
    }

    fn collect(&mut self, bytes: &[u8], remaining_bytes: usize) -> usize {
        let part = bytes.get(..remaining_bytes).unwrap_or(bytes);
        self.framer.take(part);
        self.inbound.collect(part);
        part.len()
    }

    /// Decides by the header what the PDU means; what needs its data waits for the end.
    fn header(&mut self, bhs: &Bhs) -> Result<(), SessionError> {
        if let Some(trace) = self.trace {
            trace(Way::In, bhs);
        }
        self.inbound.collected_bytes = 0;
        self.inbound.pdu = match Opcode::of_target(bhs)? {
            Opcode::DataIn => self.data_in(DataIn::parse(bhs)?)?,
            Opcode::ScsiResponse => self.scsi_response(ScsiResponse::parse(bhs)?)?,
            Opcode::R2t => self.r2t(&ReadyToTransfer::parse(bhs)?)?,
            Opcode::NopIn => self.nop_in(&NopIn::parse(bhs))?,
            Opcode::TaskManagementResponse => {
                self.task_management_response(&TaskManagementResponse::parse(bhs)?)?
            }
            Opcode::AsyncMessage => {
                let message = AsyncMessage::parse(bhs)?;
                self.consume_stat_sn("Asynchronous Message", &message.numbers)?;
                Pdu::Event(Event::Async(message.event))
            }
            Opcode::Reject => {
                let reject = Reject::parse(bhs);
                self.consume_stat_sn("Reject", &reject.numbers)?;
                Pdu::Reject(reject)
            }
            Opcode::LogoutResponse => self.logout_response(&LogoutResponse::parse(bhs)?)?,
            Opcode::LoginResponse => return Err(unexpected("Login Response")),
            Opcode::TextResponse => return Err(unexpected("Text Response")),
            _ => return Err(unexpected("PDU of an initiator")),
        };
        Ok(())
    }

    /// Every PDU with a status takes the next StatSN; at ErrorRecoveryLevel 0 any other number
    /// means that something was lost for good (RFC 7143 sections 4.2.2.2 and 7.9).
    pub(super) fn consume_stat_sn(
        &mut self,
        pdu: &'static str,
        numbers: &Numbers,
    ) -> Result<(), SessionError> {
        let SerialNumber(expected) = self.exp_stat_sn;
        let SerialNumber(got) = numbers.stat_sn;
        if got != expected {
            return Err(Misbehaviour::StatSn { pdu, expected, got }.into());
        }
        self.exp_stat_sn = self.exp_stat_sn.next();
        self.window.update(numbers);
        Ok(())
    }

    fn find(&self, pdu: &'static str, tag: u32) -> Result<TaskId, SessionError> {
        let unknown = Misbehaviour::UnknownTask {
            pdu,
            initiator_task_tag: tag,
        };
        Ok(self.tasks.find_sent(tag).ok_or(unknown)?)
    }

    fn data_in(&mut self, pdu: DataIn) -> Result<Pdu, SessionError> {
        let id = self.find("Data-In", pdu.initiator_task_tag)?;
        if pdu.status.is_some() {
            self.consume_stat_sn("Data-In", &pdu.numbers)?;
        } else {
            self.window.update(&pdu.numbers);
        }
        let Some(task) = self.tasks.get_mut(id) else {
            return Ok(Pdu::Ignored);
        };
        let offset_bytes = task.accept_data_in(&pdu)?;
        task.since_ms = self.now_ms;
        if task.aborted {
            return Ok(Pdu::Ignored);
        }
        let request = task.command.request;
        Ok(Pdu::DataIn {
            task: id,
            request,
            offset_bytes,
            pdu,
        })
    }

    fn scsi_response(&mut self, pdu: ScsiResponse) -> Result<Pdu, SessionError> {
        let id = self.find("SCSI Response", pdu.initiator_task_tag)?;
        self.consume_stat_sn("SCSI Response", &pdu.numbers)?;
        Ok(Pdu::Response { task: id, pdu })
    }

    /// RFC 7143 section 11.8: the StatSN of an R2T is the next one, and is not consumed.
    fn r2t(&mut self, pdu: &ReadyToTransfer) -> Result<Pdu, SessionError> {
        let id = self.find("R2T", pdu.initiator_task_tag)?;
        self.window.update(&pdu.numbers);
        if let Some(task) = self.tasks.get_mut(id) {
            task.since_ms = self.now_ms;
        }
        if self.tasks.accept_r2t(id, pdu, &self.negotiated)? {
            self.outbox.push(Outgoing::Solicited { task: id });
        }
        Ok(Pdu::Ignored)
    }

    fn nop_in(&mut self, pdu: &NopIn) -> Result<Pdu, SessionError> {
        if pdu.is_answer() {
            if pdu.initiator_task_tag != PING_TAG {
                let initiator_task_tag = pdu.initiator_task_tag;
                return Err(Misbehaviour::UnknownTask {
                    pdu: "NOP-In",
                    initiator_task_tag,
                }
                .into());
            }
            self.consume_stat_sn("NOP-In", &pdu.numbers)?;
        } else {
            self.window.update(&pdu.numbers);
        }
        if pdu.wants_answer()
            && !self
                .outbox
                .push_ping_answer(pdu.lun, pdu.target_transfer_tag)
        {
            return Err(Misbehaviour::PingFlood.into());
        }
        Ok(Pdu::Ignored)
    }

    fn logout_response(&mut self, pdu: &LogoutResponse) -> Result<Pdu, SessionError> {
        if !self.closing || pdu.initiator_task_tag != LOGOUT_TAG {
            return Err(unexpected("Logout Response"));
        }
        self.consume_stat_sn("Logout Response", &pdu.numbers)?;
        Ok(Pdu::Event(Event::LoggedOut {
            response: pdu.response,
            time2wait_s: pdu.time2wait_s,
        }))
    }

    /// The PDU is complete and its digest was right: now it counts.
    fn end_of_pdu(&mut self) -> Result<Option<Event>, SessionError> {
        match core::mem::replace(&mut self.inbound.pdu, Pdu::Ignored) {
            Pdu::Ignored => Ok(None),
            Pdu::Event(event) => Ok(Some(event)),
            Pdu::DataIn {
                pdu: DataIn { status: None, .. },
                ..
            } => Ok(None),
            Pdu::DataIn {
                task,
                pdu:
                    DataIn {
                        status: Some((status, residual)),
                        ..
                    },
                ..
            } => self.end_of_task(task, Response::Completed, status, residual),
            Pdu::Response { task, pdu } => {
                self.end_of_task(task, pdu.response, pdu.status, pdu.residual)
            }
            Pdu::Reject(reject) => self.rejected(&reject),
        }
    }

    fn end_of_task(
        &mut self,
        id: TaskId,
        response: Response,
        status: u8,
        residual: Residual,
    ) -> Result<Option<Event>, SessionError> {
        let Some(task) = self.tasks.get(id).copied() else {
            return Ok(None);
        };
        if task.aborted {
            // Section 11.5.1: the answer to the abort is still to come and ends the task.
            return Ok(None);
        }
        let is_good = response == Response::Completed && status == 0;
        let transferred_bytes = if is_good {
            task.transferred_bytes(residual)?
        } else {
            task.moved_bytes(residual)
        };
        let sense = if response == Response::Completed && status == CHECK_CONDITION {
            SenseData::new(sense_data(self.inbound.collected()))
        } else {
            SenseData::EMPTY
        };
        self.tasks.remove(id);
        let outcome = Outcome {
            response,
            status,
            transferred_bytes,
            expected_bytes: task.length_bytes(),
            sense,
        };
        Ok(Some(Event::CommandDone {
            request: task.command.request,
            outcome,
        }))
    }

    /// A rejected command is over. A rejected Data-Out leaves its task in a state that only a new
    /// session mends. A rejected abort is one that was refused. Anything else (a ping) can be done
    /// without.
    fn rejected(&mut self, reject: &Reject) -> Result<Option<Event>, SessionError> {
        let reason = reject.reason;
        let refused = Reject::refused_header(self.inbound.collected());
        let opcode = refused.map(|bhs| bhs[0] & 0x3f);
        let tag = refused.map_or(RESERVED_TAG, initiator_task_tag);
        let task = self.tasks.find_sent(tag);
        let ends_session = reason.action() == RejectAction::EndSession;
        if ends_session || task.is_some() && opcode == Some(Opcode::DataOut as u8) {
            return Err(SessionError::TargetRefused(reason));
        }
        if opcode == Some(Opcode::TaskManagementRequest as u8) && self.is_managing(tag) {
            return Ok(self.management_rejected(tag));
        }
        match task.filter(|_| opcode == Some(Opcode::ScsiCommand as u8)) {
            Some(id) => Ok(self.tasks.remove(id).map(|task| Event::CommandRejected {
                request: task.command.request,
                reason,
            })),
            None => Ok(Some(Event::Rejected(reason))),
        }
    }
}

fn unexpected(pdu: &'static str) -> SessionError {
    Misbehaviour::Unexpected { pdu }.into()
}
