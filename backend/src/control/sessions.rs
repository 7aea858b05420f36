//! The sessions of a target's lanes: made when wanted, made again when lost.
//!
//! They are one disk's own, or shared by several. What a session leads to is looked at before it carries
//! requests: that of a disk alone with the login itself, for without the disk it is of no use; a shared
//! one by each of its disks, when the others can use it already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use iscsi_core::login::settings::Isid;
use iscsi_core::scsi::lun::LunAddress;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::attached::Attached;
use super::backoff::{LAST_PAUSE, Losses, Waiting};
use super::board::{Board, describe};
use super::commands::Commands;
use super::error::ControlError;
use super::isid::SessionNames;
use super::login::LoginRequest;
use super::probe::{self, Opened, Probed, log_in_and_probe};
use super::socket::SessionsInUse;
use crate::config::InitiatorSettings;
use crate::engine::{Connection, LOGOUT_LIMIT, LaneEvent, Lanes, LossReason, UnitId};
use crate::log_context::LogContext;
use crate::status::SessionLogin;
use crate::url::TargetUrl;

/// What a session that ends as soon as it is there, again and again, is most likely to mean.
const DISPLACED: &str = " after a while: sessions end as soon as they are there; does another initiator \
                         use our name and ISID?";

/// What every login of the sessions needs.
pub(super) struct SessionSettings {
    /// The target, and the LUN of the first disk.
    pub(super) url: TargetUrl,
    pub(super) initiator: InitiatorSettings,
    pub(super) names: SessionNames,
    pub(super) portal_group_tag: Option<u16>,
    /// How many sessions have been in use is written down here.
    pub(super) usage: Arc<SessionsInUse>,
    /// Whether there may be more disks than one.
    pub(super) is_shared: bool,
}

/// The sessions of a target, and the disks that use them.
pub(super) struct Sessions {
    settings: SessionSettings,
    /// Where they lead to, for the log.
    name: String,
    lanes: Arc<Lanes>,
    disks: Mutex<Vec<Arc<Attached>>>,
    /// By lane.
    logins: Mutex<HashMap<usize, SessionLogin>>,
    /// What the target said last that it has.
    reported: Mutex<Vec<LunAddress>>,
}

/// Keeps the sessions, and serves the lanes' wishes, until it is told to end.
pub(super) struct Keeper {
    over: oneshot::Sender<()>,
    keep: JoinHandle<()>,
}

impl Keeper {
    /// What is logged about the sessions is about `log`.
    pub(super) fn start(
        sessions: Arc<Sessions>,
        events: UnboundedReceiver<LaneEvent>,
        log: &LogContext,
    ) -> Self {
        let (over, told) = oneshot::channel();
        let kept = keep(sessions, events, told);
        Self {
            over,
            keep: tokio::spawn(log.clone().scope(kept)),
        }
    }

    /// Gives up every login that is under way. When this returns nothing of the sessions is held any
    /// more.
    pub(super) async fn end(self) {
        let _ = self.over.send(());
        let _ = self.keep.await;
    }
}

/// One login at a time for each lane: a second one with the same ISID would end the session that
/// the first had made, whose loss would call for a third, and so on for ever. It happens when a
/// lane is closed while its login waits for the target, and another takes its place.
async fn keep(
    sessions: Arc<Sessions>,
    mut events: UnboundedReceiver<LaneEvent>,
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
                sessions.lanes.reconcile();
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
        let sessions = Arc::clone(&sessions);
        let login = async move {
            match event {
                LaneEvent::SessionWanted { lane } => sessions.open(lane).await,
                LaneEvent::TasksLeft { lane } => sessions.end_tasks(lane).await,
                LaneEvent::SessionLost { lane, reason } => {
                    sessions.reopen(lane, &reason, pause).await;
                }
                LaneEvent::TasksCleared => {}
            }
        };
        let login = tokio::spawn(LogContext::current().with_session(lane).scope(login));
        logins.insert(lane, login);
    }
    for login in logins.into_values() {
        give_up(login).await;
    }
}

/// Ends a task, and returns when it has.
pub(super) async fn give_up(task: JoinHandle<()>) {
    task.abort();
    let _ = task.await;
}

