//! What the verbs print that ask no control socket, and what `stats` prints: in text and as JSON.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::daemon::run;
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, start_small_target};
use vhost_user_iscsi_tests::snapshot::{assert_matches, stable};

/// Compares what a verb prints, with `--json` and without.
fn shows(name: &str, arguments: &[&str], code: i32, masked: impl Fn(&str) -> String) {
    for (json, kind) in [(None, "txt"), (Some("--json"), "json")] {
        let arguments: Vec<_> = arguments.iter().copied().chain(json).collect();
        let output = run(&arguments);
        assert_eq!(output.code, Some(code), "{}", output.stderr);
        assert_matches(&format!("verbs/{name}.{kind}"), &masked(&output.stdout));
    }
}

/// Each number is `#`, each unit UNIT, and columns are one blank apart: what was measured is different
/// each time.
fn without_measurements(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<_> = line.split_whitespace().map(without_numbers).collect();
        format!("{}{}\n", " ".repeat(indent), words.join(" "))
    });
    lines.collect()
}

fn without_numbers(word: &str) -> String {
    let mut masked = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' | '.' if masked.ends_with('#') => {}
            '0'..='9' => masked.push('#'),
            c => masked.push(c),
        }
    }
    match masked.as_str() {
        "B" | "KiB" | "MiB" => "UNIT".to_owned(),
        "#us" | "#ms" | "#s" => "#UNIT".to_owned(),
        "<#us" | "<#ms" | "<#s" => "<#UNIT".to_owned(),
        _ => masked,
    }
}

#[test]
fn discover_and_probe() {
    let target = start_small_target();
    let port = target.portal().port().to_string();
    let masked = |text: &str| stable(text, &[(&port, "PORT")]);
    let portal = target.portal().to_string();
    let name = ["--initiator-name", INITIATOR_NAME];
    shows(
        "discover",
        &[&["discover", &portal], &name[..]].concat(),
        0,
        masked,
    );
    let url = target.url(0);
    shows("probe", &[&["probe", &url], &name[..]].concat(), 0, masked);
}

#[test]
fn check() {
    let (target, mut config) = (start_small_target(), ConfigFile::new());
    config.disk("here", &target.url(0), "");
    config.disk("no-lun", &target.url(7), "");
    let port = target.portal().port().to_string();
    let directory = config.directory().display().to_string();
    let masked = |text: &str| stable(text, &[(&directory, "DIRECTORY"), (&port, "PORT")]);
    let path = config.write();
    let check = ["check", "--config", path.to_str().unwrap()];
    shows("check", &check, 0, masked);
    shows(
        "check-login",
        &[&check[..], &["--login"]].concat(),
        21,
        masked,
    );
    config.text.push_str("io-timout = '1s'\nnum-queues = 0\n");
    config.write();
    shows("check-wrong", &check, 2, masked);
}

#[test]
fn stats() {
    let (target, mut config) = (start_small_target(), ConfigFile::new());
    let control = config.control_socket();
    config.disk("a", &target.url(0), "sessions = 1");
    let daemon = config.start();
    let mut guest = config.connect(&daemon, "a");
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    let socket = control.arguments();
    let masked = |text: &str| without_measurements(&stable(text, &[]));
    shows("stats", &[&["stats"], &socket[..]].concat(), 0, masked);
    shows(
        "stats-a",
        &[&["stats", "a"], &socket[..]].concat(),
        0,
        masked,
    );
}

#[test]
fn iname() {
    let masked = |text: &str| {
        let mut stable = String::new();
        for line in text.lines() {
            let (before, drawn) = line.split_once("iscsi:").unwrap_or((line, ""));
            let rest = drawn.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            let drawn = if drawn.len() - rest.len() == 32 {
                "iscsi:DRAWN"
            } else {
                ""
            };
            stable += &format!("{before}{drawn}{rest}\n");
        }
        stable
    };
    shows("iname", &["iname"], 0, masked);
}
