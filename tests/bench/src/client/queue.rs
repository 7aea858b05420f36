//! One queue of a closed loop: as many requests in flight as it has slots, each answered one
//! followed by the next.

use hdrhistogram::Histogram;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::Error;
use super::memory::Memory;
use super::pattern::Pattern;
use super::ring::Ring;

/// VIRTIO_BLK_S_OK.
const S_OK: u8 = 0;

/// What happens with requests during one look at a queue.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// Now, nanoseconds since the load began.
    pub(super) now_ns: u64,
    /// Answers to requests made before that are not recorded; `None` while nothing is measured.
    pub(super) measured_since_ns: Option<u64>,
    /// Whether an answered request is followed by another.
    pub(super) resubmit: bool,
}

/// What a queue did while it was measured.
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) kicks: u64,
    pub(super) latencies_ns: Histogram<u64>,
}

#[derive(Clone, Copy, Default)]
struct Request {
    in_flight: bool,
    write: bool,
    submitted_ns: u64,
}

/// A ring, its eventfds and what is in flight.
pub(super) struct Queue {
    index: usize,
    pub(super) ring: Ring,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
    pattern: Pattern,
    requests: Vec<Request>,
    in_flight: usize,
}

impl Queue {
    /// A queue that makes the requests of `pattern` as its ring has slots.
    pub(super) fn new(index: u16, ring: Ring, pattern: Pattern, depth: u16) -> Result<Self, Error> {
        let event = || {
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
                .map_err(|error| Error::Memory(error.to_string()))
        };
        Ok(Self {
            index: usize::from(index),
            ring,
            kick: event()?,
            call: event()?,
            pattern,
            requests: vec![Request::default(); usize::from(depth)],
            in_flight: 0,
        })
    }

    /// Number of requests without an answer.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Fills every slot and shows them to the back-end.
    pub(super) fn begin(&mut self, memory: &Memory, now_ns: u64) {
        for slot in 0..self.requests.len() {
            self.submit(memory, slot, now_ns);
        }
        self.publish(memory);
        self.ring.arm(memory);
    }

    /// Takes every answer, makes the next requests, shows them, and asks for the next
    /// notification; true when there was an answer, or is one by now.
    pub(super) fn turn(
        &mut self,
        memory: &Memory,
        pass: Pass,
        tally: &mut Tally,
    ) -> Result<bool, Error> {
        self.ring.disarm(memory);
        let mut answered = false;
        while let Some(head) = self.ring.pop_used(memory) {
            answered = true;
            let slot = self.answered(memory, head)?;
            self.record(slot, pass, tally);
            if pass.resubmit {
                self.submit(memory, slot, pass.now_ns);
            }
        }
        if self.publish(memory) && pass.measured_since_ns.is_some() {
            tally.kicks += 1;
        }
        Ok(!self.ring.arm(memory) || answered)
    }

    fn submit(&mut self, memory: &Memory, slot: usize, now_ns: u64) {
        let (write, sector) = self.pattern.next();
        self.requests[slot] = Request {
            in_flight: true,
            write,
            submitted_ns: now_ns,
        };
        self.in_flight += 1;
        let slot = u16::try_from(slot).expect("a slot of a ring");
        self.ring.submit(memory, slot, write, sector);
    }

    fn publish(&mut self, memory: &Memory) -> bool {
        let wanted = self.ring.publish(memory);
        if wanted {
            self.kick.write(1).expect("an eventfd takes a kick");
        }
        wanted
    }

    /// Checks an answer; returns its slot.
    fn answered(&mut self, memory: &Memory, head: u32) -> Result<usize, Error> {
        let found = self
            .ring
            .slot_of(head)
            .filter(|slot| self.requests[usize::from(*slot)].in_flight);
        let slot = found.ok_or(Error::Head {
            queue: self.index,
            head,
        })?;
        let request = &mut self.requests[usize::from(slot)];
        request.in_flight = false;
        self.in_flight -= 1;
        let status = self.ring.status(memory, slot);
        if status != S_OK {
            return Err(Error::Status {
                queue: self.index,
                request: if request.write { "write" } else { "read" },
                sector: self.ring.sector(memory, slot),
                status,
            });
        }
        Ok(usize::from(slot))
    }

    fn record(&self, slot: usize, pass: Pass, tally: &mut Tally) {
        let Some(since_ns) = pass.measured_since_ns else {
            return;
        };
        tally.requests += 1;
        let submitted_ns = self.requests[slot].submitted_ns;
        if submitted_ns >= since_ns {
            tally
                .latencies_ns
                .saturating_record(pass.now_ns - submitted_ns);
        }
    }
}
