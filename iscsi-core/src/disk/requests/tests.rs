//! The table with a real session and a small model of a target, which answers in any order.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::crc32c::Crc32c;
use crate::disk::example::{STABLE_WRITE, WRITE, ZEROES, disk, thin_disk};
use crate::disk::facts::BlockLimits;
use crate::limits::{MAX_IMMEDIATE_RETRIES, RETRY_DELAY_MS};
use crate::login::negotiated::{Negotiated, example};
use crate::pdu::command::Response;
use crate::pdu::{BHS_LENGTH_BYTES, RESERVED_TAG, assemble, data_segment_length};
use crate::scsi::opcode;
use crate::scsi::sense::Sense;
use crate::scsi::status::ScsiStatus;
use crate::sequence::SerialNumber;
use crate::session::{Event, Received, Transmit};

mod trouble;

const CMD_SN: u32 = u32::MAX - 3;
const STAT_SN: u32 = 70;
/// What one READ or WRITE of the test disks moves at most.
const MAX_TRANSFER_BLOCKS: u32 = 4;
const STABLE_ZEROES: BlockOperation = BlockOperation::WriteZeroes {
    unmap: true,
    stable: true,
};

fn facts() -> LunFacts {
    let limits = BlockLimits {
        max_transfer_blocks: Some(MAX_TRANSFER_BLOCKS),
        max_write_same_blocks: Some(8),
        max_unmap_blocks: Some(8),
        ..BlockLimits::default()
    };
    LunFacts {
        limits,
        ..thin_disk(512, 1 << 20)
    }
}

fn blocks(sector: u64, count: u64) -> Extent {
    Extent {
        sector,
        length_bytes: count * 512,
    }
}

fn negotiated(window: u32) -> Negotiated {
    Negotiated {
        initial_r2t: false,
        immediate_data: true,
        max_cmd_sn: SerialNumber(CMD_SN).plus(window.wrapping_sub(1)),
        ..example(SerialNumber(CMD_SN), SerialNumber(STAT_SN))
    }
}

/// A command that the target has not answered.
#[derive(Clone, Copy, Debug)]
struct Asked {
    initiator_task_tag: u32,
    cdb: [u8; 16],
    expected_bytes: u32,
}

impl Asked {
    fn opcode(&self) -> u8 {
        self.cdb[0]
    }

    fn is_fua(&self) -> bool {
        self.cdb[1] & 0x08 != 0
    }

    /// Of a 16-byte command.
    fn blocks(&self) -> core::ops::Range<u64> {
        let block = u64::from_be_bytes(self.cdb[2..10].try_into().unwrap());
        let count = u32::from_be_bytes(self.cdb[10..14].try_into().unwrap());
        block..block + u64::from(count)
    }
}

/// How the target ends a command.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reply {
    Good,
    /// CHECK CONDITION with response code, sense key, additional sense code.
    Sense(u8, u8, u8),
    NoSense,
    /// CHECK CONDITION with a unit attention: additional sense code and qualifier.
    Attention(u8, u8),
    Status(u8),
    /// GOOD, but with one block less than asked for.
    Short,
    /// A Reject PDU with this reason instead of a status.
    Reject(u8),
}

const UNIT_ATTENTION: Reply = Reply::Sense(0x70, 6, 0x29);
const POWER_ON: Reply = Reply::Attention(0x29, 0x01);
const LOST_POWER: Sense = Sense {
    deferred: false,
    key: SenseKey::UNIT_ATTENTION,
    asc: 0x29,
    ascq: 0x01,
    information: None,
};
const ABORTED: Reply = Reply::Sense(0x70, 0xb, 0);
const RECOVERED: Reply = Reply::Sense(0x70, 1, 0x18);
const MEDIUM_ERROR: Reply = Reply::Sense(0x70, 3, 0x11);
const NOT_READY_YET: Reply = Reply::Sense(0x70, 2, 0x04);
const NO_SUCH_LUN: Reply = Reply::Sense(0x70, 5, 0x25);
const UNKNOWN_OPCODE: Reply = Reply::Sense(0x70, 5, 0x20);
const DEFERRED_MEDIUM_ERROR: Reply = Reply::Sense(0x71, 3, 0x0c);
const DEFERRED_RECOVERED: Reply = Reply::Sense(0x71, 1, 0x18);
const BUSY: Reply = Reply::Status(0x08);
const TASK_SET_FULL: Reply = Reply::Status(0x28);
const TASK_ABORTED: Reply = Reply::Status(0x40);
const INVALID_PDU_FIELD: Reply = Reply::Reject(0x09);
const OUT_OF_RESOURCES: Reply = Reply::Reject(0x0a);
const RESERVATION_CONFLICT: Reply = Reply::Status(0x18);

/// The bytes on the wire; data of requests is zeros.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Transmit for Wire {
    fn has_room(&self) -> bool {
        true
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }
    fn zeros(&mut self, length_bytes: u32) {
        self.0.resize(self.0.len() + length_bytes as usize, 0);
    }
    fn payload(&mut self, _: RequestTag, _: u32, length_bytes: u32) {
        self.zeros(length_bytes);
    }
    fn payload_with_digest(&mut self, _: RequestTag, _: u32, _: u32, _: Crc32c) -> u32 {
        unreachable!("no digest was agreed")
    }
}

/// A disk with a volatile cache behind one session.
struct Target {
    window: u32,
    exp_cmd_sn: SerialNumber,
    stat_sn: u32,
    asked: Vec<Asked>,
    /// Aborts that are not answered: their own tag and that of their task.
    aborts: Vec<(u32, u32)>,
    written: BTreeSet<u64>,
    volatile: BTreeSet<u64>,
}

impl Target {
    fn new(window: u32) -> Self {
        Self {
            window,
            exp_cmd_sn: SerialNumber(CMD_SN),
            stat_sn: STAT_SN,
            asked: Vec::new(),
            aborts: Vec::new(),
            written: BTreeSet::new(),
            volatile: BTreeSet::new(),
        }
    }

