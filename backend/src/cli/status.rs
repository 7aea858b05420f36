//! `status`: what is wrong, a line per disk and per portal; everything about one disk.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;

use super::ask::AskArgs;
use super::table::{Rows, Table};
use super::units::{bytes, count, size, yes_no};
use super::{Control, print, to_json};
use super::{limits, negotiated_text};
use crate::control_protocol::Request;
use crate::escape::escape_control_characters;
use crate::exit::Failure;
use crate::status::{
    DiskState, DiskStatus, LunStatus, PortalState, PortalStatus, ServiceStatus, SessionLogin,
    SessionState, SessionStatus, Timestamp,
};

/// The arguments of `status`.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Everything about this disk, instead of a line about each
    disk: Option<String>,

    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn run(
    arguments: &StatusArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let disk = arguments.disk.clone();
    let is_one = disk.is_some();
    let status: ServiceStatus = arguments.ask.ask(control, &Request::Status { disk })?;
    match (arguments.ask.json, is_one) {
        (true, _) => print(out, &to_json(&status)?),
        (false, false) => print(out, &overview(&status)),
        (false, true) => print(out, &details(&status)),
    }
}

/// A line per disk and per portal, then what needs somebody's attention.
fn overview(status: &ServiceStatus) -> String {
    let mut text = format!(
        "vhost-user-iscsi {}, process {}, up for {}\n\n",
        escape_control_characters(&status.version),
        status.pid,
        age(status.started, status.now)
    );
    let width = status.disks.iter().map(|disk| disk.name.len()).max();
    let width = width.unwrap_or_default();
    for disk in &status.disks {
        let name = escape_control_characters(&disk.name);
        let _ = writeln!(text, "{name:width$}  {}", summary(disk, status.now));
    }
    if !status.disks.is_empty() && !status.portals.is_empty() {
        text.push('\n');
    }
    for portal in &status.portals {
        let _ = writeln!(
            text,
            "portal {}  {}",
            portal.address,
            portal_summary(portal)
        );
    }
    let disks = status
        .disks
        .iter()
        .map(|disk| (disk.name.clone(), &disk.problems));
    let portals = status.portals.iter();
    let portals = portals.map(|portal| (format!("portal {}", portal.address), &portal.problems));
    let problems = disks.chain(portals).flat_map(|(what, problems)| {
        let lines = problems
            .iter()
            .map(move |problem| format!("{what}: {problem}"));
        lines.map(|line| escape_control_characters(&line).into_owned())
    });
    let problems: Vec<_> = problems.collect();
    if !problems.is_empty() {
        let _ = writeln!(text, "\nNeeds attention\n  {}", problems.join("\n  "));
    }
    text
}

fn summary(disk: &DiskStatus, now: Timestamp) -> String {
    let up = disk.sessions.iter();
    let up = up.filter(|session| session.state == SessionState::LoggedIn);
    let capacity = disk.lun.as_ref().map(|lun| size(lun.capacity_bytes));
    let guest = match &disk.front_end {
        Some(front_end) => format!("guest for {}", age(front_end.connected_since, now)),
        None => "no guest".to_owned(),
    };
    let mut parts = vec![disk_state(disk.state).to_owned()];
    if disk.state == DiskState::Serving {
        parts.extend(capacity);
        let sessions = count(disk.sessions.len(), "session");
        parts.push(format!("{} of {sessions} up", up.count()));
        parts.push(guest);
        parts.push(count(disk.queues.len(), "queue"));
    }
    parts.join(", ")
}

fn portal_summary(portal: &PortalStatus) -> String {
    let disks = count(portal.disks, "disk");
    let mut parts = match portal.state {
        PortalState::Starting => vec!["first discovery under way".to_owned()],
        PortalState::Discovered => {
            vec![format!("{disks} of {}", count(portal.targets, "target"))]
        }
        PortalState::Failing => vec!["discovery fails".to_owned(), disks],
    };
    parts.extend(
        portal
            .last_discovery
            .map(|time| format!("discovered {time}")),
    );
    parts.extend(portal.next_discovery.map(|time| format!("again {time}")));
    parts.join(", ")
}

pub(super) fn disk_state(state: DiskState) -> &'static str {
    match state {
        DiskState::Starting => "starting",
        DiskState::WaitingForTarget => "waiting for the target",
        DiskState::Serving => "serving",
        DiskState::Ended => "ended",
    }
}

pub(super) fn session_state(state: SessionState) -> &'static str {
    match state {
        SessionState::LoggingIn => "logging in",
        SessionState::LoggedIn => "logged in",
        SessionState::Waiting => "lost, logging in again",
        SessionState::Refused => "refused",
        SessionState::EndingTasks => "ending tasks",
    }
}

