//! The session against hand-made PDUs of a target.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of tests are small"
)]

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::error::Misbehaviour;
use crate::login::negotiated::example;
use crate::pdu::{BHS_LENGTH_BYTES, Bhs, RESERVED_TAG};
use crate::scsi::command::ScsiData;

mod late;

const READ_4K: ScsiData = ScsiData::In {
    offset_bytes: 0,
    length_bytes: 4096,
};
const CMD_SN: u32 = 10;
const STAT_SN: u32 = 100;

fn session_with(change: impl FnOnce(&mut Negotiated)) -> Session {
    let mut negotiated = example(SerialNumber(CMD_SN), SerialNumber(STAT_SN));
    negotiated.target_max_recv_data_segment_length_bytes = 1024;
    negotiated.max_burst_length_bytes = 4096;
    negotiated.first_burst_length_bytes = 2048;
    negotiated.max_outstanding_r2t = 2;
    negotiated.max_cmd_sn = SerialNumber(CMD_SN + 31);
    change(&mut negotiated);
    Session::new(negotiated, crc32c::crc32c_append, 0)
}

fn session() -> Session {
    session_with(|_| {})
}

fn command(request: u32, data: ScsiData) -> Command {
    Command {
        request: RequestTag(request),
        lun: 0,
        scsi: ScsiCommand { cdb: [0; 16], data },
    }
}

/// A sink that keeps the stream; byte `n` of request `r` is `r + n`.
#[derive(Default)]
struct Wire {
    stream: Vec<u8>,
    room: Option<usize>,
}

fn buffer(request: RequestTag, offset: u32, length: u32) -> impl Iterator<Item = u8> {
    (offset..offset + length).map(move |n| request.0.wrapping_add(n) as u8)
}

impl Transmit for Wire {
    fn has_room(&self) -> bool {
        self.room.is_none_or(|room| self.stream.len() < room)
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.stream.extend(bytes);
    }
    fn zeros(&mut self, length_bytes: u32) {
        self.stream
            .resize(self.stream.len() + length_bytes as usize, 0);
    }
    fn payload(&mut self, request: RequestTag, offset_bytes: u32, length_bytes: u32) {
        self.stream
            .extend(buffer(request, offset_bytes, length_bytes));
    }
    fn payload_with_digest(
        &mut self,
        request: RequestTag,
        offset_bytes: u32,
        length_bytes: u32,
        crc32c: Crc32c,
    ) -> u32 {
        let bytes: Vec<u8> = buffer(request, offset_bytes, length_bytes).collect();
        self.stream.extend(&bytes);
        crc32c(0, &bytes)
    }
}

/// A PDU of ours, taken from the wire (no digests).
#[derive(Debug, PartialEq)]
struct Sent {
    bhs: Bhs,
    data: Vec<u8>,
}

impl Sent {
    fn field(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bhs[at..at + 4].try_into().unwrap())
    }
}

fn transmit(session: &mut Session) -> Vec<Sent> {
    let mut wire = Wire::default();
    session.transmit(&mut wire);
    parse(&wire.stream)
}

fn parse(mut stream: &[u8]) -> Vec<Sent> {
    let mut pdus = Vec::new();
    while let Some(bhs) = stream.first_chunk::<BHS_LENGTH_BYTES>() {
        let length = crate::pdu::data_segment_length(bhs) as usize;
        let data = stream[48..48 + length].to_vec();
        pdus.push(Sent { bhs: *bhs, data });
        stream = &stream[48 + length.next_multiple_of(4)..];
    }
    assert!(stream.is_empty());
    pdus
}

/// Builds a PDU of the target.
struct Pdu {
    bhs: Bhs,
    data: Vec<u8>,
}

impl Pdu {
    fn new(opcode: u8, flags: u8) -> Self {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        (bhs[0], bhs[1]) = (opcode, flags);
        Self {
            bhs,
            data: Vec::new(),
        }
        .put(28, CMD_SN)
        .put(32, CMD_SN + 31)
    }
    fn put(mut self, at: usize, value: u32) -> Self {
        self.bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }
    fn byte(mut self, at: usize, value: u8) -> Self {
        self.bhs[at] = value;
        self
    }
    fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }
    fn bytes(self) -> Vec<u8> {
        crate::pdu::assemble(&self.bhs, &self.data)
    }
}

fn data_in(itt: u32, data_sn: u32, offset: u32, data: &[u8]) -> Pdu {
    Pdu::new(0x25, 0x80)
        .put(16, itt)
        .put(20, RESERVED_TAG)
        .put(36, data_sn)
        .put(40, offset)
        .data(data)
}

