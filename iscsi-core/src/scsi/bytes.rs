//! Big-endian fields of parameter data, which may end anywhere.

/// The byte at `offset`, if it arrived.
pub(crate) fn byte_at(data: &[u8], offset: usize) -> Option<u8> {
    data.get(offset).copied()
}

/// The two-byte field at `offset`, if all of it arrived.
pub(super) fn be16_at(data: &[u8], offset: usize) -> Option<u16> {
    array_at(data, offset).map(u16::from_be_bytes)
}

/// The four-byte field at `offset`, if all of it arrived.
pub(crate) fn be32_at(data: &[u8], offset: usize) -> Option<u32> {
    array_at(data, offset).map(u32::from_be_bytes)
}

/// The eight-byte field at `offset`, if all of it arrived.
pub(crate) fn be64_at(data: &[u8], offset: usize) -> Option<u64> {
    array_at(data, offset).map(u64::from_be_bytes)
}

/// `length` bytes from `offset`, or as many of them as arrived.
pub(super) fn at_most(data: &[u8], offset: usize, length: usize) -> &[u8] {
    let rest = data.get(offset..).unwrap_or_default();
    rest.get(..length).unwrap_or(rest)
}

/// `text` without the blanks and NULs on both sides (targets pad left, right, or with NULs).
pub(crate) fn trim_padding(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | 0);
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

fn array_at<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    let end = offset.checked_add(N)?;
    data.get(offset..end)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_cut_short_did_not_arrive() {
        let data = [0x01, 0x02, 0x03, 0x04];
        assert_eq!(be16_at(&data, 2), Some(0x0304));
        assert_eq!(be16_at(&data, 3), None);
        assert_eq!(be32_at(&data, 0), Some(0x0102_0304));
        assert_eq!(be32_at(&data, 1), None);
        assert_eq!(be64_at(&data, 0), None);
        assert_eq!(byte_at(&data, 4), None);
        assert_eq!(be32_at(&data, usize::MAX), None);
    }

    #[test]
    fn at_most_gives_what_is_there() {
        assert_eq!(at_most(b"abcdef", 2, 3), b"cde");
        assert_eq!(at_most(b"abcdef", 4, 3), b"ef");
        assert_eq!(at_most(b"abcdef", 7, 3), b"");
    }

    #[test]
    fn padding_is_trimmed_on_both_sides_and_kept_inside() {
        assert_eq!(trim_padding(b"      beaf 11\0 \0"), b"beaf 11");
        assert_eq!(trim_padding(b" \0 "), b"");
        assert_eq!(trim_padding(b""), b"");
    }
}
