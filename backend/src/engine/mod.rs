//! The data plane: lanes, each a thread with its rings and its own iSCSI session.
//!
//! The [`Engine`] gives rings to lanes as they come into use: each of the first rings gets a lane
//! of its own, up to the number of sessions that is allowed, further ones share. Lane 0 is there
//! from the start, for the session that the probe was made with. Everything that happens on the
//! path of a request happens within one lane; locks are taken only to start and stop things.

mod bucket;
mod coalescing;
mod completion;
mod in_flight;
mod inspection;
mod intake;
mod lane;
mod link;
mod log_limit;
mod mailbox;
pub(crate) mod message;
mod polling;
mod reactor;
mod ring;
mod signals;
mod stall;
mod stats;
mod throttle;
#[cfg(test)]
mod throttle_tests;
mod throttling;
mod transport;
#[cfg(test)]
mod transport_tests;
mod waiting;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use iscsi_core::disk::barrier::MAX_SESSIONS;
use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::Probe;
use iscsi_core::disk::record::DiskRecord;
use iscsi_core::disk::shared::SharedDisk;
use iscsi_core::scsi::sense::Sense;

pub(crate) use self::inspection::{Inspected, InspectionError};
pub(crate) use self::log_limit::{LogLimit, Suppressed};
pub(crate) use self::message::{Connection, LaneEvent, LaneReports, LossReason, report};
pub(crate) use self::transport::Transport;

use self::inspection::Inspection;
use self::lane::{Lane, LaneConfig};
use self::mailbox::Mailbox;
use self::message::Message;
use self::stats::StatsBook;
use self::throttle::Throttle;
use crate::device::rings::{RingOwner, RingSetup};
use crate::guest_memory::GuestMemory;
use crate::limits::Limits;
use crate::log_context::LogContext;
use crate::sandbox::{self, Trespasser, trespass};
use crate::stats::SessionStats;

/// How long rings may take to drain when they are stopped, all of them together. QEMU stops one
/// after the other and waits for each answer with its big lock held, so a guest's reset or stop
/// takes this long at most when storage does not answer.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// What each ring gets even when the ones before it have used up [`DRAIN_LIMIT`]: enough for
/// storage that does answer, little enough for 64 rings to stay within another second or so.
const DRAIN_GRACE: Duration = Duration::from_millis(20);

/// How long the target may take to answer a logout when the process ends. With
/// [`DRAIN_LIMIT`] it keeps the end within two seconds.
pub(crate) const LOGOUT_LIMIT: Duration = Duration::from_millis(500);

/// How long lanes may take until they go by what is known of the disk now: they look at their
/// messages in each turn.
const FACTS_LIMIT: Duration = Duration::from_secs(1);

/// Requests that one lane has in flight at most. Beyond it they wait in their rings; QEMU's
/// default ring has 128 entries.
const MAX_REQUESTS: usize = 256;

/// What the lanes of a disk have in common.
#[derive(Clone, Debug)]
pub(crate) struct EngineConfig {
    /// What the probe found, with read-only applied. What is found later: [`Engine::set_facts`].
    pub(crate) facts: LunFacts,
    /// The LUN field.
    pub(crate) lun: u64,
    /// The answer to GET_ID.
    pub(crate) device_id: [u8; 20],
    /// How many lanes there may be.
    pub(crate) max_lanes: usize,
    /// The longest that a lane polls before it sleeps; zero for never.
    pub(crate) poll_limit: Duration,
    /// How long a command may be unanswered; `None` for ever.
    pub(crate) command_timeout: Option<Duration>,
    /// Whether a command that cannot be ended otherwise is ended by a LOGICAL UNIT RESET.
    pub(crate) lun_reset: bool,
    /// How long requests wait for lost storage; `None` for ever.
    pub(crate) io_timeout: Option<Duration>,
    /// What the lanes share on the path of a request.
    pub(crate) shared: Arc<SharedDisk>,
    /// Where lanes report to.
    pub(crate) reports: LaneReports,
}

/// How the lanes of a disk ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    /// The target may still run tasks of ours: not every session could be ended in order.
    pub(crate) tasks_left: bool,
}

/// Which lanes and rings of a disk there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// The indexes of the lanes, in ascending order.
    pub(crate) lanes: Vec<usize>,
    /// The rings in use, in ascending order, each with its lane.
    pub(crate) rings: Vec<(u16, usize)>,
    /// The sessions that may have left tasks at the target.
    pub(crate) suspects: Vec<usize>,
}

