//! The loop that is measured.

use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use iscsi_core::sequence::SerialNumber;
use rustix::time::{ClockId, clock_gettime};
use vhost_user_iscsi_tests::rng::Rng;

use super::commands::{Commands, Header, nop_out};
use super::error::answer;
use super::incoming::Incoming;
use super::login::{LoggedIn, Numbers, word};
use super::low_water::set_receive_low_water;
use super::outgoing::Outgoing;
use super::{Floor, FloorError, FloorResult, Operation};

/// Opcodes that a target sends (RFC 7143 section 11.2.1.2).
mod opcode {
    pub(super) const NOP_IN: u8 = 0x20;
    pub(super) const SCSI_RESPONSE: u8 = 0x21;
    pub(super) const DATA_IN: u8 = 0x25;
    pub(super) const R2T: u8 = 0x31;
}

const HEADER_BYTES: usize = size_of::<Header>();
/// O, U and their bidirectional kin, in a SCSI Response and in the last Data-In.
const RESIDUAL_FLAGS: u8 = 0x1e;
/// S: the Data-In carries the status.
const STATUS_FLAG: u8 = 0x01;
const RESERVED_TAG: u32 = 0xffff_ffff;

/// A command in flight; its tag is its index.
#[derive(Clone, Copy, Default)]
struct Task {
    is_in_flight: bool,
    /// When it was sent, as nanoseconds since the start of the run.
    sent_ns: u64,
    received_bytes: u32,
    next_data_sn: u32,
}

/// The rest of a data segment.
#[derive(Clone, Copy)]
struct Segment {
    task: u32,
    /// Where its next byte belongs.
    offset: u32,
    data_bytes: usize,
    padding_bytes: usize,
    has_status: bool,
}

/// Counters at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    cpu: Duration,
    requests: u64,
    sends: u64,
    receives: u64,
}

