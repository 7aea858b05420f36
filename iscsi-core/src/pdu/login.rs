//! Login Request and Login Response (RFC 7143 sections 11.12 and 11.13).

use super::{BHS_LENGTH_BYTES, Bhs, IMMEDIATE, Numbers, Opcode, PduError};
use super::{get_u16, get_u32, put_u16, put_u32};
use crate::sequence::SerialNumber;

const PDU: &str = "Login Response";

/// The T bit (transit), byte 1.
const TRANSIT: u8 = 0x80;

/// The C bit (continue), byte 1.
const CONTINUE: u8 = 0x40;

/// The only version there is: Version-min, Version-max and Version-active are all 0x00
/// (RFC 7143 sections 11.12.4 and 11.13.2).
pub const VERSION: u8 = 0;

/// A login stage: the values of CSG and NSG (RFC 7143 section 11.12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// SecurityNegotiation.
    Security = 0,
    /// LoginOperationalNegotiation.
    Operational = 1,
    /// FullFeaturePhase; only ever a next stage.
    FullFeature = 3,
}

impl Stage {
    fn of(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Security),
            1 => Some(Self::Operational),
            3 => Some(Self::FullFeature),
            _ => None,
        }
    }
}

/// Where a request or a response stands in the login phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    /// CSG: the stage that the text belongs to.
    pub current: Stage,
    /// NSG when the T bit is set: the sender is ready to go there.
    pub next: Option<Stage>,
    /// The C bit: the text goes on in the sender's next PDU.
    pub continues: bool,
}

impl Stages {
    fn emit(self) -> u8 {
        let transit = self.next.map_or(0, |next| TRANSIT | next as u8);
        let continues = if self.continues { CONTINUE } else { 0 };
        transit | continues | (self.current as u8) << 2
    }

    /// NSG is reserved without the T bit. T and C exclude each other (section 11.12.2), and no
    /// stage leads back or to itself (section 11.12.3).
    fn parse(flags: u8) -> Result<Self, PduError> {
        let bad = |field| PduError::BadField {
            pdu: PDU,
            field,
            value: u32::from(flags),
        };
        let current = Stage::of(flags >> 2 & 3)
            .filter(|stage| *stage != Stage::FullFeature)
            .ok_or(bad("CSG"))?;
        let continues = flags & CONTINUE != 0;
        if flags & TRANSIT == 0 {
            return Ok(Self {
                current,
                next: None,
                continues,
            });
        }
        if continues {
            return Err(bad("T and C"));
        }
        let next = Stage::of(flags & 3)
            .filter(|next| *next as u8 > current as u8)
            .ok_or(bad("NSG"))?;
        Ok(Self {
            current,
            next: Some(next),
            continues,
        })
    }
}

/// One request of the login phase; its text follows as the data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// T, C, CSG and NSG.
    pub stages: Stages,
    /// The initiator session id.
    pub isid: [u8; 6],
    /// 0 for a new session, or for the reinstatement of an old one.
    pub tsih: u16,
    /// The same in all requests of a login.
    pub initiator_task_tag: u32,
    /// Names the connection within its session.
    pub cid: u16,
    /// The CmdSN of the session's first command: login requests are immediate and consume none.
    pub cmd_sn: SerialNumber,
    /// The StatSN that we expect next; 0 in the first request.
    pub exp_stat_sn: SerialNumber,
}

impl LoginRequest {
    /// The header as it goes on the wire, with a DataSegmentLength of 0.
    pub fn emit(&self) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = Opcode::LoginRequest as u8 | IMMEDIATE;
        bhs[1] = self.stages.emit();
        bhs[2] = VERSION;
        bhs[3] = VERSION;
        [bhs[8], bhs[9], bhs[10], bhs[11], bhs[12], bhs[13]] = self.isid;
        put_u16::<14>(&mut bhs, self.tsih);
        put_u32::<16>(&mut bhs, self.initiator_task_tag);
        put_u16::<20>(&mut bhs, self.cid);
        put_u32::<24>(&mut bhs, self.cmd_sn.0);
        put_u32::<28>(&mut bhs, self.exp_stat_sn.0);
        bhs
    }
}

