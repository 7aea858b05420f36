//! What each fuzz target does with its bytes.
//!
//! A target is a function that takes any bytes, plays a stranger with them (a target, a guest, a
//! front-end, a user), and panics when a promise is broken. It returns how far it got: 0 when the
//! bytes led nowhere, so that a test can tell whether a seed still does what it was made for.
//!
//! The first bytes choose what was agreed on before; then come steps, each a byte that says what
//! happens and bytes that say with what. Where random bytes would get nowhere (digests, sequence
//! numbers, tags) a step is right unless it says otherwise. Nothing depends on time, addresses or
//! order of threads but in `front_end`, so the same bytes do the same again.
//!
//! To add one: a function here or in `backend/src/device/fuzzing.rs`, a row in [`TARGETS`], a file
//! in `fuzz_targets/`, seeds in `seeds.rs`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a fuzzer learns that something is wrong"
)]

mod block_requests;
mod chap_values;
mod command_line;
mod discovery;
mod front_end;
mod login;
mod peer;
mod probe;
mod questions;
mod scsi;
pub mod seeds;
mod session;
mod url;

use vhost_user_iscsi::device::fuzzing;

pub use vhost_user_iscsi::device::fuzzing::Input;

/// A target: its name, which is that of its corpus too, and what it does.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// What it does with any bytes; more than 0 when they led somewhere.
    pub run: fn(&[u8]) -> u64,
}

/// All targets.
pub const TARGETS: [Target; 14] = [
    target("block_requests", block_requests::run),
    target("chap_values", chap_values::run),
    target("command_line", command_line::run),
    target("descriptor_chains", fuzzing::descriptor_chains),
    target("discovery", discovery::run),
    target("front_end", front_end::run),
    target("front_end_messages", fuzzing::front_end_messages),
    target("inflight_region", fuzzing::inflight_region),
    target("login", login::run),
    target("probe", probe::run),
    target("questions", questions::run),
    target("scsi", scsi::run),
    target("session", session::run),
    target("url", url::run),
];

const fn target(name: &'static str, run: fn(&[u8]) -> u64) -> Target {
    Target { name, run }
}

/// Runs the target of that name, which exists.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target of this name");
    (target.run)(data);
}
