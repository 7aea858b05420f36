//! Everything that is not a SCSI command: task management, NOP, text, logout, asynchronous
//! messages, Reject.

use crate::bytes::be32;
use crate::data::Data;
use crate::discovery;
use crate::events::Event;
use crate::pdu::{Bhs, FINAL, RESERVED_TAG, opcode};
use crate::script::TaskManagementFault;
use crate::scsi::sense::Sense;
use crate::session::{Command, Flow, Session, TextReply};
use crate::sessions::{AsyncEvent, Mail};
use crate::text::Pairs;
use crate::write_task::WriteTask;

/// Text of one request, over its continuations.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Task management response codes (RFC 7143 section 11.6.1).
mod response {
    pub(super) const COMPLETE: u8 = 0;
    pub(super) const NO_SUCH_TASK: u8 = 1;
    pub(super) const NO_SUCH_LUN: u8 = 2;
    pub(super) const REASSIGN_NOT_SUPPORTED: u8 = 4;
    pub(super) const NOT_SUPPORTED: u8 = 5;
}

impl Session {
    pub(crate) fn on_task_management(&mut self, bhs: &Bhs) -> Flow {
        let function = bhs.flags() & 0x7f;
        let lun = bhs.lun();
        let known = self.shared.luns.find(&lun).is_some();
        let fault = self.shared.script.on_task_management(function);
        let response = match function {
            _ if fault.is_some() => match fault {
                Some(TaskManagementFault::Response(response)) => response,
                _ => return Flow::Go,
            },
            2..=5 if !known => response::NO_SUCH_LUN,
            1 => self.abort_task(bhs),
            2 => self.abort_task_set(lun),
            4 | 5 => self.reset(Some(lun), Sense::LUN_RESET_OCCURRED),
            6 | 7 => self.reset(None, Sense::RESET_OCCURRED),
            8 => response::REASSIGN_NOT_SUPPORTED,
            _ => response::NOT_SUPPORTED,
        };
        self.record(Event::TaskManagement {
            session: self.id,
            function,
            response,
        });
        let answer = Bhs::new(opcode::TASK_MANAGEMENT_RESPONSE, FINAL)
            .put(2, &[response])
            .tag(bhs.initiator_task_tag());
        self.send_status(answer, &[]);
        // A cold reset ends every session (RFC 7143 section 11.5.1).
        if function == 7 {
            self.shared.cut_connections();
        }
        Flow::Go
    }

    fn abort_task(&mut self, bhs: &Bhs) -> u8 {
        let tag = be32(&bhs.0, 20);
        let id = self.id;
        let held = self
            .shared
            .sessions
            .end_held(|held| held.session == id && held.command.initiator_task_tag == tag);
        if self.writes.remove(&tag).is_some() || held > 0 {
            return response::COMPLETE;
        }
        // A command that has not come yet counts as aborted; one that came is answered already.
        let ahead = be32(&bhs.0, 32).wrapping_sub(self.exp_cmd_sn);
        let coming = ahead < self.shared.config.negotiation.cmd_sn_window;
        if coming {
            response::COMPLETE
        } else {
            response::NO_SUCH_TASK
        }
    }

    fn abort_task_set(&mut self, lun: [u8; 8]) -> u8 {
        let id = self.id;
        self.abort_writes(|task| task.command.lun == lun);
        self.shared
            .sessions
            .end_held(|held| held.session == id && held.command.lun == lun);
        response::COMPLETE
    }

    /// Ends the tasks of every session on one LUN or on all; the other sessions learn by a unit
    /// attention.
    fn reset(&mut self, lun: Option<[u8; 8]>, sense: Sense) -> u8 {
        let sessions = &self.shared.sessions;
        sessions.end_held(|held| lun.is_none_or(|lun| held.command.lun == lun));
        sessions.post(|id| id != self.id, || Mail::Abort(lun));
        let addressing = self.shared.config.lun_addressing;
        let all = || {
            let numbers = self.shared.luns.units.keys();
            numbers
                .map(|number| crate::scsi::lun_field(*number, addressing))
                .collect()
        };
        for lun in lun.map_or_else(all, |lun| vec![lun]) {
            sessions.attention(lun, sense, Some(self.id));
        }
        self.abort_writes(|task| lun.is_none_or(|lun| task.command.lun == lun));
        response::COMPLETE
    }

