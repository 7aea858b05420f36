//! No write of a former life: nothing goes to a disk on any session while the target may still carry
//! out what a dead connection or a killed process has left, and nothing ever goes to another disk.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use iscsi_test_target::{
    CommandFault, Designator, Disk, Event, LoginFault, LunConfig, Rule, TargetConfig, TestTarget,
    opcode,
};
use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{Daemon, Launch};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::proxy::{Cut, Direction, Proxy};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, one_lun, start_target};
use vhost_user_iscsi_tests::wait;

/// How long it may take until something that is tried again and again has been tried.
const NOTICED: Duration = Duration::from_secs(20);

fn queues(queues: u16) -> FrontendConfig {
    FrontendConfig {
        queues,
        ..FrontendConfig::default()
    }
}

fn submit(frontend: &mut Frontend, queue: usize, request: Request) {
    let layout = Layout::usual(&request);
    frontend.queue(queue).submit(request, &layout).unwrap();
}

fn ends_well(frontend: &mut Frontend, queue: usize) {
    let done = frontend.queue(queue).wait_used(IO_LIMIT).unwrap();
    assert_eq!(done.status, S_OK, "queue {queue}");
}

/// Each queue is in use, so each has its session.
fn uses_all_queues(frontend: &mut Frontend) {
    for queue in frontend.queues() {
        assert_eq!(queue.read(0, 512).unwrap().0, S_OK);
    }
}

fn wait_held(target: &TestTarget, count: usize) {
    let held = wait::until(SOON, || (target.held_count() == count).then_some(()));
    assert!(held.is_some(), "{} are held", target.held_count());
}

/// Nothing that the target had held back is left to be carried out, and nothing of a session that
/// is gone was.
fn nothing_is_left(target: &TestTarget) {
    assert_eq!(target.release_held(), 0);
    let stale = |event: &Event| matches!(event, Event::StaleWrite { .. });
    assert!(!target.events().iter().any(stale));
    assert_eq!(target.violations(), [""; 0]);
}

fn hold_writes(target: &TestTarget, count: u64) {
    let rule = Rule::command(CommandFault::Hold).opcode(opcode::WRITE_16);
    target.add(rule.times(count));
}

/// The first block of READ(16) and WRITE(16), when it is one of them.
fn data_command(event: &Event) -> Option<u64> {
    match event {
        Event::Command { cdb, .. } if [opcode::READ_16, opcode::WRITE_16].contains(&cdb[0]) => {
            let address = cdb.get(2..10)?.try_into().ok()?;
            Some(u64::from_be_bytes(address))
        }
        _ => None,
    }
}

// ---- the sessions of one disk -------------------------------------------------------------------

/// The target holds a write of a session whose connection is lost and whose login it refuses. Until
/// that login has been granted, a write on the other session waits: its sectors might be those of
/// the first.
#[test]
fn no_command_goes_out_on_any_session_while_one_may_still_run_on_a_dead_one() {
    const OTHER_SECTOR: u64 = 4096;
    let target = start_target(one_lun(LunConfig::default()));
    let proxy = Proxy::before(target.portal().port());
    let arguments = ["--initiator-name", INITIATOR_NAME, "--sessions", "2"];
    let daemon = Daemon::start(&proxy.url(&target.url(0)), &arguments);
    let mut frontend = daemon.connect(queues(2));
    uses_all_queues(&mut frontend);
    hold_writes(&target, 1);
    submit(&mut frontend, 0, Request::write(0, pattern(512)));
    wait_held(&target, 1);

    let unavailable = LoginFault::Status {
        class: 3,
        detail: 1,
    };
    let refusal = target.add(Rule::login(unavailable));
    // The next bytes to the target are those of the first queue's session.
    proxy.cut_after(Direction::ToTarget, 0, Cut::Reset);
    submit(&mut frontend, 0, Request::read(8, 512));
    daemon.wait_log("is lost", SOON);
    submit(
        &mut frontend,
        1,
        Request::write(OTHER_SECTOR, pattern(1024)),
    );
    let refused = wait::until(NOTICED, || (target.fired(refusal) >= 3).then_some(()));
    assert!(refused.is_some(), "{:#?}", daemon.log());
    let went_out = |event: &Event| data_command(event) == Some(OTHER_SECTOR);
    assert!(!target.events().iter().any(went_out), "it did not wait");

    target.remove(refusal);
    ends_well(&mut frontend, 1);
    ends_well(&mut frontend, 0);
    ends_well(&mut frontend, 0);
    nothing_is_left(&target);
    let read = frontend.queue(1).read(OTHER_SECTOR, 1024).unwrap();
    assert_eq!(read, (S_OK, pattern(1024)));
}

// ---- after a kill -------------------------------------------------------------------------------

const SESSIONS: u16 = 4;

/// A daemon at one path, to be killed and started again with the same arguments.
struct Host {
    daemon: Daemon,
    path: PathBuf,
    url: String,
    _directory: TempDir,
}

impl Host {
    fn new(target: &TestTarget) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk.sock");
        let url = target.url(0);
        Self {
            daemon: launch(&url, &path).start(),
            path,
            url,
            _directory: directory,
        }
    }

    fn kill(&mut self) {
        self.daemon.kill();
        self.daemon.wait_exit(SOON);
    }

    fn restart(&mut self) {
        self.daemon = launch(&self.url, &self.path).start();
    }
}

