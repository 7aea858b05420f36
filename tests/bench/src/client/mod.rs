//! A vhost-user-blk front-end made for measuring: it costs as little as it can and behaves as a
//! Linux guest does.
//!
//! One thread drives all queues. Per look at a queue it takes every answer, makes as many new
//! requests, publishes them at once, kicks only when the back-end's `avail_event` asks for it, and
//! asks for a notification of the next answer. When no queue had an answer it sleeps in epoll on
//! the call eventfds. Everything is allocated before the first request.
//!
//! `tests/src/frontend` is the front-end for tests: it judges more and is much slower.

mod error;
mod link;
mod memory;
mod pattern;
mod queue;
mod ring;

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

pub(crate) use error::Error;
use link::Link;
use memory::Memory;
use pattern::Pattern;
pub(crate) use pattern::{Operation, Order, SECTOR_BYTES};
use queue::{Pass, Queue, Tally};
use ring::Ring;

/// VIRTIO_F_INDIRECT_DESC.
const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
const F_EVENT_IDX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES: vhost-user's own bit.
const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
const F_VERSION_1: u64 = 1 << 32;

/// A load that makes no progress for so long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Which queue has notified does not matter: all are looked at.
const MOST_EVENTS: usize = 8;
/// Latencies are recorded to three digits, up to a minute.
const LATENCY_DIGITS: u8 = 3;
const LATENCY_LIMIT_NS: u64 = 60_000_000_000;

/// A load: which requests, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// What is done.
    pub(crate) operation: Operation,
    /// Where.
    pub(crate) order: Order,
    /// Length of each request, a multiple of 512.
    pub(crate) request_bytes: u32,
    /// Requests in flight on each queue.
    pub(crate) depth: u16,
    /// Queues.
    pub(crate) queues: u16,
}

/// How long a load runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Unmeasured, before.
    pub(crate) warm_up: Duration,
    /// Measured.
    pub(crate) length: Duration,
}

/// Edges of the measured time, for whoever looks at processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The load is warm; counting begins when the observer returns.
    Begin,
    /// Counting has ended; the load is still in flight.
    End,
}

/// What was measured.
pub(crate) struct Outcome {
    /// The measured time.
    pub(crate) elapsed: Duration,
    /// Requests that were answered in it.
    pub(crate) requests: u64,
    /// How often the back-end wanted a kick.
    pub(crate) kicks: u64,
    /// How often the client slept.
    pub(crate) sleeps: u64,
    /// From being made available to being seen as used, nanoseconds.
    pub(crate) latencies_ns: Histogram<u64>,
}

/// A connected client with running queues; dropped, it disconnects.
pub(crate) struct Client {
    _link: Link,
    memory: Memory,
    queues: Vec<Queue>,
    epoll: Epoll,
    features: u64,
}

impl Client {
    /// Connects to the socket at `path` and prepares `load`.
    ///
    /// # Errors
    /// When nobody listens, the back-end refuses something or has fewer queues, or the disk is
    /// smaller than a request.
    pub(crate) fn connect(path: &Path, load: &Load) -> Result<Self, Error> {
        let mut link = Link::connect(path, load.queues)?;
        let capacity_bytes = link.capacity_sectors * u64::from(SECTOR_BYTES);
        if capacity_bytes < u64::from(load.request_bytes) {
            return Err(Error::SmallDisk(capacity_bytes));
        }
        let size_bytes = Ring::memory_bytes(load.depth, load.request_bytes);
        let mut memory = Memory::new(size_bytes * usize::from(load.queues))?;
        let queues = (0..load.queues).map(|index| make_queue(&mut memory, &link, load, index));
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        let epoll = watch(&queues).map_err(|source| Error::Memory(source.to_string()))?;
        link.start(&memory, &queues)?;
        Ok(Self {
            features: link.features,
            _link: link,
            memory,
            queues,
            epoll,
        })
    }

    /// The virtio features in use.
    pub(crate) fn features(&self) -> u64 {
        self.features
    }

