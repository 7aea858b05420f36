//! What is being done, on stderr.

use std::fmt;
use std::time::Instant;

/// Lines with the seconds since the beginning.
pub(crate) struct Progress {
    begin: Instant,
}

impl Progress {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
        }
    }

    /// One line.
    #[allow(clippy::print_stderr, reason = "stdout belongs to the report")]
    pub(crate) fn say(&self, what: impl fmt::Display) {
        eprintln!("[{:4}s] {what}", self.begin.elapsed().as_secs());
    }
}
