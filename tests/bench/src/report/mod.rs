//! What a run gave: every round, and what follows from the rounds.
//!
//! The fields are those of the JSON file; their names do not change their meaning.

pub(crate) mod markdown;
pub(crate) mod plot;
pub(crate) mod text;

use std::fmt;

use serde::Serialize;

use crate::demands::Verdict;
use crate::measure::machine::Machine;
use crate::measure::syscalls::Counter;
use crate::parts::server::Digests;
use crate::parts::{Pinning, Subject};
use crate::round::Round;
use crate::statistics::{median, median_of_pairs, middle_half, of_pairs};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// When it began (RFC 3339).
    pub(crate) date: String,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// Who ran where.
    pub(crate) pinning: Pinning,
    /// What our back-end says of its version.
    pub(crate) back_end_version: String,
    /// Arguments of our back-end beside the URL and the socket.
    pub(crate) back_end_arguments: Vec<String>,
    /// What the peer says of its version.
    pub(crate) peer_version: String,
    /// The peer's command line, before names are filled in.
    pub(crate) peer: String,
    /// Rounds of each case; those about the inflight region have more.
    pub(crate) rounds: u32,
    /// Length of a round, seconds.
    pub(crate) seconds: f64,
    /// A run to see that everything works: its verdicts decide nothing.
    pub(crate) quick: bool,
    /// What counted the system calls, if they were.
    pub(crate) syscall_counter: Option<Counter>,
    /// One after the other.
    pub(crate) targets: Vec<TargetReport>,
    /// What the demands say to all that.
    pub(crate) verdicts: Vec<Verdict>,
}

/// One target.
#[derive(Debug, Serialize)]
pub(crate) struct TargetReport {
    /// `tgt`, `memory`, or a URL.
    pub(crate) name: String,
    /// Every case.
    pub(crate) cases: Vec<CaseReport>,
    /// What a connected, silent guest costs.
    pub(crate) idle: Vec<IdleReport>,
}

/// One case.
#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    /// Its name.
    pub(crate) name: String,
    /// `read`, `write` or `mixed`.
    pub(crate) operation: String,
    /// Length of a request.
    pub(crate) request_bytes: u32,
    /// Requests in flight on each queue.
    pub(crate) depth: u16,
    /// Queues.
    pub(crate) queues: u16,
    /// Whether our back-end polled.
    pub(crate) busy_poll: bool,
    /// Those who took turns; round N of each was measured next to round N of the others.
    pub(crate) arms: Vec<ArmReport>,
    /// What TCP and iSCSI alone cost.
    pub(crate) floors: Vec<FloorReport>,
    /// Why it could not be measured.
    pub(crate) failed: Option<String>,
}

/// One of those who took turns.
#[derive(Debug, Serialize)]
pub(crate) struct ArmReport {
    /// Who.
    pub(crate) subject: Subject,
    /// With which digests.
    pub(crate) digests: Digests,
    /// Virtio features in use.
    pub(crate) features: u64,
    /// Whether what is in flight was written down in a region (INFLIGHT_SHMFD).
    pub(crate) inflight_region: bool,
    /// Every round.
    pub(crate) rounds: Vec<Round>,
    /// System calls of the server per request, counted in a run of their own.
    pub(crate) syscalls: Option<f64>,
}

/// A bare initiator.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FloorReport {
    /// Answers that it let come together before it woke (SO_RCVLOWAT); 1 is none.
    pub(crate) coalesced_answers: usize,
    /// How long it polled before it slept.
    pub(crate) busy_poll_us: u32,
    /// Commands per second.
    pub(crate) iops: f64,
    /// Processor time per command, microseconds.
    pub(crate) cpu_us: f64,
    /// Latency, microseconds.
    pub(crate) p50_us: f64,
    /// Latency, microseconds.
    pub(crate) p99_us: f64,
    /// System calls per command.
    pub(crate) syscalls: f64,
}

/// A server with a connected, silent guest.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct IdleReport {
    /// Who.
    pub(crate) subject: Subject,
    /// Queues of the guest, all started and used before.
    pub(crate) queues: u16,
    /// How long it was watched.
    pub(crate) seconds: f64,
    /// Share of a processor.
    pub(crate) cpu_share: f64,
    /// RssAnon.
    pub(crate) anonymous_bytes: u64,
}

impl CaseReport {
    /// The arm of `subject` with `digests`.
    pub(crate) fn arm(&self, subject: Subject, digests: Digests) -> Option<&ArmReport> {
        self.arms
            .iter()
            .find(|arm| arm.subject == subject && arm.digests == digests)
    }

    /// The median over the rounds of an arm without digests.
    pub(crate) fn median(&self, subject: Subject, value: impl Fn(&Round) -> f64) -> Option<f64> {
        median(&self.arm(subject, Digests::Off)?.values(value))
    }

    /// Ours to the peer's: the median of the ratios of the rounds.
    pub(crate) fn ratio(&self, value: impl Fn(&Round) -> f64) -> Option<f64> {
        let ours = self.arm(Subject::Ours, Digests::Off)?.values(&value);
        let peer = self.arm(Subject::Peer, Digests::Off)?.values(&value);
        median_of_pairs(&ours, &peer, |ours, peer| ours / peer)
    }

    /// System calls per request of an arm without digests, where they were counted.
    pub(crate) fn syscalls(&self, subject: Subject) -> Option<f64> {
        self.arm(subject, Digests::Off)?.syscalls
    }

