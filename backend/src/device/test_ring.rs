//! A driver's side of a split virtqueue, for tests.

use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use vm_memory::{Bytes, GuestAddress};

use super::rings::RingSetup;
use crate::guest_memory::{GuestMemory, MemoryTable};

pub(crate) const DESC_TABLE: u64 = 0x1_0000;
pub(crate) const AVAIL_RING: u64 = 0x2_0000;
pub(crate) const USED_RING: u64 = 0x3_0000;
/// From here on memory is free for data; it ends at 1 MiB.
pub(crate) const DATA: u64 = 0x4_0000;
pub(crate) const MEMORY_BYTES: usize = 0x10_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) struct TestRing {
    pub(crate) memory: Arc<GuestMemory>,
    size: u16,
    start: u16,
    avail_index: u16,
}

impl TestRing {
    pub(crate) fn new(size: u16) -> Self {
        Self::starting_at(size, 0)
    }

    pub(crate) fn starting_at(size: u16, start: u16) -> Self {
        let ranges = [(GuestAddress(0), MEMORY_BYTES)];
        let memory = Arc::new(GuestMemory::from(
            MemoryTable::from_ranges(&ranges).unwrap(),
        ));
        let ring = Self {
            memory,
            size,
            start,
            avail_index: start,
        };
        ring.put_u16(AVAIL_RING + 2, start);
        ring.put_u16(USED_RING + 2, start);
        ring
    }

    pub(crate) fn setup(&self, features: u64) -> RingSetup {
        RingSetup {
            index: 0,
            size: self.size,
            desc_table: GuestAddress(DESC_TABLE),
            avail_ring: GuestAddress(AVAIL_RING),
            used_ring: GuestAddress(USED_RING),
            next_avail: self.start,
            features,
            memory: Arc::clone(&self.memory),
            kick: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            call: None,
            inflight: None,
        }
    }

    fn put_u16(&self, address: u64, value: u16) {
        self.memory
            .write_obj(value.to_le(), GuestAddress(address))
            .unwrap();
    }

    fn get_u16(&self, address: u64) -> u16 {
        u16::from_le(self.memory.read_obj(GuestAddress(address)).unwrap())
    }

    pub(crate) fn make_available(&mut self, head: u16) {
        self.put_u16(
            AVAIL_RING + 4 + 2 * u64::from(self.avail_index % self.size),
            head,
        );
        self.avail_index = self.avail_index.wrapping_add(1);
        self.put_u16(AVAIL_RING + 2, self.avail_index);
    }

    pub(crate) fn put_descriptor(&self, table: u64, index: u16, fields: (u64, u32, u16, u16)) {
        let (address, length_bytes, flags, next) = fields;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length_bytes.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory
            .write_slice(&bytes, GuestAddress(table + 16 * u64::from(index)))
            .unwrap();
    }

    /// Writes a chain of (address, length, flags without NEXT) from descriptor 0 of a table.
    pub(crate) fn put_chain(&self, table: u64, spans: &[(u64, u32, u16)]) {
        for (index, &(address, length_bytes, flags)) in (0..).zip(spans) {
            let more = usize::from(index) + 1 < spans.len();
            let flags = flags | if more { NEXT } else { 0 };
            self.put_descriptor(table, index, (address, length_bytes, flags, index + 1));
        }
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.get_u16(USED_RING + 2)
    }

    pub(crate) fn used_flags(&self) -> u16 {
        self.get_u16(USED_RING)
    }

    pub(crate) fn avail_event(&self) -> u16 {
        self.get_u16(USED_RING + 4 + 8 * u64::from(self.size))
    }

    pub(crate) fn set_used_event(&self, event: u16) {
        self.put_u16(AVAIL_RING + 4 + 2 * u64::from(self.size), event);
    }

    pub(crate) fn set_avail_flags(&self, flags: u16) {
        self.put_u16(AVAIL_RING, flags);
    }

    /// The used ring's entry for a used index: head and length.
    pub(crate) fn used(&self, index: u16) -> (u32, u32) {
        let entry = USED_RING + 4 + 8 * u64::from(index % self.size);
        let field = |offset| {
            self.memory
                .read_obj::<u32>(GuestAddress(entry + offset))
                .unwrap()
        };
        (u32::from_le(field(0)), u32::from_le(field(4)))
    }
}
