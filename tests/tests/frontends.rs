//! Front-ends come and go; the daemon's socket, and its end.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{Launch, run};
use vhost_user_iscsi_tests::disk::{DISK_BYTES, Disk, pattern};
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{
    Frontend, FrontendConfig, IO_LIMIT, Layout, Queue, Request, connect_raw, is_closed_within,
};
use vhost_user_iscsi_tests::tgt::{LunOptions, Target, Tgt};

/// For what should happen at once.
const SOON: Duration = Duration::from_secs(10);
/// The promise for SIGTERM.
const TERM_LIMIT: Duration = Duration::from_secs(2);
/// Exit code for a refused secret file or socket path (`docs/operating.md`).
const EXIT_SOCKET_PATH: i32 = 13;

fn works(frontend: &mut Frontend) {
    assert_eq!(frontend.queue(0).write(3, &pattern(1024)).unwrap(), S_OK);
    assert_eq!(
        frontend.queue(0).read(3, 1024).unwrap(),
        (S_OK, pattern(1024))
    );
}

/// Leaves requests of 64 KiB in flight on every queue.
fn load(frontend: &mut Frontend) {
    for queue in frontend.queues() {
        for at in 0..8 {
            let request = Request::write(at * 128, pattern(65536));
            queue.submit(request, &Layout::merged()).unwrap();
        }
    }
}

fn target() -> (Tgt, Target) {
    let mut tgt = Tgt::start();
    let target = tgt.disk(DISK_BYTES, &LunOptions::default());
    (tgt, target)
}

#[test]
fn a_second_front_end_is_closed_and_the_first_goes_on() {
    let disk = Disk::new();
    let mut first = disk.connect(FrontendConfig::default());
    let second = connect_raw(disk.daemon.socket()).unwrap();
    assert!(
        is_closed_within(&second, SOON),
        "the second front-end was kept waiting"
    );
    disk.daemon.wait_log("second front-end", SOON);
    works(&mut first);
}

#[test]
fn the_next_front_end_is_served_when_one_has_left() {
    let disk = Disk::new();
    for _ in 0..20 {
        works(&mut disk.connect(FrontendConfig::default()));
    }
}

#[test]
fn the_socket_is_neither_removed_nor_bound_anew_between_front_ends() {
    let disk = Disk::new();
    let inode = || {
        fs::metadata(disk.daemon.socket())
            .map(|meta| inode_of(&meta))
            .unwrap()
    };
    let before = inode();
    for _ in 0..3 {
        works(&mut disk.connect(FrontendConfig::default()));
        assert_eq!(inode(), before);
    }
}

fn inode_of(meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    meta.ino()
}

#[test]
fn a_connection_that_says_nothing_and_leaves_harms_nothing() {
    let disk = Disk::new();
    for _ in 0..5 {
        drop(connect_raw(disk.daemon.socket()).unwrap());
    }
    let mut served = None;
    for _ in 0..50 {
        served = Frontend::connect(disk.daemon.socket(), FrontendConfig::default()).ok();
        if served.is_some() {
            break;
        }
    }
    works(&mut served.expect("a front-end is served in the end"));
}

#[test]
fn data_outlives_the_front_end_that_wrote_it() {
    let disk = Disk::new();
    let mut first = disk.connect(FrontendConfig::default());
    assert_eq!(first.queue(0).write(3, &pattern(1024)).unwrap(), S_OK);
    drop(first);
    let mut second = disk.connect(FrontendConfig::default());
    assert_eq!(
        second.queue(0).read(3, 1024).unwrap(),
        (S_OK, pattern(1024))
    );
}

#[test]
fn a_front_end_that_is_gone_in_the_middle_of_requests_harms_nothing() {
    let disk = Disk::new();
    for _ in 0..10 {
        load(&mut disk.connect(FrontendConfig::with_queues(4)));
    }
    works(&mut disk.connect(FrontendConfig::with_queues(4)));
}

