//! One measurement: a load on one or several servers for a while, and what everybody used for it.

use std::slice;

use serde::Serialize;

use crate::client::{self, Client, Edge, Load, Outcome, Window};
use crate::failure::Failure;
use crate::measure::machine::{Activity, Moment};
use crate::measure::process::Usage;
use crate::measure::syscalls::Counter;
use crate::parts::{Server, Target};

/// What one measurement gave.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    /// The measured time, seconds.
    pub(crate) seconds: f64,
    /// Requests that were answered in it.
    pub(crate) requests: u64,
    /// Requests per second.
    pub(crate) iops: f64,
    /// Payload, millions of bytes per second.
    pub(crate) megabytes_per_second: f64,
    /// Latency that half of the requests did not exceed, microseconds.
    pub(crate) p50_us: f64,
    /// The same for 99 of 100.
    pub(crate) p99_us: f64,
    /// The same for 999 of 1000.
    pub(crate) p999_us: f64,
    /// Processor time of the server, or of all of them, per request, microseconds.
    pub(crate) server_cpu_us: f64,
    /// Of the target, when it is ours.
    pub(crate) target_cpu_us: Option<f64>,
    /// Of the client.
    pub(crate) client_cpu_us: f64,
    /// How often a thread of a server waited of its own accord, per request.
    pub(crate) server_switches: f64,
    /// How often a server wanted a kick, per request.
    pub(crate) kicks: f64,
    /// How often the client slept, per request.
    pub(crate) client_sleeps: f64,
    /// What else the machine did.
    pub(crate) activity: Activity,
}

/// What everybody has used at one edge of the measured time.
struct Snapshot {
    moment: Moment,
    target: Usage,
    server: Usage,
    client: Usage,
}

/// Runs the client's load once and measures it.
///
/// # Errors
/// When a request fails; the message holds what the server wrote to stderr.
pub(crate) fn measure(
    client: &mut Client,
    load: &Load,
    (server, target): (&Server, &Target),
    window: Window,
) -> Result<Round, Failure> {
    let (clients, servers) = (slice::from_mut(client), slice::from_ref(server));
    measure_together(clients, load, (servers, target), window)
}

/// Runs the load of all clients at once, each on the server in the same place, and measures them
/// together: the figures are sums over all.
///
/// # Errors
/// When a request fails; the message holds what that server wrote to stderr.
pub(crate) fn measure_together(
    clients: &mut [Client],
    load: &Load,
    (servers, target): (&[Server], &Target),
    window: Window,
) -> Result<Round, Failure> {
    let mut snapshots = Vec::with_capacity(2);
    let outcome = client::run_together(clients, window, &mut |edge| {
        snapshots.push(snapshot(edge, servers, target))
    });
    let outcome =
        outcome.map_err(|failed| server_of(servers, failed.client).failure(failed.error))?;
    let [begin, end] = &snapshots[..] else {
        return Err(servers[0].failure("the load was not observed"));
    };
    if outcome.requests == 0 {
        return Err(servers[0].failure("no request was answered in the measured time"));
    }
    let parts = parts(servers, target);
    Ok(evaluate(
        load,
        &outcome,
        begin,
        end,
        (&parts, target.pid().is_some()),
    ))
}

/// The processes that belong to a measurement.
pub(crate) fn parts(servers: &[Server], target: &Target) -> Vec<u32> {
    let servers = servers.iter().map(Server::pid);
    let all = servers.chain(target.pid()).chain([std::process::id()]);
    all.collect()
}

/// Looks at everybody, closest to the load at those whose time matters most: what the look costs
/// is outside of the measured time.
fn snapshot(edge: Edge, servers: &[Server], target: &Target) -> Snapshot {
    let of_target = || target.pid().map(Usage::of).unwrap_or_default();
    let of_servers = || servers.iter().map(|server| Usage::of(server.pid())).sum();
    match edge {
        Edge::Begin => Snapshot {
            moment: Moment::now(),
            target: of_target(),
            server: of_servers(),
            client: Usage::of_this_thread(),
        },
        Edge::End => {
            let client = Usage::of_this_thread();
            let server = of_servers();
            Snapshot {
                client,
                server,
                target: of_target(),
                moment: Moment::now(),
            }
        }
    }
}

fn evaluate(
    load: &Load,
    outcome: &Outcome,
    begin: &Snapshot,
    end: &Snapshot,
    (parts, target_is_ours): (&[u32], bool),
) -> Round {
    let seconds = outcome.elapsed.as_secs_f64();
    let requests = as_f64(outcome.requests);
    let cpu_us = |usage: Usage| as_f64(usage.cpu_ns) / 1e3 / requests;
    let quantile_us = |quantile| as_f64(outcome.latencies_ns.value_at_quantile(quantile)) / 1e3;
    let iops = requests / seconds;
    let server = end.server - begin.server;
    Round {
        seconds,
        requests: outcome.requests,
        iops,
        megabytes_per_second: iops * f64::from(load.request_bytes) / 1e6,
        p50_us: quantile_us(0.5),
        p99_us: quantile_us(0.99),
        p999_us: quantile_us(0.999),
        server_cpu_us: cpu_us(server),
        target_cpu_us: target_is_ours.then(|| cpu_us(end.target - begin.target)),
        client_cpu_us: cpu_us(end.client - begin.client),
        server_switches: as_f64(server.voluntary_switches) / requests,
        kicks: as_f64(outcome.kicks) / requests,
        client_sleeps: as_f64(outcome.sleeps) / requests,
        activity: end.moment.since(&begin.moment, parts),
    }
}

/// Counts the server's system calls per request; a run of its own, for counting costs time.
///
/// # Errors
/// When a request fails, or the counter does.
pub(crate) fn count_syscalls(
    client: &mut Client,
    server: &Server,
    window: Window,
    counter: Counter,
) -> Result<f64, Failure> {
    let mut counting = None;
    let mut count = None;
    let outcome = client.run(window, &mut |edge| match edge {
        Edge::Begin => {
            let begun = counting.insert(counter.begin(server.pid()));
            begun.wait_attached(server.pid());
        }
        Edge::End => count = counting.take().map(|counting| counting.end()),
    });
    let outcome = outcome.map_err(|error| server.failure(error))?;
    let count = count.unwrap_or_else(|| Err(server.failure("the load was not observed")))?;
    Ok(as_f64(count) / as_f64(outcome.requests))
}

/// Counts here are far below the 2^53 up to which this is exact.
#[allow(clippy::cast_precision_loss, reason = "said above")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}
/// Who serves the disk of a client; clients are in the order of the servers and their sockets.
pub(crate) fn server_of(servers: &[Server], client: usize) -> &Server {
    let mut disks = 0;
    let mut servers_until = servers.iter().filter(|server| {
        disks += server.sockets().len();
        client < disks
    });
    servers_until.next().expect("a client has a server")
}
