//! The TCP connection of a session: what waits to be sent, and what arrived.
//!
//! Sending is gathered: PDUs are queued as pieces (our own bytes, zeros, runs of guest memory)
//! and leave in as few system calls as the kernel allows. Receiving is large: one call brings
//! many PDUs. Payload that is larger than [`DIRECT_MIN_BYTES`] is read straight into guest memory.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use iscsi_core::crc32c::Crc32c;
use iscsi_core::session::{Placement, RequestTag, Transmit};

use super::in_flight::InFlightTable;
use crate::raw_io::{Vector, VectorRoom, set_receive_low_water, unacknowledged_bytes};

/// How much one receive can bring: several answers of 64 KiB, or hundreds of small ones.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// Payload of which at least this much has not arrived yet is read straight into guest memory
/// rather than through the receive buffer. Measured on loopback with the in-memory target, 16 or 32
/// in flight: reads of 16 KiB take a sixth less CPU through the buffer, many with one system call;
/// at 32 KiB both are equal; reads of 64 KiB are half as fast again without the second copy.
const DIRECT_MIN_BYTES: usize = 48 * 1024;

/// How much is received into the buffer at once while large payload is expected: enough for the
/// next headers and for many small answers, little enough that most of the payload behind them is
/// still in the socket when its place is known.
const HEADERS_ROOM_BYTES: usize = 1024;

/// The most private bytes (headers, digests, copies for digests) that wait to be sent before no
/// further PDU is taken.
const MAX_PRIVATE_BYTES: usize = 1024 * 1024;

/// The most pieces that wait to be sent before no further PDU is taken.
const MAX_PIECES: usize = 1024;

/// Zeros to send: WRITE SAME and written zeros take them from here, again and again.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What a slow link has to move for a while: less cannot keep a ping from its target for long.
pub(super) const SLOW_BYTES: u64 = 16 * 1024;

/// How far the target's end has taken in what is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    /// What it has, in all.
    pub(super) acknowledged_bytes: u64,
    /// What it has not.
    pub(super) waiting_bytes: u64,
}

impl Sending {
    /// Whether a link that had much to move has moved some of it since.
    pub(super) fn has_moved_since(self, former: Self) -> bool {
        former.waiting_bytes >= SLOW_BYTES && self.acknowledged_bytes > former.acknowledged_bytes
    }
}

/// A connection in full-feature phase.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: TcpStream,
    /// How much has to arrive before the socket counts as readable.
    low_water_bytes: u64,
    /// How much has arrived, ever.
    received_bytes: u64,
    /// How much the socket has taken, ever.
    sent_bytes: u64,
    /// How much of the buffer the next receive may fill: [`HEADERS_ROOM_BYTES`] after a large
    /// payload, and twice as much each time that did not bring another.
    room_bytes: usize,
    pub(super) output: SendQueue,
    pub(super) input: ReceiveBuffer,
}

