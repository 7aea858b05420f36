//! An interval as text: what needs attention, then a line for each disk.

use std::fmt::Write as _;
use std::time::Duration;

use super::rates::{Rate, Rates, View};
use crate::cli::columns::Columns;
use crate::cli::stats::{per_second, time};
use crate::cli::status::{age, disk_state};
use crate::cli::units::size;
use crate::escape::escape_control_characters;

/// What can be typed.
pub(super) const KEYS: &str = "q ends, s shows sessions";

/// How many problems are shown: the table below has to fit, too.
const MAX_PROBLEMS: usize = 6;

/// The whole, with a newline after each line.
pub(super) fn render(view: &View, with_sessions: bool) -> String {
    let mut text = format!(
        "vhost-user-iscsi {}, process {}, up for {}, {}\n",
        escape_control_characters(&view.version),
        view.pid,
        age(view.started, view.now),
        view.now
    );
    write_problems(&mut text, view);
    text.push('\n');
    text.push_str(&table(view, with_sessions));
    text
}

fn write_problems(text: &mut String, view: &View) {
    let problems = view.disks.iter().flat_map(|disk| {
        let problems = disk.problems.iter();
        problems.map(|problem| format!("{}: {problem}", disk.name))
    });
    let problems: Vec<_> = problems.collect();
    for problem in problems.iter().take(MAX_PROBLEMS) {
        let _ = writeln!(text, "! {}", escape_control_characters(problem));
    }
    if let Some(more) = problems
        .len()
        .checked_sub(MAX_PROBLEMS)
        .filter(|more| *more > 0)
    {
        let _ = writeln!(text, "! and {more} more: see status");
    }
}

fn table(view: &View, with_sessions: bool) -> String {
    let elapsed = Duration::from_micros(view.interval_us);
    let mut columns = Columns::new([
        "disk",
        "state",
        "up",
        "reads/s",
        "read/s",
        "p50",
        "p99",
        "writes/s",
        "written/s",
        "p50",
        "p99",
        "others/s",
        "depth",
        "in flight",
        "errors",
        "retries",
        "held",
    ]);
    for disk in &view.disks {
        let mark = if disk.problems.is_empty() { " " } else { "!" };
        let name = format!("{mark} {}", disk.name);
        let up = format!("{}/{}", disk.sessions_up, disk.sessions.len());
        columns.row(row(
            name,
            disk_state(disk.state).into(),
            up,
            &disk.total,
            elapsed,
        ));
        for session in disk.sessions.iter().filter(|_| with_sessions) {
            let name = format!("    session {}", session.session);
            let state = session
                .state
                .map_or("gone", crate::cli::status::session_state);
            columns.row(row(
                name,
                state.into(),
                String::new(),
                &session.rates,
                elapsed,
            ));
        }
    }
    columns.render(0)
}

fn row(name: String, state: String, up: String, rates: &Rates, elapsed: Duration) -> [String; 17] {
    let [reads, read, read_p50, read_p99] = rate(rates.read, elapsed);
    let [writes, written, write_p50, write_p99] = rate(rates.write, elapsed);
    let [others, ..] = rate(rates.other, elapsed);
    let all = [rates.read, rates.write, rates.other].into_iter().flatten();
    let errors = all.map(|rate| rate.errors).reduce(u64::saturating_add);
    [
        name,
        state,
        up,
        reads,
        read,
        read_p50,
        read_p99,
        writes,
        written,
        write_p50,
        write_p99,
        others,
        shown(rates.depth_milli.map(tenths)),
        rates.in_flight.to_string(),
        shown(errors),
        shown(rates.retries),
        shown(rates.throttled),
    ]
}

/// Requests and bytes per second, and what half and nearly all of them took.
fn rate(rate: Option<Rate>, elapsed: Duration) -> [String; 4] {
    let Some(rate) = rate else {
        return ["-"; 4].map(str::to_owned);
    };
    let percentile = |time_us: Option<u64>| match (rate.requests, time_us) {
        (0, _) => "-".to_owned(),
        (_, None) => "longer".to_owned(),
        (_, Some(below_us)) => format!("<{}", time(below_us)),
    };
    [
        per_second(rate.requests, elapsed).to_string(),
        size(per_second(rate.bytes, elapsed)),
        percentile(rate.p50_us),
        percentile(rate.p99_us),
    ]
}

/// Thousandths to a tenth, downwards.
fn tenths(milli: u64) -> String {
    format!("{}.{}", milli / 1000, milli % 1000 / 100)
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::rates::tests::view;
    use super::*;

    #[test]
    fn a_screen_begins_with_what_is_wrong() {
        let text = render(&view(&["session 0 is away: \x1b[2J"]), true);
        let expected = "\
vhost-user-iscsi 0, process 1, up for 1m 40s, 1970-01-01T00:01:40Z
! bad: session 0 is away: \\u{1b}[2J

disk             state   up  reads/s    read/s     p50     p99  writes/s  written/s  p50  p99  others/s  depth  in flight  errors  retries  held
! bad          serving  0/1        1     4 KiB  <256us  <256us         0    0 bytes    -    -         0    0.0          3       0        0     0
    session 0     gone             1     4 KiB  <256us  <256us         0    0 bytes    -    -         0    0.0          3       0        0     0
  busy         serving  0/1     5000  19.5 MiB  <256us  <256us         0    0 bytes    -    -         0    1.0          3       0        0     0
    session 0     gone          5000  19.5 MiB  <256us  <256us         0    0 bytes    -    -         0    1.0          3       0        0     0
  quiet        serving  0/1        0   0 bytes       -       -         0    0 bytes    -    -         0    0.0          3       0        0     0
    session 0     gone             0   0 bytes       -       -         0    0 bytes    -    -         0    0.0          3       0        0     0
";
        assert_eq!(text, expected);
    }

    #[test]
    fn many_problems_leave_room_for_the_disks() {
        let problems = ["x"; MAX_PROBLEMS];
        assert!(!render(&view(&problems), false).contains("more: see status"));
        let text = render(&view(&["x"; MAX_PROBLEMS + 1]), false);
        assert!(text.contains("\n! and 1 more: see status\n"), "{text}");
    }
}
