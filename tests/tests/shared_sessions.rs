//! Disks behind the same target that share its sessions: one of them is nothing to the others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use iscsi_test_target::{
    CommandFault, Disk, Event, LunConfig, Rule, TargetConfig, TestTarget, opcode,
};
use serde_json::Value;
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::daemon::Launch;
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, Layout, Request};
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, start_target};
use vhost_user_iscsi_tests::service::Service;
use vhost_user_iscsi_tests::tgt::{LunOptions, Tgt};
use vhost_user_iscsi_tests::wait;

const DISK_BYTES: u64 = 16 << 20;

/// A target with LUNs of these numbers, each with a name of its own.
fn target(luns: impl IntoIterator<Item = u16>) -> TestTarget {
    start_target(TargetConfig {
        luns: luns
            .into_iter()
            .map(|lun| (lun, named(lun, None)))
            .collect(),
        ..TargetConfig::default()
    })
}

fn named(lun: u16, disk: Option<Arc<Disk>>) -> LunConfig {
    LunConfig {
        serial: Some(format!("lun-{lun}")),
        designators: Some(Vec::new()),
        disk,
        ..LunConfig::of_bytes(DISK_BYTES)
    }
}

fn name(lun: u16) -> String {
    format!("d{lun}")
}

/// A service whose disks share, for these LUNs.
fn share(target: &TestTarget, luns: impl IntoIterator<Item = u16>, sessions: u16) -> Service {
    let disks = |config: &mut ConfigFile| {
        for lun in luns {
            config.disk(&name(lun), &target.url(lun), "");
        }
    };
    Service::with(|config| top(config, sessions), disks)
}

fn top(config: &mut ConfigFile, sessions: u16) {
    config.text += &format!("share-sessions = true\nsessions = {sessions}\n");
}

fn guests(service: &Service, luns: impl IntoIterator<Item = u16>) -> Vec<Frontend> {
    luns.into_iter()
        .map(|lun| service.guest(&name(lun)))
        .collect()
}

fn write(guest: &mut Frontend, data: &[u8]) {
    assert_eq!(guest.queue(0).write(0, data).unwrap(), S_OK);
}

/// What each session of a disk is to its target.
fn sessions(disk: &Value) -> Vec<(Value, Value)> {
    let sessions = disk["sessions"].as_array().unwrap().iter();
    sessions
        .map(|session| (session["isid"].clone(), session["login"]["tsih"].clone()))
        .collect()
}

fn reconnects(disk: &Value) -> u64 {
    let sessions = disk["sessions"].as_array().unwrap().iter();
    sessions
        .map(|session| session["reconnects"].as_u64().unwrap())
        .sum()
}

fn logins(target: &TestTarget) -> usize {
    let is_login = |event: &Event| matches!(event, Event::LoggedIn { .. });
    target
        .events()
        .iter()
        .filter(|event| is_login(event))
        .count()
}

