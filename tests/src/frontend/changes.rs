//! The socket on which a back-end tells of changes (SET_BACKEND_REQ_FD), from the front-end's side.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::{Frontend, VhostUserFrontend};

use super::error::{Error, Result};
use crate::wait;

/// VHOST_USER_BACKEND_CONFIG_CHANGE_MSG: request 2, version 1 without need_reply, no payload.
const CONFIG_CHANGE: [u32; 3] = [2, 1, 0];

/// Our end.
pub(super) struct Changes(UnixStream);

impl Changes {
    /// Hands the other end over.
    pub(super) fn offer(link: &mut Frontend) -> vhost::Result<Self> {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        link.set_backend_request_fd(&theirs)?;
        Ok(Self(ours))
    }

    /// Waits for the next message, which has to be a config change.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<()> {
        if !wait::readable(&[self.0.as_fd()], limit) {
            return Err(Error::NotTold(limit));
        }
        let mut header = [0; 12];
        self.0
            .read_exact(&mut header)
            .map_err(|_| Error::Disconnected)?;
        let words = [0, 4, 8].map(|at| {
            let word = [0, 1, 2, 3].map(|byte| header[at + byte]);
            u32::from_ne_bytes(word)
        });
        match words {
            CONFIG_CHANGE => Ok(()),
            other => Err(Error::NotAConfigChange(other)),
        }
    }
}
