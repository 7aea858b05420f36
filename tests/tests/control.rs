//! Looking into a process that serves: the verbs, their control socket, and what strangers do to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use iscsi_test_target::{LoginFault, LunConfig, Rule, Sense, TestTarget};
use serde_json::Value;
use vhost_user_iscsi_tests::control_socket::{ControlSocket, exchange};
use vhost_user_iscsi_tests::daemon::run;
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, Layout, Request};
use vhost_user_iscsi_tests::served::{
    AWAY, INITIATOR_NAME, SOON, Served, one_lun, start_small_target,
};
use vhost_user_iscsi_tests::service::Service;
use vhost_user_iscsi_tests::snapshot::{assert_matches, stable};
use vhost_user_iscsi_tests::wait;

const STATUS: &[u8] = b"{\"verb\":\"status\"}\n";

/// A service with two disks, and the target of the first: `a` is served, `b`'s target is away.
fn watched() -> (TestTarget, Service) {
    let target = start_small_target();
    let service = Service::start(|config| {
        config.disk("a", &target.url(0), "sessions = 1");
        config.disk("b", AWAY, "sessions = 2");
    });
    service.until("b", |disk| disk["state"] == "waiting_for_target");
    (target, service)
}

/// What a verb prints that has to succeed, without what is different each time.
fn printed(target: &TestTarget, service: &Service, arguments: &[&str]) -> String {
    let output = service.verb(arguments);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let port = target.portal().port().to_string();
    let directory = service.config.directory().to_str().unwrap().to_owned();
    let pid = service.daemon.id().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let isids = isids(service);
    let mut volatile = vec![
        (directory.as_str(), "DIRECTORY"),
        (port.as_str(), "PORT"),
        (version, "VERSION"),
    ];
    volatile.extend(isids.iter().map(|isid| (isid.as_str(), "ISID_")));
    let process = format!("process {pid},");
    let in_json = format!("\"pid\": {pid},");
    volatile.extend([
        (process.as_str(), "process PID,"),
        (in_json.as_str(), "\"pid\": PID,"),
    ]);
    stable(&output.stdout, &volatile)
}

/// Compares what a verb prints with a snapshot.
fn shows(target: &TestTarget, service: &Service, snapshot: &str, arguments: &[&str]) {
    let printed = printed(target, service, arguments);
    assert_matches(&format!("control/{snapshot}"), &printed);
}

fn isids(service: &Service) -> Vec<String> {
    let disks = service.disks();
    let sessions = disks
        .iter()
        .flat_map(|disk| disk["sessions"].as_array().unwrap());
    let isids = sessions.map(|session| session["isid"].as_str().unwrap().to_owned());
    isids.collect()
}

/// Has the target tell that LUN 0 has another size; whoever sends commands hears of it.
fn resize(target: &TestTarget, guest: &mut Frontend, bytes: u64) {
    assert!(target.set_capacity_bytes(0, bytes));
    let told = Sense::CAPACITY_CHANGED;
    target.push_unit_attention_to_all(0, told);
    assert_eq!(guest.queue(0).read(0, 512).unwrap().0, S_OK);
}

#[test]
fn status_and_ls_show_a_lun_that_has_changed() {
    const SIZES: [u64; 3] = [16 << 20, 24 << 20, 8 << 20];
    let (target, service) = watched();
    let mut guest = service.guest("a");
    resize(&target, &mut guest, SIZES[1]);
    service.until("a", |disk| disk["lun"]["capacity_bytes"] == SIZES[1]);
    assert!(service.disk("a")["problems"].as_array().unwrap().is_empty());
    resize(&target, &mut guest, SIZES[2]);
    let disk = service.until("a", |disk| disk["lun"]["capacity_bytes"] == SIZES[2]);
    assert_eq!(disk["lun"]["shown_capacity_bytes"], SIZES[1]);
    let problem = disk["problems"][0].as_str().unwrap();
    assert!(
        problem.contains("has shrunk to 8388608 bytes, guests are shown 25165824 bytes"),
        "{problem}"
    );
    let shown = printed(&target, &service, &["ls", "-l"]);
    let line = "Capacity: 8388608 bytes (8 MiB)   Shown to guests: 25165824 bytes (24 MiB)";
    assert!(shown.contains(line), "{shown}");
    let shown = printed(&target, &service, &["status", "a"]);
    assert!(shown.contains("capacity shown to guests"), "{shown}");
    resize(&target, &mut guest, SIZES[1]);
    service.until("a", |disk| disk["problems"] == Value::Array(Vec::new()));
}

