//! From rings to requests: how a lane starts, serves and gives back its rings.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use iscsi_core::disk::requests::Admitted;
use iscsi_core::error::SubmitError;
use iscsi_core::session::RequestTag;

use super::lane::Lane;
use super::message::LossReason;
use super::reactor::Token;
use super::ring::{LaneRing, Popped};
use super::stats::Hold;
use super::unit::UnitId;
use crate::device::request::{ParsedRequest, Status};
use crate::device::rings::RingSetup;

/// How many requests one ring may bring in before the next one has its turn.
const FAIR_SHARE: usize = 32;

/// How many shares each ring gets before the lane looks at its messages and its connection again:
/// a guest that refills its rings while they are emptied must not keep it from stopping them.
const MAX_ROUNDS: usize = 64;

impl Lane {
    pub(super) fn ring_of(&mut self, unit: UnitId, index: u16) -> Option<&mut LaneRing> {
        self.rings
            .iter_mut()
            .flatten()
            .find(|ring| ring.is(unit, index))
    }

    pub(super) fn start_ring(&mut self, unit: UnitId, setup: RingSetup) {
        let index = setup.index;
        let Some(log) = self.unit(unit).map(|unit| unit.config.log.clone()) else {
            return;
        };
        match LaneRing::new(unit, log, setup) {
            Ok(ring) => self.adopt_ring(ring),
            Err(error) => log::error!("ring {index} cannot be served: {error}"),
        }
    }

