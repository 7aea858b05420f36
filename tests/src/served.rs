//! The usual set-up with the scriptable target: one of its LUNs, served by the daemon.

use std::thread;
use std::time::Duration;

use iscsi_test_target::{Event, LunConfig, Negotiation, TargetConfig, TestTarget, Thin};

use crate::daemon::Daemon;
use crate::frontend::{Frontend, FrontendConfig};

/// Who the daemon and the verbs are in tests, so that no warning about a made-up name is logged.
pub const INITIATOR_NAME: &str = "iqn.2026-11.org.example:initiator";

/// A disk on loopback where nobody listens, and nobody will.
pub const AWAY: &str = "iscsi://127.0.0.1:1/iqn.2026-11.org.example:away/0";

/// How long something that should happen at once may take.
pub const SOON: Duration = Duration::from_secs(10);

/// Starts a scriptable target.
///
/// # Panics
/// When no loopback port can be bound.
pub fn start_target(config: TargetConfig) -> TestTarget {
    TestTarget::start(config).expect("a loopback port")
}

/// Starts one whose only LUN, LUN 0, has 16 MiB.
///
/// # Panics
/// As [`start_target`].
pub fn start_small_target() -> TestTarget {
    start_target(one_lun(LunConfig::of_bytes(16 << 20)))
}

/// A configuration whose only LUN is LUN 0.
pub fn one_lun(lun: LunConfig) -> TargetConfig {
    TargetConfig {
        luns: [(0, lun)].into(),
        ..TargetConfig::default()
    }
}

/// A thin LUN 0 of a target that asks for all data of writes by R2T, for more than 16 KiB by several.
pub fn asks_for_writes() -> TargetConfig {
    TargetConfig {
        negotiation: Negotiation {
            initial_r2t: true,
            immediate_data: false,
            max_outstanding_r2t: 1,
            max_burst_length: 16_384,
            first_burst_length: 4096,
            max_recv_data_segment_length: Some(4096),
            ..Negotiation::default()
        },
        ..one_lun(LunConfig {
            thin: Some(Thin::default()),
            ..LunConfig::default()
        })
    }
}

/// A LUN of the scriptable target, served by the daemon. Dropped, it asserts that the daemon broke
/// no rule of RFC 7143, unless the test has failed already.
pub struct Served {
    /// The daemon; it ends before the target does.
    pub daemon: Daemon,
    /// The target.
    pub target: TestTarget,
}

impl Served {
    /// Serves LUN 0 of a target like this.
    pub fn new(config: TargetConfig) -> Self {
        Self::with(config, &[])
    }

    /// The same with further arguments for the daemon.
    pub fn with(config: TargetConfig, arguments: &[&str]) -> Self {
        Self::from(start_target(config), 0, arguments)
    }

    /// Serves a LUN of a target that the test has prepared.
    pub fn from(target: TestTarget, lun: u16, arguments: &[&str]) -> Self {
        let name = ["--initiator-name", INITIATOR_NAME];
        let arguments = [&name, arguments].concat();
        let daemon = Daemon::start(&target.url(lun), &arguments);
        Self { daemon, target }
    }

    /// Connects a front-end.
    pub fn connect(&self, config: FrontendConfig) -> Frontend {
        self.daemon.connect(config)
    }

    /// The command descriptor blocks with this operation code that came in so far.
    pub fn commands(&self, opcode: u8) -> Vec<[u8; 16]> {
        let cdb = |event| match event {
            Event::Command { cdb, .. } if cdb[0] == opcode => Some(cdb),
            _ => None,
        };
        self.target.events().into_iter().filter_map(cdb).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !thread::panicking() {
            let violations = self.target.violations();
            assert!(violations.is_empty(), "{violations:#?}");
        }
    }
}
