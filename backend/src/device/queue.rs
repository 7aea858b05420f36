//! The device's side of a split virtqueue (virtio 1.2 section 2.7).
//!
//! A queue of our own because completions come in batches: the used ring is filled entry by entry
//! and published once, with one barrier and one decision whether to notify.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY,
};
use virtio_queue::desc::split::Descriptor;

use super::inflight::{InflightError, InflightQueue};
use super::rings::RingSetup;
use crate::guest_memory::{GuestMemory, GuestMemoryError, GuestRange};

/// The largest ring of the specification (virtio 1.2 section 2.7).
pub const MAX_QUEUE_SIZE: u16 = 32_768;

// Offsets of virtq_avail (2.7.6) and virtq_used (2.7.8): flags, idx, ring, then one event word.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const RING: usize = 4;
const EVENT_BYTES: usize = 2;
const AVAIL_ELEMENT_BYTES: usize = 2;
const USED_ELEMENT_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;

/// Why a queue cannot be served (any more). It stays so until the driver resets the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Not a power of two from 1 to [`MAX_QUEUE_SIZE`].
    #[error("queue {queue} has size {size}, which is not a power of two up to {MAX_QUEUE_SIZE}")]
    Size {
        /// The index of the queue.
        queue: u16,
        /// Its size.
        size: u16,
    },
    /// A part of the ring is not where it can be used.
    #[error("the {part} of queue {queue} cannot be used: {reason}")]
    Place {
        /// The index of the queue.
        queue: u16,
        /// Descriptor table, available ring or used ring.
        part: &'static str,
        /// What is wrong with its address.
        reason: GuestMemoryError,
    },
    /// The driver made more available than the ring has room for.
    #[error("the driver of queue {queue} made {count} buffers available in a ring of {size}")]
    IndexJump {
        /// The index of the queue.
        queue: u16,
        /// How many are available or in flight.
        count: u16,
        /// The size of the ring.
        size: u16,
    },
    /// An entry of the available ring is no index into the descriptor table.
    #[error("the driver of queue {queue} made descriptor {head} of {size} available")]
    Head {
        /// The index of the queue.
        queue: u16,
        /// What the entry said.
        head: u16,
        /// The size of the ring.
        size: u16,
    },
}

/// The three parts of the ring in host memory.
struct Parts {
    desc_table: GuestRange,
    avail_ring: GuestRange,
    used_ring: GuestRange,
}

impl Parts {
    fn resolve(setup: &Layout, memory: &Arc<GuestMemory>) -> Result<Self, QueueError> {
        let size = usize::from(setup.size);
        let avail_bytes = RING + AVAIL_ELEMENT_BYTES * size + EVENT_BYTES;
        let used_bytes = RING + USED_ELEMENT_BYTES * size + EVENT_BYTES;
        let find = |part, address, length_bytes, alignment_bytes| {
            GuestRange::resolve(memory, address, length_bytes, alignment_bytes).map_err(|reason| {
                QueueError::Place {
                    queue: setup.queue,
                    part,
                    reason,
                }
            })
        };
        Ok(Self {
            desc_table: find(
                "descriptor table",
                setup.desc_table,
                DESCRIPTOR_BYTES * size,
                16,
            )?,
            avail_ring: find("available ring", setup.avail_ring, avail_bytes, 2)?,
            used_ring: find("used ring", setup.used_ring, used_bytes, 4)?,
        })
    }
}

/// Where the ring is, in guest addresses.
#[derive(Clone, Copy)]
struct Layout {
    queue: u16,
    size: u16,
    desc_table: vm_memory::GuestAddress,
    avail_ring: vm_memory::GuestAddress,
    used_ring: vm_memory::GuestAddress,
}

