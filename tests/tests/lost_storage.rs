//! Storage that does not come back, or does not answer: for how long a guest waits is a setting, and
//! what it waits for survives a ring that stops.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::time::Duration;

use iscsi_test_target::{CommandFault, Event, LunConfig, Rule, TestTarget, opcode};
use vhost_user_iscsi_tests::daemon::Daemon;
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::proxy::{Cut, Proxy};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, Served, one_lun, start_target};
use vhost_user_iscsi_tests::wait;

/// How long it may take until something is noticed.
const NOTICED: Duration = Duration::from_secs(20);

/// A LUN behind a proxy that can refuse connections.
struct Storage {
    daemon: Daemon,
    proxy: Proxy,
    target: TestTarget,
}

impl Storage {
    fn new(arguments: &[&str]) -> Self {
        let target = start_target(one_lun(LunConfig::default()));
        let proxy = Proxy::before(target.portal().port());
        let name = ["--initiator-name", INITIATOR_NAME];
        let url = proxy.url(&target.url(0));
        Self {
            daemon: Daemon::start(&url, &[&name, arguments].concat()),
            proxy,
            target,
        }
    }

    fn connect(&self, inflight: bool) -> Frontend {
        self.daemon.connect(FrontendConfig {
            inflight,
            ..FrontendConfig::default()
        })
    }

    /// Connections end, none is to be had, and the daemon knows it.
    fn goes_away(&self) {
        self.proxy.refuse();
        self.proxy.cut(Cut::Reset);
        self.daemon.wait_log("is lost", NOTICED);
        self.daemon.wait_log("refused", NOTICED);
    }

    fn comes_back(&self) {
        self.proxy.accept();
        self.daemon.wait_log("is up again", NOTICED);
    }

    /// No write of a session that is gone was carried out.
    fn judge(&self) {
        assert_eq!(self.target.release_held(), 0);
        let stale = |event: &Event| matches!(event, Event::StaleWrite { .. });
        assert!(!self.target.events().iter().any(stale));
        assert_eq!(self.target.violations(), [""; 0]);
    }
}

fn submit(frontend: &mut Frontend, request: Request) {
    let layout = Layout::usual(&request);
    frontend.queue(0).submit(request, &layout).unwrap();
}

/// A write that the target has taken and does not answer.
fn write_in_flight(storage: &Storage, frontend: &mut Frontend) {
    let hold = Rule::command(CommandFault::Hold).opcode(opcode::WRITE_16);
    storage.target.add(hold.once());
    submit(frontend, Request::write(64, pattern(4096)));
    let held = wait::until(NOTICED, || (storage.target.held_count() == 1).then_some(()));
    assert!(held.is_some());
}

fn status(frontend: &mut Frontend) -> u8 {
    frontend.queue(0).wait_used(IO_LIMIT).unwrap().status
}

fn works(frontend: &mut Frontend, data: &[u8]) {
    assert_eq!(frontend.queue(0).write(64, data).unwrap(), S_OK);
    let length_bytes = u32::try_from(data.len()).unwrap();
    let read = frontend.queue(0).read(64, length_bytes).unwrap();
    assert_eq!(read, (S_OK, data.to_vec()));
}

// ---- --io-timeout -------------------------------------------------------------------------------

/// With the setting 0 and with a duration: an error now or later, and the disk goes on when storage
/// is back.
#[test]
fn io_that_waits_longer_than_it_may_ends_with_an_error_and_the_disk_goes_on() {
    for limit in ["0", "1s"] {
        let storage = Storage::new(&["--io-timeout", limit]);
        let mut frontend = storage.connect(true);
        works(&mut frontend, &pattern(512));
        storage.goes_away();
        submit(&mut frontend, Request::read(64, 512));
        assert_eq!(status(&mut frontend), S_IOERR, "--io-timeout {limit}");
        submit(&mut frontend, Request::write(64, pattern(4096)));
        assert_eq!(status(&mut frontend), S_IOERR, "--io-timeout {limit}");
        assert_eq!(frontend.inflight().marked(0), 0);
        storage.comes_back();
        works(&mut frontend, &[0x77; 512]);
        storage.judge();
    }
}

/// A write that was given up may be held by the target; it must not run after what follows it.
#[test]
fn a_write_that_was_given_up_never_runs_after_a_later_one() {
    let storage = Storage::new(&["--io-timeout", "1s"]);
    let mut frontend = storage.connect(true);
    write_in_flight(&storage, &mut frontend);
    storage.goes_away();
    assert_eq!(status(&mut frontend), S_IOERR);
    storage.comes_back();
    works(&mut frontend, &[0x99; 512]);
    storage.judge();
    let read = frontend.queue(0).read(64, 512).unwrap();
    assert_eq!(read, (S_OK, vec![0x99; 512]));
}

