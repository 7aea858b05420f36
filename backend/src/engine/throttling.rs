//! How a lane keeps the limits of its disk: a request that has to wait stays in its ring, and the lane
//! sleeps until its time.

use std::sync::Arc;
use std::time::Instant;

use iscsi_core::session::RequestTag;

use super::lane::Lane;
use super::ring::LaneRing;
use super::throttle::{Load, Throttle};
use super::unit::UnitId;

impl Lane {
    /// Other limits. What was paid under the former ones counts no more.
    pub(super) fn set_throttle(&mut self, id: UnitId, throttle: Option<Arc<Throttle>>) {
        let Some(unit) = self.unit(id) else { return };
        unit.config.throttle = throttle;
        let rings = self.rings.iter_mut().flatten();
        rings
            .filter(|ring| ring.unit == id)
            .for_each(|ring| ring.held = None);
    }

    /// Whether the next request of a ring waits for its time. Nobody is told when that has come but by
    /// the lane's own wait.
    pub(super) fn is_held(&mut self, at: usize) -> bool {
        let Some(Some(ring)) = self.rings.get(at) else {
            return false;
        };
        let until = ring.held.map(|held| held.until);
        let Some(until) = until.filter(|until| ring.is_pending() && self.now < *until) else {
            return false;
        };
        // Storage that is given up answers at once.
        let unit = self.units.get(ring.unit.0).and_then(Option::as_ref);
        if unit.is_none_or(|unit| unit.stall.is_over_limit()) {
            return false;
        }
        self.wake_at(until);
        true
    }

    /// Has a request pay that was just popped. `true` when it has to wait: then it is back in its ring.
    /// One that has waited has paid.
    pub(super) fn hold_back(&mut self, tag: RequestTag) -> bool {
        let Some(Some(unit)) = self.units.get(UnitId::of(tag).0) else {
            return false;
        };
        let Some(throttle) = &unit.config.throttle else {
            return false;
        };
        if unit.stall.is_over_limit() {
            return false;
        }
        let Some(slot) = self.in_flight.get_mut(tag) else {
            return false;
        };
        let Some(Some(ring)) = self.rings.get_mut(slot.ring) else {
            return false;
        };
        let Some(load) = Load::of(&slot.request, unit.requests.writes_zeros_as_data()) else {
            return false;
        };
        if let Some(held) = ring.held.take() {
            unit.config.stats.was_held(self.now, held.since);
            if held.load == load {
                return false;
            }
            // Its driver has changed it meanwhile, which it may not do.
            throttle.give_back(held.load);
        }
        let Some(held) = throttle.take(load, self.now) else {
            return false;
        };
        ring.hold(&mut slot.request, held);
        unit.config.stats.throttled.add(1);
        self.wake_at(held.until);
        true
    }

    fn wake_at(&mut self, until: Instant) {
        self.held_until = Some(self.held_until.map_or(until, |first| first.min(until)));
    }

    /// A ring goes, and what is held of it with it.
    pub(super) fn forget_held(&self, ring: &LaneRing) {
        let unit = self.units.get(ring.unit.0).and_then(Option::as_ref);
        let throttle = unit.and_then(|unit| unit.config.throttle.as_ref());
        if let (Some(throttle), Some(held)) = (throttle, ring.held) {
            throttle.give_back(held.load);
        }
    }
}
