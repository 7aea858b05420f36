//! Big-endian fields in byte slices. Reading beyond the end gives zero: every caller has checked
//! the length of what it reads, or zero is what an absent field means.

/// The byte at `at`.
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut out = [0; N];
    match rest.first_chunk() {
        Some(there) => out = *there,
        None => put(&mut out, 0, rest),
    }
    out
}

/// Two bytes, big-endian.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// Three bytes, big-endian: the width of DataSegmentLength.
pub(crate) fn be24(bytes: &[u8], at: usize) -> u32 {
    be32(bytes, at) >> 8
}

/// Four bytes, big-endian.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// Eight bytes, big-endian.
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

/// Copies `value` to `at`, as much of it as fits.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let room = bytes.get_mut(at..).unwrap_or_default();
    let length = room.len().min(value.len());
    room[..length].copy_from_slice(&value[..length]);
}

/// A length as a 32-bit protocol field; lengths here are bounded far below the limit.
pub(crate) fn len32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// `length` rounded up to the four bytes iSCSI pads to.
pub(crate) const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_zero_beyond_the_end() {
        assert_eq!(be32(&[1, 2], 0), 0x0102_0000);
        assert_eq!(be64(&[], 9), 0);
    }

    #[test]
    fn reads_three_bytes_for_a_data_segment_length() {
        assert_eq!(be24(&[9, 0, 2, 4, 7], 1), 0x0204);
    }
}
