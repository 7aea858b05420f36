//! A vhost-user-blk front-end made for measuring: it costs as little as it can and behaves as a
//! Linux guest does.
//!
//! One thread drives all queues, of several clients if wanted (`drive.rs`). Per look at a queue it takes every answer, makes as many new
//! requests, publishes them at once, kicks only when the back-end's `avail_event` asks for it, and
//! asks for a notification of the next answer. When no queue had an answer it sleeps in epoll on
//! the call eventfds. Everything is allocated before the first request.
//!
//! `tests/src/frontend` is the front-end for tests: it judges more and is much slower.

mod drive;
mod error;
mod link;
mod memory;
mod pattern;
mod queue;
mod ring;

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;

use drive::Run;
pub(crate) use drive::run as run_together;
pub(crate) use error::Error;
use link::Link;
use memory::Memory;
use pattern::Pattern;
pub(crate) use pattern::{Operation, Order, SECTOR_BYTES};
use queue::Queue;
use ring::Ring;

/// VIRTIO_F_INDIRECT_DESC.
const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
const F_EVENT_IDX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES: vhost-user's own bit.
const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
const F_VERSION_1: u64 = 1 << 32;

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

/// What the client does with an inflight region (INFLIGHT_SHMFD): shared memory in which a back-end
/// writes down, for each request, that it has begun, so that the next back-end can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InflightRegion {
    /// Takes it where it is offered, as QEMU always does.
    Taken,
    /// Leaves it out, to show what it costs.
    LeftOut,
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
    link: Link,
    memory: Memory,
    queues: Vec<Queue>,
}

impl Client {
    /// Connects to the socket at `path` and prepares `load`.
    ///
    /// # Errors
    /// When nobody listens, the back-end refuses something or has fewer queues, or the disk is
    /// smaller than a request.
    pub(crate) fn connect(path: &Path, load: &Load, region: InflightRegion) -> Result<Self, Error> {
        let mut link = Link::connect(path, load.queues, region)?;
        let capacity_bytes = link.capacity_sectors * u64::from(SECTOR_BYTES);
        if capacity_bytes < u64::from(load.request_bytes) {
            return Err(Error::SmallDisk(capacity_bytes));
        }
        let size_bytes = Ring::memory_bytes(load.depth, load.request_bytes);
        let mut memory = Memory::new(size_bytes * usize::from(load.queues))?;
        let queues = (0..load.queues).map(|index| make_queue(&mut memory, &link, load, index));
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        link.start(&memory, &queues)?;
        Ok(Self {
            link,
            memory,
            queues,
        })
    }

    /// The virtio features in use.
    pub(crate) fn features(&self) -> u64 {
        self.link.features
    }

    /// Whether the back-end writes down what is in flight: the region was offered, and taken.
    pub(crate) fn has_inflight_region(&self) -> bool {
        self.link.has_inflight_region()
    }

    /// Runs the load once, as [`drive::run`] does with several clients.
    ///
    /// # Errors
    /// When a request fails, or nothing comes back for 10 s; the client is of no use then.
    pub(crate) fn run(
        &mut self,
        window: Window,
        observer: &mut dyn FnMut(Edge),
    ) -> Result<Outcome, Error> {
        let alone = std::slice::from_mut(self);
        drive::run(alone, window, observer).map_err(|failed| failed.error)
    }

    /// Fills every slot of every queue.
    fn begin(&mut self) {
        for queue in &mut self.queues {
            queue.begin(&self.memory, 0);
        }
    }

    /// Looks at every queue once; true when one had an answer.
    fn turn(&mut self, run: &mut Run) -> Result<bool, Error> {
        let mut progress = false;
        for queue in &mut self.queues {
            let pass = run.pass();
            progress |= queue.turn(&self.memory, pass, &mut run.tally)?;
        }
        Ok(progress)
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
