//! What the guest does not notice.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use vhost_user_iscsi_tests::disk::Disk;
use vhost_user_iscsi_tests::tgt::{LunOptions, Tgt};
use vhost_user_iscsi_tests::wait;

use super::run::Launch;

/// How long the guest may take to write that much.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
/// Half a KiB each, as stat counts them.
const BLOCKS_OF_16_MIB: u64 = 32 << 10;

/// Waits until the guest has written 16 MiB more into the LUN's file.
fn wait_for_load(disk: &Disk) {
    let file = disk.tgt.lun_file(&disk.target, 1);
    let written = || std::fs::metadata(&file).unwrap().blocks();
    let wanted = written() + BLOCKS_OF_16_MIB;
    let reached = wait::until(LOAD_LIMIT, || (written() >= wanted).then_some(()));
    assert!(reached.is_some(), "the guest does not write");
}

#[test]
fn a_target_killed_and_started_again_under_load_is_a_pause() {
    let mut tgt = Tgt::start();
    let target = tgt.disk(512 << 20, &LunOptions::default());
    let mut disk = Disk::serve(tgt, target, &[]);
    let guest = Launch::new(&[disk.daemon.socket()])
        .args(&["--with-fio", "--vcpus", "2"])
        .script("fio-verify")
        .start();
    for _ in 0..2 {
        wait_for_load(&disk);
        disk.tgt.restart();
    }
    let printed = guest.finish();
    assert!(printed.contains("fio verified raw"), "{printed}");
    assert!(printed.contains("fio verified ext4"), "{printed}");
}
