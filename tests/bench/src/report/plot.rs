//! Latency against throughput, as SVG: each panel is one target and one operation, each line one
//! of those who were measured, from depth 1 to depth 128 on one queue.
//!
//! Written by hand: two axes, lines and words are less than what a plotting library would bring
//! along.

use std::fmt::Write;

use super::{CaseReport, Report, TargetReport};
use crate::parts::Subject;

const PANEL_WIDTH: f64 = 430.0;
const PANEL_HEIGHT: f64 = 300.0;
/// Around the axes of a panel.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Above all panels: title and legend. Below: where and when.
const HEAD: f64 = 64.0;
const FOOT: f64 = 30.0;
const SMALL_BYTES: u32 = 4096;
/// About as many marks on the throughput axis.
const MARKS: f64 = 5.0;

/// Line colours that colour-blind people can tell apart (Okabe and Ito).
const OURS: &str = "#0072b2";
const PEER: &str = "#d55e00";
const BARE: &str = "#777777";

/// A depth, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    depth: u16,
    thousands_per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// A line of a panel.
struct Series {
    colour: &'static str,
    points: Vec<Point>,
}

/// One pair of axes.
struct Panel {
    title: String,
    series: Vec<Series>,
}

/// The picture; `None` when fewer than two depths were measured.
pub(crate) fn render(report: &Report) -> Option<String> {
    let panels: Vec<Panel> = report.targets.iter().flat_map(panels_of).collect();
    let points = || {
        panels
            .iter()
            .flat_map(|panel| &panel.series)
            .flat_map(|series| &series.points)
    };
    let lowest = points().map(|point| point.p50_us).reduce(f64::min)?;
    let highest = points().map(|point| point.p99_us).reduce(f64::max)?;
    let latencies = Logarithmic::around(lowest, highest);
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(2);
    let width = PANEL_WIDTH * small(columns);
    let height = HEAD + PANEL_HEIGHT * small(rows) + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    svg += &head();
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = (
            PANEL_WIDTH * small(index % 2),
            HEAD + PANEL_HEIGHT * small(index / 2),
        );
        let _ = write!(
            svg,
            "<g transform=\"translate({x} {y})\">\n{}</g>\n",
            panel.draw(&latencies)
        );
    }
    svg += &text(
        LEFT,
        height - 12.0,
        "fill=\"#777\" font-size=\"10\"",
        &foot(report),
    );
    svg += "</svg>\n";
    Some(svg)
}

fn foot(report: &Report) -> String {
    let machine = &report.machine;
    let day = report.date.get(..10).unwrap_or(&report.date);
    format!(
        "{day}, {} × {}, Linux {}; peer: {}",
        machine.cpus, machine.model, machine.kernel, report.peer_version
    )
}

fn head() -> String {
    let title = "4 KiB random, one queue: latency against throughput (numbers: requests in flight)";
    let mut svg = text(LEFT, 24.0, "font-size=\"14\" font-weight=\"bold\"", title);
    let entries = [
        ("vhost-user-iscsi", OURS, ""),
        ("peer", PEER, ""),
        ("bare initiator", BARE, ""),
        ("p50", "#222222", ""),
        ("p99", "#222222", "stroke-dasharray=\"4 3\""),
    ];
    let mut x = LEFT;
    for (name, colour, dashes) in entries {
        let _ = writeln!(
            svg,
            "<path d=\"M{x} 46h24\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\" {dashes}/>"
        );
        svg += &text(x + 30.0, 50.0, "", name);
        x += 56.0 + 6.2 * small(name.len());
    }
    svg
}

