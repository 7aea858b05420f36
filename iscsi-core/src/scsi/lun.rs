//! Logical unit numbers: eight bytes on the wire, a small number for people (SAM-6, "Logical unit
//! number").

use core::fmt;

/// A logical unit number as people write it: 0 to 16,383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(u16);

impl Lun {
    /// The largest number: what flat space addressing can hold.
    pub const MAX: Self = Self(0x3fff);
    /// Logical unit 0.
    pub const ZERO: Self = Self(0);

    /// The number `number`; `None` beyond [`Lun::MAX`].
    pub fn new(number: u16) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The address that targets expect: peripheral device addressing up to 255, flat space
    /// addressing from there on (SAM-6, clauses of those names).
    pub fn address(self) -> LunAddress {
        match self.0.to_be_bytes() {
            [0, number] => LunAddress([0, number, 0, 0, 0, 0, 0, 0]),
            _ => self.flat_address(),
        }
    }

    /// The address in flat space addressing, which some targets use for small numbers too.
    pub fn flat_address(self) -> LunAddress {
        let [high, low] = self.0.to_be_bytes();
        LunAddress([0x40 | high, low, 0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The LUN field of a PDU, and an entry of REPORT LUNS: any eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LunAddress(pub [u8; 8]);

/// How an address is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LunFormat {
    /// 00b, peripheral device addressing on bus 0, or 01b, flat space addressing: a plain number.
    Number(Lun),
    /// 11b, extended flat space addressing, of 24 or 40 bits.
    ExtendedFlat(u64),
    /// 11b, a well known logical unit, such as REPORT LUNS (01h).
    WellKnown(u8),
    /// 10b, logical unit addressing.
    LogicalUnit {
        /// TARGET.
        target: u8,
        /// BUS NUMBER.
        bus: u8,
        /// LUN.
        lun: u8,
    },
    /// FFFFh: no logical unit is specified.
    NotSpecified,
    /// More than one level, another bus, or a reserved format.
    Other,
}

impl LunAddress {
    /// How the address is to be read (SAM-6, "Single level LUN structure" and "Addressing
    /// methods"). Several levels, where bytes follow
    /// after the first level, are [`LunFormat::Other`].
    pub fn format(self) -> LunFormat {
        let [first, second, third, fourth, fifth, sixth, ..] = self.0;
        match first >> 6 {
            0b00 if self.ends_after(2) && first == 0 => LunFormat::Number(Lun(u16::from(second))),
            0b01 if self.ends_after(2) => {
                LunFormat::Number(Lun(u16::from_be_bytes([first & 0x3f, second])))
            }
            0b10 if self.ends_after(2) => LunFormat::LogicalUnit {
                target: first & 0x3f,
                bus: second >> 5,
                lun: second & 0x1f,
            },
            _ => match first {
                0xc1 if self.ends_after(2) => LunFormat::WellKnown(second),
                0xd2 if self.ends_after(4) => {
                    LunFormat::ExtendedFlat(number([0, 0, second, third, fourth]))
                }
                0xe2 if self.ends_after(6) => {
                    LunFormat::ExtendedFlat(number([second, third, fourth, fifth, sixth]))
                }
                0xff if second == 0xff => LunFormat::NotSpecified,
                _ => LunFormat::Other,
            },
        }
    }

    /// The number by which a URL can name this logical unit, if there is one.
    pub fn lun(self) -> Option<Lun> {
        match self.format() {
            LunFormat::Number(lun) => Some(lun),
            _ => None,
        }
    }

    /// The eight bytes as one number, the most significant byte first.
    pub fn to_u64(self) -> u64 {
        u64::from_be_bytes(self.0)
    }

    /// Whether all bytes from `length` on are zero.
    fn ends_after(self, length: usize) -> bool {
        self.0.iter().skip(length).all(|&byte| byte == 0)
    }
}

impl From<Lun> for LunAddress {
    fn from(lun: Lun) -> Self {
        lun.address()
    }
}

impl fmt::Display for LunAddress {
    /// The number if there is one, else what it is and all eight bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.to_u64();
        match self.format() {
            LunFormat::Number(lun) => lun.fmt(f),
            LunFormat::ExtendedFlat(number) => write!(f, "{number} (extended, {field:#018x})"),
            LunFormat::WellKnown(number) => write!(f, "well known {number:02X}h"),
            LunFormat::LogicalUnit { target, bus, lun } => {
                write!(f, "{lun} of target {target}, bus {bus} ({field:#018x})")
            }
            LunFormat::NotSpecified | LunFormat::Other => write!(f, "{field:#018x}"),
        }
    }
}

fn number([first, second, third, fourth, fifth]: [u8; 5]) -> u64 {
    u64::from_be_bytes([0, 0, 0, first, second, third, fourth, fifth])
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn lun(number: u16) -> Lun {
        Lun::new(number).unwrap()
    }

    #[test]
    fn numbers_end_at_16383() {
        assert_eq!(Lun::new(16_383), Some(Lun::MAX));
        assert_eq!(Lun::new(16_384), None);
    }

    #[test]
    fn addressing_changes_between_255_and_256() {
        assert_eq!(lun(0).address().0, [0; 8]);
        assert_eq!(lun(255).address().0, [0, 255, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun(256).address().0, [0x41, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun(16_383).address().0, [0x7f, 0xff, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun(5).flat_address().0, [0x40, 5, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_number_is_read_back_from_both_addresses() {
        for number in 0..=Lun::MAX.number() {
            assert_eq!(lun(number).address().lun(), Some(lun(number)));
            assert_eq!(lun(number).flat_address().lun(), Some(lun(number)));
        }
    }

    #[test]
    fn other_formats_are_told_apart() {
        let format = |bytes| LunAddress(bytes).format();
        assert_eq!(
            format([0x85, 0x43, 0, 0, 0, 0, 0, 0]),
            LunFormat::LogicalUnit {
                target: 5,
                bus: 2,
                lun: 3
            }
        );
        assert_eq!(
            format([0xc1, 0x01, 0, 0, 0, 0, 0, 0]),
            LunFormat::WellKnown(1)
        );
        assert_eq!(
            format([0xd2, 1, 2, 3, 0, 0, 0, 0]),
            LunFormat::ExtendedFlat(0x01_0203)
        );
        assert_eq!(
            format([0xe2, 1, 2, 3, 4, 5, 0, 0]),
            LunFormat::ExtendedFlat(0x01_0203_0405)
        );
        assert_eq!(format([0xff; 8]), LunFormat::NotSpecified);
    }

    #[test]
    fn several_levels_and_other_buses_have_no_number() {
        for bytes in [
            [0, 1, 0, 2, 0, 0, 0, 0],
            [0x40, 1, 0, 0, 0, 0, 0, 9],
            [1, 1, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(LunAddress(bytes).format(), LunFormat::Other);
            assert_eq!(LunAddress(bytes).lun(), None);
        }
        assert_eq!(
            LunAddress([0xd2, 1, 2, 3, 4, 0, 0, 0]).format(),
            LunFormat::Other
        );
    }

    #[test]
    fn addresses_read_as_numbers_where_they_can() {
        assert_eq!(lun(300).address().to_string(), "300");
        assert_eq!(
            LunAddress([0, 1, 0, 2, 0, 0, 0, 0]).to_string(),
            "0x0001000200000000"
        );
        assert_eq!(
            LunAddress([0xc1, 1, 0, 0, 0, 0, 0, 0]).to_string(),
            "well known 01h"
        );
    }
}
