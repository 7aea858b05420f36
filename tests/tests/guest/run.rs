//! A guest by `qemu-scripts/run-guest`: its disks, its script, what it printed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::NamedTempFile;
use vhost_user_iscsi_tests::process::Process;

/// What a guest may take, boot included, where the processor has to be emulated.
const GUEST_LIMIT: Duration = Duration::from_secs(300);
/// On top of that for the script around it: the guest's image is built by the first one.
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);
/// What taking a guest down may take.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Guests at once: more of them take turns on a small machine and get nowhere in time.
const GUESTS: usize = 2;

static SLOTS: Slots = Slots {
    taken: Mutex::new(0),
    freed: Condvar::new(),
};

/// The scripts' directory.
pub(super) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu-scripts")
}

/// Runs a program of `qemu-scripts/guest` on the host, for example to make a disk to boot from.
pub(super) fn on_host(name: &str, arguments: &[&str]) {
    let mut command = Command::new(scripts().join("guest").join(name));
    let mut process = Process::start(command.args(arguments), "it is part of the checkout");
    let status = process.wait_exit(SCRIPT_LIMIT);
    assert!(
        status.is_some_and(|status| status.success()),
        "{name} {arguments:?} ended with {status:?}: {:#?}",
        process.stderr.all()
    );
}

/// A guest to be started.
pub(super) struct Launch {
    command: Command,
    script: Option<NamedTempFile>,
}

impl Launch {
    /// A guest with these sockets as its disks, in their order.
    pub(super) fn new(sockets: &[&Path]) -> Self {
        let mut command = Command::new(scripts().join("run-guest"));
        for socket in sockets {
            command.arg("--socket").arg(socket);
        }
        command.args(["--timeout", &GUEST_LIMIT.as_secs().to_string()]);
        Self {
            command,
            script: None,
        }
    }

    /// Further options of `run-guest`.
    pub(super) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// A variable for the script.
    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.arg("--env").arg(format!("{name}={value}"));
        self
    }

    /// Runs a script of `qemu-scripts/guest`.
    pub(super) fn script(mut self, name: &str) -> Self {
        let path = scripts().join("guest").join(name);
        self.command.arg("--script").arg(path);
        self
    }

    /// Runs these lines.
    pub(super) fn lines(mut self, lines: &str) -> Self {
        let script = NamedTempFile::new().expect("a temporary file");
        std::fs::write(script.path(), lines).expect("a script");
        self.command.arg("--script").arg(script.path());
        self.script = Some(script);
        self
    }

    /// Starts it, as soon as few enough others run.
    pub(super) fn start(mut self) -> Guest {
        let slot = SLOTS.take();
        Guest {
            process: Process::start(&mut self.command, "it is part of the checkout"),
            _script: self.script,
            _slot: slot,
        }
    }

    /// Runs it to its end and returns what its script printed.
    pub(super) fn run(self) -> String {
        self.start().finish()
    }
}

/// A running guest; dropped, it is taken down.
pub(super) struct Guest {
    pub(super) process: Process,
    _script: Option<NamedTempFile>,
    _slot: Slot,
}

impl Guest {
    /// Waits for its end, which has to be a success, and returns what its script printed.
    pub(super) fn finish(self) -> String {
        self.finish_within(GUEST_LIMIT)
    }

    /// The same for a guest that has a time-out of its own.
    pub(super) fn finish_within(mut self, limit: Duration) -> String {
        let status = self.process.wait_exit(limit + SCRIPT_LIMIT);
        assert!(
            status.is_some_and(|status| status.success()),
            "the guest ended with {status:?}: {}",
            self.said()
        );
        self.process.stdout.to_end(END_LIMIT)
    }

    /// Waits until its script has printed a line with this in it.
    pub(super) fn wait_line(&self, part: &str, limit: Duration) {
        let line = self.process.stdout.wait_for(part, limit);
        assert!(line.is_some(), "no {part:?}: {}", self.said());
    }

    /// True while it has not ended.
    pub(super) fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    /// What it has said so far, for the message of a failure.
    pub(super) fn said(&self) -> String {
        let (output, errors) = (self.process.stdout.all(), self.process.stderr.all());
        format!("it printed {output:#?} and {errors:#?}")
    }
}

impl Drop for Guest {
    /// The script takes down what it started, so it is asked to end before it is killed.
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait_exit(END_LIMIT);
    }
}

/// Counts the guests that run.
struct Slots {
    taken: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    fn take(&'static self) -> Slot {
        let taken = self.taken.lock().unwrap();
        let mut taken = self
            .freed
            .wait_while(taken, |taken| *taken >= GUESTS)
            .unwrap();
        *taken += 1;
        Slot(self)
    }
}

struct Slot(&'static Slots);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap() -= 1;
        self.0.freed.notify_one();
    }
}
