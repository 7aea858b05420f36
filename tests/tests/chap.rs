//! CHAP between the binary and two targets: one-way and mutual, every algorithm and encoding, and
//! every place that name and secret can come from.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use iscsi_test_target::{BinaryEncoding, ChapAlgorithm, ChapConfig, Event, TestTarget};
use tempfile::TempDir;
use vhost_user_iscsi_tests::chap::{
    OUR_SECRET, OUR_USER, TARGET_SECRET, TARGET_USER, mutual, one_way, start_chap_target,
};
use vhost_user_iscsi_tests::daemon::{Daemon, Launch, Output, run_with_env};
use vhost_user_iscsi_tests::disk::{DISK_BYTES, pattern};
use vhost_user_iscsi_tests::frontend::FrontendConfig;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::INITIATOR_NAME;
use vhost_user_iscsi_tests::tgt::{LunOptions, Target, Tgt};

/// The names of `auth=`, with the numbers of RFC 7143 section 12.1.3 and its successors.
const ALGORITHMS: [(&str, ChapAlgorithm); 4] = [
    ("md5", ChapAlgorithm::Md5),
    ("sha1", ChapAlgorithm::Sha1),
    ("sha-256", ChapAlgorithm::Sha256),
    ("sha3-256", ChapAlgorithm::Sha3_256),
];

/// Options that name users and secret files.
struct Options {
    _directory: TempDir,
    one_way: Vec<String>,
    mutual: Vec<String>,
}

