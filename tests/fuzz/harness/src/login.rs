//! A login, whatever the target answers in whichever stage.

use iscsi_core::login::error::LoginError;
use iscsi_core::login::machine::{
    Login, LoginEntropy, LoginStep, MAX_LOGIN_REQUESTS, MAX_LOGIN_SEGMENT_LENGTH_BYTES,
};
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::login::settings::{
    ChapAlgorithm, ChapCredentials, ChapSettings, DigestPreference, Isid, LoginSettings, Secret,
};
use iscsi_core::name::IscsiName;
use iscsi_core::pdu::{BHS_LENGTH_BYTES, Bhs, Lengths};
use iscsi_core::sequence::SerialNumber;
use iscsi_core::text::{parse_binary, parse_list};
use iscsi_core::whole_pdu::WholePdus;

use crate::Input;
use crate::peer::{put, spoil};

const TAG: u32 = 0x0102_0304;
const ISID: [u8; 6] = [0x80, 1, 2, 3, 4, 5];
const SECRET: &[u8] = b"a secret of ours";
const TARGET_SECRET: &[u8] = b"a secret of theirs";
const IDENTIFIER: u8 = 77;
const CHALLENGE: [u8; 32] = [0xc5; 32];

/// What a target answers that knows [`TARGET_SECRET`]: the hashes of identifier, secret and
/// challenge, computed elsewhere. In the order of [`ChapAlgorithm::ALL`].
pub(crate) const PROOFS: [&str; 4] = [
    "0xa8bb93aec41f0d64919267b71bf296e1c225298b0cd5a3f2566b8b4f2d9a5611",
    "0xba8113788f2a9db0ef7849595747934be222433b41fee800fa0be73848dddabf",
    "0x976edd7ae6aa27f1b0c0ec9d08b855387f1668cb",
    "0x1edab4166fc736fa4414e4f911dd91ac",
];

const DIGESTS: [DigestPreference; 4] = [
    DigestPreference::None,
    DigestPreference::Crc32c,
    DigestPreference::Prefer,
    DigestPreference::Avoid,
];

/// Ends the text of each answer in the input: no text has it.
pub(crate) const TEXT_END: u8 = 0xff;

/// The first bytes are the settings; then each answer is a byte that says what is unusual about
/// its header, and its text.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let settings = settings(&mut input);
    let fragment = usize::from(input.byte());
    let mut run = Run {
        login: Login::new(settings.clone(), entropy()).expect("good settings"),
        settings,
        stat_sn: 1000,
        requests: 1,
        proven: false,
        guessed: false,
    };
    let first = run.login.start().expect("a first request");
    run.check_request(&first);
    let mut pdus = WholePdus::of_login(crc32c::crc32c_append);
    let mut stream = Vec::new();
    while !input.is_empty() {
        stream.extend(run.answer(&mut input));
        let mut end = 0;
        while end < stream.len() {
            end = match fragment {
                0 => stream.len(),
                fragment => stream.len().min(end + fragment),
            };
            let Ok((consumed, pdu)) = pdus.receive(&stream[..end]) else {
                return 0;
            };
            stream.drain(..consumed);
            end -= consumed;
            if let Some(pdu) = pdu
                && let Some(result) = run.receive(&pdu.bhs, &pdu.data)
            {
                run.check_over();
                return result;
            }
        }
    }
    0
}

struct Run {
    login: Login,
    settings: LoginSettings,
    stat_sn: u32,
    requests: u32,
    /// The target has sent the right CHAP_R.
    proven: bool,
    /// It has sent a secret, as a fuzzer that looks over our shoulder does; so we may repeat it.
    guessed: bool,
}

fn settings(input: &mut Input<'_>) -> LoginSettings {
    let flags = input.byte();
    let digests = input.byte();
    let credentials = |name: &str, secret: &[u8]| ChapCredentials {
        name: name.into(),
        secret: Secret::new(secret.to_vec()),
    };
    let chap = (flags & 3 != 0).then(|| ChapSettings {
        initiator: credentials("user", SECRET),
        target: (flags & 2 != 0).then(|| credentials("disk", TARGET_SECRET)),
        algorithms: match flags >> 2 & 3 {
            0 => ChapAlgorithm::ALL.to_vec(),
            1 => vec![ChapAlgorithm::Md5],
            2 => vec![ChapAlgorithm::Sha256],
            _ => vec![ChapAlgorithm::Sha1, ChapAlgorithm::Sha256],
        },
    });
    let name = |text: &str| IscsiName::parse(text).expect("a name");
    let digest = |bits: u8| DIGESTS[usize::from(bits & 3)];
    LoginSettings {
        initiator_name: name("iqn.2001-04.com.example:host"),
        // Long enough to need more than one PDU it cannot be; it has 255 bytes at most.
        initiator_alias: (flags & 0x10 != 0).then(|| "a".repeat(255)),
        target_name: (flags & 0x20 == 0).then(|| name("iqn.2001-04.com.example:disk")),
        isid: Isid(ISID),
        chap,
        header_digest: digest(digests),
        data_digest: digest(digests >> 2),
        expected_portal_group_tag: (flags & 0x40 != 0).then_some(1),
    }
}

