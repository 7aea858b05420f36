//! A long random mix on several queues, judged by a model.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use vhost_user_iscsi_tests::disk::Disk;
use vhost_user_iscsi_tests::frontend::spec::{DRIVER_FEATURES, F_CONFIG_WCE, F_FLUSH};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, Notifications};
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::tgt::{Backing, LunOptions, Tgt};

const SEED: u64 = 0x15c51;
const STEPS: u64 = 3000;

fn thin() -> LunOptions {
    LunOptions {
        thin: true,
        ..LunOptions::default()
    }
}

fn four_queues() -> FrontendConfig {
    FrontendConfig {
        queues: 4,
        memory_bytes: 128 << 20,
        ..FrontendConfig::default()
    }
}

fn judged(frontend: &mut Frontend, mix: Mix) {
    random_mix(frontend, &mut Model::zeroed(), &mix);
}

fn mix() -> Mix {
    Mix {
        seed: SEED,
        steps: STEPS,
        ..Mix::default()
    }
}

#[test]
fn a_random_mix_on_four_queues_and_sessions() {
    let disk = Disk::with(&thin(), &["--sessions", "4"]);
    judged(&mut disk.connect(four_queues()), mix());
}

#[test]
fn a_random_mix_on_eight_queues_that_share_two_sessions() {
    let disk = Disk::with(&thin(), &["--sessions", "2"]);
    let config = FrontendConfig {
        queues: 8,
        ..four_queues()
    };
    judged(&mut disk.connect(config), mix());
}

#[test]
fn a_random_mix_on_one_queue_with_a_deep_ring() {
    let disk = Disk::with(&thin(), &[]);
    let config = FrontendConfig {
        queues: 1,
        queue_size: 1024,
        ..four_queues()
    };
    judged(
        &mut disk.connect(config),
        Mix {
            depth: 100,
            ..mix()
        },
    );
}

#[test]
fn a_random_mix_without_flush_or_notifications() {
    let disk = Disk::with(&thin(), &[]);
    let config = FrontendConfig {
        features_mask: DRIVER_FEATURES & !F_FLUSH & !F_CONFIG_WCE,
        notifications: Notifications::Suppressed,
        ..four_queues()
    };
    judged(
        &mut disk.connect(config),
        Mix {
            steps: 1000,
            ..mix()
        },
    );
}

#[test]
fn a_random_mix_with_both_digests() {
    let arguments = ["--header-digest", "crc32c", "--data-digest", "crc32c"];
    let mut tgt = Tgt::start();
    let target = tgt.disk(vhost_user_iscsi_tests::disk::DISK_BYTES, &thin());
    for key in ["HeaderDigest", "DataDigest"] {
        tgt.set(&target, key, "CRC32C,None");
    }
    let disk = Disk::serve(tgt, target, &arguments);
    judged(&mut disk.connect(four_queues()), mix());
}

#[test]
fn a_random_mix_with_4096_byte_blocks() {
    let options = LunOptions {
        block_bytes: Some(4096),
        ..thin()
    };
    let disk = Disk::with(&options, &[]);
    judged(
        &mut disk.connect(four_queues()),
        Mix {
            align_sectors: 8,
            ..mix()
        },
    );
}

#[test]
fn a_random_mix_on_an_aio_store_and_on_one_io_thread() {
    let aio = LunOptions {
        backing: Backing::Aio,
        ..LunOptions::default()
    };
    for (tgt, options) in [(Tgt::start(), aio), (Tgt::start_with_io_threads(1), thin())] {
        let disk = Disk::on(tgt, &options, &[]);
        judged(
            &mut disk.connect(four_queues()),
            Mix {
                steps: 1000,
                ..mix()
            },
        );
    }
}

#[test]
fn a_random_mix_with_every_negotiation_variant() {
    let variants: [&[(&str, &str)]; 6] = [
        &[("InitialR2T", "No")],
        &[("InitialR2T", "No"), ("ImmediateData", "No")],
        &[("ImmediateData", "No")],
        &[
            ("MaxOutstandingR2T", "8"),
            ("MaxBurstLength", "8192"),
            ("FirstBurstLength", "4096"),
        ],
        &[
            ("InitialR2T", "No"),
            ("FirstBurstLength", "512"),
            ("MaxBurstLength", "1024"),
        ],
        &[
            ("MaxRecvDataSegmentLength", "262144"),
            ("MaxBurstLength", "1048576"),
        ],
    ];
    for variant in variants {
        negotiates(variant);
    }
}

/// A shorter mix with longer requests, so that every one takes several bursts.
fn negotiates(variant: &[(&str, &str)]) {
    let mut tgt = Tgt::start();
    let target = tgt.disk(vhost_user_iscsi_tests::disk::DISK_BYTES, &thin());
    for (key, value) in variant {
        tgt.set(&target, key, value);
    }
    let disk = Disk::serve(tgt, target, &[]);
    let mix = Mix {
        steps: 400,
        max_sectors: 4096,
        ..mix()
    };
    judged(&mut disk.connect(four_queues()), mix);
}