    fn take(&mut self, mut stream: &[u8]) {
        let field = |bhs: &[u8], at: usize| u32::from_be_bytes(bhs[at..at + 4].try_into().unwrap());
        while let Some(bhs) = stream.first_chunk::<BHS_LENGTH_BYTES>() {
            let length = data_segment_length(bhs) as usize;
            if bhs[..2] == [0x42, 0x81] {
                self.aborts.push((field(bhs, 16), field(bhs, 20)));
                stream = &stream[BHS_LENGTH_BYTES..];
                continue;
            }
            assert_eq!(bhs[0], 0x01, "commands and their ends are sent");
            assert_eq!(SerialNumber(field(bhs, 24)), self.exp_cmd_sn);
            self.exp_cmd_sn = self.exp_cmd_sn.next();
            self.asked.push(Asked {
                initiator_task_tag: field(bhs, 16),
                cdb: bhs[32..].try_into().unwrap(),
                expected_bytes: field(bhs, 20),
            });
            stream = &stream[BHS_LENGTH_BYTES + length.next_multiple_of(4)..];
        }
    }

    fn run(&mut self, asked: Asked) {
        match asked.opcode() {
            opcode::WRITE_16 if asked.is_fua() => {
                self.written.extend(asked.blocks());
                self.volatile
                    .retain(|block| !asked.blocks().contains(block));
            }
            opcode::WRITE_16 | opcode::WRITE_SAME_16 => {
                self.written.extend(asked.blocks());
                self.volatile.extend(asked.blocks());
            }
            opcode::SYNCHRONIZE_CACHE_16 => self.volatile.clear(),
            opcode::READ_16 | opcode::UNMAP => {}
            other => panic!("unexpected opcode {other:#x}"),
        }
    }

    /// The PDUs that end the command.
    fn reply(&mut self, asked: Asked, reply: Reply) -> Vec<u8> {
        let is_read = asked.opcode() == opcode::READ_16;
        let moved = asked.expected_bytes - if reply == Reply::Short { 512 } else { 0 };
        let moves = matches!(reply, Reply::Good | Reply::Short) || reply == RECOVERED;
        if moves {
            self.run(asked);
        }
        let mut stream = Vec::new();
        if is_read && moves {
            let mut data_in = self.header(0x25, 0x80, asked);
            data_in[24..28].fill(0);
            stream.extend(assemble(&data_in, &vec![0; moved as usize]));
        }
        let flags = if reply == Reply::Short { 0x82 } else { 0x80 };
        let mut response = self.header(0x21, flags, asked);
        response[44..48].copy_from_slice(&(asked.expected_bytes - moved).to_be_bytes());
        let data = match reply {
            Reply::Good | Reply::Short => Vec::new(),
            Reply::Status(status) => {
                response[3] = status;
                Vec::new()
            }
            Reply::NoSense => {
                response[3] = 2;
                Vec::new()
            }
            Reply::Attention(asc, ascq) => {
                response[3] = 2;
                let sense = [0x72, 6, asc, ascq, 0, 0, 0, 0];
                [&[0, 8][..], &sense].concat()
            }
            Reply::Sense(code, key, asc) => {
                response[3] = 2;
                let ascq = u8::from(asc == 0x04);
                let sense = [
                    code, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0,
                ];
                [&[0, 18][..], &sense].concat()
            }
            Reply::Reject(reason) => {
                response = self.header(0x3f, 0x80, asked);
                response[2] = reason;
                response[16..20].fill(0xff);
                let mut refused = [0; BHS_LENGTH_BYTES];
                refused[0] = 0x01;
                refused[16..20].copy_from_slice(&asked.initiator_task_tag.to_be_bytes());
                refused.to_vec()
            }
        };
        self.stat_sn = self.stat_sn.wrapping_add(1);
        stream.extend(assemble(&response, &data));
        stream
    }

    /// The answer to the abort that waits for one, and the command that it ends.
    fn reply_to_abort(&mut self, response: u8) -> Option<(Vec<u8>, Asked)> {
        let (tag, referenced) = self.aborts.pop()?;
        let is_meant = |asked: &Asked| asked.initiator_task_tag == referenced;
        let at = self.asked.iter().position(is_meant)?;
        let asked = self.asked[at];
        if response < 2 {
            self.asked.remove(at);
        }
        let mut pdu = self.header(0x22, 0x80, asked);
        pdu[16..20].copy_from_slice(&tag.to_be_bytes());
        pdu[2] = response;
        self.stat_sn = self.stat_sn.wrapping_add(1);
        Some((pdu.to_vec(), asked))
    }

    fn header(&self, opcode: u8, flags: u8, asked: Asked) -> [u8; BHS_LENGTH_BYTES] {
        let max_cmd_sn = self.exp_cmd_sn.plus(self.window.wrapping_sub(1));
        let mut bhs = [0; BHS_LENGTH_BYTES];
        (bhs[0], bhs[1]) = (opcode, flags);
        for (at, value) in [
            (16, asked.initiator_task_tag),
            (20, RESERVED_TAG),
            (24, self.stat_sn),
            (28, self.exp_cmd_sn.0),
            (32, max_cmd_sn.0),
        ] {
            bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        bhs
    }
}

/// Table, session and target, with a clock.
struct Bench {
    requests: Requests,
    session: Session,
    target: Target,
    now_ms: u64,
}

impl Bench {
    fn new(facts: LunFacts, length: usize, window: u32) -> Self {
        Self {
            requests: Requests::new(facts, 0, length, Arc::default()),
            session: Session::new(negotiated(window), crc32c::crc32c_append, 0),
            target: Target::new(window),
            now_ms: 0,
        }
    }

    /// Room for everything.
    fn wide(facts: LunFacts) -> Self {
        Self::new(facts, 16, 64)
    }

    fn admit(&mut self, operation: BlockOperation, extents: &[Extent]) -> RequestTag {
        let tag = self.requests.next_free().unwrap();
        let admitted = self.requests.admit(operation, extents.iter().copied());
        assert_eq!(admitted, Ok(Admitted::InFlight));
        self.turn();
        tag
    }

    fn turn(&mut self) {
        self.requests.submit_to(&mut self.session, self.now_ms);
        let mut wire = Wire::default();
        self.session.transmit(&mut wire);
        self.target.take(&wire.0);
    }

