//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::case::Case;
use crate::failure::Failure;
use crate::load_name::LoadName;
use crate::parts::server::PEER;
use crate::parts::target::beside_us;
use crate::parts::{Pinning, Subject, TargetName};

/// Measures vhost-user-iscsi against a peer, on the same target and in one run.
///
/// Exit status: 0 every demand is met, 1 one is missed, 2 the command line cannot be used, 3 the
/// machine was busy with something else, 4 a part failed.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Measures every case, prints tables and judges; so does no verb at all
    Run(RunOptions),
    /// Makes one measurement and prints one line
    One(OneOptions),
    /// Measures whether many disks cost more than one, and prints tables: a process for each disk,
    /// silent and under load; then one disk with more and more queues
    Scale(ScaleOptions),
}

/// What runs where.
#[derive(Args, Clone, Debug)]
pub(crate) struct PartOptions {
    /// Our back-end [default: vhost-user-iscsi beside this program]
    #[arg(long, value_name = "PATH", env = "VHOST_USER_ISCSI")]
    pub(crate) back_end: Option<PathBuf>,
    /// The peer's command line, split at blanks, with {socket} {url} {portal} {target} {lun}
    /// {queues} {header_digest}
    #[arg(long, value_name = "COMMAND", default_value = PEER, hide_default_value = true)]
    pub(crate) peer: String,
    /// Processors of the target, the back-end (or peer) and the client, or none
    /// [default: 0,1,1 on two processors, 0,1,2 on more, none on one]
    #[arg(long, value_name = "TARGET,BACKEND,CLIENT")]
    pin: Option<Pinning>,
}

impl PartOptions {
    /// The program of our back-end.
    pub(crate) fn back_end(&self) -> Result<PathBuf, Failure> {
        self.back_end
            .clone()
            .map_or_else(|| beside_us("vhost-user-iscsi"), Ok)
    }

    /// Where everybody runs.
    pub(crate) fn pinning(&self) -> Pinning {
        self.pin.unwrap_or_else(Pinning::for_this_machine)
    }
}

#[derive(Args, Debug)]
pub(crate) struct RunOptions {
    /// tgt (its null store), memory (our own), or a URL; may be repeated [default: tgt memory].
    /// ALL DATA ON A URL'S LUN IS LOST
    #[arg(long = "target", value_name = "NAME|URL")]
    targets: Vec<TargetName>,
    /// Only cases whose name contains this, or "idle"; may be repeated
    #[arg(long = "case", value_name = "FILTER")]
    filters: Vec<String>,
    /// Rounds of each case, times four where the inflight region is compared [default: 5, with
    /// --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Measured time of a round [default: 1, with --quick 0.2]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    seconds: Option<f64>,
    /// A few cases, to see that everything works: not judged, on a busy machine too
    #[arg(long)]
    pub(crate) quick: bool,
    /// Do not count system calls
    #[arg(long)]
    pub(crate) no_syscalls: bool,
    /// Write everything that was measured to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw latency against throughput into a file, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Write the tables to a file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) parts: PartOptions,
    /// Further arguments of our back-end
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) back_end_arguments: Vec<String>,
}

impl RunOptions {
    /// The targets, in the order in which they were named.
    pub(crate) fn targets(&self) -> Vec<TargetName> {
        if self.targets.is_empty() {
            return vec![TargetName::Tgt, TargetName::Memory];
        }
        self.targets.clone()
    }

    /// The cases for a target, before any is chosen.
    pub(crate) fn cases(&self, target: &TargetName) -> Vec<Case> {
        if self.quick {
            return Case::few(target);
        }
        Case::all(target)
    }

    /// Whether a case of that name is to be run.
    pub(crate) fn chooses(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(&**filter))
    }

    /// Rounds of each case.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// Measured time of a round.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.2 } else { 1.0 })
    }

    /// How long a silent guest is watched.
    pub(crate) fn idle_time(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 10 })
    }
}