fn ends_in_order(mut service: Service, target: &TestTarget) {
    let (status, _) = service.daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{:#?}", service.daemon.log());
    assert_eq!(target.sessions(), []);
    assert_eq!(target.violations(), [""; 0]);
}

/// Lock files of sessions in the directory of the sockets.
fn locks_of_sessions(service: &Service) -> usize {
    let files = fs::read_dir(service.config.directory()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("sessions-")).count()
}

#[test]
fn eight_disks_have_one_session_and_each_its_own_lun() {
    const DISKS: u16 = 8;
    let target = target(0..DISKS);
    let service = share(&target, 0..DISKS, 1);
    let mut guests = guests(&service, 0..DISKS);
    for (lun, guest) in (1u8..).zip(&mut guests) {
        write(guest, &[lun; 4096]);
    }
    for (lun, guest) in (1u8..).zip(&mut guests) {
        let (status, data) = guest.queue(0).read(0, 4096).unwrap();
        assert_eq!((status, data), (S_OK, vec![lun; 4096]));
    }
    assert_eq!(target.sessions().len(), 1);
    assert_eq!(logins(&target), 1);
    let all: Vec<_> = service.disks().iter().map(sessions).collect();
    assert_eq!(all[0].len(), 1);
    assert!(all.iter().all(|other| *other == all[0]), "{all:#?}");
    let listed = service.json(&["ls"]);
    for session in listed["sessions"].as_array().unwrap() {
        let others = session["shared_with"].as_array().unwrap();
        assert_eq!(others.len(), usize::from(DISKS) - 1, "{session:#}");
        assert!(!others.contains(&session["disk"]), "{session:#}");
    }
    let text = service.verb(&["ls"]).stdout;
    assert!(text.contains("SHARED WITH             : d1, d2,"), "{text}");
    assert_eq!(locks_of_sessions(&service), 1);
    let directory = service.config.directory().to_owned();
    ends_in_order(service, &target);
    assert!(!directory.exists(), "it was the service's");
}

/// A guest with more queues than one takes further sessions, and leaves them when it goes.
#[test]
fn sessions_come_with_the_queues_of_all_disks_and_go_with_the_last_that_uses_them() {
    let target = target([0, 1]);
    let service = share(&target, [0, 1], 3);
    let two_queues = FrontendConfig {
        queues: 2,
        ..FrontendConfig::default()
    };
    let both = |lun| {
        service.until_served(&name(lun));
        let socket = service.config.socket(&name(lun));
        Frontend::connect(socket, two_queues).unwrap()
    };
    let used = |count: usize| {
        let used = wait::until(SOON, || (target.sessions().len() == count).then_some(()));
        assert!(used.is_some(), "{:?}, not {count}", target.sessions());
    };
    let mut first = both(0);
    used(2);
    let mut second = both(1);
    used(3);
    for guest in [&mut first, &mut second] {
        for queue in 0..2 {
            assert_eq!(guest.queue(queue).write(0, &pattern(4096)).unwrap(), S_OK);
        }
    }
    drop(first);
    service.daemon.wait_log("the front-end has gone", SOON);
    for queue in 0..2 {
        assert_eq!(second.queue(queue).write(8, &pattern(4096)).unwrap(), S_OK);
    }
    drop(second);
    used(1);
    ends_in_order(service, &target);
}

#[test]
fn a_lun_that_does_not_answer_leaves_the_others_their_share() {
    const STUCK: u16 = 1;
    let target = target([0, STUCK, 2]);
    let disks = |config: &mut ConfigFile| {
        for lun in [0, STUCK, 2] {
            config.disk(&name(lun), &target.url(lun), "");
        }
    };
    // No abort of what hangs makes room for the others.
    let for_ever = |config: &mut ConfigFile| {
        top(config, 1);
        config.setting("command-timeout", "forever");
    };
    let service = Service::with(for_ever, disks);
    let stuck = FrontendConfig {
        queue_size: 1024,
        memory_bytes: 64 << 20,
        ..FrontendConfig::default()
    };
    service.until_served(&name(STUCK));
    let socket = service.config.socket(&name(STUCK));
    let mut stuck = Frontend::connect(socket, stuck).unwrap();
    write(&mut stuck, &pattern(4096));
    let rule = Rule::command(CommandFault::Hold).lun(STUCK);
    let rule = target.add(rule.opcode(opcode::READ_16));
    // More than a session has tasks.
    let reads = (0..300).map(|n| {
        let read = Request::read(8 * n, 4096);
        let layout = Layout::usual(&read);
        (read, layout)
    });
    stuck.queue(0).submit_batch(reads.collect()).unwrap();
    let many = wait::until(SOON, || (target.held_count() >= 16).then_some(()));
    assert!(many.is_some(), "{}", target.held_count());
    service.while_a_guest_works_on(&name(0), || {
        let mut other = service.guest(&name(2));
        for _ in 0..100 {
            write(&mut other, &pattern(16 * 1024));
        }
    });
    target.remove(rule);
    target.release_held();
    for _ in 0..300 {
        let answer = stuck.queue(0).wait_used(SOON).unwrap();
        assert_eq!(answer.status, S_OK);
    }
    assert_eq!(logins(&target), 1);
    ends_in_order(service, &target);
}

/// Whether its session has been made again so often, and seen to lead to the disk.
fn is_back(disk: &Value, times: u64) -> bool {
    let mut sessions = disk["sessions"].as_array().unwrap().iter();
    reconnects(disk) >= times && sessions.all(|session| session["state"] == "logged_in")
}

#[test]
fn a_session_that_is_lost_again_and_again_loses_nothing_of_any_disk() {
    const DISKS: u16 = 4;
    const LOSSES: u64 = 6;
    let target = target(0..DISKS);
    let service = share(&target, 0..DISKS, 2);
    let mut guests = guests(&service, 0..DISKS);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        let is_over = &is_over;
        for (seed, guest) in (0x5a..).zip(&mut guests) {
            scope.spawn(move || load(seed, guest, is_over));
        }
        for times in 1..=LOSSES {
            target.drop_connections();
            for lun in 0..DISKS {
                service.until(&name(lun), |disk| is_back(disk, times));
            }
        }
    });
    ends_in_order(service, &target);
}

