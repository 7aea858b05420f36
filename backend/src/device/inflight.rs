//! What is in flight, in memory that outlives this process: the region of INFLIGHT_SHMFD.
//!
//! The front-end keeps the region and hands it to the next back-end when this one was killed. The
//! layout of each queue's part and the order in which it is written are those of the vhost-user
//! specification, "Inflight I/O tracking", for split virtqueues. There every step is a store of its
//! own, and a process may be killed between any two: so what is written here goes through atomic
//! stores of order Release, which neither compiler nor processor moves before one another.
//!
//! The front-end may write anything at any time. What is read back is checked before it is used:
//! marks and list are only read when a ring starts, and from then on only written.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use iscsi_core::disk::record::{DiskRecord, MAX_RECORD_BYTES};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::{FileOffset, GuestAddress};

use super::file_length::{ends_within_a_page, is_shorter, keeps_its_length};
use super::message::Message;
use super::queue::MAX_QUEUE_SIZE;
use crate::crash_point::{CrashPoint, reach};
use crate::guest_memory::{GuestMemory, GuestMemoryError, GuestRange, MemoryTable};
use crate::memory_watch::MemoryLoss;

// QueueRegionSplit of the specification.
const FEATURES: usize = 0;
const VERSION: usize = 8;
const DESC_NUM: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_IDX: usize = 14;
const HEADER_BYTES: usize = 16;
// DescStateSplit.
const INFLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;
const ENTRY_BYTES: usize = 16;

/// The version of the layout; 0 in a region that no ring has used yet.
const LAYOUT_VERSION: u16 = 1;
/// Each queue's part starts on a cache line of its own.
const QUEUE_ALIGNMENT_BYTES: usize = 64;

/// What belongs to the disk and not to a queue lies behind the queues: who the disk is, so that the
/// next process can tell whether it still has the same one.
const TRAILER_BYTES: usize = 4096;
/// How the trailer starts when the record behind it is there: `vuiscsi` and its version, 2.
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"vuiscsi\x02");
/// Where the record of the disk is in the trailer.
const RECORD: usize = 8;
/// Where it says how many blocks the guest has been told of since; 0 when no more than the record says.
/// A word of its own: it changes while the record is in use, and a single store cannot be cut short.
const GROWN: usize = RECORD + MAX_RECORD_BYTES;
const _: () = assert!(GROWN + size_of::<u64>() <= TRAILER_BYTES && GROWN.is_multiple_of(8));

/// mmap_size, mmap_offset, num_queues, queue_size, and padding: QEMU takes no other length.
const DESCRIPTION_BYTES: usize = 24;

/// Why a region cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InflightError {
    /// The message makes no sense.
    #[error("an inflight region of {num_queues} queues of {queue_size}")]
    Shape {
        /// How many queues the front-end wants tracked.
        num_queues: u16,
        /// The size of their rings.
        queue_size: u16,
    },
    /// The region is shorter than its queues.
    #[error("an inflight region of {length_bytes} bytes, {needed_bytes} are needed")]
    Short {
        /// As the message says.
        length_bytes: u64,
        /// What its queues take.
        needed_bytes: usize,
    },
    /// Not exactly one file came with the message.
    #[error("{count} files for an inflight region instead of one")]
    Files {
        /// How many came.
        count: usize,
    },
    /// The file could be cut shorter, which would end this process.
    #[error("an inflight region whose file is not sealed against shrinking")]
    Unsealed,
    /// The file could not be created.
    #[error("cannot create an inflight region: {0}")]
    Create(#[source] rustix::io::Errno),
    /// The file ends before the region.
    #[error("an inflight region that is longer than its file")]
    BeyondFile,
    /// The file has huge pages, and the region is shorter than one.
    #[error("an inflight region of huge pages")]
    HugePages,
    /// The file could not be mapped.
    #[error("cannot map an inflight region: {0}")]
    Map(String),
    /// There is no room for this queue.
    #[error(
        "queue {queue} of {size} entries is not in the inflight region, which has {num_queues} of {queue_size}"
    )]
    Queue {
        /// Which queue.
        queue: u16,
        /// The size of its ring.
        size: u16,
        /// How many the region has.
        num_queues: u16,
        /// The size of their rings.
        queue_size: u16,
    },
    /// Which disk it belongs to cannot be read.
    #[error("an inflight region whose record of the disk is damaged")]
    Record,
    /// What the region says about a queue cannot be.
    #[error("the inflight region of queue {queue} is damaged: {what}")]
    Damaged {
        /// Which queue.
        queue: u16,
        /// What is wrong.
        what: String,
    },
}

