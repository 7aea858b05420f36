//! Texts of configuration files: what they say, and what is complained about in which line.

use std::fmt::Write as _;

use super::reading::MAX_PROBLEMS;
use super::*;
use crate::config::SandboxMode;

const URL_A: &str = "iscsi://192.0.2.1/iqn.2001-04.com.example:a/1";

/// The first line names us, whatever the machine has for that.
pub(super) fn parse_text(text: &str) -> Result<Parsed, Vec<Problem>> {
    let text = format!("initiator-name = 'iqn.2001-04.com.example:us'\n{text}");
    parse(&text, &System::fake(&|_| None, Path::new("/nonexistent")))
}

pub(super) fn complaints(text: &str) -> Vec<String> {
    let Err(problems) = parse_text(text) else {
        panic!("nothing to complain about");
    };
    let shown = |problem: &Problem| format!("{}: {}", problem.line - 1, problem.message);
    problems.iter().map(shown).collect()
}

pub(super) fn disk(settings: &str) -> String {
    format!("[[disk]]\nsocket-path = '/run/a'\nurl = '{URL_A}'\n{settings}")
}

#[test]
fn a_disk_has_its_own_settings_over_the_defaults_over_those_of_the_command_line() {
    let text = format!(
        "num-queues = 8\nio-timeout = '2m'\nread-only = true\n{}\n\
         [[disk]]\nname = 'b'\nsocket-path = '/run/vm/b.sock'\nurl = '{URL_A}'\n\
         io-timeout = 'forever'\nread-only = false\n",
        disk("num-queues = 2")
    );
    let settings = parse_text(&text).unwrap();
    let [a, b] = settings.disks.as_slice() else {
        panic!("two disks");
    };
    assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
    assert_eq!((a.disk.num_queues, b.disk.num_queues), (2, 8));
    assert_eq!((a.disk.read_only, b.disk.read_only), (true, false));
    let two_minutes = std::time::Duration::from_secs(120);
    assert_eq!(a.disk.io_timeout, Some(two_minutes));
    assert_eq!(b.disk.io_timeout, None);
    assert_eq!(a.disk.target.to_string(), b.disk.target.to_string());
}