/// All lanes of one disk.
pub(crate) struct Engine {
    config: EngineConfig,
    state: Mutex<State>,
    /// What lanes are made with that come later. May be locked within `state`, never around it.
    facts: Mutex<LunFacts>,
    /// The disk that every session has to lead to.
    expected: Mutex<DiskRecord>,
    stats: StatsBook,
    /// What its threads log is about its disk, whoever has them started.
    log: LogContext,
}

#[derive(Default)]
struct State {
    /// By lane index; an empty place is reused.
    lanes: Vec<Option<LaneHandle>>,
    /// By ring index.
    rings: HashMap<u16, RingPlace>,
    /// Until when rings are drained that are stopped now; `None` after one was started.
    drain_deadline: Option<Instant>,
    /// How many sessions there are to be had, once the target has refused one.
    granted_lanes: Option<usize>,
    writeback: bool,
    /// What holds the limits; `None` where there are none.
    throttle: Option<Arc<Throttle>>,
    closing: bool,
}

impl State {
    /// The deadline for a ring that is stopped at `now`: that of the first ring of a series, each
    /// of which follows soon after the one before; but never less than [`DRAIN_GRACE`].
    fn drain_deadline(&mut self, now: Instant) -> Instant {
        let of_series = self
            .drain_deadline
            .filter(|deadline| now < *deadline + DRAIN_LIMIT);
        let deadline = *self
            .drain_deadline
            .insert(of_series.unwrap_or(now + DRAIN_LIMIT));
        deadline.max(now + DRAIN_GRACE)
    }
}

struct LaneHandle {
    mailbox: Arc<Mailbox<Message>>,
    /// Disconnected when the thread has ended. Taken by who waits for that.
    ended: Option<Receiver<()>>,
}

/// Who serves a ring, and where it would go on if its lane had never touched it.
struct RingPlace {
    lane: usize,
    next_avail: u16,
}

impl Engine {
    /// An engine whose lane 0 runs with the session of `connection`.
    pub(crate) fn start(config: EngineConfig, connection: Connection) -> io::Result<Arc<Self>> {
        let engine = Self {
            facts: Mutex::new(config.facts.clone()),
            expected: Mutex::new(DiskRecord::of(&config.facts)),
            stats: StatsBook::default(),
            log: LogContext::current(),
            config,
            state: Mutex::default(),
        };
        let lane = engine.spawn_lane(0, &State::default())?;
        lane.mailbox.send(Message::Connected(Box::new(connection)));
        engine.state().lanes.push(Some(lane));
        Ok(Arc::new(engine))
    }

    /// Which lanes and rings there are now.
    pub(crate) fn usage(&self) -> Usage {
        let barrier = &self.config.shared.barrier;
        let state = self.state();
        let present = |(lane, handle): (usize, &Option<LaneHandle>)| handle.as_ref().map(|_| lane);
        let mut rings: Vec<_> = state
            .rings
            .iter()
            .map(|(ring, place)| (*ring, place.lane))
            .collect();
        rings.sort_unstable();
        Usage {
            lanes: state.lanes.iter().enumerate().filter_map(present).collect(),
            rings,
            suspects: (0..MAX_SESSIONS)
                .filter(|session| barrier.is_suspect(*session))
                .collect(),
        }
    }

    /// What all lanes have counted, by session.
    pub(crate) fn stats(&self) -> Vec<SessionStats> {
        self.stats.read()
    }

    /// The disk that every session has to lead to.
    pub(crate) fn expected_disk(&self) -> DiskRecord {
        self.expected().clone()
    }

    fn expected(&self) -> MutexGuard<'_, DiskRecord> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn facts(&self) -> MutexGuard<'_, LunFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk is like this now. Returns when every lane judges requests by it, which is when a
    /// guest may be told. A lane that does not come to it within [`FACTS_LIMIT`] is not waited for.
    pub(crate) async fn set_facts(&self, facts: LunFacts) {
        let mut taken = self.hand_out(&facts);
        if tokio::time::timeout(FACTS_LIMIT, taken.recv())
            .await
            .is_err()
        {
            log::warn!("a lane is held up: it does not know of the disk's change yet");
        }
    }

    /// Ends when every lane has taken the facts.
    fn hand_out(&self, facts: &LunFacts) -> tokio::sync::mpsc::Receiver<Infallible> {
        let mut expected = self.expected();
        *expected = expected.clone().with_at_least(facts.capacity_blocks);
        drop(expected);
        *self.facts() = facts.clone();
        let (taken, all_taken) = tokio::sync::mpsc::channel(1);
        self.tell_all(|| Message::SetFacts {
            facts: Box::new(facts.clone()),
            taken: taken.clone(),
        });
        all_taken
    }

    /// The disk is going to be probed: lanes report again what they notice from now on.
    pub(crate) fn facts_are_read(&self) {
        self.tell_all(|| Message::FactsAreRead);
    }

