//! What a disk is called that was found on a target rather than configured.
//!
//! A function of the target's name and the LUN alone: the same at every start, on every machine,
//! whatever else is there. `docs/operating.md` promises the rule, so it may never change.

use iscsi_core::name::IscsiName;
use sha2::{Digest, Sha256};

use super::DiskName;

/// What stands before the LUN, as in the names that udev makes of iSCSI paths.
const LUN_MARK: &str = "-lun-";

/// The longest name of a target that is taken as it is: with the largest LUN behind it, the whole is
/// the longest name of a disk.
const MAX_PLAIN_LENGTH_BYTES: usize = 64 - "-lun-16383".len();

/// How much of a hash stands for a target: 64 bits.
const HASH_LENGTH_BYTES: usize = 8;

/// How much of a longer name is still shown: its end, for the beginning is what all targets of an
/// array have in common.
const SHOWN_CHARACTERS: usize = 32;

impl DiskName {
    /// The name of a LUN: `iqn.2001-04.com.example_disk-lun-1`.
    ///
    /// Colons become underscores. A target whose name has more than 54 bytes, or an underscore or
    /// anything else that would make two names one, is `iqn-`, 16 hexadecimal digits of its SHA-256,
    /// and the last 32 characters.
    pub fn of_lun(target: &IscsiName, lun: u16) -> Self {
        let target = target.as_str();
        let is_plain = target.len() <= MAX_PLAIN_LENGTH_BYTES
            && target
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c));
        let stem = if is_plain {
            target.replace(':', "_")
        } else {
            hashed(target)
        };
        Self(format!("{stem}{LUN_MARK}{lun}"))
    }
}

/// Names that are taken as they are have a dot where this has its first hyphen.
fn hashed(target: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(target.as_bytes()).into();
    let hash = digest.iter().take(HASH_LENGTH_BYTES);
    let hash: String = hash.map(|byte| format!("{byte:02x}")).collect();
    let safe = |c: char| match c {
        'a'..='z' | '0'..='9' | '.' | '-' => c,
        _ => '_',
    };
    let length = target.chars().count();
    let end = target.chars().skip(length.saturating_sub(SHOWN_CHARACTERS));
    let end: String = end.map(safe).collect();
    format!("iqn-{hash}-{end}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn name(target: &str, lun: u16) -> String {
        let name = DiskName::of_lun(&IscsiName::parse(target).unwrap(), lun);
        assert_eq!(DiskName::new(name.as_str()), Some(name.clone()), "{name:?}");
        name.as_str().to_owned()
    }

    #[test]
    fn a_short_name_is_taken_as_it_is() {
        for (target, lun, expected) in [
            (
                "iqn.2001-04.com.example:disk",
                1,
                "iqn.2001-04.com.example_disk-lun-1",
            ),
            (
                "IQN.2001-04.com.example:a:b",
                16_383,
                "iqn.2001-04.com.example_a_b-lun-16383",
            ),
            (
                "iqn.2001-04.com.example",
                0,
                "iqn.2001-04.com.example-lun-0",
            ),
            ("eui.02004567a425678d", 7, "eui.02004567a425678d-lun-7"),
            (
                "naa.62004567ba64678d0123456789abcdef",
                255,
                "naa.62004567ba64678d0123456789abcdef-lun-255",
            ),
        ] {
            assert_eq!(name(target, lun), expected, "it may never change");
        }
    }

    #[test]
    fn another_name_is_shortened_by_its_hash() {
        let longest = format!("iqn.2001-04.com.example:{}", "x".repeat(223 - 24));
        for (target, lun, expected) in [
            (
                "iqn.2001-04.com.example:disk_1",
                1,
                "iqn-963218aa2841adc7-iqn.2001-04.com.example_disk_1-lun-1",
            ),
            (
                longest.as_str(),
                16_383,
                "iqn-78669cef8e104830-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-lun-16383",
            ),
            (
                "iqn.2001-04.com.example:dïsk",
                0,
                "iqn-38935b1d3f622088-iqn.2001-04.com.example_d_sk-lun-0",
            ),
        ] {
            assert_eq!(name(target, lun), expected, "it may never change");
        }
    }

    #[test]
    fn fifty_four_bytes_are_short_and_one_more_is_not() {
        let target = |length: usize| format!("iqn.2001-04.com.example:{}", "x".repeat(length - 24));
        assert_eq!(name(&target(54), 16_383).len(), 64);
        assert!(name(&target(54), 1).starts_with("iqn.2001"));
        assert!(name(&target(55), 1).starts_with("iqn-"));
        assert!(name(&target(223), 16_383).len() <= 64);
    }

    #[test]
    fn names_that_become_the_same_when_cut_or_mapped_stay_apart() {
        let long = "x".repeat(180);
        let targets = [
            "iqn.2001-04.com.example:a:b".to_owned(),
            "iqn.2001-04.com.example:a_b".to_owned(),
            "iqn.2001-04.com.example:aéb".to_owned(),
            "iqn.2001-04.com.example:aèb".to_owned(),
            "iqn.2001-04.com.example:a-lun-1".to_owned(),
            "iqn.2001-04.com.example:a".to_owned(),
            format!("iqn.2001-04.com.example:1{long}"),
            format!("iqn.2001-04.com.example:2{long}"),
            format!("iqn.2001-04.com.example:{long}1"),
            format!("iqn.2001-04.com.example:{long}2"),
        ];
        let luns = [0, 1, 11, 16_383];
        let names = targets
            .iter()
            .flat_map(|target| luns.map(|lun| name(target, lun)));
        let names: HashSet<_> = names.collect();
        assert_eq!(names.len(), targets.len() * luns.len());
    }
}