/// The default, and the same in words.
#[test]
fn io_waits_for_ever_unless_told_otherwise() {
    for arguments in [&[][..], &["--io-timeout", "forever"]] {
        let storage = Storage::new(arguments);
        let mut frontend = storage.connect(true);
        storage.goes_away();
        submit(&mut frontend, Request::write(64, pattern(512)));
        storage.daemon.wait_log("requests wait", NOTICED);
        assert_eq!(frontend.queue(0).poll_used().unwrap(), None);
        storage.comes_back();
        assert_eq!(status(&mut frontend), S_OK);
        storage.judge();
    }
}

/// An outage that is shorter than the limit is a pause.
#[test]
fn io_that_waits_less_than_it_may_ends_well() {
    let storage = Storage::new(&["--io-timeout", "5m"]);
    let mut frontend = storage.connect(true);
    storage.goes_away();
    submit(&mut frontend, Request::write(64, pattern(512)));
    storage.comes_back();
    assert_eq!(status(&mut frontend), S_OK);
    storage.judge();
}

// ---- a ring that stops while storage is away ----------------------------------------------------

/// A front-end with an inflight region, and a write of it that the target held as it went.
fn write_meets_outage(storage: &Storage) -> Frontend {
    let mut frontend = storage.connect(true);
    works(&mut frontend, &pattern(512));
    write_in_flight(storage, &mut frontend);
    storage.goes_away();
    assert_eq!(frontend.inflight().marked(0), 1);
    frontend
}

/// QEMU stops the rings of a guest that is paused, and starts them again with the same region.
#[test]
fn what_is_in_flight_when_a_ring_stops_without_storage_is_carried_out_when_it_starts_again() {
    let storage = Storage::new(&[]);
    let mut frontend = write_meets_outage(&storage);
    let base = frontend.stop_queue(0).unwrap();
    assert_eq!(frontend.inflight().marked(0), 1, "it is left marked");
    assert_eq!(frontend.queue(0).poll_used().unwrap(), None);
    frontend.start_queue(0, base).unwrap();
    storage.comes_back();
    assert_eq!(status(&mut frontend), S_OK);
    assert_eq!(frontend.inflight().marked(0), 0);
    let read = frontend.queue(0).read(64, 4096).unwrap();
    assert_eq!(read, (S_OK, pattern(4096)));
    storage.judge();
}

/// The same with a front-end that goes and comes back with the region.
#[test]
fn what_is_in_flight_when_the_front_end_goes_without_storage_is_carried_out_when_it_is_back() {
    let storage = Storage::new(&[]);
    let mut frontend = write_meets_outage(&storage);
    frontend.stop_queue(0).unwrap();
    let again = || frontend.reconnect(storage.daemon.socket()).ok();
    assert!(wait::until(NOTICED, again).is_some());
    storage.comes_back();
    assert_eq!(status(&mut frontend), S_OK);
    let read = frontend.queue(0).read(64, 4096).unwrap();
    assert_eq!(read, (S_OK, pattern(4096)));
    storage.judge();
}

/// Nobody could carry it out later.
#[test]
fn what_is_in_flight_when_a_ring_without_a_region_stops_without_storage_is_an_error() {
    let storage = Storage::new(&[]);
    let mut frontend = storage.connect(false);
    works(&mut frontend, &pattern(512));
    write_in_flight(&storage, &mut frontend);
    storage.goes_away();
    frontend.stop_queue(0).unwrap();
    assert_eq!(status(&mut frontend), S_IOERR);
    storage.comes_back();
    storage.judge();
}

// ---- --command-timeout --------------------------------------------------------------------------

/// The target lives, answers pings, and has forgotten the command, or sits on it.
#[test]
fn a_command_that_is_never_answered_is_aborted_and_sent_again() {
    for fault in [CommandFault::NoAnswer, CommandFault::Hold] {
        for opcode in [
            opcode::READ_16,
            opcode::WRITE_16,
            opcode::SYNCHRONIZE_CACHE_16,
        ] {
            let served = Served::with(one_lun(LunConfig::default()), &["--command-timeout", "1s"]);
            let mut frontend = served.connect(FrontendConfig::with_queues(2));
            // The probe of a session flushes, too: it is not what is to be struck.
            for queue in frontend.queues() {
                assert_eq!(queue.flush().unwrap(), S_OK);
            }
            let rule = Rule::command(fault.clone()).opcode(opcode).skip(1);
            let rule = served.target.add(rule.once());
            let mix = Mix {
                steps: 150,
                range: 0..2048,
                ..Mix::default()
            };
            random_mix(&mut frontend, &mut Model::zeroed(), &mix);
            assert_eq!(served.target.fired(rule), 1, "{fault:?} {opcode:#x}");
            let aborted =
                |event: &Event| matches!(event, Event::TaskManagement { function: 1, .. });
            let events = served.target.events();
            assert!(
                events.iter().any(aborted),
                "{fault:?} {opcode:#x}: {:#?}",
                served.daemon.log()
            );
            assert_eq!(served.target.release_held(), 0, "{fault:?} {opcode:#x}");
            let stale = |event: &Event| matches!(event, Event::StaleWrite { .. });
            assert!(!events.iter().any(stale), "{fault:?} {opcode:#x}");
        }
    }
}
