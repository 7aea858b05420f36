//! The receive side of a connection: one large buffer, filled by one receive, emptied PDU by PDU.

use crate::pdu::{self, BHS_BYTES, Digests, FramingError, MAX_AHS_BYTES, Received};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one receive may bring at most, and more where a PDU is larger.
const BUFFER_BYTES: usize = 512 * 1024;
/// Header digest, data digest, padding.
const TRAILERS_BYTES: usize = 12;

/// Bytes that came and were not looked at yet.
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    limit_bytes: usize,
}

impl Inbox {
    /// For data segments of up to `limit_bytes`.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let mut inbox = Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            limit_bytes: 0,
        };
        inbox.set_limit(limit_bytes);
        inbox
    }

    /// Changes the largest data segment that is taken.
    pub(crate) fn set_limit(&mut self, limit_bytes: usize) {
        let largest_pdu = BHS_BYTES + MAX_AHS_BYTES + limit_bytes + TRAILERS_BYTES;
        self.limit_bytes = limit_bytes;
        let wanted = BUFFER_BYTES.max(largest_pdu).max(self.buffer.len());
        self.buffer.resize(wanted, 0);
    }

    /// One receive. `Ok(0)` is the end of the stream. Safe to cancel: nothing is lost.
    pub(crate) async fn fill(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let received = from.read(room).await?;
        self.end += received;
        Ok(received)
    }

    /// The next complete PDU, if there is one. Call [`Inbox::consume`] when done with it.
    pub(crate) fn next(&self, digests: Digests) -> Result<Option<Received<'_>>, FramingError> {
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        pdu::parse(waiting, digests, self.limit_bytes)
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }
}
