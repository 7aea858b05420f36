//! Guest memory. With `raw_io`, the only unsafe code of the program.
//!
//! The guest's processors write to these bytes while we read them, so there is never a Rust
//! reference to them: all access goes through raw pointers, and what is read is copied once and
//! only the copy is looked at. Every pointer here was found in a mapping that the owning value
//! keeps alive.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress,
};

use crate::crash_point::before_store;
use crate::memory_watch::{MemoryLoss, Watch};

/// A memory table as the vhost crates have it, without dirty tracking.
pub type MemoryTable = GuestMemoryMmap<()>;

/// The memory of one guest as the front-end shared it. Clones are the same memory.
///
/// The front-end may cut its files shorter at any time. What is read there is then zeros, what is
/// written goes nowhere, and [`is_lost`](Self::is_lost) says so.
#[derive(Clone, Debug, Default)]
pub struct GuestMemory {
    /// One for each region. They go before the mappings that they are about.
    watches: Vec<Arc<Watch>>,
    loss: Option<Arc<MemoryLoss>>,
    table: MemoryTable,
}

impl Deref for GuestMemory {
    type Target = MemoryTable;

    fn deref(&self) -> &MemoryTable {
        &self.table
    }
}

/// Memory that nobody can take away, and that is not watched.
impl From<MemoryTable> for GuestMemory {
    fn from(table: MemoryTable) -> Self {
        Self {
            watches: Vec::new(),
            loss: None,
            table,
        }
    }
}

impl GuestMemory {
    /// No memory at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory of a front-end whose losses go to `loss`, to be called before anything of it is
    /// touched. Regions that it has in common with `former` are watched already.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn watched(table: &MemoryTable, former: &Self, loss: &Arc<MemoryLoss>) -> io::Result<Self> {
        let watch = |region: &GuestRegionMmap<()>| {
            let mapping = region.get_mmap();
            let present = former.watches.iter().find(|watch| watch.is_of(&mapping));
            match present {
                Some(watch) => Ok(Arc::clone(watch)),
                None => Watch::new(mapping, loss).map(Arc::new),
            }
        };
        let watches: io::Result<_> = table.iter().map(watch).collect();
        Ok(Self {
            watches: watches?,
            loss: Some(Arc::clone(loss)),
            table: table.clone(),
        })
    }

    /// Whether some of it is gone. Asked after a read or a write, it vouches for that.
    pub fn is_lost(&self) -> bool {
        self.loss.as_ref().is_some_and(|loss| loss.is_lost())
    }

    /// A system call found a page of it gone.
    pub fn report_loss(&self) {
        if let Some(loss) = &self.loss {
            loss.report();
        }
    }

    fn check(&self) -> Result<(), GuestMemoryError> {
        if self.is_lost() {
            return Err(GuestMemoryError::Lost);
        }
        Ok(())
    }
}

/// The most segments one request may have: twice the descriptors of the largest ring, so that
/// segments split at region borders still fit, and no request can make us allocate without bound.
pub const MAX_SEGMENTS: usize = 2 * 32_768;

/// How many segments an idle [`GuestBuffers`] keeps room for: more than the `seg_max` that we
/// offer by default, little enough that a guest cannot pin memory with a few giant requests.
const RETAINED_SEGMENTS: usize = 256;

/// The most iovecs that one system call takes (`UIO_MAXIOV` of Linux).
pub const MAX_IOVECS: usize = 1024;

