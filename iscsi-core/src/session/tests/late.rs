//! Commands that are late: found, aborted one after the other, given up.

use super::*;
use crate::limits::{ABORT_TIMEOUT_MS, RECONCILE_MS, RESET_TIMEOUT_MS};

/// Shorter than it takes to want a ping, which so does not get into the way.
const TIMEOUT_MS: u64 = 3_000;
const ABORT: u8 = 0x81;
const RESET: u8 = 0x85;
const REFUSED: FunctionResponse = FunctionResponse::Refused(5);

/// A session with a time-out and commands for `requests`, sent at 0, and their tags.
fn late_session(requests: &[u32]) -> (Session, Vec<u32>) {
    let mut session = session();
    session.set_command_timeout_ms(Some(TIMEOUT_MS));
    session.handle_timeout(0).unwrap();
    let tags = requests.iter().map(|n| send(&mut session, *n, 0)).collect();
    (session, tags)
}

fn send(session: &mut Session, request: u32, now_ms: u64) -> u32 {
    session.submit(command(request, READ_4K), now_ms).unwrap();
    transmit(session)[0].field(16)
}

fn timed_out(session: &mut Session, now_ms: u64) -> u32 {
    session.handle_timeout(now_ms).unwrap().timed_out
}

/// What task management goes out: function, own tag, referenced tag.
fn management(session: &mut Session) -> Vec<(u8, u32, u32)> {
    let pdus = transmit(session);
    let management = pdus.iter().filter(|pdu| pdu.bhs[0] == 0x42);
    management
        .map(|pdu| (pdu.bhs[1], pdu.field(16), pdu.field(20)))
        .collect()
}

fn answer(tag: u32, stat_sn: u32, response: u8) -> Vec<u8> {
    Pdu::new(0x22, 0x80)
        .byte(2, response)
        .put(16, tag)
        .put(24, stat_sn)
        .bytes()
}

fn events(session: &mut Session, stream: &[u8]) -> Vec<Event> {
    feed(session, stream, 48).unwrap().events
}

fn abort_done(request: u32, response: FunctionResponse) -> Event {
    let request = RequestTag(request);
    Event::AbortDone { request, response }
}

#[test]
fn a_command_that_is_not_answered_in_time_is_aborted_once() {
    let (mut session, tags) = late_session(&[7]);
    assert_eq!(session.next_timeout_ms(), TIMEOUT_MS);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS - 1), 0);
    assert!(management(&mut session).is_empty());
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 1);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS + 1), 0);
    let abort_tag = tags[0] | outbound::ABORT_BIT;
    assert_eq!(management(&mut session), [(ABORT, abort_tag, tags[0])]);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS + 2), 0);
    assert!(management(&mut session).is_empty());
    let done = events(&mut session, &answer(abort_tag, STAT_SN, 0));
    assert_eq!(done, [abort_done(7, FunctionResponse::Complete)]);
    assert_eq!(session.tasks_in_flight(), 0);
}

#[test]
fn each_late_command_is_counted_once_however_often_the_table_is_looked_through() {
    let (mut session, _) = late_session(&[1]);
    send(&mut session, 2, 1_000);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 1);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS + 1_000), 1);
    assert_eq!(management(&mut session).len(), 1);
}

#[test]
fn an_abort_that_has_not_left_cannot_be_answered() {
    let (mut session, tags) = late_session(&[7]);
    timed_out(&mut session, TIMEOUT_MS);
    let stream = answer(tags[0] | outbound::ABORT_BIT, STAT_SN, 0);
    feed(&mut session, &stream, 48).unwrap_err();
}

#[test]
fn without_a_time_out_and_without_a_command_there_is_nothing_to_wake_up_for() {
    let ping_ms = session().next_timeout_ms();
    let (mut session, tags) = late_session(&[7]);
    events(&mut session, &response(tags[0], STAT_SN, 8).bytes());
    assert_eq!(session.next_timeout_ms(), ping_ms);
    let (mut session, _) = sent(self::session(), READ_4K);
    assert_eq!(session.next_timeout_ms(), ping_ms);
    assert_eq!(timed_out(&mut session, ping_ms - 1), 0);
    assert!(!session.wants_transmit());
}

