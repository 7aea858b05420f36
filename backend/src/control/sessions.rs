//! The sessions of a disk's lanes: made when wanted, made again when lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::record::DiskRecord;
use iscsi_core::login::settings::Isid;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::board::{Board, describe};
use super::error::ControlError;
use super::isid::SessionNames;
use super::known_lun::{Change, KnownLun};
use super::probe::{Probed, log_in_and_probe};
use super::socket::SessionsInUse;
use super::watch::watch;
use crate::config::DiskSettings;
use crate::device::{BlockDevice, Told};
use crate::engine::{Engine, LOGOUT_LIMIT, LaneEvent, LossReason};
use crate::log_context::LogContext;
use crate::status::LunStatus;

/// The pause before the second try of a login; the first one comes at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between tries.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What a session that ends as soon as it is there, again and again, is most likely to mean.
const DISPLACED: &str = " after a while: sessions end as soon as they are there; does another initiator \
                         use our name and ISID?";

/// What every login of the disk's sessions needs.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) disk: DiskSettings,
    pub(super) names: SessionNames,
    /// How many sessions have been in use is written down here.
    pub(super) usage: SessionsInUse,
    pub(super) portal_group_tag: Option<u16>,
    /// What the LUN is like. Locked while a change is made known, so that one follows the other.
    pub(super) known: tokio::sync::Mutex<KnownLun>,
    /// Whoever looks into the process reads it there.
    pub(super) board: Arc<Board>,
}

/// What serves a disk: the lanes, and what a guest sees.
pub(super) struct Serving {
    pub(super) engine: Arc<Engine>,
    pub(super) device: Arc<BlockDevice>,
}

/// Keeps the sessions of a disk, serves the lanes' wishes and looks at the LUN, until it is told to end.
pub(super) struct Keeper {
    over: oneshot::Sender<()>,
    keep: JoinHandle<()>,
    watch: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(
        sessions: Arc<Sessions>,
        serving: Arc<Serving>,
        events: UnboundedReceiver<LaneEvent>,
    ) -> Self {
        let (over, told) = oneshot::channel();
        let (changes, outdated) = unbounded_channel();
        let watched = watch(Arc::clone(&sessions), Arc::clone(&serving), outdated);
        let kept = keep(sessions, serving, events, changes, told);
        let context = LogContext::current();
        Self {
            over,
            keep: tokio::spawn(context.clone().scope(kept)),
            watch: tokio::spawn(context.scope(watched)),
        }
    }

    /// Gives up every login and every look that is under way. When this returns nothing of the disk's
    /// is held any more.
    pub(super) async fn end(self) {
        let _ = self.over.send(());
        give_up(self.watch).await;
        let _ = self.keep.await;
    }
}

/// Who was told of a change of the LUN is passed on to `outdated`.
///
/// One login at a time for each lane: a second one with the same ISID would end the session that
/// the first had made, whose loss would call for a third, and so on for ever. It happens when a
/// lane is closed while its login waits for the target, and another takes its place.
async fn keep(
    sessions: Arc<Sessions>,
    serving: Arc<Serving>,
    mut events: UnboundedReceiver<LaneEvent>,
    outdated: UnboundedSender<usize>,
    mut over: oneshot::Receiver<()>,
) {
    let mut logins: HashMap<usize, JoinHandle<()>> = HashMap::new();
    let mut losses: HashMap<usize, Losses> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = &mut over => None,
        };
        let Some(event) = event else { break };
        let lane = match event {
            LaneEvent::TasksCleared => {
                serving.engine.reconcile();
                continue;
            }
            LaneEvent::FactsOutdated { lane } => {
                let _ = outdated.send(lane);
                continue;
            }
            LaneEvent::DiskTakenOver { capacity_blocks } => {
                sessions.show_at_least(&serving, capacity_blocks).await;
                continue;
            }
            LaneEvent::SessionWanted { lane }
            | LaneEvent::TasksLeft { lane }
            | LaneEvent::SessionLost { lane, .. } => lane,
        };
        if let Some(former) = logins.remove(&lane) {
            give_up(former).await;
        }
        let pause = match event {
            LaneEvent::SessionLost { .. } => {
                losses.entry(lane).or_default().next_pause(Instant::now())
            }
            _ => Duration::ZERO,
        };
        let (sessions, serving) = (Arc::clone(&sessions), Arc::clone(&serving));
        let login = async move {
            match event {
                LaneEvent::SessionWanted { lane } => sessions.open(&serving, lane).await,
                LaneEvent::TasksLeft { lane } => sessions.end_tasks(&serving.engine, lane).await,
                LaneEvent::SessionLost { lane, reason } => {
                    sessions.reopen(&serving, lane, &reason, pause).await;
                }
                LaneEvent::TasksCleared
                | LaneEvent::FactsOutdated { .. }
                | LaneEvent::DiskTakenOver { .. } => {}
            }
        };
        let login = tokio::spawn(LogContext::current().with_session(lane).scope(login));
        logins.insert(lane, login);
    }
    for login in logins.into_values() {
        give_up(login).await;
    }
}

