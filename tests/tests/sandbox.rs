//! The sandbox: what a serving process, and each kind of its threads, can no longer do. That everything
//! else works inside, all other tests show, for the daemon of each has its sandbox on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use iscsi_test_target::TestTarget;
use rustix::process::Signal;
use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{Daemon, Launch, run};
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig};
use vhost_user_iscsi_tests::served::{AWAY, INITIATOR_NAME, SOON, start_small_target};
use vhost_user_iscsi_tests::wait;

/// `backend/src/sandbox/trespass.rs`.
const TRESPASS: &str = "VHOST_USER_ISCSI_TRESPASS";

/// Every kind of thread.
const THREADS: [&str; 5] = ["main", "worker", "blocking", "frontend", "lane"];

struct Confined {
    daemon: Daemon,
    _target: TestTarget,
}

impl Confined {
    fn new(arguments: &[&str]) -> Self {
        Self::trespassing(arguments, "")
    }

    /// A daemon with a thread that does what it must not.
    fn trespassing(arguments: &[&str], trespass: &str) -> Self {
        let target = start_small_target();
        let launch = Launch::new(&target.url(0))
            .args(["--initiator-name", INITIATOR_NAME, "--log-level", "debug"])
            .args(arguments.iter().copied())
            .env("RUST_BACKTRACE", "1")
            .env(TRESPASS, trespass);
        Self {
            daemon: launch.spawn(),
            _target: target,
        }
    }

    /// Connects as soon as it is served; `None` when it has ended before.
    fn connect(&mut self) -> Option<Frontend> {
        let path = self.daemon.socket().to_owned();
        let tried = wait::until(SOON, || {
            let connected = Frontend::connect(&path, FrontendConfig::default()).ok();
            match connected {
                Some(frontend) => Some(Some(frontend)),
                None => (!self.daemon.is_running()).then_some(None),
            }
        });
        tried.unwrap_or_else(|| panic!("{:#?}", self.daemon.log()))
    }

    /// Serves a guest for a moment, and waits until the trespasser has said what came of it.
    fn outcome(&mut self, trespass: &str) -> String {
        let frontend = self.connect();
        assert!(frontend.is_some(), "{:#?}", self.daemon.log());
        let line = self.daemon.wait_log(&format!("{trespass}: "), SOON);
        let mut frontend = frontend.unwrap();
        assert_eq!(frontend.queue(0).write(0, &[1; 512]).unwrap(), S_OK);
        line
    }

    /// How it ended, when a thread did what ends a process.
    fn end(&mut self) -> ExitStatus {
        // A front-end may be what brings the thread into being.
        let _frontend = self.connect();
        self.daemon.wait_exit(SOON)
    }
}

/// Whether the kernel has Landlock; says so in the test's output when it has not, for then that part is
/// not tested.
fn has_landlock(daemon: &Daemon) -> bool {
    let said = daemon.wait_log("sandbox: ", SOON);
    let has = said.contains("by Landlock");
    if !has {
        println!("not tested, for want of Landlock in this kernel: {said}");
    }
    has
}

/// `/proc/PID/task/*/status`: name of the thread, and its fields.
fn threads(daemon: &Daemon) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let statuses = tasks.filter_map(|task| {
        // A thread may end meanwhile.
        fs::read_to_string(task.unwrap().path().join("status")).ok()
    });
    statuses
        .map(|status| {
            let fields = status.lines().filter_map(|line| line.split_once(':'));
            let fields: BTreeMap<_, _> = fields
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect();
            (fields["Name"].clone(), fields)
        })
        .collect()
}

