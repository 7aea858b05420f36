//! Every request type of virtio-blk against the daemon and tgt.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use vhost_user_iscsi_tests::disk::{DISK_BYTES, Disk, pattern};
use vhost_user_iscsi_tests::frontend::spec::{
    DRIVER_FEATURES, F_CONFIG_WCE, F_DISCARD, F_FLUSH, F_RO, F_WRITE_ZEROES, FLAG_UNMAP, S_IOERR,
    S_OK, S_UNSUPP, SECTOR_BYTES, T_DISCARD, T_WRITE_ZEROES,
};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, Layout, Request};
use vhost_user_iscsi_tests::tgt::LunOptions;

const DISK_SECTORS: u64 = DISK_BYTES / SECTOR_BYTES as u64;

fn status_of(frontend: &mut Frontend, request: Request) -> u8 {
    let layout = Layout::usual(&request);
    frontend.queue(0).run(request, &layout).unwrap().status
}

#[test]
fn reads_what_it_wrote() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    let queue = frontend.queue(0);
    for (sector, length) in [(0, 512), (1, 4096), (77, 65536), (DISK_SECTORS - 1, 512)] {
        let data = pattern(length);
        assert_eq!(queue.write(sector, &data).unwrap(), S_OK);
        let length_bytes = u32::try_from(length).unwrap();
        assert_eq!(queue.read(sector, length_bytes).unwrap(), (S_OK, data));
    }
}

#[test]
fn the_used_length_counts_data_and_status() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    let queue = frontend.queue(0);
    let done = queue
        .run(Request::read(0, 4096), &Layout::merged())
        .unwrap();
    assert_eq!((done.status, done.written_bytes), (S_OK, 4097));
    let done = queue
        .run(Request::write(0, pattern(4096)), &Layout::merged())
        .unwrap();
    assert_eq!((done.status, done.written_bytes), (S_OK, 1));
}

#[test]
fn data_is_in_the_lun_after_a_flush() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    assert_eq!(frontend.queue(0).write(9, &pattern(512)).unwrap(), S_OK);
    assert_eq!(frontend.queue(0).flush().unwrap(), S_OK);
    let stored = std::fs::read(disk.tgt.lun_file(&disk.target, 1)).unwrap();
    assert_eq!(stored[9 * 512..10 * 512], pattern(512));
}

#[test]
fn a_driver_without_flush_may_still_write() {
    let disk = Disk::new();
    let features_mask = DRIVER_FEATURES & !F_FLUSH & !F_CONFIG_WCE;
    let mut frontend = disk.connect(FrontendConfig {
        features_mask,
        ..Default::default()
    });
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    assert_eq!(
        frontend.queue(0).read(0, 512).unwrap(),
        (S_OK, pattern(512))
    );
}

#[test]
fn writeback_can_be_switched_while_requests_run() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    for on in [false, true] {
        frontend.set_writeback(on).unwrap();
        assert_eq!(frontend.block_config().unwrap().writeback, u8::from(on));
        assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    }
}

#[test]
fn get_id_is_the_serial_of_the_lun() {
    let options = LunOptions {
        serial: Some("S3R1AL".into()),
        ..LunOptions::default()
    };
    let disk = Disk::with(&options, &[]);
    let (status, id) = disk
        .connect(FrontendConfig::default())
        .queue(0)
        .get_id()
        .unwrap();
    assert_eq!(
        (status, id.as_slice()),
        (S_OK, &b"S3R1AL\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..])
    );
}

#[test]
fn get_id_is_the_serial_of_the_option() {
    let disk = Disk::with(&LunOptions::default(), &["--serial", "mine"]);
    let (status, id) = disk
        .connect(FrontendConfig::default())
        .queue(0)
        .get_id()
        .unwrap();
    assert_eq!((status, &id[..5]), (S_OK, &b"mine\0"[..]));
}

#[test]
fn discard_is_on_offer_for_a_thin_lun_only() {
    let thin = Disk::new().connect(FrontendConfig::default()).offered();
    let thick = Disk::with(&LunOptions::default(), &[]);
    let thick = thick.connect(FrontendConfig::default()).offered();
    assert_eq!((thin & F_DISCARD, thick & F_DISCARD), (F_DISCARD, 0));
    assert_eq!(
        (thin & F_WRITE_ZEROES, thick & F_WRITE_ZEROES),
        (F_WRITE_ZEROES, F_WRITE_ZEROES)
    );
}

#[test]
fn discard_leaves_its_neighbours_alone() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    let queue = frontend.queue(0);
    let data = pattern(24 * 512);
    assert_eq!(queue.write(0, &data).unwrap(), S_OK);
    assert_eq!(queue.discard(8, 8).unwrap(), S_OK);
    assert_eq!(queue.read(0, 8 * 512).unwrap().1, data[..8 * 512]);
    assert_eq!(queue.read(16, 8 * 512).unwrap().1, data[16 * 512..]);
}

