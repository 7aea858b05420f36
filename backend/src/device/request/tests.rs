//! Chains of a real ring as requests: each layout that is allowed, and what is refused how.

use super::super::test_ring::*;
use super::*;
use crate::device::chain::ChainError;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

const ALL: u64 =
    1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
const HEADER: u64 = DATA;
const PAYLOAD: u64 = DATA + 0x1000;
const STATUS: u64 = DATA + 0x8000;
const SIZE: u16 = 16;
const OUT: u16 = 0;

fn put_header(ring: &TestRing, kind: u32, sector: u64) {
    ring.memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
    ring.memory
        .write_obj(sector, GuestAddress(HEADER + 8))
        .unwrap();
}

fn put_range(ring: &TestRing, at: u64, sector: u64, sectors: u32, flags: u32) {
    ring.memory.write_obj(sector, GuestAddress(at)).unwrap();
    ring.memory
        .write_obj(sectors, GuestAddress(at + 8))
        .unwrap();
    ring.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
}

fn parse_with(ring: &TestRing, features: u64) -> (Result<(), Malformed>, ParsedRequest) {
    let queue = SplitQueue::new(&ring.setup(features)).unwrap();
    let mut request = ParsedRequest::default();
    let result = RequestParser::new(features).parse(&queue, 0, &mut request);
    (result, request)
}

/// A chain of the given spans with a header of the given type.
fn parse(kind: u32, spans: &[(u64, u32, u16)]) -> (Result<(), Malformed>, ParsedRequest) {
    let ring = TestRing::new(SIZE);
    put_header(&ring, kind, 77);
    ring.put_chain(DESC_TABLE, spans);
    parse_with(&ring, ALL)
}

