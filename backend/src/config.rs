//! Checked settings: a value that exists is valid.

mod found_name;
mod portal;
mod sharing;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use iscsi_core::login::settings::{ChapSettings, DigestPreference};
use iscsi_core::name::IscsiName;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::exit::Failure;
use crate::limits::Limits;
use crate::portal::Portal;
use crate::url::TargetUrl;

pub use self::portal::{
    DEFAULT_REDISCOVER, MAX_PORTALS, MAX_REDISCOVER, MAX_SOCKET_DIRECTORY_LENGTH_BYTES,
    MIN_REDISCOVER, NamePattern, PortalSettings, SocketDirectory, SocketDirectoryError,
    TargetFilter,
};

/// The most disks of one process: each has a thread and a session at least.
pub const MAX_DISKS: usize = 1024;

/// The most virtqueues of a disk: as many as `--num-queues` gives without the option. QEMU asks
/// for one per vCPU.
pub const MAX_QUEUES: u16 = 64;

/// The most sessions of a disk: more than queues would be idle.
pub const MAX_SESSIONS: u16 = MAX_QUEUES;

/// How many sessions a disk opens at most unless told otherwise: arrays count sessions.
pub const DEFAULT_SESSIONS: u16 = 4;

/// [`DEFAULT_SESSIONS`], or as many as there are processors for this process, if those are fewer. A
/// session has a thread: two of them on one processor take turns, each with half of the requests,
/// and lose what one with all of them would gain by taking many at once.
///
/// Looked up once: the same for as long as the process lives, and what it is read from need not be
/// readable for as long.
pub fn default_sessions() -> u16 {
    static SESSIONS: OnceLock<u16> = OnceLock::new();
    *SESSIONS.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        u16::try_from(processors).map_or(DEFAULT_SESSIONS, |count| count.min(DEFAULT_SESSIONS))
    })
}

/// The largest split ring (virtio 1.2 section 2.7): accepted unless told otherwise, since the
/// front-end chooses the size (QEMU: 128) and a ring that is not used costs nothing.
pub const MAX_QUEUE_SIZE: u16 = 32_768;

/// The longest path of a UNIX socket in bytes: `sun_path` less its final NUL (unix(7)).
pub const MAX_SOCKET_PATH_LENGTH_BYTES: usize = 107;

/// How long a login may take unless told otherwise.
pub const DEFAULT_LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest login time-out: whoever wants to wait longer wants `--wait-for-target`.
pub const MAX_LOGIN_TIMEOUT: Duration = Duration::from_secs(3600);

/// The shortest command time-out: an array that fails over takes seconds, and to send again what
/// is only slow makes it slower.
pub const MIN_COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest that requests may wait for lost storage, short of for ever.
pub const MAX_IO_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The shortest time between two looks at a LUN that nobody told anything of: they are for an
/// administrator's change, of which there are few.
pub const MIN_CAPACITY_POLL: Duration = Duration::from_secs(1);
/// The longest that a queue's thread may poll: a wait that is longer costs less asleep.
pub const MAX_POLL_LIMIT: Duration = Duration::from_millis(1);

/// What GET_ID answers, in bytes (virtio 1.2 section 5.2.6).
pub const MAX_SERIAL_LENGTH_BYTES: usize = 20;

/// Who we are to a target, and how long it has to let us in. The same for every verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitiatorSettings {
    /// InitiatorName.
    pub name: IscsiName,
    /// CHAP, or nothing.
    pub chap: Option<ChapSettings>,
    /// HeaderDigest.
    pub header_digest: DigestPreference,
    /// DataDigest.
    pub data_digest: DigestPreference,
    /// From connect to the end of the login and, where there is a LUN, of its last probe.
    /// More than 0, at most [`MAX_LOGIN_TIMEOUT`].
    pub login_timeout: Duration,
}

/// What `discover` needs.
#[derive(Clone, Debug)]
pub struct DiscoverSettings {
    /// Whom to ask.
    pub portal: Portal,
    /// Who asks.
    pub initiator: InitiatorSettings,
}

/// What `probe` needs.
#[derive(Clone, Debug)]
pub struct ProbeSettings {
    /// The disk.
    pub target: TargetUrl,
    /// Who asks.
    pub initiator: InitiatorSettings,
}

/// What serving needs: disks or portals, or both.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// The disks, each with its socket.
    pub disks: Vec<ServedDisk>,
    /// The portals whose LUNs are served, too.
    pub portals: Vec<PortalSettings>,
    /// How the process can be looked into.
    pub management: ManagementSettings,
    /// Where all of it was read, and can be read again; `None` for a command line, whose one disk is
    /// what the process is there for.
    pub configuration: Option<Arc<dyn Configuration>>,
}