    pub(crate) fn abort_writes(&mut self, chosen: impl Fn(&WriteTask) -> bool) {
        self.writes.retain(|_, task| !chosen(task));
    }

    pub(crate) fn on_nop_out(&mut self, bhs: &Bhs, data: &[u8]) -> Flow {
        let target_transfer_tag = bhs.target_transfer_tag();
        if bhs.initiator_task_tag() == RESERVED_TAG {
            if target_transfer_tag != RESERVED_TAG {
                self.record(Event::Ponged {
                    session: self.id,
                    target_transfer_tag,
                });
            }
            return Flow::Go;
        }
        let limit = self.params.max_send_bytes as usize;
        let echo = data.get(..limit).unwrap_or(data);
        let answer = Bhs::new(opcode::NOP_IN, FINAL)
            .put(8, &bhs.lun())
            .tag(bhs.initiator_task_tag())
            .put32(20, RESERVED_TAG);
        self.send_status(answer, echo);
        self.record(Event::Pinged { session: self.id });
        Flow::Go
    }

    /// A NOP-In that wants an answer; it shows the next StatSN and does not use it up.
    pub(crate) fn send_ping(&mut self) -> Flow {
        let tag = self.next_transfer_tag();
        let ping = Bhs::new(opcode::NOP_IN, FINAL)
            .tag(RESERVED_TAG)
            .put32(20, tag);
        self.send(ping, self.stat_sn, &Data::default());
        Flow::Go
    }

    pub(crate) fn on_text(&mut self, bhs: &Bhs, data: &[u8]) -> Flow {
        let tag = bhs.target_transfer_tag();
        if tag != RESERVED_TAG && self.text_reply.is_some() {
            let ours = self
                .text_reply
                .as_ref()
                .is_some_and(|r| r.target_transfer_tag == tag);
            return if ours {
                self.send_text(bhs)
            } else {
                self.reject(bhs, 0x09)
            };
        }
        self.text_request.extend_from_slice(data);
        if self.text_request.len() > MAX_TEXT_BYTES {
            return self.violation("text request without end");
        }
        if bhs.flags() & 0x40 != 0 {
            return self.ask_for_more_text(bhs);
        }
        let request = std::mem::take(&mut self.text_request);
        let Ok(pairs) = Pairs::parse(&request) else {
            return self.violation("text request without '='");
        };
        let name = (!self.identity.discovery).then_some(self.identity.target_name.as_str());
        let reply = discovery::answer(&pairs, name, &self.shared.config, self.shared.portal);
        self.text_reply = Some(self.cut_text(&reply.emit()));
        self.send_text(bhs)
    }

    fn ask_for_more_text(&mut self, bhs: &Bhs) -> Flow {
        let tag = self.next_transfer_tag();
        let answer = Bhs::new(opcode::TEXT_RESPONSE, 0)
            .tag(bhs.initiator_task_tag())
            .put32(20, tag);
        self.send_status(answer, &[]);
        Flow::Go
    }

    fn cut_text(&mut self, text: &[u8]) -> TextReply {
        let limit = self.shared.config.delivery.text_bytes.unwrap_or(usize::MAX);
        let piece = limit.min(self.params.max_send_bytes as usize).max(1);
        let pieces = text.chunks(piece).map(<[u8]>::to_vec).collect();
        TextReply {
            target_transfer_tag: self.next_transfer_tag(),
            pieces,
        }
    }

