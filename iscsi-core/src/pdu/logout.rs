//! Logout Request and Logout Response (RFC 7143 sections 11.14 and 11.15).

use super::{BHS_LENGTH_BYTES, Bhs, FINAL, IMMEDIATE, Numbers, Opcode, PduError};
use super::{get_u16, get_u32, put_u16, put_u32};
use crate::sequence::SerialNumber;

/// Why we leave (RFC 7143 section 11.14.1). Recovery by removing a connection is not used: a
/// session has one connection, reinstatement replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogoutReason {
    /// "All commands associated with the session (if any) are terminated."
    CloseSession = 0,
    /// "All commands associated with the connection (if any) are terminated."
    CloseConnection = 1,
}

/// The end of a session, asked for by us. For immediate delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutRequest {
    /// Why.
    pub reason: LogoutReason,
    /// Names the request.
    pub initiator_task_tag: u32,
    /// The connection to close; ignored when the session is closed.
    pub cid: u16,
    /// Our next CmdSN.
    pub cmd_sn: SerialNumber,
    /// The StatSN that we expect next.
    pub exp_stat_sn: SerialNumber,
}

impl LogoutRequest {
    /// The header as it goes on the wire.
    pub fn emit(&self) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = Opcode::LogoutRequest as u8 | IMMEDIATE;
        bhs[1] = FINAL | self.reason as u8;
        put_u32::<16>(&mut bhs, self.initiator_task_tag);
        put_u16::<20>(&mut bhs, self.cid);
        put_u32::<24>(&mut bhs, self.cmd_sn.0);
        put_u32::<28>(&mut bhs, self.exp_stat_sn.0);
        bhs
    }
}

/// The target's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutResponse {
    /// 0: closed; 1: no such CID; 2: recovery not supported; 3: cleanup failed.
    pub response: u8,
    /// The tag of our request.
    pub initiator_task_tag: u32,
    /// StatSN and the command window.
    pub numbers: Numbers,
    /// How long to wait before a new login, in seconds.
    pub time2wait_s: u16,
    /// How long tasks are kept, in seconds.
    pub time2retain_s: u16,
}

impl LogoutResponse {
    /// Takes the header apart.
    pub fn parse(bhs: &Bhs) -> Result<Self, PduError> {
        let response = bhs[2];
        if response > 3 {
            return Err(PduError::BadField {
                pdu: "Logout Response",
                field: "Response",
                value: u32::from(response),
            });
        }
        Ok(Self {
            response,
            initiator_task_tag: get_u32::<16>(bhs),
            numbers: Numbers::parse(bhs),
            time2wait_s: get_u16::<40>(bhs),
            time2retain_s: get_u16::<42>(bhs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logout_names_its_reason_beside_the_f_bit() {
        let bhs = LogoutRequest {
            reason: LogoutReason::CloseConnection,
            initiator_task_tag: 1,
            cid: 7,
            cmd_sn: SerialNumber(2),
            exp_stat_sn: SerialNumber(3),
        }
        .emit();
        assert_eq!(bhs[..2], [0x46, 0x81]);
        assert_eq!(
            bhs[16..32],
            [0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
        );
    }

    #[test]
    fn a_response_beyond_the_table_is_refused() {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[2] = 3;
        assert!(LogoutResponse::parse(&bhs).is_ok());
        bhs[2] = 4;
        assert!(LogoutResponse::parse(&bhs).is_err());
    }
}
