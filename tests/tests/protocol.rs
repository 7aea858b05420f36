//! What the guest sees of each thing a target may say about a LUN and a command, and what the
//! target sees of each thing a guest asks for.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use iscsi_test_target::{
    BlockLimits, CommandFault, Event, LunAddressing, LunConfig, Rule, Sense, TargetConfig, Thin,
    opcode,
};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{
    DRIVER_FEATURES, F_CONFIG_WCE, F_DISCARD, F_FLUSH, F_RO, S_IOERR, S_OK, S_UNSUPP,
};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig};
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, Served, one_lun, start_target};

const TIB: u64 = 1 << 40;

fn served(lun: LunConfig) -> Served {
    Served::new(one_lun(lun))
}

fn thin() -> LunConfig {
    LunConfig {
        thin: Some(Thin::default()),
        ..LunConfig::default()
    }
}

fn connect(served: &Served) -> Frontend {
    served.connect(FrontendConfig::default())
}

fn mix() -> Mix {
    Mix {
        steps: 200,
        range: 0..8192,
        ..Mix::default()
    }
}

/// A random mix sees no error and no wrong byte.
fn works(served: &Served) {
    random_mix(&mut connect(served), &mut Model::zeroed(), &mix());
}

/// Writes, reads and compares at a sector.
fn holds_data_at(frontend: &mut Frontend, sector: u64) {
    let queue = frontend.queue(0);
    assert_eq!(queue.write(sector, &pattern(4096)).unwrap(), S_OK);
    assert_eq!(queue.read(sector, 4096).unwrap(), (S_OK, pattern(4096)));
}

// ---- which LUN, which block ---------------------------------------------------------------------

#[test]
fn each_lun_address_reaches_its_own_lun() {
    let numbers = [0, 5, 255, 256, 16_383];
    for lun_addressing in [LunAddressing::Peripheral, LunAddressing::Flat] {
        let config = || TargetConfig {
            luns: numbers.map(|number| (number, LunConfig::default())).into(),
            lun_addressing,
            ..TargetConfig::default()
        };
        for number in numbers {
            let served = Served::from(start_target(config()), number, &[]);
            holds_data_at(&mut connect(&served), 8);
            for other in numbers {
                let mut stored = vec![0; 4096];
                served
                    .target
                    .disk(other)
                    .unwrap()
                    .read(8 * 512, &mut stored);
                assert_eq!(
                    stored == pattern(4096),
                    other == number,
                    "{number} or {other}"
                );
            }
        }
    }
}

#[test]
fn the_end_of_a_lun_beyond_2_tib_can_be_used() {
    for capacity_bytes in [2 * TIB, 2 * TIB + 4096, 8 * TIB] {
        let served = served(LunConfig::of_bytes(capacity_bytes));
        let mut frontend = connect(&served);
        let sectors = capacity_bytes / 512;
        assert_eq!(frontend.block_config().unwrap().capacity_sectors, sectors);
        holds_data_at(&mut frontend, sectors - 8);
        let before = served.commands(opcode::READ_16).len();
        assert_eq!(
            frontend.queue(0).read(sectors - 7, 4096).unwrap().0,
            S_IOERR
        );
        assert_eq!(frontend.queue(0).read(sectors, 512).unwrap().0, S_IOERR);
        assert_eq!(frontend.queue(0).read(1 << 55, 512).unwrap().0, S_IOERR);
        assert_eq!(served.commands(opcode::READ_16).len(), before);
    }
}

// ---- what the LUN limits or refuses -------------------------------------------------------------

/// NUMBER OF BLOCKS of a CDB with 16 bytes.
fn blocks(cdb: &[u8; 16]) -> u32 {
    u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]])
}

/// A LUN that takes 64 blocks with one command.
fn served_in_parts() -> Served {
    let limits = BlockLimits {
        max_transfer_blocks: 64,
        ..BlockLimits::default()
    };
    served(LunConfig {
        limits,
        ..LunConfig::default()
    })
}

