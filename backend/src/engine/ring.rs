//! A ring as its lane serves it: the queue, the two notifications, and where it is in its life.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

use super::log_limit::LogLimit;
use super::throttle::Held;
use super::unit::UnitId;
use crate::device::inflight::InflightError;
use crate::device::queue::{QueueError, SplitQueue};
use crate::device::request::{Malformed, ParsedRequest, RequestParser, Status};
use crate::device::rings::RingSetup;
use crate::guest_memory::GuestMemory;
use crate::log_context::LogContext;

/// A ring that a lane owns.
pub(super) struct LaneRing {
    /// Whose.
    pub(super) unit: UnitId,
    /// Which virtqueue.
    pub(super) index: u16,
    /// What lines of the log are about that are about it.
    pub(super) log: LogContext,
    queue: SplitQueue,
    parser: RequestParser,
    features: u64,
    kick: OwnedFd,
    call: Option<OwnedFd>,
    life: Life,
    log_limit: LogLimit,
    /// There may be buffers to pop: a kick came, or popping ended before the ring was empty.
    pending: bool,
    /// The driver was asked to kick at the next buffer.
    armed: bool,
    /// The next request waits for its time: a limit of the disk is reached.
    pub(super) held: Option<Held>,
}

/// What the ring is allowed to do.
enum Life {
    Running,
    /// No buffer is popped any more: the process is ending.
    Paused,
    /// As `Paused`, until nothing is in flight, but not beyond the deadline.
    Draining {
        deadline: Instant,
        reply: SyncSender<u16>,
    },
}

/// Why a ring cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The ring itself.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// What a former process left of it.
    #[error(transparent)]
    Inflight(#[from] InflightError),
}

/// What [`LaneRing::pop`] found.
pub(super) enum Popped {
    /// A request, in the place that was given.
    Request,
    /// No request, but there may be another: a chain was refused and went back at once.
    Again,
    /// Nothing. The driver kicks for the next one only after [`LaneRing::arm`].
    Empty,
}

