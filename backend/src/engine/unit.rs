//! A disk as a lane serves it: its requests, and whether the lane's session leads to it.
//!
//! A lane of a disk's own has one of these. One whose session disks share has one for each of them: a
//! logical unit each, behind the same target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::requests::Requests;
use iscsi_core::disk::shared::SharedDisk;
use iscsi_core::session::RequestTag;

use super::lane::{Lane, in_ms};
use super::message::{
    DiskEvent, DiskReports, LossReason, SessionNumber, UnitEnded, UnitMessage, report,
};
use super::ring::LaneRing;
use super::stall::Stall;
use super::stats::{Hold, LaneStats};
use super::throttle::Throttle;
use super::{DRAIN_LIMIT, MAX_REQUESTS};
use crate::log_context::LogContext;

/// Which of the disks of a target's lanes. A disk has the same number in each of its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnitId(pub(super) usize);

impl UnitId {
    /// Whose request it is.
    pub(super) fn of(tag: RequestTag) -> Self {
        Self(tag.0 as usize / MAX_REQUESTS)
    }

    /// The first of the tags of its requests.
    pub(super) fn first_tag(self) -> RequestTag {
        // A process has far fewer disks.
        RequestTag(u32::try_from(self.0 * MAX_REQUESTS).unwrap_or(u32::MAX))
    }
}

/// What a lane needs to serve a disk.
#[derive(Debug)]
pub(super) struct UnitConfig {
    /// The LUN field.
    pub(super) lun: u64,
    /// The disk.
    pub(super) facts: Box<LunFacts>,
    /// The answer to GET_ID.
    pub(super) device_id: [u8; 20],
    /// Whether the driver was told that completed writes may be volatile.
    pub(super) writeback: bool,
    /// How long requests wait for lost storage; `None` for ever.
    pub(super) io_timeout: Option<Duration>,
    /// What holds the limits of the disk, with its other lanes; `None` where there are none.
    pub(super) throttle: Option<Arc<Throttle>>,
    /// With the disk's other lanes.
    pub(super) shared: Arc<SharedDisk>,
    /// Whether other disks may be served on the same session.
    pub(super) shares_session: bool,
    /// Whom to tell what is about this disk.
    pub(super) reports: DiskReports,
    /// What is counted of it.
    pub(super) stats: Arc<LaneStats>,
    /// What lines of the log are about that are about this disk.
    pub(super) log: LogContext,
}

pub(super) struct Unit {
    pub(super) config: UnitConfig,
    pub(super) requests: Requests,
    pub(super) stall: Stall,
    /// The session leads to the disk: somebody has looked.
    pub(super) is_admitted: bool,
    /// It was reported that the disk is not as it was probed, and nobody has looked since.
    pub(super) facts_outdated: bool,
    /// Why requests had to stay in their ring in this turn, if any had to.
    pub(super) hold: Option<Hold>,
    /// It is to be served no more.
    leaving: Option<Leaving>,
}

/// What is in flight has its time.
struct Leaving {
    deadline: Instant,
    /// Dropped with it, for whoever waits.
    _ended: UnitEnded,
}

impl Unit {
    fn new(unit: UnitId, config: UnitConfig) -> Self {
        Self {
            requests: requests(unit, &config),
            stall: Stall::new(config.io_timeout),
            config,
            is_admitted: false,
            facts_outdated: false,
            hold: None,
            leaving: None,
        }
    }

    /// Whether the disk has limits: all that one without them pays for their sake.
    pub(super) fn is_limited(&self) -> bool {
        self.config.throttle.is_some()
    }

    /// Until when what is in flight has time, when the disk is to be served no more.
    pub(super) fn leaving_deadline(&self) -> Option<Instant> {
        self.leaving.as_ref().map(|leaving| leaving.deadline)
    }

    /// The session of a lane may lead to it, or not: nothing is sent before somebody has looked.
    fn ask_for_look(&mut self, lane: usize) {
        self.is_admitted = false;
        report(&self.config.reports, DiskEvent::Unseen { lane });
    }

    /// Once only, until somebody looks: a target may say so with each answer.
    pub(super) fn report_facts_outdated(&mut self, lane: usize) {
        if !std::mem::replace(&mut self.facts_outdated, true) {
            report(&self.config.reports, DiskEvent::FactsOutdated { lane });
        }
    }
}

fn requests(unit: UnitId, config: &UnitConfig) -> Requests {
    let shared = Arc::clone(&config.shared);
    let facts = LunFacts::clone(&config.facts);
    let mut requests = Requests::new(facts, config.lun, MAX_REQUESTS, shared);
    // Storage that answers, but will not do what it is asked for, is as good as none.
    requests.set_patience_ms(config.io_timeout.map(in_ms));
    if config.shares_session {
        requests = requests.sharing(unit.first_tag());
    }
    requests
}

impl Lane {
    /// The disk of this number, if it is served here.
    pub(super) fn unit(&mut self, unit: UnitId) -> Option<&mut Unit> {
        self.units.get_mut(unit.0)?.as_mut()
    }

    /// The disk of a request.
    pub(super) fn unit_of(&mut self, tag: RequestTag) -> Option<&mut Unit> {
        self.unit(UnitId::of(tag))
    }

    /// The numbers of all disks.
    pub(super) fn unit_ids(&self) -> impl Iterator<Item = UnitId> + use<> {
        (0..self.units.len()).map(UnitId)
    }