fn data_in_with_status(itt: u32, stat_sn: u32, data_sn: u32, offset: u32, data: &[u8]) -> Pdu {
    data_in(itt, data_sn, offset, data)
        .byte(1, 0x81)
        .put(24, stat_sn)
}

fn response(itt: u32, stat_sn: u32, status: u8) -> Pdu {
    Pdu::new(0x21, 0x80)
        .put(16, itt)
        .put(24, stat_sn)
        .byte(3, status)
}

fn r2t(itt: u32, ttt: u32, r2t_sn: u32, offset: u32, length: u32) -> Pdu {
    Pdu::new(0x31, 0x80)
        .put(16, itt)
        .put(20, ttt)
        .put(24, STAT_SN)
        .put(36, r2t_sn)
        .put(40, offset)
        .put(44, length)
}

/// Everything that a stream brought: events, and what was placed where.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<Event>,
    placed: Vec<(u32, u32, Vec<u8>)>,
}

/// Feeds `stream` in pieces of `piece` bytes.
fn feed(session: &mut Session, stream: &[u8], piece: usize) -> Result<Seen, SessionError> {
    let mut seen = Seen::default();
    let (mut start, mut end) = (0, 0);
    loop {
        let (used, received) = session.receive(&stream[start..end], 0)?;
        start += used;
        match received {
            Received::Event(event) => seen.events.push(event),
            Received::Payload(placement) if start < end => {
                let length = (placement.length_bytes as usize).min(end - start);
                let bytes = &stream[start..start + length];
                session.placed(bytes);
                seen.note(placement, bytes);
                start += length;
            }
            Received::NeedBytes { .. } | Received::Payload(_) if end == stream.len() => {
                return Ok(seen);
            }
            Received::NeedBytes { at_least } => {
                assert!(at_least > end - start, "asked for what it has");
                end = stream.len().min(end + piece);
            }
            Received::Payload(_) => end = stream.len().min(end + piece),
        }
    }
}

impl Seen {
    /// Joins placements that follow each other, so that fragmentation does not show.
    fn note(&mut self, placement: Placement, bytes: &[u8]) {
        let (request, offset) = (placement.request.0, placement.offset_bytes);
        match self.placed.last_mut() {
            Some((r, o, data)) if *r == request && *o as usize + data.len() == offset as usize => {
                data.extend(bytes);
            }
            _ => self.placed.push((request, offset, bytes.to_vec())),
        }
    }
}

/// A session with one command sent, and the tag of that.
fn sent(mut session: Session, data: ScsiData) -> (Session, u32) {
    session.submit(command(7, data), 0).unwrap();
    let itt = transmit(&mut session)[0].field(16);
    (session, itt)
}

fn misbehaviour(session: &mut Session, pdus: Vec<Pdu>) -> Misbehaviour {
    let stream: Vec<u8> = pdus.into_iter().flat_map(Pdu::bytes).collect();
    match feed(session, &stream, usize::MAX / 2) {
        Err(SessionError::TargetMisbehaved(misbehaviour)) => misbehaviour,
        other => panic!("{other:?}"),
    }
}

fn good(request: u32, transferred_bytes: u32) -> Event {
    good_of(request, transferred_bytes, transferred_bytes)
}

fn good_of(request: u32, transferred_bytes: u32, expected_bytes: u32) -> Event {
    Event::CommandDone {
        request: RequestTag(request),
        outcome: Outcome {
            response: Response::Completed,
            status: 0,
            transferred_bytes,
            expected_bytes,
            sense: SenseData::EMPTY,
        },
    }
}

#[test]
fn commands_go_out_in_order_each_with_the_next_cmd_sn() {
    let mut session = session();
    for request in 0..3 {
        session.submit(command(request, ScsiData::None), 0).unwrap();
    }
    let pdus = transmit(&mut session);
    let numbers: Vec<u32> = pdus.iter().map(|pdu| pdu.field(24)).collect();
    assert_eq!(numbers, [CMD_SN, CMD_SN + 1, CMD_SN + 2]);
    assert!(pdus.iter().all(|pdu| pdu.field(28) == STAT_SN));
}

#[test]
fn a_closed_window_takes_nothing_until_the_target_opens_it() {
    let mut session = session_with(|n| n.max_cmd_sn = SerialNumber(CMD_SN));
    session.submit(command(1, ScsiData::None), 0).unwrap();
    assert_eq!(
        session.submit(command(2, ScsiData::None), 0),
        Err(SubmitError::WindowClosed)
    );
    let itt = transmit(&mut session)[0].field(16);
    let stream = response(itt, STAT_SN, 0)
        .put(28, CMD_SN + 1)
        .put(32, CMD_SN + 1)
        .bytes();
    assert_eq!(feed(&mut session, &stream, 9).unwrap().events, [good(1, 0)]);
    session.submit(command(2, ScsiData::None), 0).unwrap();
}