fn entropy() -> LoginEntropy {
    LoginEntropy {
        initiator_task_tag: TAG,
        cmd_sn: SerialNumber(u32::MAX),
        chap_identifier: IDENTIFIER,
        chap_challenge: CHALLENGE,
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    let has = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    has(SECRET) || has(TARGET_SECRET)
}

impl Run {
    /// An answer on the wire: right but for what the input says.
    fn answer(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let kind = input.byte();
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = 0x23;
        bhs[1] = [0, 0x81, 0x04, 0x87, 0x40, 0x44, 0x83, 0][usize::from(kind & 7)];
        if kind & 7 == 7 {
            bhs[1] = input.byte();
        }
        bhs[8..14].copy_from_slice(&ISID);
        bhs[15] = 9;
        put(&mut bhs, 16, TAG);
        put(&mut bhs, 24, self.stat_sn);
        put(&mut bhs, 28, u32::MAX);
        put(&mut bhs, 32, 31);
        if kind & 0x10 != 0 {
            (bhs[36], bhs[37]) = (input.byte(), input.byte());
        }
        let mut text = input.until(TEXT_END).to_vec();
        if kind & 0x20 != 0 {
            // More than one PDU may have.
            text.resize(
                MAX_LOGIN_SEGMENT_LENGTH_BYTES + usize::from(input.byte() & 1),
                b'x',
            );
        }
        let length = u32::try_from(text.len()).expect("a short text");
        let [_, a, b, c] = length.to_be_bytes();
        (bhs[5], bhs[6], bhs[7]) = (a, b, c);
        if kind & 0x80 != 0 {
            spoil(&mut bhs, input);
        }
        self.stat_sn = self.stat_sn.wrapping_add(1);
        let mut bytes = bhs.to_vec();
        bytes.extend(&text);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `Some` when the login is over.
    fn receive(&mut self, bhs: &Bhs, data: &[u8]) -> Option<u64> {
        self.proven |= self.is_proof(data);
        self.guessed |= holds_secret(data);
        match self.login.receive(bhs, data) {
            Ok(LoginStep::Send(pdu)) => {
                self.requests += 1;
                self.check_request(&pdu);
                None
            }
            Ok(LoginStep::Redirect(redirect)) => {
                assert!(redirect.address.port != 0 && !redirect.address.host.is_empty());
                Some(2)
            }
            Ok(LoginStep::Done(negotiated)) => {
                self.check_done(&negotiated);
                Some(1)
            }
            Err(error) => {
                self.check_error(&error);
                Some(0)
            }
        }
    }

    fn is_proof(&self, data: &[u8]) -> bool {
        let pairs = parse_list(data).unwrap_or_default();
        let response = pairs.iter().find(|pair| pair.key == "CHAP_R");
        let response = response.and_then(|pair| parse_binary(pair.value, 64));
        let mut proofs = PROOFS.iter().map(|proof| parse_binary(proof, 64));
        response.is_some() && proofs.any(|proof| proof == response)
    }

    fn check_request(&self, pdu: &[u8]) {
        assert!(self.requests <= MAX_LOGIN_REQUESTS, "too many requests");
        let bhs: &Bhs = pdu.first_chunk().expect("a header");
        let length = Lengths::of(bhs).data_bytes;
        assert!(length <= MAX_LOGIN_SEGMENT_LENGTH_BYTES);
        assert_eq!(pdu.len(), BHS_LENGTH_BYTES + length.next_multiple_of(4));
        assert!(self.guessed || !holds_secret(pdu), "a secret is sent");
    }

    /// No way around what was configured, and nothing that the session could not do.
    fn check_done(&self, negotiated: &Negotiated) {
        match &self.settings.chap {
            None => assert_eq!(negotiated.authentication, "None"),
            Some(chap) if chap.target.is_some() => {
                assert!(negotiated.authentication.starts_with("mutual CHAP ("));
                assert!(self.proven, "the target has proved nothing");
            }
            Some(_) => assert!(negotiated.authentication.starts_with("CHAP (")),
        }
        let needs = |wanted: bool, preference| match preference {
            DigestPreference::Crc32c => wanted,
            DigestPreference::None => !wanted,
            DigestPreference::Prefer | DigestPreference::Avoid => true,
        };
        assert!(needs(negotiated.header_digest, self.settings.header_digest));
        assert!(needs(negotiated.data_digest, self.settings.data_digest));
        assert!((1..=8).contains(&negotiated.max_outstanding_r2t));
        assert!(negotiated.target_max_recv_data_segment_length_bytes >= 512);
        assert!(negotiated.first_burst_length_bytes <= negotiated.max_burst_length_bytes);
        assert!((512..1 << 24).contains(&negotiated.max_burst_length_bytes));
        assert!(negotiated.data_pdu_in_order && negotiated.data_sequence_in_order);
        assert_eq!(negotiated.error_recovery_level, 0);
        assert_eq!(negotiated.max_connections, 1);
        assert_ne!(negotiated.tsih, 0);
        let expected = self.settings.expected_portal_group_tag;
        let found = negotiated.target_portal_group_tag;
        assert!(expected.is_none() || found.is_none() || expected == found);
    }

    fn check_error(&self, error: &LoginError) {
        let text = error.to_string();
        assert!(!text.is_empty());
        assert!(self.guessed || !holds_secret(text.as_bytes()), "{text}");
        if let Some(settings) = self.login.settings_for_another_attempt(error) {
            let chap = settings.chap.expect("CHAP again");
            let before = self.settings.chap.as_ref().expect("CHAP before");
            assert!(chap.algorithms.len() < before.algorithms.len());
            assert_eq!(chap.target.is_some(), before.target.is_some());
            assert!(!chap.algorithms.is_empty());
        }
    }

    /// What is over stays over.
    fn check_over(&mut self) {
        for trace in self.login.trace() {
            let is_secret = ["CHAP_C", "CHAP_R", "CHAP_N"].contains(&trace.key.as_str());
            assert!(!is_secret, "{trace:?}");
        }
        let bhs = [0; BHS_LENGTH_BYTES];
        assert!(self.login.receive(&bhs, &[]).is_err());
    }
}
