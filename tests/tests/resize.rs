//! A LUN that changes while a guest uses it: it grows, shrinks, becomes write-protected, or becomes
//! another one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::time::Duration;

use iscsi_test_target::{CommandFault, Event, LunConfig, Rule, Sense, TestTarget, opcode};
use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{Daemon, Launch};
use vhost_user_iscsi_tests::disk::{DISK_BYTES, Disk, pattern};
use vhost_user_iscsi_tests::frontend::spec::{F_RO, S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, Layout, Queue, Request};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, Served, one_lun, start_target};
use vhost_user_iscsi_tests::tgt::LunOptions;
use vhost_user_iscsi_tests::wait;

const MIB: u64 = 1 << 20;
const FORMER: u64 = 16 * MIB;
const LARGER: u64 = 24 * MIB;
const SMALLER: u64 = 8 * MIB;
const NEVER: [&str; 2] = ["--capacity-poll", "never"];
const OFTEN: [&str; 2] = ["--capacity-poll", "1s"];
/// Long enough for a message to arrive that should not.
const A_WHILE: Duration = Duration::from_millis(300);
const MODE_PARAMETERS_CHANGED: Sense = Sense::new(0x06, 0x2a, 0x01);

fn served(arguments: &[&str]) -> Served {
    Served::with(one_lun(LunConfig::of_bytes(FORMER)), arguments)
}

fn resize(target: &TestTarget, bytes: u64) {
    assert!(target.set_capacity_bytes(0, bytes));
    target.push_unit_attention_to_all(0, Sense::CAPACITY_CHANGED);
}

fn shown_bytes(frontend: &mut Frontend) -> u64 {
    frontend.block_config().unwrap().capacity_sectors * 512
}

/// A front-end that knows the size. It has not asked before its rings were started, so it is told to.
fn guest(served: &Served, count: u16) -> Frontend {
    let mut frontend = served.connect(FrontendConfig::with_queues(count));
    wait_for_size(&mut frontend, &served.daemon, FORMER);
    frontend
}

/// Status of a read of one sector.
fn read_at(queue: &mut Queue, bytes: u64) -> u8 {
    queue.read(bytes / 512, 512).unwrap().0
}

fn write_at(queue: &mut Queue, bytes: u64) -> u8 {
    queue.write(bytes / 512, &pattern(512)).unwrap()
}

/// Waits for the message, and for the size that the front-end then finds.
fn wait_for_size(frontend: &mut Frontend, daemon: &Daemon, bytes: u64) {
    if let Err(error) = frontend.wait_config_change(SOON) {
        panic!("{error}: {:#?}", daemon.log());
    }
    assert_eq!(shown_bytes(frontend), bytes);
}

fn logins(target: &TestTarget) -> usize {
    let is_login = |event: &Event| matches!(event, Event::LoggedIn { .. });
    target.events().into_iter().filter(is_login).count()
}

#[test]
fn a_grown_lun_is_shown_larger_at_once_and_can_be_used_on_every_session() {
    let served = served(&[&NEVER[..], &["--sessions", "2"]].concat());
    let mut frontend = guest(&served, 2);
    for queue in frontend.queues() {
        assert_eq!(read_at(queue, FORMER - 512), S_OK);
        assert_eq!(read_at(queue, FORMER), S_IOERR);
    }
    let before = logins(&served.target);
    resize(&served.target, LARGER);
    // One that is told is enough.
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    wait_for_size(&mut frontend, &served.daemon, LARGER);
    for (queue, at) in frontend.queues().iter_mut().zip([FORMER, LARGER - 512]) {
        assert_eq!(write_at(queue, at), S_OK);
        assert_eq!(queue.read(at / 512, 512).unwrap().1, pattern(512));
        assert_eq!(read_at(queue, LARGER), S_IOERR);
    }
    assert_eq!(logins(&served.target), before, "it takes no login");
    served.daemon.wait_log(
        "has grown from 16777216 to 25165824 bytes; the guest is told",
        SOON,
    );
}

