//! A lane of the back-end as far as the core sees it: one session, its requests, their buffers.
//!
//! This mirrors `backend/src/engine/{link,intake,completion,in_flight}.rs`: a request is admitted
//! only when the session takes a command, its slot is given back when its last piece has left, and
//! after the loss of a session everything in flight is sent again on the next one.

use std::collections::VecDeque;
use std::sync::Arc;

use iscsi_core::crc32c::Crc32c;
use iscsi_core::disk::request::{BlockOperation, Extent};
use iscsi_core::disk::requests::{Admitted, Completion, Failure as RequestFailure, Requests};
use iscsi_core::disk::shared::SharedDisk;
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::pdu::async_message::AsyncEvent;
use iscsi_core::session::{Event, Placement, Received, RequestTag, Session, Transmit};

use crate::Failure;
use crate::faults::{Chaos, Fault};
use crate::settings::Settings;
use crate::wire::Link;

/// The sink takes another PDU while fewer bytes than this wait in it.
const OUTPUT_ROOM_BYTES: usize = 16 * 1024;
/// What a read finds in its buffer before: nobody's data.
const POISON: u8 = 0xa5;

/// A request that the guest sees ended.
#[derive(Debug)]
pub struct Ended {
    /// Its number.
    pub owner: u64,
    /// Whether it succeeded.
    pub is_good: bool,
    /// Its buffer.
    pub buffer: Vec<u8>,
}

/// A request that a killed process had in flight.
#[derive(Debug)]
pub struct LeftOver {
    /// Its number.
    pub owner: u64,
    /// What the guest asked for.
    pub operation: BlockOperation,
    /// Where.
    pub extents: Vec<Extent>,
    /// What a write writes.
    pub data: Vec<u8>,
}

/// One lane.
#[derive(Debug)]
pub struct Lane {
    index: usize,
    shared: Arc<SharedDisk>,
    requests: Requests,
    slots: Vec<Slot>,
    connection: Option<Connection>,
    /// When the next login is tried.
    pub login_at_ms: u64,
    /// How many sessions were lost.
    pub lost: u64,
    /// How many commands were late.
    pub timed_out: u64,
    /// How many of them because tasks had been cleared.
    pub reconciled: u64,
    /// How many requests the owner had no more patience for.
    pub worn_out: u64,
    /// How many failed because there was no session for too long.
    pub given_up: u64,
    command_timeout_ms: u64,
    resets_after_abort: bool,
    reconcile_at_ms: Option<u64>,
    ended: Vec<Ended>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The guest's request in this slot.
    owner: Option<u64>,
    /// What it asked for.
    asked: Option<(BlockOperation, Vec<Extent>)>,
    buffer: Vec<u8>,
    queued_pieces: u32,
    /// How it ended, when pieces of it still wait to be sent.
    result: Option<bool>,
}

#[derive(Debug)]
struct Connection {
    session: Session,
    input: Vec<u8>,
    output: VecDeque<Piece>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Payload {
        request: RequestTag,
        offset: usize,
        length: usize,
    },
}

/// Why a turn ended before its time.
enum Stop {
    /// The session is lost, for this reason.
    Lost(String),
    /// The core broke a promise.
    Broken(Failure),
}

impl Lane {
    /// A lane without a session.
    pub fn new(index: usize, settings: &Settings, shared: Arc<SharedDisk>) -> Self {
        Self {
            index,
            requests: requests(settings, &shared),
            shared,
            slots: (0..settings.depth).map(|_| Slot::default()).collect(),
            connection: None,
            login_at_ms: 0,
            lost: 0,
            timed_out: 0,
            reconciled: 0,
            worn_out: 0,
            given_up: 0,
            command_timeout_ms: settings.command_timeout_ms,
            resets_after_abort: settings.resets_after_abort,
            reconcile_at_ms: None,
            ended: Vec::new(),
        }
    }

    /// Whether there is a session.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// What ended since the last time.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// The process is killed: what it had in flight, for the next one, which knows nothing else.
    pub fn kill(&mut self, settings: &Settings, shared: &Arc<SharedDisk>) -> Vec<LeftOver> {
        self.connection = None;
        self.shared = Arc::clone(shared);
        self.requests = requests(settings, shared);
        self.reconcile_at_ms = None;
        let slots = self.slots.iter_mut().map(std::mem::take);
        let left_over = slots.filter_map(|slot| {
            let (operation, extents) = slot.asked?;
            Some(LeftOver {
                owner: slot.owner?,
                operation,
                extents,
                data: slot.buffer,
            })
        });
        left_over.collect()
    }

