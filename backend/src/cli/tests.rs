//! Command lines, run against a control plane that takes down what it is told.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iscsi_core::login::settings::DigestPreference;

use super::*;
use crate::config::{DiskSettings, ManagementSettings, SocketSettings, default_sessions};
use crate::control_protocol::DEFAULT_PATH;
use crate::limits::{Limits, Rate};

const URL: &str = "iscsi://h/iqn.2001-04.com.example/0";
const NAME: &str = "iqn.2001-04.com.example:me";

/// What `run` called, at most once.
#[derive(Default)]
struct Recorder {
    discover: RefCell<Option<DiscoverSettings>>,
    probe: RefCell<Option<ProbeSettings>>,
    serve: RefCell<Option<ServeSettings>>,
    ask: RefCell<Option<(PathBuf, Request)>>,
}

impl Control for Recorder {
    fn discover(&self, settings: DiscoverSettings) -> Result<Vec<DiscoveredPortal>, Failure> {
        self.discover.replace(Some(settings));
        Ok(Vec::new())
    }

    fn probe(&self, settings: ProbeSettings) -> Result<ProbeReport, Failure> {
        self.probe.replace(Some(settings));
        Err(Failure::new(ExitCode::Timeout, "no answer"))
    }

    fn find_disks(&self, _: &PortalSettings) -> Result<Discovered, Failure> {
        Err(Failure::new(ExitCode::Timeout, "no answer"))
    }

    fn ask(&self, socket: &Path, request: &Request) -> Result<serde_json::Value, Failure> {
        self.ask.replace(Some((socket.to_owned(), request.clone())));
        Err(Failure::new(ExitCode::Transport, "nobody is there"))
    }

    fn serve(&self, settings: ServeSettings) -> Result<(), Failure> {
        self.serve.replace(Some(settings));
        Ok(())
    }
}

/// A command line's outcome, and what the control plane was told.
struct Outcome {
    result: Result<String, Failure>,
    told: Recorder,
}

fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let variable = |name: &str| {
        environment
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| OsString::from(value))
    };
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(
        root.path().join("etc/initiatorname.iscsi"),
        format!("InitiatorName={NAME}"),
    )
    .unwrap();
    let system = System::fake(&variable, root.path());
    let arguments = ["vhost-user-iscsi"]
        .iter()
        .chain(arguments)
        .map(OsString::from);
    let (told, mut out) = (Recorder::default(), Vec::new());
    let result = run(arguments, &system, &told, &mut out);
    Outcome {
        result: result.map(|()| String::from_utf8(out).unwrap()),
        told,
    }
}

fn run_line(arguments: &[&str]) -> Outcome {
    run_in(&[], arguments)
}

/// The one disk and socket of a command line that is accepted.
fn served(arguments: &[&str]) -> (DiskSettings, SocketSettings) {
    let outcome = run_line(arguments);
    outcome.result.unwrap();
    let mut disks = outcome.told.serve.take().unwrap().disks;
    let served = disks.pop().unwrap();
    assert!(disks.is_empty());
    (served.disk, served.socket)
}

fn refused(arguments: &[&str]) -> Failure {
    let outcome = run_line(arguments);
    let told = outcome.told;
    assert!(
        told.serve.take().is_none() && told.probe.take().is_none(),
        "{arguments:?}"
    );
    outcome.result.unwrap_err()
}

#[test]
fn serves_without_a_verb_with_the_documented_defaults() {
    let (disk, socket) = served(&["--socket-path", "/run/d.sock", "--blk-file", URL]);
    assert_eq!(
        disk.target.to_string(),
        "iscsi://h:3260/iqn.2001-04.com.example/0"
    );
    assert_eq!(
        (disk.num_queues, disk.queue_size.get(), disk.sessions),
        (64, 32_768, default_sessions())
    );
    assert_eq!(disk.poll_limit, Duration::from_micros(50));
    assert!(!disk.read_only && !disk.wait_for_target && disk.serial.is_none());
    assert_eq!(disk.initiator.name.as_str(), NAME);
    assert_eq!(disk.initiator.login_timeout, Duration::from_secs(10));
    assert_eq!(disk.initiator.header_digest, DigestPreference::Avoid);
    assert_eq!(disk.initiator.data_digest, DigestPreference::Avoid);
    assert!(disk.initiator.chap.is_none());
    let SocketSettings::Path(socket) = socket else {
        panic!("{socket:?}")
    };
    assert_eq!(socket.path.as_path(), Path::new("/run/d.sock"));
    assert_eq!((socket.mode, socket.group_id), (0o660, None));
}