#[test]
fn a_stopped_ring_has_nothing_in_flight_and_resumes() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    load(&mut frontend);
    let base = frontend.stop_queue(2).unwrap();
    let queue = frontend.queue(2);
    let left = queue.ring().available_index().wrapping_sub(base);
    let mut answered = 0;
    while queue.poll_used().unwrap().is_some() {
        answered += 1;
    }
    assert_eq!(
        answered + left,
        8,
        "requests taken from the ring are answered before it stops"
    );
    frontend.start_queue(2, base).unwrap();
    frontend.queue(2).kick();
    while frontend.queue(2).in_flight() > 0 {
        assert_eq!(frontend.queue(2).wait_used(IO_LIMIT).unwrap().status, S_OK);
    }
}

/// QEMU does so when a region changes its size.
#[test]
fn a_ring_whose_memory_leaves_for_a_while_goes_on_where_it_was() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    for _ in 0..20 {
        load(&mut frontend);
        // The rings are in the first.
        frontend.remove_region(0).unwrap();
        frontend.ping().unwrap();
        frontend.queues().iter().for_each(Queue::kick);
        frontend.add_region(0).unwrap();
        for queue in frontend.queues() {
            while queue.in_flight() > 0 {
                assert_eq!(queue.wait_used(IO_LIMIT).unwrap().status, S_OK);
            }
        }
    }
    works(&mut frontend);
}

#[test]
fn a_reset_under_load_ends_and_the_disk_goes_on() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    for _ in 0..5 {
        load(&mut frontend);
        frontend.reset().unwrap();
        works(&mut frontend);
    }
}

#[test]
fn a_ring_stops_although_the_target_is_silent() {
    let mut disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    works(&mut frontend);
    disk.tgt.pause();
    load(&mut frontend);
    frontend.stop_queue(0).unwrap();
}