/// Reads and writes of a target, as far as there are two depths.
fn panels_of(target: &TargetReport) -> Vec<Panel> {
    let panel = |operation: &str| {
        let cases: Vec<&CaseReport> = target
            .cases
            .iter()
            .filter(|case| {
                let special = ["-digests", "-inflight"];
                let special = special.iter().any(|ending| case.name.ends_with(ending));
                let plain = !case.busy_poll && !special;
                plain
                    && case.operation == operation
                    && case.request_bytes == SMALL_BYTES
                    && case.queues == 1
            })
            .collect();
        let series = [
            series(OURS, &cases, |case| point(case, Subject::Ours)),
            series(PEER, &cases, |case| point(case, Subject::Peer)),
            series(BARE, &cases, floor_point),
        ];
        let series: Vec<_> = series
            .into_iter()
            .filter(|series| series.points.len() > 1)
            .collect();
        let title = format!("{operation}, target: {}", described(&target.name));
        (!series.is_empty()).then_some(Panel { title, series })
    };
    ["read", "write"].into_iter().filter_map(panel).collect()
}

fn described(target: &str) -> &str {
    match target {
        "tgt" => "tgt’s null store",
        "memory" => "in memory, answers in batches",
        other => other,
    }
}

fn series(
    colour: &'static str,
    cases: &[&CaseReport],
    point: impl Fn(&CaseReport) -> Option<Point>,
) -> Series {
    let mut points: Vec<Point> = cases.iter().filter_map(|case| point(case)).collect();
    points.sort_by_key(|point| point.depth);
    Series { colour, points }
}

fn point(case: &CaseReport, subject: Subject) -> Option<Point> {
    Some(Point {
        depth: case.depth,
        thousands_per_second: case.median(subject, |round| round.iops)? / 1e3,
        p50_us: case.median(subject, |round| round.p50_us)?,
        p99_us: case.median(subject, |round| round.p99_us)?,
    })
}

/// The floor that wakes for each answer: the other is about processor time, not latency.
fn floor_point(case: &CaseReport) -> Option<Point> {
    let floor = case
        .floors
        .iter()
        .find(|floor| floor.coalesced_answers == 1)?;
    Some(Point {
        depth: case.depth,
        thousands_per_second: floor.iops / 1e3,
        p50_us: floor.p50_us,
        p99_us: floor.p99_us,
    })
}

impl Panel {
    fn draw(&self, latencies: &Logarithmic) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let most = points()
            .map(|point| point.thousands_per_second)
            .fold(0.0, f64::max);
        let step = round_step(most / MARKS);
        let end = (most / step).ceil() * step;
        let x = |value: f64| LEFT + value / end * (PANEL_WIDTH - LEFT - RIGHT);
        let y = |value: f64| TOP + (1.0 - latencies.share(value)) * (PANEL_HEIGHT - TOP - BOTTOM);
        let mut svg = text(LEFT, TOP - 12.0, "font-weight=\"bold\"", &self.title);
        for mark in latencies.marks() {
            svg += &grid_line(LEFT, y(mark), PANEL_WIDTH - RIGHT, y(mark));
            let label = format!("{mark}");
            svg += &text(LEFT - 6.0, y(mark) + 4.0, "text-anchor=\"end\"", &label);
        }
        let mut mark = 0.0;
        while mark <= end + step / 2.0 {
            svg += &grid_line(x(mark), TOP, x(mark), PANEL_HEIGHT - BOTTOM);
            let label = format!("{mark:.0}");
            svg += &text(
                x(mark),
                PANEL_HEIGHT - BOTTOM + 15.0,
                "text-anchor=\"middle\"",
                &label,
            );
            mark += step;
        }
        svg += &axis_names();
        for series in &self.series {
            svg += &series.draw(&x, &y);
        }
        for series in &self.series {
            svg += &series.depths(&x, &y);
        }
        svg
    }
}

fn axis_names() -> String {
    let middle = f64::midpoint(LEFT, PANEL_WIDTH - RIGHT);
    let below = PANEL_HEIGHT - BOTTOM + 32.0;
    let mut svg = text(
        middle,
        below,
        "text-anchor=\"middle\" fill=\"#555\"",
        "thousand requests per second",
    );
    let height = f64::midpoint(TOP, PANEL_HEIGHT - BOTTOM);
    let turned =
        format!("text-anchor=\"middle\" fill=\"#555\" transform=\"rotate(-90 16 {height})\"");
    svg += &text(16.0, height, &turned, "latency, µs");
    svg
}

