//! The bare initiator against the in-memory target, which judges the rules and counts for itself.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use iscsi_test_target::{
    CommandFault, Delivery, Event, LunConfig, Negotiation, Rule, Sense, TargetConfig, TestTarget,
    opcode,
};

use super::{Floor, FloorError, FloorResult, Operation};

const OPERATIONS: [Operation; 2] = [Operation::Read, Operation::Write];

fn start(negotiation: Negotiation, delivery: Delivery) -> TestTarget {
    let config = TargetConfig {
        negotiation,
        delivery,
        ..TargetConfig::default()
    };
    TestTarget::start(config).unwrap()
}

fn plain() -> TestTarget {
    start(Negotiation::default(), Delivery::default())
}

fn floor(target: &TestTarget, operation: Operation, length_bytes: u32, depth: usize) -> Floor {
    Floor {
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(100),
        ..Floor::new(
            target.portal(),
            target.name(),
            operation,
            length_bytes,
            depth,
        )
    }
}

/// Runs it, and compares what it says with what the target saw.
fn run_and_compare(target: &TestTarget, floor: &Floor) -> FloorResult {
    let before = target.counters();
    let result = floor.run().unwrap();
    let after = target.counters();
    // What was in flight when the time was over is carried out, and not part of the result.
    let length = u64::from(floor.length_bytes);
    let (moved, other_bytes) = match floor.operation {
        // READ CAPACITY(16) reads 32 bytes.
        Operation::Read => (after.data_in_bytes - before.data_in_bytes, 32),
        Operation::Write => (after.data_out_bytes - before.data_out_bytes, 0),
    };
    let commands = (moved - other_bytes) / length;
    assert_eq!(commands * length + other_bytes, moved);
    let in_flight = floor.depth as u64;
    assert!(
        (result.requests..=result.requests + in_flight).contains(&commands),
        "{commands} carried out, {} counted: {floor:?}",
        result.requests
    );
    assert!(result.requests > 0 && result.sends > 0 && result.receives > 0);
    assert_eq!(result.latency_ns.len(), result.requests);
    assert_eq!(target.violations(), [""; 0]);
    result
}

/// Every way in which the data of a write can go: with the command, after it, asked for.
fn negotiations() -> Vec<Negotiation> {
    let with = |initial_r2t, immediate_data, segment, first_burst, burst| Negotiation {
        initial_r2t,
        immediate_data,
        max_recv_data_segment_length: Some(segment),
        first_burst_length: first_burst,
        max_burst_length: burst,
        ..Negotiation::default()
    };
    vec![
        Negotiation::default(),
        with(false, true, 8192, 65_536, 262_144),
        with(false, false, 8192, 16_384, 16_384),
        with(true, true, 65_536, 8192, 262_144),
        with(true, false, 262_144, 65_536, 1 << 20),
    ]
}

#[test]
fn counts_what_the_target_counts_whatever_they_agree_on() {
    for negotiation in negotiations() {
        let target = start(negotiation, Delivery::default());
        for operation in OPERATIONS {
            for (length_bytes, depth) in [(4096, 1), (4096, 32), (65_536, 7), (1 << 20, 3)] {
                run_and_compare(&target, &floor(&target, operation, length_bytes, depth));
            }
        }
    }
}

#[test]
fn reads_in_pieces_with_padding_through_a_small_buffer() {
    let delivery = Delivery {
        status_with_data: false,
        data_in_bytes: Some(701),
        ping_every_commands: Some(3),
        ..Delivery::default()
    };
    let target = start(Negotiation::default(), delivery);
    for copies in [false, true] {
        let floor = Floor {
            copies,
            receive_bytes: 1,
            ..floor(&target, Operation::Read, 65_536, 8)
        };
        run_and_compare(&target, &floor);
    }
    let is_pong = |event: &Event| matches!(event, Event::Ponged { .. });
    assert!(target.events().iter().any(is_pong), "pings are answered");
}

#[test]
fn waiting_for_several_answers_or_for_none_changes_no_count() {
    let target = plain();
    for operation in OPERATIONS {
        for (coalesced_answers, poll_us) in [(4, 0), (1000, 0), (1, 100)] {
            let floor = Floor {
                coalesced_answers,
                busy_poll: Duration::from_micros(poll_us),
                ..floor(&target, operation, 4096, 16)
            };
            run_and_compare(&target, &floor);
        }
    }
}