/// Mixes, each of which is judged, until told to end.
fn load(seed: u64, guest: &mut Frontend, is_over: &AtomicBool) {
    let mut model = Model::zeroed();
    for round in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let mix = Mix {
            seed: seed + 1000 * round,
            steps: 200,
            ..Mix::default()
        };
        random_mix(guest, &mut model, &mix);
    }
}

/// Ends the load, also when what is judged meanwhile fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn disks_come_and_go_and_the_session_stays() {
    let target = target(0..4);
    let mut service = share(&target, [0, 1], 1);
    let mut forced = service.guest(&name(1));
    write(&mut forced, &pattern(4096));
    let first = sessions(&service.disk(&name(0)));
    service.while_a_guest_works_on(&name(0), || {
        let socket = service.config.socket(&name(2)).display().to_string();
        let url = target.url(2);
        let added = ["add", "--name", "d2", "--socket-path", &socket, &url];
        service.json(&added);
        write(&mut service.guest(&name(2)), &pattern(4096));
        service.json(&["remove", "--force", &name(1)]);
        assert!(forced.is_closed_within(SOON));
    });
    assert_eq!(service.names(), [name(0), name(2)]);
    service.rewrite(|config| {
        config.disk(&name(0), &target.url(0), "");
        config.disk(&name(3), &target.url(3), "");
    });
    service.while_a_guest_works_on(&name(0), || {
        service.json(&["reload"]);
        write(&mut service.guest(&name(3)), &pattern(4096));
    });
    assert_eq!(sessions(&service.disk(&name(0))), first);
    assert_eq!((logins(&target), target.sessions().len()), (1, 1));
    ends_in_order(service, &target);
}

/// What a disk has in flight when it is taken away must not be carried out later, when another disk may
/// have its LUN: the session ends for that, and the others go on with another.
#[test]
fn a_disk_that_is_removed_with_requests_in_flight_leaves_nothing_behind() {
    let target = target([0, 1]);
    let service = share(&target, [0, 1], 1);
    let mut guests = guests(&service, [0, 1]);
    for guest in &mut guests {
        write(guest, &pattern(4096));
    }
    let rule = Rule::command(CommandFault::Hold)
        .lun(1)
        .opcode(opcode::WRITE_16);
    let rule = target.add(rule);
    let late = Request::write(0, vec![0xaa; 4096]);
    guests[1]
        .queue(0)
        .submit(late.clone(), &Layout::usual(&late))
        .unwrap();
    let held = wait::until(SOON, || (target.held_count() == 1).then_some(()));
    assert!(held.is_some());
    service.json(&["remove", "--force", &name(1)]);
    target.remove(rule);
    write(&mut guests[0], &vec![1; 4096]);
    target.release_held();
    assert_eq!(logins(&target), 2, "{:#?}", service.daemon.log());
    let (status, data) = guests[0].queue(0).read(0, 4096).unwrap();
    assert_eq!((status, data), (S_OK, vec![1; 4096]));
    ends_in_order(service, &target);
}

#[test]
fn a_lun_that_is_not_there_keeps_its_own_disk_waiting_only() {
    let target = target([1, 2]);
    // The first of the file, so that the others do not wait for its login.
    let service = share(&target, [0, 1, 2], 1);
    for lun in [1, 2] {
        write(&mut service.guest(&name(lun)), &pattern(4096));
    }
    let missing = service.until(&name(0), |disk| disk["state"] == "waiting_for_target");
    assert!(
        missing["reason"].as_str().unwrap().contains("LUN 0"),
        "{missing:#}"
    );
    assert_eq!(target.sessions().len(), 1);
    ends_in_order(service, &target);
}

