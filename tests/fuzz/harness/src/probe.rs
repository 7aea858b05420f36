//! The probe of a logical unit, whatever it answers, and what becomes of the facts it found.

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::limits::DeviceLimits;
use iscsi_core::disk::plan::Zeroing;
use iscsi_core::disk::probe::{Probe, ProbeStep};
use iscsi_core::disk::request::{BlockOperation, Extent};
use iscsi_core::scsi::command::{ScsiAnswer, ScsiData};
use vhost_user_iscsi::device::DeviceSettings;
use vhost_user_iscsi::device::config_space::config_space;
use vhost_user_iscsi::device::features::offered;
use vhost_user_iscsi::device::serial::device_id;

use crate::Input;

/// Twice as many as the probe starts again for unit attentions, times all that it asks.
const MAX_COMMANDS: usize = 2 * 33 * 32;

/// Each answer is a status, what is wrong with it, and its data. At the end of the input every
/// command fails, so that the probe ends.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let mut probe = Probe::new();
    for _ in 0..MAX_COMMANDS {
        let command = match probe.next() {
            ProbeStep::Run(command) => command,
            ProbeStep::Done(facts) => {
                check(&facts, &mut input);
                return 1;
            }
        };
        let room = match command.data {
            ScsiData::In { length_bytes, .. } => length_bytes as usize,
            _ => 0,
        };
        let kind = input.byte();
        let (status, sense) = match kind & 7 {
            _ if input.is_empty() => (0x08, Vec::new()),
            0..=3 => (0, Vec::new()),
            4 => (2, fixed_sense(&mut input)),
            5 => {
                let length = input.byte();
                (2, input.bytes(length.into()).to_vec())
            }
            6 => (input.byte(), Vec::new()),
            // Not implemented.
            _ => (2, vec![0x72, 5, 0x20, 0, 0, 0, 0, 0]),
        };
        let length = usize::from(input.byte()) << (kind >> 6);
        let mut data = input.bytes(length.min(room)).to_vec();
        if kind & 0x20 != 0 {
            data.resize(room, 0);
        }
        let answer = ScsiAnswer {
            status,
            sense: &sense,
            data: &data,
        };
        if let Err(error) = probe.answer(answer) {
            assert!(!error.to_string().is_empty());
            let _ = (error.is_retryable(), error.is_not_found());
            return 0;
        }
    }
    panic!("the probe does not end");
}

/// Sense data in fixed format with a key and a code of the input.
fn fixed_sense(input: &mut Input<'_>) -> Vec<u8> {
    let mut sense = vec![0; 18];
    sense[0] = 0x70;
    sense[2] = input.byte() & 15;
    sense[7] = 10;
    sense[12] = input.byte();
    sense[13] = input.byte();
    sense
}

/// What may be served, and how the device and its requests come out of it.
fn check(facts: &LunFacts, input: &mut Input<'_>) {
    assert!(matches!(facts.block_length_bytes, 512 | 4096));
    assert!(facts.capacity_blocks > 0);
    assert!(i64::try_from(facts.capacity_bytes()).is_ok());
    assert_eq!(facts.identity.block_length_bytes, facts.block_length_bytes);
    check_limits(facts);
    for read_only in [false, true] {
        let settings = DeviceSettings {
            num_queues: 1 + u16::from(input.byte()),
            queue_size: input.word(),
            read_only,
        };
        let _ = (
            config_space(facts, &settings, true),
            offered(facts, &settings),
        );
    }
    let _ = device_id(facts, None);
    let last_block = facts.capacity_blocks - 1;
    let block = match input.byte() & 1 {
        0 => u64::from(input.word()).min(last_block),
        _ => last_block.saturating_sub(input.word().into()),
    };
    let count = u64::from(input.long() >> 8).min(facts.capacity_blocks - block);
    check_parts(facts, block, count.max(1));
}

fn check_limits(facts: &LunFacts) {
    let limits = DeviceLimits::of(facts);
    let block_sectors = facts.block_length_bytes / 512;
    assert_eq!(limits.capacity_sectors, facts.capacity_bytes() / 512);
    assert!(limits.minimum_io_blocks > 0 && limits.max_transfer_bytes > 0);
    assert!(
        limits
            .max_transfer_bytes
            .is_multiple_of(facts.block_length_bytes)
    );
    if let Some(discard) = limits.discard {
        assert!(facts.can_discard());
        assert!(discard.max_sectors > 0 && discard.alignment_sectors > 0);
        assert!(discard.max_sectors.is_multiple_of(block_sectors));
        assert!(discard.alignment_sectors.is_multiple_of(block_sectors));
    }
    if let Some(zeroes) = limits.write_zeroes {
        assert!(zeroes.max_sectors > 0 && zeroes.max_sectors.is_multiple_of(block_sectors));
    }
}

/// The commands of a request cover all of it and no more, one after the other.
fn check_parts(facts: &LunFacts, block: u64, count: u64) {
    let extent = Extent {
        sector: block * u64::from(facts.block_length_bytes) / 512,
        length_bytes: count * u64::from(facts.block_length_bytes),
    };
    let stable = true;
    let zeroes = |unmap| BlockOperation::WriteZeroes { unmap, stable };
    for (operation, zeroing) in [
        (BlockOperation::Read, Zeroing::Write),
        (BlockOperation::Write { stable }, Zeroing::Write),
        (BlockOperation::Discard, Zeroing::Write),
        (zeroes(true), facts.zeroing(true)),
        (zeroes(false), facts.zeroing(false)),
        (zeroes(true), Zeroing::Write),
    ] {
        if facts.check(operation, extent).is_ok() {
            check_parts_of(facts, operation, extent, zeroing);
        }
    }
}

fn check_parts_of(facts: &LunFacts, operation: BlockOperation, extent: Extent, zeroing: Zeroing) {
    /// A LUN that takes one block at a time needs very many.
    const MAX_PARTS: usize = 1000;
    let block_bytes = u64::from(facts.block_length_bytes);
    let mut done_bytes = 0;
    for _ in 0..MAX_PARTS {
        let Some(part) = facts.part(operation, extent, done_bytes, zeroing) else {
            assert_eq!(
                done_bytes, extent.length_bytes,
                "{operation:?} of {extent:?}"
            );
            return;
        };
        assert!(part.length_bytes > 0 && part.length_bytes.is_multiple_of(block_bytes));
        match part.command.data {
            ScsiData::In {
                offset_bytes,
                length_bytes,
            }
            | ScsiData::Out {
                offset_bytes,
                length_bytes,
            } => {
                assert_eq!(u64::from(offset_bytes), done_bytes);
                assert_eq!(u64::from(length_bytes), part.length_bytes);
                let limit = facts.limits.max_transfer_blocks.map_or(u64::MAX, u64::from);
                assert!(part.length_bytes / block_bytes <= limit);
            }
            _ => {}
        }
        done_bytes += part.length_bytes;
        assert!(
            done_bytes <= extent.length_bytes,
            "{operation:?} of {extent:?}"
        );
    }
}