    /// Has a lane run `probe` on its session; the first lane, when that one is gone. Who asks limits
    /// the time.
    pub(crate) async fn inspect(&self, lane: usize, probe: Probe) -> Inspected {
        let (reply, inspected) = tokio::sync::oneshot::channel();
        {
            let state = self.state();
            let present = |lane: usize| state.lanes.get(lane).and_then(Option::as_ref);
            let lane = present(lane).or_else(|| present(0));
            let Some(lane) = lane.filter(|_| !state.closing) else {
                return Err(InspectionError::NoSession);
            };
            lane.mailbox
                .send(Message::Inspect(Inspection::new(probe, reply)));
        }
        inspected.await.unwrap_or(Err(InspectionError::NoSession))
    }

    /// The LUN is another disk than the guest's: no session may stay.
    pub(crate) fn lose_sessions_to(&self, found: &DiskRecord) {
        let expected = self.expected_disk();
        self.tell_all(|| {
            Message::LoseSession(LossReason::WrongDisk {
                expected: Box::new(expected.clone()),
                found: Box::new(found.clone()),
            })
        });
    }

    /// The limits from now on. What is held goes at once, as far as the new ones allow; a burst is
    /// due again.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        let mut state = self.state();
        state.throttle = Throttle::new(limits, Instant::now()).map(Arc::new);
        for lane in state.lanes.iter().flatten() {
            let throttle = state.throttle.clone();
            lane.mailbox.send(Message::SetThrottle(throttle));
        }
    }

    /// The target says that it lost its power: what was in its cache may be gone, and the next flush
    /// has to say so.
    pub(crate) fn power_lost(&self, sense: Sense) {
        if self.config.shared.durability.power_lost(sense) {
            log::error!(
                "the target says that it lost power ({sense}) while it had acknowledged writes in its \
                 volatile cache: the next flush fails"
            );
        }
    }

    /// The target may have ended tasks of any session without an answer.
    pub(crate) fn reconcile(&self) {
        self.tell_all(|| Message::Reconcile);
    }

    /// Whether the target may still run tasks of a former session of this lane.
    pub(crate) fn has_tasks_left(&self, lane: usize) -> bool {
        self.config.shared.barrier.is_suspect(lane)
    }

    /// The target has ended all former tasks of this lane's session: it took a login with the same
    /// ISID.
    pub(crate) fn tasks_ended(&self, lane: usize) {
        if self.config.shared.barrier.lower(lane) {
            self.tell_all(|| Message::BarrierFell);
        }
    }

    /// Gives a lane the session that it waits for. One that is not there any more, or not yet
    /// wanted, has no use for it: it is closed.
    pub(crate) fn connect(&self, lane: usize, connection: Connection) {
        self.tasks_ended(lane);
        if let Some(Some(lane)) = self.state().lanes.get(lane) {
            lane.mailbox.send(Message::Connected(Box::new(connection)));
        }
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
            if let Some(place) = state.rings.get_mut(&ring.index) {
                place.lane = 0;
            }
            if let Some(Some(first)) = state.lanes.first() {
                first.mailbox.send(Message::AdoptRing(Box::new(ring)));
            }
        }
    }

    /// The front-end has gone and its rings are stopped: lanes other than the first log out.
    pub(crate) fn front_end_gone(&self) {
        let mut state = self.state();
        for lane in state.lanes.iter_mut().skip(1).filter_map(Option::take) {
            lane.mailbox.send(Message::Close);
        }
        state.lanes.truncate(1);
        // The next front-end may find a target that grants more.
        state.granted_lanes = None;
    }

    /// Ends all lanes: requests in flight get their time, sessions are logged out. Blocks until
    /// that is done, which [`DRAIN_LIMIT`] and [`LOGOUT_LIMIT`] bound.
    ///
    /// The lanes stay known meanwhile: a front-end that stops its rings now gets a lane's own
    /// answer or none, never one about a ring that is still being served.
    pub(crate) fn close(&self) -> Closed {
        let lanes = self.tell_lanes_to_close();
        let deadline = Instant::now() + DRAIN_LIMIT + LOGOUT_LIMIT;
        for ended in lanes {
            // The lane bounds itself; should it fail to end, it must not keep the process.
            let limit = deadline.saturating_duration_since(Instant::now());
            let _ = ended.recv_timeout(limit + Duration::from_millis(100));
        }
        Closed {
            tasks_left: self.config.shared.barrier.is_raised(),
        }
    }

    fn tell_lanes_to_close(&self) -> Vec<Receiver<()>> {
        let mut state = self.state();
        state.closing = true;
        let lanes = state.lanes.iter_mut().flatten();
        lanes
            .filter_map(|lane| {
                lane.mailbox.send(Message::Close);
                lane.ended.take()
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn_lane(&self, index: usize, state: &State) -> io::Result<LaneHandle> {
        let mailbox = Mailbox::new()?;
        let config = LaneConfig {
            index,
            facts: self.facts().clone(),
            lun: self.config.lun,
            device_id: self.config.device_id,
            writeback: state.writeback,
            poll_limit: self.config.poll_limit,
            command_timeout: self.config.command_timeout,
            lun_reset: self.config.lun_reset,
            io_timeout: self.config.io_timeout,
            throttle: state.throttle.clone(),
            shared: Arc::clone(&self.config.shared),
            reports: self.config.reports.clone(),
            stats: self.stats.add_lane(index),
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
        })
    }

    /// Which lane is to serve another ring: the one with the fewest, or a new one while the
    /// fewest is not none and there may be more.
    fn choose_lane(&self, state: &mut State) -> usize {
        let load = |lane: usize| {
            state
                .rings
                .values()
                .filter(|place| place.lane == lane)
                .count()
        };
        let present = state
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.is_some());
        let (least, rings) = present
            .map(|(index, _)| (index, load(index)))
            .min_by_key(|(_, rings)| *rings)
            .unwrap_or((0, 0));
        let free = state
            .lanes
            .iter()
            .position(Option::is_none)
            .unwrap_or(state.lanes.len());
        let max_lanes = state.granted_lanes.unwrap_or(self.config.max_lanes);
        if rings == 0 || free >= max_lanes {
            return least;
        }
        match self.spawn_lane(free, state) {
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

    fn tell_lane_of(&self, ring: u16, message: Message) {
        let state = self.state();
        let lane = state
            .rings
            .get(&ring)
            .and_then(|place| state.lanes.get(place.lane));
        if let Some(Some(lane)) = lane {
            lane.mailbox.send(message);
        }
    }

    fn tell_all(&self, message: impl Fn() -> Message) {
        for lane in self.state().lanes.iter().flatten() {
            lane.mailbox.send(message());
        }
    }
}

impl RingOwner for Engine {
    fn start_ring(&self, setup: RingSetup) {
        let mut state = self.state();
        if state.closing {
            return;
        }
        state.drain_deadline = None;
        let lane = self.choose_lane(&mut state);
        state.rings.insert(
            setup.index,
            RingPlace {
                lane,
                next_avail: setup.next_avail,
            },
        );
        log::debug!(
            "ring {} of {} entries is served by lane {lane}",
            setup.index,
            setup.size
        );
        if let Some(Some(lane)) = state.lanes.get(lane) {
            lane.mailbox.send(Message::StartRing(Box::new(setup)));
        }
    }

    fn stop_ring(&self, index: u16) -> u16 {
        let (reply, next_avail) = sync_channel(1);
        let deadline = self.state().drain_deadline(Instant::now());
        let stop = Message::StopRing {
            index,
            deadline,
            reply,
        };
        self.tell_lane_of(index, stop);
        // The lane bounds the drain; the rest is for a machine that is busy.
        let limit = DRAIN_LIMIT + Duration::from_secs(1);
        let answer = next_avail.recv_timeout(limit).ok();
        let place = self.state().rings.remove(&index);
        answer.or(place.map(|place| place.next_avail)).unwrap_or(0)
    }

    fn set_call(&self, index: u16, call: Option<OwnedFd>) {
        self.tell_lane_of(index, Message::SetCall { index, call });
    }

    fn set_kick(&self, index: u16, kick: OwnedFd) {
        self.tell_lane_of(index, Message::SetKick { index, kick });
    }

    fn set_memory(&self, memory: Arc<GuestMemory>) {
        self.tell_all(|| Message::SetMemory(Arc::clone(&memory)));
    }

    fn set_writeback(&self, writeback: bool) {
        self.state().writeback = writeback;
        self.tell_all(|| Message::SetWriteback(writeback));
    }

    fn take_over(&self, disk: DiskRecord) {
        let mut expected = self.expected();
        let found = std::mem::replace(&mut *expected, disk);
        if expected.accepts(&found) {
            let capacity_blocks = expected.capacity_blocks;
            *expected = expected.clone().with_at_least(found.capacity_blocks);
            report(
                &self.config.reports,
                LaneEvent::DiskTakenOver { capacity_blocks },
            );
            return;
        }
        drop(expected);
        self.lose_sessions_to(&found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_that_are_stopped_one_after_the_other_share_one_deadline() {
        let mut state = State::default();
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
