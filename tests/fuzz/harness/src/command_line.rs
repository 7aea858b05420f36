//! The command line with its surroundings: options, files of names and secrets, the environment.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use iscsi_core::name::IscsiName;
use tempfile::TempDir;
use vhost_user_iscsi::cli::{self, Control};
use vhost_user_iscsi::config::{
    DiscoverSettings, InitiatorSettings, MAX_LOGIN_TIMEOUT, MAX_POLL_LIMIT, MAX_QUEUES,
    MAX_SESSIONS, PortalSettings, ProbeSettings, ServeSettings,
};
use vhost_user_iscsi::control_protocol::Request;
use vhost_user_iscsi::exit::{ExitCode, Failure};
use vhost_user_iscsi::found::Discovered;
use vhost_user_iscsi::portal::Portal;
use vhost_user_iscsi::report::{DiscoveredPortal, ProbeReport};
use vhost_user_iscsi::secret::MAX_SECRET_LENGTH_BYTES;
use vhost_user_iscsi::system::System;

use crate::Input;

/// Separates arguments: none can have it.
const END: u8 = 0;
/// In front of what the secret file and the environment hold: no message may repeat it.
const SECRET: &str = "kept-to-ourselves";

const SERVE: [&str; 3] = [
    "vhost-user-iscsi",
    "--socket-path=socket",
    "--blk-file=iscsi://host/iqn.2001-04.com.example:disk/0",
];
const PROBE: [&str; 3] = [
    "vhost-user-iscsi",
    "probe",
    "iscsi://user@host/iqn.2001-04.com.example:disk/0",
];
const DISCOVER: [&str; 3] = ["vhost-user-iscsi", "discover", "host"];

thread_local! {
    static ROOT: TempDir = tempfile::tempdir().expect("a directory");
}

/// The first byte says which verb, and which files and variables there are, whose content comes
/// next; the rest are arguments.
pub(crate) fn run(data: &[u8]) -> u64 {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        // Whoever sets a logger first keeps the program from setting its own.
        let _ = log::set_logger(&Silent);
    });
    ROOT.with(|root| run_in(root, &mut Input::new(data)))
}

fn run_in(root: &TempDir, input: &mut Input<'_>) -> u64 {
    let kind = input.byte();
    let secret = secret(input.until(END));
    let name_file = input.until(END);
    let secret_path = root.path().join("secret");
    fs::write(&secret_path, &secret).expect("a secret file");
    let mode = if kind & 0x40 == 0 { 0o600 } else { 0o640 };
    fs::set_permissions(&secret_path, fs::Permissions::from_mode(mode)).expect("a mode");
    write_name_file(root, kind, name_file);
    let mut arguments = first_arguments(kind);
    while !input.is_empty() {
        arguments.push(OsStr::from_bytes(input.until(END)).to_owned());
    }
    use_own_file(&mut arguments, secret_path.as_os_str());
    let variable = |name: &str| match name {
        "LIBISCSI_CHAP_PASSWORD" => (kind & 4 != 0).then(|| OsString::from_vec(secret.clone())),
        "LIBISCSI_CHAP_USERNAME" => (kind & 8 != 0).then(|| OsString::from("user")),
        _ => None,
    };
    let system = System::fake(&variable, root.path());
    let mut out = Vec::new();
    let repeats = holds_secret(name_file)
        || arguments
            .iter()
            .any(|argument| holds_secret(argument.as_bytes()));
    let result = cli::run(arguments, &system, &Judge, &mut out);
    assert!(repeats || !holds_secret(&out), "the secret is shown");
    match result {
        Ok(()) => 1,
        Err(failure) => {
            assert!(!failure.message.is_empty());
            assert!(
                repeats || !holds_secret(failure.message.as_bytes()),
                "{failure}"
            );
            u64::from(failure.code == ExitCode::Timeout)
        }
    }
}

fn secret(content: &[u8]) -> Vec<u8> {
    let mut secret = SECRET.as_bytes().to_vec();
    match content.split_first() {
        // Without the mark: nothing at all, a line end, too much.
        Some((b'!', rest)) => secret = rest.to_vec(),
        Some((b'~', rest)) => secret.resize(MAX_SECRET_LENGTH_BYTES + rest.len(), b'x'),
        _ => secret.extend(content),
    }
    secret
}

