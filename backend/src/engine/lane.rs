//! A lane: one thread that owns rings, an iSCSI session and everything in flight between them.
//!
//! All waiting is in [`Lane::run`], everything else runs to completion. A turn of the loop takes
//! what arrived on the connection, takes what the guest made available, sends all commands of
//! both in one go, and publishes and notifies once per ring.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::SendError;
use std::time::{Duration, Instant};

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::requests::Requests;

use super::coalescing::Coalescing;
use super::in_flight::InFlightTable;
use super::log_limit::LogLimit;
use super::mailbox::Mailbox;
use super::message::{Connection, LaneReports, Message};
use super::polling::Polling;
use super::reactor::{MAX_EVENTS, Reactor, Ready, Token};
use super::ring::LaneRing;
use super::{DRAIN_LIMIT, LOGOUT_LIMIT, MAX_REQUESTS};
use crate::raw_io::VectorRoom;

/// What a lane is made with.
pub(super) struct LaneConfig {
    /// Which lane of the disk; 0 is there from the start.
    pub(super) index: usize,
    /// The disk.
    pub(super) facts: LunFacts,
    /// The LUN field.
    pub(super) lun: u64,
    /// The answer to GET_ID.
    pub(super) device_id: [u8; 20],
    /// Whether the driver was told that completed writes may be volatile.
    pub(super) writeback: bool,
    /// The longest that the lane polls before it sleeps; zero for never.
    pub(super) poll_limit: Duration,
    /// Whom to tell when the session is lost.
    pub(super) reports: LaneReports,
}

pub(super) struct Lane {
    pub(super) config: LaneConfig,
    mailbox: Arc<Mailbox<Message>>,
    pub(super) reactor: Reactor,
    /// Milliseconds for the core are counted from here.
    epoch: Instant,
    /// The time of this turn: read once, after waiting.
    pub(super) now: Instant,
    /// The same for the core.
    pub(super) now_ms: u64,
    pub(super) coalescing: Coalescing,
    /// Polling while commands are in flight, and while there is nothing but the guest to wait for:
    /// one may pay without the other.
    polling: [Polling; 2],
    /// Boxed, for it is taken out and put back while it is used.
    pub(super) connection: Option<Box<Connection>>,
    pub(super) requests: Requests,
    pub(super) in_flight: InFlightTable,
    /// By the lane's own index; an empty place is reused.
    pub(super) rings: Vec<Option<LaneRing>>,
    /// Whose turn it is to be the first.
    pub(super) first_ring: usize,
    /// There was no end of requests: wait for nothing.
    pub(super) has_more: bool,
    pub(super) room: VectorRoom,
    pub(super) log_limit: LogLimit,
    pub(super) closing: Option<Closing>,
}

/// The lane is to end.
pub(super) struct Closing {
    deadline: Instant,
    logout_sent: bool,
}

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

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    End,
}

impl Lane {
    pub(super) fn new(config: LaneConfig, mailbox: Arc<Mailbox<Message>>) -> io::Result<Self> {
        let reactor = Reactor::new()?;
        reactor.watch(mailbox.wake_fd(), Token::Mailbox)?;
        let now = Instant::now();
        Ok(Self {
            coalescing: Coalescing::new(now),
            polling: [(); 2].map(|()| Polling::new(config.poll_limit)),
            requests: Requests::new(config.facts.clone(), config.lun, MAX_REQUESTS),
            in_flight: InFlightTable::new(MAX_REQUESTS),
            config,
            mailbox,
            reactor,
            epoch: now,
            now,
            now_ms: 0,
            connection: None,
            rings: Vec::new(),
            first_ring: 0,
            has_more: false,
            room: VectorRoom::default(),
            log_limit: LogLimit::default(),
            closing: None,
        })
    }

    /// Runs until told to end. Only a failing epoll ends it early, and then the log says so.
    pub(super) fn run(mut self) {
        make_timers_exact();
        let mut ready = Vec::with_capacity(MAX_EVENTS);
        loop {
            ready.clear();
            if let Err(error) = self.wait(&mut ready) {
                log::error!(
                    "lane {}: cannot wait for events: {error}",
                    self.config.index
                );
                return;
            }
            for event in &ready {
                self.dispatch(event);
            }
            if self.coalescing.is_receive_due(self.now) {
                self.receive();
            }
            if self.turn() == Next::End {
                return self.leave_rings();
            }
        }
    }

    /// Until something happens or it is time for something: by polling while that pays, then
    /// asleep.
    fn wait(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        if self.has_more {
            self.reactor.wait(Duration::ZERO, ready)?;
            self.set_now(Instant::now());
            return Ok(());
        }
        if self.poll() {
            return Ok(());
        }
        // From here on drivers kick. What one made available before it knew that is there already.
        let came = self.rings.iter_mut().flatten().any(LaneRing::arm);
        let start = Instant::now();
        let timeout = if came {
            Duration::ZERO
        } else {
            self.timeout(start)?
        };
        self.reactor.wait(timeout, ready)?;
        let end = Instant::now();
        self.polling().slept(end.saturating_duration_since(start));
        self.set_now(end);
        Ok(())
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        let elapsed = now.saturating_duration_since(self.epoch);
        self.now_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    }

    /// The polling of the kind of wait that is ahead.
    fn polling(&mut self) -> &mut Polling {
        let [for_guest, for_target] = &mut self.polling;
        if self.requests.in_flight() == 0 {
            for_guest
        } else {
            for_target
        }
    }