/// `5m 3s`.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = std::time::Duration::from_secs(since.age(now).as_secs());
    humantime::format_duration(seconds).to_string()
}

fn at(time: Timestamp, now: Timestamp) -> String {
    format!("{time} ({} ago)", age(time, now))
}

fn details(status: &ServiceStatus) -> String {
    let mut table = Table::default();
    for disk in &status.disks {
        table.group(format!("Disk {}", disk.name), disk_rows(disk, status.now));
        if let Some(lun) = &disk.lun {
            table.group("LUN", lun_rows(lun));
        }
        table.group("Guest", guest_rows(disk, status.now));
        table.group("Limits", limits::rows(&disk.limits));
        for session in &disk.sessions {
            let title = format!("Session {}", session.session);
            table.group(title, session_rows(session, status.now));
            if let Some(login) = &session.login {
                let title = format!("Session {}, negotiated", session.session);
                table.group(title, negotiated_text::rows(&login.negotiated));
            }
        }
    }
    table.render()
}

fn disk_rows(disk: &DiskStatus, now: Timestamp) -> Rows {
    let suspects = disk.barrier_raised_by.iter().map(ToString::to_string);
    let suspects: Vec<_> = suspects.collect();
    let barrier = match suspects.as_slice() {
        [] => "down".to_owned(),
        some => format!("raised by session {}", some.join(", ")),
    };
    let mut rows = vec![
        ("state", disk_state(disk.state).to_owned()),
        ("since", at(disk.since, now)),
        ("URL", disk.url.clone()),
        ("socket", disk.socket.clone()),
        ("initiator name", disk.initiator_name.clone()),
        ("sessions at most", disk.max_sessions.to_string()),
        ("barrier", barrier),
    ];
    let problems = disk.problems.iter();
    rows.extend(problems.map(|problem| ("needs attention", problem.clone())));
    rows
}

fn lun_rows(lun: &LunStatus) -> Rows {
    let is_shown_otherwise = lun.shown_capacity_bytes != lun.capacity_bytes;
    let shown = is_shown_otherwise.then(|| bytes(lun.shown_capacity_bytes));
    let mut rows = vec![
        ("LUN", lun.lun.to_string()),
        ("vendor", lun.vendor.clone()),
        ("product", lun.product.clone()),
        ("revision", lun.revision.clone()),
        ("serial (VPD 0x80)", lun.serial.clone()),
        ("designators (VPD 0x83)", lun.designators.join(", ")),
        ("capacity", bytes(lun.capacity_bytes)),
    ];
    rows.extend(shown.map(|shown| ("capacity shown to guests", shown)));
    rows.extend([
        ("logical block length", bytes(lun.block_length_bytes.into())),
        ("volatile write cache", yes_no(lun.write_cache)),
        ("read-only", yes_no(lun.read_only)),
    ]);
    rows
}

fn guest_rows(disk: &DiskStatus, now: Timestamp) -> Rows {
    let connected = disk.front_end.as_ref();
    let connected = connected.map(|front_end| at(front_end.connected_since, now));
    let queues = disk.queues.iter();
    let queues: Vec<_> = queues
        .map(|queue| format!("{} (session {})", queue.queue, queue.session))
        .collect();
    vec![
        ("connected", connected.unwrap_or_else(|| "no".to_owned())),
        ("queues", queues.join(", ")),
    ]
}

fn session_rows(session: &SessionStatus, now: Timestamp) -> Rows {
    let mut rows = vec![
        ("state", session_state(session.state).to_owned()),
        ("since", at(session.since, now)),
    ];
    rows.extend(session.reason.clone().map(|reason| ("reason", reason)));
    rows.push(("ISID", session.isid.clone()));
    if let Some(login) = &session.login {
        rows.extend(login_rows(login, now));
    }
    rows.push(("reconnects", session.reconnects.to_string()));
    if let Some(error) = &session.last_error {
        rows.push(("last error", error.message.clone()));
        rows.push(("last error at", at(error.at, now)));
    }
    rows
}

fn login_rows(login: &SessionLogin, now: Timestamp) -> Rows {
    let tag = login.portal_group_tag.map(|tag| tag.to_string());
    let mut rows = vec![
        ("last login", at(login.at, now)),
        ("portal", login.portal.clone()),
        ("address", login.address.clone().unwrap_or_default()),
        ("portal group tag", tag.unwrap_or_default()),
        ("session handle (TSIH)", login.tsih.to_string()),
        (
            "target alias",
            login.target_alias.clone().unwrap_or_default(),
        ),
        ("authentication", login.authentication.clone()),
    ];
    if !login.redirected_from.is_empty() {
        rows.push(("redirected from", login.redirected_from.join(", ")));
    }
    rows
}
