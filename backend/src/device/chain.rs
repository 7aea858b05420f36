//! A chain of descriptors, walked once (virtio 1.2 section 2.7.5).
//!
//! A walker of our own, since the one of `virtio-queue` cuts a bad chain short without a word.
//! Each descriptor is read once, and a chain is at most as long as the table it is in, so neither
//! a loop nor a guest that changes it while we look leads anywhere.

use virtio_queue::desc::split::Descriptor;
use vm_memory::GuestAddress;

use super::queue::{MAX_QUEUE_SIZE, SplitQueue};
use crate::guest_memory::{GuestBuffers, GuestMemory, GuestMemoryError, copy_from_guest};

const DESCRIPTOR_BYTES: u32 = 16;

/// Why descriptors make no chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// More descriptors than the table has: they form a loop.
    #[error("the chain has more descriptors than its table, so it loops")]
    Loop,
    /// `next` is beyond the table.
    #[error("a descriptor's next is beyond its table")]
    NextBeyondTable,
    /// An indirect descriptor without VIRTIO_RING_F_INDIRECT_DESC.
    #[error("an indirect descriptor, though INDIRECT_DESC was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect descriptor in an indirect table (2.7.5.3.1).
    #[error("an indirect descriptor within an indirect table")]
    IndirectNested,
    /// An indirect descriptor with NEXT set (2.7.5.3.1).
    #[error("an indirect descriptor that is not the last of its chain")]
    IndirectNotLast,
    /// The length of an indirect table is no multiple of 16, zero or too large.
    #[error("an indirect table of {length_bytes} bytes")]
    IndirectLength {
        /// The length.
        length_bytes: u32,
    },
    /// An indirect table that is not in guest memory.
    #[error(transparent)]
    Memory(#[from] GuestMemoryError),
}

/// A piece of the chain, never empty.
#[derive(Clone, Copy, Debug)]
struct Span {
    address: GuestAddress,
    length_bytes: u32,
}

impl Span {
    /// The span without its first bytes, and how many of these it had.
    fn without_first(self, bytes: u32) -> (Option<Self>, u32) {
        if bytes >= self.length_bytes {
            return (None, self.length_bytes);
        }
        // An address at the end of the address space stays there, where there is no memory.
        let address = GuestAddress(self.address.0.saturating_add(bytes.into()));
        let length_bytes = self.length_bytes - bytes;
        (
            Some(Self {
                address,
                length_bytes,
            }),
            bytes,
        )
    }
}

/// The pieces of one direction in order.
#[derive(Debug, Default)]
pub(super) struct Spans {
    list: Vec<Span>,
    pub(super) length_bytes: u64,
}

/// How many spans an idle parser keeps room for.
const RETAINED_SPANS: usize = 256;

impl Spans {
    fn clear(&mut self) {
        self.list.clear();
        self.list.shrink_to(RETAINED_SPANS);
        self.length_bytes = 0;
    }

    fn push(&mut self, span: Span) {
        self.list.push(span);
        self.length_bytes += u64::from(span.length_bytes);
    }

    /// Removes the last byte and says where it is.
    pub(super) fn pop_last_byte(&mut self) -> Option<GuestAddress> {
        let last = self.list.last_mut()?;
        last.length_bytes -= 1;
        let address = last.address.0.checked_add(last.length_bytes.into())?;
        if last.length_bytes == 0 {
            self.list.pop();
        }
        self.length_bytes -= 1;
        Some(GuestAddress(address))
    }

    /// Adds everything but the first `skip_bytes` to the buffers.
    pub(super) fn resolve(
        &self,
        mut skip_bytes: u32,
        buffers: &mut GuestBuffers,
    ) -> Result<(), GuestMemoryError> {
        for span in &self.list {
            let (rest, skipped_bytes) = span.without_first(skip_bytes);
            skip_bytes -= skipped_bytes;
            if let Some(Span {
                address,
                length_bytes,
            }) = rest
            {
                buffers.push_segment(address, length_bytes)?;
            }
        }
        Ok(())
    }

    /// Copies the first bytes out of guest memory, as many as there are of either.
    pub(super) fn copy_first(
        &self,
        memory: &GuestMemory,
        bytes: &mut [u8],
    ) -> Result<(), GuestMemoryError> {
        let mut rest = bytes;
        for span in &self.list {
            let piece_bytes = rest.len().min(span.length_bytes as usize);
            let (piece, tail) = rest.split_at_mut(piece_bytes);
            copy_from_guest(memory, span.address, piece)?;
            rest = tail;
        }
        Ok(())
    }
}

