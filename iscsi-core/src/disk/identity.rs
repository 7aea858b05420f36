//! Whether two logical units are the same disk: what stands between a write and the wrong disk.

use core::fmt;

use super::facts::{Designator, Identity};
use crate::scsi::bytes::trim_padding;

/// How much a designator is worth, the most trustworthy first (SPC-5, "DESIGNATOR TYPE field").
///
/// Names that a registration authority keeps unique come first. What a target may make up comes
/// last: NAA names of the format "locally assigned" and T10 vendor identifications, which some
/// targets make from nothing but target and LUN numbers.
const TRUST: [fn(&Designator) -> bool; 7] = [
    |d| d.kind == NAA && !d.is_locally_assigned(),
    |d| d.kind == EUI_64,
    |d| d.kind == UUID,
    |d| d.kind == SCSI_NAME,
    |d| d.kind == MD5,
    |d| d.kind == NAA,
    |d| d.kind == T10_VENDOR_ID,
];
const T10_VENDOR_ID: u8 = 1;
const EUI_64: u8 = 2;
const NAA: u8 = 3;
const MD5: u8 = 7;
const SCSI_NAME: u8 = 8;
const UUID: u8 = 10;

/// The first four bits of an NAA name (SPC-5, "NAA designator format"): "locally assigned".
const NAA_LOCALLY_ASSIGNED: u8 = 3;

impl Identity {
    /// Whether `self` and `other` are one disk.
    ///
    /// Their block lengths must be equal. The most trustworthy type of designator that both have
    /// decides: they must share a designator of that type. (To share any would not do: two targets
    /// of one make give the same T10 vendor identification to different disks.) When neither has
    /// designators, their serials must be equal; when only one has, they are not the same.
    ///
    /// Two disks without any name are the same by this rule; see [`Identity::is_anonymous`].
    pub fn same_disk(&self, other: &Self) -> bool {
        self.block_length_bytes == other.block_length_bytes && self.same_name(other)
    }

    /// Whether the disk has no name at all, so that nothing but its block length tells it from
    /// another.
    pub fn is_anonymous(&self) -> bool {
        self.designators.is_empty() && self.serial.is_empty()
    }

    /// The designators, the most trustworthy first; those that nobody trusts come last.
    pub(super) fn by_trust(&self) -> impl Iterator<Item = &Designator> {
        let of_rank = |rank: usize| {
            self.designators
                .iter()
                .filter(move |name| name.trust() == rank)
        };
        (0..=TRUST.len()).flat_map(of_rank)
    }

    fn same_name(&self, other: &Self) -> bool {
        if self.designators.is_empty() && other.designators.is_empty() {
            return self.serial == other.serial;
        }
        let common = TRUST
            .into_iter()
            .find(|&is_such| self.has(is_such) && other.has(is_such));
        common.is_some_and(|is_such| {
            let mut names = self.designators.iter().filter(|name| is_such(name));
            names.any(|name| other.designators.contains(name))
        })
    }

    fn has(&self, is_such: fn(&Designator) -> bool) -> bool {
        self.designators.iter().any(is_such)
    }
}

impl Designator {
    /// Its place in [`TRUST`].
    fn trust(&self) -> usize {
        let place = TRUST.iter().position(|is_such| is_such(self));
        place.unwrap_or(TRUST.len())
    }

    fn is_locally_assigned(&self) -> bool {
        self.value
            .first()
            .is_some_and(|byte| byte >> 4 == NAA_LOCALLY_ASSIGNED)
    }
}

impl fmt::Display for Identity {
    /// The designators, else the serial: `naa.6001405a00000001, t10.IET 00010001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_anonymous() {
            return f.write_str("a disk without a name");
        }
        if self.designators.is_empty() {
            return write!(f, "serial {}", self.serial.escape_ascii());
        }
        for (index, designator) in self.designators.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{designator}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Designator {
    /// As udev and multipath tools write it: type, dot, value; text without its padding and with
    /// escapes for what is not printable ASCII.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            NAA => f.write_str("naa.")?,
            EUI_64 => f.write_str("eui.")?,
            UUID => f.write_str("uuid.")?,
            MD5 => f.write_str("md5.")?,
            T10_VENDOR_ID => return write!(f, "t10.{}", trim_padding(&self.value).escape_ascii()),
            SCSI_NAME => return write!(f, "{}", trim_padding(&self.value).escape_ascii()),
            other => write!(f, "type{other}.")?,
        }
        self.value
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn identity(designators: &[(u8, &[u8])], serial: &[u8]) -> Identity {
        let designator = |&(kind, value): &(u8, &[u8])| Designator {
            code_set: 1,
            kind,
            value: value.to_vec(),
        };
        Identity {
            designators: designators.iter().map(designator).collect(),
            serial: serial.to_vec(),
            block_length_bytes: 512,
        }
    }

    fn same(a: &Identity, b: &Identity) -> bool {
        assert_eq!(a.same_disk(b), b.same_disk(a), "the rule is symmetric");
        a.same_disk(b)
    }

    #[test]
    fn one_shared_designator_of_the_strongest_common_type_is_enough() {
        let a = identity(&[(NAA, b"1"), (NAA, b"2")], b"x");
        assert!(same(
            &a,
            &identity(&[(NAA, b"2"), (NAA, b"3"), (EUI_64, b"4")], b"y")
        ));
        assert!(!same(&a, &identity(&[(NAA, b"3")], b"x")));
    }

    #[test]
    fn a_shared_t10_name_does_not_outweigh_different_naa_names() {
        let a = identity(&[(NAA, b"1"), (T10_VENDOR_ID, b"IET 00010001")], b"");
        let b = identity(&[(NAA, b"2"), (T10_VENDOR_ID, b"IET 00010001")], b"");
        assert!(!same(&a, &b));
        assert!(same(
            &a,
            &identity(&[(T10_VENDOR_ID, b"IET 00010001")], b"")
        ));
    }

    #[test]
    fn the_same_value_of_another_type_or_code_set_is_another_name() {
        let a = identity(&[(NAA, b"1")], b"s");
        assert!(!same(&a, &identity(&[(EUI_64, b"1")], b"s")));
        let mut b = a.clone();
        b.designators[0].code_set = 2;
        assert!(!same(&a, &b));
    }

    #[test]
    fn another_block_length_is_another_disk() {
        let a = identity(&[(NAA, b"1")], b"s");
        assert!(!same(
            &a,
            &Identity {
                block_length_bytes: 4096,
                ..a.clone()
            }
        ));
    }

    #[test]
    fn serials_decide_only_when_neither_has_designators() {
        assert!(same(&identity(&[], b"s"), &identity(&[], b"s")));
        assert!(!same(&identity(&[], b"s"), &identity(&[], b"t")));
        assert!(!same(&identity(&[], b"s"), &identity(&[], b"")));
        assert!(!same(&identity(&[], b"s"), &identity(&[(NAA, b"1")], b"s")));
    }

    #[test]
    fn identities_read_as_other_tools_write_them() {
        let named = identity(
            &[(NAA, &[0x60, 0x01, 0x0a]), (T10_VENDOR_ID, b"IET \x01")],
            b"s",
        );
        assert_eq!(named.to_string(), "naa.60010a, t10.IET \\x01");
        assert_eq!(
            identity(&[], b"beaf\x1b11").to_string(),
            "serial beaf\\x1b11"
        );
        assert_eq!(identity(&[], b"").to_string(), "a disk without a name");
    }
}
