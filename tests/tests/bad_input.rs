//! Bad input of the command line, the network and the target: each gets one line on stderr that
//! says what was tried, what came back and what to do, and the documented exit code.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

use iscsi_test_target::{
    ChapAlgorithm, ChapConfig, CommandFault, ConnectFault, LoginFault, LunConfig, Rule, Sense,
    TargetConfig, TestTarget, opcode,
};
use tempfile::TempDir;
use vhost_user_iscsi_tests::chap::{
    OUR_SECRET, OUR_USER, TARGET_SECRET, TARGET_USER, mutual, one_way, start_chap_target,
};
use vhost_user_iscsi_tests::daemon::{Output, run_with_env};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, one_lun, start_target};
use vhost_user_iscsi_tests::tgt::free_port;

/// Exit codes (`docs/operating.md`).
mod code {
    pub(super) const OTHER: i32 = 1;
    pub(super) const USAGE: i32 = 2;
    pub(super) const TRANSPORT: i32 = 4;
    pub(super) const TARGET_ERROR: i32 = 5;
    pub(super) const TIMEOUT: i32 = 8;
    pub(super) const ACCESS: i32 = 13;
    pub(super) const LOGIN_REFUSED: i32 = 19;
    pub(super) const NOT_FOUND: i32 = 21;
    pub(super) const AUTHENTICATION: i32 = 24;
}

const WRONG_SECRET: &str = "wrong-secret-of-7143";
/// In no output, whatever happens.
const SECRETS: [&str; 3] = [OUR_SECRET, TARGET_SECRET, WRONG_SECRET];
const IQN: &str = "iqn.2026-11.org.example:nobody";
/// For what never answers.
const SHORT: &str = "300ms";

/// A failing command line that the test describes.
#[derive(Clone)]
struct Case {
    options: Vec<String>,
    environment: Vec<(String, String)>,
    code: i32,
    says: Vec<String>,
}

/// Fails with `code` and a message that holds all of `says`.
fn case(code: i32, says: &[&str]) -> Case {
    Case {
        options: Vec::new(),
        environment: Vec::new(),
        code,
        says: says.iter().map(|part| (*part).to_owned()).collect(),
    }
    .options(&["--initiator-name", INITIATOR_NAME])
}

impl Case {
    fn options(mut self, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned());
        self.options.extend(options);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn limit(self, login_timeout: &str) -> Self {
        self.options(&["--login-timeout", login_timeout])
    }

    fn run(&self, head: &[&str], tail: &[&str]) -> Output {
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        run_with_env(&[head, &options, tail].concat(), &environment)
    }