impl Options {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let file = |name: &str, secret: &str| {
            let path = directory.path().join(name);
            fs::write(&path, format!("{secret}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ours, theirs) = (file("ours", OUR_SECRET), file("theirs", TARGET_SECRET));
        let owned = |options: &[&str]| options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
        let name = ["--initiator-name", INITIATOR_NAME];
        let one_way = [
            name,
            ["--chap-user", OUR_USER],
            ["--chap-secret-file", &ours],
        ]
        .concat();
        let target = [
            "--chap-target-user",
            TARGET_USER,
            "--chap-target-secret-file",
            &theirs,
        ];
        Self {
            one_way: owned(&one_way),
            mutual: owned(&[one_way.as_slice(), &target].concat()),
            _directory: directory,
        }
    }
}

fn run(head: &[&str], options: &[String], environment: &[(&str, &str)]) -> Output {
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    run_with_env(&[head, &options].concat(), environment)
}

fn works(head: &[&str], options: &[String]) {
    let output = run(head, options, &[]);
    assert_eq!(output.code, Some(0), "{head:?}: {}", output.stderr);
    assert_eq!(output.stderr, "", "{head:?}");
}

/// All values of a key that the initiator sent.
fn sent(target: &TestTarget, key: &str) -> Vec<String> {
    let mut values = Vec::new();
    for event in target.events() {
        if let Event::LoginRequest { keys, .. } = event {
            let matching = keys.into_iter().filter(|(name, _)| name == key);
            values.extend(matching.map(|(_, value)| value));
        }
    }
    values
}

#[test]
fn every_algorithm_and_encoding_works_one_way_and_mutual() {
    let options = Options::new();
    for (_, algorithm) in ALGORITHMS {
        for encoding in [BinaryEncoding::Hex, BinaryEncoding::Base64] {
            for (chap, options) in [(one_way(), &options.one_way), (mutual(), &options.mutual)] {
                let target = start_chap_target(ChapConfig {
                    algorithms: vec![algorithm],
                    encoding,
                    ..chap
                });
                works(&["probe", &target.url(0)], options);
                works(&["discover", &target.portal().to_string()], options);
                assert_eq!(target.violations(), [""; 0]);
            }
        }
    }
}

#[test]
fn challenges_of_1_to_1024_bytes_are_answered() {
    let options = Options::new();
    for challenge_bytes in [1, 15, 16, 255, 256, 1023, 1024] {
        let target = start_chap_target(ChapConfig {
            challenge_bytes,
            ..mutual()
        });
        works(&["probe", &target.url(0)], &options.mutual);
    }
}

#[test]
fn the_strongest_algorithm_is_offered_first() {
    let target = start_chap_target(one_way());
    works(&["probe", &target.url(0)], &Options::new().one_way);
    assert_eq!(sent(&target, "CHAP_A"), ["8,7,6,5"]);
}

#[test]
fn the_auth_key_of_the_url_offers_one_algorithm_only() {
    let options = Options::new();
    for (name, algorithm) in ALGORITHMS {
        let target = start_chap_target(mutual());
        let url = format!("{}?auth={name}", target.url(0));
        works(&["probe", &url], &options.mutual);
        assert_eq!(sent(&target, "CHAP_A"), [algorithm.number().to_string()]);
    }
}

#[test]
fn users_of_the_url_and_secrets_of_the_environment_are_used() {
    let target = start_chap_target(mutual());
    let name = ["--initiator-name", INITIATOR_NAME].map(str::to_owned);
    let secrets = [
        ("LIBISCSI_CHAP_PASSWORD", OUR_SECRET),
        ("LIBISCSI_CHAP_TARGET_PASSWORD", TARGET_SECRET),
    ];
    let users = [
        ("LIBISCSI_CHAP_USERNAME", OUR_USER),
        ("LIBISCSI_CHAP_TARGET_USERNAME", TARGET_USER),
    ];
    let url = target.url(0);
    let with_users = url.replace("iscsi://", "iscsi://alice@") + "?target_user=storage";
    for (url, environment) in [
        (&url, [secrets, users].concat()),
        (&with_users, secrets.to_vec()),
    ] {
        let output = run(&["probe", url], &name, &environment);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
    assert_eq!(sent(&target, "CHAP_N"), [OUR_USER, OUR_USER]);
}

/// As systemd hands them over: a directory of files that show access for the group.
#[test]
fn secrets_are_taken_from_credentials_of_systemd() {
    let target = start_chap_target(mutual());
    let directory = TempDir::new().unwrap();
    for (name, secret) in [("ours", OUR_SECRET), ("array.theirs", TARGET_SECRET)] {
        let path = directory.path().join(name);
        fs::write(&path, secret).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    }
    let options = [
        ["--initiator-name", INITIATOR_NAME],
        ["--chap-user", OUR_USER],
        ["--chap-secret-credential", "ours"],
        ["--chap-target-user", TARGET_USER],
        ["--chap-target-secret-credential", "array.theirs"],
    ];
    let options = options.concat().into_iter().map(str::to_owned);
    let environment = [("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())];
    let url = target.url(0);
    let output = run(&["probe", &url], &options.collect::<Vec<_>>(), &environment);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

#[test]
fn an_option_wins_over_url_and_environment() {
    let target = start_chap_target(one_way());
    let url = target.url(0).replace("iscsi://", "iscsi://bob@");
    let environment = [
        ("LIBISCSI_CHAP_USERNAME", "mallory"),
        ("LIBISCSI_CHAP_PASSWORD", "another-secret-of-tests"),
    ];
    let output = run(&["probe", &url], &Options::new().one_way, &environment);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(sent(&target, "CHAP_N"), [OUR_USER]);
}

#[test]
fn a_secret_goes_over_no_wire_and_into_no_log() {
    let target = start_chap_target(mutual());
    let mut options = Options::new().mutual;
    options.push("-vvv".to_owned());
    let output = run(&["probe", &target.url(0)], &options, &[]);
    let everything = format!("{:?}{}{}", target.events(), output.stdout, output.stderr);
    for secret in [OUR_SECRET, TARGET_SECRET] {
        assert!(!everything.contains(secret));
    }
}

/// A disk on tgt that demands CHAP, and answers it when `mutual`.
fn tgt_disk(is_mutual: bool) -> (Tgt, Target) {
    let mut tgt = Tgt::start();
    let target = tgt.disk(DISK_BYTES, &LunOptions::default());
    tgt.chap_incoming(&target, OUR_USER, OUR_SECRET);
    if is_mutual {
        tgt.chap_outgoing(&target, TARGET_USER, TARGET_SECRET);
    }
    (tgt, target)
}

/// tgt takes 7, the number of SHA-256, for SHA-1: the second login offers what it understands.
#[test]
fn tgt_is_logged_in_to_with_the_default_algorithms() {
    let options = Options::new();
    let (tgt, target) = tgt_disk(false);
    works(&["probe", &tgt.url(&target, 1)], &options.one_way);
    let (tgt, target) = tgt_disk(true);
    works(&["probe", &tgt.url(&target, 1)], &options.mutual);
}

#[test]
fn tgt_is_logged_in_to_with_md5() {
    let options = Options::new();
    let (tgt, target) = tgt_disk(true);
    works(
        &["probe", &format!("{}?auth=md5", tgt.url(&target, 1))],
        &options.mutual,
    );
}

#[test]
fn a_disk_behind_chap_is_served_and_makes_its_sessions_anew() {
    let options = Options::new();
    let (mut tgt, target) = tgt_disk(true);
    let daemon: Daemon = Launch::new(&tgt.url(&target, 1))
        .args(options.mutual.clone())
        .start();
    let mut frontend = daemon.connect(FrontendConfig::default());
    assert_eq!(frontend.queue(0).write(8, &pattern(4096)).unwrap(), S_OK);
    tgt.restart();
    assert_eq!(
        frontend.queue(0).read(8, 4096).unwrap(),
        (S_OK, pattern(4096))
    );
}
