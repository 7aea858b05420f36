//! Lists of `key=value` pairs, each ended by a NUL byte (RFC 7143 sections 6.1 and 6.2).

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;

/// The longest key (RFC 7143 section 6.1).
pub const MAX_KEY_LENGTH_BYTES: usize = 63;

/// The longest value. The RFC's greatest is a large binary value of 1,024 bytes, 2,050 characters
/// in hexadecimal; the rest is room for what vendors do.
pub const MAX_VALUE_LENGTH_BYTES: usize = 8192;

/// The longest list that is put together from PDUs with the C bit. RFC 7143 section 6.2 asks for
/// 8,192 bytes at least, and for 64 KiB where authentication methods need it.
pub const MAX_LIST_LENGTH_BYTES: usize = 64 * 1024;

/// The most pairs in one list: five times as many as there are keys in RFC 7143.
pub const MAX_PAIRS: usize = 256;

/// The one key that may come more than once in a list (RFC 7143 section 6.3).
const REPEATABLE_KEY: &str = "TargetAddress";

/// A list that RFC 7143 does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// No NUL byte after the last pair.
    #[error("the last key=value pair is not ended by a NUL byte")]
    Unterminated,
    /// Not UTF-8.
    #[error("a key=value pair is not UTF-8")]
    NotUtf8,
    /// No `=`.
    #[error("{:?} has no '='", shortened(.0))]
    NoEqualsSign(String),
    /// An empty key, one above [`MAX_KEY_LENGTH_BYTES`], or with bytes that a key cannot have.
    #[error("{:?} is not a key of 1 to {MAX_KEY_LENGTH_BYTES} printable characters", shortened(.0))]
    BadKey(String),
    /// A value above [`MAX_VALUE_LENGTH_BYTES`].
    #[error("the value of {0} has more than {MAX_VALUE_LENGTH_BYTES} bytes")]
    ValueTooLong(String),
    /// A key twice in one list.
    #[error("the key {0} came twice")]
    Duplicate(String),
    /// More than [`MAX_PAIRS`].
    #[error("more than {MAX_PAIRS} key=value pairs in one list")]
    TooManyPairs,
    /// More than [`MAX_LIST_LENGTH_BYTES`].
    #[error("more than {MAX_LIST_LENGTH_BYTES} bytes of key=value pairs in one list")]
    ListTooLong,
}

/// A key and its value, as they came: the value is anyone's text, escape it before showing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub value: &'a str,
}

impl<'a> Pair<'a> {
    /// Splits one pair, without its NUL byte, at the first `=`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TextError> {
        let text = core::str::from_utf8(bytes).map_err(|_| TextError::NotUtf8)?;
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| TextError::NoEqualsSign(shortened(text).into()))?;
        if !is_key(key) {
            return Err(TextError::BadKey(shortened(key).into()));
        }
        if value.len() > MAX_VALUE_LENGTH_BYTES {
            return Err(TextError::ValueTooLong(key.into()));
        }
        Ok(Self { key, value })
    }
}

/// Takes a whole list apart.
///
/// Empty pairs are skipped: there are targets that count padding as text.
pub fn parse_list(list: &[u8]) -> Result<Vec<Pair<'_>>, TextError> {
    if list.len() > MAX_LIST_LENGTH_BYTES {
        return Err(TextError::ListTooLong);
    }
    let Some(pairs) = without_last_nul(list)? else {
        return Ok(Vec::new());
    };
    let mut parsed: Vec<Pair<'_>> = Vec::new();
    for bytes in pairs
        .split(|byte| *byte == 0)
        .filter(|bytes| !bytes.is_empty())
    {
        let pair = Pair::parse(bytes)?;
        check_place(&parsed, pair)?;
        parsed.push(pair);
    }
    Ok(parsed)
}

fn without_last_nul(list: &[u8]) -> Result<Option<&[u8]>, TextError> {
    match list.split_last() {
        None => Ok(None),
        Some((0, pairs)) => Ok(Some(pairs)),
        Some(_) => Err(TextError::Unterminated),
    }
}

