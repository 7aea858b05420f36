//! iSCSI names: `iqn.`, `eui.` and `naa.` (RFC 7143 section 4.2.7, RFC 3722).

use alloc::string::String;
use core::fmt;

use thiserror::Error;

/// The longest iSCSI name in bytes (RFC 7143 section 4.2.7.1).
pub const MAX_NAME_LENGTH_BYTES: usize = 223;

/// A well-formed iSCSI name, lower-cased as RFC 3722 asks for.
///
/// A value of this type is never empty, never longer than [`MAX_NAME_LENGTH_BYTES`] and never
/// contains a byte that could break a `key=value` pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IscsiName(String);

/// Why a text is not an iSCSI name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty, or more than [`MAX_NAME_LENGTH_BYTES`].
    #[error("an iSCSI name has 1 to {MAX_NAME_LENGTH_BYTES} bytes")]
    Length,
    /// Neither `iqn.`, `eui.` nor `naa.`.
    #[error("an iSCSI name starts with iqn., eui. or naa.")]
    Prefix,
    /// `iqn.` is not followed by a date and a naming authority: `iqn.2001-04.com.example`.
    #[error("an iqn name reads iqn.YYYY-MM.reversed.domain[:text]")]
    Iqn,
    /// `eui.` needs 16 hexadecimal digits.
    #[error("an eui name has 16 hexadecimal digits")]
    Eui,
    /// `naa.` needs 16 or 32 hexadecimal digits.
    #[error("an naa name has 16 or 32 hexadecimal digits")]
    Naa,
    /// A character that RFC 3722 does not allow: white space, control characters, most punctuation.
    #[error("an iSCSI name has letters, digits, '-', '.' and ':' only")]
    Character,
}

impl IscsiName {
    /// Checks `text` and lower-cases it.
    ///
    /// Characters beyond ASCII are accepted as they are (targets use them rarely, and normalising
    /// them is the target's business); ASCII ones must be those of RFC 3722. The underscore is
    /// accepted because targets in the field use it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > MAX_NAME_LENGTH_BYTES {
            return Err(NameError::Length);
        }
        let name = text.to_lowercase();
        if name.len() > MAX_NAME_LENGTH_BYTES {
            return Err(NameError::Length);
        }
        if !name.chars().all(is_name_character) {
            return Err(NameError::Character);
        }
        match name.split_once('.') {
            Some(("iqn", rest)) if is_dated_authority(rest) => Ok(Self(name)),
            Some(("iqn", _)) => Err(NameError::Iqn),
            Some(("eui", rest)) if is_hex(rest) && rest.len() == 16 => Ok(Self(name)),
            Some(("eui", _)) => Err(NameError::Eui),
            Some(("naa", rest)) if is_hex(rest) && matches!(rest.len(), 16 | 32) => Ok(Self(name)),
            Some(("naa", _)) => Err(NameError::Naa),
            _ => Err(NameError::Prefix),
        }
    }

    /// The name as it goes on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name_character(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
        || c.is_ascii_alphanumeric()
        || matches!(c, '-' | '.' | ':' | '_')
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `YYYY-MM.` and at least one more character.
fn is_dated_authority(text: &str) -> bool {
    let Some((date, authority)) = text.split_once('.') else {
        return false;
    };
    let Some((year, month)) = date.split_once('-') else {
        return false;
    };
    let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
    digits(year, 4) && digits(month, 2) && !authority.is_empty() && !authority.starts_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_three_formats_of_the_rfc() {
        for name in [
            "iqn.2001-04.com.example",
            "iqn.2001-04.com.example:storage.disk2.sys1.xyz",
            "eui.02004567a425678d",
            "naa.52004567ba64678d",
            "naa.62004567ba64678d0123456789abcdef",
        ] {
            assert_eq!(IscsiName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn lower_cases_what_a_person_typed() {
        assert_eq!(
            IscsiName::parse("IQN.2001-04.com.Example:A")
                .unwrap()
                .as_str(),
            "iqn.2001-04.com.example:a"
        );
    }

    #[test]
    fn refuses_each_malformed_name_with_its_reason() {
        for (name, reason) in [
            ("", NameError::Length),
            ("target", NameError::Prefix),
            ("iqn", NameError::Prefix),
            ("iqn.", NameError::Iqn),
            ("iqn.2001.com", NameError::Iqn),
            ("iqn.2001-04.", NameError::Iqn),
            ("eui.02004567a42567", NameError::Eui),
            ("naa.5200", NameError::Naa),
            ("iqn.2001-04.com.example disk", NameError::Character),
            ("iqn.2001-04.com.example=x", NameError::Character),
            ("iqn.2001-04.com.example\0x", NameError::Character),
        ] {
            assert_eq!(IscsiName::parse(name), Err(reason), "{name:?}");
        }
    }

    #[test]
    fn the_longest_name_has_223_bytes() {
        let longest = alloc::format!("iqn.2001-04.com.example:{}", "x".repeat(223 - 24));
        assert!(IscsiName::parse(&longest).is_ok());
        assert_eq!(
            IscsiName::parse(&alloc::format!("{longest}x")),
            Err(NameError::Length)
        );
    }
}
