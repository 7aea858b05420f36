//! The probe against made-up logical units, each a list of answers by command.

use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::scsi::opcode;

/// Sense data in fixed format.
fn sense(key: u8, asc: u8, ascq: u8) -> Vec<u8> {
    vec![
        0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0,
    ]
}

const INVALID_OPCODE: (u8, u8, u8) = (5, 0x20, 0);
const INVALID_FIELD: (u8, u8, u8) = (5, 0x24, 0);
const POWER_ON: (u8, u8, u8) = (6, 0x29, 0x01);

#[derive(Clone, Debug)]
struct Answer {
    status: u8,
    sense: Vec<u8>,
    data: Vec<u8>,
}

fn good(data: &[u8]) -> Answer {
    Answer {
        status: 0,
        sense: Vec::new(),
        data: data.to_vec(),
    }
}

fn check((key, asc, ascq): (u8, u8, u8)) -> Answer {
    Answer {
        status: 2,
        sense: sense(key, asc, ascq),
        data: Vec::new(),
    }
}

fn status(status: u8) -> Answer {
    Answer {
        status,
        sense: Vec::new(),
        data: Vec::new(),
    }
}

/// A logical unit: what it answers, and what it has been asked.
struct Unit {
    inquiry: Vec<u8>,
    pages: Vec<(u8, Vec<u8>)>,
    capacity_10: Answer,
    capacity_16: Answer,
    /// By operation code and page.
    modes: Vec<(u8, u8, Answer)>,
    sync_cache_10: Answer,
    sync_cache_16: Answer,
    /// Answers that come first, before any command is carried out.
    pending: VecDeque<Answer>,
    /// Answers in place of that of a command, by operation code.
    instead: Vec<(u8, VecDeque<Answer>)>,
    /// The operation codes and pages asked for.
    asked: Vec<(u8, u8)>,
}

