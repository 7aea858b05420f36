//! What a login does with a target that behaves, and with each kind that does not.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::login::settings::DigestPreference;
use crate::login::settings::{ChapCredentials, ChapSettings, Isid, Secret};
use crate::name::IscsiName;
use crate::pdu::{BHS_LENGTH_BYTES, data_segment_length};
use crate::text::format_hexadecimal;

const TAG: u32 = 0x0102_0304;
const ISID: [u8; 6] = [0x80, 1, 2, 3, 4, 5];
const TO_OPERATIONAL: u8 = 0x81;
const TO_FULL_FEATURE: u8 = 0x87;
const STAY_IN_SECURITY: u8 = 0x00;
const STAY_IN_OPERATIONAL: u8 = 0x04;

fn settings() -> LoginSettings {
    LoginSettings {
        initiator_name: IscsiName::parse("iqn.2001-04.com.example:host").unwrap(),
        initiator_alias: None,
        target_name: Some(IscsiName::parse("iqn.2001-04.com.example:disk").unwrap()),
        isid: Isid(ISID),
        chap: None,
        header_digest: DigestPreference::Avoid,
        data_digest: DigestPreference::Avoid,
        expected_portal_group_tag: None,
    }
}

fn credentials(name: &str, secret: &str) -> ChapCredentials {
    ChapCredentials {
        name: name.into(),
        secret: Secret::new(secret.into()),
    }
}

fn with_chap(target: Option<ChapCredentials>) -> LoginSettings {
    let chap = ChapSettings {
        initiator: credentials("user", "a secret of ours"),
        target,
        algorithms: vec![ChapAlgorithm::Sha256, ChapAlgorithm::Md5],
    };
    LoginSettings {
        chap: Some(chap),
        ..settings()
    }
}

fn mutual() -> LoginSettings {
    with_chap(Some(credentials("disk", "a secret of theirs")))
}

const ENTROPY: LoginEntropy = LoginEntropy {
    initiator_task_tag: TAG,
    cmd_sn: SerialNumber(100),
    chap_identifier: 77,
    chap_challenge: [0xc5; 32],
};

/// A scripted target: it answers with what the test says, well-formed unless the test changes it.
struct Session {
    login: Login,
    /// What we sent last.
    sent: Vec<u8>,
    stat_sn: u32,
}

impl Session {
    fn new(settings: LoginSettings) -> Self {
        let mut login = Login::new(settings, ENTROPY).unwrap();
        let sent = login.start().unwrap();
        Self {
            login,
            sent,
            stat_sn: 1000,
        }
    }

    /// A session that waits for the answer to its operational keys.
    fn with_parameters_offered(settings: LoginSettings) -> Self {
        let mut session = Self::new(settings);
        session.send(TO_OPERATIONAL, "AuthMethod=None\0TargetPortalGroupTag=1\0");
        session
    }

