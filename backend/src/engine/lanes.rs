//! The lanes of a target: threads with a session each, and which disks are served on them.
//!
//! A target whose sessions are one disk's own has that disk here, one whose sessions are shared has
//! several. Each of the first rings that come into use gets a lane of its own, up to the number of
//! sessions that is allowed, further ones share. Lane 0 is there from the start, and has all disks.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use iscsi_core::disk::barrier::Barrier;
use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::Probe;

use super::inspection::{Inspected, Inspection, InspectionError};
use super::lane::{Lane, LaneConfig};
use super::mailbox::Mailbox;
use super::message::{Connection, LaneEvent, LaneReports, Message, UnitMessage, report};
use super::stats::StatsBook;
use super::throttle::Throttle;
use super::unit::{UnitConfig, UnitId};
use super::{DRAIN_GRACE, DRAIN_LIMIT, EngineConfig, LOGOUT_LIMIT, signals};
use crate::log_context::LogContext;
use crate::sandbox::{self, Trespasser, trespass};

/// What the lanes of a target have in common.
#[derive(Clone, Debug)]
pub(crate) struct LanesConfig {
    /// How many lanes there may be.
    pub(crate) max_lanes: usize,
    /// The longest that a lane polls before it sleeps; zero for never.
    pub(crate) poll_limit: Duration,
    /// How long a command may be unanswered; `None` for ever.
    pub(crate) command_timeout: Option<Duration>,
    /// Whether a command that cannot be ended otherwise is ended by a LOGICAL UNIT RESET.
    pub(crate) lun_reset: bool,
    /// Whether there may be more disks than one.
    pub(crate) is_shared: bool,
    /// Sessions that may have left tasks at the target.
    pub(crate) barrier: Arc<Barrier>,
    /// Where lanes report to.
    pub(crate) reports: LaneReports,
}

/// All lanes of a target.
pub(crate) struct Lanes {
    config: LanesConfig,
    state: Mutex<State>,
    /// What their threads log is about this, where it is about no disk in particular.
    log: LogContext,
}

#[derive(Default)]
pub(super) struct State {
    /// By lane index; an empty place is reused.
    lanes: Vec<Option<LaneHandle>>,
    /// By their numbers; an empty place is reused.
    disks: Vec<Option<DiskPlace>>,
    /// How many sessions there are to be had, once the target has refused one.
    granted_lanes: Option<usize>,
    closing: bool,
}

struct LaneHandle {
    mailbox: Arc<Mailbox<Message>>,
    /// Disconnected when the thread has ended. Taken by who waits for that.
    ended: Option<Receiver<()>>,
    /// The disks that it serves.
    units: BTreeSet<UnitId>,
}

/// A disk: what each lane is told of it that serves it, and which of its rings are where.
pub(super) struct DiskPlace {
    config: EngineConfig,
    /// What it is like now.
    pub(super) facts: LunFacts,
    pub(super) writeback: bool,
    /// What holds the limits; `None` where there are none.
    pub(super) throttle: Option<Arc<Throttle>>,
    stats: Arc<StatsBook>,
    log: LogContext,
    /// By ring index.
    pub(super) rings: HashMap<u16, RingPlace>,
    /// Until when rings are drained that are stopped now; `None` after one was started.
    drain_deadline: Option<Instant>,
    closing: bool,
}

/// Who serves a ring, and where it would go on if its lane had never touched it.
pub(super) struct RingPlace {
    pub(super) lane: usize,
    pub(super) next_avail: u16,
}

impl DiskPlace {
    pub(super) fn new(config: EngineConfig, stats: Arc<StatsBook>) -> Self {
        Self {
            facts: config.facts.clone(),
            config,
            writeback: false,
            throttle: None,
            stats,
            log: LogContext::current(),
            rings: HashMap::new(),
            drain_deadline: None,
            closing: false,
        }
    }

    /// The deadline for a ring that is stopped at `now`: that of the first ring of a series, each
    /// of which follows soon after the one before; but never less than [`DRAIN_GRACE`].
    pub(super) fn drain_deadline(&mut self, now: Instant) -> Instant {
        let of_series = self
            .drain_deadline
            .filter(|deadline| now < *deadline + DRAIN_LIMIT);
        let deadline = *self
            .drain_deadline
            .insert(of_series.unwrap_or(now + DRAIN_LIMIT));
        deadline.max(now + DRAIN_GRACE)
    }