fn holds_secret(bytes: &[u8]) -> bool {
    bytes
        .windows(SECRET.len())
        .any(|window| window == SECRET.as_bytes())
}

fn write_name_file(root: &TempDir, kind: u8, content: &[u8]) {
    let file = root.path().join("etc/iscsi/initiatorname.iscsi");
    let machine_id = root.path().join("etc/machine-id");
    fs::create_dir_all(root.path().join("etc/iscsi")).expect("a directory");
    let other = if kind & 0x10 == 0 { &file } else { &machine_id };
    for path in [&file, &machine_id] {
        if path == other {
            fs::write(path, content).expect("a file");
        } else {
            let _ = fs::remove_file(path);
        }
    }
    if kind & 0x20 != 0 {
        let path = root.path().join("proc/sys/kernel");
        fs::create_dir_all(&path).expect("a directory");
        fs::write(path.join("hostname"), content).expect("a file");
    }
}

fn first_arguments(kind: u8) -> Vec<OsString> {
    let first: &[&str] = match kind & 3 {
        0 => &SERVE[..1],
        1 => &SERVE,
        2 => &PROBE,
        _ => &DISCOVER,
    };
    first.iter().map(OsString::from).collect()
}

/// Only our own file is read as a secret.
fn use_own_file(arguments: &mut Vec<OsString>, path: &OsStr) {
    let mut rewritten = Vec::new();
    let mut is_path = false;
    for argument in arguments.drain(..) {
        let text = argument.to_string_lossy();
        let names_file = text.starts_with("--chap") && text.contains("-file");
        match text.split_once('=') {
            _ if is_path => {
                rewritten.push(path.to_owned());
                is_path = false;
            }
            Some((option, _)) if names_file => {
                let mut option = OsString::from(format!("{option}="));
                option.push(path);
                rewritten.push(option);
            }
            _ => {
                is_path = names_file;
                rewritten.push(argument);
            }
        }
    }
    *arguments = rewritten;
}

/// Says of all that arrives that it takes too long, once it has looked at it.
struct Judge;

impl Judge {
    fn initiator(settings: &InitiatorSettings) -> Failure {
        let timeout = settings.login_timeout;
        assert!(timeout > Duration::ZERO && timeout <= MAX_LOGIN_TIMEOUT);
        let name = IscsiName::parse(settings.name.as_str());
        assert_eq!(name.as_ref(), Ok(&settings.name));
        assert!(!holds_secret(format!("{settings:?}").as_bytes()));
        if let Some(chap) = &settings.chap {
            assert!(!chap.algorithms.is_empty());
            let length = chap.initiator.secret.expose().len();
            assert!((1..=MAX_SECRET_LENGTH_BYTES).contains(&length));
        }
        Failure::new(ExitCode::Timeout, "enough")
    }
}

impl Control for Judge {
    fn discover(&self, settings: DiscoverSettings) -> Result<Vec<DiscoveredPortal>, Failure> {
        let portal = Portal::parse(&settings.portal.to_string());
        assert_eq!(portal, Ok(settings.portal));
        Err(Self::initiator(&settings.initiator))
    }

    fn probe(&self, settings: ProbeSettings) -> Result<ProbeReport, Failure> {
        Err(Self::initiator(&settings.initiator))
    }

    fn find_disks(&self, settings: &PortalSettings) -> Result<Discovered, Failure> {
        Err(Self::initiator(settings.initiator()))
    }

    fn ask(&self, _: &Path, request: &Request) -> Result<serde_json::Value, Failure> {
        let line = serde_json::to_vec(request).expect("a request is JSON");
        assert_eq!(Request::parse(&line).as_ref(), Ok(request));
        Err(Failure::new(ExitCode::Transport, "nobody is there"))
    }

    fn serve(&self, settings: ServeSettings) -> Result<(), Failure> {
        let mut judgement = Err(Failure::new(ExitCode::Other, "no disk"));
        for served in &settings.disks {
            let disk = &served.disk;
            assert!((1..=MAX_QUEUES).contains(&disk.num_queues));
            assert!((1..=MAX_SESSIONS).contains(&disk.sessions));
            assert!(disk.poll_limit <= MAX_POLL_LIMIT);
            judgement = Err(Self::initiator(&disk.initiator));
        }
        judgement
    }
}

struct Silent;

impl log::Log for Silent {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        false
    }

    fn log(&self, _: &log::Record<'_>) {}

    fn flush(&self) {}
}
