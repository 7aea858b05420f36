//! What a target in trouble does to requests: aborts, resets of others, too much to do, no end of it.

use alloc::string::ToString;

use super::*;
use crate::disk::setback::Setback;
use crate::limits::MAX_RETRY_DELAY_MS;
use crate::pdu::reject::RejectReason;

const READ: BlockOperation = BlockOperation::Read;
const COMPLETE: u8 = 0;
const TASK_DOES_NOT_EXIST: u8 = 1;

/// So many reads of a block in flight.
fn reading(count: u64) -> Bench {
    let mut bench = Bench::new(facts(), 64, 64);
    for block in 0..count {
        bench.admit(READ, &[blocks(block, 1)]);
    }
    bench
}

#[test]
fn a_request_whose_command_was_ended_is_tried_again_from_its_beginning() {
    for response in [COMPLETE, TASK_DOES_NOT_EXIST] {
        let mut bench = Bench::wide(facts());
        let tag = bench.admit(WRITE, &[blocks(0, 8)]);
        assert_eq!(bench.answer(0, Reply::Good), None);
        assert_eq!(bench.abort(tag, response), Ok(None));
        let asked = bench.target.asked.iter();
        let starts: Vec<_> = asked.map(|asked| asked.blocks().start).collect();
        assert_eq!(starts, [0, 4], "at once, both parts");
        assert_eq!(bench.settle(), [done(tag).unwrap()]);
    }
}

#[test]
fn a_request_with_an_aborted_part_waits_for_the_others() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(WRITE, &[blocks(0, 8)]);
    let response = FunctionResponse::Complete;
    // The table does not know which of the two it was, and need not.
    assert_eq!(bench.requests.command_aborted(tag, response, 0), Ok(None));
    bench.turn();
    assert_eq!(bench.target.asked.len(), 2);
    assert_eq!(bench.answer(1, MEDIUM_ERROR).unwrap().request, tag);
}

#[test]
fn an_abort_that_was_refused_is_the_end_of_the_session_and_not_of_the_request() {
    for response in [2, 3, 5, 6, 255] {
        let mut bench = Bench::wide(facts());
        let tag = bench.admit(WRITE, &[blocks(0, 1)]);
        let refused = bench.abort(tag, response).unwrap_err();
        assert!(!refused.0.is_over(), "{refused}");
        assert_eq!(bench.requests.in_flight(), 1);
        bench.lose_session();
        assert_eq!(bench.settle(), [done(tag).unwrap()]);
    }
}

#[test]
fn an_abort_or_a_reject_for_a_request_that_has_ended_ends_nothing() {
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(WRITE, &[blocks(0, 1)]);
    assert_eq!(bench.answer_only(0, Reply::Good), done(tag));
    let (response, reason) = (FunctionResponse::Complete, RejectReason(9));
    assert_eq!(bench.requests.command_aborted(tag, response, 0), Ok(None));
    assert_eq!(bench.requests.command_rejected(tag, reason, 0), None);
    assert!(!bench.requests.has_backlog());
}

#[test]
fn tasks_that_may_have_been_ended_are_told_once() {
    for (reply, expected) in [
        (UNIT_ATTENTION, true),
        (Reply::Sense(0x70, 6, 0x2f), true),
        (Reply::Sense(0x71, 6, 0x29), false),
        (Reply::Sense(0x70, 6, 0x2a), false),
        (ABORTED, false),
        (Reply::Good, false),
    ] {
        let mut bench = Bench::wide(facts());
        bench.admit(READ, &[blocks(0, 1)]);
        bench.answer(0, reply);
        assert_eq!(bench.requests.take_tasks_cleared(), expected, "{reply:?}");
        assert!(!bench.requests.take_tasks_cleared());
    }
}

#[test]
fn a_disk_that_is_not_as_it_was_probed_is_told_once() {
    for (reply, expected) in [
        (Reply::Attention(0x2a, 0x09), true),
        (Reply::Attention(0x2a, 0x01), true),
        (Reply::Attention(0x3f, 0x0e), true),
        (Reply::Sense(0x70, 7, 0x27), true),
        (Reply::Sense(0x71, 6, 0x2a), false),
        (POWER_ON, false),
        (MEDIUM_ERROR, false),
        (Reply::Good, false),
    ] {
        let mut bench = Bench::wide(facts());
        bench.admit(WRITE, &[blocks(0, 1)]);
        bench.answer(0, reply);
        assert_eq!(bench.requests.take_facts_outdated(), expected, "{reply:?}");
        assert!(!bench.requests.take_facts_outdated());
    }
}

