//! Requests as the commands that they become, for disks with every kind of limit.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::disk::example::{STABLE_WRITE, WRITE, ZEROES, disk, thin_disk};
use crate::disk::facts::{BlockLimits, Provisioning};
use crate::scsi::opcode;

const STABLE_ZEROES: BlockOperation = BlockOperation::WriteZeroes {
    unmap: false,
    stable: true,
};

fn extent(sector: u64, length_bytes: u64) -> Extent {
    Extent {
        sector,
        length_bytes,
    }
}

fn with_limits(facts: LunFacts, limits: BlockLimits) -> LunFacts {
    LunFacts { limits, ..facts }
}

fn parts(
    facts: &LunFacts,
    operation: BlockOperation,
    extent: Extent,
    zeroing: Zeroing,
) -> Vec<Part> {
    let mut done_bytes = 0;
    let next = || {
        let part = facts.part(operation, extent, done_bytes, zeroing)?;
        done_bytes += part.length_bytes;
        Some(part)
    };
    core::iter::from_fn(next).collect()
}

/// The only command of a request that needs one.
fn command(facts: &LunFacts, operation: BlockOperation, extent: Extent) -> ScsiCommand {
    let parts = parts(facts, operation, extent, facts.zeroing(true));
    assert_eq!(parts.len(), 1);
    parts[0].command
}

fn beyond_end(facts: &LunFacts) -> Result<(), RequestFault> {
    Err(RequestFault::BeyondEnd {
        capacity_bytes: facts.capacity_bytes(),
    })
}

#[test]
fn the_last_block_is_on_the_disk_and_the_next_is_not() {
    let facts = disk(512, 1000);
    assert_eq!(facts.check(BlockOperation::Read, extent(999, 512)), Ok(()));
    assert_eq!(
        facts.check(BlockOperation::Read, extent(1000, 512)),
        beyond_end(&facts)
    );
    assert_eq!(facts.check(WRITE, extent(999, 1024)), beyond_end(&facts));
    assert_eq!(facts.check(WRITE, extent(0, 512_000)), Ok(()));
}

#[test]
fn sectors_that_wrap_around_are_beyond_the_end() {
    let facts = disk(512, 1000);
    for sector in [1 << 55, u64::MAX, (1 << 55) - 1] {
        assert_eq!(
            facts.check(BlockOperation::Read, extent(sector, 512)),
            beyond_end(&facts)
        );
    }
    assert_eq!(facts.check(ZEROES, extent(1, u64::MAX)), beyond_end(&facts));
}

#[test]
fn extents_are_whole_blocks_of_the_lun() {
    let facts = disk(4096, 1000);
    let unaligned = Err(RequestFault::Unaligned {
        block_length_bytes: 4096,
    });
    assert_eq!(facts.check(WRITE, extent(8, 4096)), Ok(()));
    assert_eq!(facts.check(WRITE, extent(7, 4096)), unaligned);
    assert_eq!(facts.check(WRITE, extent(8, 512)), unaligned);
    assert_eq!(
        facts.check(BlockOperation::Read, extent(1, 7 * 512)),
        unaligned
    );
    assert_eq!(disk(512, 1000).check(WRITE, extent(0, 511)), {
        Err(RequestFault::Unaligned {
            block_length_bytes: 512,
        })
    });
}

#[test]
fn a_request_covers_something_unless_it_is_a_flush() {
    let facts = disk(512, 1000);
    assert_eq!(
        facts.check(WRITE, extent(0, 0)),
        Err(RequestFault::ZeroLength)
    );
    assert_eq!(
        facts.check(BlockOperation::Flush, extent(u64::MAX, 0)),
        Ok(())
    );
}

#[test]
fn a_write_protected_disk_is_read_and_flushed_only() {
    let facts = LunFacts {
        write_protected: true,
        ..thin_disk(512, 1000)
    };
    let whole = extent(0, 512);
    assert_eq!(facts.check(BlockOperation::Read, whole), Ok(()));
    assert_eq!(facts.check(BlockOperation::Flush, whole), Ok(()));
    for operation in [WRITE, ZEROES, BlockOperation::Discard] {
        assert_eq!(facts.check(operation, whole), Err(RequestFault::ReadOnly));
    }
}

#[test]
fn a_discard_needs_a_lun_that_can_deallocate() {
    let discard = |facts: LunFacts| facts.check(BlockOperation::Discard, extent(0, 512));
    assert_eq!(discard(thin_disk(512, 1000)), Ok(()));
    assert_eq!(discard(disk(512, 1000)), Err(RequestFault::Unsupported));
}

