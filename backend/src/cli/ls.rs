//! `ls`: every session, with the labels that `iscsi-ls` of the sfnet initiator had.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::ask::AskArgs;
use super::table::Rows;
use super::units::{bytes, yes_no};
use super::{Control, negotiated_text, print, to_json};
use crate::control_protocol::Request;
use crate::escape::escape_control_characters;
use crate::exit::Failure;
use crate::status::{
    DiskState, DiskStatus, LunStatus, ServiceStatus, SessionLogin, SessionState, SessionStatus,
};

/// The line above and below the program's name.
const RULE: &str =
    "*******************************************************************************";

/// How wide a label is at least, its colon aside.
const LABEL: usize = 24;

/// The arguments of `ls`.
#[derive(Args, Debug)]
pub(super) struct LsArgs {
    /// Show the LUN, the guest and its queues, too
    #[arg(short = 'l', long)]
    luns: bool,

    /// Show what was negotiated, too
    #[arg(short = 'c', long)]
    config: bool,

    #[command(flatten)]
    ask: AskArgs,
}

/// The field names are a promise to scripts.
#[derive(Serialize)]
struct Document<'a> {
    sessions: Vec<SessionDocument<'a>>,
}

#[derive(Serialize)]
struct SessionDocument<'a> {
    disk: &'a str,
    target: &'a str,
    shared_with: Vec<&'a str>,
    #[serde(flatten)]
    session: &'a SessionStatus,
}

pub(super) fn run(
    arguments: &LsArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let status: ServiceStatus = arguments
        .ask
        .ask(control, &Request::Status { disk: None })?;
    match arguments.ask.json {
        true => print(out, &to_json(&Document::of(&status))?),
        false => print(out, &render(&status, arguments)),
    }
}

impl<'a> Document<'a> {
    fn of(status: &'a ServiceStatus) -> Self {
        let of_disk = |disk: &'a DiskStatus| {
            disk.sessions.iter().map(|session| SessionDocument {
                disk: &disk.name,
                target: &disk.target,
                shared_with: shared_with(status, disk, session),
                session,
            })
        };
        Self {
            sessions: status.disks.iter().flat_map(of_disk).collect(),
        }
    }
}

/// The names of other disks that have the same session: an ISID is one target's, and a TSIH says which
/// session of it.
fn shared_with<'a>(
    status: &'a ServiceStatus,
    disk: &DiskStatus,
    session: &SessionStatus,
) -> Vec<&'a str> {
    let tsih = |session: &SessionStatus| session.login.as_ref().map(|login| login.tsih);
    let is_same = |other: &SessionStatus| {
        other.isid == session.isid && tsih(other).is_some() && tsih(other) == tsih(session)
    };
    let has_it = |other: &&DiskStatus| {
        other.name != disk.name && other.target == disk.target && other.sessions.iter().any(is_same)
    };
    let others = status.disks.iter().filter(has_it);
    others.map(|other| other.name.as_str()).collect()
}

fn render(status: &ServiceStatus, arguments: &LsArgs) -> String {
    let version = escape_control_characters(&status.version);
    let mut text = format!("{RULE}\nvhost-user-iscsi {version}\n{RULE}\n");
    for disk in &status.disks {
        if disk.sessions.is_empty() {
            write_rows(&mut text, &without_session(disk));
        }
        for session in &disk.sessions {
            let mut rows = session_rows(disk, session);
            let others = shared_with(status, disk, session);
            if !others.is_empty() {
                rows.push(("SHARED WITH", others.join(", ")));
            }
            write_rows(&mut text, &rows);
            if let Some(login) = session.login.as_ref().filter(|_| arguments.config) {
                text.push_str("CONFIGURATION PARAMETERS:\n-------------------------\n");
                write_rows(&mut text, &negotiated_text::rows(&login.negotiated));
            }
        }
        if arguments.luns {
            write_device(&mut text, disk);
        }
        let _ = writeln!(text, "{RULE}");
    }
    text
}