    /// Lets as much time pass as the table asks for.
    fn wait(&mut self) {
        self.now_ms = self.requests.next_timeout_ms().unwrap();
        self.turn();
    }

    /// Ends the command that was asked at place `at`; what ends with it stays unreleased.
    fn answer_only(&mut self, at: usize, reply: Reply) -> Option<Completion> {
        let asked = self.target.asked.remove(at);
        let stream = self.target.reply(asked, reply);
        let (mut start, mut completion) = (0, None);
        loop {
            let (used, received) = self.session.receive(&stream[start..], 0).unwrap();
            start += used;
            match received {
                Received::NeedBytes { .. } => break,
                Received::Payload(placement) => {
                    let end = start + placement.length_bytes as usize;
                    self.session.placed(&stream[start..end]);
                    start = end;
                }
                Received::Event(event) => completion = self.event(event),
            }
        }
        assert_eq!(start, stream.len());
        self.turn();
        completion
    }

    /// Has every command of a request aborted; the target says `response` to each.
    fn abort(
        &mut self,
        request: RequestTag,
        response: u8,
    ) -> Result<Option<Completion>, AbortRefused> {
        self.session.abort(request);
        let mut completion = None;
        loop {
            self.turn();
            let Some((stream, _)) = self.target.reply_to_abort(response) else {
                return Ok(completion);
            };
            let received = self.session.receive(&stream, 0).unwrap().1;
            let Received::Event(Event::AbortDone { request, response }) = received else {
                panic!("{received:?}");
            };
            completion = self
                .requests
                .command_aborted(request, response, self.now_ms)?
                .or(completion);
        }
    }

