//! The other side of the control socket: a verb asks the process that serves.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::control_protocol::{Answer, Request};
use crate::exit::{ExitCode, Failure};

/// How long an answer may take: the other side has it in memory, but may be busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take where disks change: files are read, and disks end, which `life::END_LIMIT`
/// bounds; those of others who have asked before come first.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

fn answer_limit(request: &Request) -> Duration {
    match request {
        Request::Status { .. } | Request::Stats { .. } | Request::Limits { .. } => ANSWER_LIMIT,
        Request::Reload {} | Request::Add { .. } | Request::Remove { .. } => CHANGE_LIMIT,
    }
}

/// The longest answer that is read: thousands of sessions, and an end.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// Asks, and waits for the answer.
pub(super) fn ask(socket: &Path, request: &Request) -> Result<Value, Failure> {
    let answer = exchange(socket, request).map_err(|error| cannot_ask(socket, &error))?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| {
        Failure::new(
            ExitCode::Transport,
            format!(
                "what listens at {} does not answer as vhost-user-iscsi does; check the path",
                socket.display()
            ),
        )
    })?;
    answer.into()
}

fn exchange(socket: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(answer_limit(request)))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream)
        .take(MAX_ANSWER_BYTES)
        .read_until(b'\n', &mut answer)?;
    Ok(answer)
}

fn cannot_ask(socket: &Path, error: &io::Error) -> Failure {
    let path = socket.display();
    let (code, hint) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            ExitCode::Access,
            "be a member of its group, or the user that serves",
        ),
        // SO_RCVTIMEO.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            (ExitCode::Timeout, "the process there does not answer")
        }
        _ => (
            ExitCode::Transport,
            "is vhost-user-iscsi running with this control-socket? --control-socket names another",
        ),
    };
    Failure::new(
        code,
        format!("cannot ask at the control socket {path}: {error}; {hint}"),
    )
}