#[test]
fn every_option_of_serving_arrives() {
    let arguments = "--socket-path s --socket-mode 0600 --socket-group 12 --read-only \
                     --num-queues 2 --queue-size 256 --sessions 1 --poll-max-us 0 --serial ABC --wait-for-target \
                     --login-timeout 1m --header-digest crc32c --data-digest prefer \
                     --initiator-name iqn.2001-04.com.example:other -vv --blk-file";
    let mut arguments: Vec<_> = arguments.split_whitespace().collect();
    arguments.push(URL);
    let (disk, socket) = served(&arguments);
    let SocketSettings::Path(socket) = socket else {
        panic!("{socket:?}")
    };
    assert_eq!((socket.mode, socket.group_id), (0o600, Some(12)));
    assert!(disk.read_only && disk.wait_for_target);
    assert_eq!(
        (disk.num_queues, disk.queue_size.get(), disk.sessions),
        (2, 256, 1)
    );
    assert_eq!(disk.poll_limit, Duration::ZERO);
    assert_eq!(disk.serial.unwrap().as_bytes(), b"ABC");
    assert_eq!(disk.initiator.login_timeout, Duration::from_secs(60));
    assert_eq!(disk.initiator.header_digest, DigestPreference::Crc32c);
    assert_eq!(disk.initiator.data_digest, DigestPreference::Prefer);
    assert_eq!(
        disk.initiator.name.as_str(),
        "iqn.2001-04.com.example:other"
    );
}

#[test]
fn takes_an_open_socket_by_its_number() {
    let (_, socket) = served(&["--fd", "7", "--blk-file", URL]);
    assert_eq!(socket, SocketSettings::Fd(7));
}

#[test]
fn a_digest_option_wins_over_the_url() {
    let url = format!("{URL}?header_digest=crc32c&data_digest=crc32c");
    let (disk, _) = served(&["--fd", "3", "--header-digest", "none", "--blk-file", &url]);
    assert_eq!(disk.initiator.header_digest, DigestPreference::None);
    assert_eq!(disk.initiator.data_digest, DigestPreference::Crc32c);
}

#[test]
fn options_of_a_verb_stand_before_or_after_its_argument() {
    for arguments in [
        ["probe", "--login-timeout", "3s", "--json", URL],
        ["probe", URL, "--login-timeout", "3s", "--json"],
        ["probe", "--json", URL, "--login-timeout", "3s"],
    ] {
        let outcome = run_line(&arguments);
        assert_eq!(outcome.result.unwrap_err().code, ExitCode::Timeout);
        let settings = outcome.told.probe.take().unwrap();
        assert_eq!(settings.initiator.login_timeout, Duration::from_secs(3));
    }
}

#[test]
fn log_options_may_stand_before_a_verb_too() {
    for arguments in [
        ["-v", "discover", "h"],
        ["--log-level=off", "discover", "h"],
    ] {
        assert!(run_line(&arguments).told.discover.take().is_some());
    }
}

#[test]
fn a_level_is_counted_from_what_the_verb_needs() {
    use log::LevelFilter::{Debug, Error, Info, Trace, Warn};
    for (line, level) in [
        ("", Info),
        ("-v", Debug),
        ("-vv", Trace),
        ("-vvvvvv", Trace),
        ("--log-level error", Error),
        ("discover h", Warn),
        ("discover h -v", Info),
        ("-vvv discover h", Trace),
    ] {
        let arguments = ["vhost-user-iscsi"]
            .into_iter()
            .chain(line.split_whitespace());
        let cli = parse(arguments.map(OsString::from).collect()).unwrap();
        assert_eq!(cli.log.level(cli.verb.is_some()), level, "{line}");
    }
}

#[test]
fn discovering_nothing_is_a_failure_of_its_own() {
    let failure = run_line(&["discover", "[::1]:3261"]).result.unwrap_err();
    assert_eq!(failure.code, ExitCode::NotFound);
    assert!(failure.message.contains("[::1]:3261"), "{failure}");
}

#[test]
fn credentials_come_from_the_environment_that_libiscsi_users_know() {
    let environment = [
        ("LIBISCSI_CHAP_USERNAME", "me"),
        ("LIBISCSI_CHAP_PASSWORD", "hunter2"),
    ];
    let outcome = run_in(&environment, &["discover", "h"]);
    let chap = outcome
        .told
        .discover
        .take()
        .unwrap()
        .initiator
        .chap
        .unwrap();
    assert_eq!(
        (chap.initiator.name.as_str(), chap.initiator.secret.expose()),
        ("me", &b"hunter2"[..])
    );
    assert!(chap.target.is_none());
}