    fn event(&mut self, event: Event) -> Option<Completion> {
        match event {
            Event::CommandDone { request, outcome } => {
                self.requests.command_done(request, &outcome, self.now_ms)
            }
            Event::CommandRejected { request, reason } => {
                self.requests.command_rejected(request, reason, self.now_ms)
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, at: usize, reply: Reply) -> Option<Completion> {
        let completion = self.answer_only(at, reply);
        if let Some(Completion { request, .. }) = completion {
            self.requests.release(request);
            self.turn();
        }
        completion
    }

    /// Answers everything with GOOD, oldest first.
    fn settle(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        for _ in 0..10_000 {
            if !self.target.asked.is_empty() {
                completions.extend(self.answer(0, Reply::Good));
            } else if self.requests.next_timeout_ms().is_some() {
                self.wait();
            } else {
                return completions;
            }
        }
        panic!("the requests never end");
    }

    /// The connection is gone; the next session is with a target that remembers the disk.
    fn lose_session(&mut self) {
        let window = self.target.window;
        self.requests.session_lost();
        self.session = Session::new(negotiated(window), crc32c::crc32c_append, 0);
        let target = Target::new(window);
        let old = core::mem::replace(&mut self.target, target);
        (self.target.written, self.target.volatile) = (old.written, old.volatile);
        self.turn();
    }

    fn opcodes(&self) -> Vec<u8> {
        self.target.asked.iter().map(Asked::opcode).collect()
    }
}

fn done(request: RequestTag) -> Option<Completion> {
    Some(Completion {
        request,
        result: Ok(()),
    })
}

fn failure(completion: Option<Completion>) -> Failure {
    completion.unwrap().result.unwrap_err()
}

#[test]
fn a_request_beyond_the_transfer_limit_is_split_and_ends_once() {
    let mut bench = Bench::wide(facts());
    let limit = u64::from(MAX_TRANSFER_BLOCKS);
    for (count, parts) in [(limit, 1), (limit + 1, 2), (3 * limit, 3)] {
        let tag = bench.admit(WRITE, &[blocks(100, count)]);
        assert_eq!(bench.target.asked.len(), parts);
        for _ in 1..parts {
            // The newest first: the order does not matter.
            let last = bench.target.asked.len() - 1;
            assert_eq!(bench.answer(last, Reply::Good), None);
        }
        assert_eq!(bench.answer(0, Reply::Good), done(tag));
        assert!((100..100 + count).all(|block| bench.target.written.contains(&block)));
    }
    assert_eq!(bench.requests.in_flight(), 0);
}

#[test]
fn a_window_that_closes_in_the_middle_of_a_request_leaves_the_rest_for_later() {
    let mut bench = Bench::new(facts(), 4, 2);
    let first = bench.admit(BlockOperation::Read, &[blocks(0, 12)]);
    let second = bench.admit(WRITE, &[blocks(50, 1)]);
    assert_eq!(bench.target.asked.len(), 2);
    assert!(bench.requests.has_backlog());
    assert_eq!(bench.answer(1, Reply::Good), None);
    assert_eq!(bench.answer(0, Reply::Good), None);
    assert!(!bench.requests.has_backlog());
    assert_eq!(bench.opcodes(), [opcode::READ_16, opcode::WRITE_16]);
    assert_eq!(bench.answer(1, Reply::Good), done(second));
    assert_eq!(bench.answer(0, Reply::Good), done(first));
}

#[test]
fn the_answers_of_the_submitted_part_do_not_end_a_request_that_has_more_to_submit() {
    let mut bench = Bench::new(facts(), 4, 1);
    let tag = bench.admit(WRITE, &[blocks(0, 12)]);
    assert_eq!(bench.answer(0, Reply::Good), None);
    assert_eq!(bench.answer(0, Reply::Good), None);
    assert_eq!(bench.answer(0, Reply::Good), done(tag));
}

#[test]
fn what_passes_by_itself_is_tried_again_and_the_guest_sees_nothing() {
    for reply in [UNIT_ATTENTION, ABORTED, Reply::Sense(0x70, 0, 0)] {
        let mut bench = Bench::wide(facts());
        let tag = bench.admit(WRITE, &[blocks(0, 1)]);
        assert_eq!(bench.answer(0, reply), None);
        assert_eq!(bench.target.asked.len(), 1, "{reply:?}: at once");
        assert_eq!(bench.answer(0, Reply::Good), done(tag));
    }
    let delayed = [
        BUSY,
        TASK_SET_FULL,
        TASK_ABORTED,
        NOT_READY_YET,
        NO_SUCH_LUN,
        Reply::NoSense,
        Reply::Reject(0x06),
        OUT_OF_RESOURCES,
    ];
    for reply in delayed {
        let mut bench = Bench::wide(facts());
        let tag = bench.admit(BlockOperation::Read, &[blocks(0, 1)]);
        assert_eq!(bench.answer(0, reply), None);
        assert_eq!(bench.requests.next_timeout_ms(), Some(RETRY_DELAY_MS));
        bench.now_ms = RETRY_DELAY_MS - 1;
        bench.turn();
        assert!(bench.target.asked.is_empty(), "{reply:?}: too early");
        bench.wait();
        assert_eq!(bench.answer(0, Reply::Good), done(tag));
    }
}

#[test]
fn a_target_that_never_stops_reporting_is_asked_at_once_a_few_times_and_then_slowly() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(BlockOperation::Read, &[blocks(0, 1)]);
    for _ in 0..MAX_IMMEDIATE_RETRIES {
        assert_eq!(bench.answer(0, UNIT_ATTENTION), None);
        assert_eq!(bench.target.asked.len(), 1);
    }
    for _ in 0..3 {
        assert_eq!(bench.answer(0, UNIT_ATTENTION), None);
        assert!(bench.target.asked.is_empty());
        bench.wait();
    }
    assert_eq!(bench.answer(0, Reply::Good), done(tag));
    // The next request of the slot may be tried again at once.
    bench.admit(BlockOperation::Read, &[blocks(0, 1)]);
    bench.answer(0, UNIT_ATTENTION);
    assert_eq!(bench.target.asked.len(), 1);
}

#[test]
fn a_part_that_is_tried_again_waits_for_the_others_of_its_request() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(WRITE, &[blocks(0, 8)]);
    assert_eq!(bench.answer(0, UNIT_ATTENTION), None);
    assert_eq!(bench.target.asked.len(), 1, "the other one is still out");
    assert_eq!(bench.answer(0, NOT_READY_YET), None);
    assert!(bench.target.asked.is_empty(), "the longer delay counts");
    bench.wait();
    assert_eq!(bench.target.asked.len(), 2);
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
}

#[test]
fn what_another_try_would_not_mend_fails_with_its_reason() {
    let short = Failure::Short {
        transferred_bytes: 512,
        expected_bytes: 1024,
    };
    for operation in [BlockOperation::Read, WRITE] {
        let answer = |reply| {
            let mut bench = Bench::wide(facts());
            bench.admit(operation, &[blocks(0, 2)]);
            let completion = bench.answer(0, reply);
            assert_eq!(bench.requests.in_flight(), 0);
            failure(completion)
        };
        assert!(matches!(answer(MEDIUM_ERROR), Failure::Sense(_)));
        assert!(matches!(answer(UNKNOWN_OPCODE), Failure::Sense(_)));
        assert!(matches!(answer(RESERVATION_CONFLICT), Failure::Status(_)));
        assert!(matches!(answer(INVALID_PDU_FIELD), Failure::Rejected(_)));
        assert_eq!(answer(Reply::Short), short);
    }
}

#[test]
fn a_recovered_error_is_success_for_every_command() {
    for operation in [BlockOperation::Read, STABLE_WRITE, ZEROES] {
        let mut bench = Bench::wide(LunFacts {
            fua: true,
            ..facts()
        });
        let tag = bench.admit(operation, &[blocks(0, 2)]);
        assert_eq!(bench.answer(0, RECOVERED), done(tag), "{operation:?}");
    }
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(BlockOperation::Flush, &[]);
    assert_eq!(bench.answer(0, RECOVERED), done(tag));
}

#[test]
fn the_first_failure_counts_and_ends_the_request_with_its_last_answer() {
    let mut bench = Bench::wide(facts());
    bench.admit(WRITE, &[blocks(0, 12)]);
    assert_eq!(bench.answer(0, RESERVATION_CONFLICT), None);
    assert_eq!(bench.answer(0, UNIT_ATTENTION), None);
    let completion = bench.answer(0, MEDIUM_ERROR);
    assert!(matches!(failure(completion), Failure::Status(_)));
    assert!(bench.target.asked.is_empty());
}

#[test]
fn a_request_that_failed_submits_nothing_more() {
    let mut bench = Bench::new(facts(), 4, 2);
    bench.admit(WRITE, &[blocks(0, 12)]);
    assert_eq!(bench.answer(0, MEDIUM_ERROR), None);
    assert_eq!(bench.target.asked.len(), 1);
    assert!(bench.answer(0, Reply::Good).is_some());
    assert!(bench.target.asked.is_empty());
    assert!(!bench.requests.has_backlog());
}

#[test]
fn refused_zeroing_falls_back_step_by_step_and_is_remembered() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(ZEROES, &[blocks(0, 8)]);
    let is_unmap = |bench: &Bench| bench.target.asked[0].cdb[1] & 0x08 != 0;
    assert!(is_unmap(&bench));
    assert_eq!(bench.answer(0, Reply::Sense(0x70, 5, 0x24)), None);
    assert_eq!(bench.opcodes(), [opcode::WRITE_SAME_16]);
    assert!(!is_unmap(&bench));
    assert_eq!(bench.answer(0, UNKNOWN_OPCODE), None);
    assert_eq!(bench.opcodes(), [opcode::WRITE_16; 2]);
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
    bench.admit(ZEROES, &[blocks(0, 8)]);
    assert_eq!(bench.opcodes(), [opcode::WRITE_16; 2]);
    let completion = [
        bench.answer(0, UNKNOWN_OPCODE),
        bench.answer(0, Reply::Good),
    ];
    assert!(matches!(failure(completion[1]), Failure::Sense(_)));
}

