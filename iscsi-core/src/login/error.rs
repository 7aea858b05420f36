//! Why a login failed, sorted by who is at fault.

use alloc::string::String;

use thiserror::Error;

use super::address::AddressError;
use super::status::LoginStatus;
use crate::pdu::PduError;
use crate::pdu::login::Stage;
use crate::pdu::reject::RejectReason;
use crate::text::{TextError, shortened};

/// Why a login failed. After an error the connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// The target did what RFC 7143 forbids.
    #[error("the target broke the iSCSI protocol during login: {0}")]
    TargetMisbehaved(#[from] Misbehaviour),
    /// The target said no.
    #[error("the target refused the login: {0}; {hint}", hint = .0.hint())]
    TargetRefused(LoginStatus),
    /// The target is within its rights, but there is nothing that both sides do.
    #[error("no common ground with the target: {0}")]
    Unsupported(#[from] Unsupported),
    /// The caller broke the contract of `Login`, or gave settings that cannot be sent.
    #[error("{0}")]
    ApiMisuse(#[from] ApiMisuse),
    /// The two sides did not prove themselves to each other, as far as we could see.
    #[error("authentication failed: {0}")]
    AuthenticationFailed(#[from] AuthenticationFailure),
}

impl LoginError {
    /// CHAP or authorization failed, on either side.
    pub fn is_authentication(&self) -> bool {
        match self {
            Self::AuthenticationFailed(_) => true,
            Self::TargetRefused(status) => status.is_authentication(),
            _ => false,
        }
    }

    /// There is no such target (status 0203).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::TargetRefused(status) if status.is_not_found())
    }

    /// The target cannot serve now (status 03xx).
    pub fn is_server_error(&self) -> bool {
        matches!(self, Self::TargetRefused(status) if status.is_server_error())
    }
}

/// What RFC 7143 forbids a target to do during login.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Misbehaviour {
    /// A header with a value that is not allowed, or bytes that are no iSCSI at all.
    #[error("{0}")]
    Pdu(#[from] PduError),
    /// Another PDU than a login response.
    #[error("it sent a PDU with opcode {opcode:#04x} instead of a login response")]
    NotALoginResponse {
        /// The low six bits of byte 0.
        opcode: u8,
    },
    /// A Reject instead of a login response.
    #[error("it rejected our login request: {0}")]
    Rejected(RejectReason),
    /// Text that is not a list of pairs.
    #[error("{0}")]
    Text(#[from] TextError),
    /// More in one PDU than 8,192 bytes, the limit during login (section 13.12).
    #[error("a login response has {length_bytes} bytes of text, more than 8192")]
    SegmentTooLong {
        /// DataSegmentLength.
        length_bytes: usize,
    },
    /// A field that is to be copied from the request was not.
    #[error("the {field} of its response is not that of our request")]
    NotEchoed {
        /// The field's name in the RFC.
        field: &'static str,
    },
    /// A version other than 0.
    #[error("it chose iSCSI version {version_active}, we offered only 0")]
    Version {
        /// Version-active.
        version_active: u8,
    },
    /// StatSN does not count up by one with each response.
    #[error("its StatSN is {received}, {expected} was next")]
    StatSn {
        /// What was next.
        expected: u32,
        /// What came.
        received: u32,
    },
    /// A response for another stage than that of the request.
    #[error("it answers for the stage {received:?}, we are in {expected:?}")]
    WrongStage {
        /// CSG of the request.
        expected: Stage,
        /// CSG of the response.
        received: Stage,
    },
    /// The T bit without being asked, or to another stage than asked for.
    #[error("it moves on to the stage {received:?} without being asked to")]
    UnaskedTransit {
        /// NSG of the response.
        received: Stage,
    },
    /// Text in a response to a request with the C bit.
    #[error("it answered before our list of keys was complete")]
    Interrupted,
    /// The login does not come to an end.
    #[error("the login is not done after {requests} requests")]
    NeverEnds {
        /// How many we sent.
        requests: u32,
    },
    /// TSIH 0 in the final response.
    #[error("its final response names no session (TSIH 0)")]
    NoTsih,
    /// A key that targets do not send, or not during login.
    #[error("it sent the key {key}, which it may not send here")]
    KeyNotAllowed {
        /// The key.
        key: &'static str,
    },
    /// A key that was settled before (section 6.3 forbids that).
    #[error("it negotiates the key {:?} a second time", shortened(.key))]
    Renegotiated {
        /// The key.
        key: String,
    },
    /// More keys than [`MAX_PAIRS`](crate::text::MAX_PAIRS) in one login.
    #[error("it sent more keys than a login can need")]
    TooManyKeys,
    /// An offer that wants an answer, with the response that ends the login.
    #[error("it offers {key} in the response that ends the login")]
    OfferAtTheEnd {
        /// The key.
        key: &'static str,
    },
    /// A value that is not of the key's type, or out of its range.
    #[error(
        "{key}={:?} is not a value that this key can have (section {section})",
        shortened(.value)
    )]
    BadValue {
        /// The key.
        key: &'static str,
        /// Where RFC 7143 defines it.
        section: &'static str,
        /// What came.
        value: String,
    },
    /// A value that is not one of those in our list.
    #[error("it answered {key}={:?}, we offered {offered}", shortened(.value))]
    NotOffered {
        /// The key.
        key: &'static str,
        /// Our list.
        offered: String,
        /// What came.
        value: String,
    },
    /// A result that the key's function cannot give for our offer.
    #[error("it answered {key}={value} to our {key}={offered}; section {section} excludes that")]
    WrongResult {
        /// The key.
        key: &'static str,
        /// Where RFC 7143 defines it.
        section: &'static str,
        /// Our value.
        offered: String,
        /// What came.
        value: String,
    },
    /// Irrelevant or NotUnderstood for a key of RFC 7143 that is neither.
    #[error("it answered {key}={answer}, but every target has to know that key")]
    NotNegotiated {
        /// The key.
        key: &'static str,
        /// The reserved word.
        answer: &'static str,
    },
    /// A key that the step of the login needs is missing.
    #[error("it sent no {key}")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A redirection to nowhere.
    #[error("it redirects without a TargetAddress")]
    RedirectWithoutAddress,
    /// A redirection to an address that is none.
    #[error("it redirects to an address that is none: {0}")]
    RedirectAddress(AddressError),
    /// Another portal group than the session belongs to.
    #[error("this portal belongs to portal group {received}, the disk to {expected}")]
    PortalGroupTag {
        /// Where the first login was.
        expected: u16,
        /// TargetPortalGroupTag.
        received: u16,
    },
}

/// What the two sides do not have in common.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// None of our values for a key is acceptable to the target.
    #[error("the target accepts none of {key}={offered}")]
    NoCommonValue {
        /// The key.
        key: &'static str,
        /// Our list.
        offered: String,
    },
}

