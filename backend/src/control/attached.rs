//! A disk that is attached to sessions: what its LUN is known to be like, and what serves it.

use std::collections::HashMap;
use std::sync::Arc;

use iscsi_core::disk::durability::Durability;
use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::Probe;
use iscsi_core::disk::record::DiskRecord;
use iscsi_core::disk::shared::SharedDisk;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use super::backoff::Waiting;
use super::board::Board;
use super::error::ControlError;
use super::known_lun::{Change, KnownLun};
use super::sessions::{Sessions, give_up};
use super::watch::watch;
use crate::config::DiskSettings;
use crate::device::Told;
use crate::device::backend::{BlockDevice, DeviceSettings};
use crate::device::serial::device_id;
use crate::engine::{DiskEvent, Engine, EngineConfig, Inspected, InspectionError, Lanes, Seen};
use crate::log_context::LogContext;
use crate::portal::Portal;
use crate::status::LunStatus;

/// A disk on the sessions of its target.
pub(super) struct Attached {
    pub(super) settings: DiskSettings,
    pub(super) engine: Arc<Engine>,
    /// What a guest sees.
    pub(super) device: Arc<BlockDevice>,
    /// Whoever looks into the process reads it there.
    pub(super) board: Arc<Board>,
    /// What the LUN is like. Locked while a change is made known, so that one follows the other.
    known: Mutex<KnownLun>,
    /// One look at a time: a lane gives one up for another.
    looking: Mutex<()>,
}

impl Attached {
    /// A disk whose LUN was found to be like this. The events are for [`Follower::start`].
    pub(super) fn new(
        lanes: &Arc<Lanes>,
        settings: &DiskSettings,
        lun: u64,
        facts: LunFacts,
        board: &Arc<Board>,
    ) -> (Arc<Self>, UnboundedReceiver<DiskEvent>) {
        let known = KnownLun::new(facts, settings.read_only);
        let served = known.served();
        let (reports, events) = unbounded_channel();
        let config = EngineConfig {
            facts: served.clone(),
            lun,
            device_id: device_id(&served, settings.serial.as_ref()),
            io_timeout: settings.io_timeout,
            shared: Arc::new(SharedDisk {
                barrier: Arc::clone(lanes.barrier()),
                durability: durability(settings),
            }),
            reports,
        };
        let engine = Engine::start(Arc::clone(lanes), config);
        let device = DeviceSettings {
            num_queues: settings.num_queues,
            queue_size: settings.queue_size.get(),
            read_only: settings.read_only,
        };
        let lun = LunStatus::of(settings.target.lun, known.found(), &served);
        board.lun_is(lun);
        board.serves(&engine);
        let owner = Arc::clone(&engine);
        let disk = Self {
            settings: settings.clone(),
            engine,
            device: Arc::new(BlockDevice::new(served, device, owner)),
            board: Arc::clone(board),
            known: Mutex::new(known),
            looking: Mutex::default(),
        };
        (Arc::new(disk), events)
    }

    /// What the last look found.
    pub(super) async fn found(&self) -> LunFacts {
        self.known.lock().await.found().clone()
    }

    /// Has a lane look at the LUN.
    pub(super) async fn inspect(&self, lane: usize, probe: Probe) -> Inspected {
        let _one = self.looking.lock().await;
        let limit = self.settings.initiator.login_timeout;
        let looked = tokio::time::timeout(limit, self.engine.inspect(lane, probe)).await;
        looked.unwrap_or(Err(InspectionError::Timeout(limit)))
    }

