//! REPORT LUNS: which logical units a target has (SPC-5, clause of the command).

use alloc::vec::Vec;

use super::ParameterError;
use super::bytes::be32_at;
use super::command::ScsiCommand;
use super::lun::LunAddress;
use super::opcode;

/// The most entries that are taken from one answer: one for each LUN a URL can name.
pub const MAX_REPORTED_LUNS: usize = 16_384;
/// The longest answer worth asking for, in bytes.
pub const MAX_LENGTH_BYTES: u32 = 8 + 16_384 * 8;
/// How much to ask for at first: 127 entries, enough for nearly every target.
pub const FIRST_LENGTH_BYTES: u32 = 1024;

const HEADER_LENGTH_BYTES: usize = 8;
const ENTRY_LENGTH_BYTES: usize = 8;
const _: () = assert!(
    MAX_LENGTH_BYTES as usize == HEADER_LENGTH_BYTES + MAX_REPORTED_LUNS * ENTRY_LENGTH_BYTES
);
/// The smallest allocation length that SPC-3 allowed.
const SMALLEST_LENGTH_BYTES: u32 = 16;

/// What arrived of a target's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedLuns {
    /// The entries that arrived, at most [`MAX_REPORTED_LUNS`], in the target's order.
    pub luns: Vec<LunAddress>,
    /// How long the whole answer is, as the target says: ask again with this length when it is
    /// more than what was asked for. At most [`MAX_LENGTH_BYTES`].
    pub whole_length_bytes: u32,
}

/// REPORT LUNS for all logical units but well known ones, of which at most `length_bytes` are
/// asked for (at least 16, at most [`MAX_LENGTH_BYTES`]). It goes to LUN 0.
pub fn command(length_bytes: u32) -> ScsiCommand {
    let length_bytes = length_bytes.clamp(SMALLEST_LENGTH_BYTES, MAX_LENGTH_BYTES);
    let mut cdb = [0; 16];
    cdb[0] = opcode::REPORT_LUNS;
    cdb[6..10].copy_from_slice(&length_bytes.to_be_bytes());
    ScsiCommand::reading(cdb, length_bytes)
}

/// Parses the answer, of which the header must have arrived. An entry cut short is left out.
pub fn parse(data: &[u8]) -> Result<ReportedLuns, ParameterError> {
    let (Some(list_bytes), Some(entries)) = (be32_at(data, 0), data.get(HEADER_LENGTH_BYTES..))
    else {
        let arrived_bytes = data.len();
        return Err(ParameterError::TooShort {
            needed_bytes: HEADER_LENGTH_BYTES,
            arrived_bytes,
        });
    };
    let list = usize::try_from(list_bytes)
        .ok()
        .and_then(|length| entries.get(..length));
    let (addresses, _) = list.unwrap_or(entries).as_chunks::<ENTRY_LENGTH_BYTES>();
    Ok(ReportedLuns {
        luns: addresses
            .iter()
            .copied()
            .take(MAX_REPORTED_LUNS)
            .map(LunAddress)
            .collect(),
        whole_length_bytes: list_bytes.saturating_add(8).min(MAX_LENGTH_BYTES),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::lun::Lun;

    fn answer(luns: &[LunAddress]) -> Vec<u8> {
        let list_bytes = u32::try_from(luns.len() * 8).unwrap().to_be_bytes();
        let header = [&list_bytes[..], &[0; 4]].concat();
        luns.iter()
            .fold(header, |data, lun| [&data[..], &lun.0].concat())
    }

    fn addresses(count: u16) -> Vec<LunAddress> {
        (0..count)
            .map(|number| Lun::new(number).unwrap().address())
            .collect()
    }

    #[test]
    fn the_command_asks_for_no_less_than_16_bytes_and_no_more_than_it_takes() {
        assert_eq!(
            command(1024).cdb,
            [0xa0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(command(0).data.length_bytes(), 16);
        assert_eq!(command(16).data.length_bytes(), 16);
        assert_eq!(
            command(MAX_LENGTH_BYTES + 1).data.length_bytes(),
            MAX_LENGTH_BYTES
        );
    }

    #[test]
    fn lists_every_address_in_order() {
        let luns = addresses(300);
        let reported = parse(&answer(&luns)).unwrap();
        assert_eq!(
            reported,
            ReportedLuns {
                luns,
                whole_length_bytes: 8 + 300 * 8
            }
        );
    }

    #[test]
    fn a_list_cut_short_says_how_much_to_ask_for() {
        let whole = answer(&addresses(3));
        for length in 8..whole.len() {
            let reported = parse(&whole[..length]).unwrap();
            assert_eq!(reported.luns.len(), (length - 8) / 8);
            assert_eq!(reported.whole_length_bytes, 32);
        }
        for length in 0..8 {
            assert!(parse(&whole[..length]).is_err());
        }
    }

    #[test]
    fn padding_after_the_list_is_not_a_lun() {
        let mut data = answer(&addresses(1));
        data.extend([0; 16]);
        assert_eq!(parse(&data).unwrap().luns.len(), 1);
    }

    #[test]
    fn a_boundless_list_is_bounded() {
        let mut data = answer(&addresses(2).repeat(MAX_REPORTED_LUNS));
        data[..4].fill(0xff);
        let reported = parse(&data).unwrap();
        assert_eq!(reported.luns.len(), MAX_REPORTED_LUNS);
        assert_eq!(reported.whole_length_bytes, MAX_LENGTH_BYTES);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(data: Vec<u8>) {
            let _ = parse(&data);
        }
    }
}
