//! The iSCSI initiator protocol of RFC 7143, without I/O.
//!
//! Bytes come in as slices, bytes go out through sinks, time and random values are arguments.
//! Nothing here opens a socket, starts a thread, reads a clock or draws a random number; that is
//! what makes the protocol deterministic, and every run of it repeatable.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![warn(clippy::indexing_slicing)]

extern crate alloc;

pub mod crc32c;
pub mod discovery;
pub mod disk;
pub mod error;
mod framer;
pub mod limits;
pub mod login;
pub mod name;
pub mod pdu;
pub mod scsi;
pub mod sequence;
pub mod session;
pub mod text;
pub mod whole_pdu;
