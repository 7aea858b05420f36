//! Disks that come, go and change while others are at work: reload, add and remove.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use iscsi_test_target::{CommandFault, LunConfig, Rule, TargetConfig, TestTarget};
use serde_json::{Value, json};
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::control_socket::ControlSocket;
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{F_RO, S_OK};
use vhost_user_iscsi_tests::frontend::{Layout, Request};
use vhost_user_iscsi_tests::served::{AWAY, SOON, Served, start_target};
use vhost_user_iscsi_tests::service::Service;
use vhost_user_iscsi_tests::snapshot::{assert_matches, stable};
use vhost_user_iscsi_tests::wait;

/// A megabyte for LUN 0, two for LUN 1, and so on: so they can be told apart. All but the first are for
/// a disk at work, which has 16.
fn target() -> TestTarget {
    let lun = |number: u16| {
        let megabytes = if number == 0 { 16 } else { u64::from(number) };
        (number, LunConfig::of_bytes(megabytes << 20))
    };
    start_target(TargetConfig {
        luns: (0..8).map(lun).collect(),
        ..TargetConfig::default()
    })
}

/// Adds LUN 0, on which a guest works while something happens to others.
fn at_work(config: &mut ConfigFile, target: &TestTarget) {
    config.disk("at-work", &target.url(0), "sessions = 1");
}

fn changes(lists: &[(&str, &[&str])], unchanged: u64) -> Value {
    let mut changes = json!({
        "problems": [], "added": [], "removed": [], "changed": [], "restarted": [], "kept": [],
        "failed": [], "unchanged": unchanged, "after_restart": [],
    });
    for (list, names) in lists {
        changes[list] = json!(names);
    }
    changes
}

