//! What happened in one interval: the difference of two answers.

use std::time::Duration;

use serde::Serialize;

use crate::stats::{DiskStats, OperationStats, Operations, ServiceStats, SessionStats};
use crate::status::{DiskState, DiskStatus, ServiceStatus, SessionState, Timestamp};

/// An interval; the field names are a promise to scripts.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct View {
    /// The program's version.
    pub(super) version: String,
    /// Its process id.
    pub(super) pid: u32,
    /// Since when it runs.
    pub(super) started: Timestamp,
    /// The end of the interval.
    pub(super) now: Timestamp,
    /// How long it was; 0 when there is nothing to compare with.
    pub(super) interval_us: u64,
    /// What needs attention first, then the busiest.
    pub(super) disks: Vec<DiskView>,
}

/// A disk in an interval.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct DiskView {
    /// What people call it.
    pub(super) name: String,
    /// Where it is in its life.
    pub(super) state: DiskState,
    /// What needs somebody's attention.
    pub(super) problems: Vec<String>,
    /// How many sessions are logged in.
    pub(super) sessions_up: usize,
    /// All sessions together.
    pub(super) total: Rates,
    /// Each of them.
    pub(super) sessions: Vec<SessionView>,
}

/// A session in an interval.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct SessionView {
    /// Which one of the disk.
    pub(super) session: usize,
    /// Where it is in its life; `null` when it is gone.
    pub(super) state: Option<SessionState>,
    /// What it did.
    #[serde(flatten)]
    pub(super) rates: Rates,
}

/// What was done; `null` for what there is nothing to compare with.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rates {
    /// Requests in flight at the end.
    pub(super) in_flight: u64,
    /// Requests in flight on average, in thousandths: their time together over that of the interval.
    pub(super) depth_milli: Option<u64>,
    /// Requests that were begun again.
    pub(super) retries: Option<u64>,
    /// Sessions that were lost.
    pub(super) sessions_lost: Option<u64>,
    /// Requests that a limit of the disk has held.
    pub(super) throttled: Option<u64>,
    /// Reads.
    pub(super) read: Option<Rate>,
    /// Writes.
    pub(super) write: Option<Rate>,
    /// Everything else.
    pub(super) other: Option<Rate>,
}

/// Requests of a kind that have ended in the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rate {
    /// How many.
    pub(super) requests: u64,
    /// What they were about.
    pub(super) bytes: u64,
    /// Those that failed.
    pub(super) errors: u64,
    /// What half of them took less than; `null` without any, or beyond all bounds.
    pub(super) p50_us: Option<u64>,
    /// What 99 of 100 took less than.
    pub(super) p99_us: Option<u64>,
}

impl View {
    /// The interval from `earlier`, `elapsed` ago, to now.
    pub(super) fn of(
        status: &ServiceStatus,
        stats: &ServiceStats,
        earlier: Option<&ServiceStats>,
        elapsed: Duration,
    ) -> Self {
        // Another process has counted from the beginning.
        let earlier = earlier.filter(|earlier| earlier.started == stats.started);
        let elapsed = if earlier.is_some() {
            elapsed
        } else {
            Duration::ZERO
        };
        let disks = status.disks.iter().map(|disk| {
            let of_disk = |stats: &&DiskStats| stats.name == disk.name;
            let now = stats.disks.iter().find(of_disk);
            let before = earlier.and_then(|earlier| earlier.disks.iter().find(of_disk));
            // Served anew: its count began anew, too.
            let before = before.filter(|before| now.is_some_and(|now| now.since == before.since));
            DiskView::of(disk, now, before, elapsed)
        });
        let mut disks: Vec<_> = disks.collect();
        disks.sort_by_key(|disk| (disk.problems.is_empty(), std::cmp::Reverse(disk.busyness())));
        Self {
            version: status.version.clone(),
            pid: status.pid,
            started: status.started,
            now: stats.now,
            interval_us: microseconds(elapsed),
            disks,
        }
    }
}

impl DiskView {
    fn of(
        status: &DiskStatus,
        now: Option<&DiskStats>,
        before: Option<&DiskStats>,
        elapsed: Duration,
    ) -> Self {
        let sessions = now.map_or(&[][..], |now| &now.sessions);
        let earlier = |number| {
            let sessions = before.map_or(&[][..], |before| &before.sessions);
            sessions.iter().find(|session| session.session == number)
        };
        let mut total_now = SessionStats::default();
        let mut total_before = SessionStats::default();
        let mut views = Vec::new();
        for session in sessions {
            // One that is new since has counted from nothing.
            let none = SessionStats::default();
            let before = before.map(|_| earlier(session.session).unwrap_or(&none));
            total_now.add(session);
            total_before.add(before.unwrap_or(&none));
            let state = status
                .sessions
                .iter()
                .find(|s| s.session == session.session);
            views.push(SessionView {
                session: session.session,
                state: state.map(|session| session.state),
                rates: Rates::of(session, before, elapsed),
            });
        }
        let up = status.sessions.iter();
        let up = up.filter(|session| session.state == SessionState::LoggedIn);
        Self {
            name: status.name.clone(),
            state: status.state,
            problems: status.problems.clone(),
            sessions_up: up.count(),
            total: Rates::of(&total_now, before.map(|_| &total_before), elapsed),
            sessions: views,
        }
    }

    /// Requests of the interval.
    fn busyness(&self) -> u64 {
        let Rates {
            read, write, other, ..
        } = &self.total;
        let rates = [read, write, other].into_iter().flatten();
        rates.map(|rate| rate.requests).sum()
    }
}

