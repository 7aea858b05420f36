//! Text Request and Text Response (RFC 7143 sections 11.10 and 11.11).

use super::{BHS_LENGTH_BYTES, Bhs, FINAL, IMMEDIATE, Numbers, Opcode, PduError, RESERVED_TAG};
use super::{get_lun, get_u32, put_lun, put_u32};
use crate::sequence::SerialNumber;

/// The C bit (continue), byte 1.
const CONTINUE: u8 = 0x40;

/// A request of the text phase, final and in one PDU, for immediate delivery: it needs no place in
/// the command window. Its text follows as the data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextRequest {
    /// Copied with the target transfer tag from the response that is continued; else 0.
    pub lun: u64,
    /// The same in all requests of one exchange.
    pub initiator_task_tag: u32,
    /// Copied from the response that is continued; [`RESERVED_TAG`] starts an exchange.
    pub target_transfer_tag: u32,
    /// Our next CmdSN, which an immediate request does not consume.
    pub cmd_sn: SerialNumber,
    /// The StatSN that we expect next.
    pub exp_stat_sn: SerialNumber,
}

impl TextRequest {
    /// The header as it goes on the wire, with a DataSegmentLength of 0.
    pub fn emit(&self) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = Opcode::TextRequest as u8 | IMMEDIATE;
        bhs[1] = FINAL;
        put_lun(&mut bhs, self.lun);
        put_u32::<16>(&mut bhs, self.initiator_task_tag);
        put_u32::<20>(&mut bhs, self.target_transfer_tag);
        put_u32::<24>(&mut bhs, self.cmd_sn.0);
        put_u32::<28>(&mut bhs, self.exp_stat_sn.0);
        bhs
    }
}

/// One response of the text phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextResponse {
    /// What to send to get the rest; `None` when this is the last response.
    pub continuation: Option<Continuation>,
    /// The C bit: the text may end in the middle of a pair.
    pub continues: bool,
    /// To be the tag of the request.
    pub initiator_task_tag: u32,
    /// StatSN, which each response consumes, and the command window.
    pub numbers: Numbers,
}

/// What a request copies from the response that it continues (RFC 7143 section 11.10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The LUN field.
    pub lun: u64,
    /// The target transfer tag.
    pub target_transfer_tag: u32,
}

impl TextResponse {
    /// Takes the header apart; the opcode is the caller's to check.
    ///
    /// The F bit and a target transfer tag exclude each other, the F bit and the C bit too
    /// (RFC 7143 sections 11.11.1, 11.11.2 and 11.11.4).
    pub fn parse(bhs: &Bhs) -> Result<Self, PduError> {
        let bad = |field, value| PduError::BadField {
            pdu: "Text Response",
            field,
            value,
        };
        let is_final = bhs[1] & FINAL != 0;
        let continues = bhs[1] & CONTINUE != 0;
        if is_final && continues {
            return Err(bad("F and C", u32::from(bhs[1])));
        }
        let target_transfer_tag = get_u32::<20>(bhs);
        if is_final != (target_transfer_tag == RESERVED_TAG) {
            return Err(bad("Target Transfer Tag", target_transfer_tag));
        }
        let continuation = Continuation {
            lun: get_lun(bhs),
            target_transfer_tag,
        };
        Ok(Self {
            continuation: (!is_final).then_some(continuation),
            continues,
            initiator_task_tag: get_u32::<16>(bhs),
            numbers: Numbers::parse(bhs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_fields_where_the_figure_has_them() {
        let bhs = TextRequest {
            lun: 0x0102_0304_0506_0708,
            initiator_task_tag: 0x0a0b_0c0d,
            target_transfer_tag: RESERVED_TAG,
            cmd_sn: SerialNumber(0x11),
            exp_stat_sn: SerialNumber(0x22),
        }
        .emit();
        #[rustfmt::skip]
        let golden = [
            0x44, 0x80, 0, 0, 0, 0, 0, 0,
            1, 2, 3, 4, 5, 6, 7, 8,
            0x0a, 0x0b, 0x0c, 0x0d, 0xff, 0xff, 0xff, 0xff,
            0, 0, 0, 0x11, 0, 0, 0, 0x22,
            0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bhs, golden);
    }

    fn response(flags: u8, target_transfer_tag: u32) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        (bhs[0], bhs[1], bhs[9], bhs[19]) = (0x24, flags, 5, 7);
        put_u32::<20>(&mut bhs, target_transfer_tag);
        put_u32::<24>(&mut bhs, 9);
        bhs
    }

    #[test]
    fn a_last_response_has_nothing_to_continue() {
        let last = TextResponse::parse(&response(0x80, RESERVED_TAG)).unwrap();
        assert_eq!(last.continuation, None);
        assert_eq!(
            (last.initiator_task_tag, last.numbers.stat_sn),
            (7, SerialNumber(9))
        );
    }

    #[test]
    fn a_continued_response_names_lun_and_tag_to_copy() {
        let part = TextResponse::parse(&response(0x40, 3)).unwrap();
        assert!(part.continues);
        let copied = Continuation {
            lun: 5 << 48,
            target_transfer_tag: 3,
        };
        assert_eq!(part.continuation, Some(copied));
    }

    #[test]
    fn refuses_contradictory_flags_and_tags() {
        for (flags, tag) in [(0xc0, RESERVED_TAG), (0x80, 3), (0x00, RESERVED_TAG)] {
            assert!(TextResponse::parse(&response(flags, tag)).is_err());
        }
    }
}