/// What both messages say about a region (VhostUserInflight).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Description {
    mmap_size: u64,
    mmap_offset: u64,
    num_queues: u16,
    queue_size: u16,
}

impl Description {
    pub(super) fn parse(message: &Message) -> Self {
        let numbers = message.body_word(16).to_ne_bytes();
        let [n0, n1, s0, s1] = numbers;
        Self {
            mmap_size: message.body_long(0),
            mmap_offset: message.body_long(8),
            num_queues: u16::from_ne_bytes([n0, n1]),
            queue_size: u16::from_ne_bytes([s0, s1]),
        }
    }

    pub(super) fn body(&self) -> [u8; DESCRIPTION_BYTES] {
        let [n0, n1] = self.num_queues.to_ne_bytes();
        let [s0, s1] = self.queue_size.to_ne_bytes();
        let numbers = u64::from_ne_bytes([n0, n1, s0, s1, 0, 0, 0, 0]);
        let mut body = [0; DESCRIPTION_BYTES];
        let words = [self.mmap_size, self.mmap_offset, numbers];
        for (place, word) in body.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        body
    }

    /// How long the queues' parts are together; the trailer follows.
    ///
    /// # Errors
    /// When there are no queues, more than `max_queues`, or rings of no legal size.
    fn queues_bytes(&self, max_queues: u16) -> Result<usize, InflightError> {
        let Self {
            num_queues,
            queue_size,
            ..
        } = *self;
        let size_fits = queue_size.is_power_of_two() && queue_size <= MAX_QUEUE_SIZE;
        if !size_fits || num_queues == 0 || num_queues > max_queues {
            return Err(InflightError::Shape {
                num_queues,
                queue_size,
            });
        }
        Ok(usize::from(num_queues) * queue_bytes(queue_size))
    }
}

/// How long the part of one queue is.
fn queue_bytes(queue_size: u16) -> usize {
    let length_bytes = HEADER_BYTES + ENTRY_BYTES * usize::from(queue_size);
    length_bytes.next_multiple_of(QUEUE_ALIGNMENT_BYTES)
}

/// Makes a region as the front-end wants it (GET_INFLIGHT_FD). It is not used before the front-end
/// hands it back.
pub(super) fn create(
    wanted: Description,
    max_queues: u16,
) -> Result<(Description, OwnedFd), InflightError> {
    let queues_bytes = wanted.queues_bytes(max_queues)?;
    let length_bytes = (queues_bytes + TRAILER_BYTES) as u64;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let file = memfd_create("vhost-inflight", flags).map_err(InflightError::Create)?;
    ftruncate(&file, length_bytes).map_err(InflightError::Create)?;
    fcntl_add_seals(&file, seals).map_err(InflightError::Create)?;
    let description = Description {
        mmap_size: length_bytes,
        mmap_offset: 0,
        ..wanted
    };
    Ok((description, file))
}

/// A region that the front-end has handed over, mapped.
#[derive(Debug)]
pub(super) struct InflightRegion {
    memory: Arc<GuestMemory>,
    num_queues: u16,
    queue_size: u16,
    /// Where the trailer is, if there is room for it.
    trailer_offset: Option<usize>,
}

