//! Names and secrets for CHAP, and a target that wants them.

use iscsi_test_target::{ChapConfig, Secret, TargetConfig, TestTarget};

use crate::served::start_target;

/// The initiator's name.
pub const OUR_USER: &str = "alice";
/// The initiator's secret.
pub const OUR_SECRET: &str = "initiator-secret-7143";
/// The target's name.
pub const TARGET_USER: &str = "storage";
/// The target's secret.
pub const TARGET_SECRET: &str = "target-secret-of-7143";

/// A target that demands CHAP of the initiator.
pub fn one_way() -> ChapConfig {
    ChapConfig::new(OUR_USER, Secret::new(OUR_SECRET))
}

/// A target that authenticates itself, too.
pub fn mutual() -> ChapConfig {
    one_way().mutual(TARGET_USER, Secret::new(TARGET_SECRET))
}

/// Starts a target with CHAP.
///
/// # Panics
/// As [`start_target`].
pub fn start_chap_target(chap: ChapConfig) -> TestTarget {
    start_target(TargetConfig {
        chap: Some(chap),
        ..TargetConfig::default()
    })
}