fn write_rows(text: &mut String, rows: &Rows) {
    let longest = rows.iter().map(|(label, _)| label.len() + 1).max();
    let width = longest.unwrap_or_default().max(LABEL);
    for (label, value) in rows {
        let value = escape_control_characters(value);
        let line = format!("{label:width$}: {value}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// A disk that waits for its first login, or has ended.
fn without_session(disk: &DiskStatus) -> Rows {
    let reason = disk.reason.as_deref().unwrap_or_default();
    let status = match disk.state {
        DiskState::Starting => format!("LOGGING IN SINCE {}", disk.since),
        DiskState::WaitingForTarget => format!("NOT ESTABLISHED SINCE {}: {reason}", disk.since),
        DiskState::Ended => format!("ENDED AT {}: {reason}", disk.since),
        DiskState::Serving => "NONE".to_owned(),
    };
    vec![
        ("TARGET NAME", disk.target.clone()),
        ("DISK", disk.name.clone()),
        ("TARGET ADDRESS", disk.portal.clone()),
        ("SESSION STATUS", status),
    ]
}

fn session_rows(disk: &DiskStatus, session: &SessionStatus) -> Rows {
    let login = session.login.as_ref();
    let alias = login.and_then(|login| login.target_alias.clone());
    let address = login.map_or_else(|| disk.portal.clone(), target_address);
    let tsih = login.map_or_else(String::new, |login| format!(" TSIH {:04x}", login.tsih));
    let mut rows = vec![
        ("TARGET NAME", disk.target.clone()),
        ("TARGET ALIAS", alias.unwrap_or_default()),
        ("DISK", disk.name.clone()),
        ("SESSION NO", session.session.to_string()),
        ("TARGET ADDRESS", address),
        ("SESSION STATUS", session_status(session)),
        ("SESSION ID", format!("ISID {}{tsih}", session.isid)),
    ];
    if let Some(login) = login.filter(|login| !login.redirected_from.is_empty()) {
        rows.push(("REDIRECTED FROM", login.redirected_from.join(", ")));
    }
    if session.reconnects > 0 {
        rows.push(("RECONNECTS", session.reconnects.to_string()));
    }
    if let Some(error) = &session.last_error {
        rows.push(("LAST ERROR", format!("AT {}: {}", error.at, error.message)));
    }
    rows
}

/// Address and portal group tag, as SendTargets writes them.
fn target_address(login: &SessionLogin) -> String {
    let address = login.address.as_deref().unwrap_or(&login.portal);
    match login.portal_group_tag {
        Some(tag) => format!("{address},{tag}"),
        None => address.to_owned(),
    }
}

fn session_status(session: &SessionStatus) -> String {
    let SessionStatus { since, state, .. } = session;
    let reason = session.reason.as_deref().unwrap_or_default();
    match state {
        SessionState::LoggedIn => format!("ESTABLISHED AT {since}"),
        SessionState::LoggingIn => format!("LOGGING IN SINCE {since}"),
        SessionState::Waiting => format!("DROPPED AT {since}: {reason}"),
        SessionState::Refused => format!("REFUSED AT {since}: {reason}"),
        SessionState::EndingTasks => format!("ENDING TASKS SINCE {since}: {reason}"),
    }
}

/// What `iscsi-ls -l` showed, and the guest.
fn write_device(text: &mut String, disk: &DiskStatus) {
    text.push_str("DEVICE DETAILS:\n---------------\n");
    if let Some(lun) = &disk.lun {
        write_lun(text, lun);
    }
    let guest = match &disk.front_end {
        Some(front_end) => format!("connected since {}", front_end.connected_since),
        None => "none connected".to_owned(),
    };
    let queue =
        |queue: &crate::status::QueueStatus| format!("{} (session {})", queue.queue, queue.session);
    let queues: Vec<_> = disk.queues.iter().map(queue).collect();
    let socket = escape_control_characters(&disk.socket);
    let _ = writeln!(text, "  Socket: {socket}\n  Guest:  {guest}");
    let _ = writeln!(
        text,
        "{}",
        format!("  Queues: {}", queues.join(", ")).trim_end()
    );
}

fn write_lun(text: &mut String, lun: &LunStatus) {
    let shown = |value: &str| escape_control_characters(value).into_owned();
    let _ = writeln!(text, "LUN ID : {}", lun.lun);
    let _ = writeln!(
        text,
        "  Vendor: {}   Model: {}   Rev: {}",
        shown(&lun.vendor),
        shown(&lun.product),
        shown(&lun.revision)
    );
    let _ = write!(text, "  Capacity: {}", bytes(lun.capacity_bytes));
    if lun.shown_capacity_bytes != lun.capacity_bytes {
        let shown = bytes(lun.shown_capacity_bytes);
        let _ = write!(text, "   Shown to guests: {shown}");
    }
    text.push('\n');
    let _ = writeln!(
        text,
        "  Block size: {}   Write cache: {}   Read-only: {}",
        bytes(lun.block_length_bytes.into()),
        yes_no(lun.write_cache),
        yes_no(lun.read_only)
    );
    let _ = writeln!(text, "  page83: {}", shown(&lun.designators.join(", ")));
    let _ = writeln!(text, "  page80: {}", shown(&lun.serial));
}