impl InflightRegion {
    /// Takes the region that the front-end hands over (SET_INFLIGHT_FD).
    ///
    /// # Errors
    /// When it is too short for its queues, cannot be mapped, or could be cut shorter later.
    pub(super) fn adopt(
        description: Description,
        files: Vec<OwnedFd>,
        max_queues: u16,
        loss: &Arc<MemoryLoss>,
    ) -> Result<Self, InflightError> {
        let count = files.len();
        let file = <[OwnedFd; 1]>::try_from(files).map_err(|_| InflightError::Files { count })?;
        let [file] = file;
        let queues_bytes = description.queues_bytes(max_queues)?;
        let length_bytes = description.mmap_size;
        if length_bytes < queues_bytes as u64 {
            return Err(InflightError::Short {
                length_bytes,
                needed_bytes: queues_bytes,
            });
        }
        if !keeps_its_length(&file) {
            return Err(InflightError::Unsealed);
        }
        let has_trailer = length_bytes - queues_bytes as u64 >= TRAILER_BYTES as u64;
        let mapped_bytes = queues_bytes + if has_trailer { TRAILER_BYTES } else { 0 };
        let memory = map(file, description.mmap_offset, mapped_bytes, loss)?;
        Ok(Self {
            memory,
            num_queues: description.num_queues,
            queue_size: description.queue_size,
            trailer_offset: has_trailer.then_some(queues_bytes),
        })
    }

    /// Which disk a former process has served with this region; when none has, `disk` is written
    /// down. A region that another back-end made has no room for it, and says nothing.
    ///
    /// # Errors
    /// When what stands there cannot be read: the disk may be another one.
    pub(super) fn former_disk(
        &self,
        disk: &DiskRecord,
    ) -> Result<Option<DiskRecord>, InflightError> {
        let Some(offset) = self.trailer_offset else {
            return Ok(None);
        };
        let trailer = self.range(offset, TRAILER_BYTES)?;
        if trailer.load_u64(0, Acquire) == TRAILER_MAGIC {
            let mut bytes = [0; MAX_RECORD_BYTES];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = trailer.load_u8(RECORD + at, Relaxed);
            }
            let record = DiskRecord::decode(&bytes, crc32c::crc32c_append);
            let grown = |record: DiskRecord| record.with_at_least(trailer.load_u64(GROWN, Acquire));
            return record.map(grown).map(Some).ok_or(InflightError::Record);
        }
        // The magic number comes last: who is killed before has submitted nothing yet.
        for (at, byte) in disk.encode(crc32c::crc32c_append).into_iter().enumerate() {
            trailer.store_u8(RECORD + at, byte, Release);
        }
        trailer.store_u64(0, TRAILER_MAGIC, Release);
        Ok(None)
    }

    /// The guest is told of so many blocks: the next process is to know it. Never less than before.
    pub(super) fn note_capacity(&self, blocks: u64) {
        let trailer = self.trailer_offset.map(|at| self.range(at, TRAILER_BYTES));
        if let Some(Ok(trailer)) = trailer
            && blocks > trailer.load_u64(GROWN, Acquire)
        {
            trailer.store_u64(GROWN, blocks, Release);
        }
    }

    fn range(&self, offset: usize, length_bytes: usize) -> Result<GuestRange, InflightError> {
        let address = GuestAddress(offset as u64);
        GuestRange::resolve(&self.memory, address, length_bytes, 8)
            .map_err(|error: GuestMemoryError| InflightError::Map(error.to_string()))
    }

    /// The part of one queue.
    ///
    /// # Errors
    /// When the region has no room for it.
    pub(super) fn queue(&self, queue: u16, size: u16) -> Result<InflightQueue, InflightError> {
        let Self {
            num_queues,
            queue_size,
            ..
        } = *self;
        if queue >= num_queues || size > queue_size {
            return Err(InflightError::Queue {
                queue,
                size,
                num_queues,
                queue_size,
            });
        }
        let length_bytes = queue_bytes(queue_size);
        Ok(InflightQueue {
            range: self.range(usize::from(queue) * length_bytes, length_bytes)?,
            queue,
            desc_num: queue_size,
            size,
            counter: 0,
            last_batch_head: 0,
            batch: Vec::with_capacity(size.into()),
        })
    }

    /// The device was reset: nothing that is marked is to be done any more.
    pub(super) fn forget_all(&self) {
        for queue in 0..self.num_queues {
            if let Ok(queue) = self.queue(queue, 0) {
                queue.range.store_u16(VERSION, 0, Release);
            }
        }
    }
}