#[test]
fn a_disk_may_have_other_limits_than_the_rest_or_none() {
    let text = format!(
        "iops-total = 500\nbps-read = '1MiB'\n{}\n\
         [[disk]]\nname = 'b'\nsocket-path = '/run/b'\nurl = '{URL_A}'\n\
         iops-total = 'none'\niops-read = 7\n",
        disk("")
    );
    let settings = parse_text(&text).unwrap();
    let limits = settings.disks.iter().map(|disk| disk.disk.limits);
    let limits: Vec<_> = limits.map(|limits| limits.to_string()).collect();
    let expected = [
        "iops-total 500, bps-read 1048576",
        "iops-read 7, bps-read 1048576",
    ];
    assert_eq!(limits, expected);
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_its_line() {
    let text = format!(
        "io-timout = '2m'\nsocket-path = 'x'\n{}\n[[disk]]\nname = ''\nqueue-size = 100\n",
        disk("num-queues = 65\nread-only = 1\nfd = 3\nsecret = 'hunter2'\n")
    );
    let complaints = complaints(&text);
    let expected = [
        "1: there is no key io-timout, but there is io-timeout",
        "2: socket-path belongs into a [[disk]]",
        "6: num-queues takes a number from 1 to 64",
        "7: read-only takes true or false",
        "8: there is no key fd",
        "9: there is no key secret",
        "12: ",
        "12: the disk has no socket-path",
        "12: the disk has no url",
        "13: queue-size takes a power of two",
    ];
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for expected in expected {
        assert!(
            complaints.iter().any(|said| said.starts_with(expected)),
            "{expected}: {complaints:#?}"
        );
    }
    assert!(complaints.iter().all(|said| !said.contains("hunter2")));
}

fn from_json(settings: &Value, defaults: &str) -> Result<ServedDisk, Failure> {
    let Ok(parsed) = parse_text(&format!("{defaults}\ndisk = []\n")) else {
        panic!("good defaults");
    };
    let Value::Object(settings) = settings else {
        panic!("an object");
    };
    let system = System::fake(&|_| None, Path::new("/nonexistent"));
    disk_of_json(settings, &parsed.defaults, &system)
}

#[test]
fn a_disk_in_json_is_what_it_would_be_in_the_file() {
    let defaults = "num-queues = 8\nio-timeout = '2m'\nread-only = true\n";
    let settings = serde_json::json!({
        "name": "n", "socket-path": "/run/a", "url": URL_A, "num-queues": 2, "read-only": false,
    });
    let served = from_json(&settings, defaults).unwrap();
    let text = format!(
        "{defaults}{}",
        disk("name = 'n'\nnum-queues = '2'\nread-only = false\n")
    );
    let Ok(parsed) = parse_text(&text) else {
        panic!("a good file");
    };
    assert_eq!(served, parsed.disks[0]);
    assert!(served.disk.wait_for_target && !served.disk.read_only);
}

#[test]
fn what_is_wrong_in_json_is_said_by_its_key_and_not_repeated() {
    let settings = serde_json::json!({
        "name": "a b", "socket-path": ["hunter2"], "url": {}, "fd": 3, "hunter2 ": 1,
        "num-queues": 6.5, "control-socket": "/x", "read-only": null,
    });
    let failure = from_json(&settings, "").unwrap_err();
    for part in [
        "name takes 1 to 64",
        "socket-path takes a text in quotes",
        "url takes a text in quotes",
        "there is no key fd",
        "there is no key like this",
        "num-queues takes a number from 1 to 64",
        "control-socket belongs to the top",
        "read-only takes true or false",
    ] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    assert!(!failure.message.contains("hunter2"), "{failure}");
}

#[test]
fn what_is_read_again_is_the_file_and_the_secret_files_of_its_disks() {
    let directory = tempfile::TempDir::new().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "twelve bytes").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).unwrap();
    let path = directory.path().join("disks.toml");
    let chap = format!(
        "chap-user = 'us'\nchap-secret-file = '{}'\n",
        secret.display()
    );
    let us = "initiator-name = 'iqn.2001-04.com.example:us'\n";
    std::fs::write(&path, us.to_owned() + &disk(&chap)).unwrap();
    let system = System::fake(&|_| None, Path::new("/nonexistent"));
    let settings = read(&path, &system).unwrap();
    assert_eq!(settings.management.sandbox.read_again, [secret, path]);
}

#[test]
fn what_is_of_the_process_stands_at_the_top() {
    let text = format!(
        "control-socket = '/run/c'\ncontrol-socket-mode = '600'\nsandbox = 'log'\n{}",
        disk("")
    );
    let management = parse_text(&text).unwrap().management;
    assert_eq!(management.sandbox.mode, SandboxMode::Log);
    let socket = management.control_socket.unwrap();
    assert_eq!(socket.socket.path.as_path(), Path::new("/run/c"));
    assert_eq!((socket.socket.mode, socket.is_required), (0o600, true));
    let said = complaints(&disk("control-socket = '/run/c'\n"));
    assert_eq!(
        said,
        ["4: control-socket belongs to the top, not into a [[disk]]"]
    );
    let long = format!("control-socket = '{}'\n{}", "x".repeat(108), disk(""));
    assert!(complaints(&long)[0].contains("108 bytes"));
}

#[test]
fn the_control_socket_is_at_its_usual_place_where_there_is_one() {
    let root = tempfile::tempdir().unwrap();
    let control_socket = || {
        let text = format!(
            "initiator-name = 'iqn.2001-04.com.example:us'\n{}",
            disk("")
        );
        let settings = parse(&text, &System::fake(&|_| None, root.path())).unwrap();
        settings.management.control_socket
    };
    assert_eq!(control_socket(), None);
    let directory = root.path().join("run/vhost-user-iscsi");
    std::fs::create_dir_all(&directory).unwrap();
    let socket = control_socket().unwrap();
    assert_eq!(socket.socket.path.as_path(), directory.join("control"));
    assert!(!socket.is_required);
}