#[test]
fn a_lun_that_never_answers_keeps_no_other_disk_from_the_sessions() {
    let target = target([1, 2, 3]);
    let silent = target.add(Rule::command(CommandFault::NoAnswer).lun(1));
    let disks = |config: &mut ConfigFile| {
        for lun in [1, 2, 3] {
            config.disk(&name(lun), &target.url(lun), "");
        }
    };
    let times = "login-timeout = '1s'\ncommand-timeout = '1s'\n";
    let impatient = |config: &mut ConfigFile| {
        top(config, 1);
        config.text += times;
    };
    let service = Service::with(impatient, disks);
    for lun in [2, 3] {
        write(&mut service.guest(&name(lun)), &pattern(4096));
    }
    service.until(&name(1), |disk| disk["state"] == "waiting_for_target");
    target.remove(silent);
    write(&mut service.guest(&name(1)), &pattern(4096));
    ends_in_order(service, &target);
}

#[test]
fn a_lun_that_was_replaced_gets_nothing_and_the_others_go_on() {
    let right = target([0, 1]);
    let disks = |config: &mut ConfigFile| {
        for lun in [0, 1] {
            config.disk(&name(lun), &right.url(lun), "");
        }
    };
    let often = |config: &mut ConfigFile| {
        top(config, 1);
        config.setting("capacity-poll", "1s");
    };
    let service = Service::with(often, disks);
    let portal = right.portal();
    let disk = |target: &TestTarget, lun| target.disk(lun).unwrap();
    let (first, second) = (disk(&right, 0), disk(&right, 1));
    let mut guests = guests(&service, [0, 1]);
    for guest in &mut guests {
        write(guest, &pattern(4096));
    }
    let hold = Rule::command(CommandFault::Hold).opcode(opcode::WRITE_16);
    right.add(hold.once());
    let waits = Request::write(8, vec![2; 4096]);
    let layout = Layout::usual(&waits);
    guests[1].queue(0).submit(waits, &layout).unwrap();
    let held = wait::until(SOON, || (right.held_count() == 1).then_some(()));
    assert!(held.is_some());
    right.stop();
    let replaced = |other: LunConfig| {
        start_target(TargetConfig {
            listen: portal,
            luns: [(0, named(0, Some(Arc::clone(&first)))), (1, other)].into(),
            ..TargetConfig::default()
        })
    };
    let wrong = replaced(LunConfig {
        serial: Some("wrong".to_owned()),
        capacity_bytes: 2 * DISK_BYTES,
        ..named(1, None)
    });
    write(&mut guests[0], &vec![1; 4096]);
    let line = service.daemon.wait_log("identity changed", SOON);
    assert!(line.contains("lun-1") && line.contains("wrong"), "{line}");
    for _ in 0..20 {
        write(&mut guests[0], &vec![3; 4096]);
    }
    assert_eq!(guests[1].queue(0).poll_used().unwrap(), None);
    let is_for_wrong = |event: &Event| matches!(event, Event::Command { lun: Some(1), .. });
    let is_write_to_wrong = |event: &Event| match event {
        Event::Command { lun, cdb, .. } => *lun == Some(1) && cdb[0] == opcode::WRITE_16,
        _ => false,
    };
    assert!(!wrong.events().iter().any(is_write_to_wrong));
    // It is looked at again and again, also by the poll, and that costs the others nothing.
    let looks = || wrong.events().into_iter().filter(is_for_wrong).count();
    let looked = wait::until(3 * SOON, || (looks() >= 160).then_some(()));
    assert!(looked.is_some(), "{}", looks());
    assert_eq!(logins(&wrong), 1, "{:#?}", service.daemon.log());
    wrong.stop();
    let right = replaced(named(1, Some(second)));
    let answer = guests[1].queue(0).wait_used(SOON).unwrap();
    assert_eq!(answer.status, S_OK, "{:#?}", service.daemon.log());
    ends_in_order(service, &right);
}