    /// Runs it and judges the end and the one line.
    fn fails(&self, head: &[&str]) -> String {
        let output = self.run(head, &[]);
        self.judge(head, &output);
        let lines: Vec<_> = output.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{head:?}: {lines:#?}");
        lines[0].to_owned()
    }

    /// The same with everything logged: the last line is the one line.
    fn fails_while_tracing(&self, head: &[&str]) {
        let output = self.run(head, &["-vvv"]);
        self.judge(head, &output);
    }

    fn judge(&self, head: &[&str], output: &Output) {
        let last = output.stderr.lines().last().unwrap_or_default();
        assert_eq!(output.code, Some(self.code), "{head:?}: {}", output.stderr);
        assert!(last.starts_with("vhost-user-iscsi: "), "{head:?}: {last}");
        for part in &self.says {
            assert!(last.contains(part), "{head:?}: no {part:?} in {last:?}");
        }
        assert_eq!(output.stdout, "", "{head:?}");
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        shows_no_secret(output);
    }

    /// `probe`, with and without `--json`, and serving fail alike.
    fn fails_for_url(&self, url: &str) -> String {
        let message = self.fails(&["probe", url]);
        assert_eq!(self.fails(&["probe", url, "--json"]), message);
        self.fails_while_tracing(&["probe", url]);
        assert_eq!(self.fails_to_serve(url), message);
        message
    }

    /// Serving fails, and leaves no socket behind.
    fn fails_to_serve(&self, url: &str) -> String {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("disk.sock");
        let head = ["--socket-path", socket.to_str().unwrap(), "--blk-file", url];
        let message = self.fails(&head);
        assert!(!socket.exists(), "a socket without a disk: {url}");
        message
    }

    /// `discover` fails, with and without `--json`.
    fn fails_to_discover(&self, portal: &str) -> String {
        let message = self.fails(&["discover", portal]);
        assert_eq!(self.fails(&["discover", portal, "--json"]), message);
        self.fails_while_tracing(&["discover", portal]);
        message
    }

    /// Probe, serving and discovery fail for the same reason.
    fn fails_at(&self, portal: SocketAddr) {
        self.fails_for_url(&format!("iscsi://{portal}/{IQN}/0"));
        self.fails_to_discover(&portal.to_string());
    }
}

fn shows_no_secret(output: &Output) {
    for secret in SECRETS {
        assert!(!output.stderr.contains(secret), "{}", output.stderr);
        assert!(!output.stdout.contains(secret), "{}", output.stdout);
    }
}

// ---- the command line ---------------------------------------------------------------------------

#[test]
fn malformed_urls_are_usage_errors_that_name_the_part() {
    let target = format!("127.0.0.1/{IQN}");
    let cases: &[(&str, &str)] = &[
        ("", "iscsi://"),
        ("/dev/sda", "iscsi://"),
        ("iscsi:127.0.0.1", "iscsi://"),
        ("http://127.0.0.1/iqn.2026-11.org.example/0", "iscsi://"),
        ("iser://127.0.0.1/iqn.2026-11.org.example/0", "iSER"),
        ("iscsi://", "host is missing"),
        ("iscsi:///iqn.2026-11.org.example/0", "host is missing"),
        ("iscsi://:3260/iqn.2026-11.org.example/0", "host is missing"),
        ("iscsi://h:0/iqn.2026-11.org.example/0", "1 to 65535"),
        ("iscsi://h:65536/iqn.2026-11.org.example/0", "1 to 65535"),
        ("iscsi://h:x/iqn.2026-11.org.example/0", "1 to 65535"),
        ("iscsi://h:+1/iqn.2026-11.org.example/0", "1 to 65535"),
        ("iscsi://h:/iqn.2026-11.org.example/0", "1 to 65535"),
        ("iscsi://::1/iqn.2026-11.org.example/0", "brackets"),
        ("iscsi://[::1/iqn.2026-11.org.example/0", "brackets"),
        ("iscsi://[127.0.0.1]/iqn.2026-11.org.example/0", "brackets"),
        (
            "iscsi://[fe80::1%25eth0]/iqn.2026-11.org.example/0",
            "brackets",
        ),
        ("iscsi://[::1]x/iqn.2026-11.org.example/0", "1 to 65535"),
        ("iscsi://a b/iqn.2026-11.org.example/0", "host"),
        ("iscsi://-h-/iqn.2026-11.org.example/0", "host"),
        ("iscsi://127.0.0.1", "target's name is missing"),
        ("iscsi://127.0.0.1/", "target's name is missing"),
        ("iscsi://127.0.0.1//0", "target's name is missing"),
        ("iscsi://127.0.0.1/disk/0", "target's name is not valid"),
        (
            "iscsi://127.0.0.1/iqn.26-11.org/0",
            "target's name is not valid",
        ),
        ("iscsi://127.0.0.1/eui.0123/0", "target's name is not valid"),
        ("iscsi://127.0.0.1/naa.0123/0", "target's name is not valid"),
        ("iscsi://127.0.0.1/iqn.2026-11.org.example%2/0", "percent"),
        ("iscsi://127.0.0.1/iqn.2026-11.org.example%zz/0", "percent"),
        ("iscsi://127.0.0.1/iqn.2026-11.org.example%ff/0", "percent"),
        (
            "iscsi://127.0.0.1/iqn.2026-11.org.example%00/0",
            "not valid",
        ),
        ("iscsi://@127.0.0.1/iqn.2026-11.org.example/0", "'@'"),
    ];
    for (url, part) in cases {
        case(code::USAGE, &[part]).fails_for_url(url);
    }
    for (tail, part) in [
        ("", "LUN is missing"),
        ("/", "LUN is missing"),
        ("/x", "0 to 16383"),
        ("/-1", "0 to 16383"),
        ("/+1", "0 to 16383"),
        ("/0x1", "0 to 16383"),
        ("/16384", "0 to 16383"),
        ("/99999999999999999999", "0 to 16383"),
        ("/0/1", "behind the LUN"),
        ("/0/", "behind the LUN"),
        ("/0#top", "%23"),
        ("/0?", "unknown key"),
        ("/0?speed=1", "'speed'"),
        ("/0?header_digest=md5", "header_digest"),
        ("/0?header_digest", "header_digest"),
        ("/0?data_digest=", "data_digest"),
        ("/0?auth=none", "auth"),
        ("/0?target_user=", "target_user"),
        ("/0?auth=md5&auth=md5", "twice"),
        ("/0?header_digest=none&header_digest=crc32c", "twice"),
        ("/0?%zz=1", "percent"),
    ] {
        case(code::USAGE, &[part]).fails_for_url(&format!("iscsi://{target}{tail}"));
    }
}

#[test]
fn the_largest_lun_and_port_are_no_usage_errors() {
    let url = format!("iscsi://127.0.0.1:{}/{IQN}/16383", free_port());
    case(code::TRANSPORT, &[]).fails_for_url(&url);
}

#[test]
fn malformed_portals_of_discover_are_usage_errors() {
    for (portal, part) in [
        ("", "host is missing"),
        (":3260", "host is missing"),
        ("iscsi://127.0.0.1", "not a URL"),
        ("127.0.0.1:0", "1 to 65535"),
        ("127.0.0.1:65536", "1 to 65535"),
        ("::1", "brackets"),
        ("[::1", "brackets"),
        ("a b", "host"),
    ] {
        case(code::USAGE, &[part]).fails_to_discover(portal);
    }
}

#[test]
fn a_secret_in_a_url_is_refused_and_never_repeated() {
    let rest = format!("127.0.0.1/{IQN}/0");
    for (url, place) in [
        (
            format!("iscsi://alice:{OUR_SECRET}@{rest}"),
            "--chap-secret-file",
        ),
        (
            format!("iscsi://alice%{OUR_SECRET}@{rest}"),
            "--chap-secret-file",
        ),
        (
            format!("iscsi://alice%25{OUR_SECRET}@{rest}"),
            "--chap-secret-file",
        ),
        (
            format!("iscsi://alice:{OUR_SECRET}/@x@{rest}"),
            "--chap-secret-file",
        ),
        (
            format!("iscsi://{rest}?target_password={TARGET_SECRET}"),
            "--chap-target-secret-file",
        ),
        (
            format!("iscsi://{rest}?password={TARGET_SECRET}"),
            "--chap-target-secret-file",
        ),
        (
            format!("iscsi://{rest}?target%5fp%61ssword={TARGET_SECRET}"),
            "--chap-target-secret-file",
        ),
    ] {
        let message = case(code::USAGE, &[place]).fails_for_url(&url);
        assert!(!message.contains("alice"), "{message}");
    }
}

#[test]
fn other_malformed_urls_with_a_secret_never_repeat_it() {
    for url in [
        format!("iscsi:/alice:{OUR_SECRET}@127.0.0.1/{IQN}/0"),
        format!("http://alice:{OUR_SECRET}@127.0.0.1/{IQN}/0"),
        format!("alice:{OUR_SECRET}@127.0.0.1"),
        format!("iscsi://127.0.0.1/{IQN}/0?x=alice:{OUR_SECRET}@127.0.0.1"),
        format!("iscsi://127.0.0.1/{IQN}/0?{OUR_SECRET}@"),
    ] {
        case(code::USAGE, &[]).fails_for_url(&url);
    }
    case(code::USAGE, &[]).fails_to_discover(&format!("alice:{OUR_SECRET}@127.0.0.1"));
}

// ---- secrets ------------------------------------------------------------------------------------

/// Files of secrets in a directory of their own.
struct Secrets(TempDir);

impl Secrets {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, content: &[u8], mode: u32) -> String {
        let path = PathBuf::from(self.path(name));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self.path(name)
    }