#[test]
fn several_refusals_of_one_way_weaken_it_once() {
    let mut bench = Bench::wide(facts());
    let tags = [
        bench.admit(ZEROES, &[blocks(0, 16)]),
        bench.admit(ZEROES, &[blocks(32, 8)]),
    ];
    assert_eq!(bench.target.asked.len(), 3);
    for _ in 0..3 {
        assert_eq!(bench.answer(0, UNKNOWN_OPCODE), None);
    }
    assert_eq!(bench.opcodes(), [opcode::WRITE_SAME_16; 3]);
    let completions = bench.settle();
    assert_eq!(completions, tags.map(|tag| done(tag).unwrap()));
}

#[test]
fn a_refused_synchronize_cache_is_not_taken_for_refused_zeroing() {
    let mut bench = Bench::wide(facts());
    bench.admit(STABLE_ZEROES, &[blocks(0, 8)]);
    assert_eq!(bench.answer(0, Reply::Good), None);
    assert_eq!(bench.opcodes(), [opcode::SYNCHRONIZE_CACHE_16]);
    let completion = bench.answer(0, UNKNOWN_OPCODE);
    assert!(matches!(failure(completion), Failure::Sense(_)));
    bench.admit(ZEROES, &[blocks(0, 8)]);
    assert_eq!(bench.opcodes(), [opcode::WRITE_SAME_16]);
}

#[test]
fn a_stable_write_has_fua_on_every_part_where_the_lun_has_it() {
    let mut bench = Bench::wide(LunFacts {
        fua: true,
        ..facts()
    });
    let tag = bench.admit(STABLE_WRITE, &[blocks(0, 8)]);
    assert!(bench.target.asked.iter().all(Asked::is_fua));
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
    assert!(bench.target.volatile.is_empty());
}

#[test]
fn a_stable_write_without_fua_ends_after_one_synchronize_cache() {
    for operation in [STABLE_WRITE, STABLE_ZEROES] {
        let mut bench = Bench::wide(facts());
        let tag = bench.admit(operation, &[blocks(0, 16)]);
        while bench.opcodes() != [opcode::SYNCHRONIZE_CACHE_16] {
            assert_eq!(bench.answer(0, Reply::Good), None);
        }
        assert_eq!(bench.answer(0, Reply::Good), done(tag));
        assert!(bench.target.volatile.is_empty() && bench.target.asked.is_empty());
    }
}

#[test]
fn a_write_whose_synchronize_cache_has_to_be_tried_again_is_written_again_too() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(STABLE_WRITE, &[blocks(0, 1)]);
    assert_eq!(bench.answer(0, Reply::Good), None);
    // A reset may have lost what the cache held.
    assert_eq!(bench.answer(0, UNIT_ATTENTION), None);
    assert_eq!(bench.opcodes(), [opcode::WRITE_16]);
    assert_eq!(bench.answer(0, Reply::Good), None);
    assert_eq!(bench.opcodes(), [opcode::SYNCHRONIZE_CACHE_16]);
    assert_eq!(bench.answer(0, Reply::Good), done(tag));
}

#[test]
fn a_volatile_write_ends_without_a_synchronize_cache() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(WRITE, &[blocks(0, 1)]);
    assert_eq!(bench.answer(0, Reply::Good), done(tag));
    assert!(bench.target.asked.is_empty());
}

#[test]
fn a_flush_of_a_write_through_disk_is_done_at_once() {
    for (write_cache, expected) in [(false, Admitted::Done), (true, Admitted::InFlight)] {
        let mut bench = Bench::wide(LunFacts {
            write_cache,
            ..facts()
        });
        let tag = bench.requests.next_free().unwrap();
        let admitted = bench.requests.admit(BlockOperation::Flush, [].into_iter());
        assert_eq!(admitted, Ok(expected));
        bench.turn();
        assert_eq!(bench.target.asked.len(), usize::from(write_cache));
        bench.requests.release(tag);
        assert_eq!(bench.requests.in_flight(), usize::from(write_cache));
    }
}

#[test]
fn the_flush_after_a_lost_write_fails_and_the_next_one_succeeds() {
    for write_cache in [true, false] {
        let mut bench = Bench::wide(LunFacts {
            write_cache,
            ..facts()
        });
        let read = bench.admit(BlockOperation::Read, &[blocks(0, 1)]);
        assert_eq!(bench.answer(0, DEFERRED_MEDIUM_ERROR), None);
        assert_eq!(bench.answer(0, Reply::Good), done(read));
        bench.lose_session();
        bench.admit(BlockOperation::Flush, &[]);
        let completion = bench.answer(0, Reply::Good);
        assert!(matches!(failure(completion), Failure::LostWrite(_)));
        let admitted = bench.requests.admit(BlockOperation::Flush, [].into_iter());
        let expected = if write_cache {
            Admitted::InFlight
        } else {
            Admitted::Done
        };
        assert_eq!(admitted, Ok(expected));
        bench.turn();
        assert!(
            bench
                .settle()
                .iter()
                .all(|completion| completion.result.is_ok())
        );
    }
}

#[test]
fn a_flush_that_is_itself_told_of_a_lost_write_fails() {
    let mut bench = Bench::wide(facts());
    bench.admit(BlockOperation::Flush, &[]);
    assert_eq!(bench.answer(0, DEFERRED_MEDIUM_ERROR), None);
    let completion = bench.answer(0, Reply::Good);
    assert!(matches!(failure(completion), Failure::LostWrite(_)));
}

#[test]
fn a_deferred_error_that_was_recovered_lost_nothing() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(BlockOperation::Flush, &[]);
    assert_eq!(bench.answer(0, DEFERRED_RECOVERED), None);
    assert_eq!(bench.answer(0, Reply::Good), done(tag));
}

#[test]
fn a_discard_of_nothing_is_done_and_one_of_much_is_split() {
    let mut bench = Bench::wide(facts());
    let tag = bench.requests.next_free().unwrap();
    let nothing = bench
        .requests
        .admit(BlockOperation::Discard, [].into_iter());
    assert_eq!(nothing, Ok(Admitted::Done));
    bench.requests.release(tag);
    let tag = bench.admit(BlockOperation::Discard, &[blocks(0, 8), blocks(64, 9)]);
    assert_eq!(bench.opcodes(), [opcode::UNMAP; 3]);
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
}

