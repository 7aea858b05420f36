//! CHAP by hand, with hashes computed here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]
#![allow(dead_code, reason = "the client has more than these tests need")]

mod client;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, NAME, Pdu, SECURITY_TO_OPERATIONAL};
use iscsi_test_target::{
    BinaryEncoding, ChapConfig, LoginFault, Rule, Secret, TargetConfig, TestTarget,
};
use sha1::Digest as _;

const SECRET: &[u8] = b"secret of twelve";
const TARGET_SECRET: &[u8] = b"another secret of it";
const OWN_CHALLENGE: [u8; 4] = [1, 2, 3, 4];

fn target(encoding: BinaryEncoding) -> TestTarget {
    let chap = ChapConfig {
        encoding,
        ..ChapConfig::new("me", Secret::new(SECRET))
    };
    let chap = chap.mutual("it", Secret::new(TARGET_SECRET));
    TestTarget::start(TargetConfig {
        chap: Some(chap),
        ..TargetConfig::default()
    })
    .unwrap()
}

fn hash(algorithm: u8, identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    let text = [&[identifier], secret, challenge].concat();
    match algorithm {
        5 => md5::Md5::digest(text).to_vec(),
        6 => sha1::Sha1::digest(text).to_vec(),
        7 => sha2::Sha256::digest(text).to_vec(),
        _ => sha3::Sha3_256::digest(text).to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold("0x".into(), |text, byte| format!("{text}{byte:02x}"))
}

fn value(answer: &Pdu, key: &str) -> String {
    let text = answer.text();
    let item = text
        .split('\0')
        .find_map(|item| item.strip_prefix(&format!("{key}=")));
    item.unwrap_or_else(|| panic!("no {key} in {text:?}"))
        .to_owned()
}

fn binary(answer: &Pdu, key: &str) -> Vec<u8> {
    let text = value(answer, key);
    if let Some(digits) = text.strip_prefix("0b") {
        return STANDARD.decode(digits).unwrap();
    }
    let digits = text.strip_prefix("0x").unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A login up to the target's challenge.
fn challenge(target: &TestTarget, algorithm: u8) -> (Client, Pdu) {
    let mut client = Client::connect(target);
    let names = format!(
        "InitiatorName={NAME}\0TargetName={}\0AuthMethod=CHAP,None\0",
        target.name()
    );
    let method = client.login(SECURITY_TO_OPERATIONAL, &names);
    assert_eq!(
        (value(&method, "AuthMethod").as_str(), method.header[1]),
        ("CHAP", 0)
    );
    let answer = client.login(0, &format!("CHAP_A={algorithm}\0"));
    (client, answer)
}

/// The rest of it: our answer, and a challenge of our own.
fn prove(client: &mut Client, challenge: &Pdu, algorithm: u8) -> Pdu {
    let identifier = value(challenge, "CHAP_I").parse().unwrap();
    let answer = hash(algorithm, identifier, SECRET, &binary(challenge, "CHAP_C"));
    let text = format!(
        "CHAP_N=me\0CHAP_R={}\0CHAP_I=9\0CHAP_C={}\0",
        hex(&answer),
        hex(&OWN_CHALLENGE)
    );
    client.login(SECURITY_TO_OPERATIONAL, &text)
}

#[test]
fn proves_itself_with_every_algorithm_in_both_encodings() {
    for encoding in [BinaryEncoding::Hex, BinaryEncoding::Base64] {
        let target = target(encoding);
        for algorithm in [5, 6, 7, 8] {
            let (mut client, challenge) = challenge(&target, algorithm);
            let proof = prove(&mut client, &challenge, algorithm);
            assert_eq!(
                (proof.status(), proof.header[1]),
                ((0, 0), SECURITY_TO_OPERATIONAL)
            );
            let expected = hash(algorithm, 9, TARGET_SECRET, &OWN_CHALLENGE);
            assert_eq!(binary(&proof, "CHAP_R"), expected, "algorithm {algorithm}");
        }
    }
}

#[test]
fn refuses_algorithms_it_does_not_know() {
    let (_, answer) = challenge(&target(BinaryEncoding::Hex), 99);
    assert_eq!(answer.status(), (2, 1));
}

#[test]
fn faults_spoil_its_own_proof() {
    let target = target(BinaryEncoding::Hex);
    let (mut client, given) = challenge(&target, 5);
    let right = binary(&prove(&mut client, &given, 5), "CHAP_R");
    for fault in [LoginFault::WrongChapAnswer, LoginFault::ReflectChapAnswer] {
        let rule = target.add(Rule::login(fault).once());
        let (mut client, given) = challenge(&target, 5);
        let proof = prove(&mut client, &given, 5);
        assert_eq!((target.remove(rule), proof.status()), (1, (0, 0)));
        assert_ne!(binary(&proof, "CHAP_R"), right);
    }
}

#[test]
fn faults_spoil_its_challenge() {
    let target = target(BinaryEncoding::Hex);
    let (mut client, given) = challenge(&target, 5);
    prove(&mut client, &given, 5);
    target.add(Rule::login(LoginFault::ReflectChapChallenge).once());
    assert_eq!(binary(&challenge(&target, 5).1, "CHAP_C"), OWN_CHALLENGE);
    target.add(Rule::login(LoginFault::ChapChallengeBytes(1025)).once());
    assert_eq!(binary(&challenge(&target, 5).1, "CHAP_C").len(), 1025);
    target.add(Rule::login(LoginFault::unknown_chap_algorithm()).once());
    assert_eq!(value(&challenge(&target, 5).1, "CHAP_A"), "99");
}