/// Maps the region as memory at address 0. Its file is sealed, and so stays as long as it is now; it
/// is watched all the same, for a seal does not promise that there is memory for its pages.
fn map(
    file: OwnedFd,
    offset: u64,
    length_bytes: usize,
    loss: &Arc<MemoryLoss>,
) -> Result<Arc<GuestMemory>, InflightError> {
    let end = offset.checked_add(length_bytes as u64);
    if end.is_none_or(|end| is_shorter(&file, end)) {
        return Err(InflightError::BeyondFile);
    }
    if ends_within_a_page(&file, length_bytes as u64) {
        return Err(InflightError::HugePages);
    }
    let file = FileOffset::new(File::from(file), offset);
    let table = MemoryTable::from_ranges_with_files([(GuestAddress(0), length_bytes, Some(file))])
        .map_err(|error| InflightError::Map(error.to_string()))?;
    GuestMemory::watched(&table, &GuestMemory::new(), loss)
        .map(Arc::new)
        .map_err(|error| InflightError::Map(error.to_string()))
}

/// The part of one queue, as the thread that serves the ring sees it.
///
/// Use: `recover` once; then `mark` each buffer that is popped, `link` it when it is put into the used
/// ring, and `settle` when the used index has been published.
#[derive(Debug)]
pub struct InflightQueue {
    range: GuestRange,
    queue: u16,
    /// For how many descriptors the region has room.
    desc_num: u16,
    /// The size of the ring, which may be smaller.
    size: u16,
    /// The number of the next buffer, by which the order of submission is known.
    counter: u64,
    /// The region's own, which is never read again.
    last_batch_head: u16,
    /// The buffers of the present batch. Bounded by what is in flight; its room is reserved.
    batch: Vec<u16>,
}

impl InflightQueue {
    /// Finishes the batch during which the former process may have been killed, and returns the heads
    /// that are in flight, the oldest first; `None` when no ring has used the region before.
    /// `used_index` is that of the used ring.
    ///
    /// # Errors
    /// When the region says what cannot be. Nothing was changed then: to guess would be to carry
    /// out requests that nobody made, or to lose some.
    pub(super) fn recover(&mut self, used_index: u16) -> Result<Option<Vec<u16>>, InflightError> {
        let version = self.range.load_u16(VERSION, Acquire);
        match version {
            0 => {
                self.initialise(used_index);
                return Ok(None);
            }
            LAYOUT_VERSION => {}
            _ => return Err(self.damaged(format!("version {version}"))),
        }
        let marked = self.marked()?;
        if !marked.is_empty() {
            let batch = self.interrupted_batch(used_index)?;
            for head in batch {
                self.unmark(head);
            }
        }
        self.range.store_u16(USED_IDX, used_index, Release);
        self.last_batch_head = self.range.load_u16(LAST_BATCH_HEAD, Relaxed);
        let mut marked = self.marked()?;
        marked.sort_unstable();
        self.counter = marked.last().map_or(0, |(last, _)| last.wrapping_add(1));
        Ok(Some(marked.into_iter().map(|(_, head)| head).collect()))
    }

