//! Codes of SCSI: status and sense data.

use iscsi_core::scsi::sense::{Sense, SenseKey};
use iscsi_core::scsi::sense_action::{GiveUp, Retry, SenseAction};
use iscsi_core::scsi::status::ScsiStatus;

use super::{Advice, Explanation};

/// What sense data means that is no deferred error.
pub(super) fn explain_sense([key, asc, ascq]: [u8; 3]) -> Explanation {
    let sense = Sense {
        deferred: false,
        key: SenseKey(key),
        asc,
        ascq,
        information: None,
    };
    let advice = match SenseAction::of(&sense) {
        SenseAction::Success => Advice {
            causes: &["the command has done what it should; the target has something to add"],
            remedies: &["nothing now; when it comes often, look at the health of the disk"],
            reaction: "the request succeeds",
        },
        SenseAction::Retry(retry) => of_retry(retry),
        SenseAction::GiveUp(reason) => of_give_up(reason),
    };
    advice.explain(
        "Sense data",
        "SPC-5, sense key and additional sense codes",
        sense.to_string(),
    )
}

const AGAIN: &str =
    "it sends the command again, for as long as --io-timeout allows; the guest sees a pause";
const FAILS: &str = "the request ends with an I/O error in the guest";

fn of_retry(retry: Retry) -> Advice {
    match retry {
        Retry::UnitAttention => Advice {
            causes: &[
                "something has changed at the LUN or the target: a reset, a restart, a new size, another LUN",
                "another host has reset the LUN",
            ],
            remedies: &[
                "nothing, when it comes once after a change",
                "when it comes all the time, look for a host that resets the LUN",
            ],
            reaction: "it sends the command again at once, and the guest sees nothing",
        },
        Retry::Aborted => Advice {
            causes: &[
                "the target has ended the command: a reset, a failover, or trouble within it",
            ],
            remedies: &["look into the target's log when it comes often: stats counts retries"],
            reaction: AGAIN,
        },
        Retry::DeferredError => Advice {
            causes: &["a write that was called good was lost later"],
            remedies: &[
                "check the filesystem in the guest",
                "look into the target's log",
            ],
            reaction: "the next flush fails; the command is sent again",
        },
        Retry::NoReason => Advice {
            causes: &["the target does not say why"],
            remedies: &["look into the target's log"],
            reaction: AGAIN,
        },
        Retry::BecomingReady => Advice {
            causes: &["the LUN is starting, being formatted, rebuilt or failed over"],
            remedies: &["wait", "look at the state of the LUN on the target"],
            reaction: AGAIN,
        },
        Retry::PathUnavailable => Advice {
            causes: &[
                "this portal belongs to the controller that does not own the LUN now",
                "the LUN is being moved from one controller to the other",
            ],
            remedies: &[
                "name a portal of the controller that owns the LUN",
                "look at the path states (ALUA) on the target",
            ],
            reaction: AGAIN,
        },
        Retry::NoResources => Advice {
            causes: &["the target has too much to do, or is short of memory"],
            remedies: &[
                "look at the target's load",
                "open fewer sessions: --sessions",
            ],
            reaction: AGAIN,
        },
    }
}

fn of_give_up(reason: GiveUp) -> Advice {
    let (causes, remedies, reaction): (&[_], &[_], _) = match reason {
        GiveUp::NeedsAttendance => (
            &["somebody has stopped the LUN or taken it off line, or it waits for a repair"],
            &["start it, or bring it on line, on the target"],
            "probe and the start fail with this; a disk that has been up waits for it",
        ),
        GiveUp::LunNotSupported => (
            &[
                "there is no LUN of this number",
                "the LUN is not exported to this initiator",
                "the target has just started, and its LUNs are not back yet",
            ],
            &[
                "check the number: probe of a LUN that exists lists all",
                "check the target's access list",
            ],
            "probe and the start fail with this; a disk that has been up waits until the LUN is back",
        ),
        GiveUp::NotReady => (
            &["the LUN has no medium"],
            &["look at the LUN on the target"],
            FAILS,
        ),
        GiveUp::MediumError | GiveUp::HardwareError => (
            &["the storage behind the LUN is damaged"],
            &[
                "look at the target's disks and their health",
                "restore what is lost: the log of this program says at which sector",
            ],
            FAILS,
        ),
        GiveUp::InvalidOpcode | GiveUp::InvalidField | GiveUp::IllegalRequest => (
            &["the target does not implement the command, or not in this form"],
            &[
                "look for a newer version of the target",
                "--log-level trace shows the command: report it with that",
            ],
            "where there is another command for the same, it takes that from then on; else the request ends \
             with an I/O error in the guest",
        ),
        GiveUp::OutOfRange => (
            &["the LUN has become smaller than the guest was told"],
            &[
                "make it as large as it was, before anything is written",
                "restart the guest and this program, when it is meant to be smaller",
            ],
            FAILS,
        ),
        GiveUp::WriteProtected => (
            &["the LUN is read-only, or was made so while the guest uses it"],
            &["allow writes on the target, or serve it with --read-only"],
            FAILS,
        ),
        GiveUp::SpaceExhausted => (
            &["the pool of a thin LUN is full"],
            &["make the pool larger", "discard in the guests: fstrim"],
            FAILS,
        ),
        GiveUp::ProtectionInformation => (
            &["the LUN is formatted with protection information that does not fit the data"],
            &["look at how the LUN is formatted; format it without"],
            FAILS,
        ),
        GiveUp::Other => (
            &["something that has to do with neither disks nor this program's commands"],
            &[
                "look the code up in the manual of the target",
                "look into the target's log",
            ],
            FAILS,
        ),
    };
    Advice {
        causes,
        remedies,
        reaction,
    }
}

/// What a SCSI status means.
pub(super) fn explain_status(code: u8) -> Explanation {
    let status = ScsiStatus(code);
    let advice = match status {
        ScsiStatus::GOOD | ScsiStatus::CONDITION_MET => Advice {
            causes: &[],
            remedies: &[],
            reaction: "the request succeeds",
        },
        ScsiStatus::CHECK_CONDITION => Advice {
            causes: &["the sense data says which"],
            remedies: &["explain the sense data: key/code/qualifier, such as 05/25/00"],
            reaction: "it looks at the sense data",
        },
        ScsiStatus::BUSY | ScsiStatus::TASK_SET_FULL => Advice {
            causes: &["the target has more to do than it can take, from this host and others"],
            remedies: &[
                "look at the target's load",
                "fewer sessions (--sessions), or a smaller queue in the guest",
            ],
            reaction: "it sends half as many commands at once, and sends this one again a little later, for \
                       as long as --io-timeout allows",
        },
        ScsiStatus::RESERVATION_CONFLICT => Advice {
            causes: &["another host has reserved the LUN (a cluster, a backup)"],
            remedies: &[
                "find out who holds it: persistent reservations are shown by the target",
                "do not serve a LUN of a cluster to a guest that is no part of it",
            ],
            reaction: FAILS,
        },
        ScsiStatus::TASK_ABORTED | ScsiStatus::ACA_ACTIVE => Advice {
            causes: &["another host has ended the command"],
            remedies: &["look for a host that resets or clears the LUN"],
            reaction: AGAIN,
        },
        _ => Advice {
            causes: &["a target that does not keep to SAM"],
            remedies: &["look for a newer version of the target"],
            reaction: FAILS,
        },
    };
    advice.explain("SCSI status", "SAM-6, status codes", status.to_string())
}
