//! What fuzzing needs of the insides of the device: the only door to them, and closed by default.
//!
//! Each function takes bytes of a fuzzer, lets a part of the device work on what they say, and
//! panics when a promise of that part is broken. How far it got is the result: more than 0 when
//! the bytes were good for something. The fuzz targets and the test that replays their corpus
//! (`tests/fuzz`) call them.
//!
//! Compiled with the feature `fuzzing`, which nothing but `tests/fuzz` asks for. It is a feature
//! rather than cargo-fuzz's `cfg(fuzzing)`, since the replay is an ordinary test of the stable
//! compiler, where nobody sets that.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a fuzzer learns that something is wrong"
)]

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::message::FrontendReq as Code;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use super::filter::RequestFilter;
use super::inflight::{self, Description, InflightError, InflightRegion};
use super::message::Message;
use super::queue::SplitQueue;
use super::request::{MAX_RANGES, Malformed, ParsedRequest, RequestKind, RequestParser, Status};
use super::rings::RingSetup;
use crate::guest_memory::{GuestMemory, MemoryTable};
use crate::memory_watch::MemoryLoss;

/// The bytes of a fuzzer, taken from the front. At their end everything is 0.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes, or what is left of them.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// What comes before the next byte `end`, which is taken too, or all that is left.
    pub fn until(&mut self, end: u8) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| *byte == end);
        let bytes = self.bytes(length.unwrap_or(self.rest.len()));
        self.bytes(1);
        bytes
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// One of `count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// One of these, of which there is one at least.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A number of two bytes, little-endian.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// A number of four bytes, little-endian.
    pub fn long(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A number of eight bytes, little-endian.
    pub fn quad(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }
}

// A guest of three regions: two that touch, and one alone.
const REGIONS: [(u64, usize); 3] = [(0, 0x1_0000), (0x1_0000, 0x4000), (0x10_0000, 0x1000)];
const DESC_TABLE: u64 = 0x1000;
const AVAIL_RING: u64 = 0x3000;
const USED_RING: u64 = 0x4000;
/// The largest ring that fits there.
const MAX_RING_SHIFT: usize = 9;

thread_local! {
    /// Who would be told of memory that is gone.
    static LOSS: Arc<MemoryLoss> = MemoryLoss::new().expect("a pipe");
    /// Mapping memory takes longer than most inputs.
    static GUEST: Arc<GuestMemory> = {
        let ranges = REGIONS.map(|(start, length)| (GuestAddress(start), length));
        Arc::new(MemoryTable::from_ranges(&ranges).expect("memory for a guest").into())
    };
}

/// The guest's memory, all zeros.
fn guest() -> Arc<GuestMemory> {
    let memory = GUEST.with(Arc::clone);
    for (start, length) in REGIONS {
        let zeros = [0; 0x1000];
        for at in (0..length).step_by(zeros.len()) {
            memory
                .write_slice(&zeros, GuestAddress(start + at as u64))
                .expect("a page of the guest");
        }
    }
    memory
}

/// An address: mostly one where something is.
fn address(input: &mut Input<'_>) -> u64 {
    let kind = input.byte();
    let word = u64::from(input.word());
    match kind & 7 {
        0..=4 => word,
        5 => 0x1_0000 + word % 0x5000,
        6 => 0x10_0000 + word % 0x1800,
        _ => input.quad(),
    }
}

/// A ring and its driver, which may write whatever and whenever it likes.
struct Guest {
    memory: Arc<GuestMemory>,
    queue: SplitQueue,
    parser: RequestParser,
    size: u16,
    avail_index: u16,
    in_flight: VecDeque<ParsedRequest>,
    /// Heads that went back without a request.
    good: u64,
}

