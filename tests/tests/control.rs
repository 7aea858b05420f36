//! Looking into a process that serves: the verbs, their control socket, and what strangers do to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use iscsi_test_target::{LoginFault, LunConfig, Rule, Sense, TestTarget};
use serde_json::Value;
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::daemon::{Daemon, Output, run};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, Layout, Request};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, one_lun, start_target};
use vhost_user_iscsi_tests::snapshot::{assert_matches, stable};
use vhost_user_iscsi_tests::wait;

/// A daemon with a control socket and two disks: `a` is served, `b`'s target is away.
struct Watched {
    target: TestTarget,
    config: ConfigFile,
    daemon: Daemon,
    control: PathBuf,
}

/// A port on loopback where nobody listens, and nobody will.
const AWAY: &str = "iscsi://127.0.0.1:1/iqn.2026-11.org.example:away/0";

impl Watched {
    fn new() -> Self {
        let target = start_target(one_lun(LunConfig::of_bytes(16 << 20)));
        let mut config = ConfigFile::new();
        let control = config.control_socket();
        config.disk("a", &target.url(0), "sessions = 1");
        config.disk("b", AWAY, "sessions = 2");
        let daemon = config.start();
        let watched = Self {
            target,
            config,
            daemon,
            control,
        };
        watched.until_disk("b", |disk| disk["state"] == "waiting_for_target");
        watched
    }

    fn guest(&self) -> Frontend {
        let frontend = self.config.connect(&self.daemon, "a");
        self.until_disk("a", |disk| disk["queues"] != Value::Array(Vec::new()));
        frontend
    }

    fn verb(&self, arguments: &[&str]) -> Output {
        let socket = ["--control-socket", self.control.to_str().unwrap()];
        run(&[arguments, &socket].concat())
    }