#[test]
fn prints_capabilities_whatever_else_is_asked() {
    for arguments in [
        &["--print-capabilities"][..],
        &["--bogus", "--print-capabilities", "--fd"],
    ] {
        let out = run_line(arguments).result.unwrap();
        assert!(out.contains("\"type\": \"block\""));
    }
}

#[test]
fn prints_a_name_and_nothing_else() {
    let name = run_line(&["iname"]).result.unwrap();
    assert!(name.starts_with("iqn.") && name.ends_with('\n') && name.lines().count() == 1);
    let json = run_line(&["iname", "--json"]).result.unwrap();
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        document["initiator_name"]
            .as_str()
            .unwrap()
            .starts_with("iqn.")
    );
}

#[test]
fn help_is_no_failure() {
    for arguments in [&["--help"][..], &["probe", "--help"], &["--version"]] {
        assert!(
            run_line(arguments)
                .result
                .unwrap()
                .contains("vhost-user-iscsi")
        );
    }
}

#[test]
fn verbs_that_look_into_a_process_ask_at_its_control_socket() {
    let status = |disk: Option<&str>| Request::Status {
        disk: disk.map(str::to_owned),
    };
    let stats = |disk: Option<&str>| Request::Stats {
        disk: disk.map(str::to_owned),
    };
    let limits = |set: Option<Limits>| Request::Limits {
        disk: "a".to_owned(),
        set: set.map(Box::new),
    };
    let burst = Limits {
        iops_total: Some(Rate {
            per_s: 5,
            max_per_s: Some(9),
            max_length_s: Some(1),
        }),
        bps_read: Some(Rate::of(1 << 20)),
        ..Limits::default()
    };
    for (arguments, path, request) in [
        ("limits a", DEFAULT_PATH, limits(None)),
        (
            "limits a --none",
            DEFAULT_PATH,
            limits(Some(Limits::default())),
        ),
        (
            "limits a --iops-total 5 --iops-total-max 9 --bps-read 1MiB",
            DEFAULT_PATH,
            limits(Some(burst)),
        ),
        ("ls", DEFAULT_PATH, status(None)),
        ("status", DEFAULT_PATH, status(None)),
        ("status a --control-socket c", "c", status(Some("a"))),
        ("stats --control-socket c --json", "c", stats(None)),
        ("stats a", DEFAULT_PATH, stats(Some("a"))),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let outcome = run_line(&arguments);
        let asked = outcome.told.ask.take();
        assert_eq!(asked, Some((PathBuf::from(path), request)));
        assert_eq!(outcome.result.unwrap_err().code, ExitCode::Transport);
    }
}

#[test]
fn verbs_that_change_disks_ask_for_it() {
    let remove = |force| Request::Remove {
        disk: "a".to_owned(),
        force,
    };
    for (arguments, request) in [
        ("reload", Request::Reload {}),
        ("remove a", remove(false)),
        ("remove --force a", remove(true)),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let asked = run_line(&arguments).told.ask.take();
        assert_eq!(asked, Some((PathBuf::from(DEFAULT_PATH), request)));
    }
}

/// What is given and nothing else, by the keys of the file; what depends on where we are does not.
#[test]
fn add_sends_the_settings_of_a_disk_and_the_paths_of_its_secrets() {
    let arguments = "add --name n --socket-path d.sock --read-only --num-queues 2 --io-timeout 2m \
                     --chap-user me --chap-secret-file secret --control-socket c";
    let mut arguments: Vec<_> = arguments.split_whitespace().collect();
    arguments.push(URL);
    let (socket, request) = run_line(&arguments).told.ask.take().unwrap();
    assert_eq!(socket, Path::new("c"));
    let here = std::env::current_dir().unwrap();
    let settings = serde_json::json!({
        "name": "n",
        "url": URL,
        "socket-path": here.join("d.sock"),
        "read-only": true,
        "num-queues": "2",
        "io-timeout": "2m",
        "chap-user": "me",
        "chap-secret-file": here.join("secret"),
    });
    let expected = serde_json::json!({"verb": "add", "settings": settings});
    assert_eq!(serde_json::to_value(request).unwrap(), expected);
}

#[test]
fn a_single_disk_is_looked_into_only_where_that_is_asked_for() {
    let management = |arguments: &str| {
        let line = format!("--socket-path s --blk-file {URL} {arguments}");
        let arguments: Vec<_> = line.split_whitespace().collect();
        let outcome = run_line(&arguments);
        outcome.result.unwrap();
        outcome.told.serve.take().unwrap().management
    };
    assert_eq!(management(""), ManagementSettings::default());
    let asked = management(
        "--control-socket c --control-socket-mode 600 --control-socket-group 7 --metrics-address 9123",
    );
    let socket = asked.control_socket.unwrap();
    assert_eq!(
        (socket.socket.mode, socket.socket.group_id),
        (0o600, Some(7))
    );
    assert!(socket.is_required);
    assert_eq!(asked.metrics_address, Some(([127, 0, 0, 1], 9123).into()));
}

