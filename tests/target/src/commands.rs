//! SCSI commands coming in, and the data of writes: immediate, unsolicited, asked for by R2T.

use crate::bytes::{be32, len32};
use crate::data::{Data, DataOut};
use crate::events::Event;
use crate::pdu::{Bhs, FINAL, RESERVED_TAG, opcode};
use crate::script::CommandFault;
use crate::scsi::{Reply, lun_number, sense::Sense};
use crate::session::{Command, Flow, Session};
use crate::write_task::WriteTask;

/// Data that one session may have on its way in; beyond that, TASK SET FULL.
const MAX_GATHERED_BYTES: usize = 256 << 20;

impl Session {
    pub(crate) fn on_command(&mut self, bhs: &Bhs, data: &[u8]) -> Flow {
        let mut command = parse(bhs);
        self.record(Event::Command {
            session: self.id,
            lun: lun_number(&command.lun),
            cdb: command.cdb,
            cmd_sn: command.cmd_sn,
            initiator_task_tag: command.initiator_task_tag,
            length_bytes: command.expected_data_transfer_length,
            immediate_bytes: len32(data.len()),
        });
        self.shared.log.totals.commands.add(1);
        command.fault =
            self.shared
                .script
                .on_command(command.cdb[0], lun_number(&command.lun), |fault| {
                    can_strike(fault, &command, self.params.max_burst_bytes)
                });
        if let Err(what) = self.check_command(&command, bhs.is_final(), data) {
            return self.violation(what);
        }
        self.start(command, bhs.is_final(), data)
    }

    /// What the initiator may not do with a command (RFC 7143 sections 11.3 and 13.11).
    fn check_command(&self, command: &Command, last: bool, data: &[u8]) -> Result<(), String> {
        let length = len32(data.len());
        let tag = command.initiator_task_tag;
        if tag == RESERVED_TAG || self.writes.contains_key(&tag) {
            return Err(format!("task tag {tag:#x} is in use or reserved"));
        }
        if length > 0 && (!command.writes || !self.params.immediate_data) {
            return Err("immediate data that may not be".to_owned());
        }
        let limit = self
            .params
            .first_burst_bytes
            .min(command.expected_data_transfer_length);
        if length > limit {
            return Err(format!("{length} bytes of immediate data, {limit} allowed"));
        }
        if !last && (!command.writes || self.params.initial_r2t) {
            return Err("unsolicited data announced that may not be".to_owned());
        }
        Ok(())
    }

    fn start(&mut self, command: Command, last: bool, immediate: &[u8]) -> Flow {
        match command.fault {
            Some(CommandFault::CloseBefore) => return Flow::Close,
            Some(CommandFault::NoAnswer) => return Flow::Go,
            Some(CommandFault::Reject(reason)) => return self.reject_command(&command, reason),
            Some(CommandFault::R2tForRead) => self.send_r2t(&command, 0, (0, 512)),
            _ => {}
        }
        if !command.writes || command.expected_data_transfer_length == 0 {
            return self.complete(command, DataOut::NONE);
        }
        let unsolicited = (!last).then(|| {
            self.params
                .first_burst_bytes
                .min(command.expected_data_transfer_length)
        });
        if let Some(reply) = self.refuse_early(&command, unsolicited.is_some()) {
            return self.answer(&command, &reply);
        }
        let keep = !self.shared.luns.drops(&command.lun, &command.cdb);
        if immediate.len() == command.expected_data_transfer_length as usize {
            return self.complete(command, DataOut::of(immediate, keep));
        }
        let tag = command.initiator_task_tag;
        let task = WriteTask::new(command, immediate, unsolicited, keep);
        self.writes.insert(tag, task);
        self.pursue(tag)
    }

    /// Answers that need no data. Announced data is taken first all the same.
    fn refuse_early(&self, command: &Command, announced: bool) -> Option<Reply> {
        let length = command.expected_data_transfer_length;
        if length > self.shared.config.delivery.max_transfer_bytes {
            return Some(Reply::check(Sense::INVALID_FIELD));
        }
        let gathered: usize = self.writes.values().map(|task| task.data.len()).sum();
        if gathered + length as usize > MAX_GATHERED_BYTES {
            return Some(Reply {
                status: 0x28,
                ..Reply::default()
            });
        }
        match &command.fault {
            Some(CommandFault::Status(status, sense)) if !announced => Some(Reply {
                status: *status,
                sense: *sense,
                ..Reply::default()
            }),
            _ => None,
        }
    }

