//! Vital product data: pages that INQUIRY returns (SPC-5 and SBC-4, "Vital product
//! data parameters").

use alloc::vec::Vec;

use super::ParameterError;
use super::bytes::{be16_at, be32_at, be64_at, byte_at, trim_padding};
use crate::disk::facts::{BlockLimits, Designator};

/// Page 00h: which pages there are.
pub const SUPPORTED_PAGES: u8 = 0x00;
/// Page 80h: the unit serial number.
pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
/// Page 83h: designators of the logical unit, its target and its ports.
pub const DEVICE_IDENTIFICATION: u8 = 0x83;
/// Page B0h: block limits.
pub const BLOCK_LIMITS: u8 = 0xb0;
/// Page B1h: block device characteristics.
pub const BLOCK_DEVICE_CHARACTERISTICS: u8 = 0xb1;
/// Page B2h: logical block provisioning.
pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xb2;

/// The most designators that are kept of one page; disks have a handful.
pub const MAX_DESIGNATORS: usize = 32;

/// The length of a page's header in bytes.
const HEADER_LENGTH_BYTES: usize = 4;

/// A VPD page: its code is the expected one; as much of it as arrived.
///
/// Offsets are those of the standard, from the start of the page with its header.
#[derive(Clone, Copy, Debug)]
pub struct VpdPage<'a> {
    data: &'a [u8],
}

impl<'a> VpdPage<'a> {
    /// Checks that `data` is page `expected` and cuts off what lies beyond its stated length.
    pub fn parse(expected: u8, data: &'a [u8]) -> Result<Self, ParameterError> {
        let &[_, found, _, _, ..] = data else {
            let arrived_bytes = data.len();
            return Err(ParameterError::TooShort {
                needed_bytes: HEADER_LENGTH_BYTES,
                arrived_bytes,
            });
        };
        if found != expected {
            return Err(ParameterError::WrongPage { expected, found });
        }
        let page = data.get(..stated_length_bytes(data)).unwrap_or(data);
        Ok(Self { data: page })
    }

    /// What follows the header.
    fn payload(&self) -> &'a [u8] {
        self.data.get(HEADER_LENGTH_BYTES..).unwrap_or_default()
    }

    /// Page 00h: the codes of the pages there are.
    pub fn supported_pages(&self) -> &'a [u8] {
        self.payload()
    }

    /// Page 80h: the serial number without the blanks and NULs around it; may be empty.
    pub fn serial(&self) -> &'a [u8] {
        trim_padding(self.payload())
    }

    /// Page 83h: the designators that name the logical unit itself, at most [`MAX_DESIGNATORS`].
    ///
    /// Those of ports and of the target device are left out: they differ from path to path. So are
    /// the types that do not name one logical unit: vendor specific (0), port numbers and groups
    /// (4 to 6, 9), and types unknown here. One that was cut short is left out too.
    pub fn logical_unit_designators(&self) -> Vec<Designator> {
        Designators {
            rest: self.payload(),
        }
        .flatten()
        .take(MAX_DESIGNATORS)
        .collect()
    }

    /// Page B0h: the limits of commands.
    pub fn block_limits(&self) -> BlockLimits {
        BlockLimits {
            max_transfer_blocks: self.be32(8).filter(|&blocks| blocks != 0),
            optimal_transfer_blocks: self.be32(12).filter(|&blocks| blocks != 0),
            optimal_granularity_blocks: be16_at(self.data, 6).filter(|&blocks| blocks != 0),
            max_unmap_blocks: self.max_unmap_blocks(),
            unmap_granularity_blocks: self.be32(28).filter(|&blocks| blocks != 0),
            unmap_alignment_blocks: self.unmap_alignment_blocks(),
            max_write_same_blocks: be64_at(self.data, 36).filter(|&blocks| blocks != 0),
        }
    }

    /// MAXIMUM UNMAP LBA COUNT, which counts as 0 when no block descriptor may be sent.
    fn max_unmap_blocks(&self) -> Option<u32> {
        match (self.be32(20)?, self.be32(24)) {
            (_, Some(0)) => Some(0),
            (blocks, _) => Some(blocks),
        }
    }

    /// UNMAP GRANULARITY ALIGNMENT, when UGAVALID says that it counts.
    fn unmap_alignment_blocks(&self) -> Option<u32> {
        let field = self.be32(32)?;
        (field & 1 << 31 != 0).then_some(field & !(1 << 31))
    }

    /// Page B1h: whether the medium rotates; `None` when it does not say.
    pub fn rotates(&self) -> Option<bool> {
        match be16_at(self.data, 4)? {
            0x0001 => Some(false),
            0x0401..=0xfffe => Some(true),
            _ => None,
        }
    }

    /// Page B2h: what can be done with a thin disk. A field that did not arrive counts as no.
    pub fn provisioning(&self) -> ProvisioningPage {
        let flags = byte_at(self.data, 5).unwrap_or(0);
        ProvisioningPage {
            unmap: flags & 0x80 != 0,
            write_same_unmap: flags & 0x40 != 0,
            reads_zeros: flags & 0x04 != 0,
        }
    }

    fn be32(&self, offset: usize) -> Option<u32> {
        be32_at(self.data, offset)
    }
}