/// Has the LUN grow while one of two lanes is held up, which cannot know of it. Whether the guest
/// was told before that lane knew, as it was right after the other one did.
fn is_told_too_early() -> bool {
    let served = served(&[&NEVER[..], &["--sessions", "2"]].concat());
    let mut frontend = guest(&served, 2);
    let read = Request::read(0, 512);
    let layout = Layout::usual(&read);
    assert_eq!(read_at(frontend.queue(1), 0), S_OK);
    frontend.queue(1).block_notifications();
    frontend.queue(1).submit(read, &layout).unwrap();
    // It has ended and is about to be notified of.
    let ended = || frontend.queue(1).poll_used().unwrap();
    assert!(wait::until(SOON, ended).is_some());
    resize(&served.target, LARGER);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    let is_known = || (read_at(frontend.queue(0), FORMER) == S_OK).then_some(());
    assert!(wait::until(SOON, is_known).is_some());
    // Whatever else was sent along with that has come, too.
    frontend.ping().unwrap();
    let is_told = frontend.wait_config_change(Duration::ZERO).is_ok();
    let is_shown = shown_bytes(&mut frontend) != FORMER;
    frontend.queue(1).take_notifications();
    if !(is_told || is_shown) {
        wait_for_size(&mut frontend, &served.daemon, LARGER);
        assert_eq!(read_at(frontend.queue(1), LARGER - 512), S_OK);
    }
    is_told || is_shown
}

/// A lane that is held up for a second is not waited for any longer. When a busy machine holds us up
/// for as long, it looks as if the guest had been told early: one try of some has to show the order.
#[test]
fn a_guest_is_told_of_growth_after_every_session_knows() {
    const TRIES: usize = 3;
    assert!((0..TRIES).any(|_| !is_told_too_early()));
}

#[test]
fn growth_that_the_target_does_not_tell_of_is_found_by_looking() {
    let served = served(&OFTEN);
    let mut frontend = guest(&served, 1);
    assert!(served.target.set_capacity_bytes(0, LARGER));
    wait_for_size(&mut frontend, &served.daemon, LARGER);
    assert_eq!(read_at(frontend.queue(0), LARGER - 512), S_OK);
}

/// Two commands each time, and never one that touches the medium.
#[test]
fn a_look_at_an_unchanged_lun_costs_two_commands() {
    let served = served(&OFTEN);
    let _frontend = guest(&served, 1);
    served.target.clear_events();
    let opcodes = || {
        let opcode = |event| match event {
            Event::Command { cdb, .. } => Some(cdb[0]),
            _ => None,
        };
        let events = served.target.events().into_iter();
        events.filter_map(opcode).collect::<Vec<_>>()
    };
    let seen = wait::until(SOON, || Some(opcodes()).filter(|seen| seen.len() >= 3));
    let expected = [
        opcode::SERVICE_ACTION_IN_16,
        opcode::MODE_SENSE_6,
        opcode::SERVICE_ACTION_IN_16,
    ];
    assert_eq!(seen.unwrap()[..3], expected);
}

#[test]
fn a_lun_of_tgt_that_grows_is_found_by_looking() {
    let mut disk = Disk::with(&LunOptions::default(), &OFTEN);
    let mut frontend = disk.connect(FrontendConfig::with_queues(1));
    wait_for_size(&mut frontend, &disk.daemon, DISK_BYTES);
    let target = disk.target.clone();
    disk.tgt.resize_lun(&target, 1, DISK_BYTES + MIB);
    wait_for_size(&mut frontend, &disk.daemon, DISK_BYTES + MIB);
    assert_eq!(write_at(frontend.queue(0), DISK_BYTES), S_OK);
}

#[test]
fn growth_while_the_session_is_down_is_no_other_disk() {
    let served = served(&NEVER);
    let mut frontend = guest(&served, 1);
    served.target.refuse_connections();
    served.target.drop_connections();
    served.daemon.wait_log("is lost", SOON);
    assert!(served.target.set_capacity_bytes(0, LARGER));
    served.target.accept_connections().unwrap();
    wait_for_size(&mut frontend, &served.daemon, LARGER);
    assert_eq!(read_at(frontend.queue(0), LARGER - 512), S_OK);
}

#[test]
fn a_shrunk_lun_is_refused_loudly_and_harms_nothing_else() {
    let served = served(&NEVER);
    let mut frontend = guest(&served, 1);
    assert_eq!(write_at(frontend.queue(0), 0), S_OK);
    resize(&served.target, SMALLER);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    let line = served.daemon.wait_log("has shrunk to 8388608 bytes", SOON);
    assert!(
        line.contains("ERROR") && line.contains("16777216"),
        "{line}"
    );
    assert_eq!(shown_bytes(&mut frontend), FORMER);
    assert!(frontend.wait_config_change(A_WHILE).is_err());
    assert_eq!(read_at(frontend.queue(0), SMALLER), S_IOERR);
    assert_eq!(read_at(frontend.queue(0), SMALLER - 512), S_OK);
    // The target was asked, and said so.
    served.daemon.wait_log("05/21/00", SOON);
    // Nor is it taken for another disk.
    served.target.drop_connections();
    served.daemon.wait_log("is up again", SOON);
    assert_eq!(frontend.queue(0).read(0, 512).unwrap().1, pattern(512));
    assert_eq!(shown_bytes(&mut frontend), FORMER);
    resize(&served.target, LARGER);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    wait_for_size(&mut frontend, &served.daemon, LARGER);
}

