//! The target's own PDU codec (RFC 7143 section 11): a basic header segment with named fields,
//! framing with AHS, padding and digests. No state, and nothing shared with the initiator.

use crate::bytes::{be24, be32, len32, padded, put, u8_at};
use crate::data::Data;
use crate::outbox::Outbox;
use thiserror::Error;

/// Length of a basic header segment.
pub(crate) const BHS_BYTES: usize = 48;
/// The longest additional header segment: TotalAHSLength counts four-byte words in one byte.
pub(crate) const MAX_AHS_BYTES: usize = 255 * 4;
/// The tag that means "none", for ITT and TTT.
pub(crate) const RESERVED_TAG: u32 = 0xffff_ffff;

/// Opcodes an initiator sends and a target sends (RFC 7143 section 11.2.1.2).
pub(crate) mod opcode {
    pub(crate) const NOP_OUT: u8 = 0x00;
    pub(crate) const SCSI_COMMAND: u8 = 0x01;
    pub(crate) const TASK_MANAGEMENT: u8 = 0x02;
    pub(crate) const LOGIN: u8 = 0x03;
    pub(crate) const TEXT: u8 = 0x04;
    pub(crate) const DATA_OUT: u8 = 0x05;
    pub(crate) const LOGOUT: u8 = 0x06;
    pub(crate) const NOP_IN: u8 = 0x20;
    pub(crate) const SCSI_RESPONSE: u8 = 0x21;
    pub(crate) const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    pub(crate) const LOGIN_RESPONSE: u8 = 0x23;
    pub(crate) const TEXT_RESPONSE: u8 = 0x24;
    pub(crate) const DATA_IN: u8 = 0x25;
    pub(crate) const LOGOUT_RESPONSE: u8 = 0x26;
    pub(crate) const R2T: u8 = 0x31;
    pub(crate) const ASYNC_MESSAGE: u8 = 0x32;
    pub(crate) const REJECT: u8 = 0x3f;
}

/// The F bit, in byte 1 of every PDU that has one.
pub(crate) const FINAL: u8 = 0x80;

/// A basic header segment. Fields without a method are reached with [`Bhs::put`] and `bytes`.
#[derive(Clone)]
pub(crate) struct Bhs(pub(crate) [u8; BHS_BYTES]);

impl Bhs {
    /// A header of zeros with this opcode and these flags (byte 1).
    pub(crate) fn new(opcode: u8, flags: u8) -> Self {
        let mut bytes = [0; BHS_BYTES];
        bytes[0] = opcode;
        bytes[1] = flags;
        Self(bytes)
    }

    /// Sets the field that starts at byte `at`.
    pub(crate) fn put(mut self, at: usize, value: &[u8]) -> Self {
        put(&mut self.0, at, value);
        self
    }

    /// Sets a four-byte field.
    pub(crate) fn put32(self, at: usize, value: u32) -> Self {
        self.put(at, &value.to_be_bytes())
    }

    /// Sets the initiator task tag.
    pub(crate) fn tag(self, initiator_task_tag: u32) -> Self {
        self.put32(16, initiator_task_tag)
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// The I bit: outside the CmdSN order.
    pub(crate) fn immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    pub(crate) fn flags(&self) -> u8 {
        self.0[1]
    }

    pub(crate) fn is_final(&self) -> bool {
        self.flags() & FINAL != 0
    }

    pub(crate) fn lun(&self) -> [u8; 8] {
        let mut lun = [0; 8];
        lun.copy_from_slice(&self.0[8..16]);
        lun
    }

    pub(crate) fn initiator_task_tag(&self) -> u32 {
        be32(&self.0, 16)
    }

    pub(crate) fn target_transfer_tag(&self) -> u32 {
        be32(&self.0, 20)
    }

    pub(crate) fn cmd_sn(&self) -> u32 {
        be32(&self.0, 24)
    }
}

/// Which digests are in force, or which of them to get wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) header: bool,
    pub(crate) data: bool,
}

/// Appends one PDU to `out`. The lengths in the header are filled in here; `damage` turns the
/// named digests into wrong ones.
pub(crate) fn emit(
    out: &mut Outbox,
    bhs: &Bhs,
    ahs: &[u8],
    data: &Data<'_>,
    digests: Digests,
    damage: Digests,
) {
    let ahs = ahs.get(..ahs.len().min(MAX_AHS_BYTES)).unwrap_or(ahs);
    let words = u8::try_from(padded(ahs.len()) / 4).unwrap_or(u8::MAX);
    let lengths = len32(data.len()) & 0x00ff_ffff | u32::from(words) << 24;
    let bhs = bhs.clone().put32(4, lengths);
    out.push_bytes(&bhs.0);
    out.push_bytes(ahs);
    out.push_bytes(padding(ahs.len()));
    if digests.header {
        let parts = [&bhs.0, ahs, padding(ahs.len())];
        push_digest(out, parts.into_iter(), damage.header);
    }
    out.push(data);
    out.push_bytes(padding(data.len()));
    if digests.data && !data.is_empty() {
        let padding = std::iter::once(padding(data.len()));
        push_digest(out, data.slices().chain(padding), damage.data);
    }
}

fn padding(length: usize) -> &'static [u8] {
    const ZEROS: [u8; 3] = [0; 3];
    ZEROS.get(..padded(length) - length).unwrap_or_default()
}

