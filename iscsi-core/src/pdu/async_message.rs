//! Asynchronous Message (RFC 7143 section 11.9).

use super::{Bhs, Numbers, PduError, get_u16};

/// What the target announces of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncMessage {
    /// What happened.
    pub event: AsyncEvent,
    /// StatSN, which it consumes, and the command window.
    pub numbers: Numbers,
}

/// RFC 7143 section 11.9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// A SCSI asynchronous event: sense data is in the data segment.
    Scsi,
    /// We are to log out within `within_s` seconds.
    LogoutRequest {
        /// Parameter 3.
        within_s: u16,
    },
    /// The target will drop, or has dropped, the connection.
    ConnectionDrop {
        /// How long to wait before a new login.
        time2wait_s: u16,
    },
    /// The target will drop, or has dropped, all connections of the session.
    SessionDrop {
        /// How long to wait before a new login.
        time2wait_s: u16,
    },
    /// We are to renegotiate within `within_s` seconds.
    Renegotiate {
        /// Parameter 3.
        within_s: u16,
    },
    /// All our tasks on the LUN were ended (RFC 7144 section 4.1, iSCSIProtocolLevel 2).
    TasksTerminated,
    /// A vendor's own event; said to be ignorable.
    Vendor,
}

impl AsyncMessage {
    /// Takes the header apart.
    pub fn parse(bhs: &Bhs) -> Result<Self, PduError> {
        let parameter2 = get_u16::<40>(bhs);
        let parameter3 = get_u16::<42>(bhs);
        let event = match bhs[36] {
            0 => AsyncEvent::Scsi,
            1 => AsyncEvent::LogoutRequest {
                within_s: parameter3,
            },
            2 => AsyncEvent::ConnectionDrop {
                time2wait_s: parameter2,
            },
            3 => AsyncEvent::SessionDrop {
                time2wait_s: parameter2,
            },
            4 => AsyncEvent::Renegotiate {
                within_s: parameter3,
            },
            5 => AsyncEvent::TasksTerminated,
            248..=255 => AsyncEvent::Vendor,
            code => {
                return Err(PduError::BadField {
                    pdu: "Asynchronous Message",
                    field: "AsyncEvent",
                    value: u32::from(code),
                });
            }
        };
        Ok(Self {
            event,
            numbers: Numbers::parse(bhs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_reads_its_own_parameter() {
        let mut bhs = [0; super::super::BHS_LENGTH_BYTES];
        bhs[40..44].copy_from_slice(&[0, 7, 0, 9]);
        let mut event = |code| {
            bhs[36] = code;
            AsyncMessage::parse(&bhs).map(|message| message.event)
        };
        assert_eq!(event(1), Ok(AsyncEvent::LogoutRequest { within_s: 9 }));
        assert_eq!(event(3), Ok(AsyncEvent::SessionDrop { time2wait_s: 7 }));
        assert_eq!(event(248), Ok(AsyncEvent::Vendor));
        assert!(event(6).is_err() && event(247).is_err());
    }
}