#[test]
fn status_names_write_protection_that_the_guest_does_not_know_of() {
    let (target, service) = watched();
    let mut guest = service.guest("a");
    assert!(target.set_write_protected(0, true));
    assert_eq!(guest.queue(0).write(0, &pattern(512)).unwrap(), S_IOERR);
    let disk = service.until("a", |disk| disk["lun"]["read_only"] == true);
    assert_eq!(disk["front_end"]["read_only"], false);
    let problem = disk["problems"][0].as_str().unwrap();
    assert!(problem.contains("has become write-protected"), "{problem}");
}

#[test]
fn ls_shows_a_block_for_each_session() {
    let (target, service) = watched();
    let _guest = service.guest("a");
    shows(&target, &service, "ls.txt", &["ls"]);
    shows(&target, &service, "ls-lc.txt", &["ls", "-l", "-c"]);
    shows(&target, &service, "ls.json", &["ls", "--json"]);
}

#[test]
fn status_shows_a_line_for_each_disk_and_everything_about_one() {
    let (target, service) = watched();
    let _guest = service.guest("a");
    shows(&target, &service, "status.txt", &["status"]);
    shows(&target, &service, "status-a.txt", &["status", "a"]);
    shows(&target, &service, "status-b.txt", &["status", "b"]);
    shows(&target, &service, "status.json", &["status", "--json"]);
    let none = service.verb(&["status", "c"]);
    assert_eq!(none.code, Some(21));
    assert!(
        none.stderr.contains("no disk of that name"),
        "{}",
        none.stderr
    );
}

#[test]
fn limits_are_shown_and_changed() {
    let (target, service) = watched();
    shows(&target, &service, "limits-none.txt", &["limits", "b"]);
    let set = "limits a --iops-total 500 --iops-total-max 2000 --iops-total-max-length 10s \
               --bps-read 100MiB --bps-write 1500kB";
    let set: Vec<_> = set.split_whitespace().collect();
    shows(&target, &service, "limits.txt", &set);
    let json = ["limits", "a", "--json"];
    shows(&target, &service, "limits.json", &json);
    let status = printed(&target, &service, &["status", "a"]);
    assert!(
        status.contains("500 per s, in bursts of 10 s 2000 per s"),
        "{status}"
    );
    // One that waits for its target has them when it is there.
    printed(&target, &service, &["limits", "b", "--iops-read", "7"]);
    assert_eq!(service.disk("b")["limits"]["iops_read"]["per_s"], 7);
    printed(&target, &service, &["limits", "b", "--none"]);
    assert_eq!(service.disk("b")["limits"]["iops_read"], Value::Null);
    assert_eq!(service.verb(&["limits", "c"]).code, Some(21));
}

