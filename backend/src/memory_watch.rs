//! Memory that its front-end can take away from us, and how that is noticed.
//!
//! A file that is cut shorter after it was mapped leaves pages that hold nothing: to touch one is a
//! SIGBUS, in whichever thread does so. The same comes of a page for which its file system or the
//! pool of huge pages has no room. The handler (`raw_io`) asks here whose page it is, and gets one
//! page of the mapping to put zeros under; the front-end is reported as one whose memory is lost.
//!
//! What the handler reads has no lock and is never freed: a signal handler may wait for nobody. Cells
//! are found by going through all of them, which nobody has to be quick about.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, fence};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FsWord, fstatfs};
use rustix::pipe::{PipeFlags, pipe_with};
use vm_memory::mmap::MmapRegion;

use crate::raw_io::{catch_sigbus, page_bytes};

/// The mappings of all front-ends.
static MAPPINGS: Pool<MappingCell, 128> = Pool::of([const { MappingCell::new() }; 128]);
/// The front-ends that there are, one per disk; more while old requests are in flight.
static LOSSES: Pool<LossCell, 16> = Pool::of([const { LossCell::new() }; 16]);

/// f_type of a file whose pages are huge (statfs(2)).
const HUGETLBFS_MAGIC: FsWord = 0x9584_58f6;

/// Cells that are claimed and given back, as many as are wanted at once. None is ever freed.
struct Pool<T, const N: usize> {
    cells: [T; N],
    more: OnceLock<Box<Self>>,
}

/// A cell of a [`Pool`].
trait Claim: Default {
    /// Set while the cell is somebody's.
    fn claimed(&self) -> &AtomicBool;
}

impl<T: Claim, const N: usize> Pool<T, N> {
    const fn of(cells: [T; N]) -> Self {
        Self {
            cells,
            more: OnceLock::new(),
        }
    }

    /// A cell for the caller alone, and its number. Not for the handler: it may allocate.
    fn claim(&'static self) -> (usize, &'static T) {
        let mut part = self;
        let mut first = 0;
        loop {
            for (number, cell) in (first..).zip(&part.cells) {
                if !cell.claimed().swap(true, Acquire) {
                    return (number, cell);
                }
            }
            first += N;
            let more = || Box::new(Self::of(std::array::from_fn(|_| T::default())));
            part = part.more.get_or_init(more);
        }
    }

    fn cells(&'static self) -> impl Iterator<Item = &'static T> {
        let parts = std::iter::successors(Some(self), |part| part.more.get().map(Box::as_ref));
        parts.flat_map(|part| &part.cells)
    }
}

/// One front-end, as the handler knows it.
struct LossCell {
    claimed: AtomicBool,
    lost: AtomicBool,
    /// The end of its pipe to write to.
    pipe: AtomicI32,
}

impl LossCell {
    const fn new() -> Self {
        Self {
            claimed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            pipe: AtomicI32::new(-1),
        }
    }
}

impl Default for LossCell {
    fn default() -> Self {
        Self::new()
    }
}

impl Claim for LossCell {
    fn claimed(&self) -> &AtomicBool {
        &self.claimed
    }
}

/// Whether memory of one front-end was lost. Once it was, nothing that is read there is believed,
/// nothing of it is sent, and the front-end's connection is to end.
pub struct MemoryLoss {
    number: usize,
    cell: &'static LossCell,
    reader: OwnedFd,
    writer: OwnedFd,
}

impl std::fmt::Debug for MemoryLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLoss")
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

impl MemoryLoss {
    /// Nothing is lost yet.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (number, cell) = LOSSES.claim();
        cell.lost.store(false, Relaxed);
        cell.pipe.store(writer.as_raw_fd(), Relaxed);
        Ok(Arc::new(Self {
            number,
            cell,
            reader,
            writer,
        }))
    }

    /// Whether some was lost. To be asked after what it is to vouch for was read: the handler says
    /// so before anybody can see zeros.
    pub fn is_lost(&self) -> bool {
        self.cell.lost.load(Relaxed)
    }

    /// Some was lost, as a system call says (EFAULT) that found no page.
    pub fn report(&self) {
        self.cell.lost.store(true, SeqCst);
        // A full pipe is readable, which is all that is wanted.
        let _ = rustix::io::write(&self.writer, &[1]);
    }
}