#[test]
fn a_request_beyond_the_maximum_transfer_length_is_split_and_completed_once() {
    let served = served_in_parts();
    let mut frontend = connect(&served);
    let data = pattern(512 * 200);
    assert_eq!(frontend.queue(0).write(3, &data).unwrap(), S_OK);
    assert_eq!(frontend.queue(0).read(3, 512 * 200).unwrap(), (S_OK, data));
    assert_eq!(frontend.queue(0).in_flight(), 0);
    for opcode in [opcode::WRITE_16, opcode::READ_16] {
        let commands = served.commands(opcode);
        assert!(commands.iter().all(|cdb| blocks(cdb) <= 64), "{commands:?}");
        let written: u32 = commands.iter().map(blocks).sum();
        assert_eq!((commands.len(), written), (4, 200));
    }
    random_mix(
        &mut frontend,
        &mut Model::zeroed(),
        &Mix {
            range: 8192..16_384,
            ..mix()
        },
    );
}

fn refusing(opcodes: &[u8]) -> LunConfig {
    LunConfig {
        refused_opcodes: opcodes.to_vec(),
        ..thin()
    }
}

#[test]
fn a_lun_without_the_optional_commands_works() {
    for refused in [
        opcode::SERVICE_ACTION_IN_16,
        opcode::SYNCHRONIZE_CACHE_16,
        opcode::WRITE_SAME_16,
        opcode::REPORT_LUNS,
        opcode::MODE_SENSE_6,
        opcode::MODE_SENSE_10,
        opcode::TEST_UNIT_READY,
    ] {
        works(&served(refusing(&[refused])));
    }
}

#[test]
fn a_lun_without_the_optional_pages_works() {
    for page in [0x80, 0x83, 0xb0, 0xb1, 0xb2] {
        let lun = LunConfig {
            refused_vpd_pages: vec![page],
            ..thin()
        };
        works(&served(lun));
    }
}

#[test]
fn a_flush_without_synchronize_cache_16_uses_that_of_10_bytes() {
    let served = served(refusing(&[opcode::SYNCHRONIZE_CACHE_16]));
    let mut frontend = connect(&served);
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    assert_eq!(frontend.queue(0).flush().unwrap(), S_OK);
    assert!(!served.commands(opcode::SYNCHRONIZE_CACHE_10).is_empty());
}

#[test]
fn a_discard_that_the_target_refuses_after_all_is_unsupported_and_harms_nothing() {
    let served = served(refusing(&[opcode::UNMAP]));
    let mut frontend = connect(&served);
    assert_eq!(frontend.queue(0).discard(0, 8).unwrap(), S_UNSUPP);
    holds_data_at(&mut frontend, 0);
}

#[test]
fn zeroes_are_written_where_write_same_is_refused() {
    let served = served(refusing(&[opcode::WRITE_SAME_16, opcode::WRITE_SAME_10]));
    let mut frontend = connect(&served);
    let mut expected = pattern(512 * 400);
    assert_eq!(frontend.queue(0).write(0, &expected).unwrap(), S_OK);
    for unmap in [false, true] {
        assert_eq!(frontend.queue(0).write_zeroes(5, 300, unmap).unwrap(), S_OK);
    }
    expected[5 * 512..305 * 512].fill(0);
    assert_eq!(
        frontend.queue(0).read(0, 512 * 400).unwrap(),
        (S_OK, expected)
    );
}

#[test]
fn a_write_protected_lun_is_read_only() {
    let served = served(LunConfig {
        write_protected: true,
        ..LunConfig::default()
    });
    let mut frontend = connect(&served);
    assert_eq!(frontend.offered() & F_RO, F_RO);
    assert_eq!(frontend.queue(0).read(0, 512).unwrap().0, S_OK);
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_IOERR);
    assert!(served.commands(opcode::WRITE_16).is_empty());
}

#[test]
fn a_lun_that_becomes_write_protected_fails_writes_only() {
    let served = served(LunConfig::default());
    let mut frontend = connect(&served);
    served.target.set_write_protected(0, true);
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_IOERR);
    assert_eq!(frontend.queue(0).read(0, 512).unwrap().0, S_OK);
}