/// One split virtqueue, as its queue thread sees it.
///
/// Use: [`pop`](Self::pop) until it gives nothing; for each head, later and in any order,
/// [`push_used`](Self::push_used); at the end of a batch [`publish`](Self::publish), and notify
/// the driver when it says so. Before sleeping, [`enable_notification`](Self::enable_notification)
/// and pop again when it says that there is more.
///
/// With [`track_inflight`](Self::track_inflight) the next process can go on where this one is
/// killed.
///
/// A ring whose driver broke the rules is reported once and then behaves as an empty one that is
/// never written to. So does one whose memory has left the table, until
/// [`set_memory`](Self::set_memory) brings it back.
pub struct SplitQueue {
    layout: Layout,
    memory: Arc<GuestMemory>,
    /// `None` when the ring is broken or away.
    parts: Option<Parts>,
    /// The ring is in none of the regions that there are now.
    is_away: bool,
    /// What was completed while the ring was away.
    held_back: Vec<(u16, u32)>,
    event_idx: bool,
    /// The available index of the next buffer to pop.
    next_avail: u16,
    /// The available index as last read from the driver.
    seen_avail: u16,
    /// The used index of the next buffer to complete.
    next_used: u16,
    /// The used index as last published.
    published_used: u16,
    /// How many were popped and not yet completed.
    in_flight: u16,
    /// What a former process had in flight and was not popped again yet, the last one first.
    left_over: Vec<u16>,
    /// The last one popped was one of those.
    popped_left_over: bool,
    /// Where what is in flight is written down for the next process.
    inflight: Option<InflightQueue>,
}