#[test]
fn every_thread_is_confined_and_lanes_the_most() {
    let mut confined = Confined::new(&["--sessions", "2"]);
    let mut frontend = confined.connect().unwrap();
    assert_eq!(frontend.queue(0).write(0, &[1; 4096]).unwrap(), S_OK);
    let threads = threads(&confined.daemon);
    let names: Vec<_> = threads.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"lane-0"), "{names:?}");
    // The main thread, a worker, the vhost crate's, a lane.
    assert!(threads.len() >= 4, "{names:?}");
    for (name, fields) in &threads {
        assert_eq!(fields["NoNewPrivs"], "1", "{name}");
        assert_eq!(fields["Seccomp"], "2", "{name}");
        let filters: u32 = fields["Seccomp_filters"].parse().unwrap();
        let expected = if name.starts_with("lane-") { 5 } else { 3 };
        assert_eq!(filters, expected, "{name}");
        // SIGHUP, SIGINT, SIGTERM: whose handler makes a system call that lanes may not make.
        let blocked = u64::from_str_radix(&fields["SigBlk"], 16).unwrap();
        let sent = [1, 2, 15].map(|signal| 1 << (signal - 1));
        let takes_none = sent.iter().all(|signal| blocked & signal != 0);
        assert_eq!(takes_none, name.starts_with("lane-"), "{name}: {blocked:x}");
        // CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER.
        for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
            let set = u64::from_str_radix(&fields[set], 16).unwrap();
            let is_ours = rustix::process::geteuid().is_root();
            assert!(!is_ours || set & !0b1011 == 0, "{name}: {set:x}");
        }
    }
}

#[test]
fn a_forbidden_system_call_ends_the_process_whichever_thread_makes_it() {
    for who in THREADS {
        let mut confined = Confined::trespassing(&[], &format!("{who}:call"));
        let status = confined.end();
        let log = confined.daemon.log();
        assert_eq!(
            status.signal(),
            Some(Signal::SYS.as_raw()),
            "{who}: {log:#?}"
        );
        assert!(!log.iter().any(|line| line.contains(": done")), "{who}");
    }
}

#[test]
fn a_lane_may_do_less_than_the_control_plane() {
    for who in THREADS {
        let trespass = format!("{who}:socket");
        let mut confined = Confined::trespassing(&[], &trespass);
        if who == "lane" {
            let status = confined.end();
            assert_eq!(status.signal(), Some(Signal::SYS.as_raw()));
        } else {
            let said = confined.outcome(&trespass);
            assert!(said.ends_with(": done"), "{said}");
        }
    }
}

#[test]
fn a_socket_of_another_family_ends_the_process() {
    let mut confined = Confined::trespassing(&[], "worker:raw");
    assert_eq!(confined.end().signal(), Some(Signal::SYS.as_raw()));
}

#[test]
fn no_code_can_be_mapped_and_to_try_is_harmless() {
    for who in THREADS {
        let trespass = format!("{who}:code");
        let said = Confined::trespassing(&[], &trespass).outcome(&trespass);
        assert!(said.contains("Permission denied"), "{said}");
    }
}

#[test]
fn files_outside_cannot_be_opened_and_the_error_says_where_to_look() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let trespass = format!("blocking:{}", file.path().display());
    let mut confined = Confined::trespassing(&[], &trespass);
    if has_landlock(&confined.daemon) {
        let said = confined.outcome(&trespass);
        assert!(said.contains("Permission denied"), "{said}");
        assert!(
            said.contains("outside of what the sandbox opened"),
            "{said}"
        );
    }
    let trespass = "blocking:/etc/passwd";
    let said = Confined::trespassing(&[], trespass).outcome(trespass);
    assert!(said.ends_with(": done"), "{said}");
    // Lanes open nothing, with Landlock or without.
    let trespass = "lane:/etc/passwd";
    let said = Confined::trespassing(&[], trespass).outcome(trespass);
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn what_may_be_read_again_can_be_opened_and_what_lies_beside_it_cannot() {
    let (config_at, secret_at) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let secret = secret_at.path().join("secret");
    fs::write(&secret, "twelve bytes").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let config = config_at.path().join("config.toml");
    let socket_at = TempDir::new().unwrap();
    let text = format!(
        "initiator-name = '{INITIATOR_NAME}'\nchap-user = 'us'\nchap-secret-file = '{}'\n[[disk]]\n\
         socket-path = '{}'\nurl = '{AWAY}'\n",
        secret.display(),
        socket_at.path().join("s").display(),
    );
    fs::write(&config, text).unwrap();
    // Not a file of the process's own: when it makes those is its own affair.
    let lock = socket_at.path().join("other.lock");
    fs::write(&lock, "").unwrap();
    let other = TempDir::new().unwrap();
    let beside = other.path().join("file");
    fs::write(&beside, "").unwrap();
    for (path, outcome) in [
        (&config, ": done"),
        (&secret, ": done"),
        (&lock, ": done"),
        (&beside, "Permission denied"),
    ] {
        let trespass = format!("worker:{}", path.display());
        let launch = Launch::config(&config).args(["--log-level", "debug"]);
        let daemon = launch.env(TRESPASS, &trespass).spawn();
        if has_landlock(&daemon) || path != &beside {
            let said = daemon.wait_log(&format!("{trespass}: "), SOON);
            assert!(said.contains(outcome), "{said}");
        }
    }
}