fn check_place(parsed: &[Pair<'_>], pair: Pair<'_>) -> Result<(), TextError> {
    if parsed.len() >= MAX_PAIRS {
        return Err(TextError::TooManyPairs);
    }
    if pair.key != REPEATABLE_KEY && parsed.iter().any(|earlier| earlier.key == pair.key) {
        return Err(TextError::Duplicate(pair.key.into()));
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY_LENGTH_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
}

/// The start of a text that a peer sent, short enough for a message.
pub(crate) fn shortened(text: &str) -> &str {
    const MAX_SHOWN_CHARACTERS: usize = 80;
    match text.char_indices().nth(MAX_SHOWN_CHARACTERS) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// A numerical value: decimal, or hexadecimal after `0x` (RFC 7143 section 6.1,
/// regular-numerical-value). `None` when it is neither, or does not fit 64 bits.
pub fn parse_number(value: &str) -> Option<u64> {
    let (digits, radix) = match hexadecimal_digits(value) {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    // `from_str_radix` would also take a sign.
    let only_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    only_digits
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}

/// A binary value of at most `max_length_bytes`: hexadecimal after `0x`, or base64 after `0b`
/// (RFC 7143 section 6.1, large-binary-value). `None` when it is neither, empty, or longer.
pub fn parse_binary(value: &str, max_length_bytes: usize) -> Option<Vec<u8>> {
    let bytes = match hexadecimal_digits(value) {
        Some(digits) => decode_hexadecimal(digits, max_length_bytes)?,
        None => decode_base64(value, max_length_bytes)?,
    };
    (1..=max_length_bytes)
        .contains(&bytes.len())
        .then_some(bytes)
}

/// `bytes` in hexadecimal after `0x`.
pub fn format_hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
    ['0', 'x'].into_iter().chain(digits).collect()
}

fn hexadecimal_digits(value: &str) -> Option<&str> {
    value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
}

/// An odd number of digits lacks a leading zero.
fn decode_hexadecimal(digits: &str, max_length_bytes: usize) -> Option<Vec<u8>> {
    if digits.len().div_ceil(2) > max_length_bytes {
        return None;
    }
    let nibble = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let (first, pairs) = digits.as_bytes().split_at(digits.len() % 2);
    let first = first.iter().map(|digit| nibble(*digit));
    let rest = pairs.chunks_exact(2).map(|pair| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    });
    first.chain(rest).collect()
}

/// Padding is not insisted on: it carries nothing.
fn decode_base64(value: &str, max_length_bytes: usize) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let digits = value
        .strip_prefix("0b")
        .or_else(|| value.strip_prefix("0B"))?;
    if digits.len() > max_length_bytes.div_ceil(3) * 4 {
        return None;
    }
    ENGINE.decode(digits).ok()
}

/// A list that is built to be sent.
#[derive(Debug, Default)]
pub(crate) struct TextList(Vec<u8>);

impl TextList {
    /// Adds a pair. Neither part has a NUL byte: our own settings are checked, and what is copied
    /// from a peer has been split at its NUL bytes.
    pub(crate) fn push(&mut self, key: &str, value: &str) {
        debug_assert!(!key.contains('\0') && !value.contains('\0'));
        for part in [key, "=", value, "\0"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// Moves all pairs of `other` to the end.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// Whether there is something left to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next data segment; what remains wants the C bit on that PDU.
    pub(crate) fn next_segment(&mut self, max_length_bytes: usize) -> Vec<u8> {
        let rest = self.0.split_off(self.0.len().min(max_length_bytes));
        mem::replace(&mut self.0, rest)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_is_split_at_nul_and_at_the_first_equals_sign() {
        let pairs = parse_list(b"A=1\0Name=x=y\0Empty=\0").unwrap();
        let expected = [("A", "1"), ("Name", "x=y"), ("Empty", "")];
        assert_eq!(
            pairs.iter().map(|p| (p.key, p.value)).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn padding_counted_as_text_is_skipped() {
        assert_eq!(parse_list(b"A=1\0\0\0").unwrap().len(), 1);
        assert!(parse_list(b"\0").unwrap().is_empty());
        assert!(parse_list(b"").unwrap().is_empty());
    }

    #[test]
    fn refuses_each_malformed_list_with_its_reason() {
        for (list, reason) in [
            (&b"A=1"[..], TextError::Unterminated),
            (b"A\xff=1\0", TextError::NotUtf8),
            (b"nothing\0", TextError::NoEqualsSign("nothing".into())),
            (b"=1\0", TextError::BadKey("".into())),
            (b"A B=1\0", TextError::BadKey("A B".into())),
            (b"A=1\0B=2\0A=1\0", TextError::Duplicate("A".into())),
        ] {
            assert_eq!(parse_list(list), Err(reason));
        }
    }

    #[test]
    fn target_address_may_be_repeated() {
        assert_eq!(
            parse_list(b"TargetAddress=a\0TargetAddress=b\0")
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn a_key_has_63_bytes_at_most() {
        assert!(parse_list(format!("{}=1\0", "K".repeat(63)).as_bytes()).is_ok());
        assert!(parse_list(format!("{}=1\0", "K".repeat(64)).as_bytes()).is_err());
    }

    #[test]
    fn a_value_has_8192_bytes_at_most() {
        assert!(parse_list(format!("K={}\0", "v".repeat(8192)).as_bytes()).is_ok());
        assert_eq!(
            parse_list(format!("K={}\0", "v".repeat(8193)).as_bytes()),
            Err(TextError::ValueTooLong("K".into()))
        );
    }

    #[test]
    fn a_list_has_256_pairs_at_most() {
        let list = |n: usize| (0..n).map(|i| format!("K{i}=1\0")).collect::<String>();
        assert_eq!(parse_list(list(256).as_bytes()).unwrap().len(), 256);
        assert_eq!(
            parse_list(list(257).as_bytes()),
            Err(TextError::TooManyPairs)
        );
    }

    #[test]
    fn a_list_has_64_kib_at_most() {
        assert!(parse_list(&vec![0; MAX_LIST_LENGTH_BYTES]).is_ok());
        assert_eq!(
            parse_list(&vec![0; MAX_LIST_LENGTH_BYTES + 1]),
            Err(TextError::ListTooLong)
        );
    }

    #[test]
    fn an_error_shows_only_the_start_of_what_came() {
        let error = parse_list(format!("{}\0", "x".repeat(8000)).as_bytes()).unwrap_err();
        assert!(error.to_string().len() < 120);
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal_and_fit_64_bits() {
        for (value, number) in [
            ("0", Some(0)),
            ("65536", Some(65536)),
            ("0x10", Some(16)),
            ("0XfF", Some(255)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0x10000000000000000", None),
            ("", None),
            ("0x", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("ff", None),
            ("0bAA==", None),
        ] {
            assert_eq!(parse_number(value), number, "{value:?}");
        }
    }

    #[test]
    fn binary_values_are_hexadecimal_or_base64() {
        for (value, bytes) in [
            ("0x00fF", Some(vec![0, 0xff])),
            ("0xf00", Some(vec![0x0f, 0x00])),
            ("0bAP8=", Some(vec![0, 0xff])),
            ("0bAP8", Some(vec![0, 0xff])),
            ("0x", None),
            ("0b", None),
            ("0xgg", None),
            ("0x+1", None),
            ("0b*", None),
            ("255", None),
            ("", None),
        ] {
            assert_eq!(parse_binary(value, 4), bytes, "{value:?}");
        }
    }

    #[test]
    fn binary_values_have_a_greatest_length_in_both_encodings() {
        assert_eq!(parse_binary("0x01020304", 4).map(|b| b.len()), Some(4));
        assert_eq!(parse_binary("0x0102030405", 4), None);
        assert_eq!(parse_binary("0bAQIDBA==", 4).map(|b| b.len()), Some(4));
        assert_eq!(parse_binary("0bAQIDBAU=", 4), None);
    }

    #[test]
    fn a_long_list_is_cut_into_segments_that_add_up() {
        let mut list = TextList::default();
        list.push("Key", "value");
        assert_eq!(list.next_segment(4), b"Key=");
        assert!(!list.is_empty());
        assert_eq!(list.next_segment(100), b"value\0");
        assert!(list.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(list in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse_list(&list);
        }

        #[test]
        fn binary_values_come_back_as_they_went(
            bytes in proptest::collection::vec(any::<u8>(), 1..64)
        ) {
            prop_assert_eq!(parse_binary(&format_hexadecimal(&bytes), 64), Some(bytes));
        }

        #[test]
        fn no_text_makes_the_value_parsers_panic(value in "0?[xb]?\\PC{0,40}") {
            let _ = (parse_number(&value), parse_binary(&value, 16));
        }
    }
}
