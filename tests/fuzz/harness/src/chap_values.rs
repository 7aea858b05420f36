//! Values of text keys alone: binary ones in both notations, numbers, names, addresses, lists.

use iscsi_core::login::address::TargetAddress;
use iscsi_core::name::IscsiName;
use iscsi_core::text::{
    MAX_PAIRS, MAX_VALUE_LENGTH_BYTES, format_hexadecimal, parse_binary, parse_list, parse_number,
};

use crate::Input;

/// The first byte says what the rest is taken for.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let kind = input.byte();
    let max_length = usize::from(input.word() & 0x7ff);
    let rest = input.rest();
    if kind & 3 == 3 {
        return list(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else {
        return 0;
    };
    match kind & 3 {
        0 => binary(text, max_length),
        1 => number(text),
        _ => name(text) + address(text),
    }
}

fn binary(text: &str, max_length: usize) -> u64 {
    let found = parse_binary(text, max_length);
    let expected = plain_binary(text).filter(|bytes| (1..=max_length).contains(&bytes.len()));
    let Some(bytes) = found else {
        // Base64 that our decoder takes and the crate's does not: unused bits that are not 0.
        assert!(expected.is_none() || !is_hexadecimal(text), "{text}");
        return 0;
    };
    assert_eq!(Some(&bytes), expected.as_ref(), "{text}");
    assert_eq!(
        parse_binary(&format_hexadecimal(&bytes), max_length),
        Some(bytes)
    );
    1
}

fn is_hexadecimal(text: &str) -> bool {
    text.starts_with("0x") || text.starts_with("0X")
}

/// As slow and simple as can be.
fn plain_binary(text: &str) -> Option<Vec<u8>> {
    let (notation, digits) = text.split_at_checked(2)?;
    match notation {
        "0x" | "0X" => {
            let padded = format!("{}{digits}", if digits.len() % 2 == 1 { "0" } else { "" });
            let pairs = padded.as_bytes().chunks(2).map(|pair| {
                let [high, low] =
                    [*pair.first()?, *pair.get(1)?].map(|d| char::from(d).to_digit(16));
                u8::try_from(high? << 4 | low?).ok()
            });
            pairs.collect()
        }
        "0b" | "0B" => plain_base64(digits.trim_end_matches('=')),
        _ => None,
    }
}

fn plain_base64(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).expect("8 bits"));
        }
    }
    Some(bytes)
}

fn number(text: &str) -> u64 {
    let found = parse_number(text);
    let expected = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let is_signed = text.contains(['+', '-']);
    assert_eq!(found, expected.filter(|_| !is_signed), "{text}");
    u64::from(found.is_some())
}

fn name(text: &str) -> u64 {
    let Ok(name) = IscsiName::parse(text) else {
        return 0;
    };
    assert!(name.as_str().len() <= 223);
    assert!(
        !name
            .as_str()
            .contains(|c: char| c.is_control() || c.is_whitespace())
    );
    assert_eq!(IscsiName::parse(name.as_str()), Ok(name));
    1
}

fn address(text: &str) -> u64 {
    let Ok(address) = TargetAddress::parse(text) else {
        return 0;
    };
    assert!(address.port != 0 && !address.host.is_empty());
    assert_eq!(TargetAddress::parse(&address.to_string()), Ok(address));
    1
}

fn list(bytes: &[u8]) -> u64 {
    let Ok(pairs) = parse_list(bytes) else {
        return 0;
    };
    assert!(pairs.len() <= MAX_PAIRS);
    for pair in &pairs {
        assert!(!pair.key.is_empty() && !pair.key.contains('='));
        assert!(pair.value.len() <= MAX_VALUE_LENGTH_BYTES);
        let same = pairs.iter().filter(|other| other.key == pair.key);
        assert!(same.count() == 1 || pair.key == "TargetAddress");
    }
    pairs.len() as u64
}
