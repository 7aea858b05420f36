//! One disk: from a socket that is claimed to a LUN behind it, and to the end.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::backoff::start_pauses;
use super::board::Board;
use super::error::ControlError;
use super::home::{Home, HomeSettings, Left, Membership, OwnSessions};
use super::isid::SessionNames;
use super::life::Stop;
use super::pool::{PoolKey, Pools};
use super::socket::{self, IdentityLock, Inherited, PathLock, SessionsInUse, has_hung_up};
use crate::config::{DiskSettings, SocketPathSettings, SocketSettings};
use crate::device::backend::BlockDevice;
use crate::device::channel::serve_front_end;
use crate::engine::{Engine, LogLimit, Suppressed};
use crate::exit::{ExitCode, Failure};
use crate::log_context::LogContext;
use crate::raw_io::inherited_fd;

/// Where front-ends come from, before anything is bound.
pub(super) struct Place {
    door: Door,
    lock: Lock,
    home: HomeSettings,
}

/// What keeps a second process from serving the same disk.
enum Lock {
    Path(PathLock),
    Identity(#[expect(dead_code, reason = "held, not used")] IdentityLock),
}

impl Lock {
    /// A disk that is taken away while the process goes on leaves no lock file: of those that are found
    /// at portals a target decides how many there are, one after the other.
    fn leave(self, stop: &Stop) {
        if let Self::Path(lock) = self
            && !stop.is_of_process()
        {
            lock.remove();
        }
    }
}

enum Door {
    Path(SocketPathSettings),
    Inherited(Inherited),
}

impl Place {
    /// Refuses a path with a live owner before any login.
    pub(super) fn claim(socket: SocketSettings, disk: &DiskSettings) -> Result<Self, Failure> {
        match socket {
            SocketSettings::Path(settings) => Self::claim_path(settings, disk),
            SocketSettings::Fd(number) => Self::claim_fd(number, disk),
        }
    }

    fn claim_path(settings: SocketPathSettings, disk: &DiskSettings) -> Result<Self, Failure> {
        let path = absolute(settings.path.as_path())?;
        let lock = PathLock::acquire(&path)?;
        let failed = |error| Failure::access(format!("cannot use the lock file: {error}"));
        let usage = SessionsInUse::in_lock_file(&lock).map_err(failed)?;
        let name = path.as_os_str().as_encoded_bytes();
        let own = OwnSessions {
            names: SessionNames::new(name, &disk.target.target, disk.target.lun),
            sessions_left: usage.of_killed_process(),
            usage: Arc::new(usage),
        };
        let key = PoolKey::new(&path, disk);
        let home = if disk.share_sessions {
            HomeSettings::Shared { key, former: own }
        } else {
            HomeSettings::Own {
                own,
                former: Some(key),
            }
        };
        Ok(Self {
            door: Door::Path(settings),
            lock: Lock::Path(lock),
            home,
        })
    }

    fn claim_fd(number: i32, disk: &DiskSettings) -> Result<Self, Failure> {
        let fd: OwnedFd = inherited_fd(number)
            .map_err(|error| Failure::usage(format!("--fd {number}: {error}")))?;
        let inherited = socket::inherited(number, fd)?;
        let name = inherited
            .name()
            .unwrap_or_else(|| disk.target.to_string().into_bytes());
        let names = SessionNames::new(&name, &disk.target.target, disk.target.lun);
        let lock = Lock::Identity(IdentityLock::acquire(names.isid(0))?);
        Ok(Self {
            door: Door::Inherited(inherited),
            lock,
            home: HomeSettings::Own {
                own: OwnSessions {
                    names,
                    // Nobody knows: those that these settings would have brought.
                    sessions_left: disk.sessions.into(),
                    usage: Arc::new(SessionsInUse::unrecorded()),
                },
                former: None,
            },
        })
    }
}

/// The one spelling of a path: its directory without links, for the disk's ISIDs must not depend on
/// how somebody wrote it.
fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| {
        Failure::access(format!(
            "cannot use the directory of {}: {error}; it must exist and be writable for this user",
            path.display()
        ))
    };
    let path = std::path::absolute(path).map_err(failed)?;
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => Ok(directory.canonicalize().map_err(failed)?.join(name)),
        _ => Ok(path.clone()),
    }
}

