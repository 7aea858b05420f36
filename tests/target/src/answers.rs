//! Commands carried out and answered: Data-In, SCSI responses, and the faults of both.

use crate::bytes::len32;
use crate::data::{Data, DataOut};
use crate::events::Event;
use crate::pdu::{Bhs, Digests, FINAL, opcode};
use crate::script::CommandFault;
use crate::scsi::{GOOD, Reply, sense::Sense};
use crate::session::{Command, Flow, Session};
use std::sync::Arc;

/// O and U bits with the residual count (RFC 7143 section 11.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Residual {
    flags: u8,
    bytes: u32,
}

const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;

impl Session {
    /// All data is here: carry out now, or hold.
    pub(crate) fn complete(&mut self, command: Command, data: DataOut<'_>) -> Flow {
        let wait = match command.fault {
            Some(CommandFault::Hold) => None,
            Some(CommandFault::Delay(wait)) => Some(wait),
            _ => return self.carry_out(&command, &data),
        };
        self.held += 1;
        let key =
            self.shared
                .sessions
                .hold(self.id, self.identity.clone(), command, data.into_owned());
        if let Some(wait) = wait {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                shared.release_held(|held| held.key == key);
            });
        }
        Flow::Go
    }

    pub(crate) fn carry_out(&mut self, command: &Command, data: &DataOut<'_>) -> Flow {
        if let Some(CommandFault::Status(status, sense)) = command.fault {
            return self.answer(
                command,
                &Reply {
                    status,
                    sense,
                    ..Reply::default()
                },
            );
        }
        let mut reply = self.execute(command, data);
        self.shared.log.totals.data_out_bytes.add(data.len());
        match command.fault {
            Some(CommandFault::CloseAfter) => return Flow::Close,
            Some(CommandFault::StatusAfter(status, sense)) => {
                // With its data: RECOVERED ERROR is a success.
                reply = Reply {
                    status,
                    sense,
                    ..reply
                };
            }
            Some(CommandFault::ShortData(bytes)) => {
                reply.data = reply.data.part(0, bytes).into_owned()
            }
            _ => {}
        }
        self.answer(command, &reply)
    }

    fn execute(&self, command: &Command, data: &DataOut<'_>) -> Reply {
        let limit = self.shared.config.delivery.max_transfer_bytes;
        if command.expected_data_transfer_length > limit {
            return Reply::check(Sense::INVALID_FIELD);
        }
        let attention = || self.shared.sessions.pop_attention(self.id, &command.lun);
        self.shared
            .luns
            .execute(&command.lun, &command.cdb, data, attention)
    }

    /// Sends the answer, with whatever the script wants wrong in it.
    pub(crate) fn answer(&mut self, command: &Command, reply: &Reply) -> Flow {
        let start = self.out.len();
        self.damage = Digests {
            header: command.fault == Some(CommandFault::WrongHeaderDigest),
            data: command.fault == Some(CommandFault::WrongDataDigest),
        };
        self.send_answer(command, reply);
        self.damage = Digests::default();
        self.record(Event::Answered {
            session: self.id,
            initiator_task_tag: command.initiator_task_tag,
            status: reply.status,
        });
        if let Some(CommandFault::CutAnswer(bytes)) = command.fault {
            self.out.truncate(start.saturating_add(bytes));
            return Flow::Close;
        }
        self.ping_now_and_then()
    }

    fn send_answer(&mut self, command: &Command, reply: &Reply) {
        let residual = residual(command, reply);
        let wanted = if command.reads {
            command.expected_data_transfer_length
        } else {
            0
        };
        let data = reply.data.part(0, wanted as usize);
        let with_status = self.shared.config.delivery.status_with_data
            && reply.status == GOOD
            && !matches!(command.fault, Some(CommandFault::Response(_)));
        let data_sn = self.send_data(command, &data, with_status.then_some(residual));
        if data.is_empty() || !with_status {
            self.send_response(command, reply, residual, data_sn);
        }
    }

    /// Sends Data-In; the last one with the status, when `residual` is given. Returns ExpDataSN.
    fn send_data(&mut self, command: &Command, data: &Data<'_>, residual: Option<Residual>) -> u32 {
        let limit = self
            .shared
            .config
            .delivery
            .data_in_bytes
            .unwrap_or(usize::MAX);
        let segment = limit.min(self.params.max_send_bytes as usize).max(1);
        let burst = (self.params.max_burst_bytes as usize).max(1);
        self.shared.log.totals.data_in_bytes.add(data.len());
        let mut data_sn = 0;
        let mut at = 0;
        while at < data.len() {
            let end_of_burst = (at / burst + 1) * burst;
            let end = (at + segment).min(end_of_burst).min(data.len());
            let last = end == data.len();
            let flags = if last || end == end_of_burst {
                FINAL
            } else {
                0
            };
            let bhs = data_in(command, flags, data_sn, len32(at));
            let piece = data.part(at, end);
            match residual.filter(|_| last) {
                Some(residual) => self.send_last_data(command, bhs, residual, &piece),
                None => self.send(bhs, 0, &piece),
            }
            data_sn += 1;
            at = end;
        }
        data_sn
    }

    /// The last Data-In with status (S bit).
    fn send_last_data(&mut self, command: &Command, bhs: Bhs, residual: Residual, data: &Data<'_>) {
        let flags = bhs.flags() | 0x01 | residual.flags;
        let bhs = bhs.put(1, &[flags]).put32(44, residual.bytes);
        let stat_sn = self.spoiled_stat_sn(command);
        self.send(bhs, stat_sn, data);
    }

    fn send_response(
        &mut self,
        command: &Command,
        reply: &Reply,
        residual: Residual,
        data_sn: u32,
    ) {
        let response = match command.fault {
            Some(CommandFault::Response(code)) => code,
            _ => 0,
        };
        let bhs = Bhs::new(opcode::SCSI_RESPONSE, FINAL | residual.flags)
            .put(2, &[response, reply.status])
            .tag(shown_tag(command))
            .put32(36, data_sn)
            .put32(44, residual.bytes);
        let stat_sn = self.spoiled_stat_sn(command);
        let sense = self.sense_segment(reply.sense);
        self.send(bhs, stat_sn, &sense.into());
    }

    /// SenseLength and sense data (RFC 7143 section 11.4.7.2).
    fn sense_segment(&self, sense: Option<Sense>) -> Vec<u8> {
        let Some(sense) = sense else {
            return Vec::new();
        };
        let data = sense.encode(self.shared.config.delivery.descriptor_sense);
        let length = u16::try_from(data.len()).unwrap_or(0).to_be_bytes();
        [&length[..], &data].concat()
    }

    fn spoiled_stat_sn(&mut self, command: &Command) -> u32 {
        let stat_sn = self.next_stat_sn();
        match command.fault {
            Some(CommandFault::StatSnOff(by)) => stat_sn.wrapping_add_signed(by),
            _ => stat_sn,
        }
    }

    fn ping_now_and_then(&mut self) -> Flow {
        let Some(every) = self.shared.config.delivery.ping_every_commands else {
            return Flow::Go;
        };
        self.commands_since_ping += 1;
        if self.commands_since_ping < every {
            return Flow::Go;
        }
        self.commands_since_ping = 0;
        self.send_ping()
    }
}

