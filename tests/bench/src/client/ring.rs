//! The driver's side of a split virtqueue (virtio 1.3, section 2.7), made once, never allocating.
//!
//! Every slot is one request and has descriptors of its own for good, so a request costs a few
//! stores: its header, the direction of its data, and its place in the available ring.

use std::sync::atomic::{Ordering, fence};

use vhost::VringConfigData;
use vhost_user_iscsi_tests::frontend::ring::passes_event;

use super::memory::Memory;
use super::{F_EVENT_IDX, F_INDIRECT_DESC};

const DESCRIPTOR_BYTES: usize = 16;
const USED_ELEMENT_BYTES: usize = 8;
/// Flags and index before the entries of the available and the used ring.
const RING_HEADER_BYTES: usize = 4;
/// Header, data, status.
const CHAIN_DESCRIPTORS: u16 = 3;
/// The least that QEMU gives a disk unless it is told otherwise.
const LEAST_SIZE: u16 = 128;
const LINE_BYTES: usize = 64;
/// What a slot needs beside its data: a line for header and status, one for an indirect table.
/// They lie one after the other for all slots, since data on page boundaries between them would put
/// them all into the same set of the cache.
const SLOT_BYTES: usize = 2 * LINE_BYTES;
const PAGE_BYTES: usize = 4096;

/// VIRTQ_DESC_F_NEXT, _WRITE and _INDIRECT.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY.
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// VIRTIO_BLK_T_IN and _OUT.
const T_IN: u64 = 0;
const T_OUT: u64 = 1;
/// Put into a status byte before the request is made available; no device writes it.
const S_UNTOUCHED: u8 = 0xaa;

const HEADER_BYTES: u32 = 16;

/// The parts of one request in guest memory.
struct Slot {
    header_at: usize,
    status_at: usize,
    /// The descriptor of the data, whose direction changes.
    data_descriptor_at: usize,
    data_flags: u16,
    data_next: u16,
}

/// One virtqueue with as many slots as there may be requests in flight.
pub(super) struct Ring {
    size: u16,
    descriptors_at: usize,
    available_at: usize,
    used_at: usize,
    event_idx: bool,
    /// Descriptors of the table that a slot takes.
    stride: u16,
    slots: Vec<Slot>,
    data_bytes: u32,
    /// The next entry of the available ring, and what the back-end knows of it.
    available_index: u16,
    published_index: u16,
    /// The next entry of the used ring to look at.
    used_index: u16,
}

impl Ring {
    /// Bytes of memory that a ring of these needs at most.
    pub(super) fn memory_bytes(depth: u16, data_bytes: u32) -> usize {
        let slots = usize::from(depth);
        let rings = usize::from(size_for(depth, CHAIN_DESCRIPTORS)) * 32 + 5 * PAGE_BYTES;
        rings + slots * (SLOT_BYTES + (data_bytes as usize).next_multiple_of(PAGE_BYTES))
    }

    /// A ring with `depth` slots of `data_bytes` each.
    pub(super) fn new(memory: &mut Memory, features: u64, depth: u16, data_bytes: u32) -> Self {
        let indirect = features & F_INDIRECT_DESC != 0;
        let stride = if indirect { 1 } else { CHAIN_DESCRIPTORS };
        let size = size_for(depth, stride);
        let entries = usize::from(size);
        let mut ring = Self {
            size,
            descriptors_at: memory.take(entries * DESCRIPTOR_BYTES, PAGE_BYTES),
            available_at: memory.take(RING_HEADER_BYTES + entries * 2 + 2, LINE_BYTES),
            used_at: memory.take(
                RING_HEADER_BYTES + entries * USED_ELEMENT_BYTES + 2,
                PAGE_BYTES,
            ),
            event_idx: features & F_EVENT_IDX != 0,
            stride,
            slots: Vec::with_capacity(usize::from(depth)),
            data_bytes,
            available_index: 0,
            published_index: 0,
            used_index: 0,
        };
        let small_at = memory.take(usize::from(depth) * SLOT_BYTES, LINE_BYTES);
        for slot in 0..depth {
            let header_at = small_at + usize::from(slot) * SLOT_BYTES;
            let slot = ring.make_slot(memory, slot, header_at, indirect);
            ring.slots.push(slot);
        }
        ring
    }