/// A ring of a guest: its descriptors, direct and indirect, its indices, and requests in it.
///
/// The first bytes say what the ring is like; then the driver and the device take turns as the
/// input says.
pub fn descriptor_chains(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let Some(mut guest) = Guest::new(&mut input) else {
        return 0;
    };
    while !input.is_empty() {
        guest.step(&mut input);
    }
    guest.complete_all();
    guest.good
}

impl Guest {
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let size = 1_u16 << input.below(MAX_RING_SHIFT);
        let flags = input.byte();
        let start = input.word();
        let feature = |bit: u8, number: u32| u64::from(flags >> bit & 1) << number;
        let features = feature(0, VIRTIO_RING_F_INDIRECT_DESC)
            | feature(1, VIRTIO_RING_F_EVENT_IDX)
            | feature(2, VIRTIO_BLK_F_DISCARD)
            | feature(3, VIRTIO_BLK_F_WRITE_ZEROES);
        let mut setup = setup(guest(), size, start, features);
        if flags & 0x80 != 0 {
            setup.size = input.word();
            setup.desc_table = GuestAddress(address(input));
            setup.avail_ring = GuestAddress(address(input));
            setup.used_ring = GuestAddress(address(input));
        }
        let queue = SplitQueue::new(&setup).ok()?;
        Some(Self {
            memory: setup.memory,
            size: queue.size(),
            queue,
            parser: RequestParser::new(features),
            avail_index: start,
            in_flight: VecDeque::new(),
            good: 0,
        })
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() & 15 {
            0..=2 => self.put_descriptor(input),
            3..=5 => self.make_available(input.word()),
            6 => {
                let at = address(input);
                let length = input.byte();
                self.put(at, input.bytes(length.into()));
            }
            7 => self.put(AVAIL_RING + 2, &input.word().to_le_bytes()),
            8..=10 => self.pop(),
            11 => self.complete(input),
            12 => self.publish(),
            13 => {
                self.queue.disable_notification();
                let _ = self.queue.enable_notification();
                let _ = self.queue.has_available();
            }
            14 => self.change_memory(input),
            _ => self.put_header(input),
        }
    }

    /// Writes what is in memory; a driver that writes elsewhere does nothing.
    fn put(&self, at: u64, bytes: &[u8]) {
        let _ = self.memory.write_slice(bytes, GuestAddress(at));
    }

    /// A descriptor, of the ring's table or of one that is anywhere.
    fn put_descriptor(&self, input: &mut Input<'_>) {
        let place = input.byte();
        let table = if place & 1 == 0 {
            DESC_TABLE
        } else {
            address(input)
        };
        let index = u64::from(input.byte());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address(input).to_le_bytes());
        let length = match place >> 1 & 3 {
            0 => u32::from(input.byte()),
            1 => u32::from(input.byte()) * 512,
            2 => u32::from(input.byte()) * 16,
            _ => input.long(),
        };
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12] = place >> 3 & 7;
        bytes[14..].copy_from_slice(&input.word().to_le_bytes());
        self.put(table.wrapping_add(16 * index), &bytes);
    }

    /// The 16 bytes that a request begins with.
    fn put_header(&self, input: &mut Input<'_>) {
        let at = address(input);
        let kind = input.one_of(&[0_u32, 1, 4, 8, 11, 13, 12, u32::MAX]);
        self.put(at, &kind.to_le_bytes());
        self.put(at.wrapping_add(8), &u64::from(input.word()).to_le_bytes());
    }

    fn make_available(&mut self, head: u16) {
        let slot = u64::from(self.avail_index % self.size);
        self.put(AVAIL_RING + 4 + 2 * slot, &head.to_le_bytes());
        self.avail_index = self.avail_index.wrapping_add(1);
        self.put(AVAIL_RING + 2, &self.avail_index.to_le_bytes());
    }

    fn pop(&mut self) {
        let Ok(Some(head)) = self.queue.pop() else {
            return;
        };
        assert!(head < self.size, "descriptor {head} of {}", self.size);
        assert!(self.queue.in_flight() <= self.size, "more than there are");
        let mut request = ParsedRequest::default();
        match self.parser.parse(&self.queue, head, &mut request) {
            Ok(()) => {
                self.check(&request);
                self.good += 1;
                self.in_flight.push_back(request);
            }
            Err(error @ Malformed::WithStatus { status, .. }) => {
                assert!(!error.to_string().is_empty());
                assert!(request.buffers.is_empty(), "data of a refused request");
                assert_eq!(request.complete(status), 1);
                self.queue.push_used(head, 1);
            }
            Err(error @ Malformed::NoStatus { .. }) => {
                assert!(!error.to_string().is_empty());
                self.queue.push_used(head, 0);
            }
        }
    }

    /// What the parser promises of a request that it has let through.
    fn check(&self, request: &ParsedRequest) {
        let length = u64::from(request.data_length_bytes);
        // A longer buffer for a name is served, with as much as a name has.
        let is_longer = request.kind == RequestKind::GetId && request.buffers.len() > length;
        assert!(is_longer || request.buffers.len() == length, "{request:?}");
        match request.kind {
            RequestKind::Read | RequestKind::Write => {
                assert!(length > 0 && length.is_multiple_of(512), "{length} bytes");
            }
            RequestKind::GetId => assert!((1..=20).contains(&length), "{length} bytes"),
            RequestKind::Flush => assert_eq!(length, 0),
            RequestKind::Discard | RequestKind::WriteZeroes => {
                assert!(request.ranges.len() <= MAX_RANGES as usize);
                assert!(request.ranges.iter().all(|r| r.extent.length_bytes > 0));
            }
        }
        let extents: Vec<_> = request.extents().collect();
        assert!(request.operation(true).is_some() || request.kind == RequestKind::GetId);
        assert!(extents.len() <= MAX_RANGES as usize);
        self.check_iovecs(request);
        let end = request.buffers.len();
        assert!(request.buffers.copy_in(end, &[0]).is_err(), "one more");
    }

    /// Every address lies in the guest's memory, and all of the data is covered.
    fn check_iovecs(&self, request: &ParsedRequest) {
        let mut offset = 0;
        let mut iovecs = Vec::new();
        while offset < request.buffers.len() {
            iovecs.clear();
            let rest = usize::try_from(request.buffers.len() - offset).expect("a length");
            let covered = request.buffers.iovecs(offset, rest, &mut iovecs);
            let covered = covered.expect("addresses of what is there");
            assert!(covered > 0, "no progress");
            assert_eq!(covered, iovecs.iter().map(|v| v.iov_len).sum::<usize>());
            for iovec in &iovecs {
                self.check_iovec(iovec.iov_base.addr(), iovec.iov_len);
            }
            offset += covered as u64;
        }
    }

    fn check_iovec(&self, start: usize, length: usize) {
        let is_within = self.memory.iter().any(|region| {
            let base = region.get_host_address(MemoryRegionAddress(0));
            let base = base.expect("the start of a region").addr();
            let end = base + usize::try_from(region.len()).expect("a length");
            base <= start && start + length <= end
        });
        assert!(is_within, "{length} bytes outside the guest");
    }

    fn complete(&mut self, input: &mut Input<'_>) {
        let status = input.one_of(&[Status::Ok, Status::IoErr, Status::Unsupp]);
        let last = self.in_flight.len().saturating_sub(1);
        let which = input.below(last + 1);
        let Some(mut request) = self.in_flight.remove(which) else {
            return;
        };
        self.touch(&request);
        let length = request.complete(status);
        assert!(length >= 1 && request.buffers.is_empty());
        self.queue.push_used(request.head, length);
    }

    /// Reads or writes the data as the engine would.
    fn touch(&self, request: &ParsedRequest) {
        let length = request.buffers.len().min(0x8000);
        let mut copy = vec![0xa5; usize::try_from(length).expect("a length")];
        let buffers = &request.buffers;
        if request.kind == RequestKind::Write {
            buffers.copy_out(0, &mut copy).expect("data to write");
        } else {
            buffers.copy_in(0, &copy).expect("room for data");
        }
    }

    fn publish(&mut self) {
        let _ = self.queue.publish();
        assert!(!self.queue.publish(), "published twice");
    }

    /// Another memory table; requests in flight keep the one that they came from.
    fn change_memory(&mut self, input: &mut Input<'_>) {
        let broken = self.queue.is_broken();
        let regions = input.below(REGIONS.len() + 1);
        let ranges = REGIONS.map(|(start, length)| (GuestAddress(start), length));
        let memory = match regions {
            3 => GUEST.with(|memory| GuestMemory::clone(memory)),
            some => MemoryTable::from_ranges(&ranges[some..])
                .expect("memory for a guest")
                .into(),
        };
        let moved = self.queue.set_memory(&memory);
        // A ring that is not in it is away, not broken; a broken one stays so.
        assert_eq!(self.queue.is_broken(), broken);
        assert!(!broken || moved.is_ok());
        self.memory = Arc::new(memory);
    }

    fn complete_all(&mut self) {
        while let Some(mut request) = self.in_flight.pop_front() {
            let length = request.complete(Status::Ok);
            self.queue.push_used(request.head, length);
        }
        self.publish();
    }
}