/// VPD page B2h (SBC-4, "Logical Block Provisioning VPD page").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvisioningPage {
    /// LBPU: UNMAP is implemented.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) with the UNMAP bit is implemented.
    pub write_same_unmap: bool,
    /// LBPRZ is xx1b: deallocated blocks read as zeros.
    pub reads_zeros: bool,
}

/// How long the page in `data` says it is, with its header; the header alone when that did not
/// arrive. At most 65,539.
pub fn stated_length_bytes(data: &[u8]) -> usize {
    HEADER_LENGTH_BYTES + be16_at(data, 2).map_or(0, usize::from)
}

/// The designation descriptors of page 83h (SPC-5, "Designation descriptor"): `None` for those that do not
/// name the logical unit.
struct Designators<'a> {
    rest: &'a [u8],
}

impl Iterator for Designators<'_> {
    type Item = Option<Designator>;

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.rest.split_at_checked(4)?;
        let &[code_set, association_and_kind, _, length] = header else {
            return None;
        };
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some(logical_unit_designator(
            code_set & 0x0f,
            association_and_kind,
            value,
        ))
    }
}

fn logical_unit_designator(code_set: u8, flags: u8, value: &[u8]) -> Option<Designator> {
    let of_logical_unit = flags & 0x30 == 0;
    let kind = flags & 0x0f;
    let names_one_unit = matches!(kind, 1..=3 | 7 | 8 | 10);
    (of_logical_unit && names_one_unit && !value.is_empty()).then(|| Designator {
        code_set,
        kind,
        value: value.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of code `code` with its length filled in.
    fn page(code: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0, code], &length[..], payload].concat()
    }

    fn designator(code_set: u8, kind: u8, value: &[u8]) -> Designator {
        Designator {
            code_set,
            kind,
            value: value.to_vec(),
        }
    }

    fn descriptor(code_set: u8, flags: u8, value: &[u8]) -> Vec<u8> {
        [
            &[code_set, flags, 0, u8::try_from(value.len()).unwrap()],
            value,
        ]
        .concat()
    }

    fn designators(data: &[u8]) -> Vec<Designator> {
        VpdPage::parse(0x83, data)
            .unwrap()
            .logical_unit_designators()
    }

    #[test]
    fn another_page_than_the_one_asked_for_is_refused() {
        let standard_data = [0, 0, 5, 2, 31, 0, 0, 0];
        assert_eq!(
            VpdPage::parse(0x80, &standard_data).unwrap_err(),
            ParameterError::WrongPage {
                expected: 0x80,
                found: 0
            }
        );
        for length in 0..4 {
            assert!(VpdPage::parse(0, &standard_data[..length]).is_err());
        }
    }

    #[test]
    fn what_lies_beyond_the_stated_length_is_not_looked_at() {
        let data = [0, 0x00, 0, 2, 0x00, 0x80, 0x83];
        assert_eq!(
            VpdPage::parse(0, &data).unwrap().supported_pages(),
            [0x00, 0x80]
        );
    }

    #[test]
    fn a_page_states_its_length_with_the_header() {
        assert_eq!(stated_length_bytes(&page(0x83, &[0; 300])), 304);
        assert_eq!(stated_length_bytes(&[0, 0x83, 0xff, 0xff]), 65_539);
        assert_eq!(stated_length_bytes(&[0, 0x83, 0xff]), 4);
    }

    #[test]
    fn a_serial_number_padded_on_the_left_is_trimmed() {
        let data = page(0x80, b"                              beaf11\0\0");
        assert_eq!(VpdPage::parse(0x80, &data).unwrap().serial(), b"beaf11");
        let blank = page(0x80, b"    ");
        assert_eq!(VpdPage::parse(0x80, &blank).unwrap().serial(), b"");
    }

    #[test]
    fn only_designators_of_the_logical_unit_count() {
        let naa = [
            0x60, 0x01, 0x40, 0x50, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ];
        let data = page(
            0x83,
            &[
                descriptor(1, 0x03, &naa),
                descriptor(2, 0x01, b"IET     00010001"),
                descriptor(0x51, 0x94, &[0, 0, 0, 1]), // target port, relative number
                descriptor(0x53, 0xa8, b"iqn.2001-04.com.example:a"), // target device
                descriptor(1, 0x06, &[0, 0, 0, 1]),    // logical unit group
                descriptor(2, 0x00, b"volume name"),   // vendor specific
                descriptor(3, 0x08, b""),              // empty
            ]
            .concat(),
        );
        let expected = [
            designator(1, 3, &naa),
            designator(2, 1, b"IET     00010001"),
        ];
        assert_eq!(designators(&data), expected);
    }

    #[test]
    fn a_designator_that_is_cut_short_is_left_out() {
        let descriptors = [descriptor(1, 0x03, &[7; 8]), descriptor(1, 0x02, &[8; 8])].concat();
        let data = page(0x83, &descriptors);
        for length in 4..data.len() {
            let expected = usize::from(length >= 16);
            assert_eq!(
                designators(&data[..length]).len(),
                expected,
                "{length} bytes"
            );
        }
        assert_eq!(designators(&data).len(), 2);
    }

    #[test]
    fn designators_are_bounded() {
        let many = descriptor(1, 0x03, &[7; 8]).repeat(MAX_DESIGNATORS + 1);
        assert_eq!(designators(&page(0x83, &many)).len(), MAX_DESIGNATORS);
    }

    fn limits_payload() -> Vec<u8> {
        #[rustfmt::skip]
        let fields = [
            0x01, 0x02, // WSNZ, maximum compare and write length
            0x00, 0x08, // optimal transfer length granularity
            0x00, 0x00, 0x40, 0x00, // maximum transfer length
            0x00, 0x00, 0x20, 0x00, // optimal transfer length
            0x00, 0x00, 0x10, 0x00, // maximum prefetch length
            0x00, 0x01, 0x00, 0x00, // maximum unmap LBA count
            0x00, 0x00, 0x00, 0x01, // maximum unmap block descriptor count
            0x00, 0x00, 0x00, 0x80, // optimal unmap granularity
            0x80, 0x00, 0x00, 0x05, // UGAVALID, unmap granularity alignment
            0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, // maximum write same length
        ];
        fields.iter().copied().chain([0; 20]).collect()
    }

    fn limits(payload: &[u8]) -> BlockLimits {
        VpdPage::parse(0xb0, &page(0xb0, payload))
            .unwrap()
            .block_limits()
    }

    #[test]
    fn block_limits_have_the_layout_of_the_standard() {
        assert_eq!(limits_payload().len(), 0x3c);
        assert_eq!(
            limits(&limits_payload()),
            BlockLimits {
                max_transfer_blocks: Some(0x4000),
                optimal_transfer_blocks: Some(0x2000),
                optimal_granularity_blocks: Some(8),
                max_unmap_blocks: Some(0x1_0000),
                unmap_granularity_blocks: Some(0x80),
                unmap_alignment_blocks: Some(5),
                max_write_same_blocks: Some(1 << 32),
            }
        );
    }

    #[test]
    fn zero_means_no_limit_except_for_unmap() {
        let expected = BlockLimits {
            max_unmap_blocks: Some(0),
            ..BlockLimits::default()
        };
        assert_eq!(limits(&[0; 0x3c]), expected);
    }

    #[test]
    fn the_short_page_of_sbc_2_says_nothing_about_unmap() {
        let found = limits(&limits_payload()[..0x0c]);
        assert_eq!(found.max_transfer_blocks, Some(0x4000));
        assert_eq!(
            (found.max_unmap_blocks, found.max_write_same_blocks),
            (None, None)
        );
    }

    #[test]
    fn unmap_counts_have_special_values() {
        let mut payload = limits_payload();
        payload[16..20].fill(0xff);
        assert_eq!(limits(&payload).max_unmap_blocks, Some(u32::MAX));
        payload[20..24].fill(0);
        assert_eq!(limits(&payload).max_unmap_blocks, Some(0));
    }

    #[test]
    fn an_alignment_that_is_not_valid_does_not_count() {
        let mut payload = limits_payload();
        payload[28] = 0;
        assert_eq!(limits(&payload).unmap_alignment_blocks, None);
    }

    #[test]
    fn rotation_rates_have_special_values() {
        let rotates = |rate: u16| {
            VpdPage::parse(0xb1, &page(0xb1, &rate.to_be_bytes()))
                .unwrap()
                .rotates()
        };
        assert_eq!(rotates(0), None);
        assert_eq!(rotates(1), Some(false));
        assert_eq!(rotates(2), None);
        assert_eq!(rotates(0x0400), None);
        assert_eq!(rotates(0x0401), Some(true));
        assert_eq!(rotates(0xfffe), Some(true));
        assert_eq!(rotates(0xffff), None);
    }

    #[test]
    fn each_provisioning_bit_is_its_own() {
        let provisioning = |flags| {
            let page = page(0xb2, &[0, flags, 2, 0]);
            let found = VpdPage::parse(0xb2, &page).unwrap().provisioning();
            (found.unmap, found.write_same_unmap, found.reads_zeros)
        };
        assert_eq!(provisioning(0x80), (true, false, false));
        assert_eq!(provisioning(0x40), (false, true, false));
        assert_eq!(provisioning(0x04), (false, false, true));
        assert_eq!(provisioning(0x08), (false, false, false)); // initialisation pattern
        assert_eq!(provisioning(!0xc4), (false, false, false));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(code: u8, mut data: Vec<u8>) {
            if let Some(second) = data.get_mut(1) {
                *second = code;
            }
            if let Ok(page) = VpdPage::parse(code, &data) {
                let _ = (page.serial(), page.rotates(), page.provisioning(), page.block_limits());
                proptest::prop_assert!(page.logical_unit_designators().len() <= MAX_DESIGNATORS);
            }
        }
    }
}