/// What the caller did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ApiMisuse {
    /// `start` comes first and once, and nothing comes after the end.
    #[error("the methods of a login were called in the wrong order")]
    WrongOrder,
    /// The bytes handed in are not those that the header announces.
    #[error("the data segment handed in has another length than its header says")]
    DataLength,
    /// A setting that cannot be sent.
    #[error("{setting} is empty, longer than 255 bytes, or has a control character in it")]
    BadSetting {
        /// Its name.
        setting: &'static str,
    },
    /// CHAP without an algorithm.
    #[error("CHAP needs at least one algorithm")]
    NoChapAlgorithm,
}

/// Why we do not believe the target, or did not let it have our proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthenticationFailure {
    /// No CHAP settings, and the target does not accept AuthMethod=None.
    #[error("the target wants CHAP, and no CHAP user name and secret are set; set them")]
    ChapWanted,
    /// CHAP settings, and the target does not do CHAP.
    #[error("a CHAP secret is set, but the target refuses to authenticate with CHAP")]
    ChapRefused,
    /// The target moved on before CHAP was done.
    #[error("a CHAP secret is set, but the target went on without CHAP")]
    ChapSkipped,
    /// None of our algorithms.
    #[error("the target accepts none of the CHAP algorithms offered")]
    NoCommonAlgorithm,
    /// CHAP_A was not one of ours.
    #[error("the target chose a CHAP algorithm that was not offered")]
    AlgorithmNotOffered,
    /// A CHAP key is missing.
    #[error("the target sent no {key}")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A CHAP key's value is not of its type, or out of its range.
    #[error("the target sent a {key} that is malformed")]
    MalformedKey {
        /// The key.
        key: &'static str,
    },
    /// The target sent our own challenge back, to have us answer it.
    #[error("the target sent our own CHAP challenge back to us")]
    ReflectedChallenge,
    /// The same secret in both directions (RFC 7143 section 9.2.1 forbids that).
    #[error("the two CHAP secrets are the same; each direction needs its own")]
    IdenticalSecrets,
    /// CHAP_N of the target is not the one configured.
    #[error("the target's CHAP name is not the one configured")]
    WrongTargetName,
    /// CHAP_R of the target has not the length of the hash, or is not the right one.
    #[error("the target's CHAP response is wrong; check the secret for the target's direction")]
    WrongTargetResponse,
}
