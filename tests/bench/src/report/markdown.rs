//! The report as tables for the documentation.

use std::fmt::Write;

use super::{CaseReport, Report, TargetReport};
use crate::parts::Subject;
use crate::round::Round;

/// All cases, and the verdicts.
pub(crate) fn render(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "Measured {} on {} × {}, Linux {}; ours against {}; medians of {} rounds of {} s.\n",
        report.date.get(..10).unwrap_or(&report.date),
        machine.cpus,
        machine.model,
        machine.kernel,
        report.peer_version,
        report.rounds,
        report.seconds
    );
    for target in &report.targets {
        text += &target_table(target);
        text += &inflight_table(target);
    }
    text + &verdict_table(report)
}

fn target_table(target: &TargetReport) -> String {
    let mut text = format!(
        "\n| {} | IOPS | ratio | p50 µs | ratio | p99 µs | ratio | CPU µs | ratio | bare | calls |\n\
         | --- |{}\n",
        target.name,
        " --: |".repeat(10)
    );
    for case in &target.cases {
        text += &case_row(case).unwrap_or_default();
    }
    text
}

/// Ours, with the ratio to the peer; `None` when it was not measured.
fn case_row(case: &CaseReport) -> Option<String> {
    let pair = |value: fn(&Round) -> f64, digits: usize| {
        let ours = case.median(Subject::Ours, value)?;
        Some(format!(" {ours:.digits$} | {:.2} |", case.ratio(value)?))
    };
    let floor = case
        .cheapest_floor()
        .map_or_else(String::new, |floor| format!("{:.2}", floor.cpu_us));
    let calls = case
        .syscalls(Subject::Ours)
        .map_or_else(String::new, |calls| format!("{calls:.2}"));
    Some(format!(
        "| {} |{}{}{}{} {floor} | {calls} |\n",
        case.name,
        pair(|round| round.iops, 0)?,
        pair(|round| round.p50_us, 0)?,
        pair(|round| round.p99_us, 0)?,
        pair(|round| round.server_cpu_us, 2)?,
    ))
}

/// What the inflight region costs; nothing when nobody looked.
fn inflight_table(target: &TargetReport) -> String {
    let mut rows = String::new();
    for case in &target.cases {
        let Some(cost) = case.inflight_cost() else {
            continue;
        };
        let (low, high) = cost.middle_half;
        let _ = writeln!(
            rows,
            "| {} | {:.3} | {:.3} | {:.3} | {low:.3} to {high:.3} | {} |",
            case.name, cost.with_us, cost.without_us, cost.ratio, cost.rounds
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n| {}: inflight region | CPU µs with | without | ratio | half of all rounds | rounds |\n\
         | --- |{} --- | --: |\n{rows}",
        target.name,
        " --: |".repeat(3)
    )
}

fn verdict_table(report: &Report) -> String {
    let mut text = "\n| target | demand | | measured | worst case | |\n\
        | --- | --- | --- | --: | --- | --- |\n"
        .to_owned();
    for verdict in &report.verdicts {
        let measured = verdict
            .measured
            .map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        let met = if verdict.met { "met" } else { "**missed**" };
        let note = verdict
            .note
            .as_ref()
            .map_or_else(String::new, |note| format!(": {note}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {measured} | {} | {met}{note} |",
            verdict.target, verdict.demand, verdict.limit, verdict.worst_case
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_as_many_columns_as_the_head() {
        let case = CaseReport::example("read-4k-d32-q1");
        let target = TargetReport {
            name: "tgt".to_owned(),
            cases: vec![case],
            idle: Vec::new(),
        };
        let table = target_table(&target);
        let columns: Vec<_> = table
            .lines()
            .skip(1)
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(columns, [12, 12, 12], "{table}");
    }

    #[test]
    fn what_the_region_costs_has_a_table_of_its_own() {
        let name = "read-4k-d32-q1-inflight";
        let mut target = TargetReport {
            name: "memory".to_owned(),
            cases: vec![CaseReport::inflight_example(name, &[(1.02, 1.0)])],
            idle: Vec::new(),
        };
        assert!(!target_table(&target).contains(name), "there is no peer");
        let table = inflight_table(&target);
        let row = "| read-4k-d32-q1-inflight | 1.020 | 1.000 | 1.020 | 1.020 to 1.020 | 1 |\n";
        assert!(table.ends_with(row), "{table}");
        let lines = table.lines().skip(1);
        let columns: Vec<_> = lines.map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, [7, 7, 7], "{table}");
        target.cases = vec![CaseReport::example("read-4k-d32-q1")];
        assert_eq!(inflight_table(&target), "");
    }
}