#[test]
fn a_disk_that_is_known_to_be_protected_is_no_news() {
    let mut bench = Bench::wide(facts());
    bench.admit(WRITE, &[blocks(0, 1)]);
    bench.requests.set_facts(LunFacts {
        write_protected: true,
        ..facts()
    });
    bench.answer(0, Reply::Sense(0x70, 7, 0x27));
    assert!(!bench.requests.take_facts_outdated());
}

#[test]
fn a_request_is_bounded_by_the_capacity_that_is_known_last() {
    let mut bench = Bench::wide(facts());
    let beyond = blocks(1 << 20, 8);
    let refused = bench.requests.admit(READ, [beyond].into_iter());
    assert!(matches!(refused, Err(RequestFault::BeyondEnd { .. })));
    // One that is under way goes on.
    bench.admit(READ, &[blocks((1 << 20) - 12, 12)]);
    bench.requests.set_facts(LunFacts {
        capacity_blocks: (1 << 20) + 8,
        ..facts()
    });
    bench.admit(READ, &[beyond]);
    assert_eq!(bench.settle().len(), 2);
}

#[test]
fn commands_of_others_tell_what_is_told_once() {
    let answer = |key, asc, ascq, deferred: bool| Outcome {
        response: Response::Completed,
        status: 2,
        transferred_bytes: 0,
        expected_bytes: 0,
        sense: crate::session::SenseData::new(&[
            0x70 + u8::from(deferred),
            0,
            key,
            0,
            0,
            0,
            0,
            10,
            0,
            0,
            0,
            0,
            asc,
            ascq,
            0,
            0,
            0,
            0,
        ]),
    };
    let mut bench = Bench::wide(facts());
    bench
        .requests
        .foreign_command_done(&answer(6, 0x29, 0, false));
    assert!(bench.requests.take_tasks_cleared());
    bench
        .requests
        .foreign_command_done(&answer(6, 0x2a, 9, false));
    assert!(!bench.requests.take_facts_outdated(), "it is being probed");
    bench
        .requests
        .foreign_command_done(&answer(3, 0x0c, 0, true));
    let flush = bench.admit(BlockOperation::Flush, &[]);
    let completion = bench.answer_only(0, Reply::Good);
    let failure = completion.map(|completion| (completion.request, completion.result));
    assert!(matches!(failure, Some((tag, Err(Failure::LostWrite(_)))) if tag == flush));
}

#[test]
fn a_target_that_has_too_many_gets_half_as_many_and_slowly_more_again() {
    for reply in [BUSY, TASK_SET_FULL] {
        let mut bench = reading(16);
        // Those of one round trip: they count once.
        for _ in 0..4 {
            assert_eq!(bench.answer(11, reply), None);
        }
        bench.wait();
        assert_eq!(bench.target.asked.len(), 12, "eight would be enough");
        assert!(bench.requests.has_backlog());
        for asked in [11, 10, 9, 8, 8, 8, 8, 8] {
            assert!(bench.answer(0, Reply::Good).is_some());
            assert_eq!(bench.target.asked.len(), asked, "{reply:?}");
        }
        assert_eq!(bench.settle().len(), 8);
        // One round of eight has made it nine, and nearly another one ten.
        for block in 0..16 {
            bench.admit(READ, &[blocks(block, 1)]);
        }
        assert_eq!(bench.target.asked.len(), 9);
        assert_eq!(bench.settle().len(), 16);
        assert!(!bench.requests.has_backlog());
    }
}

#[test]
fn a_target_that_takes_one_at_a_time_gets_one_at_a_time() {
    let mut bench = reading(8);
    for round in 0..8 {
        if round > 3 {
            assert!(bench.target.asked.len() <= 2);
        }
        while bench.target.asked.len() > 1 {
            bench.answer(1, TASK_SET_FULL);
        }
        assert!(bench.answer(0, Reply::Good).is_some());
        bench.now_ms += MAX_RETRY_DELAY_MS;
        bench.turn();
    }
    assert_eq!(bench.requests.in_flight(), 0);
}

