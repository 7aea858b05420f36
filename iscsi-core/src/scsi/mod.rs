//! SCSI: command descriptor blocks out, parameter data and sense data in. No state, no iSCSI.

pub mod command;
