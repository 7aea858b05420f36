//! The harness: real targets, the daemon, a front-end client, a model disk.
//!
//! A helper that cannot do its work panics with a message that says what is missing: a test must
//! fail loudly, never skip silently.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness reports by panicking: its callers are tests"
)]

pub mod chap;
pub mod config_file;
pub mod control_socket;
pub mod daemon;
pub mod disk;
pub mod exposition;
pub mod frontend;
pub mod model;
pub mod process;
pub mod proxy;
pub mod qemu;
pub mod rng;
pub mod served;
pub mod service;
pub mod snapshot;
pub mod soak;
pub mod terminal;
pub mod tgt;
pub mod wait;
