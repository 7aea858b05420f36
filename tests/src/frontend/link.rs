//! The vhost-user connection, with a limit on every answer.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::Frontend;

use super::error::{Error, Result};

/// How long the back-end may take to answer a message.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// A connection to a back-end.
pub(super) struct Link {
    frontend: Frontend,
    socket: UnixStream,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Link {
    /// Takes over a connected socket.
    pub(super) fn new(socket: UnixStream, queues: u16) -> Self {
        let ours = socket.try_clone().expect("a socket can be duplicated");
        Self {
            frontend: Frontend::from_stream(socket, u64::from(queues)),
            socket: ours,
        }
    }

    /// Ends the connection. A test that is just starting a process has a copy of each descriptor for a
    /// moment, so to close it would not do.
    pub(super) fn hang_up(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Readable when the back-end has gone: it says nothing unasked.
    pub(super) fn hang_up_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends `message` as `exchange` does and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Message`] when it is refused; [`Error::NoReply`] after the limit, when the
    /// connection is closed too: nothing else ends a read inside the vhost crate.
    pub(super) fn ask<T>(
        &mut self,
        message: &'static str,
        exchange: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T> {
        let socket = &self.socket;
        let (answered, waiting) = channel::<()>();
        thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let late = waiting.recv_timeout(REPLY_LIMIT) == Err(RecvTimeoutError::Timeout);
                late && socket.shutdown(Shutdown::Both).is_ok()
            });
            let answer = exchange(&mut self.frontend);
            drop(answered);
            if watch.join().unwrap_or(false) {
                return Err(Error::NoReply {
                    message,
                    limit: REPLY_LIMIT,
                });
            }
            answer.map_err(|source| Error::Message { message, source })
        })
    }
}