/// A configuration, as it was read once.
pub trait Configuration: fmt::Debug + Send + Sync {
    /// Reads it anew. Blocks: files, and the system's lists of users and groups.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    fn read_again(&self) -> Result<ServeSettings, Vec<String>>;

    /// One more disk: the settings of a `[[disk]]`, over the defaults of this configuration. Blocks.
    ///
    /// # Errors
    /// Everything that is wrong, by its key.
    fn disk(&self, settings: &Map<String, Value>) -> Result<ServedDisk, Failure>;
}

/// How a serving process can be looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagementSettings {
    /// Where the verbs ask; `None` for nowhere.
    pub control_socket: Option<ControlSocketSettings>,
    /// Where Prometheus asks; `None` for nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// How the process confines itself.
    pub sandbox: SandboxSettings,
}

/// How a serving process confines itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSettings {
    /// Whether, and how strictly.
    pub mode: SandboxMode,
    /// Files that are read again while the process serves, beside those of the system.
    pub read_again: Vec<PathBuf>,
    /// Where sockets of later disks may be, beside the directories of those that are there now.
    pub socket_directories: Vec<PathBuf>,
}

/// What becomes of that which the sandbox does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// It is not done: a system call ends the process, a file cannot be opened.
    #[default]
    Enforce,
    /// System calls are done, and logged by the kernel. Everything else is as without a sandbox.
    Log,
    /// There is no sandbox.
    Off,
}

/// The socket of the verbs that look into a serving process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocketSettings {
    /// Its path, and who may connect.
    pub socket: SocketPathSettings,
    /// Somebody has asked for it: without it nothing is served. Else disks matter more.
    pub is_required: bool,
}

/// A disk and where a guest finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedDisk {
    /// What people call it.
    pub name: DiskName,
    /// The disk.
    pub disk: DiskSettings,
    /// The socket.
    pub socket: SocketSettings,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// Where it is.
    pub target: TargetUrl,
    /// Who we are to its target.
    pub initiator: InitiatorSettings,
    /// Offer it read-only, whatever the LUN says.
    pub read_only: bool,
    /// How many virtqueues a front-end may use: 1 to [`MAX_QUEUES`].
    pub num_queues: u16,
    /// The largest ring that is accepted.
    pub queue_size: QueueSize,
    /// How many sessions are opened at most: 1 to [`MAX_SESSIONS`].
    pub sessions: u16,
    /// Whether the sessions are shared with the other disks behind the same target that want the same.
    pub share_sessions: bool,
    /// The longest that a queue's thread looks for work before it sleeps, while that pays lately:
    /// at most [`MAX_POLL_LIMIT`]; zero for never.
    pub poll_limit: Duration,
    /// How long a command may be unanswered before the target is asked to end it: at least
    /// [`MIN_COMMAND_TIMEOUT`]; `None` for ever.
    pub command_timeout: Option<Duration>,
    /// A command that cannot be ended otherwise is ended by a LOGICAL UNIT RESET, which ends the tasks
    /// of other hosts, too.
    pub lun_reset: bool,
    /// How long requests wait for lost storage before they end with an I/O error; `None` for ever.
    /// At most [`MAX_IO_TIMEOUT`].
    pub io_timeout: Option<Duration>,
    /// How often the LUN is looked at for a change that the target does not tell of: at least
    /// [`MIN_CAPACITY_POLL`], at most [`MAX_IO_TIMEOUT`]; `None` for never.
    pub capacity_poll: Option<Duration>,
    /// A flush succeeds although the target has told of a loss of power since the writes before it.
    pub ignore_power_loss: bool,
    /// What GET_ID answers instead of the LUN's own serial.
    pub serial: Option<Serial>,
    /// How much the guest may ask for.
    pub limits: Limits,
    /// Keep trying when the target cannot be reached at start.
    pub wait_for_target: bool,
}

/// Where the front-end connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketSettings {
    /// A socket to bind.
    Path(SocketPathSettings),
    /// A socket that is open already, listening or connected.
    Fd(RawFd),
}

impl fmt::Display for SocketSettings {
    /// The path, or `fd 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(settings) => settings.path.as_path().display().fmt(f),
            Self::Fd(number) => write!(f, "fd {number}"),
        }
    }
}

/// A socket to bind, and who may connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPathSettings {
    /// Its path.
    pub path: SocketPath,
    /// Its permission bits: at most 0o777.
    pub mode: u32,
    /// Its group; `None` leaves it alone.
    pub group_id: Option<u32>,
}

