//! The binary in a terminal: keys in, screen out, and how the terminal is afterwards.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::daemon;
use crate::process::dies_with_parent;
use crate::wait;

/// A program in a terminal; dropped, it is killed.
pub struct InTerminal {
    child: Child,
    keyboard: File,
    /// Our own hold on the terminal: it lives on when the program has ended.
    terminal: OwnedFd,
    written: Arc<Mutex<String>>,
    before: String,
}

impl InTerminal {
    /// Runs a verb in a terminal of 160 columns and 40 rows.
    ///
    /// # Panics
    /// When there can be no terminal, or the binary does not start.
    pub fn start(arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudoterminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its end");
        let size = Winsize {
            ws_row: 40,
            ws_col: 160,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).expect("a size");
        let before = attributes(&terminal);
        let end = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let mut command = daemon::command();
        command.args(arguments);
        command.stdin(end()).stdout(end()).stderr(end());
        let child = dies_with_parent(&mut command)
            .spawn()
            .expect("it was just built");
        let written = Arc::new(Mutex::new(String::new()));
        let keyboard = File::from(master);
        collect(keyboard.try_clone().expect("a descriptor"), &written);
        Self {
            child,
            keyboard,
            terminal,
            written,
            before,
        }
    }

    /// All that was written so far.
    pub fn written(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    /// Waits until `part` is written behind what was there when it was called; what came.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn wait_for(&self, part: &str, limit: Duration) -> String {
        let from = self.written().len();
        let since = || self.written().get(from..).unwrap_or_default().to_owned();
        let found = wait::until(limit, || Some(since()).filter(|text| text.contains(part)));
        found.unwrap_or_else(|| panic!("no {part:?} in {:?}", self.written()))
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("a terminal");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it cannot be signalled.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child");
    }

    /// Whether keys come one by one, as somebody wants who reads them.
    pub fn is_raw(&self) -> bool {
        let attributes = tcgetattr(&self.terminal).expect("a terminal");
        !attributes.local_modes.contains(LocalModes::ICANON)
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let ended = wait::until(limit, || self.child.try_wait().expect("a child"));
        ended.unwrap_or_else(|| panic!("still running: {:?}", self.written()))
    }

    /// Whether the terminal is as it was before.
    pub fn is_restored(&self) -> bool {
        attributes(&self.terminal) == self.before
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All attributes, to be compared.
fn attributes(terminal: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(terminal).expect("a terminal"))
}

/// Collects what is written, until the terminal is gone.
fn collect(mut screen: File, written: &Arc<Mutex<String>>) {
    let written = Arc::clone(written);
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            written.lock().unwrap().push_str(&text);
        }
    });
}
