//! MODE SENSE, of 6 and 10 bytes (SPC-5, clause of each command), for a disk's device-specific
//! parameter (SBC-4, "Mode parameter headers") and its caching page ("Caching mode page").

use super::ParameterError;
use super::bytes::{be16_at, byte_at};
use super::command::ScsiCommand;
use super::opcode;

/// The caching mode page.
pub const CACHING_PAGE: u8 = 0x08;
/// All mode pages.
pub const ALL_PAGES: u8 = 0x3f;

/// The most that MODE SENSE(6) is asked for: its length field has one byte, and 255 is a value
/// some targets stumble over.
const ALLOCATION_6_BYTES: u8 = 252;
/// The most that MODE SENSE(10) is asked for: all pages of a disk take a few hundred bytes.
const ALLOCATION_10_BYTES: u16 = 4096;
/// The length of MODE SENSE(6)'s parameter header.
const HEADER_6_BYTES: usize = 4;
/// The length of MODE SENSE(10)'s parameter header.
const HEADER_10_BYTES: usize = 8;

/// What the mode pages say about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskMode {
    /// WP: the medium may not be written.
    pub write_protected: bool,
    /// DPOFUA: READ and WRITE take the DPO and FUA bits.
    pub dpofua: bool,
    /// WCE of the caching page: there is a volatile write cache. `None` when the page is not in
    /// the answer.
    pub write_cache: Option<bool>,
}

/// MODE SENSE(6) for the current values of `page`.
pub fn command_6(page: u8) -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = opcode::MODE_SENSE_6;
    cdb[2] = page & 0x3f;
    cdb[4] = ALLOCATION_6_BYTES;
    ScsiCommand::reading(cdb, u32::from(ALLOCATION_6_BYTES))
}

/// MODE SENSE(10) for the current values of `page`.
pub fn command_10(page: u8) -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = opcode::MODE_SENSE_10;
    cdb[2] = page & 0x3f;
    cdb[7..9].copy_from_slice(&ALLOCATION_10_BYTES.to_be_bytes());
    ScsiCommand::reading(cdb, u32::from(ALLOCATION_10_BYTES))
}

/// Parses the answer to MODE SENSE(6), of which the header must have arrived.
pub fn parse_6(data: &[u8]) -> Result<DiskMode, ParameterError> {
    let &[length, _, parameter, descriptors_bytes, ..] = data else {
        return Err(too_short(HEADER_6_BYTES, data));
    };
    let end = usize::from(length) + 1;
    let pages_start = HEADER_6_BYTES + usize::from(descriptors_bytes);
    Ok(disk_mode(parameter, until(data, end).get(pages_start..)))
}

/// Parses the answer to MODE SENSE(10), of which the header must have arrived.
pub fn parse_10(data: &[u8]) -> Result<DiskMode, ParameterError> {
    let &[
        length_high,
        length_low,
        _,
        parameter,
        _,
        _,
        descriptors_high,
        descriptors_low,
        ..,
    ] = data
    else {
        return Err(too_short(HEADER_10_BYTES, data));
    };
    let end = usize::from(u16::from_be_bytes([length_high, length_low])) + 2;
    let descriptors_bytes = u16::from_be_bytes([descriptors_high, descriptors_low]);
    let pages_start = HEADER_10_BYTES + usize::from(descriptors_bytes);
    Ok(disk_mode(parameter, until(data, end).get(pages_start..)))
}

fn disk_mode(parameter: u8, pages: Option<&[u8]>) -> DiskMode {
    DiskMode {
        write_protected: parameter & 0x80 != 0,
        dpofua: parameter & 0x10 != 0,
        write_cache: caching_page(pages.unwrap_or_default())
            .and_then(|page| byte_at(page, 2))
            .map(|flags| flags & 0x04 != 0),
    }
}

/// The caching page among `pages`, which follow each other: a short page has its length in
/// byte 1, one with a subpage (SPF) in bytes 2 and 3 (SPC-5, "Mode page and subpage formats").
fn caching_page(mut pages: &[u8]) -> Option<&[u8]> {
    loop {
        let code = byte_at(pages, 0)?;
        let has_subpage = code & 0x40 != 0;
        if code & 0x3f == CACHING_PAGE && !has_subpage {
            return Some(pages);
        }
        let length = match has_subpage {
            true => 4 + usize::from(be16_at(pages, 2)?),
            false => 2 + usize::from(byte_at(pages, 1)?),
        };
        pages = pages.get(length..)?;
    }
}