    /// Storage has been away for long enough: everything fails that can.
    pub fn give_up(&mut self, chaos: &mut Chaos) -> Result<(), Failure> {
        for index in 0..self.slots.len() {
            let tag = RequestTag(index as u32);
            if self.requests.abandon(tag) {
                chaos.tell(|| format!("lane {}: {tag:?} is given up", self.index));
                self.given_up += 1;
                self.finish(tag, false)?;
            }
        }
        Ok(())
    }

    /// Goes on with a new session: the login has ended whatever was left of the old one.
    pub fn connect(&mut self, negotiated: Negotiated, now_ms: u64) {
        self.shared.barrier.lower(self.index);
        // Its clock starts elsewhere, as that of a login does.
        let mut session = Session::new(negotiated, crc32c::crc32c_append, 0);
        session.set_clock(now_ms);
        session.set_command_timeout_ms(Some(self.command_timeout_ms));
        session.set_resets_after_abort(self.resets_after_abort);
        self.connection = Some(Connection {
            session,
            input: Vec::new(),
            output: VecDeque::new(),
        });
    }

    /// Whether the target has told since the last time that tasks may have been ended.
    pub fn take_tasks_cleared(&mut self) -> bool {
        self.requests.take_tasks_cleared()
    }

    /// What is in flight now has to be answered by then.
    pub fn expect_answers_by(&mut self, at_ms: u64) {
        if let Some(connection) = &mut self.connection {
            connection.session.expect_answers_by(at_ms);
            self.reconcile_at_ms = Some(at_ms);
        }
    }

    /// Whether another request could be sent at once.
    pub fn has_room(&mut self, now_ms: u64) -> bool {
        if self.shared.barrier.is_raised() {
            return false;
        }
        let Some(connection) = &mut self.connection else {
            return false;
        };
        if self.requests.has_backlog() {
            self.requests.submit_to(&mut connection.session, now_ms);
        }
        let is_open = !self.requests.has_backlog() && connection.session.can_submit().is_ok();
        is_open && self.requests.next_free().is_some()
    }

    /// Takes request `owner` in; `data` is what a write writes.
    pub fn admit(
        &mut self,
        owner: u64,
        operation: BlockOperation,
        extents: &[Extent],
        data: Vec<u8>,
    ) -> Result<(), Failure> {
        let Some(tag) = self.requests.next_free() else {
            return Err(String::from("the table is full, though there was room"));
        };
        let slot = &mut self.slots[tag.0 as usize];
        if let Some(other) = slot.owner {
            return Err(format!("the slot of request {other} was given away"));
        }
        slot.owner = Some(owner);
        slot.asked = Some((operation, extents.to_vec()));
        slot.buffer = match operation {
            BlockOperation::Read => vec![POISON; length_of(extents)],
            _ => data,
        };
        match self.requests.admit(operation, extents.iter().copied()) {
            Ok(Admitted::InFlight) => Ok(()),
            Ok(Admitted::Done) => self.finish(tag, true),
            other => Err(format!("request {owner} was not taken in: {other:?}")),
        }
    }