#[test]
fn commands_of_a_lost_session_no_longer_count_as_outstanding() {
    let mut bench = reading(4);
    bench.answer(0, TASK_SET_FULL);
    bench.lose_session();
    assert_eq!(bench.target.asked.len(), 2);
    assert_eq!(bench.settle().len(), 4);
}

#[test]
fn every_way_of_ending_makes_room_for_another_command() {
    let mut bench = reading(2);
    bench.answer(0, TASK_SET_FULL);
    assert!(bench.requests.has_backlog(), "as many are out as may be");
    for reply in [OUT_OF_RESOURCES, BUSY, NOT_READY_YET, MEDIUM_ERROR] {
        assert_eq!(bench.target.asked.len(), 1, "{reply:?}: one at a time");
        bench.answer(0, reply);
        if bench.target.asked.is_empty() {
            bench.wait();
        }
    }
    assert_eq!(bench.requests.in_flight(), 1);
    let tag = RequestTag(1);
    assert_eq!(bench.abort(tag, COMPLETE), Ok(None));
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
}

#[test]
fn each_wait_in_a_row_is_longer_than_the_one_before_up_to_a_limit() {
    let mut bench = Bench::wide(facts());
    let mut delays = Vec::new();
    let tag = bench.admit(READ, &[blocks(0, 1)]);
    for _ in 0..7 {
        assert_eq!(bench.answer(0, BUSY), None);
        delays.push(bench.requests.next_timeout_ms().unwrap() - bench.now_ms);
        bench.wait();
    }
    assert_eq!(delays, [100, 200, 400, 800, 1_600, 1_600, 1_600]);
    assert_eq!(bench.answer(0, Reply::Good), done(tag));
    // Success ends the row, and so does a new session.
    let tag = bench.admit(READ, &[blocks(0, 1)]);
    for _ in 0..2 {
        assert_eq!(bench.answer(0, BUSY), None);
        let delay_ms = bench.requests.next_timeout_ms().unwrap() - bench.now_ms;
        assert!(delay_ms <= 2 * RETRY_DELAY_MS);
        bench.wait();
    }
    bench.lose_session();
    let due_ms = bench.now_ms + RETRY_DELAY_MS;
    assert_eq!(bench.answer(0, BUSY), None);
    assert_eq!(bench.requests.next_timeout_ms(), Some(due_ms));
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
}

#[test]
fn a_short_wait_is_over_before_a_long_one_that_began_earlier() {
    let mut bench = Bench::wide(facts());
    let slow = bench.admit(READ, &[blocks(0, 1)]);
    for _ in 0..3 {
        bench.answer(0, NOT_READY_YET);
        bench.wait();
    }
    bench.answer(0, NOT_READY_YET);
    let quick = bench.admit(READ, &[blocks(9, 1)]);
    bench.answer(0, NOT_READY_YET);
    bench.wait();
    assert_eq!(bench.answer(0, Reply::Good), done(quick));
    bench.wait();
    assert_eq!(bench.answer(0, Reply::Good), done(slow));
}

#[test]
fn a_rejected_command_is_tried_again_for_want_of_something_and_else_fails() {
    for reason in 0..=u8::MAX {
        if [0x02, 0x0c].contains(&reason) {
            continue; // The end of the session.
        }
        let mut bench = Bench::wide(facts());
        let tag = bench.admit(WRITE, &[blocks(0, 1)]);
        let completion = bench.answer(0, Reply::Reject(reason));
        if [0x06, 0x0a].contains(&reason) {
            assert_eq!(completion, None);
            assert!(bench.target.asked.is_empty(), "later, not at once");
            assert_eq!(bench.settle(), [done(tag).unwrap()]);
        } else {
            let failure = failure(completion);
            assert!(matches!(failure, Failure::Rejected(_)), "{reason:#x}");
        }
    }
}

#[test]
fn a_disk_that_has_been_up_and_needs_attendance_is_waited_for() {
    for ascq in [0x00, 0x02, 0x03, 0x12] {
        let mut bench = Bench::wide(facts());
        let tag = bench.admit(WRITE, &[blocks(0, 1)]);
        let sense = [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, ascq];
        let outcome = Outcome {
            response: Response::Completed,
            status: 2,
            transferred_bytes: 0,
            expected_bytes: 512,
            sense: crate::session::SenseData::new(&sense),
        };
        assert_eq!(bench.requests.command_done(tag, &outcome, 0), None);
        assert_eq!(bench.requests.next_timeout_ms(), Some(RETRY_DELAY_MS));
    }
    // A medium that is gone may come back as another one.
    let mut bench = Bench::wide(facts());
    bench.admit(WRITE, &[blocks(0, 1)]);
    let completion = bench.answer(0, Reply::Sense(0x70, 2, 0x3a));
    assert!(matches!(failure(completion), Failure::Sense(_)));
}

