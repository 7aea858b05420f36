//! SCSI: command descriptor blocks out, parameter data and sense data in. No state, no iSCSI.
//!
//! One file per family of commands. Each has functions named `command…`, which build a
//! [`command::ScsiCommand`], and where data comes back a function named `parse…`. Parsers take
//! what arrived: a target may send less than was asked for (a residual underflow), and a field
//! that did not arrive counts as not reported.
//!
//! The standards are cited by the titles of their clauses: the numbers move between revisions.

pub(crate) mod bytes;
pub mod capacity;
pub mod command;
pub mod inquiry;
pub mod lun;
pub mod mode_sense;
pub mod opcode;
pub mod read_write;
pub mod report_luns;
pub mod sense;
pub mod sense_action;
mod sense_text;
pub mod status;
pub mod sync_cache;
pub mod test_unit_ready;
pub mod unmap;
pub mod vpd;
pub mod write_same;

use thiserror::Error;

/// Why parameter data cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParameterError {
    /// The part that every answer must have did not arrive.
    #[error("{arrived_bytes} bytes arrived where at least {needed_bytes} are needed")]
    TooShort {
        /// How many bytes the smallest legal answer has.
        needed_bytes: usize,
        /// How many there were.
        arrived_bytes: usize,
    },
    /// Another VPD page came back than was asked for, as from a device that ignores EVPD.
    #[error("page {found:02X}h came back where page {expected:02X}h was asked for")]
    WrongPage {
        /// The page asked for.
        expected: u8,
        /// The page code in the answer.
        found: u8,
    },
}
