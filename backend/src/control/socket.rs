//! The socket that front-ends connect to: whose it is, how it is bound, what was inherited.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use iscsi_core::disk::barrier::MAX_SESSIONS;
use iscsi_core::login::settings::Isid;
use rustix::fs::{FlockOperation, Mode};
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::config::SocketPathSettings;
use crate::exit::{ExitCode, Failure};
use crate::sandbox;

/// The right to serve at a path: a locked file beside the socket. The kernel lets go of it when
/// the process ends, however it ends. The file itself stays then.
///
/// It also says how many sessions its owner has had, for a successor of an owner that was killed:
/// the target may still run tasks of each of them.
#[derive(Debug)]
pub(super) struct PathLock {
    file: File,
    path: PathBuf,
}

impl PathLock {
    /// # Errors
    /// When another process has it, or the directory does not let us.
    pub(super) fn acquire(path: &Path) -> Result<Self, Failure> {
        /// A former owner may remove the file between our opening and locking it: then there is a new
        /// one. That it happens again and again is nobody's plan.
        const TRIES: u32 = 8;
        let lock_path = beside(path, ".lock");
        for _ in 0..TRIES {
            let file = open_lock(&lock_path)?;
            lock(&file, path, &lock_path)?;
            if is_at(&file, &lock_path) {
                return Ok(Self {
                    file,
                    path: lock_path,
                });
            }
        }
        Err(Failure::access(format!(
            "cannot lock {}: it is removed again and again",
            lock_path.display()
        )))
    }

    /// Removes the file with the right: what nobody serves any more leaves nothing behind.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open_lock(lock_path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(lock_path)
        .map_err(|error| {
            Failure::access(format!(
                "cannot create {}: {error}{}; the directory of the socket must exist and be \
                 writable for this user",
                lock_path.display(),
                sandbox::hint(&error)
            ))
        })
}

fn lock(file: &File, path: &Path, lock_path: &Path) -> Result<(), Failure> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::access(format!(
            "{} is served by another process already (it holds {}); end that one or choose \
             another path",
            path.display(),
            lock_path.display()
        ))),
        Err(error) => Err(Failure::access(format!(
            "cannot lock {}: {error}",
            lock_path.display()
        ))),
    }
}

/// Whether the open file is what others find at the path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let open = file.metadata().map(identity).ok();
    open.is_some() && open == std::fs::symlink_metadata(path).map(identity).ok()
}

/// How many sessions of a disk a process has had in use, in the lock file of its socket.
///
/// Written before a session is used for the first time, and set to none when the process ends in
/// order. A line of text in a file that nobody else opens for writing; it is read as a hint from a
/// former self: what makes no sense is as good as the most sessions there may be.
#[derive(Debug)]
pub(super) struct SessionsInUse {
    file: Option<File>,
    most: Mutex<usize>,
}

impl SessionsInUse {
    /// Nowhere to write it down: an inherited socket has no lock file.
    pub(super) fn unrecorded() -> Self {
        Self {
            file: None,
            most: Mutex::new(0),
        }
    }

    /// In the lock file of a path.
    pub(super) fn in_lock_file(lock: &PathLock) -> io::Result<Self> {
        Ok(Self {
            file: Some(lock.file.try_clone()?),
            most: Mutex::new(0),
        })
    }

    /// What a former process wrote, that was killed; none when it ended in order, or there was none.
    pub(super) fn of_killed_process(&self) -> usize {
        let mut line = [0; 32];
        let read = self.file.as_ref().map(|file| file.read_at(&mut line, 0));
        let Some(Ok(length)) = read else {
            return 0;
        };
        let text = line.get(..length).unwrap_or_default().trim_ascii();
        if text.is_empty() {
            return 0;
        }
        let count = text
            .strip_prefix(RECORD_PREFIX)
            .and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        count.unwrap_or(MAX_SESSIONS).min(MAX_SESSIONS)
    }

    /// The same for the lock file of a path, which nobody holds for that; none when somebody else does.
    pub(super) fn left_at(path: &Path) -> usize {
        let lock_path = beside(path, ".lock");
        if !lock_path.exists() {
            return 0;
        }
        let lock = PathLock::acquire(path).ok();
        let usage = lock.and_then(|lock| Self::in_lock_file(&lock).ok());
        usage.map_or(0, |usage| usage.of_killed_process())
    }

    /// `count` sessions are in use from now on, or have been.
    pub(super) fn note(&self, count: usize) {
        let mut most = self.most.lock().unwrap_or_else(PoisonError::into_inner);
        if count > *most {
            *most = count;
            self.write(count);
        }
    }

    /// The process ends, and the target has ended all of its tasks.
    pub(super) fn clear(&self) {
        self.write(0);
    }

    fn write(&self, count: usize) {
        let Some(file) = &self.file else { return };
        // Always as long as what it replaces.
        let line = format!("{}{count:02}\n", String::from_utf8_lossy(RECORD_PREFIX));
        if let Err(error) = file.write_all_at(line.as_bytes(), 0) {
            log::warn!(
                "cannot write down in the socket's lock file that {count} sessions are in use: {error}; \
                 should this process be killed, its successor may not end all of them"
            );
        }
    }
}

const RECORD_PREFIX: &[u8] = b"sessions ";

