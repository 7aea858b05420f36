//! A lane and its connection: what arrives, what is sent, and what happens when it is lost.

use std::io;

use iscsi_core::disk::requests::AbortRefused;
use iscsi_core::error::SessionError;
use iscsi_core::limits::RECONCILE_MS;
use iscsi_core::pdu::async_message::AsyncEvent;
use iscsi_core::pdu::task_management::FunctionResponse;
use iscsi_core::session::{Event, Outcome, Placement, Received, RequestTag, Session, Timeouts};

use super::coalescing::Coalescing;
use super::inspection::is_inspection;
use super::lane::{Lane, in_ms};
use super::message::{Connection, LaneEvent, LossReason, SessionNumber, report};
use super::reactor::Token;
use super::transport::{Arrived, Sink, is_memory_lost, is_worth_placing};
use super::unit::UnitId;
use crate::device::request::Status;
use crate::guest_memory::{GuestBuffers, GuestMemoryError};

/// How many receives a turn makes at most, of up to 256 KiB each: a target that sends faster than
/// we take it in must not keep the lane from everything else. What is left is reported again.
const MAX_RECEIVES: usize = 64;

/// How many bytes a turn receives, about, once a command has ended in it: what is complete goes to
/// the guest, and its next requests to the target, before more is taken in.
const MAX_TURN_BYTES: usize = 256 * 1024;

impl Lane {
    /// Goes on with a new session: what was in flight is sent again, in order, of each disk that it is
    /// known to lead to.
    pub(super) fn connect(&mut self, mut connection: Box<Connection>, admitted: Option<UnitId>) {
        // The target has ended what was in flight on it, when it took the login.
        self.forget_connection();
        let session = &mut connection.session;
        session.set_clock(self.now_ms);
        session.set_command_timeout_ms(self.config.command_timeout.map(in_ms));
        session.set_resets_after_abort(self.config.lun_reset);
        self.coalescing = Coalescing::new(self.now);
        let socket = connection.transport.socket();
        if let Err(error) = self.reactor.watch(socket, Token::Connection) {
            log::error!(
                "lane {}: cannot watch the connection: {error}",
                self.config.index
            );
            return self.report_loss(LossReason::Io(error));
        }
        self.connection = Some(connection);
        self.session_number = SessionNumber::next();
        self.admit_only(admitted);
        self.wake_rings();
        // What arrived together with the last answer of the probe.
        self.receive();
    }

    /// Lets go of the connection; the requests wait for the next one. The target may still carry out
    /// what was sent on this one, so the other lanes have to wait, too.
    pub(super) fn drop_connection(&mut self) {
        let connection = self.connection.as_ref();
        if connection.is_some_and(|c| c.session.tasks_in_flight() > 0) {
            self.config.barrier.raise(self.config.index);
        }
        self.forget_connection();
    }

