//! Sessions that several disks share: made with the first of them, ended with the last.
//!
//! Disks share when they have the same target, at the same portal, for the same initiator, and their
//! sockets are in one directory. The directory keeps processes apart: a pool has a lock file there, as
//! each socket has, and its ISIDs are a function of all that, so that a restarted process has the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::Probe;
use iscsi_core::name::IscsiName;

use super::board::Board;
use super::error::ControlError;
use super::home::{First, Joined, Membership, Of, OwnSessions, start};
use super::isid::SessionNames;
use super::login::LoginRequest;
use super::probe;
use super::sessions::{Keeper, Sessions};
use super::socket::{PathLock, SessionsInUse};
use crate::config::DiskSettings;
use crate::engine::{InspectionError, Seen};
use crate::exit::Failure;
use crate::log_context::LogContext;
use crate::portal::Portal;

/// Why a disk waits that shared sessions in a former life.
const TASKS_LEFT: &str = "what a killed process left on the sessions that it shared is being ended";

/// Why a disk could not join sessions that were there when it began to.
const HAVE_ENDED: &str = "they have just ended";

/// All pools of the process.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<HashMap<PoolKey, Arc<Pool>>>);

/// Which disks share sessions: those for which this is the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    /// Where the sockets are.
    directory: PathBuf,
    portal: Portal,
    target: IscsiName,
    initiator: IscsiName,
}

impl PoolKey {
    /// For the disk with this socket, whose path has no links in its directory.
    pub(super) fn new(socket_path: &Path, disk: &DiskSettings) -> Self {
        Self {
            directory: socket_path.parent().unwrap_or(socket_path).to_owned(),
            portal: disk.target.portal.clone(),
            target: disk.target.target.clone(),
            initiator: disk.initiator.name.clone(),
        }
    }

    fn names(&self) -> SessionNames {
        let directory = self.directory.as_os_str().as_encoded_bytes();
        let portal = self.portal.to_string();
        SessionNames::shared(directory, &portal, &self.target, &self.initiator)
    }

    /// What the lock file belongs to, without its suffix.
    fn path(&self) -> PathBuf {
        let first = self.names().isid(0);
        self.directory.join(format!("sessions-{first}"))
    }

    /// How many sessions a killed process may have left at the target. None when one lives that has them.
    pub(super) fn sessions_left(&self) -> usize {
        SessionsInUse::left_at(&self.path())
    }
}

/// The sessions of the disks of one key.
pub(super) struct Pool {
    key: PoolKey,
    live: tokio::sync::Mutex<Option<Live>>,
    /// How often the first session was tried for in vain, and why the last time.
    failures: Mutex<(u64, String)>,
}

/// There are sessions.
struct Live {
    /// The disk that they were made for.
    first: DiskSettings,
    sessions: Arc<Sessions>,
    keeper: Keeper,
    lock: PathLock,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Pools {
    /// The pool of a key. One that nobody has any more is forgotten.
    pub(super) fn pool(&self, key: PoolKey) -> Arc<Pool> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        let pool = pools.entry(key.clone()).or_insert_with(|| {
            Arc::new(Pool {
                key,
                live: tokio::sync::Mutex::default(),
                failures: Mutex::default(),
            })
        });
        Arc::clone(pool)
    }
}

impl Pool {
    /// Puts another disk on the sessions; the first one brings them up.
    ///
    /// # Errors
    /// When there is no session to be had, or none that leads to the disk. It can be tried again.
    pub(super) async fn join(
        self: &Arc<Self>,
        disk: &DiskSettings,
        board: &Arc<Board>,
    ) -> Result<Membership, ControlError> {
        let failures = self.failures().0;
        let mut live = self.live.lock().await;
        let Some(present) = &*live else {
            let (count, reason) = self.failures();
            if count != failures {
                // The same target, asked while this disk waited for its turn.
                return Err(ControlError::OfAnother(reason));
            }
            let (first, joined) = self.start(disk, board).await?;
            *live = Some(first);
            return Ok(joined.member_of(Of::Pool(Arc::clone(self))));
        };
        present.check(disk)?;
        let sessions = Arc::clone(&present.sessions);
        // A LUN that does not answer keeps nobody else waiting.
        drop(live);
        let (lun, facts) = look(&sessions, disk).await?;
        let live = self.live.lock().await;
        let joined = match &*live {
            Some(live) if Arc::ptr_eq(&live.sessions, &sessions) => {
                live.check(disk)?;
                live.compare(disk);
                Joined::new(&sessions, disk, lun, facts, board)
            }
            _ => return Err(ControlError::OfAnother(HAVE_ENDED.to_owned())),
        };
        Ok(joined.member_of(Of::Pool(Arc::clone(self))))
    }