fn setup(memory: Arc<GuestMemory>, size: u16, start: u16, features: u64) -> RingSetup {
    for ring in [AVAIL_RING, USED_RING] {
        memory
            .write_slice(&start.to_le_bytes(), GuestAddress(ring + 2))
            .expect("an index");
    }
    RingSetup {
        index: 0,
        size,
        desc_table: GuestAddress(DESC_TABLE),
        avail_ring: GuestAddress(AVAIL_RING),
        used_ring: GuestAddress(USED_RING),
        next_avail: start,
        features,
        memory,
        kick: eventfd(0, EventfdFlags::CLOEXEC).expect("an event file"),
        call: None,
        inflight: None,
    }
}

/// How many queues the device has whose front-end is played here.
const MAX_QUEUES: u16 = 4;

/// A region of what is in flight, as a front-end hands it over: its shape, its file, its content.
pub fn inflight_region(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let ring_size = 1_u16 << input.below(8);
    let used_index = input.word();
    let pops = input.byte();
    let shape = shape(&mut input, ring_size);
    let Some(kept) = Kept::new(shape, &mut input) else {
        return 0;
    };
    let Ok(region) = kept.region() else { return 0 };
    let Ok(part) = region.queue(0, ring_size) else {
        return 0;
    };
    let memory = guest();
    let setup = setup(memory, ring_size, used_index, 0);
    let mut queue = SplitQueue::new(&setup).expect("a ring in memory");
    let before = kept.content();
    match queue.track_inflight(part) {
        Ok(found) => kept.go_on(&mut queue, &setup, found, pops),
        Err(error) => {
            assert!(matches!(error, InflightError::Damaged { .. }), "{error}");
            assert_eq!(kept.content(), before, "a damaged region was changed");
            0
        }
    }
}

