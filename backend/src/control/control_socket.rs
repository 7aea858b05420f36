//! The control socket: who may look into the process and change its disks, and with what bounds.
//!
//! Whoever may connect is trusted to do that, and with nothing else: whatever else they send costs an
//! error line, and never the disks anything.

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::service::Service;
use super::socket::{self, PathLock};
use crate::config::ControlSocketSettings;
use crate::control_protocol::{Answer, Request};
use crate::escape::escape_json;
use crate::exit::{ExitCode, Failure};

/// The longest request line, without its newline: hundreds of times what one needs.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// How many may be connected at once: people and a monitoring system, not a crowd.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may take for its next request, all of it.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How long an answer may take to be read.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// A control socket that is bound. Dropped, its path is gone.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: Option<StdListener>,
    settings: ControlSocketSettings,
    _lock: PathLock,
}

impl ControlSocket {
    /// Binds it; `None` where it cannot be had, and nobody has asked for it.
    ///
    /// # Errors
    /// When it is required, and cannot be had.
    pub(super) fn bind(settings: Option<ControlSocketSettings>) -> Result<Option<Self>, Failure> {
        let Some(settings) = settings else {
            return Ok(None);
        };
        let is_required = settings.is_required;
        match Self::try_bind(settings) {
            Ok(bound) => Ok(Some(bound)),
            Err(failure) if is_required => Err(failure),
            Err(failure) => {
                log::warn!("there is no control socket, ls and status do not work: {failure}");
                Ok(None)
            }
        }
    }

    fn try_bind(settings: ControlSocketSettings) -> Result<Self, Failure> {
        let lock = PathLock::acquire(settings.socket.path.as_path())?;
        let listener = socket::bind(&settings.socket)?;
        Ok(Self {
            listener: Some(listener),
            settings,
            _lock: lock,
        })
    }

    /// Answers requests from now on, until the runtime ends.
    pub(super) fn serve(&mut self, service: Arc<Service>) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(ExitCode::Other, error.to_string());
        if let Some(listener) = self.listener.take() {
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = UnixListener::from_std(listener).map_err(failed)?;
            tokio::spawn(accept(listener, service));
        }
        Ok(())
    }
}

impl Drop for ControlSocket {
    /// Ours by the lock: nobody is to find a door without a house behind it.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.settings.socket.path.as_path());
    }
}

async fn accept(listener: UnixListener, service: Arc<Service>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::error!("control socket: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            refuse(&stream);
            continue;
        };
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            converse(stream, &service).await;
            drop(place);
        });
    }
}

/// Says why, as far as that takes no waiting.
fn refuse(stream: &UnixStream) {
    let message = format!("{MAX_CONNECTIONS} connections are open already; try again later");
    let failure = Failure::new(ExitCode::Other, message);
    if let Some(line) = line(Err(failure)) {
        let _ = stream.try_write(&line);
    }
}

/// One request after the other, until the other side has enough, or we have.
async fn converse(mut stream: UnixStream, service: &Service) {
    let mut arrived = Vec::new();
    loop {
        let request = match timeout(IDLE_LIMIT, next_line(&mut stream, &mut arrived)).await {
            Ok(Some(request)) => request,
            Ok(None) | Err(_) => return,
        };
        let is_last = request.is_none();
        let answer = match request {
            Some(line) => match Request::parse(&line) {
                Ok(request) => service.answer(&request).await,
                Err(failure) => Err(failure),
            },
            None => Err(Failure::usage(format!(
                "a request has {MAX_REQUEST_BYTES} bytes at most"
            ))),
        };
        let Some(line) = line(answer) else { return };
        let written = timeout(WRITE_LIMIT, stream.write_all(&line)).await;
        if is_last || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next line, `Some(None)` when it is too long. `None` at the end, also in the middle of a line.
async fn next_line(stream: &mut UnixStream, arrived: &mut Vec<u8>) -> Option<Option<Vec<u8>>> {
    loop {
        if let Some(end) = arrived.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = arrived.drain(..=end).collect();
            line.pop();
            return Some((line.len() <= MAX_REQUEST_BYTES).then_some(line));
        }
        if arrived.len() > MAX_REQUEST_BYTES {
            return Some(None);
        }
        arrived.reserve(4096);
        match stream.read_buf(arrived).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// An answer on one line; `None` when it cannot be written down.
fn line(result: Result<serde_json::Value, Failure>) -> Option<Vec<u8>> {
    let json = serde_json::to_string(&Answer::from(result)).ok()?;
    let mut line = escape_json(&json).into_bytes();
    line.push(b'\n');
    Some(line)
}