    /// Looks at rings, mailbox and connection without sleeping, as long as that pays. `true` when
    /// something has happened; what arrived has then been received.
    ///
    fn poll(&mut self) -> bool {
        let limit = self.polling().limit();
        let Some(limit) = limit.filter(|limit| self.may_poll(*limit)) else {
            return false;
        };
        let start = Instant::now();
        let mut receive_at = start;
        let enough_bytes = self.awaited_bytes() / PAYING_SHARE;
        let (found, pays) = loop {
            if self.look() {
                // A guest that goes on says nothing about its target.
                break (true, (enough_bytes == 0).then_some(true));
            }
            let now = Instant::now();
            if now < receive_at {
                std::hint::spin_loop();
                continue;
            }
            self.set_now(now);
            let received_bytes = self.receive();
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
            self.polling().looked(pays);
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

    fn dispatch(&mut self, event: &Ready) {
        match event.token {
            Token::Mailbox => self.take_messages(),
            Token::Connection => {
                if event.writable
                    && let Some(connection) = &mut self.connection
                {
                    connection.blocked = false;
                }
                if event.readable {
                    self.receive();
                }
            }
            Token::Kick(index) => {
                if let Some(Some(ring)) = self.rings.get_mut(index) {
                    ring.kicked();
                }
            }
        }
    }

    /// What follows whatever happened.
    fn turn(&mut self) -> Next {
        self.handle_timeouts();
        self.take_requests();
        self.send();
        self.publish();
        self.end_drained_rings();
        self.close_if_done()
    }

    /// How long to sleep at most from `now` on. Tells the connection how much company an answer is
    /// to wait for.
    fn timeout(&mut self, now: Instant) -> io::Result<Duration> {
        let receive_by = self.coalesce(now)?;
        let session = self
            .connection
            .as_ref()
            .map(|c| c.session.next_timeout_ms());
        let core_ms = [session, self.requests.next_timeout_ms()]
            .into_iter()
            .flatten()
            .min();
        let core = core_ms.map(|at_ms| at_ms.saturating_sub(self.now_ms) + 1);
        let core = core.map(Duration::from_millis);
        let drain = self
            .rings
            .iter()
            .flatten()
            .filter_map(LaneRing::drain_deadline);
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        let deadline = drain.chain(closing).chain(receive_by).min();
        let deadline = deadline.map(|at| at.saturating_duration_since(now));
        let limits = [core, deadline].into_iter().flatten();
        Ok(limits.min().unwrap_or(Duration::from_secs(3600)))
    }

    /// Sets how much has to arrive to wake the lane, and says when it has to look without that.
    fn coalesce(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        let Connection {
            session, transport, ..
        } = connection.as_mut();
        let low_water_bytes = self
            .coalescing
            .low_water_bytes(session.tasks_in_flight() as u64, session.awaited_bytes());
        transport.set_low_water(low_water_bytes)?;
        Ok(self.coalescing.receive_by(now))
    }

    fn take_messages(&mut self) {
        self.mailbox.clear_wake();
        while let Some(message) = self.mailbox.take() {
            self.handle(message);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Connected(connection) => self.connect(connection),
            Message::StartRing(setup) => self.start_ring(*setup),
            Message::StopRing {
                index,
                deadline,
                reply,
            } => match self.ring_of(index) {
                Some(ring) => ring.drain(deadline, reply),
                // Nothing of it is touched: an error of the start was logged then.
                None => drop(reply),
            },
            Message::SetCall { index, call } => {
                if let Some(ring) = self.ring_of(index) {
                    ring.set_call(call);
                }
            }
            Message::SetKick { index, kick } => self.set_kick(index, kick),
            Message::SetMemory(memory) => {
                for ring in self.rings.iter_mut().flatten() {
                    ring.set_memory(&memory);
                }
            }
            Message::SetWriteback(writeback) => self.config.writeback = writeback,
            Message::GiveUpRings { reply } => {
                if let Err(SendError(rings)) = reply.send(self.give_up_rings()) {
                    rings.into_iter().for_each(|ring| self.adopt_ring(ring));
                }
            }
            Message::AdoptRing(ring) => self.adopt_ring(*ring),
            Message::Close => self.close(),
        }
    }

    fn close(&mut self) {
        if self.closing.is_none() {
            let deadline = Instant::now() + DRAIN_LIMIT;
            self.closing = Some(Closing {
                deadline,
                logout_sent: false,
            });
            for ring in self.rings.iter_mut().flatten() {
                ring.pause();
            }
        }
    }

    /// Nothing is touched any more, so those who wait for that are told where their rings stand.
    fn leave_rings(&self) {
        let rings = self.rings.iter().flatten();
        rings.for_each(LaneRing::answer_drain);
    }

    /// First what is in flight ends, then the session; each has its limit.
    fn close_if_done(&mut self) -> Next {
        let Some(closing) = &mut self.closing else {
            return Next::Wait;
        };
        let Some(connection) = &mut self.connection else {
            return Next::End;
        };
        let is_late = Instant::now() >= closing.deadline;
        if closing.logout_sent {
            return if is_late { Next::End } else { Next::Wait };
        }
        if self.requests.in_flight() == 0 || is_late {
            closing.logout_sent = true;
            closing.deadline = Instant::now() + LOGOUT_LIMIT;
            connection.session.log_out();
            self.send();
            if self.connection.is_none() {
                return Next::End;
            }
        }
        Next::Wait
    }
}

/// The kernel wakes a thread up to 50 µs later than it asked for, to save wake-ups; that would be
/// half of what an answer may wait for company.
fn make_timers_exact() {
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        log::debug!("timers stay inexact: {error}");
    }
}