#[test]
fn a_request_that_the_disk_cannot_do_takes_no_slot() {
    let mut bench = Bench::wide(disk(512, 100));
    let free = bench.requests.next_free();
    for (operation, extent) in [
        (WRITE, blocks(100, 1)),
        (BlockOperation::Read, blocks(99, 2)),
        (BlockOperation::Discard, blocks(0, 1)),
    ] {
        let admitted = bench.requests.admit(operation, [extent].into_iter());
        assert!(admitted.is_err());
    }
    assert_eq!(bench.requests.next_free(), free);
    assert_eq!(bench.requests.in_flight(), 0);
}

#[test]
fn a_slot_is_reused_only_after_its_release() {
    let mut bench = Bench::new(facts(), 1, 8);
    let tag = bench.admit(WRITE, &[blocks(0, 1)]);
    assert_eq!(bench.requests.next_free(), None);
    let read = || [blocks(0, 1)].into_iter();
    let admitted = bench.requests.admit(BlockOperation::Read, read());
    assert_eq!(admitted, Ok(Admitted::Full));
    // A request that lives is not released by mistake.
    bench.requests.release(tag);
    assert_eq!(bench.requests.in_flight(), 1);
    assert_eq!(bench.answer_only(0, Reply::Good), done(tag));
    assert_eq!(bench.requests.next_free(), None, "ended, not released");
    bench.requests.release(tag);
    bench.requests.release(tag);
    assert_eq!(bench.requests.next_free(), Some(tag));
    assert_eq!(bench.requests.in_flight(), 0);
}

#[test]
fn a_lost_session_is_followed_by_all_that_was_in_flight_in_order_of_admission() {
    let mut bench = Bench::wide(facts());
    let early = bench.admit(BlockOperation::Read, &[blocks(0, 1)]);
    for sector in 1..6 {
        bench.admit(WRITE, &[blocks(sector * 10, 1)]);
    }
    // A slot that is used anew has a low index and yet is the newest.
    assert_eq!(bench.answer(0, Reply::Good), done(early));
    assert_eq!(bench.admit(WRITE, &[blocks(60, 1)]), early);
    // One of them waits, one has ended and waits for its release.
    assert_eq!(bench.answer(1, NOT_READY_YET), None);
    let ended = bench.answer_only(3, Reply::Good).unwrap();
    bench.lose_session();
    let sectors: Vec<u64> = bench
        .target
        .asked
        .iter()
        .map(|a| a.blocks().start)
        .collect();
    assert_eq!(sectors, [10, 20, 30, 40, 60]);
    assert_eq!(bench.requests.next_timeout_ms(), None);
    bench.requests.release(ended.request);
    assert_eq!(bench.settle().len(), 5);
    assert_eq!(bench.requests.in_flight(), 0);
}

#[test]
fn what_a_lost_session_had_half_done_is_done_from_the_beginning() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(STABLE_WRITE, &[blocks(0, 12)]);
    assert_eq!(bench.answer(0, Reply::Good), None);
    assert_eq!(bench.answer(0, MEDIUM_ERROR), None);
    // A failure that was not the last answer is forgotten with the session.
    bench.lose_session();
    assert_eq!(bench.opcodes(), [opcode::WRITE_16; 3]);
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
    assert!(bench.target.volatile.is_empty());
}

#[test]
fn an_abandoned_request_is_not_sent_again() {
    let mut bench = Bench::new(facts(), 4, 1);
    let (first, second) = (
        bench.admit(WRITE, &[blocks(0, 1)]),
        bench.admit(WRITE, &[blocks(10, 1)]),
    );
    bench.requests.session_lost();
    assert!(bench.requests.abandon(first));
    assert!(!bench.requests.abandon(first), "it has ended already");
    bench.requests.release(first);
    bench.lose_session();
    assert_eq!(bench.target.asked[0].blocks().start, 10);
    assert_eq!(bench.settle(), [done(second).unwrap()]);
}

#[test]
fn nothing_is_allocated_once_the_slots_have_seen_their_largest_request() {
    let mut bench = Bench::new(facts(), 4, 8);
    let ranges: Vec<Extent> = (0..32).map(|n| blocks(n * 10, 1)).collect();
    let capacities = |bench: &Bench| {
        let requests = &bench.requests;
        let slots = requests.slots.iter().map(|slot| slot.extents.capacity());
        let queues = [
            requests.to_submit.capacity(),
            requests.deferred.capacity(),
            requests.free.capacity(),
        ];
        slots.chain(queues).collect::<Vec<_>>()
    };
    let fill = |bench: &mut Bench| {
        for _ in 0..4 {
            bench.admit(BlockOperation::Discard, &ranges);
        }
        for _ in 0..4 {
            bench.answer(0, BUSY);
        }
        bench.lose_session();
        bench.settle();
    };
    fill(&mut bench);
    let before = capacities(&bench);
    fill(&mut bench);
    assert_eq!(capacities(&bench), before);
}

/// What the target does next to the commands that it has.
#[derive(Clone, Copy, Debug)]
enum Step {
    Admit(BlockOperation, u64),
    Answer(usize, Reply),
    /// A command is aborted; perhaps it has been carried out before.
    Abort(usize, bool),
    Wait,
    LoseSession,
}

