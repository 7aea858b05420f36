//! What a process has used so far, from /proc.

use std::fs;
use std::iter::Sum;
use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Resources of a process up to a moment; the difference of two is what it used between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time of all threads that are alive.
    pub(crate) cpu_ns: u64,
    /// How often a thread waited of its own accord.
    pub(crate) voluntary_switches: u64,
}

impl Usage {
    /// What the process `pid` has used; nothing when there is no such process.
    pub(crate) fn of(pid: u32) -> Self {
        let mut usage = Self::default();
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for task in tasks {
            usage.cpu_ns += task_cpu_ns(&task.path()).unwrap_or(0);
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            usage.voluntary_switches += field(&status, "voluntary_ctxt_switches").unwrap_or(0);
        }
        usage
    }

    /// What this thread has used.
    pub(crate) fn of_this_thread() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let time = Duration::try_from(time).expect("a time since the start");
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        Self {
            cpu_ns: u64::try_from(time.as_nanos()).expect("less than centuries"),
            voluntary_switches: field(&status, "voluntary_ctxt_switches").unwrap_or(0),
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    /// A thread that ended in between takes its share along, hence never below zero.
    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            voluntary_switches: self
                .voluntary_switches
                .saturating_sub(earlier.voluntary_switches),
        }
    }
}

impl Sum for Usage {
    /// What several processes have used together.
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::default(), |sum, usage| Self {
            cpu_ns: sum.cpu_ns + usage.cpu_ns,
            voluntary_switches: sum.voluntary_switches + usage.voluntary_switches,
        })
    }
}

/// Private memory of a process that is resident: RssAnon, bytes.
pub(crate) fn anonymous_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "RssAnon").unwrap_or(0) * 1024
}

/// Processor time of a thread: by the scheduler's own count, else in ticks of 10 ms.
fn task_cpu_ns(task: &Path) -> Option<u64> {
    const TICK_NS: u64 = 10_000_000;
    if let Ok(schedstat) = fs::read_to_string(task.join("schedstat")) {
        return schedstat.split_whitespace().next()?.parse().ok();
    }
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    Some(stat_ticks(&stat)?.own * TICK_NS)
}

/// Processor time in a `stat` file, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    /// Of the process or thread itself.
    pub(super) own: u64,
    /// Of its children that have ended and were waited for.
    pub(super) children: u64,
}

/// The ticks in a `stat` file (proc_pid_stat(5), fields 14 to 17); the command's name, in brackets,
/// may contain anything.
pub(super) fn stat_ticks(stat: &str) -> Option<Ticks> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name
        .split_whitespace()
        .skip(11)
        .map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    Some(Ticks {
        own: next()? + next()?,
        children: next()? + next()?,
    })
}

/// The number behind `name:` in a `status` file.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_ticks() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 85 0 0 0 11 22 3 4 20 0 1 0";
        let ticks = Ticks {
            own: 33,
            children: 7,
        };
        assert_eq!(stat_ticks(stat), Some(ticks));
    }

    #[test]
    fn voluntary_is_not_nonvoluntary() {
        let status =
            "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t5\nRssAnon:\t  12 kB\n";
        assert_eq!(field(status, "voluntary_ctxt_switches"), Some(5));
        assert_eq!(field(status, "RssAnon"), Some(12));
        assert_eq!(field(status, "Rss"), None);
    }

    #[test]
    fn a_thread_that_works_uses_time() {
        let before = Usage::of_this_thread();
        let mut sum = 0_u64;
        while (Usage::of_this_thread() - before).cpu_ns < 1_000_000 {
            sum = sum.wrapping_add(1);
        }
        assert!(sum > 0);
        assert!(Usage::of(std::process::id()).cpu_ns > 0);
        assert!(anonymous_bytes(std::process::id()) > 0);
    }
}