fn data_in(command: &Command, flags: u8, data_sn: u32, offset_bytes: u32) -> Bhs {
    let (data_sn, offset_bytes) = match command.fault {
        Some(CommandFault::DataBeyondBuffer) => (
            data_sn,
            offset_bytes.wrapping_add(command.expected_data_transfer_length),
        ),
        Some(CommandFault::DataAtWrongOffset) => (data_sn, offset_bytes.wrapping_add(512)),
        Some(CommandFault::WrongDataSn) => (data_sn + 1, offset_bytes),
        _ => (data_sn, offset_bytes),
    };
    Bhs::new(opcode::DATA_IN, flags)
        .put(8, &command.lun)
        .tag(shown_tag(command))
        .put32(20, crate::pdu::RESERVED_TAG)
        .put32(36, data_sn)
        .put32(40, offset_bytes)
}

fn shown_tag(command: &Command) -> u32 {
    match command.fault {
        Some(CommandFault::UnknownTag) => command.initiator_task_tag ^ 0x0bad_0000,
        _ => command.initiator_task_tag,
    }
}

/// What the command wanted to transfer, against what the initiator expected.
fn residual(command: &Command, reply: &Reply) -> Residual {
    match command.fault {
        Some(CommandFault::ResidualOverflow(bytes)) => {
            return Residual {
                flags: OVERFLOW,
                bytes,
            };
        }
        Some(CommandFault::ResidualUnderflow(bytes)) => {
            return Residual {
                flags: UNDERFLOW,
                bytes,
            };
        }
        _ => {}
    }
    let expected = match (command.reads, command.writes) {
        (false, false) => 0,
        _ => command.expected_data_transfer_length,
    };
    // A command wants one direction only; data sent the wrong way counts as none.
    let wanted = len32(reply.data.len()).max(reply.data_out_bytes);
    let flags = match wanted.cmp(&expected) {
        std::cmp::Ordering::Greater => OVERFLOW,
        std::cmp::Ordering::Less => UNDERFLOW,
        std::cmp::Ordering::Equal => 0,
    };
    Residual {
        flags,
        bytes: wanted.abs_diff(expected),
    }
}
