//! The report for people, as plain text.

use std::fmt::Write;

use super::{CaseReport, FloorReport, IdleReport, Report, TargetReport};
use crate::demands::Verdict;
use crate::parts::Subject;
use crate::parts::server::Digests;
use crate::round::{Round, as_f64};

/// The whole report.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    for target in &report.targets {
        text += &target_text(target);
        text.push('\n');
    }
    text += &verdicts(&report.verdicts);
    if report.quick {
        text += "a quick run: it shows that everything works, and decides nothing\n";
    }
    text.push('\n');
    text += &header(report);
    text
}

/// Where, when and how it was measured.
fn header(report: &Report) -> String {
    let machine = &report.machine;
    let cpu = |cpu: Option<usize>| cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
    let counter = report
        .syscall_counter
        .map_or("nobody".to_owned(), |c| format!("{c:?}").to_lowercase());
    format!(
        "{}, {} x {}, {:.1} GiB, Linux {}\n\
         processors: target {}, back-end and peer {}, client {}\n\
         ours: {} {}\npeer: {}\n\
         medians of {} rounds of {} s each, in turn; ratios are medians of the rounds' ratios\n\
         -reg: without the inflight region, which our back-end has everywhere else\n\
         system calls counted by {counter}, in a run of its own\n",
        report.date,
        machine.cpus,
        machine.model,
        as_f64(machine.memory_bytes) / f64::from(1 << 30),
        machine.kernel,
        cpu(report.pinning.target),
        cpu(report.pinning.back_end),
        cpu(report.pinning.client),
        report.back_end_version,
        report.back_end_arguments.join(" "),
        report.peer_version,
        report.rounds,
        report.seconds,
    )
}

fn target_text(target: &TargetReport) -> String {
    let mut text = format!(
        "{:<25} {:<9} {:>8} {:>7} {:>9} {:>9} {:>9} {:>8} {:>8}\n",
        target.name, "", "IOPS", "MB/s", "p50 us", "p99 us", "p99.9 us", "CPU us", "calls"
    );
    for case in &target.cases {
        text += &case_text(case);
    }
    for idle in &target.idle {
        text += &idle_text(idle);
    }
    text
}

/// A line for everybody who ran, one for the ratios of ours to the peer or of the inflight region to
/// none, one for each floor.
fn case_text(case: &CaseReport) -> String {
    let mut text = String::new();
    if let Some(reason) = &case.failed {
        let _ = writeln!(text, "{:<25} {reason}", case.name);
    }
    let compares_regions = case.inflight_cost().is_some();
    let mut name = &*case.name;
    for arm in &case.arms {
        let who = match arm.digests {
            Digests::Off if compares_regions && !arm.inflight_region => "ours -reg".to_owned(),
            Digests::Off => arm.subject.to_string(),
            Digests::Header => format!("{} +hdr", arm.subject),
            Digests::Both => format!("{} +both", arm.subject),
        };
        let median = |value: fn(&Round) -> f64| super::median(&arm.values(value)).unwrap_or(0.0);
        let _ = writeln!(
            text,
            "{name:<25} {who:<9} {:>8.0} {:>7.0} {:>9.1} {:>9.1} {:>9.1} {:>8.2} {:>8}",
            median(|round| round.iops),
            median(|round| round.megabytes_per_second),
            median(|round| round.p50_us),
            median(|round| round.p99_us),
            median(|round| round.p999_us),
            median(|round| round.server_cpu_us),
            arm.syscalls
                .map_or_else(String::new, |calls| format!("{calls:.3}")),
        );
        name = "";
    }
    text += &ratios(case).unwrap_or_default();
    if let Some(cost) = case.inflight_cost() {
        let _ = writeln!(text, "{:<25} CPU {cost}", "");
    }
    for floor in &case.floors {
        text += &floor_text(case, floor);
    }
    text
}

fn ratios(case: &CaseReport) -> Option<String> {
    let syscalls = || Some(case.syscalls(Subject::Ours)? / case.syscalls(Subject::Peer)?);
    Some(format!(
        "{:<25} {:<9} {:>8.2} {:>7} {:>9.2} {:>9.2} {:>9.2} {:>8.2} {:>8}\n",
        "",
        "  ratio",
        case.ratio(|round| round.iops)?,
        "",
        case.ratio(|round| round.p50_us)?,
        case.ratio(|round| round.p99_us)?,
        case.ratio(|round| round.p999_us)?,
        case.ratio(|round| round.server_cpu_us)?,
        syscalls().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
    ))
}