    /// Takes a disk off the sessions; the last one ends them. Disks leave beside each other, for each may
    /// have requests in flight that get their time; who joins waits until the last one has gone.
    pub(super) async fn leave(&self, disk: Joined) -> Result<(), Failure> {
        let mut live = self.live.lock().await;
        let closing = disk.disk.engine.begin_close();
        if !closing.is_last() {
            drop(live);
            return disk.end(closing).await.map(drop);
        }
        let tasks_left = disk.end(closing).await?;
        if let Some(ended) = live.take() {
            ended.end(tasks_left).await;
        }
        Ok(())
    }

    /// The same for a disk that has its sessions to itself now, and may have had these in a former life.
    ///
    /// # Errors
    /// As [`OwnSessions::end_former`]. It can be tried again.
    pub(super) async fn end_former(&self, disk: &DiskSettings) -> Result<(), ControlError> {
        let live = self.live.lock().await;
        if let Some(live) = &*live {
            // They are being ended by those who have them now.
            let is_raised = live.sessions.lanes().barrier().is_raised();
            return match is_raised {
                true => Err(ControlError::OfAnother(TASKS_LEFT.to_owned())),
                false => Ok(()),
            };
        }
        if self.key.sessions_left() == 0 {
            return Ok(());
        }
        let (lock, own) = self.claim()?;
        own.end_former(disk).await?;
        lock.remove();
        Ok(())
    }

    /// The right to use the sessions, and what a killed process has left of them.
    fn claim(&self) -> Result<(PathLock, OwnSessions), ControlError> {
        let unshared = |failure| ControlError::Unshared {
            portal: self.key.portal.clone(),
            target: self.key.target.to_string(),
            failure,
        };
        let lock = PathLock::acquire(&self.key.path()).map_err(unshared)?;
        let usage = SessionsInUse::in_lock_file(&lock)
            .map_err(|error| unshared(Failure::access(error.to_string())))?;
        let own = OwnSessions {
            names: self.key.names(),
            sessions_left: usage.of_killed_process(),
            usage: Arc::new(usage),
        };
        Ok((lock, own))
    }

    fn failures(&self) -> (u64, String) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.clone()
    }

    async fn start(
        &self,
        disk: &DiskSettings,
        board: &Arc<Board>,
    ) -> Result<(Live, Joined), ControlError> {
        let (lock, own) = self.claim()?;
        let request = LoginRequest {
            portal: &disk.target.portal,
            target: Some(&disk.target.target),
            initiator: &disk.initiator,
            isid: own.names.isid(0),
            portal_group_tag: None,
        };
        let opened = probe::open(request).await;
        let opened = opened.inspect_err(|error| self.note_failure(error))?;
        // What is wrong with a LUN is wrong with that disk alone.
        let probed = probe::probe_opened(&disk.target, &disk.initiator, opened).await?;
        // What is about the sessions is about none of their disks.
        let log = LogContext::of_target(self.key.target.as_str());
        let First { keeper, joined } = start(&own, disk, probed, board, &log)?;
        let live = Live {
            first: disk.clone(),
            sessions: Arc::clone(&joined.sessions),
            keeper,
            lock,
        };
        Ok((live, joined))
    }

    /// A target that is away is so for all disks.
    fn note_failure(&self, error: &ControlError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = (failures.0.wrapping_add(1), error.to_string());
    }
}

/// Looks at a disk's LUN on the first session: the LUN field that reaches it, and what it is like.
async fn look(sessions: &Sessions, disk: &DiskSettings) -> Result<(u64, LunFacts), ControlError> {
    let lun = sessions.lun_field(disk.target.lun);
    let limit = disk.initiator.login_timeout;
    let looking = sessions.lanes().inspect(0, lun, Probe::new());
    let looked = tokio::time::timeout(limit, looking).await;
    let looked = looked.unwrap_or(Err(InspectionError::Timeout(limit)));
    let Seen { facts, .. } = looked.map_err(|error| ControlError::of_look(&disk.target, error))?;
    Ok((lun, facts))
}

impl Live {
    /// Two disks of one LUN would each hear half of what it tells.
    fn check(&self, disk: &DiskSettings) -> Result<(), ControlError> {
        let (lun, target) = (disk.target.lun, disk.target.target.to_string());
        match self.sessions.disk_at(lun) {
            Some(other) => Err(ControlError::SameLun { target, lun, other }),
            None => Ok(()),
        }
    }

    /// Sessions are what they were made as. A configuration in which disks that share differ is refused;
    /// here are those of two configurations, one after the other.
    fn compare(&self, disk: &DiskSettings) {
        if let Some(setting) = self.first.session_setting_unlike(disk) {
            log::warn!(
                "{}: the sessions that it shares were made with another value of {setting}, which stands \
                 until the last of the disks that share them has ended",
                disk.target
            );
        }
    }

    async fn end(self, tasks_left: bool) {
        self.keeper.end().await;
        if !tasks_left {
            self.sessions.usage().clear();
            self.lock.remove();
        }
    }
}
