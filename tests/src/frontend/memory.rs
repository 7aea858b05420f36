//! Guest memory: a memfd in one or several regions, and who uses which part of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
};

/// Granularity of regions.
const PAGE_BYTES: u64 = 4096;
/// Where guest memory begins; below it is a hole that malformed chains can point to.
pub const BASE_ADDRESS: u64 = 0x10_0000;

/// Guest memory that the back-end maps too.
///
/// Regions follow each other without a gap in guest-physical space, but lie in files of their
/// own, so that a buffer across the border is contiguous for the guest only.
pub struct Memory {
    map: GuestMemoryMmap,
    region_bytes: u64,
    end: u64,
    /// Free ranges: address to length.
    free: Mutex<BTreeMap<u64, u64>>,
}

/// A part of guest memory in use, given back when dropped.
pub struct Block {
    memory: Arc<Memory>,
    /// Guest-physical address.
    pub address: u64,
    /// Length.
    pub length_bytes: u64,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.memory.give_back(self.address, self.length_bytes);
    }
}

impl Memory {
    /// `total_bytes`, rounded up to pages, in `regions` regions of equal size. Nobody can seal their
    /// files, as with QEMU's `seal=off`.
    pub fn new(total_bytes: u64, regions: u64) -> Arc<Self> {
        Self::of_memfds(total_bytes, regions, MemfdFlags::CLOEXEC)
    }

