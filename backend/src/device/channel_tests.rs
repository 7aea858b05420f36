//! A front-end on one side, an owner that writes down what it hears on the other, and everything
//! real between them.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::eventfd::EventFd;

use super::backend::{BlockDevice, DeviceSettings, protocol_features, test_facts};
use super::channel::{ChannelError, serve_front_end};
use super::rings::RingOwner;
use super::test_owner::{Event, TestOwner};

const NUM_QUEUES: u16 = 2;
const MEMORY_BYTES: u64 = 0x10_0000;
/// Where the front-end has the guest's memory mapped, as it says.
const USER_ADDRESS: u64 = 0x7f00_0000_0000;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

/// A device that serves one front-end on a thread of its own.
struct Serving {
    owner: Arc<TestOwner>,
    socket: UnixStream,
    thread: JoinHandle<Result<(), ChannelError>>,
}

fn device() -> (Arc<TestOwner>, Arc<BlockDevice>) {
    let owner = Arc::<TestOwner>::default();
    let ring_owner: Arc<dyn RingOwner> = Arc::clone(&owner) as _;
    let settings = DeviceSettings {
        num_queues: NUM_QUEUES,
        queue_size: 128,
        read_only: false,
    };
    (
        owner,
        Arc::new(BlockDevice::new(test_facts(), settings, ring_owner)),
    )
}

fn serve() -> Serving {
    let (owner, device) = device();
    let (socket, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let far = tokio::net::UnixStream::from_std(far).unwrap();
            serve_front_end(far, device).await
        })
    });
    Serving {
        owner,
        socket,
        thread,
    }
}

/// A front-end that has negotiated features and shared its memory; every message is answered.
struct TestFrontEnd {
    owner: Arc<TestOwner>,
    frontend: Frontend,
    memory: OwnedFd,
    thread: JoinHandle<Result<(), ChannelError>>,
}

impl TestFrontEnd {
    fn new(features: u64) -> Self {
        let Serving {
            owner,
            socket,
            thread,
        } = serve();
        let mut frontend = Frontend::from_stream(socket, NUM_QUEUES.into());
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        assert_eq!(offered & features, features);
        if features & PROTOCOL_FEATURES != 0 {
            let protocol = frontend.get_protocol_features().unwrap();
            assert_eq!(protocol, protocol_features());
            frontend.set_protocol_features(protocol).unwrap();
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        frontend.set_features(features).unwrap();
        let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, MEMORY_BYTES).unwrap();
        let front_end = Self {
            owner,
            frontend,
            memory,
            thread,
        };
        front_end
            .frontend
            .set_mem_table(&[front_end.region(0)])
            .unwrap();
        front_end
    }

    fn region(&self, guest_phys_addr: u64) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr,
            memory_size: MEMORY_BYTES,
            userspace_addr: USER_ADDRESS + guest_phys_addr,
            mmap_offset: 0,
            mmap_handle: self.memory.as_raw_fd(),
        }
    }

    fn place_ring(&self, index: usize, desc_table: u64) {
        let config = VringConfigData {
            queue_max_size: 128,
            queue_size: 128,
            flags: 0,
            desc_table_addr: USER_ADDRESS + desc_table,
            avail_ring_addr: USER_ADDRESS + 0x2000,
            used_ring_addr: USER_ADDRESS + 0x3000,
            log_addr: None,
        };
        self.frontend.set_vring_addr(index, &config).unwrap();
    }

    /// Everything a ring needs but to be enabled.
    fn prepare_ring(&self, index: usize) {
        self.frontend.set_vring_num(index, 128).unwrap();
        self.frontend.set_vring_base(index, 7).unwrap();
        self.place_ring(index, 0x1000);
        self.frontend
            .set_vring_call(index, &EventFd::new(0).unwrap())
            .unwrap();
        self.frontend
            .set_vring_kick(index, &EventFd::new(0).unwrap())
            .unwrap();
    }

    /// A front-end with ring 0 running and the events so far forgotten.
    fn with_running_ring() -> Self {
        let mut front_end = Self::new(VERSION_1 | PROTOCOL_FEATURES);
        front_end.prepare_ring(0);
        front_end.frontend.set_vring_enable(0, true).unwrap();
        front_end.owner.wait_for(&started(0, 7));
        front_end
    }

    fn leave(self) -> (Arc<TestOwner>, Result<(), ChannelError>) {
        drop(self.frontend);
        (self.owner, self.thread.join().unwrap())
    }
}