    fn secret(&self, secret: &str) -> String {
        self.file(
            secret.get(..6).unwrap(),
            format!("{secret}\n").as_bytes(),
            0o600,
        )
    }
}

/// A URL that must never be tried: nobody listens there.
fn untried() -> String {
    format!("iscsi://127.0.0.1:{}/{IQN}/0", free_port())
}

fn secret_file_fails(file: &str, says: &[&str]) {
    let ours = case(code::ACCESS, says).options(&["--chap-user", OUR_USER]);
    let ours = ours.options(&["--chap-secret-file", file]);
    ours.fails_for_url(&untried());
    ours.fails_to_discover("127.0.0.1:1");
    let secrets = Secrets::new();
    let both = case(code::ACCESS, says)
        .options(&["--chap-user", OUR_USER])
        .options(&["--chap-secret-file", &secrets.secret(OUR_SECRET)])
        .options(&["--chap-target-user", TARGET_USER])
        .options(&["--chap-target-secret-file", file]);
    both.fails_for_url(&untried());
}

#[test]
fn a_secret_file_that_is_missing_or_no_file_is_refused() {
    let secrets = Secrets::new();
    secret_file_fails(
        &secrets.path("missing"),
        &["missing", "cannot read the secret file"],
    );
    secret_file_fails(&secrets.path("."), &["not a file"]);
    secret_file_fails("/dev/null", &["/dev/null", "not a file"]);
}

#[test]
fn a_secret_file_that_others_can_read_is_refused() {
    let secrets = Secrets::new();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777] {
        let file = secrets.file("open", OUR_SECRET.as_bytes(), mode);
        secret_file_fails(&file, &["open", &format!("{mode:04o}"), "chmod 600"]);
    }
}

#[test]
fn a_secret_file_that_is_empty_is_refused() {
    let secrets = Secrets::new();
    secret_file_fails(&secrets.file("empty", b"", 0o600), &["empty"]);
    secret_file_fails(&secrets.file("newline", b"\n", 0o600), &["empty"]);
}

#[test]
fn a_secret_file_has_at_most_1024_bytes() {
    let secrets = Secrets::new();
    let longest = secrets.file("longest", &[b'x'; 1024], 0o600);
    case(code::TRANSPORT, &["refused"])
        .options(&["--chap-user", OUR_USER, "--chap-secret-file", &longest])
        .fails_for_url(&untried());
    for (name, content) in [("long", vec![b'x'; 1025]), ("huge", vec![b'x'; 8 << 20])] {
        secret_file_fails(&secrets.file(name, &content, 0o600), &["1024"]);
    }
}