    /// Whatever there is to do: what arrived, what is due, what is to be sent.
    pub fn turn(
        &mut self,
        link: &mut Option<Link>,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<bool, Failure> {
        let (Some(mut connection), Some(wire)) = (self.connection.take(), link.as_mut()) else {
            return Ok(false);
        };
        let result = self.live(&mut connection, wire, now_ms, chaos);
        self.connection = Some(connection);
        match result {
            Ok(came) => Ok(came),
            Err(Stop::Broken(failure)) => Err(failure),
            Err(Stop::Lost(reason)) => {
                chaos.tell(|| format!("{now_ms} lane {}: session lost: {reason}", self.index));
                self.lose(now_ms, chaos)?;
                *link = None;
                Ok(true)
            }
        }
    }

    /// When something is due by the passing of time alone.
    pub fn next_ms(&self) -> Option<u64> {
        let Some(connection) = &self.connection else {
            return Some(self.login_at_ms);
        };
        let session_ms = connection.session.next_timeout_ms();
        let requests_ms = self.requests.next_timeout_ms();
        Some(requests_ms.map_or(session_ms, |at_ms| at_ms.min(session_ms)))
    }

    fn live(
        &mut self,
        connection: &mut Connection,
        link: &mut Link,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<bool, Stop> {
        let mut came = self.receive(connection, link, now_ms, chaos)?;
        if link.is_cut {
            return Err(Stop::Lost(String::from("closed")));
        }
        let timeouts = connection.session.handle_timeout(now_ms);
        let timeouts = timeouts.map_err(|error| Stop::Lost(error.to_string()))?;
        self.count_late(timeouts.timed_out, now_ms);
        self.abort(connection, chaos);
        came |= self.send(connection, link, now_ms, chaos);
        Ok(came)
    }

    fn count_late(&mut self, timed_out: u32, now_ms: u64) {
        self.timed_out += u64::from(timed_out);
        let is_reconciling = self.reconcile_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if is_reconciling {
            self.reconcile_at_ms = None;
            self.reconciled += u64::from(timed_out);
        }
    }

    fn receive(
        &mut self,
        connection: &mut Connection,
        link: &mut Link,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<bool, Stop> {
        let mut came = false;
        loop {
            let (consumed, received) = connection
                .session
                .receive(&connection.input, now_ms)
                .map_err(|error| Stop::Lost(error.to_string()))?;
            connection.input.drain(..consumed);
            match received {
                Received::Event(event) => self.event(connection, event, now_ms, chaos)?,
                Received::Payload(placement) if !connection.input.is_empty() => {
                    self.place(connection, &placement, now_ms, chaos)?;
                }
                Received::Payload(_) | Received::NeedBytes { .. } => {
                    let Some(bytes) = link.take_down(now_ms, chaos) else {
                        return Ok(came);
                    };
                    came = true;
                    connection.input.extend(bytes);
                }
            }
        }
    }

    fn place(
        &mut self,
        connection: &mut Connection,
        placement: &Placement,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Stop> {
        let length = connection.input.len().min(placement.length_bytes as usize);
        let bytes: Vec<u8> = connection.input.drain(..length).collect();
        let start = placement.offset_bytes as usize;
        let slot = self.slots.get_mut(placement.request.0 as usize);
        let place = slot
            .filter(|slot| slot.owner.is_some() && slot.result.is_none())
            .and_then(|slot| slot.buffer.get_mut(start..start + length));
        let Some(place) = place else {
            return Err(Stop::Broken(format!(
                "bytes for a buffer that is not there: {placement:?}"
            )));
        };
        place.copy_from_slice(&bytes);
        if placement.may_be_direct && chaos.rng.chance(50) {
            connection.session.placed_directly(length, now_ms);
        } else {
            connection.session.placed(&bytes);
        }
        Ok(())
    }

    fn event(
        &mut self,
        connection: &mut Connection,
        event: Event,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Stop> {
        chaos.tell(|| format!("{now_ms} lane {}: {event:?}", self.index));
        match event {
            Event::CommandDone { request, outcome } => {
                let completion = self.requests.command_done(request, &outcome, now_ms);
                self.complete(completion)
            }
            Event::CommandRejected { request, reason } => {
                let completion = self.requests.command_rejected(request, reason, now_ms);
                self.complete(completion)
            }
            Event::AbortDone { request, response } => {
                match self.requests.command_aborted(request, response, now_ms) {
                    Ok(completion) => self.complete(completion),
                    Err(_) if connection.session.is_resetting() => Ok(()),
                    Err(refused) => Err(Stop::Lost(refused.to_string())),
                }
            }
            Event::Async(AsyncEvent::LogoutRequest { .. }) => {
                connection.session.log_out();
                Ok(())
            }
            Event::Async(AsyncEvent::ConnectionDrop { .. })
            | Event::LoggedOut { .. }
            | Event::ResetDone { .. } => Err(Stop::Lost(format!("{event:?}"))),
            Event::Async(_) | Event::Rejected(_) => {
                Err(Stop::Broken(format!("nobody caused {event:?}")))
            }
        }
    }

    fn complete(&mut self, completion: Option<Completion>) -> Result<(), Stop> {
        let Some(Completion { request, result }) = completion else {
            return Ok(());
        };
        if let Err(RequestFailure::OutOfPatience { .. }) = result {
            self.worn_out += 1;
        }
        self.finish(request, result.is_ok()).map_err(Stop::Broken)
    }

    /// Ends a request, now or when its last piece has left.
    fn finish(&mut self, request: RequestTag, is_good: bool) -> Result<(), Failure> {
        let Some(slot) = self.slots.get_mut(request.0 as usize) else {
            return Err(format!("{request:?} is no slot"));
        };
        if slot.owner.is_none() || slot.result.is_some() {
            return Err(format!("{request:?} ended, which is not in flight"));
        }
        slot.result = Some(is_good);
        self.give_back(request);
        Ok(())
    }

    fn give_back(&mut self, request: RequestTag) {
        let slot = &mut self.slots[request.0 as usize];
        if slot.queued_pieces == 0
            && let Some(is_good) = slot.result.take()
            && let Some(owner) = slot.owner.take()
        {
            let buffer = std::mem::take(&mut slot.buffer);
            self.ended.push(Ended {
                owner,
                is_good,
                buffer,
            });
            self.requests.release(request);
        }
    }

    /// Aborts, now and then, what is not late.
    fn abort(&mut self, connection: &mut Connection, chaos: &mut Chaos) {
        if !chaos.rolls(Fault::Abort) {
            return;
        }
        let live = (0u32..).zip(&self.slots);
        for (index, _) in live.filter(|(_, slot)| slot.owner.is_some()) {
            if connection.session.abort(RequestTag(index)) > 0 {
                chaos.count(Fault::Abort);
                return;
            }
        }
    }

    fn send(
        &mut self,
        connection: &mut Connection,
        link: &mut Link,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> bool {
        let Connection {
            session, output, ..
        } = connection;
        self.requests.submit_to(session, now_ms);
        let mut came = false;
        loop {
            let waiting_bytes = output.iter().map(Piece::length).sum();
            session.transmit(&mut Sink {
                output,
                slots: &mut self.slots,
                waiting_bytes,
            });
            let is_slow = !output.is_empty() && chaos.fires(Fault::SlowSocket);
            let most = if is_slow {
                chaos.rng.index(2_000)
            } else {
                usize::MAX
            };
            let bytes = self.take_output(output, most);
            if bytes.is_empty() {
                return came;
            }
            came = true;
            link.send_up(bytes, now_ms, chaos);
            if is_slow {
                return came;
            }
        }
    }

    /// The first `most` bytes that wait; payload is read only now.
    fn take_output(&mut self, output: &mut VecDeque<Piece>, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < most
            && let Some(piece) = output.front_mut()
        {
            let room = most - bytes.len();
            match piece {
                Piece::Bytes(waiting) if waiting.len() > room => {
                    bytes.extend(waiting.drain(..room));
                }
                Piece::Bytes(waiting) => {
                    bytes.append(waiting);
                    output.pop_front();
                }
                Piece::Payload {
                    request,
                    offset,
                    length,
                } => {
                    let request = *request;
                    let part = room.min(*length);
                    let slot = &mut self.slots[request.0 as usize];
                    bytes.extend(&slot.buffer[*offset..*offset + part]);
                    (*offset, *length) = (*offset + part, *length - part);
                    if *length == 0 {
                        output.pop_front();
                        slot.queued_pieces -= 1;
                        self.give_back(request);
                    }
                }
            }
        }
        bytes
    }

    fn lose(&mut self, now_ms: u64, chaos: &mut Chaos) -> Result<(), Failure> {
        let connection = self.connection.take();
        if connection.is_some_and(|connection| connection.session.tasks_in_flight() > 0) {
            self.shared.barrier.raise(self.index);
        }
        self.lost += 1;
        self.login_at_ms = now_ms + chaos.rng.below(100);
        self.requests.session_lost();
        for index in 0..self.slots.len() {
            self.slots[index].queued_pieces = 0;
            self.give_back(RequestTag(index as u32));
        }
        let live = self.slots.iter().filter(|slot| slot.owner.is_some());
        let live = live.count();
        if live == self.requests.in_flight() {
            return Ok(());
        }
        Err(format!(
            "{live} requests are in flight, the core has {}",
            self.requests.in_flight()
        ))
    }
}

fn requests(settings: &Settings, shared: &Arc<SharedDisk>) -> Requests {
    let shared = Arc::clone(shared);
    let mut requests = Requests::new(settings.facts.clone(), 0, settings.depth, shared);
    requests.set_patience_ms(settings.patience_ms);
    requests
}

fn length_of(extents: &[Extent]) -> usize {
    extents
        .iter()
        .map(|extent| extent.length_bytes as usize)
        .sum()
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Payload { length, .. } => *length,
        }
    }
}

struct Sink<'a> {
    output: &'a mut VecDeque<Piece>,
    slots: &'a mut [Slot],
    waiting_bytes: usize,
}

impl Sink<'_> {
    fn push(&mut self, piece: Piece) {
        self.waiting_bytes += piece.length();
        self.output.push_back(piece);
    }
}

impl Transmit for Sink<'_> {
    fn has_room(&self) -> bool {
        self.waiting_bytes < OUTPUT_ROOM_BYTES
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.push(Piece::Bytes(bytes.to_vec()));
    }

    fn zeros(&mut self, length_bytes: u32) {
        self.push(Piece::Bytes(vec![0; length_bytes as usize]));
    }

    fn payload(&mut self, request: RequestTag, offset_bytes: u32, length_bytes: u32) {
        self.slots[request.0 as usize].queued_pieces += 1;
        self.push(Piece::Payload {
            request,
            offset: offset_bytes as usize,
            length: length_bytes as usize,
        });
    }

    fn payload_with_digest(
        &mut self,
        request: RequestTag,
        offset_bytes: u32,
        length_bytes: u32,
        crc32c: Crc32c,
    ) -> u32 {
        let start = offset_bytes as usize;
        let slot = &self.slots[request.0 as usize];
        let bytes = slot.buffer[start..start + length_bytes as usize].to_vec();
        let crc = crc32c(0, &bytes);
        self.push(Piece::Bytes(bytes));
        crc
    }
}