/// How large the region is, by the message that brings it.
fn shape(input: &mut Input<'_>, ring_size: u16) -> Description {
    let kind = input.byte();
    let (queues, queue_size, size, offset) = match kind & 3 {
        0 => (1, ring_size, None, 0),
        1 => (input.word() % 8, ring_size, None, 0),
        2 => (2, input.word(), Some(input.quad()), input.quad()),
        _ => (1, ring_size, Some(u64::from(input.word())), 0),
    };
    let words = [
        queues.to_ne_bytes(),
        queue_size.to_ne_bytes(),
        [0; 2],
        [0; 2],
    ];
    let whole = u64::from(queues) * (16 * u64::from(queue_size) + 64) + 64;
    let mut body = [0; 24];
    body[..8].copy_from_slice(&size.unwrap_or(whole).to_ne_bytes());
    body[8..16].copy_from_slice(&offset.to_ne_bytes());
    body[16..].copy_from_slice(words.as_flattened());
    Description::parse(&Message::new(31, &body, Vec::new()))
}

/// A region as a front-end keeps it.
struct Kept {
    description: Description,
    file: OwnedFd,
    length: usize,
}

impl Kept {
    /// The longest file: as long as the largest ring needs here, with its trailer.
    const MAX_BYTES: usize = 0x2000;

