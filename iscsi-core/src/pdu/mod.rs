//! Protocol data units: parse and emit, no state. One file per family of RFC 7143 section 11.
//!
//! A PDU is a Basic Header Segment ([`Bhs`], 48 bytes), optional additional header segments, an
//! optional header digest, and an optional data segment with padding and digest. The files here
//! know the BHS only; where the data segment lies in a stream is the business of
//! [`Lengths`] and of the framer. To add a PDU, add a file with a struct that has `parse` or
//! `emit`, and a row to [`Opcode`].

use alloc::vec::Vec;

use thiserror::Error;

use crate::sequence::SerialNumber;

pub mod async_message;
pub mod command;
pub mod data;
pub mod login;
pub mod logout;
pub mod nop;
pub mod reject;
pub mod task_management;
pub mod text;

/// The Basic Header Segment: the first 48 bytes of each PDU (RFC 7143 section 11.2.1).
pub type Bhs = [u8; BHS_LENGTH_BYTES];

/// The length of a [`Bhs`].
pub const BHS_LENGTH_BYTES: usize = 48;

/// The length of a header or data digest (RFC 7143 section 11.2.3).
pub const DIGEST_LENGTH_BYTES: usize = 4;

/// RFC 7143 section 11.2.1.8: the initiator task tag (or target transfer tag) that means "none".
pub const RESERVED_TAG: u32 = 0xffff_ffff;

/// The F bit (final PDU of a sequence), byte 1.
pub const FINAL: u8 = 0x80;

/// The I bit (immediate delivery), byte 0 of requests.
pub const IMMEDIATE: u8 = 0x40;

/// The low six bits of byte 0 (RFC 7143 section 11.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the RFC's table")]
pub enum Opcode {
    NopOut = 0x00,
    ScsiCommand = 0x01,
    TaskManagementRequest = 0x02,
    LoginRequest = 0x03,
    TextRequest = 0x04,
    DataOut = 0x05,
    LogoutRequest = 0x06,
    Snack = 0x10,
    NopIn = 0x20,
    ScsiResponse = 0x21,
    TaskManagementResponse = 0x22,
    LoginResponse = 0x23,
    TextResponse = 0x24,
    DataIn = 0x25,
    LogoutResponse = 0x26,
    R2t = 0x31,
    AsyncMessage = 0x32,
    Reject = 0x3f,
}

impl Opcode {
    /// The opcode of a PDU that a target may send.
    pub fn of_target(bhs: &Bhs) -> Result<Self, PduError> {
        Ok(match bhs[0] & 0x3f {
            0x20 => Self::NopIn,
            0x21 => Self::ScsiResponse,
            0x22 => Self::TaskManagementResponse,
            0x23 => Self::LoginResponse,
            0x24 => Self::TextResponse,
            0x25 => Self::DataIn,
            0x26 => Self::LogoutResponse,
            0x31 => Self::R2t,
            0x32 => Self::AsyncMessage,
            0x3f => Self::Reject,
            code => return Err(PduError::UnknownOpcode { code }),
        })
    }
}

/// A header that RFC 7143 does not allow a target to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PduError {
    /// An opcode that is not one of a target's.
    #[error("opcode {code:#04x} is not one that a target sends")]
    UnknownOpcode {
        /// The low six bits of byte 0.
        code: u8,
    },
    /// A field with a value that the RFC does not define or forbids here.
    #[error("{pdu}: the field {field} has the value {value:#x}, which RFC 7143 does not allow")]
    BadField {
        /// The PDU's name in the RFC.
        pdu: &'static str,
        /// The field's name in the RFC.
        field: &'static str,
        /// What it had.
        value: u32,
    },
}

/// Where the parts of a PDU lie behind its BHS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Additional header segments, in bytes (TotalAHSLength counts four-byte words).
    pub ahs_bytes: usize,
    /// The data segment without its padding.
    pub data_bytes: usize,
}

impl Lengths {
    /// Reads TotalAHSLength and DataSegmentLength (RFC 7143 sections 11.2.1.5 and 11.2.1.6).
    ///
    /// The greatest possible values are 1,020 and 16,777,215 bytes: a caller checks them against
    /// what it declared before it makes room for anything.
    pub fn of(bhs: &Bhs) -> Self {
        Self {
            ahs_bytes: usize::from(bhs[4]) * 4,
            data_bytes: data_segment_length(bhs) as usize,
        }
    }

    /// The bytes of padding that follow the data segment (RFC 7143 section 11.1: "padded to the
    /// closest integer number of 4-byte words").
    pub fn padding_bytes(&self) -> usize {
        padding(self.data_bytes)
    }
}

/// How many bytes fill `length_bytes` up to a multiple of four.
pub fn padding(length_bytes: usize) -> usize {
    length_bytes.wrapping_neg() % 4
}

/// DataSegmentLength, bytes 5 to 7.
pub fn data_segment_length(bhs: &Bhs) -> u32 {
    u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]])
}

/// Sets DataSegmentLength, bytes 5 to 7. `length_bytes` is below 2^24.
pub fn set_data_segment_length(bhs: &mut Bhs, length_bytes: u32) {
    debug_assert!(length_bytes < 1 << 24);
    let [_, a, b, c] = length_bytes.to_be_bytes();
    (bhs[5], bhs[6], bhs[7]) = (a, b, c);
}

/// The initiator task tag, bytes 16 to 19 of every PDU (RFC 7143 section 11.2.1.8).
pub fn initiator_task_tag(bhs: &Bhs) -> u32 {
    get_u32::<16>(bhs)
}