#[test]
fn a_reload_touches_only_what_has_changed() {
    let target = target();
    let mut service = Service::start(|config| {
        at_work(config, &target);
        config.disk("same", &target.url(1), "");
        config.disk("gone", &target.url(2), "");
        config.disk("other", &target.url(3), "");
    });
    for name in ["same", "gone", "other"] {
        service.until_served(name);
    }
    let same = service.disk("same")["sessions"].clone();
    service.rewrite(|config| {
        at_work(config, &target);
        config.disk("new", &target.url(4), "");
        config.disk("other", &target.url(3), "read-only = true");
        config.disk("same", &target.url(1), "");
    });
    let made = service.while_a_guest_works_on("at-work", || {
        let made = service.json(&["reload"]);
        assert!(!service.config.socket("gone").exists());
        assert_ne!(service.guest("other").offered() & F_RO, 0);
        let mut guest = service.guest("new");
        assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
        made
    });
    let lists: [(&str, &[&str]); 3] = [
        ("added", &["new"]),
        ("removed", &["gone"]),
        ("changed", &["other"]),
    ];
    assert_eq!(made, changes(&lists, 2));
    assert_eq!(service.disk("same")["sessions"], same);
    assert_eq!(service.names(), ["at-work", "new", "other", "same"]);
    let log = service.daemon.log();
    let logged = |part: &str| log.iter().filter(|line| line.contains(part)).count();
    assert_eq!(logged(&target.url(0)), 1, "{log:#?}");
    assert_eq!(logged(&target.url(1)), 1, "{log:#?}");
    assert_eq!(service.json(&["reload"]), changes(&[], 4));
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn sighup_is_a_reload_and_the_log_says_what_has_come_of_it() {
    let target = target();
    let mut service = Service::start(|config| config.disk("a", &target.url(1), ""));
    service.rewrite(|config| config.disk("b", &target.url(2), ""));
    service.daemon.hang_up();
    service.daemon.wait_log("reload: added: b", SOON);
    service.daemon.wait_log("reload: removed: a", SOON);
    service.until_served("b");
    service.config.text.push_str("io-timout = '1s'\n");
    service.config.write();
    service.daemon.hang_up();
    let line = service.daemon.wait_log("but there is io-timeout", SOON);
    assert!(line.contains("config.toml:"), "{line}");
    service.daemon.wait_log("reload: nothing has changed", SOON);
    assert_eq!(service.names(), ["b"]);
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_all_of_them_are_said() {
    let target = target();
    let mut service = Service::start(|config| {
        at_work(config, &target);
        config.disk("gone", &target.url(2), "");
    });
    service.until_served("gone");
    service.rewrite(|config| {
        at_work(config, &target);
        config.disk("bad", &target.url(3), "io-timout = '1s'\nnum-queues = 0");
    });
    let nowhere = service.config.directory().join("nowhere/d.sock");
    let refused = |service: &Service, complaints: &[&str]| {
        service.while_a_guest_works_on("at-work", || {
            let said = service.verb(&["reload"]);
            assert_eq!(said.code, Some(2), "{}", said.stderr);
            let lines: Vec<_> = said.stdout.lines().collect();
            assert_eq!(lines.len(), complaints.len(), "{lines:#?}");
            for (line, complaint) in lines.iter().zip(complaints) {
                assert!(line.contains(complaint), "{line}");
            }
            assert!(
                said.stderr.contains("nothing has changed"),
                "{}",
                said.stderr
            );
            assert_eq!(service.disk("gone")["state"], "serving");
            assert_eq!(service.names(), ["at-work", "gone"]);
        });
    };
    let complaints = [
        "config.toml:12: there is no key io-timout, but there is io-timeout",
        "config.toml:13: num-queues takes a number from 1 to 64",
    ];
    refused(&service, &complaints);
    // What only shows when it is tried comes before anything is ended, too.
    service.rewrite(|config| {
        at_work(config, &target);
        config.text.push_str(&format!(
            "[[disk]]\nsocket-path = '{}'\nurl = '{AWAY}'\n",
            nowhere.display()
        ));
    });
    refused(&service, &["disk d: cannot use the directory of"]);
    service.rewrite(|_| {});
    refused(&service, &["there is no [[disk]]"]);
    fs::remove_file(service.config.directory().join("config.toml")).unwrap();
    refused(&service, &["cannot be read"]);
}

#[test]
fn what_a_guest_uses_is_kept_and_taken_up_when_the_guest_has_gone() {
    let target = target();
    let mut service = Service::start(|config| {
        config.disk("changed", &target.url(1), "");
        config.disk("gone", &target.url(2), "");
        config.disk("back", &target.url(3), "");
    });
    let mut guests = ["changed", "gone", "back"].map(|name| service.guest(name));
    let changed =
        |config: &mut ConfigFile| config.disk("changed", &target.url(1), "read-only = true");
    service.rewrite(changed);
    let made = service.json(&["reload"]);
    let kept = |name: &str| json!({"name": name, "reason": "a guest uses it"});
    assert_eq!(
        made["kept"],
        json!([kept("changed"), kept("gone"), kept("back")])
    );
    service
        .daemon
        .wait_log("reload: kept as it was: gone (a guest uses it)", SOON);
    // One of them is wanted again after all.
    service.rewrite(|config| {
        changed(config);
        config.disk("back", &target.url(3), "");
    });
    assert_eq!(service.json(&["reload"])["unchanged"], 1);
    for guest in &mut guests {
        assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    }
    drop(guests);
    service.until("changed", |disk| disk["lun"]["read_only"] == true);
    service.until("gone", Value::is_null);
    service.until("back", |disk| disk["front_end"].is_null());
    assert_eq!(service.names(), ["changed", "back"]);
    assert_eq!(service.disk("back")["sessions"][0]["reconnects"], 0);
    assert!(!service.config.socket("gone").exists());
    service
        .daemon
        .wait_log("a guest has gone: changed: changed", SOON);
    assert_eq!(service.json(&["reload"]), changes(&[], 2));
}

/// Disks at each other's sockets: their sizes are those of their LUNs.
#[test]
fn disks_change_places_and_names() {
    let target = target();
    let place = |config: &mut ConfigFile, name: &str, lun: u16, socket: &str| {
        let url = target.url(lun);
        let socket = config.socket(socket);
        config.text.push_str(&format!(
            "[[disk]]\nname = '{name}'\nsocket-path = '{}'\nurl = '{url}'\n",
            socket.display()
        ));
    };
    let mut service = Service::start(|config| {
        place(config, "a", 1, "one");
        place(config, "b", 2, "two");
    });
    let sectors = |service: &Service, socket: &str| {
        let mut guest = service.config.connect(&service.daemon, socket);
        guest.block_config().unwrap().capacity_sectors
    };
    let per_megabyte = 2048;
    assert_eq!(sectors(&service, "one"), per_megabyte);
    assert_eq!(sectors(&service, "two"), 2 * per_megabyte);
    for name in ["a", "b"] {
        service.until(name, |disk| disk["front_end"].is_null());
    }
    service.rewrite(|config| {
        place(config, "a", 1, "two");
        place(config, "b", 2, "one");
    });
    let made = service.json(&["reload"]);
    assert_eq!(made, changes(&[("changed", &["a", "b"])], 0));
    assert_eq!(sectors(&service, "one"), 2 * per_megabyte);
    assert_eq!(sectors(&service, "two"), per_megabyte);
    for name in ["a", "b"] {
        service.until(name, |disk| disk["front_end"].is_null());
    }
    service.rewrite(|config| {
        place(config, "b", 1, "two");
        place(config, "c", 2, "one");
    });
    let made = service.json(&["reload"]);
    let lists: [(&str, &[&str]); 3] = [("added", &["c"]), ("removed", &["a"]), ("changed", &["b"])];
    assert_eq!(made, changes(&lists, 0));
    assert_eq!(sectors(&service, "one"), 2 * per_megabyte);
    assert_eq!(target.violations(), [""; 0]);
}

/// Runs `add` for a LUN; its socket is where those of the file are.
fn add(service: &Service, name: &str, url: &str, options: &[&str]) -> Value {
    let socket = service.config.socket(name).display().to_string();
    let arguments = ["add", "--name", name, "--socket-path", &socket, url];
    service.json(&[&arguments, options].concat())
}

#[test]
fn a_disk_is_added_and_removed_while_another_is_at_work() {
    let target = target();
    let service = Service::start(|config| at_work(config, &target));
    service.while_a_guest_works_on("at-work", || {
        for _ in 0..3 {
            let made = add(&service, "b", &target.url(1), &["--read-only"]);
            assert_eq!(made, changes(&[("added", &["b"])], 0));
            assert_ne!(service.guest("b").offered() & F_RO, 0);
            service.until("b", |disk| disk["front_end"].is_null());
            let made = service.json(&["remove", "b"]);
            assert_eq!(made, changes(&[("removed", &["b"])], 0));
            assert_eq!(service.names(), ["at-work"]);
            assert!(!service.config.socket("b").exists());
        }
    });
    // The last one, and the process goes on.
    service.until("at-work", |disk| disk["front_end"].is_null());
    service.json(&["remove", "at-work"]);
    assert_eq!(service.names(), [""; 0]);
    // The file has it yet.
    let made = service.json(&["reload"]);
    assert_eq!(made, changes(&[("added", &["at-work"])], 0));
    service.until_served("at-work");
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn an_added_disk_has_the_defaults_of_the_file_and_outlives_a_reload() {
    let target = target();
    let service = Service::with(
        |config| config.setting("sessions", "3"),
        |config| config.disk("a", &target.url(1), ""),
    );
    // Beside the configuration, where the sandbox lets it be read.
    let secret = service.config.directory().join("secret");
    fs::write(&secret, "hunter2hunter2").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.to_str().unwrap();
    // Not that of the target, which wants none; but it is read.
    let options = ["--chap-user", "me", "--chap-secret-file", secret];
    add(&service, "b", &target.url(2), &options);
    let refused = service.until("b", |disk| disk["state"] == "waiting_for_target");
    assert!(
        refused["reason"].as_str().unwrap().contains("authenti"),
        "{refused}"
    );
    assert_eq!(refused["max_sessions"], 3);
    add(&service, "c", &target.url(3), &["--sessions", "2"]);
    assert_eq!(service.disk("c")["max_sessions"], 2);
    assert_eq!(service.json(&["reload"]), changes(&[], 1));
    assert_eq!(service.names(), ["a", "b", "c"]);
    let log = service.daemon.log().join("\n");
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn what_cannot_be_added_or_removed_is_said_by_its_key() {
    let target = target();
    let service = Service::start(|config| config.disk("a", &target.url(1), ""));
    let path = |name: &str| service.config.socket(name).display().to_string();
    let (free, taken, url) = (path("free"), path("a"), target.url(2));
    let secret = "iscsi://me:hunter2@h/iqn.2026-11.org.example:x/0";
    let nowhere = path("nowhere/x");
    let refusals: [(&[&str], i32, &str); 9] = [
        (&["remove", "b"], 21, "no disk of that name"),
        (
            &["add", "--name", "a", "--socket-path", &free, &url],
            2,
            "there is a disk a already",
        ),
        (
            &["add", "--socket-path", &taken, &url, "--name", "b"],
            2,
            "socket-path is that of disk a",
        ),
        (
            &["add", "--socket-path", &free, &url, "--name", "b c"],
            2,
            "name takes 1 to 64 letters",
        ),
        (
            &["add", "--socket-path", &free, &url, "--num-queues", "0"],
            2,
            "--num-queues <N> takes",
        ),
        (
            &["add", "--socket-path", &free, "--fd", "3", &url],
            2,
            "exclude each other",
        ),
        (&["add", &url], 2, "--socket-path <PATH> is missing"),
        (
            &["add", "--socket-path", &free, secret],
            2,
            "there is a secret before the '@'",
        ),
        (
            &["add", "--socket-path", &nowhere, &url],
            13,
            "disk x: cannot use the directory of",
        ),
    ];
    for (arguments, code, part) in refusals {
        let refused = service.verb(arguments);
        assert_eq!(
            refused.code,
            Some(code),
            "{arguments:?}: {}",
            refused.stderr
        );
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
    // The process that serves judges for itself.
    let settings = [
        (json!({"url": url}), "the disk has no socket-path"),
        (
            json!({"socket-path": free, "url": url, "sessions": 65}),
            "sessions takes",
        ),
        (
            json!({"socket-path": free, "url": url, "io-timout": "1s"}),
            "but there is io-timeout",
        ),
        (
            json!({"socket-path": free, "url": url, "control-socket": "/x"}),
            "belongs to the top",
        ),
        (
            json!({"socket-path": free, "url": url, "read-only": null}),
            "read-only takes true or false",
        ),
        (
            json!({"socket-path": [free], "url": {}}),
            "socket-path takes a text",
        ),
    ];
    for (settings, part) in settings {
        let line = format!("{}\n", json!({"verb": "add", "settings": settings}));
        let answer = service.ask(line.as_bytes());
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(service.names(), ["a"]);
}

#[test]
fn a_guest_is_taken_its_disk_by_force_only() {
    let target = target();
    let service = Service::start(|config| {
        at_work(config, &target);
        config.disk("b", &target.url(1), "");
    });
    let mut guest = service.guest("b");
    service.while_a_guest_works_on("at-work", || {
        let refused = service.verb(&["remove", "b"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
        assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
        // Refused is refused: it does not end later, either.
        assert_eq!(
            service.json(&["remove", "--force", "b"])["removed"],
            json!(["b"])
        );
        assert!(guest.is_closed_within(SOON));
        assert!(!service.config.socket("b").exists());
    });
    assert_eq!(service.names(), ["at-work"]);
    service.daemon.wait_log("its disk is taken away", SOON);
    add(&service, "b", &target.url(1), &[]);
    let mut guest = service.guest("b");
    let (status, data) = guest.queue(0).read(0, 4096).unwrap();
    assert_eq!((status, data), (S_OK, pattern(4096)));
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn a_refused_removal_is_forgotten_when_the_guest_has_gone() {
    let target = target();
    let service = Service::start(|config| config.disk("a", &target.url(1), ""));
    let guest = service.guest("a");
    let since = service.disk("a")["since"].clone();
    assert_eq!(service.verb(&["remove", "a"]).code, Some(1));
    drop(guest);
    service.until("a", |disk| disk["front_end"].is_null());
    let mut guest = service.guest("a");
    assert_eq!(guest.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    assert_eq!(service.disk("a")["since"], since);
}

#[test]
fn a_disk_whose_requests_wait_is_taken_away_with_a_bound_and_can_be_had_again() {
    let target = target();
    let service = Service::start(|config| {
        at_work(config, &target);
        config.disk("b", &target.url(1), "");
    });
    let mut guest = service.guest("b");
    target.add(Rule::command(CommandFault::NoAnswer).lun(1));
    let write = Request::write(0, pattern(4096));
    let layout = Layout::usual(&write);
    guest.queue(0).submit_batch(vec![(write, layout)]).unwrap();
    service.while_a_guest_works_on("at-work", || {
        service.json(&["remove", "--force", "b"]);
        assert!(guest.is_closed_within(SOON));
    });
    target.clear_rules();
    add(&service, "b", &target.url(1), &[]);
    let mut guest = service.guest("b");
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
}

/// Nothing of a disk is left behind: neither a login that waits for its target, nor its lock.
#[test]
fn a_disk_whose_target_is_away_ends_at_once_and_can_be_had_again() {
    let target = target();
    let service = Service::start(|config| {
        config.disk("never", AWAY, "");
        config.disk("lost", &target.url(1), "");
    });
    service.until("never", |disk| disk["state"] == "waiting_for_target");
    service.until_served("lost");
    target.refuse_connections();
    target.drop_connections();
    service.until("lost", |disk| !disk["sessions"][0]["last_error"].is_null());
    for name in ["never", "lost"] {
        service.json(&["remove", name]);
        add(&service, name, &target.url(1), &[]);
        service.until(name, |disk| disk["state"] == "waiting_for_target");
        service.json(&["remove", name]);
    }
    target.accept_connections().unwrap();
    add(&service, "lost", &target.url(1), &[]);
    service.until_served("lost");
    let log = service.daemon.log();
    let retries = log.iter().filter(|line| line.contains("is up again"));
    assert_eq!(retries.count(), 0, "{log:#?}");
}

/// The files that a process has open, and its lanes.
fn holds(service: &Service) -> (usize, usize) {
    let process = format!("/proc/{}", service.daemon.id());
    let entries = |name: &str| fs::read_dir(format!("{process}/{name}")).unwrap();
    let is_lane = |task: &fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("lane"))
    };
    let lanes = entries("task").flatten().filter(is_lane).count();
    (entries("fd").count(), lanes)
}

#[test]
fn a_disk_that_is_gone_holds_neither_files_nor_threads() {
    let target = target();
    let service = Service::start(|config| config.disk("a", &target.url(1), ""));
    service.until_served("a");
    let come_and_go = || {
        add(&service, "b", &target.url(2), &[]);
        let _guest = service.guest("b");
        service.json(&["remove", "--force", "b"]);
    };
    // Some things are there from the first time on.
    come_and_go();
    let before = wait::until(SOON, || {
        Some(holds(&service)).filter(|(_, lanes)| *lanes == 1)
    });
    let (files, lanes) = before.unwrap();
    for _ in 0..5 {
        come_and_go();
    }
    let is_as_before = |holds: (usize, usize)| holds.0 <= files && holds.1 == lanes;
    let after = wait::until(SOON, || is_as_before(holds(&service)).then_some(()));
    assert!(
        after.is_some(),
        "{files}, {lanes}, and now {:?}",
        holds(&service)
    );
}

#[test]
fn a_socket_that_a_guest_still_uses_is_waited_for() {
    let target = target();
    let mut service = Service::start(|config| config.disk("old", &target.url(1), ""));
    let guest = service.guest("old");
    let socket = service.config.socket("old");
    service.rewrite(|config| {
        config.text.push_str(&format!(
            "[[disk]]\nname = 'new'\nsocket-path = '{}'\nurl = '{}'\n",
            socket.display(),
            target.url(2)
        ));
    });
    let output = service.verb(&["reload", "--json"]);
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let made: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(made["kept"][0]["name"], "old");
    assert_eq!(made["failed"][0]["name"], "new");
    let problems = service.disk("new")["problems"].clone();
    assert!(
        problems
            .to_string()
            .contains("its socket is that of disk old yet"),
        "{problems}"
    );
    drop(guest);
    service.until_served("new");
    assert_eq!(service.names(), ["new"]);
}

#[test]
fn what_belongs_to_the_process_counts_after_a_restart() {
    let target = target();
    let mut service = Service::start(|config| config.disk("a", &target.url(1), ""));
    service.rewrite(|config| {
        config.text = config.text.replace("control'", "elsewhere'");
        config.setting("metrics-address", "127.0.0.1:0");
        config.disk("a", &target.url(1), "");
    });
    let made = service.json(&["reload"]);
    assert_eq!(
        made["after_restart"],
        json!(["control-socket", "metrics-address"])
    );
    assert!(service.control.path().exists());
    assert_eq!(service.names(), ["a"]);
}

#[test]
fn several_who_ask_at_once_come_one_after_the_other() {
    let target = target();
    let service = Service::start(|config| at_work(config, &target));
    service.while_a_guest_works_on("at-work", || {
        thread::scope(|scope| {
            for lun in 1..6 {
                let (service, url) = (&service, target.url(lun));
                scope.spawn(move || {
                    let name = format!("d{lun}");
                    add(service, &name, &url, &[]);
                    service.json(&["reload"]);
                    service.json(&["remove", &name]);
                });
            }
        });
    });
    assert_eq!(service.names(), ["at-work"]);
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn a_single_disk_stays_as_it_is() {
    let control = ControlSocket::new();
    let mut served = Served::from(target(), 1, &control.arguments());
    let url = served.target.url(2);
    let verbs: [&[&str]; 3] = [
        &["reload"],
        &["remove", "disk"],
        &["add", "--socket-path", "x", &url],
    ];
    for verb in verbs {
        let refused = control.verb(verb);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("serve --config"),
            "{}",
            refused.stderr
        );
    }
    // What it does for everybody who has not asked for it.
    served.daemon.hang_up();
    assert_eq!(served.daemon.wait_exit(SOON).code(), None);
}

#[test]
fn strangers_words_change_nothing() {
    let target = target();
    let service = Service::start(|config| at_work(config, &target));
    let deep = format!("{{\"verb\":\"add\",\"settings\":{}\n", "[".repeat(60_000));
    let many: Vec<_> = (0..5000).map(|n| format!("\"k{n}\":1")).collect();
    let many = format!("{{\"verb\":\"add\",\"settings\":{{{}}}}}\n", many.join(","));
    service.while_a_guest_works_on("at-work", || {
        for garbage in [
            "{\"verb\":\"reload\",\"hunter2\":1}\n",
            "{\"verb\":\"add\"}\n",
            "{\"verb\":\"add\",\"settings\":[]}\n",
            "{\"verb\":\"add\",\"settings\":{}}\n",
            "{\"verb\":\"add\",\"settings\":{\"hunter2 \\u0000\":\"hunter2\"}}\n",
            "{\"verb\":\"remove\"}\n",
            "{\"verb\":\"remove\",\"disk\":\"hunter2\"}\n",
            "{\"verb\":\"remove\",\"disk\":\"at-work\",\"force\":1}\n",
            &deep,
            &many,
        ] {
            let answer = service.ask(garbage.as_bytes());
            assert_eq!(answer["ok"], false, "{garbage:.80}: {answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(!message.contains("hunter2"), "{message}");
        }
    });
    assert_eq!(service.names(), ["at-work"]);
}

#[test]
fn the_verbs_say_in_words_and_in_json_what_has_changed() {
    let target = target();
    let mut service = Service::start(|config| {
        for (lun, name) in (1..).zip(["same", "gone", "other", "used"]) {
            config.disk(name, &target.url(lun), "");
        }
    });
    let directory = service.config.directory().display().to_string();
    let shown = |service: &Service, arguments: &[&str]| {
        let output = service.verb(arguments);
        let text = format!("{}{}", output.stdout, output.stderr);
        let code = output
            .code
            .map_or("none".to_owned(), |code| code.to_string());
        stable(
            &format!("{text}exit code {code}\n"),
            &[(&directory, "DIRECTORY")],
        )
    };
    let _guest = service.guest("used");
    service.until_served("other");
    service.rewrite(|config| {
        config.setting("metrics-address", "127.0.0.1:0");
        config.disk("same", &target.url(1), "");
        config.disk("other", &target.url(3), "read-only = true");
        config.disk("new", &target.url(5), "");
    });
    assert_matches("reload/reload.txt", &shown(&service, &["reload"]));
    assert_matches(
        "reload/reload.json",
        &shown(&service, &["reload", "--json"]),
    );
    assert_matches(
        "reload/remove-used.txt",
        &shown(&service, &["remove", "used"]),
    );
    assert_matches("reload/remove.txt", &shown(&service, &["remove", "new"]));
    assert_matches("reload/reload-again.txt", &shown(&service, &["reload"]));
    assert_matches(
        "reload/remove.json",
        &shown(&service, &["remove", "new", "--json"]),
    );
    let socket = service.config.socket("x").display().to_string();
    let (url, other) = (
        target.url(6),
        service.config.socket("y").display().to_string(),
    );
    let added = shown(&service, &["add", "--socket-path", &socket, &url]);
    assert_matches("reload/add.txt", &added);
    let added = shown(&service, &["add", "--json", "--socket-path", &other, &url]);
    assert_matches("reload/add.json", &added);
    service.config.text.push_str("foo = 1\nnum-queues = 0\n");
    service.config.write();
    assert_matches("reload/reload-bad.txt", &shown(&service, &["reload"]));
    assert_matches(
        "reload/reload-bad.json",
        &shown(&service, &["reload", "--json"]),
    );
    let made = wait::until(SOON, || (service.names().len() == 5).then_some(()));
    assert!(made.is_some(), "{:?}", service.names());
}