#[test]
fn io_timeout_is_each_disks_own() {
    let target = target([0, 1]);
    let disks = |config: &mut ConfigFile| {
        config.disk(&name(0), &target.url(0), "io-timeout = '0'");
        config.disk(&name(1), &target.url(1), "");
    };
    let service = Service::with(|config| top(config, 1), disks);
    let mut guests = guests(&service, [0, 1]);
    for guest in &mut guests {
        write(guest, &pattern(4096));
    }
    target.refuse_connections();
    target.drop_connections();
    service.daemon.wait_log("is lost", SOON);
    let waits = Request::write(0, vec![1; 4096]);
    let layout = Layout::usual(&waits);
    guests[1].queue(0).submit(waits, &layout).unwrap();
    assert_eq!(
        guests[0].queue(0).write(0, &vec![0; 4096]).unwrap(),
        S_IOERR
    );
    assert_eq!(guests[1].queue(0).poll_used().unwrap(), None);
    target.accept_connections().unwrap();
    let answer = guests[1].queue(0).wait_used(SOON).unwrap();
    assert_eq!(answer.status, S_OK);
    ends_in_order(service, &target);
}

#[test]
fn one_lun_is_shared_once() {
    let target = target([0]);
    let service = Service::with(
        |config| top(config, 1),
        |config| {
            config.disk("one", &target.url(0), "");
            config.disk("other", &target.url(0), "");
        },
    );
    let line = service.daemon.wait_log("leave share-sessions out", SOON);
    assert!(line.contains("LUN 0"), "{line}");
    let states: Vec<_> = service
        .disks()
        .iter()
        .map(|disk| disk["state"].clone())
        .collect();
    assert!(states.contains(&"serving".into()), "{states:?}");
    ends_in_order(service, &target);
}

#[test]
fn two_processes_do_not_share_the_same_sessions() {
    let target = target([0, 1]);
    let service = share(&target, [0], 1);
    service.until_served(&name(0));
    let path = service.config.directory().join("second.sock");
    let mut second = Launch::at(&target.url(1), &path)
        .args(["--share-sessions", "--initiator-name", INITIATOR_NAME])
        .spawn();
    let status = second.wait_exit(SOON);
    assert_ne!(status.code(), Some(0));
    let log = second.log().concat();
    assert!(log.contains("cannot be shared"), "{log}");
    assert_eq!(logins(&target), 1);
    ends_in_order(service, &target);
}

#[test]
fn requests_of_all_disks_outlive_the_process() {
    const DISKS: u16 = 3;
    let target = target(0..DISKS);
    let mut service = share(&target, 0..DISKS, 2);
    let mut guests = guests(&service, 0..DISKS);
    for guest in &mut guests {
        write(guest, &pattern(4096));
    }
    let rule = target.add(Rule::command(CommandFault::NoAnswer).opcode(opcode::WRITE_16));
    for (lun, guest) in (1u8..).zip(&mut guests) {
        let waits = Request::write(0, vec![lun; 4096]);
        let layout = Layout::usual(&waits);
        guest.queue(0).submit(waits, &layout).unwrap();
    }
    let sent = wait::until(SOON, || (target.fired(rule) >= DISKS.into()).then_some(()));
    assert!(sent.is_some());
    service.daemon.kill();
    service.daemon.wait_exit(SOON);
    target.remove(rule);
    service.daemon = service.config.start();
    for (lun, guest) in (0..).zip(&mut guests) {
        service.until_served(&name(lun));
        guest.reconnect(service.config.socket(&name(lun))).unwrap();
    }
    for (lun, guest) in (1u8..).zip(&mut guests) {
        let answer = guest.queue(0).wait_used(SOON).unwrap();
        assert_eq!(answer.status, S_OK, "{:#?}", service.daemon.log());
        let (status, data) = guest.queue(0).read(0, 4096).unwrap();
        assert_eq!((status, data), (S_OK, vec![lun; 4096]));
    }
    ends_in_order(service, &target);
}