    pub(super) fn adopt_ring(&mut self, ring: LaneRing) {
        let at = self
            .rings
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.rings.len());
        if let Err(error) = self.reactor.watch_edge(ring.kick_fd(), Token::Kick(at)) {
            log::error!("ring {}: cannot wait for its kicks: {error}", ring.index);
        }
        match self.rings.get_mut(at) {
            Some(place) => *place = Some(ring),
            None => self.rings.push(Some(ring)),
        }
    }

    pub(super) fn set_kick(&mut self, unit: UnitId, index: u16, kick: OwnedFd) {
        let mut rings = self.rings.iter_mut().enumerate();
        let found = rings.find_map(|(at, ring)| {
            ring.as_mut()
                .filter(|ring| ring.is(unit, index))
                .map(|ring| (at, ring))
        });
        let Some((at, ring)) = found else {
            return;
        };
        self.reactor.forget(ring.kick_fd());
        ring.set_kick(kick);
        if let Err(error) = self.reactor.watch_edge(ring.kick_fd(), Token::Kick(at)) {
            log::error!("ring {index}: cannot wait for its kicks: {error}");
        }
    }

    /// All rings leave for another lane. Nothing of them is in flight: there was no session yet.
    pub(super) fn give_up_rings(&mut self) -> Vec<LaneRing> {
        let rings: Vec<_> = self.rings.iter_mut().filter_map(Option::take).collect();
        for ring in &rings {
            self.reactor.forget(ring.kick_fd());
        }
        rings
    }

    /// Every ring may have requests that nobody kicks for.
    pub(super) fn wake_rings(&mut self) {
        self.rings.iter_mut().flatten().for_each(LaneRing::kicked);
    }

    /// Takes requests from the rings in turn while session and table have room.
    ///
    /// Without a session, with a closed command window or a full table they stay in their rings:
    /// nothing is queued here without bound.
    /// Another ring is the first each time: with little room the first one may take all of it.
    pub(super) fn take_requests(&mut self) {
        self.held_until = None;
        let count = self.rings.len();
        self.first_ring = (self.first_ring + 1).checked_rem(count).unwrap_or(0);
        self.has_more = (0..MAX_ROUNDS).all(|_| self.take_round(count));
    }

    /// `true` when there may be more in some ring, and room for it.
    fn take_round(&mut self, count: usize) -> bool {
        let mut progress = false;
        for at in (self.first_ring..count).chain(0..self.first_ring) {
            progress |= self.take_from(at);
        }
        progress
    }

    /// Takes a fair share from one ring. `true` when it may have more and there is room.
    fn take_from(&mut self, at: usize) -> bool {
        let Some(Some(ring)) = self.rings.get(at) else {
            return false;
        };
        let id = ring.unit;
        let is_limited = self.unit(id).is_some_and(|unit| unit.is_limited());
        if is_limited && self.is_held(at) {
            return false;
        }
        for _ in 0..FAIR_SHARE {
            let free = self.free_request(id);
            let Some(Some(ring)) = self.rings.get_mut(at) else {
                return false;
            };
            if !ring.is_pending() {
                return false;
            }
            let tag = match free {
                Ok(tag) => tag,
                Err(hold) => {
                    self.note_hold(id, hold);
                    return false;
                }
            };
            let Some(slot) = self.in_flight.get_mut(tag) else {
                return false;
            };
            slot.ring = at;
            slot.popped_at = self.now;
            match ring.pop(&mut slot.request, self.now_ms) {
                Popped::Empty => return false,
                Popped::Again => {}
                Popped::Request if is_limited && self.hold_back(tag) => return false,
                Popped::Request => self.admit(tag),
            }
        }
        true
    }

    fn note_hold(&mut self, unit: UnitId, hold: Hold) {
        if let Some(unit) = self.unit(unit) {
            unit.hold = Some(hold);
        }
    }

    /// The tag for another request of a disk, when it could be sent at once, or is to fail at once.
    fn free_request(&mut self, unit: UnitId) -> Result<RequestTag, Hold> {
        let unit = self.units.get_mut(unit.0).and_then(Option::as_mut);
        let unit = unit.ok_or(Hold::Away)?;
        let requests = &mut unit.requests;
        if unit.stall.is_over_limit() {
            return requests.next_free().ok_or(Hold::TableFull);
        }
        if self.config.barrier.is_raised() || !unit.is_admitted {
            return Err(Hold::Away);
        }
        let connection = self.connection.as_mut().ok_or(Hold::Away)?;
        let session = &mut connection.session;
        if requests.has_backlog() {
            requests.submit_to(session, self.now_ms);
        }
        match session.can_submit() {
            Ok(()) if requests.has_backlog() => Err(Hold::TargetBusy),
            Ok(()) if requests.is_over_share(session) => Err(Hold::TableFull),
            Ok(()) => requests.next_free().ok_or(Hold::TableFull),
            Err(SubmitError::WindowClosed) => Err(Hold::WindowClosed),
            Err(SubmitError::TableFull) => Err(Hold::TableFull),
            Err(SubmitError::Closing) => Err(Hold::Away),
        }
    }

    /// Passes a request on to the core, or answers it at once when it needs no command.
    fn admit(&mut self, tag: RequestTag) {
        let Some(status) = self.begin(tag) else {
            return;
        };
        let Some(slot) = self.in_flight.get_mut(tag) else {
            return;
        };
        let request = &mut slot.request;
        let lengths = request.extents().map(|extent| extent.length_bytes);
        let (kind, request_bytes) = (request.kind, lengths.sum());
        if let Some(Some(ring)) = self.rings.get_mut(slot.ring) {
            ring.complete_at_once(request, status);
        }
        if let Some(unit) = self.unit_of(tag) {
            let stats = &unit.config.stats;
            stats.ended(kind, request_bytes, status, Duration::ZERO);
        }
    }

    /// Passes a request on to the core; the answer when there is one already.
    fn begin(&mut self, tag: RequestTag) -> Option<Status> {
        let slot = self.in_flight.get_mut(tag)?;
        let ring = self.rings.get(slot.ring)?.as_ref()?;
        let unit = self.units.get_mut(UnitId::of(tag).0)?.as_mut()?;
        let request = &slot.request;
        let stable = !ring.is_writeback(unit.config.writeback);
        let Some(operation) = request.operation(stable) else {
            return Some(copy_device_id(request, &unit.config.device_id));
        };
        if unit.stall.is_over_limit() {
            return Some(Status::IoErr);
        }
        match unit.requests.admit(operation, request.extents()) {
            Ok(Admitted::InFlight) => None,
            Ok(Admitted::Done) => {
                unit.requests.release(tag);
                Some(Status::Ok)
            }
            Ok(Admitted::Full) => Some(Status::IoErr),
            Err(fault) => {
                log::debug!("ring {}: {operation:?} refused: {fault}", ring.index);
                Some(Status::IoErr)
            }
        }
    }

    pub(super) fn publish(&mut self) {
        self.rings.iter_mut().flatten().for_each(LaneRing::publish);
    }

    /// Gives back the rings that are drained, or have to be by now.
    pub(super) fn end_drained_rings(&mut self) {
        for at in 0..self.rings.len() {
            let Some(Some(ring)) = self.rings.get(at) else {
                continue;
            };
            let Some(deadline) = ring.drain_deadline() else {
                continue;
            };
            if !ring.is_drained() {
                if Instant::now() < deadline {
                    continue;
                }
                self.give_up_requests(at);
            }
            if let Some(ring) = self.rings.get_mut(at).and_then(Option::take) {
                self.end_ring(&ring);
            }
        }
    }

    /// A ring has left its place: nothing of it is touched any more.
    pub(super) fn end_ring(&mut self, ring: &LaneRing) {
        self.reactor.forget(ring.kick_fd());
        self.forget_held(ring);
        ring.answer_drain();
    }

    /// The drain limit is reached. What the ring has in flight stays marked in the inflight region,
    /// for whoever starts the ring next; without a region it ends with an error.
    ///
    /// The target may still carry it out. So the connection is dropped, which raises the barrier:
    /// no command of the disk goes out before a login with the same ISID has made the target end
    /// it (RFC 7143 section 6.3.5).
    fn give_up_requests(&mut self, at: usize) {
        self.lose(LossReason::Drained);
        let Some(Some(ring)) = self.rings.get(at) else {
            return;
        };
        let (id, stays_marked) = (ring.unit, ring.tracks_inflight());
        let mut count = 0;
        for tag in self.in_flight.tags(id) {
            let slot = self.in_flight.get_mut(tag);
            let is_of_ring = slot.is_some_and(|slot| slot.ring == at);
            let unit = self.unit(id).filter(|_| is_of_ring);
            if unit.is_some_and(|unit| unit.requests.abandon(tag)) {
                if stays_marked {
                    self.forget_request(tag);
                } else {
                    self.finish(tag, Status::IoErr);
                }
                count += 1;
            }
        }
        let fate = if stays_marked {
            "stay in flight for who starts it next"
        } else {
            "end with an I/O error"
        };
        if let Some(Some(ring)) = self.rings.get_mut(at) {
            let index = ring.index;
            ring.log.about(|| {
                log::warn!(
                    "ring {index} had to stop while storage did not answer: {count} requests {fate}"
                );
            });
            ring.publish();
        }
    }

    /// Lets go of a request that does not go back to its guest.
    fn forget_request(&mut self, tag: RequestTag) {
        self.in_flight.forget(tag);
        if let Some(unit) = self.unit_of(tag) {
            unit.requests.release(tag);
        }
    }
}

fn copy_device_id(request: &ParsedRequest, device_id: &[u8]) -> Status {
    let length = device_id.len().min(request.data_length_bytes as usize);
    match request
        .buffers
        .copy_in(0, device_id.get(..length).unwrap_or_default())
    {
        Ok(()) => Status::Ok,
        Err(_) => Status::IoErr,
    }
}
