//! NOP-Out and NOP-In (RFC 7143 sections 11.18 and 11.19).

use super::{BHS_LENGTH_BYTES, Bhs, FINAL, IMMEDIATE, Numbers, Opcode, RESERVED_TAG};
use super::{get_lun, get_u32, put_lun, put_u32, set_data_segment_length};
use crate::sequence::SerialNumber;

/// A ping of ours, or our answer to one of the target's. Always for immediate delivery, so that
/// it needs no place in the command window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NopOut {
    /// Copied from the NOP-In that is answered; 0 in a ping of ours.
    pub lun: u64,
    /// Names our ping; [`RESERVED_TAG`] in an answer, which itself wants no answer.
    pub initiator_task_tag: u32,
    /// Copied from the NOP-In that is answered; [`RESERVED_TAG`] in a ping of ours.
    pub target_transfer_tag: u32,
    /// Our next CmdSN: "immediate" PDUs carry it without consuming it.
    pub cmd_sn: SerialNumber,
    /// The StatSN that we expect next.
    pub exp_stat_sn: SerialNumber,
    /// The length of the ping data that follows.
    pub data_length_bytes: u32,
}

impl NopOut {
    /// The header as it goes on the wire.
    pub fn emit(&self) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = Opcode::NopOut as u8 | IMMEDIATE;
        bhs[1] = FINAL;
        set_data_segment_length(&mut bhs, self.data_length_bytes);
        put_lun(&mut bhs, self.lun);
        put_u32::<16>(&mut bhs, self.initiator_task_tag);
        put_u32::<20>(&mut bhs, self.target_transfer_tag);
        put_u32::<24>(&mut bhs, self.cmd_sn.0);
        put_u32::<28>(&mut bhs, self.exp_stat_sn.0);
        bhs
    }
}

/// A ping of the target, its answer to one of ours, or a mere update of the command window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NopIn {
    /// To be copied into our answer.
    pub lun: u64,
    /// The tag of our ping; [`RESERVED_TAG`] when this is no answer.
    pub initiator_task_tag: u32,
    /// To be copied into our answer; [`RESERVED_TAG`] when none is wanted.
    pub target_transfer_tag: u32,
    /// StatSN and the command window. The StatSN is consumed only by an answer to our ping.
    pub numbers: Numbers,
}

impl NopIn {
    /// Takes the header apart; no value of a NOP-In is forbidden by itself.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            lun: get_lun(bhs),
            initiator_task_tag: get_u32::<16>(bhs),
            target_transfer_tag: get_u32::<20>(bhs),
            numbers: Numbers::parse(bhs),
        }
    }

    /// Whether the target wants an answer (RFC 7143 section 11.19.2).
    pub fn wants_answer(&self) -> bool {
        self.target_transfer_tag != RESERVED_TAG
    }

    /// Whether this answers a ping of ours.
    pub fn is_answer(&self) -> bool {
        self.initiator_task_tag != RESERVED_TAG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_immediate_and_final() {
        let bhs = NopOut {
            lun: 0,
            initiator_task_tag: 0x0102_0304,
            target_transfer_tag: RESERVED_TAG,
            cmd_sn: SerialNumber(5),
            exp_stat_sn: SerialNumber(6),
            data_length_bytes: 0,
        }
        .emit();
        assert_eq!(bhs[..2], [0x40, 0x80]);
        assert_eq!(bhs[16..24], [1, 2, 3, 4, 255, 255, 255, 255]);
        assert_eq!(bhs[24..32], [0, 0, 0, 5, 0, 0, 0, 6]);
    }

    #[test]
    fn a_nop_in_tells_ping_from_answer() {
        let mut bhs = [0xff; BHS_LENGTH_BYTES];
        bhs[20..24].copy_from_slice(&[0, 0, 0, 9]);
        let ping = NopIn::parse(&bhs);
        assert!(ping.wants_answer() && !ping.is_answer());
        bhs[16..24].copy_from_slice(&[0, 0, 0, 7, 255, 255, 255, 255]);
        let answer = NopIn::parse(&bhs);
        assert!(!answer.wants_answer() && answer.is_answer());
    }
}