    fn response(&mut self, flags: u8, length: usize) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        (bhs[0], bhs[1]) = (0x23, flags);
        bhs[5..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
        bhs[8..14].copy_from_slice(&ISID);
        if flags == TO_FULL_FEATURE {
            bhs[15] = 9;
        }
        bhs[16..20].copy_from_slice(&TAG.to_be_bytes());
        bhs[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        bhs[28..32].copy_from_slice(&100_u32.to_be_bytes());
        bhs[32..36].copy_from_slice(&131_u32.to_be_bytes());
        self.stat_sn = self.stat_sn.wrapping_add(1);
        bhs
    }

    fn receive(&mut self, flags: u8, text: &str) -> Result<LoginStep, LoginError> {
        let bhs = self.response(flags, text.len());
        let step = self.login.receive(&bhs, text.as_bytes())?;
        if let LoginStep::Send(pdu) = &step {
            self.sent.clone_from(pdu);
        }
        Ok(step)
    }

    /// A response that goes on with the login.
    fn send(&mut self, flags: u8, text: &str) {
        let step = self.receive(flags, text).unwrap();
        assert!(matches!(step, LoginStep::Send(_)), "{step:?}");
    }

    fn finish(&mut self, text: &str) -> Negotiated {
        match self.receive(TO_FULL_FEATURE, text).unwrap() {
            LoginStep::Done(negotiated) => *negotiated,
            step => panic!("{step:?}"),
        }
    }

    fn flags(&self) -> u8 {
        self.sent[1]
    }

    /// The text of what we sent last.
    fn text(&self) -> String {
        let bhs: &Bhs = self.sent.first_chunk().unwrap();
        let length = data_segment_length(bhs) as usize;
        String::from_utf8(self.sent[48..48 + length].to_vec()).unwrap()
    }

    fn value(&self, key: &str) -> String {
        let text = self.text();
        let pair = text
            .split('\0')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        pair.unwrap_or_else(|| panic!("no {key} in {text:?}"))
            .into()
    }
}

fn misbehaviour(result: Result<LoginStep, LoginError>) -> Misbehaviour {
    match result {
        Err(LoginError::TargetMisbehaved(what)) => what,
        other => panic!("{other:?}"),
    }
}

fn authentication_failure(result: Result<LoginStep, LoginError>) -> AuthenticationFailure {
    match result {
        Err(LoginError::AuthenticationFailed(what)) => what,
        other => panic!("{other:?}"),
    }
}

// A login that goes well.

#[test]
fn the_first_request_says_who_where_and_how_in_the_security_stage() {
    let session = Session::new(settings());
    assert_eq!(session.sent[..2], [0x43, TO_OPERATIONAL]);
    assert_eq!(session.sent[8..14], ISID);
    assert_eq!(session.sent[14..16], [0, 0], "TSIH");
    assert_eq!(
        session.text(),
        "TargetName=iqn.2001-04.com.example:disk\0InitiatorName=iqn.2001-04.com.example:host\0\
         SessionType=Normal\0AuthMethod=None\0"
    );
}

#[test]
fn a_login_without_authentication_takes_two_requests() {
    let mut session = Session::with_parameters_offered(settings());
    assert_eq!(session.flags(), TO_FULL_FEATURE);
    assert_eq!(session.sent[28..32], 1001_u32.to_be_bytes(), "ExpStatSN");
    assert!(
        session
            .text()
            .contains("InitialR2T=No\0ImmediateData=Yes\0")
    );
    let negotiated = session.finish(
        "HeaderDigest=None\0DataDigest=None\0MaxConnections=1\0InitialR2T=No\0ImmediateData=Yes\0\
         MaxRecvDataSegmentLength=65536\0MaxBurstLength=1048576\0FirstBurstLength=131072\0\
         DefaultTime2Wait=2\0DefaultTime2Retain=0\0MaxOutstandingR2T=4\0DataPDUInOrder=Yes\0\
         DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0\0TargetAlias=A disk\0",
    );
    assert_eq!(
        negotiated,
        Negotiated {
            header_digest: false,
            data_digest: false,
            max_recv_data_segment_length_bytes: 262_144,
            target_max_recv_data_segment_length_bytes: 65_536,
            max_burst_length_bytes: 1_048_576,
            first_burst_length_bytes: 131_072,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 4,
            default_time2wait_s: 2,
            default_time2retain_s: 0,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            error_recovery_level: 0,
            max_connections: 1,
            target_alias: Some("A disk".into()),
            target_portal_group_tag: Some(1),
            tsih: 9,
            authentication: "None".into(),
            cmd_sn: SerialNumber(100),
            exp_cmd_sn: SerialNumber(100),
            max_cmd_sn: SerialNumber(131),
            exp_stat_sn: SerialNumber(1002),
        }
    );
}

#[test]
fn keys_that_the_target_leaves_open_keep_their_defaults() {
    let negotiated = Session::with_parameters_offered(settings()).finish("");
    assert!(negotiated.initial_r2t && negotiated.immediate_data);
    assert_eq!(negotiated.target_max_recv_data_segment_length_bytes, 8192);
    assert_eq!(negotiated.max_burst_length_bytes, 262_144);
    assert_eq!(negotiated.first_burst_length_bytes, 65_536);
    assert_eq!(
        (
            negotiated.default_time2wait_s,
            negotiated.max_outstanding_r2t
        ),
        (2, 1)
    );
}

#[test]
fn a_first_burst_beyond_the_burst_is_cut_to_it() {
    let mut session = Session::with_parameters_offered(settings());
    let negotiated = session.finish("MaxBurstLength=16384\0FirstBurstLength=65536\0");
    assert_eq!(negotiated.first_burst_length_bytes, 16_384);
}

#[test]
fn a_discovery_session_sends_only_what_means_something_there() {
    let mut session = Session::new(LoginSettings {
        target_name: None,
        ..settings()
    });
    assert!(session.text().contains("SessionType=Discovery\0"));
    assert!(!session.text().contains("TargetName"));
    session.send(TO_OPERATIONAL, "AuthMethod=None\0");
    assert_eq!(
        session.text(),
        "HeaderDigest=None,CRC32C\0DataDigest=None,CRC32C\0MaxRecvDataSegmentLength=262144\0\
         DefaultTime2Wait=0\0DefaultTime2Retain=0\0ErrorRecoveryLevel=0\0"
    );
    session.send(STAY_IN_OPERATIONAL, "MaxBurstLength=65536\0");
    assert_eq!(session.text(), "MaxBurstLength=Irrelevant\0");
    session.finish("");
}

#[test]
fn a_target_that_stays_in_a_stage_is_asked_again_to_move_on() {
    let mut session = Session::new(settings());
    session.send(STAY_IN_SECURITY, "AuthMethod=None\0");
    assert_eq!(
        (session.flags(), session.text()),
        (TO_OPERATIONAL, String::new())
    );
    session.send(STAY_IN_SECURITY, "");
    assert_eq!(session.flags(), TO_OPERATIONAL);
    session.send(TO_OPERATIONAL, "");
    session.send(STAY_IN_OPERATIONAL, "MaxRecvDataSegmentLength=8192\0");
    assert_eq!(
        (session.flags(), session.text()),
        (TO_FULL_FEATURE, String::new())
    );
    session.finish("");
}

#[test]
fn what_the_target_offers_is_answered_as_its_rule_demands() {
    let mut session = Session::with_parameters_offered(settings());
    session.send(
        STAY_IN_OPERATIONAL,
        "X-com.example.speed=high\0IFMarker=Yes\0OFMarkInt=2048~8192\0iSCSIProtocolLevel=2\0\
         TaskReporting=FastAbort,RFC3720\0X#NodeArchitecture=x86\0",
    );
    assert_eq!(
        session.text(),
        "X-com.example.speed=NotUnderstood\0IFMarker=Reject\0OFMarkInt=Reject\0\
         iSCSIProtocolLevel=1\0TaskReporting=RFC3720\0"
    );
    session.finish("");
}

#[test]
fn the_trace_tells_what_became_of_each_key_and_nothing_of_chap() {
    let mut session = Session::new(mutual());
    prove(&mut session);
    session.finish("InitialR2T=Yes\0Unheard=1\0");
    let lines: Vec<String> = session.login.trace().map(ToString::to_string).collect();
    assert!(lines.contains(&r#"InitialR2T: ours "No", theirs "Yes", result "Yes""#.into()));
    assert!(lines.contains(&r#"AuthMethod: ours "CHAP", theirs "CHAP", result "CHAP""#.into()));
    assert!(lines.contains(&r#"MaxBurstLength: ours "16773120", result "262144""#.into()));
    assert!(!lines.iter().any(|line| line.contains("CHAP_")));
}

// The C bit.

#[test]
fn a_list_in_several_pdus_is_heard_as_one() {
    let mut session = Session::with_parameters_offered(settings());
    session.send(0x44, "MaxBurst");
    assert_eq!(
        (session.flags(), session.text()),
        (STAY_IN_OPERATIONAL, String::new())
    );
    session.send(STAY_IN_OPERATIONAL, "Length=65536\0");
    assert_eq!(session.flags(), TO_FULL_FEATURE);
    assert_eq!(session.finish("").max_burst_length_bytes, 65_536);
}

/// A target that offers so much that our answers need more than one PDU.
fn session_with_long_answers() -> Session {
    let mut session = Session::with_parameters_offered(settings());
    let offers = |from: u32| {
        (from..from + 110)
            .map(|i| format!("X-{i:060}=1\0"))
            .collect::<String>()
    };
    session.send(0x44, &offers(0));
    session.send(STAY_IN_OPERATIONAL, &offers(110));
    session
}

#[test]
fn a_long_list_of_ours_is_cut_and_asks_to_move_on_only_at_its_end() {
    let mut session = session_with_long_answers();
    assert_eq!((session.flags(), session.text().len()), (0x44, 8192));
    session.send(STAY_IN_OPERATIONAL, "");
    assert_eq!((session.flags(), session.text().len()), (0x44, 8192));
    session.send(STAY_IN_OPERATIONAL, "");
    assert_eq!(session.flags(), TO_FULL_FEATURE);
    session.finish("");
}

#[test]
fn rejects_text_before_our_list_is_complete() {
    let mut session = session_with_long_answers();
    let result = session.receive(STAY_IN_OPERATIONAL, "TargetAlias=now\0");
    assert_eq!(misbehaviour(result), Misbehaviour::Interrupted);
}

#[test]
fn a_target_that_continues_for_ever_is_left_after_64_requests() {
    let mut session = Session::new(settings());
    for _ in 1..MAX_LOGIN_REQUESTS {
        session.send(0x40, "");
    }
    let result = session.receive(0x40, "");
    assert_eq!(
        misbehaviour(result),
        Misbehaviour::NeverEnds { requests: 64 }
    );
}

#[test]
fn rejects_a_list_beyond_64_kib() {
    let mut session = Session::new(settings());
    let text = "x".repeat(8192);
    for _ in 0..8 {
        session.send(0x40, &text);
    }
    let result = session.receive(0x40, "x");
    assert_eq!(
        misbehaviour(result),
        Misbehaviour::Text(TextError::ListTooLong)
    );
}

#[test]
fn rejects_more_keys_than_a_login_can_need() {
    let mut session = Session::with_parameters_offered(settings());
    for round in 0..3 {
        let offers: String = (0..100).map(|i| format!("X-{round}-{i}=1\0")).collect();
        match session.receive(STAY_IN_OPERATIONAL, &offers) {
            Ok(_) => {}
            result => return assert_eq!(misbehaviour(result), Misbehaviour::TooManyKeys),
        }
    }
    panic!("300 keys were taken");
}

#[test]
fn a_segment_has_8192_bytes_at_most() {
    let padded = |n: usize| format!("{:\0<n$}", "AuthMethod=None\0");
    Session::new(settings()).send(TO_OPERATIONAL, &padded(8192));
    let result = Session::new(settings()).receive(TO_OPERATIONAL, &padded(8193));
    assert_eq!(
        misbehaviour(result),
        Misbehaviour::SegmentTooLong { length_bytes: 8193 }
    );
}

// Headers that a target may not send.

/// Changes one byte of an otherwise good first response.
fn first_response_with(byte: usize, value: u8) -> Result<LoginStep, LoginError> {
    let mut session = Session::new(settings());
    let mut bhs = session.response(TO_OPERATIONAL, 0);
    bhs[byte] = value;
    session.login.receive(&bhs, b"")
}

#[test]
fn rejects_each_field_that_is_not_an_echo() {
    for (byte, field) in [(8, "ISID"), (13, "ISID"), (16, "Initiator Task Tag")] {
        let what = misbehaviour(first_response_with(byte, 0x55));
        assert_eq!(what, Misbehaviour::NotEchoed { field });
    }
}

#[test]
fn rejects_a_version_other_than_0() {
    let what = misbehaviour(first_response_with(3, 1));
    assert_eq!(what, Misbehaviour::Version { version_active: 1 });
    assert!(
        first_response_with(2, 1).is_ok(),
        "a target may know later versions"
    );
}

#[test]
fn rejects_other_pdus_than_a_login_response() {
    let what = misbehaviour(first_response_with(0, 0x20));
    assert_eq!(what, Misbehaviour::NotALoginResponse { opcode: 0x20 });
    assert!(matches!(
        misbehaviour(first_response_with(0, 0x3f)),
        Misbehaviour::Rejected(_)
    ));
    assert!(matches!(
        misbehaviour(first_response_with(0, 0x13)),
        Misbehaviour::Pdu(_)
    ));
}

#[test]
fn rejects_a_stat_sn_that_does_not_count_by_one() {
    for wrong in [1000, 1002] {
        let mut session = Session::with_parameters_offered(settings());
        session.stat_sn = wrong;
        let what = misbehaviour(session.receive(TO_FULL_FEATURE, ""));
        assert_eq!(
            what,
            Misbehaviour::StatSn {
                expected: 1001,
                received: wrong
            }
        );
    }
}

#[test]
fn a_stat_sn_may_wrap() {
    let mut session = Session::new(settings());
    session.stat_sn = u32::MAX;
    session.send(TO_OPERATIONAL, "");
    assert_eq!(session.finish("").exp_stat_sn, SerialNumber(1));
}

#[test]
fn rejects_a_transit_that_was_not_asked_for() {
    let result = Session::new(settings()).receive(0x83, "");
    let received = Stage::FullFeature;
    assert_eq!(
        misbehaviour(result),
        Misbehaviour::UnaskedTransit { received }
    );
}

#[test]
fn rejects_a_transit_in_the_middle_of_a_continued_list() {
    let mut session = Session::new(settings());
    session.send(0x40, "AuthMethod=");
    let result = session.receive(TO_OPERATIONAL, "None\0");
    let received = Stage::Operational;
    assert_eq!(
        misbehaviour(result),
        Misbehaviour::UnaskedTransit { received }
    );
}

#[test]
fn rejects_a_response_for_another_stage() {
    let result = Session::new(settings()).receive(STAY_IN_OPERATIONAL, "");
    let (expected, received) = (Stage::Security, Stage::Operational);
    assert_eq!(
        misbehaviour(result),
        Misbehaviour::WrongStage { expected, received }
    );
}

#[test]
fn rejects_a_final_response_without_a_session_handle() {
    let mut session = Session::with_parameters_offered(settings());
    let mut bhs = session.response(TO_FULL_FEATURE, 0);
    bhs[15] = 0;
    assert_eq!(
        misbehaviour(session.login.receive(&bhs, b"")),
        Misbehaviour::NoTsih
    );
}

#[test]
fn another_portal_group_than_expected_is_refused_and_none_is_accepted() {
    let expecting = || LoginSettings {
        expected_portal_group_tag: Some(2),
        ..settings()
    };
    let result = Session::new(expecting()).receive(TO_OPERATIONAL, "TargetPortalGroupTag=1\0");
    let mismatch = Misbehaviour::PortalGroupTag {
        expected: 2,
        received: 1,
    };
    assert_eq!(misbehaviour(result), mismatch);
    Session::new(expecting()).send(TO_OPERATIONAL, "TargetPortalGroupTag=2\0");
    Session::new(expecting()).send(TO_OPERATIONAL, "");
}

// Keys that a target may not send.

#[test]
fn rejects_each_key_in_the_wrong_place() {
    for text in [
        "InitiatorName=iqn.2001-04.com.example:x\0",
        "TargetName=iqn.2001-04.com.example:x\0",
        "SendTargets=All\0",
        "SessionType=Normal\0",
        "HeaderDigest=None\0",
        "MaxBurstLength=65536\0",
        "IFMarker=No\0",
        "CHAP_A=5\0",
    ] {
        let what = misbehaviour(Session::new(settings()).receive(TO_OPERATIONAL, text));
        assert!(
            matches!(what, Misbehaviour::KeyNotAllowed { .. }),
            "{text:?}: {what}"
        );
    }
}

#[test]
fn a_declaration_of_ours_that_is_not_understood_does_no_harm() {
    Session::new(settings()).send(TO_OPERATIONAL, "InitiatorAlias=NotUnderstood\0");
}

#[test]
fn rejects_each_answer_that_the_rule_of_its_key_excludes() {
    for (text, what) in [
        ("HeaderDigest=CRC64\0", "NotOffered"),
        ("HeaderDigest=Yes\0", "NotOffered"),
        ("MaxConnections=2\0", "WrongResult"),
        ("MaxConnections=0\0", "BadValue"),
        ("InitialR2T=yes\0", "BadValue"),
        ("InitialR2T=NotUnderstood\0", "NotNegotiated"),
        ("ImmediateData=Irrelevant\0", "NotNegotiated"),
        ("MaxRecvDataSegmentLength=511\0", "BadValue"),
        ("MaxRecvDataSegmentLength=16777216\0", "BadValue"),
        ("MaxBurstLength=16777215\0", "WrongResult"),
        ("MaxBurstLength=511\0", "BadValue"),
        ("FirstBurstLength=262145\0", "WrongResult"),
        ("DefaultTime2Wait=3601\0", "BadValue"),
        ("DefaultTime2Retain=1\0", "WrongResult"),
        ("MaxOutstandingR2T=9\0", "WrongResult"),
        ("DataPDUInOrder=No\0", "WrongResult"),
        ("DataSequenceInOrder=No\0", "WrongResult"),
        ("ErrorRecoveryLevel=1\0", "WrongResult"),
        ("ErrorRecoveryLevel=3\0", "BadValue"),
        ("TargetPortalGroupTag=1\0", "Renegotiated"),
        ("AuthMethod=None\0", "Renegotiated"),
    ] {
        let mut session = Session::with_parameters_offered(settings());
        let error = misbehaviour(session.receive(TO_FULL_FEATURE, text));
        assert!(
            format!("{error:?}").starts_with(what),
            "{text:?}: {error:?}"
        );
    }
}

#[test]
fn accepts_each_answer_at_the_edge_of_its_rule() {
    for text in [
        "MaxRecvDataSegmentLength=512\0",
        "MaxRecvDataSegmentLength=16777215\0",
        "MaxBurstLength=512\0",
        "MaxBurstLength=16773120\0",
        "MaxBurstLength=0x10000\0",
        "FirstBurstLength=262144\0",
        "FirstBurstLength=Irrelevant\0",
        "DefaultTime2Wait=3600\0",
        "DefaultTime2Wait=0\0",
        "MaxOutstandingR2T=8\0",
        "InitialR2T=Reject\0",
        "HeaderDigest=Reject\0",
    ] {
        Session::with_parameters_offered(settings()).finish(text);
    }
}

#[test]
fn rejects_a_key_negotiated_again_in_a_later_response() {
    for again in ["MaxBurstLength=65536\0", "X-mine=1\0"] {
        let mut session = Session::with_parameters_offered(settings());
        session.send(STAY_IN_OPERATIONAL, "MaxBurstLength=65536\0X-mine=1\0");
        let what = misbehaviour(session.receive(STAY_IN_OPERATIONAL, again));
        assert!(matches!(what, Misbehaviour::Renegotiated { .. }));
    }
}

#[test]
fn rejects_an_offer_with_the_response_that_ends_the_login() {
    let mut session = Session::with_parameters_offered(settings());
    let what = misbehaviour(session.receive(TO_FULL_FEATURE, "IFMarker=No\0"));
    assert_eq!(what, Misbehaviour::OfferAtTheEnd { key: "IFMarker" });
}

#[test]
fn a_digest_that_only_one_side_accepts_is_no_common_ground() {
    let strict = || LoginSettings {
        header_digest: DigestPreference::Crc32c,
        ..settings()
    };
    for answer in ["HeaderDigest=Reject\0", "HeaderDigest=None\0", ""] {
        let result = Session::with_parameters_offered(strict()).receive(TO_FULL_FEATURE, answer);
        assert!(
            matches!(result, Err(LoginError::Unsupported(_))),
            "{result:?}"
        );
    }
    let mut session = Session::with_parameters_offered(strict());
    assert_eq!(session.value("HeaderDigest"), "CRC32C");
    assert!(session.finish("HeaderDigest=CRC32C\0").header_digest);
}

// Status.

fn with_status(class: u8, detail: u8, text: &str) -> Result<LoginStep, LoginError> {
    let mut session = Session::new(settings());
    let mut bhs = session.response(0, text.len());
    (bhs[36], bhs[37]) = (class, detail);
    session.login.receive(&bhs, text.as_bytes())
}

#[test]
fn a_refusal_is_told_by_its_status_even_with_nonsense_around_it() {
    let mut bhs = [0xff; BHS_LENGTH_BYTES];
    (bhs[0], bhs[36], bhs[37]) = (0x23, 2, 3);
    bhs[5..8].fill(0);
    let error = Session::new(settings())
        .login
        .receive(&bhs, b"")
        .unwrap_err();
    assert!(error.is_not_found());
    assert!(!error.is_authentication() && !error.is_server_error());
}

#[test]
fn each_kind_of_refusal_is_told_apart() {
    assert!(with_status(2, 1, "").unwrap_err().is_authentication());
    assert!(with_status(2, 2, "").unwrap_err().is_authentication());
    assert!(with_status(3, 2, "").unwrap_err().is_server_error());
    assert!(matches!(
        with_status(1, 0, ""),
        Err(LoginError::TargetRefused(_))
    ));
    assert!(matches!(
        with_status(9, 9, ""),
        Err(LoginError::TargetRefused(_))
    ));
}

#[test]
fn a_redirection_says_where_and_whether_for_good() {
    for (detail, permanent) in [(1, false), (2, true)] {
        let step = with_status(1, detail, "TargetAddress=192.0.2.7:860\0").unwrap();
        let LoginStep::Redirect(redirect) = step else {
            panic!("{step:?}")
        };
        assert_eq!(
            (redirect.permanent, redirect.address.port),
            (permanent, 860)
        );
    }
}

#[test]
fn rejects_a_redirection_to_nowhere() {
    let what = misbehaviour(with_status(1, 1, ""));
    assert_eq!(what, Misbehaviour::RedirectWithoutAddress);
    let what = misbehaviour(with_status(1, 1, "TargetAddress=[\0"));
    assert!(matches!(what, Misbehaviour::RedirectAddress(_)));
}

// The caller.

#[test]
fn a_login_starts_once_and_is_over_after_its_end() {
    let mut login = Login::new(settings(), ENTROPY).unwrap();
    let misuse = Err(LoginError::ApiMisuse(ApiMisuse::WrongOrder));
    assert_eq!(login.receive(&[0; 48], b"").map(|_| ()), misuse);
    let mut session = Session::with_parameters_offered(settings());
    assert_eq!(session.login.start().map(|_| ()), misuse);
    session.finish("");
    assert_eq!(session.receive(TO_FULL_FEATURE, "").map(|_| ()), misuse);
}

#[test]
fn data_of_another_length_than_announced_is_the_callers_mistake() {
    let mut session = Session::new(settings());
    let bhs = session.response(TO_OPERATIONAL, 4);
    let result = session.login.receive(&bhs, b"").map(|_| ());
    assert_eq!(result, Err(LoginError::ApiMisuse(ApiMisuse::DataLength)));
}

#[test]
fn settings_that_would_break_a_pair_are_refused_before_anything_is_sent() {
    for alias in ["", "a\0b=c", &"x".repeat(256)] {
        let settings = LoginSettings {
            initiator_alias: Some(alias.into()),
            ..settings()
        };
        let result = Login::new(settings, ENTROPY).map(|_| ());
        assert!(matches!(
            result,
            Err(LoginError::ApiMisuse(ApiMisuse::BadSetting { .. }))
        ));
    }
    let longest = LoginSettings {
        initiator_alias: Some("x".repeat(255)),
        ..settings()
    };
    assert!(Login::new(longest, ENTROPY).is_ok());
}

// CHAP.

/// Takes the session through CHAP with SHA-256 to its operational stage, as a good target does.
fn prove(session: &mut Session) {
    challenge(session);
    let proof = proof_of_target(session);
    session.send(TO_OPERATIONAL, &proof);
}

fn challenge(session: &mut Session) {
    session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
    session.send(STAY_IN_SECURITY, "CHAP_A=7\0CHAP_I=5\0CHAP_C=0x0102\0");
}

fn proof_of_target(session: &Session) -> String {
    let challenge = [0xc5; 32];
    assert_eq!(session.value("CHAP_I"), "77");
    assert_eq!(session.value("CHAP_C"), format_hexadecimal(&challenge));
    let hash = ChapAlgorithm::Sha256.hash(&[&[77], b"a secret of theirs", &challenge]);
    format!("CHAP_N=disk\0CHAP_R={}\0", format_hexadecimal(&hash))
}

#[test]
fn one_way_chap_offers_chap_only_and_answers_the_challenge() {
    let mut session = Session::new(with_chap(None));
    assert_eq!(session.flags(), STAY_IN_SECURITY);
    assert_eq!(session.value("AuthMethod"), "CHAP");
    session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
    assert_eq!(
        (session.flags(), session.text()),
        (STAY_IN_SECURITY, "CHAP_A=7,5\0".into())
    );
    session.send(STAY_IN_SECURITY, "CHAP_A=7\0CHAP_I=5\0CHAP_C=0bAQI=\0");
    assert_eq!(session.flags(), TO_OPERATIONAL);
    let hash = ChapAlgorithm::Sha256.hash(&[&[5], b"a secret of ours", &[1, 2]]);
    let expected = format!("CHAP_N=user\0CHAP_R={}\0", format_hexadecimal(&hash));
    assert_eq!(session.text(), expected);
    session.send(TO_OPERATIONAL, "");
    assert_eq!(session.finish("").authentication, "CHAP (SHA-256)");
}

#[test]
fn mutual_chap_lets_the_target_prove_itself() {
    let mut session = Session::new(mutual());
    prove(&mut session);
    assert_eq!(session.finish("").authentication, "mutual CHAP (SHA-256)");
}

#[test]
fn mutual_chap_never_falls_back_to_one_way() {
    for flags in [TO_OPERATIONAL, STAY_IN_SECURITY] {
        let mut session = Session::new(mutual());
        challenge(&mut session);
        let what = authentication_failure(session.receive(flags, ""));
        assert_eq!(what, AuthenticationFailure::MissingKey { key: "CHAP_N" });
    }
}

#[test]
fn rejects_each_wrong_proof_of_the_target() {
    let mut session = Session::new(mutual());
    challenge(&mut session);
    let good = proof_of_target(&session);
    for (proof, failure) in [
        (
            good.replace("=disk", "=other"),
            AuthenticationFailure::WrongTargetName,
        ),
        (
            good.replace("0x", "0x00"),
            AuthenticationFailure::WrongTargetResponse,
        ),
        (
            "CHAP_N=disk\0CHAP_R=0x00\0".into(),
            AuthenticationFailure::WrongTargetResponse,
        ),
        (
            "CHAP_N=disk\0CHAP_R=junk\0".into(),
            AuthenticationFailure::WrongTargetResponse,
        ),
        (
            "CHAP_N=disk\0".into(),
            AuthenticationFailure::MissingKey { key: "CHAP_R" },
        ),
    ] {
        let mut session = Session::new(mutual());
        challenge(&mut session);
        assert_eq!(
            authentication_failure(session.receive(TO_OPERATIONAL, &proof)),
            failure
        );
    }
}

#[test]
fn rejects_our_own_response_as_the_targets_proof() {
    let mut session = Session::new(mutual());
    challenge(&mut session);
    let reflected = format!("CHAP_N=disk\0CHAP_R={}\0", session.value("CHAP_R"));
    let what = authentication_failure(session.receive(TO_OPERATIONAL, &reflected));
    assert_eq!(what, AuthenticationFailure::WrongTargetResponse);
}

#[test]
fn rejects_our_own_challenge_and_sends_no_answer_to_it() {
    let mut session = Session::new(mutual());
    session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
    let ours = format_hexadecimal(&ENTROPY.chap_challenge);
    let text = format!("CHAP_A=7\0CHAP_I=5\0CHAP_C={ours}\0");
    let what = authentication_failure(session.receive(STAY_IN_SECURITY, &text));
    assert_eq!(what, AuthenticationFailure::ReflectedChallenge);
}

#[test]
fn refuses_one_secret_for_both_directions_before_anything_is_sent() {
    let settings = with_chap(Some(credentials("disk", "a secret of ours")));
    let error = Login::new(settings, ENTROPY).map(|_| ()).unwrap_err();
    assert_eq!(error, AuthenticationFailure::IdenticalSecrets.into());
}

#[test]
fn refuses_chap_without_an_algorithm() {
    let mut settings = with_chap(None);
    settings.chap.as_mut().unwrap().algorithms.clear();
    let error = Login::new(settings, ENTROPY).map(|_| ()).unwrap_err();
    assert_eq!(error, ApiMisuse::NoChapAlgorithm.into());
}

#[test]
fn rejects_each_malformed_challenge() {
    use AuthenticationFailure::{AlgorithmNotOffered, MalformedKey, MissingKey, NoCommonAlgorithm};
    let long = |n: usize| format!("CHAP_A=7\0CHAP_I=5\0CHAP_C=0x{}\0", "ab".repeat(n));
    for (text, failure) in [
        ("", MissingKey { key: "CHAP_A" }),
        ("CHAP_A=Reject\0", NoCommonAlgorithm),
        ("CHAP_A=6\0CHAP_I=5\0CHAP_C=0x01\0", AlgorithmNotOffered),
        ("CHAP_A=7,5\0CHAP_I=5\0CHAP_C=0x01\0", AlgorithmNotOffered),
        ("CHAP_A=7\0CHAP_C=0x01\0", MissingKey { key: "CHAP_I" }),
        (
            "CHAP_A=7\0CHAP_I=256\0CHAP_C=0x01\0",
            MalformedKey { key: "CHAP_I" },
        ),
        ("CHAP_A=7\0CHAP_I=5\0", MissingKey { key: "CHAP_C" }),
        (
            "CHAP_A=7\0CHAP_I=5\0CHAP_C=0x\0",
            MalformedKey { key: "CHAP_C" },
        ),
        (
            "CHAP_A=7\0CHAP_I=5\0CHAP_C=secret\0",
            MalformedKey { key: "CHAP_C" },
        ),
        (&long(1025), MalformedKey { key: "CHAP_C" }),
    ] {
        let mut session = Session::new(with_chap(None));
        session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
        assert_eq!(
            authentication_failure(session.receive(STAY_IN_SECURITY, text)),
            failure
        );
    }
    let mut session = Session::new(with_chap(None));
    session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
    session.send(STAY_IN_SECURITY, &long(1024));
}

#[test]
fn a_target_that_goes_on_without_chap_is_left() {
    for flags in [TO_OPERATIONAL, 0x83, STAY_IN_OPERATIONAL, TO_FULL_FEATURE] {
        let result = Session::new(with_chap(None)).receive(flags, "AuthMethod=CHAP\0");
        assert_eq!(
            authentication_failure(result),
            AuthenticationFailure::ChapSkipped
        );
        let mut session = Session::new(with_chap(None));
        session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
        let result = session.receive(flags, "CHAP_A=7\0CHAP_I=5\0CHAP_C=0x01\0");
        assert_eq!(
            authentication_failure(result),
            AuthenticationFailure::ChapSkipped
        );
    }
}

/// The error with which a login ends when its proof, by the hash with this number, is refused.
fn refused_proof(number: u8, status: (u8, u8), settings: LoginSettings) -> (Login, LoginError) {
    let mut session = Session::new(settings);
    session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
    let text = format!("CHAP_A={number}\0CHAP_I=5\0CHAP_C=0x01\0");
    session.send(STAY_IN_SECURITY, &text);
    let mut bhs = session.response(0, 0);
    (bhs[36], bhs[37]) = status;
    let error = session.login.receive(&bhs, b"").unwrap_err();
    (session.login, error)
}

#[test]
fn a_target_that_takes_7_for_sha_1_is_worth_a_login_without_sha_256() {
    let (login, error) = refused_proof(7, (2, 0), with_chap(None));
    let settings = login.settings_for_another_attempt(&error).unwrap();
    let mut session = Session::new(settings);
    session.send(STAY_IN_SECURITY, "AuthMethod=CHAP\0");
    assert_eq!(session.text(), "CHAP_A=5\0");
}

#[test]
fn other_refusals_of_a_proof_are_worth_no_other_login() {
    let mut only_sha_256 = with_chap(None);
    only_sha_256.chap.as_mut().unwrap().algorithms = vec![ChapAlgorithm::Sha256];
    for (number, status, settings) in [
        (7, (2, 1), with_chap(None)),
        (5, (2, 0), with_chap(None)),
        (7, (2, 0), only_sha_256),
    ] {
        let (login, error) = refused_proof(number, status, settings);
        assert!(login.settings_for_another_attempt(&error).is_none());
    }
}

#[test]
fn a_target_that_refuses_chap_is_left() {
    for answer in ["AuthMethod=None\0", "AuthMethod=Reject\0"] {
        let result = Session::new(with_chap(None)).receive(STAY_IN_SECURITY, answer);
        assert_eq!(
            authentication_failure(result),
            AuthenticationFailure::ChapRefused
        );
    }
}

#[test]
fn a_target_that_wants_chap_is_told_from_one_that_makes_no_sense() {
    for answer in ["AuthMethod=CHAP\0", "AuthMethod=Reject\0"] {
        let result = Session::new(settings()).receive(STAY_IN_SECURITY, answer);
        assert_eq!(
            authentication_failure(result),
            AuthenticationFailure::ChapWanted
        );
    }
    let result = Session::new(settings()).receive(STAY_IN_SECURITY, "AuthMethod=SRP\0");
    assert!(matches!(
        misbehaviour(result),
        Misbehaviour::NotOffered { .. }
    ));
}

// Anything at all.

fn responses() -> impl Strategy<Value = Vec<(u8, u8, Vec<u8>)>> {
    let key = prop_oneof![
        Just("AuthMethod"),
        Just("CHAP_A"),
        Just("CHAP_I"),
        Just("CHAP_C"),
        Just("CHAP_N"),
        Just("CHAP_R"),
        Just("HeaderDigest"),
        Just("MaxBurstLength"),
        Just("InitialR2T"),
        Just("IFMarker"),
        Just("TargetAlias"),
        Just("X-new"),
        Just("TargetPortalGroupTag"),
    ];
    let value = prop_oneof![
        Just("CHAP"),
        Just("None"),
        Just("7"),
        Just("5"),
        Just("0x01"),
        Just("0bAQ=="),
        Just("Yes"),
        Just("No"),
        Just("Reject"),
        Just("65536"),
        Just(""),
        Just("CRC32C"),
    ];
    let list = proptest::collection::vec((key, value), 0..5).prop_map(|pairs| {
        pairs
            .iter()
            .map(|(k, v)| format!("{k}={v}\0"))
            .collect::<String>()
            .into_bytes()
    });
    let noise = proptest::collection::vec(any::<u8>(), 0..40);
    let flags = prop_oneof![
        Just(0x00),
        Just(0x81),
        Just(0x04),
        Just(0x87),
        Just(0x40),
        any::<u8>()
    ];
    let status = prop_oneof![9 => Just(0_u8), 1 => any::<u8>()];
    proptest::collection::vec((flags, status, prop_oneof![4 => list, 1 => noise]), 1..12)
}

proptest! {
    #[test]
    fn no_target_makes_a_login_panic(responses in responses(), with_mutual_chap in any::<bool>()) {
        let settings = if with_mutual_chap { mutual() } else { settings() };
        let mut session = Session::new(settings);
        for (flags, status, data) in responses {
            let mut bhs = session.response(flags, data.len());
            bhs[36] = status;
            if session.login.receive(&bhs, &data).is_err() {
                break;
            }
        }
    }

    #[test]
    fn no_header_makes_a_login_panic(bytes in proptest::array::uniform32(any::<u8>())) {
        let mut session = Session::new(settings());
        let mut bhs = session.response(0, 0);
        bhs[..5].copy_from_slice(&bytes[..5]);
        bhs[8..35].copy_from_slice(&bytes[5..]);
        let _ = session.login.receive(&bhs, b"");
    }
}
