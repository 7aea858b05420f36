//! The answer to GET_ID: 20 bytes by which the guest knows the disk, as `/dev/disk/by-id` shows.

use iscsi_core::disk::facts::LunFacts;
use sha2::{Digest, Sha256};

use crate::config::Serial;

/// VIRTIO_BLK_ID_BYTES.
pub const DEVICE_ID_BYTES: usize = 20;

/// How much of a serial that is too long is kept; the rest gives way to a hash of all of it.
const KEPT_BYTES: usize = 11;

/// The serial that the operator chose, else the LUN's own (VPD page 80h), else the name that its
/// designators give it. Padded with zeros.
pub fn device_id(facts: &LunFacts, chosen: Option<&Serial>) -> [u8; DEVICE_ID_BYTES] {
    match chosen {
        Some(serial) => shortened(serial.as_bytes()),
        None if !facts.identity.serial.is_empty() => shortened(&facts.identity.serial),
        None if facts.identity.is_anonymous() => [0; DEVICE_ID_BYTES],
        None => shortened(facts.identity.to_string().as_bytes()),
    }
}

/// Serials that differ anywhere stay different: what is too long ends in eight digits of a hash.
fn shortened(serial: &[u8]) -> [u8; DEVICE_ID_BYTES] {
    let mut id = [0; DEVICE_ID_BYTES];
    if serial.len() <= DEVICE_ID_BYTES {
        id.iter_mut().zip(serial).for_each(|(to, from)| *to = *from);
        return id;
    }
    let digest = Sha256::digest(serial);
    let hash: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let start = serial.iter().take(KEPT_BYTES).copied();
    let whole = start.chain([b'-']).chain(hash.bytes());
    id.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_bytes_are_kept_and_more_are_shortened() {
        assert_eq!(shortened(b"abc")[..4], *b"abc\0");
        assert_eq!(shortened(b"01234567890123456789"), *b"01234567890123456789");
        let long = shortened(b"012345678901234567890");
        assert_eq!(long[..12], *b"01234567890-");
        assert!(long[12..].iter().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn long_serials_that_differ_at_the_end_stay_different() {
        assert_ne!(
            shortened(b"6001405aaaaaaaaaaaaaaaaaaaaaaaa1"),
            shortened(b"6001405aaaaaaaaaaaaaaaaaaaaaaaa2")
        );
    }
}
