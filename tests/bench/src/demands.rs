//! What the back-end must show, row by row, and whether it does.
//!
//! A ratio is ours to the peer's, unless the row names another. Each row is judged by its worst case, on each target by itself.

use serde::Serialize;

use crate::parts::Subject;
use crate::report::{CaseReport, FloorReport, TargetReport};

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
/// Less than that between two runs is chance.
const LEAST_COST_US: f64 = 0.05;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    /// Processor time of the server per request, to the peer's.
    Cpu,
    /// Requests per second, to the peer's.
    Iops,
    /// Median latency, to the peer's.
    P50,
    /// The latency that 99 of 100 requests did not exceed, to the peer's.
    P99,
    /// System calls per request.
    Syscalls,
    /// Processor time that header digests add, to what they add for the peer.
    Digests,
    /// Processor time per request with the inflight region, to that without.
    Inflight,
    /// Share of a processor, in percent, that a silent guest costs.
    IdleCpu,
    /// Private memory of a silent disk, MiB.
    IdleMemory,
}

/// On which side of the number the demand is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    AtMost,
    AtLeast,
    Below,
}

/// Which cases a row is about.
type Choice = fn(&CaseReport) -> bool;

/// One row.
struct Demand {
    title: &'static str,
    metric: Metric,
    side: Side,
    /// On tgt, on the in-memory target, and on any other.
    limits: [Option<f64>; 3],
    cases: Choice,
}

/// A row whose limits differ from target to target, and that is not judged on other targets.
const fn ratio(
    title: &'static str,
    metric: Metric,
    side: Side,
    (tgt, memory): (f64, f64),
    cases: Choice,
) -> Demand {
    Demand {
        title,
        metric,
        side,
        limits: [Some(tgt), Some(memory), None],
        cases,
    }
}

/// A row with the same limit on every target.
const fn everywhere(
    title: &'static str,
    metric: Metric,
    side: Side,
    limit: f64,
    cases: Choice,
) -> Demand {
    Demand {
        title,
        metric,
        side,
        limits: [Some(limit); 3],
        cases,
    }
}

/// The rows. A change of one is a change of what the project promises.
const DEMANDS: [Demand; 15] = [
    ratio(
        "CPU per request, 4 KiB, depth 32 and 128",
        Metric::Cpu,
        Side::AtMost,
        (0.45, 0.30),
        |case| is_small(case) && case.depth >= 32,
    ),
    ratio(
        "CPU per request, 4 KiB, depth 8",
        Metric::Cpu,
        Side::AtMost,
        (0.65, 0.40),
        |case| is_small(case) && case.depth == 8,
    ),
    ratio(
        "IOPS, 4 KiB, depth 8 and more",
        Metric::Iops,
        Side::AtLeast,
        (1.0, 2.0),
        |case| is_small(case) && case.depth >= 8,
    ),
    ratio(
        "IOPS, 4 KiB, depth 1",
        Metric::Iops,
        Side::AtLeast,
        (1.0, 1.0),
        |case| is_small(case) && case.depth == 1,
    ),
    ratio(
        "CPU per request, 64 KiB write",
        Metric::Cpu,
        Side::AtMost,
        (0.35, 0.40),
        |case| is_plain(case) && is(case, "write", 64 * KIB),
    ),
    ratio(
        "IOPS, 64 KiB write",
        Metric::Iops,
        Side::AtLeast,
        (1.6, 2.0),
        |case| is_plain(case) && is(case, "write", 64 * KIB),
    ),
    ratio(
        "IOPS, 64 KiB and 1 MiB read, 1 MiB write",
        Metric::Iops,
        Side::AtLeast,
        (0.9, 1.0),
        |case| {
            let large = is(case, "read", 64 * KIB) || is(case, "read", MIB);
            is_plain(case) && (large || is(case, "write", MIB))
        },
    ),
    ratio(
        "p50, 4 KiB, depth 1, busy-poll",
        Metric::P50,
        Side::AtMost,
        (0.65, 0.5),
        |case| case.busy_poll,
    ),
    ratio(
        "p99, 4 KiB, depth 8",
        Metric::P99,
        Side::AtMost,
        (0.9, 0.6),
        |case| is_small(case) && case.depth == 8,
    ),
    ratio(
        "system calls per request, 4 KiB, depth 32",
        Metric::Syscalls,
        Side::Below,
        (1.0, 0.3),
        |case| is_small(case) && case.depth == 32,
    ),
    everywhere(
        "p99, every case",
        Metric::P99,
        Side::AtMost,
        1.0,
        // Those have no peer.
        |case| !is_about_inflight(case),
    ),
    everywhere(
        "cost of header digests",
        Metric::Digests,
        Side::Below,
        0.5,
        // Where a request is large, what its few headers cost is lost in the noise.
        |case| has_digests(case) && case.request_bytes == 4 * KIB,
    ),
    everywhere(
        "CPU per request, inflight region, to without",
        Metric::Inflight,
        Side::AtMost,
        1.03,
        is_about_inflight,
    ),
    everywhere(
        "CPU of a silent guest, percent",
        Metric::IdleCpu,
        Side::Below,
        0.1,
        |_| false,
    ),
    everywhere(
        "memory of a silent disk, MiB",
        Metric::IdleMemory,
        Side::Below,
        16.0,
        |_| false,
    ),
];