#[test]
fn buffers_end_at_4_gib_and_zeroes_do_not() {
    let facts = disk(512, 1 << 40);
    let too_long = Err(RequestFault::TooLong {
        length_bytes: 1 << 32,
    });
    assert_eq!(facts.check(WRITE, extent(0, (1 << 32) - 512)), Ok(()));
    assert_eq!(facts.check(WRITE, extent(0, 1 << 32)), too_long);
    assert_eq!(facts.check(ZEROES, extent(0, 1 << 32)), Ok(()));
}

#[test]
fn addresses_are_in_blocks_of_the_lun() {
    let facts = disk(4096, 1 << 40);
    let command = command(
        &facts,
        BlockOperation::Read,
        extent(8 * 0x1_2345_6789, 8192),
    );
    assert_eq!(command.cdb, read_write::read_16(0x1_2345_6789, 2));
    assert_eq!(
        command.data,
        ScsiData::In {
            offset_bytes: 0,
            length_bytes: 8192
        }
    );
}

#[test]
fn a_long_request_is_cut_at_the_maximum_transfer_length() {
    let limits = BlockLimits {
        max_transfer_blocks: Some(8),
        ..BlockLimits::default()
    };
    let facts = with_limits(disk(512, 1000), limits);
    let parts = parts(&facts, WRITE, extent(100, 20 * 512), Zeroing::Write);
    let out = |offset_bytes, length_bytes| ScsiData::Out {
        offset_bytes,
        length_bytes,
    };
    let expected = [
        (read_write::write_16(100, 8, false), out(0, 4096)),
        (read_write::write_16(108, 8, false), out(4096, 4096)),
        (read_write::write_16(116, 4, false), out(8192, 2048)),
    ];
    assert!(
        parts
            .iter()
            .map(|part| (part.command.cdb, part.command.data))
            .eq(expected)
    );
}

#[test]
fn a_request_of_exactly_the_maximum_is_not_cut() {
    let cap_bytes = u64::from(MAX_TRANSFER_BYTES);
    let facts = disk(4096, 1 << 30);
    let count = |length_bytes| {
        parts(
            &facts,
            BlockOperation::Read,
            extent(0, length_bytes),
            Zeroing::Write,
        )
        .len()
    };
    assert_eq!(count(cap_bytes), 1);
    assert_eq!(count(cap_bytes + 4096), 2);
}

#[test]
fn ten_byte_commands_move_at_most_65535_blocks() {
    let limits = BlockLimits {
        max_transfer_blocks: Some(0x2_0000),
        ..BlockLimits::default()
    };
    let width = CommandWidth::Ten;
    let facts = LunFacts {
        width,
        ..with_limits(disk(512, 1 << 32), limits)
    };
    assert_eq!(facts.max_transfer_blocks(), 32_768, "16 MiB come first");
    let last = command(&facts, BlockOperation::Read, extent((1 << 32) - 1, 512));
    assert_eq!(last.cdb, read_write::read_10(u32::MAX, 1));
    let write = command(&facts, WRITE, extent(5, 1024));
    assert_eq!(write.cdb, read_write::write_10(5, 2, false));
}

#[test]
fn a_stable_write_uses_fua_where_there_is_one_and_else_a_flush() {
    let write_through = LunFacts {
        write_cache: false,
        ..disk(512, 1000)
    };
    let with_fua = LunFacts {
        fua: true,
        ..disk(512, 1000)
    };
    let without = disk(512, 1000);
    let fua_bit = |facts, operation| command(facts, operation, extent(0, 512)).cdb[1];
    assert_eq!(fua_bit(&with_fua, STABLE_WRITE), 0x08);
    assert_eq!(fua_bit(&with_fua, WRITE), 0);
    assert_eq!(fua_bit(&without, STABLE_WRITE), 0);
    assert!(!with_fua.needs_sync(STABLE_WRITE, Zeroing::Write));
    assert!(without.needs_sync(STABLE_WRITE, Zeroing::Write));
    assert!(!without.needs_sync(WRITE, Zeroing::Write));
    assert!(!write_through.needs_sync(STABLE_WRITE, Zeroing::Write));
}

#[test]
fn stable_zeros_need_a_flush_unless_they_are_written_with_fua() {
    let facts = LunFacts {
        fua: true,
        ..disk(512, 1000)
    };
    assert!(facts.needs_sync(STABLE_ZEROES, Zeroing::WriteSame));
    assert!(!facts.needs_sync(STABLE_ZEROES, Zeroing::Write));
    assert!(!facts.needs_sync(ZEROES, Zeroing::WriteSame));
    let part = facts
        .part(STABLE_ZEROES, extent(0, 1024), 0, Zeroing::Write)
        .unwrap();
    assert_eq!(part.command.cdb, read_write::write_16(0, 2, true));
    assert_eq!(part.command.data, ScsiData::Zeros { length_bytes: 1024 });
}

