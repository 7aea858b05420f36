//! A lane: one thread that owns rings, an iSCSI session and everything in flight between them.
//!
//! All waiting is in [`Lane::run`], everything else runs to completion. A turn of the loop takes
//! what arrived on the connection, takes what the guest made available, sends all commands of
//! both in one go, and publishes and notifies once per ring.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::requests::{Completion, Failure, Requests};
use iscsi_core::error::SessionError;
use iscsi_core::pdu::async_message::AsyncEvent;
use iscsi_core::session::{Event, Received, RequestTag, Session};

use super::in_flight::InFlightTable;
use super::log_limit::LogLimit;
use super::mailbox::Mailbox;
use super::message::{Connection, LaneEvent, LaneReports, LossReason, Message, report};
use super::reactor::{Reactor, Ready, Token};
use super::ring::LaneRing;
use super::transport::{Sink, is_worth_placing};
use super::{DRAIN_LIMIT, LOGOUT_LIMIT, MAX_REQUESTS};
use crate::device::request::Status;
use crate::raw_io::VectorRoom;

/// How many receives a turn makes at most, of up to 256 KiB each: a target that sends faster than
/// we take it in must not keep the lane from everything else. What is left is reported again.
const MAX_RECEIVES: usize = 64;

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
    pub(super) now_ms: u64,
    pub(super) connection: Option<Connection>,
    pub(super) requests: Requests,
    pub(super) in_flight: InFlightTable,
    /// By the lane's own index; an empty place is reused.
    pub(super) rings: Vec<Option<LaneRing>>,
    /// Whose turn it is to be the first.
    pub(super) first_ring: usize,
    /// There was no end of requests: wait for nothing.
    pub(super) has_more: bool,
    room: VectorRoom,
    log_limit: LogLimit,
    closing: Option<Closing>,
}

/// The lane is to end.
struct Closing {
    deadline: Instant,
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
        Ok(Self {
            requests: Requests::new(config.facts.clone(), config.lun, MAX_REQUESTS),
            in_flight: InFlightTable::new(MAX_REQUESTS),
            config,
            mailbox,
            reactor,
            epoch: Instant::now(),
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
        let mut ready = Vec::new();
        loop {
            ready.clear();
            if let Err(error) = self.reactor.wait(self.timeout(), &mut ready) {
                log::error!(
                    "lane {}: cannot wait for events: {error}",
                    self.config.index
                );
                return;
            }
            self.now_ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
            for event in &ready {
                self.dispatch(event);
            }
            if self.turn() == Next::End {
                return self.leave_rings();
            }
        }
    }

    fn dispatch(&mut self, event: &Ready) {
        match event.token {
            Token::Mailbox => {
                self.mailbox.clear_wake();
                while let Some(message) = self.mailbox.take() {
                    self.handle(message);
                }
            }
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

    /// How long to wait at most.
    fn timeout(&self) -> Duration {
        if self.has_more {
            return Duration::ZERO;
        }
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
        let deadline = drain.chain(closing).min();
        let deadline = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        [core, deadline]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::from_secs(3600))
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Connected(connection) => self.connect(*connection),
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
                let _ = reply.send(self.give_up_rings());
            }
            Message::AdoptRing(ring) => self.adopt_ring(*ring),
            Message::Close => self.close(),
        }
    }

    // ---- the connection ----------------------------------------------------------------------

    /// Goes on with a new session: what was in flight is sent again, in order.
    fn connect(&mut self, mut connection: Connection) {
        self.drop_connection();
        connection.session.set_clock(self.now_ms);
        crate::pdu_log::trace_pdus(&mut connection.session);
        self.requests.set_facts(connection.facts.clone());
        let socket = connection.transport.socket();
        if let Err(error) = self.reactor.watch(socket, Token::Connection) {
            log::error!(
                "lane {}: cannot watch the connection: {error}",
                self.config.index
            );
            return self.report_loss(LossReason::Io(error));
        }
        self.connection = Some(connection);
        self.wake_rings();
        // What arrived together with the last answer of the probe.
        self.receive();
    }