#[test]
fn a_socket_directory_that_was_made_anew_is_said_to_be_outside() {
    let target = start_small_target();
    target.refuse_connections();
    let at = TempDir::new().unwrap();
    let directory = at.path().join("sockets");
    fs::create_dir(&directory).unwrap();
    let launch = Launch::at(&target.url(0), &directory.join("disk.sock"));
    let arguments = ["--wait-for-target", "--log-level", "debug"];
    let mut daemon = launch.args(arguments).spawn();
    if !has_landlock(&daemon) {
        return;
    }
    daemon.wait_log("waiting for the target", SOON);
    fs::rename(&directory, at.path().join("former")).unwrap();
    fs::create_dir(&directory).unwrap();
    target.accept_connections().unwrap();
    assert_eq!(daemon.wait_exit(SOON).code(), Some(13));
    let said = daemon.wait_log("cannot bind the socket", SOON);
    assert!(said.contains("then restart this process"), "{said}");
}

#[test]
fn a_panic_still_says_where_and_aborts() {
    for who in ["worker", "lane"] {
        let mut confined = Confined::trespassing(&[], &format!("{who}:panic"));
        let status = confined.end();
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{who}");
        let log = confined.daemon.log();
        assert!(log.iter().any(|line| line == "a trespass"), "{log:#?}");
        assert!(
            log.iter().any(|line| line.contains("stack backtrace")),
            "{log:#?}"
        );
    }
}

#[test]
fn with_log_the_call_is_made() {
    let mut confined = Confined::trespassing(&["--sandbox", "log"], "lane:call");
    let said = confined.outcome("lane:call");
    assert!(said.ends_with(": done"), "{said}");
    let threads = threads(&confined.daemon);
    assert!(threads.iter().all(|(_, fields)| fields["Seccomp"] == "2"));
    confined.daemon.wait_log("logged by the kernel", SOON);
}

#[test]
fn with_off_there_is_no_sandbox_but_still_no_way_to_gain_privileges() {
    let mut confined = Confined::trespassing(&["--sandbox", "off"], "main:call");
    let said = confined.outcome("main:call");
    assert!(said.ends_with(": done"), "{said}");
    for (name, fields) in threads(&confined.daemon) {
        assert_eq!(fields["Seccomp"], "0", "{name}");
        assert_eq!(fields["NoNewPrivs"], "1", "{name}");
    }
}

#[test]
fn names_are_resolved_inside() {
    let target = start_small_target();
    let url = target.url(0).replace("127.0.0.1", "localhost");
    let name = ["--initiator-name", INITIATOR_NAME];
    let daemon = Daemon::start(&url, &name);
    let mut frontend = daemon.connect(FrontendConfig::default());
    assert_eq!(frontend.queue(0).write(0, &[1; 512]).unwrap(), S_OK);
    // One that nobody knows: all that is configured is asked, and then there is an error.
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("s");
    let url = "iscsi://no-such-host.invalid/iqn.2026-11.org.example:t/0";
    let socket = ["--socket-path", socket.to_str().unwrap()];
    let output = run(&[&name[..], &socket, &["--blk-file", url]].concat());
    assert!(matches!(output.code, Some(4 | 8)), "{output:?}");
    assert!(output.stderr.contains("no-such-host.invalid"), "{output:?}");
}

#[test]
fn the_mode_is_one_of_three() {
    let output = run(&[
        "--socket-path",
        "/nowhere",
        "--sandbox",
        "on",
        "--blk-file",
        "x",
    ]);
    assert_eq!(output.code, Some(2));
    assert!(
        output.stderr.contains("enforce, log or off"),
        "{}",
        output.stderr
    );
}
