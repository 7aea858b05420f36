//! Sense in words: the names of the T10 lists (SPC-5, "Sense key codes" and "Numeric order codes"), as far as a disk that
//! is reached over a network uses them.

use super::sense::SenseKey;

/// The name of a sense key.
pub(super) fn key_name(key: SenseKey) -> &'static str {
    match key {
        SenseKey::NO_SENSE => "NO SENSE",
        SenseKey::RECOVERED_ERROR => "RECOVERED ERROR",
        SenseKey::NOT_READY => "NOT READY",
        SenseKey::MEDIUM_ERROR => "MEDIUM ERROR",
        SenseKey::HARDWARE_ERROR => "HARDWARE ERROR",
        SenseKey::ILLEGAL_REQUEST => "ILLEGAL REQUEST",
        SenseKey::UNIT_ATTENTION => "UNIT ATTENTION",
        SenseKey::DATA_PROTECT => "DATA PROTECT",
        SenseKey::BLANK_CHECK => "BLANK CHECK",
        SenseKey::VENDOR_SPECIFIC => "VENDOR SPECIFIC",
        SenseKey::COPY_ABORTED => "COPY ABORTED",
        SenseKey::ABORTED_COMMAND => "ABORTED COMMAND",
        SenseKey::VOLUME_OVERFLOW => "VOLUME OVERFLOW",
        SenseKey::MISCOMPARE => "MISCOMPARE",
        SenseKey::COMPLETED => "COMPLETED",
        _ => "reserved sense key",
    }
}

/// The words for an additional sense code and its qualifier: those of the pair, else those of the
/// code alone (qualifier 00h), else none.
pub(super) fn words(asc: u8, ascq: u8) -> Option<&'static str> {
    let find = |ascq| {
        let position = TABLE.binary_search_by_key(&(asc, ascq), |&(asc, ascq, _)| (asc, ascq));
        position
            .ok()
            .and_then(|position| TABLE.get(position))
            .map(|&(_, _, words)| words)
    };
    if asc == 0 && ascq == 0 {
        None
    } else {
        find(ascq).or_else(|| find(0))
    }
}