#[test]
fn half_a_pair_is_a_usage_error() {
    let secrets = Secrets::new();
    let ours = secrets.secret(OUR_SECRET);
    let theirs = secrets.secret(TARGET_SECRET);
    let target_pair = [
        "--chap-target-user",
        TARGET_USER,
        "--chap-target-secret-file",
        &theirs,
    ];
    for (options, part) in [
        (&["--chap-user", OUR_USER][..], "--chap-secret-file"),
        (&["--chap-secret-file", &ours], "--chap-user"),
        (&target_pair, "--chap-user"),
    ] {
        case(code::USAGE, &[part])
            .options(options)
            .fails_for_url(&untried());
    }
    case(code::USAGE, &["LIBISCSI_CHAP_PASSWORD"])
        .env("LIBISCSI_CHAP_USERNAME", OUR_USER)
        .fails_for_url(&untried());
    case(code::USAGE, &["LIBISCSI_CHAP_USERNAME"])
        .env("LIBISCSI_CHAP_PASSWORD", OUR_SECRET)
        .fails_for_url(&untried());
}

#[test]
fn two_equal_secrets_are_a_usage_error() {
    let secrets = Secrets::new();
    let file = secrets.secret(OUR_SECRET);
    case(code::USAGE, &["same"])
        .options(&["--chap-user", OUR_USER, "--chap-secret-file", &file])
        .options(&[
            "--chap-target-user",
            TARGET_USER,
            "--chap-target-secret-file",
            &file,
        ])
        .fails_for_url(&untried());
}

#[test]
fn auth_in_the_url_without_a_pair_is_a_usage_error() {
    case(code::USAGE, &["auth=", "--chap-secret-file"])
        .fails_for_url(&format!("{}?auth=md5", untried()));
}

// ---- the socket path ----------------------------------------------------------------------------

fn socket_path_fails(path: &str, says: &[&str]) {
    case(code::ACCESS, says).fails(&["--socket-path", path, "--blk-file", &untried()]);
}

#[test]
fn a_socket_directory_that_cannot_be_written_is_refused_before_any_login() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for place in ["/proc", file.to_str().unwrap(), "/nonexistent"] {
        let path = format!("{place}/disk.sock");
        socket_path_fails(&path, &[&path, "writable"]);
    }
}

#[test]
fn a_socket_path_over_107_bytes_is_refused() {
    let path = |length: usize| format!("/tmp/{}", "s".repeat(length - 5));
    socket_path_fails(&path(108), &["107"]);
    socket_path_fails(&path(4096), &["107"]);
    case(code::TRANSPORT, &["refused"]).fails_to_serve_at(&path(107));
}

impl Case {
    /// Fails for another reason than the path: it could be claimed.
    fn fails_to_serve_at(&self, path: &str) {
        self.fails(&["--socket-path", path, "--blk-file", &untried()]);
        let _ = fs::remove_file(format!("{path}.lock"));
    }
}

// ---- the network --------------------------------------------------------------------------------

#[test]
fn an_unknown_host_cannot_be_resolved() {
    let portal = "no-such-host.invalid";
    let case = case(
        code::TRANSPORT,
        &[portal, "cannot find the address", "check the name"],
    );
    case.fails_for_url(&format!("iscsi://{portal}/{IQN}/0"));
    case.fails_to_discover(portal);
}

#[test]
fn a_refused_connection_is_named() {
    let portal = SocketAddr::from(([127, 0, 0, 1], free_port()));
    case(
        code::TRANSPORT,
        &[&portal.to_string(), "refused", "is the target running"],
    )
    .fails_at(portal);
}

/// A server that does this with every connection, until the test ends.
fn server(mut serve: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let portal = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            serve(connection.unwrap());
        }
    });
    portal
}

/// Says this at once, then reads until the other side closes.
fn server_that_says(greeting: Vec<u8>) -> SocketAddr {
    server(move |mut connection| {
        let greeting = greeting.clone();
        thread::spawn(move || {
            let _ = connection.write_all(&greeting);
            let _ = connection.read_to_end(&mut Vec::new());
        });
    })
}

/// Reads a login request, answers this, and closes.
fn server_that_answers(answer: Vec<u8>) -> SocketAddr {
    server(move |mut connection| {
        let _ = connection.read(&mut [0; 4096]);
        let _ = connection.write_all(&answer);
    })
}

/// Bytes like noise, the same in every run.
fn noise(length_bytes: usize) -> Vec<u8> {
    let mut rng = vhost_user_iscsi_tests::rng::Rng::new(7);
    let words = std::iter::repeat_with(|| rng.next_u64().to_le_bytes());
    words.flatten().take(length_bytes).collect()
}

#[test]
fn a_port_that_speaks_something_else_is_named() {
    let target = start_target(TargetConfig::default());
    target.add(Rule::connect(ConnectFault::http()));
    let http = case(code::TRANSPORT, &["does not speak iSCSI", "check the port"]);
    http.fails_at(target.portal());
    for greeting in [
        noise(4096),
        b"+OK POP3 ready <1896.697170952@mail.example.org>\r\n".into(),
    ] {
        let portal = server_that_says(greeting);
        case(
            code::TRANSPORT,
            &[
                &portal.to_string(),
                "does not speak iSCSI",
                "check the port",
            ],
        )
        .fails_at(portal);
    }
}