/// What is wrong with an address or a range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestMemoryError {
    /// Some byte of the range is in no region.
    #[error("{length_bytes} bytes at guest address {address:#x} are not all in guest memory")]
    OutsideMemory {
        /// Where the range starts.
        address: u64,
        /// How long it is.
        length_bytes: u64,
    },
    /// The range is in guest memory, but spread over regions or badly aligned.
    #[error(
        "{length_bytes} bytes at guest address {address:#x} must lie in one memory region, \
         aligned to {alignment_bytes}"
    )]
    NotOneRun {
        /// Where the range starts.
        address: u64,
        /// How long it is.
        length_bytes: u64,
        /// The alignment wanted of the host address.
        alignment_bytes: usize,
    },
    /// A part of the memory is gone. What was copied may be zeros instead.
    #[error("the front-end has taken guest memory away")]
    Lost,
    /// The request has more than [`MAX_SEGMENTS`] segments.
    #[error("the request has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// The offset and length reach beyond the buffers of the request.
    #[error("bytes {offset} to {end} of a request of {length_bytes} bytes")]
    OutsideBuffers {
        /// The first byte asked for.
        offset: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// How long the buffers are.
        length_bytes: u64,
    },
}

/// The host addresses of the longest run from `address` on, at most `length_bytes`, that lies in
/// one region. `None` when `address` is in no region.
fn first_run(
    memory: &GuestMemory,
    address: GuestAddress,
    length_bytes: u64,
) -> Option<(*mut u8, usize)> {
    let region = memory.find_region(address)?;
    let offset = address.0.checked_sub(region.start_addr().0)?;
    let pointer = region.get_host_address(MemoryRegionAddress(offset)).ok()?;
    let run_bytes = region.len().checked_sub(offset)?.min(length_bytes);
    Some((pointer, usize::try_from(run_bytes).ok()?))
}

/// Copies all of `bytes` out of guest memory, once: what is looked at is the copy.
///
/// `vm-memory` can do that too, through an iterator over slices and a trait for volatile writers;
/// for the few bytes of a descriptor or header that took longer than everything else about them.
///
/// # Errors
/// When a byte of it is outside guest memory, or some memory is lost.
pub fn copy_from_guest(
    memory: &GuestMemory,
    address: GuestAddress,
    bytes: &mut [u8],
) -> Result<(), GuestMemoryError> {
    let outside = GuestMemoryError::OutsideMemory {
        address: address.0,
        length_bytes: bytes.len() as u64,
    };
    let mut at = address;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (pointer, run_bytes) = first_run(memory, at, rest.len() as u64).ok_or(outside)?;
        let (run, tail) = rest.split_at_mut_checked(run_bytes).ok_or(outside)?;
        // SAFETY: `first_run` found `run_bytes` bytes there, in a mapping that `memory` keeps. The
        // guest may race with the copy, and then spoils only what it says.
        unsafe { std::ptr::copy_nonoverlapping(pointer, run.as_mut_ptr(), run_bytes) };
        at = GuestAddress(at.0.saturating_add(run_bytes as u64));
        rest = tail;
    }
    memory.check()
}

/// A fixed range of guest memory in one region: a part of a virtqueue, or of a region that tracks
/// what is in flight, which is shared with a front-end that may write to it at any time, too.
///
/// It keeps its mapping alive. Offsets are the caller's own arithmetic, never the guest's word:
/// one beyond the range is a bug of ours and ends the process rather than touch other memory.
#[derive(Debug)]
pub struct GuestRange {
    pointer: *mut u8,
    length_bytes: usize,
    _memory: Arc<GuestMemory>,
}

// SAFETY: the pointer is into a mapping that `_memory` keeps, which any thread may use.
unsafe impl Send for GuestRange {}

impl GuestRange {
    /// Finds the range; `alignment_bytes` is demanded of the host address, since a region may
    /// start at any guest address.
    ///
    /// # Errors
    /// When the range is not in guest memory, in more than one region, or badly aligned.
    pub fn resolve(
        memory: &Arc<GuestMemory>,
        address: GuestAddress,
        length_bytes: usize,
        alignment_bytes: usize,
    ) -> Result<Self, GuestMemoryError> {
        let outside = GuestMemoryError::OutsideMemory {
            address: address.0,
            length_bytes: length_bytes as u64,
        };
        let (pointer, run_bytes) =
            first_run(memory, address, length_bytes as u64).ok_or(outside)?;
        if run_bytes != length_bytes || pointer.align_offset(alignment_bytes) != 0 {
            return Err(GuestMemoryError::NotOneRun {
                address: address.0,
                length_bytes: length_bytes as u64,
                alignment_bytes,
            });
        }
        Ok(Self {
            pointer,
            length_bytes,
            _memory: Arc::clone(memory),
        })
    }