#[test]
fn write_zeroes_zeroes_exactly_its_range() {
    for options in [
        LunOptions::default(),
        LunOptions {
            thin: true,
            ..LunOptions::default()
        },
    ] {
        let disk = Disk::with(&options, &[]);
        let mut frontend = disk.connect(FrontendConfig::default());
        for unmap in [false, true] {
            zeroes_exactly(&mut frontend, unmap);
        }
    }
}

fn zeroes_exactly(frontend: &mut Frontend, unmap: bool) {
    let queue = frontend.queue(0);
    let mut expected = pattern(24 * 512);
    assert_eq!(queue.write(0, &expected).unwrap(), S_OK);
    assert_eq!(queue.write_zeroes(7, 9, unmap).unwrap(), S_OK);
    expected[7 * 512..16 * 512].fill(0);
    assert_eq!(
        queue.read(0, 24 * 512).unwrap(),
        (S_OK, expected),
        "unmap {unmap}"
    );
}

#[test]
fn reserved_flags_are_unsupported() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    for flags in [2, 0x8000_0000, FLAG_UNMAP | 2] {
        let request = Request::ranges(T_WRITE_ZEROES, &[(0, 8, flags)]);
        assert_eq!(
            status_of(&mut frontend, request),
            S_UNSUPP,
            "flags {flags:#x}"
        );
    }
    // virtio 1.3, section 5.2.6.2: unmap belongs to write zeroes only.
    for flags in [FLAG_UNMAP, 2] {
        let request = Request::ranges(T_DISCARD, &[(0, 8, flags)]);
        assert_eq!(
            status_of(&mut frontend, request),
            S_UNSUPP,
            "flags {flags:#x}"
        );
    }
}

#[test]
fn unknown_types_are_unsupported() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    for kind in [2, 3, 5, 7, 9, 12, 14, 99, u32::MAX] {
        assert_eq!(
            status_of(&mut frontend, Request::bare(kind)),
            S_UNSUPP,
            "type {kind}"
        );
    }
}

#[test]
fn a_read_only_lun_refuses_every_change() {
    let options = LunOptions {
        read_only: true,
        ..LunOptions::default()
    };
    refuses_every_change(&Disk::with(&options, &[]));
}

#[test]
fn the_read_only_option_refuses_every_change() {
    refuses_every_change(&Disk::with(&LunOptions::default(), &["--read-only"]));
}

fn refuses_every_change(disk: &Disk) {
    let mut frontend = disk.connect(FrontendConfig::default());
    assert_eq!(frontend.offered() & F_RO, F_RO);
    assert_eq!(frontend.queue(0).read(0, 512).unwrap().0, S_OK);
    assert_eq!(
        status_of(&mut frontend, Request::write(0, pattern(512))),
        S_IOERR
    );
    let zeroes = Request::write_zeroes(0, 8, false);
    assert_ne!(status_of(&mut frontend, zeroes), S_OK);
}

#[test]
fn config_tells_capacity_and_is_padded_to_the_size_asked_for() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    let config = frontend.block_config().unwrap();
    assert_eq!(
        (config.capacity_sectors, config.blk_size_bytes),
        (DISK_SECTORS, 512)
    );
    let long = frontend.get_config(200).unwrap();
    assert_eq!(long[..60], frontend.get_config(60).unwrap());
    assert_eq!(long[100..], [0; 100]);
    assert_eq!(frontend.get_config(8).unwrap(), DISK_SECTORS.to_le_bytes());
}

#[test]
fn a_lun_with_4096_byte_blocks_is_addressed_in_sectors_of_512() {
    let options = LunOptions {
        block_bytes: Some(4096),
        ..LunOptions::default()
    };
    let disk = Disk::with(&options, &[]);
    let mut frontend = disk.connect(FrontendConfig::default());
    let config = frontend.block_config().unwrap();
    assert_eq!(
        (config.capacity_sectors, config.blk_size_bytes),
        (DISK_SECTORS, 4096)
    );
    assert_eq!(frontend.queue(0).write(16, &pattern(8192)).unwrap(), S_OK);
    assert_eq!(
        frontend.queue(0).read(24, 4096).unwrap(),
        (S_OK, pattern(8192)[4096..].to_vec())
    );
    assert_eq!(frontend.queue(0).read(1, 4096).unwrap().0, S_IOERR);
}
