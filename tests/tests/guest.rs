//! What a guest sees and does: QEMU with Linux or a firmware, the daemon, and a target.
//!
//! `tests/run` has a stage for these and skips them elsewhere by the name of this module.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod guest {
    mod boot;
    mod data;
    mod facts;
    mod recovery;
    mod resize;
    mod run;
}