fn is(case: &CaseReport, operation: &str, request_bytes: u32) -> bool {
    case.operation == operation && case.request_bytes == request_bytes
}

/// Reads or writes of 4 KiB, with defaults.
fn is_small(case: &CaseReport) -> bool {
    is_plain(case) && (is(case, "read", 4 * KIB) || is(case, "write", 4 * KIB))
}

fn is_plain(case: &CaseReport) -> bool {
    !case.busy_poll && !has_digests(case) && !is_about_inflight(case)
}

fn is_about_inflight(case: &CaseReport) -> bool {
    case.name.ends_with("-inflight")
}

fn has_digests(case: &CaseReport) -> bool {
    case.name.ends_with("-digests")
}

/// How a row came out on a target.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// The target.
    pub(crate) target: String,
    /// The row.
    pub(crate) demand: &'static str,
    /// What it asks for, as `at most 0.45`.
    pub(crate) limit: String,
    /// The worst case, and its figure; no figure when it could not be measured.
    pub(crate) worst_case: String,
    /// See above.
    pub(crate) measured: Option<f64>,
    /// Whether that is enough.
    pub(crate) met: bool,
    /// Where it is not: our own figures, and the floor that stands in the way.
    pub(crate) note: Option<String>,
}

/// Judges a target by every row that it has something for.
pub(crate) fn judge(target: &TargetReport) -> Vec<Verdict> {
    let column = match &*target.name {
        "tgt" => 0,
        "memory" => 1,
        _ => 2,
    };
    let rows = DEMANDS
        .iter()
        .filter_map(|demand| Some((demand, demand.limits[column]?)));
    rows.filter_map(|(demand, limit)| judge_row(demand, limit, target))
        .collect()
}

/// One row; `None` when none of its cases was run.
fn judge_row(demand: &Demand, limit: f64, target: &TargetReport) -> Option<Verdict> {
    let figures = figures(demand, target);
    let worst = figures.into_iter().min_by(|a, b| {
        // The least margin first; what could not be measured before everything else.
        let margin =
            |figure: &Figure<'_>| figure.value.map(|value| demand.side.margin(value, limit));
        let (a, b) = (margin(a), margin(b));
        a.unwrap_or(f64::NEG_INFINITY)
            .total_cmp(&b.unwrap_or(f64::NEG_INFINITY))
    })?;
    let met = worst
        .value
        .is_some_and(|value| demand.side.is_met(value, limit));
    Some(Verdict {
        target: target.name.clone(),
        demand: demand.title,
        limit: format!("{} {limit}", demand.side.words()),
        worst_case: worst.name.to_owned(),
        measured: worst.value,
        met,
        note: if met {
            None
        } else {
            worst.case.and_then(|case| note(demand.metric, case))
        },
    })
}