#[test]
fn a_service_of_systemd_has_its_control_socket_in_its_own_directory() {
    let root = tempfile::tempdir().unwrap();
    let value = format!("{}:/run/another", root.path().display());
    let variable = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| value.clone().into());
    let system = System::fake(&variable, Path::new("/nonexistent"));
    let socket = parse("", &system).unwrap().management.control_socket;
    let expected = root.path().join("control");
    assert_eq!(socket.unwrap().socket.path.as_path(), expected);
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    let [said] = &complaints("num-queues = 2\nread-only = yes\n")[..] else {
        panic!("one complaint");
    };
    assert!(said.starts_with("2: "), "{said}");
}

#[test]
fn disks_that_share_sessions_agree_on_them() {
    let disks = |first: &str, second: &str| {
        let table = |name: &str, settings: &str| {
            format!(
                "[[disk]]\nname = '{name}'\nsocket-path = '/run/{name}'\n\
                 url = 'iscsi://127.0.0.1/iqn.2001-04.com.example:disk/1'\n{settings}\n"
            )
        };
        let both = table("a", first) + &table("b", second);
        complaints(&format!(
            "share-sessions = true\nname-that-is-no-key = 1\n{both}"
        ))
    };
    let known = 1;
    assert_eq!(disks("", "read-only = true").len(), known);
    assert_eq!(
        disks("", "sessions = 1\nshare-sessions = false").len(),
        known
    );
    let said = disks("sessions = 2", "sessions = 1");
    assert_eq!(said.len(), known + 1, "{said:?}");
    let said = said
        .iter()
        .find(|said| said.contains("shares sessions with a"));
    let said = said.expect("it is said");
    assert!(
        said.starts_with("9: ") && said.contains("in sessions"),
        "{said}"
    );
}

#[test]
fn two_disks_have_neither_socket_nor_name_in_common() {
    let twice = format!("{}\n{}", disk(""), disk(""));
    let said = complaints(&twice);
    assert!(
        said.iter().any(|said| said.contains("same socket-path")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|said| said.contains("same name")),
        "{said:?}"
    );
}

#[test]
fn a_secret_in_a_url_is_refused_and_not_repeated() {
    let text = "[[disk]]\nsocket-path = 'a'\nurl = 'iscsi://me:hunter2@h/iqn.2001-04.com.x/1'\n";
    let said = complaints(text);
    assert!(said.len() == 1 && said[0].contains("secret"), "{said:?}");
    assert!(!said[0].contains("hunter2"));
}

#[test]
fn a_file_may_have_no_disk_yet() {
    for text in ["", "# [[disk]]\n", "num-queues = 2"] {
        assert!(parse_text(text).unwrap().disks.is_empty(), "{text}");
    }
}

#[test]
fn disks_that_are_no_tables_are_refused() {
    for text in ["disk = 3", "disk = [1]", "[disk]\nname = 'a'"] {
        assert!(complaints(text)[0].contains("disk"), "{text}");
    }
}

#[test]
fn a_file_that_is_wrong_in_every_line_is_judged_by_its_first_hundred() {
    let mut text = String::new();
    for line in 0..20_000 {
        let _ = writeln!(text, "k{line} = 1");
    }
    let said = complaints(&(text + &disk("")));
    assert_eq!(said.len(), MAX_PROBLEMS);
    assert!(said[0].starts_with("1: "), "{}", said[0]);
    assert!(said[99].starts_with("100: "), "{}", said[99]);
}

#[test]
fn a_file_that_is_too_long_or_absent_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let system = System::fake(&|_| None, Path::new("/nonexistent"));
    let said = |path: &Path| read(path, &system).unwrap_err().to_string();
    assert!(said(&path).contains("cannot be read"));
    std::fs::write(&path, "#\n".repeat(3 << 20)).unwrap();
    assert!(said(&path).contains("is longer than"));
    std::fs::write(&path, disk("io-timout = 1\nfoo = 2\n")).unwrap();
    let said = said(&path);
    assert!(said.contains("config.toml:4: "), "{said}");
    assert!(
        said.ends_with("(and 1 more: the verb check says all)"),
        "{said}"
    );
}
