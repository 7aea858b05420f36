//! A front-end from its first message to its last: what our own code lets through goes to the
//! vhost crates, and rings that are set up that way are served.
//!
//! The crates have a thread of their own, so what happens first is not always the same.

use std::cell::RefCell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iscsi_core::disk::facts::{BlockLimits, CommandWidth, Identity, LunFacts, Provisioning};
use iscsi_core::disk::record::DiskRecord;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::pwrite;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost_user_iscsi::device::{
    BlockDevice, ChannelError, DeviceSettings, ParsedRequest, RequestParser, RingOwner, RingSetup,
    SplitQueue, Status, serve_front_end,
};
use vhost_user_iscsi::guest_memory::GuestMemory;

use crate::Input;

const NUM_QUEUES: u16 = 2;
/// How long a memory file is, unless the input says otherwise.
pub(crate) const MEMORY_BYTES: u64 = 0x1_0000;
/// Where the front-end says that it has the guest's memory mapped.
pub(crate) const USER_ADDRESS: u64 = 0x7f00_0000_0000;
/// How long a front-end may take: it does nothing that takes a second.
const LIMIT: Duration = Duration::from_secs(8);
/// A socket takes more than this without a reader; short messages it takes note of as if each had almost
/// a KiB.
const MAX_SENT_BYTES: usize = 32 << 10;
const MAX_MESSAGES: usize = 100;

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime"),
    );
}

/// First what is in the guest's memory, then messages, each with its number, its body and files.
pub(crate) fn run(data: &[u8]) -> u64 {
    RUNTIME.with_borrow(|runtime| runtime.block_on(serve(&mut Input::new(data))))
}

