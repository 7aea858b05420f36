//! How a lane waits (asleep, awake, for company) decides when things happen, never what: a random
//! mix under every way of waiting, judged by the model, with enough in flight for all of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use iscsi_test_target::{LunConfig, TargetConfig};
use vhost_user_iscsi_tests::frontend::{FrontendConfig, Notifications};
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::served::{Served, one_lun};

/// The default, never, and the longest that there is.
const POLL_MAX_US: [&str; 3] = ["50", "0", "1000"];

/// Small requests come in crowds, large ones in pieces.
const MOST_SECTORS: [u32; 2] = [16, 2048];

fn holds(stay_awake: bool, arguments: &[&str], config: FrontendConfig) {
    let target = TargetConfig {
        stay_awake,
        ..one_lun(LunConfig::of_bytes(64 << 20))
    };
    let served = Served::with(target, arguments);
    let mut frontend = served.connect(config);
    let mut model = Model::zeroed();
    for (seed, max_sectors) in (1..).zip(MOST_SECTORS) {
        let mix = Mix {
            seed,
            steps: if max_sectors > 1000 { 300 } else { 3000 },
            range: 0..64 * 1024,
            max_sectors,
            depth: 96,
            ..Mix::default()
        };
        random_mix(&mut frontend, &mut model, &mix);
    }
}

fn deep(queues: u16) -> FrontendConfig {
    FrontendConfig {
        queues,
        queue_size: 1024,
        memory_bytes: 512 << 20,
        ..FrontendConfig::default()
    }
}

#[test]
fn on_one_queue_with_each_limit_of_polling() {
    for limit in POLL_MAX_US {
        holds(true, &["--poll-max-us", limit], deep(1));
    }
}

#[test]
fn with_a_target_that_sleeps() {
    for limit in POLL_MAX_US {
        holds(false, &["--poll-max-us", limit], deep(1));
    }
}

#[test]
fn on_four_queues_that_share_a_session_or_have_one_each() {
    for sessions in ["1", "4"] {
        holds(true, &["--sessions", sessions], deep(4));
    }
}

#[test]
fn with_a_driver_that_wants_no_notifications() {
    let config = FrontendConfig {
        notifications: Notifications::Suppressed,
        ..deep(2)
    };
    holds(true, &[], config);
}

#[test]
fn with_digests_over_all_of_it() {
    let arguments = ["--header-digest", "crc32c", "--data-digest", "crc32c"];
    holds(true, &arguments, deep(2));
}
