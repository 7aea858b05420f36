//! A front-end that cuts its memory file shorter loses its connection, and nobody else anything.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::os::unix::process::ExitStatusExt;

use iscsi_test_target::{CommandFault, Event, LunConfig, Negotiation, Rule, TargetConfig, opcode};
use rustix::process::{Pid, Signal, kill_process};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::memory::Block;
use vhost_user_iscsi_tests::frontend::spec::{DESC_WRITE, S_OK, T_IN, T_OUT};
use vhost_user_iscsi_tests::frontend::{
    Descriptor, Frontend, FrontendConfig, Layout, Next, Request,
};
use vhost_user_iscsi_tests::served::{SOON, Served, one_lun, start_target};
use vhost_user_iscsi_tests::service::Service;
use vhost_user_iscsi_tests::wait;

/// How long the data of requests is: some goes through the receive buffer, some does not.
const LENGTHS_BYTES: [u32; 3] = [512, 16 * 1024, 256 * 1024];
/// What the disk holds from sector 0 on: as much as the longest of them.
const FILLED_BYTES: u32 = 256 * 1024;
/// What the log says, once.
const LOST: &str = "truncated its memory file";

/// The rings come to lie in the first region, the data of these tests in the second.
fn config() -> FrontendConfig {
    FrontendConfig {
        memory_bytes: 16 << 20,
        memory_regions: 2,
        ..FrontendConfig::default()
    }
}

fn filled() -> Vec<u8> {
    pattern(usize::try_from(FILLED_BYTES).unwrap())
}

/// Writes have to be asked for.
fn by_r2t() -> Negotiation {
    Negotiation {
        initial_r2t: true,
        immediate_data: false,
        ..Negotiation::default()
    }
}

fn served(negotiation: Negotiation, arguments: &[&str]) -> Served {
    let target = TargetConfig {
        negotiation,
        ..one_lun(LunConfig::default())
    };
    let served = Served::with(target, arguments);
    let mut frontend = served.connect(config());
    assert_eq!(frontend.queue(0).write(0, &filled()).unwrap(), S_OK);
    drop(frontend);
    served.daemon.wait_log("the front-end has gone", SOON);
    served
}

/// Header and status of a request, in the first region.
struct Submitted {
    _header: Block,
    _status: Block,
}

/// Submits a request for sector 0 whose data is at the start of the second region.
fn submit(frontend: &mut Frontend, kind: u32, length_bytes: u32) -> Submitted {
    let memory = frontend.memory();
    let header = memory.allocate(16, 16);
    let status = memory.allocate(1, 1);
    memory.write(header.address, &Request::bare(kind).readable());
    let place = |address, length_bytes, flags, next| Descriptor {
        address,
        length_bytes,
        flags,
        next,
    };
    let data_flags = if kind == T_IN { DESC_WRITE } else { 0 };
    let chain = [
        place(header.address, 16, 0, Next::Place(1)),
        place(memory.border(), length_bytes, data_flags, Next::Place(2)),
        place(status.address, 1, DESC_WRITE, Next::End),
    ];
    frontend.queue(0).submit_raw(&chain).unwrap();
    Submitted {
        _header: header,
        _status: status,
    }
}

fn truncate(frontend: &Frontend, region: usize, length_bytes: u64) {
    frontend.memory().truncate(region, length_bytes).unwrap();
}

fn logins(served: &Served) -> usize {
    let events = served.target.events();
    let is_login = |event: &&Event| matches!(event, Event::LoggedIn { .. });
    events.iter().filter(is_login).count()
}