fn operation() -> impl Strategy<Value = BlockOperation> {
    prop_oneof![
        Just(BlockOperation::Read),
        any::<bool>().prop_map(|stable| BlockOperation::Write { stable }),
        Just(BlockOperation::Flush),
        Just(BlockOperation::Discard),
        any::<(bool, bool)>()
            .prop_map(|(unmap, stable)| BlockOperation::WriteZeroes { unmap, stable }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        6 => Just(Reply::Good),
        4 => prop::sample::select(vec![
            UNIT_ATTENTION, ABORTED, RECOVERED, NOT_READY_YET, NO_SUCH_LUN, BUSY, TASK_SET_FULL,
            TASK_ABORTED, Reply::NoSense, DEFERRED_RECOVERED, OUT_OF_RESOURCES,
        ]),
        1 => prop::sample::select(vec![
            MEDIUM_ERROR, UNKNOWN_OPCODE, RESERVATION_CONFLICT, INVALID_PDU_FIELD, Reply::Short,
        ]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (operation(), 1u64..20).prop_map(|(operation, count)| Step::Admit(operation, count)),
        10 => (any::<prop::sample::Index>(), reply())
            .prop_map(|(at, reply)| Step::Answer(at.index(64), reply)),
        2 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(at, runs)| Step::Abort(at.index(64), runs)),
        1 => Just(Step::Wait),
        1 => Just(Step::LoseSession),
    ]
}

/// A request that the model expects to end.
#[derive(Clone, Debug)]
struct Expected {
    operation: BlockOperation,
    blocks: core::ops::Range<u64>,
    /// Written blocks that a flush has to make stable: those of writes done before it.
    covers: Vec<u64>,
    may_fail: bool,
}

/// The bench together with what may and must happen.
struct Model {
    bench: Bench,
    live: Vec<(RequestTag, Expected)>,
    /// Each request has blocks of its own.
    next_sector: u64,
    acknowledged: Vec<u64>,
}

impl Model {
    fn admit(&mut self, operation: BlockOperation, count: u64) {
        if self.bench.requests.next_free().is_none() {
            return;
        }
        let extent = blocks(self.next_sector, count);
        let is_flush = operation == BlockOperation::Flush;
        let extents = if is_flush { vec![] } else { vec![extent] };
        let tag = self.bench.admit(operation, &extents);
        assert!(self.live.iter().all(|(live, _)| *live != tag), "in use");
        let expected = Expected {
            operation,
            blocks: self.next_sector..self.next_sector + count,
            covers: self.acknowledged.clone(),
            may_fail: false,
        };
        self.live.push((tag, expected));
        self.next_sector += count;
    }

    fn answer(&mut self, at: usize, reply: Reply) {
        let Some(count) = core::num::NonZeroUsize::new(self.bench.target.asked.len()) else {
            return;
        };
        let at = at % count;
        let asked = self.bench.target.asked[at];
        let moves_nothing = asked.expected_bytes < 512;
        let reply = if reply == Reply::Short && moves_nothing {
            Reply::Good
        } else {
            reply
        };
        let is_fatal = reply == Reply::Short
            || [MEDIUM_ERROR, RESERVATION_CONFLICT, INVALID_PDU_FIELD].contains(&reply)
            || reply == UNKNOWN_OPCODE && asked.opcode() != opcode::WRITE_SAME_16;
        if is_fatal {
            self.expect_failure(asked);
        }
        if let Some(completion) = self.bench.answer(at, reply) {
            self.complete(completion);
        }
    }

    fn abort(&mut self, at: usize, runs: bool) {
        let Some(count) = core::num::NonZeroUsize::new(self.live.len()) else {
            return;
        };
        let request = self.live[at % count].0;
        if runs {
            // Whatever is out may have been carried out, as if its answer were on the way.
            for asked in self.bench.target.asked.clone() {
                self.bench.target.run(asked);
            }
        }
        let completion = self.bench.abort(request, u8::from(runs)).unwrap();
        if let Some(completion) = completion {
            self.bench.requests.release(completion.request);
            self.complete(completion);
            self.bench.turn();
        }
    }

    /// Some request may now fail. Whose command it is shows in its blocks; a flush has none.
    fn expect_failure(&mut self, asked: Asked) {
        for (_, expected) in &mut self.live {
            let is_his = match asked.opcode() {
                opcode::SYNCHRONIZE_CACHE_16 | opcode::UNMAP => true,
                _ => expected.blocks.contains(&asked.blocks().start),
            };
            expected.may_fail |= is_his;
        }
    }

    fn complete(&mut self, completion: Completion) {
        let at = self
            .live
            .iter()
            .position(|(tag, _)| *tag == completion.request)
            .expect("it was in flight, and ends once");
        let (_, expected) = self.live.swap_remove(at);
        if completion.result.is_err() {
            assert!(expected.may_fail, "{completion:?} of {expected:?}");
            return;
        }
        let target = &self.bench.target;
        let is_stable = |block: &u64| !target.volatile.contains(block);
        match expected.operation {
            BlockOperation::Write { stable } | BlockOperation::WriteZeroes { stable, .. } => {
                let mut range = expected.blocks.clone();
                assert!(range.all(|block| target.written.contains(&block)));
                assert!(!stable || expected.blocks.clone().all(|block| is_stable(&block)));
                self.acknowledged.extend(expected.blocks);
            }
            BlockOperation::Flush => assert!(expected.covers.iter().all(is_stable)),
            BlockOperation::Read | BlockOperation::Discard => {}
        }
    }

    fn settle(&mut self) {
        for completion in self.bench.settle() {
            self.complete(completion);
        }
        assert!(self.live.is_empty(), "{:?}", self.live);
        assert_eq!(self.bench.requests.in_flight(), 0);
        assert!(!self.bench.requests.has_backlog());
    }
}

proptest! {
    /// Every request ends exactly once, fails only when the target gave a reason, and is not
    /// called done before it is on the disk, and stable where that was asked for.
    #[test]
    fn every_request_ends_once_and_tells_the_truth(
        steps in prop::collection::vec(step(), 1..120),
        window in 1u32..6,
        length in 1usize..8,
        fua in any::<bool>(),
    ) {
        let facts = LunFacts { fua, ..facts() };
        let mut model = Model {
            bench: Bench::new(facts, length, window),
            live: Vec::new(),
            next_sector: 0,
            acknowledged: Vec::new(),
        };
        for step in steps {
            match step {
                Step::Admit(operation, count) => model.admit(operation, count),
                Step::Answer(at, reply) => model.answer(at, reply),
                Step::Abort(at, runs) => model.abort(at, runs),
                Step::Wait if model.bench.requests.next_timeout_ms().is_some() => {
                    model.bench.wait();
                }
                Step::Wait => {}
                Step::LoseSession => model.bench.lose_session(),
            }
        }
        model.settle();
    }
}

#[test]
fn nothing_is_submitted_while_the_barrier_is_raised() {
    let mut bench = Bench::wide(facts());
    let before = bench.admit(WRITE, &[blocks(0, 1)]);
    bench.requests.shared.barrier.raise(7);
    let after = bench.admit(WRITE, &[blocks(0, 1)]);
    assert_eq!(bench.target.asked.len(), 1);
    assert!(bench.requests.has_backlog());
    assert_eq!(bench.answer(0, Reply::Good), done(before));
    assert!(bench.target.asked.is_empty());
    assert!(bench.requests.shared.barrier.lower(7));
    bench.turn();
    assert_eq!(bench.answer(0, Reply::Good), done(after));
}

#[test]
fn a_request_with_commands_in_flight_is_not_abandoned_and_one_that_waits_is() {
    let mut bench = Bench::wide(facts());
    let sent = bench.admit(WRITE, &[blocks(0, 1)]);
    bench.requests.shared.barrier.raise(0);
    let waiting = bench.admit(WRITE, &[blocks(0, 1)]);
    assert!(!bench.requests.abandon(sent));
    assert!(bench.requests.abandon(waiting));
    assert!(!bench.requests.abandon(waiting));
    bench.requests.release(waiting);
    bench.requests.session_lost();
    assert!(bench.requests.abandon(sent));
}

/// A target that says that it lost its power, with the answer to a read.
fn lose_power(bench: &mut Bench) {
    let read = bench.admit(BlockOperation::Read, &[blocks(0, 1)]);
    assert_eq!(bench.answer(0, POWER_ON), None);
    assert_eq!(bench.answer(0, Reply::Good), done(read));
}

fn flush(bench: &mut Bench) -> Result<(), Failure> {
    bench.admit(BlockOperation::Flush, &[]);
    bench.answer(0, Reply::Good).unwrap().result
}

#[test]
fn the_flush_after_a_loss_of_power_fails_when_there_were_unflushed_writes() {
    let mut bench = Bench::wide(facts());
    lose_power(&mut bench);
    assert_eq!(flush(&mut bench), Ok(()));
    let write = bench.admit(WRITE, &[blocks(0, 1)]);
    assert_eq!(bench.answer(0, Reply::Good), done(write));
    lose_power(&mut bench);
    let failed = flush(&mut bench);
    assert!(matches!(failed, Err(Failure::PowerLoss(_))), "{failed:?}");
    assert_eq!(flush(&mut bench), Ok(()));
    // That flush had been told of nothing new.
    lose_power(&mut bench);
    assert_eq!(flush(&mut bench), Ok(()));
}

#[test]
fn a_flush_that_failed_leaves_the_writes_before_it_unflushed() {
    let lost_with_session = |bench: &mut Bench| bench.requests.session_lost();
    let refused = |bench: &mut Bench| {
        assert!(bench.answer(0, MEDIUM_ERROR).unwrap().result.is_err());
    };
    for end in [lost_with_session as fn(&mut Bench), refused] {
        let mut bench = Bench::wide(facts());
        let write = bench.admit(WRITE, &[blocks(0, 1)]);
        assert_eq!(bench.answer(0, Reply::Good), done(write));
        bench.admit(BlockOperation::Flush, &[]);
        end(&mut bench);
        assert!(bench.requests.shared.durability.power_lost(LOST_POWER));
    }
}

#[test]
fn only_writes_that_may_be_in_a_cache_can_be_lost_with_it() {
    let stable = BlockOperation::Write { stable: true };
    for (write_cache, operation, is_lost) in [
        (true, WRITE, true),
        (true, stable, false),
        (false, WRITE, false),
        (true, BlockOperation::Read, false),
    ] {
        let mut bench = Bench::wide(LunFacts {
            write_cache,
            fua: true,
            ..facts()
        });
        bench.admit(operation, &[blocks(0, 1)]);
        bench.settle();
        let lost = bench.requests.shared.durability.power_lost(LOST_POWER);
        assert_eq!(lost, is_lost, "{operation:?}, cache: {write_cache}");
    }
}

/// How many commands of the table that is waited for are out.
fn sent(target: &Target, from: usize) -> usize {
    target.asked.len() - from
}

#[test]
fn tables_of_one_session_leave_each_other_what_they_have_themselves() {
    const WINDOW: u32 = 64;
    let first = Requests::new(facts(), 1, 100, Arc::default()).sharing(RequestTag(0));
    let mut bench = Bench::new(facts(), 0, WINDOW);
    let mut counts = Vec::new();
    for (first_tag, mut requests) in [
        (0, first),
        (
            100,
            Requests::new(facts(), 2, 100, Arc::default()).sharing(RequestTag(100)),
        ),
    ] {
        let before = bench.target.asked.len();
        core::mem::swap(&mut bench.requests, &mut requests);
        for block in 0..100 {
            let tag = bench.admit(BlockOperation::Read, &[blocks(block, 1)]);
            assert!((first_tag..first_tag + 100).contains(&tag.0), "{tag:?}");
        }
        counts.push(sent(&bench.target, before));
        assert!(bench.requests.is_over_share(&bench.session));
    }
    assert_eq!(counts, [32, 16]);
    assert_eq!(bench.session.free_commands(), 16);
    let of_second = bench.target.asked.len() - 1;
    let completion = bench.answer(of_second, Reply::Good).unwrap();
    assert!(completion.request.0 >= 100, "{completion:?}");
    // It says that the target takes as many as at first.
    assert!(bench.requests.is_over_share(&bench.session));
    assert_eq!(bench.session.free_commands(), 39);
}

#[test]
fn a_table_that_shares_starts_again_with_its_own_tags() {
    let mut bench = Bench::wide(facts());
    bench.requests = Requests::new(facts(), 1, 8, Arc::default()).sharing(RequestTag(800));
    let write = bench.admit(WRITE, &[blocks(0, 1)]);
    let read = bench.admit(BlockOperation::Read, &[blocks(1, 1)]);
    bench.lose_session();
    assert_eq!((write.0, read.0), (800, 801));
    assert_eq!(bench.answer(0, Reply::Good), done(write));
    assert_eq!(bench.answer(0, Reply::Good), done(read));
    assert_eq!(bench.requests.in_flight(), 0);
}