/// CRC32C goes out least significant byte first (RFC 7143 section 13.1).
fn push_digest<'a>(out: &mut Outbox, segment: impl Iterator<Item = &'a [u8]>, wrong: bool) {
    let digest = segment.fold(0, crc32c::crc32c_append);
    let digest = if wrong { !digest } else { digest };
    out.push_bytes(&digest.to_le_bytes());
}

/// Why the bytes from the initiator are no PDU. The connection ends with any of these.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// The header does not match its digest: the stream cannot be trusted from here on.
    #[error("header digest error in {opcode:#04x}")]
    HeaderDigest { opcode: u8 },
    /// The data segment does not match its digest.
    #[error("data digest error in {opcode:#04x}")]
    DataDigest { opcode: u8 },
    /// More data than we declared to take.
    #[error("data segment of {length_bytes} bytes in {opcode:#04x}, we take {limit_bytes}")]
    TooLong {
        opcode: u8,
        length_bytes: usize,
        limit_bytes: usize,
    },
}

/// A PDU as it lies in the receive buffer.
pub(crate) struct Received<'a> {
    pub(crate) bhs: Bhs,
    pub(crate) data: &'a [u8],
    /// Bytes of the buffer it took, padding and digests included.
    pub(crate) total_bytes: usize,
}

/// Takes one PDU from the front of `buffer`. `Ok(None)` means it is not all there yet.
pub(crate) fn parse(
    buffer: &[u8],
    digests: Digests,
    limit_bytes: usize,
) -> Result<Option<Received<'_>>, FramingError> {
    let Some(header) = buffer.first_chunk::<BHS_BYTES>() else {
        return Ok(None);
    };
    let bhs = Bhs(*header);
    let opcode = bhs.opcode();
    let length_bytes = be24(header, 5) as usize;
    if length_bytes > limit_bytes {
        return Err(FramingError::TooLong {
            opcode,
            length_bytes,
            limit_bytes,
        });
    }
    let header_bytes = BHS_BYTES + usize::from(u8_at(header, 4)) * 4;
    let Some(after_header) = check(buffer, 0, header_bytes, digests.header) else {
        return Ok(None);
    };
    let data_start = after_header.ok_or(FramingError::HeaderDigest { opcode })?;
    let with_digest = digests.data && length_bytes > 0;
    let Some(after_data) = check(buffer, data_start, padded(length_bytes), with_digest) else {
        return Ok(None);
    };
    let total_bytes = after_data.ok_or(FramingError::DataDigest { opcode })?;
    let data = buffer
        .get(data_start..data_start + length_bytes)
        .unwrap_or_default();
    Ok(Some(Received {
        bhs,
        data,
        total_bytes,
    }))
}

/// Where the segment at `start` ends, its digest included: `None` when it is not all there,
/// `Some(None)` when the digest is wrong.
fn check(buffer: &[u8], start: usize, length: usize, digest: bool) -> Option<Option<usize>> {
    let end = start + length;
    let segment = buffer.get(start..end)?;
    if !digest {
        return Some(Some(end));
    }
    let claimed = buffer.get(end..)?.first_chunk::<4>()?;
    let right = crc32c::crc32c(segment).to_le_bytes() == *claimed;
    Some(right.then_some(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Digests = Digests {
        header: true,
        data: true,
    };

    fn sample(digests: Digests, damage: Digests) -> Vec<u8> {
        let mut out = Outbox::default();
        let bhs = Bhs::new(opcode::NOP_OUT, FINAL).tag(7);
        let data = Data::from(&b"hello"[..]);
        emit(&mut out, &bhs, &[1, 2, 3, 4], &data, digests, damage);
        out.content()
    }

    #[test]
    fn takes_what_it_emits_and_nothing_before_the_last_byte() {
        let bytes = sample(BOTH, Digests::default());
        assert_eq!(bytes.len(), 48 + 4 + 4 + 8 + 4);
        for end in 0..bytes.len() {
            assert!(
                parse(&bytes[..end], BOTH, 5).unwrap().is_none(),
                "complete at {end}"
            );
        }
        let pdu = parse(&bytes, BOTH, 5).unwrap().unwrap();
        assert_eq!((pdu.data, pdu.total_bytes), (&b"hello"[..], bytes.len()));
        assert_eq!(pdu.bhs.initiator_task_tag(), 7);
    }

    #[test]
    fn zeros_without_a_copy_have_the_digest_of_zeros() {
        let emitted = |data: Data<'_>| {
            let mut out = Outbox::default();
            let bhs = Bhs::new(opcode::DATA_IN, FINAL);
            emit(&mut out, &bhs, &[], &data, BOTH, Digests::default());
            out.content()
        };
        assert_eq!(
            emitted(Data::Zeros(70_001)),
            emitted(vec![0; 70_001].into())
        );
    }

    #[test]
    fn rejects_wrong_digests_by_name() {
        let header = sample(
            BOTH,
            Digests {
                header: true,
                data: false,
            },
        );
        let data = sample(
            BOTH,
            Digests {
                header: false,
                data: true,
            },
        );
        let error = |bytes: &[u8]| parse(bytes, BOTH, 5).err();
        assert_eq!(
            error(&header),
            Some(FramingError::HeaderDigest { opcode: 0 })
        );
        assert_eq!(error(&data), Some(FramingError::DataDigest { opcode: 0 }));
    }

    #[test]
    fn refuses_one_byte_more_than_declared() {
        let bytes = sample(Digests::default(), Digests::default());
        assert!(parse(&bytes, Digests::default(), 5).is_ok());
        assert!(parse(&bytes, Digests::default(), 4).is_err());
    }
}