/// The connection of the front-end ends, with one line in the log; the daemon lives, has logged in
/// so often, and the next front-end finds the disk as it was.
fn only_its_connection_ends(served: &mut Served, frontend: Frontend, expected_logins: usize) {
    served.daemon.wait_log(LOST, SOON);
    assert!(frontend.is_closed_within(SOON));
    drop(frontend);
    let mut next = served.connect(config());
    let read = next.queue(0).read(0, FILLED_BYTES).unwrap();
    assert!(read == (S_OK, filled()), "status {}", read.0);
    assert_eq!(next.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    assert!(served.daemon.is_running());
    let log = served.daemon.log();
    assert_eq!(logins(served), expected_logins, "{log:#?}");
    let reported = log.iter().filter(|line| line.contains(LOST));
    assert_eq!(reported.count(), 1, "{log:#?}");
}

#[test]
fn a_ring_that_is_gone_ends_the_connection_at_the_next_kick() {
    let descriptor_table_bytes = 16 * 1024;
    for kept_bytes in [0, descriptor_table_bytes] {
        let mut served = served(Negotiation::default(), &[]);
        let mut frontend = served.connect(FrontendConfig {
            queue_size: 1024,
            ..config()
        });
        truncate(&frontend, 0, kept_bytes);
        frontend.queue(0).kick();
        only_its_connection_ends(&mut served, frontend, 1);
    }
}

#[test]
fn data_of_a_read_that_has_no_place_any_more_costs_no_session() {
    for length_bytes in LENGTHS_BYTES {
        for kept_bytes in [0, u64::from(length_bytes) / 8192 * 4096] {
            let mut served = served(Negotiation::default(), &[]);
            let mut frontend = served.connect(config());
            truncate(&frontend, 1, kept_bytes);
            let _submitted = submit(&mut frontend, T_IN, length_bytes);
            only_its_connection_ends(&mut served, frontend, 1);
        }
    }
}

#[test]
fn data_of_a_write_that_is_gone_is_written_by_nobody_and_costs_one_login() {
    for digest in ["none", "crc32c"] {
        for length_bytes in LENGTHS_BYTES {
            let mut served = served(Negotiation::default(), &["--data-digest", digest]);
            let mut frontend = served.connect(config());
            truncate(&frontend, 1, 0);
            let _submitted = submit(&mut frontend, T_OUT, length_bytes);
            only_its_connection_ends(&mut served, frontend, 2);
        }
    }
}

#[test]
fn a_write_whose_data_goes_before_it_is_asked_for_is_forgotten() {
    for digest in ["none", "crc32c"] {
        let mut served = served(by_r2t(), &["--data-digest", digest]);
        let mut frontend = served.connect(config());
        frontend
            .memory()
            .write(frontend.memory().border(), &filled());
        let writes = served.commands(opcode::WRITE_16).len();
        served.target.freeze_connections();
        let _submitted: Vec<_> = (0..8)
            .map(|_| submit(&mut frontend, T_OUT, FILLED_BYTES))
            .collect();
        truncate(&frontend, 1, 8192);
        served.target.thaw();
        only_its_connection_ends(&mut served, frontend, 2);
        assert!(served.commands(opcode::WRITE_16).len() > writes);
    }
}

#[test]
fn a_ring_that_goes_while_requests_are_in_flight_costs_no_session() {
    for (kind, opcode) in [(T_IN, opcode::READ_16), (T_OUT, opcode::WRITE_16)] {
        let mut served = served(Negotiation::default(), &[]);
        let mut frontend = served.connect(config());
        frontend
            .memory()
            .write(frontend.memory().border(), &filled());
        let hold = Rule::command(CommandFault::Hold).opcode(opcode);
        let hold = served.target.add(hold);
        let _submitted: Vec<_> = (0..4).map(|_| submit(&mut frontend, kind, 4096)).collect();
        let is_held = || (served.target.held_count() == 4).then_some(());
        assert_eq!(wait::until(SOON, is_held), Some(()));
        served.target.remove(hold);
        truncate(&frontend, 0, 0);
        served.target.release_held();
        only_its_connection_ends(&mut served, frontend, 1);
    }
}

/// Reads and writes of all lengths, and the end of everything anywhere among them.
#[test]
fn all_memory_that_goes_under_load_costs_at_most_one_login() {
    for round in 0..6 {
        let mut served = served(by_r2t(), &[]);
        let mut frontend = served.connect(config());
        frontend
            .memory()
            .write(frontend.memory().border(), &filled());
        let _submitted: Vec<_> = (0..30)
            .map(|at| {
                let kind = if at % 2 == 0 { T_IN } else { T_OUT };
                submit(&mut frontend, kind, LENGTHS_BYTES[at % LENGTHS_BYTES.len()])
            })
            .collect();
        if round > 0 {
            let answered = wait::until(SOON, || {
                let written = served.commands(opcode::WRITE_16).len();
                (written >= 2 * round).then_some(())
            });
            assert_eq!(answered, Some(()));
        }
        truncate(&frontend, 0, 0);
        truncate(&frontend, 1, 0);
        frontend.queue(0).kick();
        served.daemon.wait_log(LOST, SOON);
        drop(frontend);
        let mut next = served.connect(config());
        let read = next.queue(0).read(0, FILLED_BYTES).unwrap();
        assert!(read == (S_OK, filled()), "status {}", read.0);
        assert!(served.daemon.is_running());
        assert!(logins(&served) <= 2, "{:#?}", served.daemon.log());
    }
}

/// Here it is the vhost crate that looks, at the used index.
/// The system does not say whose data it has not found.
#[test]
fn another_disk_on_the_same_session_loses_the_session_and_nothing_else() {
    for digest in ["none", "crc32c"] {
        let target = start_target(TargetConfig {
            negotiation: by_r2t(),
            luns: [(0, LunConfig::default()), (1, LunConfig::default())].into(),
            ..TargetConfig::default()
        });
        let service = Service::with(
            |top| top.text += &format!("share-sessions = true\ndata-digest = '{digest}'\n"),
            |disks| {
                disks.disk("bad", &target.url(0), "");
                disks.disk("good", &target.url(1), "");
            },
        );
        service.until_served("bad");
        let mut bad = Frontend::connect(service.config.socket("bad"), config()).unwrap();
        let mut good = service.guest("good");
        target.freeze_connections();
        let _submitted: Vec<_> = (0..8)
            .map(|_| submit(&mut bad, T_OUT, FILLED_BYTES))
            .collect();
        let write = Request::write(0, filled());
        let layout = Layout::usual(&write);
        good.queue(0).submit(write, &layout).unwrap();
        truncate(&bad, 1, 8192);
        target.thaw();
        service.daemon.wait_log(LOST, SOON);
        assert!(bad.is_closed_within(SOON));
        let answer = good.queue(0).wait_used(SOON).unwrap();
        assert_eq!(answer.status, S_OK, "{:#?}", service.daemon.log());
        let read = good.queue(0).read(0, FILLED_BYTES).unwrap();
        assert!(read == (S_OK, filled()), "status {}", read.0);
        assert!(!service.disk("good")["front_end"].is_null());
        assert_eq!(target.violations(), [""; 0]);
    }
}

#[test]
fn a_ring_that_is_placed_where_memory_is_gone_ends_the_connection() {
    let mut served = served(Negotiation::default(), &[]);
    let mut frontend = served.connect(config());
    let base = frontend.stop_queue(0).unwrap();
    truncate(&frontend, 0, 0);
    let _ = frontend.start_queue(0, base);
    only_its_connection_ends(&mut served, frontend, 1);
}

#[test]
fn memory_that_goes_while_nobody_looks_is_nobodys_business() {
    let mut served = served(Negotiation::default(), &["--poll-max-us", "0"]);
    let mut frontend = served.connect(config());
    frontend.queue(0).read(0, 512).unwrap();
    truncate(&frontend, 0, 0);
    frontend.stop_queue(0).unwrap();
    drop(frontend);
    let mut next = served.connect(config());
    assert_eq!(next.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    assert!(served.daemon.is_running());
    assert_eq!(logins(&served), 1);
}

#[test]
fn memory_that_can_be_sealed_is_sealed() {
    let served = served(Negotiation::default(), &[]);
    let mut frontend = served.connect(FrontendConfig {
        sealable_memory: true,
        ..config()
    });
    for region in 0..2 {
        frontend.memory().truncate(region, 4096).unwrap_err();
    }
    let read = frontend.queue(0).read(0, FILLED_BYTES).unwrap();
    assert!(read == (S_OK, filled()));
}

#[test]
fn a_sigbus_of_another_kind_ends_the_process_with_a_line() {
    let mut served = served(Negotiation::default(), &[]);
    let _frontend = served.connect(config());
    let id = i32::try_from(served.daemon.id()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::BUS).unwrap();
    let status = served.daemon.wait_exit(SOON);
    assert_eq!(status.signal(), Some(Signal::BUS.as_raw()));
    served.daemon.wait_log("SIGBUS outside of any memory", SOON);
}
