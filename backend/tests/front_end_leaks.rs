//! What one front-end after the other leaves behind in the process: nothing. Alone in its binary,
//! since it counts what the whole process has open.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_core::disk::facts::{BlockLimits, CommandWidth, Identity, LunFacts, Provisioning};
use iscsi_core::disk::record::DiskRecord;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_user_iscsi::device::{
    BlockDevice, DeviceSettings, RingOwner, RingSetup, serve_front_end,
};
use vhost_user_iscsi::guest_memory::GuestMemory;
use vmm_sys_util::eventfd::EventFd;

const FEATURES: u64 = 1 << 32 | 1 << 30;
const MEMORY_BYTES: u64 = 0x10_0000;
const USER_ADDRESS: u64 = 0x7f00_0000_0000;
const MEMORY_NAME: &str = "leak-test-guest";

/// Drops everything it is given.
struct Careless;

impl RingOwner for Careless {
    fn start_ring(&self, _setup: RingSetup) {}
    fn stop_ring(&self, _index: u16) -> u16 {
        0
    }
    fn set_call(&self, _index: u16, _call: Option<OwnedFd>) {}
    fn set_kick(&self, _index: u16, _kick: OwnedFd) {}
    fn set_memory(&self, _memory: Arc<GuestMemory>) {}
    fn set_writeback(&self, _writeback: bool) {}
    fn take_over(&self, _disk: DiskRecord) {}
}

fn device() -> Arc<BlockDevice> {
    let facts = LunFacts {
        identity: Identity {
            designators: Vec::new(),
            serial: b"S1".to_vec(),
            block_length_bytes: 512,
        },
        vendor: String::new(),
        product: String::new(),
        revision: String::new(),
        block_length_bytes: 512,
        capacity_blocks: 2048,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        write_protected: false,
        write_cache: true,
        fua: true,
        width: CommandWidth::Sixteen,
        sync_cache: CommandWidth::Sixteen,
        provisioning: Provisioning::default(),
        limits: BlockLimits::default(),
        rotates: None,
    };
    let settings = DeviceSettings {
        num_queues: 4,
        queue_size: 128,
        read_only: false,
    };
    Arc::new(BlockDevice::new(facts, settings, Arc::new(Careless)))
}

/// One front-end that shares memory, starts a ring, and leaves without a word.
fn come_and_go(socket: UnixStream) {
    let mut frontend = Frontend::from_stream(socket, 4);
    frontend.set_owner().unwrap();
    frontend.get_features().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_features(FEATURES).unwrap();
    let memory = memfd_create(MEMORY_NAME, MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, MEMORY_BYTES).unwrap();
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: MEMORY_BYTES,
        userspace_addr: USER_ADDRESS,
        mmap_offset: 0,
        mmap_handle: memory.as_raw_fd(),
    };
    frontend.set_mem_table(&[region]).unwrap();
    let config = VringConfigData {
        queue_max_size: 128,
        queue_size: 128,
        flags: 0,
        desc_table_addr: USER_ADDRESS + 0x1000,
        avail_ring_addr: USER_ADDRESS + 0x2000,
        used_ring_addr: USER_ADDRESS + 0x3000,
        log_addr: None,
    };
    frontend.set_vring_num(0, 128).unwrap();
    frontend.set_vring_addr(0, &config).unwrap();
    frontend
        .set_vring_call(0, &EventFd::new(0).unwrap())
        .unwrap();
    frontend
        .set_vring_err(0, &EventFd::new(0).unwrap())
        .unwrap();
    frontend
        .set_vring_kick(0, &EventFd::new(0).unwrap())
        .unwrap();
    frontend.set_vring_enable(0, true).unwrap();
    // Answered, so everything before was handled.
    frontend.get_queue_num().unwrap();
}

fn serve_once(runtime: &tokio::runtime::Runtime, device: &Arc<BlockDevice>) {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let front_end = std::thread::spawn(move || come_and_go(near));
    runtime
        .block_on(async {
            let far = tokio::net::UnixStream::from_std(far).unwrap();
            serve_front_end(far, Arc::clone(device)).await
        })
        .unwrap();
    front_end.join().unwrap();
}

/// Open files, mappings of guest memory, daemon threads.
fn census() -> io::Result<(usize, usize, usize)> {
    let files = fs::read_dir("/proc/self/fd")?.count();
    let maps = fs::read_to_string("/proc/self/maps")?
        .matches(MEMORY_NAME)
        .count();
    let threads = fs::read_dir("/proc/self/task")?
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim_end() == "vhost-user")
        .count();
    Ok((files, maps, threads))
}

/// Waits until the census is as expected, up to ten seconds: a thread that was joined may be listed
/// for a moment longer.
fn assert_settles(expected: impl Fn((usize, usize, usize)) -> bool) -> (usize, usize, usize) {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let found = census().unwrap();
        if expected(found) {
            return found;
        }
        assert!(
            Instant::now() < limit,
            "files, mappings, threads: {found:?}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn front_ends_leave_no_files_mappings_or_threads_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let device = device();
    serve_once(&runtime, &device);
    let after_one = assert_settles(|(_, maps, threads)| (maps, threads) == (0, 0));
    for _ in 0..20 {
        serve_once(&runtime, &device);
    }
    assert_settles(|found| found == after_one);
}
