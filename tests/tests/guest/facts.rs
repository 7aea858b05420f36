//! What the guest's kernel shows of a disk is what its LUN says.

use std::collections::BTreeMap;

use iscsi_test_target::{BlockLimits, LunConfig, TargetConfig, TestTarget, Thin};
use vhost_user_iscsi_tests::daemon::Daemon;
use vhost_user_iscsi_tests::disk::Disk;
use vhost_user_iscsi_tests::tgt::LunOptions;

use super::run::Launch;

/// Runs `facts` in a guest with four queues and compares lines of its output.
fn expect(daemon: &Daemon, wanted: &[&str]) {
    let printed = Launch::new(&[daemon.socket()])
        .args(&["--vcpus", "4", "--num-queues", "4"])
        .script("facts")
        .run();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|line| !printed.lines().any(|printed| printed == **line))
        .collect();
    assert!(missing.is_empty(), "not there: {missing:#?} in {printed}");
}

fn serve(lun: LunConfig) -> (TestTarget, Daemon) {
    let target = TestTarget::start(TargetConfig {
        luns: BTreeMap::from([(0, lun)]),
        ..TargetConfig::default()
    });
    let target = target.expect("a target");
    let daemon = Daemon::start(&target.url(0), &[]);
    (target, daemon)
}

#[test]
fn of_a_thin_lun_of_tgt() {
    let disk = Disk::with(
        &LunOptions {
            thin: true,
            serial: Some("tgt-0815".to_owned()),
            ..LunOptions::default()
        },
        &[],
    );
    let wanted = [
        "== queues: 4",
        "/dev/disk/by-id/virtio-tgt-0815 -> /dev/vda",
        "vda/serial=tgt-0815",
        "vda/size=131072",
        "vda/ro=0",
        "vda/queue/logical_block_size=512",
        "vda/queue/physical_block_size=4096",
        // tgt reports neither a granularity nor limits: one block, and the back-end's own limits.
        "vda/queue/discard_granularity=512",
        "vda/queue/discard_max_bytes=4294967296",
        "vda/queue/write_zeroes_max_bytes=33553920",
        "vda/queue/write_cache=write back",
    ];
    expect(&disk.daemon, &wanted);
}

#[test]
fn of_a_lun_with_4096_byte_blocks_and_limits_of_its_own() {
    let (_target, daemon) = serve(LunConfig {
        block_bytes: 4096,
        physical_exponent: 1,
        thin: Some(Thin::default()),
        serial: Some("  a serial longer than twenty  ".to_owned()),
        limits: BlockLimits {
            optimal_granularity_blocks: 4,
            optimal_transfer_blocks: 32,
            max_unmap_blocks: 1000,
            unmap_granularity_blocks: 16,
            max_write_same_blocks: 500,
            ..BlockLimits::default()
        },
        ..LunConfig::of_bytes(64 << 20)
    });
    let wanted = [
        "vda/size=131072",
        "vda/queue/logical_block_size=4096",
        "vda/queue/physical_block_size=8192",
        "vda/queue/minimum_io_size=16384",
        "vda/queue/optimal_io_size=131072",
        "vda/queue/discard_granularity=65536",
        "vda/queue/discard_max_bytes=4096000",
        "vda/queue/write_zeroes_max_bytes=2048000",
    ];
    expect(&daemon, &wanted);
}

#[test]
fn of_a_write_protected_thick_lun_without_a_cache() {
    let (_target, daemon) = serve(LunConfig {
        write_cache: false,
        write_protected: true,
        ..LunConfig::of_bytes(1 << 20)
    });
    let wanted = [
        "vda/size=2048",
        "vda/ro=1",
        "vda/queue/write_cache=write through",
        "vda/queue/discard_max_bytes=0",
    ];
    expect(&daemon, &wanted);
}