#[test]
fn the_task_table_is_a_bound() {
    let mut session = session_with(|n| n.max_cmd_sn = SerialNumber(CMD_SN + 10_000));
    for request in 0..MAX_TASKS {
        session
            .submit(command(request as u32, ScsiData::None), 0)
            .unwrap();
    }
    assert_eq!(
        session.submit(command(0, ScsiData::None), 0),
        Err(SubmitError::TableFull)
    );
}

#[test]
fn any_fragmentation_gives_the_same_events_and_placements() {
    let payload: Vec<u8> = (0..4096u32).map(|n| (n * 7) as u8).collect();
    let run = |piece: usize| {
        let (mut session, first) = sent(session(), READ_4K);
        session
            .submit(
                command(
                    8,
                    ScsiData::In {
                        offset_bytes: 512,
                        length_bytes: 6,
                    },
                ),
                0,
            )
            .unwrap();
        let second = transmit(&mut session)[0].field(16);
        let mut stream = data_in(first, 0, 0, &payload[..1000]).bytes();
        stream.extend(data_in_with_status(second, STAT_SN, 0, 0, &payload[..6]).bytes());
        stream.extend(data_in(first, 1, 1000, &payload[1000..]).bytes());
        stream.extend(response(first, STAT_SN + 1, 0).bytes());
        feed(&mut session, &stream, piece).unwrap()
    };
    let whole = run(usize::MAX / 2);
    assert_eq!(whole.events, [good(8, 6), good(7, 4096)]);
    assert_eq!(whole.placed[0], (7, 0, payload[..1000].to_vec()));
    assert_eq!(whole.placed[1], (8, 512, payload[..6].to_vec()));
    assert_eq!(whole.placed[2], (7, 1000, payload[1000..].to_vec()));
    for piece in 1..300 {
        assert_eq!(run(piece), whole, "pieces of {piece}");
    }
}

#[test]
fn unsolicited_data_follows_its_command_as_agreed() {
    // (ImmediateData, InitialR2T) -> the data lengths of the PDUs that go out at once
    for (immediate_data, initial_r2t, expected) in [
        (false, true, vec![0]),
        (true, true, vec![1024]),
        (false, false, vec![0, 1024, 1024]),
        (true, false, vec![1024, 1024]),
    ] {
        let mut session = session_with(|n| {
            n.immediate_data = immediate_data;
            n.initial_r2t = initial_r2t;
        });
        session
            .submit(
                command(
                    7,
                    ScsiData::Out {
                        offset_bytes: 0,
                        length_bytes: 4096,
                    },
                ),
                0,
            )
            .unwrap();
        let pdus = transmit(&mut session);
        let lengths: Vec<usize> = pdus.iter().map(|pdu| pdu.data.len()).collect();
        assert_eq!(lengths, expected);
        let finals: Vec<bool> = pdus.iter().map(|pdu| pdu.bhs[1] & 0x80 != 0).collect();
        assert_eq!(
            finals.iter().position(|f| *f),
            Some(pdus.len() - 1),
            "F at the end only"
        );
        let data: Vec<u8> = pdus.iter().flat_map(|pdu| pdu.data.clone()).collect();
        assert_eq!(
            data,
            buffer(RequestTag(7), 0, data.len() as u32).collect::<Vec<_>>()
        );
    }
}