#[test]
fn a_session_that_is_lost_and_back_is_seen() {
    let (target, service) = watched();
    let mut guest = service.guest("a");
    target.refuse_connections();
    target.drop_connections();
    let lost = service.until("a", |disk| {
        let reason = disk["sessions"][0]["reason"].as_str();
        reason.is_some_and(|reason| reason.contains("Connection refused"))
    });
    assert_eq!(lost["sessions"][0]["state"], "waiting");
    assert_eq!(lost["problems"].as_array().unwrap().len(), 1, "{lost:#}");
    let shown = printed(&target, &service, &["ls"]);
    assert!(
        shown.contains("SESSION STATUS          : DROPPED AT TIME: cannot reach"),
        "{shown}"
    );
    let shown = printed(&target, &service, &["status"]);
    assert!(shown.contains("a: session 0 is away since TIME"), "{shown}");
    target.accept_connections().unwrap();
    let back = service.until("a", |disk| disk["sessions"][0]["state"] == "logged_in");
    assert_eq!(back["sessions"][0]["reconnects"], 1);
    assert_eq!(back["sessions"][0]["reason"], Value::Null);
    assert_ne!(back["sessions"][0]["last_error"], Value::Null);
    assert_eq!(back["problems"], Value::Array(Vec::new()));
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
}

#[test]
fn a_front_end_is_seen_to_come_and_go() {
    let (_target, service) = watched();
    service.until_served("a");
    assert_eq!(service.disk("a")["front_end"], Value::Null);
    let guest = service.guest("a");
    let disk = service.disk("a");
    assert_ne!(disk["front_end"], Value::Null);
    assert_eq!(disk["queues"][0]["session"], 0);
    drop(guest);
    let gone = service.until("a", |disk| disk["front_end"] == Value::Null);
    assert_eq!(gone["queues"], Value::Array(Vec::new()));
}

#[test]
fn a_session_that_is_refused_is_a_problem_until_the_guest_leaves() {
    let target = start_small_target();
    let service = Service::start(|config| config.disk("a", &target.url(0), "sessions = 2"));
    service.until_served("a");
    let (class, detail) = (3, 2);
    target.add(Rule::login(LoginFault::Status { class, detail }));
    let frontend = FrontendConfig {
        queues: 2,
        memory_bytes: 4 << 20,
        ..FrontendConfig::default()
    };
    let guest = Frontend::connect(service.config.socket("a"), frontend).unwrap();
    let refused = service.until("a", |disk| disk["sessions"][1]["state"] == "refused");
    let problem = refused["problems"][0].as_str().unwrap();
    assert!(
        problem.contains("session 1 cannot be had, its queues share session 0"),
        "{problem}"
    );
    assert!(
        problem.contains("out of resources (status 0302)"),
        "{problem}"
    );
    assert_eq!(refused["queues"][1]["session"], 0);
    target.clear_rules();
    drop(guest);
    service.until("a", |disk| disk["problems"] == Value::Array(Vec::new()));
    let _guest = Frontend::connect(service.config.socket("a"), frontend).unwrap();
    let up = service.until("a", |disk| disk["sessions"][1]["state"] == "logged_in");
    assert_eq!(up["queues"][1]["session"], 1);
}

#[test]
fn a_redirect_in_force_is_seen() {
    let other = start_small_target();
    let (target, service) = watched();
    let address = other.portal().to_string();
    service.until_served("a");
    target.add(Rule::login(LoginFault::Redirect {
        permanent: false,
        address: format!("{address},1"),
    }));
    target.drop_connections();
    let moved = service.until("a", |disk| {
        disk["sessions"][0]["login"]["address"] == address
    });
    let from = target.portal().to_string();
    assert_eq!(moved["sessions"][0]["login"]["redirected_from"][0], from);
    let shown = service.verb(&["ls"]).stdout;
    assert!(
        shown.contains(&format!("REDIRECTED FROM         : {from}")),
        "{shown}"
    );
}

