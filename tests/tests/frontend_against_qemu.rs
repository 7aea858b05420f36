//! The front-end client itself, judged by QEMU's own vhost-user-blk export.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs::File;
use std::path::Path;

use tempfile::TempDir;
use vhost_user_iscsi_tests::frontend::spec::{
    DRIVER_FEATURES, F_EVENT_IDX, S_IOERR, S_OK, S_UNSUPP, SECTOR_BYTES,
};
use vhost_user_iscsi_tests::frontend::{
    Frontend, FrontendConfig, IO_LIMIT, Layout, Notifications, Request,
};
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::qemu::StorageDaemon;

const DISK_BYTES: u64 = 64 << 20;
const DISK_SECTORS: u64 = DISK_BYTES / SECTOR_BYTES as u64;

/// An image and the daemon that exports it.
struct Disk {
    daemon: StorageDaemon,
    _directory: TempDir,
}

impl Disk {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let daemon = StorageDaemon::start(directory.path(), &image, 4);
        Self {
            daemon,
            _directory: directory,
        }
    }

    fn socket(&self) -> &Path {
        self.daemon.socket()
    }

    fn connect(&self, config: FrontendConfig) -> Frontend {
        Frontend::connect(self.socket(), config).unwrap()
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

#[test]
fn config_tells_capacity_and_queues() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    let config = frontend.block_config().unwrap();
    assert_eq!(config.capacity_sectors, DISK_SECTORS);
    assert_eq!(config.num_queues, 4);
    assert_eq!(frontend.queue_limit(), 4);
}

#[test]
fn every_request_type_is_answered() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    let queue = frontend.queue(0);
    let data = pattern(8192);
    assert_eq!(queue.write(8, &data).unwrap(), S_OK);
    assert_eq!(queue.flush().unwrap(), S_OK);
    assert_eq!(queue.read(8, 8192).unwrap(), (S_OK, data));
    assert_eq!(queue.write_zeroes(8, 8, false).unwrap(), S_OK);
    assert_eq!(queue.read(8, 4096).unwrap(), (S_OK, vec![0; 4096]));
    assert_eq!(queue.discard(16, 8).unwrap(), S_OK);
    let (status, id) = queue.get_id().unwrap();
    assert_eq!((status, &id[..14]), (S_OK, &b"vhost_user_blk"[..]));
}

#[test]
fn failures_have_their_status() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    let queue = frontend.queue(0);
    assert_eq!(queue.read(DISK_SECTORS, 512).unwrap().0, S_IOERR);
    let unknown = queue.run(Request::bare(99), &Layout::merged()).unwrap();
    assert_eq!(unknown.status, S_UNSUPP);
}

/// Usual and unusual layouts of one request.
fn layouts(request: &Request) -> Vec<Layout> {
    let usual = Layout::usual(request);
    let segments = Layout::data_in_segments(request, 1000);
    vec![
        usual.clone(),
        usual.clone().indirect(),
        usual.across_border(),
        segments.clone(),
        segments.clone().indirect(),
        segments.across_border(),
        Layout::merged(),
        Layout::every(request, 7),
    ]
}

#[test]
fn legal_layouts_carry_the_same_bytes() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig {
        queue_size: 256,
        ..Default::default()
    });
    let queue = frontend.queue(0);
    let data = pattern(1024);
    let (write, read) = (
        Request::write(100, data.as_slice()),
        Request::read(100, 1024),
    );
    for (out, back) in layouts(&write).iter().zip(&layouts(&read)) {
        assert_eq!(queue.write(100, &[0; 1024]).unwrap(), S_OK);
        let done = queue.run(write.clone(), out).unwrap();
        assert_eq!((done.status, done.written_bytes), (S_OK, 1), "{out:?}");
        let done = queue.run(read.clone(), back).unwrap();
        assert_eq!((done.status, done.data), (S_OK, data.clone()), "{back:?}");
    }
}

#[test]
fn without_event_idx_and_without_notifications_requests_end_too() {
    let disk = Disk::new();
    for features_mask in [DRIVER_FEATURES, DRIVER_FEATURES & !F_EVENT_IDX] {
        for notifications in [Notifications::Wanted, Notifications::Suppressed] {
            let config = FrontendConfig {
                features_mask,
                notifications,
                ..Default::default()
            };
            let mut frontend = disk.connect(config);
            for sector in 0..300 {
                assert_eq!(
                    frontend.queue(0).write(sector, &pattern(512)).unwrap(),
                    S_OK
                );
            }
        }
    }
}

#[test]
fn a_stopped_ring_resumes_where_it_was() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(2));
    assert_eq!(frontend.queue(1).write(0, &pattern(512)).unwrap(), S_OK);
    let base = frontend.stop_queue(1).unwrap();
    assert_eq!(base, 1);
    let request = Request::read(0, 512);
    let layout = Layout::usual(&request);
    frontend.queue(1).submit(request, &layout).unwrap();
    frontend.start_queue(1, base).unwrap();
    frontend.queue(1).kick();
    assert_eq!(
        frontend.queue(1).wait_used(IO_LIMIT).unwrap().data,
        pattern(512)
    );
}

#[test]
fn a_front_end_that_left_can_come_back_with_its_rings() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    frontend.reconnect(disk.socket()).unwrap();
    assert_eq!(
        frontend.queue(0).read(0, 512).unwrap(),
        (S_OK, pattern(512))
    );
    frontend.reset().unwrap();
    assert_eq!(
        frontend.queue(0).read(0, 512).unwrap(),
        (S_OK, pattern(512))
    );
}

#[test]
fn the_model_agrees_with_a_disk_that_is_right() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::with_queues(4));
    random_mix(&mut frontend, &mut Model::zeroed(), &Mix::default());
}
