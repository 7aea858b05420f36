//! Many disks in one process, from a configuration file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use iscsi_test_target::{LunConfig, TargetConfig, TestTarget};
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::control_socket::ControlSocket;
use vhost_user_iscsi_tests::daemon::{Daemon, run};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::Frontend;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::{SOON, start_target};
use vhost_user_iscsi_tests::wait;

/// A port on loopback where nobody listens, and nobody will.
const NOBODY: &str = "127.0.0.1:1";

fn luns(count: u16) -> TestTarget {
    let lun = |number| (number, LunConfig::of_bytes(16 << 20));
    start_target(TargetConfig {
        luns: (0..count).map(lun).collect(),
        ..TargetConfig::default()
    })
}

#[test]
fn each_disk_has_its_own_lun_and_socket() {
    const DISKS: u16 = 16;
    let (target, mut config) = (luns(DISKS), ConfigFile::new());
    for lun in 0..DISKS {
        config.disk(&format!("d{lun}"), &target.url(lun), "");
    }
    let mut daemon = config.start();
    let mut frontends: Vec<_> = (0..DISKS)
        .map(|lun| config.connect(&daemon, &format!("d{lun}")))
        .collect();
    for (lun, frontend) in (0u8..).zip(&mut frontends) {
        let data = vec![lun + 1; 4096];
        assert_eq!(frontend.queue(0).write(8, &data).unwrap(), S_OK);
    }
    for (lun, frontend) in (0u8..).zip(&mut frontends) {
        let (status, data) = frontend.queue(0).read(8, 4096).unwrap();
        assert_eq!((status, data), (S_OK, vec![lun + 1; 4096]));
    }
    let (status, _) = daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{:#?}", daemon.log());
    assert!((0..DISKS).all(|lun| !config.socket(&format!("d{lun}")).exists()));
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn a_disk_whose_target_is_away_does_not_keep_others_from_their_guests() {
    let (target, mut config) = (luns(1), ConfigFile::new());
    let away = format!("iscsi://{NOBODY}/iqn.2026-11.org.example:away/0");
    config.disk("away", &away, "");
    config.disk("here", &target.url(0), "");
    let daemon = config.start();
    let mut frontend = config.connect(&daemon, "here");
    assert_eq!(frontend.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    daemon.wait_log("waiting for the target", SOON);
    assert!(!config.socket("away").exists());
}

#[test]
fn a_target_that_fails_costs_its_own_disk_a_pause_and_the_others_nothing() {
    let (steady, failing, mut config) = (luns(1), luns(1), ConfigFile::new());
    config.disk("steady", &steady.url(0), "");
    config.disk("failing", &failing.url(0), "io-timeout = '0'");
    let daemon = config.start();
    let mut good = config.connect(&daemon, "steady");
    let mut bad = config.connect(&daemon, "failing");
    failing.refuse_connections();
    failing.drop_connections();
    for sector in (0..64).step_by(8) {
        assert_eq!(good.queue(0).write(sector, &pattern(4096)).unwrap(), S_OK);
    }
    failing.accept_connections().unwrap();
    let back = wait::until(SOON, || {
        (bad.queue(0).write(0, &pattern(4096)).unwrap() == S_OK).then_some(())
    });
    assert!(back.is_some(), "{:#?}", daemon.log());
}

/// What the process has for itself, guests' memory left out.
fn resident_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    of("RssAnon:") + of("RssFile:")
}

/// A disk under load until told to stop: each write is read back. Counts what ended.
struct Loaded {
    ended: AtomicU64,
    stop: AtomicBool,
}

impl Loaded {
    fn run(&self, disk: u8, frontend: &mut Frontend) {
        let mut round = 0u8;
        while !self.stop.load(Ordering::Relaxed) {
            let data = vec![disk ^ round; 16 * 1024];
            let sector = u64::from(round % 8) * 64;
            assert_eq!(frontend.queue(0).write(sector, &data).unwrap(), S_OK);
            let (status, found) = frontend.queue(0).read(sector, 16 * 1024).unwrap();
            assert!(
                (status, found) == (S_OK, data),
                "disk {disk}, round {round}"
            );
            self.ended.fetch_add(2, Ordering::Relaxed);
            round = round.wrapping_add(1);
        }
    }
}

/// Ends the load on all disks, also when what is judged meanwhile fails.
struct UntilDropped<'a>(&'a [Loaded]);

impl Drop for UntilDropped<'_> {
    fn drop(&mut self) {
        for load in self.0 {
            load.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Waits until each of these disks has ended so many requests more than now.
fn until_all_moved(loads: &[Loaded], by: u64) {
    let ended = || loads.iter().map(|load| load.ended.load(Ordering::Relaxed));
    let from: Vec<_> = ended().collect();
    let moved = wait::until(SOON, || {
        let mut moved = ended().zip(&from);
        moved.all(|(now, from)| now >= from + by).then_some(())
    });
    assert!(
        moved.is_some(),
        "{from:?} and {:?}",
        ended().collect::<Vec<_>>()
    );
}

/// How often each disk's sessions had to be made again.
fn reconnects(control: &ControlSocket) -> Vec<u64> {
    let status = control.document(&["status"]);
    let of = |disk: &serde_json::Value| {
        let sessions = disk["sessions"].as_array().unwrap().iter();
        sessions
            .map(|session| session["reconnects"].as_u64().unwrap())
            .sum()
    };
    status["disks"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn sixty_four_disks_are_served_under_load_while_a_quarter_of_them_lose_their_target() {
    const TARGETS: u16 = 4;
    const LUNS: u16 = 16;
    const MOST_KIB: u64 = 320 << 10;
    const SOME: u64 = 20;
    let targets: Vec<_> = (0..TARGETS).map(|_| luns(LUNS)).collect();
    let mut config = ConfigFile::new();
    let control = config.control_socket();
    let mut names = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        for lun in 0..LUNS {
            let name = format!("t{number}-{lun}");
            config.disk(&name, &target.url(lun), "");
            names.push(name);
        }
    }
    let daemon = config.start();
    let connect = |name: &String| config.connect(&daemon, name);
    let mut frontends: Vec<_> = names.iter().map(connect).collect();
    let load = |_: &String| Loaded {
        ended: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let loads: Vec<_> = names.iter().map(load).collect();
    let (away, steady) = loads.split_at(LUNS.into());
    thread::scope(|scope| {
        for (disk, (load, frontend)) in (0u8..).zip(loads.iter().zip(&mut frontends)) {
            scope.spawn(move || load.run(disk, frontend));
        }
        let _running = UntilDropped(&loads);
        until_all_moved(&loads, SOME);
        targets[0].refuse_connections();
        targets[0].drop_connections();
        until_all_moved(steady, SOME);
        let ended = |load: &Loaded| load.ended.load(Ordering::Relaxed);
        let stalled: Vec<_> = away.iter().map(ended).collect();
        until_all_moved(steady, SOME);
        assert_eq!(away.iter().map(ended).collect::<Vec<_>>(), stalled);
        targets[0].accept_connections().unwrap();
        until_all_moved(&loads, SOME);
    });
    let reconnects = reconnects(&control);
    let (away, steady) = reconnects.split_at(LUNS.into());
    assert!(away.iter().all(|count| *count >= 1), "{away:?}");
    assert!(steady.iter().all(|count| *count == 0), "{steady:?}");
    let resident_kib = resident_kib(&daemon);
    assert!(resident_kib < MOST_KIB, "{resident_kib} KiB");
}

#[test]
fn a_second_process_with_the_same_file_is_refused() {
    let (target, mut config) = (luns(1), ConfigFile::new());
    config.disk("a", &target.url(0), "");
    let daemon = config.start();
    config.connect(&daemon, "a");
    let path = config.write();
    let second = run(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(second.code, Some(13), "{}", second.stderr);
    assert!(
        second.stderr.contains("by another process already"),
        "{}",
        second.stderr
    );
}

#[test]
fn check_says_all_that_is_wrong_and_with_login_what_the_targets_say() {
    let (target, mut config) = (luns(1), ConfigFile::new());
    config.disk("good", &target.url(0), "");
    config.disk("no-lun", &target.url(7), "");
    let path = config.write();
    let path = path.to_str().unwrap();
    let checked = run(&["check", "--config", path]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let checked = run(&["check", "--login", "--json", "--config", path]);
    assert_eq!(checked.code, Some(21), "{}", checked.stderr);
    let document: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(document["disks"][0]["problem"], serde_json::Value::Null);
    let problem = document["disks"][1]["problem"].as_str().unwrap();
    assert!(problem.contains("has no such LUN"), "{problem}");
    config.text.push_str("io-timout = '1s'\nnum-queues = 0\n");
    config.write();
    let checked = run(&["check", "--config", path]);
    assert_eq!(checked.code, Some(2));
    assert_eq!(checked.stdout.lines().count(), 2, "{}", checked.stdout);
    let served = run(&["serve", "--config", path]);
    assert_eq!(served.code, Some(2));
    assert!(
        served
            .stderr
            .contains("but there is io-timeout (and 1 more"),
        "{}",
        served.stderr
    );
}

#[test]
fn a_service_without_a_disk_runs_until_it_is_told_to_end() {
    let mut config = ConfigFile::new();
    let control = config.control_socket();
    let mut daemon = config.start();
    let answers = || control.verb(&["status"]).code == Some(0);
    assert_eq!(wait::until(SOON, || answers().then_some(())), Some(()));
    let (status, _) = daemon.terminate(SOON);
    assert!(status.success(), "{status}: {:#?}", daemon.log());
}
