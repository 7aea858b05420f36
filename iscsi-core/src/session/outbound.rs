//! What goes out: the queue of PDUs to send, and each one's way into the sink.

use alloc::collections::VecDeque;

use super::task::{Burst, Task, TaskId, Unsolicited};
use super::{RequestTag, Session, Transmit, Way};
use crate::crc32c::{Crc32c, wire_digest};
use crate::framer::Trailer;
use crate::limits::{MAX_QUEUED_NOP_ANSWERS, MAX_TASKS};
use crate::pdu::command::{Direction, ScsiCommandPdu};
use crate::pdu::data::DataOut;
use crate::pdu::logout::{LogoutReason, LogoutRequest};
use crate::pdu::nop::NopOut;
use crate::pdu::{Bhs, RESERVED_TAG};
use crate::scsi::command::ScsiData;

/// The tag of our pings: only tags below [`ABORT_BIT`] name SCSI commands.
pub(super) const PING_TAG: u32 = 0x8000_0000;
/// The tag of our LOGICAL UNIT RESET: there is one at most.
pub(super) const RESET_TAG: u32 = 0x8000_0002;
/// The tag of our logout.
pub(super) const LOGOUT_TAG: u32 = 0x8000_0001;
/// An abort carries the tag of its task with this bit set.
pub(super) const ABORT_BIT: u32 = 0x4000_0000;

/// Our connection id: a session of ours has one connection.
const CID: u16 = 0;

/// One thing to send. What exactly goes on the wire is decided when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A command with its immediate and unsolicited data.
    Command { task: TaskId },
    /// Data-Out PDUs for the oldest R2T of a task.
    Solicited { task: TaskId },
    /// ABORT TASK.
    Abort { task: TaskId },
    /// LOGICAL UNIT RESET.
    Reset,
    /// A ping of ours.
    Ping,
    /// The answer to a ping of the target's.
    PingAnswer { lun: u64, target_transfer_tag: u32 },
    /// The end of the session.
    Logout,
}

/// The queue of things to send. A task stands in it at most once per purpose, a ping of ours and a
/// reset once, answers to pings at most [`MAX_QUEUED_NOP_ANSWERS`] times: that bounds its length. What is said
/// of a task that has ended meanwhile is left out when its turn comes.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    has_ping: bool,
    ping_answers: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        const CAPACITY: usize = 3 * MAX_TASKS + MAX_QUEUED_NOP_ANSWERS + 3;
        Self {
            queue: VecDeque::with_capacity(CAPACITY),
            has_ping: false,
            ping_answers: 0,
        }
    }

    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.queue.push_back(outgoing);
    }

    /// Ahead of all that waits: the data of other tasks may be much.
    pub(super) fn push_first(&mut self, outgoing: Outgoing) {
        self.queue.push_front(outgoing);
    }

    /// Asks for a ping, unless one waits already: a socket may be blocked for longer than it takes
    /// to want the next.
    pub(super) fn push_ping(&mut self) {
        if !self.has_ping {
            self.has_ping = true;
            self.push(Outgoing::Ping);
        }
    }

    /// Refuses (`false`) when too many answers wait already.
    pub(super) fn push_ping_answer(&mut self, lun: u64, target_transfer_tag: u32) -> bool {
        if self.ping_answers == MAX_QUEUED_NOP_ANSWERS {
            return false;
        }
        self.ping_answers += 1;
        self.push(Outgoing::PingAnswer {
            lun,
            target_transfer_tag,
        });
        true
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.pop_front()?;
        match outgoing {
            Outgoing::PingAnswer { .. } => self.ping_answers -= 1,
            Outgoing::Ping => self.has_ping = false,
            _ => {}
        }
        Some(outgoing)
    }
}

/// A run of a command's data, to be sent in one PDU.
#[derive(Clone, Copy)]
struct Chunk {
    request: RequestTag,
    data: ScsiData,
    offset: u32,
    length_bytes: u32,
}

impl Session {
    /// Whether [`Session::transmit`] has something to send.
    pub fn wants_transmit(&self) -> bool {
        !self.outbox.queue.is_empty()
    }