/// Code, qualifier and words, in ascending order.
const TABLE: &[(u8, u8, &str)] = &[
    (0x03, 0x00, "peripheral device write fault"),
    (0x04, 0x00, "logical unit not ready, cause not reportable"),
    (0x04, 0x01, "logical unit is in process of becoming ready"),
    (
        0x04,
        0x02,
        "logical unit not ready, initializing command required",
    ),
    (
        0x04,
        0x03,
        "logical unit not ready, manual intervention required",
    ),
    (0x04, 0x04, "logical unit not ready, format in progress"),
    (0x04, 0x05, "logical unit not ready, rebuild in progress"),
    (
        0x04,
        0x06,
        "logical unit not ready, recalculation in progress",
    ),
    (0x04, 0x07, "logical unit not ready, operation in progress"),
    (0x04, 0x08, "logical unit not ready, long write in progress"),
    (0x04, 0x09, "logical unit not ready, self-test in progress"),
    (
        0x04,
        0x0a,
        "logical unit not accessible, asymmetric access state transition",
    ),
    (
        0x04,
        0x0b,
        "logical unit not accessible, target port in standby state",
    ),
    (
        0x04,
        0x0c,
        "logical unit not accessible, target port in unavailable state",
    ),
    (
        0x04,
        0x10,
        "logical unit not ready, auxiliary memory not accessible",
    ),
    (
        0x04,
        0x11,
        "logical unit not ready, notify (enable spinup) required",
    ),
    (0x04, 0x12, "logical unit not ready, offline"),
    (
        0x04,
        0x14,
        "logical unit not ready, space allocation in progress",
    ),
    (
        0x04,
        0x1a,
        "logical unit not ready, start stop unit command in progress",
    ),
    (0x04, 0x1b, "logical unit not ready, sanitize in progress"),
    (
        0x04,
        0x1d,
        "logical unit not ready, configuration in progress",
    ),
    (0x04, 0x24, "depopulation in progress"),
    (0x05, 0x00, "logical unit does not respond to selection"),
    (0x08, 0x00, "logical unit communication failure"),
    (0x08, 0x01, "logical unit communication time-out"),
    (0x0c, 0x00, "write error"),
    (0x0c, 0x02, "write error, auto reallocation failed"),
    (0x0c, 0x0d, "write error, not enough unsolicited data"),
    (0x0e, 0x00, "invalid information unit"),
    (0x10, 0x00, "id CRC or ECC error"),
    (0x10, 0x01, "logical block guard check failed"),
    (0x10, 0x02, "logical block application tag check failed"),
    (0x10, 0x03, "logical block reference tag check failed"),
    (0x11, 0x00, "unrecovered read error"),
    (0x11, 0x04, "unrecovered read error, auto reallocate failed"),
    (0x14, 0x01, "record not found"),
    (0x1a, 0x00, "parameter list length error"),
    (0x1b, 0x00, "synchronous data transfer error"),
    (0x1d, 0x00, "miscompare during verify operation"),
    (0x20, 0x00, "invalid command operation code"),
    (0x21, 0x00, "logical block address out of range"),
    (0x24, 0x00, "invalid field in cdb"),
    (0x25, 0x00, "logical unit not supported"),
    (0x26, 0x00, "invalid field in parameter list"),
    (0x26, 0x01, "parameter not supported"),
    (0x26, 0x02, "parameter value invalid"),
    (0x27, 0x00, "write protected"),
    (0x27, 0x01, "hardware write protected"),
    (0x27, 0x02, "logical unit software write protected"),
    (0x27, 0x07, "space allocation failed write protect"),
    (
        0x28,
        0x00,
        "not ready to ready change, medium may have changed",
    ),
    (0x29, 0x00, "power on, reset, or bus device reset occurred"),
    (0x29, 0x01, "power on occurred"),
    (0x29, 0x02, "scsi bus reset occurred"),
    (0x29, 0x03, "bus device reset function occurred"),
    (0x29, 0x04, "device internal reset"),
    (0x29, 0x07, "I_T nexus loss occurred"),
    (0x2a, 0x00, "parameters changed"),
    (0x2a, 0x01, "mode parameters changed"),
    (0x2a, 0x02, "log parameters changed"),
    (0x2a, 0x03, "reservations preempted"),
    (0x2a, 0x04, "reservations released"),
    (0x2a, 0x05, "registrations preempted"),
    (0x2a, 0x06, "asymmetric access state changed"),
    (
        0x2a,
        0x07,
        "implicit asymmetric access state transition failed",
    ),
    (0x2a, 0x09, "capacity data has changed"),
    (0x2c, 0x00, "command sequence error"),
    (0x2f, 0x00, "commands cleared by another initiator"),
    (0x2f, 0x01, "commands cleared by power loss notification"),
    (0x2f, 0x02, "commands cleared by device server"),
    (0x31, 0x00, "medium format corrupted"),
    (0x38, 0x07, "thin provisioning soft threshold reached"),
    (0x39, 0x00, "saving parameters not supported"),
    (0x3a, 0x00, "medium not present"),
    (0x3e, 0x00, "logical unit has not self-configured yet"),
    (0x3e, 0x01, "logical unit failure"),
    (0x3e, 0x02, "timeout on logical unit"),
    (0x3f, 0x00, "target operating conditions have changed"),
    (0x3f, 0x01, "microcode has been changed"),
    (0x3f, 0x03, "inquiry data has changed"),
    (0x3f, 0x05, "device identifier changed"),
    (0x3f, 0x0e, "reported luns data has changed"),
    (0x43, 0x00, "message error"),
    (0x44, 0x00, "internal target failure"),
    (0x47, 0x00, "scsi parity error"),
    (0x47, 0x05, "protocol service CRC error"),
    (0x49, 0x00, "invalid message error"),
    (0x4b, 0x00, "data phase error"),
    (0x4e, 0x00, "overlapped commands attempted"),
    (0x53, 0x02, "medium removal prevented"),
    (0x55, 0x00, "system resource failure"),
    (0x55, 0x03, "insufficient resources"),
    (0x55, 0x04, "insufficient registration resources"),
    (0x5d, 0x00, "failure prediction threshold exceeded"),
    (0x5e, 0x00, "low power condition on"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_for_the_search() {
        assert!(TABLE.is_sorted_by_key(|&(asc, ascq, _)| (asc, ascq)));
    }

    #[test]
    fn an_unknown_qualifier_falls_back_to_its_code() {
        assert_eq!(words(0x25, 0x00), Some("logical unit not supported"));
        assert_eq!(words(0x29, 0x7f), words(0x29, 0x00));
        assert_eq!(words(0x53, 0x00), None);
        assert_eq!(words(0x80, 0x00), None);
        assert_eq!(words(0x00, 0x00), None);
    }
}
