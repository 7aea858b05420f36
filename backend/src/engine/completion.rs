//! The end of requests: from the core's completion to the guest's used ring.

use iscsi_core::disk::requests::{Completion, Failure};
use iscsi_core::session::RequestTag;

use super::lane::Lane;
use super::unit::UnitId;
use crate::device::request::{RequestKind, Status};

impl Lane {
    /// Ends a request towards the guest, or notes that it will be when its last piece has left.
    pub(super) fn complete(&mut self, completion: Option<Completion>) {
        let Some(Completion { request, result }) = completion else {
            return;
        };
        let status = match result {
            Ok(()) => Status::Ok,
            Err(failure) => {
                self.log_failure(request, &failure);
                self.failed_status(request, &failure)
            }
        };
        self.finish(request, status);
    }

    /// A discard that the target does not know after all is not an error of the disk: the driver
    /// is told that there is no such thing.
    fn failed_status(&mut self, request: RequestTag, failure: &Failure) -> Status {
        let kind = self
            .in_flight
            .get_mut(request)
            .map(|slot| slot.request.kind);
        if kind == Some(RequestKind::Discard) && failure.is_refusal() {
            Status::Unsupp
        } else {
            Status::IoErr
        }
    }

    fn log_failure(&mut self, request: RequestTag, failure: &Failure) {
        let lane = self.config.index;
        let Some(left_out) = self.log_limit.pass(self.now_ms) else {
            return;
        };
        let unit = self.units.get(UnitId::of(request).0);
        if let Some(Some(unit)) = unit
            && let Some(slot) = self.in_flight.get_mut(request)
        {
            let request = &slot.request;
            let first = request
                .ranges
                .first()
                .map_or(request.extent(), |range| range.extent);
            unit.config.log.about(|| {
                log::warn!(
                    "lane {lane}: {:?} of {} bytes at sector {} failed: {failure}; the guest gets an \
                     error{left_out}",
                    request.kind,
                    first.length_bytes,
                    first.sector
                );
            });
        }
    }

    pub(super) fn finish(&mut self, request: RequestTag, status: Status) {
        if self.in_flight.end(request, status) {
            self.give_back(request);
        }
    }

    /// Gives back what ended while pieces of it waited in the send queue.
    pub(super) fn release_sent(&mut self) {
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
        let latency = self.now.saturating_duration_since(slot.popped_at);
        let lengths = slot.request.extents().map(|extent| extent.length_bytes);
        let (kind, request_bytes) = (slot.request.kind, lengths.sum());
        let head = slot.request.head;
        let length_bytes = slot.request.complete(status);
        if let Some(Some(ring)) = self.rings.get_mut(slot.ring) {
            ring.push_used(head, length_bytes);
        }
        if let Some(unit) = self.unit_of(request) {
            let stats = &unit.config.stats;
            stats.ended(kind, request_bytes, status, latency);
            unit.requests.release(request);
        }
    }
}
