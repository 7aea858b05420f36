//! The bare initiator: what TCP and iSCSI alone cost, without virtio, guest memory or QEMU.
//!
//! One thread, one session, a fixed number of commands in flight, random blocks from a seed. After
//! the login nothing is left but the least that an initiator on a kernel socket does:
//!
//! * headers are prepared once; a command fills in its numbers and its block,
//! * all that a wake-up makes ready goes out in one gathered send, data of writes included,
//! * one receive into one buffer brings as many PDUs as are there,
//! * the data of a read is dropped where it lies, or copied once ([`Floor::copies`]),
//! * the thread sleeps in the receive itself: there is no epoll, for there is nothing else to wait
//!   for. It may sleep until several answers are there ([`Floor::coalesced_answers`]), or not at
//!   all ([`Floor::busy_poll`]).
//!
//! It leaves out what costs and what a floor does not need: digests, CHAP, error recovery, time-outs.
//! It does not leave out what would make it lie: a status other than GOOD, a residual, data that is
//! missing or out of order, or an answer to no command ends it with an error. What was read is
//! counted, not compared.
//!
//! A back-end that serves a guest cannot get below these figures on the same machine and target; its
//! distance from them is what virtio and its own code cost.

mod commands;
mod error;
mod exchange;
mod incoming;
mod login;
mod low_water;
mod outgoing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

pub(crate) use self::error::FloorError;

/// What the commands do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// READ(16).
    Read,
    /// WRITE(16).
    Write,
}

/// One measurement: where, what, how many at once, for how long.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    /// The target's portal.
    pub(crate) address: SocketAddr,
    /// The target's name.
    pub(crate) target_name: String,
    /// The logical unit, 0 to 16,383. Writes destroy what is on it.
    pub(crate) lun: u16,
    /// Tells sessions that run at the same time apart: it is part of the ISID, and a second session
    /// of the same number would end the first.
    pub(crate) session: u16,
    /// What the commands do.
    pub(crate) operation: Operation,
    /// Bytes that one command moves: a multiple of the block length, and each command starts at a
    /// multiple of it.
    pub(crate) length_bytes: u32,
    /// Commands in flight, as far as the target's command window allows.
    pub(crate) depth: usize,
    /// How long commands are sent before anything counts.
    pub(crate) warm_up: Duration,
    /// How long is measured.
    pub(crate) duration: Duration,
    /// Which blocks, in which order.
    pub(crate) seed: u64,
    /// Copies what is read to a buffer of the command's own instead of dropping it.
    pub(crate) copies: bool,
    /// Sleeps until so many answers are there (SO_RCVLOWAT); 1 wakes up for each. At most half of
    /// [`Floor::depth`] counts, so that the answers to wait for are always on their way.
    pub(crate) coalesced_answers: usize,
    /// How long the socket is asked again and again before the thread sleeps.
    pub(crate) busy_poll: Duration,
    /// The most that one receive brings.
    pub(crate) receive_bytes: usize,
}

impl Floor {
    /// A second of warm-up and five seconds of random blocks on session 0; data is dropped, every
    /// answer wakes, nothing polls.
    pub(crate) fn new(
        address: SocketAddr,
        target_name: impl Into<String>,
        operation: Operation,
        length_bytes: u32,
        depth: usize,
    ) -> Self {
        Self {
            address,
            target_name: target_name.into(),
            lun: 0,
            session: 0,
            operation,
            length_bytes,
            depth,
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(5),
            seed: 1,
            copies: false,
            coalesced_answers: 1,
            busy_poll: Duration::ZERO,
            receive_bytes: 256 * 1024,
        }
    }

    /// Logs in, measures on the calling thread, waits for what is in flight, and disconnects.
    ///
    /// Sessions at the same time are threads at the same time, each with a [`Floor::session`] of
    /// its own.
    ///
    /// # Errors
    /// Whatever makes the figures worthless: no login, no such disk, a lost connection, a command
    /// that did not end well, a target that broke a rule. [`FloorError`] says which.
    pub(crate) fn run(&self) -> Result<FloorResult, FloorError> {
        let session = login::log_in(self)?;
        exchange::Exchange::new(self, session)?.run()
    }
}

/// What was measured between the end of the warm-up and the end of the duration.
#[derive(Clone, Debug)]
pub(crate) struct FloorResult {
    /// Commands that ended.
    pub(crate) requests: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// CPU time of the calling thread (CLOCK_THREAD_CPUTIME_ID).
    pub(crate) cpu: Duration,
    /// Sends of the socket.
    pub(crate) sends: u64,
    /// Receives of the socket, those that found nothing included.
    pub(crate) receives: u64,
    /// From the send of a command to the receive that brought its end, nanoseconds. The clock is
    /// read once per receive.
    pub(crate) latency_ns: Histogram<u64>,
}

impl FloorResult {
    /// Commands per second.
    pub(crate) fn iops(&self) -> f64 {
        ratio(self.requests, self.elapsed.as_secs_f64())
    }

    /// CPU time of the calling thread per command, microseconds.
    pub(crate) fn cpu_us_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / ratio(self.requests, 1.0)
    }

    /// System calls per command.
    pub(crate) fn calls_per_request(&self) -> f64 {
        ratio(self.sends + self.receives, ratio(self.requests, 1.0))
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of one run are far below 2^53"
)]
fn ratio(count: u64, of: f64) -> f64 {
    count as f64 / of
}