#[test]
fn the_next_look_is_never_too_late_however_commands_come_and_go() {
    let (mut session, tags) = late_session(&[1]);
    let second = send(&mut session, 2, 1_000);
    events(&mut session, &response(tags[0], STAT_SN, 8).bytes());
    // Too early by what the first one would have had.
    assert!(session.next_timeout_ms() <= TIMEOUT_MS + 1_000);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 0);
    assert_eq!(session.next_timeout_ms(), TIMEOUT_MS + 1_000);
    // An idle time between two commands does not count for the second.
    events(&mut session, &response(second, STAT_SN + 1, 8).bytes());
    send(&mut session, 3, 4_500);
    assert_eq!(timed_out(&mut session, 4_500 + TIMEOUT_MS - 1), 0);
    assert_eq!(timed_out(&mut session, 4_500 + TIMEOUT_MS), 1);
}

#[test]
fn a_command_whose_data_is_on_its_way_is_not_late() {
    let (mut session, tags) = late_session(&[7]);
    timed_out(&mut session, TIMEOUT_MS - 1);
    feed(&mut session, &data_in(tags[0], 0, 0, &[1; 512]).bytes(), 99).unwrap();
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 0);
    assert_eq!(timed_out(&mut session, 2 * TIMEOUT_MS - 2), 0);
    assert_eq!(timed_out(&mut session, 2 * TIMEOUT_MS - 1), 1);

    let (mut session, _) = late_session(&[]);
    session.submit(command(8, WRITE_4K), 0).unwrap();
    let write = transmit(&mut session)[0].field(16);
    timed_out(&mut session, 1_000);
    events(&mut session, &r2t(write, 1, 0, 0, 4096).bytes());
    timed_out(&mut session, 2_000);
    assert!(transmit(&mut session).len() > 1);
    assert_eq!(timed_out(&mut session, 2_000 + TIMEOUT_MS - 1), 0);
    assert_eq!(timed_out(&mut session, 2_000 + TIMEOUT_MS), 1);
}

#[test]
fn an_abort_that_is_not_answered_in_time_ends_the_session() {
    let (mut session, _) = late_session(&[7]);
    timed_out(&mut session, TIMEOUT_MS);
    assert_eq!(management(&mut session).len(), 1);
    let end_ms = TIMEOUT_MS + ABORT_TIMEOUT_MS;
    // Another one that waits for its turn does not give the first more time.
    send(&mut session, 8, TIMEOUT_MS);
    timed_out(&mut session, TIMEOUT_MS + 1_000);
    assert_eq!(session.abort(RequestTag(8)), 1);
    timed_out(&mut session, end_ms - 1);
    assert_eq!(session.next_timeout_ms(), end_ms);
    let waited_ms = ABORT_TIMEOUT_MS;
    assert_eq!(
        session.handle_timeout(end_ms),
        Err(SessionError::AbortUnanswered { waited_ms })
    );
    // The same without a time-out of commands.
    let (mut session, _) = sent(self::session(), READ_4K);
    session.abort(RequestTag(7));
    transmit(&mut session);
    assert_eq!(timed_out(&mut session, ABORT_TIMEOUT_MS - 1), 0);
    session.handle_timeout(ABORT_TIMEOUT_MS).unwrap_err();
}

#[test]
fn an_abort_that_never_left_is_forgotten_with_its_task_and_one_that_did_is_not() {
    for is_sent in [false, true] {
        let (mut session, tags) = late_session(&[7]);
        timed_out(&mut session, TIMEOUT_MS);
        if is_sent {
            assert_eq!(management(&mut session).len(), 1);
        }
        let mut refused = [0; BHS_LENGTH_BYTES];
        refused[0] = 0x01;
        refused[16..20].copy_from_slice(&tags[0].to_be_bytes());
        let reject = Pdu::new(0x3f, 0x80)
            .byte(2, 9)
            .put(16, RESERVED_TAG)
            .put(24, STAT_SN)
            .data(&refused);
        assert_eq!(events(&mut session, &reject.bytes()).len(), 1);
        let result = session.handle_timeout(TIMEOUT_MS + ABORT_TIMEOUT_MS);
        assert_eq!(result.is_err(), is_sent, "{result:?}");
    }
}