async fn serve(input: &mut Input<'_>) -> u64 {
    let owner = Arc::<Owner>::default();
    let ring_owner: Arc<dyn RingOwner> = Arc::clone(&owner) as _;
    let settings = DeviceSettings {
        num_queues: NUM_QUEUES,
        queue_size: 128,
        read_only: false,
    };
    let device = Arc::new(BlockDevice::new(facts(), settings, ring_owner));
    let (near, far) = UnixStream::pair().expect("a socket");
    let awaited = send_all(&near, input);
    let [near, far] = [near, far].map(|socket| {
        socket.set_nonblocking(true).expect("a socket");
        tokio::net::UnixStream::from_std(socket).expect("a socket")
    });
    let both = async { tokio::join!(serve_front_end(far, device), wait(near, awaited)) };
    // A thread of the daemon that has panicked keeps its end of the connection.
    let (served, ()) = tokio::time::timeout(LIMIT, both).await.expect("an end");
    match served {
        Ok(()) => {}
        // A thread that panicked ends like this.
        Err(ChannelError::Refused(reason)) => {
            let text = reason.to_string();
            let has_panicked = text.contains("wait for daemon");
            assert!(!has_panicked, "the daemon's thread: {text}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let running = owner.running();
    assert!(running.rings.is_empty(), "a ring was not taken back");
    running.started
}

fn facts() -> LunFacts {
    LunFacts {
        identity: Identity {
            designators: Vec::new(),
            serial: b"serial".to_vec(),
            block_length_bytes: 512,
        },
        vendor: String::new(),
        product: String::new(),
        revision: String::new(),
        block_length_bytes: 512,
        capacity_blocks: 1 << 20,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        write_protected: false,
        write_cache: true,
        fua: false,
        width: CommandWidth::Sixteen,
        sync_cache: CommandWidth::Sixteen,
        provisioning: Provisioning {
            thin: true,
            reads_zeros: true,
            unmap: true,
            write_same_unmap: true,
        },
        limits: BlockLimits::default(),
        rotates: None,
    }
}

/// The request that is answered whatever came before: GET_FEATURES.
const LAST: u32 = 1;

/// Sends all messages. Says how many replies to [`LAST`] there will be, none of them when nobody
/// can tell where a message ends.
fn send_all(socket: &UnixStream, input: &mut Input<'_>) -> usize {
    let memory = memory_file(MEMORY_BYTES);
    for _ in 0..input.byte() {
        let at = u64::from(input.word());
        let length = input.byte();
        let _ = pwrite(&memory, input.bytes(length.into()), at);
    }
    let (mut sent, mut awaited, mut is_whole) = (0, 1, true);
    for _ in 0..MAX_MESSAGES {
        if input.is_empty() || sent >= MAX_SENT_BYTES {
            break;
        }
        let message = Message::new(input, &memory);
        sent += message.bytes.len();
        awaited += usize::from(message.code == LAST);
        is_whole &= message.is_whole;
        send(socket, &message.bytes, &message.files);
    }
    send(socket, &[LAST, 1, 0].map(u32::to_ne_bytes).concat(), &[]);
    if is_whole { awaited } else { 0 }
}

/// Waits for that many replies to [`LAST`], or for the other side to close, and closes: a
/// front-end that leaves its replies unread takes back what it said last.
async fn wait(socket: tokio::net::UnixStream, mut awaited: usize) {
    let mut replies = Vec::new();
    while awaited > 0 {
        let Some((header, rest)) = replies.split_first_chunk::<12>() else {
            match read(&socket, &mut replies).await {
                0 => return,
                _ => continue,
            }
        };
        let [code, _, size] = *header.as_chunks::<4>().0 else {
            return;
        };
        let size = usize::try_from(u32::from_ne_bytes(size)).expect("a size");
        if rest.len() < size {
            match read(&socket, &mut replies).await {
                0 => return,
                _ => continue,
            }
        }
        awaited -= usize::from(u32::from_ne_bytes(code) == LAST);
        replies.drain(..12 + size);
    }
}

async fn read(socket: &tokio::net::UnixStream, bytes: &mut Vec<u8>) -> usize {
    let mut buffer = [0; 4096];
    loop {
        if socket.readable().await.is_err() {
            return 0;
        }
        match socket.try_read(&mut buffer) {
            Ok(count) => {
                bytes.extend(&buffer[..count]);
                return count;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return 0,
        }
    }
}

struct Message {
    code: u32,
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
    /// It is as long as it says.
    is_whole: bool,
}

impl Message {
    /// A byte for the files, the number, how many words, and the words.
    fn new(input: &mut Input<'_>, memory: &OwnedFd) -> Self {
        let kind = input.byte();
        let code = u32::from(input.byte());
        let files = (0..kind & 3).map(|_| file(input, memory)).collect();
        let flags = if kind & 0x40 == 0 { 1 } else { 9 };
        let count = input.byte();
        let mut body = Vec::new();
        for _ in 0..count & 15 {
            match input.byte() {
                0 => body.extend(u64::from(input.word()).to_ne_bytes()),
                1 => body.extend(u32::from(input.word()).to_ne_bytes()),
                2 => body.extend((USER_ADDRESS + u64::from(input.word())).to_ne_bytes()),
                3 => body.extend(MEMORY_BYTES.to_ne_bytes()),
                4 => body.extend((1_u64 << (input.byte() & 63)).to_ne_bytes()),
                5 => body.push(input.byte()),
                _ => body.extend(input.quad().to_ne_bytes()),
            }
        }
        let length = u32::try_from(body.len()).expect("a short body");
        let size = if kind & 0x80 == 0 {
            length
        } else {
            input.long()
        };
        let mut bytes = [code, flags, size].map(u32::to_ne_bytes).concat();
        bytes.extend(body);
        Self {
            code,
            bytes,
            files,
            is_whole: size == length,
        }
    }
}

fn file(input: &mut Input<'_>, memory: &OwnedFd) -> OwnedFd {
    match input.byte() & 3 {
        0 | 1 => memory.try_clone().expect("another descriptor"),
        2 => eventfd(0, EventfdFlags::CLOEXEC).expect("an event file"),
        _ => memory_file(u64::from(input.word())),
    }
}

fn memory_file(length: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("memory", flags).expect("a memory file");
    ftruncate(&file, length).expect("a memory file");
    file
}

fn send(socket: &UnixStream, bytes: &[u8], files: &[OwnedFd]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    let _ = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
}

/// Serves a ring as long as it has it: all that is available when it starts and when it stops.
#[derive(Default)]
struct Owner {
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    rings: Vec<(u16, SplitQueue, RequestParser)>,
    started: u64,
}

impl Owner {
    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the engine does with a ring, without a disk.
fn serve_ring(queue: &mut SplitQueue, parser: &mut RequestParser) {
    /// The ring is longer than any that the device has, so this is enough.
    const MAX_POPS: usize = 1 << 16;
    for _ in 0..MAX_POPS {
        let head = match queue.pop() {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(_) => continue,
        };
        let mut request = ParsedRequest::default();
        let _ = parser.parse(queue, head, &mut request);
        let length = request.complete(Status::Ok);
        queue.push_used(head, length);
    }
    let _ = queue.publish();
    let _ = queue.enable_notification();
}

impl RingOwner for Owner {
    fn start_ring(&self, mut setup: RingSetup) {
        let mut running = self.running();
        let is_served = running
            .rings
            .iter()
            .any(|(index, ..)| *index == setup.index);
        assert!(!is_served, "ring {} is started twice", setup.index);
        running.started += 1;
        let inflight = setup.inflight.take();
        let Ok(mut queue) = SplitQueue::new(&setup) else {
            return;
        };
        if let Some(inflight) = inflight
            && queue.track_inflight(inflight).is_err()
        {
            return;
        }
        let mut parser = RequestParser::new(setup.features);
        serve_ring(&mut queue, &mut parser);
        running.rings.push((setup.index, queue, parser));
    }

    fn stop_ring(&self, index: u16) -> u16 {
        let mut running = self.running();
        let at = running.rings.iter().position(|(other, ..)| *other == index);
        let Some(at) = at else { return 0 };
        let (_, mut queue, mut parser) = running.rings.remove(at);
        serve_ring(&mut queue, &mut parser);
        queue.next_avail()
    }

    fn set_call(&self, _: u16, _: Option<OwnedFd>) {}

    fn set_kick(&self, _: u16, _: OwnedFd) {}

    fn set_memory(&self, memory: Arc<GuestMemory>) {
        for (_, queue, parser) in &mut self.running().rings {
            let _ = queue.set_memory(&memory);
            serve_ring(queue, parser);
        }
    }

    fn take_over(&self, _: DiskRecord) {}

    fn set_writeback(&self, _: bool) {}
}
