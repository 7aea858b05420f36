//! Names for disks and files, made of what others called them.

use std::collections::{HashMap, HashSet};

/// The longest name of a disk (`DiskName`), in bytes.
const MAX_LENGTH_BYTES: usize = 64;

/// Names that were given already: no two are the same.
#[derive(Default)]
pub(super) struct Names {
    given: HashSet<String>,
    /// The last number behind a name, so that a thousand equal wishes are no million of tries.
    numbers: HashMap<String, u32>,
}

impl Names {
    /// `wanted` in the characters that a name may have, with a number behind it if it is taken.
    pub(super) fn give(&mut self, wanted: &str) -> String {
        let plain = plain(wanted);
        let number = self.numbers.entry(plain.clone()).or_default();
        loop {
            *number += 1;
            let suffix = match *number {
                1 => String::new(),
                number => format!("-{number}"),
            };
            let length = MAX_LENGTH_BYTES - suffix.len();
            let name = plain.chars().take(length).collect::<String>() + &suffix;
            if self.given.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// Letters, digits, dots, hyphens and underscores; the rest become hyphens. None begins with a dot: it
/// becomes a file's name.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain = text.chars().map(|c| if is_plain(c) { c } else { '-' });
    let plain: String = plain.take(MAX_LENGTH_BYTES).collect();
    match plain.trim_matches(['-', '.']) {
        "" => "disk".to_owned(),
        name => name.to_owned(),
    }
}

/// A name for a LUN: what is behind the last colon of the target's name, and the number.
pub(super) fn of_lun(target: &str, lun: u16) -> String {
    let own = target.rsplit(':').next().unwrap_or(target);
    // The number has to survive the cut.
    let own: String = own.chars().take(MAX_LENGTH_BYTES - 6).collect();
    format!("{own}-{lun}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiskName;

    #[test]
    fn each_name_is_valid_and_given_once() {
        let mut names = Names::default();
        let long = "x".repeat(100);
        for (wanted, name) in [
            ("disk", "disk"),
            ("disk", "disk-2"),
            ("disk", "disk-3"),
            ("../../etc/passwd", "etc-passwd"),
            ("é", "disk-4"),
            ("a b", "a-b"),
        ] {
            assert_eq!(names.give(wanted), name);
        }
        for _ in 0..12 {
            let name = names.give(&long);
            assert!(DiskName::new(&name).is_some(), "{name}");
        }
        assert_eq!(of_lun("iqn.2001-04.com.example:a:disk", 3), "disk-3");
        assert!(of_lun(&long, 16_383).ends_with("-16383"));
    }
}
