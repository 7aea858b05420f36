//! `top`: in a terminal, which is as it was at the end, and without one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::thread;

use iscsi_test_target::TestTarget;
use rustix::process::Signal;
use serde_json::Value;
use vhost_user_iscsi_tests::daemon::run;
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::{SOON, start_small_target};
use vhost_user_iscsi_tests::service::Service;
use vhost_user_iscsi_tests::terminal::InTerminal;
use vhost_user_iscsi_tests::wait;

/// What ends an alternate screen.
const LEFT: &str = "\x1b[?1049l";

/// What hides the cursor, and what shows it.
const HIDDEN: &str = "\x1b[?25l";
const SHOWN: &str = "\x1b[?25h";

/// What function keys send that have `s` and `q` in it: 3 and 1 of a keypad in application mode.
const KEYPAD: [&[u8]; 2] = [b"\x1bOs", b"\x1bOq"];

/// What begins a screen.
const HOME: &str = "\x1b[H";

/// A service with the disk `a`, which is served.
fn watched() -> (TestTarget, Service) {
    let target = start_small_target();
    let service = Service::start(|config| config.disk("a", &target.url(0), "sessions = 1"));
    service.until_served("a");
    (target, service)
}

fn top(service: &Service) -> InTerminal {
    let arguments = ["top", "--interval", "100ms"];
    let top = InTerminal::start(&[&arguments[..], &service.control.arguments()].concat());
    top.wait_for("reads/s", SOON);
    top
}

#[test]
fn whatever_ends_it_leaves_the_terminal_as_it_was() {
    let (_target, service) = watched();
    let ways: [fn(&mut InTerminal); 8] = [
        |top| top.press(b"q"),
        |top| top.press(b"Q"),
        |top| top.press(b"\x03"),
        |top| top.press(b"\x04"),
        |top| top.signal(Signal::TERM),
        |top| top.signal(Signal::INT),
        |top| top.signal(Signal::HUP),
        |top| top.signal(Signal::QUIT),
    ];
    for (way, end) in ways.into_iter().enumerate() {
        let mut top = top(&service);
        assert!(top.is_raw(), "way {way}");
        end(&mut top);
        let status = top.wait_exit(SOON);
        assert_eq!(status.code(), Some(0), "way {way}: {}", top.written());
        assert!(top.is_restored(), "way {way}");
        let written = || Some(top.written()).filter(|written| written.contains(LEFT));
        let written = wait::until(SOON, written).unwrap();
        assert!(written.rfind(HIDDEN) < written.rfind(SHOWN), "way {way}");
    }
}

#[test]
fn a_process_that_goes_away_and_comes_back_is_watched_again() {
    let (_target, mut service) = watched();
    let mut top = top(&service);
    service.daemon.kill();
    let away = top.wait_for("No answer: ", SOON);
    assert!(!away.contains("panicked"), "{away}");
    service.daemon = service.config.start();
    top.wait_for("reads/s", SOON);
    top.press(b"q");
    assert_eq!(top.wait_exit(SOON).code(), Some(0));
    assert!(top.is_restored());
}

/// Whether the last screen that was written to its end shows sessions.
fn shows_sessions(top: &InTerminal) -> bool {
    let written = top.written();
    let screen = written.rsplit(HOME).nth(1);
    screen.is_some_and(|screen| screen.contains("session 0"))
}

fn wait_for_screens(top: &InTerminal, count: usize) {
    let screens = || top.written().matches(HOME).count();
    let wanted = screens() + count;
    wait::until(SOON, || (screens() >= wanted).then_some(())).unwrap();
}

#[test]
fn sessions_come_and_go_by_a_key_and_function_keys_do_nothing() {
    let (_target, service) = watched();
    let mut top = top(&service);
    for key in KEYPAD {
        top.press(key);
        wait_for_screens(&top, 3);
        assert!(!shows_sessions(&top), "{key:?}");
    }
    for is_shown in [true, false, true] {
        top.press(b"s");
        let is_so = || (shows_sessions(&top) == is_shown).then_some(());
        assert!(wait::until(SOON, is_so).is_some(), "{}", top.written());
    }
    top.press(b"q");
    assert_eq!(top.wait_exit(SOON).code(), Some(0));
}

/// Three lines of JSON, each of an interval.
fn three_intervals(service: &Service) -> Vec<Value> {
    let output = service.verb(&["top", "--json", "-n", "3", "--interval", "200ms"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn writes(line: &Value) -> [u64; 2] {
    let write = &line["disks"][0]["total"]["write"];
    ["requests", "bytes"].map(|key| write[key].as_u64().unwrap())
}

#[test]
fn json_has_a_line_for_each_interval_with_what_was_done_in_it() {
    let (_target, service) = watched();
    let mut guest = service.guest("a");
    // What was done before is in no interval.
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    let lines = three_intervals(&service);
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert!(line["interval_us"].as_u64().unwrap() >= 200_000);
        let disk = &line["disks"][0];
        assert_eq!(disk["name"], "a");
        assert_eq!(disk["state"], "serving");
        assert_eq!(writes(line), [0, 0]);
        assert_eq!(disk["sessions"][0]["state"], "logged_in");
    }
    // What is done meanwhile is in one of them, and in no other.
    let mut done = 0;
    let lines = thread::scope(|scope| {
        let top = scope.spawn(|| three_intervals(&service));
        while !top.is_finished() {
            assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
            done += 1;
        }
        top.join().unwrap()
    });
    let counted: u64 = lines.iter().map(|line| writes(line)[0]).sum();
    let bytes: u64 = lines.iter().map(|line| writes(line)[1]).sum();
    assert!((1..=done).contains(&counted), "{counted} of {done}");
    assert_eq!(bytes, 4096 * counted);
}

#[test]
fn without_a_terminal_there_are_blocks_of_text() {
    let (_target, service) = watched();
    let output = service.verb(&["top", "--count", "2", "--interval", "100ms", "--sessions"]);
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