/// One case's figure for a row.
struct Figure<'a> {
    name: &'a str,
    case: Option<&'a CaseReport>,
    value: Option<f64>,
}

fn figures<'a>(demand: &Demand, target: &'a TargetReport) -> Vec<Figure<'a>> {
    if let Some(of_idle) = demand.metric.of_idle() {
        let ours = target
            .idle
            .iter()
            .filter(|idle| idle.subject == Subject::Ours);
        let figure = |idle| Figure {
            name: "idle",
            case: None,
            value: Some(of_idle(idle)),
        };
        return ours.map(figure).collect();
    }
    let cases = target.cases.iter().filter(|case| (demand.cases)(case));
    let figures = cases.map(|case| Figure {
        name: &case.name,
        case: Some(case),
        value: demand.metric.of(case),
    });
    // Where nobody counted system calls there is nothing to judge.
    let counted = |figure: &Figure<'_>| demand.metric != Metric::Syscalls || figure.value.is_some();
    figures.filter(counted).collect()
}

impl Metric {
    fn of(self, case: &CaseReport) -> Option<f64> {
        match self {
            Self::Cpu => case.ratio(|round| round.server_cpu_us),
            Self::Iops => case.ratio(|round| round.iops),
            Self::P50 => case.ratio(|round| round.p50_us),
            Self::P99 => case.ratio(|round| round.p99_us),
            Self::Syscalls => case.syscalls(Subject::Ours),
            Self::Digests => {
                let ours = case.header_digest_cost_us(Subject::Ours)?.max(0.0);
                Some(
                    ours / case
                        .header_digest_cost_us(Subject::Peer)?
                        .max(LEAST_COST_US),
                )
            }
            Self::Inflight => Some(case.inflight_cost()?.ratio),
            Self::IdleCpu | Self::IdleMemory => None,
        }
    }

    fn of_idle(self) -> Option<fn(&crate::report::IdleReport) -> f64> {
        match self {
            Self::IdleCpu => Some(|idle| idle.cpu_share * 100.0),
            Self::IdleMemory => {
                Some(|idle| crate::round::as_f64(idle.anonymous_bytes) / f64::from(MIB))
            }
            _ => None,
        }
    }
}

impl Side {
    fn is_met(self, value: f64, limit: f64) -> bool {
        match self {
            Self::AtMost => value <= limit,
            Self::AtLeast => value >= limit,
            Self::Below => value < limit,
        }
    }

    /// How far the value is on the right side, in limits.
    fn margin(self, value: f64, limit: f64) -> f64 {
        match self {
            Self::AtMost | Self::Below => (limit - value) / limit,
            Self::AtLeast => (value - limit) / limit,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::AtMost => "at most",
            Self::AtLeast => "at least",
            Self::Below => "below",
        }
    }
}

/// How far a missed row got in absolute terms, and what the best bare initiator gets there.
fn note(metric: Metric, case: &CaseReport) -> Option<String> {
    if let Some(reason) = &case.failed {
        return Some(reason.clone());
    }
    if metric == Metric::Inflight {
        return Some(case.inflight_cost()?.to_string());
    }
    let absolute = metric.absolute()?;
    let ours = (absolute.of)(case, Subject::Ours)?;
    let peer = (absolute.of)(case, Subject::Peer)?;
    let (unit, digits) = (absolute.unit, absolute.digits);
    let mut note = format!("ours {ours:.digits$}, peer {peer:.digits$} {unit}");
    let floors = case
        .floors
        .iter()
        .filter_map(|floor| (absolute.of_floor)(floor));
    let best = if absolute.more_is_better {
        f64::max
    } else {
        f64::min
    };
    if let Some(floor) = floors.reduce(best) {
        let ratio = floor / peer;
        note += &format!("; a bare initiator gets {floor:.digits$}, {ratio:.2} of the peer's");
    }
    Some(note)
}

