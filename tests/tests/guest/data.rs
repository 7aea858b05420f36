//! What is written comes back: raw, through a filesystem, over many queues, on two disks at once.

use vhost_user_iscsi_tests::daemon::Daemon;
use vhost_user_iscsi_tests::disk::Disk;
use vhost_user_iscsi_tests::tgt::{LunOptions, Tgt};

use super::run::Launch;

const LUN_BYTES: u64 = 512 << 20;

/// A disk with room for a filesystem.
pub(super) fn disk(options: &LunOptions, arguments: &[&str]) -> Disk {
    let mut tgt = Tgt::start();
    let target = tgt.disk(LUN_BYTES, options);
    Disk::serve(tgt, target, arguments)
}

fn thin() -> LunOptions {
    LunOptions {
        thin: true,
        ..LunOptions::default()
    }
}

#[test]
fn is_read_back_raw() {
    let disk = disk(&thin(), &[]);
    let script = "set -euo pipefail
        head -c 67108864 /dev/urandom >/tmp/data
        dd if=/tmp/data of=/dev/vda bs=1M oflag=direct conv=fsync status=none
        echo 3 >/proc/sys/vm/drop_caches
        dd if=/dev/vda bs=1M count=64 iflag=direct status=none | cmp - /tmp/data
        echo all the same";
    let printed = Launch::new(&[disk.daemon.socket()]).lines(script).run();
    assert!(printed.contains("all the same"), "{printed}");
}

#[test]
fn is_read_back_through_partition_and_filesystem() {
    let disk = disk(&thin(), &[]);
    let guest = Launch::new(&[disk.daemon.socket()]).script("partition-and-verify");
    let printed = guest.run();
    assert!(printed.contains("verified 8 files of 4 MiB"), "{printed}");
}

#[test]
fn keeps_its_checksums_over_four_queues() {
    let disk = disk(&thin(), &[]);
    let guest = Launch::new(&[disk.daemon.socket()])
        .args(&["--vcpus", "4", "--num-queues", "4", "--with-fio"])
        .script("fio-verify");
    let printed = guest.run();
    assert!(printed.contains("fio verified raw"), "{printed}");
    assert!(printed.contains("fio verified ext4"), "{printed}");
}

#[test]
fn of_two_disks_stays_apart() {
    let mut tgt = Tgt::start();
    let target = tgt.target("iqn.2026-11.test.example:two");
    for (lun, serial) in [(1, "first"), (2, "second")] {
        let serial = Some(serial.to_owned());
        let options = LunOptions {
            serial,
            ..LunOptions::default()
        };
        tgt.lun(&target, lun, 64 << 20, &options);
    }
    tgt.allow_all(&target);
    let daemons = [1, 2].map(|lun| Daemon::start(&tgt.url(&target, lun), &[]));
    let script = "set -euo pipefail
        for disk in first second; do
            yes $disk | head -c 33554432 | dd of=/dev/disk/by-id/virtio-$disk bs=1M oflag=direct iflag=fullblock conv=fsync status=none &
        done
        wait -n && wait -n
        echo 3 >/proc/sys/vm/drop_caches
        for disk in first second; do
            dd if=/dev/disk/by-id/virtio-$disk bs=1M count=32 iflag=direct status=none | cmp - <(yes $disk | head -c 33554432)
        done
        echo each disk has its own";
    let sockets = daemons.each_ref().map(Daemon::socket);
    let printed = Launch::new(&sockets).lines(script).run();
    assert!(printed.contains("each disk has its own"), "{printed}");
}

#[test]
fn is_zeroed_and_discarded_where_asked_and_nowhere_else() {
    let disk = disk(&thin(), &[]);
    let guest = Launch::new(&[disk.daemon.socket()])
        .env("DISCARD", "yes")
        .env("DISCARD_ZEROES", "yes");
    let printed = guest.script("discard").run();
    assert_eq!(printed.matches("are discarded").count(), 2, "{printed}");
}

#[test]
fn is_not_discarded_on_a_thick_disk() {
    let disk = disk(&LunOptions::default(), &[]);
    let guest = Launch::new(&[disk.daemon.socket()]).env("DISCARD", "no");
    let printed = guest.script("discard").run();
    assert!(printed.contains("discard is not offered"), "{printed}");
}

#[test]
fn of_a_read_only_disk_is_read_and_not_written() {
    let disk = disk(&thin(), &["--read-only"]);
    let script = "set -eu
        test \"$(cat /sys/block/vda/ro)\" = 1
        dd if=/dev/vda of=/dev/null bs=1M count=1 iflag=direct status=none
        ! dd if=/dev/zero of=/dev/vda bs=4096 count=1 oflag=direct status=none
        ! blkdiscard --force /dev/vda
        echo read only";
    let printed = Launch::new(&[disk.daemon.socket()]).lines(script).run();
    assert!(printed.contains("read only"), "{printed}");
}