/// The big-endian 32-bit field at byte `AT`.
#[allow(
    clippy::indexing_slicing,
    reason = "the const assertion checks the bounds"
)]
pub(crate) fn get_u32<const AT: usize>(bhs: &Bhs) -> u32 {
    const { assert!(AT + 4 <= BHS_LENGTH_BYTES) };
    u32::from_be_bytes([bhs[AT], bhs[AT + 1], bhs[AT + 2], bhs[AT + 3]])
}

/// Writes the big-endian 32-bit field at byte `AT`.
#[allow(
    clippy::indexing_slicing,
    reason = "the const assertion checks the bounds"
)]
pub(crate) fn put_u32<const AT: usize>(bhs: &mut Bhs, value: u32) {
    const { assert!(AT + 4 <= BHS_LENGTH_BYTES) };
    [bhs[AT], bhs[AT + 1], bhs[AT + 2], bhs[AT + 3]] = value.to_be_bytes();
}

/// The big-endian 16-bit field at byte `AT`.
#[allow(
    clippy::indexing_slicing,
    reason = "the const assertion checks the bounds"
)]
pub(crate) fn get_u16<const AT: usize>(bhs: &Bhs) -> u16 {
    const { assert!(AT + 2 <= BHS_LENGTH_BYTES) };
    u16::from_be_bytes([bhs[AT], bhs[AT + 1]])
}

/// Writes the big-endian 16-bit field at byte `AT`.
#[allow(
    clippy::indexing_slicing,
    reason = "the const assertion checks the bounds"
)]
pub(crate) fn put_u16<const AT: usize>(bhs: &mut Bhs, value: u16) {
    const { assert!(AT + 2 <= BHS_LENGTH_BYTES) };
    [bhs[AT], bhs[AT + 1]] = value.to_be_bytes();
}

/// The 64-bit LUN field at bytes 8 to 15, as it goes on the wire (SAM-5 section 4.7).
pub(crate) fn put_lun(bhs: &mut Bhs, lun: u64) {
    let [a, b, c, d, e, f, g, h] = lun.to_be_bytes();
    (bhs[8], bhs[9], bhs[10], bhs[11]) = (a, b, c, d);
    (bhs[12], bhs[13], bhs[14], bhs[15]) = (e, f, g, h);
}

/// The LUN field, bytes 8 to 15.
pub(crate) fn get_lun(bhs: &Bhs) -> u64 {
    u64::from(get_u32::<8>(bhs)) << 32 | u64::from(get_u32::<12>(bhs))
}

/// The three numbers that almost every PDU of a target carries (RFC 7143 section 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// StatSN, bytes 24 to 27. Some PDUs leave it undefined.
    pub stat_sn: SerialNumber,
    /// ExpCmdSN, bytes 28 to 31.
    pub exp_cmd_sn: SerialNumber,
    /// MaxCmdSN, bytes 32 to 35.
    pub max_cmd_sn: SerialNumber,
}

impl Numbers {
    /// Reads them where they always are.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            stat_sn: SerialNumber(get_u32::<24>(bhs)),
            exp_cmd_sn: SerialNumber(get_u32::<28>(bhs)),
            max_cmd_sn: SerialNumber(get_u32::<32>(bhs)),
        }
    }
}

/// The O and U bits with the Residual Count (RFC 7143 section 11.4.5), in SCSI Response and
/// Data-In.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// All that was expected was transferred.
    None,
    /// That much of the Expected Data Transfer Length was not transferred.
    Underflow {
        /// Residual Count.
        length_bytes: u32,
    },
    /// That much more would have been transferred had it been expected.
    Overflow {
        /// Residual Count.
        length_bytes: u32,
    },
}

impl Residual {
    const OVERFLOW: u8 = 0x04;
    const UNDERFLOW: u8 = 0x02;

    /// `None` when both bits are set, which section 11.4.1 calls a protocol error.
    fn parse(bhs: &Bhs) -> Option<Self> {
        let length_bytes = get_u32::<44>(bhs);
        match bhs[1] & (Self::OVERFLOW | Self::UNDERFLOW) {
            0 => Some(Self::None),
            Self::UNDERFLOW => Some(Self::Underflow { length_bytes }),
            Self::OVERFLOW => Some(Self::Overflow { length_bytes }),
            _ => None,
        }
    }
}

/// A whole PDU without digests and additional headers, as login and text phases send it:
/// DataSegmentLength is set, padding is added.
pub fn assemble(bhs: &Bhs, data: &[u8]) -> Vec<u8> {
    let mut header = *bhs;
    set_data_segment_length(&mut header, u32::try_from(data.len()).unwrap_or(u32::MAX));
    let padding_bytes = padding(data.len());
    let mut pdu = Vec::with_capacity(BHS_LENGTH_BYTES + data.len() + padding_bytes);
    pdu.extend_from_slice(&header);
    pdu.extend_from_slice(data);
    pdu.resize(pdu.len() + padding_bytes, 0);
    pdu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_to_four() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn an_assembled_pdu_is_a_multiple_of_four() {
        let pdu = assemble(&[0; BHS_LENGTH_BYTES], b"a=b\0x");
        assert_eq!(pdu.len(), 56);
        assert_eq!(pdu[4..8], [0, 0, 0, 5]);
        assert_eq!(pdu[48..], *b"a=b\0x\0\0\0");
    }

    #[test]
    fn the_initiators_own_opcodes_are_refused_from_a_target() {
        for code in [0x00, 0x01, 0x06, 0x10, 0x1c, 0x27, 0x30, 0x33, 0x3e] {
            let mut bhs = [0; BHS_LENGTH_BYTES];
            bhs[0] = code;
            assert_eq!(
                Opcode::of_target(&bhs),
                Err(PduError::UnknownOpcode { code })
            );
        }
    }
}