    /// The rest of the input is what the region has in it, in pieces.
    fn new(description: Description, input: &mut Input<'_>) -> Option<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("inflight", flags).ok()?;
        let kind = input.byte();
        let length = match kind & 3 {
            0 => usize::from(input.word()) % Self::MAX_BYTES,
            _ => Self::MAX_BYTES,
        };
        ftruncate(&file, length as u64).ok()?;
        if kind & 4 != 0 {
            fcntl_add_seals(&file, SealFlags::SEAL).ok()?;
        }
        while !input.is_empty() {
            let at = u64::from(input.word()) % Self::MAX_BYTES as u64;
            let count = input.byte() & 31;
            let bytes = input.bytes(count.into());
            let room = (length as u64).saturating_sub(at);
            let fits = bytes.len().min(usize::try_from(room).unwrap_or(0));
            pwrite(&file, &bytes[..fits], at).ok()?;
        }
        Some(Self {
            description,
            file,
            length,
        })
    }

    fn region(&self) -> Result<InflightRegion, InflightError> {
        let file = self.file.try_clone().expect("another descriptor");
        LOSS.with(|loss| InflightRegion::adopt(self.description, vec![file], MAX_QUEUES, loss))
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        let count = pread(&self.file, &mut bytes, 0).expect("the content of the region");
        bytes.truncate(count);
        bytes
    }

    /// Serves the ring until it has had `pops` turns, and lets the next process find what is left.
    fn go_on(
        &self,
        queue: &mut SplitQueue,
        setup: &RingSetup,
        found: Option<usize>,
        pops: u8,
    ) -> u64 {
        let found = found.unwrap_or(0);
        assert!(found <= usize::from(queue.size()), "{found} in flight");
        // That many buffers the driver had made available, and no more.
        let index = queue.next_avail().to_le_bytes();
        let place = GuestAddress(AVAIL_RING + 2);
        setup.memory.write_slice(&index, place).expect("an index");
        let mut heads = BTreeSet::new();
        for _ in 0..found {
            let head = queue.pop().expect("a ring that is not broken");
            let head = head.expect("as many as were found");
            assert!(head < queue.size() && heads.insert(head), "{head} again");
        }
        assert_eq!(queue.pop(), Ok(None), "more than were found");
        for (count, head) in (0..pops).zip(heads.clone()) {
            queue.push_used(head, 0);
            heads.remove(&head);
            if count % 3 == 2 {
                let _ = queue.publish();
            }
        }
        let _ = queue.publish();
        self.next_process(setup, &heads);
        found as u64 + 1
    }

    /// What is still marked is what had not been completed.
    fn next_process(&self, setup: &RingSetup, heads: &BTreeSet<u16>) {
        let region = self.region().expect("the same region again");
        let part = region.queue(0, setup.size).expect("the same ring again");
        let mut queue = SplitQueue::new(setup).expect("a ring in memory");
        let found = queue.track_inflight(part).expect("our own region");
        assert_eq!(found, Some(heads.len()), "in flight");
        let popped = (0..heads.len()).map(|_| queue.pop().ok().flatten());
        let popped: BTreeSet<u16> = popped.flatten().collect();
        assert_eq!(popped, *heads);
    }
}

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime"),
    );
}

