//! Status and counters as Prometheus wants them: its text format, version 0.0.4, with its conventions for
//! names and units.
//!
//! One function per group of metrics. A metric's samples stand together below its HELP and TYPE, so each
//! goes through all disks by itself.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::time::SystemTime;

use crate::limits::Unit;
use crate::stats::{DiskStats, OperationStats, ServiceStats, SessionStats};
use crate::status::{
    DiskState, DiskStatus, PortalState, PortalStatus, ServiceStatus, SessionState,
};

/// What HTTP calls the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bounds of the latency histograms: each doubling from 2^4 µs to 2^24 µs, which is 16 µs to 17 s.
/// Half of what is counted, for each bound is a time series of each session and operation.
const OCTAVES: std::ops::RangeInclusive<u32> = 4..=24;

/// Everything, as one answer.
pub fn render(status: &ServiceStatus, stats: &ServiceStats) -> String {
    let mut page = Page::default();
    process(&mut page, status);
    disks(&mut page, status);
    limits(&mut page, status);
    portals(&mut page, status);
    sessions(&mut page, status);
    counters(&mut page, stats);
    throttled_time(&mut page, stats);
    operations(&mut page, stats);
    latencies(&mut page, stats);
    page.0
}

/// A text that grows.
#[derive(Default)]
struct Page(String);

type Labels<'a> = &'a [(&'static str, Cow<'a, str>)];

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}"
        );
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.0.push_str(PREFIX);
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"{}\"", escaped(value));
        }
        self.0.push_str(if labels.is_empty() { "" } else { "}" });
        let _ = writeln!(self.0, " {value}");
    }
}

/// What all names begin with.
const PREFIX: &str = "vhost_user_iscsi_";

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn disk_label(name: &str) -> [(&'static str, Cow<'_, str>); 1] {
    [("disk", Cow::Borrowed(name))]
}

fn session_labels(name: &str, session: usize) -> [(&'static str, Cow<'_, str>); 2] {
    [
        ("disk", Cow::Borrowed(name)),
        ("session", session.to_string().into()),
    ]
}

fn process(page: &mut Page, status: &ServiceStatus) {
    page.metric("build_info", "gauge", "The program; its value is always 1.");
    page.sample(
        "build_info",
        &[("version", Cow::Borrowed(&status.version))],
        1,
    );
    page.metric(
        "start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
    );
    let start = status.started.0.duration_since(SystemTime::UNIX_EPOCH);
    page.sample(
        "start_time_seconds",
        &[],
        start.unwrap_or_default().as_secs(),
    );
}

/// A gauge of each disk.
type OfDisk = (&'static str, &'static str, fn(&DiskStatus) -> u64);

fn disks(page: &mut Page, status: &ServiceStatus) {
    const GAUGES: [OfDisk; 7] = [
        (
            "disk_serving",
            "Whether front-ends can connect to the disk.",
            |disk| u64::from(disk.state == DiskState::Serving),
        ),
        (
            "disk_waiting_for_target",
            "Whether the disk waits for its first login.",
            |disk| u64::from(disk.state == DiskState::WaitingForTarget),
        ),
        (
            "disk_capacity_bytes",
            "The capacity that the LUN had at the last login.",
            |disk| disk.lun.as_ref().map_or(0, |lun| lun.capacity_bytes),
        ),
        (
            "disk_front_end_connected",
            "Whether a front-end is connected.",
            |disk| u64::from(disk.front_end.is_some()),
        ),
        ("disk_queues", "The rings that a guest uses.", |disk| {
            disk.queues.len() as u64
        }),
        (
            "disk_barrier_raised",
            "Whether no command goes out until the target has ended old tasks.",
            |disk| u64::from(!disk.barrier_raised_by.is_empty()),
        ),
        (
            "disk_problems",
            "How many things need attention: the verb status says which.",
            |disk| disk.problems.len() as u64,
        ),
    ];
    for (name, help, value) in GAUGES {
        page.metric(name, "gauge", help);
        for disk in &status.disks {
            page.sample(name, &disk_label(&disk.name), value(disk));
        }
    }
}

/// A gauge of each portal.
type OfPortal = (&'static str, &'static str, fn(&PortalStatus) -> u64);

fn portals(page: &mut Page, status: &ServiceStatus) {
    const GAUGES: [OfPortal; 3] = [
        (
            "portal_discovery_failing",
            "Whether the last discovery failed.",
            |portal| u64::from(portal.state == PortalState::Failing),
        ),
        (
            "portal_disks",
            "How many disks are served from the portal.",
            |portal| portal.disks as u64,
        ),
        (
            "portal_problems",
            "How many things need attention: the verb status says which.",
            |portal| portal.problems.len() as u64,
        ),
    ];
    for (name, help, value) in GAUGES {
        page.metric(name, "gauge", help);
        for (index, portal) in status.portals.iter().enumerate() {
            // An address may be there twice, with other targets.
            let labels = [
                ("portal", Cow::Borrowed(portal.address.as_str())),
                ("index", index.to_string().into()),
            ];
            page.sample(name, &labels, value(portal));
        }
    }
}

