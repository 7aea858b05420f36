//! The data plane: lanes, each a thread with its rings and its own iSCSI session.
//!
//! The [`Lanes`] are those of a target. An [`Engine`] is a disk on them: it gives its rings to lanes as
//! they come into use. Everything that happens on the path of a request happens within one lane; locks
//! are taken only to start and stop things.

mod bucket;
mod coalescing;
mod completion;
mod in_flight;
mod inspection;
mod intake;
mod lane;
mod lanes;
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
mod unit;
mod waiting;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use iscsi_core::disk::barrier::MAX_SESSIONS;
use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::Probe;
use iscsi_core::disk::record::DiskRecord;
use iscsi_core::disk::shared::SharedDisk;
use iscsi_core::scsi::sense::Sense;

pub(crate) use self::inspection::{Inspected, InspectionError, Seen};
pub(crate) use self::lanes::{Closing, Lanes, LanesConfig};
pub(crate) use self::log_limit::{LogLimit, Suppressed};
pub(crate) use self::message::{
    Connection, DiskEvent, DiskReports, LaneEvent, LaneReports, LossReason, SessionNumber, report,
};
pub(crate) use self::transport::Transport;
pub(crate) use self::unit::UnitId;

use self::lanes::{DiskPlace, RingPlace};
use self::message::{Message, UnitMessage};
use self::stats::StatsBook;
use self::throttle::Throttle;
use crate::device::rings::{RingOwner, RingSetup};
use crate::guest_memory::GuestMemory;
use crate::limits::Limits;
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

/// What the lanes need of a disk.
#[derive(Clone, Debug)]
pub(crate) struct EngineConfig {
    /// What the probe found, with read-only applied. What is found later: [`Engine::set_facts`].
    pub(crate) facts: LunFacts,
    /// The LUN field.
    pub(crate) lun: u64,
    /// The answer to GET_ID.
    pub(crate) device_id: [u8; 20],
    /// How long requests wait for lost storage; `None` for ever.
    pub(crate) io_timeout: Option<Duration>,
    /// What the lanes share on the path of a request. Its barrier is that of the lanes.
    pub(crate) shared: Arc<SharedDisk>,
    /// Where lanes report what is about the disk.
    pub(crate) reports: DiskReports,
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

/// One disk on the lanes of its target.
pub(crate) struct Engine {
    config: EngineConfig,
    lanes: Arc<Lanes>,
    unit: UnitId,
    /// The disk that every session has to lead to.
    expected: Mutex<DiskRecord>,
    stats: Arc<StatsBook>,
}

impl Engine {
    /// Serves a disk on lanes that may be there already. It waits for a session that leads to it:
    /// [`Lanes::connect`], [`Engine::admit`].
    pub(crate) fn start(lanes: Arc<Lanes>, config: EngineConfig) -> Arc<Self> {
        let stats = Arc::<StatsBook>::default();
        let unit = lanes.add_disk(DiskPlace::new(config.clone(), Arc::clone(&stats)));
        Arc::new(Self {
            expected: Mutex::new(DiskRecord::of(&config.facts)),
            config,
            lanes,
            unit,
            stats,
        })
    }

    /// Which of the disks of its lanes it is.
    pub(crate) fn unit(&self) -> UnitId {
        self.unit
    }