/// Serves the disk until it is asked to stop, or the one front-end of a connected socket has gone.
/// Then nothing of it is left: another disk can have its socket and its ISIDs.
pub(super) async fn serve_disk(
    disk: DiskSettings,
    place: Place,
    pools: &Pools,
    stop: &mut Stop,
    board: &Arc<Board>,
) -> Result<(), Failure> {
    let Place { door, lock, home } = place;
    // Where a predecessor was killed, a guest may be waiting for us.
    let was_killed = home.sessions_left() > 0;
    let waits = disk.wait_for_target || was_killed && matches!(door, Door::Path(_));
    let home = home.in_pool(pools);
    let membership = tokio::select! {
        membership = first_session(&disk, home, waits, board) => membership?,
        () = stop.asked(false) => {
            if !was_killed {
                lock.leave(stop);
            }
            return Ok(());
        }
    };
    let attached = Arc::clone(membership.disk());
    let guest = Guest {
        engine: &attached.engine,
        device: &attached.device,
        board,
    };
    let served = serve_place(&disk, &door, &guest, stop).await;
    drop(attached);
    let left = membership.leave().await;
    if let Ok(Left { tasks_left: false }) = left {
        lock.leave(stop);
    }
    served.and(left.map(drop))
}

/// The disk on its sessions, once the first of them is there.
async fn first_session(
    disk: &DiskSettings,
    home: Home,
    waits: bool,
    board: &Arc<Board>,
) -> Result<Membership, ControlError> {
    let mut pauses = start_pauses();
    let mut former: Option<ControlError> = None;
    loop {
        let error = match home.join(disk, board).await {
            Ok(membership) => return Ok(membership),
            Err(error) if !waits => return Err(error),
            Err(error) => error,
        };
        match &former {
            None => log::warn!("{error}; waiting for the target"),
            Some(former) => log_still_waiting(former, &error),
        }
        board.waits_for_target(&error);
        former = Some(error);
        if let Some(pause) = pauses.next() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// A new reason may need somebody's attention (a target that is back, and refuses us); the same
/// one again is of interest only to those who debug.
fn log_still_waiting(former: &ControlError, error: &ControlError) {
    let error = error.to_string();
    let level = if error == former.to_string() {
        log::Level::Debug
    } else {
        log::Level::Warn
    };
    log::log!(level, "{error}; still waiting for the target");
}

/// What a front-end gets, and who has to know of it.
struct Guest<'a> {
    engine: &'a Arc<Engine>,
    device: &'a Arc<BlockDevice>,
    board: &'a Arc<Board>,
}

async fn serve_place(
    disk: &DiskSettings,
    door: &Door,
    guest: &Guest<'_>,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(ExitCode::Other, error.to_string());
    match door {
        Door::Inherited(Inherited::Connected(stream)) => {
            let stream = nonblocking_stream(stream).map_err(failed)?;
            log::info!("serving {} to one front-end", disk.target);
            serve_one(stream, guest, stop).await;
            Ok(())
        }
        Door::Inherited(Inherited::Listening(listener)) => {
            let listener = listener.try_clone().map_err(failed)?;
            log::info!("serving {} on an inherited socket", disk.target);
            leave(serve_listener(listener, guest, stop).await?, stop).await;
            Ok(())
        }
        Door::Path(settings) => {
            let listener = socket::bind(settings)?;
            log::info!(
                "serving {} on {}",
                disk.target,
                settings.path.as_path().display()
            );
            let served = serve_listener(listener, guest, stop).await;
            // Ours by the lock: nobody is to find a door without a house behind it.
            let _ = std::fs::remove_file(settings.path.as_path());
            leave(served?, stop).await;
            Ok(())
        }
    }
}

/// What becomes of a front-end that is there at the end of its disk. At the end of the process it
/// stays while the lanes close: one that stops its rings meanwhile gets an answer. Else it would stay
/// without a disk, so it goes first.
async fn leave(present: Option<Present>, stop: &Stop) {
    if let Some(present) = present.filter(|_| !stop.is_of_process()) {
        log::warn!("the front-end's connection is closed: its disk is taken away");
        present.cut().await;
    }
}

fn nonblocking_stream(stream: &StdStream) -> std::io::Result<UnixStream> {
    let stream = stream.try_clone()?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn serve_one(stream: UnixStream, guest: &Guest<'_>, stop: &mut Stop) {
    guest.board.front_end_connected();
    let front_end = serve_front_end(stream, Arc::clone(guest.device));
    tokio::select! {
        result = front_end => {
            if let Err(error) = result {
                log::warn!("front-end: {error}");
            }
        }
        () = stop.asked(true) => {}
    }
    guest.board.front_end_gone();
    guest.engine.front_end_gone();
}

/// A front-end that is being served.
struct Present {
    /// A second handle on its connection, to see whether it has hung up.
    watch: OwnedFd,
    task: JoinHandle<()>,
}

impl Present {
    /// `told` is there when something may be logged about it.
    fn start(stream: UnixStream, guest: &Guest<'_>, told: Option<Suppressed>) -> Option<Self> {
        let watch = rustix::io::dup(&stream).ok()?;
        let (engine, device) = (Arc::clone(guest.engine), Arc::clone(guest.device));
        let board = Arc::clone(guest.board);
        let served = async move {
            if let Some(left_out) = told {
                log::info!("a front-end has connected{left_out}");
            }
            board.front_end_connected();
            match serve_front_end(stream, device).await {
                Ok(()) if told.is_some() => log::info!("the front-end has gone"),
                Err(error) if told.is_some() => log::warn!("front-end: {error}"),
                _ => {}
            }
            engine.front_end_gone();
        };
        let task = tokio::spawn(LogContext::current().scope(served));
        Some(Self { watch, task })
    }

    /// Ends the connection, and waits until nothing of the front-end's is in use: as if it had gone.
    async fn cut(self) {
        let _ = rustix::net::shutdown(&self.watch, rustix::net::Shutdown::Both);
        let _ = self.task.await;
    }
}

/// One front-end at a time: the next one is taken when the former has gone, one that comes while
/// another is there is closed.
async fn serve_listener(
    listener: StdListener,
    guest: &Guest<'_>,
    stop: &mut Stop,
) -> Result<Option<Present>, Failure> {
    let failed = |error: std::io::Error| Failure::new(ExitCode::Other, error.to_string());
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let (mut limit, began) = (LogLimit::default(), Instant::now());
    let now_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut present: Option<Present> = None;
    // One that came while the former was leaving.
    let mut next: Option<UnixStream> = None;
    loop {
        if present.is_none()
            && let Some(stream) = next.take()
        {
            present = Present::start(stream, guest, limit.pass(now_ms()));
            stop.note_use(present.is_some());
        }
        let is_used = present.is_some();
        tokio::select! {
            () = stop.asked(is_used) => return Ok(present),
            () = ended(&mut present) => {
                present = None;
                stop.note_use(false);
                guest.board.front_end_gone();
            }
            accepted = listener.accept(), if next.is_none() => match accepted {
                Ok((stream, _)) => match &present {
                    Some(present) if !has_hung_up(&present.watch) => {
                        if let Some(left_out) = limit.pass(now_ms()) {
                            log::warn!(
                                "a second front-end is refused while one is connected{left_out}"
                            );
                        }
                    }
                    _ => next = Some(stream),
                },
                Err(error) => {
                    log::error!("cannot accept a front-end: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// When the present front-end is served to its end; never when there is none.
async fn ended(present: &mut Option<Present>) {
    match present {
        Some(present) => {
            let _ = (&mut present.task).await;
        }
        None => std::future::pending().await,
    }
}