fn started(index: u16, next_avail: u16) -> Event {
    let features = VERSION_1 | PROTOCOL_FEATURES;
    Event::Start {
        index,
        size: 128,
        next_avail,
        features,
        has_call: true,
    }
}

#[test]
fn hands_over_a_ring_only_when_it_is_enabled() {
    let mut front_end = TestFrontEnd::new(VERSION_1 | PROTOCOL_FEATURES);
    front_end.prepare_ring(1);
    assert_eq!(
        front_end.owner.events(),
        [Event::Writeback(true), Event::Memory { regions: 1 }]
    );
    front_end.frontend.set_vring_enable(1, true).unwrap();
    assert_eq!(front_end.owner.events().last(), Some(&started(1, 7)));
    front_end.frontend.set_vring_enable(1, true).unwrap();
    assert_eq!(
        front_end.owner.events().len(),
        3,
        "enabling twice starts once"
    );
}

#[test]
fn enables_rings_at_set_features_without_protocol_features() {
    let front_end = TestFrontEnd::new(VERSION_1);
    front_end.prepare_ring(0);
    let features = VERSION_1;
    front_end.owner.wait_for(&Event::Start {
        index: 0,
        size: 128,
        next_avail: 7,
        features,
        has_call: true,
    });
}

#[test]
fn answers_get_vring_base_with_the_owners_word() {
    let mut front_end = TestFrontEnd::with_running_ring();
    assert_eq!(front_end.frontend.get_vring_base(0).unwrap(), 1000);
    assert_eq!(front_end.owner.events(), [Event::Stop(0)]);
    // The next life of the ring goes on from there unless told otherwise.
    front_end.prepare_ring(0);
    assert_eq!(front_end.owner.events().last(), Some(&started(0, 7)));
    front_end.frontend.set_vring_enable(0, false).unwrap();
}

#[test]
fn pauses_a_disabled_ring_without_losing_its_position() {
    let mut front_end = TestFrontEnd::with_running_ring();
    front_end.frontend.set_vring_enable(0, false).unwrap();
    front_end.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(front_end.owner.events(), [Event::Stop(0), started(0, 1000)]);
}

#[test]
fn passes_on_new_files_of_a_running_ring() {
    let front_end = TestFrontEnd::with_running_ring();
    front_end
        .frontend
        .set_vring_call(0, &EventFd::new(0).unwrap())
        .unwrap();
    front_end
        .frontend
        .set_vring_kick(0, &EventFd::new(0).unwrap())
        .unwrap();
    assert_eq!(
        front_end.owner.events(),
        [Event::Call(0, true), Event::Kick(0)]
    );
}

#[test]
fn restarts_a_ring_that_is_placed_elsewhere_and_leaves_alone_one_that_is_not() {
    let front_end = TestFrontEnd::with_running_ring();
    front_end.place_ring(0, 0x1000);
    assert_eq!(front_end.owner.events(), []);
    front_end.place_ring(0, 0x4000);
    assert_eq!(front_end.owner.events(), [Event::Stop(0), started(0, 1000)]);
}

#[test]
fn restarts_rings_when_the_features_change() {
    let front_end = TestFrontEnd::with_running_ring();
    front_end
        .frontend
        .set_features(VERSION_1 | PROTOCOL_FEATURES)
        .unwrap();
    assert_eq!(front_end.owner.events(), []);
    front_end.frontend.set_features(PROTOCOL_FEATURES).unwrap();
    let features = PROTOCOL_FEATURES;
    let start = Event::Start {
        index: 0,
        size: 128,
        next_avail: 1000,
        features,
        has_call: true,
    };
    assert_eq!(front_end.owner.events(), [Event::Stop(0), start]);
}