async fn give_up(login: JoinHandle<()>) {
    login.abort();
    let _ = login.await;
}

/// How often a lane has lost its session shortly after it came up.
#[derive(Debug, Default)]
struct Losses {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Losses {
    /// How long to wait before the next login: not at all after a session that lived, longer and
    /// longer when one after the other is lost at once.
    fn next_pause(&mut self, now: Instant) -> Duration {
        let is_quick = self
            .last
            .is_some_and(|last| now.duration_since(last) < 2 * LAST_PAUSE);
        self.in_a_row = if is_quick {
            self.in_a_row.saturating_add(1)
        } else {
            0
        };
        self.last = Some(now);
        match self.in_a_row {
            0 | 1 => Duration::ZERO,
            count => with_jitter(LAST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(count - 2))),
        }
    }
}

impl Sessions {
    /// The session that the disk starts with.
    pub(super) fn first_is_there(&self, probed: &Probed) {
        self.board.logs_in(0, self.names.isid(0).to_string());
        let lun = LunStatus::of(self.disk.target.lun, &probed.facts, &probed.facts);
        self.board.lun_is(LunStatus {
            read_only: lun.read_only || self.disk.read_only,
            ..lun
        });
        self.board.logged_in(0, describe(probed));
    }

    /// A lane's first session. When it is not to be had, for whatever reason, the lane's rings
    /// share the first lane's session rather than wait.
    async fn open(self: &Arc<Self>, serving: &Arc<Serving>, lane: usize) {
        self.usage.note(lane + 1);
        self.board.logs_in(lane, self.names.isid(lane).to_string());
        match self.connect(serving, lane).await {
            Ok(()) => log::info!("session {lane} of {} is up", self.disk.target),
            Err(error) => {
                log::warn!(
                    "session {lane} of {} cannot be had, its queues share the first one: {error}",
                    self.disk.target
                );
                self.board.refused(lane, &error);
                serving.engine.merge(lane);
                self.end_tasks(&serving.engine, lane).await;
            }
        }
    }

    /// Has the target end what is left of a session that nobody uses any more: by a login with its
    /// ISID, and a logout. No command of the disk goes out before.
    async fn end_tasks(&self, engine: &Engine, lane: usize) {
        let mut waiting = Waiting::new(lane, "no command goes out before its old tasks are ended");
        if engine.has_tasks_left(lane) {
            self.board
                .ends_tasks(lane, self.names.isid(lane).to_string());
        }
        while engine.has_tasks_left(lane) {
            match self.log_in(self.names.isid(lane)).await {
                Ok(probed) => {
                    engine.tasks_ended(lane);
                    self.board.tasks_ended(lane);
                    log::debug!(
                        "session {lane} of {}: old tasks are ended",
                        self.disk.target
                    );
                    let mut commands = probed.commands;
                    let _ = tokio::time::timeout(LOGOUT_LIMIT, commands.log_out()).await;
                }
                Err(error) => {
                    self.board.login_failed(lane, &error);
                    waiting.again(&error).await;
                }
            }
        }
    }

    /// A session was lost: the same one is made again, for as long as it takes.
    async fn reopen(
        self: &Arc<Self>,
        serving: &Arc<Serving>,
        lane: usize,
        reason: &LossReason,
        pause: Duration,
    ) {
        log::warn!(
            "session {lane} of {} is lost: {reason}; logging in again{}",
            self.disk.target,
            if pause.is_zero() { "" } else { DISPLACED }
        );
        self.board.lost(lane, reason);
        let time2wait = Duration::from_secs(reason.time2wait_s().into());
        tokio::time::sleep(time2wait.min(LAST_PAUSE).max(pause)).await;
        match self.connect(serving, lane).await {
            Ok(()) => log::info!("session {lane} of {} is up again", self.disk.target),
            Err(error) => self.retry(serving, lane, error).await,
        }
    }

    async fn retry(self: &Arc<Self>, serving: &Arc<Serving>, lane: usize, mut error: ControlError) {
        let mut waiting = Waiting::new(lane, "requests wait until the target is back");
        loop {
            waiting.again(&error).await;
            match self.connect(serving, lane).await {
                Ok(()) => break,
                Err(another) => error = another,
            }
        }
        log::info!("session {lane} of {} is up again", self.disk.target);
    }

    async fn connect(
        self: &Arc<Self>,
        serving: &Arc<Serving>,
        lane: usize,
    ) -> Result<(), ControlError> {
        let connected = self.try_to_connect(serving, lane).await;
        connected.inspect_err(|error| self.board.login_failed(lane, error))
    }