impl Transport {
    /// Takes over a connected socket, and what has `arrived` on it already.
    pub(crate) fn new(socket: TcpStream, arrived: &[u8]) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut input = ReceiveBuffer::new();
        let free = input.free(RECEIVE_BUFFER_BYTES);
        let Some(start) = free.get_mut(..arrived.len()) else {
            return Err(io::Error::other("more arrived than a receive buffer holds"));
        };
        start.copy_from_slice(arrived);
        input.filled(arrived.len());
        Ok(Self {
            socket,
            low_water_bytes: 1,
            received_bytes: 0,
            sent_bytes: 0,
            room_bytes: RECEIVE_BUFFER_BYTES,
            output: SendQueue::default(),
            input,
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How many bytes have been received, in all.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// How far the target's end has taken in what is to be sent.
    pub(super) fn sending(&self) -> io::Result<Sending> {
        let in_socket_bytes = unacknowledged_bytes(self.socket.as_fd())?;
        let queued_bytes: usize = self.output.pieces.iter().map(Piece::length).sum();
        Ok(Sending {
            acknowledged_bytes: self.sent_bytes.saturating_sub(in_socket_bytes),
            waiting_bytes: in_socket_bytes + queued_bytes as u64,
        })
    }

    /// Has the reactor report the socket only when `length_bytes` have arrived; a receive may be
    /// made before.
    pub(super) fn set_low_water(&mut self, length_bytes: u64) -> io::Result<()> {
        if length_bytes != self.low_water_bytes {
            let option = i32::try_from(length_bytes).unwrap_or(i32::MAX);
            set_receive_low_water(self.socket.as_fd(), option)?;
            self.low_water_bytes = length_bytes;
        }
        Ok(())
    }

    /// Large payload has come, so more of it is likely: the next receive leaves it in the socket.
    pub(super) fn expect_payload(&mut self) {
        self.room_bytes = HEADERS_ROOM_BYTES;
    }

    /// Receives what is there into the buffer.
    pub(super) fn receive(&mut self, room: &mut VectorRoom) -> io::Result<Arrived> {
        let Self {
            socket,
            input,
            received_bytes,
            room_bytes,
            ..
        } = self;
        let free = input.free(*room_bytes);
        let free_bytes = free.len();
        *room_bytes = RECEIVE_BUFFER_BYTES.min(2 * *room_bytes);
        let mut vector = Vector::new(room);
        vector.push_mut(free);
        let arrived = Arrived::of(vector.receive(socket.as_fd()), free_bytes)?;
        input.filled(arrived.length_bytes);
        *received_bytes += arrived.length_bytes as u64;
        Ok(arrived)
    }

    /// Receives the payload of `placement` straight into guest memory, and what follows it into
    /// the (empty) buffer with the same system call. Says how much of the payload arrived.
    pub(super) fn receive_payload(
        &mut self,
        placement: &Placement,
        in_flight: &InFlightTable,
        room: &mut VectorRoom,
    ) -> io::Result<(usize, Arrived)> {
        self.expect_payload();
        let Self {
            socket,
            input,
            received_bytes,
            room_bytes,
            ..
        } = self;
        debug_assert!(input.is_empty());
        let buffers = in_flight
            .buffers(placement.request)
            .ok_or_else(lost_request)?;
        let wanted = placement.length_bytes as usize;
        let mut vector = Vector::new(room);
        let covered = vector
            .push_guest(buffers, u64::from(placement.offset_bytes), wanted)
            .map_err(io::Error::other)?;
        let mut asked = covered;
        if covered == wanted && vector.has_room() {
            let free = input.free(*room_bytes);
            asked += free.len();
            vector.push_mut(free);
        }
        let arrived = Arrived::of(vector.receive(socket.as_fd()), asked)?;
        let payload_bytes = arrived.length_bytes.min(covered);
        input.filled(arrived.length_bytes - payload_bytes);
        *received_bytes += arrived.length_bytes as u64;
        Ok((payload_bytes, arrived))
    }

    /// Sends what waits, as far as the socket takes it. `true` when nothing is left.
    ///
    /// # Errors
    /// [`is_memory_lost`] when data of the guest is gone. What is there in its place is not sent,
    /// and so nothing can be any more.
    pub(super) fn send(
        &mut self,
        in_flight: &mut InFlightTable,
        room: &mut VectorRoom,
    ) -> io::Result<bool> {
        while !self.output.pieces.is_empty() {
            let (vector, asked) = self.output.gather(in_flight, room)?;
            let sent = match vector.send(self.socket.as_fd()) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.sent_bytes += sent as u64;
            self.output.sent(sent, in_flight);
            if sent < asked {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a system call says that finds no page at an address.
fn lost_memory() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

/// Whether a receive or a send failed since guest memory is gone. Nothing was received then.
pub(super) fn is_memory_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFAULT)
}

fn lost_request() -> io::Error {
    io::Error::other("bytes for a request that is not in flight")
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    /// How many bytes; 0 when nothing was there.
    pub(super) length_bytes: usize,
    /// The socket had no more than that: another call would bring nothing.
    pub(super) drained: bool,
}

impl Arrived {
    fn of(result: io::Result<usize>, asked_bytes: usize) -> io::Result<Self> {
        match result {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the target closed the connection",
            )),
            Ok(length_bytes) => Ok(Self {
                length_bytes,
                drained: length_bytes < asked_bytes,
            }),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(Self {
                    length_bytes: 0,
                    drained: true,
                }),
                io::ErrorKind::Interrupted => Ok(Self {
                    length_bytes: 0,
                    drained: false,
                }),
                _ => Err(error),
            },
        }
    }
}

/// Bytes that arrived and were not consumed yet, at the start of a fixed room.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    room: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    fn new() -> Self {
        Self {
            room: vec![0; RECEIVE_BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// What was not consumed yet.
    pub(super) fn bytes(&self) -> &[u8] {
        self.room.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn consume(&mut self, length_bytes: usize) {
        self.start = self.end.min(self.start + length_bytes);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Up to `most_bytes` of the room behind what is there, which is first moved to the front. A
    /// header is at most 1,072 bytes and payload is consumed as it comes, so there always is room.
    fn free(&mut self, most_bytes: usize) -> &mut [u8] {
        self.room.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let end = self.room.len().min(self.end + most_bytes);
        self.room.get_mut(self.end..end).unwrap_or_default()
    }

    fn filled(&mut self, length_bytes: usize) {
        self.end = self.room.len().min(self.end + length_bytes);
    }
}

/// Whether a placement of which nothing has arrived is worth a receive of its own.
pub(super) fn is_worth_placing(placement: &Placement) -> bool {
    placement.may_be_direct && placement.length_bytes as usize >= DIRECT_MIN_BYTES
}

/// A piece of the outbound stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// `length` bytes of [`SendQueue::private`] from `start` on.
    Private { start: usize, length: usize },
    /// Zeros.
    Zeros { length: usize },
    /// A run of a request's data. The request counts how many of these wait.
    Guest {
        request: RequestTag,
        offset: u64,
        length: usize,
    },
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Self::Private { length, .. } | Self::Zeros { length } | Self::Guest { length, .. } => {
                *length
            }
        }
    }

    fn skip(&mut self, count: usize) {
        match self {
            Self::Private { start, length } => {
                (*start, *length) = (*start + count, *length - count)
            }
            Self::Zeros { length } => *length -= count,
            Self::Guest { offset, length, .. } => {
                (*offset, *length) = (*offset + count as u64, *length - count);
            }
        }
    }
}

/// The outbound stream, as pieces.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    pieces: VecDeque<Piece>,
    private: Vec<u8>,
    /// Something in it is not what the guest wanted written.
    is_spoilt: bool,
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn push_private(&mut self, bytes: &[u8]) {
        let start = self.private.len();
        self.private.extend_from_slice(bytes);
        match self.pieces.back_mut() {
            Some(Piece::Private { start: s, length }) if *s + *length == start => {
                *length += bytes.len();
            }
            _ => self.pieces.push_back(Piece::Private {
                start,
                length: bytes.len(),
            }),
        }
    }

