//! `top`: in a terminal, which is as it was at the end, and without one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::path::PathBuf;

use iscsi_test_target::{LunConfig, TestTarget};
use rustix::process::Signal;
use serde_json::Value;
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::daemon::{Daemon, run};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::{SOON, one_lun, start_target};
use vhost_user_iscsi_tests::terminal::InTerminal;
use vhost_user_iscsi_tests::wait;

/// What ends an alternate screen.
const LEFT: &str = "\x1b[?1049l";

/// A daemon with the disk `a`, which is served.
struct Watched {
    _target: TestTarget,
    config: ConfigFile,
    control: PathBuf,
    daemon: Daemon,
}

impl Watched {
    fn new() -> Self {
        let target = start_target(one_lun(LunConfig::of_bytes(16 << 20)));
        let mut config = ConfigFile::new();
        let control = config.control_socket();
        config.disk("a", &target.url(0), "sessions = 1");
        let daemon = config.start();
        let watched = Self {
            _target: target,
            config,
            control,
            daemon,
        };
        watched.until_served();
        watched
    }

    fn until_served(&self) {
        let is_served = || {
            let output = run(&self.arguments("status", &[]));
            output.stdout.contains("a  serving").then_some(())
        };
        wait::until(SOON, is_served).unwrap_or_else(|| panic!("{:#?}", self.daemon.log()));
    }

    fn arguments<'a>(&'a self, verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let socket = ["--control-socket", self.control.to_str().unwrap()];
        [&[verb], more, &socket].concat()
    }

    fn top(&self) -> InTerminal {
        let top = InTerminal::start(&self.arguments("top", &["--interval", "100ms"]));
        top.wait_for("reads/s", SOON);
        top
    }
}

#[test]
fn whatever_ends_it_leaves_the_terminal_as_it_was() {
    let watched = Watched::new();
    let ways: [fn(&mut InTerminal); 4] = [
        |top| top.press(b"q"),
        |top| top.press(b"\x03"),
        |top| top.signal(Signal::TERM),
        |top| top.signal(Signal::INT),
    ];
    for (way, end) in ways.into_iter().enumerate() {
        let mut top = watched.top();
        assert!(top.is_raw(), "way {way}");
        end(&mut top);
        let status = top.wait_exit(SOON);
        assert_eq!(status.code(), Some(0), "way {way}: {}", top.written());
        assert!(top.is_restored(), "way {way}");
        wait::until(SOON, || top.written().contains(LEFT).then_some(())).unwrap();
    }
}

#[test]
fn a_process_that_goes_away_and_comes_back_is_watched_again() {
    let mut watched = Watched::new();
    let mut top = watched.top();
    watched.daemon.kill();
    let away = top.wait_for("No answer: ", SOON);
    assert!(!away.contains("panicked"), "{away}");
    watched.daemon = watched.config.start();
    top.wait_for("reads/s", SOON);
    top.press(b"q");
    assert_eq!(top.wait_exit(SOON).code(), Some(0));
    assert!(top.is_restored());
}

#[test]
fn sessions_come_and_go_by_a_key_and_function_keys_do_nothing() {
    let watched = Watched::new();
    let mut top = watched.top();
    assert!(!top.written().contains("session 0"));
    top.press(b"\x1b[A");
    top.wait_for("reads/s", SOON);
    top.press(b"s");
    top.wait_for("session 0", SOON);
    top.press(b"q");
    assert_eq!(top.wait_exit(SOON).code(), Some(0));
}

#[test]
fn json_has_a_line_for_each_interval_with_what_was_done_in_it() {
    let watched = Watched::new();
    let mut guest = watched.config.connect(&watched.daemon, "a");
    // What was done before is in no interval.
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    let arguments = ["--json", "-n", "3", "--interval", "100ms"];
    let output = run(&watched.arguments("top", &arguments));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert!(line["interval_us"].as_u64().unwrap() >= 100_000);
        let disk = &line["disks"][0];
        assert_eq!(disk["name"], "a");
        assert_eq!(disk["state"], "serving");
        assert_eq!(disk["total"]["write"]["requests"], 0);
        assert_eq!(disk["sessions"][0]["state"], "logged_in");
    }
}

#[test]
fn without_a_terminal_there_are_blocks_of_text() {
    let watched = Watched::new();
    let arguments = ["--count", "2", "--interval", "100ms", "--sessions"];
    let output = run(&watched.arguments("top", &arguments));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stdout.matches("reads/s").count(), 2);
    assert_eq!(output.stdout.matches("session 0").count(), 2);
    assert!(!output.stdout.contains('\x1b'));
}

#[test]
fn who_cannot_be_asked_at_the_start_is_an_error() {
    let output = run(&["top", "--control-socket", "/nowhere/control"]);
    assert_eq!(output.code, Some(4));
    assert!(
        output.stderr.contains("/nowhere/control"),
        "{}",
        output.stderr
    );
}