#[test]
fn a_banner_shorter_than_a_header_is_no_iscsi_either() {
    let answer = b"SSH-2.0-OpenSSH_9.2p1\r\nInvalid SSH identification string.\r\n".to_vec();
    let portal = server_that_answers(answer);
    case(code::TRANSPORT, &["does not speak iSCSI"]).fails_at(portal);
    let portal = server_that_answers(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec());
    case(code::TRANSPORT, &["does not speak iSCSI"]).fails_at(portal);
    // One that stays open is told by what it says, not by a time-out.
    let portal = server_that_says(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec());
    case(code::TRANSPORT, &["begins with \"SSH-2.0-OpenSSH_9.2p1"]).fails_at(portal);
}

#[test]
fn a_port_that_answers_nothing_ends_in_a_time_out() {
    let target = start_target(TargetConfig::default());
    target.add(Rule::connect(ConnectFault::Silence));
    let says = [&target.portal().to_string(), "300ms", "--login-timeout"];
    case(code::TIMEOUT, &says)
        .limit(SHORT)
        .fails_at(target.portal());
}

#[test]
fn a_port_that_closes_at_once_is_named() {
    let target = start_target(TargetConfig::default());
    target.add(Rule::connect(ConnectFault::Close));
    let says = [&target.portal().to_string(), "closed the connection", "log"];
    case(code::TRANSPORT, &says).fails_at(target.portal());
}

