//! Which disk a guest has, as bytes for whoever serves it next.
//!
//! A process that replaces a killed one must not carry out the former one's requests on another
//! disk. So what the guest was told stands beside them: who the disk is, and how large.
//!
//! The bytes come back through the front-end, a stranger: a checksum tells damage, and every length
//! is checked.

use alloc::vec::Vec;
use core::fmt;

use super::facts::{Designator, Identity, LunFacts};
use crate::crc32c::Crc32c;
use crate::scsi::bytes::{be32_at, be64_at, byte_at};

/// The longest record. A disk with more names than fit is known by the most trustworthy of them.
pub const MAX_RECORD_BYTES: usize = 2048;

// CRC32C of the rest, length of the rest, capacity, block length, length of the serial.
const CRC: usize = 0;
const LENGTH: usize = 4;
const CAPACITY: usize = 8;
const BLOCK_LENGTH: usize = 16;
const SERIAL_LENGTH: usize = 20;
const SERIAL: usize = 21;
// Of a designator: code set, kind, length of the value.
const DESIGNATOR_HEADER_BYTES: usize = 3;

/// What must not change about a disk while a guest has it, but for a larger size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRecord {
    /// Who it is.
    pub identity: Identity,
    /// How many logical blocks the guest was told of.
    pub capacity_blocks: u64,
}

impl DiskRecord {
    /// What a probe has found.
    pub fn of(facts: &LunFacts) -> Self {
        Self {
            identity: facts.identity.clone(),
            capacity_blocks: facts.capacity_blocks,
        }
    }

    /// Whether `found` is this disk.
    ///
    /// A name decides, whatever the size: a disk that has shrunk is still the one where the rest of
    /// the guest's data is, and to refuse it would keep the guest waiting for ever. Of a disk without
    /// a name the size is all there is to know it by, so one that is smaller is taken for another.
    pub fn accepts(&self, found: &Self) -> bool {
        let is_known_by_name = !self.identity.is_anonymous();
        self.identity.same_disk(&found.identity)
            && (is_known_by_name || found.capacity_blocks >= self.capacity_blocks)
    }

    /// The same disk for a guest that knows of at least `capacity_blocks`.
    #[must_use]
    pub fn with_at_least(self, capacity_blocks: u64) -> Self {
        Self {
            capacity_blocks: self.capacity_blocks.max(capacity_blocks),
            ..self
        }
    }

    /// The record as bytes, at most [`MAX_RECORD_BYTES`].
    pub fn encode(&self, crc32c: Crc32c) -> Vec<u8> {
        let Identity {
            serial,
            block_length_bytes,
            ..
        } = &self.identity;
        let mut bytes = alloc::vec![0; CAPACITY];
        bytes.extend(self.capacity_blocks.to_be_bytes());
        bytes.extend(block_length_bytes.to_be_bytes());
        push_short(&mut bytes, serial);
        for designator in self.identity.by_trust() {
            let length_bytes = DESIGNATOR_HEADER_BYTES + designator.value.len();
            if bytes.len() + length_bytes <= MAX_RECORD_BYTES {
                bytes.extend([designator.code_set, designator.kind]);
                push_short(&mut bytes, &designator.value);
            }
        }
        let rest = bytes.get(CAPACITY..).unwrap_or_default();
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        // The length is under the checksum, too.
        let crc = crc32c(crc32c(0, &length.to_be_bytes()), rest);
        let head = crc.to_be_bytes().into_iter().chain(length.to_be_bytes());
        for (place, byte) in bytes.iter_mut().zip(head) {
            *place = byte;
        }
        bytes
    }

    /// The record at the beginning of `bytes`; `None` when it is damaged.
    pub fn decode(bytes: &[u8], crc32c: Crc32c) -> Option<Self> {
        let length = be32_at(bytes, LENGTH)?;
        let end = CAPACITY.checked_add(usize::try_from(length).ok()?)?;
        let record = bytes.get(..end).filter(|_| end <= MAX_RECORD_BYTES)?;
        let rest = record.get(CAPACITY..)?;
        let crc = crc32c(crc32c(0, &length.to_be_bytes()), rest);
        if be32_at(record, CRC)? != crc {
            return None;
        }
        let serial_length = usize::from(byte_at(record, SERIAL_LENGTH)?);
        let serial_end = SERIAL + serial_length;
        Some(Self {
            identity: Identity {
                designators: decode_designators(record.get(serial_end..)?)?,
                serial: record.get(SERIAL..serial_end)?.to_vec(),
                block_length_bytes: be32_at(record, BLOCK_LENGTH)?,
            },
            capacity_blocks: be64_at(record, CAPACITY)?,
        })
    }
}

/// Values of VPD pages have at most 255 bytes; a longer one is cut.
fn push_short(bytes: &mut Vec<u8>, value: &[u8]) {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    bytes.push(length);
    bytes.extend(value.iter().take(length.into()));
}

