//! SCSI Command and SCSI Response (RFC 7143 sections 11.3 and 11.4).

use super::{BHS_LENGTH_BYTES, Bhs, FINAL, Numbers, Opcode, PduError, Residual};
use super::{get_u32, put_lun, put_u32, set_data_segment_length};
use crate::sequence::SerialNumber;

/// The R bit: the command reads.
const READ: u8 = 0x40;
/// The W bit: the command writes.
const WRITE: u8 = 0x20;
/// Task attribute "simple" (RFC 7143 section 11.3.1).
const SIMPLE: u8 = 1;

/// Which way the data of a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// No data.
    None,
    /// From the target.
    Read,
    /// To the target.
    Write,
}

/// One SCSI command, attribute SIMPLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiCommandPdu {
    /// F: no unsolicited Data-Out PDUs follow.
    pub is_final: bool,
    /// R and W.
    pub direction: Direction,
    /// The LUN field.
    pub lun: u64,
    /// Names the task.
    pub initiator_task_tag: u32,
    /// The bytes that the command will move.
    pub expected_data_transfer_length: u32,
    /// The command's number.
    pub cmd_sn: SerialNumber,
    /// The StatSN that we expect next.
    pub exp_stat_sn: SerialNumber,
    /// The SCSI command descriptor block.
    pub cdb: [u8; 16],
    /// The length of the immediate data that follows.
    pub immediate_length_bytes: u32,
}

impl ScsiCommandPdu {
    /// The header as it goes on the wire.
    pub fn emit(&self) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = Opcode::ScsiCommand as u8;
        bhs[1] = SIMPLE
            | if self.is_final { FINAL } else { 0 }
            | match self.direction {
                Direction::None => 0,
                Direction::Read => READ,
                Direction::Write => WRITE,
            };
        set_data_segment_length(&mut bhs, self.immediate_length_bytes);
        put_lun(&mut bhs, self.lun);
        put_u32::<16>(&mut bhs, self.initiator_task_tag);
        put_u32::<20>(&mut bhs, self.expected_data_transfer_length);
        put_u32::<24>(&mut bhs, self.cmd_sn.0);
        put_u32::<28>(&mut bhs, self.exp_stat_sn.0);
        if let Some(tail) = bhs.last_chunk_mut::<16>() {
            *tail = self.cdb;
        }
        bhs
    }
}

/// The end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiResponse {
    /// Whether the target got as far as a SCSI status.
    pub response: Response,
    /// The SCSI status; meaningful when `response` is [`Response::Completed`].
    pub status: u8,
    /// The tag of the command.
    pub initiator_task_tag: u32,
    /// StatSN and the command window.
    pub numbers: Numbers,
    /// How many R2T and Data-In PDUs the target sent for the command.
    pub exp_data_sn: u32,
    /// What was not transferred, or could not be.
    pub residual: Residual,
}

/// The iSCSI service response (RFC 7143 section 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// "Command Completed at Target": the status counts.
    Completed,
    /// "Target Failure", or a vendor's own code.
    Failed(u8),
}

impl ScsiResponse {
    /// Takes the header apart.
    pub fn parse(bhs: &Bhs) -> Result<Self, PduError> {
        let bad = |field, value| PduError::BadField {
            pdu: "SCSI Response",
            field,
            value,
        };
        let response = match bhs[2] {
            0 => Response::Completed,
            code @ (1 | 0x80..) => Response::Failed(code),
            code => return Err(bad("Response", u32::from(code))),
        };
        if bhs[1] & FINAL == 0 {
            return Err(bad("F", 0));
        }
        Ok(Self {
            response,
            status: bhs[3],
            initiator_task_tag: get_u32::<16>(bhs),
            numbers: Numbers::parse(bhs),
            exp_data_sn: get_u32::<36>(bhs),
            residual: Residual::parse(bhs).ok_or(bad("O and U", 3))?,
        })
    }
}

/// The sense data in the data segment of a SCSI Response: a 16-bit length, then that many bytes
/// (RFC 7143 section 11.4.7). Whatever is shorter than it says is cut to what is there.
pub fn sense_data(data_segment: &[u8]) -> &[u8] {
    let Some((length, rest)) = data_segment.split_first_chunk::<2>() else {
        return &[];
    };
    let length_bytes = usize::from(u16::from_be_bytes(*length));
    rest.get(..length_bytes).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(flags: u8, response: u8, status: u8) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = 0x21;
        bhs[1] = flags;
        bhs[2] = response;
        bhs[3] = status;
        bhs[44..48].copy_from_slice(&512u32.to_be_bytes());
        bhs
    }

    #[test]
    fn a_read_has_r_and_f_and_its_cdb_at_the_end() {
        let bhs = ScsiCommandPdu {
            is_final: true,
            direction: Direction::Read,
            lun: 0x0001_0000_0000_0000,
            initiator_task_tag: 0xaabb_ccdd,
            expected_data_transfer_length: 4096,
            cmd_sn: SerialNumber(0x10),
            exp_stat_sn: SerialNumber(0x20),
            cdb: [0x88; 16],
            immediate_length_bytes: 0,
        }
        .emit();
        assert_eq!(bhs[..8], [0x01, 0xc1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bhs[8..16], [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            bhs[16..32],
            [
                0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 16, 0, 0, 0, 0, 16, 0, 0, 0, 32
            ]
        );
        assert_eq!(bhs[32..], [0x88; 16]);
    }

    #[test]
    fn residual_bits_exclude_each_other() {
        let parse = |flags| ScsiResponse::parse(&response(flags, 0, 0));
        assert_eq!(parse(0x80).unwrap().residual, Residual::None);
        assert_eq!(
            parse(0x82).unwrap().residual,
            Residual::Underflow { length_bytes: 512 }
        );
        assert_eq!(
            parse(0x84).unwrap().residual,
            Residual::Overflow { length_bytes: 512 }
        );
        assert!(parse(0x86).is_err());
    }

    #[test]
    fn responses_between_the_defined_and_the_vendor_codes_are_refused() {
        let parse = |code| ScsiResponse::parse(&response(0x80, code, 0)).map(|r| r.response);
        assert_eq!(parse(0), Ok(Response::Completed));
        assert_eq!(parse(1), Ok(Response::Failed(1)));
        assert!(parse(2).is_err() && parse(0x7f).is_err());
        assert_eq!(parse(0x80), Ok(Response::Failed(0x80)));
    }

    #[test]
    fn sense_data_is_never_longer_than_what_arrived() {
        assert_eq!(sense_data(&[]), &[] as &[u8]);
        assert_eq!(sense_data(&[0]), &[] as &[u8]);
        assert_eq!(sense_data(&[0, 2, 7, 8, 9]), &[7, 8]);
        assert_eq!(sense_data(&[0, 9, 7, 8]), &[7, 8]);
    }
}