const CACHING_PAGE: [u8; 20] = [8, 18, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn page(code: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    (code, [&[0, code], &length[..], payload].concat())
}

fn mode_6(parameter: u8, pages: &[u8]) -> Vec<u8> {
    [
        &[u8::try_from(pages.len() + 3).unwrap(), 0, parameter, 0],
        pages,
    ]
    .concat()
}

fn mode_10(parameter: u8, pages: &[u8]) -> Vec<u8> {
    [
        &[
            0,
            u8::try_from(pages.len() + 6).unwrap(),
            0,
            parameter,
            0,
            0,
            0,
            0,
        ],
        pages,
    ]
    .concat()
}

fn capacity_16(last_block: u64, block_length_bytes: u32, flags: u8) -> Answer {
    let mut data = [0; 32];
    data[..8].copy_from_slice(&last_block.to_be_bytes());
    data[8..12].copy_from_slice(&block_length_bytes.to_be_bytes());
    data[14] = flags;
    good(&data)
}

fn capacity_10(last_block: u32, block_length_bytes: u32) -> Answer {
    good(&[last_block.to_be_bytes(), block_length_bytes.to_be_bytes()].concat())
}

impl Unit {
    /// A thin disk that has everything.
    fn disk() -> Self {
        let mut limits = [0; 0x3c];
        limits[16..20].copy_from_slice(&1000_u32.to_be_bytes());
        limits[20..24].copy_from_slice(&1_u32.to_be_bytes());
        let naa = [1, 3, 0, 8, 0x60, 1, 4, 5, 0, 0, 0, 1];
        Self {
            inquiry: b"\x00\x00\x06\x02\x1f\x00\x00\x02IET     VIRTUAL-DISK    0001".to_vec(),
            pages: vec![
                page(0x00, &[0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]),
                page(0x80, b"        beaf11"),
                page(0x83, &naa),
                page(0xb0, &limits),
                page(0xb1, &[0, 1, 0, 0]),
                page(0xb2, &[0, 0xc4, 2, 0]),
            ],
            capacity_10: capacity_10(0xffff_ffff, 512),
            capacity_16: capacity_16(0x1_ffff_ffff, 512, 0xc0),
            modes: vec![(opcode::MODE_SENSE_6, 8, good(&mode_6(0x10, &CACHING_PAGE)))],
            sync_cache_10: good(&[]),
            sync_cache_16: good(&[]),
            pending: VecDeque::new(),
            instead: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// A disk of SCSI-2's time: no VPD, no 16-byte commands, no mode pages.
    fn old_disk() -> Self {
        Self {
            pages: Vec::new(),
            capacity_10: capacity_10(999, 512),
            capacity_16: check(INVALID_OPCODE),
            modes: Vec::new(),
            sync_cache_16: check(INVALID_OPCODE),
            ..Self::disk()
        }
    }

    fn run(&mut self, command: &ScsiCommand) -> Answer {
        let cdb = command.cdb;
        self.asked.push((cdb[0], cdb[2]));
        if let Some(answer) = self.pending.pop_front() {
            return answer;
        }
        let instead = self.instead.iter_mut().find(|(code, _)| *code == cdb[0]);
        if let Some(answer) = instead.and_then(|(_, answers)| answers.pop_front()) {
            return answer;
        }
        let mut answer = self.carry_out(&cdb);
        answer
            .data
            .truncate(usize::try_from(command.data.length_bytes()).unwrap());
        answer
    }

    fn carry_out(&self, cdb: &[u8; 16]) -> Answer {
        match cdb[0] {
            opcode::INQUIRY if cdb[1] == 0 => good(&self.inquiry),
            opcode::INQUIRY => {
                let page = self.pages.iter().find(|(code, _)| *code == cdb[2]);
                page.map_or(check(INVALID_FIELD), |(_, data)| good(data))
            }
            opcode::TEST_UNIT_READY => good(&[]),
            opcode::READ_CAPACITY_10 => self.capacity_10.clone(),
            opcode::SERVICE_ACTION_IN_16 => self.capacity_16.clone(),
            opcode::MODE_SENSE_6 | opcode::MODE_SENSE_10 => {
                let is_it = |mode: &&(u8, u8, Answer)| mode.0 == cdb[0] && mode.1 == cdb[2];
                let mode = self.modes.iter().find(is_it);
                mode.map_or(check(INVALID_FIELD), |(_, _, answer)| answer.clone())
            }
            opcode::SYNCHRONIZE_CACHE_10 => self.sync_cache_10.clone(),
            opcode::SYNCHRONIZE_CACHE_16 => self.sync_cache_16.clone(),
            other => panic!("a probe has no business to send {other:02X}h"),
        }
    }

    fn probe(&mut self) -> Result<LunFacts, ProbeError> {
        self.run_through(Probe::new())
    }

    /// Reviews what a probe has found, and forgets what was asked before.
    fn review(&mut self, facts: &LunFacts) -> Result<LunFacts, ProbeError> {
        self.asked.clear();
        self.run_through(Probe::review(facts.clone()))
    }

    fn run_through(&mut self, mut probe: Probe) -> Result<LunFacts, ProbeError> {
        loop {
            match probe.next() {
                ProbeStep::Done(facts) => return Ok(facts),
                ProbeStep::Run(command) => {
                    let Answer {
                        status,
                        sense,
                        data,
                    } = self.run(&command);
                    probe.answer(ScsiAnswer {
                        status,
                        sense: &sense,
                        data: &data,
                    })?;
                }
            }
        }
    }

    fn count(&self, opcode: u8) -> usize {
        self.asked
            .iter()
            .filter(|(code, _)| *code == opcode)
            .count()
    }
}

#[test]
fn a_thin_disk_tells_everything() {
    let facts = Unit::disk().probe().unwrap();
    assert_eq!(facts.vendor, "IET");
    assert_eq!(facts.product, "VIRTUAL-DISK");
    assert_eq!(facts.revision, "0001");
    assert_eq!(facts.identity.serial, b"beaf11");
    assert_eq!(facts.identity.to_string(), "naa.6001040500000001");
    assert_eq!(facts.identity.block_length_bytes, 512);
    assert_eq!(
        (facts.capacity_blocks, facts.block_length_bytes),
        (1 << 33, 512)
    );
    assert!(facts.write_cache && facts.fua && !facts.write_protected);
    assert_eq!(
        (facts.width, facts.sync_cache),
        (CommandWidth::Sixteen, CommandWidth::Sixteen)
    );
    let provisioning = Provisioning {
        thin: true,
        reads_zeros: true,
        unmap: true,
        write_same_unmap: true,
    };
    assert_eq!(facts.provisioning, provisioning);
    assert_eq!(facts.limits.max_unmap_blocks, Some(1000));
    assert_eq!(facts.rotates, Some(false));
}

/// Answers of tgt 1.0.85 for a thin LUN of 64 MiB, as they were on the wire.
fn tgt_disk() -> Unit {
    let serial = [&[b' '; 30][..], b"beaf11"].concat();
    let t10_name = [&[2, 1, 0, 0x24][..], b"IET     00010001", &[0; 20]].concat();
    let naa_3 = [1, 3, 0, 8, 0x30, 0, 0, 1, 0, 0, 0, 1];
    let naa_6 = [
        1, 3, 0, 16, 0x60, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0, 0, 0, 0, 1, 0, 1,
    ];
    let limits = [&[0, 0x80][..], &[0; 14], &[0xff; 8], &[0; 36]].concat();
    let inquiry = b"\x00\x00\x05\x12\x3d\x00\x00\x02IET     VIRTUAL-DISK    0001";
    let mut capacity_16 = capacity_16(0x1_ffff, 512, 0xc0);
    capacity_16.data[13] = 3;
    Unit {
        inquiry: [
            &inquiry[..],
            &[0; 22],
            &[0x04, 0xc0, 0x09, 0x60, 0x03, 0x00],
        ]
        .concat(),
        pages: vec![
            page(0x00, &[0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]),
            page(0x80, &serial),
            page(0x83, &[&t10_name[..], &naa_3, &naa_6].concat()),
            page(0xb0, &limits),
            page(0xb1, &[0; 0x3c]),
            page(0xb2, &[0, 0xe4, 2, 0]),
        ],
        capacity_16,
        pending: [check((6, 0x29, 0x00))].into(),
        ..Unit::disk()
    }
}

#[test]
fn a_lun_of_tgt_is_understood() {
    let facts = tgt_disk().probe().unwrap();
    assert_eq!(facts.capacity_bytes(), 64 << 20);
    assert_eq!(facts.physical_block_exponent, 3);
    assert_eq!(facts.identity.serial, b"beaf11");
    assert_eq!(
        facts.identity.to_string(),
        "t10.IET     00010001, naa.3000000100000001, naa.60000000000000000e00000000010001"
    );
    let limits = BlockLimits {
        max_unmap_blocks: Some(u32::MAX),
        ..BlockLimits::default()
    };
    assert_eq!(facts.limits, limits);
    assert!(facts.can_discard());
    assert_eq!(facts.rotates, None);
}

#[test]
fn an_old_disk_is_served_with_cautious_assumptions() {
    let facts = Unit::old_disk().probe().unwrap();
    assert!(facts.identity.is_anonymous());
    assert_eq!(facts.capacity_blocks, 1000);
    assert_eq!(
        (facts.width, facts.sync_cache),
        (CommandWidth::Ten, CommandWidth::Ten)
    );
    assert!(facts.write_cache && !facts.fua && !facts.write_protected);
    assert_eq!(facts.provisioning, Provisioning::default());
}

#[test]
fn only_listed_pages_are_asked_for() {
    let mut unit = Unit::disk();
    unit.pages[0] = page(0x00, &[0x00, 0x83, 0xb1]);
    let facts = unit.probe().unwrap();
    let inquiries = unit
        .asked
        .iter()
        .filter(|(code, _)| *code == opcode::INQUIRY);
    assert!(inquiries.map(|(_, page)| *page).eq([0, 0, 0x83, 0xb1]));
    assert_eq!(facts.identity.serial, b"");
}

#[test]
fn a_page_that_is_listed_but_refused_or_wrong_is_left_out() {
    let mut unit = Unit::disk();
    unit.pages.retain(|(code, _)| *code != 0xb0);
    unit.pages[1].1[1] = 0x00;
    let facts = unit.probe().unwrap();
    assert_eq!(facts.identity.serial, b"");
    assert_eq!(facts.limits, BlockLimits::default());
    assert_eq!(facts.rotates, Some(false));
}

#[test]
fn a_device_that_ignores_evpd_has_no_pages() {
    let mut unit = Unit::disk();
    let mut standard_data = unit.inquiry.clone();
    standard_data[1] = 0x80;
    unit.pages = vec![(0x00, standard_data)];
    assert!(unit.probe().unwrap().identity.is_anonymous());
}

#[test]
fn a_long_page_is_read_whole() {
    let name = [&[1, 3, 0, 64][..], &[0x60; 64]].concat();
    let mut unit = Unit::disk();
    unit.pages[2] = page(0x83, &name.repeat(10));
    assert_eq!(unit.probe().unwrap().identity.designators.len(), 10);
}

#[test]
fn a_page_that_claims_more_than_it_has_is_asked_for_twice_at_most() {
    let mut unit = Unit::disk();
    unit.pages[2].1[2..4].fill(0xff);
    assert_eq!(unit.probe().unwrap().identity.designators.len(), 1);
    assert_eq!(
        unit.asked.iter().filter(|(_, page)| *page == 0x83).count(),
        2
    );
}

#[test]
fn something_else_than_a_disk_is_named() {
    let error = |peripheral| {
        let mut unit = Unit::disk();
        unit.inquiry[0] = peripheral;
        unit.probe().unwrap_err()
    };
    let optical = error(0x05);
    assert_eq!(
        optical.to_string(),
        "the LUN is a CD/DVD drive (device type 05h), not a disk"
    );
    assert!(!optical.is_retryable());
    assert_eq!(error(0x0c), ProbeError::NotADisk(DeviceType(0x0c)));
}

#[test]
fn a_lun_that_is_not_there_is_told_from_one_that_is_not_connected() {
    let mut unit = Unit::disk();
    unit.inquiry[0] = 0x7f;
    assert_eq!(unit.probe(), Err(ProbeError::NoSuchLun));
    assert!(!ProbeError::NoSuchLun.is_retryable());
    unit.inquiry[0] = 0x20;
    assert_eq!(unit.probe(), Err(ProbeError::NotConnected));
    assert!(ProbeError::NotConnected.is_retryable());
    unit.pending.push_back(check((5, 0x25, 0)));
    assert_eq!(unit.probe(), Err(ProbeError::NoSuchLun));
}

#[test]
fn pending_unit_attentions_are_swallowed() {
    let mut unit = Unit::disk();
    unit.instead = vec![(opcode::TEST_UNIT_READY, vec![check(POWER_ON); 3].into())];
    assert!(unit.probe().is_ok());
    assert_eq!(unit.count(opcode::TEST_UNIT_READY), 4);
}

#[test]
fn any_command_may_meet_a_unit_attention() {
    let mut reference = Unit::disk();
    let expected = reference.probe().unwrap();
    for (opcode, _) in reference.asked {
        let mut unit = Unit::disk();
        unit.instead = vec![(opcode, vec![check(POWER_ON)].into())];
        assert_eq!(
            unit.probe().as_ref(),
            Ok(&expected),
            "at {}",
            opcode::name(opcode)
        );
    }
}

#[test]
fn unit_attentions_without_end_are_an_error() {
    let bound = usize::try_from(MAX_TRIES_IN_VAIN).unwrap();
    let mut unit = Unit::disk();
    unit.pending = vec![check(POWER_ON); bound].into();
    assert!(unit.probe().is_ok());
    unit.pending = vec![check(POWER_ON); bound + 1].into();
    let error = unit.probe().unwrap_err();
    assert!(error.is_retryable());
    assert!(
        error.to_string().contains("power on occurred (06/29/01)"),
        "{error}"
    );
}

#[test]
fn a_change_of_capacity_makes_the_probe_start_again() {
    let mut unit = Unit::disk();
    unit.instead = vec![(opcode::MODE_SENSE_6, vec![check((6, 0x2a, 0x09))].into())];
    assert!(unit.probe().is_ok());
    assert_eq!(unit.count(opcode::SERVICE_ACTION_IN_16), 2);
}

#[test]
fn a_review_of_an_unchanged_disk_finds_what_the_probe_found_with_two_commands() {
    for mut unit in [Unit::disk(), tgt_disk()] {
        let facts = unit.probe().unwrap();
        assert_eq!(unit.review(&facts).unwrap(), facts);
        assert_eq!(unit.asked.len(), 2, "{:x?}", unit.asked);
    }
    let mut unit = Unit::old_disk();
    let facts = unit.probe().unwrap();
    assert_eq!(unit.review(&facts).unwrap(), facts);
    assert_eq!(unit.count(opcode::SERVICE_ACTION_IN_16), 0);
}

#[test]
fn a_review_finds_another_size_and_write_protection() {
    let mut unit = Unit::disk();
    let facts = unit.probe().unwrap();
    unit.capacity_16 = capacity_16(0x2_ffff_ffff, 512, 0xc0);
    unit.modes = vec![(opcode::MODE_SENSE_6, 8, good(&mode_6(0x90, &CACHING_PAGE)))];
    let expected = LunFacts {
        capacity_blocks: 0x3_0000_0000,
        write_protected: true,
        ..facts.clone()
    };
    assert_eq!(unit.review(&facts).unwrap(), expected);
}

#[test]
fn a_review_that_is_told_of_a_change_becomes_a_probe() {
    let mut unit = Unit::disk();
    let facts = unit.probe().unwrap();
    unit.instead = vec![(opcode::MODE_SENSE_6, vec![check((6, 0x3f, 0x03))].into())];
    unit.pages[1] = page(0x80, b"another");
    let found = unit.review(&facts).unwrap();
    assert_eq!(found.identity.serial, b"another");
    assert_eq!(unit.count(opcode::SYNCHRONIZE_CACHE_16), 1);
}

#[test]
fn becoming_ready_is_worth_another_try_and_a_missing_medium_is_not() {
    let error = |code| {
        let mut unit = Unit::disk();
        unit.instead = vec![(opcode::TEST_UNIT_READY, vec![check(code)].into())];
        unit.probe().unwrap_err()
    };
    let becoming_ready = error((2, 0x04, 0x01));
    assert!(becoming_ready.is_retryable());
    assert_eq!(
        becoming_ready.to_string(),
        "the LUN is not ready yet: NOT READY: logical unit is in process of becoming ready \
         (02/04/01)"
    );
    let no_medium = error((2, 0x3a, 0x00));
    assert!(!no_medium.is_retryable());
    assert!(
        no_medium.to_string().contains("medium not present"),
        "{no_medium}"
    );
}

#[test]
fn busy_is_worth_another_try_and_a_reservation_is_not() {
    let error = |code| {
        let mut unit = Unit::disk();
        unit.instead = vec![(opcode::TEST_UNIT_READY, vec![status(code)].into())];
        unit.probe().unwrap_err()
    };
    for code in [0x08, 0x28, 0x30] {
        assert!(error(code).is_retryable());
    }
    assert!(!error(0x18).is_retryable());
    assert!(!error(0xff).is_retryable());
}

#[test]
fn an_aborted_command_and_a_missing_reason_are_tried_again() {
    let mut unit = Unit::disk();
    unit.pending = vec![status(0x40), status(0x02), check((0xb, 0x47, 0))].into();
    assert!(unit.probe().is_ok());
}

#[test]
fn a_recovered_error_brings_its_data() {
    let mut unit = Unit::disk();
    unit.capacity_16.status = 2;
    unit.capacity_16.sense = sense(1, 0x18, 0);
    assert_eq!(unit.probe().unwrap().capacity_blocks, 1 << 33);
}

#[test]
fn a_disk_above_2_tib_needs_read_capacity_16() {
    let mut unit = Unit::old_disk();
    unit.capacity_10 = capacity_10(u32::MAX, 512);
    assert_eq!(unit.probe(), Err(ProbeError::SizeUnknown));
    unit.capacity_10 = capacity_10(u32::MAX - 1, 512);
    assert_eq!(unit.probe().unwrap().capacity_blocks, u64::from(u32::MAX));
}

#[test]
fn read_capacity_10_that_is_refused_too_is_an_error() {
    let mut unit = Unit::old_disk();
    unit.capacity_10 = check(INVALID_OPCODE);
    let error = unit.probe().unwrap_err();
    assert_eq!(
        error.to_string(),
        "READ CAPACITY(10) failed: ILLEGAL REQUEST: invalid command operation code (05/20/00)"
    );
}

#[test]
fn blocks_have_512_or_4096_bytes() {
    let probe = |block_length_bytes| {
        let capacity_16 = capacity_16(99, block_length_bytes, 0);
        let facts = Unit {
            capacity_16,
            ..Unit::disk()
        }
        .probe();
        facts.map(|facts| facts.identity.block_length_bytes)
    };
    assert_eq!(probe(512), Ok(512));
    assert_eq!(probe(4096), Ok(4096));
    for length in [0, 511, 520, 1024, 4095, 4160, u32::MAX] {
        assert_eq!(probe(length), Err(ProbeError::BlockLength(length)));
    }
}

#[test]
fn capacities_are_neither_zero_nor_beyond_63_bits() {
    let probe = |last_block, block_length_bytes| {
        let capacity_16 = capacity_16(last_block, block_length_bytes, 0);
        Unit {
            capacity_16,
            ..Unit::disk()
        }
        .probe()
        .map(|facts| facts.capacity_blocks)
    };
    assert_eq!(probe(u64::MAX, 512), Err(ProbeError::ZeroCapacity));
    assert_eq!(probe(0, 512), Ok(1));
    assert_eq!(probe((1 << 54) - 2, 512), Ok((1 << 54) - 1));
    assert!(matches!(
        probe((1 << 54) - 1, 512),
        Err(ProbeError::TooLarge { .. })
    ));
    assert_eq!(probe((1 << 51) - 2, 4096), Ok((1 << 51) - 1));
    assert!(matches!(
        probe(1 << 60, 4096),
        Err(ProbeError::TooLarge { .. })
    ));
}

#[test]
fn an_answer_too_short_to_tell_the_capacity_is_an_error() {
    let mut unit = Unit::disk();
    unit.capacity_16.data.truncate(11);
    let error = unit.probe().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the target's answer to READ CAPACITY(16) cannot be understood: 11 bytes arrived where \
         at least 12 are needed"
    );
    assert!(!error.is_retryable());
}

#[test]
fn mode_pages_are_sought_in_every_form() {
    let answers = [
        (opcode::MODE_SENSE_6, 0x08, mode_6(0x90, &CACHING_PAGE)),
        (opcode::MODE_SENSE_10, 0x08, mode_10(0x90, &CACHING_PAGE)),
        (opcode::MODE_SENSE_6, 0x3f, mode_6(0x90, &CACHING_PAGE)),
        (opcode::MODE_SENSE_10, 0x3f, mode_10(0x90, &CACHING_PAGE)),
    ];
    for (index, (opcode, page, data)) in answers.into_iter().enumerate() {
        let mut unit = Unit {
            modes: vec![(opcode, page, good(&data))],
            ..Unit::disk()
        };
        let facts = unit.probe().unwrap();
        assert!(facts.write_protected && facts.fua && facts.write_cache);
        let tries = unit.count(opcode::MODE_SENSE_6) + unit.count(opcode::MODE_SENSE_10);
        assert_eq!(tries, index + 1);
    }
}

#[test]
fn a_header_without_caching_page_still_tells_about_write_protection() {
    let modes = vec![(opcode::MODE_SENSE_6, 0x3f, good(&mode_6(0x80, &[])))];
    let facts = Unit {
        modes,
        ..Unit::disk()
    }
    .probe()
    .unwrap();
    assert!(facts.write_protected && facts.write_cache && !facts.fua);
}

#[test]
fn a_write_through_disk_is_not_asked_to_flush() {
    let mut page = CACHING_PAGE;
    page[2] = 0;
    let modes = vec![(opcode::MODE_SENSE_6, 8, good(&mode_6(0, &page)))];
    let mut unit = Unit {
        modes,
        ..Unit::disk()
    };
    assert!(!unit.probe().unwrap().write_cache);
    assert_eq!(unit.count(opcode::SYNCHRONIZE_CACHE_16), 0);
}

#[test]
fn synchronize_cache_10_is_used_where_16_is_refused() {
    let mut unit = Unit {
        sync_cache_16: check(INVALID_OPCODE),
        ..Unit::disk()
    };
    let facts = unit.probe().unwrap();
    assert_eq!(
        (facts.width, facts.sync_cache),
        (CommandWidth::Sixteen, CommandWidth::Ten)
    );
}

#[test]
fn a_cache_that_is_only_assumed_and_cannot_be_flushed_is_none() {
    let refused = || check(INVALID_OPCODE);
    let mut unit = Unit {
        sync_cache_10: refused(),
        ..Unit::old_disk()
    };
    assert!(!unit.probe().unwrap().write_cache);
    let mut unit = Unit {
        sync_cache_10: refused(),
        sync_cache_16: refused(),
        ..Unit::disk()
    };
    assert!(
        unit.probe().unwrap().write_cache,
        "the caching page says so"
    );
}

#[test]
fn a_reservation_that_forbids_flushing_does_not_end_the_probe() {
    let mut unit = Unit {
        sync_cache_16: status(0x18),
        ..Unit::disk()
    };
    assert_eq!(unit.probe().unwrap().sync_cache, CommandWidth::Sixteen);
}

#[test]
fn without_the_provisioning_page_the_limits_tell_how_to_deallocate() {
    let provisioning = |max_unmap_blocks: u32| {
        let mut unit = Unit::disk();
        unit.pages.pop();
        unit.pages[3].1[20..24].copy_from_slice(&max_unmap_blocks.to_be_bytes());
        let found = unit.probe().unwrap().provisioning;
        (found.thin, found.unmap, found.write_same_unmap)
    };
    assert_eq!(provisioning(1), (true, true, false));
    assert_eq!(provisioning(0), (true, false, true));
}

#[test]
fn unmap_with_a_limit_of_0_is_no_unmap() {
    let mut unit = Unit::disk();
    unit.pages[3].1[20..24].fill(0);
    let provisioning = unit.probe().unwrap().provisioning;
    assert!(!provisioning.unmap && provisioning.write_same_unmap);
}

#[test]
fn an_answer_after_the_end_changes_nothing() {
    let mut unit = Unit::disk();
    let mut probe = Probe::new();
    while let ProbeStep::Run(command) = probe.next() {
        let Answer {
            status,
            sense,
            data,
        } = unit.run(&command);
        probe
            .answer(ScsiAnswer {
                status,
                sense: &sense,
                data: &data,
            })
            .unwrap();
    }
    probe
        .answer(ScsiAnswer {
            status: 0,
            sense: &[],
            data: &[1, 2, 3],
        })
        .unwrap();
    assert!(matches!(probe.next(), ProbeStep::Done(_)));
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let status = prop_oneof![4 => Just(0_u8), 4 => Just(2_u8), 1 => any::<u8>()];
    let sense = prop_oneof![
        (0..8_u8, 0x20..0x2b_u8, 0..10_u8).prop_map(|(key, asc, ascq)| sense(key, asc, ascq)),
        any::<Vec<u8>>()
    ];
    (status, sense, any::<Vec<u8>>()).prop_map(|(status, sense, data)| Answer {
        status,
        sense,
        data,
    })
}

proptest! {
    #[test]
    fn whatever_the_target_answers_the_probe_ends(
        mut answers in proptest::collection::vec(any_answer(), 1..20),
    ) {
        answers[0] = good(&Unit::disk().inquiry);
        let mut probe = Probe::new();
        let mut count = 0;
        for answer in answers.iter().cycle() {
            let ProbeStep::Run(_) = probe.next() else { break };
            count += 1;
            // Each try in vain may start the probe again, which has at most 24 commands.
            prop_assert!(count < 24 * (MAX_TRIES_IN_VAIN + 2));
            let Answer { status, sense, data } = answer;
            if probe.answer(ScsiAnswer { status: *status, sense, data }).is_err() {
                break;
            }
        }
    }
}
