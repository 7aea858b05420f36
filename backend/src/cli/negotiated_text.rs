//! What a login agreed on, for people.

use super::table::Rows;
use super::units::{bytes, yes_no};
use crate::report::NegotiatedKeys;

/// One row for each key, named as in RFC 7143, and for the command window.
pub(super) fn rows(session: &NegotiatedKeys) -> Rows {
    let ours = session.max_recv_data_segment_length_bytes;
    let its = session.target_max_recv_data_segment_length_bytes;
    vec![
        ("HeaderDigest", session.header_digest.clone()),
        ("DataDigest", session.data_digest.clone()),
        ("MaxRecvDataSegmentLength (ours)", bytes(ours.into())),
        ("MaxRecvDataSegmentLength (target's)", bytes(its.into())),
        (
            "MaxBurstLength",
            bytes(session.max_burst_length_bytes.into()),
        ),
        (
            "FirstBurstLength",
            bytes(session.first_burst_length_bytes.into()),
        ),
        ("InitialR2T", yes_no(session.initial_r2t)),
        ("ImmediateData", yes_no(session.immediate_data)),
        ("MaxOutstandingR2T", session.max_outstanding_r2t.to_string()),
        ("MaxConnections", session.max_connections.to_string()),
        (
            "ErrorRecoveryLevel",
            session.error_recovery_level.to_string(),
        ),
        ("DataPDUInOrder", yes_no(session.data_pdu_in_order)),
        (
            "DataSequenceInOrder",
            yes_no(session.data_sequence_in_order),
        ),
        (
            "DefaultTime2Wait",
            format!("{} s", session.default_time2wait_s),
        ),
        (
            "DefaultTime2Retain",
            format!("{} s", session.default_time2retain_s),
        ),
        (
            "commands at once (CmdSN window)",
            session.command_window.to_string(),
        ),
    ]
}