/// RFC 7143 section 4.2.2.1.
#[test]
fn one_abort_is_out_at_a_time_and_the_next_has_its_own_time() {
    let (mut session, tags) = late_session(&[1, 2, 3]);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 3);
    assert_eq!(session.abort(RequestTag(2)), 0, "it is asked for already");
    let first = management(&mut session);
    assert_eq!(first.len(), 1);
    // Another one is answered after all.
    events(&mut session, &response(tags[1], STAT_SN, 8).bytes());
    timed_out(&mut session, TIMEOUT_MS + 4_000);
    let done = events(&mut session, &answer(first[0].1, STAT_SN + 1, 1));
    assert_eq!(done, [abort_done(1, FunctionResponse::TaskDoesNotExist)]);
    let next = management(&mut session);
    assert_eq!(next, [(ABORT, tags[2] | outbound::ABORT_BIT, tags[2])]);
    timed_out(&mut session, TIMEOUT_MS + 4_000 + ABORT_TIMEOUT_MS - 1);
}

#[test]
fn an_abort_goes_ahead_of_the_data_that_waits() {
    let (mut session, itt) = sent(session(), WRITE_4K);
    let reading = send(&mut session, 9, 0);
    events(&mut session, &r2t(itt, 1, 0, 0, 4096).bytes());
    session.abort(RequestTag(9));
    let pdus = transmit(&mut session);
    assert_eq!((pdus[0].bhs[0], pdus[0].field(20)), (0x42, reading));
    assert!(pdus[1..].iter().all(|pdu| pdu.bhs[0] == 0x05));
}

#[test]
fn an_answer_before_the_abort_has_left_counts_and_the_abort_is_left_out() {
    let (mut session, tags) = late_session(&[1, 2]);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 2);
    let stream = data_in_with_status(tags[0], STAT_SN, 0, 0, &[1; 4096]).bytes();
    assert_eq!(events(&mut session, &stream), [good(1, 4096)]);
    assert_eq!(
        management(&mut session),
        [(ABORT, tags[1] | outbound::ABORT_BIT, tags[1])]
    );
}

#[test]
fn an_answer_that_crosses_with_the_abort_is_dropped_and_the_abort_decides() {
    let (mut session, tags) = late_session(&[7]);
    timed_out(&mut session, TIMEOUT_MS);
    let abort_tag = management(&mut session)[0].1;
    let mut stream = data_in_with_status(tags[0], STAT_SN, 0, 0, &[1; 4096]).bytes();
    stream.extend(answer(abort_tag, STAT_SN + 1, 1));
    let seen = feed(&mut session, &stream, 100).unwrap();
    assert!(seen.placed.is_empty());
    let response = FunctionResponse::TaskDoesNotExist;
    assert_eq!(seen.events, [abort_done(7, response)]);
    // The tag is free again, and a stale answer to it is nobody's.
    let late = misbehaviour(&mut session, vec![super::response(tags[0], STAT_SN + 2, 0)]);
    assert!(matches!(late, Misbehaviour::UnknownTask { .. }));
}

#[test]
fn a_refused_abort_is_told_once_and_a_late_answer_to_its_task_is_dropped() {
    for code in [2, 5, 255] {
        let (mut session, tags) = late_session(&[7]);
        timed_out(&mut session, TIMEOUT_MS);
        let abort_tag = management(&mut session)[0].1;
        let done = events(&mut session, &answer(abort_tag, STAT_SN, code));
        let [Event::AbortDone { response, .. }] = done[..] else {
            panic!("{done:?}")
        };
        assert!(!response.is_over());
        let late = data_in_with_status(tags[0], STAT_SN + 1, 0, 0, &[1; 4096]);
        let seen = feed(&mut session, &late.bytes(), 100).unwrap();
        assert_eq!(seen, Seen::default());
        feed(&mut session, &answer(abort_tag, STAT_SN + 2, 0), 48).unwrap_err();
    }
}

#[test]
fn an_abort_whose_pdu_is_rejected_counts_as_refused() {
    let (mut session, _) = late_session(&[7]);
    timed_out(&mut session, TIMEOUT_MS);
    let refused = transmit(&mut session).remove(0).bhs;
    let reject = Pdu::new(0x3f, 0x80)
        .byte(2, 6)
        .put(16, RESERVED_TAG)
        .put(24, STAT_SN)
        .data(&refused);
    let done = events(&mut session, &reject.bytes());
    assert_eq!(done, [abort_done(7, FunctionResponse::REJECTED)]);
}

