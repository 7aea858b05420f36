//! Waiting for an event with a limit, never for luck.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Pause between two looks at something that cannot be waited for.
const RETRY: Duration = Duration::from_millis(10);

/// A point in time after which waiting is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// What is left, zero when the limit has passed.
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// True when nothing is left.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// Waits until one of `fds` is readable (or hung up); false when `limit` passed first.
pub fn readable<F: AsFd>(fds: &[F], limit: Duration) -> bool {
    let deadline = Deadline::after(limit);
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    loop {
        let left = Timespec::try_from(deadline.left()).expect("a limit fits a timespec");
        match poll(&mut polled, Some(&left)) {
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll failed: {error}"),
            Ok(ready) => return ready > 0,
        }
    }
}

/// Looks every few milliseconds until `look` finds something; `None` when `limit` passed first.
///
/// For what sends no event: a port that opens, a socket file that appears.
pub fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(limit);
    loop {
        let found = look();
        if found.is_some() || deadline.passed() {
            return found;
        }
        thread::sleep(RETRY.min(deadline.left()));
    }
}
