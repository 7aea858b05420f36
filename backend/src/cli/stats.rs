//! `stats`: what guests have asked for, how fast it went, and what kept it waiting.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::ask::AskArgs;
use super::columns::Columns;
use super::units::size;
use super::{Control, print, to_json};
use crate::control_protocol::Request;
use crate::escape::escape_control_characters;
use crate::exit::Failure;
use crate::stats::{DiskStats, OperationStats, ServiceStats, SessionStats};
use crate::status::Timestamp;

/// The arguments of `stats`.
#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// This disk only, and each of its sessions
    disk: Option<String>,

    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn run(
    arguments: &StatsArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let disk = arguments.disk.clone();
    let is_one = disk.is_some();
    let stats: ServiceStats = arguments.ask.ask(control, &Request::Stats { disk })?;
    match arguments.ask.json {
        true => print(out, &to_json(&stats)?),
        false => print(out, &render(&stats, is_one)),
    }
}

fn render(stats: &ServiceStats, with_sessions: bool) -> String {
    let mut text = String::new();
    for (index, disk) in stats.disks.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "\n" });
        write_disk(&mut text, disk, stats.now, with_sessions);
    }
    text
}

fn write_disk(text: &mut String, disk: &DiskStats, now: Timestamp, with_sessions: bool) {
    let name = escape_control_characters(&disk.name);
    let Some(since) = disk.since else {
        let _ = writeln!(text, "Disk {name}: nothing yet, it waits for its target");
        return;
    };
    let age = since.age(now);
    let shown = humantime::format_duration(Duration::from_secs(age.as_secs()));
    let _ = writeln!(text, "Disk {name}, for {shown} since {since}");
    let mut sum = SessionStats::default();
    disk.sessions.iter().for_each(|session| sum.add(session));
    write_session(text, &sum, age);
    for session in disk.sessions.iter().filter(|_| with_sessions) {
        let _ = writeln!(text, "Session {}", session.session);
        write_session(text, session, age);
    }
}

fn write_session(text: &mut String, session: &SessionStats, age: Duration) {
    let mut columns = Columns::new([
        "operation",
        "requests",
        "per s",
        "data",
        "per s",
        "errors",
        "mean",
        "p50",
        "p99",
        "p99.9",
    ]);
    let operations = session.operations.named().into_iter();
    for (name, operation) in operations.filter(|(_, operation)| operation.requests > 0) {
        columns.row(operation_row(name, operation, age));
    }
    text.push_str(&columns.render(2));
    let facts = [
        ("in flight", session.in_flight),
        ("sessions lost", session.sessions_lost),
        ("commands timed out", session.commands_timed_out),
        ("commands aborted", session.commands_aborted),
        ("retries", session.retries),
        ("rejects", session.rejects),
        (
            "turns with the command window closed",
            session.window_closed,
        ),
        ("turns with the table full", session.table_full),
        ("turns with the target busy", session.target_busy),
        ("held by limits", session.throttled),
    ];
    let facts = facts.into_iter().filter(|(_, count)| *count > 0);
    let facts: Vec<_> = facts
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    if !facts.is_empty() {
        let _ = writeln!(text, "  {}", facts.join(", "));
    }
}

fn operation_row(name: &str, operation: &OperationStats, age: Duration) -> [String; 10] {
    let latency = &operation.latency;
    let percentile = |per_mille| match latency.percentile_us(per_mille) {
        None => "-".to_owned(),
        Some(None) => "longer".to_owned(),
        Some(Some(below_us)) => format!("<{}", time(below_us)),
    };
    let mean = latency.sum_us.checked_div(operation.requests);
    [
        name.replace('_', " "),
        operation.requests.to_string(),
        per_second(operation.requests, age).to_string(),
        size(operation.bytes),
        size(per_second(operation.bytes, age)),
        operation.errors.to_string(),
        mean.map_or_else(|| "-".to_owned(), time),
        percentile(500),
        percentile(990),
        percentile(999),
    ]
}

/// To the whole, downwards; over the first millisecond there is nothing to say.
pub(super) fn per_second(count: u64, age: Duration) -> u64 {
    let per_second = (u128::from(count) * 1000).checked_div(age.as_millis());
    per_second.map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

/// `96us`, `1.5ms`, `2s`.
pub(super) fn time(us: u64) -> String {
    let tenths = |unit_us: u64, name: &str| {
        let (whole, tenth) = (us / unit_us, us % unit_us * 10 / unit_us);
        match tenth {
            0 => format!("{whole}{name}"),
            _ => format!("{whole}.{tenth}{name}"),
        }
    };
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => tenths(1_000, "ms"),
        _ => tenths(1_000_000, "s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::stats::{Bucket, Histogram};

    fn reads(session: usize, requests: u64) -> SessionStats {
        let mut stats = SessionStats {
            session,
            ..SessionStats::default()
        };
        stats.operations.read = OperationStats {
            requests,
            bytes: requests * 4096,
            errors: 1,
            latency: Histogram {
                sum_us: requests * 90,
                buckets: vec![Bucket {
                    below_us: Some(96),
                    requests,
                }],
            },
        };
        stats
    }

    #[test]
    fn a_disk_is_the_sum_of_its_sessions() {
        let since = Timestamp(SystemTime::UNIX_EPOCH);
        let lost = SessionStats {
            sessions_lost: 2,
            ..reads(1, 3000)
        };
        let stats = ServiceStats {
            started: since,
            now: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(10)),
            disks: vec![
                DiskStats {
                    name: "a".to_owned(),
                    since: Some(since),
                    sessions: vec![reads(0, 1000), lost],
                },
                DiskStats {
                    name: "b".to_owned(),
                    since: None,
                    sessions: Vec::new(),
                },
            ],
        };
        assert_eq!(
            render(&stats, false),
            "Disk a, for 10s since 1970-01-01T00:00:00Z\n\
             \x20 operation  requests  per s      data    per s  errors  mean    p50    p99  p99.9\n\
             \x20 read           4000    400  15.6 MiB  1.5 MiB       2  90us  <96us  <96us  <96us\n\
             \x20 sessions lost: 2\n\
             \n\
             Disk b: nothing yet, it waits for its target\n"
        );
        let with_sessions = render(&stats, true);
        assert!(with_sessions.contains("Session 1\n"), "{with_sessions}");
    }

    #[test]
    fn a_time_is_in_the_largest_unit_that_it_reaches() {
        let shown = [0, 999, 1000, 1536, 999_999, 1_000_000, 134_217_728].map(time);
        assert_eq!(
            shown,
            ["0us", "999us", "1ms", "1.5ms", "999.9ms", "1s", "134.2s"]
        );
    }

    #[test]
    fn a_rate_over_no_time_is_none() {
        assert_eq!(per_second(5, Duration::ZERO), 0);
        assert_eq!(per_second(u64::MAX, Duration::from_millis(1)), u64::MAX);
    }
}