    /// Bytes must never go to the wrong disk.
    pub(super) fn check(&self, found: &LunFacts, portal: &Portal) -> Result<(), ControlError> {
        let (found, expected) = (DiskRecord::of(found), self.engine.expected_disk());
        if expected.accepts(&found) {
            return Ok(());
        }
        Err(ControlError::IdentityChanged {
            portal: portal.clone(),
            target: self.settings.target.target.to_string(),
            lun: self.settings.target.lun,
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }

    /// The LUN was found to be like this: whatever has changed is made known, first to the lanes, for a
    /// guest makes use of it as soon as it is told.
    pub(super) async fn learn(self: &Arc<Self>, found: LunFacts) {
        let disk = Arc::clone(self);
        // To its end, also when the login that brought it is given up meanwhile.
        let learning = async move { disk.learn_to_the_end(found).await };
        let _ = tokio::spawn(LogContext::current().scope(learning)).await;
    }

    async fn learn_to_the_end(&self, found: LunFacts) {
        let mut known = self.known.lock().await;
        if *known.found() == found {
            return;
        }
        let changes = known.learn(found);
        self.make_known(&known, &changes).await;
    }

    /// A guest knows of so many blocks from a former process.
    async fn show_at_least(&self, blocks: u64) {
        let mut known = self.known.lock().await;
        if let Some(change) = known.show_at_least(blocks) {
            self.make_known(&known, &[change]).await;
        }
    }

    async fn make_known(&self, known: &KnownLun, changes: &[Change]) {
        let served = known.served();
        self.engine.set_facts(served.clone()).await;
        let told = self.device.show_change(&served);
        let lun = self.settings.target.lun;
        self.board
            .lun_is(LunStatus::of(lun, known.found(), &served));
        for change in changes {
            let told = match (change, told) {
                (Change::Grown { .. }, Told::Yes) => "; the guest is told",
                (Change::Grown { .. }, Told::No) => {
                    "; the front-end cannot be told, the guest sees it when that connects anew"
                }
                _ => "",
            };
            log::log!(change.level(), "{}: {change}{told}", self.settings.target);
        }
    }

    /// A lane has a session that nobody has looked at for this disk: its requests go there when it leads
    /// to the disk. Tried for as long as the session is there; the next one asks anew.
    async fn see(self: &Arc<Self>, sessions: &Sessions, lane: usize) {
        let mut waiting = Waiting::new(lane, "requests wait until the LUN can be used");
        loop {
            let error = match self.try_to_see(sessions, lane).await {
                Ok(()) => return,
                Err(Unseen::NoSession) => return,
                Err(Unseen::Failed(error)) => error,
            };
            self.board.login_failed(lane, &error);
            waiting.again(&error).await;
        }
    }

    async fn try_to_see(self: &Arc<Self>, sessions: &Sessions, lane: usize) -> Result<(), Unseen> {
        let target = &self.settings.target;
        let Seen { facts, session } = match self.inspect(lane, Probe::new()).await {
            Ok(seen) => seen,
            Err(InspectionError::NoSession) => return Err(Unseen::NoSession),
            Err(error) => return Err(Unseen::Failed(ControlError::of_look(target, error))),
        };
        self.check(&facts, &target.portal).map_err(Unseen::Failed)?;
        // Before the lane sends what waits.
        self.learn(facts).await;
        if let Some(login) = sessions.login_of(lane) {
            let isid = sessions.isid(lane).to_string();
            self.board.shares(lane, isid, login);
        }
        self.engine.admit(lane, session);
        Ok(())
    }
}

/// Why a session was not seen to lead to a disk.
enum Unseen {
    /// It is gone.
    NoSession,
    /// It may later.
    Failed(ControlError),
}

fn durability(settings: &DiskSettings) -> Durability {
    if settings.ignore_power_loss {
        Durability::ignoring_power_loss()
    } else {
        Durability::default()
    }
}

/// Follows what lanes report of a disk, and looks at its LUN, until it is told to end.
pub(super) struct Follower {
    over: oneshot::Sender<()>,
    follow: JoinHandle<()>,
    watch: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(
        disk: &Arc<Attached>,
        sessions: &Arc<Sessions>,
        events: UnboundedReceiver<DiskEvent>,
    ) -> Self {
        let (over, told) = oneshot::channel();
        let (changes, outdated) = unbounded_channel();
        let watched = watch(Arc::clone(disk), outdated);
        let followed = follow(
            Arc::clone(disk),
            Arc::clone(sessions),
            events,
            changes,
            told,
        );
        let context = LogContext::current();
        Self {
            over,
            follow: tokio::spawn(context.clone().scope(followed)),
            watch: tokio::spawn(context.scope(watched)),
        }
    }

    /// Gives up every look that is under way. When this returns nothing of the disk's is held any more.
    pub(super) async fn end(self) {
        let _ = self.over.send(());
        give_up(self.watch).await;
        let _ = self.follow.await;
    }
}

/// One look for each lane: that at a former session of it is of no use any more.
async fn follow(
    disk: Arc<Attached>,
    sessions: Arc<Sessions>,
    mut events: UnboundedReceiver<DiskEvent>,
    outdated: UnboundedSender<usize>,
    mut over: oneshot::Receiver<()>,
) {
    let mut looks: HashMap<usize, JoinHandle<()>> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = &mut over => None,
        };
        match event {
            Some(DiskEvent::FactsOutdated { lane }) => {
                let _ = outdated.send(lane);
            }
            Some(DiskEvent::TakenOver { capacity_blocks }) => {
                disk.show_at_least(capacity_blocks).await;
            }
            Some(DiskEvent::Unseen { lane }) => {
                if let Some(former) = looks.remove(&lane) {
                    give_up(former).await;
                }
                let (disk, sessions) = (Arc::clone(&disk), Arc::clone(&sessions));
                let look = async move { disk.see(&sessions, lane).await };
                let context = LogContext::current().with_session(lane);
                looks.insert(lane, tokio::spawn(context.scope(look)));
            }
            None => break,
        }
    }
    for look in looks.into_values() {
        give_up(look).await;
    }
}
