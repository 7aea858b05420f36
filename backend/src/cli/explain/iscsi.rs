//! Codes of iSCSI's own after the login: reasons of a Reject, responses.

use iscsi_core::pdu::reject::{RejectAction, RejectReason};
use iscsi_core::pdu::task_management::FunctionResponse;

use super::{Advice, Explanation};

/// What the reason of a Reject PDU means.
pub(super) fn explain_reject(code: u8) -> Explanation {
    let reason = RejectReason(code);
    let reaction = match reason.action() {
        RejectAction::TryAgain => {
            "a SCSI command that is rejected for this is sent again a little later"
        }
        RejectAction::EndSession => {
            "it ends the session and logs in again; what was in flight is sent again"
        }
        RejectAction::Fail => {
            "a SCSI command that is rejected for this ends with an I/O error in the guest"
        }
    };
    let (causes, remedies): (&[_], &[_]) = match code {
        0x02 => (
            &["data was damaged on the way: a network card, a switch, or memory"],
            &[
                "look at the error counters of network cards and switches",
                "switch off checksum offloading on one side, to find out which",
            ],
        ),
        0x06 | 0x0a => (
            &["the target is short of memory, or takes fewer commands than it grants"],
            &[
                "look at the target's load",
                "open fewer sessions: --sessions",
            ],
        ),
        0x0c => (
            &["the target has asked for a logout, and waits for it"],
            &[
                "nothing, when the session comes back",
                "look at why the target wants to be left",
            ],
        ),
        _ => (
            &[
                "the two sides do not agree about the protocol",
                "a network device in between changes what it should not",
            ],
            &[
                "look into the target's log, and for a newer version of it",
                "--log-level trace shows the PDU before: report it with that",
            ],
        ),
    };
    Advice {
        causes,
        remedies,
        reaction,
    }
    .explain(
        "Reject reason",
        "RFC 7143 section 11.17.1",
        reason.to_string(),
    )
}

/// What the iSCSI response of a SCSI Response PDU means.
pub(super) fn explain_response(code: u8) -> Explanation {
    let name = match code {
        0x00 => "command completed at target (0x00)".to_owned(),
        0x01 => "target failure (0x01)".to_owned(),
        0x80.. => format!("vendor specific ({code:#04x})"),
        _ => format!("response unknown to RFC 7143 ({code:#04x})"),
    };
    let advice = match code {
        0x00 => Advice {
            causes: &["nothing is wrong with iSCSI: the SCSI status says how it went"],
            remedies: &["explain status: and the SCSI status; explain the sense data"],
            reaction: "it looks at the SCSI status",
        },
        0x01 | 0x80.. => Advice {
            causes: &["the target could not pass the command on to its storage"],
            remedies: &["look into the target's log, and at its storage"],
            reaction: "the request ends with an I/O error in the guest",
        },
        _ => Advice {
            causes: &["a target that does not keep to RFC 7143"],
            remedies: &["look for a newer version of the target"],
            reaction: "it ends the session and logs in again",
        },
    };
    advice.explain("iSCSI response", "RFC 7143 section 11.4.3", name)
}

/// What the answer to a Task Management Function Request means.
pub(super) fn explain_task_management(code: u8) -> Explanation {
    let response = match code {
        0 => FunctionResponse::Complete,
        1 => FunctionResponse::TaskDoesNotExist,
        2 => FunctionResponse::LunDoesNotExist,
        code => FunctionResponse::Refused(code),
    };
    let name = match code {
        0..=6 | 255 => response.to_string(),
        _ => format!("response unknown to RFC 7143 ({code})"),
    };
    let advice = if response.is_over() {
        Advice {
            causes: &["a command was not answered within --command-timeout, and is over now"],
            remedies: &["look at why the target is so slow: stats shows how often, and how slow"],
            reaction: "it sends the request again",
        }
    } else {
        Advice {
            causes: &[
                "a command was not answered within --command-timeout, and the target cannot end it",
                "the target does not implement the function",
            ],
            remedies: &[
                "look at why the target is so slow",
                "a longer --command-timeout, where it is meant to be",
            ],
            reaction: "it drops the connection and logs in with the same ISID, which makes the target end \
                       the command; then it sends the request again",
        }
    };
    advice.explain("Task management response", "RFC 7143 section 11.6.1", name)
}
