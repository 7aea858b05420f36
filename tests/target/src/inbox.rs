//! The receive side of a connection: one large buffer, filled by one receive, emptied PDU by PDU.

use crate::pdu::{self, BHS_BYTES, Digests, FramingError, MAX_AHS_BYTES, Received};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one receive may bring at most. Together with [`LEAST_ROOM_BYTES`] half of a CPU's second
/// cache, from which large writes are looked at.
const BUFFER_BYTES: usize = 768 * 1024;
/// What one receive may bring at least, when the socket has it. A part of a PDU that leaves less
/// room behind it is moved to the front.
const LEAST_ROOM_BYTES: usize = 256 * 1024;
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
        let wanted = BUFFER_BYTES.max(largest_pdu) + LEAST_ROOM_BYTES;
        let wanted = wanted.max(self.buffer.len());
        self.buffer.resize(wanted, 0);
    }

    /// One receive. `Ok(0)` is the end of the stream. Safe to cancel: nothing is lost.
    pub(crate) async fn fill(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < LEAST_ROOM_BYTES {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Data;
    use crate::outbox::Outbox;
    use crate::pdu::{Bhs, FINAL, opcode};

    const LIMIT_BYTES: usize = 300 * 1024;

    /// PDUs of all lengths up to the limit, tagged by their number.
    fn stream(count: usize) -> Vec<u8> {
        let mut out = Outbox::default();
        for number in 0..count {
            let bhs = Bhs::new(opcode::DATA_OUT, FINAL).tag(crate::bytes::len32(number));
            let data = Data::Zeros(LIMIT_BYTES * number / (count - 1));
            let none = Digests::default();
            pdu::emit(&mut out, &bhs, &[], &data, none, none);
        }
        out.content()
    }

    #[tokio::test]
    async fn gives_every_pdu_once_and_always_has_room() {
        const COUNT: usize = 40;
        let bytes = stream(COUNT);
        let mut socket = bytes.as_slice();
        let mut inbox = Inbox::new(LIMIT_BYTES);
        let mut number = 0;
        while inbox.fill(&mut socket).await.unwrap() > 0 {
            while let Some(pdu) = inbox.next(Digests::default()).unwrap() {
                assert_eq!(pdu.bhs.initiator_task_tag(), number);
                let total_bytes = pdu.total_bytes;
                inbox.consume(total_bytes);
                number += 1;
            }
        }
        assert_eq!(number as usize, COUNT);
        assert!(socket.is_empty(), "no room while bytes were there");
    }
}