// ---- how a command ends -------------------------------------------------------------------------

const ATTENTIONS: [Sense; 4] = [
    Sense::RESET_OCCURRED,
    Sense::LUN_RESET_OCCURRED,
    Sense::CAPACITY_CHANGED,
    Sense::LUNS_CHANGED,
];

#[test]
fn unit_attentions_at_the_start_never_reach_the_guest() {
    for attentions in [ATTENTIONS.to_vec(), [ATTENTIONS[0]; 7].to_vec()] {
        let lun = LunConfig {
            unit_attentions: attentions,
            ..thin()
        };
        works(&served(lun));
    }
}

#[test]
fn unit_attentions_in_the_middle_never_reach_the_guest() {
    let served = served(thin());
    let mut frontend = connect(&served);
    let mut model = Model::zeroed();
    for (seed, sense) in (1..).zip(ATTENTIONS.into_iter().cycle().take(8)) {
        served.target.push_unit_attention_to_all(0, sense);
        served
            .target
            .push_unit_attention_to_all(0, sense.in_descriptor_format());
        let mix = Mix {
            seed,
            steps: 30,
            range: 0..2048,
            ..mix()
        };
        random_mix(&mut frontend, &mut model, &mix);
    }
}

#[test]
fn an_error_in_one_part_of_a_split_request_fails_the_whole_once() {
    let served = served_in_parts();
    let fault = CommandFault::check_condition(Sense::UNRECOVERED_READ);
    served
        .target
        .add(Rule::command(fault).opcode(opcode::READ_16).skip(1).once());
    let mut frontend = connect(&served);
    assert_eq!(frontend.queue(0).read(0, 512 * 256).unwrap().0, S_IOERR);
    holds_data_at(&mut frontend, 8);
}

// ---- what is stable when ------------------------------------------------------------------------

/// FUA of WRITE(16).
fn is_fua(cdb: &[u8; 16]) -> bool {
    cdb[1] & 0x08 != 0
}

/// The operation codes of everything that the guest's requests led to, with FUA writes marked.
fn sent_since(served: &Served) -> Vec<(u8, bool)> {
    let shown = |event| match event {
        Event::Command { cdb, .. } => Some((cdb[0], cdb[0] == opcode::WRITE_16 && is_fua(&cdb))),
        _ => None,
    };
    let sent = served
        .target
        .events()
        .into_iter()
        .filter_map(shown)
        .collect();
    served.target.clear_events();
    sent
}

fn without_flush() -> FrontendConfig {
    FrontendConfig {
        features_mask: DRIVER_FEATURES & !F_FLUSH & !F_CONFIG_WCE,
        ..FrontendConfig::default()
    }
}

const WRITE: (u8, bool) = (opcode::WRITE_16, false);
const FUA_WRITE: (u8, bool) = (opcode::WRITE_16, true);
const SYNC: (u8, bool) = (opcode::SYNCHRONIZE_CACHE_16, false);

#[test]
fn a_write_without_flush_negotiated_is_stable_when_it_completes() {
    for (dpo_fua, expected) in [(true, vec![FUA_WRITE]), (false, vec![WRITE, SYNC])] {
        let served = served(LunConfig {
            dpo_fua,
            ..LunConfig::default()
        });
        let mut frontend = served.connect(without_flush());
        served.target.clear_events();
        assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
        assert_eq!(sent_since(&served), expected, "DPOFUA {dpo_fua}");
    }
}

#[test]
fn writeback_off_makes_each_write_stable_and_on_again_does_not() {
    for (dpo_fua, expected) in [(true, vec![FUA_WRITE]), (false, vec![WRITE, SYNC])] {
        let served = served(LunConfig {
            dpo_fua,
            ..LunConfig::default()
        });
        let mut frontend = connect(&served);
        served.target.clear_events();
        for (on, expected) in [(true, vec![WRITE]), (false, expected), (true, vec![WRITE])] {
            frontend.set_writeback(on).unwrap();
            frontend.ping().unwrap();
            sent_since(&served);
            assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
            assert_eq!(
                sent_since(&served),
                expected,
                "writeback {on}, DPOFUA {dpo_fua}"
            );
        }
    }
}