#[test]
fn a_command_and_its_abort_that_are_both_rejected_are_one_rejected_command() {
    let (mut session, tags) = late_session(&[7]);
    timed_out(&mut session, TIMEOUT_MS);
    let abort = transmit(&mut session).remove(0).bhs;
    let mut command = [0; BHS_LENGTH_BYTES];
    command[0] = 0x01;
    command[16..20].copy_from_slice(&tags[0].to_be_bytes());
    let reject = |stat_sn, refused: &[u8]| {
        Pdu::new(0x3f, 0x80)
            .byte(2, 6)
            .put(16, RESERVED_TAG)
            .put(24, stat_sn)
            .data(refused)
    };
    let seen = events(&mut session, &reject(STAT_SN, &command).bytes());
    assert!(matches!(seen[..], [Event::CommandRejected { .. }]));
    let seen = events(&mut session, &reject(STAT_SN + 1, &abort).bytes());
    assert_eq!(seen, []);
}

#[test]
fn what_was_sent_before_the_news_has_to_be_answered_soon_and_what_is_sent_later_has_not() {
    for timeout_ms in [None, Some(TIMEOUT_MS)] {
        let (mut session, tags) = late_session(&[1]);
        session.set_command_timeout_ms(timeout_ms);
        session.submit(command(2, READ_4K), 0).unwrap();
        session.expect_answers_by(RECONCILE_MS);
        transmit(&mut session);
        send(&mut session, 3, 10);
        assert_eq!(timed_out(&mut session, RECONCILE_MS - 1), 0);
        // Data that still comes does not put it off: the time is for all of it.
        feed(&mut session, &data_in(tags[0], 0, 0, &[1; 512]).bytes(), 99).unwrap();
        assert_eq!(session.next_timeout_ms(), RECONCILE_MS);
        assert_eq!(timed_out(&mut session, RECONCILE_MS), 1);
        assert_eq!(management(&mut session)[0].2, tags[0]);
        assert_eq!(timed_out(&mut session, TIMEOUT_MS - 1), 0);
    }
}

#[test]
fn a_second_piece_of_news_does_not_put_off_the_first() {
    let (mut session, _) = late_session(&[1]);
    session.expect_answers_by(1_000);
    session.expect_answers_by(2_000);
    assert_eq!(timed_out(&mut session, 1_000), 1);
}

#[test]
fn a_command_that_cannot_be_sent_in_time_ends_the_session_unless_others_go_out() {
    let (mut session, _) = late_session(&[]);
    session.submit(command(1, READ_4K), 0).unwrap();
    session.submit(command(2, READ_4K), 0).unwrap();
    let mut wire = Wire {
        room: Some(1),
        ..Wire::default()
    };
    timed_out(&mut session, TIMEOUT_MS - 1);
    session.transmit(&mut wire);
    assert_eq!(parse(&wire.stream).len(), 1);
    // Neither is late: the one has just gone out, and so the other will.
    let end_ms = 2 * TIMEOUT_MS - 1;
    assert_eq!(timed_out(&mut session, end_ms - 1), 0);
    // Without a sign of it the first would now be aborted.
    let itt = parse(&wire.stream)[0].field(16);
    events(&mut session, &response(itt, STAT_SN, 8).bytes());
    let waited_ms = TIMEOUT_MS;
    assert_eq!(
        session.handle_timeout(end_ms),
        Err(SessionError::NotSent { waited_ms })
    );
}

#[test]
fn a_window_that_stays_closed_with_nothing_in_flight_ends_the_session() {
    let closed = |timeout_ms| {
        let mut session = session_with(|n| n.max_cmd_sn = SerialNumber(CMD_SN - 1));
        session.set_command_timeout_ms(timeout_ms);
        timed_out(&mut session, 0);
        session
    };
    let mut session = closed(Some(TIMEOUT_MS));
    assert_eq!(session.next_timeout_ms(), TIMEOUT_MS);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS - 1), 0);
    let waited_ms = TIMEOUT_MS;
    assert_eq!(
        session.handle_timeout(TIMEOUT_MS),
        Err(SessionError::WindowStaysClosed { waited_ms })
    );
    assert_eq!(timed_out(&mut closed(None), TIMEOUT_MS), 0);
    // It opens in time.
    let mut session = closed(Some(TIMEOUT_MS));
    let ping = Pdu::new(0x20, 0x80)
        .put(16, RESERVED_TAG)
        .put(20, RESERVED_TAG);
    events(&mut session, &ping.bytes());
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 0);
}

