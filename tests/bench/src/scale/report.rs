//! What the verb `scale` gave. The fields are those of the JSON file; their names do not change
//! their meaning.

use serde::Serialize;

use crate::idle::Watched;
use crate::measure::machine::Machine;
use crate::measure::process::Usage;
use crate::parts::{Pinning, Subject};
use crate::round::{Round, as_f64};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct ScaleReport {
    /// When it began (RFC 3339).
    pub(crate) date: String,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// Who ran where.
    pub(crate) pinning: Pinning,
    /// `tgt`, `memory`, or a URL.
    pub(crate) target: String,
    /// Who served the disks.
    pub(crate) subject: Subject,
    /// What its program says of its version.
    pub(crate) version: String,
    /// Arguments of our back-end beside the URL and the socket.
    pub(crate) back_end_arguments: Vec<String>,
    /// Requests in flight on each queue.
    pub(crate) depth: u16,
    /// Measured time of each load, seconds.
    pub(crate) seconds: f64,
    /// Whether all disks had one process, and not one each.
    pub(crate) one_process: bool,
    /// Whether they shared sessions.
    pub(crate) share_sessions: bool,
    /// More and more disks of one queue.
    pub(crate) disks: Vec<DisksReport>,
    /// One disk of more and more queues.
    pub(crate) queues: Vec<QueuesReport>,
}

/// So many disks at once.
#[derive(Debug, Serialize)]
pub(crate) struct DisksReport {
    /// How many.
    pub(crate) disks: u16,
    /// While nobody asked for anything.
    pub(crate) idle: SilentReport,
    /// All of them under load, as if they were one.
    pub(crate) load: Round,
}

/// One disk with so many queues.
#[derive(Debug, Serialize)]
pub(crate) struct QueuesReport {
    /// How many.
    pub(crate) queues: u16,
    /// All of them under load.
    pub(crate) load: Round,
}

/// Servers with connected, silent guests that have used every queue before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SilentReport {
    /// How long they were watched.
    pub(crate) seconds: f64,
    /// Share of a processor, of all servers together.
    pub(crate) cpu_share: f64,
    /// How often a thread of any server woke, in a second.
    pub(crate) wakes_per_second: f64,
    /// RssAnon of all servers, for each disk.
    pub(crate) anonymous_bytes: f64,
    /// RssAnon of the server that has most.
    pub(crate) most_anonymous_bytes: u64,
}

impl SilentReport {
    /// From what each server of these disks used, and its RssAnon.
    pub(super) fn of(watched: &Watched, anonymous_bytes: &[u64], disks: usize) -> Self {
        let used: Usage = watched.used.iter().copied().sum();
        let seconds = watched.elapsed.as_secs_f64();
        let disks = as_f64(disks as u64);
        Self {
            seconds,
            cpu_share: watched.share(used),
            // It wakes as often as it goes to sleep.
            wakes_per_second: as_f64(used.voluntary_switches) / seconds,
            anonymous_bytes: as_f64(anonymous_bytes.iter().sum()) / disks,
            most_anonymous_bytes: anonymous_bytes.iter().copied().max().unwrap_or(0),
        }
    }
}

/// Each value as a multiple of the first; nothing where that is 0.
pub(super) fn ratios_to_first(values: &[f64]) -> Vec<Option<f64>> {
    let first = values.first().copied().filter(|first| *first != 0.0);
    let ratio = |value: &f64| first.map(|first| value / first);
    values.iter().map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_and_wakes_are_of_all_disks_and_memory_is_of_one() {
        let used = |cpu_ms: u64, voluntary_switches| Usage {
            cpu_ns: cpu_ms * 1_000_000,
            voluntary_switches,
        };
        let watched = Watched {
            elapsed: Duration::from_secs(2),
            used: vec![used(10, 1), used(30, 4)],
        };
        let silent = SilentReport::of(&watched, &[1000, 3000], 2);
        let expected = SilentReport {
            seconds: 2.0,
            cpu_share: 0.02,
            wakes_per_second: 2.5,
            anonymous_bytes: 2000.0,
            most_anonymous_bytes: 3000,
        };
        assert_eq!(silent, expected);
    }

    #[test]
    fn ratios_are_to_the_first_whichever_number_of_disks_that_had() {
        assert_eq!(
            ratios_to_first(&[2.0, 3.0, 1.0]),
            [Some(1.0), Some(1.5), Some(0.5)]
        );
        assert_eq!(ratios_to_first(&[0.0, 3.0]), [None, None]);
        assert!(ratios_to_first(&[]).is_empty());
    }
}
