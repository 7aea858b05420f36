//! A login response before it goes out, and the faults that can be put into it.

use crate::chap;
use crate::events::Event;
use crate::login::{FULL_FEATURE, Login, OPERATIONAL, csg, nsg};
use crate::pdu::{Bhs, opcode};
use crate::script::LoginFault;
use crate::text::Pairs;

/// A login response in parts.
#[derive(Clone, Debug)]
pub(crate) struct LoginAnswer {
    pub(crate) opcode: u8,
    pub(crate) csg: u8,
    /// With the T bit.
    pub(crate) nsg: Option<u8>,
    /// The C bit.
    pub(crate) to_be_continued: bool,
    pub(crate) status: u16,
    pub(crate) version: u8,
    pub(crate) isid: [u8; 6],
    pub(crate) tsih: u16,
    pub(crate) initiator_task_tag: u32,
    pub(crate) text: Pairs,
    /// A piece of text to send instead of `text`.
    pub(crate) piece: Option<Vec<u8>>,
}

/// Whether a response goes out, and whether the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    Send,
    Withhold,
    Close,
}

impl LoginAnswer {
    /// A response that agrees with whatever stage the request asks for.
    pub(crate) fn to(request: &Bhs) -> Self {
        Self {
            opcode: opcode::LOGIN_RESPONSE,
            csg: csg(request),
            nsg: nsg(request),
            to_be_continued: false,
            status: 0,
            version: 0,
            isid: crate::login::isid(request),
            tsih: crate::bytes::be16(&request.0, 14),
            initiator_task_tag: request.initiator_task_tag(),
            text: Pairs::default(),
            piece: None,
        }
    }

    /// A response that ends the login.
    pub(crate) fn refusal(request: &Bhs, status: u16) -> Self {
        Self {
            status,
            nsg: None,
            ..Self::to(request)
        }
    }

    /// Stay in this stage.
    pub(crate) fn stay(&mut self) {
        self.nsg = None;
    }

    /// Whether the full-feature phase follows.
    pub(crate) fn is_last(&self) -> bool {
        self.status == 0 && self.nsg == Some(FULL_FEATURE)
    }

    /// The event that tells of a refusal.
    pub(crate) fn refusal_event(&self) -> Event {
        let [class, detail] = self.status.to_be_bytes();
        Event::LoginRefused { class, detail }
    }

    /// Header and text. A refusal carries no StatSN worth having, but one all the same.
    pub(crate) fn encode(&self, stat_sn: u32, exp_cmd_sn: u32, window: u32) -> (Bhs, Vec<u8>) {
        let transit = self.nsg.map_or(0, |nsg| 0x80 | nsg);
        let more = if self.to_be_continued { 0x40 } else { 0 };
        let bhs = Bhs::new(self.opcode, transit | more | self.csg << 2)
            .put(2, &[self.version, self.version])
            .put(8, &self.isid)
            .put(14, &self.tsih.to_be_bytes())
            .tag(self.initiator_task_tag)
            .put32(24, stat_sn)
            .put32(28, exp_cmd_sn)
            .put32(32, exp_cmd_sn.wrapping_add(window).wrapping_sub(1))
            .put(36, &self.status.to_be_bytes());
        (bhs, self.piece.clone().unwrap_or_else(|| self.text.emit()))
    }

    /// Whether `fault` can strike this response.
    pub(crate) fn can_have(&self, fault: &LoginFault) -> bool {
        let has = |key| self.text.get(key).is_some();
        match fault {
            LoginFault::StageBackwards => self.csg == OPERATIONAL,
            LoginFault::UnaskedTransition => self.nsg != Some(FULL_FEATURE),
            LoginFault::ZeroTsih => self.is_last(),
            LoginFault::DuplicateKey => !self.text.0.is_empty(),
            LoginFault::ValueOutOfRange => has("MaxBurstLength"),
            LoginFault::SetKey(key, _) | LoginFault::DropKey(key) => has(key),
            LoginFault::WrongChapAnswer | LoginFault::ReflectChapAnswer => has("CHAP_R"),
            LoginFault::ReflectChapChallenge | LoginFault::ChapChallengeBytes(_) => has("CHAP_C"),
            _ => true,
        }
    }