/// What a front-end sends: the bytes of its messages in pieces, some with files, as far as our own
/// code looks at them before the vhost crates do.
pub fn front_end_messages(data: &[u8]) -> u64 {
    RUNTIME.with_borrow(|runtime| runtime.block_on(front_end(data)))
}

async fn front_end(data: &[u8]) -> u64 {
    let (near, far) = UnixStream::pair().expect("a socket");
    send_all(near, &mut Input::new(data));
    far.set_nonblocking(true).expect("a socket");
    let far = tokio::net::UnixStream::from_std(far).expect("a socket");
    let mut filter = RequestFilter::default();
    let mut passed = 0;
    while let Ok(Some(mut message)) = Message::receive(&far).await {
        if let Err(error) = filter.check(&message) {
            assert!(!error.to_string().is_empty());
            break;
        }
        passed += 1;
        let _ = message.acknowledgement();
        match Code::try_from(message.code()) {
            Ok(Code::GET_INFLIGHT_FD) => {
                let wanted = Description::parse(&message);
                if let Ok((description, file)) = inflight::create(wanted, MAX_QUEUES) {
                    let region = LOSS.with(|loss| {
                        InflightRegion::adopt(description, vec![file], MAX_QUEUES, loss)
                    });
                    region.expect("a region of our own").forget_all();
                }
            }
            Ok(Code::SET_INFLIGHT_FD) => {
                let description = Description::parse(&message);
                let files = message.take_files();
                let region =
                    LOSS.with(|loss| InflightRegion::adopt(description, files, MAX_QUEUES, loss));
                if let Ok(region) = region {
                    region.forget_all();
                }
            }
            _ => {}
        }
    }
    passed
}

/// Sends what the input says and closes: messages well-formed but for what they say, and raw bytes.
fn send_all(mut socket: UnixStream, input: &mut Input<'_>) {
    /// Far below what a socket takes without a reader, which takes note of short messages as if each had
    /// almost a KiB.
    const MAX_SENT_BYTES: usize = 64 << 10;
    const MAX_MESSAGES: usize = 100;
    let mut sent = 0;
    for _ in 0..MAX_MESSAGES {
        if input.is_empty() || sent >= MAX_SENT_BYTES {
            break;
        }
        let kind = input.byte();
        let files = (0..kind & 3).map(|_| file(input)).collect::<Vec<_>>();
        let bytes = if kind & 0x80 == 0 {
            message(input, kind)
        } else {
            let length = input.byte();
            input.bytes(length.into()).to_vec()
        };
        sent += bytes.len();
        if files.is_empty() {
            let _ = socket.write_all(&bytes);
        } else {
            send_with_files(&socket, &bytes, &files);
        }
    }
}

/// A message whose size is right.
fn message(input: &mut Input<'_>, kind: u8) -> Vec<u8> {
    let code = u32::from(input.byte());
    let flags = if kind & 0x40 == 0 { 1 } else { input.long() };
    let mut body = Vec::new();
    for _ in 0..input.byte() & 31 {
        match kind >> 2 & 3 {
            0 => body.extend(u64::from(input.word()).to_ne_bytes()),
            1 => body.extend(input.long().to_ne_bytes()),
            2 => body.extend((u64::from(input.word()) << 12).to_ne_bytes()),
            _ => body.extend(input.quad().to_ne_bytes()),
        }
    }
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = [code, flags, size].map(u32::to_ne_bytes).concat();
    bytes.extend(body);
    bytes
}

fn file(input: &mut Input<'_>) -> OwnedFd {
    let kind = input.byte();
    if kind & 1 != 0 {
        return eventfd(0, EventfdFlags::CLOEXEC).expect("an event file");
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("memory", flags).expect("a memory file");
    ftruncate(&file, u64::from(kind >> 1) << 9).expect("a memory file");
    file
}

fn send_with_files(socket: &UnixStream, bytes: &[u8], files: &[OwnedFd]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    control.push(SendAncillaryMessage::ScmRights(&files));
    let _ = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
}
