//! The back-end of `vhost-user-iscsi`.
//!
//! `cli` turns arguments into checked settings ([`config`]), [`control`] logs in and keeps
//! sessions, [`device`] is what the guest sees, `engine` carries requests between the two.

#![deny(unsafe_code)]

pub mod capabilities;
pub mod changes;
pub mod cli;
pub mod config;
pub mod control;
pub mod control_protocol;
mod crash_point;
pub mod credentials;
pub mod device;
mod engine;
pub mod escape;
pub mod exit;
pub mod found;
#[allow(
    unsafe_code,
    reason = "guest memory is shared with a guest that writes to it"
)]
pub mod guest_memory;
pub mod http_head;
pub mod initiator_name;
pub mod limits;
mod log_context;
pub mod log_writer;
pub mod memory_watch;
pub mod metrics;
mod pdu_log;
pub mod portal;
#[allow(
    unsafe_code,
    reason = "system calls that take pointers into guest memory"
)]
mod raw_io;
pub mod report;
pub mod sandbox;
pub mod secret;
pub mod stats;
pub mod status;
pub mod system;
pub mod url;