    /// As many pieces as one system call takes, and how many bytes they are.
    fn gather<'a>(
        &'a self,
        in_flight: &'a InFlightTable,
        room: &'a mut VectorRoom,
    ) -> io::Result<(Vector<'a>, usize)> {
        if self.is_spoilt {
            return Err(lost_memory());
        }
        let mut vector = Vector::new(room);
        let mut total = 0;
        for piece in &self.pieces {
            let taken = match *piece {
                _ if !vector.has_room() => 0,
                Piece::Private { start, length } => {
                    vector.push(self.private.get(start..start + length).unwrap_or_default());
                    length
                }
                Piece::Zeros { length } => {
                    let zeros = ZEROS.get(..length).unwrap_or(&ZEROS);
                    vector.push(zeros);
                    zeros.len()
                }
                Piece::Guest {
                    request,
                    offset,
                    length,
                } => {
                    let buffers = in_flight.buffers(request).ok_or_else(lost_request)?;
                    if buffers.is_lost() {
                        return Err(lost_memory());
                    }
                    vector
                        .push_guest(buffers, offset, length)
                        .map_err(io::Error::other)?
                }
            };
            total += taken;
            if taken < piece.length() {
                break;
            }
        }
        Ok((vector, total))
    }

    /// `count` bytes have left.
    fn sent(&mut self, mut count: usize, in_flight: &mut InFlightTable) {
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.length() {
                piece.skip(count);
                return;
            }
            count -= piece.length();
            if let Piece::Guest { request, .. } = *piece {
                in_flight.piece_sent(request);
            }
            self.pieces.pop_front();
        }
        self.private.clear();
    }
}

/// A [`SendQueue`] together with the requests whose data it points to.
pub(super) struct Sink<'a> {
    pub(super) output: &'a mut SendQueue,
    pub(super) in_flight: &'a mut InFlightTable,
}

impl Transmit for Sink<'_> {
    fn has_room(&self) -> bool {
        self.output.pieces.len() < MAX_PIECES && self.output.private.len() < MAX_PRIVATE_BYTES
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.output.push_private(bytes);
    }

    fn zeros(&mut self, length_bytes: u32) {
        let length = length_bytes as usize;
        self.output.pieces.push_back(Piece::Zeros { length });
    }

    fn payload(&mut self, request: RequestTag, offset_bytes: u32, length_bytes: u32) {
        let (offset, length) = (u64::from(offset_bytes), length_bytes as usize);
        self.in_flight.piece_queued(request);
        self.output.pieces.push_back(Piece::Guest {
            request,
            offset,
            length,
        });
    }

    fn payload_with_digest(
        &mut self,
        request: RequestTag,
        offset_bytes: u32,
        length_bytes: u32,
        crc32c: Crc32c,
    ) -> u32 {
        let output = &mut *self.output;
        let start = output.private.len();
        output.private.resize(start + length_bytes as usize, 0);
        let copy = output.private.get_mut(start..).unwrap_or_default();
        // The digest would fit whatever is there instead.
        let buffers = self.in_flight.buffers(request);
        let copied = buffers.map(|buffers| buffers.copy_out(u64::from(offset_bytes), copy));
        output.is_spoilt |= !matches!(copied, Some(Ok(())));
        let crc = crc32c(0, copy);
        let piece = Piece::Private {
            start,
            length: copy.len(),
        };
        output.pieces.push_back(piece);
        crc
    }
}
