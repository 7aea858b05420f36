//! The report of the verb `scale` for people, as plain text.

use std::fmt::Write;

use super::report::{ScaleReport, ratios_to_first};
use crate::round::{Round, as_f64};

/// The whole report.
pub(crate) fn render(report: &ScaleReport) -> String {
    let tables = [
        silent(report),
        disks(report),
        queues(report),
        header(report),
    ];
    tables.join("\n")
}

/// Where, when and how it was measured.
fn header(report: &ScaleReport) -> String {
    let machine = &report.machine;
    let pinning = &report.pinning;
    let cpu = |cpu: Option<usize>| cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
    format!(
        "{}, {} x {}, {:.1} GiB, Linux {}\n\
         processors: target {}, {} {}, client {}\n\
         target {}, {}: {} {}\n\
         random reads of 4 KiB, {} in flight on each queue, for {} s each; {}, \
         one client thread for all;\nCPU per request is the sum over all processes, and ratios are \
         to the first line\n",
        report.date,
        machine.cpus,
        machine.model,
        as_f64(machine.memory_bytes) / f64::from(1 << 30),
        machine.kernel,
        cpu(pinning.target),
        report.subject,
        cpu(pinning.back_end),
        cpu(pinning.client),
        report.target,
        report.subject,
        report.version,
        report.back_end_arguments.join(" "),
        report.depth,
        report.seconds,
        match (report.one_process, report.share_sessions) {
            (true, true) => "one process for all disks, which share sessions",
            (true, false) => "one process for all disks",
            (false, _) => "a process for each disk",
        },
    )
}

/// What silent disks cost.
fn silent(report: &ScaleReport) -> String {
    let mut text = format!(
        "{:>6} {:>10} {:>12} {:>9} {:>12} {:>12}\n",
        "silent", "CPU %", "CPU %/disk", "wakes/s", "MiB/disk", "most MiB"
    );
    for step in &report.disks {
        let idle = &step.idle;
        let mib = f64::from(1 << 20);
        let _ = writeln!(
            text,
            "{:>6} {:>10.4} {:>12.4} {:>9.1} {:>12.2} {:>12.2}",
            step.disks,
            idle.cpu_share * 100.0,
            idle.cpu_share * 100.0 / f64::from(step.disks),
            idle.wakes_per_second,
            idle.anonymous_bytes / mib,
            as_f64(idle.most_anonymous_bytes) / mib,
        );
    }
    text
}

/// What a request costs with many disks.
fn disks(report: &ScaleReport) -> String {
    let steps = report.disks.iter().map(|step| (step.disks, &step.load));
    loads("disks", &steps.collect::<Vec<_>>())
}

/// What a request costs with many queues.
fn queues(report: &ScaleReport) -> String {
    let steps = report.queues.iter().map(|step| (step.queues, &step.load));
    loads("queues", &steps.collect::<Vec<_>>())
}

/// A line for each step: how many of `what`, and the load on them.
fn loads(what: &str, steps: &[(u16, &Round)]) -> String {
    let mut text = format!(
        "{what:>6} {:>10} {:>7} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10}\n",
        "IOPS",
        "ratio",
        "CPU us",
        "ratio",
        "target us",
        "client us",
        "p50 us",
        "p99 us",
        "switches",
        "busy CPUs",
    );
    let values = |value: fn(&Round) -> f64| {
        ratios_to_first(
            &steps
                .iter()
                .map(|(_, load)| value(load))
                .collect::<Vec<_>>(),
        )
    };
    let ratios = values(|load| load.iops)
        .into_iter()
        .zip(values(|load| load.server_cpu_us));
    for ((count, load), (iops, cpu_us)) in steps.iter().zip(ratios) {
        let _ = writeln!(
            text,
            "{count:>6} {:>10.0} {:>7} {:>9.2} {:>7} {:>9} {:>9.2} {:>9.1} {:>9.1} {:>10.3} {:>10.2}",
            load.iops,
            figure(iops),
            load.server_cpu_us,
            figure(cpu_us),
            figure(load.target_cpu_us),
            load.client_cpu_us,
            load.p50_us,
            load.p99_us,
            load.server_switches,
            load.activity.busy.iter().sum::<f64>(),
        );
    }
    text
}

/// A figure that there may not be.
fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_line_with_its_ratios_to_the_first() {
        let one = Round::example();
        let many = Round {
            iops: 150_000.0,
            server_cpu_us: 4.0,
            target_cpu_us: None,
            ..Round::example()
        };
        let text = loads("disks", &[(1, &one), (64, &many)]);
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        let lines: Vec<_> = text.lines().map(words).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[1][..6],
            ["1", "100000", "1.00", "5.00", "1.00", "4.00"]
        );
        assert_eq!(lines[2][..6], ["64", "150000", "1.50", "4.00", "0.80", "-"]);
    }
}