    fn for_lane(&self, lane: usize, shares_session: bool) -> UnitConfig {
        UnitConfig {
            lun: self.config.lun,
            facts: Box::new(self.facts.clone()),
            device_id: self.config.device_id,
            writeback: self.writeback,
            io_timeout: self.config.io_timeout,
            throttle: self.throttle.clone(),
            shared: Arc::clone(&self.config.shared),
            shares_session,
            reports: self.config.reports.clone(),
            stats: self.stats.add_lane(lane),
            log: self.log.clone().with_session(lane),
        }
    }
}

impl State {
    pub(super) fn disk(&mut self, unit: UnitId) -> Option<&mut DiskPlace> {
        self.disks.get_mut(unit.0)?.as_mut()
    }

    /// The lanes that are there, with their indexes.
    fn present(&self) -> impl Iterator<Item = (usize, &LaneHandle)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(index, lane)| Some((index, lane.as_ref()?)))
    }

    /// The indexes of the lanes that serve a disk, in ascending order.
    pub(super) fn lanes_of(&self, unit: UnitId) -> Vec<usize> {
        let lanes = self.present();
        let serving = lanes.filter(|(_, lane)| lane.units.contains(&unit));
        serving.map(|(index, _)| index).collect()
    }

    pub(super) fn tell(&self, lane: usize, message: Message) {
        if let Some(Some(lane)) = self.lanes.get(lane) {
            lane.mailbox.send(message);
        }
    }

    /// Tells every lane that serves a disk.
    pub(super) fn tell_all_of(&self, unit: UnitId, message: impl Fn() -> UnitMessage) {
        for (_, lane) in self.present() {
            if lane.units.contains(&unit) {
                lane.mailbox.send(Message::Unit(unit, message()));
            }
        }
    }

    fn tell_all(&self, message: impl Fn() -> Message) {
        self.present()
            .for_each(|(_, lane)| lane.mailbox.send(message()));
    }

    /// How many rings a lane serves.
    fn load(&self, lane: usize) -> usize {
        let rings = self.disks.iter().flatten().flat_map(|disk| &disk.rings);
        rings.filter(|(_, place)| place.lane == lane).count()
    }
}