fn assert_status(result: Result<(), Malformed>, expected: Status) -> Reason {
    match result {
        Err(Malformed::WithStatus { status, reason }) => {
            assert_eq!(status, expected, "{reason}");
            reason
        }
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

fn assert_no_status(result: Result<(), Malformed>, expected: impl Into<Reason>) {
    let reason = expected.into();
    assert_eq!(result, Err(Malformed::NoStatus { reason }));
}

#[test]
fn reads_the_usual_layout() {
    let (result, mut request) = parse(
        0,
        &[
            (HEADER, 16, OUT),
            (PAYLOAD, 1024, WRITE),
            (STATUS, 1, WRITE),
        ],
    );
    result.unwrap();
    assert_eq!(request.kind, RequestKind::Read);
    assert_eq!(
        request.extent(),
        Extent {
            sector: 77,
            length_bytes: 1024
        }
    );
    assert_eq!(request.buffers.len(), 1024);
    assert_eq!(request.complete(Status::Ok), 1025);
}

#[test]
fn counts_no_data_as_written_when_a_read_fails() {
    let spans = [(HEADER, 16, OUT), (PAYLOAD, 512, WRITE), (STATUS, 1, WRITE)];
    assert_eq!(parse(0, &spans).1.complete(Status::IoErr), 1);
}

#[test]
fn accepts_a_header_that_shares_a_descriptor_with_data() {
    let (result, mut request) = parse(1, &[(HEADER, 16 + 512, OUT), (STATUS, 1, WRITE)]);
    result.unwrap();
    assert_eq!(
        (request.kind, request.data_length_bytes),
        (RequestKind::Write, 512)
    );
    let mut iovecs = Vec::new();
    assert_eq!(request.buffers.iovecs(0, 512, &mut iovecs), Ok(512));
    assert_eq!(request.complete(Status::Ok), 1);
}

#[test]
fn accepts_a_header_in_pieces_and_data_of_any_byte_length() {
    let spans = [
        (HEADER, 1, OUT),
        (HEADER + 1, 0, OUT),
        (HEADER + 1, 7, OUT),
        (HEADER + 8, 8 + 3, OUT),
        (PAYLOAD, 508, OUT),
        (PAYLOAD, 513, OUT),
        (STATUS, 1, WRITE),
    ];
    let (result, request) = parse(1, &spans);
    result.unwrap();
    assert_eq!((request.sector, request.data_length_bytes), (77, 1024));
}

#[test]
fn takes_the_last_byte_of_a_writable_descriptor_as_status() {
    let ring = TestRing::new(SIZE);
    put_header(&ring, 0, 0);
    ring.put_chain(DESC_TABLE, &[(HEADER, 16, OUT), (PAYLOAD, 513, WRITE)]);
    let (result, mut request) = parse_with(&ring, ALL);
    result.unwrap();
    assert_eq!(request.data_length_bytes, 512);
    request.complete(Status::Unsupp);
    assert_eq!(
        ring.memory
            .read_obj::<u8>(GuestAddress(PAYLOAD + 512))
            .unwrap(),
        2
    );
}

#[test]
fn accepts_an_indirect_table_at_any_address_after_a_direct_header() {
    for table in [DATA + 0x4000, DATA + 0x4001] {
        let ring = TestRing::new(SIZE);
        put_header(&ring, 0, 9);
        ring.put_descriptor(DESC_TABLE, 0, (HEADER, 16, NEXT, 5));
        ring.put_descriptor(DESC_TABLE, 5, (table, 32, INDIRECT, 0));
        ring.put_chain(table, &[(PAYLOAD, 512, WRITE), (STATUS, 1, WRITE)]);
        let (result, request) = parse_with(&ring, ALL);
        result.unwrap();
        assert_eq!(request.data_length_bytes, 512);
    }
}

#[test]
fn accepts_an_indirect_table_longer_than_the_ring() {
    let ring = TestRing::new(2);
    let table = DATA + 0x4000;
    let mut spans = vec![(HEADER, 16, OUT)];
    spans.extend([(PAYLOAD, 64, OUT); 8]);
    spans.push((STATUS, 1, WRITE));
    put_header(&ring, 1, 9);
    ring.put_descriptor(DESC_TABLE, 0, (table, 160, INDIRECT, 0));
    ring.put_chain(table, &spans);
    parse_with(&ring, ALL).0.unwrap();
}

#[test]
fn rejects_bad_indirect_tables() {
    let table = DATA + 0x4000;
    for (features, descriptor, reason) in [
        (
            0,
            (table, 32, INDIRECT, 0),
            ChainError::IndirectNotNegotiated,
        ),
        (
            ALL,
            (table, 32, INDIRECT | NEXT, 1),
            ChainError::IndirectNotLast,
        ),
        (
            ALL,
            (table, 0, INDIRECT, 0),
            ChainError::IndirectLength { length_bytes: 0 },
        ),
        (
            ALL,
            (table, 33, INDIRECT, 0),
            ChainError::IndirectLength { length_bytes: 33 },
        ),
        (
            ALL,
            (table, 32_769 * 16, INDIRECT, 0),
            ChainError::IndirectLength {
                length_bytes: 32_769 * 16,
            },
        ),
        (ALL, (table, 16, INDIRECT, 0), ChainError::Loop),
    ] {
        let ring = TestRing::new(SIZE);
        ring.put_descriptor(DESC_TABLE, 0, descriptor);
        ring.put_chain(table, &[(PAYLOAD, 512, WRITE), (STATUS, 1, WRITE)]);
        assert_no_status(parse_with(&ring, features).0, reason);
    }
}

#[test]
fn rejects_an_indirect_table_in_another_or_outside_memory() {
    let table = DATA + 0x4000;
    let ring = TestRing::new(SIZE);
    ring.put_descriptor(DESC_TABLE, 0, (table, 16, INDIRECT, 0));
    ring.put_descriptor(table, 0, (table, 16, INDIRECT, 0));
    assert_no_status(parse_with(&ring, ALL).0, ChainError::IndirectNested);
    ring.put_descriptor(DESC_TABLE, 0, (u64::MAX - 8, 32, INDIRECT, 0));
    let (result, _) = parse_with(&ring, ALL);
    assert!(matches!(
        result,
        Err(Malformed::NoStatus {
            reason: Reason::Chain(ChainError::Memory(_))
        })
    ));
}

#[test]
fn rejects_a_next_beyond_an_indirect_table() {
    let table = DATA + 0x4000;
    let ring = TestRing::new(SIZE);
    ring.put_descriptor(DESC_TABLE, 0, (table, 32, INDIRECT, 0));
    ring.put_descriptor(table, 0, (PAYLOAD, 16, NEXT, 2));
    assert_no_status(parse_with(&ring, ALL).0, ChainError::NextBeyondTable);
}

#[test]
fn rejects_a_loop_and_a_next_beyond_the_table() {
    for (next, reason) in [(0, ChainError::Loop), (SIZE, ChainError::NextBeyondTable)] {
        let ring = TestRing::new(SIZE);
        ring.put_descriptor(DESC_TABLE, 0, (PAYLOAD, 16, NEXT, next));
        assert_no_status(parse_with(&ring, ALL).0, reason);
    }
}

#[test]
fn accepts_a_chain_as_long_as_the_ring() {
    let mut spans = vec![(HEADER, 16, OUT)];
    spans.extend([(PAYLOAD, 512, OUT); SIZE as usize - 2]);
    spans.push((STATUS, 1, WRITE));
    parse(1, &spans).0.unwrap();
}

#[test]
fn rejects_a_chain_without_a_status_byte() {
    assert_no_status(parse(1, &[(HEADER, 528, OUT)]).0, Reason::StatusMissing);
    let outside = parse(1, &[(HEADER, 528, OUT), (u64::MAX, 1, WRITE)]).0;
    assert!(matches!(
        outside,
        Err(Malformed::NoStatus {
            reason: Reason::Memory(_)
        })
    ));
    let wraps = parse(1, &[(HEADER, 528, OUT), (u64::MAX, 2, WRITE)]).0;
    assert_no_status(wraps, Reason::StatusMissing);
}

#[test]
fn rejects_a_short_header_but_not_a_whole_one() {
    let reason = assert_status(
        parse(4, &[(HEADER, 15, OUT), (STATUS, 1, WRITE)]).0,
        Status::IoErr,
    );
    assert_eq!(reason, Reason::HeaderShort { length_bytes: 15 });
    parse(4, &[(HEADER, 16, OUT), (STATUS, 1, WRITE)])
        .0
        .unwrap();
}

#[test]
fn rejects_data_in_the_wrong_direction() {
    for kind in [0, 8] {
        let spans = [(HEADER, 16, OUT), (PAYLOAD, 512, OUT), (STATUS, 1, WRITE)];
        assert_eq!(
            assert_status(parse(kind, &spans).0, Status::IoErr),
            Reason::WrongDirection
        );
    }
    for kind in [1, 11, 13] {
        let spans = [(HEADER, 16, OUT), (PAYLOAD, 512, WRITE), (STATUS, 1, WRITE)];
        assert_eq!(
            assert_status(parse(kind, &spans).0, Status::IoErr),
            Reason::WrongDirection
        );
    }
    let spans = [(STATUS, 1, WRITE), (HEADER, 16, OUT)];
    let reason = assert_status(parse(4, &spans).0, Status::IoErr);
    assert_eq!(reason, Reason::ReadableAfterWritable);
}

#[test]
fn rejects_data_that_is_not_whole_sectors_or_none() {
    for (length_bytes, good) in [(0, false), (511, false), (512, true), (513, false)] {
        let spans = [
            (HEADER, 16, OUT),
            (PAYLOAD, length_bytes, OUT),
            (STATUS, 1, WRITE),
        ];
        assert_eq!(parse(1, &spans).0.is_ok(), good, "{length_bytes}");
    }
}

#[test]
fn rejects_data_beyond_what_a_used_length_can_say() {
    let huge = u32::MAX - 511;
    let spans = [
        (HEADER, 16, OUT),
        (PAYLOAD, huge, OUT),
        (PAYLOAD, 512, OUT),
        (STATUS, 1, WRITE),
    ];
    let reason = assert_status(parse(1, &spans).0, Status::IoErr);
    assert_eq!(
        reason,
        Reason::DataLength {
            length_bytes: 1 << 32
        }
    );
}

#[test]
fn rejects_data_outside_memory_with_a_status() {
    let at = MEMORY_BYTES as u64 - 511;
    let spans = [(HEADER, 16, OUT), (at, 512, WRITE), (STATUS, 1, WRITE)];
    let (result, request) = parse(0, &spans);
    assert_status(result, Status::IoErr);
    assert!(request.buffers.is_empty());
}

#[test]
fn answers_unknown_types_with_unsupp() {
    for kind in [2, 3, 14, 15, u32::MAX] {
        let spans = [(HEADER, 16, OUT), (PAYLOAD, 7, WRITE), (STATUS, 1, WRITE)];
        assert_status(parse(kind, &spans).0, Status::Unsupp);
    }
}

#[test]
fn answers_what_was_not_negotiated_with_unsupp() {
    let ring = TestRing::new(SIZE);
    ring.put_chain(
        DESC_TABLE,
        &[(HEADER, 16, OUT), (PAYLOAD, 16, OUT), (STATUS, 1, WRITE)],
    );
    for kind in [11, 13] {
        put_header(&ring, kind, 0);
        assert_status(parse_with(&ring, 0).0, Status::Unsupp);
        parse_with(&ring, ALL).0.unwrap();
    }
}

#[test]
fn takes_a_flush_whatever_its_sector() {
    let (result, request) = parse(4, &[(HEADER, 16, OUT), (STATUS, 1, WRITE)]);
    result.unwrap();
    assert_eq!(
        (request.kind, request.data_length_bytes),
        (RequestKind::Flush, 0)
    );
}

#[test]
fn gives_get_id_20_bytes_or_what_fits() {
    for (room, id_bytes) in [(1, 1), (19, 19), (20, 20), (21, 20)] {
        let spans = [
            (HEADER, 16, OUT),
            (PAYLOAD, room, WRITE),
            (STATUS, 1, WRITE),
        ];
        let (result, request) = parse(8, &spans);
        result.unwrap();
        assert_eq!(request.data_length_bytes, id_bytes);
    }
    let reason = assert_status(
        parse(8, &[(HEADER, 16, OUT), (STATUS, 1, WRITE)]).0,
        Status::IoErr,
    );
    assert_eq!(reason, Reason::WrongDirection);
}

fn parse_ranges(kind: u32, count: u32, flags: u32) -> (Result<(), Malformed>, ParsedRequest) {
    let ring = TestRing::new(SIZE);
    put_header(&ring, kind, 0);
    for index in 0..u64::from(count) {
        put_range(&ring, PAYLOAD + 16 * index, index, 8, flags);
    }
    let spans = [
        (HEADER, 16, OUT),
        (PAYLOAD, 5, OUT),
        (PAYLOAD + 5, (16 * count).saturating_sub(5), OUT),
        (STATUS, 1, WRITE),
    ];
    ring.put_chain(DESC_TABLE, &spans);
    parse_with(&ring, ALL)
}

#[test]
fn takes_as_many_ranges_as_it_offers_and_not_one_more() {
    let (result, request) = parse_ranges(11, 32, 0);
    result.unwrap();
    assert_eq!(request.ranges.len(), MAX_RANGES as usize);
    let extent = Extent {
        sector: 31,
        length_bytes: 4096,
    };
    assert_eq!(
        request.ranges[31],
        Range {
            extent,
            unmap: false
        }
    );
    assert_status(parse_ranges(11, 33, 0).0, Status::IoErr);
    assert_status(parse_ranges(11, 0, 0).0, Status::IoErr);
}

#[test]
fn answers_reserved_flags_with_unsupp() {
    let (result, request) = parse_ranges(13, 1, 1);
    result.unwrap();
    assert!(request.ranges[0].unmap);
    for (kind, flags) in [(11, 1), (11, 2), (13, 2), (13, 3), (13, 1 << 31)] {
        assert_status(parse_ranges(kind, 1, flags).0, Status::Unsupp);
    }
}

#[test]
fn asks_the_disk_for_one_operation_on_each_range() {
    let zeroes = |unmap| {
        Some(BlockOperation::WriteZeroes {
            unmap,
            stable: true,
        })
    };
    let extents = [0, 1].map(|sector| Extent {
        sector,
        length_bytes: 4096,
    });
    let (_, mut request) = parse_ranges(13, 2, 1);
    assert_eq!(request.operation(true), zeroes(true));
    assert!(request.extents().eq(extents));
    request.ranges[1].unmap = false;
    assert_eq!(request.operation(true), zeroes(false));
    let (_, request) = parse_ranges(11, 1, 0);
    assert_eq!(request.operation(true), Some(BlockOperation::Discard));
    assert!(request.extents().eq([extents[0]]));
    let (_, request) = parse(1, &[(HEADER, 16 + 512, OUT), (STATUS, 1, WRITE)]);
    let write = BlockOperation::Write { stable: false };
    assert_eq!(request.operation(false), Some(write));
    assert!(request.extents().eq([request.extent()]));
    let (_, request) = parse(8, &[(HEADER, 16, OUT), (PAYLOAD, 21, WRITE)]);
    assert_eq!(request.operation(false), None);
    assert_eq!(request.extents().count(), 0);
}

#[test]
fn leaves_out_empty_ranges() {
    let ring = TestRing::new(SIZE);
    put_header(&ring, 13, 0);
    put_range(&ring, PAYLOAD, 5, 0, 0);
    ring.put_chain(
        DESC_TABLE,
        &[(HEADER, 16, OUT), (PAYLOAD, 16, OUT), (STATUS, 1, WRITE)],
    );
    let (result, request) = parse_with(&ring, ALL);
    result.unwrap();
    assert!(request.ranges.is_empty());
}

#[test]
fn forgets_the_request_before() {
    let ring = TestRing::new(SIZE);
    let queue = SplitQueue::new(&ring.setup(ALL)).unwrap();
    let mut parser = RequestParser::new(ALL);
    let mut request = ParsedRequest::default();
    put_header(&ring, 0, 1);
    ring.put_chain(DESC_TABLE, &[(HEADER, 16, OUT), (PAYLOAD, 1025, WRITE)]);
    parser.parse(&queue, 0, &mut request).unwrap();
    put_header(&ring, 4, 0);
    parser.parse(&queue, 0, &mut request).unwrap();
    assert_eq!((request.data_length_bytes, request.buffers.len()), (0, 0));
    assert_eq!(request.complete(Status::Ok), 1);
}

/// Addresses and lengths that are near the edges of memory more often than chance has it.
fn any_descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        DATA..MEMORY_BYTES as u64,
        (MEMORY_BYTES as u64 - 20)..(MEMORY_BYTES as u64 + 20),
        Just(DESC_TABLE),
        any::<u64>(),
        (u64::MAX - 20)..=u64::MAX,
    ];
    let length = prop_oneof![
        0_u32..40,
        (0_u32..40).prop_map(|n| n * 16),
        Just(512),
        any::<u32>()
    ];
    let next = prop_oneof![0_u16..9, any::<u16>()];
    (address, length, 0_u16..8, next)
}

