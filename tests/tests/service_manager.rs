//! What a service manager sees: readiness, status, watchdog; and the log that it takes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use iscsi_test_target::{AsyncEvent, CommandFault, Rule, Sense, TestTarget};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tempfile::TempDir;
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::daemon::{Daemon, Launch};
use vhost_user_iscsi_tests::frontend::Frontend;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::{SOON, start_small_target};
use vhost_user_iscsi_tests::wait;

/// Long enough for many pings of a watchdog that should not come.
const A_WHILE: Duration = Duration::from_millis(300);

/// Where a service manager listens, and what it was told so far.
struct Manager {
    _directory: TempDir,
    path: String,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::with_prefix("manager-").unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            _directory: directory,
            path: path.to_str().unwrap().to_owned(),
            socket,
        }
    }

    /// The next thing that it is told; `None` when there is none now.
    fn told(&self) -> Option<String> {
        let mut datagram = [0; 4096];
        let length = self.socket.recv(&mut datagram).ok()?;
        Some(String::from_utf8(datagram[..length].to_vec()).unwrap())
    }

    /// Waits until it is told something with this line; all of it.
    fn wait_for(&self, line: &str) -> String {
        let has = |told: &String| told.lines().any(|told| told == line);
        let found = wait::until(SOON, || self.told().filter(has));
        found.unwrap_or_else(|| panic!("was never told {line}"))
    }
}

fn start(config: &ConfigFile, manager: &Manager, watchdog_us: &str) -> Daemon {
    Launch::config(&config.write())
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", watchdog_us)
        .spawn()
}

#[test]
fn it_is_ready_when_each_disk_has_been_started_even_if_one_waits_for_its_target() {
    let target = start_small_target();
    // Takes connections, and says nothing: a login there is under way until this has gone.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = ConfigFile::new();
    let control = config.control_socket();
    config.disk("a", &target.url(0), "sessions = 1");
    let url = format!("iscsi://127.0.0.1:{port}/iqn.2026-11.org.example:silent/0");
    config.disk("b", &url, "login-timeout = '1h'");
    let manager = Manager::new();
    let mut daemon = start(&config, &manager, "");
    drop(config.connect(&daemon, "a"));
    assert_eq!(manager.told(), None, "{:#?}", daemon.log());
    drop(silent);
    let ready = manager.wait_for("READY=1");
    assert!(
        ready.contains("STATUS=1 disk served, 1 waiting for the target"),
        "{ready}"
    );
    let status = control.verb(&["status"]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    daemon.terminate(SOON);
    manager.wait_for("STOPPING=1");
}

#[test]
fn a_change_of_the_disks_is_told_and_the_watchdog_is_fed_while_the_control_plane_turns() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let manager = Manager::new();
    let _daemon = start(&config, &manager, "200000");
    manager.wait_for("WATCHDOG=1");
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains("STATUS=1 disk served"), "{ready}");
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");
}

#[test]
fn a_reload_is_told_at_its_beginning_and_its_end_whatever_comes_of_it() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let manager = Manager::new();
    let mut daemon = start(&config, &manager, "");
    manager.wait_for("READY=1");
    for text in [config.text.clone(), "no = toml".to_owned()] {
        std::fs::write(config.write(), text).unwrap();
        daemon.hang_up();
        manager.wait_for("RELOADING=1");
        manager.wait_for("READY=1");
    }
}

/// Microseconds of the clock that systemd wants to be told of.
fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap()
}

/// A pipe with a name: who opens it waits until somebody writes.
fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Waits until somebody has opened the pipe; what he reads has no end until the other is dropped.
fn wait_for_reader(pipe: &Path) -> File {
    let open = || {
        let mut writer = OpenOptions::new();
        let writer = writer.write(true).custom_flags(libc::O_NONBLOCK);
        writer.open(pipe).ok()
    };
    wait::until(SOON, open).unwrap()
}

/// systemd takes a `RELOADING=1` for that of a reload it asked for if it is not older than that, and
/// then waits for `READY=1`: it has to come after what was reloaded is in force.
#[test]
fn a_reload_is_told_with_its_time_before_the_file_is_read_and_its_end_when_it_is_in_force() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    let control = config.control_socket();
    config.disk("a", &target.url(0), "sessions = 1");
    let manager = Manager::new();
    let mut daemon = start(&config, &manager, "");
    manager.wait_for("READY=1");
    let file = config.write();
    config.disk("b", &target.url(0), "sessions = 1\nread-only = true");
    fs::remove_file(&file).unwrap();
    make_pipe(&file);
    let before_us = monotonic_us();
    daemon.hang_up();
    let told = manager.wait_for("RELOADING=1");
    let at_us = told
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let at_us: u64 = at_us.unwrap().parse().unwrap();
    assert!((before_us..=monotonic_us()).contains(&at_us), "{told}");
    let mut pipe = wait_for_reader(&file);
    assert_eq!(manager.told(), None, "the file is being read");
    pipe.write_all(config.text.as_bytes()).unwrap();
    drop(pipe);
    manager.wait_for("READY=1");
    let status = control.document(&["status"]);
    assert_eq!(status["disks"].as_array().unwrap().len(), 2, "{status:#}");
}

