//! Running totals of a target: added to by every connection without a lock, read by tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Logins that reached the full-feature phase.
    pub logins: u64,
    /// SCSI commands taken.
    pub commands: u64,
    /// Bytes written by initiators.
    pub data_out_bytes: u64,
    /// Bytes read by initiators.
    pub data_in_bytes: u64,
    /// Receives and sends, that is system calls on connections.
    pub receives: u64,
    /// See `receives`.
    pub sends: u64,
    /// Events forgotten because the log was full.
    pub forgotten_events: u64,
}

/// One total.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    /// Adds to it.
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// [`Counters`] as they grow.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: Total,
    pub(crate) logins: Total,
    pub(crate) commands: Total,
    pub(crate) data_out_bytes: Total,
    pub(crate) data_in_bytes: Total,
    pub(crate) receives: Total,
    pub(crate) sends: Total,
    pub(crate) forgotten_events: Total,
}

impl Totals {
    /// What they are now, each for itself.
    pub(crate) fn read(&self) -> Counters {
        Counters {
            connections: self.connections.get(),
            logins: self.logins.get(),
            commands: self.commands.get(),
            data_out_bytes: self.data_out_bytes.get(),
            data_in_bytes: self.data_in_bytes.get(),
            receives: self.receives.get(),
            sends: self.sends.get(),
            forgotten_events: self.forgotten_events.get(),
        }
    }
}
