//! Sense data: what a CHECK CONDITION means (SPC-5, "Sense data").
//!
//! What to do about it is in [`super::sense_action`], the words are in `sense_text`.

use core::fmt;

use super::bytes::{be32_at, be64_at, byte_at};
use super::sense_text;

/// The sense key: the kind of a condition (SPC-5, "Sense key codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SenseKey(pub u8);

#[allow(missing_docs, reason = "the names are the standard's own")]
impl SenseKey {
    pub const NO_SENSE: Self = Self(0x0);
    pub const RECOVERED_ERROR: Self = Self(0x1);
    pub const NOT_READY: Self = Self(0x2);
    pub const MEDIUM_ERROR: Self = Self(0x3);
    pub const HARDWARE_ERROR: Self = Self(0x4);
    pub const ILLEGAL_REQUEST: Self = Self(0x5);
    pub const UNIT_ATTENTION: Self = Self(0x6);
    pub const DATA_PROTECT: Self = Self(0x7);
    pub const BLANK_CHECK: Self = Self(0x8);
    pub const VENDOR_SPECIFIC: Self = Self(0x9);
    pub const COPY_ABORTED: Self = Self(0xa);
    pub const ABORTED_COMMAND: Self = Self(0xb);
    pub const VOLUME_OVERFLOW: Self = Self(0xd);
    pub const MISCOMPARE: Self = Self(0xe);
    pub const COMPLETED: Self = Self(0xf);
}

impl fmt::Display for SenseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(sense_text::key_name(*self))
    }
}

/// Sense data in either format.
///
/// Fields that did not arrive are 0, which the standard reads as "no information".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    /// The condition belongs to an earlier command, whose status was GOOD: the command that was
    /// answered with it has not been carried out (SPC-5, "Deferred errors").
    pub deferred: bool,
    /// The kind of the condition.
    pub key: SenseKey,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// INFORMATION, when valid: for a medium error the logical block it was found at.
    pub information: Option<u64>,
}

/// What a unit attention condition tells (SAM-6, "Unit attention condition").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitAttention {
    /// 29h: power on, reset, or a lost nexus; commands in flight may have been ended.
    Reset,
    /// 2Fh: another initiator's request ended our commands.
    CommandsCleared,
    /// 2Ah/09h: the capacity has changed.
    CapacityChanged,
    /// 2Ah/01h: mode parameters (write protection, write cache) have changed.
    ModeParametersChanged,
    /// 3Fh/03h: INQUIRY data, of which VPD is a part, has changed.
    InquiryDataChanged,
    /// 3Fh/0Eh: there are other logical units than before.
    ReportedLunsChanged,
    /// 28h: the medium may be another one.
    MediumChanged,
    /// 2Ah/06h: paths have become better or worse.
    AsymmetricAccessChanged,
    /// 38h/07h: a thin disk's pool is filling up.
    ThinProvisioningThreshold,
    /// Any other.
    Other,
}

impl UnitAttention {
    /// Whether tasks of ours may have been ended without an answer to them: by somebody's reset
    /// (29h), or by another initiator's CLEAR TASK SET (2Fh) where the TAS bit is 0 (SAM-6, "Aborting
    /// commands"; SPC-5, "Control mode page").
    pub fn may_have_ended_tasks(self) -> bool {
        matches!(self, Self::Reset | Self::CommandsCleared)
    }

    /// Whether facts that a probe has already collected may have become wrong.
    pub fn outdates_facts(self) -> bool {
        matches!(
            self,
            Self::CapacityChanged
                | Self::ModeParametersChanged
                | Self::InquiryDataChanged
                | Self::MediumChanged
        )
    }
}

impl Sense {
    /// Parses sense data in fixed (70h, 71h) or descriptor (72h, 73h) format.
    ///
    /// `None` when there is none, when it has another format, or when the sense key did not
    /// arrive. `data` starts at the response code, not at the SenseLength field of a PDU.
    pub fn parse(data: &[u8]) -> Option<Self> {
        match byte_at(data, 0)? & 0x7f {
            0x70 => Self::parse_fixed(data, false),
            0x71 => Self::parse_fixed(data, true),
            0x72 => Self::parse_descriptor(data, false),
            0x73 => Self::parse_descriptor(data, true),
            _ => None,
        }
    }

