//! Old writes: a target that keeps a write of a dead connection never gets to run it after the guest
//! has been told that a newer one is done; and nothing is ever sent to another disk.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::sync::Arc;

use iscsi_test_target::{
    CommandFault, Event, LoginFault, LunConfig, Rule, TargetConfig, TestTarget, opcode,
};
use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{Daemon, Launch};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, Served, one_lun, start_target};
use vhost_user_iscsi_tests::wait;

const SESSIONS_2: [&str; 2] = ["--sessions", "2"];
/// One that goes with its command, and one that takes R2Ts and many Data-Out.
const LENGTHS: [usize; 2] = [4096, 512 * 1024];

fn config() -> TargetConfig {
    one_lun(LunConfig::default())
}

fn queues(queues: u16, inflight: bool) -> FrontendConfig {
    FrontendConfig {
        queues,
        inflight,
        ..FrontendConfig::default()
    }
}

fn old(length: usize) -> Vec<u8> {
    vec![0xaa; length]
}

/// Both queues have been used, so that both sessions are there.
fn warm_up(frontend: &mut Frontend) {
    for (sector, queue) in (4096..).step_by(8).zip(frontend.queues()) {
        assert_eq!(queue.write(sector, &pattern(4096)).unwrap(), S_OK);
    }
}

/// Leaves a write of `queue` at the target, which does not carry it out for now.
fn leave_held(target: &TestTarget, frontend: &mut Frontend, queue: usize, length: usize) {
    target.add(
        Rule::command(CommandFault::Hold)
            .opcode(opcode::WRITE_16)
            .once(),
    );
    let request = Request::write(0, old(length));
    let layout = Layout::usual(&request);
    frontend.queue(queue).submit(request, &layout).unwrap();
    let held = wait::until(SOON, || (target.held_count() == 1).then_some(()));
    assert!(held.is_some(), "the write did not arrive");
}

/// Has the target close the session of `queue`, and only that, by a command of its own.
fn cut_session_of(target: &TestTarget, frontend: &mut Frontend, queue: usize) {
    let rule = Rule::command(CommandFault::CloseBefore).opcode(opcode::READ_16);
    let rule = target.add(rule.once());
    let request = Request::read(8192, 4096);
    let layout = Layout::usual(&request);
    frontend.queue(queue).submit(request, &layout).unwrap();
    let cut = wait::until(SOON, || (target.fired(rule) == 1).then_some(()));
    assert!(cut.is_some(), "the read did not arrive");
}

/// The statuses of everything that is in flight on a queue.
fn statuses(frontend: &mut Frontend, queue: usize) -> Vec<u8> {
    let queue = frontend.queue(queue);
    let mut statuses = Vec::new();
    while queue.in_flight() > 0 {
        statuses.push(queue.wait_used(IO_LIMIT).unwrap().status);
    }
    statuses
}

/// Writes anew until that succeeds: storage may still be away.
fn write_at_last(frontend: &mut Frontend, queue: usize, data: &[u8]) {
    let written = wait::until(SOON, || {
        (frontend.queue(queue).write(0, data).unwrap() == S_OK).then_some(())
    });
    assert!(written.is_some(), "storage does not come back");
}

/// The target runs what it has kept, if it still has it; the newer data has to be there after that.
fn newer_data_stays(target: &TestTarget, frontend: &mut Frontend, queue: usize, data: &[u8]) {
    target.release_held();
    let stale = |event: &Event| matches!(event, Event::StaleWrite { .. });
    let length = u32::try_from(data.len()).unwrap();
    let (status, found) = frontend.queue(queue).read(0, length).unwrap();
    assert!(!target.events().iter().any(stale), "an old write has run");
    assert_eq!(status, S_OK);
    assert!(found == data, "an old write is on the disk");
}

fn writes(target: &TestTarget) -> usize {
    let is_write =
        |event: &Event| matches!(event, Event::Command { cdb, .. } if cdb[0] == opcode::WRITE_16);
    target.events().iter().filter(|e| is_write(e)).count()
}

