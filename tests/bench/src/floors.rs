//! The floor below a case: the bare initiator on the same target, processor and load.

use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use vhost_user_iscsi::url::TargetUrl;

use crate::bare::{Floor, FloorResult, Operation as Command};
use crate::case::{Case, POLL_MAX_US, Variant};
use crate::client::{Load, Operation, Window};
use crate::report::FloorReport;
use crate::round::as_f64;

/// From this depth on a bare initiator may also wait for several answers at once.
const COALESCE_FROM_DEPTH: u16 = 8;
/// The share of what is in flight that it waits for then.
const COALESCED_SHARE: u16 = 4;

/// How a bare initiator waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    coalesced_answers: u16,
    busy_poll_us: u32,
}

/// Measures the floors of a case on this thread's processor: one that wakes for each answer, and
/// where several are on their way one that lets them come together. A case that has no floor
/// (mixed, digests), or the same as a plain one (inflight), has none; why one could not be measured is
/// the error.
pub(crate) fn measure(
    url: &TargetUrl,
    case: &Case,
    window: Window,
) -> Result<Vec<FloorReport>, String> {
    let command = match (case.load.operation, case.variant) {
        (_, Variant::Digests | Variant::Inflight) | (Operation::Mixed, _) => return Ok(Vec::new()),
        (Operation::Read, _) => Command::Read,
        (Operation::Write, _) => Command::Write,
    };
    let address = address_of(url)?;
    let waitings = waitings(case);
    waitings
        .into_iter()
        .map(|waiting| {
            let floor = Floor {
                lun: url.lun,
                warm_up: window.warm_up,
                duration: window.length,
                coalesced_answers: usize::from(waiting.coalesced_answers),
                busy_poll: Duration::from_micros(waiting.busy_poll_us.into()),
                ..Floor::new(
                    address,
                    url.target.as_str(),
                    command,
                    case.load.request_bytes,
                    usize::from(case.load.depth),
                )
            };
            run(&floor, case.load, waiting)
        })
        .collect()
}

fn waitings(case: &Case) -> Vec<Waiting> {
    let plain = Waiting {
        coalesced_answers: 1,
        busy_poll_us: 0,
    };
    if case.variant == Variant::BusyPoll {
        return vec![Waiting {
            busy_poll_us: POLL_MAX_US,
            ..plain
        }];
    }
    if case.load.depth < COALESCE_FROM_DEPTH {
        return vec![plain];
    }
    let coalescing = Waiting {
        coalesced_answers: case.load.depth / COALESCED_SHARE,
        ..plain
    };
    vec![plain, coalescing]
}

fn address_of(url: &TargetUrl) -> Result<SocketAddr, String> {
    let portal = url.portal.to_string();
    let mut addresses = portal
        .to_socket_addrs()
        .map_err(|error| format!("{portal}: {error}"))?;
    addresses
        .next()
        .ok_or_else(|| format!("{portal} has no address"))
}

/// Runs one session per queue, each on a thread of its own, all on this thread's processor.
fn run(floor: &Floor, load: Load, waiting: Waiting) -> Result<FloorReport, String> {
    let sessions = (0..load.queues).map(|session| Floor {
        session,
        seed: floor.seed + u64::from(session),
        ..floor.clone()
    });
    let results: Vec<FloorResult> = thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .map(|floor| scope.spawn(move || floor.run()))
            .collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"));
        results
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    })?;
    Ok(report(results, waiting))
}

fn report(results: Vec<FloorResult>, waiting: Waiting) -> FloorReport {
    let all = results
        .into_iter()
        .reduce(together)
        .expect("a case has a queue");
    let quantile_us = |quantile| as_f64(all.latency_ns.value_at_quantile(quantile)) / 1e3;
    FloorReport {
        coalesced_answers: usize::from(waiting.coalesced_answers),
        busy_poll_us: waiting.busy_poll_us,
        iops: all.iops(),
        cpu_us: all.cpu_us_per_request(),
        p50_us: quantile_us(0.5),
        p99_us: quantile_us(0.99),
        syscalls: all.calls_per_request(),
    }
}

/// What two sessions at the same time came to.
fn together(mut first: FloorResult, second: FloorResult) -> FloorResult {
    first.requests += second.requests;
    first.elapsed = first.elapsed.max(second.elapsed);
    first.cpu += second.cpu;
    first.sends += second.sends;
    first.receives += second.receives;
    first
        .latency_ns
        .add(second.latency_ns)
        .expect("histograms of the same bounds");
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::TargetName;

    fn waitings_of(name: &str) -> Vec<(u16, u32)> {
        let cases = Case::all(&TargetName::Memory);
        let case = cases.iter().find(|case| case.name() == name).unwrap();
        let waitings = waitings(case).into_iter();
        waitings
            .map(|waiting| (waiting.coalesced_answers, waiting.busy_poll_us))
            .collect()
    }

    #[test]
    fn only_where_several_answers_are_on_their_way_does_a_floor_wait_for_them() {
        assert_eq!(waitings_of("read-4k-d1-q1"), [(1, 0)]);
        assert_eq!(waitings_of("read-4k-d32-q1"), [(1, 0), (8, 0)]);
        assert_eq!(waitings_of("read-4k-d1-q1-poll"), [(1, POLL_MAX_US)]);
    }
}
