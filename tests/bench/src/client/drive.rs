//! Running the load of one client, or of several at once, on this thread.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::error::Error;
use super::queue::{Pass, Tally};
use super::{Client, Edge, Outcome, Window};

/// A load that makes no progress for so long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Notifications that one wake-up takes. Which queue has notified does not matter: all are looked at.
const MOST_EVENTS: usize = 64;
/// Latencies are recorded to three digits, up to a minute.
const LATENCY_DIGITS: u8 = 3;
const LATENCY_LIMIT_NS: u64 = 60_000_000_000;

/// A client whose load could not go on.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Its place among the clients.
    pub(crate) client: usize,
    /// Why.
    pub(crate) error: Error,
}

/// Runs the loads of all clients once, at the same time. The observer is called at both edges of
/// the measured time, on this thread; what it costs is not measured.
///
/// # Errors
/// When a request fails, or nothing comes back for 10 s; the clients are of no use then.
pub(crate) fn run(
    clients: &mut [Client],
    window: Window,
    observer: &mut dyn FnMut(Edge),
) -> Result<Outcome, Failed> {
    let mut run = Run::new(clients).map_err(|source| Failed {
        client: 0,
        error: Error::Memory(source.to_string()),
    })?;
    clients.iter_mut().for_each(Client::begin);
    run.drive(clients, window.warm_up, true)?;
    observer(Edge::Begin);
    let begin = run.now_ns();
    run.measured_since_ns = Some(begin);
    run.drive(clients, window.length, true)?;
    let elapsed = Duration::from_nanos(run.now_ns() - begin);
    observer(Edge::End);
    run.measured_since_ns = None;
    while in_flight(clients) > 0 {
        run.drive(clients, Duration::ZERO, false)?;
    }
    Ok(Outcome {
        elapsed,
        requests: run.tally.requests,
        kicks: run.tally.kicks,
        sleeps: run.sleeps,
        latencies_ns: run.tally.latencies_ns,
    })
}

/// What belongs to one run of a load.
pub(super) struct Run {
    start: Instant,
    measured_since_ns: Option<u64>,
    resubmit: bool,
    pub(super) tally: Tally,
    sleeps: u64,
    epoll: Epoll,
    events: [EpollEvent; MOST_EVENTS],
}

impl Run {
    fn new(clients: &[Client]) -> std::io::Result<Self> {
        let latencies_ns = Histogram::new_with_bounds(1, LATENCY_LIMIT_NS, LATENCY_DIGITS)
            .expect("bounds that are right");
        Ok(Self {
            start: Instant::now(),
            measured_since_ns: None,
            resubmit: true,
            tally: Tally {
                requests: 0,
                kicks: 0,
                latencies_ns,
            },
            sleeps: 0,
            epoll: watch(clients)?,
            events: [EpollEvent::default(); MOST_EVENTS],
        })
    }

    /// What a look at a queue has to know.
    pub(super) fn pass(&self) -> Pass {
        Pass {
            now_ns: self.now_ns(),
            measured_since_ns: self.measured_since_ns,
            resubmit: self.resubmit,
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("less than centuries")
    }

    /// Keeps all queues busy for so long, at least for one turn; without `resubmit` until nothing
    /// is in flight.
    fn drive(
        &mut self,
        clients: &mut [Client],
        time: Duration,
        resubmit: bool,
    ) -> Result<(), Failed> {
        self.resubmit = resubmit;
        let end_ns = self.now_ns() + u64::try_from(time.as_nanos()).expect("a short time");
        loop {
            let mut progress = false;
            for (index, client) in clients.iter_mut().enumerate() {
                progress |= client.turn(self).map_err(|error| Failed {
                    client: index,
                    error,
                })?;
            }
            if self.now_ns() >= end_ns && (resubmit || in_flight(clients) == 0) {
                return Ok(());
            }
            if !progress {
                self.sleep(clients)?;
            }
        }
    }

    /// Waits for a notification. The eventfds are watched edge-triggered, so they need no read.
    fn sleep(&mut self, clients: &[Client]) -> Result<(), Failed> {
        if self.measured_since_ns.is_some() {
            self.sleeps += 1;
        }
        let limit_ms = i32::try_from(STALL_LIMIT.as_millis()).expect("a short time");
        let error = match self.epoll.wait(limit_ms, &mut self.events) {
            Ok(0) => Error::Stalled {
                limit: STALL_LIMIT,
                in_flight: in_flight(clients),
            },
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => Error::Memory(error.to_string()),
        };
        let waiting = clients.iter().position(|client| client.in_flight() > 0);
        Err(Failed {
            client: waiting.unwrap_or(0),
            error,
        })
    }
}

fn in_flight(clients: &[Client]) -> usize {
    clients.iter().map(Client::in_flight).sum()
}

/// An epoll of the call eventfds of all queues.
fn watch(clients: &[Client]) -> std::io::Result<Epoll> {
    let epoll = Epoll::new()?;
    for queue in clients.iter().flat_map(|client| &client.queues) {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        epoll.ctl(ControlOperation::Add, queue.call.as_raw_fd(), event)?;
    }
    Ok(epoll)
}