#[test]
fn sixty_four_disks_of_tgt_have_two_sessions() {
    const DISKS: u16 = 64;
    let mut tgt = Tgt::start();
    let iqn = "iqn.2026-11.org.example:many";
    let many = tgt.target(iqn);
    tgt.allow_all(&many);
    for lun in 1..=DISKS {
        tgt.lun(&many, lun, 1 << 20, &LunOptions::default());
    }
    let disks = |config: &mut ConfigFile| {
        for lun in 1..=DISKS {
            config.disk(&name(lun), &tgt.url(&many, lun), "");
        }
    };
    let service = Service::with(|config| top(config, 2), disks);
    let mut guests = guests(&service, 1..=DISKS);
    for (lun, guest) in (1u8..).zip(&mut guests) {
        write(guest, &[lun; 4096]);
    }
    tgt.restart();
    for (lun, guest) in (1u8..).zip(&mut guests) {
        let read = guest.queue(0).read(0, 4096);
        let (status, data) =
            read.unwrap_or_else(|error| panic!("disk {lun}: {error}, {:#?}", service.daemon.log()));
        assert_eq!((status, data), (S_OK, vec![lun; 4096]));
    }
    assert!(tgt.sessions() <= 2, "{}", tgt.show());
    for disk in service.disks() {
        assert!(reconnects(&disk) >= 1, "{disk:#}");
    }
}

/// A process is killed with a write at the target that the target has not carried out yet, and the next
/// one has its sessions in the other way: the old write is not to hit what the next guest writes.
#[test]
fn what_a_killed_process_left_is_ended_also_when_sharing_has_changed() {
    for shared in [true, false] {
        let target = target([0, 1]);
        let disks = |config: &mut ConfigFile| {
            for lun in [0, 1] {
                config.disk(&name(lun), &target.url(lun), "");
            }
        };
        let mut service = Service::with(|_| {}, disks);
        // The keys of a table that is written last would be those of its last disk.
        let text = |shared: bool| format!("share-sessions = {shared}\n{}", service.config.text);
        let (former, next) = (text(shared), text(!shared));
        restart(&mut service, &former);
        let mut guest = service.guest(&name(0));
        write(&mut guest, &pattern(4096));
        let hold = Rule::command(CommandFault::Hold).opcode(opcode::WRITE_16);
        target.add(hold.once());
        let old = Request::write(0, vec![0xaa; 4096]);
        let layout = Layout::usual(&old);
        guest.queue(0).submit(old, &layout).unwrap();
        let held = wait::until(SOON, || (target.held_count() == 1).then_some(()));
        assert!(held.is_some());
        restart(&mut service, &next);
        drop(guest);
        let mut guest = service.guest(&name(0));
        write(&mut guest, &vec![0xbb; 4096]);
        target.release_held();
        let (status, data) = guest.queue(0).read(0, 4096).unwrap();
        assert_eq!((status, data), (S_OK, vec![0xbb; 4096]), "{shared}");
        ends_in_order(service, &target);
    }
}

/// Kills the process, and starts another with this file.
fn restart(service: &mut Service, text: &str) {
    service.daemon.kill();
    service.daemon.wait_exit(SOON);
    text.clone_into(&mut service.config.text);
    service.daemon = service.config.start();
    service.until_served(&name(0));
}

#[test]
fn the_disks_of_a_portal_share_when_it_says_so() {
    const LUNS: u16 = 4;
    let target = target(0..LUNS);
    let portal = |config: &mut ConfigFile| {
        config.text += &format!(
            "[[portal]]\naddress = '{}'\nsocket-directory = '{}'\nshare-sessions = true\n",
            target.portal(),
            config.directory().display()
        );
    };
    let service = Service::start(portal);
    let all = wait::until(SOON, || {
        let disks = service.disks();
        let is_served = |disk: &Value| disk["state"] == "serving" && is_back(disk, 0);
        let are_there = disks.len() == usize::from(LUNS) && disks.iter().all(is_served);
        are_there.then_some(disks)
    });
    let all: Vec<_> = all.expect("they are found").iter().map(sessions).collect();
    assert!(all.iter().all(|disk| *disk == all[0]), "{all:#?}");
    assert_eq!(target.sessions().len(), 1);
    ends_in_order(service, &target);
}