    async fn try_to_connect(
        self: &Arc<Self>,
        serving: &Arc<Serving>,
        lane: usize,
    ) -> Result<(), ControlError> {
        let engine = &serving.engine;
        let probed = self.log_in(self.names.isid(lane)).await?;
        self.check_disk(&probed, &engine.expected_disk())?;
        if let Some(sense) = probed.power_loss {
            engine.power_lost(sense);
        }
        let portal = probed.commands.portal().clone();
        let login = describe(&probed);
        let connection = probed
            .commands
            .into_connection()
            .map_err(|error| ControlError::Io {
                portal,
                during: "while it was handed over",
                error,
            })?;
        // Before the lane sends what waits.
        self.learn(serving, probed.facts).await;
        self.board.logged_in(lane, login);
        engine.connect(lane, connection);
        Ok(())
    }

    /// The LUN was found to be like this: whatever has changed is made known, first to the lanes, for a
    /// guest makes use of it as soon as it is told.
    pub(super) async fn learn(self: &Arc<Self>, serving: &Arc<Serving>, found: LunFacts) {
        let (sessions, serving) = (Arc::clone(self), Arc::clone(serving));
        // To its end, also when the login that brought it is given up meanwhile.
        let learning = async move { sessions.learn_to_the_end(&serving, found).await };
        let _ = tokio::spawn(LogContext::current().scope(learning)).await;
    }

    async fn learn_to_the_end(&self, serving: &Serving, found: LunFacts) {
        let mut known = self.known.lock().await;
        if *known.found() == found {
            return;
        }
        let changes = known.learn(found);
        self.make_known(serving, &known, &changes).await;
    }

    /// A guest knows of so many blocks from a former process.
    async fn show_at_least(&self, serving: &Serving, blocks: u64) {
        let mut known = self.known.lock().await;
        if let Some(change) = known.show_at_least(blocks) {
            self.make_known(serving, &known, &[change]).await;
        }
    }

    async fn make_known(&self, serving: &Serving, known: &KnownLun, changes: &[Change]) {
        let served = known.served();
        serving.engine.set_facts(served.clone()).await;
        let told = serving.device.show_change(&served);
        let lun = self.disk.target.lun;
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
            log::log!(change.level(), "{}: {change}{told}", self.disk.target);
        }
    }

    async fn log_in(&self, isid: Isid) -> Result<Probed, ControlError> {
        let DiskSettings {
            target, initiator, ..
        } = &self.disk;
        log_in_and_probe(target, initiator, isid, self.portal_group_tag).await
    }

    /// Bytes must never go to the wrong disk.
    fn check_disk(&self, probed: &Probed, expected: &DiskRecord) -> Result<(), ControlError> {
        let found = DiskRecord::of(&probed.facts);
        if expected.accepts(&found) {
            return Ok(());
        }
        Err(ControlError::IdentityChanged {
            portal: probed.commands.portal().clone(),
            target: self.disk.target.target.to_string(),
            lun: self.disk.target.lun,
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }
}

/// Waiting for a target between tries: longer and longer, and in the log once for each reason; each
/// further try only for those who debug.
struct Waiting {
    lane: usize,
    consequence: &'static str,
    pause: Duration,
    reason: String,
}

impl Waiting {
    fn new(lane: usize, consequence: &'static str) -> Self {
        Self {
            lane,
            consequence,
            pause: FIRST_PAUSE,
            reason: String::new(),
        }
    }

    /// A try has failed with `error`; returns when the next one is due.
    async fn again(&mut self, error: &ControlError) {
        let former = std::mem::replace(&mut self.reason, error.to_string());
        let level = if self.reason == former {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        let Self {
            lane,
            consequence,
            reason,
            ..
        } = self;
        log::log!(level, "session {lane}: {reason}; {consequence}");
        tokio::time::sleep(with_jitter(self.pause)).await;
        self.pause = LAST_PAUSE.min(self.pause * 2);
    }
}

/// Between the half and the whole of `pause`, so that many hosts do not come back at once.
fn with_jitter(pause: Duration) -> Duration {
    let part = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + part / 2.0)
}

/// The pauses between tries at the start of the process, with `--wait-for-target`.
pub(super) fn start_pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_PAUSE), |pause| Some(LAST_PAUSE.min(*pause * 2)))
        .map(with_jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_are_lost_at_once_are_made_again_more_and_more_slowly() {
        let mut losses = Losses::default();
        let start = Instant::now();
        assert_eq!(losses.next_pause(start), Duration::ZERO);
        assert_eq!(losses.next_pause(start), Duration::ZERO);
        let pauses: Vec<_> = (0..10).map(|_| losses.next_pause(start)).collect();
        assert!(pauses[0] >= FIRST_PAUSE / 2 && pauses[0] <= FIRST_PAUSE);
        assert!(pauses[9] >= LAST_PAUSE / 2 && pauses[9] <= LAST_PAUSE);
        assert_eq!(losses.next_pause(start + 3 * LAST_PAUSE), Duration::ZERO);
    }
}
