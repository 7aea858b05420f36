//! One task's life, and the table of all of them.

use alloc::vec::Vec;

use super::Command;
use crate::error::Misbehaviour;
use crate::limits::MAX_OUTSTANDING_R2T;
use crate::login::negotiated::Negotiated;
use crate::pdu::data::{DataIn, ReadyToTransfer};
use crate::pdu::{BHS_LENGTH_BYTES, Residual};
use crate::scsi::command::ScsiData;
use crate::sequence::SerialNumber;

/// Which task: its Initiator Task Tag, which no later task of the same slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId(u32);

impl TaskId {
    /// The generation of a slot above its index.
    fn new(generation: u16, index: u16) -> Self {
        Self(u32::from(generation) << 16 | u32::from(index))
    }

    /// The Initiator Task Tag.
    pub(crate) fn tag(self) -> u32 {
        self.0
    }

    fn generation(self) -> u16 {
        let [high, low, ..] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    fn index(self) -> u16 {
        let [.., high, low] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// One command, from submission to its status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) command: Command,
    pub(crate) cmd_sn: SerialNumber,
    /// The command went into the sink. Before, nothing that names the task can be an answer.
    pub(crate) sent: bool,
    /// When something was last exchanged for the task: it was submitted, sent, or a part of its data
    /// was. Its time-out counts from here.
    pub(crate) since_ms: u64,
    /// It has to be answered by then, whatever is exchanged for it; `u64::MAX` when there is no such
    /// time.
    pub(crate) answer_by_ms: u64,
    /// Its end was asked for; the ABORT TASK may still wait for its turn.
    pub(crate) abort_asked: bool,
    /// An ABORT TASK was sent: whatever still comes for the task is read and dropped.
    pub(crate) aborted: bool,
    /// Data-In: how much has arrived, and how many PDUs.
    received_bytes: u32,
    data_in_count: u32,
    /// Data-Out: how many R2Ts came, and how far the target has asked so far. Those not yet served
    /// are in the table ([`TaskTable::burst`]): a task is copied where it is used, and most tasks
    /// never see one.
    r2t_count: u32,
    solicited_end: u32,
}

/// What an R2T asked for, and how far it is served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Burst {
    pub(crate) lun: u64,
    pub(crate) target_transfer_tag: u32,
    pub(crate) next_offset: u32,
    pub(crate) end_offset: u32,
    pub(crate) data_sn: u32,
}

/// The R2Ts of one task, oldest first.
#[derive(Clone, Copy, Debug, Default)]
struct R2tQueue {
    bursts: [Burst; MAX_OUTSTANDING_R2T],
    length: usize,
}

impl R2tQueue {
    fn push(&mut self, burst: Burst) -> bool {
        let Some(slot) = self.bursts.get_mut(self.length) else {
            return false;
        };
        *slot = burst;
        self.length += 1;
        true
    }

    fn front_mut(&mut self) -> Option<&mut Burst> {
        self.bursts.get_mut(..self.length)?.first_mut()
    }

    fn pop(&mut self) {
        self.bursts.rotate_left(1);
        self.length = self.length.saturating_sub(1);
    }
}

/// How much of a write goes with the command, and how much right behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsolicited {
    /// In the command's own data segment.
    pub(crate) immediate_bytes: u32,
    /// Where the Data-Out PDUs end that follow without an R2T.
    pub(crate) end_offset: u32,
}

impl Unsolicited {
    /// RFC 7143 sections 13.10, 13.11 and 13.14: ImmediateData, InitialR2T and FirstBurstLength.
    pub(crate) fn of(data: &ScsiData, negotiated: &Negotiated) -> Self {
        let length_bytes = match data {
            ScsiData::None | ScsiData::In { .. } => 0,
            data => data.length_bytes(),
        };
        let first_burst_bytes = length_bytes.min(negotiated.first_burst_length_bytes);
        let immediate_bytes = if negotiated.immediate_data {
            first_burst_bytes.min(negotiated.target_max_recv_data_segment_length_bytes)
        } else {
            0
        };
        let end_offset = if negotiated.initial_r2t {
            immediate_bytes
        } else {
            first_burst_bytes
        };
        Self {
            immediate_bytes,
            end_offset,
        }
    }
}

impl Task {
    fn new(command: Command, cmd_sn: SerialNumber, negotiated: &Negotiated, now_ms: u64) -> Self {
        Self {
            command,
            cmd_sn,
            sent: false,
            since_ms: now_ms,
            answer_by_ms: u64::MAX,
            abort_asked: false,
            aborted: false,
            received_bytes: 0,
            data_in_count: 0,
            r2t_count: 0,
            solicited_end: Unsolicited::of(&command.scsi.data, negotiated).end_offset,
        }
    }

    /// The Expected Data Transfer Length.
    pub(crate) fn length_bytes(&self) -> u32 {
        self.command.scsi.data.length_bytes()
    }

