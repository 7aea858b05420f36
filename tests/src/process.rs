//! A child process: its output by lines, its end with a limit, killed when dropped.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, set_parent_process_death_signal,
};

use crate::wait::{self, Deadline};

/// Lines that a process has written so far, to be waited for.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<(Mutex<Collected>, Condvar)>,
}

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Collects lines from `source` on a thread of its own until its end.
    pub(crate) fn collect(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let sink = lines.clone();
        thread::spawn(move || sink.fill(BufReader::new(source)));
        lines
    }

    fn fill(&self, mut source: impl BufRead) {
        let mut bytes = Vec::new();
        while matches!(source.read_until(b'\n', &mut bytes), Ok(1..)) {
            let line = String::from_utf8_lossy(&bytes)
                .trim_end_matches('\n')
                .to_owned();
            self.update(|collected| collected.lines.push(line));
            bytes.clear();
        }
        self.update(|collected| collected.ended = true);
    }

    fn update(&self, change: impl FnOnce(&mut Collected)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    /// Everything written so far.
    pub fn all(&self) -> Vec<String> {
        self.shared.0.lock().unwrap().lines.clone()
    }

    /// Waits for a line that contains `part`; `None` when the limit passed or the output ended.
    pub fn wait_for(&self, part: &str, limit: Duration) -> Option<String> {
        let deadline = Deadline::after(limit);
        let mut collected = self.shared.0.lock().unwrap();
        loop {
            if let Some(line) = collected.lines.iter().find(|line| line.contains(part)) {
                return Some(line.clone());
            }
            if collected.ended || deadline.passed() {
                return None;
            }
            collected = self
                .shared
                .1
                .wait_timeout(collected, deadline.left())
                .unwrap()
                .0;
        }
    }

    /// Waits for the end of the output and returns it whole.
    pub fn to_end(&self, limit: Duration) -> String {
        let deadline = Deadline::after(limit);
        let mut collected = self.shared.0.lock().unwrap();
        while !collected.ended && !deadline.passed() {
            collected = self
                .shared
                .1
                .wait_timeout(collected, deadline.left())
                .unwrap()
                .0;
        }
        collected
            .lines
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

/// Asks the kernel to kill this process when the thread that started it ends.
fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Has a child killed when the thread that starts it ends.
pub(crate) fn dies_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only one system call is made; nothing is allocated.
    unsafe { command.pre_exec(die_with_parent) }
}

/// A running child; dropped, it is killed and reaped.
///
/// It is also killed when the thread that started it ends, so that nothing is left behind when a
/// test is killed itself. Start it on the thread of the test.
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    /// What it writes to stdout.
    pub stdout: Lines,
    /// What it writes to stderr.
    pub stderr: Lines,
}

impl Process {
    /// Starts `command` with captured output and no input.
    ///
    /// # Panics
    /// When it cannot be started; the message ends with `hint`.
    pub fn start(command: &mut Command, hint: &str) -> Self {
        Self::start_with_stderr(command, hint, Stdio::piped())
    }

    /// The same with another stderr, which only a pipe of ours is captured from.
    ///
    /// # Panics
    /// As [`Process::start`].
    pub fn start_with_stderr(command: &mut Command, hint: &str, stderr: Stdio) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = dies_with_parent(command)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}; {hint}"));
        let stdout = Lines::collect(child.stdout.take().expect("stdout is piped"));
        let stderr = child.stderr.take().map(Lines::collect).unwrap_or_default();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("pidfd_open");
        Self {
            child,
            pidfd,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; one that has ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("cannot signal a child");
        }
    }

    /// How it ended, `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("cannot wait for a child")
    }

    /// Waits for its end; `None` when `limit` passed first.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait::readable(&[&self.pidfd], limit);
        self.exit_status()
    }

    /// Kills and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