impl AsFd for MemoryLoss {
    /// Readable from the first loss on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for MemoryLoss {
    /// No mapping refers to it any more: each [`Watch`] holds it.
    fn drop(&mut self) {
        self.cell.claimed.store(false, Release);
    }
}

/// A mapping, as the handler knows it. The version is odd while the rest changes.
struct MappingCell {
    claimed: AtomicBool,
    version: AtomicUsize,
    start: AtomicUsize,
    length_bytes: AtomicUsize,
    page_bytes: AtomicUsize,
    loss: AtomicUsize,
}

/// What a [`MappingCell`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mapping {
    start: usize,
    /// 0 for none.
    length_bytes: usize,
    page_bytes: usize,
    /// The number of its [`LossCell`].
    loss: usize,
}

impl Mapping {
    /// The page that `address` is in.
    fn page(&self, address: usize) -> Option<LostPage> {
        let offset = address.checked_sub(self.start)?;
        if offset >= self.length_bytes {
            return None;
        }
        let page = offset - offset.checked_rem(self.page_bytes)?;
        Some(LostPage {
            start: self.start + page,
            length_bytes: self.page_bytes.min(self.length_bytes - page),
            pipe: -1,
        })
    }
}

impl MappingCell {
    const fn new() -> Self {
        Self {
            claimed: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            length_bytes: AtomicUsize::new(0),
            page_bytes: AtomicUsize::new(0),
            loss: AtomicUsize::new(0),
        }
    }

    /// Only by who has claimed the cell.
    fn set(&self, mapping: Mapping) {
        self.version.fetch_add(1, Relaxed);
        fence(Release);
        self.start.store(mapping.start, Relaxed);
        self.length_bytes.store(mapping.length_bytes, Relaxed);
        self.page_bytes.store(mapping.page_bytes, Relaxed);
        self.loss.store(mapping.loss, Relaxed);
        self.version.fetch_add(1, Release);
    }

    /// `None` while it changes: then it is not about a mapping that the caller is using.
    fn get(&self) -> Option<Mapping> {
        let before = self.version.load(Acquire);
        let mapping = Mapping {
            start: self.start.load(Relaxed),
            length_bytes: self.length_bytes.load(Relaxed),
            page_bytes: self.page_bytes.load(Relaxed),
            loss: self.loss.load(Relaxed),
        };
        fence(Acquire);
        let is_whole = before.is_multiple_of(2) && before == self.version.load(Relaxed);
        is_whole.then_some(mapping)
    }
}

impl Default for MappingCell {
    fn default() -> Self {
        Self::new()
    }
}

impl Claim for MappingCell {
    fn claimed(&self) -> &AtomicBool {
        &self.claimed
    }
}

/// A mapping of a front-end's file that may lose pages without ending the process. Whoever touches
/// the mapping has to hold this: dropped, it is forgotten, and only then unmapped.
pub(crate) struct Watch {
    cell: &'static MappingCell,
    region: Arc<MmapRegion>,
    _loss: Arc<MemoryLoss>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.cell.get()).finish()
    }
}

impl Watch {
    /// Watches a mapping from now on; what is lost of it is reported to `loss`.
    ///
    /// # Errors
    /// When SIGBUS cannot be caught.
    pub(crate) fn new(region: Arc<MmapRegion>, loss: &Arc<MemoryLoss>) -> io::Result<Self> {
        catch_sigbus()?;
        let (_, cell) = MAPPINGS.claim();
        cell.set(Mapping {
            start: region.as_ptr().addr(),
            length_bytes: region.size(),
            page_bytes: page_bytes_of(&region),
            loss: loss.number,
        });
        Ok(Self {
            cell,
            region,
            _loss: Arc::clone(loss),
        })
    }

    /// Whether it is this very mapping that is watched.
    pub(crate) fn is_of(&self, region: &Arc<MmapRegion>) -> bool {
        Arc::ptr_eq(&self.region, region)
    }
}

impl Drop for Watch {
    /// The region comes after this, and with it the end of the mapping if nobody else has it.
    fn drop(&mut self) {
        self.cell.set(Mapping::default());
        self.cell.claimed.store(false, Release);
    }
}