fn floor_text(case: &CaseReport, floor: &FloorReport) -> String {
    let who = match floor {
        FloorReport {
            coalesced_answers: 2..,
            ..
        } => "bare, co.",
        FloorReport {
            busy_poll_us: 1.., ..
        } => "bare poll",
        _ => "bare",
    };
    format!(
        "{:<25} {who:<9} {:>8.0} {:>7.0} {:>9.1} {:>9.1} {:>9} {:>8.2} {:>8.3}\n",
        "",
        floor.iops,
        floor.iops * f64::from(case.request_bytes) / 1e6,
        floor.p50_us,
        floor.p99_us,
        "",
        floor.cpu_us,
        floor.syscalls,
    )
}

fn idle_text(idle: &IdleReport) -> String {
    format!(
        "{:<25} {:<9} {:.3} % of a processor and {:.1} MiB with {} silent queues, over {:.0} s\n",
        "idle",
        idle.subject.to_string(),
        idle.cpu_share * 100.0,
        as_f64(idle.anonymous_bytes) / f64::from(1 << 20),
        idle.queues,
        idle.seconds,
    )
}

/// Every demand, with what was measured.
fn verdicts(verdicts: &[Verdict]) -> String {
    let mut text = format!(
        "{:<8} {:<44} {:<14} {:>8}  {:<25}\n",
        "target", "demand", "", "measured", "worst case"
    );
    for verdict in verdicts {
        let measured = verdict
            .measured
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let met = if verdict.met { "met" } else { "MISSED" };
        let _ = writeln!(
            text,
            "{:<8} {:<44} {:<14} {measured:>8}  {:<25} {met}",
            shortened(&verdict.target),
            verdict.demand,
            verdict.limit,
            verdict.worst_case,
        );
        if let Some(note) = &verdict.note {
            let _ = writeln!(text, "{:<8}     {note}", "");
        }
    }
    let missed = verdicts.iter().filter(|verdict| !verdict.met).count();
    let _ = writeln!(
        text,
        "{} demands met, {missed} missed",
        verdicts.len() - missed
    );
    text
}

/// A URL is too long for a table.
fn shortened(target: &str) -> &str {
    if target.contains("://") {
        "URL"
    } else {
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_a_line_for_everybody_and_one_for_the_ratios() {
        let mut case = CaseReport::example("read-4k-d32-q1");
        case.arms[0].rounds[0].iops = 250_000.0;
        case.arms[0].syscalls = Some(0.25);
        let text = case_text(&case);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with("read-4k-d32-q1            ours        250000"),
            "{text}"
        );
        assert!(
            lines[0].ends_with("0.250") && lines[2].contains("ratio       2.50"),
            "{text}"
        );
    }

    #[test]
    fn a_case_without_the_peer_compares_the_region() {
        let case = CaseReport::inflight_example("write-4k-d128-q1-inflight", &[(1.02, 1.0)]);
        let text = case_text(&case);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("write-4k-d128-q1-inflight ours      "));
        assert!(lines[1].starts_with("ours -reg "), "{text}");
        assert!(lines[2].starts_with("CPU with the region 1.020, without 1.000 us, ratio 1.020;"));
    }

    #[test]
    fn a_missed_demand_says_how_far_it_got() {
        let verdict = Verdict {
            target: "tgt".to_owned(),
            demand: "IOPS",
            limit: "at least 1".to_owned(),
            worst_case: "read-4k-d1-q1".to_owned(),
            measured: Some(0.5),
            met: false,
            note: Some("ours 1, peer 2 IOPS".to_owned()),
        };
        let text = verdicts(&[verdict]);
        assert!(
            text.contains("0.500  read-4k-d1-q1             MISSED\n"),
            "{text}"
        );
        assert!(
            text.ends_with("ours 1, peer 2 IOPS\n0 demands met, 1 missed\n"),
            "{text}"
        );
    }
}
