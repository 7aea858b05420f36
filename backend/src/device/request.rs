//! A chain of descriptors becomes a block request (virtio 1.2 section 5.2.6).
//!
//! The guest may lay out a request as it likes, as long as what the device reads comes before what
//! it writes (2.7.4.2): the first 16 readable bytes are the header, the last writable byte is the
//! status, everything between is data. Nothing is believed: every address is resolved before the
//! request is handed on, every count has a bound.

mod malformed;

use std::sync::Arc;

pub use self::malformed::{Malformed, Reason};

use iscsi_core::disk::request::{BlockOperation, Extent, SECTOR_LENGTH_BYTES};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use super::chain::Chain;
use super::queue::SplitQueue;
use crate::guest_memory::{GuestBuffers, GuestMemory};

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
mod tests;