/// What a mapping of this file can be taken apart into.
fn page_bytes_of(region: &MmapRegion) -> usize {
    let huge = region
        .file_offset()
        .map(|place| huge_page_bytes(place.file()));
    huge.flatten().unwrap_or_else(page_bytes)
}

/// The length of the file's pages, if they are huge. What is mapped of it must be whole ones: a part
/// of one can be neither unmapped nor replaced.
pub(crate) fn huge_page_bytes(file: impl AsFd) -> Option<usize> {
    let system = fstatfs(file).ok()?;
    let is_huge = system.f_type == HUGETLBFS_MAGIC;
    usize::try_from(system.f_bsize).ok().filter(|_| is_huge)
}

/// A page of a watched mapping that holds nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostPage {
    /// Its host address.
    pub(crate) start: usize,
    /// Its length, or that of the rest of the mapping.
    pub(crate) length_bytes: usize,
    /// The end of a pipe, to write to when the page can be touched again.
    pub(crate) pipe: RawFd,
}

/// The page that an access to `address` found lost, which is reported thereby; `None` when it is in
/// no watched mapping. Called by the handler of SIGBUS: nothing here allocates or waits.
///
/// That thread is within the access, so it holds the [`Watch`], and neither cell changes meanwhile.
pub(crate) fn lose(address: usize) -> Option<LostPage> {
    let mut mappings = MAPPINGS.cells().filter_map(MappingCell::get);
    let (page, loss) = mappings.find_map(|m| Some((m.page(address)?, m.loss)))?;
    let loss = LOSSES.cells().nth(loss)?;
    loss.lost.store(true, SeqCst);
    Some(LostPage {
        pipe: loss.pipe.load(Relaxed),
        ..page
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_memory::{
        GuestBuffers, GuestMemory, GuestMemoryError, GuestRange, MemoryTable,
    };
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::fs::File;
    use std::sync::atomic::Ordering;
    use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend};

    const PAGE: u64 = 4096;
    const PAGES: u64 = 4;

    fn memfd(flags: MemfdFlags, length_bytes: u64) -> File {
        let file = memfd_create("guest", flags | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, length_bytes).unwrap();
        file.into()
    }

    fn table(file: &File, length_bytes: u64) -> MemoryTable {
        let length_bytes = usize::try_from(length_bytes).unwrap();
        let file = FileOffset::new(file.try_clone().unwrap(), 0);
        MemoryTable::from_ranges_with_files([(GuestAddress(0), length_bytes, Some(file))]).unwrap()
    }

    struct Shared {
        file: File,
        memory: Arc<GuestMemory>,
        loss: Arc<MemoryLoss>,
    }

    impl Shared {
        fn new() -> Self {
            let file = memfd(MemfdFlags::empty(), PAGES * PAGE);
            let loss = MemoryLoss::new().unwrap();
            let table = table(&file, PAGES * PAGE);
            let memory = GuestMemory::watched(&table, &GuestMemory::new(), &loss).unwrap();
            Self {
                file,
                memory: Arc::new(memory),
                loss,
            }
        }

        fn word(&self, page: u64) -> GuestRange {
            GuestRange::resolve(&self.memory, GuestAddress(page * PAGE), 8, 8).unwrap()
        }

        fn buffers(&self) -> GuestBuffers {
            let mut buffers = GuestBuffers::default();
            buffers.begin(&self.memory);
            let length_bytes = u32::try_from(PAGES * PAGE).unwrap();
            buffers.push_segment(GuestAddress(0), length_bytes).unwrap();
            buffers
        }
    }

    fn is_readable(loss: &MemoryLoss) -> bool {
        rustix::io::read(loss, &mut [0; 16]).is_ok()
    }

    #[test]
    fn a_page_that_is_gone_reads_as_zeros_and_is_reported_once() {
        let shared = Shared::new();
        (0..PAGES).for_each(|page| shared.word(page).store_u64(0, page + 7, Ordering::Relaxed));
        ftruncate(&shared.file, 2 * PAGE).unwrap();
        assert_eq!(shared.word(1).load_u64(0, Ordering::Relaxed), 8);
        assert!(!shared.loss.is_lost());
        assert_eq!(shared.word(2).load_u64(0, Ordering::Relaxed), 0);
        assert!(shared.memory.is_lost());
        assert!(is_readable(&shared.loss));
        shared.word(2).store_u64(0, 3, Ordering::Relaxed);
        assert!(!is_readable(&shared.loss), "the page is there now");
        assert_eq!(
            shared.word(1).load_u64(0, Ordering::Relaxed),
            8,
            "left alone"
        );
    }

    #[test]
    fn a_front_end_that_lost_nothing_hears_nothing_of_another_ones_loss() {
        let (first, second) = (Shared::new(), Shared::new());
        ftruncate(&first.file, 0).unwrap();
        first.word(0).store_u64(0, 1, Ordering::Relaxed);
        assert!(first.loss.is_lost());
        assert!(!second.loss.is_lost());
        assert!(!is_readable(&second.loss));
    }

    #[test]
    fn a_copy_that_met_a_lost_page_is_an_error() {
        let shared = Shared::new();
        ftruncate(&shared.file, PAGE).unwrap();
        let buffers = shared.buffers();
        let mut bytes = [1; 64];
        assert_eq!(buffers.copy_out(0, &mut bytes), Ok(()));
        let result = buffers.copy_out(PAGE - 1, &mut bytes);
        assert_eq!(result, Err(GuestMemoryError::Lost));
        assert_eq!(buffers.copy_in(0, &bytes), Err(GuestMemoryError::Lost));
    }

    #[test]
    fn a_huge_page_that_is_gone_is_replaced_whole() {
        const HUGE: u64 = 2 << 20;
        let flags = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let file = memfd(flags, 2 * HUGE);
        let loss = MemoryLoss::new().unwrap();
        let memory =
            GuestMemory::watched(&table(&file, 2 * HUGE), &GuestMemory::new(), &loss).unwrap();
        // So that there are none on a machine that has some, too.
        ftruncate(&file, 0).unwrap();
        let last = GuestAddress(2 * HUGE - 8);
        let word = GuestRange::resolve(&Arc::new(memory), last, 8, 8).unwrap();
        word.store_u64(0, 5, Ordering::Relaxed);
        assert!(loss.is_lost());
        assert_eq!(word.load_u64(0, Ordering::Relaxed), 5);
    }

    #[test]
    fn regions_that_stay_keep_their_watch_and_those_that_go_lose_it() {
        let shared = Shared::new();
        let former = &shared.memory;
        let address = former.iter().next().unwrap().as_ptr().addr();
        let same = GuestMemory::watched(former, former, &shared.loss).unwrap();
        let count = || {
            let watched = MAPPINGS.cells().filter_map(MappingCell::get);
            watched.filter(|m| m.page(address).is_some()).count()
        };
        assert_eq!(count(), 1);
        // As the vhost crate may hold it a while longer.
        let table = MemoryTable::clone(&same);
        drop((same, shared));
        assert_eq!(count(), 0);
        drop(table);
    }

    #[test]
    fn a_page_is_the_one_around_the_address_up_to_the_end_of_its_mapping() {
        let mapping = Mapping {
            start: 0x10_0000,
            length_bytes: 0x2800,
            page_bytes: 0x1000,
            loss: 0,
        };
        for (address, page) in [
            (0xf_ffff, None),
            (0x10_0000, Some((0x10_0000, 0x1000))),
            (0x10_1fff, Some((0x10_1000, 0x1000))),
            (0x10_27ff, Some((0x10_2000, 0x800))),
            (0x10_2800, None),
        ] {
            let found = mapping.page(address);
            assert_eq!(
                found.map(|p| (p.start, p.length_bytes)),
                page,
                "{address:#x}"
            );
        }
        assert_eq!(Mapping::default().page(0), None);
    }

    #[test]
    fn more_cells_than_a_part_has_are_all_found_and_given_back() {
        static POOL: Pool<LossCell, 2> = Pool::of([const { LossCell::new() }; 2]);
        let claimed: Vec<_> = (0..5).map(|_| POOL.claim()).collect();
        let numbers: Vec<_> = claimed.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        for (number, cell) in claimed {
            assert!(std::ptr::eq(POOL.cells().nth(number).unwrap(), cell));
            cell.claimed.store(false, Release);
        }
        assert_eq!(POOL.claim().0, 0);
    }
}
