//! Where a disk has its sessions: in a home of its own, or in a pool that it shares with others.

use std::sync::Arc;

use iscsi_core::disk::barrier::Barrier;
use iscsi_core::disk::facts::LunFacts;
use tokio::sync::mpsc::unbounded_channel;

use super::attached::{Attached, Follower};
use super::board::{Board, describe};
use super::error::ControlError;
use super::isid::SessionNames;
use super::login::LoginRequest;
use super::pool::{Pool, PoolKey, Pools};
use super::probe::{self, Probed, log_in_and_probe};
use super::sessions::{Keeper, SessionSettings, Sessions, connection};
use super::socket::SessionsInUse;
use crate::config::DiskSettings;
use crate::engine::{Closing, LOGOUT_LIMIT, LaneEvent, LaneReports, Lanes, LanesConfig, report};
use crate::exit::{ExitCode, Failure};
use crate::log_context::LogContext;

/// What decides where a disk has its sessions. A killed predecessor may have had them in the other way.
pub(super) enum HomeSettings {
    Own {
        own: OwnSessions,
        former: Option<PoolKey>,
    },
    Shared {
        key: PoolKey,
        former: OwnSessions,
    },
}

/// Who the sessions are to a target, and what a former process has left of them.
#[derive(Clone)]
pub(super) struct OwnSessions {
    pub(super) names: SessionNames,
    /// How many sessions a killed predecessor may have left at the target.
    pub(super) sessions_left: usize,
    pub(super) usage: Arc<SessionsInUse>,
}

/// Where a disk has its sessions, before there are any.
pub(super) enum Home {
    Own {
        own: OwnSessions,
        former: Option<Arc<Pool>>,
    },
    Shared {
        pool: Arc<Pool>,
        former: OwnSessions,
    },
}

impl HomeSettings {
    /// How many sessions a killed predecessor may have left at the target.
    pub(super) fn sessions_left(&self) -> usize {
        let (own, pool) = match self {
            Self::Own { own, former } => (own, former.as_ref()),
            Self::Shared { key, former } => (former, Some(key)),
        };
        own.sessions_left + pool.map_or(0, PoolKey::sessions_left)
    }

    pub(super) fn in_pool(self, pools: &Pools) -> Home {
        match self {
            Self::Own { own, former } => Home::Own {
                own,
                former: former.map(|key| pools.pool(key)),
            },
            Self::Shared { key, former } => Home::Shared {
                pool: pools.pool(key),
                former,
            },
        }
    }
}

impl Home {
    /// Puts the disk on its sessions; when there are none yet, the first one is made.
    ///
    /// # Errors
    /// When there is no session to be had, or none that leads to the disk. It can be tried again.
    pub(super) async fn join(
        &self,
        disk: &DiskSettings,
        board: &Arc<Board>,
    ) -> Result<Membership, ControlError> {
        match self {
            Self::Own { own, former } => {
                if let Some(pool) = former {
                    pool.end_former(disk).await?;
                }
                join_own(own, disk, board).await
            }
            Self::Shared { pool, former } => {
                former.end_former(disk).await?;
                pool.join(disk, board).await
            }
        }
    }
}

impl OwnSessions {
    /// Has the target end what is left of these sessions, which the disk has no more: nothing that it
    /// sends on others may be overtaken by it.
    ///
    /// # Errors
    /// When that is not known to have happened. It can be tried again.
    pub(super) async fn end_former(&self, disk: &DiskSettings) -> Result<(), ControlError> {
        let left = self.usage.of_killed_process();
        for session in 0..left {
            let request = LoginRequest {
                portal: &disk.target.portal,
                target: Some(&disk.target.target),
                initiator: &disk.initiator,
                isid: self.names.isid(session),
                portal_group_tag: None,
            };
            let mut commands = probe::open(request).await?.commands;
            let _ = tokio::time::timeout(LOGOUT_LIMIT, commands.log_out()).await;
        }
        if left > 0 {
            log::info!("what {left} former sessions had left at the target is ended");
            self.usage.clear();
        }
        Ok(())
    }
}

async fn join_own(
    own: &OwnSessions,
    disk: &DiskSettings,
    board: &Arc<Board>,
) -> Result<Membership, ControlError> {
    let isid = own.names.isid(0);
    let probed = log_in_and_probe(&disk.target, &disk.initiator, isid, None).await?;
    let First { keeper, joined } = start(own, disk, probed, board, &LogContext::current())?;
    Ok(joined.member_of(Of::Own(keeper)))
}

/// The sessions of a target, with their first disk.
pub(super) struct First {
    pub(super) keeper: Keeper,
    pub(super) joined: Joined,
}

/// A disk that was put on sessions.
pub(super) struct Joined {
    pub(super) disk: Arc<Attached>,
    pub(super) sessions: Arc<Sessions>,
    follower: Follower,
}

