//! A chain of descriptors becomes a block request (virtio 1.2 section 5.2.6).
//!
//! The guest may lay out a request as it likes, as long as what the device reads comes before what
//! it writes (2.7.4.2): the first 16 readable bytes are the header, the last writable byte is the
//! status, everything between is data. Nothing is believed: every address is resolved before the
//! request is handed on, every count has a bound.

use std::sync::Arc;

use iscsi_core::disk::request::{BlockOperation, Extent, SECTOR_LENGTH_BYTES};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use super::chain::{Chain, ChainError};
use super::queue::SplitQueue;
use crate::guest_memory::{GuestBuffers, GuestMemory, GuestMemoryError};

/// The header: type, reserved, sector.
const HEADER_BYTES: u32 = 16;
/// One segment of a discard or write zeroes request: sector, number of sectors, flags.
const RANGE_BYTES: usize = 16;

/// The most segments of one discard or write zeroes request: `max_discard_seg` and
/// `max_write_zeroes_seg` of the configuration space. Each becomes a command of its own, so a
/// larger number would only save virtio requests; 32 lets fstrim merge and bounds a request.
pub const MAX_RANGES: u32 = 32;

/// The status of a request (virtio 1.2 section 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// VIRTIO_BLK_S_OK.
    Ok = 0,
    /// VIRTIO_BLK_S_IOERR.
    IoErr = 1,
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupp = 2,
}

/// What the guest wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// VIRTIO_BLK_T_IN: read into the buffers.
    Read,
    /// VIRTIO_BLK_T_OUT: write from the buffers.
    Write,
    /// VIRTIO_BLK_T_FLUSH.
    #[default]
    Flush,
    /// VIRTIO_BLK_T_GET_ID: the serial, padded with zeros, into the buffers.
    GetId,
    /// VIRTIO_BLK_T_DISCARD of the ranges.
    Discard,
    /// VIRTIO_BLK_T_WRITE_ZEROES of the ranges.
    WriteZeroes,
}

/// A run of sectors to discard or to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which sectors; unchecked against the capacity, never empty.
    pub extent: Extent,
    /// Write zeroes only: the target may deallocate.
    pub unmap: bool,
}

/// A request with its guest memory, to be reused for the next one.
#[derive(Debug, Default)]
pub struct ParsedRequest {
    /// The index of the chain's first descriptor, for the used ring.
    pub head: u16,
    /// What to do.
    pub kind: RequestKind,
    /// The first sector of a read or write; unchecked against the capacity.
    pub sector: u64,
    /// The data of a read, write or GET_ID.
    pub buffers: GuestBuffers,
    /// How many bytes of data: a multiple of 512 for reads and writes, at most 20 for GET_ID.
    pub data_length_bytes: u32,
    /// The ranges of a discard or write zeroes, at most [`MAX_RANGES`]; empty ranges are left out.
    pub ranges: Vec<Range>,
}

impl ParsedRequest {
    /// The extent of a read or write.
    pub fn extent(&self) -> Extent {
        Extent {
            sector: self.sector,
            length_bytes: self.data_length_bytes.into(),
        }
    }

    /// What is to be done on the disk; `None` for GET_ID, which needs no disk. `stable` says whether
    /// what is written must survive a loss of power before the request completes.
    pub fn operation(&self, stable: bool) -> Option<BlockOperation> {
        Some(match self.kind {
            RequestKind::GetId => return None,
            RequestKind::Read => BlockOperation::Read,
            RequestKind::Write => BlockOperation::Write { stable },
            RequestKind::Flush => BlockOperation::Flush,
            RequestKind::Discard => BlockOperation::Discard,
            RequestKind::WriteZeroes => {
                // One request may mix segments that may be deallocated with others: none is, then.
                let unmap = self.ranges.iter().all(|range| range.unmap);
                BlockOperation::WriteZeroes { unmap, stable }
            }
        })
    }

    /// Where [`ParsedRequest::operation`] is to be done: one extent for a read or write, one for
    /// each range of a discard or write zeroes, none for a flush and for ranges that are all empty.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + Clone + '_ {
        let has_data = matches!(self.kind, RequestKind::Read | RequestKind::Write);
        let whole = has_data.then(|| self.extent());
        whole
            .into_iter()
            .chain(self.ranges.iter().map(|range| range.extent))
    }

    /// Writes the status and lets go of the guest's memory. Returns the used length: how many
    /// bytes the device wrote, of which data count only when they are valid (2.7.8.2).
    pub fn complete(&mut self, status: Status) -> u32 {
        let reads = matches!(self.kind, RequestKind::Read | RequestKind::GetId);
        let data_bytes = if reads && status == Status::Ok {
            self.data_length_bytes
        } else {
            0
        };
        self.buffers.write_status(status as u8);
        self.buffers.clear();
        data_bytes + 1
    }
}