/// The right to log in with a disk's ISIDs, for a disk without a path to lock: two processes with
/// the same ISIDs would end each other's sessions for ever. An abstract socket name of this
/// network namespace; the kernel frees it when the process ends.
#[derive(Debug)]
pub(super) struct IdentityLock(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl IdentityLock {
    /// # Errors
    /// When another process has it.
    pub(super) fn acquire(first_isid: Isid) -> Result<Self, Failure> {
        let name = format!("vhost-user-iscsi/{first_isid}");
        let bound = SocketAddr::from_abstract_name(&name)
            .and_then(|address| UnixListener::bind_addr(&address));
        match bound {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(Failure::access(format!(
                    "another process serves this disk with the same ISIDs already (it holds the \
                 socket name @{name}); end that one first"
                )))
            }
            Err(error) => Err(Failure::access(format!(
                "cannot take the name @{name}: {error}"
            ))),
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Binds the socket in place of a stale one. To be called by the owner of the path's lock.
pub(super) fn bind(settings: &SocketPathSettings) -> Result<UnixListener, Failure> {
    let path = settings.path.as_path();
    remove_stale(path).map_err(|error| cannot("replace", path, &error))?;
    let socket = bind_closed(path).map_err(|error| cannot("bind", path, &error.into()))?;
    let listening = |()| {
        let listened = rustix::net::listen(&socket, BACKLOG);
        listened.map_err(|error| cannot("listen on", path, &error.into()))
    };
    admit(settings).and_then(listening).inspect_err(|_| {
        let _ = std::fs::remove_file(path);
    })?;
    Ok(socket.into())
}

/// As the standard library has it.
const BACKLOG: i32 = 128;

/// A socket at the path that nobody may connect to before mode and group are right. Linux takes the
/// mode of the file from that of the socket: a umask would be that of other threads, too.
fn bind_closed(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::empty())?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Lets in whom the settings name.
fn admit(settings: &SocketPathSettings) -> Result<(), Failure> {
    let path = settings.path.as_path();
    if let Some(group_id) = settings.group_id {
        std::os::unix::fs::chown(path, None, Some(group_id))
            .map_err(|error| cannot_set_group(path, &error))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(settings.mode))
        .map_err(|error| cannot("set the mode of", path, &error))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::access(format!(
        "cannot {what} the socket {}: {error}{}",
        path.display(),
        sandbox::hint(error)
    ))
}

fn cannot_set_group(path: &Path, error: &io::Error) -> Failure {
    Failure::access(format!(
        "cannot set the group of the socket {}: {error}; this user has to be a member of it",
        path.display()
    ))
}

/// Removes what a former owner left, and nothing but a socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What `--fd` names.
#[derive(Debug)]
pub(super) enum Inherited {
    /// A listening socket: front-ends come and go.
    Listening(UnixListener),
    /// A connected one: one front-end, then the end.
    Connected(UnixStream),
}

/// Finds out what kind of socket `fd` is.
pub(super) fn inherited(number: i32, fd: OwnedFd) -> Result<Inherited, Failure> {
    let wrong = |what: &str| {
        Failure::new(
            ExitCode::Usage,
            format!("--fd {number} is {what}; it must be a UNIX stream socket"),
        )
    };
    let kind = socket_type(&fd).map_err(|_| wrong("no socket"))?;
    let address = rustix::net::getsockname(&fd).map_err(|_| wrong("no socket"))?;
    if kind != SocketType::STREAM || address.address_family() != AddressFamily::UNIX {
        return Err(wrong("a socket of another kind"));
    }
    let is_listening = socket_acceptconn(&fd).map_err(|_| wrong("a socket of another kind"))?;
    if is_listening {
        return Ok(Inherited::Listening(fd.into()));
    }
    rustix::net::getpeername(&fd).map_err(|_| wrong("neither listening nor connected"))?;
    Ok(Inherited::Connected(fd.into()))
}

impl Inherited {
    /// What names the disk on this machine across restarts: the path that the socket is bound
    /// to, when there is one.
    pub(super) fn name(&self) -> Option<Vec<u8>> {
        let address = match self {
            Self::Listening(listener) => listener.local_addr(),
            Self::Connected(stream) => stream.local_addr(),
        };
        let path = address
            .ok()?
            .as_pathname()?
            .as_os_str()
            .as_encoded_bytes()
            .to_vec();
        Some(path)
    }
}

/// Whether the other side of a connection has closed it.
pub(super) fn has_hung_up(stream: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let none = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let polled = poll(&mut fds, Some(&none));
    let [fd] = &fds;
    polled.is_ok()
        && fd
            .revents()
            .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SocketPath;

    #[test]
    fn a_socket_is_closed_to_all_until_its_mode_is_set() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let bound = bind_closed(&path).unwrap();
        assert_eq!(mode(), 0);
        assert!(UnixStream::connect(&path).is_err());
        drop(bound);
        let settings = SocketPathSettings {
            path: SocketPath::new(path.clone()).unwrap(),
            mode: 0o640,
            group_id: None,
        };
        let _listener = bind(&settings).unwrap();
        assert_eq!(mode(), 0o640);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_lock_that_was_removed_is_nobodys_right() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.sock");
        let first = PathLock::acquire(&path).unwrap();
        assert!(PathLock::acquire(&path).is_err());
        // Somebody opens the file, and is about to lock it when its owner goes.
        let lock_path = beside(&path, ".lock");
        let late = open_lock(&lock_path).unwrap();
        first.remove();
        assert!(!lock_path.exists());
        lock(&late, &path, &lock_path).unwrap();
        assert!(!is_at(&late, &lock_path), "there is no such file any more");
        let _second = PathLock::acquire(&path).unwrap();
        assert!(!is_at(&late, &lock_path), "there is another one");
    }
}