#[test]
fn tells_the_owner_of_every_change_of_memory() {
    let mut front_end = TestFrontEnd::with_running_ring();
    let region = front_end.region(MEMORY_BYTES);
    front_end.frontend.add_mem_region(&region).unwrap();
    front_end.frontend.remove_mem_region(&region).unwrap();
    let expected = [Event::Memory { regions: 2 }, Event::Memory { regions: 1 }];
    assert_eq!(front_end.owner.events(), expected);
}

#[test]
fn does_not_serve_a_ring_whose_memory_is_gone() {
    let mut front_end = TestFrontEnd::new(VERSION_1 | PROTOCOL_FEATURES);
    front_end.prepare_ring(0);
    front_end
        .frontend
        .set_mem_table(&[front_end.region(MEMORY_BYTES)])
        .unwrap();
    front_end.frontend.set_vring_enable(0, true).unwrap();
    let events = front_end.owner.events();
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Start { .. })),
        "{events:?}"
    );
}

#[test]
fn stops_rings_at_reset_and_serves_the_device_anew() {
    let mut front_end = TestFrontEnd::with_running_ring();
    front_end.frontend.reset_device().unwrap();
    assert_eq!(
        front_end.owner.events(),
        [Event::Stop(0), Event::Writeback(true)]
    );
    front_end
        .frontend
        .set_features(VERSION_1 | PROTOCOL_FEATURES)
        .unwrap();
    front_end.prepare_ring(0);
    front_end.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(front_end.owner.events().last(), Some(&started(0, 7)));
}

#[test]
fn answers_the_configuration_and_the_queues() {
    let mut front_end = TestFrontEnd::new(VERSION_1 | PROTOCOL_FEATURES);
    let frontend = &mut front_end.frontend;
    assert_eq!(frontend.get_queue_num().unwrap(), u64::from(NUM_QUEUES));
    let (_, bytes) = frontend
        .get_config(0, 60, VhostUserConfigFlags::WRITABLE, &[0; 60])
        .unwrap();
    assert_eq!(bytes.len(), 60);
    assert_eq!(bytes[..8], 2048_u64.to_le_bytes());
}

#[test]
#[allow(
    unsafe_code,
    reason = "the crate takes an EventFd where any file will do"
)]
fn takes_everything_back_when_the_front_end_leaves() {
    let front_end = TestFrontEnd::with_running_ring();
    let (near, far) = UnixStream::pair().unwrap();
    // A socket in the place of an eventfd: its other end tells when the last copy is closed.
    for set in [Frontend::set_vring_call, Frontend::set_vring_kick] {
        let copy = near.try_clone().unwrap().into_raw_fd();
        // SAFETY: the descriptor was just given up by its owner.
        let stand_in = unsafe { EventFd::from_raw_fd(copy) };
        set(&front_end.frontend, 0, &stand_in).unwrap();
    }
    drop(near);
    let (owner, result) = front_end.leave();
    result.unwrap();
    let end = [Event::Stop(0), Event::Memory { regions: 0 }];
    assert!(owner.events().ends_with(&end), "{:?}", owner.events());
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(
        (&far).read(&mut [0]).unwrap(),
        0,
        "a copy of the files is still open"
    );
}

#[test]
fn says_why_a_request_was_refused() {
    let mut front_end = TestFrontEnd::new(VERSION_1 | PROTOCOL_FEATURES);
    // The front-end of the crate does not wait for an answer to this one.
    let log = VhostUserProtocolFeatures::LOG_SHMFD;
    front_end.frontend.set_protocol_features(log).unwrap();
    let (_, result) = front_end.leave();
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("SET_PROTOCOL_FEATURES with features that were not offered"),
        "{error}"
    );
}

#[test]
fn reports_what_the_vhost_crate_refuses() {
    let front_end = TestFrontEnd::new(VERSION_1 | PROTOCOL_FEATURES);
    front_end.frontend.set_features(1 << 63).unwrap_err();
    let (_, result) = front_end.leave();
    assert!(
        matches!(result, Err(ChannelError::Refused(_))),
        "{result:?}"
    );
}

