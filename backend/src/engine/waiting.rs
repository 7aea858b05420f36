//! How a lane waits: awake, for company, or asleep. When each of them makes sense is decided by
//! [`Polling`] and [`Coalescing`](super::coalescing::Coalescing).

use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::lane::Lane;
use super::message::{Connection, LossReason};
use super::polling::Polling;
use super::reactor::Ready;
use super::ring::LaneRing;

/// How often a lane that polls looks at its connection, which takes a system call. Rings and mailbox
/// are looked at all the time.
const RECEIVE_INTERVAL: Duration = Duration::from_nanos(500);

/// From this average length on, and with several commands in flight, nobody polls: what moving the
/// data costs is many times what falling asleep does, and there is always something to be woken for.
const LARGE_BYTES: u64 = 32 * 1024;

/// Polling pays when it brings this share of what is awaited. With less, a target is at work that
/// answers one command at a time while many wait: it has enough to do, nobody is faster for our
/// being awake, and asleep we take its answers in fewer, larger portions.
const PAYING_SHARE: u64 = 4;

impl Lane {
    /// Until something happens or it is time for something: by polling while that pays, then
    /// asleep.
    pub(super) fn wait(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        if self.has_more {
            self.reactor.wait(Duration::ZERO, ready)?;
            self.set_now(Instant::now());
            return Ok(());
        }
        let waits_for_target = self.requests_in_flight() > 0;
        if self.poll(waits_for_target) {
            return Ok(());
        }
        // From here on drivers kick. What one made available before it knew that is there already.
        let came = self.rings.iter_mut().flatten().any(LaneRing::arm);
        let start = Instant::now();
        let timeout = if came {
            Duration::ZERO
        } else {
            self.timeout(start)
        };
        self.reactor.wait(timeout, ready)?;
        let end = Instant::now();
        let slept = end.saturating_duration_since(start);
        self.polling(waits_for_target).slept(slept);
        self.set_now(end);
        Ok(())
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        let elapsed = now.saturating_duration_since(self.epoch);
        self.now_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    }

    /// The polling of a kind of wait.
    fn polling(&mut self, waits_for_target: bool) -> &mut Polling {
        let [for_guest, for_target] = &mut self.polling;
        if waits_for_target {
            for_target
        } else {
            for_guest
        }
    }

    /// Looks at rings, mailbox and connection without sleeping, as long as that pays. `true` when
    /// something has happened; what arrived has then been received.
    fn poll(&mut self, waits_for_target: bool) -> bool {
        let limit = self.polling(waits_for_target).limit();
        // Rings that are held have nothing to look for.
        let is_held = !waits_for_target && self.held_until.is_some();
        let Some(limit) = limit.filter(|limit| !is_held && self.may_poll(*limit)) else {
            return false;
        };
        let start = Instant::now();
        self.set_now(start);
        let mut receive_at = start;
        let enough_bytes = self.awaited_bytes() / PAYING_SHARE;
        let (found, pays) = loop {
            if self.look() {
                self.polling(waits_for_target).did_not_listen();
                // A guest that goes on says nothing about its target.
                break (true, (!waits_for_target).then_some(true));
            }
            let now = Instant::now();
            if self.held_until.is_some_and(|until| until <= now) {
                self.set_now(now);
                break (true, None);
            }
            if now < receive_at {
                std::hint::spin_loop();
                continue;
            }
            self.set_now(now);
            let received_bytes = self.receive();
            self.polling(waits_for_target).listened();
            if received_bytes > 0 {
                break (true, Some(received_bytes >= enough_bytes));
            }
            if now.saturating_duration_since(start) >= limit {
                break (false, Some(false));
            }
            receive_at = now + RECEIVE_INTERVAL;
            // Whoever shares this processor may be the one that we wait for.
            rustix::thread::sched_yield();
        };
        if let Some(pays) = pays {
            self.polling(waits_for_target).looked(pays);
        }
        found
    }

    fn awaited_bytes(&self) -> u64 {
        let connection = self.connection.as_ref();
        connection.map_or(0, |c| c.session.awaited_bytes())
    }

    /// Answers that need longer to gather are best waited for asleep, and so is room to send. Where
    /// much data is moved, falling asleep does not count.
    fn may_poll(&mut self, limit: Duration) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        let session = &connection.session;
        let commands = session.tasks_in_flight() as u64;
        let moves_much = commands > 1 && session.data_bytes() / commands >= LARGE_BYTES;
        self.coalescing
            .low_water_bytes(commands, session.awaited_bytes());
        !moves_much && !connection.blocked && !self.coalescing.takes_longer_than(limit)
    }

    /// Whether something has happened that can be seen without a system call.
    fn look(&mut self) -> bool {
        let has_mail = self.mailbox.has_mail();
        if has_mail {
            self.take_messages();
        }
        let rings = self.rings.iter_mut().flatten();
        rings.fold(has_mail, |came, ring| ring.look() | came)
    }

    /// How long to sleep at most from `now` on. Tells the connection how much company an answer is
    /// to wait for.
    fn timeout(&mut self, now: Instant) -> Duration {
        let receive_by = self.coalesce(now);
        let session = self
            .connection
            .as_ref()
            .map(|c| c.session.next_timeout_ms());
        let units = self.units.iter().flatten();
        let requests = units.filter_map(|unit| unit.requests.next_timeout_ms());
        let core_ms = session.into_iter().chain(requests).min();
        let core = core_ms.map(|at_ms| at_ms.saturating_sub(self.now_ms) + 1);
        let core = core.map(Duration::from_millis);
        let drain = self
            .rings
            .iter()
            .flatten()
            .filter_map(LaneRing::drain_deadline);
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        let units = self.units.iter().flatten();
        let units = units.flat_map(|unit| [unit.stall.deadline(), unit.leaving_deadline()]);
        let others = [closing, receive_by, self.held_until].into_iter();
        let deadline = drain.chain(units.chain(others).flatten()).min();
        let deadline = deadline.map(|at| at.saturating_duration_since(now));
        let limits = [core, deadline].into_iter().flatten();
        limits.min().unwrap_or(Duration::from_secs(3600))
    }

    /// Sets how much has to arrive to wake the lane, and says when it has to look without that.
    fn coalesce(&mut self, now: Instant) -> Option<Instant> {
        let connection = self.connection.as_mut()?;
        let Connection {
            session, transport, ..
        } = connection.as_mut();
        let low_water_bytes = self
            .coalescing
            .low_water_bytes(session.tasks_in_flight() as u64, session.awaited_bytes());
        if let Err(error) = transport.set_low_water(low_water_bytes) {
            self.lose(LossReason::Io(error));
            return None;
        }
        self.coalescing.receive_by(now)
    }
}

/// The kernel wakes a thread up to 50 µs later than it asked for, to save wake-ups; that would add a
/// quarter to what an answer may wait for company.
pub(super) fn make_timers_exact() {
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        log::debug!("timers stay inexact: {error}");
    }
}