    /// The same in files that can be sealed, and are not.
    pub fn sealable(total_bytes: u64, regions: u64) -> Arc<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        Self::of_memfds(total_bytes, regions, flags)
    }

    fn of_memfds(total_bytes: u64, regions: u64, flags: MemfdFlags) -> Arc<Self> {
        let region_bytes = (total_bytes / regions).next_multiple_of(PAGE_BYTES);
        let ranges: Vec<_> = (0..regions)
            .map(|index| {
                let file = Some(FileOffset::new(memfd(region_bytes, flags), 0));
                let address = GuestAddress(BASE_ADDRESS + index * region_bytes);
                (address, to_usize(region_bytes), file)
            })
            .collect();
        let map = GuestMemoryMmap::from_ranges_with_files(ranges).expect("cannot map a memfd");
        let length_bytes = region_bytes * regions;
        Arc::new(Self {
            map,
            region_bytes,
            end: BASE_ADDRESS + length_bytes,
            free: Mutex::new(BTreeMap::from([(BASE_ADDRESS, length_bytes)])),
        })
    }

    /// Cuts the file of a region shorter. Whoever touches what was beyond, this process too, gets a
    /// SIGBUS.
    ///
    /// # Errors
    /// When the file is sealed.
    pub fn truncate(&self, region: usize, length_bytes: u64) -> std::io::Result<()> {
        let region = self.map.iter().nth(region).expect("a region");
        let place = region.file_offset().expect("every region has a file");
        place.file().set_len(length_bytes)
    }

    /// The first address behind guest memory.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The border between the first and the second region.
    pub fn border(&self) -> u64 {
        BASE_ADDRESS + self.region_bytes
    }

    /// The memory table for SET_MEM_TABLE.
    pub fn table(&self) -> Vec<VhostUserMemoryRegionInfo> {
        let region = |region| VhostUserMemoryRegionInfo::from_guest_region(region);
        let table: vhost::Result<_> = self.map.iter().map(region).collect();
        table.expect("every region has a file")
    }

    /// Translates to the address the vhost-user ring messages use: our own virtual one.
    pub fn user_address(&self, address: u64) -> u64 {
        let region = self
            .map
            .find_region(GuestAddress(address))
            .expect("an address in memory");
        region.as_ptr() as u64 + (address - region.start_addr().0)
    }

    /// Reserves `length_bytes` at a multiple of `align_bytes`, the first place that fits.
    ///
    /// # Panics
    /// When guest memory is used up: the test asks for more than it configured.
    pub fn allocate(self: &Arc<Self>, length_bytes: u64, align_bytes: u64) -> Block {
        let place = |start: u64, length: u64| {
            let address = start.next_multiple_of(align_bytes);
            (address + length_bytes <= start + length).then_some(address)
        };
        self.take(length_bytes, place)
            .expect("guest memory of the test is used up")
    }

    /// Reserves `length_bytes` so that the border of two regions is in the middle.
    ///
    /// # Panics
    /// When that place is taken or there is one region only.
    pub fn allocate_across_border(self: &Arc<Self>, length_bytes: u64) -> Block {
        let address = self.border() - length_bytes / 2;
        let place = |start: u64, length: u64| {
            (start <= address && address + length_bytes <= start + length).then_some(address)
        };
        self.take(length_bytes, place)
            .expect("the border between two regions is not free")
    }

    fn take(
        self: &Arc<Self>,
        length_bytes: u64,
        place: impl Fn(u64, u64) -> Option<u64>,
    ) -> Option<Block> {
        let mut free = self.free.lock().unwrap();
        let (start, length, address) = free
            .iter()
            .find_map(|(s, l)| place(*s, *l).map(|address| (*s, *l, address)))?;
        free.remove(&start);
        let behind = address + length_bytes;
        let parts = [(start, address - start), (behind, start + length - behind)];
        free.extend(parts.into_iter().filter(|(_, length)| *length > 0));
        Some(Block {
            memory: Arc::clone(self),
            address,
            length_bytes,
        })
    }

    fn give_back(&self, mut address: u64, mut length_bytes: u64) {
        let mut free = self.free.lock().unwrap();
        if let Some(behind) = free.remove(&(address + length_bytes)) {
            length_bytes += behind;
        }
        if let Some((before, length)) = free.range(..address).next_back().map(|(s, l)| (*s, *l))
            && before + length == address
        {
            address = before;
            length_bytes += length;
        }
        free.insert(address, length_bytes);
    }

    /// Copies `bytes` to guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.map
            .write_slice(bytes, GuestAddress(address))
            .expect("a write in guest memory");
    }

    /// Copies from guest memory.
    pub fn read(&self, address: u64, length_bytes: u64) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(length_bytes)];
        self.map
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("a read in guest memory");
        bytes
    }

    /// Loads a little-endian index that the back-end publishes.
    pub fn load_u16(&self, address: u64) -> u16 {
        let value = self.map.load(GuestAddress(address), Ordering::SeqCst);
        u16::from_le(value.expect("an index in guest memory"))
    }

    /// Publishes a little-endian index.
    pub fn store_u16(&self, address: u64, value: u16) {
        let stored = self
            .map
            .store(value.to_le(), GuestAddress(address), Ordering::SeqCst);
        stored.expect("an index in guest memory");
    }
}

fn memfd(length_bytes: u64, flags: MemfdFlags) -> File {
    let fd = memfd_create("guest-memory", flags).expect("memfd_create");
    ftruncate(&fd, length_bytes).expect("cannot size a memfd");
    File::from(fd)
}

fn to_usize(length_bytes: u64) -> usize {
    usize::try_from(length_bytes).expect("a 64-bit machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_whole_again() {
        let memory = Memory::new(4 * PAGE_BYTES, 1);
        let parts: Vec<_> = (0..4).map(|_| memory.allocate(PAGE_BYTES, 1)).collect();
        drop(parts);
        assert_eq!(memory.allocate(4 * PAGE_BYTES, 1).address, BASE_ADDRESS);
    }

    #[test]
    fn a_block_across_the_border_lies_in_both_regions() {
        let memory = Memory::new(4 * PAGE_BYTES, 2);
        let block = memory.allocate_across_border(10);
        assert_eq!(block.address + 5, memory.border());
        memory.write(block.address, b"0123456789");
        assert_eq!(memory.read(block.address, 10), b"0123456789");
        assert_eq!(memory.read(memory.border(), 1), b"5");
    }
}
