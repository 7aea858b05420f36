//! The requests in flight, from the engine's side: whose ring, which buffers, what is still needed
//! of them.

use std::time::Instant;

use iscsi_core::session::RequestTag;

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

/// All of them, by the tag that the core uses.
#[derive(Debug)]
pub(super) struct InFlightTable {
    slots: Vec<InFlight>,
    /// Tags of requests that have ended and whose last piece has now left.
    released: Vec<RequestTag>,
}

impl InFlightTable {
    pub(super) fn new(length: usize, now: Instant) -> Self {
        Self {
            slots: (0..length).map(|_| InFlight::new(now)).collect(),
            released: Vec::with_capacity(length),
        }
    }

    /// Every tag there is.
    pub(super) fn tags(&self) -> impl Iterator<Item = RequestTag> + use<> {
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).map(RequestTag)
    }

    pub(super) fn get_mut(&mut self, tag: RequestTag) -> Option<&mut InFlight> {
        self.slots.get_mut(tag.0 as usize)
    }

    /// The buffers of a request.
    pub(super) fn buffers(&self, tag: RequestTag) -> Option<&GuestBuffers> {
        Some(&self.slots.get(tag.0 as usize)?.request.buffers)
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
        for (index, slot) in (0u32..).zip(&mut self.slots) {
            if slot.queued_pieces > 0 {
                slot.queued_pieces = 0;
                if slot.ended.is_some() {
                    self.released.push(RequestTag(index));
                }
            }
        }
    }
}
