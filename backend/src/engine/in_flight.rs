//! The requests in flight, from the engine's side: whose ring, which buffers, what is still needed
//! of them.

use std::time::Instant;

use iscsi_core::session::RequestTag;

use super::MAX_REQUESTS;
use super::unit::UnitId;
use crate::device::request::{ParsedRequest, Status};
use crate::guest_memory::GuestBuffers;

/// The state of one slot. Slots keep their allocations from request to request.
#[derive(Debug)]
pub(super) struct InFlight {
    /// The request as the guest made it, with its buffers.
    pub(super) request: ParsedRequest,
    /// The lane's ring that it came from.
    pub(super) ring: usize,
    /// The turn in which it was taken from there.
    pub(super) popped_at: Instant,
    /// How many pieces of its data wait in the send queue. While there are any, neither buffers
    /// nor descriptors go back to the guest, even if the answer has come.
    queued_pieces: u32,
    /// How it ended, when the answer came before the last piece left.
    pub(super) ended: Option<Status>,
}

impl InFlight {
    fn new(now: Instant) -> Self {
        Self {
            request: ParsedRequest::default(),
            ring: 0,
            popped_at: now,
            queued_pieces: 0,
            ended: None,
        }
    }
}

/// All of a lane's, by the tag that the core uses: [`MAX_REQUESTS`] for each of its disks.
#[derive(Debug, Default)]
pub(super) struct InFlightTable {
    /// By the number of the disk; empty for one that the lane does not serve.
    units: Vec<Vec<InFlight>>,
    /// Tags of requests that have ended and whose last piece has now left.
    released: Vec<RequestTag>,
}

impl InFlightTable {
    /// Makes room for another disk.
    pub(super) fn add_unit(&mut self, unit: UnitId, now: Instant) {
        while self.units.len() <= unit.0 {
            self.units.push(Vec::new());
        }
        if let Some(slots) = self.units.get_mut(unit.0) {
            *slots = (0..MAX_REQUESTS).map(|_| InFlight::new(now)).collect();
        }
        self.released.reserve(MAX_REQUESTS);
    }

    /// Of this disk nothing is in flight any more.
    pub(super) fn remove_unit(&mut self, unit: UnitId) {
        if let Some(slots) = self.units.get_mut(unit.0) {
            *slots = Vec::new();
        }
        self.released.retain(|tag| UnitId::of(*tag) != unit);
    }

    /// Every tag of a disk.
    pub(super) fn tags(&self, unit: UnitId) -> impl Iterator<Item = RequestTag> + use<> {
        let length = self.units.get(unit.0).map_or(0, Vec::len);
        let first = unit.first_tag().0;
        (first..).take(length).map(RequestTag)
    }

    pub(super) fn get_mut(&mut self, tag: RequestTag) -> Option<&mut InFlight> {
        let slots = self.units.get_mut(UnitId::of(tag).0)?;
        slots.get_mut(tag.0 as usize % MAX_REQUESTS)
    }

    /// The buffers of a request.
    pub(super) fn buffers(&self, tag: RequestTag) -> Option<&GuestBuffers> {
        let slots = self.units.get(UnitId::of(tag).0)?;
        Some(&slots.get(tag.0 as usize % MAX_REQUESTS)?.request.buffers)
    }

    pub(super) fn piece_queued(&mut self, tag: RequestTag) {
        if let Some(slot) = self.get_mut(tag) {
            slot.queued_pieces += 1;
        }
    }

    pub(super) fn piece_sent(&mut self, tag: RequestTag) {
        let Some(slot) = self.get_mut(tag) else {
            return;
        };
        slot.queued_pieces = slot.queued_pieces.saturating_sub(1);
        if slot.queued_pieces == 0 && slot.ended.is_some() {
            self.released.push(tag);
        }
    }

    /// Notes that a request ended with `status`. `true` when it can be given back at once,
    /// `false` when [`InFlightTable::next_released`] will name it.
    pub(super) fn end(&mut self, tag: RequestTag, status: Status) -> bool {
        let Some(slot) = self.get_mut(tag) else {
            return false;
        };
        slot.ended = Some(status);
        slot.queued_pieces == 0
    }

    /// Lets go of a request that does not go back to the guest.
    pub(super) fn forget(&mut self, tag: RequestTag) {
        if let Some(slot) = self.get_mut(tag) {
            slot.ended = None;
            slot.request.buffers.clear();
        }
    }

    /// A request whose end was noted and whose last piece has left since.
    pub(super) fn next_released(&mut self) -> Option<RequestTag> {
        self.released.pop()
    }

    /// The connection is gone, and with it everything that was queued on it.
    pub(super) fn forget_pieces(&mut self) {
        for (unit, slots) in self.units.iter_mut().enumerate() {
            for (tag, slot) in (UnitId(unit).first_tag().0..).zip(slots) {
                if slot.queued_pieces > 0 {
                    slot.queued_pieces = 0;
                    if slot.ended.is_some() {
                        self.released.push(RequestTag(tag));
                    }
                }
            }
        }
    }
}