/// A path that fits into a socket address: 1 to [`MAX_SOCKET_PATH_LENGTH_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath(PathBuf);

/// Why a path cannot be that of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SocketPathError {
    /// No path at all.
    #[error("the socket path is empty")]
    Empty,
    /// Too long for the system.
    #[error(
        "the socket path has {length_bytes} bytes, the system takes \
         {MAX_SOCKET_PATH_LENGTH_BYTES}: choose a shorter one ({})",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length_bytes: usize,
    },
}

impl SocketPath {
    /// Checks the length; whether it can be bound shows later.
    pub fn new(path: PathBuf) -> Result<Self, SocketPathError> {
        match path.as_os_str().as_bytes().len() {
            0 => Err(SocketPathError::Empty),
            1..=MAX_SOCKET_PATH_LENGTH_BYTES => Ok(Self(path)),
            length_bytes => Err(SocketPathError::TooLong { path, length_bytes }),
        }
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// A ring size: a power of two from 2 to [`MAX_QUEUE_SIZE`] (virtio 1.2 section 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueSize(u16);

impl QueueSize {
    /// Accepts every ring that virtio knows.
    pub const MAX: Self = Self(MAX_QUEUE_SIZE);

    /// Checks a number of descriptors.
    pub fn new(descriptors: u16) -> Option<Self> {
        let is_size = descriptors.is_power_of_two() && (2..=MAX_QUEUE_SIZE).contains(&descriptors);
        is_size.then_some(Self(descriptors))
    }

    /// The number of descriptors.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// A name for people, log lines and the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskName(String);

impl DiskName {
    /// What a name may be, in words.
    pub const RULE: &str = "1 to 64 letters, digits, dots, hyphens and underscores";

    /// Checks a text.
    pub fn new(text: &str) -> Option<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_short = (1..=64).contains(&text.len());
        (is_short && text.chars().all(is_name)).then(|| Self(text.to_owned()))
    }

    /// The name of a disk that was given none: that of its socket, without directory and `.sock`.
    pub fn of_socket(socket: &SocketSettings) -> Self {
        let name = match socket {
            SocketSettings::Path(settings) => {
                let name = settings.path.as_path().file_name().unwrap_or_default();
                let name = name.to_string_lossy();
                Self::new(name.strip_suffix(".sock").unwrap_or(&name))
            }
            SocketSettings::Fd(_) => None,
        };
        name.unwrap_or_else(|| Self("disk".to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A serial for the guest: 1 to 20 printable ASCII characters, no blank at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial(String);

impl Serial {
    /// Checks a text.
    pub fn new(text: &str) -> Option<Self> {
        let is_serial = (1..=MAX_SERIAL_LENGTH_BYTES).contains(&text.len())
            && text.bytes().all(|b| (b' '..=b'~').contains(&b))
            && text.trim() == text;
        is_serial.then(|| Self(text.to_owned()))
    }

    /// The characters.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_session_by_default_and_never_more_than_processors() {
        let processors = std::thread::available_parallelism().unwrap().get();
        let sessions = default_sessions();
        assert!((1..=DEFAULT_SESSIONS).contains(&sessions));
        assert!(usize::from(sessions) == processors || sessions == DEFAULT_SESSIONS);
    }

    #[test]
    fn a_socket_path_has_1_to_107_bytes() {
        let path = |n: usize| SocketPath::new(PathBuf::from("x".repeat(n)));
        assert_eq!(path(0), Err(SocketPathError::Empty));
        assert!(path(1).is_ok());
        assert!(path(107).is_ok());
        assert!(matches!(
            path(108),
            Err(SocketPathError::TooLong {
                length_bytes: 108,
                ..
            })
        ));
    }

    #[test]
    fn a_queue_size_is_a_power_of_two_that_virtio_knows() {
        for size in [2, 4, 128, 16_384, 32_768] {
            assert_eq!(QueueSize::new(size).map(QueueSize::get), Some(size));
        }
        for size in [0, 1, 3, 127, 32_767, 32_769, u16::MAX] {
            assert_eq!(QueueSize::new(size), None);
        }
    }

    #[test]
    fn a_serial_has_1_to_20_printable_characters() {
        assert!(Serial::new("x").is_some());
        assert!(Serial::new("DISK 1-abc~").is_some());
        assert!(Serial::new(&"x".repeat(20)).is_some());
        for text in ["", " x", "x ", "a\nb", "é", "xxxxxxxxxxxxxxxxxxxxx"] {
            assert!(Serial::new(text).is_none(), "{text:?}");
        }
    }
}