    /// Fixed format (SPC-5, "Fixed format sense data").
    fn parse_fixed(data: &[u8], deferred: bool) -> Option<Self> {
        let data = within_stated_length(data);
        let valid = byte_at(data, 0)? & 0x80 != 0;
        Some(Self {
            deferred,
            key: SenseKey(byte_at(data, 2)? & 0x0f),
            asc: byte_at(data, 12).unwrap_or(0),
            ascq: byte_at(data, 13).unwrap_or(0),
            information: be32_at(data, 3).filter(|_| valid).map(u64::from),
        })
    }

    /// Descriptor format (SPC-5, "Descriptor format sense data").
    fn parse_descriptor(data: &[u8], deferred: bool) -> Option<Self> {
        let data = within_stated_length(data);
        Some(Self {
            deferred,
            key: SenseKey(byte_at(data, 1)? & 0x0f),
            asc: byte_at(data, 2).unwrap_or(0),
            ascq: byte_at(data, 3).unwrap_or(0),
            information: information_descriptor(data.get(8..).unwrap_or_default()),
        })
    }

    /// ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE: the command is not implemented.
    pub fn is_invalid_opcode(&self) -> bool {
        self.is(SenseKey::ILLEGAL_REQUEST, 0x20, 0x00)
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN CDB: the command is, but not in this form.
    pub fn is_invalid_field(&self) -> bool {
        self.is(SenseKey::ILLEGAL_REQUEST, 0x24, 0x00)
    }

    /// ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED: there is no such LUN, at least now.
    pub fn is_lun_not_supported(&self) -> bool {
        self.is(SenseKey::ILLEGAL_REQUEST, 0x25, 0x00)
    }

    /// What happened, when this is a unit attention condition; the command it was reported for has
    /// not been carried out.
    pub fn unit_attention(&self) -> Option<UnitAttention> {
        (self.key == SenseKey::UNIT_ATTENTION && !self.deferred).then_some(
            match (self.asc, self.ascq) {
                (0x28, _) => UnitAttention::MediumChanged,
                (0x29, _) => UnitAttention::Reset,
                (0x2a, 0x01) => UnitAttention::ModeParametersChanged,
                (0x2a, 0x06) => UnitAttention::AsymmetricAccessChanged,
                (0x2a, 0x09) => UnitAttention::CapacityChanged,
                (0x2f, _) => UnitAttention::CommandsCleared,
                (0x38, 0x07) => UnitAttention::ThinProvisioningThreshold,
                (0x3f, 0x03) => UnitAttention::InquiryDataChanged,
                (0x3f, 0x0e) => UnitAttention::ReportedLunsChanged,
                _ => UnitAttention::Other,
            },
        )
    }

    /// Whether a volatile cache has lost what was in it: POWER ON OCCURRED (29h/01h) or DEVICE INTERNAL
    /// RESET (29h/04h).
    ///
    /// 29h/00h is not enough: it says "power on, reset, or bus device reset", and many targets say
    /// so on every new session. Nor are the resets that somebody asked for (29h/02h, /03h), which
    /// leave a cache as it is (SAM-6, "Conditions resulting from SCSI events").
    pub fn tells_of_power_loss(&self) -> bool {
        self.is(SenseKey::UNIT_ATTENTION, 0x29, 0x01)
            || self.is(SenseKey::UNIT_ATTENTION, 0x29, 0x04)
    }

    fn is(&self, key: SenseKey, asc: u8, ascq: u8) -> bool {
        !self.deferred && (self.key, self.asc, self.ascq) == (key, asc, ascq)
    }
}

impl fmt::Display for Sense {
    /// In words, with the numbers to search for: `NOT READY: logical unit is in process of
    /// becoming ready (02/04/01)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, asc, ascq, .. } = *self;
        if self.deferred {
            f.write_str("deferred, of an earlier command: ")?;
        }
        write!(f, "{key}")?;
        if let Some(words) = sense_text::words(asc, ascq) {
            write!(f, ": {words}")?;
        }
        write!(f, " ({:02X}/{asc:02X}/{ascq:02X})", key.0)
    }
}