impl std::fmt::Debug for LaneRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneRing")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl LaneRing {
    /// Starts the ring; with an inflight region, where a former process was killed.
    pub(super) fn new(
        unit: UnitId,
        log: LogContext,
        mut setup: RingSetup,
    ) -> Result<Self, StartError> {
        let mut queue = SplitQueue::new(&setup)?;
        if let Some(call) = &setup.call {
            set_nonblocking(call);
        }
        let inflight = setup.inflight.take();
        let tracked = inflight.map(|inflight| queue.track_inflight(inflight));
        let left_over = tracked.transpose()?.flatten();
        let ring = Self {
            unit,
            index: setup.index,
            log,
            queue,
            parser: RequestParser::new(setup.features),
            features: setup.features,
            kick: setup.kick,
            call: setup.call,
            life: Life::Running,
            log_limit: LogLimit::default(),
            pending: true,
            armed: false,
            held: None,
        };
        if let Some(count) = left_over {
            log::debug!(
                "ring {}: {count} requests that were in flight are submitted again",
                ring.index
            );
            // A process that was killed after it had published could not say so any more.
            ring.notify();
        }
        Ok(ring)
    }

    /// Whether it is this virtqueue of this disk.
    pub(super) fn is(&self, unit: UnitId, index: u16) -> bool {
        self.unit == unit && self.index == index
    }

    pub(super) fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    pub(super) fn set_kick(&mut self, kick: OwnedFd) {
        self.kick = kick;
        self.pending = true;
    }

    /// Another way to notify; once at once, for the last notification may have gone to the old
    /// one.
    pub(super) fn set_call(&mut self, call: Option<OwnedFd>) {
        if let Some(call) = &call {
            set_nonblocking(call);
        }
        self.call = call;
        self.notify();
    }

    pub(super) fn set_memory(&mut self, memory: &Arc<GuestMemory>) {
        if let Err(error) = self.queue.set_memory(memory) {
            let index = self.index;
            self.log
                .about(|| log::info!("ring {index}: {error}; it waits for its memory"));
        }
        // It may be back, and the driver may not have been asked for kicks.
        (self.pending, self.armed) = (true, false);
    }

    pub(super) fn kicked(&mut self) {
        self.pending = true;
    }

    /// Whether there may be something to pop, and popping is allowed.
    pub(super) fn is_pending(&self) -> bool {
        self.pending && matches!(self.life, Life::Running)
    }

    /// Whether a completed write may be volatile (virtio 1.2 section 5.2.6.2): only when the
    /// driver knows about FLUSH, and did not switch to write-through by CONFIG_WCE.
    pub(super) fn is_writeback(&self, writeback: bool) -> bool {
        let acked = |bit: u32| self.features & (1 << bit) != 0;
        acked(VIRTIO_BLK_F_FLUSH) && (writeback || !acked(VIRTIO_BLK_F_CONFIG_WCE))
    }

    /// Takes the next chain and makes a request of it.
    pub(super) fn pop(&mut self, request: &mut ParsedRequest, now_ms: u64) -> Popped {
        let head = match self.queue.pop() {
            Ok(Some(head)) => head,
            Ok(None) => {
                self.pending = false;
                return Popped::Empty;
            }
            Err(error) if self.queue.is_broken() => {
                self.log.about(|| {
                    log::warn!("{error}; the ring is ignored until the driver resets it")
                });
                self.pending = false;
                return Popped::Empty;
            }
            Err(error) => {
                if let Some(left_out) = self.log_limit.pass(now_ms) {
                    self.log
                        .about(|| log::warn!("{error}; the entry is skipped{left_out}"));
                }
                return Popped::Again;
            }
        };
        if self.armed {
            self.armed = false;
            self.queue.disable_notification();
        }
        let parsed = self.parser.parse(&self.queue, head, request);
        if self.queue.give_up_lost_memory() {
            // It may be a request that nobody made.
            request.buffers.clear();
            self.queue.push_used(head, 0);
            self.pending = false;
            return Popped::Empty;
        }
        match parsed {
            Ok(()) => Popped::Request,
            Err(malformed) => {
                let length_bytes = self.refuse(request, malformed, now_ms);
                self.queue.push_used(head, length_bytes);
                Popped::Again
            }
        }
    }

    /// Puts the request back that was just popped, until `held` says. What is behind it waits as well:
    /// a driver may count on its order.
    pub(super) fn hold(&mut self, request: &mut ParsedRequest, held: Held) {
        request.buffers.clear();
        self.queue.put_back(request.head);
        self.held = Some(held);
    }

    /// Asks the driver to kick at the next buffer, before the lane goes to sleep. `true` when one
    /// came meanwhile, which may not be kicked for.
    pub(super) fn arm(&mut self) -> bool {
        if self.armed || self.pending || !matches!(self.life, Life::Running) {
            return false;
        }
        self.armed = true;
        self.pending = self.queue.enable_notification();
        self.pending
    }

    /// Whether the driver made something available, for which it need not have kicked, while there
    /// was nothing to pop.
    pub(super) fn look(&mut self) -> bool {
        let is_new =
            !self.pending && matches!(self.life, Life::Running) && self.queue.has_available();
        self.pending |= is_new;
        is_new
    }

    /// Says no in the status byte; where there is none, in the log. The used length.
    fn refuse(&mut self, request: &mut ParsedRequest, malformed: Malformed, now_ms: u64) -> u32 {
        let ring = self.index;
        match malformed {
            Malformed::WithStatus { status, .. } => {
                log::debug!("ring {ring}: a request is refused: {malformed}");
                request.complete(status)
            }
            Malformed::NoStatus { .. } => {
                if let Some(left_out) = self.log_limit.pass(now_ms) {
                    self.log.about(|| {
                        log::warn!(
                            "ring {ring}: the driver made a chain available that is no request, it \
                             goes back unanswered: {malformed}{left_out}"
                        );
                    });
                }
                request.buffers.clear();
                0
            }
        }
    }

    /// Gives a chain back that needed no command.
    pub(super) fn complete_at_once(&mut self, request: &mut ParsedRequest, status: Status) {
        let head = request.head;
        let length_bytes = request.complete(status);
        self.queue.push_used(head, length_bytes);
    }

    /// Gives a chain back; the guest sees it after [`LaneRing::publish`].
    pub(super) fn push_used(&mut self, head: u16, length_bytes: u32) {
        self.queue.push_used(head, length_bytes);
    }

    /// Shows the guest what was given back since the last time, with one notification at most.
    pub(super) fn publish(&mut self) {
        if self.queue.publish() {
            self.notify();
        }
    }

    fn notify(&self) {
        if let Some(call) = &self.call {
            // A counter at its limit has notified already; a broken descriptor is the front-end's
            // own loss.
            let _ = rustix::io::write(call, &1u64.to_ne_bytes());
        }
    }

    /// Whether what is in flight outlives us.
    pub(super) fn tracks_inflight(&self) -> bool {
        self.queue.tracks_inflight()
    }

    pub(super) fn pause(&mut self) {
        if matches!(self.life, Life::Running) {
            self.life = Life::Paused;
        }
    }

    pub(super) fn drain(&mut self, deadline: Instant, reply: SyncSender<u16>) {
        self.life = Life::Draining { deadline, reply };
    }

    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        match self.life {
            Life::Draining { deadline, .. } => Some(deadline),
            Life::Running | Life::Paused => None,
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drain_deadline().is_some() && self.queue.in_flight() == 0
    }

    /// Says that nothing of the ring is touched any more.
    pub(super) fn answer_drain(&self) {
        if let Life::Draining { reply, .. } = &self.life {
            let _ = reply.send(self.queue.next_avail());
        }
    }
}

/// The front-end chose the file; one that blocks must not block us.
fn set_nonblocking(fd: &OwnedFd) {
    let result = rustix::fs::fcntl_getfl(fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK));
    if let Err(error) = result {
        log::warn!("cannot make the front-end's call descriptor non-blocking: {error}");
    }
}