/// The pieces of one chain, in order and by direction; reused from chain to chain.
#[derive(Debug)]
pub(super) struct Chain {
    /// VIRTIO_RING_F_INDIRECT_DESC was negotiated.
    indirect: bool,
    /// What the device reads.
    pub(super) readable: Spans,
    /// What the device writes.
    pub(super) writable: Spans,
    /// The order was broken: all that is readable comes first (2.7.4.2).
    pub(super) readable_after_writable: bool,
}

impl Chain {
    pub(super) fn new(indirect: bool) -> Self {
        Self {
            indirect,
            readable: Spans::default(),
            writable: Spans::default(),
            readable_after_writable: false,
        }
    }

    /// Collects the spans of a chain. A chain of the ring's table has at most as many descriptors
    /// as the table, else it loops.
    pub(super) fn walk(&mut self, queue: &SplitQueue, head: u16) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();
        self.readable_after_writable = false;
        let mut index = head;
        for _ in 0..queue.size() {
            let descriptor = queue.descriptor(index).ok_or(ChainError::NextBeyondTable)?;
            if descriptor.refers_to_indirect_table() {
                return self.walk_indirect(queue.memory(), &descriptor);
            }
            self.collect(&descriptor);
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(ChainError::Loop)
    }

    /// As [`walk`](Self::walk), for an indirect table. It may lie anywhere: the specification
    /// asks for no alignment.
    fn walk_indirect(
        &mut self,
        memory: &GuestMemory,
        table: &Descriptor,
    ) -> Result<(), ChainError> {
        let entries = self.check_indirect(table)?;
        let mut index = 0;
        for _ in 0..entries {
            if index >= entries {
                return Err(ChainError::NextBeyondTable);
            }
            let descriptor = read_indirect(memory, table.addr(), index)?;
            if descriptor.refers_to_indirect_table() {
                return Err(ChainError::IndirectNested);
            }
            self.collect(&descriptor);
            if !descriptor.has_next() {
                return Ok(());
            }
            index = u32::from(descriptor.next());
        }
        Err(ChainError::Loop)
    }

    /// How many entries the indirect table has.
    fn check_indirect(&self, table: &Descriptor) -> Result<u32, ChainError> {
        if !self.indirect {
            return Err(ChainError::IndirectNotNegotiated);
        }
        if table.has_next() {
            return Err(ChainError::IndirectNotLast);
        }
        let length_bytes = table.len();
        let entries = length_bytes / DESCRIPTOR_BYTES;
        if !length_bytes.is_multiple_of(DESCRIPTOR_BYTES)
            || entries == 0
            || entries > u32::from(MAX_QUEUE_SIZE)
        {
            return Err(ChainError::IndirectLength { length_bytes });
        }
        Ok(entries)
    }

    fn collect(&mut self, descriptor: &Descriptor) {
        let span = Span {
            address: descriptor.addr(),
            length_bytes: descriptor.len(),
        };
        if span.length_bytes == 0 {
            return;
        }
        if descriptor.is_write_only() {
            self.writable.push(span);
        } else {
            self.readable_after_writable |= !self.writable.list.is_empty();
            self.readable.push(span);
        }
    }
}

fn read_indirect(
    memory: &GuestMemory,
    table: GuestAddress,
    index: u32,
) -> Result<Descriptor, GuestMemoryError> {
    let mut bytes = [0; DESCRIPTOR_BYTES as usize];
    let length_bytes = u64::from(DESCRIPTOR_BYTES);
    let offset = u64::from(index) * length_bytes;
    let outside = GuestMemoryError::OutsideMemory {
        address: table.0,
        length_bytes,
    };
    let address = table.0.checked_add(offset).ok_or(outside)?;
    copy_from_guest(memory, GuestAddress(address), &mut bytes)?;
    let [address @ .., l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
    Ok(Descriptor::new(
        u64::from_le_bytes(address),
        u32::from_le_bytes([l0, l1, l2, l3]),
        u16::from_le_bytes([f0, f1]),
        u16::from_le_bytes([n0, n1]),
    ))
}
