//! INQUIRY: who a logical unit is (SPC-5, "Standard INQUIRY data"). Its VPD pages are in
//! [`super::vpd`].

use alloc::string::String;

use super::ParameterError;
use super::bytes::{at_most, trim_padding};
use super::command::ScsiCommand;
use super::opcode;

/// Enable vital product data: the answer is a VPD page.
const EVPD: u8 = 1;
/// How much standard data is asked for; the fixed part has 36 bytes, and 255 is a value some
/// targets stumble over.
const STANDARD_ALLOCATION_BYTES: u16 = 252;

/// Whether a logical unit is there (SPC-5, "PERIPHERAL QUALIFIER field").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeripheralQualifier {
    /// 000b: there is one, or the target cannot tell.
    Connected,
    /// 001b: the target could have one here, but it is not connected now.
    NotConnected,
    /// 011b: the target cannot have one here.
    Impossible,
    /// Reserved or vendor specific.
    Other(u8),
}

/// The type of a logical unit (SPC-5, "PERIPHERAL DEVICE TYPE field").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceType(pub u8);

impl DeviceType {
    /// A direct access block device: a disk.
    pub const DISK: Self = Self(0x00);

    /// What the type is, in words.
    pub fn name(self) -> &'static str {
        match self.0 {
            0x00 => "a disk",
            0x01 => "a tape drive",
            0x02 => "a printer",
            0x03 => "a processor",
            0x04 => "a write-once device",
            0x05 => "a CD/DVD drive",
            0x06 => "a scanner",
            0x07 => "an optical memory device",
            0x08 => "a medium changer",
            0x09 => "a communications device",
            0x0c => "a storage array controller",
            0x0d => "an enclosure services device",
            0x0e => "a simplified disk",
            0x0f => "an optical card device",
            0x11 => "an object storage device",
            0x12 => "an automation interface",
            0x14 => "a host managed zoned disk",
            0x1e => "a well known logical unit",
            _ => "a device of unknown type",
        }
    }
}

/// Standard INQUIRY data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// Whether the logical unit is there.
    pub qualifier: PeripheralQualifier,
    /// What it is.
    pub device_type: DeviceType,
    /// The vendor, as printable ASCII, blanks trimmed; empty when it did not arrive.
    pub vendor: String,
    /// The product; see `vendor`.
    pub product: String,
    /// The product's revision; see `vendor`.
    pub revision: String,
}

/// INQUIRY for standard data.
pub fn command() -> ScsiCommand {
    inquiry(0, 0, STANDARD_ALLOCATION_BYTES)
}

/// INQUIRY for VPD page `page`, of which at most `allocation_bytes` are asked for.
pub fn vpd_command(page: u8, allocation_bytes: u16) -> ScsiCommand {
    inquiry(EVPD, page, allocation_bytes)
}

fn inquiry(flags: u8, page: u8, allocation_bytes: u16) -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = opcode::INQUIRY;
    cdb[1] = flags;
    cdb[2] = page;
    cdb[3..5].copy_from_slice(&allocation_bytes.to_be_bytes());
    ScsiCommand::reading(cdb, u32::from(allocation_bytes))
}

/// Parses standard INQUIRY data, of which at least the first byte must have arrived.
pub fn parse(data: &[u8]) -> Result<Inquiry, ParameterError> {
    let &[peripheral, ..] = data else {
        return Err(ParameterError::TooShort {
            needed_bytes: 1,
            arrived_bytes: 0,
        });
    };
    Ok(Inquiry {
        qualifier: qualifier(peripheral >> 5),
        device_type: DeviceType(peripheral & 0x1f),
        vendor: text(at_most(data, 8, 8)),
        product: text(at_most(data, 16, 16)),
        revision: text(at_most(data, 32, 4)),
    })
}

fn qualifier(code: u8) -> PeripheralQualifier {
    match code {
        0b000 => PeripheralQualifier::Connected,
        0b001 => PeripheralQualifier::NotConnected,
        0b011 => PeripheralQualifier::Impossible,
        other => PeripheralQualifier::Other(other),
    }
}

/// Text for people: what is not printable ASCII, which the standard asks for, becomes `?`, so that
/// a target cannot write control characters to a terminal or a log.
fn text(field: &[u8]) -> String {
    let printable = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '?',
    };
    trim_padding(field).iter().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const DISK: &[u8; 36] = b"\x00\x00\x05\x02\x3d\x00\x00\x02IET     VIRTUAL-DISK    0001";

    #[test]
    fn the_commands_have_the_layout_of_the_standard() {
        assert_eq!(
            command().cdb,
            [0x12, 0, 0, 0, 252, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(command().data.length_bytes(), 252);
        let page = vpd_command(0x83, 0x1234);
        assert_eq!(
            page.cdb,
            [0x12, 1, 0x83, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(page.data.length_bytes(), 0x1234);
    }

    #[test]
    fn names_lose_their_padding() {
        let inquiry = parse(DISK).unwrap();
        assert_eq!(inquiry.qualifier, PeripheralQualifier::Connected);
        assert_eq!(inquiry.device_type, DeviceType::DISK);
        assert_eq!(inquiry.vendor, "IET");
        assert_eq!(inquiry.product, "VIRTUAL-DISK");
        assert_eq!(inquiry.revision, "0001");
    }

    #[test]
    fn qualifier_and_type_share_the_first_byte() {
        let peripheral = |byte| parse(&[byte]).map(|found| (found.qualifier, found.device_type.0));
        assert_eq!(
            peripheral(0x7f),
            Ok((PeripheralQualifier::Impossible, 0x1f))
        );
        assert_eq!(peripheral(0x20), Ok((PeripheralQualifier::NotConnected, 0)));
        assert_eq!(peripheral(0x05), Ok((PeripheralQualifier::Connected, 5)));
        assert_eq!(peripheral(0xe0), Ok((PeripheralQualifier::Other(7), 0)));
    }

    #[test]
    fn a_short_answer_gives_what_arrived_and_an_empty_one_is_refused() {
        for length in 1..DISK.len() {
            let inquiry = parse(&DISK[..length]).unwrap();
            assert!("VIRTUAL-DISK".starts_with(&inquiry.product));
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let mut data = *DISK;
        data[8..11].copy_from_slice(b"\x1b[\xff");
        assert_eq!(parse(&data).unwrap().vendor, "?[?");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(data: Vec<u8>) {
            proptest::prop_assert_eq!(parse(&data).is_err(), data.is_empty());
        }
    }
}
