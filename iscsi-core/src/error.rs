//! What can go wrong in the full-feature phase, sorted by who is at fault.

use thiserror::Error;

use crate::pdu::PduError;
use crate::pdu::reject::RejectReason;

/// Why a session is over. It cannot be used after any of these; its tasks are to be replayed on
/// the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The target did what RFC 7143 forbids, or its bytes were damaged on the way.
    #[error("the target broke the protocol: {0}")]
    TargetMisbehaved(#[from] Misbehaviour),
    /// The target said that it will not go on.
    #[error("the target refused a PDU: {0}")]
    TargetRefused(RejectReason),
    /// The target answers, but not our logout, which it may have asked for itself.
    #[error("the target did not answer the logout")]
    LogoutUnanswered,
    /// The target answers, but neither a command that is late nor the request to end it. The
    /// command may still run until the session is reinstated (RFC 7143 section 6.3.5).
    #[error("the target answered neither a late command nor its ABORT TASK within {waited_ms} ms")]
    AbortUnanswered {
        /// How long the abort was waited for.
        waited_ms: u64,
    },
    /// The target did not answer a LOGICAL UNIT RESET, the last thing to ask for.
    #[error("the target did not answer a LOGICAL UNIT RESET within {waited_ms} ms")]
    ResetUnanswered {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The target answers, but the connection takes no bytes: a command is late that could not even
    /// be sent.
    #[error("the connection has taken nothing for {waited_ms} ms, and a command waits for it")]
    NotSent {
        /// How long.
        waited_ms: u64,
    },
    /// The target answers, but takes no commands, though none is in flight (section 4.2.2.1).
    #[error(
        "the target has kept its command window closed for {waited_ms} ms without a command in flight"
    )]
    WindowStaysClosed {
        /// How long.
        waited_ms: u64,
    },
    /// Nothing was heard for too long.
    #[error("the target answered nothing for {silence_ms} ms, a ping included")]
    Silence {
        /// How long.
        silence_ms: u64,
    },
}

impl From<PduError> for SessionError {
    fn from(error: PduError) -> Self {
        Self::TargetMisbehaved(Misbehaviour::Pdu(error))
    }
}

/// What a target may not do, each with the section that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Misbehaviour {
    /// A header that makes no sense.
    #[error("{0}")]
    Pdu(PduError),
    /// Section 11.2.3: the header digest does not match.
    #[error("header digest mismatch")]
    HeaderDigest,
    /// Section 11.2.3: the data digest does not match.
    #[error("data digest mismatch")]
    DataDigest,
    /// Section 13.12: more data in one PDU than we declared to take.
    #[error("{pdu_bytes} bytes of data in one PDU, {declared_bytes} were declared as the most")]
    DataSegmentTooLong {
        /// DataSegmentLength.
        pdu_bytes: u32,
        /// Our MaxRecvDataSegmentLength.
        declared_bytes: u32,
    },
    /// Section 4.2.2.2: a StatSN that is not the next one. At ErrorRecoveryLevel 0 a hole cannot
    /// be mended.
    #[error("{pdu} with StatSN {got:#x}, {expected:#x} was next")]
    StatSn {
        /// The PDU that carried it.
        pdu: &'static str,
        /// What was next.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// Section 11.2.1.8: an initiator task tag that names no task of ours.
    #[error("{pdu} for the unknown task {initiator_task_tag:#010x}")]
    UnknownTask {
        /// The PDU that carried it.
        pdu: &'static str,
        /// The tag.
        initiator_task_tag: u32,
    },
    /// A PDU that does not fit the task: data for a write, an R2T for a read.
    #[error("{pdu} for a task that does not move data that way")]
    WrongDirection {
        /// The PDU.
        pdu: &'static str,
    },
    /// Sections 11.7.5 and 11.8.2: a DataSN or R2TSN that is not the next one.
    #[error("{pdu} number {got}, {expected} was next")]
    DataSn {
        /// The PDU.
        pdu: &'static str,
        /// What was next.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// Sections 13.18 and 13.19: data out of order, though in order was agreed.
    #[error("{pdu} at offset {got}, {expected} was next")]
    OutOfOrder {
        /// The PDU.
        pdu: &'static str,
        /// What was next.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// Section 11.7.4: data outside the buffer of the task.
    #[error("{pdu} for bytes {offset}+{length} of a buffer of {buffer_bytes}")]
    BeyondBuffer {
        /// The PDU.
        pdu: &'static str,
        /// Buffer Offset.
        offset: u32,
        /// DataSegmentLength or Desired Data Transfer Length.
        length: u32,
        /// Expected Data Transfer Length.
        buffer_bytes: u32,
    },
    /// Section 11.8.4: an R2T "MUST NOT exceed MaxBurstLength".
    #[error("an R2T for {length} bytes, MaxBurstLength is {max_burst_length_bytes}")]
    R2tTooLong {
        /// Desired Data Transfer Length.
        length: u32,
        /// MaxBurstLength.
        max_burst_length_bytes: u32,
    },
    /// Section 13.17: more R2Ts outstanding than agreed.
    #[error("more than {agreed} R2Ts outstanding for one task")]
    TooManyR2ts {
        /// MaxOutstandingR2T.
        agreed: u16,
    },
    /// Section 11.4.5: a residual count that contradicts the data that arrived.
    #[error(
        "a status after {arrived_bytes} of {expected_bytes} bytes, with a residual count of {residual_bytes}"
    )]
    Residual {
        /// What arrived.
        arrived_bytes: u32,
        /// Expected Data Transfer Length.
        expected_bytes: u32,
        /// Residual Count; 0 when none was given.
        residual_bytes: u32,
    },
    /// A PDU that has no place in the full-feature phase, or was not asked for.
    #[error("an unexpected {pdu}")]
    Unexpected {
        /// The PDU.
        pdu: &'static str,
    },
    /// More pings than we could answer.
    #[error("pings faster than it takes our answers")]
    PingFlood,
}

/// Why a command was not taken. The caller keeps it and tries again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// MaxCmdSN: the target takes no more for now (section 4.2.2.1).
    #[error("the command window is closed")]
    WindowClosed,
    /// All tasks are taken.
    #[error("the task table is full")]
    TableFull,
    /// A logout was asked for, by us or by the target, or the logical unit is being reset.
    #[error("the session is being closed")]
    Closing,
}