impl Lanes {
    /// Lane 0, without a session yet.
    /// What is logged about no disk in particular is about `log`.
    pub(crate) fn start(config: LanesConfig, log: LogContext) -> io::Result<Arc<Self>> {
        let lanes = Self {
            log,
            config,
            state: Mutex::default(),
        };
        let first = lanes.spawn_lane(0)?;
        lanes.state().lanes.push(Some(first));
        Ok(Arc::new(lanes))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps commands from going out while others may still run.
    pub(crate) fn barrier(&self) -> &Arc<Barrier> {
        &self.config.barrier
    }

    /// Serves another disk. Its requests wait until somebody has seen that the session leads to it.
    pub(super) fn add_disk(&self, disk: DiskPlace) -> UnitId {
        let mut state = self.state();
        let free = state.disks.iter().position(Option::is_none);
        let unit = UnitId(free.unwrap_or(state.disks.len()));
        match state.disks.get_mut(unit.0) {
            Some(place) => *place = Some(disk),
            None => state.disks.push(Some(disk)),
        }
        self.put_on_lane(&mut state, unit, 0);
        unit
    }

    /// A lane that does not serve the disk yet does from now on.
    fn put_on_lane(&self, state: &mut State, unit: UnitId, lane: usize) {
        let State { lanes, disks, .. } = state;
        let handle = lanes.get_mut(lane).and_then(Option::as_mut);
        let disk = disks.get(unit.0).and_then(Option::as_ref);
        let (Some(handle), Some(disk)) = (handle, disk) else {
            return;
        };
        if handle.units.insert(unit) {
            let config = disk.for_lane(lane, self.config.is_shared);
            handle.mailbox.send(Message::AddUnit { unit, config });
        }
    }

    /// Gives a lane the session that it waits for, which is known to lead to the disk of `admitted`. One
    /// that is not there any more, or not yet wanted, has no use for it: it is closed.
    pub(crate) fn connect(&self, lane: usize, connection: Connection, admitted: Option<UnitId>) {
        self.tasks_ended(lane);
        let connection = Box::new(connection);
        self.state().tell(
            lane,
            Message::Connected {
                connection,
                admitted,
            },
        );
    }

    /// The target may have ended tasks of any session without an answer.
    pub(crate) fn reconcile(&self) {
        self.state().tell_all(|| Message::Reconcile);
    }

    /// Whether the target may still run tasks of a former session of this lane.
    pub(crate) fn has_tasks_left(&self, lane: usize) -> bool {
        self.config.barrier.is_suspect(lane)
    }

    /// The target has ended all former tasks of this lane's session: it took a login with the same
    /// ISID.
    pub(crate) fn tasks_ended(&self, lane: usize) {
        if self.config.barrier.lower(lane) {
            self.state().tell_all(|| Message::BarrierFell);
        }
    }

    /// Has a lane run `probe` for a LUN on its session; the first lane, when that one is gone. Who asks
    /// limits the time.
    pub(crate) async fn inspect(&self, lane: usize, lun: u64, probe: Probe) -> Inspected {
        let (reply, inspected) = tokio::sync::oneshot::channel();
        {
            let state = self.state();
            let is_present = state.present().any(|(index, _)| index == lane);
            if state.closing {
                return Err(InspectionError::NoSession);
            }
            let inspection = Inspection::new(lun, probe, reply);
            state.tell(
                if is_present { lane } else { 0 },
                Message::Inspect(inspection),
            );
        }
        inspected.await.unwrap_or(Err(InspectionError::NoSession))
    }

    /// The target does not grant the session that a new lane wants: its rings go to lane 0.
    pub(crate) fn merge(&self, lane: usize) {
        let mut state = self.state();
        let is_closing = state.closing;
        let Some(handle) = state
            .lanes
            .get_mut(lane)
            .filter(|_| lane != 0 && !is_closing)
            .and_then(Option::take)
        else {
            return;
        };
        let (reply, rings) = sync_channel(1);
        handle.mailbox.send(Message::GiveUpRings { reply });
        let Ok(rings) = rings.recv_timeout(DRAIN_LIMIT) else {
            // It is held up, and keeps its rings: they are not to be lost with an answer that
            // nobody takes.
            if let Some(place) = state.lanes.get_mut(lane) {
                *place = Some(handle);
            }
            report(&self.config.reports, LaneEvent::SessionWanted { lane });
            return;
        };
        let granted = state.granted_lanes.unwrap_or(lane);
        state.granted_lanes = Some(granted.min(lane));
        handle.mailbox.send(Message::Close);
        for ring in rings {
            let disk = state.disk(ring.unit);
            if let Some(place) = disk.and_then(|disk| disk.rings.get_mut(&ring.index)) {
                place.lane = 0;
            }
            state.tell(0, Message::AdoptRing(Box::new(ring)));
        }
    }

    /// A front-end has gone and its rings are stopped: lanes other than the first that serve no other
    /// disk log out.
    pub(super) fn front_end_gone(&self, unit: UnitId) {
        let mut state = self.state();
        for place in state.lanes.iter_mut().skip(1) {
            let Some(lane) = place else { continue };
            if !lane.units.remove(&unit) {
                continue;
            }
            if lane.units.is_empty() {
                lane.mailbox.send(Message::Close);
                *place = None;
            } else {
                let (ended, _) = sync_channel(0);
                lane.mailbox.send(Message::RemoveUnit { unit, ended });
            }
        }
        let used = state.lanes.iter().rposition(Option::is_some);
        state.lanes.truncate(used.map_or(0, |last| last + 1));
        // The next front-end may find a target that grants more.
        state.granted_lanes = None;
    }

    /// Begins to serve a disk no more: its requests in flight get their time. With the last one all lanes
    /// end, and sessions are logged out.
    pub(super) fn begin_close(self: &Arc<Self>, unit: UnitId) -> Closing {
        let (is_last, awaited) = self.tell_to_close(unit);
        Closing {
            lanes: Arc::clone(self),
            unit,
            is_last,
            awaited,
        }
    }

    fn tell_to_close(&self, unit: UnitId) -> (bool, Vec<Receiver<()>>) {
        let mut state = self.state();
        if let Some(disk) = state.disk(unit) {
            disk.closing = true;
        }
        let is_last = state.disks.iter().flatten().all(|disk| disk.closing);
        state.closing |= is_last;
        let lanes = state.lanes.iter_mut().flatten();
        let told = lanes.filter_map(|lane| {
            if is_last {
                lane.mailbox.send(Message::Close);
                return lane.ended.take();
            }
            let (ended, awaited) = sync_channel::<()>(0);
            let message = Message::RemoveUnit { unit, ended };
            lane.units
                .contains(&unit)
                .then(|| lane.mailbox.send(message))?;
            Some(awaited)
        });
        (is_last, told.collect())
    }

    fn spawn_lane(&self, index: usize) -> io::Result<LaneHandle> {
        let mailbox = Mailbox::new()?;
        let config = LaneConfig {
            index,
            poll_limit: self.config.poll_limit,
            command_timeout: self.config.command_timeout,
            lun_reset: self.config.lun_reset,
            barrier: Arc::clone(&self.config.barrier),
            reports: self.config.reports.clone(),
        };
        let lane = Lane::new(config, Arc::clone(&mailbox))?;
        let (end, ended) = sync_channel(0);
        let thread = std::thread::Builder::new().name(format!("lane-{index}"));
        let context = self.log.clone().with_session(index);
        thread.spawn(move || {
            context.enter_thread();
            signals::leave_to_others();
            sandbox::confine_lane();
            trespass(Trespasser::Lane);
            lane.run();
            drop(end);
        })?;
        Ok(LaneHandle {
            mailbox,
            ended: Some(ended),
            units: BTreeSet::new(),
        })
    }

    /// Which lane is to serve another ring of a disk: the one with the fewest, or a new one while the
    /// fewest is not none and there may be more. `None` while the disk is ending.
    pub(super) fn choose_lane(&self, state: &mut State, unit: UnitId) -> Option<usize> {
        let disk = state.disk(unit)?;
        if disk.closing {
            return None;
        }
        disk.drain_deadline = None;
        let lane = self.least_loaded_lane(state);
        self.put_on_lane(state, unit, lane);
        Some(lane)
    }

    fn least_loaded_lane(&self, state: &mut State) -> usize {
        let loads = state.present().map(|(lane, _)| (lane, state.load(lane)));
        let (least, rings) = loads.min_by_key(|(_, rings)| *rings).unwrap_or((0, 0));
        let free = state.lanes.iter().position(Option::is_none);
        let free = free.unwrap_or(state.lanes.len());
        let max_lanes = state.granted_lanes.unwrap_or(self.config.max_lanes);
        if rings == 0 || free >= max_lanes {
            return least;
        }
        match self.spawn_lane(free) {
            Ok(lane) => {
                match state.lanes.get_mut(free) {
                    Some(place) => *place = Some(lane),
                    None => state.lanes.push(Some(lane)),
                }
                report(
                    &self.config.reports,
                    LaneEvent::SessionWanted { lane: free },
                );
                free
            }
            Err(error) => {
                log::error!("cannot start another lane, rings share lane {least}: {error}");
                least
            }
        }
    }
}

/// A disk that is ending. Its lanes stay known meanwhile: a front-end that stops its rings now gets a
/// lane's own answer or none, never one about a ring that is still being served.
pub(crate) struct Closing {
    lanes: Arc<Lanes>,
    unit: UnitId,
    is_last: bool,
    awaited: Vec<Receiver<()>>,
}

impl Closing {
    /// Whether the lanes end with the disk.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Blocks until the disk has ended, which [`DRAIN_LIMIT`] and [`LOGOUT_LIMIT`] bound. Whether the
    /// target may still run tasks of ours: not every session could be ended in order.
    pub(crate) fn wait(self) -> bool {
        let Self {
            lanes,
            unit,
            awaited,
            ..
        } = self;
        let deadline = Instant::now() + DRAIN_LIMIT + LOGOUT_LIMIT;
        for ended in awaited {
            // The lane bounds itself; should it fail to end, it must not keep the process.
            let limit = deadline.saturating_duration_since(Instant::now());
            let _ = ended.recv_timeout(limit + Duration::from_millis(100));
        }
        let mut state = lanes.state();
        for lane in state.lanes.iter_mut().flatten() {
            lane.units.remove(&unit);
        }
        if let Some(place) = state.disks.get_mut(unit.0) {
            *place = None;
        }
        drop(state);
        lanes.barrier().is_raised()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::device::backend::test_facts;

    fn disk() -> DiskPlace {
        let (reports, _) = unbounded_channel();
        let config = EngineConfig {
            facts: test_facts(),
            lun: 0,
            device_id: [0; 20],
            io_timeout: None,
            shared: Arc::default(),
            reports,
        };
        DiskPlace::new(config, Arc::default())
    }

    #[test]
    fn rings_that_are_stopped_one_after_the_other_share_one_deadline() {
        let mut state = disk();
        let start = Instant::now();
        let deadline = state.drain_deadline(start);
        assert_eq!(deadline, start + DRAIN_LIMIT);
        for later in [
            Duration::ZERO,
            DRAIN_LIMIT,
            2 * DRAIN_LIMIT - Duration::from_nanos(1),
        ] {
            let expected = deadline.max(start + later + DRAIN_GRACE);
            assert_eq!(state.drain_deadline(start + later), expected);
        }
        let next = start + 2 * DRAIN_LIMIT;
        assert_eq!(state.drain_deadline(next), next + DRAIN_LIMIT);
    }
}