/// The fourth INQUIRY is that of VPD page 83h: without it nobody could say who the disk is.
#[test]
fn a_lun_that_is_another_one_when_it_is_looked_at_gets_nothing_more() {
    let served = served(&NEVER);
    let mut frontend = guest(&served, 1);
    let nameless = CommandFault::check_condition(Sense::INVALID_FIELD);
    let rule = Rule::command(nameless).opcode(opcode::INQUIRY);
    let rule = served.target.add(rule.skip(3).once());
    resize(&served.target, LARGER);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    served.daemon.wait_log("is lost: identity changed", SOON);
    assert_eq!(served.target.fired(rule), 1);
    wait_for_size(&mut frontend, &served.daemon, LARGER);
    assert_eq!(read_at(frontend.queue(0), LARGER - 512), S_OK);
}

#[test]
fn a_look_that_is_not_answered_is_ended_and_made_again() {
    let timeout = ["--command-timeout", "1s"];
    let served = served(&[NEVER, timeout].concat());
    let mut frontend = guest(&served, 1);
    let rule = Rule::command(CommandFault::NoAnswer).opcode(opcode::SERVICE_ACTION_IN_16);
    let rule = served.target.add(rule.once());
    resize(&served.target, LARGER);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    served
        .daemon
        .wait_log("did not carry out READ CAPACITY(16)", SOON);
    assert_eq!(served.target.fired(rule), 1);
    wait_for_size(&mut frontend, &served.daemon, LARGER);
    assert!(
        !served
            .daemon
            .log()
            .iter()
            .any(|line| line.contains("is lost"))
    );
}

#[test]
fn a_lun_without_a_name_that_is_smaller_is_taken_for_another() {
    let config = one_lun(LunConfig {
        serial: Some(String::new()),
        designators: Some(Vec::new()),
        ..LunConfig::of_bytes(FORMER)
    });
    let served = Served::with(config, &NEVER);
    let mut frontend = guest(&served, 1);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    assert!(served.target.set_capacity_bytes(0, SMALLER));
    served.target.drop_connections();
    served.daemon.wait_log("identity changed", SOON);
    assert!(served.target.set_capacity_bytes(0, FORMER));
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
}

/// Its socket is full, and the back-end serves on.
#[test]
fn a_front_end_that_never_reads_what_it_is_told_holds_nobody_up() {
    let served = served(&NEVER);
    let mut frontend = guest(&served, 1);
    for step in 1..=3 {
        let bytes = FORMER + step * MIB;
        resize(&served.target, bytes);
        assert_eq!(read_at(frontend.queue(0), 0), S_OK);
        let grown = format!("to {bytes} bytes");
        served.daemon.wait_log(&grown, SOON);
        assert_eq!(read_at(frontend.queue(0), bytes - 512), S_OK);
    }
    frontend.ping().unwrap();
}

#[test]
fn a_front_end_that_cannot_be_told_sees_it_when_it_connects_anew() {
    let served = served(&NEVER);
    let deaf = FrontendConfig {
        changes: false,
        ..FrontendConfig::default()
    };
    let mut frontend = served.connect(deaf);
    resize(&served.target, LARGER);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    served.daemon.wait_log("the front-end cannot be told", SOON);
    frontend.reconnect(served.daemon.socket()).unwrap();
    assert_eq!(shown_bytes(&mut frontend), LARGER);
    assert_eq!(read_at(frontend.queue(0), LARGER - 512), S_OK);
}

/// QEMU does not ask again when it reconnects: it has to be told.
#[test]
fn a_front_end_that_comes_back_is_told_when_its_ring_starts() {
    let served = served(&NEVER);
    let mut frontend = guest(&served, 1);
    frontend.reconnect(served.daemon.socket()).unwrap();
    wait_for_size(&mut frontend, &served.daemon, FORMER);
}

/// A guest that knows the size, and outlives its daemon.
struct Outliving {
    frontend: Frontend,
    daemon: Daemon,
    target: TestTarget,
    directory: TempDir,
}

impl Outliving {
    fn new() -> Self {
        let target = start_target(one_lun(LunConfig::of_bytes(FORMER)));
        let directory = TempDir::new().unwrap();
        let daemon = start_in(&directory, &target);
        let mut frontend = daemon.connect(FrontendConfig::with_queues(1));
        wait_for_size(&mut frontend, &daemon, FORMER);
        Self {
            frontend,
            daemon,
            target,
            directory,
        }
    }

