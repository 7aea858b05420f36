//! CHAP as iSCSI uses it (RFC 7143 section 12.1.3): algorithms, binary values, the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest as _;
use std::fmt;

/// A secret. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A CHAP hash algorithm, by its number in the PPP registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChapAlgorithm {
    /// 5
    Md5,
    /// 6
    Sha1,
    /// 7
    Sha256,
    /// 8
    Sha3_256,
}

impl ChapAlgorithm {
    /// Every algorithm, weakest first.
    pub const ALL: [Self; 4] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha3_256];

    /// The number that stands for it in CHAP_A.
    pub fn number(self) -> u8 {
        match self {
            Self::Md5 => 5,
            Self::Sha1 => 6,
            Self::Sha256 => 7,
            Self::Sha3_256 => 8,
        }
    }

    /// The answer to a challenge: hash of identifier, secret and challenge (RFC 1994 section 4.1).
    pub(crate) fn answer(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        let text = [&[identifier], secret.0.as_slice(), challenge].concat();
        match self {
            Self::Md5 => md5::Md5::digest(text).to_vec(),
            Self::Sha1 => sha1::Sha1::digest(text).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(text).to_vec(),
            Self::Sha3_256 => sha3::Sha3_256::digest(text).to_vec(),
        }
    }
}

/// How the target writes binary values. It reads both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinaryEncoding {
    /// `0x` and hexadecimal digits.
    #[default]
    Hex,
    /// `0b` and base64.
    Base64,
}

impl BinaryEncoding {
    /// The value as text (RFC 7143 section 6.1, binary-value).
    pub(crate) fn encode(self, value: &[u8]) -> String {
        match self {
            Self::Hex => value
                .iter()
                .fold("0x".to_owned(), |text, b| text + &format!("{b:02x}")),
            Self::Base64 => format!("0b{}", STANDARD.encode(value)),
        }
    }
}

/// Reads a binary value in either encoding.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let (prefix, digits) = text.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" => decode_hex(digits),
        "0b" | "0B" => STANDARD.decode(digits).ok(),
        _ => None,
    }
}

fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    // An odd number of digits leaves out the leading zero.
    let digits = if digits.len() % 2 == 1 {
        format!("0{digits}")
    } else {
        digits.to_owned()
    };
    digits.as_bytes().chunks(2).map(hex_byte).collect()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_in_both_encodings() {
        for encoding in [BinaryEncoding::Hex, BinaryEncoding::Base64] {
            for value in [&[0_u8, 1, 0xfe][..], &[7], &[]] {
                assert_eq!(decode(&encoding.encode(value)).as_deref(), Some(value));
            }
        }
    }

    #[test]
    fn rejects_digits_that_are_none() {
        for text in ["", "0", "12", "0xzz", "0b*"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn answers_md5_as_published() {
        // MD5("message digest") from RFC 1321, split into identifier, secret and challenge.
        let answer = ChapAlgorithm::Md5.answer(b'm', &Secret::new("essage "), b"digest");
        assert_eq!(
            BinaryEncoding::Hex.encode(&answer),
            "0xf96b697d7cb7938d525a2f31aaf161d0"
        );
    }

    #[test]
    fn never_shows_a_secret() {
        assert_eq!(format!("{:?}", Secret::new("open sesame")), "Secret(..)");
    }
}