/// A chain that is no request. Either way the queue goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The request has a status byte: [`ParsedRequest::complete`] with this status.
    #[error("{reason}")]
    WithStatus {
        /// What the guest is told.
        status: Status,
        /// What is wrong, for the log.
        reason: Reason,
    },
    /// There is no place for a status: goes back with used length 0 and a line in the log.
    #[error("{reason}")]
    NoStatus {
        /// What is wrong, for the log.
        reason: Reason,
    },
}

/// What is wrong with a chain, from the guest's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Its descriptors make no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Its data or status is not in guest memory.
    #[error(transparent)]
    Memory(#[from] GuestMemoryError),
    /// A descriptor that the device reads comes after one that it writes (2.7.4.2).
    #[error("a readable descriptor after a writable one")]
    ReadableAfterWritable,
    /// There is no writable byte for the status.
    #[error("no writable byte for the status")]
    StatusMissing,
    /// Fewer than 16 readable bytes.
    #[error("a header of {length_bytes} bytes instead of 16")]
    HeaderShort {
        /// How many there are.
        length_bytes: u64,
    },
    /// Data the device would have to read where it writes, or the reverse.
    #[error("data in the wrong direction")]
    WrongDirection,
    /// Not a multiple of 512 bytes, none, or more than a used length can say (2.7.4.2: 2^32).
    #[error("{length_bytes} bytes of data")]
    DataLength {
        /// How many.
        length_bytes: u64,
    },
    /// Not whole segments, none, or more than [`MAX_RANGES`].
    #[error("{length_bytes} bytes of segments of 16 bytes, at most {MAX_RANGES} of them")]
    RangesLength {
        /// How many bytes.
        length_bytes: u64,
    },
    /// Reserved flags, or unmap on a discard.
    #[error("flags {flags:#x} in a segment")]
    RangeFlags {
        /// The flags.
        flags: u32,
    },
    /// A type that is not known or was not negotiated.
    #[error("request type {kind}")]
    UnsupportedType {
        /// The type.
        kind: u32,
    },
}

impl Reason {
    fn status(&self) -> Status {
        match self {
            Self::RangeFlags { .. } | Self::UnsupportedType { .. } => Status::Unsupp,
            _ => Status::IoErr,
        }
    }
}

/// Turns chains into requests; one per queue, reused from request to request.
#[derive(Debug)]
pub struct RequestParser {
    acked_features: u64,
    chain: Chain,
}

impl RequestParser {
    /// A parser for a driver that negotiated these features.
    pub fn new(acked_features: u64) -> Self {
        let indirect = acked_features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0;
        Self {
            acked_features,
            chain: Chain::new(indirect),
        }
    }

    fn acked(&self, bit: u32) -> bool {
        self.acked_features & (1 << bit) != 0
    }

    /// Reads the chain that starts at `head` into `request`, whose former content is forgotten.
    ///
    /// # Errors
    /// When the chain is not a request that can be served; the error says whether `request` has a
    /// status byte to say so with.
    pub fn parse(
        &mut self,
        queue: &SplitQueue,
        head: u16,
        request: &mut ParsedRequest,
    ) -> Result<(), Malformed> {
        request.head = head;
        request.kind = RequestKind::default();
        request.data_length_bytes = 0;
        request.ranges.clear();
        request.buffers.begin(queue.memory());
        let no_status = |reason| Malformed::NoStatus { reason };
        let walked = self.chain.walk(queue, head);
        walked.map_err(|error| no_status(error.into()))?;
        self.take_status(&mut request.buffers).map_err(no_status)?;
        self.take_request(queue.memory(), request)
            .map_err(|reason| {
                request.buffers.clear_data();
                Malformed::WithStatus {
                    status: reason.status(),
                    reason,
                }
            })
    }

    fn take_status(&mut self, buffers: &mut GuestBuffers) -> Result<(), Reason> {
        let address = self
            .chain
            .writable
            .pop_last_byte()
            .ok_or(Reason::StatusMissing)?;
        Ok(buffers.set_status_address(address)?)
    }

    fn take_request(
        &mut self,
        memory: &Arc<GuestMemory>,
        request: &mut ParsedRequest,
    ) -> Result<(), Reason> {
        if self.chain.readable_after_writable {
            return Err(Reason::ReadableAfterWritable);
        }
        let (kind, sector) = self.read_header(memory)?;
        request.sector = sector;
        match kind {
            VIRTIO_BLK_T_IN => self.take_read(request),
            VIRTIO_BLK_T_OUT => self.take_write(request),
            VIRTIO_BLK_T_FLUSH => {
                request.kind = RequestKind::Flush;
                Ok(())
            }
            VIRTIO_BLK_T_GET_ID => self.take_get_id(request),
            VIRTIO_BLK_T_DISCARD if self.acked(VIRTIO_BLK_F_DISCARD) => {
                self.take_ranges(RequestKind::Discard, request)
            }
            VIRTIO_BLK_T_WRITE_ZEROES if self.acked(VIRTIO_BLK_F_WRITE_ZEROES) => {
                self.take_ranges(RequestKind::WriteZeroes, request)
            }
            _ => Err(Reason::UnsupportedType { kind }),
        }
    }