impl Series {
    /// Both lines, and points on that of the p50.
    fn draw(&self, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
        let path = |latency: fn(&Point) -> f64| {
            let places = self.points.iter();
            let places = places.map(|point| {
                format!(
                    "{:.1} {:.1}",
                    x(point.thousands_per_second),
                    y(latency(point))
                )
            });
            format!("M{}", places.collect::<Vec<_>>().join("L"))
        };
        let colour = self.colour;
        let mut svg = format!(
            "<path d=\"{}\" stroke=\"{colour}\" stroke-width=\"1.2\" stroke-dasharray=\"4 3\" fill=\"none\"/>\n\
             <path d=\"{}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>\n",
            path(|point| point.p99_us),
            path(|point| point.p50_us),
        );
        for point in &self.points {
            let (x, y) = (x(point.thousands_per_second), y(point.p50_us));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        svg
    }

    /// The depth beside each point of the p50, where the lines of others are least in its way.
    fn depths(&self, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
        let colour = self.colour;
        let (right, down, anchor) = match colour {
            OURS => (5.0, 11.0, "start"),
            PEER => (-5.0, -6.0, "end"),
            _ => (5.0, -6.0, "start"),
        };
        let attributes = format!(
            "font-size=\"9\" fill=\"{colour}\" text-anchor=\"{anchor}\" paint-order=\"stroke\" \
             stroke=\"white\" stroke-width=\"2.5\" stroke-linejoin=\"round\""
        );
        let mut svg = String::new();
        for point in &self.points {
            let (x, y) = (x(point.thousands_per_second), y(point.p50_us));
            svg += &text(x + right, y + down, &attributes, &point.depth.to_string());
        }
        svg
    }
}

fn grid_line(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#dddddd\"/>\n")
}

fn text(x: f64, y: f64, attributes: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{words}</text>\n")
}

/// A small count as a coordinate.
fn small(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a small count"))
}

/// The next 1, 2 or 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(0.001).log10().floor());
    let factors = [1.0, 2.0, 5.0];
    factors
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// A logarithmic axis from one of its marks to another.
struct Logarithmic {
    marks: Vec<f64>,
}

impl Logarithmic {
    /// With the marks 1, 2 and 5 times a power of ten that enclose two values.
    fn around(lowest: f64, highest: f64) -> Self {
        let all =
            (0..9).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(power)));
        let all: Vec<f64> = all.collect();
        let first = all.iter().rposition(|mark| *mark <= lowest).unwrap_or(0);
        let last = all
            .iter()
            .position(|mark| *mark >= highest)
            .unwrap_or(all.len() - 1);
        Self {
            marks: all[first..=last.max(first + 1)].to_vec(),
        }
    }

    fn marks(&self) -> impl Iterator<Item = f64> + '_ {
        self.marks.iter().copied()
    }

    /// Where a value is between the ends, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let (low, high) = (self.marks[0].ln(), self.marks[self.marks.len() - 1].ln());
        (value.ln() - low) / (high - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_large_enough() {
        assert_eq!(
            [
                round_step(0.9),
                round_step(1.1),
                round_step(40.0),
                round_step(6.0)
            ],
            [1.0, 2.0, 50.0, 10.0]
        );
    }

    #[test]
    fn a_logarithmic_axis_begins_and_ends_at_marks_around_the_values() {
        let axis = Logarithmic::around(33.0, 420.0);
        assert_eq!(
            axis.marks().collect::<Vec<_>>(),
            [20.0, 50.0, 100.0, 200.0, 500.0]
        );
        assert!((axis.share(100.0) - 0.5).abs() < 1e-9);
        assert_eq!(Logarithmic::around(50.0, 50.0).marks().count(), 2);
    }

    #[test]
    fn a_panel_needs_two_depths() {
        let depth = |depth| CaseReport {
            depth,
            ..CaseReport::example("read")
        };
        let mut target = TargetReport {
            name: "tgt".to_owned(),
            cases: vec![depth(1)],
            idle: Vec::new(),
        };
        assert_eq!(panels_of(&target).len(), 0);
        target.cases.push(depth(8));
        let panels = panels_of(&target);
        assert_eq!((panels.len(), panels[0].series.len()), (1, 2));
    }
}
