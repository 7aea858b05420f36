//! The control socket of a daemon, as those see it who ask there.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Output, run};
use crate::served::SOON;
use crate::wait;

/// How long an answer may take: before that of a reload, disks may have to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Where a daemon is asked.
pub struct ControlSocket {
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl ControlSocket {
    /// One for a daemon that serves a single disk, in a directory of its own.
    ///
    /// # Panics
    /// When there can be no temporary directory.
    pub fn new() -> Self {
        let directory = TempDir::with_prefix("control-").expect("a temporary directory");
        Self {
            path: directory.path().join("control"),
            _directory: Some(directory),
        }
    }

    /// One at `path`, whose directory is somebody else's.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            _directory: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The arguments that name it, for the daemon and for the verbs.
    pub fn arguments(&self) -> [&str; 2] {
        let path = self.path.to_str().expect("a path of ours");
        ["--control-socket", path]
    }

    /// Runs a verb that asks here.
    pub fn verb(&self, arguments: &[&str]) -> Output {
        run(&[arguments, &self.arguments()].concat())
    }

    /// Runs a verb that has to succeed; its document.
    ///
    /// # Panics
    /// When it fails; the message holds what it said.
    pub fn document(&self, arguments: &[&str]) -> Value {
        let output = self.verb(&[arguments, &["--json"]].concat());
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        serde_json::from_str(&output.stdout).expect("a document")
    }

    /// Connects, as soon as somebody listens.
    ///
    /// # Panics
    /// When nobody does soon.
    pub fn connect(&self) -> UnixStream {
        let connected = wait::until(SOON, || UnixStream::connect(&self.path).ok());
        let stream = connected.unwrap_or_else(|| panic!("nobody listens at {:?}", self.path));
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a time");
        stream
    }

    /// Sends a line, and reads the answer to it.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn ask(&self, line: &[u8]) -> Value {
        let answer = exchange(&mut self.connect(), line);
        answer.unwrap_or_else(|error| panic!("{:?}: {error}", String::from_utf8_lossy(line)))
    }
}

impl Default for ControlSocket {
    fn default() -> Self {
        Self::new()
    }
}

/// One line there, one line back.
///
/// # Errors
/// When it cannot be sent, or no answer comes back.
pub fn exchange(stream: &mut UnixStream, line: &[u8]) -> io::Result<Value> {
    stream.write_all(line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let no_answer = |error| io::Error::other(format!("{answer:?}: {error}"));
    serde_json::from_str(&answer).map_err(no_answer)
}