    /// How many things wait to be sent. Bounded, whatever the target does.
    pub fn queued(&self) -> usize {
        self.outbox.len()
    }

    /// Pushes what is to be sent into `sink`, whole PDUs, while it has room.
    pub fn transmit(&mut self, sink: &mut impl Transmit) {
        while sink.has_room() {
            let Some(outgoing) = self.outbox.pop() else {
                return;
            };
            self.last_sent_ms = self.now_ms;
            match outgoing {
                Outgoing::Command { task } => self.send_command(task, sink),
                Outgoing::Solicited { task } => self.send_solicited(task, sink),
                Outgoing::Abort { task } => self.send_abort(task, sink),
                Outgoing::Reset => self.send_reset(sink),
                Outgoing::Ping => self.send_nop_out(0, PING_TAG, RESERVED_TAG, sink),
                Outgoing::PingAnswer {
                    lun,
                    target_transfer_tag,
                } => {
                    self.send_nop_out(lun, RESERVED_TAG, target_transfer_tag, sink);
                }
                Outgoing::Logout => self.send_logout(sink),
            }
        }
    }

    /// The command, and behind it at once its unsolicited data: RFC 7143 section 4.2.5.2 wants
    /// unsolicited data in the order of the commands.
    fn send_command(&mut self, id: TaskId, sink: &mut impl Transmit) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        task.sent = true;
        task.since_ms = self.now_ms;
        let task = *task;
        self.unsent_cmd_sn = task.cmd_sn.next();
        let unsolicited = Unsolicited::of(&task.command.scsi.data, &self.negotiated);
        let pdu = ScsiCommandPdu {
            is_final: unsolicited.immediate_bytes == unsolicited.end_offset,
            direction: direction(&task.command.scsi.data),
            lun: task.command.lun,
            initiator_task_tag: id.tag(),
            expected_data_transfer_length: task.length_bytes(),
            cmd_sn: task.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            cdb: task.command.scsi.cdb,
            immediate_length_bytes: unsolicited.immediate_bytes,
        };
        self.send_header(&pdu.emit(), sink);
        self.send_data(chunk(&task, 0, unsolicited.immediate_bytes), sink);
        let mut burst = Burst {
            target_transfer_tag: RESERVED_TAG,
            next_offset: unsolicited.immediate_bytes,
            end_offset: unsolicited.end_offset,
            ..Burst::default()
        };
        while burst.next_offset < burst.end_offset {
            self.send_data_out(id, &task, &mut burst, sink);
        }
    }

    /// Serves the oldest R2T of a task, as far as the sink has room for.
    fn send_solicited(&mut self, id: TaskId, sink: &mut impl Transmit) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        task.since_ms = self.now_ms;
        let task = *task;
        let Some(mut burst) = self.tasks.burst(id).copied() else {
            return;
        };
        while burst.next_offset < burst.end_offset && sink.has_room() {
            self.send_data_out(id, &task, &mut burst, sink);
        }
        let has_more = if burst.next_offset == burst.end_offset {
            self.tasks.end_burst(id)
        } else {
            if let Some(front) = self.tasks.burst(id) {
                *front = burst;
            }
            true
        };
        if has_more {
            self.outbox
                .queue
                .push_front(Outgoing::Solicited { task: id });
        }
    }

    /// One Data-Out PDU of `burst`, as long as the target takes.
    fn send_data_out(&self, id: TaskId, task: &Task, burst: &mut Burst, sink: &mut impl Transmit) {
        let max_bytes = self.negotiated.target_max_recv_data_segment_length_bytes;
        let length_bytes = (burst.end_offset - burst.next_offset).min(max_bytes);
        let next_offset = burst.next_offset + length_bytes;
        let pdu = DataOut {
            is_final: next_offset == burst.end_offset,
            lun: burst.lun,
            initiator_task_tag: id.tag(),
            target_transfer_tag: burst.target_transfer_tag,
            exp_stat_sn: self.exp_stat_sn,
            data_sn: burst.data_sn,
            buffer_offset: burst.next_offset,
            length_bytes,
        };
        self.send_header(&pdu.emit(), sink);
        self.send_data(chunk(task, burst.next_offset, length_bytes), sink);
        burst.next_offset = next_offset;
        burst.data_sn = burst.data_sn.wrapping_add(1);
    }

    fn send_nop_out(&self, lun: u64, itt: u32, ttt: u32, sink: &mut impl Transmit) {
        let pdu = NopOut {
            lun,
            initiator_task_tag: itt,
            target_transfer_tag: ttt,
            cmd_sn: self.unsent_cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            data_length_bytes: 0,
        };
        self.send_header(&pdu.emit(), sink);
    }

    fn send_logout(&self, sink: &mut impl Transmit) {
        let pdu = LogoutRequest {
            reason: LogoutReason::CloseSession,
            initiator_task_tag: LOGOUT_TAG,
            cid: CID,
            cmd_sn: self.unsent_cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
        };
        self.send_header(&pdu.emit(), sink);
    }

    pub(super) fn send_header(&self, bhs: &Bhs, sink: &mut impl Transmit) {
        if let Some(trace) = self.trace {
            trace(Way::Out, bhs);
        }
        sink.bytes(bhs);
        if self.negotiated.header_digest {
            sink.bytes(&wire_digest((self.crc32c)(0, bhs)));
        }
    }

    /// The data segment with padding and digest; nothing at all when it is empty.
    fn send_data(&self, chunk: Chunk, sink: &mut impl Transmit) {
        if chunk.length_bytes == 0 {
            return;
        }
        let crc = if self.negotiated.data_digest {
            Some(self.push_with_digest(chunk, sink))
        } else {
            push(chunk, sink);
            None
        };
        let trailer = Trailer::new(chunk.length_bytes as usize, crc, self.crc32c);
        if !trailer.as_bytes().is_empty() {
            sink.bytes(trailer.as_bytes());
        }
    }

    fn push_with_digest(&self, chunk: Chunk, sink: &mut impl Transmit) -> u32 {
        match chunk.data {
            ScsiData::Out { offset_bytes, .. } => sink.payload_with_digest(
                chunk.request,
                offset_bytes + chunk.offset,
                chunk.length_bytes,
                self.crc32c,
            ),
            ScsiData::Parameters { bytes } => {
                let bytes = parameters(&bytes, chunk);
                sink.bytes(bytes);
                (self.crc32c)(0, bytes)
            }
            _ => {
                sink.zeros(chunk.length_bytes);
                crc_of_zeros(chunk.length_bytes, self.crc32c)
            }
        }
    }
}