/// systemd has asked for no reload then: that of a signal of others is part of the start.
#[test]
fn a_reload_while_it_starts_is_not_told() {
    let target = start_small_target();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let url = format!("iscsi://127.0.0.1:{port}/iqn.2026-11.org.example:silent/0");
    config.disk("b", &url, "login-timeout = '1h'");
    let manager = Manager::new();
    let mut daemon = start(&config, &manager, "");
    drop(config.connect(&daemon, "a"));
    fs::write(config.write(), "no = toml").unwrap();
    daemon.hang_up();
    daemon.wait_log("reload: nothing has changed", SOON);
    assert_eq!(manager.told(), None, "{:#?}", daemon.log());
    drop(silent);
    manager.wait_for("READY=1");
}

/// The one worker of the control plane waits for a pipe that nobody writes to.
#[test]
fn a_control_plane_that_hangs_feeds_no_watchdog() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.setting("sandbox", "off");
    config.disk("a", &target.url(0), "sessions = 1");
    let pipe = config.directory().join("pipe");
    make_pipe(&pipe);
    let manager = Manager::new();
    let daemon = Launch::config(&config.write())
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "20000")
        .env(
            "VHOST_USER_ISCSI_TRESPASS",
            &format!("worker:{}", pipe.display()),
        )
        .spawn();
    daemon.wait_log("VHOST_USER_ISCSI_TRESPASS", SOON);
    let told = wait::until(A_WHILE, || manager.told());
    assert_eq!(told, None, "{:#?}", daemon.log());
    // It goes on as soon as somebody opens it.
    let _writer = wait_for_reader(&pipe);
    manager.wait_for("WATCHDOG=1");
}

#[test]
fn nobody_to_be_told_is_no_trouble() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let manager = Manager::new();
    let path = manager.path.clone();
    drop(manager);
    let mut daemon = Launch::config(&config.write())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "x")
        .spawn();
    drop(config.connect(&daemon, "a"));
    let (status, _) = daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{:#?}", daemon.log());
}

/// Has a guest's request fail, so that a lane has something to say.
fn provoke(target: &TestTarget, config: &ConfigFile, daemon: &Daemon) {
    provoke_in(target, &mut config.connect(daemon, "a"), daemon);
}

fn provoke_in(target: &TestTarget, guest: &mut Frontend, daemon: &Daemon) {
    target.add(Rule::command(CommandFault::RESERVATION_CONFLICT).opcode(0x88));
    assert_ne!(guest.queue(0).read(0, 512).unwrap().0, S_OK);
    daemon.wait_log("the guest gets an error", SOON);
}

#[test]
fn each_line_about_a_disk_says_which() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let mut daemon = config.start();
    provoke(&target, &config, &daemon);
    for part in [
        "serving iscsi://",
        "a front-end has connected",
        "the guest gets an error",
    ] {
        let line = daemon.wait_log(part, SOON);
        assert!(line.contains(" disk a: "), "{line}");
    }
    target.drop_connections();
    let line = daemon.wait_log("session 0 of ", SOON);
    assert!(line.contains(" disk a: "), "{line}");
    daemon.terminate(SOON);
    let line = daemon.wait_log("SIGTERM", Duration::ZERO);
    assert!(!line.contains("disk a"), "{line}");
}

#[test]
fn json_is_an_object_per_line_with_disk_and_session() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let daemon = Launch::config(&config.write())
        .args(["--log-format", "json"])
        .spawn();
    provoke(&target, &config, &daemon);
    let log = daemon.log();
    let lines = log.iter().map(|line| {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        line
    });
    let lines: Vec<_> = lines.collect();
    let of_lane = lines.iter().find(|line| {
        let message = line["message"].as_str().unwrap();
        message.contains("the guest gets an error")
    });
    let of_lane = of_lane.unwrap();
    assert_eq!(of_lane["level"], "warn");
    assert_eq!(of_lane["disk"], "a");
    assert_eq!(of_lane["session"], 0);
    assert!(of_lane["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_target_cannot_flood_the_log_with_what_nobody_asked_for() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let daemon = config.start();
    let mut guest = config.connect(&daemon, "a");
    for _ in 0..200 {
        assert_eq!(
            target.send_async(AsyncEvent::Scsi(Sense::CAPACITY_CHANGED)),
            1
        );
    }
    // An answer comes behind all of them.
    assert_eq!(guest.queue(0).read(0, 512).unwrap().0, S_OK);
    provoke_in(&target, &mut guest, &daemon);
    let log = daemon.log();
    let lines = log
        .iter()
        .filter(|line| line.contains("reports a SCSI event"));
    let count = lines.count();
    assert!((1..=30).contains(&count), "{count} lines");
}

#[test]
fn a_front_end_cannot_flood_the_log_by_coming_and_going() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("a", &target.url(0), "sessions = 1");
    let daemon = config.start();
    drop(config.connect(&daemon, "a"));
    let socket = config.socket("a");
    for _ in 0..200 {
        wait::until(SOON, || UnixStream::connect(&socket).ok()).unwrap();
    }
    // It is served all the same.
    provoke(&target, &config, &daemon);
    let log = daemon.log();
    let lines = log.iter().filter(|line| line.contains("front-end"));
    let count = lines.count();
    assert!((2..=60).contains(&count), "{count} lines");
}