/// No session is made.
fn no_login() -> Rule {
    Rule::login(LoginFault::Status {
        class: 3,
        detail: 1,
    })
}

/// Submits a request, which is not sent as long as a session cannot be made: not even until that was
/// tried twice more, which takes longer than a lane takes.
fn leave_unsent(target: &TestTarget, frontend: &mut Frontend, queue: usize, request: &Request) {
    let is_refusal = |event: &Event| matches!(event, Event::LoginRefused { .. });
    let refusals = || target.events().iter().filter(|e| is_refusal(e)).count();
    let (writes_before, refusals_before) = (writes(target), refusals());
    let layout = Layout::usual(request);
    let queue = frontend.queue(queue);
    queue.submit(request.clone(), &layout).unwrap();
    let tried = || (refusals() >= refusals_before + 2).then_some(());
    assert!(wait::until(SOON, tried).is_some(), "nobody logs in");
    assert_eq!(queue.poll_used().unwrap(), None);
    assert_eq!(writes(target), writes_before);
}

#[test]
fn a_write_that_io_timeout_has_failed_does_not_run_later() {
    for length in LENGTHS {
        let served = Served::with(
            config(),
            &[&SESSIONS_2[..], &["--io-timeout", "0"]].concat(),
        );
        let mut frontend = served.connect(queues(2, true));
        warm_up(&mut frontend);
        leave_held(&served.target, &mut frontend, 0, length);
        // The session of the other queue lives on; this one is not to be had again for now.
        let refusal = served.target.add(no_login());
        cut_session_of(&served.target, &mut frontend, 0);
        assert_eq!(statuses(&mut frontend, 0), [S_IOERR, S_IOERR]);
        let before = writes(&served.target);
        let new = pattern(length);
        // Were it sent now, the old one could overwrite it.
        assert_eq!(frontend.queue(1).write(0, &new).unwrap(), S_IOERR);
        assert_eq!(writes(&served.target), before);
        served.target.remove(refusal);
        write_at_last(&mut frontend, 1, &new);
        newer_data_stays(&served.target, &mut frontend, 1, &new);
    }
}

#[test]
fn other_sessions_wait_until_a_lost_one_is_back_and_then_go_on() {
    let served = Served::with(config(), &SESSIONS_2);
    let mut frontend = served.connect(queues(2, true));
    warm_up(&mut frontend);
    leave_held(&served.target, &mut frontend, 0, 4096);
    let refusal = served.target.add(no_login());
    cut_session_of(&served.target, &mut frontend, 0);
    served.daemon.wait_log("requests wait", SOON);
    let request = Request::write(64, pattern(4096));
    leave_unsent(&served.target, &mut frontend, 1, &request);
    served.target.remove(refusal);
    assert_eq!(statuses(&mut frontend, 1), [S_OK]);
    assert_eq!(statuses(&mut frontend, 0), [S_OK, S_OK]);
    assert_eq!(served.target.release_held(), 0);
}

#[test]
fn a_write_that_a_stopped_ring_has_given_up_does_not_run_later() {
    for length in LENGTHS {
        let served = Served::with(config(), &SESSIONS_2);
        let mut frontend = served.connect(queues(2, false));
        warm_up(&mut frontend);
        leave_held(&served.target, &mut frontend, 0, length);
        // Its task lives until the session is made anew, which cannot be for now.
        let refusal = served.target.add(no_login());
        frontend.stop_queue(0).unwrap();
        assert_eq!(statuses(&mut frontend, 0), [S_IOERR]);
        let new = pattern(length);
        let request = Request::write(0, new.clone());
        leave_unsent(&served.target, &mut frontend, 1, &request);
        served.target.remove(refusal);
        assert_eq!(statuses(&mut frontend, 1), [S_OK]);
        newer_data_stays(&served.target, &mut frontend, 1, &new);
    }
}