    /// The version comes last: until then the next process starts from the beginning, too.
    fn initialise(&mut self, used_index: u16) {
        for head in 0..self.desc_num {
            self.unmark(head);
        }
        self.range.store_u64(FEATURES, 0, Release);
        self.range.store_u16(DESC_NUM, self.desc_num, Release);
        self.range.store_u16(LAST_BATCH_HEAD, 0, Release);
        self.range.store_u16(USED_IDX, used_index, Release);
        self.range.store_u16(VERSION, LAYOUT_VERSION, Release);
    }

    /// Counter and head of everything that is marked.
    fn marked(&self) -> Result<Vec<(u64, u16)>, InflightError> {
        let desc_num = self.range.load_u16(DESC_NUM, Relaxed);
        if desc_num != self.desc_num {
            let room = self.desc_num;
            return Err(self.damaged(format!("{desc_num} entries where there are {room}")));
        }
        let mut marked = Vec::new();
        for head in 0..self.desc_num {
            match self.range.load_u8(entry(head) + INFLIGHT, Acquire) {
                0 => {}
                1 if head < self.size => {
                    marked.push((self.range.load_u64(entry(head) + COUNTER, Relaxed), head))
                }
                mark => return Err(self.damaged(format!("mark {mark} at entry {head}"))),
            }
        }
        Ok(marked)
    }

    /// The buffers that went into the used ring with its last move, if the region has not followed.
    fn interrupted_batch(&self, used_index: u16) -> Result<Vec<u16>, InflightError> {
        let before = self.range.load_u16(USED_IDX, Acquire);
        let length = used_index.wrapping_sub(before);
        if length > self.size {
            return Err(self.damaged(format!(
                "its used index is {before}, that of the ring {used_index}"
            )));
        }
        let mut batch: Vec<u16> = Vec::with_capacity(length.into());
        let mut seen = vec![false; self.size.into()];
        let mut head = self.range.load_u16(LAST_BATCH_HEAD, Relaxed);
        for _ in 0..length {
            match seen.get_mut(usize::from(head)) {
                None => return Err(self.damaged(format!("entry {head} in the last batch"))),
                Some(true) => return Err(self.damaged("the last batch is a loop".into())),
                Some(seen) => *seen = true,
            }
            batch.push(head);
            head = self.range.load_u16(entry(head) + NEXT, Relaxed);
        }
        Ok(batch)
    }

    fn damaged(&self, what: String) -> InflightError {
        let queue = self.queue;
        InflightError::Damaged { queue, what }
    }

    /// A buffer was popped. The head is in the descriptor table.
    pub(super) fn mark(&mut self, head: u16) {
        let entry = entry(head);
        self.range.store_u64(entry + COUNTER, self.counter, Release);
        self.counter = self.counter.wrapping_add(1);
        self.range.store_u8(entry + INFLIGHT, 1, Release);
        reach(CrashPoint::Marked);
    }

    /// A buffer that was popped is put back: the driver's own ring has it.
    pub(super) fn put_back(&mut self, head: u16) {
        self.unmark(head);
    }

    /// A buffer was put into the used ring, which has not been published yet.
    pub(super) fn link(&mut self, head: u16) {
        let next = self.last_batch_head;
        self.range.store_u16(entry(head) + NEXT, next, Release);
        self.range.store_u16(LAST_BATCH_HEAD, head, Release);
        self.last_batch_head = head;
        self.batch.push(head);
        reach(CrashPoint::Linked);
    }

    /// The used index was published, and a fence came after it.
    pub(super) fn settle(&mut self, used_index: u16) {
        reach(CrashPoint::Published);
        for head in &self.batch {
            self.unmark(*head);
            reach(CrashPoint::Clearing);
        }
        self.batch.clear();
        reach(CrashPoint::Cleared);
        self.range.store_u16(USED_IDX, used_index, Release);
        reach(CrashPoint::Settled);
    }

    fn unmark(&self, head: u16) {
        self.range.store_u8(entry(head) + INFLIGHT, 0, Release);
    }
}

/// Where the state of a descriptor is.
fn entry(head: u16) -> usize {
    HEADER_BYTES + ENTRY_BYTES * usize::from(head)
}