#[test]
fn while_a_logout_waits_nothing_is_aborted() {
    let (mut session, _) = late_session(&[7]);
    session.log_out();
    transmit(&mut session);
    assert_eq!(timed_out(&mut session, TIMEOUT_MS), 0);
    assert!(session.next_timeout_ms() > TIMEOUT_MS);
    assert!(management(&mut session).is_empty());
}

#[test]
fn no_reset_is_sent_unless_it_is_wanted() {
    let (mut session, _) = late_session(&[7]);
    timed_out(&mut session, TIMEOUT_MS);
    let abort_tag = management(&mut session)[0].1;
    let done = events(&mut session, &answer(abort_tag, STAT_SN, 5));
    assert_eq!(done, [abort_done(7, REFUSED)]);
    assert!(!session.is_resetting() && management(&mut session).is_empty());
}

#[test]
fn an_abort_that_did_not_work_is_followed_by_a_reset_where_that_is_wanted() {
    for is_refused in [true, false] {
        let (mut session, _) = late_session(&[1, 2]);
        session.set_resets_after_abort(true);
        assert_eq!(timed_out(&mut session, TIMEOUT_MS), 2);
        let abort_tag = management(&mut session)[0].1;
        let now_ms = TIMEOUT_MS + ABORT_TIMEOUT_MS;
        timed_out(&mut session, now_ms - 1);
        let mut stat_sn = STAT_SN;
        if is_refused {
            let done = events(&mut session, &answer(abort_tag, stat_sn, 5));
            assert_eq!(done, [abort_done(1, REFUSED)]);
            stat_sn += 1;
        } else {
            assert!(session.handle_timeout(now_ms).unwrap().resetting);
        }
        assert!(session.is_resetting());
        let refused = session.submit(command(3, READ_4K), now_ms);
        assert_eq!(refused, Err(SubmitError::Closing));
        let reset = (RESET, outbound::RESET_TAG, RESERVED_TAG);
        assert_eq!(management(&mut session), [reset], "and no second abort");
        let done = events(&mut session, &answer(outbound::RESET_TAG, stat_sn, 0));
        let response = FunctionResponse::Complete;
        assert_eq!(done, [Event::ResetDone { response }]);
        // There was one, so there is one answer.
        feed(
            &mut session,
            &answer(outbound::RESET_TAG, stat_sn + 1, 0),
            48,
        )
        .unwrap_err();
    }
}

#[test]
fn a_reset_that_is_not_answered_in_time_ends_the_session() {
    let mut session = session();
    session.reset_logical_unit(0);
    session.reset_logical_unit(0);
    assert_eq!(management(&mut session).len(), 1);
    // The target answers pings all the while.
    for now_ms in [4_000, 8_000] {
        let ping = Pdu::new(0x20, 0x80)
            .put(16, RESERVED_TAG)
            .put(20, RESERVED_TAG);
        session.receive(&ping.bytes(), now_ms).unwrap();
    }
    assert_eq!(timed_out(&mut session, RESET_TIMEOUT_MS - 1), 0);
    assert_eq!(session.next_timeout_ms(), RESET_TIMEOUT_MS);
    let waited_ms = RESET_TIMEOUT_MS;
    assert_eq!(
        session.handle_timeout(RESET_TIMEOUT_MS),
        Err(SessionError::ResetUnanswered { waited_ms })
    );
}

#[test]
fn a_reset_that_was_not_asked_for_cannot_be_answered() {
    let stream = answer(outbound::RESET_TAG, STAT_SN, 0);
    feed(&mut session(), &stream, 48).unwrap_err();
    // Nor one that has not been sent.
    let mut session = session();
    session.reset_logical_unit(0);
    feed(&mut session, &stream, 48).unwrap_err();
}