    /// The host address of a `T` at `offset`, checked to be in range and aligned.
    fn pointer_to<T>(&self, offset: usize) -> *mut T {
        assert!(offset <= self.length_bytes && size_of::<T>() <= self.length_bytes - offset);
        let pointer = self.pointer.wrapping_add(offset).cast::<T>();
        assert!(pointer.is_aligned());
        pointer
    }

    fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        let pointer = self.pointer_to::<u16>(offset);
        // SAFETY: in range, aligned, mapped as long as `self` lives; this word is only ever
        // accessed atomically by us, and the guest's accesses are other processors'.
        unsafe { AtomicU16::from_ptr(pointer) }
    }

    fn atomic_u8(&self, offset: usize) -> &AtomicU8 {
        let pointer = self.pointer_to::<u8>(offset);
        // SAFETY: as in `atomic_u16`.
        unsafe { AtomicU8::from_ptr(pointer) }
    }

    fn atomic_u64(&self, offset: usize) -> &AtomicU64 {
        let pointer = self.pointer_to::<u64>(offset);
        // SAFETY: as in `atomic_u16`.
        unsafe { AtomicU64::from_ptr(pointer) }
    }

    /// Reads a byte.
    pub fn load_u8(&self, offset: usize, order: Ordering) -> u8 {
        self.atomic_u8(offset).load(order)
    }

    /// Writes a byte.
    pub fn store_u8(&self, offset: usize, value: u8, order: Ordering) {
        before_store();
        self.atomic_u8(offset).store(value, order);
    }

    /// Reads a little-endian 64-bit word.
    pub fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        u64::from_le(self.atomic_u64(offset).load(order))
    }

    /// Writes a little-endian 64-bit word.
    pub fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        before_store();
        self.atomic_u64(offset).store(value.to_le(), order);
    }

    /// Reads a little-endian 16-bit word.
    pub fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        u16::from_le(self.atomic_u16(offset).load(order))
    }

    /// Writes a little-endian 16-bit word.
    pub fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        before_store();
        self.atomic_u16(offset).store(value.to_le(), order);
    }

    /// Reads a little-endian 64-bit word once.
    pub fn read_u64(&self, offset: usize) -> u64 {
        let pointer = self.pointer_to::<u64>(offset);
        // SAFETY: in range, aligned and mapped; volatile, since the guest may write at any time.
        u64::from_le(unsafe { pointer.read_volatile() })
    }

    /// Writes a little-endian 32-bit word.
    pub fn write_u32(&self, offset: usize, value: u32) {
        before_store();
        let pointer = self.pointer_to::<u32>(offset);
        // SAFETY: in range, aligned and mapped; volatile, since the guest may read at any time.
        unsafe { pointer.write_volatile(value.to_le()) }
    }
}

/// A run of host addresses, and where it starts in the data of the request.
#[derive(Clone, Copy, Debug)]
struct Segment {
    pointer: *mut u8,
    length_bytes: usize,
    start: u64,
}

/// The guest memory of one request: its data as one run of bytes from 0 to [`len`](Self::len),
/// however many segments the guest gave, and the byte for its status.
///
/// Guest addresses are checked and resolved once, when the request is parsed; from then on the
/// mapping is held until [`clear`](Self::clear), whatever the front-end does to its memory table.
/// Reused from request to request, so that the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct GuestBuffers {
    memory: Option<Arc<GuestMemory>>,
    segments: Vec<Segment>,
    length_bytes: u64,
    status: Option<StatusByte>,
}

#[derive(Clone, Copy, Debug)]
struct StatusByte(*mut u8);

// SAFETY: the pointers are into mappings that `memory` keeps, which any thread may use.
unsafe impl Send for GuestBuffers {}