    fn awaited_bytes(&self) -> u64 {
        let data_bytes = match self.command.scsi.data {
            ScsiData::In { length_bytes, .. } => length_bytes,
            _ => 0,
        };
        BHS_LENGTH_BYTES as u64 + u64::from(data_bytes)
    }

    /// Checks a Data-In header against the task and counts it. The result is where in the
    /// request's buffer the bytes go.
    pub(crate) fn accept_data_in(&mut self, pdu: &DataIn) -> Result<u32, Misbehaviour> {
        const PDU: &str = "Data-In";
        let ScsiData::In {
            offset_bytes,
            length_bytes,
        } = self.command.scsi.data
        else {
            return Err(Misbehaviour::WrongDirection { pdu: PDU });
        };
        check_number(PDU, self.data_in_count, pdu.data_sn)?;
        check_extent(PDU, pdu.buffer_offset, pdu.length_bytes, length_bytes)?;
        check_order(PDU, self.received_bytes, pdu.buffer_offset)?;
        self.data_in_count = self.data_in_count.wrapping_add(1);
        self.received_bytes += pdu.length_bytes;
        Ok(offset_bytes + pdu.buffer_offset)
    }

    /// Checks an R2T against the task and counts it. The result is what it asks for.
    fn accept_r2t(
        &mut self,
        pdu: &ReadyToTransfer,
        max_burst_length_bytes: u32,
    ) -> Result<Burst, Misbehaviour> {
        const PDU: &str = "R2T";
        let length_bytes = match self.command.scsi.data {
            ScsiData::None | ScsiData::In { .. } => {
                return Err(Misbehaviour::WrongDirection { pdu: PDU });
            }
            data => data.length_bytes(),
        };
        let length = pdu.desired_data_transfer_length;
        check_number(PDU, self.r2t_count, pdu.r2t_sn)?;
        check_extent(PDU, pdu.buffer_offset, length, length_bytes)?;
        check_order(PDU, self.solicited_end, pdu.buffer_offset)?;
        if length > max_burst_length_bytes {
            return Err(Misbehaviour::R2tTooLong {
                length,
                max_burst_length_bytes,
            });
        }
        let end_offset = pdu.buffer_offset + length;
        self.r2t_count = self.r2t_count.wrapping_add(1);
        self.solicited_end = end_offset;
        Ok(Burst {
            lun: pdu.lun,
            target_transfer_tag: pdu.target_transfer_tag,
            next_offset: pdu.buffer_offset,
            end_offset,
            data_sn: 0,
        })
    }

    /// How many bytes a successful command moved, by the target's word checked against what
    /// arrived.
    ///
    /// A write is taken at the target's word; for a read the residual has to agree with the data.
    pub(crate) fn transferred_bytes(&self, residual: Residual) -> Result<u32, Misbehaviour> {
        let expected_bytes = self.length_bytes();
        let residual_bytes = match residual {
            Residual::Underflow { length_bytes } => length_bytes,
            Residual::None | Residual::Overflow { .. } => 0,
        };
        let contradiction = Misbehaviour::Residual {
            arrived_bytes: self.received_bytes,
            expected_bytes,
            residual_bytes,
        };
        let transferred = expected_bytes
            .checked_sub(residual_bytes)
            .ok_or(contradiction)?;
        match self.command.scsi.data {
            ScsiData::In { .. } if transferred != self.received_bytes => Err(contradiction),
            _ => Ok(transferred),
        }
    }

    /// How many bytes a command moved that did not simply succeed: for a read what arrived, for a
    /// write the target's word, which matters when its sense data says RECOVERED ERROR.
    pub(crate) fn moved_bytes(&self, residual: Residual) -> u32 {
        match (self.command.scsi.data, residual) {
            (ScsiData::In { .. }, _) => self.received_bytes,
            (_, Residual::Underflow { length_bytes }) => {
                self.length_bytes().saturating_sub(length_bytes)
            }
            (_, Residual::None | Residual::Overflow { .. }) => self.length_bytes(),
        }
    }
}

fn check_number(pdu: &'static str, expected: u32, got: u32) -> Result<(), Misbehaviour> {
    if got == expected {
        Ok(())
    } else {
        Err(Misbehaviour::DataSn { pdu, expected, got })
    }
}

fn check_order(pdu: &'static str, expected: u32, got: u32) -> Result<(), Misbehaviour> {
    if got == expected {
        Ok(())
    } else {
        Err(Misbehaviour::OutOfOrder { pdu, expected, got })
    }
}

fn check_extent(
    pdu: &'static str,
    offset: u32,
    length: u32,
    buffer_bytes: u32,
) -> Result<(), Misbehaviour> {
    match offset.checked_add(length) {
        Some(end) if end <= buffer_bytes => Ok(()),
        _ => Err(Misbehaviour::BeyondBuffer {
            pdu,
            offset,
            length,
            buffer_bytes,
        }),
    }
}

