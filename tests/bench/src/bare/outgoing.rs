//! What one wake-up sends: headers and the data between them, gathered into one system call.

use std::io::IoSlice;
use std::net::TcpStream;
use std::ops::Range;

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::FloorError;
use super::commands::Header;

/// Entries that one call takes (UIO_MAXIOV).
const MAX_IOVECS: usize = 1024;

/// PDUs that wait for the next send.
#[derive(Default)]
pub(super) struct Outgoing {
    headers: Vec<u8>,
    pieces: Vec<Piece>,
}

/// Data, and where the headers before it end.
struct Piece {
    headers_end: usize,
    data: Range<usize>,
}

impl Outgoing {
    /// Adds a PDU. `data` is a range of the memory that [`Outgoing::send`] gets, of whole words:
    /// there is no padding.
    pub(super) fn push(&mut self, header: &Header, data: Range<usize>) {
        self.headers.extend_from_slice(header);
        if !data.is_empty() {
            let headers_end = self.headers.len();
            self.pieces.push(Piece { headers_end, data });
        }
    }

    /// Sends all of it and waits where the socket's buffer is full. Says how many calls it took.
    pub(super) fn send(&mut self, socket: &TcpStream, memory: &[u8]) -> Result<u64, FloorError> {
        let mut slices = Vec::with_capacity(self.pieces.len() * 2 + 1);
        let mut start = 0;
        for piece in &self.pieces {
            slices.push(IoSlice::new(&self.headers[start..piece.headers_end]));
            slices.push(IoSlice::new(&memory[piece.data.clone()]));
            start = piece.headers_end;
        }
        if start < self.headers.len() {
            slices.push(IoSlice::new(&self.headers[start..]));
        }
        let mut rest = slices.as_mut_slice();
        let mut calls = 0;
        while !rest.is_empty() {
            let some = &rest[..rest.len().min(MAX_IOVECS)];
            let sent = retry_on_intr(|| {
                let mut control = SendAncillaryBuffer::default();
                sendmsg(socket, some, &mut control, SendFlags::NOSIGNAL)
            })?;
            IoSlice::advance_slices(&mut rest, sent);
            calls += 1;
        }
        drop(slices);
        self.headers.clear();
        self.pieces.clear();
        Ok(calls)
    }
}