#[test]
fn stats_add_up_to_what_the_front_end_did_and_survive_it() {
    let (target, service) = watched();
    let counted = || {
        let document = service.json(&["stats", "a"]);
        document["disks"][0]["sessions"][0].clone()
    };
    for round in 1..=2 {
        let mut guest = service.guest("a");
        for sector in 0..10 {
            assert_eq!(guest.queue(0).write(sector, &pattern(1024)).unwrap(), S_OK);
            assert_eq!(guest.queue(0).read(sector, 512).unwrap().0, S_OK);
        }
        // Beyond the end.
        assert_ne!(guest.queue(0).read(1 << 40, 512).unwrap().0, S_OK);
        guest.queue(0).submit_batch(vec![flush()]).unwrap();
        guest.queue(0).wait_used(SOON).unwrap();
        let operations = &counted()["operations"];
        let of = |name: &str| {
            let operation = &operations[name];
            ["requests", "bytes", "errors"].map(|field| operation[field].as_u64().unwrap())
        };
        assert_eq!(of("write"), [10 * round, 10 * round * 1024, 0]);
        assert_eq!(of("read"), [11 * round, 10 * round * 512, round]);
        assert_eq!(of("flush"), [round, 0, 0]);
        assert_eq!(of("discard"), [0; 3]);
        let buckets = operations["write"]["latency"]["buckets"]
            .as_array()
            .unwrap();
        let in_buckets = buckets
            .iter()
            .map(|bucket| bucket["requests"].as_u64().unwrap());
        assert_eq!(in_buckets.sum::<u64>(), 10 * round);
        drop(guest);
        service.until("a", |disk| disk["front_end"] == Value::Null);
    }
    target.drop_connections();
    service.until("a", |disk| disk["sessions"][0]["reconnects"] == 1);
    assert_eq!(counted()["sessions_lost"], 1);
    let shown = service.verb(&["stats"]).stdout;
    assert!(shown.contains("\n  write            20 "), "{shown}");
    assert!(shown.contains("sessions lost: 1"), "{shown}");
    assert!(shown.contains("Disk b: nothing yet"), "{shown}");
}

fn flush() -> (Request, Layout) {
    let flush = Request::flush();
    let layout = Layout::usual(&flush);
    (flush, layout)
}

#[test]
fn explain_asks_nobody() {
    for (code, name) in [
        ("0302", "login"),
        ("05/25/00", "sense"),
        ("reject:09", "reject"),
    ] {
        let text = run(&["explain", code]);
        assert_eq!(text.code, Some(0), "{}", text.stderr);
        assert_matches(&format!("control/explain-{name}.txt"), &text.stdout);
    }
    let json = run(&["explain", "--json", "0302"]);
    assert_matches("control/explain-login.json", &json.stdout);
    let refused = run(&["explain", "hunter2"]);
    assert_eq!(refused.code, Some(2));
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
}

/// While `nuisance` goes on, a guest's requests are answered as ever.
fn with_a_guest_at_work(nuisance: impl FnOnce(&Service)) {
    let (target, service) = watched();
    let mut guest = service.guest("a");
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            for sector in (0..2048).step_by(8) {
                assert_eq!(guest.queue(0).write(sector, &pattern(4096)).unwrap(), S_OK);
            }
        });
        nuisance(&service);
        worker.join().unwrap();
    });
    assert_eq!(target.violations(), [""; 0]);
    assert_eq!(service.disk("a")["state"], "serving");
}