fn launch(url: &str, path: &std::path::Path) -> Launch {
    let sessions = SESSIONS.to_string();
    let arguments = ["--initiator-name", INITIATOR_NAME, "--sessions", &sessions];
    Launch::at(url, path).args(arguments)
}

fn isids_of(events: &[Event]) -> BTreeSet<[u8; 6]> {
    let isid = |event: &Event| match event {
        Event::LoggedIn { isid, .. } => Some(*isid),
        _ => None,
    };
    events.iter().filter_map(isid).collect()
}

/// A daemon that was killed while the target held a write of each of its sessions; and the ISIDs
/// of these.
fn killed_with_held_writes(target: &TestTarget) -> (Host, Frontend, BTreeSet<[u8; 6]>) {
    let mut host = Host::new(target);
    let mut frontend = host.daemon.connect(queues(SESSIONS));
    uses_all_queues(&mut frontend);
    let former = isids_of(&target.events());
    assert_eq!(former.len(), usize::from(SESSIONS));
    hold_writes(target, u64::from(SESSIONS));
    for queue in 0..usize::from(SESSIONS) {
        submit(
            &mut frontend,
            queue,
            Request::write(8 * queue as u64, pattern(4096)),
        );
    }
    wait_held(target, usize::from(SESSIONS));
    host.kill();
    target.clear_events();
    (host, frontend, former)
}

/// All former sessions were reinstated before the first command that moves data.
fn judge_order(target: &TestTarget, former: &BTreeSet<[u8; 6]>) {
    let events = target.events();
    let first = events
        .iter()
        .position(|event| data_command(event).is_some());
    let before = isids_of(&events[..first.unwrap()]);
    let missing: Vec<_> = former.difference(&before).collect();
    assert!(missing.is_empty(), "not reinstated before: {missing:02x?}");
}

#[test]
fn every_session_of_a_killed_process_is_reinstated_before_what_it_left_is_sent_again() {
    let target = start_target(one_lun(LunConfig::default()));
    let (mut host, mut frontend, former) = killed_with_held_writes(&target);
    host.restart();
    frontend.reconnect(&host.path).unwrap();
    for queue in 0..usize::from(SESSIONS) {
        ends_well(&mut frontend, queue);
    }
    judge_order(&target, &former);
    nothing_is_left(&target);
}

/// The guest was started anew, too: it has no region, and one queue.
#[test]
fn every_session_of_a_killed_process_is_reinstated_before_the_first_write_of_another_guest() {
    let target = start_target(one_lun(LunConfig::default()));
    let (mut host, frontend, former) = killed_with_held_writes(&target);
    drop(frontend);
    host.restart();
    let mut next = host.daemon.connect(queues(1));
    let newer = vec![0x55; 512];
    for sector in (0..8 * u64::from(SESSIONS)).step_by(8) {
        assert_eq!(next.queue(0).write(sector, &newer).unwrap(), S_OK);
    }
    judge_order(&target, &former);
    nothing_is_left(&target);
    for sector in (0..8 * u64::from(SESSIONS)).step_by(8) {
        let read = next.queue(0).read(sector, 512).unwrap();
        assert_eq!(read, (S_OK, newer.clone()), "a stale write at {sector}");
    }
}

// ---- another disk -------------------------------------------------------------------------------

/// A target at this address whose LUN 0 calls itself like that.
fn target_at(listen: SocketAddr, naa: u8, disk: Option<Arc<Disk>>) -> TestTarget {
    let designator = Designator {
        code_set: 1,
        association: 0,
        kind: 3,
        bytes: vec![0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, naa],
    };
    start_target(TargetConfig {
        listen,
        ..one_lun(LunConfig {
            designators: Some(vec![designator]),
            disk,
            ..LunConfig::default()
        })
    })
}

/// While our process is dead, another disk comes to where ours was.
#[test]
fn what_a_killed_process_left_never_goes_to_another_disk() {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let target = target_at(any_port, 1, None);
    let (portal, store) = (target.portal(), target.disk(0).unwrap());
    let mut host = Host::new(&target);
    let mut frontend = host.daemon.connect(queues(1));
    uses_all_queues(&mut frontend);
    hold_writes(&target, 1);
    submit(&mut frontend, 0, Request::write(8, pattern(4096)));
    wait_held(&target, 1);
    host.kill();
    target.stop();

    let another = target_at(portal, 2, None);
    host.restart();
    let connected = frontend.reconnect(&host.path).is_ok();
    host.daemon.wait_log("identity changed", NOTICED);
    let moved = |event: &Event| data_command(event).is_some();
    assert!(!another.events().iter().any(moved));
    let mut stored = vec![0xff; 4096];
    another.disk(0).unwrap().read(8 * 512, &mut stored);
    assert_eq!(stored, vec![0; 4096]);
    another.stop();

    let ours = target_at(portal, 1, Some(store));
    if !connected {
        let again = wait::until(NOTICED, || frontend.reconnect(&host.path).ok());
        assert!(again.is_some(), "{:#?}", host.daemon.log());
    }
    ends_well(&mut frontend, 0);
    let read = frontend.queue(0).read(8, 4096).unwrap();
    assert_eq!(read, (S_OK, pattern(4096)));
    nothing_is_left(&ours);
}