/// SIGTERM must end the daemon with exit code 0 within the promised time.
fn ends_on_sigterm(disk: &mut Disk) {
    let (status, took) = disk.daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{:#?}", disk.daemon.log());
    assert!(took <= TERM_LIMIT, "it took {took:?}");
}

#[test]
fn sigterm_ends_an_idle_daemon() {
    ends_on_sigterm(&mut Disk::new());
}

#[test]
fn sigterm_logs_out_all_sessions() {
    let mut disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    works(&mut frontend);
    assert!(disk.tgt.sessions() > 0, "{}", disk.tgt.show());
    ends_on_sigterm(&mut disk);
    let gone =
        vhost_user_iscsi_tests::wait::until(SOON, || (disk.tgt.sessions() == 0).then_some(()));
    assert!(gone.is_some(), "{}", disk.tgt.show());
}

#[test]
fn sigterm_ends_a_daemon_under_load() {
    let mut disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    load(&mut frontend);
    ends_on_sigterm(&mut disk);
}

#[test]
fn sigterm_ends_a_daemon_whose_target_was_killed() {
    let mut disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    works(&mut frontend);
    disk.tgt.kill();
    load(&mut frontend);
    ends_on_sigterm(&mut disk);
}

#[test]
fn sigterm_ends_a_daemon_whose_target_is_silent() {
    let mut disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    works(&mut frontend);
    disk.tgt.pause();
    load(&mut frontend);
    ends_on_sigterm(&mut disk);
}

#[test]
fn an_inherited_listening_socket_is_served_again_and_again() {
    let (tgt, target) = target();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let mut daemon = Launch::over(&tgt.url(&target, 1), listener).start();
    for _ in 0..3 {
        works(&mut Frontend::connect(&path, FrontendConfig::default()).unwrap());
    }
    assert!(daemon.is_running());
}

#[test]
fn an_inherited_connected_socket_is_served_once() {
    let (tgt, target) = target();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut daemon = Launch::over(&tgt.url(&target, 1), theirs).start();
    works(&mut Frontend::over(ours, FrontendConfig::default()).unwrap());
    assert_eq!(
        daemon.wait_exit(SOON).code(),
        Some(0),
        "{:#?}",
        daemon.log()
    );
}

#[test]
fn a_stale_socket_is_replaced() {
    let (tgt, target) = target();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.sock");
    drop(UnixListener::bind(&path).unwrap());
    let daemon = Launch::at(&tgt.url(&target, 1), &path).start();
    works(&mut daemon.connect(FrontendConfig::default()));
}

#[test]
fn a_killed_daemon_can_be_started_again_at_the_same_path() {
    let (tgt, target) = target();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.sock");
    for _ in 0..3 {
        let mut daemon = Launch::at(&tgt.url(&target, 1), &path).start();
        works(&mut daemon.connect(FrontendConfig::default()));
        daemon.kill();
    }
}

fn refused(url: &str, path: &Path) -> String {
    let output = run(&["--socket-path", path.to_str().unwrap(), "--blk-file", url]);
    assert_eq!(output.code, Some(EXIT_SOCKET_PATH), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    output.stderr
}

#[test]
fn a_path_with_a_live_owner_is_refused_before_any_login() {
    let disk = Disk::new();
    let before = disk.tgt.sessions();
    refused(&disk.tgt.url(&disk.target, 1), disk.daemon.socket());
    assert_eq!(disk.tgt.sessions(), before);
    works(&mut disk.connect(FrontendConfig::default()));
}

#[test]
fn what_is_not_a_socket_is_not_replaced() {
    let (tgt, target) = target();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    refused(&tgt.url(&target, 1), &path);
    assert_eq!(fs::read(&path).unwrap(), b"data");
}

#[test]
fn a_missing_directory_is_refused() {
    let (tgt, target) = target();
    let directory = TempDir::new().unwrap();
    let message = refused(
        &tgt.url(&target, 1),
        &directory.path().join("missing/disk.sock"),
    );
    assert!(message.contains("missing"), "{message}");
}

/// A path of exactly `length` bytes inside `directory`.
fn path_of(directory: &Path, length: usize) -> PathBuf {
    let name = length - directory.as_os_str().len() - 1;
    directory.join("s".repeat(name))
}

#[test]
fn a_socket_path_has_at_most_107_bytes() {
    let (tgt, target) = target();
    let directory = TempDir::new().unwrap();
    let longest = path_of(directory.path(), 107);
    let daemon = Launch::at(&tgt.url(&target, 1), &longest).start();
    works(&mut daemon.connect(FrontendConfig::default()));
    let message = refused(&tgt.url(&target, 1), &path_of(directory.path(), 108));
    assert!(message.contains("107"), "{message}");
}

#[test]
fn the_socket_has_the_mode_that_was_asked_for() {
    for (arguments, mode) in [(&[][..], 0o660), (&["--socket-mode", "0606"], 0o606)] {
        let disk = Disk::with(&LunOptions::default(), arguments);
        let meta = fs::metadata(disk.daemon.socket()).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, mode);
    }
}

/// A group that is not the one that files get by themselves, where this user may choose one.
fn another_group() -> u32 {
    let own = rustix::process::getegid();
    let mut groups = rustix::process::getgroups().unwrap();
    groups.retain(|group| *group != own);
    match groups.first() {
        _ if rustix::process::geteuid().is_root() => own.as_raw() + 1,
        Some(group) => group.as_raw(),
        None => own.as_raw(),
    }
}

#[test]
fn the_socket_has_the_group_that_was_asked_for() {
    let group = another_group();
    let disk = Disk::with(
        &LunOptions::default(),
        &["--socket-group", &group.to_string()],
    );
    let meta = fs::metadata(disk.daemon.socket()).unwrap();
    assert_eq!(meta.gid(), group);
}

#[test]
fn an_inherited_socket_that_is_not_connected_is_refused() {
    use rustix::net::{AddressFamily, SocketType, socket};
    let (tgt, target) = target();
    let idle: OwnedFd = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let mut daemon = Launch::over(&tgt.url(&target, 1), idle).spawn();
    assert_eq!(
        daemon.wait_exit(SOON).code(),
        Some(2),
        "{:#?}",
        daemon.log()
    );
    daemon.wait_log("neither listening nor connected", SOON);
}
