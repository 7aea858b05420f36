//! SCSI Data-Out, SCSI Data-In and Ready To Transfer (RFC 7143 sections 11.7 and 11.8).

use super::{BHS_LENGTH_BYTES, Bhs, FINAL, Numbers, Opcode, PduError, RESERVED_TAG, Residual};
use super::{data_segment_length, get_u32, put_lun, put_u32, set_data_segment_length};
use crate::sequence::SerialNumber;

/// The A bit of a Data-In: the target wants a SNACK of type DataACK (ErrorRecoveryLevel > 0).
const ACKNOWLEDGE: u8 = 0x40;
/// The S bit of a Data-In: the status is in here too.
const STATUS: u8 = 0x01;

/// Data to the target, unsolicited or asked for by an R2T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataOut {
    /// F: the last PDU of its sequence.
    pub is_final: bool,
    /// The LUN of the command, or what the R2T carried.
    pub lun: u64,
    /// The tag of the command.
    pub initiator_task_tag: u32,
    /// The R2T's tag; [`RESERVED_TAG`] when unsolicited.
    pub target_transfer_tag: u32,
    /// The StatSN that we expect next.
    pub exp_stat_sn: SerialNumber,
    /// Counts the PDUs of a sequence from 0.
    pub data_sn: u32,
    /// Where in the command's data these bytes are.
    pub buffer_offset: u32,
    /// How many bytes follow.
    pub length_bytes: u32,
}

impl DataOut {
    /// The header as it goes on the wire.
    pub fn emit(&self) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = Opcode::DataOut as u8;
        bhs[1] = if self.is_final { FINAL } else { 0 };
        set_data_segment_length(&mut bhs, self.length_bytes);
        // RFC 7143 section 11.7.4: the LUN goes with the Target Transfer Tag.
        if self.target_transfer_tag != RESERVED_TAG {
            put_lun(&mut bhs, self.lun);
        }
        put_u32::<16>(&mut bhs, self.initiator_task_tag);
        put_u32::<20>(&mut bhs, self.target_transfer_tag);
        put_u32::<28>(&mut bhs, self.exp_stat_sn.0);
        put_u32::<36>(&mut bhs, self.data_sn);
        put_u32::<40>(&mut bhs, self.buffer_offset);
        bhs
    }
}

/// Data from the target, perhaps with the status of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataIn {
    /// F: the last PDU of its sequence.
    pub is_final: bool,
    /// The tag of the command.
    pub initiator_task_tag: u32,
    /// StatSN (only with `status`) and the command window.
    pub numbers: Numbers,
    /// The status and residual, when the S bit is set.
    pub status: Option<(u8, Residual)>,
    /// Counts the Data-In PDUs of a command from 0.
    pub data_sn: u32,
    /// Where in the command's data these bytes belong.
    pub buffer_offset: u32,
    /// How many bytes follow.
    pub length_bytes: u32,
}

impl DataIn {
    /// Takes the header apart.
    pub fn parse(bhs: &Bhs) -> Result<Self, PduError> {
        let bad = |field, value| PduError::BadField {
            pdu: "SCSI Data-In",
            field,
            value,
        };
        let is_final = bhs[1] & FINAL != 0;
        if bhs[1] & ACKNOWLEDGE != 0 {
            // RFC 7143 section 11.7.2: only "for sessions with ErrorRecoveryLevel=1 or higher".
            return Err(bad("A", 1));
        }
        let status = if bhs[1] & STATUS == 0 {
            None
        } else if is_final {
            Some((bhs[3], Residual::parse(bhs).ok_or(bad("O and U", 3))?))
        } else {
            // RFC 7143 section 11.7.3: "If it is set to 1, the F bit MUST also be set to 1."
            return Err(bad("S without F", 1));
        };
        Ok(Self {
            is_final,
            initiator_task_tag: get_u32::<16>(bhs),
            numbers: Numbers::parse(bhs),
            status,
            data_sn: get_u32::<36>(bhs),
            buffer_offset: get_u32::<40>(bhs),
            length_bytes: data_segment_length(bhs),
        })
    }
}