    fn forget_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.reactor.forget(connection.transport.socket());
        }
        self.in_flight.forget_pieces();
        for unit in self.units.iter_mut().flatten() {
            unit.requests.session_lost();
        }
        self.inspectors.session_lost();
    }

    pub(super) fn lose(&mut self, reason: LossReason) {
        if self.connection.is_some() {
            match reason {
                // RFC 7143 section 11.15.1: the session is closed, and all of its tasks with it.
                LossReason::LoggedOut { .. } => self.forget_connection(),
                _ => self.drop_connection(),
            }
            self.release_sent();
            self.report_loss(reason);
        }
    }

    fn report_loss(&self, reason: LossReason) {
        if self.closing.is_none() {
            for unit in self.units.iter().flatten() {
                unit.config.stats.sessions_lost.add(1);
            }
            let lane = self.config.index;
            report(
                &self.config.reports,
                LaneEvent::SessionLost { lane, reason },
            );
        }
    }

    /// Takes what arrived, up to a limit: a target that never stops sending must not keep us from
    /// everything else. What is left wakes us again. Returns how many bytes came.
    pub(super) fn receive(&mut self) -> u64 {
        let now_ms = self.now_ms;
        let Some(mut connection) = self.connection.take() else {
            return 0;
        };
        let before_bytes = connection.transport.received_bytes();
        let result = self.receive_all(&mut connection, now_ms);
        let received_bytes = connection.transport.received_bytes() - before_bytes;
        self.coalescing.received(received_bytes, self.now);
        self.connection = Some(connection);
        if let Err(reason) = result {
            self.lose(reason);
        }
        received_bytes
    }

    fn receive_all(&mut self, connection: &mut Connection, now_ms: u64) -> Result<(), LossReason> {
        let Connection {
            session, transport, ..
        } = connection;
        let mut drained = false;
        let mut left = Left::default();
        loop {
            let (consumed, received) = session.receive(transport.input.bytes(), now_ms)?;
            transport.input.consume(consumed);
            let arrived = transport.input.bytes();
            match received {
                Received::Event(event) => {
                    left.has_completed |= matches!(event, Event::CommandDone { .. });
                    self.handle_event(session, event, now_ms)?;
                }
                Received::Payload(placement) if !arrived.is_empty() => {
                    let length = arrived.len().min(placement.length_bytes as usize);
                    let bytes = arrived.get(..length).unwrap_or_default();
                    self.place(placement.request, placement.offset_bytes, bytes)?;
                    session.placed(bytes);
                    transport.input.consume(length);
                    if is_worth_placing(&placement) {
                        // Too late for the start of this one.
                        transport.expect_payload();
                    }
                }
                Received::Payload(placement)
                    if !drained && is_worth_placing(&placement) && self.has_room(&placement) =>
                {
                    let received =
                        transport.receive_payload(&placement, &self.in_flight, &mut self.room);
                    if received.as_ref().is_err_and(is_memory_lost) {
                        self.report_loss_of_memory(placement.request);
                        continue;
                    }
                    let (placed_bytes, arrived) = received?;
                    session.placed_directly(placed_bytes, now_ms);
                    drained = left.is_used_up_by(arrived);
                }
                Received::Payload(_) | Received::NeedBytes { .. } => {
                    if drained {
                        return Ok(());
                    }
                    let arrived = transport.receive(&mut self.room)?;
                    drained = left.is_used_up_by(arrived);
                    if drained && transport.input.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Puts payload where it belongs; into the void when that is gone.
    fn place(&mut self, request: RequestTag, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let buffers = self.in_flight.buffers(request);
        let copied = buffers.map(|buffers| buffers.copy_in(u64::from(offset), bytes));
        match copied {
            Some(Ok(()) | Err(GuestMemoryError::Lost)) => Ok(()),
            // The core places only within the data of a living request.
            Some(Err(error)) => Err(io::Error::other(error)),
            None if is_inspection(request) => {
                self.inspectors.place(request, offset, bytes);
                Ok(())
            }
            None => Err(io::Error::other(
                "payload for a request that is not in flight",
            )),
        }
    }

    /// Whether there is guest memory for the payload.
    fn has_room(&self, placement: &Placement) -> bool {
        let buffers = self.in_flight.buffers(placement.request);
        buffers.is_some_and(|buffers| !buffers.is_lost())
    }

    fn report_loss_of_memory(&self, request: RequestTag) {
        if let Some(buffers) = self.in_flight.buffers(request) {
            buffers.report_loss();
        }
    }

    /// Data that was to be sent is gone, perhaps in the middle of a PDU: this connection cannot go
    /// on. Once only, for what is in flight of that front-end ends with it, whose connection ends, too.
    /// The target forgets it as in `give_up_requests`.
    fn give_up_lost_writes(&mut self) {
        let lost = self.units_without_memory();
        self.lose(LossReason::MemoryLost);
        for id in lost {
            for tag in self.in_flight.tags(id) {
                let unit = self.unit(id);
                if unit.is_some_and(|unit| unit.requests.abandon(tag)) {
                    self.finish(tag, Status::IoErr);
                }
            }
        }
    }

    /// Whose memory is gone, with that reported. The system does not say: of several disks it is those
    /// whose data cannot be read. To read it finds that out.
    fn units_without_memory(&self) -> Vec<UnitId> {
        let present = |id: &UnitId| matches!(self.units.get(id.0), Some(Some(_)));
        let units: Vec<_> = self.unit_ids().filter(present).collect();
        let buffers = |id: UnitId| {
            let tags = self.in_flight.tags(id);
            tags.filter_map(|tag| self.in_flight.buffers(tag))
        };
        let is_lost = |id: &UnitId| buffers(*id).any(GuestBuffers::is_lost_when_read);
        let mut lost: Vec<_> = units.iter().copied().filter(is_lost).collect();
        if units.len() == 1 || lost.is_empty() {
            lost = units;
        }
        for id in &lost {
            buffers(*id).for_each(GuestBuffers::report_loss);
        }
        lost
    }

    fn handle_event(
        &mut self,
        session: &mut Session,
        event: Event,
        now_ms: u64,
    ) -> Result<(), LossReason> {
        match event {
            Event::CommandDone { request, outcome } => {
                let told = if is_inspection(request) {
                    self.inspection_answered(request, &outcome)
                } else {
                    self.request_answered(request, &outcome)
                };
                if let Some(told) = told {
                    self.report_news(session, told);
                }
            }
            Event::CommandRejected { request, .. } if is_inspection(request) => {
                self.count_reject();
                self.inspection_dropped(request);
            }
            Event::CommandRejected { request, reason } => {
                if let Some(unit) = self.unit_of(request) {
                    unit.config.stats.rejects.add(1);
                    let completion = unit.requests.command_rejected(request, reason, now_ms);
                    self.complete(completion);
                }
            }
            Event::Async(event) => return self.handle_async(session, event),
            Event::LoggedOut {
                response: 0,
                time2wait_s,
            } => return Err(LossReason::LoggedOut { time2wait_s }),
            Event::LoggedOut { time2wait_s, .. } => {
                return Err(LossReason::Dropped { time2wait_s });
            }
            Event::Rejected(reason) => {
                self.count_reject();
                if let Some(left_out) = self.unasked_limit.pass(self.now_ms) {
                    log::warn!(
                        "lane {}: the target rejected a PDU: {reason}{left_out}",
                        self.config.index
                    );
                }
            }
            Event::AbortDone { request, response }
                if is_inspection(request) && response.is_over() =>
            {
                self.inspection_dropped(request);
            }
            Event::AbortDone { request, response } => {
                return self.abort_done(session, request, response);
            }
            Event::ResetDone { response } => {
                self.report_tasks_cleared();
                return Err(LossReason::LunReset(response));
            }
        }
        Ok(())
    }

    fn abort_done(
        &mut self,
        session: &Session,
        request: RequestTag,
        response: FunctionResponse,
    ) -> Result<(), LossReason> {
        let now_ms = self.now_ms;
        let refused = match self.unit_of(request) {
            Some(unit) => match unit.requests.command_aborted(request, response, now_ms) {
                Ok(completion) => {
                    unit.config.stats.commands_aborted.add(1);
                    self.complete(completion);
                    return Ok(());
                }
                Err(refused) => refused,
            },
            // A look at a LUN, which may still run.
            None => AbortRefused(response),
        };
        if session.is_resetting() {
            // What follows is the answer to the reset.
            self.log_reset(&refused);
            return Ok(());
        }
        Err(LossReason::AbortRefused(refused))
    }

    /// Returns whose it was.
    fn request_answered(&mut self, request: RequestTag, outcome: &Outcome) -> Option<UnitId> {
        let now_ms = self.now_ms;
        let unit = self.unit_of(request)?;
        let completion = unit.requests.command_done(request, outcome, now_ms);
        self.complete(completion);
        Some(UnitId::of(request))
    }

    /// What an answer has told a disk of more than its own command.
    fn report_news(&mut self, session: &mut Session, told: UnitId) {
        let lane = self.config.index;
        let Some(unit) = self.unit(told) else { return };
        if unit.requests.take_facts_outdated() {
            unit.report_facts_outdated(lane);
        }
        if unit.requests.take_tasks_cleared() {
            session.expect_answers_by(self.now_ms + RECONCILE_MS);
            self.report_tasks_cleared();
        }
    }

    /// The other sessions of the target have to know: which of them is told is the target's affair.
    fn report_tasks_cleared(&self) {
        report(&self.config.reports, LaneEvent::TasksCleared);
    }

    /// A PDU that was no request's: it is counted for each disk that has the session.
    fn count_reject(&self) {
        for unit in self.units.iter().flatten() {
            unit.config.stats.rejects.add(1);
        }
    }

    /// What is in flight may have been ended without an answer: what is not answered soon is asked
    /// after.
    pub(super) fn reconcile(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection
                .session
                .expect_answers_by(self.now_ms + RECONCILE_MS);
        }
    }

    fn handle_async(&mut self, session: &mut Session, event: AsyncEvent) -> Result<(), LossReason> {
        let lane = self.config.index;
        match event {
            // RFC 7143 section 11.9.1: on a renegotiation request one may log out instead.
            AsyncEvent::LogoutRequest { .. } | AsyncEvent::Renegotiate { .. } => {
                if let Some(left_out) = self.unasked_limit.pass(self.now_ms) {
                    log::info!("lane {lane}: the target asks for a logout ({event:?}){left_out}");
                }
                session.log_out();
            }
            AsyncEvent::ConnectionDrop { time2wait_s }
            | AsyncEvent::SessionDrop { time2wait_s } => {
                return Err(LossReason::Dropped { time2wait_s });
            }
            AsyncEvent::TasksTerminated => return Err(LossReason::Dropped { time2wait_s: 0 }),
            AsyncEvent::Scsi => {
                if let Some(left_out) = self.unasked_limit.pass(self.now_ms) {
                    log::info!("lane {lane}: the target reports a SCSI event{left_out}");
                }
            }
            AsyncEvent::Vendor => log::debug!("lane {lane}: an event of the target's vendor"),
        }
        Ok(())
    }

    pub(super) fn handle_timeouts(&mut self) {
        let now_ms = self.now_ms;
        self.look_at_slow_link();
        let Some(connection) = &mut self.connection else {
            return;
        };
        match connection.session.handle_timeout(now_ms) {
            Ok(timeouts) => self.log_timeouts(timeouts),
            Err(error) => self.lose(error.into()),
        }
        self.look_at_slow_link();
    }

    /// A ping waits behind all that was sent before it. As long as the target's end takes that in, the
    /// link is slow and not silent: were the session dropped, all of it would be sent once more, and
    /// again and again.
    fn look_at_slow_link(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if !connection.session.is_pinging() {
            connection.sending = None;
            return;
        }
        let Ok(sending) = connection.transport.sending() else {
            return;
        };
        let former = connection.sending.replace(sending);
        if former.is_some_and(|former| sending.has_moved_since(former)) {
            connection.session.still_sending(self.now_ms);
        }
    }

    fn log_timeouts(&mut self, timeouts: Timeouts) {
        let lane = self.config.index;
        let timed_out = u64::from(timeouts.timed_out);
        for unit in self.units.iter().flatten() {
            unit.config.stats.commands_timed_out.add(timed_out);
        }
        if timeouts.timed_out > 0
            && let Some(left_out) = self.log_limit.pass(self.now_ms)
        {
            log::warn!(
                "lane {lane}: {} commands are not answered in time; the target is asked to end them, \
                 then they are sent again{left_out}",
                timeouts.timed_out
            );
        }
        if timeouts.resetting {
            self.log_reset(&"the target does not answer an ABORT TASK");
        }
    }

    fn log_reset(&self, reason: &dyn std::fmt::Display) {
        let lane = self.config.index;
        log::warn!("lane {lane}: {reason}: resetting the LUN");
    }

    /// Submits and sends all that is due.
    pub(super) fn send(&mut self) {
        let now_ms = self.now_ms;
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let result = self.send_all(&mut connection, now_ms);
        self.connection = Some(connection);
        self.release_sent();
        match result {
            Ok(()) => {}
            Err(error) if is_memory_lost(&error) => self.give_up_lost_writes(),
            Err(error) => self.lose(LossReason::Io(error)),
        }
    }

    fn send_all(&mut self, connection: &mut Connection, now_ms: u64) -> io::Result<()> {
        let Connection {
            session,
            transport,
            blocked,
            ..
        } = connection;
        self.first_unit = (self.first_unit + 1)
            .checked_rem(self.units.len())
            .unwrap_or(0);
        let (later, first) = self.units.split_at_mut(self.first_unit);
        let units = first.iter_mut().chain(later).flatten();
        for unit in units.filter(|unit| unit.is_admitted) {
            unit.requests.submit_to(session, now_ms);
        }
        if !self.config.barrier.is_raised() {
            self.inspectors
                .submit_to(session, self.session_number, now_ms);
        }
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
}

/// What a turn may still receive.
struct Left {
    receives: usize,
    length_bytes: usize,
    /// There is something for the guest.
    has_completed: bool,
}

impl Default for Left {
    fn default() -> Self {
        Self {
            receives: MAX_RECEIVES,
            length_bytes: MAX_TURN_BYTES,
            has_completed: false,
        }
    }
}

impl Left {
    /// Whether no further receive is to be made after this one.
    fn is_used_up_by(&mut self, arrived: Arrived) -> bool {
        self.receives = self.receives.saturating_sub(1);
        self.length_bytes = self.length_bytes.saturating_sub(arrived.length_bytes);
        let is_long = self.has_completed && self.length_bytes == 0;
        arrived.drained || self.receives == 0 || is_long
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