    /// Sends the next piece of a text answer; the last one ends it.
    fn send_text(&mut self, bhs: &Bhs) -> Flow {
        let Some(mut reply) = self.text_reply.take() else {
            return Flow::Go;
        };
        let piece = reply.pieces.pop_front().unwrap_or_default();
        let more = !reply.pieces.is_empty();
        let (flags, tag) = if more {
            (0x40, reply.target_transfer_tag)
        } else {
            (FINAL, RESERVED_TAG)
        };
        let answer = Bhs::new(opcode::TEXT_RESPONSE, flags)
            .put(8, &bhs.lun())
            .tag(bhs.initiator_task_tag())
            .put32(20, tag);
        self.text_reply = more.then_some(reply);
        self.send_status(answer, &piece);
        Flow::Go
    }

    pub(crate) fn on_logout(&mut self, bhs: &Bhs) -> Flow {
        let reason = bhs.flags() & 0x7f;
        // 2: connection recovery is not supported.
        let response = if reason < 2 { 0 } else { 2 };
        let config = &self.shared.config.negotiation;
        let seconds = |value: u32| u16::try_from(value).unwrap_or(0).to_be_bytes();
        let answer = Bhs::new(opcode::LOGOUT_RESPONSE, FINAL)
            .put(2, &[response])
            .tag(bhs.initiator_task_tag())
            .put(40, &seconds(config.default_time2wait))
            .put(42, &seconds(config.default_time2retain));
        if response == 0 {
            let id = self.id;
            self.writes.clear();
            self.shared.sessions.end_held(|held| held.session == id);
        }
        self.record(Event::Logout {
            session: self.id,
            reason,
        });
        self.send_status(answer, &[]);
        if response == 0 { Flow::Close } else { Flow::Go }
    }

    pub(crate) fn send_async(&mut self, event: AsyncEvent) -> Flow {
        let (code, parameters, flow) = match event {
            AsyncEvent::LogoutRequest { seconds } => (1, [0, 0, seconds], Flow::Go),
            AsyncEvent::DropConnection {
                time2wait,
                time2retain,
            } => (2, [0, time2wait, time2retain], Flow::Close),
            AsyncEvent::DropAllConnections {
                time2wait,
                time2retain,
            } => (3, [0, time2wait, time2retain], Flow::Close),
            AsyncEvent::Renegotiate { seconds } => (4, [0, 0, seconds], Flow::Go),
            AsyncEvent::Scsi(_) => (0, [0; 3], Flow::Go),
            AsyncEvent::Other(code) => (code, [0; 3], Flow::Go),
        };
        let mut bhs = Bhs::new(opcode::ASYNC_MESSAGE, FINAL)
            .tag(RESERVED_TAG)
            .put(36, &[code]);
        for (at, parameter) in parameters.iter().enumerate() {
            bhs = bhs.put(38 + at * 2, &parameter.to_be_bytes());
        }
        let sense = match event {
            AsyncEvent::Scsi(sense) => [&[0, 18][..], &sense.encode(false)].concat(),
            _ => Vec::new(),
        };
        self.send_status(bhs, &sense);
        flow
    }

    /// A Reject PDU with the header of what is rejected.
    pub(crate) fn reject(&mut self, bhs: &Bhs, reason: u8) -> Flow {
        let answer = Bhs::new(opcode::REJECT, FINAL)
            .put(2, &[reason])
            .tag(RESERVED_TAG);
        self.send_status(answer, &bhs.0);
        Flow::Go
    }

    /// The same for a command of which only the parsed form is left.
    pub(crate) fn reject_command(&mut self, command: &Command, reason: u8) -> Flow {
        let direction =
            if command.reads { 0x40 } else { 0 } | if command.writes { 0x20 } else { 0 };
        let bhs = Bhs::new(opcode::SCSI_COMMAND, FINAL | direction)
            .put(8, &command.lun)
            .tag(command.initiator_task_tag)
            .put32(20, command.expected_data_transfer_length)
            .put32(24, command.cmd_sn)
            .put(32, &command.cdb);
        self.reject(&bhs, reason)
    }
}
