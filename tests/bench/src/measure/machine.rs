//! Whether something else was running, from /proc; and what machine this is.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::process::stat_ticks;
use crate::round::as_f64;

/// USER_HZ, the unit of /proc, which is 100 on every architecture that Rust's std runs on.
const TICK: Duration = Duration::from_millis(10);

/// The processors and all processes at a moment.
pub(crate) struct Moment {
    at: Instant,
    cpus: Vec<CpuTicks>,
    processes: BTreeMap<u32, u64>,
}

/// Ticks of a processor (proc_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CpuTicks {
    busy: u64,
    steal: u64,
}

/// What the machine did between two moments.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Activity {
    /// Share of each processor that was busy, with whatever, 0 to 1.
    pub(crate) busy: Vec<f64>,
    /// Processor time that the hypervisor gave to others, in processors.
    pub(crate) steal: f64,
    /// Processor time of processes that are not part of the benchmark, in processors.
    pub(crate) others: f64,
    /// The name of the process among them that used most.
    pub(crate) busiest_other: Option<String>,
}

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            at: Instant::now(),
            cpus: cpu_ticks(&stat),
            processes: processes(),
        }
    }

    /// What happened since `earlier`; `parts` are the processes of the benchmark.
    pub(crate) fn since(&self, earlier: &Self, parts: &[u32]) -> Activity {
        let ticks = (self.at - earlier.at).as_secs_f64() / TICK.as_secs_f64();
        let share = |count: u64| as_f64(count) / ticks;
        let pairs = || self.cpus.iter().zip(&earlier.cpus);
        let steal = pairs()
            .map(|(now, then)| now.steal.saturating_sub(then.steal))
            .sum();
        // A process that ends hands its time to the one that waits for it, so only the sum tells.
        let sum = |processes: &BTreeMap<u32, u64>| -> u64 {
            let others = processes.iter().filter(|(pid, _)| !parts.contains(pid));
            others.map(|(_, ticks)| ticks).sum()
        };
        let others = sum(&self.processes).saturating_sub(sum(&earlier.processes));
        Activity {
            busy: pairs()
                .map(|(now, then)| share(now.busy.saturating_sub(then.busy)))
                .collect(),
            steal: share(steal),
            others: share(others),
            busiest_other: self.busiest_since(earlier, parts),
        }
    }

    /// The name of the process beside `parts` that has used most since `earlier`, if any used time.
    fn busiest_since(&self, earlier: &Self, parts: &[u32]) -> Option<String> {
        let used = |(pid, now): (&u32, &u64)| {
            let used = now.saturating_sub(earlier.processes.get(pid).copied().unwrap_or(0));
            (used > 0 && !parts.contains(pid)).then_some((used, *pid))
        };
        let (_, pid) = self.processes.iter().filter_map(used).max()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(name.trim().to_owned())
    }
}

/// Ticks of every process, those of its ended children included: what is short-lived shows there.
fn processes() -> BTreeMap<u32, u64> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ticks = |pid: u32| {
        let ticks = stat_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some((pid, ticks.own + ticks.children))
    };
    pids.filter_map(ticks).collect()
}

/// The processors of /proc/stat.
fn cpu_ticks(stat: &str) -> Vec<CpuTicks> {
    let cpus = stat
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    cpus.map(|line| {
        let field = |at: usize| {
            line.split_whitespace()
                .nth(at)
                .and_then(|text| text.parse().ok())
        };
        let field = |at: usize| field(at).unwrap_or(0_u64);
        // user, nice, system; then idle and iowait; irq, softirq; steal.
        CpuTicks {
            busy: [1, 2, 3, 6, 7].into_iter().map(field).sum(),
            steal: field(8),
        }
    })
    .collect()
}

/// What the measurements were made on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Number of processors.
    pub(crate) cpus: usize,
    /// The processor's own name.
    pub(crate) model: String,
    /// `uname -r`.
    pub(crate) kernel: String,
    /// Memory, bytes.
    pub(crate) memory_bytes: u64,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let model = value_of(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned());
        let memory = value_of(&meminfo, "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            cpus: cpu_ticks(&stat).len(),
            model,
            kernel: kernel.trim().to_owned(),
            memory_bytes: memory_kib * 1024,
        }
    }
}

/// What stands behind `name` and a colon.
fn value_of(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_busy_with_all_but_idle_iowait_steal_and_guests() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 4 100 200 8 16 32 1 2\ncpu1 1 0 0 0 0 0 0 0 0 0\nintr 5";
        let ticks = |busy, steal| CpuTicks { busy, steal };
        assert_eq!(cpu_ticks(stat), [ticks(31, 32), ticks(1, 0)]);
    }

    #[test]
    fn the_time_of_others_survives_their_end_and_parts_do_not_count() {
        let at = Instant::now();
        let moment = |seconds, processes: &[(u32, u64)]| Moment {
            at: at + Duration::from_secs(seconds),
            cpus: vec![CpuTicks::default()],
            processes: processes.iter().copied().collect(),
        };
        let earlier = moment(0, &[(1, 100), (2, 50), (4, 1000)]);
        // 4 has ended, 2 has waited for it; 3 is new.
        let later = moment(1, &[(1, 160), (2, 1060), (3, 5)]);
        let activity = later.since(&earlier, &[1]);
        assert!((activity.others - 0.15).abs() < 1e-9, "{}", activity.others);
    }
}