/// The figure behind a ratio.
struct Absolute {
    unit: &'static str,
    digits: usize,
    more_is_better: bool,
    of: fn(&CaseReport, Subject) -> Option<f64>,
    of_floor: fn(&FloorReport) -> Option<f64>,
}

impl Metric {
    /// What a ratio to the peer is made of; `None` for what is none.
    fn absolute(self) -> Option<Absolute> {
        let microseconds = Absolute {
            unit: "us",
            digits: 2,
            more_is_better: false,
            of: |case, subject| case.median(subject, |round| round.server_cpu_us),
            of_floor: |floor| Some(floor.cpu_us),
        };
        Some(match self {
            Self::Cpu => microseconds,
            Self::Iops => Absolute {
                unit: "IOPS",
                digits: 0,
                more_is_better: true,
                of: |case, subject| case.median(subject, |round| round.iops),
                of_floor: |floor| Some(floor.iops),
            },
            Self::P50 => Absolute {
                of: |case, subject| case.median(subject, |round| round.p50_us),
                of_floor: |floor| Some(floor.p50_us),
                ..microseconds
            },
            Self::P99 => Absolute {
                of: |case, subject| case.median(subject, |round| round.p99_us),
                of_floor: |floor| Some(floor.p99_us),
                ..microseconds
            },
            Self::Syscalls => Absolute {
                unit: "calls",
                of: CaseReport::syscalls,
                of_floor: |floor| Some(floor.syscalls),
                ..microseconds
            },
            Self::Digests => Absolute {
                unit: "us more",
                of: CaseReport::header_digest_cost_us,
                of_floor: |_| None,
                ..microseconds
            },
            Self::Inflight | Self::IdleCpu | Self::IdleMemory => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ArmReport, IdleReport};
    use crate::round::Round;

    fn target(cases: Vec<CaseReport>) -> TargetReport {
        TargetReport {
            name: "tgt".to_owned(),
            cases,
            idle: Vec::new(),
        }
    }

    fn verdict(target: &TargetReport, title: &str) -> Option<Verdict> {
        judge(target)
            .into_iter()
            .find(|verdict| verdict.demand == title)
    }

    fn case(name: &str, depth: u16, ours_cpu_us: f64) -> CaseReport {
        let arm = |subject, cpu_us| ArmReport {
            rounds: vec![Round {
                server_cpu_us: cpu_us,
                ..Round::example()
            }],
            ..ArmReport::example(subject)
        };
        CaseReport {
            depth,
            arms: vec![arm(Subject::Ours, ours_cpu_us), arm(Subject::Peer, 10.0)],
            ..CaseReport::example(name)
        }
    }

    fn floor(cpu_us: f64) -> FloorReport {
        FloorReport {
            coalesced_answers: 1,
            busy_poll_us: 0,
            iops: 1.0,
            cpu_us,
            p50_us: 1.0,
            p99_us: 1.0,
            syscalls: 1.0,
        }
    }

    const AT_DEPTH: &str = "CPU per request, 4 KiB, depth 32 and 128";

    #[test]
    fn the_worst_case_decides_and_the_limit_itself_is_enough() {
        let good = target(vec![
            case("a", 32, 4.5),
            case("b", 128, 1.0),
            case("c", 8, 9.0),
        ]);
        let verdict_of_good = verdict(&good, AT_DEPTH).unwrap();
        assert!(verdict_of_good.met && verdict_of_good.worst_case == "a");
        let mut worse = case("b", 128, 4.6);
        worse.floors = [2.0, 3.0].map(floor).to_vec();
        let bad = target(vec![case("a", 32, 4.5), worse]);
        let verdict_of_bad = verdict(&bad, AT_DEPTH).unwrap();
        assert!(!verdict_of_bad.met && verdict_of_bad.worst_case == "b");
        let note = "ours 4.60, peer 10.00 us; a bare initiator gets 2.00, 0.20 of the peer's";
        assert_eq!(verdict_of_bad.note.unwrap(), note);
    }

    #[test]
    fn what_was_not_run_is_not_judged_and_what_failed_is_missed() {
        assert!(verdict(&target(Vec::new()), AT_DEPTH).is_none());
        let mut failed = case("a", 32, 1.0);
        failed.arms.clear();
        failed.failed = Some("no such option".to_owned());
        let verdict = verdict(&target(vec![case("b", 32, 1.0), failed]), AT_DEPTH).unwrap();
        assert!(!verdict.met && verdict.worst_case == "a");
        assert_eq!(verdict.note.unwrap(), "no such option");
    }

    #[test]
    fn another_target_is_judged_by_the_rows_for_all_targets_only() {
        let mut other = target(vec![case("a", 32, 4.5)]);
        other.name = "iscsi://192.0.2.1/iqn.2001-04.com.example:disk/1".to_owned();
        let titles: Vec<_> = judge(&other).iter().map(|verdict| verdict.demand).collect();
        assert_eq!(titles, ["p99, every case"]);
    }

    const REGION: &str = "CPU per request, inflight region, to without";

    #[test]
    fn the_region_may_cost_three_hundredths_and_its_cases_are_judged_by_no_other_row() {
        let named = |name: &str| format!("{name}-inflight");
        let case = |name, rounds: &[_]| CaseReport::inflight_example(&named(name), rounds);
        let enough = case("a", &[(103.0, 100.0), (9.0, 1.0), (1.0, 1.0)]);
        let good = target(vec![enough, case("b", &[(1.0, 1.0)])]);
        let verdict_of_good = verdict(&good, REGION).unwrap();
        assert!(verdict_of_good.met && verdict_of_good.worst_case == "a-inflight");
        assert_eq!(judge(&good).len(), 1, "no row that needs the peer");
        let bad = target(vec![case("a", &[(1.0, 1.0)]), case("b", &[(1.04, 1.0)])]);
        let verdict_of_bad = verdict(&bad, REGION).unwrap();
        assert!(!verdict_of_bad.met && verdict_of_bad.worst_case == "b-inflight");
        let note = "with the region 1.040, without 1.000 us, ratio 1.040; \
                    half of 1 rounds between 1.040 and 1.040";
        assert_eq!(verdict_of_bad.note.unwrap(), note);
    }

    #[test]
    fn a_back_end_without_the_region_misses_what_is_asked_of_it() {
        let mut without = CaseReport::inflight_example("a-inflight", &[]);
        without.arms.clear();
        without.failed = Some("this back-end has no inflight region".to_owned());
        let verdict = verdict(&target(vec![without]), REGION).unwrap();
        assert!(!verdict.met && verdict.measured.is_none());
        assert_eq!(
            verdict.note.unwrap(),
            "this back-end has no inflight region"
        );
    }

    #[test]
    fn idle_is_judged_by_our_own_figures() {
        let mut target = target(Vec::new());
        let idle = |subject, cpu_share| IdleReport {
            subject,
            queues: 4,
            seconds: 10.0,
            cpu_share,
            anonymous_bytes: 4 << 20,
        };
        target.idle = vec![idle(Subject::Ours, 0.0001), idle(Subject::Peer, 0.5)];
        assert!(
            verdict(&target, "CPU of a silent guest, percent")
                .unwrap()
                .met
        );
        assert!(
            verdict(&target, "memory of a silent disk, MiB")
                .unwrap()
                .met
        );
        target.idle[0].cpu_share = 0.001;
        assert!(
            !verdict(&target, "CPU of a silent guest, percent")
                .unwrap()
                .met
        );
    }
}
