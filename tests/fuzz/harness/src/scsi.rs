//! Parameter data and sense data, each alone.

use iscsi_core::disk::facts::Identity;
use iscsi_core::scsi::sense::Sense;
use iscsi_core::scsi::sense_action::SenseAction;
use iscsi_core::scsi::vpd::{self, VpdPage};
use iscsi_core::scsi::{capacity, inquiry, mode_sense, report_luns};
use vhost_user_iscsi::escape::{escape_control_characters, is_unsafe_to_print};

use crate::Input;

/// The first byte says what the rest is the answer to.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let kind = input.byte() % 13;
    let rest = input.rest();
    let is_good = match kind {
        0 => take_inquiry(rest),
        1 => page(vpd::SUPPORTED_PAGES, rest),
        2 => page(vpd::UNIT_SERIAL_NUMBER, rest),
        3 => page(vpd::DEVICE_IDENTIFICATION, rest),
        4 => page(vpd::BLOCK_LIMITS, rest),
        5 => page(vpd::BLOCK_DEVICE_CHARACTERISTICS, rest),
        6 => page(vpd::LOGICAL_BLOCK_PROVISIONING, rest),
        7 => capacity::parse_10(rest).is_ok(),
        8 => capacity::parse_16(rest).is_ok(),
        9 => mode_sense::parse_6(rest).is_ok(),
        10 => mode_sense::parse_10(rest).is_ok(),
        11 => take_luns(rest),
        _ => take_sense(rest),
    };
    u64::from(is_good)
}

fn take_inquiry(data: &[u8]) -> bool {
    let Ok(inquiry) = inquiry::parse(data) else {
        return false;
    };
    for text in [&inquiry.vendor, &inquiry.product, &inquiry.revision] {
        let shown = escape_control_characters(text);
        assert!(!shown.contains(is_unsafe_to_print), "{shown}");
    }
    assert!(!inquiry.device_type.name().is_empty());
    true
}

fn page(code: u8, data: &[u8]) -> bool {
    let Ok(page) = VpdPage::parse(code, data) else {
        return false;
    };
    assert!(page.supported_pages().len() <= data.len());
    assert!(page.serial().len() <= data.len());
    let designators = page.logical_unit_designators();
    assert!(designators.len() <= vpd::MAX_DESIGNATORS);
    let length = designators.iter().map(|designator| designator.value.len());
    assert!(length.sum::<usize>() <= data.len());
    let _ = (page.block_limits(), page.rotates(), page.provisioning());
    check_identity(Identity {
        designators,
        serial: page.serial().to_vec(),
        block_length_bytes: 512,
    });
    true
}

/// A disk that has a name that can be compared is itself, and not another.
fn check_identity(identity: Identity) {
    let shown = identity.to_string();
    assert!(!shown.contains(is_unsafe_to_print), "{shown}");
    assert!(identity.same_disk(&identity), "{identity:?}");
    let other = Identity {
        block_length_bytes: 4096,
        ..identity.clone()
    };
    assert!(!identity.same_disk(&other));
    let mut shuffled = identity.clone();
    shuffled.designators.reverse();
    assert!(identity.same_disk(&shuffled) && shuffled.same_disk(&identity));
}

fn take_luns(data: &[u8]) -> bool {
    let Ok(reported) = report_luns::parse(data) else {
        return false;
    };
    assert!(reported.luns.len() <= data.len() / 8);
    assert!(reported.whole_length_bytes <= report_luns::MAX_LENGTH_BYTES);
    for address in &reported.luns {
        let _ = (address.format(), address.to_u64());
        if let Some(lun) = address.lun() {
            assert_eq!(lun.flat_address().lun(), Some(lun));
            assert_eq!(lun.address().lun(), Some(lun));
        }
    }
    let command = report_luns::command(reported.whole_length_bytes);
    assert!(command.data.length_bytes() <= report_luns::MAX_LENGTH_BYTES);
    true
}

fn take_sense(data: &[u8]) -> bool {
    let Some(sense) = Sense::parse(data) else {
        return false;
    };
    assert!(!sense.to_string().contains(is_unsafe_to_print));
    let _ = (SenseAction::of(&sense), sense.unit_attention());
    true
}