    pub(crate) fn on_data_out(&mut self, bhs: &Bhs, data: &[u8]) -> Flow {
        let tag = bhs.initiator_task_tag();
        // Data of a task that was aborted or answered may still be under way.
        let Some(task) = self.writes.get_mut(&tag) else {
            return Flow::Go;
        };
        let (data_sn, offset_bytes) = (be32(&bhs.0, 36), be32(&bhs.0, 40));
        let target_transfer_tag = bhs.target_transfer_tag();
        let taken = task.take(
            target_transfer_tag,
            data_sn,
            offset_bytes,
            bhs.is_final(),
            data,
        );
        self.record(Event::DataOut {
            initiator_task_tag: tag,
            target_transfer_tag,
            offset_bytes,
            length_bytes: len32(data.len()),
        });
        match taken {
            Ok(()) => self.pursue(tag),
            Err(what) => self.violation(what),
        }
    }

    /// Completes a write, or asks for what is missing.
    fn pursue(&mut self, tag: u32) -> Flow {
        if self.writes.get(&tag).is_some_and(WriteTask::is_complete) {
            return match self.writes.remove(&tag) {
                Some(task) => self.complete(task.command, task.data),
                None => Flow::Go,
            };
        }
        while self.ask_more(tag) {}
        Flow::Go
    }

    /// Sends one R2T, if the number outstanding allows it.
    fn ask_more(&mut self, tag: u32) -> bool {
        let burst_limit = self.params.max_burst_bytes;
        let limit = self
            .shared
            .config
            .delivery
            .r2t_bytes
            .unwrap_or(u32::MAX)
            .min(burst_limit);
        let mut outstanding_limit = self.params.max_outstanding_r2t as usize;
        let next_tag = self.next_transfer_tag();
        let Some(task) = self.writes.get_mut(&tag) else {
            return false;
        };
        if task.command.fault == Some(CommandFault::TooManyR2ts) {
            outstanding_limit += 1;
        }
        if task.bursts.len() >= outstanding_limit {
            return false;
        }
        let Some((offset, length)) = task.next_piece(limit) else {
            return false;
        };
        let r2t_sn = task.ask(next_tag, offset, length);
        let command = task.command.clone();
        let shown = spoiled_r2t(&command, r2t_sn, burst_limit, (offset, length));
        self.send_r2t(&command, r2t_sn, shown);
        true
    }

    fn send_r2t(
        &mut self,
        command: &Command,
        r2t_sn: u32,
        (offset_bytes, length_bytes): (u32, u32),
    ) {
        let bhs = Bhs::new(opcode::R2T, FINAL)
            .put(8, &command.lun)
            .tag(command.initiator_task_tag)
            .put32(20, self.last_transfer_tag)
            .put32(36, r2t_sn)
            .put32(40, offset_bytes)
            .put32(44, length_bytes);
        // An R2T shows the next StatSN and does not use it up (RFC 7143 section 11.8.4).
        self.send(bhs, self.stat_sn, &Data::default());
        let initiator_task_tag = command.initiator_task_tag;
        self.record(Event::R2tSent {
            initiator_task_tag,
            offset_bytes,
            length_bytes,
        });
    }
}

fn parse(bhs: &Bhs) -> Command {
    let mut cdb = [0; 16];
    cdb.copy_from_slice(&bhs.0[32..48]);
    Command {
        lun: bhs.lun(),
        cdb,
        initiator_task_tag: bhs.initiator_task_tag(),
        expected_data_transfer_length: be32(&bhs.0, 20),
        reads: bhs.flags() & 0x40 != 0,
        writes: bhs.flags() & 0x20 != 0,
        cmd_sn: bhs.cmd_sn(),
        fault: None,
    }
}

/// Whether a fault makes sense for this command.
fn can_strike(fault: &CommandFault, command: &Command, max_burst_bytes: u32) -> bool {
    let moves = command.expected_data_transfer_length > 0;
    match fault {
        CommandFault::DataBeyondBuffer
        | CommandFault::DataAtWrongOffset
        | CommandFault::WrongDataSn
        | CommandFault::R2tForRead
        | CommandFault::ShortData(_) => command.reads && moves,
        CommandFault::R2tBeyondBuffer | CommandFault::R2tOfZero | CommandFault::TooManyR2ts => {
            command.writes && moves
        }
        CommandFault::R2tBeyondMaxBurst => {
            command.writes && command.expected_data_transfer_length > max_burst_bytes
        }
        _ => true,
    }
}

/// Offset and length as the R2T shows them: the first one may lie.
fn spoiled_r2t(
    command: &Command,
    r2t_sn: u32,
    max_burst_bytes: u32,
    (offset, length): (u32, u32),
) -> (u32, u32) {
    match command.fault {
        Some(CommandFault::R2tBeyondBuffer) if r2t_sn == 0 => (
            command.expected_data_transfer_length - length.min(512),
            length.max(513),
        ),
        Some(CommandFault::R2tOfZero) if r2t_sn == 0 => (offset, 0),
        Some(CommandFault::R2tBeyondMaxBurst) if r2t_sn == 0 => (offset, max_burst_bytes + 1),
        _ => (offset, length),
    }
}
