//! The daemon under test: `vhost-user-iscsi` as a process.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::frontend::{self, Frontend, FrontendConfig};
use crate::process::Process;
use crate::wait::{self, Deadline};

/// How long the daemon may take until its socket is there: it logs in first.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a front-end may be refused because the former one lingers.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// How long a verb may take.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Read by the daemon, so never inherited from whoever runs the tests.
const FOREIGN_SECRETS: [&str; 4] = [
    "LIBISCSI_CHAP_USERNAME",
    "LIBISCSI_CHAP_PASSWORD",
    "LIBISCSI_CHAP_TARGET_USERNAME",
    "LIBISCSI_CHAP_TARGET_PASSWORD",
];

/// Where a debug build dies: a point, or `POINT:N` (`backend/src/crash_point.rs`).
pub const CRASH_AT: &str = "VHOST_USER_ISCSI_CRASH_AT";
/// Its points, in the order of a batch.
pub const CRASH_POINTS: [&str; 6] = [
    "marked",
    "linked",
    "published",
    "clearing",
    "cleared",
    "settled",
];

/// How to start a daemon.
pub struct Launch {
    directory: TempDir,
    socket: Option<PathBuf>,
    command: Command,
    handed_over: Option<OwnedFd>,
    stderr: Stdio,
}

impl Launch {
    /// Serves `url` on a socket in a temporary directory.
    pub fn new(url: &str) -> Self {
        let directory = TempDir::with_prefix("vhost-user-iscsi-").expect("a temporary directory");
        let socket = directory.path().join("disk.sock");
        Self {
            socket: Some(socket),
            ..Self::bare(directory, url)
        }
    }

    /// Serves `url` on a socket at `path`.
    pub fn at(url: &str, path: &Path) -> Self {
        Self {
            socket: Some(path.to_owned()),
            ..Self::new(url)
        }
    }

    /// Serves `url` on a socket that the daemon inherits (`--fd`), listening or connected.
    pub fn over(url: &str, socket: impl Into<OwnedFd>) -> Self {
        let directory = TempDir::with_prefix("vhost-user-iscsi-").expect("a temporary directory");
        Self {
            handed_over: Some(socket.into()),
            ..Self::bare(directory, url)
        }
    }

    /// Serves the disks of a configuration file; [`Daemon::socket`] is then not there, and there is
    /// nothing to wait for.
    pub fn config(file: &Path) -> Self {
        let directory = TempDir::with_prefix("vhost-user-iscsi-").expect("a temporary directory");
        let mut launch = Self::without_disk(directory);
        launch.command.args(["serve", "--config"]).arg(file);
        launch
    }

    fn bare(directory: TempDir, url: &str) -> Self {
        let mut launch = Self::without_disk(directory);
        launch.command.args(["--blk-file", url]);
        launch
    }

    fn without_disk(directory: TempDir) -> Self {
        Self {
            directory,
            socket: None,
            command: command(),
            handed_over: None,
            stderr: Stdio::piped(),
        }
    }

