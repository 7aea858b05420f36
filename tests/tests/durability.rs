//! What a guest was told is done stays done, or it is told otherwise: flushes after a loss, requests
//! that wait for storage, rings that stop meanwhile.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use iscsi_test_target::{CommandFault, LunConfig, Rule, Sense, TargetConfig, opcode};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::served::{SOON, Served, one_lun};
use vhost_user_iscsi_tests::wait;

const SESSIONS_2: [&str; 2] = ["--sessions", "2"];
/// POWER ON OCCURRED.
const POWER_ON: Sense = Sense::new(0x06, 0x29, 0x01);

fn config() -> TargetConfig {
    one_lun(LunConfig::default())
}

fn write(frontend: &mut Frontend, queue: usize) {
    let status = frontend.queue(queue).write(0, &pattern(4096)).unwrap();
    assert_eq!(status, S_OK);
}

/// Both queues, so that each has its session.
fn write_on_both(frontend: &mut Frontend) {
    write(frontend, 0);
    write(frontend, 1);
}

fn flush(frontend: &mut Frontend, queue: usize) -> u8 {
    frontend.queue(queue).flush().unwrap()
}

#[test]
fn a_write_that_is_lost_after_its_status_fails_one_flush_on_whichever_queue() {
    let served = Served::with(config(), &SESSIONS_2);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    write_on_both(&mut frontend);
    let deferred = Sense::new(0x03, 0x0c, 0x00).deferred();
    let rule = Rule::command(CommandFault::check_condition(deferred));
    served.target.add(rule.opcode(opcode::READ_16).once());
    assert_eq!(frontend.queue(0).read(0, 4096).unwrap().0, S_OK);
    assert_eq!(flush(&mut frontend, 1), S_IOERR);
    assert_eq!(flush(&mut frontend, 1), S_OK);
    assert_eq!(flush(&mut frontend, 0), S_OK);
    served.daemon.wait_log("an earlier write was lost", SOON);
}

#[test]
fn a_loss_of_power_with_unflushed_writes_fails_one_flush_on_whichever_queue() {
    let served = Served::with(config(), &SESSIONS_2);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    write_on_both(&mut frontend);
    served.target.push_unit_attention(0, POWER_ON);
    assert_eq!(frontend.queue(0).read(0, 4096).unwrap().0, S_OK);
    assert_eq!(flush(&mut frontend, 1), S_IOERR);
    assert_eq!(flush(&mut frontend, 1), S_OK);
    served.daemon.wait_log("lost power", SOON);
    // Nothing unflushed, nothing lost.
    served.target.push_unit_attention(0, POWER_ON);
    assert_eq!(frontend.queue(0).read(0, 4096).unwrap().0, S_OK);
    assert_eq!(flush(&mut frontend, 0), S_OK);
}

#[test]
fn a_loss_of_power_that_a_new_session_is_told_of_counts_as_well() {
    let served = Served::with(config(), &["--sessions", "1"]);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    write(&mut frontend, 0);
    served.target.push_unit_attention(0, POWER_ON);
    served.target.drop_connections();
    served.daemon.wait_log("is lost", SOON);
    assert_eq!(flush(&mut frontend, 0), S_IOERR);
    assert_eq!(flush(&mut frontend, 0), S_OK);
}

#[test]
fn a_loss_of_power_can_be_ignored_and_one_without_a_volatile_cache_is() {
    let write_through = one_lun(LunConfig {
        write_cache: false,
        ..LunConfig::default()
    });
    for (config, argument) in [(config(), "--ignore-power-loss"), (write_through, "-v")] {
        let served = Served::with(config, &[argument]);
        let mut frontend = served.connect(FrontendConfig::with_queues(2));
        write(&mut frontend, 0);
        served.target.push_unit_attention(0, POWER_ON);
        assert_eq!(frontend.queue(0).read(0, 4096).unwrap().0, S_OK);
        assert_eq!(flush(&mut frontend, 0), S_OK);
    }
}

#[test]
fn resets_without_a_loss_of_power_lose_nothing() {
    let served = Served::with(config(), &[]);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    for sense in [Sense::RESET_OCCURRED, Sense::LUN_RESET_OCCURRED] {
        write(&mut frontend, 0);
        served.target.push_unit_attention(0, sense);
        assert_eq!(frontend.queue(0).read(0, 4096).unwrap().0, S_OK);
        assert_eq!(flush(&mut frontend, 0), S_OK);
    }
}

#[test]
fn requests_wait_as_long_as_io_timeout_says_and_succeed_again_when_storage_is_back() {
    let served = Served::with(config(), &["--io-timeout", "1s"]);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    write_on_both(&mut frontend);
    served.target.refuse_connections();
    served.target.drop_connections();
    for session in [0, 1] {
        let lost = format!("session {session} of {} is lost", served.target.url(0));
        served.daemon.wait_log(&lost, SOON);
    }
    for queue in [0, 1] {
        assert_eq!(flush(&mut frontend, queue), S_IOERR);
        // What is asked of the device itself needs no storage.
        assert_eq!(frontend.queue(queue).get_id().unwrap().0, S_OK);
    }
    let said = served.daemon.wait_log("longer than --io-timeout", SOON);
    assert!(said.contains("ERROR"), "{said}");
    served.target.accept_connections().unwrap();
    for queue in [0, 1] {
        let back = wait::until(SOON, || (flush(&mut frontend, queue) == S_OK).then_some(()));
        assert!(back.is_some(), "{:#?}", served.daemon.log());
    }
    served.daemon.wait_log("storage is back", SOON);
    let lines = served.daemon.log();
    let told = lines.iter().filter(|line| line.contains("--io-timeout"));
    assert!(told.count() <= 2, "once for each session: {lines:#?}");
}

#[test]
fn what_a_ring_has_in_flight_when_it_stops_is_done_when_it_starts_again() {
    let served = Served::with(config(), &SESSIONS_2);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    write_on_both(&mut frontend);
    let held = Rule::command(CommandFault::Hold).opcode(opcode::WRITE_16);
    served.target.add(held.once());
    let request = Request::write(64, pattern(8192));
    let layout = Layout::usual(&request);
    frontend.queue(0).submit(request, &layout).unwrap();
    let arrived = wait::until(SOON, || (served.target.held_count() == 1).then_some(()));
    assert!(arrived.is_some());
    let base = frontend.stop_queue(0).unwrap();
    served.daemon.wait_log("stay in flight", SOON);
    assert_eq!(frontend.queue(0).poll_used().unwrap(), None);
    assert_eq!(frontend.inflight().marked(0), 1);
    frontend.start_queue(0, base).unwrap();
    assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
    assert_eq!(served.target.release_held(), 0);
    let (status, data) = frontend.queue(1).read(64, 8192).unwrap();
    assert_eq!((status, data), (S_OK, pattern(8192)));
}
