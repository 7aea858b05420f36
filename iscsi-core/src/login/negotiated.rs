//! What a login agreed on.

use alloc::string::String;

use crate::sequence::SerialNumber;

/// The parameters of a session in full-feature phase, each named as in RFC 7143 section 13.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// HeaderDigest=CRC32C.
    pub header_digest: bool,
    /// DataDigest=CRC32C.
    pub data_digest: bool,
    /// What the target may send us in one PDU: the value that we declared.
    pub max_recv_data_segment_length_bytes: u32,
    /// What we may send the target in one PDU: the value that it declared, 8192 by default.
    pub target_max_recv_data_segment_length_bytes: u32,
    /// MaxBurstLength.
    pub max_burst_length_bytes: u32,
    /// FirstBurstLength.
    pub first_burst_length_bytes: u32,
    /// InitialR2T.
    pub initial_r2t: bool,
    /// ImmediateData.
    pub immediate_data: bool,
    /// MaxOutstandingR2T.
    pub max_outstanding_r2t: u16,
    /// DefaultTime2Wait.
    pub default_time2wait_s: u16,
    /// DefaultTime2Retain.
    pub default_time2retain_s: u16,
    /// DataPDUInOrder.
    pub data_pdu_in_order: bool,
    /// DataSequenceInOrder.
    pub data_sequence_in_order: bool,
    /// ErrorRecoveryLevel.
    pub error_recovery_level: u8,
    /// MaxConnections.
    pub max_connections: u16,
    /// TargetAlias, when the target told one (it is the target's text: escape it before showing).
    pub target_alias: Option<String>,
    /// TargetPortalGroupTag, when the target told one.
    pub target_portal_group_tag: Option<u16>,
    /// The target session identifying handle of the last response.
    pub tsih: u16,
    /// How the two sides proved themselves: `None`, `CHAP (SHA-256)`, `mutual CHAP (MD5)`.
    pub authentication: String,
    /// The CmdSN of the first command.
    pub cmd_sn: SerialNumber,
    /// ExpCmdSN of the last login response.
    pub exp_cmd_sn: SerialNumber,
    /// MaxCmdSN of the last login response.
    pub max_cmd_sn: SerialNumber,
    /// The StatSN that the target's next response will carry.
    pub exp_stat_sn: SerialNumber,
}

/// Parameters for tests: no digests, 64 KiB of everything, and a window of one command.
#[cfg(test)]
pub(crate) fn example(cmd_sn: SerialNumber, exp_stat_sn: SerialNumber) -> Negotiated {
    Negotiated {
        header_digest: false,
        data_digest: false,
        max_recv_data_segment_length_bytes: 65536,
        target_max_recv_data_segment_length_bytes: 65536,
        max_burst_length_bytes: 65536,
        first_burst_length_bytes: 65536,
        initial_r2t: true,
        immediate_data: false,
        max_outstanding_r2t: 1,
        default_time2wait_s: 0,
        default_time2retain_s: 0,
        data_pdu_in_order: true,
        data_sequence_in_order: true,
        error_recovery_level: 0,
        max_connections: 1,
        target_alias: None,
        target_portal_group_tag: Some(1),
        tsih: 1,
        authentication: "None".into(),
        cmd_sn,
        exp_cmd_sn: cmd_sn,
        max_cmd_sn: cmd_sn,
        exp_stat_sn,
    }
}