    /// Processor time per request that header digests add, microseconds.
    pub(crate) fn header_digest_cost_us(&self, subject: Subject) -> Option<f64> {
        let with = self
            .arm(subject, Digests::Header)?
            .values(|round| round.server_cpu_us);
        let without = self
            .arm(subject, Digests::Off)?
            .values(|round| round.server_cpu_us);
        median_of_pairs(&with, &without, |with, without| with - without)
    }

    /// What the inflight region costs, where our back-end was measured with and without it.
    pub(crate) fn inflight_cost(&self) -> Option<InflightCost> {
        let cpu_us = |region: bool| {
            let ours = |arm: &&ArmReport| arm.subject == Subject::Ours;
            let mut arms = self.arms.iter().filter(ours);
            let arm = arms.find(|arm| arm.inflight_region == region)?;
            Some(arm.values(|round| round.server_cpu_us))
        };
        let (with, without) = (cpu_us(true)?, cpu_us(false)?);
        let ratios = of_pairs(&with, &without, |with, without| with / without);
        Some(InflightCost {
            with_us: median(&with)?,
            without_us: median(&without)?,
            ratio: median(&ratios)?,
            middle_half: middle_half(&ratios)?,
            rounds: ratios.len(),
        })
    }

    /// The floor that costs least.
    pub(crate) fn cheapest_floor(&self) -> Option<&FloorReport> {
        self.floors
            .iter()
            .min_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us))
    }
}

/// What the inflight region adds to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InflightCost {
    /// Processor time per request with the region, microseconds: the median over the rounds.
    pub(crate) with_us: f64,
    /// The same without.
    pub(crate) without_us: f64,
    /// The one to the other: the median of the ratios of the rounds.
    pub(crate) ratio: f64,
    /// Between these lies the middle half of the ratios of the rounds.
    pub(crate) middle_half: (f64, f64),
    /// How many there are.
    pub(crate) rounds: usize,
}

impl fmt::Display for InflightCost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.middle_half;
        write!(
            formatter,
            "with the region {:.3}, without {:.3} us, ratio {:.3}; \
             half of {} rounds between {low:.3} and {high:.3}",
            self.with_us, self.without_us, self.ratio, self.rounds,
        )
    }
}

impl ArmReport {
    /// One figure of all rounds.
    pub(crate) fn values(&self, value: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().map(value).collect()
    }
}

/// Reports for tests of those who read them.
#[cfg(test)]
mod examples {
    use super::*;
    use crate::measure::machine::Activity;

    impl Round {
        pub(crate) fn example() -> Self {
            Self {
                seconds: 1.0,
                requests: 100_000,
                iops: 100_000.0,
                megabytes_per_second: 409.6,
                p50_us: 100.0,
                p99_us: 200.0,
                p999_us: 300.0,
                server_cpu_us: 5.0,
                target_cpu_us: Some(4.0),
                client_cpu_us: 1.0,
                server_switches: 0.1,
                kicks: 0.1,
                client_sleeps: 0.1,
                activity: Activity {
                    busy: vec![0.9, 0.9],
                    steal: 0.0,
                    others: 0.0,
                    busiest_other: None,
                },
            }
        }
    }

    impl ArmReport {
        pub(crate) fn example(subject: Subject) -> Self {
            Self {
                subject,
                digests: Digests::Off,
                features: 0,
                inflight_region: subject == Subject::Ours,
                rounds: vec![Round::example()],
                syscalls: None,
            }
        }
    }

    impl CaseReport {
        /// Our back-end with and without the inflight region; each pair is one round.
        pub(crate) fn inflight_example(name: &str, cpu_us: &[(f64, f64)]) -> Self {
            let round = |server_cpu_us| Round {
                server_cpu_us,
                ..Round::example()
            };
            let arm = |inflight_region, rounds| ArmReport {
                inflight_region,
                rounds,
                ..ArmReport::example(Subject::Ours)
            };
            let with = cpu_us.iter().map(|(with, _)| round(*with));
            let without = cpu_us.iter().map(|(_, without)| round(*without));
            Self {
                arms: vec![arm(true, with.collect()), arm(false, without.collect())],
                ..Self::example(name)
            }
        }

        pub(crate) fn example(name: &str) -> Self {
            Self {
                name: name.to_owned(),
                operation: "read".to_owned(),
                request_bytes: 4096,
                depth: 32,
                queues: 1,
                busy_poll: false,
                arms: vec![
                    ArmReport::example(Subject::Ours),
                    ArmReport::example(Subject::Peer),
                ],
                floors: Vec::new(),
                failed: None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_compared_round_by_round() {
        // A slow round of both is three times as slow; one pair of five stands out by itself.
        let rounds = [
            (1.02, 1.0),
            (3.06, 3.0),
            (1.02, 1.0),
            (1.5, 1.0),
            (1.0, 1.0),
        ];
        let case = CaseReport::inflight_example("read-4k-d32-q1-inflight", &rounds);
        let cost = case.inflight_cost().unwrap();
        assert!((cost.ratio - 1.02).abs() < 1e-9, "{cost}");
        let (low, high) = cost.middle_half;
        assert!(
            (low - 1.02).abs() < 1e-9 && (high - 1.02).abs() < 1e-9,
            "{cost}"
        );
        assert_eq!((cost.with_us, cost.without_us, cost.rounds), (1.02, 1.0, 5));
        assert_eq!(case.ratio(|round| round.server_cpu_us), None, "no peer");
    }

    #[test]
    fn where_everybody_does_as_qemu_does_nothing_is_said_of_the_region() {
        let case = CaseReport::example("read-4k-d32-q1");
        assert!(!case.arms[1].inflight_region, "the peer has none");
        assert_eq!(case.inflight_cost(), None);
    }
}