/// ADDITIONAL SENSE LENGTH, in byte 7 of both formats, counts the bytes from 8 on.
fn within_stated_length(data: &[u8]) -> &[u8] {
    let length = byte_at(data, 7).map_or(data.len(), |additional| usize::from(additional) + 8);
    data.get(..length).unwrap_or(data)
}

/// INFORMATION of the information sense data descriptor (type 00h).
fn information_descriptor(mut descriptors: &[u8]) -> Option<u64> {
    loop {
        let &[kind, additional_bytes, flags, ..] = descriptors else {
            return None;
        };
        if kind == 0x00 {
            let valid = flags & 0x80 != 0;
            return be64_at(descriptors, 4).filter(|_| valid);
        }
        descriptors = descriptors.get(usize::from(additional_bytes) + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    const FIXED: [u8; 18] = [
        0xf0, 0, 0x03, 0x12, 0x34, 0x56, 0x78, 10, 0, 0, 0, 0, 0x11, 0x04, 0, 0, 0, 0,
    ];

    #[rustfmt::skip]
    const DESCRIPTOR: [u8; 28] = [
        0x72, 0x03, 0x11, 0x04, 0, 0, 0, 20,
        0x02, 6, 0, 0, 0x80, 0, 0, 0, // sense key specific
        0x00, 10, 0x80, 0, 0, 0, 0, 1, 0x12, 0x34, 0x56, 0x78, // information
    ];

    fn fixed(response_code: u8, key: u8, asc: u8, ascq: u8) -> Sense {
        let mut data = FIXED;
        (data[0], data[2], data[12], data[13]) = (response_code, key, asc, ascq);
        Sense::parse(&data).unwrap()
    }

    #[test]
    fn both_formats_say_the_same() {
        let expected = Sense {
            deferred: false,
            key: SenseKey::MEDIUM_ERROR,
            asc: 0x11,
            ascq: 0x04,
            information: Some(0x1234_5678),
        };
        assert_eq!(Sense::parse(&FIXED), Some(expected));
        let information = Some(0x1_1234_5678);
        assert_eq!(
            Sense::parse(&DESCRIPTOR),
            Some(Sense {
                information,
                ..expected
            })
        );
    }

    #[test]
    fn information_that_is_not_valid_does_not_count() {
        assert_eq!(fixed(0x70, 3, 0x11, 0).information, None);
        let mut data = DESCRIPTOR;
        data[18] = 0;
        assert_eq!(Sense::parse(&data).unwrap().information, None);
    }

    #[test]
    fn a_deferred_error_is_told_from_a_current_one() {
        assert!(!fixed(0x70, 4, 0x44, 0).deferred);
        assert!(fixed(0xf1, 4, 0x44, 0).deferred);
        let mut data = DESCRIPTOR;
        data[0] = 0x73;
        assert!(Sense::parse(&data).unwrap().deferred);
    }

    #[test]
    fn deferred_conditions_match_no_predicate_about_the_command_at_hand() {
        assert!(fixed(0x70, 5, 0x20, 0).is_invalid_opcode());
        assert!(!fixed(0x71, 5, 0x20, 0).is_invalid_opcode());
        assert_eq!(fixed(0x71, 6, 0x29, 0).unit_attention(), None);
    }

    #[test]
    fn a_short_fixed_format_gives_what_arrived() {
        for length in 0..3 {
            assert_eq!(Sense::parse(&FIXED[..length]), None);
        }
        for length in 3..=12 {
            let sense = Sense::parse(&FIXED[..length]).unwrap();
            assert_eq!(
                (sense.key, sense.asc, sense.ascq),
                (SenseKey::MEDIUM_ERROR, 0, 0)
            );
        }
        assert_eq!(Sense::parse(&FIXED[..13]).unwrap().asc, 0x11);
        assert_eq!(Sense::parse(&FIXED[..14]).unwrap().ascq, 0x04);
    }

    #[test]
    fn a_short_descriptor_format_gives_what_arrived() {
        for length in 0..2 {
            assert_eq!(Sense::parse(&DESCRIPTOR[..length]), None);
        }
        for length in 4..DESCRIPTOR.len() {
            let sense = Sense::parse(&DESCRIPTOR[..length]).unwrap();
            assert_eq!(
                (sense.asc, sense.ascq, sense.information),
                (0x11, 0x04, None)
            );
        }
    }

    #[test]
    fn what_lies_beyond_the_additional_length_is_not_looked_at() {
        let mut data = FIXED;
        data[7] = 4;
        assert_eq!(Sense::parse(&data).unwrap().asc, 0);
        data[7] = 5;
        assert_eq!(Sense::parse(&data).unwrap().asc, 0x11);
        assert_eq!(Sense::parse(&data).unwrap().ascq, 0);
    }

    #[test]
    fn other_formats_are_no_sense() {
        for response_code in [0x00, 0x6f, 0x74, 0x7f] {
            let mut data = FIXED;
            data[0] = response_code;
            assert_eq!(Sense::parse(&data), None);
        }
    }

    #[test]
    fn the_predicates_want_all_three_codes() {
        assert!(fixed(0x70, 5, 0x24, 0).is_invalid_field());
        assert!(!fixed(0x70, 5, 0x24, 1).is_invalid_field());
        assert!(!fixed(0x70, 6, 0x24, 0).is_invalid_field());
        assert!(fixed(0x70, 5, 0x25, 0).is_lun_not_supported());
        assert!(!fixed(0x70, 5, 0x20, 0).is_lun_not_supported());
    }

    #[test]
    fn unit_attentions_say_what_changed() {
        let attention = |asc, ascq| fixed(0x70, 6, asc, ascq).unit_attention().unwrap();
        assert_eq!(attention(0x29, 0x07), UnitAttention::Reset);
        assert_eq!(attention(0x2a, 0x09), UnitAttention::CapacityChanged);
        assert_eq!(attention(0x3f, 0x0e), UnitAttention::ReportedLunsChanged);
        assert_eq!(attention(0x2f, 0x01), UnitAttention::CommandsCleared);
        assert_eq!(attention(0x5e, 0x00), UnitAttention::Other);
        assert_eq!(fixed(0x70, 2, 0x29, 0).unit_attention(), None);
    }

    #[test]
    fn only_resets_and_cleared_commands_end_tasks() {
        let ends = |asc| {
            let attention = fixed(0x70, 6, asc, 0).unit_attention();
            attention.is_some_and(UnitAttention::may_have_ended_tasks)
        };
        assert!((0..=u8::MAX).filter(|&asc| ends(asc)).eq([0x29, 0x2f]));
    }

    #[test]
    fn only_changes_of_what_was_asked_outdate_it() {
        assert!(UnitAttention::CapacityChanged.outdates_facts());
        assert!(!UnitAttention::Reset.outdates_facts());
    }

    #[test]
    fn sense_reads_in_words_and_numbers() {
        assert_eq!(
            fixed(0x70, 2, 4, 1).to_string(),
            "NOT READY: logical unit is in process of becoming ready (02/04/01)"
        );
        assert_eq!(
            fixed(0x70, 4, 0x80, 3).to_string(),
            "HARDWARE ERROR (04/80/03)"
        );
        assert_eq!(
            fixed(0x71, 3, 0x0c, 0).to_string(),
            "deferred, of an earlier command: MEDIUM ERROR: write error (03/0C/00)"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(response_code in 0x6f_u8..0x75, mut data: Vec<u8>) {
            data.insert(0, response_code);
            if let Some(sense) = Sense::parse(&data) {
                proptest::prop_assert!(!sense.to_string().is_empty());
            }
        }
    }
}
