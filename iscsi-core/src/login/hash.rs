//! The hash functions of CHAP, by the numbers of CHAP_A.

use alloc::vec::Vec;

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use sha3::Sha3_256;

use super::settings::ChapAlgorithm;

impl ChapAlgorithm {
    /// The algorithm with this number, if it is one of ours.
    pub fn of_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.number() == number)
    }

    /// The number that CHAP_A carries.
    pub fn number(self) -> u64 {
        self as u64
    }

    /// How people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha3_256 => "SHA3-256",
        }
    }

    /// The hash of `parts`, one after the other.
    pub(super) fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Md5 => hash_with::<Md5>(parts),
            Self::Sha1 => hash_with::<Sha1>(parts),
            Self::Sha256 => hash_with::<Sha256>(parts),
            Self::Sha3_256 => hash_with::<Sha3_256>(parts),
        }
    }
}

fn hash_with<H: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = H::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::format_hexadecimal;

    /// RFC 1321 A.5, and the examples that NIST publishes with FIPS 180-4 and FIPS 202.
    #[test]
    fn the_hash_of_abc_is_the_published_one() {
        for (algorithm, expected) in [
            (ChapAlgorithm::Md5, "0x900150983cd24fb0d6963f7d28e17f72"),
            (
                ChapAlgorithm::Sha1,
                "0xa9993e364706816aba3e25717850c26c9cd0d89d",
            ),
            (
                ChapAlgorithm::Sha256,
                "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                ChapAlgorithm::Sha3_256,
                "0x3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
            ),
        ] {
            assert_eq!(
                format_hexadecimal(&algorithm.hash(&[b"a", b"", b"bc"])),
                expected
            );
        }
    }

    #[test]
    fn numbers_are_those_of_the_registry_and_no_others_are_known() {
        assert_eq!(ChapAlgorithm::ALL.map(ChapAlgorithm::number), [8, 7, 6, 5]);
        assert_eq!(ChapAlgorithm::of_number(5), Some(ChapAlgorithm::Md5));
        assert_eq!(ChapAlgorithm::of_number(4), None);
        assert_eq!(ChapAlgorithm::of_number(9), None);
        assert_eq!(ChapAlgorithm::of_number(256 + 5), None);
    }
}
