//! SendTargets: which targets a portal knows (RFC 7143 section 13.3 and appendix C).
//!
//! ```text
//! initiator                                  target
//! Text Request: SendTargets=All        ──▶
//!                                      ◀──   Text Response with a tag: there is more
//! Text Request: that tag, no text      ──▶
//!                                      ◀──   Text Response, final
//! Logout Request                       ──▶
//!                                      ◀──   Logout Response
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use thiserror::Error;

use crate::login::address::{AddressError, TargetAddress};
use crate::login::machine::CONNECTION_ID;
use crate::login::negotiated::Negotiated;
use crate::name::{IscsiName, NameError};
use crate::pdu::async_message::AsyncMessage;
use crate::pdu::logout::{LogoutReason, LogoutRequest, LogoutResponse};
use crate::pdu::nop::{NopIn, NopOut};
use crate::pdu::reject::{Reject, RejectReason};
use crate::pdu::text::{Continuation, TextRequest, TextResponse};
use crate::pdu::{BHS_LENGTH_BYTES, Bhs, Lengths, Opcode, PduError, RESERVED_TAG, assemble};
use crate::sequence::SerialNumber;
use crate::text::{
    MAX_KEY_LENGTH_BYTES, MAX_VALUE_LENGTH_BYTES, Pair, TextError, TextList, shortened,
};

/// How much a target may send in one discovery, headers included: hundreds of thousands of
/// targets. It ends a discovery that would go on for ever, with or without text in its responses.
pub const MAX_DISCOVERY_LENGTH_BYTES: usize = 64 * 1024 * 1024;

/// A target that a portal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredTarget {
    /// TargetName.
    pub name: IscsiName,
    /// The TargetAddress keys behind it, in order. None at all means: the portal that was asked.
    pub portals: Vec<TargetAddress>,
}

/// What to do after a PDU of the target.
#[derive(Debug)]
pub enum DiscoveryStep {
    /// Send these bytes and wait for the next PDU.
    Send(Vec<u8>),
    /// Wait for the next PDU.
    Wait,
    /// The answer is complete. Whoever is polite sends `logout` and waits for
    /// [`DiscoveryStep::LoggedOut`], but not for long.
    Found {
        /// All targets, in the order in which they came.
        targets: Vec<DiscoveredTarget>,
        /// A Logout Request.
        logout: Vec<u8>,
    },
    /// The session is over; close the connection.
    LoggedOut,
}

