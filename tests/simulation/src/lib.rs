//! The core, driven by a seeded scheduler over a virtual clock, against a model target with a codec
//! of its own.
//!
//! One number decides a whole run: the disk, the sessions, the load, every fault and every choice of
//! the scheduler. There is no clock, no thread and no order that a run does not decide, so the same
//! seed gives the same run. [`faults::Faults`] says what can go wrong; [`judge::Judge`] says what
//! must be right all the same.

#![allow(
    clippy::cast_possible_truncation,
    reason = "lengths of a simulated disk fit every type"
)]

pub mod faults;
pub mod initiator;
pub mod judge;
pub mod rng;
pub mod run;
pub mod settings;
pub mod target;
pub mod wire;

/// What was wrong, for whoever reads the output of a run.
pub type Failure = String;
