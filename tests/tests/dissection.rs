//! tshark, which shares no code with us, takes the bytes of real sessions apart without complaint.
//!
//! The bytes come from a proxy and go into a capture file that is made here, so no privilege to
//! capture is needed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

#[path = "dissection/capture.rs"]
mod capture;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use tempfile::NamedTempFile;
use vhost_user_iscsi_tests::daemon::{self, Daemon};
use vhost_user_iscsi_tests::disk::{DISK_BYTES, pattern};
use vhost_user_iscsi_tests::frontend::{FrontendConfig, spec::S_OK};
use vhost_user_iscsi_tests::proxy::Proxy;
use vhost_user_iscsi_tests::tgt::{LunOptions, Target, Tgt};

/// How long the daemon may take to log out.
const END_LIMIT: Duration = Duration::from_secs(10);
/// A write that cannot go out as immediate data alone.
const LONG_BYTES: usize = 300 << 10;
/// Every PDU of a session in which nothing goes wrong, by tshark's names (pings come with silence).
const SESSION: [&str; 8] = [
    "Login Command",
    "Login Response",
    "SCSI Command",
    "SCSI Response",
    "SCSI Data Out",
    "SCSI Data In",
    "Ready To Transfer",
    "Logout Command",
];

/// A disk of tgt behind a proxy that records.
fn recorded_disk() -> (Tgt, Target, Proxy) {
    let mut tgt = Tgt::start();
    let options = LunOptions {
        thin: true,
        ..LunOptions::default()
    };
    let target = tgt.disk(DISK_BYTES, &options);
    let recorder = Proxy::recording(tgt.port());
    (tgt, target, recorder)
}

/// Every kind of request, through the daemon.
fn use_disk(url: &str, arguments: &[&str]) {
    let mut daemon = Daemon::start(url, arguments);
    let mut frontend = daemon.connect(FrontendConfig::default());
    let queue = frontend.queue(0);
    assert_eq!(queue.write(8, &pattern(512)).unwrap(), S_OK);
    assert_eq!(queue.write(64, &pattern(LONG_BYTES)).unwrap(), S_OK);
    let length_bytes = u32::try_from(LONG_BYTES).unwrap();
    assert_eq!(queue.read(64, length_bytes).unwrap().0, S_OK);
    assert_eq!(queue.flush().unwrap(), S_OK);
    assert_eq!(queue.discard(1024, 64).unwrap(), S_OK);
    assert_eq!(queue.write_zeroes(2048, 64, false).unwrap(), S_OK);
    drop(frontend);
    assert!(daemon.terminate(END_LIMIT).0.success());
}

/// What tshark says of a capture, in full.
fn dissect(recorder: &Proxy) -> String {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), capture::of(&recorder.segments())).unwrap();
    let mut command = Command::new("tshark");
    command.args(["-V", "-n", "-r"]).arg(file.path());
    let output = command.output();
    let output = output.expect("tshark runs: install the Debian package tshark");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark failed: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The names of all PDUs in a dissection; panics when it complains about any of them.
fn names(dissection: &str) -> BTreeSet<&str> {
    let complaints: Vec<_> = dissection
        .lines()
        .filter(|line| {
            let line = line.to_lowercase();
            ["malformed", "unreassembled", "bad crc", "unknown (0x"]
                .iter()
                .any(|complaint| line.contains(complaint))
        })
        .collect();
    assert!(complaints.is_empty(), "tshark says: {complaints:#?}");
    dissection
        .lines()
        .filter_map(|line| line.strip_prefix("iSCSI ("))
        .filter_map(|line| line.strip_suffix(')'))
        .collect()
}

fn assert_names(dissection: &str, wanted: &[&str]) {
    let found = names(dissection);
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !found.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no {missing:?} among {found:?}");
}

#[test]
fn a_discovery_is_well_formed() {
    let (_tgt, _target, recorder) = recorded_disk();
    let portal = format!("127.0.0.1:{}", recorder.port());
    assert_eq!(daemon::run(&["discover", &portal]).code, Some(0));
    let wanted = [
        "Login Command",
        "Login Response",
        "Text Command",
        "Text Response",
    ];
    assert_names(&dissect(&recorder), &wanted);
}

#[test]
fn a_probe_is_well_formed_and_asks_for_what_it_says() {
    let (tgt, target, recorder) = recorded_disk();
    assert_eq!(
        daemon::run(&["probe", &recorder.url(&tgt.url(&target, 1))]).code,
        Some(0)
    );
    let dissection = dissect(&recorder);
    assert_names(
        &dissection,
        &["SCSI Command", "SCSI Data In", "Logout Command"],
    );
    for command in [
        "Inquiry",
        "Report LUNs",
        "Mode Sense(6)",
        "Read Capacity(16)",
    ] {
        assert!(dissection.contains(command), "no {command} in {dissection}");
    }
}

#[test]
fn a_session_with_every_request_is_well_formed() {
    let (tgt, target, recorder) = recorded_disk();
    use_disk(&recorder.url(&tgt.url(&target, 1)), &[]);
    assert_names(&dissect(&recorder), &SESSION);
}

#[test]
fn a_session_with_digests_is_well_formed() {
    let (mut tgt, target, recorder) = recorded_disk();
    tgt.set(&target, "HeaderDigest", "CRC32C,None");
    tgt.set(&target, "DataDigest", "CRC32C,None");
    let digests = ["--header-digest", "crc32c", "--data-digest", "crc32c"];
    use_disk(&recorder.url(&tgt.url(&target, 1)), &digests);
    let dissection = dissect(&recorder);
    assert_names(&dissection, &SESSION);
    for name in ["HeaderDigest: 0x", "DataDigest: 0x"] {
        let digests: Vec<_> = dissection
            .lines()
            .filter(|line| line.contains(name))
            .collect();
        let good = |line: &&str| line.ends_with("(Good CRC32)");
        assert!(
            !digests.is_empty() && digests.iter().all(good),
            "{digests:#?}"
        );
    }
}