fn sessions(page: &mut Page, status: &ServiceStatus) {
    page.metric("session_up", "gauge", "Whether the session is logged in.");
    for disk in &status.disks {
        for session in &disk.sessions {
            let is_up = session.state == SessionState::LoggedIn;
            let labels = session_labels(&disk.name, session.session);
            page.sample("session_up", &labels, u8::from(is_up));
        }
    }
}

/// A number of each session.
type OfSession = (
    &'static str,
    &'static str,
    &'static str,
    fn(&SessionStats) -> u64,
);

fn counters(page: &mut Page, stats: &ServiceStats) {
    const NUMBERS: [OfSession; 10] = [
        (
            "requests_in_flight",
            "gauge",
            "Requests in flight.",
            |session| session.in_flight,
        ),
        (
            "sessions_lost_total",
            "counter",
            "How often the session was lost.",
            |session| session.sessions_lost,
        ),
        (
            "commands_timed_out_total",
            "counter",
            "Commands that were not answered in time.",
            |session| session.commands_timed_out,
        ),
        (
            "commands_aborted_total",
            "counter",
            "Commands that the target ended when it was asked to.",
            |session| session.commands_aborted,
        ),
        (
            "retries_total",
            "counter",
            "Requests that were begun again.",
            |session| session.retries,
        ),
        (
            "rejects_total",
            "counter",
            "PDUs that the target rejected.",
            |session| session.rejects,
        ),
        (
            "window_closed_turns_total",
            "counter",
            "Turns in which requests waited for the target's command window.",
            |session| session.window_closed,
        ),
        (
            "table_full_turns_total",
            "counter",
            "Turns in which requests waited for there was no room for more.",
            |session| session.table_full,
        ),
        (
            "target_busy_turns_total",
            "counter",
            "Turns in which requests waited for the target had said that it is busy.",
            |session| session.target_busy,
        ),
        (
            "throttled_requests_total",
            "counter",
            "Requests that a limit of the disk has held.",
            |session| session.throttled,
        ),
    ];
    for (name, kind, help, value) in NUMBERS {
        page.metric(name, kind, help);
        for (disk, session) in of_sessions(stats) {
            let labels = session_labels(&disk.name, session.session);
            page.sample(name, &labels, value(session));
        }
    }
}

/// The limits in force: a disk has those that are set.
fn limits(page: &mut Page, status: &ServiceStatus) {
    const GAUGES: [(&str, Unit, &str); 2] = [
        (
            "disk_limit_requests_per_second",
            Unit::Requests,
            "The most requests per second, on average.",
        ),
        (
            "disk_limit_bytes_per_second",
            Unit::Bytes,
            "The most bytes per second, on average.",
        ),
    ];
    for (name, unit, help) in GAUGES {
        page.metric(name, "gauge", help);
        for disk in &status.disks {
            for (option, _, rate) in disk.limits.named().iter().filter(|limit| limit.1 == unit) {
                let Some(rate) = rate else { continue };
                let [disk] = disk_label(&disk.name);
                let direction = option.rsplit('-').next().unwrap_or_default();
                let labels = [disk, ("direction", direction.into())];
                page.sample(name, &labels, rate.per_s);
            }
        }
    }
}

fn throttled_time(page: &mut Page, stats: &ServiceStats) {
    const NAME: &str = "throttled_seconds_total";
    let help = "For how long limits have held requests, those behind them not counted.";
    page.metric(NAME, "counter", help);
    for (disk, session) in of_sessions(stats) {
        let labels = session_labels(&disk.name, session.session);
        page.sample(NAME, &labels, in_seconds(session.throttled_us));
    }
}

fn of_sessions(stats: &ServiceStats) -> impl Iterator<Item = (&DiskStats, &SessionStats)> {
    let disks = stats.disks.iter();
    disks.flat_map(|disk| disk.sessions.iter().map(move |session| (disk, session)))
}

/// Each session's operations, with their labels.
fn for_each_operation(
    stats: &ServiceStats,
    mut show: impl FnMut(&[(&'static str, Cow<'_, str>); 3], &OperationStats),
) {
    for (disk, session) in of_sessions(stats) {
        let [disk, session_label] = session_labels(&disk.name, session.session);
        for (name, operation) in session.operations.named() {
            let labels = [
                disk.clone(),
                session_label.clone(),
                ("operation", name.into()),
            ];
            show(&labels, operation);
        }
    }
}

/// A number of each session's operation.
type OfOperation = (&'static str, &'static str, fn(&OperationStats) -> u64);

