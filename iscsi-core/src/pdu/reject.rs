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

/// What to do about a rejected SCSI Command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectAction {
    /// Send it again a little later: the target was short of something.
    TryAgain,
    /// End the session: what this PDU has to be mended by is a new one.
    EndSession,
    /// Report the failure: the same PDU would be rejected again.
    Fail,
}

/// A reason, in words, and what to do about it.
struct Row(u8, &'static str, RejectAction);

/// RFC 7143 section 11.17.1. "Again" in its table ("Can the original PDU be re-sent?") are 02h, 03h,
/// 06h and 0Ah; at ErrorRecoveryLevel 0 a digest error is the end of the session (section 7.8), and
/// nobody here sends a SNACK.
#[rustfmt::skip]
const TABLE: &[Row] = {
    use self::RejectAction::{EndSession, Fail, TryAgain};
    &[
        Row(0x02, "data digest error", EndSession),
        Row(0x03, "SNACK reject", Fail),
        Row(0x04, "protocol error", Fail),
        Row(0x05, "command not supported", Fail),
        // Of a command that is not immediate it makes no sense, but it says "too many".
        Row(0x06, "immediate command reject, too many immediate commands", TryAgain),
        Row(0x07, "task in progress", Fail),
        Row(0x08, "invalid data acknowledge", Fail),
        Row(0x09, "invalid PDU field", Fail),
        // "Can't generate Target Transfer Tag - out of resources".
        Row(0x0a, "long operation reject, out of resources", TryAgain),
        // Deprecated; of old, a negotiation that is to begin again.
        Row(0x0b, "negotiation reset", Fail),
        Row(0x0c, "waiting for logout", EndSession),
    ]
};

impl RejectReason {
    fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.0 == self.0)
    }

    /// What to do about a SCSI Command that was rejected for this reason; one that RFC 7143 does not
    /// know promises nothing for another try.
    pub fn action(self) -> RejectAction {
        self.row().map_or(RejectAction::Fail, |row| row.2)
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.row().map_or("reason unknown to RFC 7143", |row| row.1);
        write!(f, "{words} ({:#04x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    fn reasons(action: RejectAction) -> Vec<u8> {
        let all = 0..=u8::MAX;
        all.filter(|&code| RejectReason(code).action() == action)
            .collect()
    }

    #[test]
    fn a_shortage_is_tried_again_and_what_a_new_session_mends_ends_this_one() {
        assert_eq!(reasons(RejectAction::TryAgain), [0x06, 0x0a]);
        assert_eq!(reasons(RejectAction::EndSession), [0x02, 0x0c]);
        assert_eq!(reasons(RejectAction::Fail).len(), 252);
    }

    #[test]
    fn a_reason_is_named_and_an_unknown_one_is_numbered() {
        assert_eq!(RejectReason(0x09).to_string(), "invalid PDU field (0x09)");
        assert_eq!(
            RejectReason(0x0d).to_string(),
            "reason unknown to RFC 7143 (0x0d)"
        );
    }
}