/// Why a discovery failed: but for the last two, the target did what RFC 7143 forbids.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    /// A header with a value that is not allowed.
    #[error("the target broke the iSCSI protocol: {0}")]
    Pdu(#[from] PduError),
    /// A PDU that has no place in a discovery.
    #[error("the target sent a PDU with opcode {opcode:#04x} during discovery")]
    UnexpectedPdu {
        /// The low six bits of byte 0.
        opcode: u8,
    },
    /// A response to something that we did not ask.
    #[error("the target answered a request that was not made")]
    WrongTag,
    /// StatSN does not count up by one.
    #[error("the target's StatSN is {received}, {expected} was next")]
    StatSn {
        /// What was next.
        expected: u32,
        /// What came.
        received: u32,
    },
    /// More in one PDU than we declared to take.
    #[error("a PDU of the target has {length_bytes} bytes of data, more than we declared")]
    SegmentTooLong {
        /// DataSegmentLength.
        length_bytes: usize,
    },
    /// More than [`MAX_DISCOVERY_LENGTH_BYTES`], or than was allowed by [`Discovery::limited_to`].
    #[error("the target's list of targets does not end within {limit_bytes} bytes")]
    NeverEnds {
        /// How much was allowed.
        limit_bytes: usize,
    },
    /// Text that is not a list of pairs.
    #[error("the target's list of targets is malformed: {0}")]
    Text(#[from] TextError),
    /// A key other than those of a target record.
    #[error("the target's list of targets has the unexpected key {:?}", shortened(.0))]
    UnexpectedKey(String),
    /// A TargetAddress with no TargetName before it.
    #[error("the target's list of targets starts with an address instead of a name")]
    AddressWithoutName,
    /// A TargetName that is none.
    #[error("the target's list has the malformed name {:?}: {reason}", shortened(.value))]
    BadName {
        /// What came.
        value: String,
        /// What is wrong with it.
        reason: NameError,
    },
    /// A TargetAddress that is none.
    #[error("the target's list has the malformed address {:?}: {reason}", shortened(.value))]
    BadAddress {
        /// What came.
        value: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// The target does not want to be asked.
    #[error("the target does not answer discovery: SendTargets={:?}", shortened(.0))]
    Refused(String),
    /// A Reject instead of an answer.
    #[error("the target rejected a request of the discovery: {0}")]
    Rejected(RejectReason),
    /// The caller handed in other bytes than the header announces, or went on after the end.
    #[error("the methods of a discovery were called in the wrong order or with partial data")]
    ApiMisuse,
}

/// One discovery, in full-feature phase of a discovery session.
///
/// Call [`Discovery::start`] and send what it returns, then hand in each PDU of the target. What
/// is to be sent has no digests: the caller adds them where the login agreed on some, the header
/// being the first 48 bytes.
pub struct Discovery {
    initiator_task_tag: u32,
    cmd_sn: SerialNumber,
    exp_stat_sn: SerialNumber,
    max_recv_data_segment_length_bytes: usize,
    phase: Phase,
    /// How much came so far.
    received_bytes: usize,
    /// How much may come, headers included.
    limit_bytes: usize,
    /// A pair that the last PDU did not complete.
    partial: Vec<u8>,
    targets: Vec<DiscoveredTarget>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asking,
    LoggingOut,
    Over,
}

impl Discovery {
    /// A discovery over the session that a login gave. `initiator_task_tag` is any value.
    pub fn new(session: &Negotiated, initiator_task_tag: u32) -> Self {
        Self {
            initiator_task_tag: not_reserved(initiator_task_tag),
            cmd_sn: session.cmd_sn,
            exp_stat_sn: session.exp_stat_sn,
            max_recv_data_segment_length_bytes: session.max_recv_data_segment_length_bytes as usize,
            phase: Phase::Asking,
            received_bytes: 0,
            limit_bytes: MAX_DISCOVERY_LENGTH_BYTES,
            partial: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Takes no more than `limit_bytes` of the target in all, headers included, and no more than
    /// [`MAX_DISCOVERY_LENGTH_BYTES`].
    pub fn limited_to(mut self, limit_bytes: usize) -> Self {
        self.limit_bytes = limit_bytes.min(MAX_DISCOVERY_LENGTH_BYTES);
        self
    }

    /// The first request: SendTargets=All, a whole PDU.
    pub fn start(&mut self) -> Vec<u8> {
        let mut list = TextList::default();
        list.push("SendTargets", "All");
        let start = Continuation {
            lun: 0,
            target_transfer_tag: RESERVED_TAG,
        };
        self.request(start, &list.next_segment(usize::MAX))
    }

    /// Takes a PDU of the target: its header, and its data segment without padding.
    ///
    /// After an error or [`DiscoveryStep::LoggedOut`] the discovery is over.
    pub fn receive(&mut self, bhs: &Bhs, data: &[u8]) -> Result<DiscoveryStep, DiscoveryError> {
        let phase = mem::replace(&mut self.phase, Phase::Over);
        self.count(phase, bhs, data)?;
        let (step, next) = match Opcode::of_target(bhs)? {
            Opcode::TextResponse if phase == Phase::Asking => self.take_text(bhs, data)?,
            Opcode::LogoutResponse if phase == Phase::LoggingOut => self.take_logout(bhs)?,
            Opcode::NopIn => (self.take_ping(&NopIn::parse(bhs))?, phase),
            Opcode::AsyncMessage => (self.take_async_message(bhs)?, phase),
            Opcode::Reject => return Err(DiscoveryError::Rejected(Reject::parse(bhs).reason)),
            opcode => {
                return Err(DiscoveryError::UnexpectedPdu {
                    opcode: opcode as u8,
                });
            }
        };
        self.phase = next;
        Ok(step)
    }

    fn count(&mut self, phase: Phase, bhs: &Bhs, data: &[u8]) -> Result<(), DiscoveryError> {
        if phase == Phase::Over || Lengths::of(bhs).data_bytes != data.len() {
            return Err(DiscoveryError::ApiMisuse);
        }
        if data.len() > self.max_recv_data_segment_length_bytes {
            return Err(DiscoveryError::SegmentTooLong {
                length_bytes: data.len(),
            });
        }
        self.received_bytes = self
            .received_bytes
            .saturating_add(BHS_LENGTH_BYTES + data.len());
        let limit_bytes = self.limit_bytes;
        if self.received_bytes > limit_bytes {
            return Err(DiscoveryError::NeverEnds { limit_bytes });
        }
        Ok(())
    }

    fn take_text(
        &mut self,
        bhs: &Bhs,
        data: &[u8],
    ) -> Result<(DiscoveryStep, Phase), DiscoveryError> {
        let response = TextResponse::parse(bhs)?;
        self.check_tag(response.initiator_task_tag, self.initiator_task_tag)?;
        self.consume_stat_sn(response.numbers.stat_sn)?;
        self.take_pairs(data)?;
        if !response.continues && !self.partial.is_empty() {
            return Err(TextError::Unterminated.into());
        }
        match response.continuation {
            Some(rest) => Ok((DiscoveryStep::Send(self.request(rest, &[])), Phase::Asking)),
            None => {
                let targets = mem::take(&mut self.targets);
                let logout = self.logout();
                Ok((DiscoveryStep::Found { targets, logout }, Phase::LoggingOut))
            }
        }
    }

    /// Takes the pairs that are complete and keeps the rest, which is one pair at most.
    fn take_pairs(&mut self, data: &[u8]) -> Result<(), DiscoveryError> {
        let mut pieces = data.split(|byte| *byte == 0);
        let rest = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            let mut pair = mem::take(&mut self.partial);
            pair.extend_from_slice(piece);
            if !pair.is_empty() {
                self.take_pair(Pair::parse(&pair)?)?;
            }
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > MAX_KEY_LENGTH_BYTES + 1 + MAX_VALUE_LENGTH_BYTES {
            return Err(TextError::ValueTooLong("one pair".into()).into());
        }
        Ok(())
    }

    fn take_pair(&mut self, pair: Pair<'_>) -> Result<(), DiscoveryError> {
        match pair.key {
            "TargetName" => self.targets.push(new_target(pair.value)?),
            "TargetAddress" => {
                let target = self
                    .targets
                    .last_mut()
                    .ok_or(DiscoveryError::AddressWithoutName)?;
                target.portals.push(parse_address(pair.value)?);
            }
            // Not part of a record, but told by some targets, and of no consequence.
            "TargetAlias" => {}
            "SendTargets" => return Err(DiscoveryError::Refused(shortened(pair.value).into())),
            key => return Err(DiscoveryError::UnexpectedKey(key.into())),
        }
        Ok(())
    }

    fn take_logout(&mut self, bhs: &Bhs) -> Result<(DiscoveryStep, Phase), DiscoveryError> {
        let response = LogoutResponse::parse(bhs)?;
        self.check_tag(response.initiator_task_tag, self.logout_task_tag())?;
        Ok((DiscoveryStep::LoggedOut, Phase::Over))
    }

    /// A ping of the target's does not consume a StatSN (RFC 7143 section 11.19.1).
    fn take_ping(&mut self, ping: &NopIn) -> Result<DiscoveryStep, DiscoveryError> {
        if ping.is_answer() {
            return Err(DiscoveryError::WrongTag);
        }
        if !ping.wants_answer() {
            return Ok(DiscoveryStep::Wait);
        }
        let answer = NopOut {
            lun: ping.lun,
            initiator_task_tag: RESERVED_TAG,
            target_transfer_tag: ping.target_transfer_tag,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            data_length_bytes: 0,
        };
        Ok(DiscoveryStep::Send(assemble(&answer.emit(), &[])))
    }

    /// Whatever it announces, the next thing that happens is that the connection closes.
    fn take_async_message(&mut self, bhs: &Bhs) -> Result<DiscoveryStep, DiscoveryError> {
        self.consume_stat_sn(AsyncMessage::parse(bhs)?.numbers.stat_sn)?;
        Ok(DiscoveryStep::Wait)
    }

    fn check_tag(&self, received: u32, expected: u32) -> Result<(), DiscoveryError> {
        if received == expected {
            Ok(())
        } else {
            Err(DiscoveryError::WrongTag)
        }
    }

    fn consume_stat_sn(&mut self, received: SerialNumber) -> Result<(), DiscoveryError> {
        let expected = self.exp_stat_sn;
        if received != expected {
            return Err(DiscoveryError::StatSn {
                expected: expected.0,
                received: received.0,
            });
        }
        self.exp_stat_sn = expected.next();
        Ok(())
    }

    fn request(&self, continuation: Continuation, text: &[u8]) -> Vec<u8> {
        let header = TextRequest {
            lun: continuation.lun,
            initiator_task_tag: self.initiator_task_tag,
            target_transfer_tag: continuation.target_transfer_tag,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
        };
        assemble(&header.emit(), text)
    }

    fn logout(&self) -> Vec<u8> {
        let header = LogoutRequest {
            reason: LogoutReason::CloseSession,
            initiator_task_tag: self.logout_task_tag(),
            cid: CONNECTION_ID,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
        };
        assemble(&header.emit(), &[])
    }

    fn logout_task_tag(&self) -> u32 {
        not_reserved(self.initiator_task_tag.wrapping_add(1))
    }
}

/// The reserved tag names nothing; 0 is as good as any other.
fn not_reserved(tag: u32) -> u32 {
    if tag == RESERVED_TAG { 0 } else { tag }
}

fn new_target(value: &str) -> Result<DiscoveredTarget, DiscoveryError> {
    let name = IscsiName::parse(value).map_err(|reason| DiscoveryError::BadName {
        value: shortened(value).into(),
        reason,
    })?;
    Ok(DiscoveredTarget {
        name,
        portals: Vec::new(),
    })
}

fn parse_address(value: &str) -> Result<TargetAddress, DiscoveryError> {
    TargetAddress::parse(value).map_err(|reason| DiscoveryError::BadAddress {
        value: shortened(value).into(),
        reason,
    })
}

#[cfg(test)]
mod tests;