#[test]
fn stays_within_a_window_that_is_smaller_than_its_depth() {
    let negotiation = Negotiation {
        cmd_sn_window: 3,
        initial_r2t: true,
        immediate_data: false,
        ..Negotiation::default()
    };
    let target = start(negotiation, Delivery::default());
    for operation in OPERATIONS {
        let floor = Floor {
            coalesced_answers: 8,
            ..floor(&target, operation, 4096, 16)
        };
        run_and_compare(&target, &floor);
    }
}

#[test]
fn sessions_of_different_numbers_run_at_the_same_time() {
    let target = plain();
    let threads: Vec<_> = (0..3)
        .map(|session| {
            let floor = Floor {
                session,
                seed: session.into(),
                ..floor(&target, Operation::Read, 4096, 4)
            };
            thread::spawn(move || floor.run())
        })
        .collect();
    for thread in threads {
        assert!(thread.join().unwrap().unwrap().requests > 0);
    }
    assert_eq!(target.counters().logins, 3);
}

#[test]
fn rides_out_the_unit_attentions_of_a_new_session() {
    let target = plain();
    target.push_unit_attention(0, Sense::RESET_OCCURRED);
    target.push_unit_attention(0, Sense::CAPACITY_CHANGED);
    run_and_compare(&target, &floor(&target, Operation::Read, 4096, 1));
}

/// Strikes the 20th read or write.
fn run_with(operation: Operation, fault: CommandFault) -> Result<FloorResult, FloorError> {
    let negotiation = Negotiation {
        initial_r2t: true,
        immediate_data: false,
        ..Negotiation::default()
    };
    let target = start(negotiation, Delivery::default());
    let code = match operation {
        Operation::Read => opcode::READ_16,
        Operation::Write => opcode::WRITE_16,
    };
    let rule = target.add(Rule::command(fault).opcode(code).skip(19).once());
    let mut floor = floor(&target, operation, 4096, 4);
    // Long enough for twenty commands on any machine: the fault ends it.
    floor.duration = Duration::from_secs(30);
    let result = floor.run();
    assert_eq!(target.fired(rule), 1);
    result
}

#[test]
fn whatever_is_wrong_with_one_answer_ends_the_run() {
    for fault in [
        CommandFault::BUSY,
        CommandFault::StatusAfter(0x08, None),
        CommandFault::Response(1),
        CommandFault::ResidualUnderflow(512),
        CommandFault::ResidualOverflow(512),
        CommandFault::StatSnOff(1),
        CommandFault::UnknownTag,
        CommandFault::Reject(4),
        CommandFault::CloseAfter,
    ] {
        for operation in OPERATIONS {
            let result = run_with(operation, fault.clone());
            assert!(result.is_err(), "{operation:?} {fault:?}: {result:?}");
        }
    }
}

#[test]
fn data_that_is_missing_or_out_of_place_ends_the_run() {
    for fault in [
        CommandFault::ShortData(2048),
        CommandFault::WrongDataSn,
        CommandFault::DataAtWrongOffset,
        CommandFault::DataBeyondBuffer,
        CommandFault::R2tForRead,
    ] {
        let result = run_with(Operation::Read, fault.clone());
        assert!(result.is_err(), "{fault:?}: {result:?}");
    }
    for fault in [CommandFault::R2tBeyondBuffer, CommandFault::R2tOfZero] {
        let result = run_with(Operation::Write, fault.clone());
        assert!(result.is_err(), "{fault:?}: {result:?}");
    }
}

#[test]
fn refuses_what_does_not_fit_the_disk() {
    let luns = BTreeMap::from([(3, LunConfig::of_bytes(1 << 20))]);
    let target = TestTarget::start(TargetConfig {
        luns,
        ..TargetConfig::default()
    })
    .unwrap();
    let attempt = |lun, length_bytes, depth| {
        let floor = floor(&target, Operation::Read, length_bytes, depth);
        Floor { lun, ..floor }.run()
    };
    assert!(attempt(3, 1 << 20, 1).is_ok());
    assert!(attempt(3, 2 << 20, 1).is_err(), "larger than the disk");
    assert!(attempt(3, 1000, 1).is_err(), "no whole blocks");
    assert!(attempt(3, 4096, 0).is_err(), "nothing in flight");
    assert!(attempt(0, 4096, 1).is_err(), "no such LUN");
}
