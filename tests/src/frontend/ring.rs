//! A split virtqueue as the driver sees it (virtio 1.3, section 2.7), without any judgement:
//! legal and illegal chains go through here.

use std::sync::Arc;

use vhost::VringConfigData;

use super::error::{Error, Result};
use super::memory::{Block, Memory};
use super::spec::DESC_NEXT;

const DESCRIPTOR_BYTES: u64 = 16;
const USED_ELEMENT_BYTES: u64 = 8;
/// Flags and index before the entries of the available and the used ring.
const RING_HEADER_BYTES: u64 = 4;
/// The event index behind the entries.
const RING_TRAILER_BYTES: u64 = 2;
/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;

/// What the `next` field of a descriptor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The end: the NEXT flag is clear.
    End,
    /// The descriptor at this place in the list that is submitted.
    Place(u16),
    /// A number of the test's choosing.
    Raw(u16),
}

/// One descriptor as the test wants it, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest-physical address.
    pub address: u64,
    /// Length.
    pub length_bytes: u32,
    /// `DESC_WRITE`, `DESC_INDIRECT`; NEXT follows from `next`.
    pub flags: u16,
    /// What comes after it.
    pub next: Next,
}

impl Descriptor {
    /// The 16 bytes of the descriptor, when place `n` of the list is at index `slots[n]`.
    fn encode(&self, slots: &[u16]) -> [u8; 16] {
        let (flag, next) = match self.next {
            Next::End => (0, 0),
            Next::Place(place) => (DESC_NEXT, slots[usize::from(place)]),
            Next::Raw(raw) => (DESC_NEXT, raw),
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length_bytes.to_le_bytes());
        bytes[12..14].copy_from_slice(&(self.flags | flag).to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    }
}

/// The bytes of a descriptor table with `descriptors` from index 0, for an indirect one.
pub fn encode_table(descriptors: &[Descriptor]) -> Vec<u8> {
    let slots: Vec<u16> = (0..u16::MAX).take(descriptors.len()).collect();
    descriptors
        .iter()
        .flat_map(|descriptor| descriptor.encode(&slots))
        .collect()
}

/// An element of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedElement {
    /// Head of the chain, as the back-end names it.
    pub head: u32,
    /// How many bytes it says it has written.
    pub written_bytes: u32,
}

/// Descriptor table, available ring and used ring of one queue.
pub struct Ring {
    memory: Arc<Memory>,
    size: u16,
    descriptors: Block,
    available: Block,
    used: Block,
    /// Indices of descriptors that no chain uses; the last one is taken next.
    free: Vec<u16>,
    available_index: u16,
    used_index: u16,
}

impl Ring {
    /// An empty ring of `size` descriptors, a power of two.
    pub fn new(memory: &Arc<Memory>, size: u16) -> Self {
        let entries = u64::from(size);
        let framed = |length: u64| RING_HEADER_BYTES + length + RING_TRAILER_BYTES;
        let descriptors = memory.allocate(entries * DESCRIPTOR_BYTES, 16);
        let available = memory.allocate(framed(entries * 2), 2);
        let used = memory.allocate(framed(entries * USED_ELEMENT_BYTES), 4);
        let mut ring = Self {
            memory: Arc::clone(memory),
            size,
            descriptors,
            available,
            used,
            free: Vec::new(),
            available_index: 0,
            used_index: 0,
        };
        ring.reset();
        ring
    }

    /// Forgets everything, as a driver does that resets the device.
    pub fn reset(&mut self) {
        for block in [&self.descriptors, &self.available, &self.used] {
            let length_bytes = usize::try_from(block.length_bytes).expect("a short block");
            self.memory.write(block.address, &vec![0; length_bytes]);
        }
        self.free = (0..self.size).rev().collect();
        self.available_index = 0;
        self.used_index = 0;
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Number of descriptors no chain uses.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Where the three parts are, for SET_VRING_ADDR.
    pub fn addresses(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: self.memory.user_address(self.descriptors.address),
            used_ring_addr: self.memory.user_address(self.used.address),
            avail_ring_addr: self.memory.user_address(self.available.address),
            log_addr: None,
        }
    }

