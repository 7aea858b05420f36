//! How a front-end is told that the configuration space has changed: it hands over a socket
//! (VHOST_USER_SET_BACKEND_REQ_FD), and VHOST_USER_BACKEND_CONFIG_CHANGE_MSG goes out on it. Then it
//! asks with GET_CONFIG. The vhost crate has no call for the message.
//!
//! Front-end and file are a stranger's, so nothing here waits: a message that does not go out at once
//! is left out. Nothing is lost by that, for a message says no more than "ask again", and the ones
//! before it are still to be read.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::message::CONFIG_CHANGE;

/// Whether a front-end learns of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// There is none. The next one asks.
    NoFrontEnd,
    /// It was told, or has been told and not listened yet.
    Yes,
    /// It has no way of being told (it lacks VHOST_USER_PROTOCOL_F_BACKEND_REQ): it sees the change
    /// when it connects anew.
    No,
}

/// What one front-end knows of the capacity, and how it can be told.
#[derive(Debug, Default)]
pub(super) struct ConfigChannel {
    socket: Option<OwnedFd>,
    /// What the last GET_CONFIG of this connection answered. `None` before: a front-end that comes
    /// back goes on with what it was told by whomever it was connected to.
    known_sectors: Option<u64>,
}

impl ConfigChannel {
    /// The front-end listens here from now on.
    pub(super) fn open(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
    }

    /// The front-end was told in an answer.
    pub(super) fn answered(&mut self, capacity_sectors: u64) {
        self.known_sectors = Some(capacity_sectors);
    }

    /// Sends a message if the front-end knows of another capacity.
    pub(super) fn tell(&mut self, capacity_sectors: u64) -> Told {
        if self.known_sectors == Some(capacity_sectors) {
            return Told::Yes;
        }
        let Some(socket) = &self.socket else {
            return Told::No;
        };
        // Without need_reply: an answer would have to be waited for.
        match send(
            socket,
            &CONFIG_CHANGE,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        ) {
            Ok(sent_bytes) if sent_bytes == CONFIG_CHANGE.len() => Told::Yes,
            Err(Errno::AGAIN) => {
                log::debug!("the front-end does not read what it is told");
                Told::Yes
            }
            // Half a message cannot be mended, nor a file that is no socket.
            result => {
                log::warn!("the front-end cannot be told of a change any more: {result:?}");
                self.socket = None;
                Told::No
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn open() -> (ConfigChannel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut channel = ConfigChannel::default();
        channel.open(ours.into());
        (channel, theirs)
    }

    fn read(stream: &mut UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let length = stream.read(&mut bytes).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn a_front_end_is_told_of_what_it_does_not_know() {
        let (mut channel, mut front_end) = open();
        assert_eq!(channel.tell(8), Told::Yes);
        assert_eq!(read(&mut front_end), CONFIG_CHANGE);
        channel.answered(8);
        assert_eq!(channel.tell(8), Told::Yes);
        assert!(read(&mut front_end).is_empty());
        assert_eq!(channel.tell(16), Told::Yes);
        assert_eq!(read(&mut front_end), CONFIG_CHANGE);
    }

    #[test]
    fn the_message_is_the_specifications() {
        // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG is 2; version 1, no reply wanted; no payload.
        let words = [2_u32, 1, 0].map(u32::to_ne_bytes);
        assert_eq!(CONFIG_CHANGE, *words.as_flattened());
    }

    #[test]
    fn one_without_a_socket_cannot_be_told() {
        let mut channel = ConfigChannel::default();
        assert_eq!(channel.tell(8), Told::No);
        channel.answered(8);
        assert_eq!(channel.tell(8), Told::Yes);
    }

    /// It would block for ever, or fill memory, if anybody waited for it.
    #[test]
    fn one_that_never_reads_holds_nobody_up() {
        let (mut channel, mut front_end) = open();
        for sectors in 0..100_000 {
            assert_eq!(channel.tell(sectors), Told::Yes);
        }
        assert!(read(&mut front_end).starts_with(&CONFIG_CHANGE));
    }

    #[test]
    fn a_file_that_is_no_socket_or_has_no_other_end_is_let_go() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (hung_up, _) = UnixStream::pair().unwrap();
        for stranger in [OwnedFd::from(file), hung_up.into()] {
            let mut channel = ConfigChannel::default();
            channel.open(stranger);
            assert_eq!(channel.tell(8), Told::No);
            assert!(channel.socket.is_none());
        }
    }
}