#[test]
fn a_write_of_a_front_end_that_has_gone_does_not_run_later() {
    let served = Served::with(config(), &SESSIONS_2);
    let mut frontend = served.connect(queues(2, false));
    warm_up(&mut frontend);
    leave_held(&served.target, &mut frontend, 1, 4096);
    let refusal = served.target.add(no_login());
    drop(frontend);
    let mut frontend = served.connect(queues(1, false));
    let new = pattern(4096);
    let request = Request::write(0, new.clone());
    leave_unsent(&served.target, &mut frontend, 0, &request);
    served.target.remove(refusal);
    assert_eq!(statuses(&mut frontend, 0), [S_OK]);
    newer_data_stays(&served.target, &mut frontend, 0, &new);
}

/// A daemon that can be started again with a socket of the same name.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    fn start(&self, url: &str, arguments: &[&str]) -> Daemon {
        let path = self.directory.path().join("disk.sock");
        let name = ["--initiator-name", INITIATOR_NAME];
        Launch::at(url, &path)
            .args(name.iter().chain(arguments).copied())
            .start()
    }
}

#[test]
fn a_write_of_a_killed_process_does_not_run_after_its_successor_took_over() {
    for (length, sessions) in [(4096, "1"), (4096, "2"), (512 * 1024, "1")] {
        let (host, target) = (Host::new(), start_target(config()));
        let mut daemon = host.start(&target.url(0), &SESSIONS_2);
        let mut frontend = daemon.connect(queues(2, true));
        warm_up(&mut frontend);
        leave_held(&target, &mut frontend, 1, length);
        daemon.kill();
        // Fewer sessions than before: nobody would log in with the second one's ISID for its own sake.
        // And to end what is left takes a moment, which is no loss of storage.
        let arguments = ["--sessions", sessions, "--io-timeout", "0"];
        let daemon = host.start(&target.url(0), &arguments);
        frontend.reconnect(daemon.socket()).unwrap();
        assert_eq!(statuses(&mut frontend, 1), [S_OK], "{:#?}", daemon.log());
        let new = pattern(length);
        assert_eq!(frontend.queue(0).write(0, &new).unwrap(), S_OK);
        newer_data_stays(&target, &mut frontend, 0, &new);
    }
}

#[test]
fn a_write_of_a_killed_process_does_not_hit_the_next_guest() {
    let (host, target) = (Host::new(), start_target(config()));
    let mut daemon = host.start(&target.url(0), &SESSIONS_2);
    let mut frontend = daemon.connect(queues(2, true));
    warm_up(&mut frontend);
    leave_held(&target, &mut frontend, 1, 4096);
    daemon.kill();
    drop(frontend);
    let daemon = host.start(&target.url(0), &["--sessions", "1"]);
    let mut frontend = daemon.connect(queues(1, true));
    let new = pattern(4096);
    assert_eq!(frontend.queue(0).write(0, &new).unwrap(), S_OK);
    newer_data_stays(&target, &mut frontend, 0, &new);
}

#[test]
fn a_successor_waits_for_the_target_without_being_told_to() {
    let (host, target) = (Host::new(), start_target(config()));
    let mut daemon = host.start(&target.url(0), &[]);
    let mut frontend = daemon.connect(queues(1, true));
    warm_up(&mut frontend);
    daemon.kill();
    target.refuse_connections();
    let path = host.directory.path().join("disk.sock");
    let launch = Launch::at(&target.url(0), &path).args(["--initiator-name", INITIATOR_NAME]);
    let daemon = launch.spawn();
    daemon.wait_log("waiting for the target", SOON);
    target.accept_connections().unwrap();
    let back = wait::until(SOON, || frontend.reconnect(&path).ok());
    assert!(back.is_some(), "{:#?}", daemon.log());
    assert_eq!(frontend.queue(0).flush().unwrap(), S_OK);
}