impl Sessions {
    pub(super) fn new(settings: SessionSettings, lanes: Arc<Lanes>) -> Self {
        let TargetUrl { portal, target, .. } = &settings.url;
        Self {
            name: if settings.is_shared {
                format!("{target} at {portal}")
            } else {
                settings.url.to_string()
            },
            settings,
            lanes,
            disks: Mutex::default(),
            logins: Mutex::default(),
            reported: Mutex::default(),
        }
    }

    pub(super) fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }

    /// Where what is in use is written down.
    pub(super) fn usage(&self) -> &SessionsInUse {
        &self.settings.usage
    }

    /// Another disk uses the sessions.
    pub(super) fn attach(&self, disk: &Arc<Attached>) {
        self.disks().push(Arc::clone(disk));
    }

    /// A disk does so no more.
    pub(super) fn detach(&self, disk: &Arc<Attached>) {
        self.disks().retain(|other| !Arc::ptr_eq(other, disk));
    }

    /// The name of the disk with this LUN.
    pub(super) fn disk_at(&self, lun: u16) -> Option<String> {
        let disks = self.disks();
        let disk = disks.iter().find(|disk| disk.settings.target.lun == lun)?;
        Some(disk.board.name())
    }

    /// The LUN field of a LUN, in the format in which the target reported it.
    pub(super) fn lun_field(&self, lun: u16) -> u64 {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        probe::lun_field(lun, &reported)
    }

    fn disks(&self) -> MutexGuard<'_, Vec<Arc<Attached>>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disks that a lane serves.
    fn disks_of(&self, lane: usize) -> Vec<Arc<Attached>> {
        let disks = self.disks().clone();
        let uses = |disk: &Arc<Attached>| disk.engine.usage().lanes.contains(&lane);
        disks.into_iter().filter(uses).collect()
    }

    /// The name that a session has for the target.
    pub(super) fn isid(&self, lane: usize) -> Isid {
        self.settings.names.isid(lane)
    }

    /// What the last login of a lane came to.
    pub(super) fn login_of(&self, lane: usize) -> Option<SessionLogin> {
        self.logins().get(&lane).cloned()
    }

    fn logins(&self) -> MutexGuard<'_, HashMap<usize, SessionLogin>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a login came to, for those who ask later.
    pub(super) fn note_login(&self, lane: usize, login: SessionLogin, reported: Vec<LunAddress>) {
        self.logins().insert(lane, login);
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = reported;
    }

    /// A lane's first session. When it is not to be had, for whatever reason, the lane's rings
    /// share the first lane's session rather than wait.
    async fn open(&self, lane: usize) {
        self.usage().note(lane + 1);
        let isid = self.isid(lane).to_string();
        let disks = self.disks_of(lane);
        for disk in &disks {
            disk.board.logs_in(lane, isid.clone());
        }
        match self.connect(lane).await {
            Ok(()) => log::info!("session {lane} of {} is up", self.name),
            Err(error) => {
                log::warn!(
                    "session {lane} of {} cannot be had, its queues share the first one: {error}",
                    self.name
                );
                for disk in &disks {
                    disk.board.refused(lane, &error);
                }
                self.lanes.merge(lane);
                self.end_tasks(lane).await;
            }
        }
    }

    /// Has the target end what is left of a session that nobody uses any more: by a login with its
    /// ISID, and a logout. No command of the disk goes out before.
    async fn end_tasks(&self, lane: usize) {
        let mut waiting = Waiting::new(lane, "no command goes out before its old tasks are ended");
        if self.lanes.has_tasks_left(lane) {
            let isid = self.isid(lane).to_string();
            self.each_board(|board| board.ends_tasks(lane, isid.clone()));
        }
        while self.lanes.has_tasks_left(lane) {
            match self.log_in(lane).await {
                Ok(mut opened) => {
                    self.lanes.tasks_ended(lane);
                    self.each_board(|board| board.tasks_ended(lane));
                    log::debug!("session {lane} of {}: old tasks are ended", self.name);
                    let logout = opened.commands.log_out();
                    let _ = tokio::time::timeout(LOGOUT_LIMIT, logout).await;
                }
                Err(error) => {
                    self.each_board(|board| board.login_failed(lane, &error));
                    waiting.again(&error).await;
                }
            }
        }
    }

    /// No disk can send anything before, whether it uses the session or not.
    fn each_board(&self, tell: impl Fn(&Board)) {
        self.disks().iter().for_each(|disk| tell(&disk.board));
    }

    /// A session was lost: the same one is made again, for as long as it takes.
    async fn reopen(&self, lane: usize, reason: &LossReason, pause: Duration) {
        log::warn!(
            "session {lane} of {} is lost: {reason}; logging in again{}",
            self.name,
            if pause.is_zero() { "" } else { DISPLACED }
        );
        for disk in self.disks_of(lane) {
            disk.board.lost(lane, reason);
        }
        let time2wait = Duration::from_secs(reason.time2wait_s().into());
        tokio::time::sleep(time2wait.min(LAST_PAUSE).max(pause)).await;
        if let Err(error) = self.connect(lane).await {
            self.retry(lane, error).await;
        }
        log::info!("session {lane} of {} is up again", self.name);
    }

    async fn retry(&self, lane: usize, mut error: ControlError) {
        let mut waiting = Waiting::new(lane, "requests wait until the target is back");
        loop {
            waiting.again(&error).await;
            match self.connect(lane).await {
                Ok(()) => break,
                Err(another) => error = another,
            }
        }
    }

    async fn connect(&self, lane: usize) -> Result<(), ControlError> {
        let connected = self.try_to_connect(lane).await;
        connected.inspect_err(|error| {
            for disk in self.disks_of(lane) {
                disk.board.login_failed(lane, error);
            }
        })
    }

    async fn try_to_connect(&self, lane: usize) -> Result<(), ControlError> {
        if !self.settings.is_shared {
            let disk = self.disks().first().cloned();
            return match disk {
                Some(disk) => self.connect_for(&disk, lane).await,
                // It has just ended, and so will its sessions.
                None => Ok(()),
            };
        }
        let Opened {
            commands,
            reported,
            redirects,
        } = self.log_in(lane).await?;
        self.note_login(lane, describe(&commands, &redirects), reported);
        self.hand_over(lane, commands, None)
    }

    /// The LUN is looked at with the login.
    async fn connect_for(&self, disk: &Arc<Attached>, lane: usize) -> Result<(), ControlError> {
        let SessionSettings {
            url,
            initiator,
            portal_group_tag,
            ..
        } = &self.settings;
        let isid = self.isid(lane);
        let probed = log_in_and_probe(url, initiator, isid, *portal_group_tag).await?;
        disk.check(&probed.facts, probed.commands.portal())?;
        let Probed {
            commands,
            facts,
            redirects,
            power_loss,
            ..
        } = probed;
        if let Some(sense) = power_loss {
            disk.engine.power_lost(sense);
        }
        let login = describe(&commands, &redirects);
        // Before the lane sends what waits.
        disk.learn(facts).await;
        disk.board.logged_in(lane, login);
        self.hand_over(lane, commands, Some(disk.engine.unit()))
    }

    fn hand_over(
        &self,
        lane: usize,
        commands: Commands,
        admitted: Option<UnitId>,
    ) -> Result<(), ControlError> {
        let connection = connection(commands)?;
        self.lanes.connect(lane, connection, admitted);
        Ok(())
    }

    async fn log_in(&self, lane: usize) -> Result<Opened, ControlError> {
        let SessionSettings {
            url,
            initiator,
            portal_group_tag,
            ..
        } = &self.settings;
        probe::open(LoginRequest {
            portal: &url.portal,
            target: Some(&url.target),
            initiator,
            isid: self.isid(lane),
            portal_group_tag: *portal_group_tag,
        })
        .await
    }
}

/// A session leaves the control plane.
pub(super) fn connection(commands: Commands) -> Result<Connection, ControlError> {
    let portal = commands.portal().clone();
    commands
        .into_connection()
        .map_err(|error| ControlError::Io {
            portal,
            during: "while it was handed over",
            error,
        })
}