/// `data` up to `end`, or all of it when less arrived.
fn until(data: &[u8], end: usize) -> &[u8] {
    data.get(..end).unwrap_or(data)
}

fn too_short(needed_bytes: usize, data: &[u8]) -> ParameterError {
    ParameterError::TooShort {
        needed_bytes,
        arrived_bytes: data.len(),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// The caching page of a disk with a write cache: 20 bytes.
    const CACHING: [u8; 20] = [
        0x88, 18, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    fn answer_6(parameter: u8, descriptors: &[u8], pages: &[u8]) -> Vec<u8> {
        let length = u8::try_from(3 + descriptors.len() + pages.len()).unwrap();
        let descriptors_bytes = u8::try_from(descriptors.len()).unwrap();
        [
            &[length, 0, parameter, descriptors_bytes],
            descriptors,
            pages,
        ]
        .concat()
    }

    fn answer_10(parameter: u8, descriptors: &[u8], pages: &[u8]) -> Vec<u8> {
        let length = u16::try_from(6 + descriptors.len() + pages.len())
            .unwrap()
            .to_be_bytes();
        let descriptors_bytes = u16::try_from(descriptors.len()).unwrap().to_be_bytes();
        let header = [&length[..], &[0, parameter, 0, 0], &descriptors_bytes].concat();
        [&header, descriptors, pages].concat()
    }

    #[test]
    fn the_commands_have_the_layout_of_the_standard() {
        let six = command_6(CACHING_PAGE);
        assert_eq!(
            six.cdb,
            [0x1a, 0, 0x08, 0, 252, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(six.data.length_bytes(), 252);
        let ten = command_10(ALL_PAGES);
        assert_eq!(
            ten.cdb,
            [0x5a, 0, 0x3f, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(ten.data.length_bytes(), 4096);
    }

    #[test]
    fn finds_the_caching_page_behind_block_descriptors_and_other_pages() {
        let error_recovery = [0x01, 2, 0xff, 0xff];
        let control_extension = [0x4a, 0x01, 0, 3, 0xff, 0xff, 0xff];
        let pages = [&error_recovery[..], &control_extension, &CACHING].concat();
        let expected = DiskMode {
            write_protected: true,
            dpofua: true,
            write_cache: Some(true),
        };
        assert_eq!(parse_6(&answer_6(0x90, &[0x88; 8], &pages)), Ok(expected));
        assert_eq!(
            parse_10(&answer_10(0x90, &[0x88; 16], &pages)),
            Ok(expected)
        );
    }

    #[test]
    fn each_bit_is_its_own() {
        let mut write_through = CACHING;
        write_through[2] = !0x04;
        let mode = parse_6(&answer_6(0x80, &[], &write_through)).unwrap();
        assert_eq!(
            mode,
            DiskMode {
                write_protected: true,
                dpofua: false,
                write_cache: Some(false)
            }
        );
        let mode = parse_10(&answer_10(0x10, &[], &CACHING)).unwrap();
        assert_eq!(
            mode,
            DiskMode {
                write_protected: false,
                dpofua: true,
                write_cache: Some(true)
            }
        );
    }

    #[test]
    fn a_subpage_of_page_8_is_not_the_caching_page() {
        let subpage = [0x48, 0x01, 0, 2, 0xff, 0xff];
        assert_eq!(
            parse_6(&answer_6(0, &[], &subpage)).unwrap().write_cache,
            None
        );
    }

    #[test]
    fn a_header_alone_says_nothing_about_the_cache() {
        let whole = answer_6(0x80, &[], &CACHING);
        for length in 0..4 {
            assert!(parse_6(&whole[..length]).is_err());
        }
        for length in 4..7 {
            let mode = parse_6(&whole[..length]).unwrap();
            assert_eq!((mode.write_protected, mode.write_cache), (true, None));
        }
        assert_eq!(parse_6(&whole[..7]).unwrap().write_cache, Some(true));
    }

    #[test]
    fn what_lies_beyond_the_stated_length_is_not_looked_at() {
        let mut data = answer_10(0, &[], &CACHING);
        data[1] = 6;
        assert_eq!(parse_10(&data).unwrap().write_cache, None);
        for length in 0..8 {
            assert!(parse_10(&data[..length]).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(data: Vec<u8>) {
            let _ = parse_6(&data);
            let _ = parse_10(&data);
        }
    }
}