/// One response of the login phase.
///
/// T, C, CSG, NSG and the numbers mean something only when the status class is 0, hence
/// [`LoginResponse::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginResponse {
    flags: u8,
    /// Version-max.
    pub version_max: u8,
    /// Version-active.
    pub version_active: u8,
    /// To be the ISID of the request.
    pub isid: [u8; 6],
    /// Not 0 in the final response of a new session.
    pub tsih: u16,
    /// To be the tag of the request.
    pub initiator_task_tag: u32,
    /// StatSN, which each response consumes, and the command window.
    pub numbers: Numbers,
    /// Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub status_class: u8,
    /// Status-Detail.
    pub status_detail: u8,
}

impl LoginResponse {
    /// Takes the header apart; the opcode is the caller's to check.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            flags: bhs[1],
            version_max: bhs[2],
            version_active: bhs[3],
            isid: [bhs[8], bhs[9], bhs[10], bhs[11], bhs[12], bhs[13]],
            tsih: get_u16::<14>(bhs),
            initiator_task_tag: get_u32::<16>(bhs),
            numbers: Numbers::parse(bhs),
            status_class: bhs[36],
            status_detail: bhs[37],
        }
    }

    /// T, C, CSG and NSG. An error names the field with a reserved or contradictory value.
    pub fn stages(&self) -> Result<Stages, PduError> {
        Stages::parse(self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_fields_where_the_figure_has_them() {
        let bhs = LoginRequest {
            stages: Stages {
                current: Stage::Security,
                next: Some(Stage::Operational),
                continues: false,
            },
            isid: [0x80, 1, 2, 3, 4, 5],
            tsih: 0x0607,
            initiator_task_tag: 0x0809_0a0b,
            cid: 0x0c0d,
            cmd_sn: SerialNumber(0x1011_1213),
            exp_stat_sn: SerialNumber(0x1415_1617),
        }
        .emit();
        #[rustfmt::skip]
        let golden = [
            0x43, 0x81, 0, 0, 0, 0, 0, 0,
            0x80, 1, 2, 3, 4, 5, 6, 7,
            8, 9, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0,
            0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
            0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bhs, golden);
    }

    #[test]
    fn the_flags_of_each_step_of_a_login_have_their_bits() {
        for (current, next, continues, flags) in [
            (Stage::Security, None, false, 0x00),
            (Stage::Security, None, true, 0x40),
            (Stage::Security, Some(Stage::Operational), false, 0x81),
            (Stage::Operational, None, false, 0x04),
            (Stage::Operational, Some(Stage::FullFeature), false, 0x87),
        ] {
            let stages = Stages {
                current,
                next,
                continues,
            };
            assert_eq!(stages.emit(), flags);
            assert_eq!(Stages::parse(flags), Ok(stages));
        }
    }

    #[test]
    fn nsg_means_nothing_without_the_t_bit() {
        assert_eq!(Stages::parse(0x02).map(|s| s.next), Ok(None));
    }

    #[test]
    fn refuses_reserved_and_contradictory_stages() {
        for (flags, wrong) in [
            (0x08, "CSG"),
            (0x0c, "CSG"),
            (0xc1, "T and C"),
            (0x80, "NSG"),
            (0x82, "NSG"),
            (0x84, "NSG"),
            (0x85, "NSG"),
        ] {
            assert_eq!(
                Stages::parse(flags),
                Err(PduError::BadField {
                    pdu: PDU,
                    field: wrong,
                    value: u32::from(flags)
                }),
            );
        }
    }

    #[test]
    fn a_response_is_read_where_the_figure_has_its_fields() {
        #[rustfmt::skip]
        let bhs: Bhs = [
            0x23, 0x87, 0, 0, 0, 0, 0, 0,
            0x80, 1, 2, 3, 4, 5, 6, 7,
            8, 9, 0x0a, 0x0b, 0, 0, 0, 0,
            0, 0, 0, 1, 0, 0, 0, 2,
            0, 0, 0, 3, 2, 0x0b, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let response = LoginResponse::parse(&bhs);
        assert_eq!(response.isid, [0x80, 1, 2, 3, 4, 5]);
        assert_eq!(
            (response.tsih, response.initiator_task_tag),
            (0x0607, 0x0809_0a0b)
        );
        assert_eq!(response.numbers.stat_sn, SerialNumber(1));
        assert_eq!(response.numbers.exp_cmd_sn, SerialNumber(2));
        assert_eq!(response.numbers.max_cmd_sn, SerialNumber(3));
        assert_eq!((response.status_class, response.status_detail), (2, 0x0b));
        assert_eq!(response.stages().unwrap().next, Some(Stage::FullFeature));
    }
}