    /// Lays out one slot: everything of its chain that stays as it is.
    fn make_slot(&self, memory: &mut Memory, slot: u16, header_at: usize, indirect: bool) -> Slot {
        let chain_bytes = usize::from(CHAIN_DESCRIPTORS) * DESCRIPTOR_BYTES;
        let data_at = memory.take(self.data_bytes as usize, PAGE_BYTES);
        memory.touch(data_at, self.data_bytes as usize, u64::MAX);
        // As Linux has it: header and status of a request lie together.
        let status_at = header_at + HEADER_BYTES as usize;
        let head = slot * self.stride;
        let head_at = self.descriptors_at + usize::from(head) * DESCRIPTOR_BYTES;
        let (chain_at, first) = if indirect {
            let table_at = header_at + LINE_BYTES;
            let length = u32::try_from(chain_bytes).expect("48");
            describe(memory, head_at, table_at, length, INDIRECT, 0);
            (table_at, 0)
        } else {
            (head_at, head)
        };
        describe(memory, chain_at, header_at, HEADER_BYTES, NEXT, first + 1);
        let data_descriptor_at = chain_at + DESCRIPTOR_BYTES;
        describe(
            memory,
            data_descriptor_at,
            data_at,
            self.data_bytes,
            NEXT,
            first + 2,
        );
        let status_descriptor_at = data_descriptor_at + DESCRIPTOR_BYTES;
        describe(memory, status_descriptor_at, status_at, 1, WRITE, 0);
        Slot {
            header_at,
            status_at,
            data_descriptor_at,
            data_flags: NEXT,
            data_next: first + 2,
        }
    }