#[test]
fn every_option_is_documented() {
    let manual = include_str!("../../../docs/operating.md");
    let command = Cli::command();
    let verbs = command.get_subcommands();
    for option in verbs
        .chain([&command])
        .flat_map(clap::Command::get_arguments)
    {
        let is_ours = !matches!(
            option.get_long(),
            None | Some("help" | "version" | "verbose")
        );
        let option = format!("--{}", option.get_long().unwrap_or_default());
        assert!(!is_ours || manual.contains(&option), "{option}");
    }
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Bad command lines with the exit code and a piece of the message; `URL` stands for a good URL.
const BAD_LINES: [(&str, u8, &str); 63] = [
    ("add URL", 2, "--socket-path <PATH> is missing"),
    ("add --socket-path s", 2, "<URL> is missing"),
    ("add --fd 3 URL", 2, "exclude each other"),
    ("remove", 2, "<NAME> is missing"),
    ("reload now", 2, "unexpected argument"),
    (
        "--read-only add --socket-path s URL",
        2,
        "cannot stand before a verb",
    ),
    ("", 2, "give --socket-path PATH or --fd N"),
    ("--socket-path s", 2, "give --blk-file URL"),
    ("--blk-file URL", 2, "give --socket-path PATH or --fd N"),
    (
        "--socket-path s --fd 3 --blk-file URL",
        2,
        "exclude each other",
    ),
    (
        "--fd 3 --socket-mode 0600 --blk-file URL",
        2,
        "exclude each other",
    ),
    (
        "--fd 3 --socket-group 1 --blk-file URL",
        2,
        "exclude each other",
    ),
    (
        "--fd 3 --blk-file URL --blk-file URL",
        2,
        "--blk-file <URL> is given more than once",
    ),
    (
        "--fd -1 --blk-file URL",
        2,
        "--fd <N> takes the number of an open file descriptor",
    ),
    (
        "--fd 3 --blk-file URL --num-queues 0",
        2,
        "a number from 1 to 64",
    ),
    (
        "--fd 3 --blk-file URL --num-queues 65",
        2,
        "a number from 1 to 64",
    ),
    (
        "--fd 3 --blk-file URL --sessions 65",
        2,
        "a number from 1 to 64",
    ),
    (
        "--fd 3 --blk-file URL --poll-max-us 1001",
        2,
        "a number of microseconds up to 1000",
    ),
    (
        "--fd 3 --blk-file URL --poll-max-us 1.5",
        2,
        "a number of microseconds up to 1000",
    ),
    (
        "--fd 3 --blk-file URL --queue-size 100",
        2,
        "a power of two from 2 to 32768",
    ),
    (
        "--fd 3 --blk-file URL --login-timeout 10",
        2,
        "a time with its unit",
    ),
    (
        "--fd 3 --blk-file URL --serial 123456789012345678901",
        2,
        "1 to 20 printable ASCII",
    ),
    (
        "--fd 3 --blk-file URL --data-digest always",
        2,
        "none, crc32c, prefer or avoid",
    ),
    (
        "--fd 3 --blk-file URL --log-level loud",
        2,
        "off, error, warn, info, debug or trace",
    ),
    (
        "--fd 3 --blk-file URL --log-level info -v",
        2,
        "exclude each other",
    ),
    (
        "--fd 3 --blk-file URL --initiator-name me",
        2,
        "--initiator-name is not valid",
    ),
    (
        "--fd 3 --blk-file URL --chap-user me",
        2,
        "no secret: give --chap-secret-file",
    ),
    (
        "--fd 3 --blk-file URL --chap-user me --chap-secret-file /nonexistent",
        13,
        "/nonexistent",
    ),
    (
        "--fd 3 --blk-file URL --chap-user me --chap-secret-credential ../../hunter2",
        2,
        "takes the name of a credential",
    ),
    (
        "--fd 3 --blk-file URL --chap-user me --chap-secret-credential chap",
        13,
        "LoadCredential=chap:FILE",
    ),
    (
        "probe URL --chap-target-secret-file /f --chap-target-secret-credential c",
        2,
        "exclude each other",
    ),
    (
        "--fd 3 --blk-file URL --chap-secret hunter2",
        2,
        "but there is --chap-secret-file",
    ),
    (
        "--fd 3 --blk-file URL --chap-secret=hunter2",
        2,
        "but there is --chap-secret-file",
    ),
    (
        "--fd 3 --blk-file /dev/sda",
        2,
        "it does not start with iscsi://",
    ),
    (
        "--fd 3 --blk-file iscsi://me%hunter2@h/iqn.2001-04.a/0",
        2,
        "--chap-secret-file",
    ),
    (
        "--fd 3 --blk-file iscsi://me:hunter2@h/iqn.2001-04.a/0",
        2,
        "--chap-secret-file",
    ),
    (
        "--fd 3 --blk-file URL?target_password=hunter2",
        2,
        "--chap-target-secret-file",
    ),
    (
        "--fd 3 --num-queues iscsi://me%hunter2@h/",
        2,
        "a number from 1 to 64",
    ),
    (
        "--socket-path s --blk-file URL --socket-mode 1777",
        2,
        "permission bits in octal",
    ),
    (
        "--socket-path s --blk-file URL --socket-group no-such-group",
        2,
        "no such group",
    ),
    (
        "iscsi://me%hunter2@h/iqn.2001-04.a/0",
        2,
        "belongs behind --blk-file",
    ),
    (
        "no-such-verb",
        2,
        "the verbs are serve, check, ls, status, stats, top, limits, reload, add, remove, discover, probe, explain, import and iname",
    ),
    ("--no-such-option", 2, "there is no option --no-such-option"),
    ("discover", 2, "<HOST[:PORT]> is missing"),
    ("discover h:0", 2, "the port is a number from 1 to 65535"),
    ("discover iscsi://me%hunter2@h", 2, "not a URL"),
    ("discover h iscsi://me%hunter2@h", 2, "unexpected argument"),
    (
        "discover h --read-only",
        2,
        "there is no option --read-only",
    ),
    ("discover h --login-timeout", 2, "needs a value"),
    (
        "--read-only discover h",
        2,
        "--read-only cannot stand before a verb",
    ),
    (
        "--initiator-name iqn.2001-04.a discover h",
        2,
        "cannot stand before a verb",
    ),
    ("limits", 2, "<DISK> is missing"),
    (
        "limits a --none --iops-read 5",
        2,
        "--none excludes every limit",
    ),
    ("limits a --iops-total 0", 2, "from 1 to 10000000, or none"),
    (
        "limits a --iops-read 0x7hunter2",
        2,
        "from 1 to 10000000, or none",
    ),
    ("limits a --bps-read 100M", 2, "such as 100MiB, or none"),
    (
        "limits a --iops-total 5 --iops-write 5",
        2,
        "excludes iops-read and iops-write",
    ),
    (
        "--socket-path s --blk-file URL --iops-read-max 5",
        2,
        "--iops-read-max needs --iops-read",
    ),
    (
        "--socket-path s --blk-file URL --bps-read 1MiB --bps-read-max-length 5",
        2,
        "bps-read-max-length needs bps-read-max",
    ),
    (
        "--socket-path s --blk-file URL --iops-read 5 --iops-read-max 4",
        2,
        "iops-read-max is a number from iops-read itself, 5, to 10000000",
    ),
    ("probe", 2, "<URL> is missing"),
    (
        "probe iscsi://h/iqn.2001-04.a",
        2,
        "the LUN is missing (expected iscsi://",
    ),
    ("iname --chap-user me", 2, "there is no option --chap-user"),
];

#[test]
fn each_bad_command_line_has_its_exit_code_and_message() {
    for (line, code, message) in BAD_LINES {
        let line = line.replace("URL", URL);
        let failure = refused(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(failure.code.number(), code, "{line}: {failure}");
        assert!(failure.message.contains(message), "{line}: {failure}");
        assert!(!failure.message.contains("hunter2"), "{line}: {failure}");
        assert_eq!(failure.to_string().lines().count(), 1, "{line}: {failure}");
    }
}

#[test]
fn a_socket_path_has_at_most_107_bytes() {
    let path = |length: usize| "x".repeat(length);
    served(&["--socket-path", &path(107), "--blk-file", URL]);
    let failure = refused(&["--socket-path", &path(108), "--blk-file", URL]);
    assert_eq!(failure.code, ExitCode::Access);
    assert!(failure.message.contains("107"), "{failure}");
}

#[test]
fn a_secret_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, "hunter2").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let path = path.to_str().unwrap();
    let failure = refused(&[
        "probe",
        URL,
        "--chap-user",
        "me",
        "--chap-secret-file",
        path,
    ]);
    assert_eq!(failure.code, ExitCode::Access);
    assert!(failure.message.contains("chmod 600"), "{failure}");
}