    /// Which lanes and rings there are now.
    pub(crate) fn usage(&self) -> Usage {
        let barrier = self.lanes.barrier();
        let mut state = self.lanes.state();
        let lanes = state.lanes_of(self.unit);
        let disk = state.disk(self.unit);
        let rings = disk.into_iter().flat_map(|disk| &disk.rings);
        let mut rings: Vec<_> = rings.map(|(ring, place)| (*ring, place.lane)).collect();
        rings.sort_unstable();
        Usage {
            lanes,
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
        let (taken, all_taken) = tokio::sync::mpsc::channel(1);
        let mut state = self.lanes.state();
        if let Some(disk) = state.disk(self.unit) {
            disk.facts = facts.clone();
        }
        state.tell_all_of(self.unit, || UnitMessage::SetFacts {
            facts: Box::new(facts.clone()),
            taken: taken.clone(),
        });
        all_taken
    }

    /// The disk is going to be probed: lanes report again what they notice from now on.
    pub(crate) fn facts_are_read(&self) {
        self.tell_all(|| UnitMessage::FactsAreRead);
    }

    /// Has a lane run `probe` on its session; the first lane, when that one is gone. Who asks limits
    /// the time.
    pub(crate) async fn inspect(&self, lane: usize, probe: Probe) -> Inspected {
        self.lanes.inspect(lane, self.config.lun, probe).await
    }

    /// The session of a lane leads to the disk, as somebody has seen; requests go there from now on.
    pub(crate) fn admit(&self, lane: usize, session: SessionNumber) {
        let message = Message::Unit(self.unit, UnitMessage::Admit(session));
        self.lanes.state().tell(lane, message);
    }

    /// The LUN is another disk than the guest's: no session may carry its requests.
    pub(crate) fn refuse(&self, found: &DiskRecord) {
        let expected = self.expected_disk();
        self.tell_all(|| {
            UnitMessage::Refuse(LossReason::WrongDisk {
                expected: Box::new(expected.clone()),
                found: Box::new(found.clone()),
            })
        });
    }

    /// The limits from now on. What is held goes at once, as far as the new ones allow; a burst is
    /// due again.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        let throttle = Throttle::new(limits, Instant::now()).map(Arc::new);
        let mut state = self.lanes.state();
        if let Some(disk) = state.disk(self.unit) {
            disk.throttle.clone_from(&throttle);
        }
        state.tell_all_of(self.unit, || UnitMessage::SetThrottle(throttle.clone()));
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

    /// The front-end has gone and its rings are stopped: lanes other than the first are not needed for
    /// this disk any more.
    pub(crate) fn front_end_gone(&self) {
        self.lanes.front_end_gone(self.unit);
    }

    /// Begins to end the disk: requests in flight get their time, the sessions of the last disk are logged
    /// out.
    pub(crate) fn begin_close(&self) -> Closing {
        self.lanes.begin_close(self.unit)
    }

    fn tell_lane_of(&self, ring: u16, message: UnitMessage) {
        let mut state = self.lanes.state();
        let disk = state.disk(self.unit);
        let place = disk.and_then(|disk| disk.rings.get(&ring));
        if let Some(lane) = place.map(|place| place.lane) {
            state.tell(lane, Message::Unit(self.unit, message));
        }
    }

    fn tell_all(&self, message: impl Fn() -> UnitMessage) {
        self.lanes.state().tell_all_of(self.unit, message);
    }
}

impl RingOwner for Engine {
    fn start_ring(&self, setup: RingSetup) {
        let mut state = self.lanes.state();
        let Some(lane) = self.lanes.choose_lane(&mut state, self.unit) else {
            return;
        };
        let place = RingPlace {
            lane,
            next_avail: setup.next_avail,
        };
        if let Some(disk) = state.disk(self.unit) {
            disk.rings.insert(setup.index, place);
        }
        log::debug!(
            "ring {} of {} entries is served by lane {lane}",
            setup.index,
            setup.size
        );
        let start = UnitMessage::StartRing(Box::new(setup));
        state.tell(lane, Message::Unit(self.unit, start));
    }

    fn stop_ring(&self, index: u16) -> u16 {
        let (reply, next_avail) = sync_channel(1);
        let now = Instant::now();
        let deadline = self
            .lanes
            .state()
            .disk(self.unit)
            .map(|disk| disk.drain_deadline(now));
        let stop = UnitMessage::StopRing {
            index,
            deadline: deadline.unwrap_or(now),
            reply,
        };
        self.tell_lane_of(index, stop);
        // The lane bounds the drain; the rest is for a machine that is busy.
        let limit = DRAIN_LIMIT + Duration::from_secs(1);
        let answer = next_avail.recv_timeout(limit).ok();
        let mut state = self.lanes.state();
        let place = state
            .disk(self.unit)
            .and_then(|disk| disk.rings.remove(&index));
        answer.or(place.map(|place| place.next_avail)).unwrap_or(0)
    }

    fn set_call(&self, index: u16, call: Option<OwnedFd>) {
        self.tell_lane_of(index, UnitMessage::SetCall { index, call });
    }

    fn set_kick(&self, index: u16, kick: OwnedFd) {
        self.tell_lane_of(index, UnitMessage::SetKick { index, kick });
    }

    fn set_memory(&self, memory: Arc<GuestMemory>) {
        self.tell_all(|| UnitMessage::SetMemory(Arc::clone(&memory)));
    }

    fn set_writeback(&self, writeback: bool) {
        let mut state = self.lanes.state();
        if let Some(disk) = state.disk(self.unit) {
            disk.writeback = writeback;
        }
        state.tell_all_of(self.unit, || UnitMessage::SetWriteback(writeback));
    }

    fn take_over(&self, disk: DiskRecord) {
        let mut expected = self.expected();
        let found = std::mem::replace(&mut *expected, disk);
        if expected.accepts(&found) {
            let capacity_blocks = expected.capacity_blocks;
            *expected = expected.clone().with_at_least(found.capacity_blocks);
            report(
                &self.config.reports,
                DiskEvent::TakenOver { capacity_blocks },
            );
            return;
        }
        drop(expected);
        self.refuse(&found);
    }
}