fn decode_designators(mut bytes: &[u8]) -> Option<Vec<Designator>> {
    let mut designators = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at_checked(DESIGNATOR_HEADER_BYTES)?;
        let &[code_set, kind, length] = header else {
            return None;
        };
        let (value, rest) = rest.split_at_checked(length.into())?;
        designators.push(Designator {
            code_set,
            kind,
            value: value.to_vec(),
        });
        bytes = rest;
    }
    Some(designators)
}

impl fmt::Display for DiskRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            block_length_bytes, ..
        } = self.identity;
        write!(
            f,
            "{} with {} blocks of {block_length_bytes} bytes",
            self.identity, self.capacity_blocks
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Not CRC32C, but as good for telling one byte from another.
    fn sum(crc: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(crc, |sum, byte| {
            sum.rotate_left(5).wrapping_mul(31) ^ u32::from(*byte)
        })
    }

    fn record(names: &[(u8, &[u8])]) -> DiskRecord {
        let designator = |&(kind, value): &(u8, &[u8])| Designator {
            code_set: 1,
            kind,
            value: value.to_vec(),
        };
        DiskRecord {
            identity: Identity {
                designators: names.iter().map(designator).collect(),
                serial: b"beaf11".to_vec(),
                block_length_bytes: 512,
            },
            capacity_blocks: 0x1_0000_0001,
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        for record in [
            record(&[]),
            record(&[(3, b"\x60\x01"), (1, b"IET 00010001")]),
        ] {
            let bytes = record.encode(sum);
            let mut room = bytes.clone();
            room.extend([0xff; 100]);
            assert_eq!(DiskRecord::decode(&room, sum), Some(record));
        }
    }

    #[test]
    fn a_disk_with_too_many_names_is_known_by_the_most_trustworthy() {
        let long = [7; 255];
        let mut names: Vec<(u8, &[u8])> = alloc::vec![(1, &long[..]); 20];
        names.push((3, b"\x60\x01"));
        let record = record(&names);
        let bytes = record.encode(sum);
        assert!(bytes.len() <= MAX_RECORD_BYTES);
        let back = DiskRecord::decode(&bytes, sum).unwrap();
        assert_eq!(back.identity.designators[0].kind, 3);
        assert!(record.accepts(&back) && back.accepts(&record));
    }

    #[test]
    fn a_disk_with_a_name_is_accepted_whatever_its_size_and_another_is_not() {
        let disk = record(&[(3, b"\x60\x01")]);
        assert!(disk.accepts(&disk));
        assert!(disk.accepts(&resized(&disk, 1)));
        assert!(disk.accepts(&resized(&disk, -1)));
        assert!(!disk.accepts(&record(&[(3, b"\x60\x02")])));
    }

    #[test]
    fn a_disk_without_a_name_is_accepted_unless_it_is_smaller() {
        let mut disk = record(&[]);
        disk.identity.serial.clear();
        assert!(disk.accepts(&disk));
        assert!(disk.accepts(&resized(&disk, 1)));
        assert!(!disk.accepts(&resized(&disk, -1)));
    }

    #[test]
    fn what_a_guest_was_told_never_gets_less() {
        let disk = record(&[]);
        let blocks = disk.capacity_blocks;
        assert_eq!(disk.clone().with_at_least(blocks - 1), disk);
        let grown = disk.clone().with_at_least(blocks + 1);
        assert_eq!(grown, resized(&disk, 1));
    }

    fn resized(disk: &DiskRecord, by_blocks: i64) -> DiskRecord {
        DiskRecord {
            capacity_blocks: disk.capacity_blocks.wrapping_add_signed(by_blocks),
            ..disk.clone()
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let bytes = record(&[(3, b"\x60\x01")]).encode(sum);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(DiskRecord::decode(&damaged, sum), None, "byte {at}");
        }
        for length in 0..bytes.len() {
            assert_eq!(DiskRecord::decode(&bytes[..length], sum), None);
        }
    }

    proptest! {
        #[test]
        fn survives_any_bytes_under_a_right_checksum(
            mut bytes in proptest::collection::vec(any::<u8>(), CAPACITY..300),
        ) {
            let length = u32::try_from(bytes.len() - CAPACITY).unwrap();
            let crc = sum(sum(0, &length.to_be_bytes()), &bytes[CAPACITY..]);
            bytes[..4].copy_from_slice(&crc.to_be_bytes());
            bytes[4..8].copy_from_slice(&length.to_be_bytes());
            if let Some(record) = DiskRecord::decode(&bytes, sum) {
                let again = DiskRecord::decode(&record.encode(sum), sum).unwrap();
                prop_assert_eq!(again.capacity_blocks, record.capacity_blocks);
                prop_assert_eq!(again.identity.serial, record.identity.serial);
            }
        }
    }
}
