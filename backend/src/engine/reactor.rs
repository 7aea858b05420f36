//! What a lane waits for: its mailbox, its connection, the kicks of its rings, and a point in
//! time.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;

/// Who an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Mailbox,
    Connection,
    /// The lane's queue with that index.
    Kick(usize),
}

impl Token {
    fn encode(self) -> epoll::EventData {
        epoll::EventData::new_u64(match self {
            Self::Mailbox => 0,
            Self::Connection => 1,
            Self::Kick(index) => 2 + index as u64,
        })
    }

    fn decode(data: epoll::EventData) -> Self {
        match data.u64() {
            0 => Self::Mailbox,
            1 => Self::Connection,
            kick => Self::Kick(usize::try_from(kick - 2).unwrap_or(usize::MAX)),
        }
    }
}

/// An event: for whom, and whether there is something to read or room to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: Token,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// More than a lane usually has descriptors; what does not fit is reported by the next wait.
pub(super) const MAX_EVENTS: usize = 16;

#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    /// Reports when `fd` is readable, for as long as it is.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            token.encode(),
            epoll::EventFlags::IN,
        )?)
    }

    /// Reports each time that something new can be read from `fd`, and once if it can now. It
    /// need not be read: a kick costs no further system call, and a strange file cannot keep us
    /// busy.
    pub(super) fn watch_edge(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, token.encode(), flags)?)
    }

    /// Sets whether `fd`, already watched, is reported when it can be written to as well.
    pub(super) fn watch_writable(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        writable: bool,
    ) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, writable);
        Ok(epoll::modify(&self.epoll, fd, token.encode(), flags)?)
    }

    /// Ends the watch; one that is not watched is no matter.
    pub(super) fn forget(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something happens or `timeout` is over, and appends what did to `ready`.
    pub(super) fn wait(&self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = rustix::event::Timespec::try_from(timeout).ok();
        let mut events = [const { MaybeUninit::uninit() }; MAX_EVENTS];
        let events = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            let failed = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            Ready {
                token: Token::decode(event.data),
                readable: failed || flags.contains(epoll::EventFlags::IN),
                writable: failed || flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}