/// A fixed number of tasks, found by the tag on the wire.
///
/// A tag is the generation of a slot above its index. The generation changes with each use, so a
/// late answer to an earlier task of the slot is told from one to the present task. The two highest
/// bits of a task's tag are 0: tags with one of them set name everything that is no SCSI command.
#[derive(Debug)]
pub(crate) struct TaskTable {
    slots: Vec<Slot>,
    /// By slot, the R2Ts of its task that are not yet served.
    r2ts: Vec<R2tQueue>,
    free: Vec<u16>,
    awaited_bytes: u64,
    data_bytes: u64,
}

#[derive(Debug)]
struct Slot {
    generation: u16,
    task: Option<Task>,
}

impl TaskTable {
    pub(crate) fn new(length: usize) -> Self {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        Self {
            slots: (0..length)
                .map(|_| Slot {
                    generation: 0,
                    task: None,
                })
                .collect(),
            r2ts: (0..length).map(|_| R2tQueue::default()).collect(),
            free: (0..length).rev().collect(),
            awaited_bytes: 0,
            data_bytes: 0,
        }
    }

    /// How many bytes the target still has to send, about: for each task a header, and all data of
    /// a read, even if some has arrived.
    pub(crate) fn awaited_bytes(&self) -> u64 {
        self.awaited_bytes
    }

    /// How many bytes the tasks move in all, in whichever direction.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(
        &mut self,
        command: Command,
        cmd_sn: SerialNumber,
        negotiated: &Negotiated,
        now_ms: u64,
    ) -> Option<TaskId> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.generation = (slot.generation + 1) & 0x3fff;
        let task = slot
            .task
            .insert(Task::new(command, cmd_sn, negotiated, now_ms));
        self.awaited_bytes += task.awaited_bytes();
        self.data_bytes += u64::from(task.length_bytes());
        if let Some(r2ts) = self.r2ts.get_mut(usize::from(index)) {
            r2ts.length = 0;
        }
        Some(TaskId::new(slot.generation, index))
    }

    /// The living task that `tag` names, if its command was sent: a target cannot know of others.
    pub(crate) fn find_sent(&self, tag: u32) -> Option<TaskId> {
        let id = TaskId(tag);
        self.get(id).filter(|task| task.sent).map(|_| id)
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        let slot = self.slots.get(usize::from(id.index()))?;
        slot.task
            .as_ref()
            .filter(|_| slot.generation == id.generation())
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        let slot = self.slots.get_mut(usize::from(id.index()))?;
        slot.task
            .as_mut()
            .filter(|_| slot.generation == id.generation())
    }

    /// Checks an R2T against its task and keeps what it asks for. `true` when the task had
    /// nothing to serve before; a task that has ended has nothing to serve at all.
    pub(crate) fn accept_r2t(
        &mut self,
        id: TaskId,
        pdu: &ReadyToTransfer,
        negotiated: &Negotiated,
    ) -> Result<bool, Misbehaviour> {
        let Some(task) = self.get_mut(id) else {
            return Ok(false);
        };
        let burst = task.accept_r2t(pdu, negotiated.max_burst_length_bytes)?;
        let agreed = negotiated.max_outstanding_r2t;
        let Some(r2ts) = self.r2ts_of(id) else {
            return Ok(false);
        };
        let was_idle = r2ts.length == 0;
        if r2ts.length >= usize::from(agreed) || !r2ts.push(burst) {
            return Err(Misbehaviour::TooManyR2ts { agreed });
        }
        Ok(was_idle)
    }

    /// The R2Ts of a living task.
    fn r2ts_of(&mut self, id: TaskId) -> Option<&mut R2tQueue> {
        self.get(id)?;
        self.r2ts.get_mut(usize::from(id.index()))
    }

    /// The R2T of a task to serve next.
    pub(crate) fn burst(&mut self, id: TaskId) -> Option<&mut Burst> {
        self.r2ts_of(id)?.front_mut()
    }

    /// The R2T of [`TaskTable::burst`] is served. Whether there is another.
    pub(crate) fn end_burst(&mut self, id: TaskId) -> bool {
        let Some(r2ts) = self.r2ts_of(id) else {
            return false;
        };
        r2ts.pop();
        r2ts.length > 0
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        self.get(id)?;
        let task = self.slots.get_mut(usize::from(id.index()))?.task.take()?;
        self.awaited_bytes -= task.awaited_bytes();
        self.data_bytes -= u64::from(task.length_bytes());
        self.free.push(id.index());
        Some(task)
    }

    /// All tasks, each with its name.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (TaskId, &mut Task)> {
        (0u16..).zip(&mut self.slots).filter_map(|(index, slot)| {
            let task = slot.task.as_mut()?;
            Some((TaskId::new(slot.generation, index), task))
        })
    }
}
