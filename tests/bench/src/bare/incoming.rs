//! The receive side: one buffer, filled by one receive, that is read from front to back.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};

use super::commands::Header;
use super::error::{FloorError, answer};

/// Bytes that arrived and were not looked at yet.
pub(super) struct Incoming {
    room: Box<[u8]>,
    start: usize,
    end: usize,
    busy_poll: Duration,
    /// Receives so far, those that found nothing included.
    pub(super) receives: u64,
}

impl Incoming {
    pub(super) fn new(length_bytes: usize, busy_poll: Duration) -> Self {
        // A header has to fit, and room behind a part of one.
        let length_bytes = length_bytes.max(4096);
        Self {
            room: vec![0; length_bytes].into(),
            start: 0,
            end: 0,
            busy_poll,
            receives: 0,
        }
    }

    /// Waits for bytes and receives them. What was left, at most a part of a header, is kept.
    pub(super) fn receive(&mut self, socket: &TcpStream) -> Result<(), FloorError> {
        self.room.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if !self.busy_poll.is_zero() {
            let begin = Instant::now();
            while begin.elapsed() < self.busy_poll {
                if self.receive_once(socket, RecvFlags::DONTWAIT)? {
                    return Ok(());
                }
            }
        }
        if self.receive_once(socket, RecvFlags::empty())? {
            return Ok(());
        }
        answer("the target is silent although commands are in flight")
    }

    /// One receive: false when nothing was there within the time that the socket or `flags` give.
    fn receive_once(&mut self, socket: &TcpStream, flags: RecvFlags) -> Result<bool, FloorError> {
        self.receives += 1;
        let free = &mut self.room[self.end..];
        match retry_on_intr(|| recv(socket, &mut *free, flags)) {
            Ok((0, _)) => answer("the target closed the connection"),
            Ok((count, _)) => {
                self.end += count;
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next header, when all of it is there.
    pub(super) fn header(&mut self) -> Option<Header> {
        let header = *self.room[self.start..self.end].first_chunk()?;
        self.start += size_of::<Header>();
        Some(header)
    }

    /// The next bytes, as many of `limit_bytes` as are there.
    pub(super) fn take(&mut self, limit_bytes: usize) -> &[u8] {
        let start = self.start;
        self.start = self.end.min(start.saturating_add(limit_bytes));
        &self.room[start..self.start]
    }
}