    /// The type and the sector, from the first 16 readable bytes.
    fn read_header(&self, memory: &GuestMemory) -> Result<(u32, u64), Reason> {
        let length_bytes = self.chain.readable.length_bytes;
        if length_bytes < u64::from(HEADER_BYTES) {
            return Err(Reason::HeaderShort { length_bytes });
        }
        let mut header = [0; HEADER_BYTES as usize];
        self.chain.readable.copy_first(memory, &mut header)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        Ok((
            u32::from_le_bytes([t0, t1, t2, t3]),
            u64::from_le_bytes(sector),
        ))
    }

    /// How many readable bytes follow the header.
    fn data_out_bytes(&self) -> u64 {
        self.chain
            .readable
            .length_bytes
            .saturating_sub(u64::from(HEADER_BYTES))
    }

    fn take_read(&self, request: &mut ParsedRequest) -> Result<(), Reason> {
        request.kind = RequestKind::Read;
        if self.data_out_bytes() > 0 {
            return Err(Reason::WrongDirection);
        }
        request.data_length_bytes = check_data_length(self.chain.writable.length_bytes)?;
        Ok(self.chain.writable.resolve(0, &mut request.buffers)?)
    }

    fn take_write(&self, request: &mut ParsedRequest) -> Result<(), Reason> {
        request.kind = RequestKind::Write;
        if self.chain.writable.length_bytes > 0 {
            return Err(Reason::WrongDirection);
        }
        request.data_length_bytes = check_data_length(self.data_out_bytes())?;
        let data = &self.chain.readable;
        Ok(data.resolve(HEADER_BYTES, &mut request.buffers)?)
    }

    /// The specification wants 20 bytes. A shorter buffer gets as much of the serial as fits, as
    /// from other devices, a longer one 20 bytes.
    fn take_get_id(&self, request: &mut ParsedRequest) -> Result<(), Reason> {
        request.kind = RequestKind::GetId;
        let length_bytes = self.chain.writable.length_bytes;
        if self.data_out_bytes() > 0 || length_bytes == 0 {
            return Err(Reason::WrongDirection);
        }
        let id_bytes = length_bytes.min(VIRTIO_BLK_ID_BYTES.into());
        request.data_length_bytes =
            u32::try_from(id_bytes).map_err(|_| Reason::DataLength { length_bytes })?;
        Ok(self.chain.writable.resolve(0, &mut request.buffers)?)
    }

    /// Copies the segments out of guest memory, once, and checks the copies.
    fn take_ranges(&self, kind: RequestKind, request: &mut ParsedRequest) -> Result<(), Reason> {
        request.kind = kind;
        if self.chain.writable.length_bytes > 0 {
            return Err(Reason::WrongDirection);
        }
        let length_bytes = self.data_out_bytes();
        let mut bytes = [0; RANGE_BYTES * MAX_RANGES as usize];
        let segments = usize::try_from(length_bytes)
            .ok()
            .and_then(|length_bytes| bytes.get_mut(..length_bytes))
            .filter(|bytes| !bytes.is_empty() && bytes.len() % RANGE_BYTES == 0)
            .ok_or(Reason::RangesLength { length_bytes })?;
        self.chain
            .readable
            .resolve(HEADER_BYTES, &mut request.buffers)?;
        request.buffers.copy_out(0, segments)?;
        request.buffers.clear_data();
        for segment in segments.as_chunks::<RANGE_BYTES>().0 {
            let range = parse_range(kind, segment)?;
            request
                .ranges
                .extend((range.extent.length_bytes > 0).then_some(range));
        }
        Ok(())
    }
}

/// Data of a read or write: whole sectors, at least one, and no more than fits a used length.
fn check_data_length(length_bytes: u64) -> Result<u32, Reason> {
    u32::try_from(length_bytes)
        .ok()
        .filter(|&bytes| bytes > 0 && u64::from(bytes) % SECTOR_LENGTH_BYTES == 0)
        .ok_or(Reason::DataLength { length_bytes })
}

/// Reserved flags are UNSUPP, and so is unmap on a discard (virtio 1.2 section 5.2.6.2).
fn parse_range(kind: RequestKind, segment: &[u8; RANGE_BYTES]) -> Result<Range, Reason> {
    let [sector @ .., n0, n1, n2, n3, f0, f1, f2, f3] = *segment;
    let flags = u32::from_le_bytes([f0, f1, f2, f3]);
    let allowed = match kind {
        RequestKind::WriteZeroes => VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        _ => 0,
    };
    if flags & !allowed != 0 {
        return Err(Reason::RangeFlags { flags });
    }
    let sectors = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
    let extent = Extent {
        sector: u64::from_le_bytes(sector),
        length_bytes: sectors * SECTOR_LENGTH_BYTES,
    };
    Ok(Range {
        extent,
        unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_ring::*;
    use super::*;
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    const ALL: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC
        | 1 << VIRTIO_BLK_F_DISCARD
        | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
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
}
