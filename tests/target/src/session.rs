//! The full-feature phase of one connection: sequence numbers, dispatch, sending. What PDUs of
//! each kind do is in `commands`, `answers` and `management`.

use crate::data::Data;
use crate::events::{Event, SessionId};
use crate::keys::Params;
use crate::login::Identity;
use crate::outbox::Outbox;
use crate::pdu::{self, Bhs, Digests, RESERVED_TAG, opcode};
use crate::script::CommandFault;
use crate::sessions::Mail;
use crate::shared::Shared;
use crate::write_task::WriteTask;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Whether the connection goes on after what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Go,
    Close,
}

/// A SCSI command PDU, as far as it is needed later.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) lun: [u8; 8],
    pub(crate) cdb: [u8; 16],
    pub(crate) initiator_task_tag: u32,
    pub(crate) expected_data_transfer_length: u32,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) cmd_sn: u32,
    pub(crate) fault: Option<CommandFault>,
}

/// A text answer that is not out yet.
pub(crate) struct TextReply {
    pub(crate) target_transfer_tag: u32,
    pub(crate) pieces: VecDeque<Vec<u8>>,
}

/// One session with its one connection.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: SessionId,
    pub(crate) identity: Identity,
    pub(crate) params: Params,
    /// Bytes to send; the connection takes them once per wake-up.
    pub(crate) out: Outbox,
    pub(crate) stat_sn: u32,
    pub(crate) exp_cmd_sn: u32,
    max_cmd_sn: u32,
    /// Writes whose data is not complete, by initiator task tag.
    pub(crate) writes: HashMap<u32, WriteTask>,
    /// Commands of ours among the held ones.
    pub(crate) held: u32,
    pub(crate) last_transfer_tag: u32,
    pub(crate) text_request: Vec<u8>,
    pub(crate) text_reply: Option<TextReply>,
    pub(crate) commands_since_ping: u32,
    pub(crate) damage: Digests,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: SessionId,
        identity: Identity,
        params: Params,
        stat_sn: u32,
        exp_cmd_sn: u32,
    ) -> Self {
        let window = shared.config.negotiation.cmd_sn_window;
        Self {
            shared,
            id,
            identity,
            params,
            out: Outbox::default(),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn: exp_cmd_sn.wrapping_add(window).wrapping_sub(1),
            writes: HashMap::new(),
            held: 0,
            last_transfer_tag: 0,
            text_request: Vec::new(),
            text_reply: None,
            commands_since_ping: 0,
            damage: Digests::default(),
        }
    }

    /// Handles one PDU.
    pub(crate) fn on_pdu(&mut self, bhs: &Bhs, data: &[u8]) -> Flow {
        if !matches!(bhs.opcode(), opcode::DATA_OUT | 0x10) && !self.in_sequence(bhs) {
            return Flow::Go;
        }
        match bhs.opcode() {
            opcode::SCSI_COMMAND if !self.identity.discovery => self.on_command(bhs, data),
            opcode::DATA_OUT if !self.identity.discovery => self.on_data_out(bhs, data),
            opcode::TASK_MANAGEMENT if !self.identity.discovery => self.on_task_management(bhs),
            opcode::NOP_OUT => self.on_nop_out(bhs, data),
            opcode::TEXT => self.on_text(bhs, data),
            opcode::LOGOUT => self.on_logout(bhs),
            // Reason 5: command not supported. SNACK too, at error recovery level 0.
            _ => self.reject(bhs, 0x05),
        }
    }

    /// Handles one letter.
    pub(crate) fn on_mail(&mut self, mail: Mail) -> Flow {
        match mail {
            Mail::Async(event) => self.send_async(event),
            Mail::Ping => self.send_ping(),
            Mail::Finish(held) => {
                self.held = self.held.saturating_sub(1);
                self.carry_out(&held.command, &held.data)
            }
            Mail::Ended => {
                self.held = self.held.saturating_sub(1);
                Flow::Go
            }
            Mail::Abort(lun) => {
                self.abort_writes(|task| lun.is_none_or(|lun| task.command.lun == lun));
                Flow::Go
            }
        }
    }

    /// Whether to look at a PDU at all: immediate, or the next in CmdSN order. Outside the window
    /// it is silently ignored (RFC 7143 section 4.2.2.1). On a single connection nothing can be
    /// missing within the window, so a gap is the initiator's mistake and is recorded.
    fn in_sequence(&mut self, bhs: &Bhs) -> bool {
        if bhs.immediate() {
            return true;
        }
        let ahead = bhs.cmd_sn().wrapping_sub(self.exp_cmd_sn);
        if ahead == 0 {
            // The window may be closed: then the initiator had no right to send.
            let open = self.max_cmd_sn.wrapping_sub(self.exp_cmd_sn) < 1 << 31;
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(u32::from(open));
            return open;
        }
        if ahead <= self.max_cmd_sn.wrapping_sub(self.exp_cmd_sn) && ahead < 1 << 31 {
            let expected = self.exp_cmd_sn;
            self.record(Event::Violation(format!(
                "CmdSN {} after {expected}",
                bhs.cmd_sn()
            )));
        }
        false
    }

    /// The window moves with what has ended; MaxCmdSN never goes back.
    fn update_window(&mut self) {
        let busy = crate::bytes::len32(self.writes.len()).saturating_add(self.held);
        let room = self
            .shared
            .config
            .negotiation
            .cmd_sn_window
            .saturating_sub(busy);
        let limit = self.exp_cmd_sn.wrapping_add(room).wrapping_sub(1);
        if limit.wrapping_sub(self.max_cmd_sn) < 1 << 31 {
            self.max_cmd_sn = limit;
        }
    }

    /// Takes the next StatSN.
    pub(crate) fn next_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.wrapping_add(1);
        stat_sn
    }

    /// A tag that is not in use and not the reserved one.
    pub(crate) fn next_transfer_tag(&mut self) -> u32 {
        self.last_transfer_tag = self.last_transfer_tag.wrapping_add(1);
        if self.last_transfer_tag == RESERVED_TAG {
            self.last_transfer_tag = 1;
        }
        self.last_transfer_tag
    }

    /// Appends a PDU with this StatSN and the window of now.
    pub(crate) fn send(&mut self, bhs: Bhs, stat_sn: u32, data: &Data<'_>) {
        self.update_window();
        let bhs = bhs
            .put32(24, stat_sn)
            .put32(28, self.exp_cmd_sn)
            .put32(32, self.max_cmd_sn);
        let ahs = &self.shared.config.delivery.additional_header;
        pdu::emit(
            &mut self.out,
            &bhs,
            ahs,
            data,
            self.params.digests,
            self.damage,
        );
    }

    /// Sends a PDU that is a status, with a StatSN of its own.
    pub(crate) fn send_status(&mut self, bhs: Bhs, data: &[u8]) {
        let stat_sn = self.next_stat_sn();
        self.send(bhs, stat_sn, &data.into());
    }

    pub(crate) fn record(&self, event: Event) {
        self.shared.log.record(event);
    }

    /// The initiator broke a rule: record it, close.
    pub(crate) fn violation(&self, what: impl Into<String>) -> Flow {
        self.record(Event::Violation(what.into()));
        Flow::Close
    }
}