#[test]
fn a_flush_is_sent_only_where_something_may_be_held_back() {
    let flush = BlockOperation::Flush;
    let needs = |facts: LunFacts| facts.needs_sync(flush, Zeroing::Write);
    assert!(needs(disk(512, 1000)));
    assert!(!needs(LunFacts {
        write_cache: false,
        ..disk(512, 1000)
    }));
    assert!(!needs(LunFacts {
        write_protected: true,
        ..disk(512, 1000)
    }));
    assert_eq!(
        disk(512, 1000).part(flush, extent(0, 512), 0, Zeroing::Write),
        None
    );
}

#[test]
fn a_flush_has_the_form_that_the_lun_implements() {
    let facts = disk(512, 1000);
    assert_eq!(facts.flush_command().cdb[0], opcode::SYNCHRONIZE_CACHE_16);
    let facts = LunFacts {
        sync_cache: CommandWidth::Ten,
        ..facts
    };
    assert_eq!(facts.flush_command().cdb[0], opcode::SYNCHRONIZE_CACHE_10);
}

#[test]
fn zeros_are_deallocated_only_if_request_and_lun_agree() {
    let thin = thin_disk(512, 1000);
    assert_eq!(thin.zeroing(true), Zeroing::WriteSameUnmap);
    assert_eq!(thin.zeroing(false), Zeroing::WriteSame);
    assert_eq!(disk(512, 1000).zeroing(true), Zeroing::WriteSame);
    let provisioning = Provisioning {
        reads_zeros: false,
        ..thin.provisioning
    };
    assert_eq!(
        LunFacts {
            provisioning,
            ..thin.clone()
        }
        .zeroing(true),
        Zeroing::WriteSame
    );
    let flags = |operation, zeroing| {
        thin.part(operation, extent(0, 512), 0, zeroing)
            .unwrap()
            .command
            .cdb[1]
    };
    assert_eq!(flags(ZEROES, Zeroing::WriteSameUnmap), 0x08);
    assert_eq!(flags(ZEROES, Zeroing::WriteSame), 0);
    assert_eq!(
        flags(STABLE_ZEROES, Zeroing::WriteSameUnmap),
        0,
        "the request forbids it"
    );
}

#[test]
fn zeroing_falls_back_until_plain_writes() {
    assert_eq!(Zeroing::WriteSameUnmap.fallback(), Some(Zeroing::WriteSame));
    assert_eq!(Zeroing::WriteSame.fallback(), Some(Zeroing::Write));
    assert_eq!(Zeroing::Write.fallback(), None);
    let ten = LunFacts {
        width: CommandWidth::Ten,
        ..thin_disk(512, 1000)
    };
    assert_eq!(ten.zeroing(true), Zeroing::Write);
}

#[test]
fn write_same_covers_65535_blocks_where_the_lun_reports_no_limit() {
    let facts = disk(512, 1 << 30);
    let length_bytes = 0x1_0000 * 512;
    let parts = parts(&facts, ZEROES, extent(0, length_bytes), Zeroing::WriteSame);
    let one = NonZeroU32::MIN;
    let most = NonZeroU32::new(0xffff).unwrap();
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[0].command, write_same::zeros(0, most, false, 512));
    assert_eq!(parts[1].command, write_same::zeros(0xffff, one, false, 512));
}

#[test]
fn a_discard_is_unmap_where_there_is_one_and_else_write_same() {
    let mut facts = thin_disk(4096, 1000);
    let whole = extent(8, 3 * 4096);
    let three = NonZeroU32::new(3).unwrap();
    assert_eq!(
        command(&facts, BlockOperation::Discard, whole),
        unmap::command(1, three)
    );
    facts.provisioning.unmap = false;
    let expected = write_same::zeros(1, three, true, 4096);
    assert_eq!(command(&facts, BlockOperation::Discard, whole), expected);
}

#[test]
fn a_discard_is_cut_between_granules() {
    let limits = BlockLimits {
        max_unmap_blocks: Some(20),
        unmap_granularity_blocks: Some(8),
        unmap_alignment_blocks: Some(2),
        ..BlockLimits::default()
    };
    let facts = with_limits(thin_disk(512, 1000), limits);
    let parts = parts(
        &facts,
        BlockOperation::Discard,
        extent(5, 50 * 512),
        Zeroing::Write,
    );
    // Granules start at 2, 10, 18, 26, …
    let lengths = parts.iter().map(|part| part.length_bytes / 512);
    assert!(lengths.eq([13, 16, 16, 5]));
}