impl GuestBuffers {
    /// Forgets the last request and takes hold of the memory of the next one.
    pub fn begin(&mut self, memory: &Arc<GuestMemory>) {
        self.clear();
        self.memory = Some(Arc::clone(memory));
    }

    /// Forgets the request and lets go of its memory.
    pub fn clear(&mut self) {
        self.clear_data();
        self.status = None;
        self.memory = None;
    }

    /// Forgets the data of the request, but not its status byte.
    pub fn clear_data(&mut self) {
        self.segments.clear();
        self.segments.shrink_to(RETAINED_SEGMENTS);
        self.length_bytes = 0;
    }

    /// How many bytes of data there are.
    pub fn len(&self) -> u64 {
        self.length_bytes
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.length_bytes == 0
    }

    /// Adds data at its end, split where regions meet.
    ///
    /// # Errors
    /// When a byte of it is outside guest memory, or there are too many segments. What was added
    /// of it stays: the request is to be refused.
    pub fn push_segment(
        &mut self,
        address: GuestAddress,
        length_bytes: u32,
    ) -> Result<(), GuestMemoryError> {
        let outside = GuestMemoryError::OutsideMemory {
            address: address.0,
            length_bytes: length_bytes.into(),
        };
        let memory = self.memory.as_ref().ok_or(outside)?;
        let mut at = address.0;
        let mut remaining_bytes = u64::from(length_bytes);
        while remaining_bytes > 0 {
            if self.segments.len() >= MAX_SEGMENTS {
                return Err(GuestMemoryError::TooManySegments);
            }
            let (pointer, length_bytes) =
                first_run(memory, GuestAddress(at), remaining_bytes).ok_or(outside)?;
            self.segments.push(Segment {
                pointer,
                length_bytes,
                start: self.length_bytes,
            });
            let run_bytes = length_bytes as u64;
            self.length_bytes += run_bytes;
            remaining_bytes -= run_bytes;
            // Beyond the last address there is no region: found out above, if more is wanted.
            at = at.saturating_add(run_bytes);
        }
        Ok(())
    }

    /// Says where the status byte is.
    ///
    /// # Errors
    /// When the address is outside guest memory.
    pub fn set_status_address(&mut self, address: GuestAddress) -> Result<(), GuestMemoryError> {
        let outside = GuestMemoryError::OutsideMemory {
            address: address.0,
            length_bytes: 1,
        };
        let memory = self.memory.as_ref().ok_or(outside)?;
        let (pointer, _) = first_run(memory, address, 1).ok_or(outside)?;
        self.status = Some(StatusByte(pointer));
        Ok(())
    }

    /// Writes the status byte; without one, nothing.
    pub fn write_status(&mut self, status: u8) {
        if let Some(StatusByte(pointer)) = self.status
            && !self.is_lost()
        {
            // SAFETY: one byte of a mapping that `memory` keeps alive while `status` is set.
            unsafe { pointer.write_volatile(status) }
        }
    }

    /// Whether some of the memory that the data is in is gone, found out by reading all of it.
    pub fn is_lost_when_read(&self) -> bool {
        let mut room = [0; 4096];
        let mut offset = 0;
        while offset < self.length_bytes && !self.is_lost() {
            let left_bytes = usize::try_from(self.length_bytes - offset).unwrap_or(usize::MAX);
            let length_bytes = room.len().min(left_bytes);
            let _ = self.copy_out(offset, room.get_mut(..length_bytes).unwrap_or_default());
            offset += length_bytes as u64;
        }
        self.is_lost()
    }

