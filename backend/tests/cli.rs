//! The real binary: one line on stderr, nothing on stdout, the exit code.

// Clippy's leave for tests does not cover their helper functions.
#![allow(clippy::expect_used)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

fn run(arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vhost-user-iscsi"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("the binary starts")
}

fn run_text(arguments: &[&str]) -> Output {
    run(&arguments.iter().map(OsStr::new).collect::<Vec<_>>())
}

/// Asserts that the program said one line and left with `code`; returns the line.
fn refused_with(code: i32, output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("vhost-user-iscsi: ") && stderr.ends_with('\n'),
        "{stderr}"
    );
    stderr
}

#[test]
fn usage_errors_exit_with_2_and_one_line() {
    for arguments in [
        &[][..],
        &["--no-such-option"],
        &["no-such-verb"],
        &["probe"],
        &["probe", "http://h/"],
        &["discover", ":1"],
        &["--fd", "3", "--socket-path", "s"],
        &["--fd", "3", "--blk-file", "a\nb"],
    ] {
        refused_with(2, &run_text(arguments));
    }
}

#[test]
fn an_argument_that_is_not_utf_8_is_a_usage_error() {
    refused_with(
        2,
        &run(&[OsStr::new("discover"), OsStr::from_bytes(b"\xff")]),
    );
}

#[test]
fn no_secret_of_a_url_reaches_stderr() {
    for arguments in [
        &["probe", "iscsi://me%hunter2@h/iqn.2001-04.com.example/0"][..],
        &["iscsi://me%hunter2@h/iqn.2001-04.com.example/0"],
        &["--blk-fil=iscsi://me%hunter2@h/iqn.2001-04.com.example/0"],
        &["--sessions=iscsi://me%hunter2@h/iqn.2001-04.com.example/0"],
        &["discover", "h", "--json=hunter2"],
    ] {
        assert!(!refused_with(2, &run_text(arguments)).contains("hunter2"));
    }
}

#[test]
fn a_socket_path_over_107_bytes_exits_with_13() {
    let path = "x".repeat(108);
    let url = "iscsi://127.0.0.1/iqn.2001-04.com.example/0";
    let output = run_text(&["--socket-path", &path, "--blk-file", url]);
    assert!(refused_with(13, &output).contains("107"));
}

#[test]
fn prints_capabilities_on_stdout() {
    let output = run_text(&["--print-capabilities"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = serde_json::json!({ "type": "block", "features": ["read-only", "blk-file"] });
    assert_eq!(document, expected);
}

#[test]
fn each_call_of_iname_prints_another_name() {
    let name = || String::from_utf8(run_text(&["iname"]).stdout).expect("names are UTF-8");
    let (first, second) = (name(), name());
    assert!(first.starts_with("iqn.") && first.ends_with('\n'));
    assert_ne!(first, second);
}