#[test]
fn ends_when_the_front_end_closes_within_a_message() {
    use std::io::Write;
    let Serving {
        mut socket, thread, ..
    } = serve();
    socket.write_all(&[1, 0, 0, 0, 1]).unwrap();
    drop(socket);
    assert!(matches!(
        thread.join().unwrap(),
        Err(ChannelError::Message(_))
    ));
}

#[test]
fn takes_rings_back_when_the_future_is_dropped() {
    let (owner, device) = device();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_near, far) = tokio::net::UnixStream::pair().unwrap();
        let serving = serve_front_end(far, device);
        tokio::select! {
            biased;
            result = serving => panic!("ended: {result:?}"),
            () = std::future::ready(()) => {}
        }
    });
    assert_eq!(owner.events().last(), Some(&Event::Memory { regions: 0 }));
}

/// A message of a front-end that has read the specification but not for our good.
#[derive(Clone, Debug)]
struct HostileMessage {
    code: u32,
    need_reply: bool,
    body: Vec<u8>,
    files: usize,
}

/// Words that mean something somewhere: indices, sizes, addresses in and near guest memory.
fn any_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        Just(VERSION_1 | PROTOCOL_FEATURES),
        Just(128 << 32),
        Just(1 << 32),
        Just(MEMORY_BYTES),
        (0_u64..8).prop_map(|page| USER_ADDRESS + 0x1000 * page),
        Just(USER_ADDRESS),
        any::<u64>(),
    ]
}

fn any_message() -> impl Strategy<Value = HostileMessage> {
    let body = prop::collection::vec(any_word(), 0..9);
    (0_u32..45, any::<bool>(), body, 0_usize..3).prop_map(|(code, need_reply, words, files)| {
        let body = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        HostileMessage {
            code,
            need_reply,
            body,
            files,
        }
    })
}

/// What a well-behaved front-end starts with, so that the rest reaches deeper.
fn opening() -> Vec<HostileMessage> {
    let message = |code, words: &[u64], files| {
        let body = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        HostileMessage {
            code,
            need_reply: false,
            body,
            files,
        }
    };
    vec![
        message(3, &[], 0),
        message(1, &[], 0),
        message(16, &[protocol_features().bits()], 0),
        message(2, &[VERSION_1 | PROTOCOL_FEATURES], 0),
        message(5, &[1, 0, MEMORY_BYTES, USER_ADDRESS, 0], 1),
        message(8, &[128 << 32], 0),
        message(
            9,
            &[
                0,
                USER_ADDRESS,
                USER_ADDRESS + 0x3000,
                USER_ADDRESS + 0x2000,
                0,
            ],
            0,
        ),
        message(12, &[0], 1),
        message(18, &[1 << 32], 0),
    ]
}

fn send(socket: &UnixStream, message: &HostileMessage) -> bool {
    let flags = if message.need_reply { 9 } else { 1 };
    let header = [
        message.code,
        flags,
        u32::try_from(message.body.len()).unwrap(),
    ]
    .map(u32::to_ne_bytes);
    let bytes = [header.as_flattened(), &message.body].concat();
    let files: Vec<OwnedFd> = (0..message.files)
        .map(|_| {
            let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&file, MEMORY_BYTES).unwrap();
            file
        })
        .collect();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn survives_any_messages_and_takes_back_what_it_gave(
        polite in any::<bool>(),
        messages in prop::collection::vec(any_message(), 0..20),
    ) {
        let Serving { owner, socket, thread } = serve();
        let opening = if polite { opening() } else { Vec::new() };
        for message in opening.iter().chain(&messages) {
            if !send(&socket, message) {
                break;
            }
        }
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = thread.join().unwrap();
        let events = owner.events();
        let starts = events.iter().filter(|e| matches!(e, Event::Start { .. })).count();
        let stops = events.iter().filter(|e| matches!(e, Event::Stop(_))).count();
        prop_assert_eq!(starts, stops);
        prop_assert_eq!(events.last(), Some(&Event::Memory { regions: 0 }));
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        use std::io::Write;
        let Serving { mut socket, thread, .. } = serve();
        // The connection may be closed on us before all was written.
        let _ = socket.write_all(&bytes);
        drop(socket);
        let _ = thread.join().unwrap();
    }
}