#[test]
fn several_r2ts_are_served_in_order_with_their_own_numbers() {
    let write = ScsiData::Out {
        offset_bytes: 100,
        length_bytes: 4000,
    };
    let (mut session, itt) = sent(session(), write);
    let mut stream = r2t(itt, 0xa, 0, 0, 2500).bytes();
    stream.extend(r2t(itt, 0xb, 1, 2500, 1500).bytes());
    feed(&mut session, &stream, 17).unwrap();
    let pdus = transmit(&mut session);
    let told: Vec<(u32, u32, u32, bool)> = pdus
        .iter()
        .map(|pdu| {
            (
                pdu.field(20),
                pdu.field(36),
                pdu.field(40),
                pdu.bhs[1] == 0x80,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (0xa, 0, 0, false),
            (0xa, 1, 1024, false),
            (0xa, 2, 2048, true),
            (0xb, 0, 2500, false),
            (0xb, 1, 3524, true),
        ]
    );
    let data: Vec<u8> = pdus.iter().flat_map(|pdu| pdu.data.clone()).collect();
    assert_eq!(data, buffer(RequestTag(7), 100, 4000).collect::<Vec<_>>());
    // An R2T does not consume the StatSN: the response carries the same one.
    let stream = response(itt, STAT_SN, 0).bytes();
    assert_eq!(
        feed(&mut session, &stream, 48).unwrap().events,
        [good(7, 4000)]
    );
}

#[test]
fn a_full_sink_stops_between_pdus_and_nothing_is_lost() {
    let write = ScsiData::Out {
        offset_bytes: 0,
        length_bytes: 4096,
    };
    let (mut session, itt) = sent(session(), write);
    feed(&mut session, &r2t(itt, 0xa, 0, 0, 4096).bytes(), 48).unwrap();
    let mut stream = Vec::new();
    while session.wants_transmit() {
        let mut wire = Wire {
            room: Some(1),
            ..Wire::default()
        };
        session.transmit(&mut wire);
        assert_eq!(parse(&wire.stream).len(), 1);
        stream.extend(wire.stream);
    }
    let data: Vec<u8> = parse(&stream)
        .into_iter()
        .flat_map(|pdu| pdu.data)
        .collect();
    assert_eq!(data, buffer(RequestTag(7), 0, 4096).collect::<Vec<_>>());
}

#[test]
fn zeros_and_parameters_are_sent_without_a_buffer() {
    for (data, expected) in [
        (ScsiData::Zeros { length_bytes: 512 }, vec![0; 512]),
        (ScsiData::Parameters { bytes: [9; 24] }, vec![9; 24]),
    ] {
        let mut session = session_with(|n| n.immediate_data = true);
        session.submit(command(1, data), 0).unwrap();
        assert_eq!(transmit(&mut session)[0].data, expected);
    }
}

#[test]
fn digests_cover_what_is_sent() {
    let mut session = session_with(|n| {
        (n.header_digest, n.data_digest, n.immediate_data) = (true, true, true);
    });
    for data in [
        ScsiData::Out {
            offset_bytes: 3,
            length_bytes: 511,
        },
        ScsiData::Zeros { length_bytes: 1000 },
        ScsiData::Parameters { bytes: [9; 24] },
    ] {
        session.submit(command(1, data), 0).unwrap();
        let mut wire = Wire::default();
        session.transmit(&mut wire);
        let (header, rest) = wire.stream.split_at(48);
        let (header_digest, rest) = rest.split_at(4);
        let (padded, data_digest) = rest.split_at(rest.len() - 4);
        assert_eq!(header_digest, crc32c::crc32c(header).to_le_bytes());
        assert_eq!(data_digest, crc32c::crc32c(padded).to_le_bytes());
        assert_eq!(
            padded.len(),
            data.length_bytes().next_multiple_of(4) as usize
        );
    }
}

#[test]
fn sense_data_comes_with_its_check_condition() {
    let (mut session, itt) = sent(session(), READ_4K);
    let stream = response(itt, STAT_SN, 2)
        .data(&[0, 3, 0x70, 0, 6, 9])
        .bytes();
    let seen = feed(&mut session, &stream, 50).unwrap();
    let [Event::CommandDone { outcome, .. }] = seen.events[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (outcome.status, outcome.sense.as_bytes()),
        (2, &[0x70, 0, 6][..])
    );
}

#[test]
fn a_read_is_good_only_when_all_of_it_arrived() {
    let (mut session, itt) = sent(session(), READ_4K);
    let pdus = vec![data_in(itt, 0, 0, &[1; 512]), response(itt, STAT_SN, 0)];
    assert!(matches!(
        misbehaviour(&mut session, pdus),
        Misbehaviour::Residual { .. }
    ));
    let (mut session, itt) = sent(self::session(), READ_4K);
    let underflow = response(itt, STAT_SN, 0).byte(1, 0x82).put(44, 4096 - 512);
    let mut stream = data_in(itt, 0, 0, &[1; 512]).bytes();
    stream.extend(underflow.bytes());
    assert_eq!(
        feed(&mut session, &stream, 99).unwrap().events,
        [good_of(7, 512, 4096)]
    );
}

#[test]
fn a_residual_larger_than_the_transfer_is_refused() {
    let (mut session, itt) = sent(session(), READ_4K);
    let pdu = response(itt, STAT_SN, 0).byte(1, 0x82).put(44, 4097);
    assert!(matches!(
        misbehaviour(&mut session, vec![pdu]),
        Misbehaviour::Residual { .. }
    ));
}

#[test]
fn data_in_beyond_the_buffer_is_refused_before_a_byte_is_placed() {
    for (offset, length) in [(0, 4097), (4096, 1), (u32::MAX, 1), (u32::MAX - 1, 4)] {
        let (mut session, itt) = sent(session(), READ_4K);
        let pdu = data_in(itt, 0, offset, &vec![0; length]);
        assert!(matches!(
            misbehaviour(&mut session, vec![pdu]),
            Misbehaviour::BeyondBuffer { .. }
        ));
    }
}

#[test]
fn data_in_out_of_order_is_refused() {
    let (mut session, itt) = sent(session(), READ_4K);
    let pdu = data_in(itt, 0, 512, &[0; 512]);
    assert!(matches!(
        misbehaviour(&mut session, vec![pdu]),
        Misbehaviour::OutOfOrder { .. }
    ));
    let (mut session, itt) = sent(self::session(), READ_4K);
    let pdu = data_in(itt, 1, 0, &[0; 512]);
    assert!(matches!(
        misbehaviour(&mut session, vec![pdu]),
        Misbehaviour::DataSn { .. }
    ));
}

#[test]
fn data_in_for_a_write_and_r2t_for_a_read_are_refused() {
    let (mut session, itt) = sent(session(), ScsiData::Zeros { length_bytes: 512 });
    let pdu = data_in(itt, 0, 0, &[0; 512]);
    assert!(matches!(
        misbehaviour(&mut session, vec![pdu]),
        Misbehaviour::WrongDirection { .. }
    ));
    let (mut session, itt) = sent(self::session(), READ_4K);
    let pdu = r2t(itt, 1, 0, 0, 512);
    assert!(matches!(
        misbehaviour(&mut session, vec![pdu]),
        Misbehaviour::WrongDirection { .. }
    ));
}

#[test]
fn r2ts_are_held_to_what_was_agreed() {
    let write = ScsiData::Out {
        offset_bytes: 0,
        length_bytes: 16384,
    };
    let refused = |pdus: &dyn Fn(u32) -> Vec<Pdu>| {
        let (mut session, itt) = sent(session(), write);
        misbehaviour(&mut session, pdus(itt))
    };
    let too_long = refused(&|itt| vec![r2t(itt, 1, 0, 0, 4097)]);
    assert_eq!(
        too_long,
        Misbehaviour::R2tTooLong {
            length: 4097,
            max_burst_length_bytes: 4096
        }
    );
    let too_many = refused(&|itt| (0..3).map(|n| r2t(itt, n, n, n * 512, 512)).collect());
    assert_eq!(too_many, Misbehaviour::TooManyR2ts { agreed: 2 });
    let beyond = refused(&|itt| vec![r2t(itt, 1, 0, 16384, 1)]);
    assert!(matches!(beyond, Misbehaviour::BeyondBuffer { .. }));
    let skipped = refused(&|itt| vec![r2t(itt, 1, 0, 512, 512)]);
    assert!(matches!(skipped, Misbehaviour::OutOfOrder { .. }));
    let numbered = refused(&|itt| vec![r2t(itt, 1, 1, 0, 512)]);
    assert!(matches!(numbered, Misbehaviour::DataSn { .. }));
}

#[test]
fn a_tag_of_an_earlier_task_is_not_taken_for_its_successor() {
    let (mut session, first) = sent(session(), ScsiData::None);
    feed(&mut session, &response(first, STAT_SN, 0).bytes(), 48).unwrap();
    let (mut session, second) = sent(session, ScsiData::None);
    assert_ne!(first, second);
    let late = misbehaviour(&mut session, vec![response(first, STAT_SN + 1, 0)]);
    assert!(matches!(late, Misbehaviour::UnknownTask { .. }));
}

#[test]
fn a_stat_sn_that_is_not_the_next_one_ends_the_session() {
    for stat_sn in [STAT_SN - 1, STAT_SN + 1] {
        let (mut session, itt) = sent(session(), ScsiData::None);
        let got = misbehaviour(&mut session, vec![response(itt, stat_sn, 0)]);
        assert!(matches!(got, Misbehaviour::StatSn { .. }));
    }
}

#[test]
fn a_ping_of_the_target_is_answered_with_its_tag() {
    let mut session = session();
    let ping = Pdu::new(0x20, 0x80)
        .put(8, 0x0001_0000)
        .put(16, RESERVED_TAG)
        .put(20, 0x77);
    feed(&mut session, &ping.data(b"ping").bytes(), 48).unwrap();
    let pdus = transmit(&mut session);
    assert_eq!(pdus.len(), 1);
    assert_eq!((pdus[0].bhs[0], pdus[0].field(8)), (0x40, 0x0001_0000));
    assert_eq!((pdus[0].field(16), pdus[0].field(20)), (RESERVED_TAG, 0x77));
}

#[test]
fn a_flood_of_pings_is_named_and_does_not_grow_us() {
    let mut session = session();
    let ping = Pdu::new(0x20, 0x80)
        .put(16, RESERVED_TAG)
        .put(20, 1)
        .bytes();
    let stream: Vec<u8> = ping.repeat(crate::limits::MAX_QUEUED_NOP_ANSWERS);
    feed(&mut session, &stream, 480).unwrap();
    let flood = feed(&mut session, &ping, 48);
    assert_eq!(
        flood,
        Err(SessionError::TargetMisbehaved(Misbehaviour::PingFlood))
    );
}

#[test]
fn our_ping_goes_out_after_silence_and_its_answer_is_taken() {
    let mut session = session();
    assert!(!session.wants_transmit());
    session.handle_timeout(session.next_timeout_ms()).unwrap();
    let pdus = transmit(&mut session);
    assert_eq!((pdus[0].bhs[0], pdus[0].field(20)), (0x40, RESERVED_TAG));
    let answer = Pdu::new(0x20, 0x80)
        .put(16, pdus[0].field(16))
        .put(20, RESERVED_TAG);
    feed(&mut session, &answer.put(24, STAT_SN).bytes(), 48).unwrap();
    // The answer took a StatSN, and no answer to it goes out.
    assert!(!session.wants_transmit());
    let (mut session, itt) = sent(session, ScsiData::None);
    feed(&mut session, &response(itt, STAT_SN + 1, 0).bytes(), 48).unwrap();
}

#[test]
fn the_late_answer_of_an_aborted_task_is_dropped() {
    let (mut session, itt) = sent(session(), READ_4K);
    assert_eq!(session.abort(RequestTag(7)), 1);
    let pdus = transmit(&mut session);
    assert_eq!(
        (pdus[0].bhs[..2].to_vec(), pdus[0].field(20)),
        (vec![0x42, 0x81], itt)
    );
    assert_eq!(pdus[0].field(32), CMD_SN);
    let mut stream = data_in_with_status(itt, STAT_SN, 0, 0, &[1; 4096]).bytes();
    let done = Pdu::new(0x22, 0x80)
        .byte(2, 1)
        .put(16, pdus[0].field(16))
        .put(24, STAT_SN + 1);
    stream.extend(done.bytes());
    let seen = feed(&mut session, &stream, 1000).unwrap();
    assert!(seen.placed.is_empty());
    let response = FunctionResponse::TaskDoesNotExist;
    assert_eq!(
        seen.events,
        [Event::AbortDone {
            request: RequestTag(7),
            response
        }]
    );
    assert_eq!(session.tasks_in_flight(), 0);
}

#[test]
fn after_a_logout_nothing_is_taken_and_its_answer_is_reported() {
    let mut session = session();
    session.log_out();
    assert_eq!(
        session.submit(command(1, ScsiData::None), 0),
        Err(SubmitError::Closing)
    );
    let itt = transmit(&mut session)[0].field(16);
    let answer = Pdu::new(0x26, 0x80)
        .put(16, itt)
        .put(24, STAT_SN)
        .put(40, 2 << 16);
    let seen = feed(&mut session, &answer.bytes(), 48).unwrap();
    assert_eq!(
        seen.events,
        [Event::LoggedOut {
            response: 0,
            time2wait_s: 2
        }]
    );
}

#[test]
fn a_logout_response_that_was_not_asked_for_is_refused() {
    let pdu = Pdu::new(0x26, 0x80)
        .put(16, outbound::LOGOUT_TAG)
        .put(24, STAT_SN);
    let got = misbehaviour(&mut session(), vec![pdu]);
    assert_eq!(
        got,
        Misbehaviour::Unexpected {
            pdu: "Logout Response"
        }
    );
}

#[test]
fn a_rejected_command_is_over_and_a_rejected_data_out_ends_the_session() {
    let (mut session, itt) = sent(session(), ScsiData::Zeros { length_bytes: 512 });
    let refused = |opcode| Pdu::new(opcode, 0x80).put(16, itt).bytes();
    let reject = |header: &[u8], stat_sn| {
        Pdu::new(0x3f, 0x80)
            .byte(2, 9)
            .put(16, RESERVED_TAG)
            .put(24, stat_sn)
            .data(header)
    };
    let stream = reject(&refused(0x40), STAT_SN).bytes();
    let seen = feed(&mut session, &stream, 10).unwrap();
    assert_eq!(seen.events, [Event::Rejected(RejectReason(9))]);
    let stream = reject(&refused(0x05), STAT_SN + 1).bytes();
    let ended = feed(&mut session, &stream, 10);
    assert_eq!(ended, Err(SessionError::TargetRefused(RejectReason(9))));
    let (mut session, itt) = sent(self::session(), READ_4K);
    let stream = reject(&Pdu::new(0x01, 0x80).put(16, itt).bytes(), STAT_SN).bytes();
    let seen = feed(&mut session, &stream, 10).unwrap();
    let reason = RejectReason(9);
    assert_eq!(
        seen.events,
        [Event::CommandRejected {
            request: RequestTag(7),
            reason
        }]
    );
}

#[test]
fn pdus_of_other_phases_and_of_initiators_are_refused() {
    for opcode in [0x23, 0x24, 0x00, 0x01, 0x3e] {
        feed(&mut session(), &Pdu::new(opcode, 0x80).bytes(), 48).unwrap_err();
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a target sends, the session answers with events or a named error.
        #[test]
        fn arbitrary_bytes_never_panic(
            mut stream in proptest::collection::vec(any::<u8>(), 0..2000),
            opcodes in proptest::collection::vec(
                proptest::sample::select(vec![0x20u8, 0x21, 0x22, 0x25, 0x26, 0x31, 0x32, 0x3f]),
                1..20,
            ),
            piece in 1usize..200,
        ) {
            let (mut session, itt) = sent(session(), READ_4K);
            for (at, opcode) in opcodes.into_iter().enumerate() {
                let start = at * 96;
                if let Some(header) = stream.get_mut(start..start + 48) {
                    header[0] = opcode;
                    header[4..8].copy_from_slice(&[0, 0, 0, 48]);
                    header[16..20].copy_from_slice(&itt.to_be_bytes());
                }
            }
            let _ = feed(&mut session, &stream, piece);
        }
    }
}

const WRITE_4K: ScsiData = ScsiData::Out {
    offset_bytes: 0,
    length_bytes: 4096,
};

/// What the target says was moved when the command did not simply succeed.
fn moved(data: ScsiData, pdus: impl FnOnce(u32) -> Vec<Pdu>) -> u32 {
    let (mut session, itt) = sent(session(), data);
    let stream: Vec<u8> = pdus(itt).into_iter().flat_map(Pdu::bytes).collect();
    let seen = feed(&mut session, &stream, 100).unwrap();
    let [Event::CommandDone { outcome, .. }] = seen.events[..] else {
        panic!("{seen:?}")
    };
    outcome.transferred_bytes
}

#[test]
fn a_check_condition_tells_how_much_was_moved() {
    let failed = |itt, stat_sn| response(itt, stat_sn, 2);
    let half = |itt| failed(itt, STAT_SN).byte(1, 0x82).put(44, 2048);
    assert_eq!(moved(WRITE_4K, |itt| vec![failed(itt, STAT_SN)]), 4096);
    assert_eq!(moved(WRITE_4K, |itt| vec![half(itt)]), 2048);
    assert_eq!(moved(READ_4K, |itt| vec![failed(itt, STAT_SN)]), 0);
    assert_eq!(
        moved(READ_4K, |itt| {
            vec![data_in(itt, 0, 0, &[1; 512]), half(itt)]
        }),
        512
    );
}

#[test]
fn an_answer_to_a_command_that_was_not_sent_is_refused() {
    let answers = |itt| {
        [
            response(itt, STAT_SN, 0),
            data_in_with_status(itt, STAT_SN, 0, 0, &[1; 4096]),
            r2t(itt, 1, 0, 0, 512),
        ]
    };
    let (probe, itt) = sent(session(), READ_4K);
    drop(probe);
    for answer in answers(itt) {
        let mut session = session();
        session.submit(command(7, READ_4K), 0).unwrap();
        let got = misbehaviour(&mut session, vec![answer]);
        assert!(matches!(got, Misbehaviour::UnknownTask { .. }), "{got:?}");
    }
}

#[test]
fn an_abort_that_was_not_asked_for_cannot_be_answered() {
    let (mut session, itt) = sent(session(), READ_4K);
    let done = Pdu::new(0x22, 0x80)
        .put(16, itt | outbound::ABORT_BIT)
        .put(24, STAT_SN);
    let got = misbehaviour(&mut session, vec![done]);
    assert!(matches!(got, Misbehaviour::UnknownTask { .. }), "{got:?}");
    assert_eq!(session.tasks_in_flight(), 1);
}

#[test]
fn what_waits_for_an_ended_task_is_not_sent_for_its_successor() {
    let (mut session, itt) = sent(session(), WRITE_4K);
    feed(&mut session, &r2t(itt, 9, 0, 0, 4096).bytes(), 48).unwrap();
    session.abort(RequestTag(7));
    feed(&mut session, &response(itt, STAT_SN, 8).bytes(), 48).unwrap();
    session.submit(command(8, WRITE_4K), 0).unwrap();
    let pdus = transmit(&mut session);
    assert_eq!(pdus.len(), 1, "{pdus:?}");
    assert_eq!(pdus[0].bhs[0] & 0x3f, 0x01);
    assert_ne!(pdus[0].field(16), itt);
}

#[test]
fn one_ping_waits_for_a_blocked_socket_however_long_that_takes() {
    let mut session = session();
    let stream = Pdu::new(0x20, 0x80)
        .put(16, RESERVED_TAG)
        .put(20, RESERVED_TAG)
        .bytes();
    for _ in 0..10 {
        let now_ms = session.next_timeout_ms();
        session.handle_timeout(now_ms).unwrap();
        // The target talks, but it does not read.
        session.receive(&stream, now_ms).unwrap();
    }
    assert_eq!(session.outbox.len(), 1);
    assert_eq!(transmit(&mut session).len(), 1);
    session.handle_timeout(session.next_timeout_ms()).unwrap();
    assert_eq!(transmit(&mut session).len(), 1);
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    /// PDUs of every kind with fields that are often nearly right.
    fn pdu() -> impl Strategy<Value = Vec<u8>> {
        let opcode = prop::sample::select(vec![0x20u8, 0x21, 0x22, 0x25, 0x26, 0x31, 0x32, 0x3f]);
        let tag = prop::sample::select(vec![
            0x0001_0000,
            0x0001_0001,
            0x4001_0000,
            RESERVED_TAG,
            outbound::PING_TAG,
            outbound::LOGOUT_TAG,
            outbound::RESET_TAG,
        ]);
        let small = prop::sample::select(vec![0u32, 1, 512, 1024, 4096, u32::MAX]);
        let flags = prop::sample::select(vec![0u8, 0x80, 0x81, 0x82, 0x83, 0x84]);
        let data = prop::collection::vec(any::<u8>(), 0..1200);
        (
            opcode,
            flags,
            tag,
            small.clone(),
            small.clone(),
            small,
            0u32..4,
            data,
        )
            .prop_map(|(opcode, flags, itt, ttt, offset, length, number, data)| {
                let data = if opcode == 0x31 { Vec::new() } else { data };
                Pdu::new(opcode, flags)
                    .put(16, itt)
                    .put(20, ttt)
                    .put(24, STAT_SN + number)
                    .put(36, number)
                    .put(40, offset)
                    .put(44, length)
                    .data(&data)
                    .bytes()
            })
    }

    proptest! {
        /// Whatever a target sends: no panic, each command ends at most once, no byte is placed
        /// outside the data of a living read, and what waits to be sent stays bounded.
        #[test]
        fn a_target_can_only_end_the_session(
            pdus in prop::collection::vec(pdu(), 1..12),
            transmits in any::<bool>(),
            aborts in any::<bool>(),
            resets in any::<bool>(),
        ) {
            let mut session = session();
            session.submit(command(0, READ_4K), 0).unwrap();
            session.submit(command(1, WRITE_4K), 0).unwrap();
            session.set_resets_after_abort(resets);
            if transmits {
                transmit(&mut session);
            }
            if aborts {
                session.abort(RequestTag(0));
                session.abort(RequestTag(1));
            }
            if transmits {
                transmit(&mut session);
            }
            let mut ended = [false; 2];
            for stream in pdus {
                let Ok(seen) = feed(&mut session, &stream, 700) else {
                    break;
                };
                for (request, offset, bytes) in seen.placed {
                    prop_assert_eq!(request, 0);
                    prop_assert!(!ended[0]);
                    prop_assert!(offset as usize + bytes.len() <= 4096);
                }
                for event in seen.events {
                    if let Event::CommandDone { request, .. }
                    | Event::CommandRejected { request, .. }
                    | Event::AbortDone { request, .. } = event
                    {
                        prop_assert!(transmits, "an answer before the question");
                        prop_assert!(!core::mem::replace(&mut ended[request.0 as usize], true));
                    }
                }
                prop_assert!(session.outbox.len() <= 3 * MAX_TASKS);
                if transmits {
                    transmit(&mut session);
                }
            }
        }
    }
}

/// RFC 7143 section 4.2.2.1: on a connection, commands are sent "in increasing order of CmdSN".
#[test]
fn an_immediate_pdu_ahead_of_a_waiting_command_carries_that_commands_number() {
    let mut session = session();
    let ping = Pdu::new(0x20, 0x80).put(16, RESERVED_TAG).put(20, 7);
    feed(&mut session, &ping.put(24, STAT_SN).bytes(), 48).unwrap();
    session.submit(command(1, READ_4K), 0).unwrap();
    session.log_out();
    let sent = transmit(&mut session);
    let numbers: Vec<_> = sent.iter().map(|pdu| (pdu.bhs[0], pdu.field(24))).collect();
    assert_eq!(
        numbers,
        [(0x40, CMD_SN), (0x01, CMD_SN), (0x46, CMD_SN + 1)]
    );
}