/// Answers with `reply` until the request ends, and says when and how.
fn wear_out(bench: &mut Bench, reply: Reply) -> (u64, Failure) {
    for _ in 0..1_000 {
        if let Some(completion) = bench.answer(0, reply) {
            return (bench.now_ms, completion.result.unwrap_err());
        }
        if bench.target.asked.is_empty() {
            bench.wait();
        }
    }
    panic!("it never ends");
}

#[test]
fn patience_ends_on_time_with_the_last_reason_and_how_long_it_took() {
    let replies = [
        BUSY,
        TASK_ABORTED,
        NOT_READY_YET,
        NO_SUCH_LUN,
        UNIT_ATTENTION,
        ABORTED,
        Reply::NoSense,
        OUT_OF_RESOURCES,
    ];
    for reply in replies {
        let mut bench = Bench::wide(facts());
        bench.requests.set_patience_ms(Some(1_000));
        bench.admit(READ, &[blocks(0, 1)]);
        bench.now_ms = 70;
        let (ended_ms, failure) = wear_out(&mut bench, reply);
        assert_eq!(ended_ms, 1_070, "{reply:?}");
        let Failure::OutOfPatience { last, tried_ms } = failure else {
            panic!("{failure:?}");
        };
        assert_eq!(tried_ms, 1_000);
        assert!(failure.to_string().ends_with(&last.to_string()));
        // The next one of the slot has all the time again.
        bench.admit(READ, &[blocks(0, 1)]);
        assert_eq!(wear_out(&mut bench, reply).0, 2_070);
    }
}

#[test]
fn the_reason_reads_in_words() {
    let last = Setback::Status(ScsiStatus::BUSY);
    let failure = Failure::OutOfPatience {
        last,
        tried_ms: 1_000,
    };
    assert_eq!(
        failure.to_string(),
        "tried again for 1000 ms, at last: SCSI status BUSY"
    );
    let rejected = Setback::Rejected(RejectReason(0x0a));
    assert!(rejected.to_string().contains("out of resources"));
}

#[test]
fn without_patience_the_first_refusal_is_the_last_and_without_a_limit_none_is() {
    let mut bench = Bench::wide(facts());
    bench.requests.set_patience_ms(Some(0));
    bench.admit(READ, &[blocks(0, 1)]);
    let failure = failure(bench.answer(0, BUSY));
    assert!(matches!(
        failure,
        Failure::OutOfPatience { tried_ms: 0, .. }
    ));
    let mut bench = Bench::wide(facts());
    let tag = bench.admit(READ, &[blocks(0, 1)]);
    for _ in 0..1_000 {
        assert_eq!(bench.answer(0, BUSY), None);
        bench.wait();
    }
    assert_eq!(bench.answer(0, Reply::Good), done(tag));
}

#[test]
fn patience_goes_on_over_a_lost_session_and_counts_commands_without_an_answer() {
    let mut bench = Bench::wide(facts());
    bench.requests.set_patience_ms(Some(1_000));
    let tag = bench.admit(READ, &[blocks(0, 1)]);
    assert_eq!(bench.answer(0, BUSY), None);
    bench.now_ms = 999;
    bench.lose_session();
    assert_eq!(bench.abort(tag, COMPLETE), Ok(None));
    bench.now_ms = 1_000;
    let completion = bench.abort(tag, COMPLETE).unwrap();
    let (last, tried_ms) = (Setback::TimedOut, 1_000);
    assert_eq!(
        failure(completion),
        Failure::OutOfPatience { last, tried_ms }
    );
}

#[test]
fn a_weaker_way_of_writing_zeros_is_no_refusal() {
    let mut bench = Bench::wide(facts());
    bench.requests.set_patience_ms(Some(0));
    let tag = bench.admit(ZEROES, &[blocks(0, 4)]);
    assert_eq!(bench.answer(0, UNKNOWN_OPCODE), None);
    assert_eq!(bench.settle(), [done(tag).unwrap()]);
}