    /// Runs the load once. The observer is called at both edges of the measured time, on this
    /// thread; what it costs is not measured.
    ///
    /// # Errors
    /// When a request fails, or nothing comes back for 10 s; the client is of no use then.
    pub(crate) fn run(
        &mut self,
        window: Window,
        observer: &mut dyn FnMut(Edge),
    ) -> Result<Outcome, Error> {
        let mut run = Run::new();
        for queue in &mut self.queues {
            queue.begin(&self.memory, 0);
        }
        self.drive(&mut run, window.warm_up, true)?;
        observer(Edge::Begin);
        let begin = run.now_ns();
        run.measured_since_ns = Some(begin);
        self.drive(&mut run, window.length, true)?;
        let elapsed = Duration::from_nanos(run.now_ns() - begin);
        observer(Edge::End);
        run.measured_since_ns = None;
        while self.in_flight() > 0 {
            self.drive(&mut run, Duration::ZERO, false)?;
        }
        Ok(Outcome {
            elapsed,
            requests: run.tally.requests,
            kicks: run.tally.kicks,
            sleeps: run.sleeps,
            latencies_ns: run.tally.latencies_ns,
        })
    }

    /// Keeps all queues busy for so long, at least for one turn.
    fn drive(&mut self, run: &mut Run, time: Duration, resubmit: bool) -> Result<(), Error> {
        let end_ns = run.now_ns() + u64::try_from(time.as_nanos()).expect("a short time");
        loop {
            let mut progress = false;
            for queue in &mut self.queues {
                let pass = Pass {
                    now_ns: run.now_ns(),
                    measured_since_ns: run.measured_since_ns,
                    resubmit,
                };
                progress |= queue.turn(&self.memory, pass, &mut run.tally)?;
            }
            if run.now_ns() >= end_ns && (resubmit || self.in_flight() == 0) {
                return Ok(());
            }
            if !progress {
                self.sleep(run)?;
            }
        }
    }

    /// Waits for a notification. The eventfds are watched edge-triggered, so they need no read.
    fn sleep(&self, run: &mut Run) -> Result<(), Error> {
        if run.measured_since_ns.is_some() {
            run.sleeps += 1;
        }
        let limit_ms = i32::try_from(STALL_LIMIT.as_millis()).expect("a short time");
        match self.epoll.wait(limit_ms, &mut run.events) {
            Ok(0) => Err(Error::Stalled {
                limit: STALL_LIMIT,
                in_flight: self.in_flight(),
            }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(Error::Memory(error.to_string())),
        }
    }

    fn in_flight(&self) -> usize {
        self.queues.iter().map(Queue::in_flight).sum()
    }
}

fn make_queue(memory: &mut Memory, link: &Link, load: &Load, index: u16) -> Result<Queue, Error> {
    let ring = Ring::new(memory, link.features, load.depth, load.request_bytes);
    let pattern = Pattern::new(
        load.operation,
        load.order,
        load.request_bytes,
        link.capacity_sectors,
        (index, load.queues),
    );
    Queue::new(index, ring, pattern, load.depth)
}

/// An epoll of all call eventfds.
fn watch(queues: &[Queue]) -> std::io::Result<Epoll> {
    let epoll = Epoll::new()?;
    for queue in queues {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        epoll.ctl(ControlOperation::Add, queue.call.as_raw_fd(), event)?;
    }
    Ok(epoll)
}

/// What belongs to one run of a load.
struct Run {
    start: Instant,
    measured_since_ns: Option<u64>,
    tally: Tally,
    sleeps: u64,
    events: [EpollEvent; MOST_EVENTS],
}

impl Run {
    fn new() -> Self {
        let latencies_ns = Histogram::new_with_bounds(1, LATENCY_LIMIT_NS, LATENCY_DIGITS)
            .expect("bounds that are right");
        Self {
            start: Instant::now(),
            measured_since_ns: None,
            tally: Tally {
                requests: 0,
                kicks: 0,
                latencies_ns,
            },
            sleeps: 0,
            events: [EpollEvent::default(); MOST_EVENTS],
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("less than centuries")
    }
}
