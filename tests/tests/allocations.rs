//! The path of a request allocates nothing: every allocation of the data plane's threads is
//! counted while requests of every shape go through.
//!
//! For the counting allocator to see them, the back-end runs as threads of this process, started
//! as from the command line. It ends with the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use iscsi_test_target::{DigestPolicy, LunConfig, Negotiation, TargetConfig};
use vhost_user_iscsi::control::Initiator;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, one_lun, start_target};
use vhost_user_iscsi_tests::wait;

/// What the data plane's threads are called: `lane-` and a number.
const LANE: &[u8] = b"lane-";

/// How often a lane allocated, or changed the size of what it had.
static BY_LANES: AtomicU64 = AtomicU64::new(0);

struct Counting;

/// Counts if the present thread is a lane. Asks the kernel for its name: a thread-local would
/// allocate.
fn count() {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes 16 bytes at most.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    if name.starts_with(LANE) {
        BY_LANES.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is done by the system's allocator, as it was asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(memory) }
    }

    unsafe fn alloc_zeroed(&self, memory: Memory) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(memory) }
    }

    unsafe fn realloc(&self, at: *mut u8, memory: Memory, length_bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, memory, length_bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Serves `url` on a socket at `path` from threads of this process, until the process ends.
fn serve(url: &str, path: &Path, further: &[&str]) {
    let arguments = [
        "vhost-user-iscsi",
        "--initiator-name",
        INITIATOR_NAME,
        "--blk-file",
        url,
        "--socket-path",
        path.to_str().unwrap(),
    ];
    let arguments = arguments.iter().chain(further);
    let arguments: Vec<_> = arguments.map(std::ffi::OsString::from).collect();
    thread::spawn(move || {
        let system = vhost_user_iscsi::system::System::real();
        let ended =
            vhost_user_iscsi::cli::run(arguments, &system, &Initiator, &mut std::io::sink());
        panic!(
            "serving ended: {:?}",
            ended.map_err(|failure| failure.to_string())
        );
    });
    let listens = wait::until(SOON, || path.exists().then_some(()));
    listens.expect("a socket within ten seconds");
}

/// What a guest's driver sends: small and large, in one piece and in many, direct and indirect.
fn shapes() -> Vec<(Request, Layout)> {
    let mut shapes = Vec::new();
    for length_bytes in [512, 4096, 16 * 1024, 64 * 1024, 256 * 1024] {
        let read = Request::read(64, length_bytes);
        let write = Request::write(64, vec![7; length_bytes as usize]);
        for request in [read, write] {
            shapes.push((request.clone(), Layout::usual(&request)));
            let pages = Layout::data_in_segments(&request, 4096).indirect();
            shapes.push((request, pages));
        }
    }
    let flush = Request::flush();
    let layout = Layout::usual(&flush);
    shapes.push((flush, layout));
    shapes
}

/// Sends each shape many times at once, and waits for all answers.
fn round(frontend: &mut Frontend) -> u64 {
    const BATCH: usize = 24;
    let mut count = 0;
    for shape in shapes() {
        let queue = frontend.queue(0);
        queue.submit_batch(vec![shape; BATCH]).unwrap();
        for _ in 0..BATCH {
            let completion = queue.wait_used(IO_LIMIT).unwrap();
            assert_eq!(completion.status, 0);
            count += 1;
        }
    }
    count
}

fn allocations_per_run(negotiation: Negotiation, url_keys: &str, further: &[&str]) -> u64 {
    let target = start_target(TargetConfig {
        negotiation,
        ..one_lun(LunConfig::default())
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.sock");
    serve(&format!("{}{url_keys}", target.url(0)), &path, further);
    let config = FrontendConfig {
        queue_size: 1024,
        ..FrontendConfig::default()
    };
    let mut frontend = Frontend::connect(&path, config).unwrap();
    // The first requests make room that is kept.
    let before_all = BY_LANES.load(Ordering::Relaxed);
    for _ in 0..2 {
        round(&mut frontend);
    }
    let before = BY_LANES.load(Ordering::Relaxed);
    assert!(before > before_all, "the lanes' allocations are not seen");
    let requests: u64 = (0..4).map(|_| round(&mut frontend)).sum();
    assert!(requests > 2000);
    BY_LANES.load(Ordering::Relaxed) - before
}

/// One test, for the count is of the whole process.
#[test]
fn requests_allocate_nothing() {
    let usual = Negotiation::default;
    assert_eq!(allocations_per_run(usual(), "", &[]), 0);
    // So little that most requests are held for a moment.
    let limits = ["--iops-total", "2000", "--bps-read", "200MiB"];
    let limited = allocations_per_run(usual(), "", &limits);
    assert_eq!(limited, 0, "with limits");
    let digests = Negotiation {
        header_digest: DigestPolicy::Require,
        data_digest: DigestPolicy::Require,
        ..Negotiation::default()
    };
    let keys = "?header_digest=crc32c&data_digest=crc32c";
    assert_eq!(allocations_per_run(digests, keys, &[]), 0, "with digests");
}
