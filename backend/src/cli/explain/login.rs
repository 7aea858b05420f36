//! Status-Class and Status-Detail of a Login Response.

use iscsi_core::login::status::LoginStatus;

use super::{Advice, Explanation};

const REPEATS: &str = "a disk of a configuration file, or with --wait-for-target, repeats the login until it \
                       succeeds, another fails with this at start; a session that was there before is \
                       logged in again for as long as it takes";

/// What a login status means.
pub(super) fn explain([class, detail]: [u8; 2]) -> Explanation {
    let status = LoginStatus { class, detail };
    let reference = "RFC 7143 section 11.13.5";
    advice(class, detail).explain("Login status", reference, status.to_string())
}

fn advice(class: u8, detail: u8) -> Advice {
    match class {
        0 => Advice {
            causes: &[],
            remedies: &[],
            reaction: "it goes on",
        },
        1 => moved(),
        2 => initiator_error(detail),
        3 => target_error(detail),
        _ => Advice {
            causes: &["a target that does not keep to RFC 7143, or a broken network device"],
            remedies: &[
                "look into the target's log",
                "look for a newer version of the target",
            ],
            reaction: REPEATS,
        },
    }
}

fn moved() -> Advice {
    Advice {
        causes: &[
            "the array spreads sessions over its portals",
            "a portal is being serviced, or has failed over",
        ],
        remedies: &[
            "nothing, when the login succeeds elsewhere: ls shows where",
            "when it does not, check that the portal that it names can be reached from here",
        ],
        reaction: "it follows the address, up to 8 times in a row, and begins at the configured portal again \
                   with the next login",
    }
}

fn initiator_error(detail: u8) -> Advice {
    let (causes, remedies): (&[_], &[_]) = match detail {
        0x01 => (
            &[
                "a CHAP name or secret differs between the two sides",
                "the target wants CHAP and none is configured here, or the other way round",
                "the secret file has more than one newline at its end",
                "some targets say this for anything that they do not let in",
            ],
            &[
                "check the CHAP names and secrets on both sides",
                "probe the LUN with the same options and --log-level debug: it shows what was offered and chosen",
                "offer one algorithm only: ?auth=md5 in the URL",
            ],
        ),
        0x02 => (
            &["the target's access list does not have this initiator's name or address"],
            &[
                "allow this initiator's name or address on the target: status shows the name",
                "check that the name is the one that was registered: a cloned machine has another",
            ],
        ),
        0x03 => (
            &[
                "a misspelt target name",
                "the target hides what an initiator may not use",
                "the target is restarting, and has not set up its targets yet",
            ],
            &[
                "discover lists what there is for this initiator",
                "check the target's access list",
            ],
        ),
        0x04 => (
            &["the target was removed, and the array knows that it was there"],
            &["ask who administers the array where it went"],
        ),
        0x06 => (
            &[
                "the target counts connections, and others have them",
                "sessions of a machine that crashed are still there",
            ],
            &[
                "end other sessions, or raise the target's limit",
                "open fewer: --sessions",
            ],
        ),
        0x05 | 0x07..=0x0b => (
            &[
                "a target that does not keep to RFC 7143, or wants something special",
                "the session that was to be continued has ended meanwhile",
            ],
            &[
                "look into the target's log",
                "probe with --log-level debug shows the keys of both sides",
            ],
        ),
        _ => (
            &["the target does not say more"],
            &["look into the target's log: it usually says more there"],
        ),
    };
    Advice {
        causes,
        remedies,
        reaction: REPEATS,
    }
}

fn target_error(detail: u8) -> Advice {
    let (causes, remedies): (&[_], &[_]) = match detail {
        0x01 => (
            &[
                "the target is starting, stopping or failing over",
                "the portal is there, but its service is switched off",
            ],
            &["wait a minute", "look at the state of the target"],
        ),
        0x02 => (
            &[
                "the target's limit of sessions or connections is reached",
                "sessions of machines that crashed are still there",
                "it is no matter of CHAP, whatever an initiator makes of it",
            ],
            &[
                "end other sessions, or raise the target's limit",
                "open fewer: --sessions",
                "try again later: a target drops dead sessions after a while",
            ],
        ),
        _ => (
            &["the target has a problem of its own: hardware, software or configuration"],
            &["look into the target's log", "try another portal"],
        ),
    };
    Advice {
        causes,
        remedies,
        reaction: REPEATS,
    }
}