    /// Writes `descriptors` to free slots without making them available; returns the slots, the
    /// head first.
    pub fn place(&mut self, descriptors: &[Descriptor]) -> Result<Vec<u16>> {
        let (wanted, free) = (descriptors.len(), self.free.len());
        if wanted > free {
            return Err(Error::RingFull { wanted, free });
        }
        let mut slots = self.free.split_off(free - wanted);
        slots.reverse();
        for (descriptor, slot) in descriptors.iter().zip(&slots) {
            let address = self.descriptors.address + u64::from(*slot) * DESCRIPTOR_BYTES;
            self.memory.write(address, &descriptor.encode(&slots));
        }
        Ok(slots)
    }

    /// Gives slots back that a used chain occupied.
    pub fn release(&mut self, slots: &[u16]) {
        self.free.extend(slots.iter().rev());
    }

    /// Makes the chain at `head` available. Any number is accepted, also one beyond the table.
    pub fn publish(&mut self, head: u16) {
        let place = u64::from(self.available_index % self.size);
        self.memory
            .store_u16(self.available.address + RING_HEADER_BYTES + 2 * place, head);
        self.jump(1);
    }

    /// Moves the available index by `entries` whatever the ring holds there.
    pub fn jump(&mut self, entries: u16) {
        self.available_index = self.available_index.wrapping_add(entries);
        self.memory
            .store_u16(self.available.address + 2, self.available_index);
    }

    /// The available index as published.
    pub fn available_index(&self) -> u16 {
        self.available_index
    }

    /// The next element that the back-end has used, if any.
    pub fn pop_used(&mut self) -> Option<UsedElement> {
        if !self.has_used() {
            return None;
        }
        let place = u64::from(self.used_index % self.size);
        let address = self.used.address + RING_HEADER_BYTES + place * USED_ELEMENT_BYTES;
        let bytes = self.memory.read(address, USED_ELEMENT_BYTES);
        self.used_index = self.used_index.wrapping_add(1);
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Some(UsedElement {
            head: word(0),
            written_bytes: word(4),
        })
    }

    /// True when the back-end has used something that was not taken yet.
    pub fn has_used(&self) -> bool {
        self.published_used_index() != self.used_index
    }

    /// The used index as the back-end has published it.
    pub fn published_used_index(&self) -> u16 {
        self.memory.load_u16(self.used.address + 2)
    }

    /// Asks to be notified of the next element, or (false) of none.
    pub fn set_notifications(&self, wanted: bool, event_idx: bool) {
        let behind = self.available.address + RING_HEADER_BYTES + 2 * u64::from(self.size);
        let event = if wanted {
            self.used_index
        } else {
            self.used_index.wrapping_sub(1)
        };
        let flags = if wanted || event_idx { 0 } else { NO_INTERRUPT };
        self.memory
            .store_u16(behind, if event_idx { event } else { 0 });
        self.memory.store_u16(self.available.address, flags);
    }

    /// True when the back-end wants a kick after the index went from `before` to now.
    pub fn wants_kick(&self, before: u16, event_idx: bool) -> bool {
        if !event_idx {
            return self.memory.load_u16(self.used.address) & 1 == 0;
        }
        let entries = u64::from(self.size) * USED_ELEMENT_BYTES;
        let event = self
            .memory
            .load_u16(self.used.address + RING_HEADER_BYTES + entries);
        passes_event(self.available_index, before, event)
    }
}

/// `vring_need_event` of virtio 1.3, section 2.7.10.1: is `event` in `before..now`?
pub fn passes_event(now: u16, before: u16, event: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_from_the_old_index_to_before_the_new_one() {
        assert!(passes_event(5, 3, 3));
        assert!(passes_event(5, 3, 4));
        assert!(!passes_event(5, 3, 5));
        assert!(!passes_event(5, 3, 2));
        assert!(passes_event(0, 0xffff, 0xffff));
    }

    #[test]
    fn a_full_ring_takes_no_further_descriptor() {
        let mut ring = Ring::new(&Memory::new(1 << 20, 1), 4);
        let one = Descriptor {
            address: 0,
            length_bytes: 1,
            flags: 0,
            next: Next::End,
        };
        let slots = ring.place(&[one; 4]).unwrap();
        assert!(matches!(
            ring.place(&[one]),
            Err(Error::RingFull { wanted: 1, free: 0 })
        ));
        ring.release(&slots);
        assert_eq!(ring.place(&[one; 4]).unwrap(), slots);
    }
}
