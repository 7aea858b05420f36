//! Reject (RFC 7143 section 11.17).

use core::fmt;

use super::{BHS_LENGTH_BYTES, Bhs, Numbers};

/// The target did not take a PDU of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: RejectReason,
    /// StatSN, which it consumes, and the command window.
    pub numbers: Numbers,
}

/// RFC 7143 section 11.17.1, in words by `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectReason(pub u8);

impl Reject {
    /// Takes the header apart. The header of the refused PDU is in the data segment.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            reason: RejectReason(bhs[2]),
            numbers: Numbers::parse(bhs),
        }
    }

    /// The header of the PDU that was refused, as far as the target sent it back.
    pub fn refused_header(data_segment: &[u8]) -> Option<&Bhs> {
        data_segment.first_chunk::<BHS_LENGTH_BYTES>()
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            0x02 => "data digest error",
            0x03 => "SNACK reject",
            0x04 => "protocol error",
            0x05 => "command not supported",
            0x06 => "immediate command reject, too many immediate commands",
            0x07 => "task in progress",
            0x08 => "invalid data acknowledge",
            0x09 => "invalid PDU field",
            0x0a => "long operation reject",
            0x0b => "negotiation reset",
            0x0c => "waiting for logout",
            _ => "reason unknown to RFC 7143",
        };
        write!(f, "{words} ({:#04x})", self.0)
    }
}
