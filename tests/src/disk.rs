//! The usual set-up of a test: a tgt with one LUN, and the daemon that serves it.

use crate::daemon::Daemon;
use crate::frontend::{Frontend, FrontendConfig};
use crate::tgt::{LunOptions, Target, Tgt};

/// Size of the LUN, unless the test wants another.
pub const DISK_BYTES: u64 = 64 << 20;

/// A LUN of tgt served by the daemon.
pub struct Disk {
    /// The daemon; it ends before the target does.
    pub daemon: Daemon,
    /// The target's process.
    pub tgt: Tgt,
    /// The target that holds the LUN.
    pub target: Target,
}

impl Disk {
    /// A thin LUN, so that every request type is on offer.
    pub fn new() -> Self {
        Self::with(
            &LunOptions {
                thin: true,
                ..LunOptions::default()
            },
            &[],
        )
    }

    /// A LUN with these options, and a daemon with these further arguments.
    pub fn with(options: &LunOptions, arguments: &[&str]) -> Self {
        Self::on(Tgt::start(), options, arguments)
    }

    /// As [`Disk::with`] on a tgt that the test has started.
    pub fn on(mut tgt: Tgt, options: &LunOptions, arguments: &[&str]) -> Self {
        let target = tgt.disk(DISK_BYTES, options);
        Self::serve(tgt, target, arguments)
    }

    /// Serves LUN 1 of a target that the test has set up.
    pub fn serve(tgt: Tgt, target: Target, arguments: &[&str]) -> Self {
        let daemon = Daemon::start(&tgt.url(&target, 1), arguments);
        Self {
            daemon,
            tgt,
            target,
        }
    }

    /// Connects a front-end.
    pub fn connect(&self, config: FrontendConfig) -> Frontend {
        self.daemon.connect(config)
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes without a period that any block or page size would hide.
pub fn pattern(length_bytes: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length_bytes).collect()
}