#[test]
fn a_granularity_beyond_the_limit_does_not_stop_a_discard() {
    let limits = BlockLimits {
        max_unmap_blocks: Some(20),
        unmap_granularity_blocks: Some(64),
        ..BlockLimits::default()
    };
    let facts = with_limits(thin_disk(512, 1000), limits);
    let parts = parts(
        &facts,
        BlockOperation::Discard,
        extent(0, 50 * 512),
        Zeroing::Write,
    );
    assert!(
        parts
            .iter()
            .map(|part| part.length_bytes / 512)
            .eq([20, 20, 10])
    );
}

fn any_limits() -> impl Strategy<Value = BlockLimits> {
    let small = || proptest::option::of(prop_oneof![0..100_u32, any::<u32>()]);
    (
        small(),
        small(),
        small(),
        small(),
        proptest::option::of(0..200_000_u64),
    )
        .prop_map(
            |(transfer, unmap, granularity, alignment, write_same)| BlockLimits {
                max_transfer_blocks: transfer,
                max_unmap_blocks: unmap,
                unmap_granularity_blocks: granularity,
                unmap_alignment_blocks: alignment,
                max_write_same_blocks: write_same,
                ..BlockLimits::default()
            },
        )
}

fn any_operation() -> impl Strategy<Value = BlockOperation> {
    prop_oneof![
        Just(BlockOperation::Read),
        any::<bool>().prop_map(|stable| BlockOperation::Write { stable }),
        Just(BlockOperation::Discard),
        any::<(bool, bool)>()
            .prop_map(|(unmap, stable)| BlockOperation::WriteZeroes { unmap, stable }),
    ]
}

fn any_zeroing() -> impl Strategy<Value = Zeroing> {
    prop_oneof![
        Just(Zeroing::WriteSameUnmap),
        Just(Zeroing::WriteSame),
        Just(Zeroing::Write)
    ]
}

/// Address and count of a command, read from its bytes.
fn range_of(command: &ScsiCommand) -> (u64, u64) {
    let cdb = &command.cdb;
    match (cdb[0], command.data) {
        (opcode::READ_10 | opcode::WRITE_10, _) => (
            u64::from(u32::from_be_bytes(cdb[2..6].try_into().unwrap())),
            u64::from(u16::from_be_bytes(cdb[7..9].try_into().unwrap())),
        ),
        (opcode::UNMAP, ScsiData::Parameters { bytes }) => (
            u64::from_be_bytes(bytes[8..16].try_into().unwrap()),
            u64::from(u32::from_be_bytes(bytes[16..20].try_into().unwrap())),
        ),
        _ => (
            u64::from_be_bytes(cdb[2..10].try_into().unwrap()),
            u64::from(u32::from_be_bytes(cdb[10..14].try_into().unwrap())),
        ),
    }
}

proptest! {
    #[test]
    fn parts_cover_the_extent_once_and_in_order(
        limits in any_limits(),
        operation in any_operation(),
        zeroing in any_zeroing(),
        ten: bool,
        block_length_bytes in prop_oneof![Just(512_u32), Just(4096)],
        block in 0..1_u64 << 31,
        count_blocks in 1..2000_u64,
    ) {
        let width = if ten { CommandWidth::Ten } else { CommandWidth::Sixteen };
        let facts = LunFacts {
            width,
            ..with_limits(thin_disk(block_length_bytes, 1 << 32), limits)
        };
        let block_bytes = u64::from(block_length_bytes);
        let request = extent(block * block_bytes / 512, count_blocks * block_bytes);
        prop_assert_eq!(facts.check(operation, request), Ok(()));

        let mut next_block = block;
        for part in parts(&facts, operation, request, zeroing) {
            let (first, count) = range_of(&part.command);
            prop_assert_eq!(first, next_block);
            prop_assert_eq!(count * block_bytes, part.length_bytes);
            prop_assert!(count > 0, "a count of 0 may mean the whole disk");
            next_block += count;
        }
        prop_assert_eq!(next_block, block + count_blocks);
    }

    #[test]
    fn no_request_and_no_facts_cause_a_panic(
        limits in any_limits(),
        operation in any_operation(),
        zeroing in any_zeroing(),
        block_length_bytes: u32,
        capacity_blocks: u64,
        sector: u64,
        length_bytes: u64,
        done_bytes: u64,
    ) {
        let facts = with_limits(thin_disk(block_length_bytes, capacity_blocks), limits);
        let request = extent(sector, length_bytes);
        let _ = facts.check(operation, request);
        let _ = facts.part(operation, request, done_bytes, zeroing);
    }
}
