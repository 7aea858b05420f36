//! PDU headers for the log, at level trace: what went which way. Never data.

use iscsi_core::pdu::{Bhs, data_segment_length, initiator_task_tag};
use iscsi_core::session::{Session, Way};

/// Has every PDU of `session` logged, when the log is to have them.
pub(crate) fn trace_pdus(session: &mut Session) {
    if log::log_enabled!(log::Level::Trace) {
        session.trace_pdus(log_pdu);
    }
}

/// One line: direction, name, tag, length of the data segment, the header in hexadecimal.
pub(crate) fn log_pdu(way: Way, bhs: &Bhs) {
    if !log::log_enabled!(log::Level::Trace) {
        return;
    }
    let arrow = match way {
        Way::Out => "->",
        Way::In => "<-",
    };
    log::trace!(
        "{arrow} {} itt={:#010x} data={} {}",
        name(bhs[0]),
        initiator_task_tag(bhs),
        data_segment_length(bhs),
        bhs.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
}

fn name(first_byte: u8) -> &'static str {
    match first_byte & 0x3f {
        0x00 => "NOP-Out",
        0x01 => "SCSI Command",
        0x02 => "Task Management Request",
        0x03 => "Login Request",
        0x04 => "Text Request",
        0x05 => "SCSI Data-Out",
        0x06 => "Logout Request",
        0x20 => "NOP-In",
        0x21 => "SCSI Response",
        0x22 => "Task Management Response",
        0x23 => "Login Response",
        0x24 => "Text Response",
        0x25 => "SCSI Data-In",
        0x26 => "Logout Response",
        0x31 => "R2T",
        0x32 => "Asynchronous Message",
        0x3f => "Reject",
        _ => "unknown PDU",
    }
}
