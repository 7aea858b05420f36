//! The buffers of one request in guest memory, with guard bytes between them.

use std::sync::Arc;

use super::error::{Error, Result};
use super::memory::{Block, Memory};
use super::request::{Layout, Request, cut};
use super::ring::{Descriptor, Next};
use super::spec::{DESC_WRITE, S_UNTOUCHED};

/// Bytes before, between and behind buffers; odd, so that buffers are aligned to nothing.
const GUARD_BYTES: u64 = 13;
/// What guards hold, and what the device finds in a buffer that it is to write.
const GUARD: u8 = 0xe7;

/// Where the bytes of a request are.
pub(super) struct Buffers {
    memory: Arc<Memory>,
    block: Block,
    readable: Vec<(u64, u32)>,
    writable: Vec<(u64, u32)>,
}

impl Buffers {
    /// Lays `request` out in guest memory as `layout` says.
    pub(super) fn new(memory: &Arc<Memory>, request: &Request, layout: &Layout) -> Self {
        let stream = request.readable();
        let readable_bytes = u32::try_from(stream.len()).expect("a request below 4 GiB");
        let readable = cut(readable_bytes, &layout.readable);
        let writable = cut(request.data_in_bytes + 1, &layout.writable);
        let block = reserve(memory, &readable, &writable, layout.across_border);
        let mut address = block.address;
        let mut place = |length: &u32| {
            let placed = (address + GUARD_BYTES, *length);
            address = placed.0 + u64::from(*length);
            placed
        };
        let readable = readable.iter().map(&mut place).collect();
        let writable = writable.iter().map(&mut place).collect();
        let buffers = Self {
            memory: Arc::clone(memory),
            block,
            readable,
            writable,
        };
        buffers.fill(&stream);
        buffers
    }

    fn fill(&self, stream: &[u8]) {
        let length = usize::try_from(self.block.length_bytes).expect("a 64-bit machine");
        self.memory.write(self.block.address, &vec![GUARD; length]);
        let mut left = stream;
        for (address, length) in &self.readable {
            let (piece, rest) = left.split_at(usize::try_from(*length).expect("a length"));
            self.memory.write(*address, piece);
            left = rest;
        }
        let (last, length) = self.writable.last().expect("the status is always there");
        self.memory
            .write(last + u64::from(*length) - 1, &[S_UNTOUCHED]);
    }

    /// The chain of descriptors.
    pub(super) fn descriptors(&self) -> Vec<Descriptor> {
        let readable = self.readable.iter().map(|at| (at, 0));
        let writable = self.writable.iter().map(|at| (at, DESC_WRITE));
        let count = self.readable.len() + self.writable.len();
        let nexts = (1..=u16::MAX)
            .map(Next::Place)
            .take(count - 1)
            .chain([Next::End]);
        let descriptor = |((at, flags), next): ((&(u64, u32), u16), Next)| Descriptor {
            address: at.0,
            length_bytes: at.1,
            flags,
            next,
        };
        readable
            .chain(writable)
            .zip(nexts)
            .map(descriptor)
            .collect()
    }

    /// What the device has written: the data and the status byte.
    ///
    /// # Errors
    /// [`Error::GuardOverwritten`] when it has written beside the buffers.
    pub(super) fn harvest(&self) -> Result<(Vec<u8>, u8)> {
        self.check_guards()?;
        let read = |(address, length): &(u64, u32)| self.memory.read(*address, u64::from(*length));
        let mut stream: Vec<u8> = self.writable.iter().flat_map(read).collect();
        let status = stream.pop().expect("the status is always there");
        Ok((stream, status))
    }

    fn check_guards(&self) -> Result<()> {
        let mut guard = self.block.address;
        let behind = self.block.address + self.block.length_bytes - GUARD_BYTES;
        for (address, length) in self
            .readable
            .iter()
            .chain(&self.writable)
            .chain([&(behind + GUARD_BYTES, 0)])
        {
            let bytes = self.memory.read(guard, address - guard);
            if let Some(at) = bytes.iter().position(|byte| *byte != GUARD) {
                return Err(Error::GuardOverwritten(guard + at as u64));
            }
            guard = address + u64::from(*length);
        }
        Ok(())
    }
}

fn reserve(memory: &Arc<Memory>, readable: &[u32], writable: &[u32], across: bool) -> Block {
    let lengths = readable.iter().chain(writable);
    let length_bytes = lengths
        .map(|length| u64::from(*length) + GUARD_BYTES)
        .sum::<u64>();
    if across {
        memory.allocate_across_border(length_bytes + GUARD_BYTES)
    } else {
        memory.allocate(length_bytes + GUARD_BYTES, 1)
    }
}
