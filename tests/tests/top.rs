//! `top`: in a terminal, which is as it was at the end, and without one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

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
    let ways: [fn(&mut InTerminal); 4] = [
        |top| top.press(b"q"),
        |top| top.press(b"\x03"),
        |top| top.signal(Signal::TERM),
        |top| top.signal(Signal::INT),
    ];
    for (way, end) in ways.into_iter().enumerate() {
        let mut top = top(&service);
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

#[test]
fn sessions_come_and_go_by_a_key_and_function_keys_do_nothing() {
    let (_target, service) = watched();
    let mut top = top(&service);
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
    let (_target, service) = watched();
    let mut guest = service.guest("a");
    // What was done before is in no interval.
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    let output = service.verb(&["top", "--json", "-n", "3", "--interval", "100ms"]);
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