#[test]
fn zeroes_without_flush_negotiated_are_stable_when_they_are_complete() {
    let served = served(thin());
    let mut frontend = served.connect(without_flush());
    served.target.clear_events();
    assert_eq!(frontend.queue(0).write_zeroes(0, 64, false).unwrap(), S_OK);
    let sent = sent_since(&served);
    assert_eq!(sent.last(), Some(&SYNC), "{sent:?}");
}

#[test]
fn a_write_that_cannot_be_made_stable_is_an_error() {
    let served = served(LunConfig {
        dpo_fua: false,
        ..LunConfig::default()
    });
    let fault = CommandFault::check_condition(Sense::INTERNAL_FAILURE);
    served.target.add(
        Rule::command(fault)
            .opcode(opcode::SYNCHRONIZE_CACHE_16)
            .once(),
    );
    let mut frontend = served.connect(without_flush());
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_IOERR);
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
}

#[test]
fn a_flush_of_a_volatile_cache_sends_synchronize_cache_once() {
    let served = served(LunConfig::default());
    let mut frontend = connect(&served);
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    served.target.clear_events();
    assert_eq!(frontend.queue(0).flush().unwrap(), S_OK);
    assert_eq!(sent_since(&served), [SYNC]);
}

#[test]
fn a_flush_of_a_write_through_lun_sends_nothing() {
    let served = served(LunConfig {
        write_cache: false,
        ..LunConfig::default()
    });
    let mut frontend = connect(&served);
    assert_eq!(frontend.offered() & F_FLUSH, F_FLUSH);
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    served.target.clear_events();
    assert_eq!(frontend.queue(0).flush().unwrap(), S_OK);
    assert_eq!(sent_since(&served), []);
}

// ---- giving space back --------------------------------------------------------------------------

#[test]
fn write_zeroes_never_unmaps_by_command_and_never_means_to_the_end() {
    let fully = LunConfig::default();
    let small = BlockLimits {
        max_write_same_blocks: 100,
        ..BlockLimits::default()
    };
    let limited = LunConfig {
        limits: small,
        ..thin()
    };
    for lun in [fully, thin(), limited] {
        let served = served(lun);
        let mut frontend = connect(&served);
        for unmap in [false, true] {
            for sectors in [1, 99, 100, 101, 1000] {
                let status = frontend.queue(0).write_zeroes(7, sectors, unmap);
                assert_eq!(status.unwrap(), S_OK, "{sectors} sectors");
            }
        }
        assert!(served.commands(opcode::UNMAP).is_empty());
        let sames = served.commands(opcode::WRITE_SAME_16);
        assert!(sames.iter().all(|cdb| blocks(cdb) > 0), "{sames:?}");
        holds_data_at(&mut frontend, 8);
    }
}

#[test]
fn discard_is_offered_for_a_thin_lun_only_and_keeps_to_its_range() {
    assert_eq!(
        connect(&served(LunConfig::default())).offered() & F_DISCARD,
        0
    );
    let served = served(thin());
    let mut frontend = connect(&served);
    let data = pattern(512 * 1024);
    assert_eq!(frontend.queue(0).write(0, &data).unwrap(), S_OK);
    assert_eq!(frontend.queue(0).discard(256, 256).unwrap(), S_OK);
    let (status, now) = frontend.queue(0).read(0, 512 * 1024).unwrap();
    assert_eq!(status, S_OK);
    assert_eq!(now[..256 * 512], data[..256 * 512]);
    assert_eq!(now[512 * 512..], data[512 * 512..]);
    assert!(!served.commands(opcode::UNMAP).is_empty());
}

#[test]
fn the_target_knows_us_by_the_name_we_were_given() {
    let served = served(LunConfig::default());
    let named = served.target.events().into_iter().any(|event| {
        matches!(event, Event::LoggedIn { initiator_name, discovery: false, .. }
            if initiator_name == INITIATOR_NAME)
    });
    assert!(named);
}