    /// Adds arguments.
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.command.args(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has it log to this file; [`Daemon::log`] is empty then.
    pub fn log_to(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stderr = Stdio::from(file.into());
        self
    }

    /// Starts it and waits until its socket is there; with an inherited one there is nothing to
    /// wait for, since it listens already.
    ///
    /// # Panics
    /// When it ends or makes no socket in time; the message holds what it logged.
    pub fn start(self) -> Daemon {
        let mut daemon = self.spawn();
        if let Some(socket) = daemon.socket.clone() {
            let seen = wait::until(START_LIMIT, || daemon.look(&socket));
            assert_eq!(
                seen,
                Some(true),
                "no socket {socket:?}; logged: {:#?}",
                daemon.log()
            );
        }
        daemon
    }

    /// Starts it and waits for nothing: it may be meant to fail.
    pub fn spawn(mut self) -> Daemon {
        if let Some(socket) = &self.socket {
            self.command.arg("--socket-path").arg(socket);
        }
        if let Some(fd) = &self.handed_over {
            pass_on(&mut self.command, fd);
        }
        let process =
            Process::start_with_stderr(&mut self.command, "it was just built", self.stderr);
        Daemon {
            process,
            socket: self.socket,
            _directory: self.directory,
        }
    }
}

/// Adds `--fd` and lets the child, and no other process, inherit the descriptor.
fn pass_on(command: &mut Command, fd: &OwnedFd) {
    let number = fd.as_raw_fd();
    command.args(["--fd", &number.to_string()]);
    let inherit = move || {
        // SAFETY: the launch that owns the descriptor outlives the start of the child.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(fd, FdFlags::empty()).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec only one system call is made; nothing is allocated.
    unsafe { command.pre_exec(inherit) };
}

/// A running daemon; dropped, it is killed.
pub struct Daemon {
    process: Process,
    socket: Option<PathBuf>,
    _directory: TempDir,
}

impl Daemon {
    /// Serves `url` with these further arguments.
    ///
    /// # Panics
    /// As [`Launch::start`].
    pub fn start(url: &str, arguments: &[&str]) -> Self {
        Launch::new(url).args(arguments.iter().copied()).start()
    }

    /// Its socket.
    ///
    /// # Panics
    /// When it was started with `--fd`.
    pub fn socket(&self) -> &Path {
        self.socket.as_deref().expect("started with a socket path")
    }

    /// Connects a front-end. While one is connected the next is refused, and one that was dropped may
    /// live on for a moment: in a process that another test has just forked, until it calls exec.
    ///
    /// # Panics
    /// When that fails; the message holds what the daemon logged.
    pub fn connect(&self, config: FrontendConfig) -> Frontend {
        let deadline = Deadline::after(REFUSAL_LIMIT);
        loop {
            match Frontend::connect(self.socket(), config) {
                Ok(frontend) => return frontend,
                Err(frontend::Error::Message { .. }) if !deadline.passed() => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("{error}; the daemon logged: {:#?}", self.log()),
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The lines it has written to stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stderr.all()
    }

    /// Waits for a line on stderr that contains `part`.
    ///
    /// # Panics
    /// When none came within `limit`.
    pub fn wait_log(&self, part: &str, limit: Duration) -> String {
        let found = self.process.stderr.wait_for(part, limit);
        found.unwrap_or_else(|| panic!("no line with {part:?} in {:#?}", self.log()))
    }

    /// Asks it to end (SIGTERM); returns how and after how long it did.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.process.signal(Signal::TERM);
        (self.wait_exit(limit), asked.elapsed())
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub fn hang_up(&mut self) {
        self.process.signal(Signal::HUP);
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let status = self.process.wait_exit(limit);
        status.unwrap_or_else(|| panic!("still running after {limit:?}: {:#?}", self.log()))
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether the socket is there; `None` when that is not decided yet.
    fn look(&mut self, socket: &Path) -> Option<bool> {
        match self.process.exit_status() {
            Some(_) => Some(false),
            None => is_listening(socket).then_some(true),
        }
    }
}

/// Whether a process listens at `path`. Looked up without a connect, which would count as the
/// first front-end; a stale socket file does not count.
fn is_listening(path: &Path) -> bool {
    const ACCEPTS_CONNECTIONS: &str = "00010000";
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let wanted = path.to_string_lossy();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(3) == Some(ACCEPTS_CONNECTIONS) && fields.nth(3) == Some(&*wanted)
    })
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs the binary with `arguments` to its end, for verbs and for starts that fail.
///
/// # Panics
/// When it still runs after a minute.
pub fn run(arguments: &[&str]) -> Output {
    run_with_env(arguments, &[])
}

/// As [`run`] with environment variables.
pub fn run_with_env(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    run_to_end(&mut command)
}

/// As [`run`] in another directory.
pub fn run_in(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments).current_dir(directory);
    run_to_end(&mut command)
}

fn run_to_end(command: &mut Command) -> Output {
    let mut process = Process::start(command, "it was just built");
    let status = process.wait_exit(RUN_LIMIT);
    let status = status.unwrap_or_else(|| panic!("{command:?} ran for {RUN_LIMIT:?}"));
    Output {
        code: status.code(),
        stdout: process.stdout.to_end(RUN_LIMIT),
        stderr: process.stderr.to_end(RUN_LIMIT),
    }
}

/// The binary as a command, without secrets of whoever runs the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    for name in FOREIGN_SECRETS {
        command.env_remove(name);
    }
    command
}

/// The binary: what the environment variable `VHOST_USER_ISCSI` names, else a fresh build.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("VHOST_USER_ISCSI").map_or_else(build, PathBuf::from))
}

/// Builds the binary into the target directory of the running test, in its profile; quick when
/// nothing has changed.
fn build() -> PathBuf {
    let test = env::current_exe().expect("the running test");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--package",
        "vhost-user-iscsi",
        "--bin",
        "vhost-user-iscsi",
    ]);
    command.args([
        "--locked",
        "--message-format",
        "json-render-diagnostics",
        "--target-dir",
    ]);
    command.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo build --package vhost-user-iscsi failed"
    );
    executable(&String::from_utf8_lossy(&output.stdout)).expect("cargo names the executable")
}

/// The executable that cargo's JSON messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter_map(|message| Some(message.get("executable")?.as_str()?.into()))
        .next_back()
}