    /// While no daemon runs, the LUN gets another size.
    fn is_resized_meanwhile(&mut self, bytes: u64) {
        self.daemon.kill();
        self.daemon.wait_exit(SOON);
        assert!(self.target.set_capacity_bytes(0, bytes));
        self.daemon = start_in(&self.directory, &self.target);
        self.frontend.reconnect(self.daemon.socket()).unwrap();
    }

    /// Waits until the size is this, whether it is told of it or not.
    fn until_shown(&mut self, bytes: u64) {
        let shown = wait::until(SOON, || {
            (shown_bytes(&mut self.frontend) == bytes).then_some(())
        });
        assert!(shown.is_some());
    }

    fn waits_for_size(&mut self, bytes: u64) {
        wait_for_size(&mut self.frontend, &self.daemon, bytes);
    }

    fn reads_at(&mut self, bytes: u64) -> u8 {
        read_at(self.frontend.queue(0), bytes)
    }
}

fn start_in(directory: &TempDir, target: &TestTarget) -> Daemon {
    let launch = Launch::at(&target.url(0), &directory.path().join("disk.sock"));
    let name = ["--initiator-name", INITIATOR_NAME];
    launch.args(name).args(NEVER).start()
}

/// The same, when the first daemon has ended.
fn outlived(bytes: u64) -> Outliving {
    let mut guest = Outliving::new();
    assert_eq!(write_at(guest.frontend.queue(0), 0), S_OK);
    guest.is_resized_meanwhile(bytes);
    assert_eq!(guest.reads_at(0), S_OK);
    guest
}

#[test]
fn growth_while_no_daemon_ran_is_no_other_disk() {
    let mut guest = outlived(LARGER);
    guest.waits_for_size(LARGER);
    assert_eq!(guest.reads_at(LARGER - 512), S_OK);
}

#[test]
fn a_guest_that_knew_a_larger_disk_from_a_former_daemon_is_shown_that() {
    let mut guest = outlived(SMALLER);
    guest.daemon.wait_log("has shrunk to 8388608 bytes", SOON);
    guest.until_shown(FORMER);
    assert_eq!(guest.reads_at(SMALLER), S_IOERR);
}

#[test]
fn a_size_that_a_guest_was_told_of_under_way_outlives_the_daemon() {
    let mut guest = Outliving::new();
    resize(&guest.target, LARGER);
    assert_eq!(guest.reads_at(0), S_OK);
    guest.waits_for_size(LARGER);
    guest.is_resized_meanwhile(FORMER);
    let log = "guests are still shown 25165824 bytes";
    guest.daemon.wait_log(log, SOON);
    guest.until_shown(LARGER);
}

#[test]
fn write_protection_that_comes_and_goes_is_reported_and_honoured() {
    let served = served(&OFTEN);
    let mut frontend = guest(&served, 1);
    assert_eq!(write_at(frontend.queue(0), 0), S_OK);
    assert!(served.target.set_write_protected(0, true));
    // The refusal itself tells.
    assert_eq!(write_at(frontend.queue(0), 0), S_IOERR);
    served.daemon.wait_log("is write-protected now", SOON);
    assert_eq!(write_at(frontend.queue(0), 0), S_IOERR);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    drop(frontend);
    let mut frontend = guest(&served, 1);
    assert_ne!(frontend.offered() & F_RO, 0, "who comes now sees it");
    assert!(served.target.set_write_protected(0, false));
    served.daemon.wait_log("is writable now", SOON);
    assert_eq!(write_at(frontend.queue(0), 0), S_OK);
    let told = |part| {
        served
            .daemon
            .log()
            .iter()
            .filter(|line| line.contains(part))
            .count()
    };
    assert_eq!(
        (told("is write-protected now"), told("is writable now")),
        (1, 1)
    );
}

#[test]
fn write_protection_that_the_target_tells_of_is_known_before_the_first_write() {
    let served = served(&NEVER);
    let mut frontend = guest(&served, 1);
    assert!(served.target.set_write_protected(0, true));
    served
        .target
        .push_unit_attention_to_all(0, MODE_PARAMETERS_CHANGED);
    assert_eq!(read_at(frontend.queue(0), 0), S_OK);
    served.daemon.wait_log("is write-protected now", SOON);
    served.target.clear_events();
    assert_eq!(write_at(frontend.queue(0), 0), S_IOERR);
    assert!(served.commands(opcode::WRITE_16).is_empty());
}