    /// Copies `bytes` into the guest's memory at `offset` of the data.
    ///
    /// # Errors
    /// When they do not fit; then nothing was copied. When memory of the guest is lost.
    pub fn copy_in(&self, offset: u64, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        // What is gone is not to be replaced page by page.
        self.check()?;
        let mut done_bytes = 0;
        for (pointer, length_bytes) in self.runs(offset, bytes.len())? {
            let source = bytes.as_ptr().wrapping_add(done_bytes);
            // SAFETY: `runs` gives at most `bytes.len()` bytes in all, each run in a mapping that
            // `memory` keeps. The guest may race with the copy, and then spoils only its own data:
            // no reference to these bytes exists and no decision is taken on them.
            unsafe { std::ptr::copy_nonoverlapping(source, pointer, length_bytes) };
            done_bytes += length_bytes;
        }
        self.check()
    }

    /// Copies the data from `offset` on out of the guest's memory into all of `bytes`.
    ///
    /// # Errors
    /// When there are not as many; then nothing was copied. When memory of the guest is lost: then
    /// the copy is not its data.
    pub fn copy_out(&self, offset: u64, bytes: &mut [u8]) -> Result<(), GuestMemoryError> {
        let mut done_bytes = 0;
        for (pointer, length_bytes) in self.runs(offset, bytes.len())? {
            let target = bytes.as_mut_ptr().wrapping_add(done_bytes);
            // SAFETY: as in `copy_in`, the other way round. The copy is what is looked at.
            unsafe { std::ptr::copy_nonoverlapping(pointer, target, length_bytes) };
            done_bytes += length_bytes;
        }
        self.check()
    }

    /// Appends the host addresses of `length_bytes` bytes of data from `offset` on, for a
    /// `readv` or `writev`, until `iovecs` has [`MAX_IOVECS`] entries. Returns how many bytes
    /// they cover, which is less than asked for only when there was no more room.
    ///
    /// The entries may be used until [`clear`](Self::clear) or [`begin`](Self::begin).
    ///
    /// # Errors
    /// When the data ends before; then nothing was appended.
    pub fn iovecs(
        &self,
        offset: u64,
        length_bytes: usize,
        iovecs: &mut Vec<libc::iovec>,
    ) -> Result<usize, GuestMemoryError> {
        let room = MAX_IOVECS.saturating_sub(iovecs.len());
        let mut covered_bytes = 0;
        for (pointer, run_bytes) in self.runs(offset, length_bytes)?.take(room) {
            iovecs.push(libc::iovec {
                iov_base: pointer.cast(),
                iov_len: run_bytes,
            });
            covered_bytes += run_bytes;
        }
        Ok(covered_bytes)
    }

    /// Whether some of the memory that the request is in was lost.
    pub fn is_lost(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.is_lost())
    }

    /// A system call found a page of it gone.
    pub fn report_loss(&self) {
        if let Some(memory) = &self.memory {
            memory.report_loss();
        }
    }

    fn check(&self) -> Result<(), GuestMemoryError> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.check())
    }

    /// The runs of host addresses behind `length_bytes` bytes of data from `offset` on.
    fn runs(
        &self,
        offset: u64,
        length_bytes: usize,
    ) -> Result<impl Iterator<Item = (*mut u8, usize)>, GuestMemoryError> {
        let end = offset.saturating_add(length_bytes as u64);
        if end > self.length_bytes {
            let length_bytes = self.length_bytes;
            return Err(GuestMemoryError::OutsideBuffers {
                offset,
                end,
                length_bytes,
            });
        }
        let first = self
            .segments
            .partition_point(|s| s.start + s.length_bytes as u64 <= offset);
        let runs = self.segments.get(first..).unwrap_or_default().iter();
        Ok(runs
            .take_while(move |s| s.start < end)
            .map(move |s| s.clip(offset, end)))
    }
}

impl Segment {
    /// The part of the segment between two offsets of the data; the segment reaches both sides.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "all differences are within the segment"
    )]
    fn clip(&self, offset: u64, end: u64) -> (*mut u8, usize) {
        let skip = offset.saturating_sub(self.start) as usize;
        let kept_bytes = (end - self.start).min(self.length_bytes as u64) as usize - skip;
        (self.pointer.wrapping_add(skip), kept_bytes)
    }
}

#[cfg(test)]
mod tests;