fn push(chunk: Chunk, sink: &mut impl Transmit) {
    match chunk.data {
        ScsiData::Out { offset_bytes, .. } => {
            sink.payload(
                chunk.request,
                offset_bytes + chunk.offset,
                chunk.length_bytes,
            );
        }
        ScsiData::Parameters { bytes } => sink.bytes(parameters(&bytes, chunk)),
        _ => sink.zeros(chunk.length_bytes),
    }
}

fn parameters(bytes: &[u8], chunk: Chunk) -> &[u8] {
    let start = chunk.offset as usize;
    bytes
        .get(start..start + chunk.length_bytes as usize)
        .unwrap_or_default()
}

fn crc_of_zeros(length_bytes: u32, crc32c: Crc32c) -> u32 {
    const ZEROS: [u8; 4096] = [0; 4096];
    let (mut crc, mut remaining) = (0, length_bytes as usize);
    while let Some(zeros) = ZEROS
        .get(..remaining.min(ZEROS.len()))
        .filter(|z| !z.is_empty())
    {
        crc = crc32c(crc, zeros);
        remaining -= zeros.len();
    }
    crc
}

fn chunk(task: &Task, offset: u32, length_bytes: u32) -> Chunk {
    Chunk {
        request: task.command.request,
        data: task.command.scsi.data,
        offset,
        length_bytes,
    }
}

fn direction(data: &ScsiData) -> Direction {
    match data {
        ScsiData::None => Direction::None,
        ScsiData::In { .. } => Direction::Read,
        ScsiData::Out { .. } | ScsiData::Zeros { .. } | ScsiData::Parameters { .. } => {
            Direction::Write
        }
    }
}