pub(super) struct Exchange<'a> {
    floor: &'a Floor,
    commands: Commands,
    stream: TcpStream,
    numbers: Numbers,
    tasks: Vec<Task>,
    /// Tasks that are not in flight.
    idle: Vec<u32>,
    /// The data of each task, one after the other.
    memory: Vec<u8>,
    incoming: Incoming,
    /// The data segment in the middle of which the buffer ended.
    segment: Option<Segment>,
    outgoing: Outgoing,
    low_water_bytes: i32,
    rng: Rng,
    start: Instant,
    /// When the last bytes came, as nanoseconds since the start.
    now_ns: u64,
    requests: u64,
    sends: u64,
    latency_ns: Histogram<u64>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(floor: &'a Floor, session: LoggedIn) -> Result<Self, FloorError> {
        let depth = u32::try_from(floor.depth).ok().filter(|depth| *depth > 0);
        let depth = depth.ok_or_else(|| FloorError::Config(format!("depth {}", floor.depth)))?;
        let latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Ok(Self {
            floor,
            commands: Commands::new(floor, &session)?,
            stream: session.stream,
            numbers: session.numbers,
            tasks: vec![Task::default(); floor.depth],
            idle: (0..depth).rev().collect(),
            memory: vec![0xa5; floor.depth * floor.length_bytes as usize],
            incoming: Incoming::new(floor.receive_bytes, floor.busy_poll),
            segment: None,
            outgoing: Outgoing::default(),
            low_water_bytes: 1,
            rng: Rng::new(floor.seed),
            start: Instant::now(),
            now_ns: 0,
            requests: 0,
            sends: 0,
            latency_ns: latency_ns.map_err(|error| FloorError::Config(error.to_string()))?,
        })
    }

    pub(super) fn run(mut self) -> Result<FloorResult, FloorError> {
        self.start = Instant::now();
        self.serve(self.floor.warm_up)?;
        let before = self.reading();
        self.latency_ns.reset();
        self.serve(self.floor.warm_up + self.floor.duration)?;
        let after = self.reading();
        let latency_ns = self.latency_ns.clone();
        self.drain()?;
        Ok(FloorResult {
            requests: after.requests - before.requests,
            elapsed: after.at - before.at,
            cpu: after.cpu - before.cpu,
            sends: after.sends - before.sends,
            receives: after.receives - before.receives,
            latency_ns,
        })
    }

    /// Keeps commands in flight until `end` after the start.
    fn serve(&mut self, end: Duration) -> Result<(), FloorError> {
        let end_ns = nanoseconds(end);
        while self.now_ns < end_ns {
            self.submit();
            self.send()?;
            self.set_low_water()?;
            self.receive()?;
        }
        Ok(())
    }

    /// Waits for what is in flight: every command has to end well.
    fn drain(&mut self) -> Result<(), FloorError> {
        set_receive_low_water(&self.stream, 1)?;
        while self.idle.len() < self.tasks.len() {
            self.send()?;
            self.receive()?;
        }
        Ok(())
    }

    fn reading(&self) -> Reading {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Reading {
            at: Instant::now(),
            cpu: cpu.try_into().unwrap_or_default(),
            requests: self.requests,
            sends: self.sends,
            receives: self.incoming.receives,
        }
    }

    /// Makes a command of each idle task, as far as the window lets them through.
    fn submit(&mut self) {
        let Numbers {
            max_cmd_sn,
            exp_stat_sn: SerialNumber(exp_stat_sn),
            ..
        } = self.numbers;
        while self.numbers.cmd_sn.is_at_or_before(max_cmd_sn) {
            let Some(tag) = self.idle.pop() else {
                return;
            };
            let place = self.rng.below(self.commands.places);
            let SerialNumber(cmd_sn) = self.numbers.cmd_sn;
            let (header, data) = self.commands.command(tag, place, cmd_sn, exp_stat_sn);
            self.outgoing.push(&header, self.memory_of(tag, data));
            for data_out in self.commands.unsolicited() {
                let data = self.memory_of(tag, data_out.data.clone());
                self.outgoing.push(&data_out.header(tag, exp_stat_sn), data);
            }
            self.numbers.cmd_sn = self.numbers.cmd_sn.next();
            self.tasks[tag as usize] = Task {
                is_in_flight: true,
                sent_ns: self.now_ns,
                ..Task::default()
            };
        }
    }

    /// A range of a task's data as a range of all memory.
    fn memory_of(&self, tag: u32, data: Range<u32>) -> Range<usize> {
        let start = tag as usize * self.floor.length_bytes as usize;
        start + data.start as usize..start + data.end as usize
    }

    fn send(&mut self) -> Result<(), FloorError> {
        self.sends += self.outgoing.send(&self.stream, &self.memory)?;
        Ok(())
    }

    /// Lets the next receive wait for several answers, if at least twice as many are on their way:
    /// each command in flight owes a header at least, and a read its data.
    fn set_low_water(&mut self) -> Result<(), FloorError> {
        let wanted = self.floor.coalesced_answers;
        if wanted <= 1 {
            return Ok(());
        }
        let in_flight = self.tasks.len() - self.idle.len();
        let length = match self.floor.operation {
            Operation::Read => HEADER_BYTES + self.floor.length_bytes as usize,
            Operation::Write => HEADER_BYTES,
        };
        let low_water = (length * wanted.min(in_flight / 2)).max(1);
        let low_water = i32::try_from(low_water).unwrap_or(i32::MAX);
        if low_water != self.low_water_bytes {
            set_receive_low_water(&self.stream, low_water)?;
            self.low_water_bytes = low_water;
        }
        Ok(())
    }

    /// One receive, and all that it brought.
    fn receive(&mut self) -> Result<(), FloorError> {
        self.incoming.receive(&self.stream)?;
        self.now_ns = nanoseconds(self.start.elapsed());
        loop {
            if let Some(segment) = self.segment.take()
                && !self.take_data(segment)?
            {
                return Ok(());
            }
            match self.incoming.header() {
                Some(header) => self.on_header(&header)?,
                None => return Ok(()),
            }
        }
    }

    fn on_header(&mut self, header: &Header) -> Result<(), FloorError> {
        if header[4] != 0 {
            return answer("an additional header segment");
        }
        // The window never shrinks (RFC 7143 section 4.2.2.1).
        let max_cmd_sn = SerialNumber(word(header, 32));
        if self.numbers.max_cmd_sn.is_before(max_cmd_sn) {
            self.numbers.max_cmd_sn = max_cmd_sn;
        }
        match header[0] & 0x3f {
            opcode::DATA_IN => self.on_data_in(header),
            opcode::SCSI_RESPONSE => self.on_response(header),
            opcode::R2T => self.on_r2t(header),
            opcode::NOP_IN => self.on_nop_in(header),
            other => answer(format!("a PDU of opcode {other:#04x}")),
        }
    }

    fn on_data_in(&mut self, header: &Header) -> Result<(), FloorError> {
        let (tag, data_sn, offset) = (word(header, 16), word(header, 36), word(header, 40));
        let length = word(header, 4);
        let task = in_flight(&mut self.tasks, tag)?;
        let end = offset.saturating_add(length);
        let is_wanted = self.floor.operation == Operation::Read && end <= self.floor.length_bytes;
        if !is_wanted || offset != task.received_bytes || data_sn != task.next_data_sn {
            return answer(format!(
                "Data-In {data_sn} of {length} bytes at {offset}, after {} bytes",
                task.received_bytes
            ));
        }
        task.received_bytes = end;
        task.next_data_sn = data_sn.wrapping_add(1);
        let has_status = header[1] & STATUS_FLAG != 0;
        if has_status {
            self.check_status(header)?;
        }
        self.segment = Some(Segment {
            task: tag,
            offset,
            data_bytes: length as usize,
            padding_bytes: length.wrapping_neg() as usize % 4,
            has_status,
        });
        Ok(())
    }

    /// Takes what there is of a data segment. True when that was all of it.
    fn take_data(&mut self, mut segment: Segment) -> Result<bool, FloorError> {
        let data = self.incoming.take(segment.data_bytes);
        segment.data_bytes -= data.len();
        if self.floor.copies {
            let start = segment.task as usize * self.floor.length_bytes as usize;
            let start = start + segment.offset as usize;
            self.memory[start..start + data.len()].copy_from_slice(data);
            segment.offset += u32::try_from(data.len()).unwrap_or(u32::MAX);
        }
        if segment.data_bytes == 0 {
            segment.padding_bytes -= self.incoming.take(segment.padding_bytes).len();
            if segment.padding_bytes == 0 {
                if segment.has_status {
                    self.end(segment.task)?;
                }
                return Ok(true);
            }
        }
        self.segment = Some(segment);
        Ok(false)
    }

    fn on_response(&mut self, header: &Header) -> Result<(), FloorError> {
        if header[2] != 0 {
            return answer(format!("the target failed with response {}", header[2]));
        }
        self.check_status(header)?;
        if word(header, 4) != 0 {
            return answer("a SCSI Response of status GOOD with data");
        }
        self.end(word(header, 16))
    }

    /// GOOD, no residual, and the StatSN that was to come.
    fn check_status(&mut self, header: &Header) -> Result<(), FloorError> {
        let (status, stat_sn) = (header[3], SerialNumber(word(header, 24)));
        if status != 0 || header[1] & RESIDUAL_FLAGS != 0 {
            return answer(format!(
                "a command ended with status {status:#04x}, flags {:#04x}, residual {}",
                header[1],
                word(header, 44)
            ));
        }
        if stat_sn != self.numbers.exp_stat_sn {
            return answer(format!(
                "StatSN {} instead of {}",
                stat_sn.0, self.numbers.exp_stat_sn.0
            ));
        }
        self.numbers.exp_stat_sn = stat_sn.next();
        Ok(())
    }

    fn end(&mut self, tag: u32) -> Result<(), FloorError> {
        let task = in_flight(&mut self.tasks, tag)?;
        let is_read = self.floor.operation == Operation::Read;
        if is_read && task.received_bytes != self.floor.length_bytes {
            return answer(format!("a read ended after {} bytes", task.received_bytes));
        }
        task.is_in_flight = false;
        self.latency_ns
            .saturating_record(self.now_ns - task.sent_ns);
        self.idle.push(tag);
        self.requests += 1;
        Ok(())
    }

    fn on_r2t(&mut self, header: &Header) -> Result<(), FloorError> {
        let (tag, target_transfer_tag) = (word(header, 16), word(header, 20));
        let (start, length) = (word(header, 40), word(header, 44));
        in_flight(&mut self.tasks, tag)?;
        let end = start.saturating_add(length);
        let is_write = self.floor.operation == Operation::Write;
        if !is_write || length == 0 || end > self.floor.length_bytes {
            return answer(format!("an R2T for {length} bytes at {start}"));
        }
        let SerialNumber(exp_stat_sn) = self.numbers.exp_stat_sn;
        for data_out in self.commands.data_outs(target_transfer_tag, start..end) {
            let data = self.memory_of(tag, data_out.data.clone());
            self.outgoing.push(&data_out.header(tag, exp_stat_sn), data);
        }
        Ok(())
    }

    fn on_nop_in(&mut self, header: &Header) -> Result<(), FloorError> {
        if word(header, 4) != 0 {
            return answer("a NOP-In with data");
        }
        if word(header, 20) != RESERVED_TAG {
            let (cmd_sn, stat_sn) = (self.numbers.cmd_sn, self.numbers.exp_stat_sn);
            self.outgoing
                .push(&nop_out(header, cmd_sn.0, stat_sn.0), 0..0);
        }
        Ok(())
    }
}

/// The task of a tag that the target named.
fn in_flight(tasks: &mut [Task], tag: u32) -> Result<&mut Task, FloorError> {
    match tasks.get_mut(tag as usize) {
        Some(task) if task.is_in_flight => Ok(task),
        _ => answer(format!(
            "an answer with tag {tag:#x}, which is not in flight"
        )),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