    fn shown(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let port = self.target.portal().port().to_string();
        let directory = self.config.directory().to_str().unwrap().to_owned();
        let pid = self.daemon.id().to_string();
        let version = env!("CARGO_PKG_VERSION");
        let isids = self.isids();
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

    fn isids(&self) -> Vec<String> {
        let document = self.status();
        let disks = document["disks"].as_array().unwrap().iter();
        let sessions = disks.flat_map(|disk| disk["sessions"].as_array().unwrap());
        let isids = sessions.map(|session| session["isid"].as_str().unwrap().to_owned());
        isids.collect()
    }

    fn status(&self) -> Value {
        let output = self.verb(&["status", "--json"]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        serde_json::from_str(&output.stdout).unwrap()
    }

    fn disk(&self, name: &str) -> Value {
        let request = format!("{{\"verb\":\"status\",\"disk\":\"{name}\"}}\n");
        // Others may have taken all places, and have just gone.
        let answer = wait::until(SOON, || try_to_ask(&mut self.connect(), &request));
        answer.unwrap()["result"]["disks"][0].clone()
    }

    fn until_disk(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = wait::until(SOON, || Some(self.disk(name)).filter(|disk| wanted(disk)));
        found.unwrap_or_else(|| panic!("{:#}, {:#?}", self.disk(name), self.daemon.log()))
    }

    fn connect(&self) -> UnixStream {
        let connected = wait::until(SOON, || UnixStream::connect(&self.control).ok());
        let stream = connected.unwrap_or_else(|| panic!("{:#?}", self.daemon.log()));
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }
}

/// One line there, one line back.
fn ask(stream: &mut UnixStream, line: &str) -> Value {
    stream.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
}

/// Has the target tell that LUN 0 has another size; whoever sends commands hears of it.
fn resize(watched: &Watched, guest: &mut Frontend, bytes: u64) {
    assert!(watched.target.set_capacity_bytes(0, bytes));
    let told = Sense::CAPACITY_CHANGED;
    watched.target.push_unit_attention_to_all(0, told);
    assert_eq!(guest.queue(0).read(0, 512).unwrap().0, S_OK);
}

#[test]
fn status_and_ls_show_a_lun_that_has_changed() {
    const SIZES: [u64; 3] = [16 << 20, 24 << 20, 8 << 20];
    let watched = Watched::new();
    let mut guest = watched.guest();
    resize(&watched, &mut guest, SIZES[1]);
    watched.until_disk("a", |disk| disk["lun"]["capacity_bytes"] == SIZES[1]);
    assert!(watched.disk("a")["problems"].as_array().unwrap().is_empty());
    resize(&watched, &mut guest, SIZES[2]);
    let disk = watched.until_disk("a", |disk| disk["lun"]["capacity_bytes"] == SIZES[2]);
    assert_eq!(disk["lun"]["shown_capacity_bytes"], SIZES[1]);
    let problem = disk["problems"][0].as_str().unwrap();
    assert!(
        problem.contains("has shrunk to 8388608 bytes, guests are shown 25165824 bytes"),
        "{problem}"
    );
    let shown = watched.shown(&["ls", "-l"]);
    let line = "Capacity: 8388608 bytes (8 MiB)   Shown to guests: 25165824 bytes (24 MiB)";
    assert!(shown.contains(line), "{shown}");
    let shown = watched.shown(&["status", "a"]);
    assert!(shown.contains("capacity shown to guests"), "{shown}");
    resize(&watched, &mut guest, SIZES[1]);
    watched.until_disk("a", |disk| disk["problems"] == Value::Array(Vec::new()));
}

#[test]
fn status_names_write_protection_that_the_guest_does_not_know_of() {
    let watched = Watched::new();
    let mut guest = watched.guest();
    assert!(watched.target.set_write_protected(0, true));
    assert_eq!(guest.queue(0).write(0, &pattern(512)).unwrap(), S_IOERR);
    let disk = watched.until_disk("a", |disk| disk["lun"]["read_only"] == true);
    assert_eq!(disk["front_end"]["read_only"], false);
    let problem = disk["problems"][0].as_str().unwrap();
    assert!(problem.contains("has become write-protected"), "{problem}");
}

#[test]
fn ls_shows_a_block_for_each_session() {
    let watched = Watched::new();
    let _guest = watched.guest();
    assert_matches("control/ls.txt", &watched.shown(&["ls"]));
    assert_matches("control/ls-lc.txt", &watched.shown(&["ls", "-l", "-c"]));
    assert_matches("control/ls.json", &watched.shown(&["ls", "--json"]));
}

#[test]
fn status_shows_a_line_for_each_disk_and_everything_about_one() {
    let watched = Watched::new();
    let _guest = watched.guest();
    assert_matches("control/status.txt", &watched.shown(&["status"]));
    assert_matches("control/status-a.txt", &watched.shown(&["status", "a"]));
    assert_matches("control/status-b.txt", &watched.shown(&["status", "b"]));
    assert_matches("control/status.json", &watched.shown(&["status", "--json"]));
    let none = watched.verb(&["status", "c"]);
    assert_eq!(none.code, Some(21));
    assert!(
        none.stderr.contains("no disk of that name"),
        "{}",
        none.stderr
    );
}

#[test]
fn limits_are_shown_and_changed() {
    let watched = Watched::new();
    assert_matches("control/limits-none.txt", &watched.shown(&["limits", "b"]));
    let set = "limits a --iops-total 500 --iops-total-max 2000 --iops-total-max-length 10s \
               --bps-read 100MiB --bps-write 1500kB";
    let set: Vec<_> = set.split_whitespace().collect();
    assert_matches("control/limits.txt", &watched.shown(&set));
    let json = watched.shown(&["limits", "a", "--json"]);
    assert_matches("control/limits.json", &json);
    let status = watched.shown(&["status", "a"]);
    assert!(
        status.contains("500 per s, in bursts of 10 s 2000 per s"),
        "{status}"
    );
    // One that waits for its target has them when it is there.
    watched.shown(&["limits", "b", "--iops-read", "7"]);
    assert_eq!(watched.disk("b")["limits"]["iops_read"]["per_s"], 7);
    watched.shown(&["limits", "b", "--none"]);
    assert_eq!(watched.disk("b")["limits"]["iops_read"], Value::Null);
    assert_eq!(watched.verb(&["limits", "c"]).code, Some(21));
}

#[test]
fn a_session_that_is_lost_and_back_is_seen() {
    let watched = Watched::new();
    let mut guest = watched.guest();
    watched.target.refuse_connections();
    watched.target.drop_connections();
    let lost = watched.until_disk("a", |disk| {
        let reason = disk["sessions"][0]["reason"].as_str();
        reason.is_some_and(|reason| reason.contains("Connection refused"))
    });
    assert_eq!(lost["sessions"][0]["state"], "waiting");
    assert_eq!(lost["problems"].as_array().unwrap().len(), 1, "{lost:#}");
    let shown = watched.shown(&["ls"]);
    assert!(
        shown.contains("SESSION STATUS          : DROPPED AT TIME: cannot reach"),
        "{shown}"
    );
    let shown = watched.shown(&["status"]);
    assert!(shown.contains("a: session 0 is away since TIME"), "{shown}");
    watched.target.accept_connections().unwrap();
    let back = watched.until_disk("a", |disk| disk["sessions"][0]["state"] == "logged_in");
    assert_eq!(back["sessions"][0]["reconnects"], 1);
    assert_eq!(back["sessions"][0]["reason"], Value::Null);
    assert_ne!(back["sessions"][0]["last_error"], Value::Null);
    assert_eq!(back["problems"], Value::Array(Vec::new()));
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
}

#[test]
fn a_front_end_is_seen_to_come_and_go() {
    let watched = Watched::new();
    watched.until_disk("a", |disk| disk["state"] == "serving");
    assert_eq!(watched.disk("a")["front_end"], Value::Null);
    let guest = watched.guest();
    let disk = watched.disk("a");
    assert_ne!(disk["front_end"], Value::Null);
    assert_eq!(disk["queues"][0]["session"], 0);
    drop(guest);
    let gone = watched.until_disk("a", |disk| disk["front_end"] == Value::Null);
    assert_eq!(gone["queues"], Value::Array(Vec::new()));
}

/// The same, where it is a result.
fn try_to_ask(stream: &mut UnixStream, line: &str) -> Option<Value> {
    stream.write_all(line.as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    let answer: Value = serde_json::from_str(&answer).ok()?;
    (answer["ok"] == true).then_some(answer)
}

#[test]
fn a_session_that_is_refused_is_a_problem_until_the_guest_leaves() {
    let target = start_target(one_lun(LunConfig::of_bytes(16 << 20)));
    let mut config = ConfigFile::new();
    let control = config.control_socket();
    config.disk("a", &target.url(0), "sessions = 2");
    let daemon = config.start();
    let watched = Watched {
        target,
        config,
        daemon,
        control,
    };
    watched.until_disk("a", |disk| disk["state"] == "serving");
    let (class, detail) = (3, 2);
    watched
        .target
        .add(Rule::login(LoginFault::Status { class, detail }));
    let frontend = FrontendConfig {
        queues: 2,
        memory_bytes: 4 << 20,
        ..FrontendConfig::default()
    };
    let guest = Frontend::connect(watched.config.socket("a"), frontend).unwrap();
    let refused = watched.until_disk("a", |disk| disk["sessions"][1]["state"] == "refused");
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
    watched.target.clear_rules();
    drop(guest);
    watched.until_disk("a", |disk| disk["problems"] == Value::Array(Vec::new()));
    let _guest = Frontend::connect(watched.config.socket("a"), frontend).unwrap();
    let up = watched.until_disk("a", |disk| disk["sessions"][1]["state"] == "logged_in");
    assert_eq!(up["queues"][1]["session"], 1);
}

#[test]
fn a_redirect_in_force_is_seen() {
    let other = start_target(one_lun(LunConfig::of_bytes(16 << 20)));
    let watched = Watched::new();
    let address = other.portal().to_string();
    watched.until_disk("a", |disk| disk["state"] == "serving");
    watched.target.add(Rule::login(LoginFault::Redirect {
        permanent: false,
        address: format!("{address},1"),
    }));
    watched.target.drop_connections();
    let moved = watched.until_disk("a", |disk| {
        disk["sessions"][0]["login"]["address"] == address
    });
    let from = watched.target.portal().to_string();
    assert_eq!(moved["sessions"][0]["login"]["redirected_from"][0], from);
    let shown = watched.verb(&["ls"]).stdout;
    assert!(
        shown.contains(&format!("REDIRECTED FROM         : {from}")),
        "{shown}"
    );
}

#[test]
fn stats_add_up_to_what_the_front_end_did_and_survive_it() {
    let watched = Watched::new();
    let counted = || {
        let output = watched.verb(&["stats", "a", "--json"]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let document: Value = serde_json::from_str(&output.stdout).unwrap();
        document["disks"][0]["sessions"][0].clone()
    };
    for round in 1..=2 {
        let mut guest = watched.guest();
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
        watched.until_disk("a", |disk| disk["front_end"] == Value::Null);
    }
    watched.target.drop_connections();
    watched.until_disk("a", |disk| disk["sessions"][0]["reconnects"] == 1);
    assert_eq!(counted()["sessions_lost"], 1);
    let shown = watched.verb(&["stats"]).stdout;
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
fn with_a_guest_at_work(watched: &Watched, nuisance: impl FnOnce()) {
    let mut guest = watched.guest();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            for sector in (0..2048).step_by(8) {
                assert_eq!(guest.queue(0).write(sector, &pattern(4096)).unwrap(), S_OK);
            }
        });
        nuisance();
        worker.join().unwrap();
    });
    assert_eq!(watched.target.violations(), [""; 0]);
    assert_eq!(watched.disk("a")["state"], "serving");
}

#[test]
fn garbage_gets_an_error_and_the_next_request_an_answer() {
    let watched = Watched::new();
    with_a_guest_at_work(&watched, || {
        let mut stream = watched.connect();
        for garbage in [
            "\n",
            "hunter2\n",
            "{}\n",
            "[[[[\n",
            "{\"verb\":\"hunter2\"}\n",
            "\0\x1b\n",
        ] {
            let answer = ask(&mut stream, garbage);
            assert_eq!(answer["ok"], false, "{garbage:?}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(!message.contains("hunter2"), "{message}");
        }
        stream.write_all(&[0xff, b'\n']).unwrap();
        let mut reader = BufReader::new(&stream);
        reader.read_line(&mut String::new()).unwrap();
        assert_eq!(ask(&mut stream, "{\"verb\":\"status\"}\n")["ok"], true);
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
    let watched = Watched::new();
    with_a_guest_at_work(&watched, || {
        let mut stream = watched.connect();
        let request = "{\"verb\":\"status\"";
        let padded = |length: usize| format!("{request}{:1$}}}\n", "", length - request.len() - 1);
        assert_eq!(ask(&mut stream, &padded(64 * 1024))["ok"], true);
        assert_eq!(ask(&mut stream, &padded(64 * 1024 + 1))["ok"], false);
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
        // Without an end, what was sent beyond is never read.
        let mut stream = watched.connect();
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
    let watched = Watched::new();
    with_a_guest_at_work(&watched, || {
        let sit = || {
            let mut stream = watched.connect();
            try_to_ask(&mut stream, "{\"verb\":\"status\"}\n").map(|_| stream)
        };
        // Those of before may be there for a moment yet.
        let sitting = (0..16).map(|_| wait::until(SOON, sit).unwrap());
        let mut sitting: Vec<_> = sitting.collect();
        let mut answer = String::new();
        BufReader::new(watched.connect())
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
    let watched = Watched::new();
    with_a_guest_at_work(&watched, || {
        let mut stream = watched.connect();
        stream
            .set_write_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let asked = (0..1_000_000).find(|_| stream.write_all(b"{\"verb\":\"status\"}\n").is_err());
        assert!(asked.is_some(), "it listens for ever");
    });
}

#[test]
fn two_processes_cannot_have_one_control_socket_and_a_stale_one_is_replaced() {
    let mut watched = Watched::new();
    watched.until_disk("a", |disk| disk["state"] == "serving");
    let mode = std::fs::metadata(&watched.control)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let socket = watched.config.directory().join("other.sock");
    let arguments = [
        "--socket-path",
        socket.to_str().unwrap(),
        "--blk-file",
        &watched.target.url(0),
        "--initiator-name",
        INITIATOR_NAME,
        "--control-socket",
        watched.control.to_str().unwrap(),
    ];
    let second = run(&arguments);
    assert_eq!(second.code, Some(13), "{}", second.stderr);
    assert!(
        second.stderr.contains("by another process already"),
        "{}",
        second.stderr
    );
    assert_eq!(watched.disk("a")["state"], "serving");
    watched.daemon.kill();
    watched.daemon.wait_exit(SOON);
    assert!(watched.control.exists());
    let nobody = watched.verb(&["status"]);
    assert_eq!(nobody.code, Some(4));
    assert!(
        nobody.stderr.contains("Connection refused"),
        "{}",
        nobody.stderr
    );
    watched.daemon = watched.config.start();
    watched.until_disk("a", |disk| disk["state"] == "serving");
    let (status, _) = watched.daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(!watched.control.exists());
}

#[test]
fn a_single_disk_has_a_control_socket_when_it_is_asked_for() {
    let target = start_target(one_lun(LunConfig::of_bytes(16 << 20)));
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    let control = control.to_str().unwrap();
    let arguments = [
        "--initiator-name",
        INITIATOR_NAME,
        "--control-socket",
        control,
        "--control-socket-mode",
        "0600",
    ];
    let _daemon = Daemon::start(&target.url(0), &arguments);
    let mode = std::fs::metadata(control).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = run(&["status", "disk", "--control-socket", control]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
}
