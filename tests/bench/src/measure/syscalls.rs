//! Counting the system calls of a process for a while.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use vhost_user_iscsi_tests::process::Process;

use crate::failure::Failure;

/// How long a counter may take to end and print.
const END_LIMIT: Duration = Duration::from_secs(10);
/// A trial counts the calls of a short command.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);
const EVENT: &str = "raw_syscalls:sys_enter";

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Counter {
    /// `perf stat` on the tracepoint of every system call: costs little.
    Perf,
    /// `strace -c`: stops the process at every call, so that it batches otherwise than it would.
    Strace,
}

impl Counter {
    /// The better one that works here.
    ///
    /// # Errors
    /// When neither does.
    pub(crate) fn find() -> Result<Self, Failure> {
        if counts(
            Command::new("perf").args(["stat", "-x,", "-e", EVENT, "true"]),
            |text| perf_count(text).is_some(),
        ) {
            return Ok(Self::Perf);
        }
        if counts(Command::new("strace").args(["-f", "-c", "true"]), |text| {
            strace_count(text).is_some()
        }) {
            return Ok(Self::Strace);
        }
        Err(Failure::part(
            "neither perf (Debian: linux-perf, as root) nor strace (Debian: strace) can count system calls",
        ))
    }

    /// Begins to count those of the process `pid`.
    pub(crate) fn begin(self, pid: u32) -> Counting {
        let pid = pid.to_string();
        let mut command = match self {
            Self::Perf => Command::new("perf"),
            Self::Strace => Command::new("strace"),
        };
        match self {
            Self::Perf => command.args(["stat", "-x,", "-e", EVENT, "-p", &pid]),
            Self::Strace => command.args(["-f", "-c", "-p", &pid]),
        };
        Counting {
            counter: self,
            process: Process::start(&mut command, "it just worked"),
        }
    }
}

/// A count that is going on.
pub(crate) struct Counting {
    counter: Counter,
    process: Process,
}

impl Counting {
    /// Waits until every thread of the process `pid` is being watched.
    pub(crate) fn wait_attached(&mut self, pid: u32) {
        // perf shows nothing from which one could tell; strace makes the threads' tracer known.
        let attached = || match self.counter {
            Counter::Perf => opened_events(self.process.id()) > 0,
            Counter::Strace => is_traced(pid),
        };
        vhost_user_iscsi_tests::wait::until(TRIAL_LIMIT, || attached().then_some(()));
    }

    /// Ends it and returns the count.
    ///
    /// # Errors
    /// When the counter did not print one.
    pub(crate) fn end(mut self) -> Result<u64, Failure> {
        self.process.signal(Signal::INT);
        let output = self.process.stderr.to_end(END_LIMIT);
        let count = match self.counter {
            Counter::Perf => perf_count(&output),
            Counter::Strace => strace_count(&output),
        };
        count.ok_or_else(|| Failure::part(format!("{:?} counted nothing: {output}", self.counter)))
    }
}

fn counts(command: &mut Command, understood: impl Fn(&str) -> bool) -> bool {
    let output = command.output();
    output.is_ok_and(|output| {
        output.status.success() && understood(&String::from_utf8_lossy(&output.stderr))
    })
}

/// Number of performance events that a process has open.
fn opened_events(pid: u32) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    targets
        .filter(|target| target == Path::new("anon_inode:[perf_event]"))
        .count()
}

/// Whether every thread of a process has a tracer.
fn is_traced(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let mut statuses =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    statuses.all(|status| !status.contains("TracerPid:\t0\n"))
}

/// The count in `perf stat -x,`: the first field of the event's line.
fn perf_count(output: &str) -> Option<u64> {
    let line = output.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.parse().ok()
}

/// The sum in `strace -c`: the column `calls` of the line `total`.
fn strace_count(output: &str) -> Option<u64> {
    let line = output
        .lines()
        .find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_prints_the_count_first() {
        assert_eq!(
            perf_count("12345,,raw_syscalls:sys_enter,1000,100.00,,\n"),
            Some(12_345)
        );
        assert_eq!(
            perf_count("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"),
            None
        );
    }

    #[test]
    fn strace_prints_the_count_in_the_total() {
        let output = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            60.00    0.000100          10        10         1 read\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.000129           5        26         2 total\n";
        assert_eq!(strace_count(output), Some(26));
    }
}
