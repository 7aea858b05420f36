//! Whole PDUs in memory, for the phases in which they are small and rare: login and discovery.

use alloc::vec::Vec;

use crate::crc32c::{Crc32c, wire_digest};
use crate::error::SessionError;
use crate::framer::{Frame, Framer, Trailer};
use crate::login::negotiated::Negotiated;
use crate::pdu::{BHS_LENGTH_BYTES, Bhs};

/// The most data that one PDU of a login or discovery may bring: what we declare as
/// MaxRecvDataSegmentLength.
pub const MAX_WHOLE_PDU_DATA_BYTES: u32 = 256 * 1024;

/// A PDU with its data segment, without padding and digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholePdu {
    /// The header.
    pub bhs: Bhs,
    /// The data segment.
    pub data: Vec<u8>,
}

/// Collects whole PDUs from a stream, and completes outgoing ones with their digests.
#[derive(Debug)]
pub struct WholePdus {
    framer: Framer,
    header_digest: bool,
    data_digest: bool,
    crc32c: Crc32c,
    bhs: Option<Bhs>,
    data: Vec<u8>,
}

impl WholePdus {
    /// For the login phase: no digests, whatever will be agreed on.
    pub fn of_login(crc32c: Crc32c) -> Self {
        Self::new(false, false, crc32c)
    }

    /// For full-feature phase.
    pub fn of_session(negotiated: &Negotiated, crc32c: Crc32c) -> Self {
        Self::new(negotiated.header_digest, negotiated.data_digest, crc32c)
    }

    fn new(header_digest: bool, data_digest: bool, crc32c: Crc32c) -> Self {
        let framer = Framer::new(header_digest, data_digest, MAX_WHOLE_PDU_DATA_BYTES, crc32c);
        Self {
            framer,
            header_digest,
            data_digest,
            crc32c,
            bhs: None,
            data: Vec::new(),
        }
    }

    /// Looks at the start of `bytes`; says how many of them were consumed, and gives the PDU that
    /// they completed. `None` when more bytes are needed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(usize, Option<WholePdu>), SessionError> {
        let mut consumed = 0;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            let (used, frame) = self.framer.next(rest)?;
            consumed += used;
            let rest = rest.get(used..).unwrap_or_default();
            match frame {
                Frame::Header(bhs) => self.bhs = Some(bhs),
                Frame::NeedBytes { .. } => return Ok((consumed, None)),
                Frame::Data { .. } if rest.is_empty() => return Ok((consumed, None)),
                Frame::Data { remaining_bytes } => {
                    let part = rest.get(..remaining_bytes).unwrap_or(rest);
                    self.framer.take(part);
                    self.data.extend_from_slice(part);
                    consumed += part.len();
                }
                Frame::End => {
                    let data = core::mem::take(&mut self.data);
                    let pdu = self.bhs.take().map(|bhs| WholePdu { bhs, data });
                    return Ok((consumed, pdu));
                }
            }
        }
    }

    /// Adds the digests that this phase uses to a PDU of ours, as [`crate::pdu::assemble`] made
    /// it.
    pub fn seal(&self, pdu: &[u8]) -> Vec<u8> {
        let (header, data) = pdu.split_at_checked(BHS_LENGTH_BYTES).unwrap_or((pdu, &[]));
        let mut sealed = header.to_vec();
        if self.header_digest {
            sealed.extend(wire_digest((self.crc32c)(0, header)));
        }
        sealed.extend_from_slice(data);
        if self.data_digest && !data.is_empty() {
            // The data is padded already: what is left of the trailer is the digest.
            let crc = (self.crc32c)(0, data);
            sealed.extend_from_slice(Trailer::new(data.len(), Some(crc), self.crc32c).as_bytes());
        }
        sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_received_in_any_fragmentation() {
        for (header_digest, data_digest) in [(false, false), (true, false), (true, true)] {
            let pdus = || WholePdus::new(header_digest, data_digest, crc32c::crc32c_append);
            let mut stream = Vec::new();
            for data in [&b""[..], b"a=b\0", b"SendTargets=All\0x"] {
                stream.extend(pdus().seal(&crate::pdu::assemble(&[0; BHS_LENGTH_BYTES], data)));
            }
            for piece in 1..stream.len() {
                let mut pdus = pdus();
                let (mut start, mut seen) = (0, Vec::new());
                for end in (piece..stream.len() + piece).step_by(piece) {
                    let end = end.min(stream.len());
                    loop {
                        let (used, pdu) = pdus.receive(&stream[start..end]).unwrap();
                        start += used;
                        match pdu {
                            Some(pdu) => seen.push(pdu.data),
                            None => break,
                        }
                    }
                }
                assert_eq!(seen, [&b""[..], b"a=b\0", b"SendTargets=All\0x"], "{piece}");
            }
        }
    }
}