    /// How many requests are in flight, of all disks.
    pub(super) fn requests_in_flight(&self) -> usize {
        let units = self.units.iter().flatten();
        units.map(|unit| unit.requests.in_flight()).sum()
    }

    pub(super) fn add_unit(&mut self, id: UnitId, config: UnitConfig) {
        // Its number may have been that of a disk which has not quite gone.
        self.let_go_of_unit(id);
        let mut unit = Unit::new(id, config);
        self.in_flight.add_unit(id, self.now);
        if self.connection.is_some() {
            unit.ask_for_look(self.config.index);
        }
        while self.units.len() <= id.0 {
            self.units.push(None);
        }
        if let Some(place) = self.units.get_mut(id.0) {
            *place = Some(unit);
        }
    }

    /// There is a new session, which is known to lead to the disk of `admitted`.
    pub(super) fn admit_only(&mut self, admitted: Option<UnitId>) {
        let lane = self.config.index;
        for (id, unit) in self.units.iter_mut().enumerate() {
            match unit {
                Some(unit) if admitted == Some(UnitId(id)) => unit.is_admitted = true,
                Some(unit) => unit.ask_for_look(lane),
                None => {}
            }
        }
    }

    pub(super) fn remove_unit(&mut self, id: UnitId, ended: UnitEnded) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        let Some(unit) = self.unit(id) else { return };
        unit.leaving = Some(Leaving {
            deadline,
            _ended: ended,
        });
        let rings = self.rings.iter_mut().flatten();
        rings
            .filter(|ring| ring.unit == id)
            .for_each(LaneRing::pause);
    }

    /// Lets go of the disks that are to be served no more, when nothing of them is in flight, or has to be
    /// given up by now.
    pub(super) fn end_leaving_units(&mut self) {
        for id in self.unit_ids() {
            let Some(unit) = self.unit(id) else { continue };
            let Some(deadline) = unit.leaving_deadline() else {
                continue;
            };
            if unit.requests.in_flight() == 0 || Instant::now() >= deadline {
                self.let_go_of_unit(id);
            }
        }
    }

    /// Nothing of the disk is touched any more. What the target may still carry out ends with the
    /// session.
    fn let_go_of_unit(&mut self, id: UnitId) {
        let Some(unit) = self.unit(id) else { return };
        if unit.requests.in_flight() > 0 {
            self.lose(LossReason::Drained);
        }
        for at in 0..self.rings.len() {
            if let Some(place) = self.rings.get_mut(at)
                && let Some(ring) = place.take_if(|ring| ring.unit == id)
            {
                self.end_ring(&ring);
            }
        }
        self.in_flight.remove_unit(id);
        if let Some(place) = self.units.get_mut(id.0) {
            *place = None;
        }
    }

    pub(super) fn handle_unit(&mut self, id: UnitId, message: UnitMessage) {
        match message {
            UnitMessage::StartRing(setup) => self.start_ring(id, *setup),
            UnitMessage::StopRing {
                index,
                deadline,
                reply,
            } => match self.ring_of(id, index) {
                Some(ring) => ring.drain(deadline, reply),
                // Nothing of it is touched: an error of the start was logged then.
                None => drop(reply),
            },
            UnitMessage::SetCall { index, call } => {
                if let Some(ring) = self.ring_of(id, index) {
                    ring.set_call(call);
                }
            }
            UnitMessage::SetKick { index, kick } => self.set_kick(id, index, kick),
            UnitMessage::SetMemory(memory) => {
                let rings = self.rings.iter_mut().flatten();
                rings
                    .filter(|ring| ring.unit == id)
                    .for_each(|ring| ring.set_memory(&memory));
            }
            UnitMessage::SetThrottle(throttle) => self.set_throttle(id, throttle),
            UnitMessage::Refuse(reason) => self.refuse_unit(id, reason),
            UnitMessage::Admit(session) => self.admit_unit(id, session),
            UnitMessage::SetWriteback(writeback) => {
                self.change(id, |unit| unit.config.writeback = writeback);
            }
            UnitMessage::SetFacts { facts, taken } => {
                self.change(id, |unit| unit.requests.set_facts(*facts));
                drop(taken);
            }
            UnitMessage::FactsAreRead => self.change(id, |unit| unit.facts_outdated = false),
        }
    }

    fn change(&mut self, id: UnitId, change: impl FnOnce(&mut Unit)) {
        if let Some(unit) = self.unit(id) {
            change(unit);
        }
    }

    fn admit_unit(&mut self, id: UnitId, session: SessionNumber) {
        let is_present = self.connection.is_some() && self.session_number == session;
        if let Some(unit) = self.unit(id).filter(|_| is_present) {
            unit.is_admitted = true;
            self.wake_rings();
        }
    }

    /// The session leads to another disk. What this one has in flight there must not be taken for done;
    /// the others lose their session for that only.
    fn refuse_unit(&mut self, id: UnitId, reason: LossReason) {
        let shares_session = self.units.iter().flatten().count() > 1;
        let Some(unit) = self.unit(id) else { return };
        if !shares_session || unit.is_admitted && unit.requests.in_flight() > 0 {
            return self.lose(reason);
        }
        if !unit.is_admitted {
            // Nothing of it was sent on this session, and somebody is looking already.
            return;
        }
        let (lane, is_connected) = (self.config.index, self.connection.is_some());
        if is_connected {
            self.change(id, |unit| unit.ask_for_look(lane));
        }
    }
}