impl Rates {
    fn of(now: &SessionStats, before: Option<&SessionStats>, elapsed: Duration) -> Self {
        let in_flight = now.in_flight;
        let Some(done) = before.and_then(|before| now.since(before)) else {
            return Self {
                in_flight,
                ..Self::default()
            };
        };
        let Operations {
            read,
            write,
            flush,
            discard,
            write_zeroes,
            other,
        } = &done.operations;
        let mut rest = SessionStats::default();
        for more in [flush, discard, write_zeroes, other] {
            rest.operations.add(&Operations {
                other: more.clone(),
                ..Operations::default()
            });
        }
        let busy_us: u64 = done
            .operations
            .named()
            .iter()
            .map(|(_, o)| o.latency.sum_us)
            .sum();
        let depth = (u128::from(busy_us) * 1000).checked_div(elapsed.as_micros());
        Self {
            in_flight,
            depth_milli: depth.and_then(|depth| u64::try_from(depth).ok()),
            retries: Some(done.retries),
            sessions_lost: Some(done.sessions_lost),
            throttled: Some(done.throttled),
            read: Some(Rate::of(read)),
            write: Some(Rate::of(write)),
            other: Some(Rate::of(&rest.operations.other)),
        }
    }
}

impl Rate {
    fn of(operation: &OperationStats) -> Self {
        let percentile = |per_mille| operation.latency.percentile_us(per_mille).flatten();
        Self {
            requests: operation.requests,
            bytes: operation.bytes,
            errors: operation.errors,
            p50_us: percentile(500),
            p99_us: percentile(990),
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::limits::Limits;
    use crate::stats::{Bucket, Histogram};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(second: u64) -> Timestamp {
        Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(second))
    }

    /// A disk whose only session has done this many reads, of 200 µs each.
    fn stats(started: u64, disks: &[(&str, u64)]) -> ServiceStats {
        let disk = |&(name, requests): &(&str, u64)| {
            let mut session = SessionStats {
                in_flight: 3,
                ..SessionStats::default()
            };
            session.operations.read = OperationStats {
                requests,
                bytes: requests * 4096,
                errors: 0,
                latency: Histogram {
                    sum_us: requests * 200,
                    buckets: vec![Bucket {
                        below_us: Some(256),
                        requests,
                    }],
                },
            };
            DiskStats {
                name: name.to_owned(),
                since: Some(at(started)),
                sessions: vec![session],
            }
        };
        ServiceStats {
            started: at(started),
            now: at(100),
            disks: disks.iter().map(disk).collect(),
        }
    }

    pub(in crate::cli::top) fn status(disks: &[(&str, &[&str])]) -> ServiceStatus {
        let disk = |&(name, problems): &(&str, &[&str])| DiskStatus {
            name: name.to_owned(),
            url: String::new(),
            target: String::new(),
            portal: String::new(),
            socket: String::new(),
            state: DiskState::Serving,
            since: at(0),
            reason: None,
            initiator_name: String::new(),
            max_sessions: 1,
            lun: None,
            front_end: None,
            queues: Vec::new(),
            barrier_raised_by: Vec::new(),
            sessions: Vec::new(),
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            limits: Limits::default(),
        };
        ServiceStatus {
            version: "0".to_owned(),
            pid: 1,
            started: at(0),
            now: at(100),
            disks: disks.iter().map(disk).collect(),
            portals: Vec::new(),
        }
    }

    pub(in crate::cli::top) fn view(problems: &[&str]) -> View {
        let status = status(&[("quiet", &[]), ("busy", &[]), ("bad", problems)]);
        let before = stats(0, &[("quiet", 5), ("busy", 10), ("bad", 0)]);
        let now = stats(0, &[("quiet", 5), ("busy", 5010), ("bad", 1)]);
        View::of(&status, &now, Some(&before), SECOND)
    }

    #[test]
    fn what_needs_attention_comes_first_then_the_busiest() {
        let view = view(&["away"]);
        let names: Vec<_> = view.disks.iter().map(|disk| &*disk.name).collect();
        assert_eq!(names, ["bad", "busy", "quiet"]);
    }

    #[test]
    fn a_rate_is_what_came_in_between() {
        let view = view(&[]);
        let busy = &view.disks[0].total;
        let read = busy.read.unwrap();
        assert_eq!((read.requests, read.bytes), (5000, 5000 * 4096));
        assert_eq!((read.p50_us, read.p99_us), (Some(256), Some(256)));
        // 5000 times 200 µs in a second: one at a time.
        assert_eq!(busy.depth_milli, Some(1000));
        assert_eq!(busy.in_flight, 3);
        assert_eq!(view.disks[2].total.read.unwrap(), Rate::default());
    }

    #[test]
    fn another_process_is_not_compared_with() {
        let status = status(&[("a", &[])]);
        let view = View::of(
            &status,
            &stats(7, &[("a", 9)]),
            Some(&stats(0, &[("a", 5)])),
            SECOND,
        );
        assert_eq!(view.interval_us, 0);
        assert_eq!(view.disks[0].total.read, None);
        assert_eq!(view.disks[0].total.in_flight, 3);
    }

    #[test]
    fn a_disk_that_has_just_come_has_no_rate_yet_and_one_that_is_new_in_a_session_has() {
        let status = status(&[("a", &[]), ("b", &[])]);
        let before = stats(0, &[("a", 5)]);
        let mut now = stats(0, &[("a", 5), ("b", 5)]);
        let mut second = now.disks[0].sessions[0].clone();
        second.session = 1;
        now.disks[0].sessions.push(second);
        let view = View::of(&status, &now, Some(&before), SECOND);
        assert_eq!(view.disks[0].total.read.unwrap().requests, 5);
        assert_eq!(view.disks[1].total.read, None);
    }
}