#[test]
fn garbage_gets_an_error_and_the_next_request_an_answer() {
    with_a_guest_at_work(|service| {
        let mut stream = service.control.connect();
        for garbage in [
            "\n",
            "hunter2\n",
            "{}\n",
            "[[[[\n",
            "{\"verb\":\"hunter2\"}\n",
            "\0\x1b\n",
        ] {
            let answer = exchange(&mut stream, garbage.as_bytes()).unwrap();
            assert_eq!(answer["ok"], false, "{garbage:?}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(!message.contains("hunter2"), "{message}");
        }
        stream.write_all(&[0xff, b'\n']).unwrap();
        let mut reader = BufReader::new(&stream);
        reader.read_line(&mut String::new()).unwrap();
        assert_eq!(exchange(&mut stream, STATUS).unwrap()["ok"], true);
        // Two at once, and half of one at the end.
        stream
            .write_all(b"{\"verb\":\"status\"}\n{\"verb\":\"status\"}\n{\"ve")
            .unwrap();
        let mut reader = BufReader::new(&stream);
        for _ in 0..2 {
            assert!(reader.read_line(&mut String::new()).unwrap() > 100);
        }
    });
}

#[test]
fn a_request_of_64_kib_is_read_and_a_longer_one_ends_the_connection() {
    with_a_guest_at_work(|service| {
        let mut stream = service.control.connect();
        let request = "{\"verb\":\"status\"";
        let padded = |length: usize| format!("{request}{:1$}}}\n", "", length - request.len() - 1);
        let mut ask = |length| exchange(&mut stream, padded(length).as_bytes()).unwrap();
        assert_eq!(ask(64 * 1024)["ok"], true);
        assert_eq!(ask(64 * 1024 + 1)["ok"], false);
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
        // Without an end, what was sent beyond is never read.
        let mut stream = service.control.connect();
        let _ = stream.write_all(&[b' '; 256 * 1024]);
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        assert!(
            answer.contains("65536 bytes at most") || answer.is_empty(),
            "{answer}"
        );
    });
}

#[test]
fn those_who_sit_there_keep_out_the_17th_only_as_long_as_they_sit() {
    with_a_guest_at_work(|service| {
        let sit = || {
            let mut stream = service.control.connect();
            let answer = exchange(&mut stream, STATUS).ok()?;
            (answer["ok"] == true).then_some(stream)
        };
        // Those of before may be there for a moment yet.
        let sitting = (0..16).map(|_| wait::until(SOON, sit).unwrap());
        let mut sitting: Vec<_> = sitting.collect();
        let mut answer = String::new();
        BufReader::new(service.control.connect())
            .read_line(&mut answer)
            .unwrap();
        assert!(
            answer.contains("16 connections are open already"),
            "{answer}"
        );
        sitting.pop();
        assert!(wait::until(SOON, sit).is_some());
    });
}

#[test]
fn who_asks_and_does_not_read_is_dropped() {
    with_a_guest_at_work(|service| {
        let mut stream = service.control.connect();
        stream
            .set_write_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let asked = (0..1_000_000).find(|_| stream.write_all(STATUS).is_err());
        assert!(asked.is_some(), "it listens for ever");
    });
}

#[test]
fn two_processes_cannot_have_one_control_socket_and_a_stale_one_is_replaced() {
    let (target, mut service) = watched();
    service.until_served("a");
    let mode = std::fs::metadata(service.control.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let socket = service.config.directory().join("other.sock");
    let arguments = [
        "--socket-path",
        socket.to_str().unwrap(),
        "--blk-file",
        &target.url(0),
        "--initiator-name",
        INITIATOR_NAME,
    ];
    let second = service.verb(&arguments);
    assert_eq!(second.code, Some(13), "{}", second.stderr);
    assert!(
        second.stderr.contains("by another process already"),
        "{}",
        second.stderr
    );
    assert_eq!(service.disk("a")["state"], "serving");
    service.daemon.kill();
    service.daemon.wait_exit(SOON);
    assert!(service.control.path().exists());
    let nobody = service.verb(&["status"]);
    assert_eq!(nobody.code, Some(4));
    assert!(
        nobody.stderr.contains("Connection refused"),
        "{}",
        nobody.stderr
    );
    service.daemon = service.config.start();
    service.until_served("a");
    let (status, _) = service.daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(!service.control.path().exists());
}

#[test]
fn a_single_disk_has_a_control_socket_when_it_is_asked_for() {
    let control = ControlSocket::new();
    let arguments = [&control.arguments()[..], &["--control-socket-mode", "0600"]].concat();
    let _served = Served::with(one_lun(LunConfig::of_bytes(16 << 20)), &arguments);
    let mode = std::fs::metadata(control.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = control.verb(&["status", "disk"]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
}
