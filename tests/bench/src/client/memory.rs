//! Guest memory of the client: one memfd, mapped once, handed out from the front.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::mmap::MmapRegion;
use vm_memory::{AtomicInteger, FileOffset, VolatileMemory};

use super::error::Error;

const PAGE_BYTES: usize = 4096;

/// Memory that the back-end maps too. A guest-physical address is the offset in it.
pub(super) struct Memory {
    region: MmapRegion,
    file: File,
    taken_bytes: usize,
}

impl Memory {
    /// Memory of at least `size_bytes`, zeroed, with every page there already.
    pub(super) fn new(size_bytes: usize) -> Result<Self, Error> {
        let size_bytes = size_bytes.next_multiple_of(PAGE_BYTES);
        let file = memfd(size_bytes).map_err(|source| Error::Memory(source.to_string()))?;
        let duplicate = file
            .try_clone()
            .map_err(|source| Error::Memory(source.to_string()))?;
        let region = MmapRegion::from_file(FileOffset::new(duplicate, 0), size_bytes)
            .map_err(|source| Error::Memory(source.to_string()))?;
        let memory = Self {
            region,
            file,
            taken_bytes: 0,
        };
        memory.touch(0, size_bytes, 0);
        Ok(memory)
    }

    /// Writes a word to every page of a part, so that no page fault of ours is measured.
    pub(super) fn touch(&self, at: usize, length_bytes: usize, word: u64) {
        for at in (at..at + length_bytes).step_by(PAGE_BYTES) {
            self.at_u64(at).store(word, Ordering::Relaxed);
        }
    }

    /// Takes `length_bytes` at a multiple of `align_bytes`; returns where.
    ///
    /// # Panics
    /// When the memory was made too small.
    pub(super) fn take(&mut self, length_bytes: usize, align_bytes: usize) -> usize {
        let at = self.taken_bytes.next_multiple_of(align_bytes);
        self.taken_bytes = at + length_bytes;
        assert!(
            self.taken_bytes <= self.region.size(),
            "the client's memory is too small"
        );
        at
    }

    /// The address of `at` in our own address space, as the ring messages want it.
    pub(super) fn user_address(&self, at: usize) -> u64 {
        self.region.as_ptr() as u64 + at as u64
    }

    /// The memory table for SET_MEM_TABLE.
    pub(super) fn table(&self) -> [VhostUserMemoryRegionInfo; 1] {
        [VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: self.region.size() as u64,
            userspace_addr: self.user_address(0),
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }]
    }

    pub(super) fn at_u8(&self, at: usize) -> &AtomicU8 {
        self.at(at)
    }

    pub(super) fn at_u16(&self, at: usize) -> &AtomicU16 {
        self.at(at)
    }

    pub(super) fn at_u32(&self, at: usize) -> &AtomicU32 {
        self.at(at)
    }

    pub(super) fn at_u64(&self, at: usize) -> &AtomicU64 {
        self.at(at)
    }

    fn at<T: AtomicInteger>(&self, at: usize) -> &T {
        self.region
            .get_atomic_ref(at)
            .expect("an aligned place in the client's memory")
    }
}

fn memfd(size_bytes: usize) -> rustix::io::Result<File> {
    let file = File::from(memfd_create("bench", MemfdFlags::CLOEXEC)?);
    ftruncate(&file, size_bytes as u64)?;
    Ok(file)
}