    /// Puts one fault in. `login` learns of what changes its own expectations;
    /// `challenge_seen` is the last challenge of any initiator.
    pub(crate) fn spoil(
        &mut self,
        fault: LoginFault,
        login: &mut Login,
        challenge_seen: &[u8],
    ) -> Sending {
        match fault {
            LoginFault::Close => return Sending::Close,
            LoginFault::Silence => return Sending::Withhold,
            LoginFault::Status { class, detail } => {
                self.refuse(u16::from_be_bytes([class, detail]));
            }
            LoginFault::Redirect { permanent, address } => self.redirect(permanent, address),
            LoginFault::ContinueForEver => login.endless = true,
            LoginFault::WrongChapAnswer => self.set_chap_answer(&[0x5a; 16]),
            LoginFault::ReflectChapAnswer => {
                self.text
                    .replace("CHAP_R", &login.authentication.answer_seen);
            }
            LoginFault::ReflectChapChallenge => self.set_challenge(login, challenge_seen.to_vec()),
            LoginFault::ChapChallengeBytes(n) => self.set_challenge(login, vec![0x77; n]),
            other => self.spoil_header(other),
        }
        Sending::Send
    }

    fn spoil_header(&mut self, fault: LoginFault) {
        match fault {
            LoginFault::Opcode(opcode) => self.opcode = opcode,
            LoginFault::WrongInitiatorTaskTag => self.initiator_task_tag ^= 0x0055_5555,
            LoginFault::WrongVersion => self.version = 1,
            LoginFault::StageBackwards => {
                self.csg = 0;
                self.nsg = None;
            }
            LoginFault::UnaskedTransition => self.nsg = Some(FULL_FEATURE),
            LoginFault::ZeroTsih => self.tsih = 0,
            other => self.spoil_text(other),
        }
    }

    fn spoil_text(&mut self, fault: LoginFault) {
        match fault {
            LoginFault::KeyWithoutEquals => self.append_raw(b"NoEqualsSign\0"),
            LoginFault::DuplicateKey => {
                let first = self.text.0.first().cloned();
                self.text.0.extend(first);
            }
            LoginFault::ValueOutOfRange => {
                self.text.replace("MaxBurstLength", "1");
            }
            LoginFault::SetKey(key, value) => {
                self.text.replace(&key, &value);
            }
            LoginFault::DropKey(key) => self.text.0.retain(|(k, _)| *k != key),
            LoginFault::AddKey(key, value) => self.text.push(&key, value),
            LoginFault::TextTooLong(n) => self.append_raw(&too_long(n)),
            _ => {}
        }
    }

    /// Text that never ends, in small pieces.
    pub(crate) fn make_endless(&mut self, step: u32) {
        self.stay();
        self.to_be_continued = true;
        self.piece = Some(format!("X-org.example.{step}=more\0").into_bytes());
    }

    fn refuse(&mut self, status: u16) {
        self.status = status;
        self.stay();
        self.text = Pairs::default();
        self.piece = None;
    }

    fn redirect(&mut self, permanent: bool, address: String) {
        self.refuse(if permanent { 0x0102 } else { 0x0101 });
        if !address.is_empty() {
            self.text.push("TargetAddress", address);
        }
    }

    fn append_raw(&mut self, bytes: &[u8]) {
        let mut text = self.piece.take().unwrap_or_else(|| self.text.emit());
        text.extend_from_slice(bytes);
        self.piece = Some(text);
    }

    fn set_chap_answer(&mut self, answer: &[u8]) {
        self.text
            .replace("CHAP_R", &chap::BinaryEncoding::Hex.encode(answer));
    }

    /// The challenge in the text and the one we expect an answer to stay the same.
    fn set_challenge(&mut self, login: &mut Login, challenge: Vec<u8>) {
        let challenge = if challenge.is_empty() {
            login.authentication.challenge.clone()
        } else {
            challenge
        };
        self.text
            .replace("CHAP_C", &chap::BinaryEncoding::Hex.encode(&challenge));
        login.authentication.challenge = challenge;
    }
}

/// One item of `bytes` bytes in all.
fn too_long(bytes: usize) -> Vec<u8> {
    let mut item = b"X-org.example.long=".to_vec();
    item.resize(bytes.max(item.len() + 1) - 1, b'a');
    item.push(0);
    item
}
