//! A random mix under every combination of negotiated keys that changes how data moves, judged by
//! the model; the target judges the rules.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use iscsi_test_target::{
    Delivery, DigestPolicy, Event, LunConfig, Negotiation, TargetConfig, Thin,
};
use vhost_user_iscsi_tests::frontend::FrontendConfig;
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::served::{Served, one_lun};

/// The part of the LUN that the mix uses.
const RANGE_SECTORS: u64 = 8192;

fn mix() -> Mix {
    Mix {
        seed: 0x7143,
        steps: 60,
        range: 0..RANGE_SECTORS,
        max_sectors: 1024,
        ..Mix::default()
    }
}

fn thin(block_bytes: u32) -> LunConfig {
    LunConfig {
        block_bytes,
        thin: Some(Thin::default()),
        ..LunConfig::default()
    }
}

fn config(negotiation: Negotiation, delivery: Delivery) -> TargetConfig {
    TargetConfig {
        negotiation,
        delivery,
        ..one_lun(thin(512))
    }
}

/// Two queues on two sessions work under this configuration; returns the target's and the
/// daemon's traces for a closer look.
fn works(config: TargetConfig, arguments: &[&str], mix: &Mix) -> Served {
    let served = Served::with(config, arguments);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    random_mix(&mut frontend, &mut Model::zeroed(), mix);
    drop(frontend);
    assert_eq!(served.target.violations(), [""; 0]);
    served
}

/// First and maximum burst, bytes.
const BURSTS: [(u32, u32); 3] = [(512, 1024), (8192, 65_536), (262_144, 1 << 20)];
const SEGMENTS: [Option<u32>; 4] = [Some(512), None, Some(8192), Some(262_144)];

/// Every InitialR2T × ImmediateData × MaxOutstandingR2T; bursts and segments vary along with them,
/// so that each of their pairs comes at least once.
fn writing(initial_r2t: bool, immediate_data: bool) {
    for (round, max_outstanding_r2t) in [1, 2, 4, 8].into_iter().enumerate() {
        for (first_burst_length, max_burst_length) in BURSTS {
            let segment = SEGMENTS[(round + usize::from(first_burst_length > 512)) % 4];
            let negotiation = Negotiation {
                initial_r2t,
                immediate_data,
                max_outstanding_r2t,
                first_burst_length,
                max_burst_length,
                max_recv_data_segment_length: segment,
                ..Negotiation::default()
            };
            let served = works(config(negotiation, Delivery::default()), &[], &mix());
            sends_as_agreed(&served, initial_r2t, immediate_data);
        }
    }
}

/// That data came in every way that was agreed on, and in no other.
fn sends_as_agreed(served: &Served, initial_r2t: bool, immediate_data: bool) {
    const UNSOLICITED: u32 = u32::MAX;
    let seen = |wanted: fn(&Event) -> bool| served.target.events().iter().any(wanted);
    let immediate = seen(
        |event| matches!(event, Event::Command { immediate_bytes, .. } if *immediate_bytes > 0),
    );
    let unsolicited = seen(|event| {
        matches!(
            event,
            Event::DataOut {
                target_transfer_tag: UNSOLICITED,
                ..
            }
        )
    });
    assert_eq!(immediate, immediate_data);
    assert!(!(unsolicited && initial_r2t));
    if !immediate_data {
        assert_eq!(unsolicited, !initial_r2t);
    }
}

#[test]
fn solicited_data_only() {
    writing(true, false);
}

#[test]
fn immediate_then_solicited_data() {
    writing(true, true);
}

#[test]
fn unsolicited_data_without_immediate() {
    writing(false, false);
}

#[test]
fn immediate_and_unsolicited_data() {
    writing(false, true);
}