    /// Number of descriptors.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Where the three parts are, for SET_VRING_ADDR.
    pub(super) fn addresses(&self, memory: &Memory) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: memory.user_address(self.descriptors_at),
            used_ring_addr: memory.user_address(self.used_at),
            avail_ring_addr: memory.user_address(self.available_at),
            log_addr: None,
        }
    }

    /// Puts a request into the available ring; [`Ring::publish`] shows it to the back-end.
    pub(super) fn submit(&mut self, memory: &Memory, slot: u16, write: bool, sector: u64) {
        let parts = &self.slots[usize::from(slot)];
        let kind = if write { T_OUT } else { T_IN };
        memory
            .at_u64(parts.header_at)
            .store(kind.to_le(), Ordering::Relaxed);
        memory
            .at_u64(parts.header_at + 8)
            .store(sector.to_le(), Ordering::Relaxed);
        memory
            .at_u8(parts.status_at)
            .store(S_UNTOUCHED, Ordering::Relaxed);
        let direction = if write { 0 } else { WRITE };
        let tail = tail_word(
            self.data_bytes,
            parts.data_flags | direction,
            parts.data_next,
        );
        memory
            .at_u64(parts.data_descriptor_at + 8)
            .store(tail, Ordering::Relaxed);
        let place = usize::from(self.available_index % self.size);
        let head = slot * self.stride;
        let entry = self.available_at + RING_HEADER_BYTES + 2 * place;
        memory.at_u16(entry).store(head.to_le(), Ordering::Relaxed);
        self.available_index = self.available_index.wrapping_add(1);
    }

    /// Shows the back-end all that was submitted; true when it wants a kick for it.
    pub(super) fn publish(&mut self, memory: &Memory) -> bool {
        let before = self.published_index;
        if self.available_index == before {
            return false;
        }
        self.published_index = self.available_index;
        memory
            .at_u16(self.available_at + 2)
            .store(self.available_index.to_le(), Ordering::Release);
        // The index must be visible before the back-end's wish is read (virtio 1.3, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        if !self.event_idx {
            let flags = u16::from_le(memory.at_u16(self.used_at).load(Ordering::Relaxed));
            return flags & NO_NOTIFY == 0;
        }
        let behind = RING_HEADER_BYTES + usize::from(self.size) * USED_ELEMENT_BYTES;
        let event = u16::from_le(memory.at_u16(self.used_at + behind).load(Ordering::Relaxed));
        passes_event(self.available_index, before, event)
    }

    /// The next head that the back-end has used, if any.
    pub(super) fn pop_used(&mut self, memory: &Memory) -> Option<u32> {
        if !self.has_used(memory) {
            return None;
        }
        let place = usize::from(self.used_index % self.size);
        let entry = self.used_at + RING_HEADER_BYTES + place * USED_ELEMENT_BYTES;
        self.used_index = self.used_index.wrapping_add(1);
        Some(u32::from_le(memory.at_u32(entry).load(Ordering::Relaxed)))
    }

    /// The slot whose chain begins at `head`, if one does.
    pub(super) fn slot_of(&self, head: u32) -> Option<u16> {
        let head = u16::try_from(head).ok()?;
        let slot = head / self.stride;
        (head % self.stride == 0 && usize::from(slot) < self.slots.len()).then_some(slot)
    }

    /// The status byte of a slot.
    pub(super) fn status(&self, memory: &Memory, slot: u16) -> u8 {
        let at = self.slots[usize::from(slot)].status_at;
        memory.at_u8(at).load(Ordering::Relaxed)
    }

    /// The sector of a slot's request.
    pub(super) fn sector(&self, memory: &Memory, slot: u16) -> u64 {
        let at = self.slots[usize::from(slot)].header_at;
        u64::from_le(memory.at_u64(at + 8).load(Ordering::Relaxed))
    }

    /// True when the back-end has used something that was not taken yet.
    fn has_used(&self, memory: &Memory) -> bool {
        u16::from_le(memory.at_u16(self.used_at + 2).load(Ordering::Acquire)) != self.used_index
    }

    /// Says that no notification is wanted while completions are being taken. With EVENT_IDX there
    /// is nothing to do: the event that was asked for has passed.
    pub(super) fn disarm(&self, memory: &Memory) {
        if !self.event_idx {
            memory
                .at_u16(self.available_at)
                .store(NO_INTERRUPT.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks to be notified of the next completion; false when there is one already.
    pub(super) fn arm(&self, memory: &Memory) -> bool {
        if self.event_idx {
            let behind = RING_HEADER_BYTES + usize::from(self.size) * 2;
            let event = memory.at_u16(self.available_at + behind);
            event.store(self.used_index.to_le(), Ordering::Relaxed);
        } else {
            memory.at_u16(self.available_at).store(0, Ordering::Relaxed);
        }
        // The wish must be visible before the ring is looked at once more.
        fence(Ordering::SeqCst);
        !self.has_used(memory)
    }
}

/// The size of a ring that takes `depth` chains of as many descriptors.
fn size_for(depth: u16, stride: u16) -> u16 {
    (depth * stride).next_power_of_two().max(LEAST_SIZE)
}

/// Writes a descriptor.
fn describe(memory: &Memory, at: usize, address: usize, length: u32, flags: u16, next: u16) {
    memory
        .at_u64(at)
        .store((address as u64).to_le(), Ordering::Relaxed);
    memory
        .at_u64(at + 8)
        .store(tail_word(length, flags, next), Ordering::Relaxed);
}

/// Length, flags and next of a descriptor as they lie in memory.
fn tail_word(length: u32, flags: u16, next: u16) -> u64 {
    (u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48).to_le()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_chains_need_three_descriptors_a_slot() {
        assert_eq!((size_for(32, 1), size_for(128, 1)), (128, 128));
        assert_eq!((size_for(32, 3), size_for(128, 3)), (128, 512));
    }

    #[test]
    fn a_kick_is_wanted_until_the_back_end_has_moved_its_event() {
        let mut memory = Memory::new(1 << 20).unwrap();
        let mut ring = Ring::new(&mut memory, F_EVENT_IDX | F_INDIRECT_DESC, 4, 512);
        assert!(!ring.publish(&memory), "nothing was submitted");
        ring.submit(&memory, 0, false, 0);
        assert!(ring.publish(&memory), "the event is at 0, which was passed");
        ring.submit(&memory, 1, false, 8);
        assert!(!ring.publish(&memory), "the event is still at 0");
    }

    #[test]
    fn only_heads_of_slots_are_slots() {
        let mut memory = Memory::new(1 << 20).unwrap();
        let ring = Ring::new(&mut memory, 0, 4, 512);
        assert_eq!(ring.slot_of(9), Some(3));
        assert_eq!(
            (ring.slot_of(1), ring.slot_of(12), ring.slot_of(1 << 16)),
            (None, None, None)
        );
    }
}