proptest! {
    #[test]
    fn survives_any_descriptor_table(
        table in prop::collection::vec(any_descriptor(), 8),
        kind in prop_oneof![0_u32..16, any::<u32>()],
        status in 0_u8..3,
    ) {
        let ring = TestRing::new(8);
        for (index, &descriptor) in (0..).zip(&table) {
            ring.put_descriptor(DESC_TABLE, index, descriptor);
        }
        for at in (DATA..MEMORY_BYTES as u64).step_by(16) {
            ring.memory.write_obj(kind, GuestAddress(at)).unwrap();
        }
        let (result, mut request) = parse_with(&ring, ALL);
        if result.is_ok() {
            // Whatever was accepted can be reached to its last byte.
            let length = usize::try_from(request.buffers.len()).unwrap();
            let mut iovecs = Vec::new();
            request.buffers.iovecs(0, length, &mut iovecs).unwrap();
            let mut bytes = vec![0; length];
            request.buffers.copy_out(0, &mut bytes).unwrap();
        }
        let status = [Status::Ok, Status::IoErr, Status::Unsupp][usize::from(status)];
        request.complete(status);
    }

    #[test]
    fn reads_the_same_request_however_it_is_cut(
        cuts in prop::collection::vec(1_u32..200, 0..12),
        write in any::<bool>(),
    ) {
        // One contiguous area for each direction, cut at random places.
        let ring = TestRing::new(SIZE * 2);
        put_header(&ring, u32::from(write), 123);
        let (readable, writable) = if write { (16 + 1024, 1) } else { (16, 1024 + 1) };
        let mut spans = cut(HEADER, readable, &cuts, OUT);
        spans.extend(cut(STATUS, writable, &cuts, WRITE));
        ring.put_chain(DESC_TABLE, &spans);
        let (result, request) = parse_with(&ring, ALL);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(request.extent(), Extent { sector: 123, length_bytes: 1024 });
        prop_assert_eq!(request.buffers.len(), 1024);
    }
}

fn cut(mut address: u64, mut length: u32, cuts: &[u32], flags: u16) -> Vec<(u64, u32, u16)> {
    let mut spans = Vec::new();
    for &cut in cuts {
        if cut < length {
            spans.push((address, cut, flags));
            address += u64::from(cut);
            length -= cut;
        }
    }
    spans.push((address, length, flags));
    spans
}