/// The first bytes of a Login Response with 64 bytes of text.
fn login_response(length_bytes: usize) -> Vec<u8> {
    let mut header = vec![0; 112];
    header[0] = 0x23;
    header[7] = 64;
    header.truncate(length_bytes);
    header
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_pdu_is_a_closed_one() {
    for length_bytes in [1, 20, 47, 48, 80, 111] {
        let portal = server_that_answers(login_response(length_bytes));
        case(
            code::TRANSPORT,
            &[&portal.to_string(), "closed the connection"],
        )
        .fails_at(portal);
    }
}

// ---- what the target refuses --------------------------------------------------------------------

fn refusing(class: u8, detail: u8) -> TestTarget {
    let target = start_target(TargetConfig::default());
    target.add(Rule::login(LoginFault::Status { class, detail }));
    target
}

#[test]
fn each_refusal_of_the_target_has_its_code_its_name_and_a_hint() {
    for (class, detail, code, says) in [
        (
            2,
            0x00,
            code::LOGIN_REFUSED,
            "initiator error (status 0200)",
        ),
        (
            2,
            0x02,
            code::AUTHENTICATION,
            "authorization failure (status 0202)",
        ),
        (2, 0x03, code::NOT_FOUND, "not found (status 0203)"),
        (2, 0x04, code::LOGIN_REFUSED, "target removed (status 0204)"),
        (
            2,
            0x05,
            code::LOGIN_REFUSED,
            "unsupported version (status 0205)",
        ),
        (
            2,
            0x06,
            code::LOGIN_REFUSED,
            "too many connections (status 0206)",
        ),
        (
            2,
            0x07,
            code::LOGIN_REFUSED,
            "missing parameter (status 0207)",
        ),
        (
            2,
            0x0b,
            code::LOGIN_REFUSED,
            "invalid during login (status 020b)",
        ),
        (2, 0xff, code::LOGIN_REFUSED, "status 02ff"),
        (3, 0x00, code::TARGET_ERROR, "target error (status 0300)"),
        (
            3,
            0x01,
            code::TARGET_ERROR,
            "service unavailable (status 0301)",
        ),
        (
            3,
            0x02,
            code::TARGET_ERROR,
            "out of resources (status 0302)",
        ),
        (3, 0x7f, code::TARGET_ERROR, "status 037f"),
        (4, 0x00, code::OTHER, "status 0400"),
    ] {
        let target = refusing(class, detail);
        let case = case(code, &[&target.portal().to_string(), says, "; "]);
        case.fails_at(target.portal());
    }
}

#[test]
fn a_target_that_is_not_there_is_not_found() {
    let target = start_target(TargetConfig::default());
    let url = format!("iscsi://{}/{IQN}/0", target.portal());
    case(code::NOT_FOUND, &["not found (status 0203)", "discover"]).fails_for_url(&url);
}

#[test]
fn a_lun_that_is_not_there_is_not_found() {
    let target = start_target(TargetConfig::default());
    for lun in [1, 255, 256, 16_383] {
        let says = [
            &format!("LUN {lun} "),
            target.name(),
            "no such LUN",
            "check the number",
        ];
        case(code::NOT_FOUND, &says).fails_for_url(&target.url(lun));
    }
}

#[test]
fn a_lun_that_is_no_disk_is_not_found() {
    for device_type in [1, 3, 5, 0x0c, 0x0d, 0x1e] {
        let lun = LunConfig {
            device_type,
            ..LunConfig::default()
        };
        let target = start_target(one_lun(lun));
        case(code::NOT_FOUND, &["not a disk", "; "]).fails_for_url(&target.url(0));
    }
}

#[test]
fn a_lun_of_zero_blocks_is_refused() {
    let target = start_target(one_lun(LunConfig::of_bytes(0)));
    case(code::OTHER, &["0 blocks", "; "]).fails_for_url(&target.url(0));
}

#[test]
fn a_block_size_that_guests_cannot_have_is_refused() {
    let lun = LunConfig {
        block_bytes: 2048,
        ..LunConfig::default()
    };
    let target = start_target(one_lun(lun));
    case(code::OTHER, &["2048 bytes", "512 and 4096"]).fails_for_url(&target.url(0));
}

#[test]
fn a_lun_that_fails_a_command_of_the_probe_is_refused() {
    for (opcode, name) in [
        (opcode::INQUIRY, "INQUIRY"),
        (opcode::SERVICE_ACTION_IN_16, "READ CAPACITY"),
    ] {
        let target = start_target(TargetConfig::default());
        let fault = CommandFault::check_condition(Sense::INTERNAL_FAILURE);
        target.add(Rule::command(fault).opcode(opcode));
        case(code::OTHER, &["LUN 0", name, "; "]).fails_for_url(&target.url(0));
    }
}

#[test]
fn nothing_discovered_is_not_found() {
    let config = TargetConfig {
        target_names: Vec::new(),
        ..TargetConfig::default()
    };
    let target = start_target(config);
    case(code::NOT_FOUND, &["found no target"]).fails_to_discover(&target.portal().to_string());
}

// ---- CHAP ---------------------------------------------------------------------------------------

impl Case {
    fn ours(self, secrets: &Secrets, user: &str, secret: &str) -> Self {
        let file = secrets.secret(secret);
        self.options(&["--chap-user", user, "--chap-secret-file", &file])
    }

    fn theirs(self, secrets: &Secrets, user: &str, secret: &str) -> Self {
        let file = secrets.secret(secret);
        self.options(&[
            "--chap-target-user",
            user,
            "--chap-target-secret-file",
            &file,
        ])
    }

    fn fails_at_target(&self, target: &TestTarget) {
        self.fails_for_url(&target.url(0));
        self.fails_to_discover(&target.portal().to_string());
    }
}

#[test]
fn a_wrong_secret_or_user_fails_authentication() {
    let secrets = Secrets::new();
    let target = start_chap_target(one_way());
    for (user, secret) in [(OUR_USER, WRONG_SECRET), ("mallory", OUR_SECRET)] {
        case(
            code::AUTHENTICATION,
            &["status 0201", "check the CHAP names and secrets"],
        )
        .ours(&secrets, user, secret)
        .fails_at_target(&target);
    }
}

#[test]
fn a_target_that_wants_chap_is_not_logged_in_to_without() {
    let target = start_chap_target(one_way());
    case(
        code::AUTHENTICATION,
        &["wants CHAP", "--chap-user", "--chap-secret-file"],
    )
    .fails_at_target(&target);
}

#[test]
fn a_target_without_chap_is_not_logged_in_to_with_a_secret() {
    let secrets = Secrets::new();
    let target = start_target(TargetConfig::default());
    case(code::AUTHENTICATION, &["CHAP"])
        .ours(&secrets, OUR_USER, OUR_SECRET)
        .fails_at_target(&target);
}

#[test]
fn a_target_that_does_not_prove_itself_is_not_logged_in_to() {
    let secrets = Secrets::new();
    let wrong_name = case(code::AUTHENTICATION, &["name is not the one configured"])
        .ours(&secrets, OUR_USER, OUR_SECRET)
        .theirs(&secrets, "impostor", TARGET_SECRET);
    wrong_name.fails_at_target(&start_chap_target(mutual()));
    let wrong_secret = case(
        code::AUTHENTICATION,
        &["response is wrong", "check the secret"],
    )
    .ours(&secrets, OUR_USER, OUR_SECRET)
    .theirs(&secrets, TARGET_USER, WRONG_SECRET);
    wrong_secret.fails_at_target(&start_chap_target(mutual()));
    let one_way_only = case(code::AUTHENTICATION, &[])
        .ours(&secrets, OUR_USER, OUR_SECRET)
        .theirs(&secrets, TARGET_USER, TARGET_SECRET);
    one_way_only.fails_at_target(&start_chap_target(one_way()));
}

#[test]
fn each_kind_of_cheating_at_chap_fails_authentication() {
    let secrets = Secrets::new();
    let dropped = |key: &str| LoginFault::DropKey(key.to_owned());
    let set = |key: &str, value: &str| LoginFault::SetKey(key.to_owned(), value.to_owned());
    for fault in [
        LoginFault::WrongChapAnswer,
        LoginFault::ReflectChapAnswer,
        LoginFault::unknown_chap_algorithm(),
        set("CHAP_C", "0x"),
        LoginFault::ChapChallengeBytes(1025),
        dropped("CHAP_A"),
        dropped("CHAP_I"),
        dropped("CHAP_C"),
        dropped("CHAP_N"),
        dropped("CHAP_R"),
        set("CHAP_A", "x"),
        set("CHAP_I", "256"),
        set("CHAP_C", "0xzz"),
        set("CHAP_C", ""),
        set("CHAP_R", "0x00"),
        set("CHAP_R", "0b!!"),
        set("AuthMethod", "None"),
        LoginFault::reject("AuthMethod"),
    ] {
        let target = start_chap_target(mutual());
        let rule = target.add(Rule::login(fault.clone()));
        let message = case(code::AUTHENTICATION, &["authentication failed: "])
            .ours(&secrets, OUR_USER, OUR_SECRET)
            .theirs(&secrets, TARGET_USER, TARGET_SECRET)
            .fails_for_url(&target.url(0));
        assert!(target.fired(rule) > 0, "{fault:?}: {message}");
    }
}

#[test]
fn an_algorithm_that_the_target_does_not_accept_fails_authentication() {
    let secrets = Secrets::new();
    let chap = ChapConfig {
        algorithms: vec![ChapAlgorithm::Sha3_256],
        ..one_way()
    };
    let target = start_chap_target(chap);
    case(code::AUTHENTICATION, &["status 0201"])
        .ours(&secrets, OUR_USER, OUR_SECRET)
        .fails_for_url(&format!("{}?auth=md5", target.url(0)));
}

#[test]
fn no_output_of_a_login_that_works_shows_a_secret() {
    let secrets = Secrets::new();
    let target = start_chap_target(mutual());
    let case = case(0, &[]).ours(&secrets, OUR_USER, OUR_SECRET).theirs(
        &secrets,
        TARGET_USER,
        TARGET_SECRET,
    );
    let (url, portal) = (target.url(0), target.portal().to_string());
    for head in [["probe", &url], ["discover", &portal]] {
        for tail in [&["-vvv"][..], &["--json", "--log-level", "trace"]] {
            let output = case.run(&head, tail);
            assert_eq!(output.code, Some(0), "{}", output.stderr);
            assert!(!output.stderr.is_empty(), "nothing was logged");
            shows_no_secret(&output);
        }
    }
}

// ---- redirects ----------------------------------------------------------------------------------

fn redirect(address: &str, permanent: bool) -> Rule {
    Rule::login(LoginFault::Redirect {
        permanent,
        address: address.to_owned(),
    })
}

#[test]
fn a_redirect_loop_ends() {
    for permanent in [false, true] {
        let target = start_target(TargetConfig::default());
        target.add(redirect(&target.portal().to_string(), permanent));
        case(code::OTHER, &["redirect"])
            .options(&["--log-level", "warn"])
            .fails_with_one_level(&target);
    }
}

#[test]
fn a_redirect_circle_of_two_portals_ends() {
    let (first, second) = (
        start_target(TargetConfig::default()),
        start_target(TargetConfig::default()),
    );
    first.add(redirect(&second.portal().to_string(), false));
    second.add(redirect(&first.portal().to_string(), false));
    case(code::OTHER, &["redirect"])
        .options(&["--log-level", "warn"])
        .fails_with_one_level(&first);
    assert!(second.counters().connections > 0);
}

#[test]
fn a_redirect_to_where_nobody_listens_names_that_portal() {
    let target = start_target(TargetConfig::default());
    let nowhere = format!("127.0.0.1:{}", free_port());
    target.add(redirect(&nowhere, false));
    case(code::TRANSPORT, &[&nowhere, "refused"])
        .options(&["--log-level", "warn"])
        .fails_with_one_level(&target);
}

#[test]
fn a_redirect_to_no_address_is_named() {
    for address in [
        "",
        "a b",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "[::1",
        "host:port",
    ] {
        let target = start_target(TargetConfig::default());
        target.add(redirect(address, false));
        case(code::OTHER, &["redirect"])
            .options(&["--log-level", "warn"])
            .fails_with_one_level(&target);
    }
}

impl Case {
    /// As `fails_for_url` and `fails_to_discover`, where the log level is among the options.
    fn fails_with_one_level(&self, target: &TestTarget) {
        let (url, portal) = (target.url(0), target.portal().to_string());
        let message = self.fails(&["probe", &url]);
        assert_eq!(self.fails(&["probe", &url, "--json"]), message);
        assert_eq!(self.fails_to_serve(&url), message);
        self.fails(&["discover", &portal]);
    }
}

// ---- nonsense at any step of the login ----------------------------------------------------------

fn nonsense() -> Vec<LoginFault> {
    let set = |key: &str, value: &str| LoginFault::SetKey(key.to_owned(), value.to_owned());
    let add = |key: &str, value: &str| LoginFault::AddKey(key.to_owned(), value.to_owned());
    let long = "x".repeat(4000);
    vec![
        LoginFault::Status {
            class: 3,
            detail: 2,
        },
        LoginFault::Close,
        LoginFault::Silence,
        LoginFault::Opcode(0x00),
        LoginFault::Opcode(0x21),
        LoginFault::Opcode(0x3f),
        LoginFault::WrongInitiatorTaskTag,
        LoginFault::WrongVersion,
        LoginFault::StageBackwards,
        LoginFault::UnaskedTransition,
        LoginFault::ZeroTsih,
        LoginFault::KeyWithoutEquals,
        LoginFault::DuplicateKey,
        LoginFault::ValueOutOfRange,
        LoginFault::TextTooLong(8193),
        LoginFault::TextTooLong(1 << 20),
        LoginFault::TextTooLong((1 << 24) - 1),
        LoginFault::ContinueForEver,
        set("MaxBurstLength", "511"),
        set("MaxBurstLength", "16777216"),
        set("MaxBurstLength", "99999999999999999999"),
        set("MaxBurstLength", "-1"),
        set("MaxRecvDataSegmentLength", "511"),
        set("MaxRecvDataSegmentLength", &long),
        set("InitialR2T", "Maybe"),
        set("HeaderDigest", "MD5"),
        set("DataDigest", "CRC32C,None"),
        set("MaxOutstandingR2T", "0"),
        set("ErrorRecoveryLevel", "3"),
        set("TargetPortalGroupTag", "x"),
        set("AuthMethod", "KRB5"),
        LoginFault::not_understood("MaxBurstLength"),
        add("InitiatorName", "iqn.2026-11.org.example:mirror"),
        add("SendTargets", "All"),
        add("SessionType", "Normal"),
        add("bad key", "1"),
        add(&"k".repeat(64), "1"),
    ]
}

/// A failure in one line that does not drown its reader, or none where the nonsense had no place.
fn sane(output: &Output, what: &str) {
    const CODES: [i32; 5] = [
        code::OTHER,
        code::TRANSPORT,
        code::TARGET_ERROR,
        code::TIMEOUT,
        code::AUTHENTICATION,
    ];
    shows_no_secret(output);
    let stderr = &output.stderr;
    assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
    assert!(stderr.starts_with("vhost-user-iscsi: "), "{what}: {stderr}");
    assert!(stderr.len() < 400, "{what}: {stderr}");
    assert!(stderr.contains("; "), "{what} without a hint: {stderr}");
    assert_eq!(output.stdout, "", "{what}");
    let code = output.code.unwrap_or_default();
    assert!(CODES.contains(&code), "{what}: {code}: {stderr}");
}

/// One kind of nonsense at each step. Where it has no place, the login works. Returns how often it
/// struck.
///
/// Silence is waited for as long as a login may take, so that is a short time there. On a busy machine
/// it may pass before the nonsense has its turn: then it is tried again without hurry.
fn judge_nonsense(fault: &LoginFault, target: &TestTarget, case: &Case, steps: u32) -> u64 {
    let (url, portal) = (target.url(0), target.portal().to_string());
    let is_silence = *fault == LoginFault::Silence;
    let (hasty, patient) = (case.clone().limit("1s"), case.clone().limit("30s"));
    let mut struck = 0;
    for step in 1..=steps {
        for head in [["probe", &url], ["discover", &portal]] {
            let what = format!("{fault:?} at step {step} of {}", head[0]);
            let rule = target.add(Rule::login(fault.clone()).at_step(step));
            let mut output = if is_silence { &hasty } else { &patient }.run(&head, &[]);
            if is_silence && target.fired(rule) == 0 && output.code != Some(0) {
                output = patient.run(&head, &[]);
            }
            let times = target.remove(rule);
            match times {
                0 => assert_eq!(output.code, Some(0), "{what}: {}", output.stderr),
                _ => sane(&output, &what),
            }
            struck += times;
        }
    }
    struck
}

#[test]
fn nonsense_at_any_step_of_the_login_is_a_failure_in_one_line() {
    let target = start_target(TargetConfig::default());
    let case = case(0, &[]);
    for fault in nonsense() {
        let struck = judge_nonsense(&fault, &target, &case, 2);
        assert!(struck > 0, "{fault:?} found no place");
    }
}

#[test]
fn nonsense_at_any_step_of_a_login_with_chap_is_a_failure_in_one_line() {
    let secrets = Secrets::new();
    let target = start_chap_target(mutual());
    let case = case(0, &[]).ours(&secrets, OUR_USER, OUR_SECRET).theirs(
        &secrets,
        TARGET_USER,
        TARGET_SECRET,
    );
    for fault in nonsense() {
        judge_nonsense(&fault, &target, &case, 4);
    }
}

#[test]
fn nonsense_fails_serving_as_it_fails_a_probe() {
    let target = start_target(TargetConfig::default());
    for fault in nonsense() {
        if fault == LoginFault::Silence {
            continue;
        }
        let rule = target.add(Rule::login(fault.clone()));
        let probed = case(0, &[]).run(&["probe", &target.url(0)], &[]);
        // What came back differs from login to login, the words before it do not.
        let (says, _) = probed
            .stderr
            .split_once(": its answer begins")
            .unwrap_or_default();
        case(probed.code.unwrap(), &[says]).fails_to_serve(&target.url(0));
        target.remove(rule);
    }
}
