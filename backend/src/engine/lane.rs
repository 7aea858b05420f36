//! A lane: one thread that owns rings, an iSCSI session and everything in flight between them, of one
//! disk or of several behind one target.
//!
//! All waiting is in [`Lane::wait`], everything else runs to completion. A turn of the loop takes
//! what arrived on the connection, takes what the guest made available, sends all commands of
//! both in one go, and publishes and notifies once per ring.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SendError;
use std::time::{Duration, Instant};

use iscsi_core::disk::barrier::Barrier;

use super::coalescing::Coalescing;
use super::in_flight::InFlightTable;
use super::inspection::Inspectors;
use super::log_limit::LogLimit;
use super::mailbox::Mailbox;
use super::message::{Connection, LaneEvent, LaneReports, Message, SessionNumber, report};
use super::polling::Polling;
use super::reactor::{MAX_EVENTS, Reactor, Ready, Token};
use super::ring::LaneRing;
use super::unit::Unit;
use super::waiting::make_timers_exact;
use super::{DRAIN_LIMIT, LOGOUT_LIMIT};
use crate::raw_io::VectorRoom;

/// What a lane is made with. Its disks come later.
pub(super) struct LaneConfig {
    /// Which lane of the target's; 0 is there from the start.
    pub(super) index: usize,
    /// The longest that the lane polls before it sleeps; zero for never.
    pub(super) poll_limit: Duration,
    /// How long a command may be unanswered; `None` for ever.
    pub(super) command_timeout: Option<Duration>,
    /// A command that cannot be ended otherwise is ended by a LOGICAL UNIT RESET.
    pub(super) lun_reset: bool,
    /// With the target's other lanes.
    pub(super) barrier: Arc<Barrier>,
    /// Whom to tell when the session is lost.
    pub(super) reports: LaneReports,
}

pub(super) struct Lane {
    pub(super) config: LaneConfig,
    pub(super) mailbox: Arc<Mailbox<Message>>,
    pub(super) reactor: Reactor,
    /// Milliseconds for the core are counted from here.
    pub(super) epoch: Instant,
    /// The time of this turn: read once, after waiting.
    pub(super) now: Instant,
    /// The same for the core.
    pub(super) now_ms: u64,
    pub(super) coalescing: Coalescing,
    /// Polling while commands are in flight, and while there is nothing but the guest to wait for:
    /// one may pay without the other.
    pub(super) polling: [Polling; 2],
    /// Boxed, for it is taken out and put back while it is used.
    pub(super) connection: Option<Box<Connection>>,
    /// Which of all sessions it is.
    pub(super) session_number: SessionNumber,
    /// By their numbers; an empty place is reused.
    pub(super) units: Vec<Option<Unit>>,
    /// Whose turn it is to be the first.
    pub(super) first_unit: usize,
    pub(super) inspectors: Inspectors,
    pub(super) in_flight: InFlightTable,
    /// By the lane's own index; an empty place is reused.
    pub(super) rings: Vec<Option<LaneRing>>,
    /// Whose turn it is to be the first.
    pub(super) first_ring: usize,
    /// When the first of the requests may go that the limits hold, if any do.
    pub(super) held_until: Option<Instant>,
    /// There was no end of requests: wait for nothing.
    pub(super) has_more: bool,
    pub(super) room: VectorRoom,
    pub(super) log_limit: LogLimit,
    /// Of lines about what the target sends unasked: it must not drown the others.
    pub(super) unasked_limit: LogLimit,
    pub(super) closing: Option<Closing>,
}

/// The lane is to end.
pub(super) struct Closing {
    pub(super) deadline: Instant,
    logout_sent: bool,
}

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
            session_number: SessionNumber::default(),
            units: Vec::new(),
            first_unit: 0,
            inspectors: Inspectors::default(),
            in_flight: InFlightTable::default(),
            config,
            mailbox,
            reactor,
            epoch: now,
            now,
            now_ms: 0,
            connection: None,
            rings: Vec::new(),
            first_ring: 0,
            held_until: None,
            has_more: false,
            room: VectorRoom::default(),
            log_limit: LogLimit::default(),
            unasked_limit: LogLimit::default(),
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
                return self.leave();
            }
        }
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
        self.handle_stalls();
        self.take_requests();
        self.send();
        self.publish();
        self.count_turn();
        self.end_drained_rings();
        self.end_leaving_units();
        self.close_if_done()
    }

    /// What is counted once per turn, whatever it did.
    fn count_turn(&mut self) {
        for unit in self.units.iter_mut().flatten() {
            let stats = &unit.config.stats;
            stats.in_flight.set(unit.requests.in_flight() as u64);
            stats.retries.set(unit.requests.retries());
            if let Some(hold) = unit.hold.take() {
                stats.held(hold);
            }
        }
    }

    pub(super) fn take_messages(&mut self) {
        self.mailbox.clear_wake();
        while let Some(message) = self.mailbox.take() {
            self.handle(message);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Connected {
                connection,
                admitted,
            } => self.connect(connection, admitted),
            Message::AddUnit { unit, config } => self.add_unit(unit, config),
            Message::RemoveUnit { unit, ended } => self.remove_unit(unit, ended),
            Message::Unit(unit, message) => self.handle_unit(unit, message),
            Message::Inspect(inspection) => self.inspect(inspection),
            Message::GiveUpRings { reply } => {
                if let Err(SendError(rings)) = reply.send(self.give_up_rings()) {
                    rings.into_iter().for_each(|ring| self.adopt_ring(ring));
                }
            }
            Message::AdoptRing(ring) => self.adopt_ring(*ring),
            Message::BarrierFell => self.wake_rings(),
            Message::Reconcile => self.reconcile(),
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

    /// Nothing is touched any more, so those who wait for that are told where their rings stand. What
    /// the target may still carry out is somebody else's to end.
    fn leave(&mut self) {
        self.drop_connection();
        let lane = self.config.index;
        if self.config.barrier.is_suspect(lane) {
            report(&self.config.reports, LaneEvent::TasksLeft { lane });
        }
        let rings = self.rings.iter().flatten();
        rings.for_each(LaneRing::answer_drain);
    }

    /// First what is in flight ends, then the session; each has its limit.
    fn close_if_done(&mut self) -> Next {
        let in_flight = self.requests_in_flight();
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
        if in_flight == 0 || is_late {
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

/// A duration as the core counts time.
pub(super) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