impl Joined {
    /// The LUN, with this LUN field, was found to be like this.
    pub(super) fn new(
        sessions: &Arc<Sessions>,
        disk: &DiskSettings,
        lun: u64,
        facts: LunFacts,
        board: &Arc<Board>,
    ) -> Self {
        let (attached, events) = Attached::new(sessions.lanes(), disk, lun, facts, board);
        sessions.attach(&attached);
        Self {
            follower: Follower::start(&attached, sessions, events),
            disk: attached,
            sessions: Arc::clone(sessions),
        }
    }

    pub(super) fn member_of(self, of: Of) -> Membership {
        Membership { joined: self, of }
    }
}

/// Lanes, sessions and disk, with a first session that was probed. What a killed predecessor may have
/// left at the target is ended before any command goes out; the login of the first session has ended
/// what its namesake had left. What is logged about the sessions is about `log`.
pub(super) fn start(
    own: &OwnSessions,
    disk: &DiskSettings,
    first: Probed,
    board: &Arc<Board>,
    log: &LogContext,
) -> Result<First, ControlError> {
    own.usage.note(1);
    let (reports, events) = unbounded_channel();
    let lanes = lanes(own, disk, &reports, log).map_err(|error| ControlError::Io {
        portal: first.commands.portal().clone(),
        during: "while its lane was started",
        error,
    })?;
    for lane in 1..own.sessions_left {
        report(&reports, LaneEvent::TasksLeft { lane });
    }
    let negotiated = first.commands.session().negotiated();
    let settings = SessionSettings {
        url: disk.target.clone(),
        initiator: disk.initiator.clone(),
        names: own.names.clone(),
        portal_group_tag: negotiated.target_portal_group_tag,
        usage: Arc::clone(&own.usage),
        is_shared: disk.share_sessions,
    };
    let sessions = Arc::new(Sessions::new(settings, Arc::clone(&lanes)));
    let login = describe(&first.commands, &first.redirects);
    board.shares(0, sessions.isid(0).to_string(), login.clone());
    sessions.note_login(0, login, first.reported);
    let joined = Joined::new(&sessions, disk, first.lun, first.facts, board);
    let admitted = joined.disk.engine.unit();
    lanes.connect(0, connection(first.commands)?, Some(admitted));
    let keeper = Keeper::start(sessions, events, log);
    Ok(First { keeper, joined })
}

fn lanes(
    own: &OwnSessions,
    disk: &DiskSettings,
    reports: &LaneReports,
    log: &LogContext,
) -> std::io::Result<Arc<Lanes>> {
    let barrier = Barrier::default();
    (1..own.sessions_left).for_each(|session| barrier.raise(session));
    let config = LanesConfig {
        max_lanes: usize::from(disk.sessions),
        poll_limit: disk.poll_limit,
        command_timeout: disk.command_timeout,
        lun_reset: disk.lun_reset,
        is_shared: disk.share_sessions,
        barrier: Arc::new(barrier),
        reports: reports.clone(),
    };
    Lanes::start(config, log.clone())
}

/// A disk on its sessions. To be left, not dropped.
pub(super) struct Membership {
    joined: Joined,
    of: Of,
}

/// Whose sessions they are.
pub(super) enum Of {
    Own(Keeper),
    Pool(Arc<Pool>),
}

/// What a disk has left behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// The target may still run tasks of its own sessions: not every one could be ended in order.
    pub(super) tasks_left: bool,
}

impl Membership {
    pub(super) fn disk(&self) -> &Arc<Attached> {
        &self.joined.disk
    }

    /// The disk is served no more; when this returns nothing of it is held any more.
    pub(super) async fn leave(self) -> Result<Left, Failure> {
        let Self { joined, of } = self;
        let sessions = Arc::clone(&joined.sessions);
        match of {
            Of::Own(keeper) => {
                let closing = joined.disk.engine.begin_close();
                let tasks_left = joined.end(closing).await?;
                keeper.end().await;
                if !tasks_left {
                    sessions.usage().clear();
                }
                Ok(Left { tasks_left })
            }
            Of::Pool(pool) => {
                pool.leave(joined).await?;
                // What may be left of it is the pool's affair.
                Ok(Left { tasks_left: false })
            }
        }
    }
}

impl Joined {
    /// Waits until the disk's lanes, or its part of them, have ended, and ends all that is done for it.
    /// Whether the target may still run tasks.
    pub(super) async fn end(self, closing: Closing) -> Result<bool, Failure> {
        let waited = tokio::task::spawn_blocking(|| closing.wait()).await;
        self.follower.end().await;
        self.sessions.detach(&self.disk);
        waited.map_err(|error| Failure::new(ExitCode::Other, error.to_string()))
    }
}