#[test]
fn a_process_that_ended_in_order_leaves_nothing_to_its_successor() {
    let (host, target) = (Host::new(), start_target(config()));
    let mut daemon = host.start(&target.url(0), &SESSIONS_2);
    warm_up(&mut daemon.connect(queues(2, true)));
    daemon.terminate(SOON);
    target.clear_events();
    let daemon = host.start(&target.url(0), &SESSIONS_2);
    assert_eq!(
        daemon.connect(queues(1, true)).queue(0).flush().unwrap(),
        S_OK
    );
    let logged_in = |event: &Event| matches!(event, Event::LoggedIn { .. });
    let logins = target.events().into_iter().filter(logged_in).count();
    assert_eq!(logins, 1);
}

fn disk_with_serial(serial: &str) -> TargetConfig {
    one_lun(LunConfig {
        serial: Some(serial.to_owned()),
        designators: Some(Vec::new()),
        ..LunConfig::default()
    })
}

fn changes(target: &TestTarget) -> Vec<[u8; 16]> {
    let changes = |event| match event {
        Event::Command { cdb, .. } if cdb[0] == opcode::WRITE_16 => Some(cdb),
        _ => None,
    };
    target.events().into_iter().filter_map(changes).collect()
}

#[test]
fn a_lun_that_was_replaced_while_we_were_dead_gets_nothing_and_the_right_one_is_taken_up_again() {
    let (host, right) = (Host::new(), start_target(disk_with_serial("right")));
    let (url, portal) = (right.url(0), right.portal());
    let mut daemon = host.start(&url, &SESSIONS_2);
    let mut frontend = daemon.connect(queues(2, true));
    warm_up(&mut frontend);
    leave_held(&right, &mut frontend, 0, 4096);
    daemon.kill();
    let disk = right.disk(0).unwrap();
    right.stop();
    let wrong = start_target(TargetConfig {
        listen: portal,
        ..disk_with_serial("wrong")
    });
    let daemon = host.start(&url, &SESSIONS_2);
    frontend.reconnect(daemon.socket()).unwrap();
    let line = daemon.wait_log("identity changed", SOON);
    assert!(line.contains("right") && line.contains("wrong"), "{line}");
    // The login is tried again and again, and refused by us each time.
    let mut logins = 0;
    let tried = wrong.wait_for(SOON, |event| {
        logins += usize::from(matches!(event, Event::LoggedIn { .. }));
        logins == 4
    });
    assert!(tried.is_some(), "{:#?}", daemon.log());
    assert_eq!(frontend.queue(0).poll_used().unwrap(), None);
    assert_eq!(changes(&wrong), [[0; 16]; 0]);
    wrong.stop();
    let right = start_target(TargetConfig {
        listen: portal,
        luns: [(
            0,
            LunConfig {
                serial: Some("right".to_owned()),
                designators: Some(Vec::new()),
                disk: Some(Arc::clone(&disk)),
                ..LunConfig::default()
            },
        )]
        .into(),
        ..TargetConfig::default()
    });
    assert_eq!(statuses(&mut frontend, 0), [S_OK], "{:#?}", daemon.log());
    let (status, data) = frontend.queue(1).read(0, 4096).unwrap();
    assert_eq!((status, data), (S_OK, old(4096)));
    assert!(!changes(&right).is_empty());
}

#[test]
fn a_lun_that_is_replaced_while_we_live_gets_nothing() {
    let (host, right) = (Host::new(), start_target(disk_with_serial("right")));
    let daemon = host.start(&right.url(0), &SESSIONS_2);
    let mut frontend = daemon.connect(queues(2, true));
    warm_up(&mut frontend);
    let portal = right.portal();
    leave_held(&right, &mut frontend, 0, 4096);
    right.stop();
    let wrong = start_target(TargetConfig {
        listen: portal,
        ..disk_with_serial("wrong")
    });
    let line = daemon.wait_log("identity changed", SOON);
    assert!(line.contains("right") && line.contains("wrong"), "{line}");
    assert_eq!(changes(&wrong), [[0; 16]; 0]);
    wrong.stop();
    let right = start_target(TargetConfig {
        listen: portal,
        ..disk_with_serial("right")
    });
    assert_eq!(statuses(&mut frontend, 0), [S_OK], "{:#?}", daemon.log());
    drop(right);
}