#[derive(Args, Debug)]
pub(crate) struct OneOptions {
    /// tgt (its null store), memory (our own), or a URL. ALL DATA ON A URL'S LUN IS LOST by a write
    #[arg(long, value_name = "NAME|URL", default_value = "memory")]
    pub(crate) target: TargetName,
    /// Who is measured
    #[arg(long, value_enum, default_value = "ours")]
    pub(crate) subject: Subject,
    /// read, write or mixed, and a length: read-4k, write-64k. From 64k on sequential, else random
    #[arg(long, value_name = "LOAD", default_value = "read-4k")]
    pub(crate) case: LoadName,
    /// Requests in flight on each queue
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) depth: u16,
    /// Queues
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) queues: u16,
    /// Measured time
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Count system calls too, in a second run
    #[arg(long)]
    pub(crate) syscalls: bool,
    /// Leave out the inflight region that QEMU takes wherever it is offered: what does it cost?
    #[arg(long)]
    pub(crate) no_inflight: bool,
    #[command(flatten)]
    pub(crate) parts: PartOptions,
    /// Further arguments of our back-end
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) back_end_arguments: Vec<String>,
}

/// Nothing is written, so a LUN keeps its data and many disks may share it.
#[derive(Args, Debug)]
pub(crate) struct ScaleOptions {
    /// tgt (its null store), memory (our own), or a URL
    #[arg(long, value_name = "NAME|URL", default_value = "memory")]
    pub(crate) target: TargetName,
    /// Who is measured
    #[arg(long, value_enum, default_value = "ours")]
    pub(crate) subject: Subject,
    /// How many disks at once, one after the other; ratios are to the first
    // A disk takes twelve of the 1024 descriptors that a process usually may have.
    #[arg(long, value_name = "N,...", default_value = "1,4,16,64", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) disks: Vec<u16>,
    /// All disks in one process of ours, which takes no further arguments then
    #[arg(long, conflicts_with_all = ["subject", "back_end_arguments"])]
    pub(crate) one_process: bool,
    /// All of these disks share sessions: each has a LUN of its own of the in-memory target
    #[arg(long, requires = "one_process")]
    pub(crate) share_sessions: bool,
    /// How many queues of one disk, one after the other
    #[arg(long, value_name = "N,...", default_value = "1,2,4", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) queues: Vec<u16>,
    /// Reads of 4 KiB in flight on each queue
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) depth: u16,
    /// Measured time of each load
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// How long silent disks are watched
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    pub(crate) idle_seconds: f64,
    /// Write everything that was measured to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) parts: PartOptions,
    /// Further arguments of our back-end
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) back_end_arguments: Vec<String>,
}

impl ScaleOptions {
    /// The most queues that a disk has.
    pub(crate) fn most_queues(&self) -> u16 {
        self.queues.iter().copied().max().unwrap_or(1)
    }
}

/// Seconds, with a fraction if wanted.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.05..=600.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, 0.05 to 600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn scale(words: &[&str]) -> Result<ScaleOptions, clap::Error> {
        let words = ["bench", "scale"].iter().chain(words);
        match Cli::try_parse_from(words)?.verb {
            Some(Verb::Scale(options)) => Ok(options),
            _ => unreachable!("the verb is scale"),
        }
    }

    #[test]
    fn scale_takes_lists_and_no_more_disks_than_there_are_descriptors_for() {
        let options = scale(&[]).unwrap();
        assert_eq!((options.disks, options.depth), (vec![1, 4, 16, 64], 8));
        let options = scale(&["--disks", "2,64", "--queues", "4,1"]).unwrap();
        assert_eq!(options.disks, [2, 64]);
        assert_eq!(options.most_queues(), 4);
        for wrong in ["0", "65", "1,", "1;2"] {
            assert!(scale(&["--disks", wrong]).is_err(), "{wrong}");
        }
    }
}
