//! Why the benchmark ends without a result, and with which status.

use std::fmt;
use std::process::ExitCode;

/// What the process tells its caller; the numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// Every demand is met.
    Met = 0,
    /// A demand is missed.
    Missed = 1,
    /// The command line cannot be used.
    Usage = 2,
    /// The machine was busy with something else.
    Busy = 3,
    /// A part of the benchmark failed.
    PartFailed = 4,
    /// Ended by a signal that asked for it.
    Interrupted = 130,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// A failure: what happened, and the status that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) status: Status,
    message: String,
}

impl Failure {
    /// The command line cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Status::Usage, message)
    }

    /// The machine was busy.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(Status::Busy, message)
    }

    /// Target, back-end, peer, a tool or a file failed.
    pub(crate) fn part(message: impl Into<String>) -> Self {
        Self::new(Status::PartFailed, message)
    }

    fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