impl SplitQueue {
    /// A queue that goes on where `setup` says; the used index is the one in guest memory.
    ///
    /// # Errors
    /// When the size is not a power of two or a part of the ring is not in guest memory.
    pub fn new(setup: &RingSetup) -> Result<Self, QueueError> {
        let RingSetup {
            index,
            size,
            desc_table,
            avail_ring,
            used_ring,
            next_avail,
            ..
        } = *setup;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(QueueError::Size { queue: index, size });
        }
        let layout = Layout {
            queue: index,
            size,
            desc_table,
            avail_ring,
            used_ring,
        };
        let memory = own_table(&setup.memory);
        let parts = Parts::resolve(&layout, &memory)?;
        let next_used = parts.used_ring.load_u16(INDEX, Ordering::Acquire);
        Ok(Self {
            layout,
            memory,
            parts: Some(parts),
            is_away: false,
            held_back: Vec::new(),
            event_idx: setup.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0,
            next_avail,
            seen_avail: next_avail,
            next_used,
            published_used: next_used,
            in_flight: 0,
            left_over: Vec::new(),
            popped_left_over: false,
            inflight: None,
        })
    }

    /// Has what is in flight written down in `inflight`, and goes on where a former process was
    /// killed: what it had in flight is popped first, in the order in which the driver made it
    /// available. Buffers are taken in order, so the next new one is as far behind the used index
    /// as there are buffers in flight, whatever SET_VRING_BASE said: a front-end whose back-end was
    /// killed does not know (QEMU says the used index, which is wrong as soon as one is in flight).
    /// Returns how many were in flight; `None` when no ring has used the region before.
    ///
    /// # Errors
    /// When the region is damaged.
    pub fn track_inflight(
        &mut self,
        mut inflight: InflightQueue,
    ) -> Result<Option<usize>, InflightError> {
        let recovered = inflight.recover(self.next_used)?;
        self.inflight = Some(inflight);
        let Some(mut heads) = recovered else {
            return Ok(None);
        };
        let count = heads.len();
        // At most as many as the ring has entries, so it fits.
        let ahead = u16::try_from(count).unwrap_or(self.layout.size);
        self.next_avail = self.next_used.wrapping_add(ahead);
        self.seen_avail = self.next_avail;
        heads.reverse();
        self.left_over = heads;
        Ok(Some(count))
    }

    /// Whether [`track_inflight`](Self::track_inflight) was called.
    pub fn tracks_inflight(&self) -> bool {
        self.inflight.is_some()
    }

    /// The size of the ring.
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// The guest memory that descriptors refer to.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The available index of the next buffer: what GET_VRING_BASE answers.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// How many buffers were popped and not yet completed. What a former process left is counted
    /// once it was popped again.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Whether the driver broke the rules and the queue is given up.
    pub fn is_broken(&self) -> bool {
        self.parts.is_none() && !self.is_away
    }

    /// Takes the next available buffer: the index of its first descriptor, which is in the table.
    ///
    /// # Errors
    /// [`QueueError::Head`] for an entry that names no descriptor: it is skipped, the next one may
    /// be good. [`QueueError::IndexJump`] once: the ring is broken, there is never a buffer again.
    pub fn pop(&mut self) -> Result<Option<u16>, QueueError> {
        let Some(parts) = &self.parts else {
            return Ok(None);
        };
        if let Some(head) = self.left_over.pop() {
            self.in_flight += 1;
            self.popped_left_over = true;
            return Ok(Some(head));
        }
        if self.next_avail == self.seen_avail {
            // Acquire: the entries and descriptors were written before the index (2.7.13).
            self.seen_avail = parts.avail_ring.load_u16(INDEX, Ordering::Acquire);
        }
        let available = self.seen_avail.wrapping_sub(self.next_avail);
        if available == 0 {
            return Ok(None);
        }
        let entry = RING + AVAIL_ELEMENT_BYTES * self.slot(self.next_avail);
        let head = parts.avail_ring.load_u16(entry, Ordering::Relaxed);
        if self.give_up_lost_memory() {
            return Ok(None);
        }
        if let Err(error) = self.check_count(available) {
            self.parts = None;
            return Err(error);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        let Layout { queue, size, .. } = self.layout;
        if head >= size {
            return Err(QueueError::Head { queue, head, size });
        }
        self.in_flight += 1;
        self.popped_left_over = false;
        if let Some(inflight) = &mut self.inflight {
            inflight.mark(head);
        }
        Ok(Some(head))
    }

    /// Puts back the buffer that was just popped: it is the next one to pop, and counts as never
    /// popped until then.
    pub fn put_back(&mut self, head: u16) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.popped_left_over {
            // Its mark stays, too: it is in flight for whoever comes next.
            self.left_over.push(head);
            return;
        }
        self.next_avail = self.next_avail.wrapping_sub(1);
        if let Some(inflight) = &mut self.inflight {
            inflight.put_back(head);
        }
    }

    /// Gives the ring up if memory of its front-end was lost; `true` if so. To be asked after
    /// descriptors were read: they may have been zeros. What is completed from now on is shown to
    /// nobody, and stays marked as in flight.
    pub fn give_up_lost_memory(&mut self) -> bool {
        let is_lost = self.memory.is_lost();
        if is_lost {
            self.parts = None;
            self.is_away = false;
        }
        is_lost
    }

    /// A ring of n entries has n buffers in all, available or in flight, each with a descriptor.
    fn check_count(&self, available: u16) -> Result<(), QueueError> {
        let Layout { queue, size, .. } = self.layout;
        let count = available.saturating_add(self.in_flight);
        if count > size {
            return Err(QueueError::IndexJump { queue, count, size });
        }
        Ok(())
    }

    /// Reads a descriptor once; `None` beyond the table or when the ring is broken.
    pub fn descriptor(&self, index: u16) -> Option<Descriptor> {
        let parts = self.parts.as_ref().filter(|_| index < self.layout.size)?;
        let offset = DESCRIPTOR_BYTES * usize::from(index);
        let address = parts.desc_table.read_u64(offset);
        let [l0, l1, l2, l3, f0, f1, n0, n1] = parts.desc_table.read_u64(offset + 8).to_le_bytes();
        let length_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        let flags = u16::from_le_bytes([f0, f1]);
        let next = u16::from_le_bytes([n0, n1]);
        Some(Descriptor::new(address, length_bytes, flags, next))
    }

    /// Whether the driver made buffers available that were not popped.
    pub fn has_available(&self) -> bool {
        let parts = self.parts.as_ref();
        parts.is_some_and(|p| p.avail_ring.load_u16(INDEX, Ordering::Relaxed) != self.next_avail)
    }

    /// Puts a completed buffer into the used ring. The driver sees it after
    /// [`publish`](Self::publish).
    pub fn push_used(&mut self, head: u16, length_bytes: u32) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(parts) = &self.parts else {
            if self.is_away {
                self.held_back.push((head, length_bytes));
            }
            return;
        };
        let entry = RING + USED_ELEMENT_BYTES * self.slot(self.next_used);
        parts.used_ring.write_u32(entry, u32::from(head));
        parts.used_ring.write_u32(entry + 4, length_bytes);
        if let Some(inflight) = &mut self.inflight {
            inflight.link(head);
        }
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows the driver all completed buffers at once. Returns whether it wants to be notified.
    #[must_use = "a driver that is not notified may wait for ever"]
    pub fn publish(&mut self) -> bool {
        // The data and the status bytes may not have arrived.
        self.give_up_lost_memory();
        let Some(parts) = &self.parts else {
            return false;
        };
        let before = self.published_used;
        if before == self.next_used {
            return false;
        }
        // Release: the data, the status bytes and the entries come before the index.
        parts
            .used_ring
            .store_u16(INDEX, self.next_used, Ordering::Release);
        self.published_used = self.next_used;
        if self.memory.is_lost() {
            // Nor may the index have: the marks stay.
            return false;
        }
        // The driver writes its wish and then reads the index; we write the index and then read
        // its wish. Without a full barrier both could read the old value (2.7.10).
        fence(Ordering::SeqCst);
        if let Some(inflight) = &mut self.inflight {
            inflight.settle(self.next_used);
        }
        if self.event_idx {
            let used_event = RING + AVAIL_ELEMENT_BYTES * usize::from(self.layout.size);
            let event = parts.avail_ring.load_u16(used_event, Ordering::Relaxed);
            passed(event, before, self.published_used)
        } else {
            let flags = parts.avail_ring.load_u16(FLAGS, Ordering::Relaxed);
            u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
        }
    }

    /// Asks the driver not to kick while we look at the ring anyway. A hint: kicks may still come.
    pub fn disable_notification(&mut self) {
        let Some(parts) = self.parts.as_ref().filter(|_| !self.event_idx) else {
            // With EVENT_IDX the index to kick at lies behind us: nothing to do.
            return;
        };
        parts
            .used_ring
            .store_u16(FLAGS, NO_NOTIFY, Ordering::Relaxed);
    }

    /// Asks the driver to kick at the next buffer. Returns whether one came meanwhile, which may
    /// not be kicked for: pop again.
    #[must_use = "a buffer that came meanwhile may not be kicked for"]
    pub fn enable_notification(&mut self) -> bool {
        let Some(parts) = &self.parts else {
            return false;
        };
        if self.event_idx {
            let avail_event = RING + USED_ELEMENT_BYTES * usize::from(self.layout.size);
            parts
                .used_ring
                .store_u16(avail_event, self.next_avail, Ordering::Relaxed);
        } else {
            parts.used_ring.store_u16(FLAGS, 0, Ordering::Relaxed);
        }
        // As in `publish`, with the roles changed (2.7.7).
        fence(Ordering::SeqCst);
        parts.avail_ring.load_u16(INDEX, Ordering::Relaxed) != self.next_avail
    }

    /// Goes on in another memory table. Requests in flight keep the one they came from.
    ///
    /// QEMU takes a region away and adds it anew when it changes its size. So a ring that is not in
    /// the new memory is only away: when a later table has it again it goes on where it was, with
    /// what was completed meanwhile, to be published.
    ///
    /// # Errors
    /// When the ring is not in the new memory. Either way the old mapping is let go.
    pub fn set_memory(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        let is_broken = self.is_broken();
        self.parts = None;
        self.memory = own_table(memory);
        if is_broken {
            return Ok(());
        }
        let parts = Parts::resolve(&self.layout, &self.memory);
        self.is_away = parts.is_err();
        self.parts = Some(parts?);
        for (head, length_bytes) in std::mem::take(&mut self.held_back) {
            // Completed once already, so it is not in flight any more.
            self.in_flight += 1;
            self.push_used(head, length_bytes);
        }
        Ok(())
    }

    /// The place in the ring of an index that counts on for ever.
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.layout.size - 1))
    }
}

/// A copy of the memory table (not of the memory): each request counts itself as a user of it, and
/// queues that share one counter would slow each other down.
fn own_table(memory: &GuestMemory) -> Arc<GuestMemory> {
    Arc::new(memory.clone())
}

#[expect(clippy::cast_possible_truncation, reason = "the flag is bit 0")]
const NO_NOTIFY: u16 = VRING_USED_F_NO_NOTIFY as u16;

/// Whether an index that moved from `before` to `after` went past `event` (2.7.10): the entry
/// that the driver waits for is among those just published.
fn passed(event: u16, before: u16, after: u16) -> bool {
    after.wrapping_sub(event).wrapping_sub(1) < after.wrapping_sub(before)
}

#[cfg(test)]
mod tests;