    /// Lets go of the connection; the requests wait for the next one.
    fn drop_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.reactor.forget(connection.transport.socket());
        }
        self.in_flight.forget_pieces();
        self.requests.session_lost();
    }

    pub(super) fn lose(&mut self, reason: LossReason) {
        if self.connection.is_some() {
            self.drop_connection();
            self.release_sent();
            self.report_loss(reason);
        }
    }

    fn report_loss(&self, reason: LossReason) {
        if self.closing.is_none() {
            let lane = self.config.index;
            report(
                &self.config.reports,
                LaneEvent::SessionLost { lane, reason },
            );
        }
    }

    /// Takes what arrived, up to a limit: a target that never stops sending must not keep us from
    /// everything else. What is left wakes us again.
    fn receive(&mut self) {
        let now_ms = self.now_ms;
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let result = self.receive_all(&mut connection, now_ms);
        self.connection = Some(connection);
        if let Err(reason) = result {
            self.lose(reason);
        }
    }

    fn receive_all(&mut self, connection: &mut Connection, now_ms: u64) -> Result<(), LossReason> {
        let Connection {
            session, transport, ..
        } = connection;
        let mut drained = false;
        let mut receives = 0;
        loop {
            let (consumed, received) = session.receive(transport.input.bytes(), now_ms)?;
            transport.input.consume(consumed);
            let arrived = transport.input.bytes();
            match received {
                Received::Event(event) => self.handle_event(session, event, now_ms)?,
                Received::Payload(placement) if !arrived.is_empty() => {
                    let length = arrived.len().min(placement.length_bytes as usize);
                    let bytes = arrived.get(..length).unwrap_or_default();
                    self.place(placement.request, placement.offset_bytes, bytes)?;
                    session.placed(bytes);
                    transport.input.consume(length);
                }
                Received::Payload(placement) if !drained && is_worth_placing(&placement, 0) => {
                    let (placed_bytes, arrived) =
                        transport.receive_payload(&placement, &self.in_flight, &mut self.room)?;
                    session.placed_directly(placed_bytes, now_ms);
                    receives += 1;
                    drained = arrived.drained || receives >= MAX_RECEIVES;
                }
                Received::Payload(_) | Received::NeedBytes { .. } => {
                    if drained {
                        return Ok(());
                    }
                    let arrived = transport.receive(&mut self.room)?;
                    receives += 1;
                    drained = arrived.drained || receives >= MAX_RECEIVES;
                    if drained && transport.input.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn place(&mut self, request: RequestTag, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let buffers = self.in_flight.buffers(request);
        let copied = buffers.map(|buffers| buffers.copy_in(u64::from(offset), bytes));
        match copied {
            Some(Ok(())) => Ok(()),
            // The core places only within the data of a living request.
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Err(io::Error::other(
                "payload for a request that is not in flight",
            )),
        }
    }

    fn handle_event(
        &mut self,
        session: &mut Session,
        event: Event,
        now_ms: u64,
    ) -> Result<(), LossReason> {
        match event {
            Event::CommandDone { request, outcome } => {
                let completion = self.requests.command_done(request, &outcome, now_ms);
                self.complete(completion);
            }
            Event::CommandRejected { request, reason } => {
                let completion = self.requests.command_rejected(request, reason, now_ms);
                self.complete(completion);
            }
            Event::Async(event) => return self.handle_async(session, event),
            Event::LoggedOut { time2wait_s, .. } => {
                return Err(LossReason::LoggedOut { time2wait_s });
            }
            Event::Rejected(reason) => {
                log::warn!(
                    "lane {}: the target rejected a PDU: {reason}",
                    self.config.index
                );
            }
            Event::AbortDone { .. } => {}
        }
        Ok(())
    }

    fn handle_async(&self, session: &mut Session, event: AsyncEvent) -> Result<(), LossReason> {
        let lane = self.config.index;
        match event {
            // RFC 7143 section 11.9.1: on a renegotiation request one may log out instead.
            AsyncEvent::LogoutRequest { .. } | AsyncEvent::Renegotiate { .. } => {
                log::info!("lane {lane}: the target asks for a logout ({event:?})");
                session.log_out();
            }
            AsyncEvent::ConnectionDrop { time2wait_s }
            | AsyncEvent::SessionDrop { time2wait_s } => {
                return Err(LossReason::Dropped { time2wait_s });
            }
            AsyncEvent::TasksTerminated => return Err(LossReason::Dropped { time2wait_s: 0 }),
            AsyncEvent::Scsi => log::info!("lane {lane}: the target reports a SCSI event"),
            AsyncEvent::Vendor => log::debug!("lane {lane}: an event of the target's vendor"),
        }
        Ok(())
    }

    fn handle_timeouts(&mut self) {
        let now_ms = self.now_ms;
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Err(error) = connection.session.handle_timeout(now_ms) {
            self.lose(error.into());
        }
    }

    /// Submits and sends all that is due.
    fn send(&mut self) {
        let now_ms = self.now_ms;
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let result = self.send_all(&mut connection, now_ms);
        self.connection = Some(connection);
        self.release_sent();
        if let Err(error) = result {
            self.lose(LossReason::Io(error));
        }
    }

    fn send_all(&mut self, connection: &mut Connection, now_ms: u64) -> io::Result<()> {
        let Connection {
            session,
            transport,
            blocked,
            ..
        } = connection;
        self.requests.submit_to(session, now_ms);
        loop {
            let in_flight = &mut self.in_flight;
            session.transmit(&mut Sink {
                output: &mut transport.output,
                in_flight,
            });
            if transport.output.is_empty() || *blocked {
                break;
            }
            *blocked = !transport.send(&mut self.in_flight, &mut self.room)?;
        }
        connection.watch_writable(&self.reactor)
    }

    // ---- requests ----------------------------------------------------------------------------

    /// Ends a request towards the guest, or notes that it will be when its last piece has left.
    fn complete(&mut self, completion: Option<Completion>) {
        let Some(Completion { request, result }) = completion else {
            return;
        };
        let status = match result {
            Ok(()) => Status::Ok,
            Err(failure) => {
                self.log_failure(request, &failure);
                Status::IoErr
            }
        };
        self.finish(request, status);
    }

    fn log_failure(&mut self, request: RequestTag, failure: &Failure) {
        let lane = self.config.index;
        let Some(left_out) = self.log_limit.pass(self.now_ms) else {
            return;
        };
        if let Some(slot) = self.in_flight.get_mut(request) {
            let request = &slot.request;
            let first = request
                .ranges
                .first()
                .map_or(request.extent(), |range| range.extent);
            log::warn!(
                "lane {lane}: {:?} of {} bytes at sector {} failed: {failure}; the guest gets an \
                 I/O error{left_out}",
                request.kind,
                first.length_bytes,
                first.sector
            );
        }
    }

    pub(super) fn finish(&mut self, request: RequestTag, status: Status) {
        if self.in_flight.end(request, status) {
            self.give_back(request);
        }
    }

    /// Gives back what ended while pieces of it waited in the send queue.
    fn release_sent(&mut self) {
        while let Some(request) = self.in_flight.next_released() {
            self.give_back(request);
            // A ring may wait for this slot, and nobody kicks for it.
            self.has_more = true;
        }
    }

    /// Puts a request into the used ring and frees its slot.
    fn give_back(&mut self, request: RequestTag) {
        let Some(slot) = self.in_flight.get_mut(request) else {
            return;
        };
        let status = slot.ended.take().unwrap_or(Status::IoErr);
        let head = slot.request.head;
        let length_bytes = slot.request.complete(status);
        if let Some(Some(ring)) = self.rings.get_mut(slot.ring) {
            ring.push_used(head, length_bytes);
        }
        self.requests.release(request);
    }

    // ---- the end -----------------------------------------------------------------------------

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

impl From<SessionError> for LossReason {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<io::Error> for LossReason {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