/// The target is ready for a part of a command's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyToTransfer {
    /// To be copied into the Data-Out PDUs.
    pub lun: u64,
    /// The tag of the command.
    pub initiator_task_tag: u32,
    /// To be copied into the Data-Out PDUs; never [`RESERVED_TAG`].
    pub target_transfer_tag: u32,
    /// The command window, and the *next* StatSN, which an R2T does not consume.
    pub numbers: Numbers,
    /// Counts the R2Ts of a command from 0.
    pub r2t_sn: u32,
    /// Where the wanted data starts.
    pub buffer_offset: u32,
    /// How much is wanted; never 0.
    pub desired_data_transfer_length: u32,
}

impl ReadyToTransfer {
    /// Takes the header apart.
    pub fn parse(bhs: &Bhs) -> Result<Self, PduError> {
        let bad = |field, value| PduError::BadField {
            pdu: "R2T",
            field,
            value,
        };
        let target_transfer_tag = get_u32::<20>(bhs);
        if target_transfer_tag == RESERVED_TAG {
            return Err(bad("Target Transfer Tag", target_transfer_tag));
        }
        let desired_data_transfer_length = get_u32::<44>(bhs);
        if desired_data_transfer_length == 0 {
            // RFC 7143 section 11.8.4: "The value 0 is not allowed".
            return Err(bad("Desired Data Transfer Length", 0));
        }
        if data_segment_length(bhs) != 0 {
            return Err(bad("DataSegmentLength", data_segment_length(bhs)));
        }
        Ok(Self {
            lun: super::get_lun(bhs),
            initiator_task_tag: get_u32::<16>(bhs),
            target_transfer_tag,
            numbers: Numbers::parse(bhs),
            r2t_sn: get_u32::<36>(bhs),
            buffer_offset: get_u32::<40>(bhs),
            desired_data_transfer_length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_out_carries_the_lun_only_with_a_transfer_tag() {
        let mut pdu = DataOut {
            is_final: true,
            lun: 1 << 48,
            initiator_task_tag: 1,
            target_transfer_tag: 2,
            exp_stat_sn: SerialNumber(3),
            data_sn: 4,
            buffer_offset: 5,
            length_bytes: 6,
        };
        let bhs = pdu.emit();
        assert_eq!(
            bhs[..16],
            [5, 0x80, 0, 0, 0, 0, 0, 6, 0, 1, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            bhs[16..32],
            [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]
        );
        assert_eq!(bhs[32..], [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0]);
        pdu.target_transfer_tag = RESERVED_TAG;
        assert_eq!(pdu.emit()[8..16], [0; 8]);
    }

    #[test]
    fn a_data_in_has_its_status_only_at_the_end() {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = 0x25;
        bhs[1] = STATUS;
        assert!(DataIn::parse(&bhs).is_err());
        bhs[1] = STATUS | FINAL;
        assert_eq!(
            DataIn::parse(&bhs).unwrap().status,
            Some((0, Residual::None))
        );
        bhs[1] = FINAL;
        assert_eq!(DataIn::parse(&bhs).unwrap().status, None);
        bhs[1] = FINAL | ACKNOWLEDGE;
        assert!(DataIn::parse(&bhs).is_err());
    }

    #[test]
    fn an_r2t_asks_for_something_and_carries_nothing() {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        assert!(ReadyToTransfer::parse(&bhs).is_err());
        bhs[47] = 1;
        assert!(ReadyToTransfer::parse(&bhs).is_ok());
        bhs[7] = 1;
        assert!(ReadyToTransfer::parse(&bhs).is_err());
        bhs[7] = 0;
        bhs[20..24].fill(0xff);
        assert!(ReadyToTransfer::parse(&bhs).is_err());
    }
}