fn operations(page: &mut Page, stats: &ServiceStats) {
    const COUNTERS: [OfOperation; 3] = [
        ("requests_total", "Requests that have ended.", |operation| {
            operation.requests
        }),
        (
            "request_errors_total",
            "Requests that have failed.",
            |operation| operation.errors,
        ),
        (
            "request_bytes_total",
            "What the requests that succeeded were about.",
            |operation| operation.bytes,
        ),
    ];
    for (name, help, value) in COUNTERS {
        page.metric(name, "counter", help);
        for_each_operation(stats, |labels, operation| {
            page.sample(name, labels, value(operation))
        });
    }
}

fn latencies(page: &mut Page, stats: &ServiceStats) {
    const NAME: &str = "request_duration_seconds";
    page.metric(
        NAME,
        "histogram",
        "How long requests took, from the ring and back to it.",
    );
    for_each_operation(stats, |[disk, session, operation], stats| {
        let latency = &stats.latency;
        let mut bucket = |bound: String, count| {
            let labels = [
                disk.clone(),
                session.clone(),
                operation.clone(),
                ("le", bound.into()),
            ];
            page.sample("request_duration_seconds_bucket", &labels, count);
        };
        for octave in OCTAVES {
            let bound_us = 1 << octave;
            bucket(in_seconds(bound_us), latency.below(bound_us));
        }
        bucket("+Inf".to_owned(), latency.count());
        let labels = [disk.clone(), session.clone(), operation.clone()];
        let sum = in_seconds(latency.sum_us);
        page.sample("request_duration_seconds_sum", &labels, sum);
        page.sample("request_duration_seconds_count", &labels, latency.count());
    });
}

/// Exact, without exponent and without zeros at the end.
fn in_seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Bucket, Histogram};
    use crate::status::Timestamp;

    #[test]
    fn seconds_are_exact() {
        let shown = [0, 1, 16, 1_000_000, 1_048_576, 16_777_216, 120_000_000].map(in_seconds);
        assert_eq!(
            shown,
            [
                "0",
                "0.000001",
                "0.000016",
                "1",
                "1.048576",
                "16.777216",
                "120"
            ]
        );
    }

    #[test]
    fn a_label_is_escaped() {
        let mut page = Page::default();
        page.sample("x", &[("a", "q\"b\\s\nn".into())], 1);
        assert_eq!(page.0, "vhost_user_iscsi_x{a=\"q\\\"b\\\\s\\nn\"} 1\n");
    }

    #[test]
    fn portals_of_one_address_are_told_apart() {
        let now = Timestamp::now();
        let mut failing = PortalStatus::new("192.0.2.1:3260".to_owned());
        failing.state = PortalState::Failing;
        let status = ServiceStatus {
            version: "1".to_owned(),
            pid: 1,
            started: now,
            now,
            disks: Vec::new(),
            portals: vec![PortalStatus::new("192.0.2.1:3260".to_owned()), failing],
        };
        let mut page = Page::default();
        portals(&mut page, &status);
        let failing = page.0.lines().filter(|line| line.contains("_failing{"));
        let expected = |index: usize, value: usize| {
            format!(
                "vhost_user_iscsi_portal_discovery_failing\
                 {{portal=\"192.0.2.1:3260\",index=\"{index}\"}} {value}"
            )
        };
        let failing: Vec<_> = failing.collect();
        assert_eq!(failing, [expected(0, 0), expected(1, 1)]);
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_all() {
        let mut session = SessionStats::default();
        let bucket = |below_us, requests| Bucket { below_us, requests };
        session.operations.flush.latency = Histogram {
            sum_us: 3_000_000,
            buckets: vec![bucket(Some(12), 2), bucket(Some(32), 3), bucket(None, 1)],
        };
        let now = Timestamp::now();
        let stats = ServiceStats {
            started: now,
            now,
            disks: vec![DiskStats {
                name: "a".to_owned(),
                since: Some(now),
                sessions: vec![session],
            }],
        };
        let mut page = Page::default();
        latencies(&mut page, &stats);
        let of_flush: Vec<_> = page
            .0
            .lines()
            .filter(|line| line.contains("\"flush\""))
            .collect();
        let has = |end: &str| of_flush.iter().any(|line| line.ends_with(end));
        assert!(
            has("le=\"0.000016\"} 2") && has("le=\"0.000032\"} 5"),
            "{of_flush:#?}"
        );
        assert!(
            has("le=\"16.777216\"} 5") && has("le=\"+Inf\"} 6"),
            "{of_flush:#?}"
        );
        assert!(
            has("_sum{disk=\"a\",session=\"0\",operation=\"flush\"} 3"),
            "{of_flush:#?}"
        );
        assert!(
            has("_count{disk=\"a\",session=\"0\",operation=\"flush\"} 6"),
            "{of_flush:#?}"
        );
        assert_eq!(of_flush.len(), 21 + 3);
    }
}