#[test]
fn each_pair_of_digests_with_each_kind_of_data() {
    for (header, data) in [("none", "crc32c"), ("crc32c", "none"), ("crc32c", "crc32c")] {
        for initial_r2t in [false, true] {
            let negotiation = Negotiation {
                initial_r2t,
                max_recv_data_segment_length: Some(8192),
                first_burst_length: 16_384,
                max_burst_length: 65_536,
                ..Negotiation::default()
            };
            let arguments = ["--header-digest", header, "--data-digest", data];
            works(config(negotiation, Delivery::default()), &arguments, &mix());
        }
    }
}

#[test]
fn digests_that_the_target_requires_are_agreed_to_by_default() {
    let negotiation = Negotiation {
        header_digest: DigestPolicy::Require,
        data_digest: DigestPolicy::Require,
        ..Negotiation::default()
    };
    works(config(negotiation, Delivery::default()), &[], &mix());
}

/// Ways to deliver the same answers.
fn deliveries() -> [(&'static str, Delivery); 7] {
    let usual = Delivery::default;
    // RFC 7143 section 11.2.2: length in bytes without the first three, type, specific.
    let ahs = vec![0, 5, 0x3f, 0, 1, 2, 3, 4];
    [
        (
            "status apart",
            Delivery {
                status_with_data: false,
                ..usual()
            },
        ),
        (
            "tiny Data-In",
            Delivery {
                data_in_bytes: Some(512),
                ..usual()
            },
        ),
        (
            "odd Data-In",
            Delivery {
                data_in_bytes: Some(1001),
                ..usual()
            },
        ),
        (
            "small R2T",
            Delivery {
                r2t_bytes: Some(1024),
                ..usual()
            },
        ),
        (
            "pings",
            Delivery {
                ping_every_commands: Some(1),
                ..usual()
            },
        ),
        (
            "additional header",
            Delivery {
                additional_header: ahs,
                ..usual()
            },
        ),
        (
            "descriptor sense",
            Delivery {
                descriptor_sense: true,
                ..usual()
            },
        ),
    ]
}

#[test]
fn every_way_to_deliver_an_answer() {
    for (_what, delivery) in deliveries() {
        works(config(Negotiation::default(), delivery), &[], &mix());
    }
}

#[test]
fn every_way_to_deliver_an_answer_with_digests() {
    let arguments = ["--header-digest", "crc32c", "--data-digest", "crc32c"];
    for (_what, delivery) in deliveries() {
        works(config(Negotiation::default(), delivery), &arguments, &mix());
    }
}

#[test]
fn the_longest_additional_header_is_skipped() {
    let delivery = Delivery {
        additional_header: [[3, 0xfd, 0x3f, 0].as_slice(), &[0x5a; 1016]].concat(),
        ..Delivery::default()
    };
    works(config(Negotiation::default(), delivery), &[], &mix());
}

#[test]
fn command_windows_from_one_on() {
    for cmd_sn_window in [1, 2, 3, 32] {
        let negotiation = Negotiation {
            cmd_sn_window,
            ..Negotiation::default()
        };
        let deep = Mix { depth: 40, ..mix() };
        works(config(negotiation, Delivery::default()), &[], &deep);
    }
}

#[test]
fn blocks_of_4096_bytes() {
    let aligned = Mix {
        align_sectors: 8,
        ..mix()
    };
    works(one_lun(thin(4096)), &[], &aligned);
}

#[test]
fn a_login_answer_in_many_pieces() {
    for answer_chunk_bytes in [16, 100] {
        let negotiation = Negotiation {
            answer_chunk_bytes: Some(answer_chunk_bytes),
            ..Negotiation::default()
        };
        works(config(negotiation, Delivery::default()), &[], &mix());
    }
}

#[test]
fn keys_that_nobody_knows_are_no_obstacle() {
    let extra = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let negotiation = Negotiation {
        extra_keys: vec![
            extra("X-org.example.colour", "blue"),
            extra("TargetAlias", "the one in the cellar"),
        ],
        ..Negotiation::default()
    };
    works(config(negotiation, Delivery::default()), &[], &mix());
}
