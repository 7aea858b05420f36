//! One login on one connection (RFC 7143 section 6.3): requests in, answers out, until the
//! full-feature phase or a refusal.

use crate::authentication::{Authentication, Refused};
use crate::bytes::be16;
use crate::config::TargetConfig;
use crate::events::Event;
use crate::keys::{self, NOT_UNDERSTOOD, Params};
use crate::login_answer::LoginAnswer;
use crate::pdu::{Bhs, opcode};
use crate::shared::Shared;
use crate::text::Pairs;
use std::collections::VecDeque;
use std::sync::Arc;

/// All text of one login request, over its continuations.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Security stage, operational stage, full-feature phase.
pub(crate) const SECURITY: u8 = 0;
pub(crate) const OPERATIONAL: u8 = 1;
pub(crate) const FULL_FEATURE: u8 = 3;

/// Login status, class and detail in one (RFC 7143 section 11.13.5).
pub(crate) mod status {
    pub(crate) const INITIATOR_ERROR: u16 = 0x0200;
    pub(crate) const AUTHENTICATION_FAILURE: u16 = 0x0201;
    pub(crate) const NOT_FOUND: u16 = 0x0203;
    pub(crate) const UNSUPPORTED_VERSION: u16 = 0x0205;
    pub(crate) const TOO_MANY_CONNECTIONS: u16 = 0x0206;
    pub(crate) const MISSING_PARAMETER: u16 = 0x0207;
    pub(crate) const NO_SUCH_SESSION: u16 = 0x020a;
    pub(crate) const INVALID_REQUEST: u16 = 0x020b;
}

/// Who logs in, and to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) initiator_name: String,
    pub(crate) target_name: String,
    pub(crate) isid: [u8; 6],
    pub(crate) discovery: bool,
}

/// The state of a login.
pub(crate) struct Login {
    shared: Arc<Shared>,
    config: Arc<TargetConfig>,
    pub(crate) identity: Identity,
    pub(crate) params: Params,
    pub(crate) authentication: Authentication,
    /// Login responses so far.
    pub(crate) step: u32,
    /// `ContinueForEver` has struck.
    pub(crate) endless: bool,
    stage: Option<u8>,
    text: Vec<u8>,
    /// What is left of an answer sent in pieces.
    rest: VecDeque<Vec<u8>>,
    declared: bool,
}

impl Login {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            config: Arc::clone(&shared.config),
            shared,
            identity: Identity::default(),
            params: Params::default(),
            authentication: Authentication::default(),
            step: 0,
            endless: false,
            stage: None,
            text: Vec::new(),
            rest: VecDeque::new(),
            declared: false,
        }
    }

    /// The answer to one request. A refusal is an answer too. Once endless, requests are not looked
    /// at any more.
    pub(crate) fn on_request(&mut self, request: &Bhs, data: &[u8]) -> LoginAnswer {
        self.step += 1;
        let mut answer = LoginAnswer::to(request);
        if self.endless {
            return answer;
        }
        match self.process(request, data, &mut answer) {
            Ok(()) => answer,
            Err(status) => LoginAnswer::refusal(request, status),
        }
    }

    fn process(&mut self, request: &Bhs, data: &[u8], answer: &mut LoginAnswer) -> Result<(), u16> {
        check_header(request)?;
        if let Some(piece) = self.rest.pop_front() {
            return self.continue_answer(piece, data, answer);
        }
        self.text.extend_from_slice(data);
        if self.text.len() > MAX_TEXT_BYTES {
            return Err(self.violation("login text without end"));
        }
        if request.flags() & 0x40 != 0 {
            answer.stay();
            return Ok(());
        }
        let pairs = self.take_text(request)?;
        self.on_text(request, &pairs, answer)?;
        self.split(answer);
        Ok(())
    }

    /// Parses the text that is now complete, and records it.
    fn take_text(&mut self, request: &Bhs) -> Result<Pairs, u16> {
        let text = std::mem::take(&mut self.text);
        let pairs = Pairs::parse(&text)
            .map_err(|item| self.violation(&format!("login text without '=': {item:?}")))?;
        self.shared.log.record(Event::LoginRequest {
            isid: isid(request),
            tsih: be16(&request.0, 14),
            csg: csg(request),
            nsg: nsg(request),
            keys: pairs.0.clone(),
        });
        Ok(pairs)
    }

    fn on_text(
        &mut self,
        request: &Bhs,
        pairs: &Pairs,
        answer: &mut LoginAnswer,
    ) -> Result<(), u16> {
        self.check_keys(pairs)?;
        if self.stage.is_none() {
            self.identify(request, pairs)?;
        }
        if isid(request) != self.identity.isid || Some(csg(request)) != self.stage {
            return Err(self.violation("login request of another stage or ISID"));
        }
        match csg(request) {
            SECURITY => self.secure(pairs, answer)?,
            OPERATIONAL => self.operate(pairs, answer)?,
            _ => return Err(self.violation("login request in a stage that does not exist")),
        }
        self.transit(request, answer)
    }

    /// The first request says who comes and where to.
    fn identify(&mut self, request: &Bhs, pairs: &Pairs) -> Result<(), u16> {
        let needed = |key| {
            pairs
                .get(key)
                .map(str::to_owned)
                .ok_or(status::MISSING_PARAMETER)
        };
        self.identity.initiator_name = needed("InitiatorName")?;
        self.identity.isid = isid(request);
        self.identity.discovery = pairs.get("SessionType") == Some("Discovery");
        if !self.identity.discovery {
            self.identity.target_name = needed("TargetName")?;
            let name = &self.identity.target_name;
            // Names are compared without regard to case (RFC 7143 section 4.2.7.2).
            let known = self
                .config
                .target_names
                .iter()
                .any(|own| own.eq_ignore_ascii_case(name));
            known.then_some(()).ok_or(status::NOT_FOUND)?;
        }
        if csg(request) == OPERATIONAL && self.config.chap.is_some() {
            return Err(status::AUTHENTICATION_FAILURE);
        }
        self.stage = Some(csg(request));
        Ok(())
    }

    fn secure(&mut self, pairs: &Pairs, answer: &mut LoginAnswer) -> Result<(), u16> {
        let security = [
            "AuthMethod",
            "CHAP_A",
            "CHAP_N",
            "CHAP_R",
            "CHAP_I",
            "CHAP_C",
        ];
        let naming = [
            "InitiatorName",
            "InitiatorAlias",
            "TargetName",
            "SessionType",
        ];
        for (key, value) in &pairs.0 {
            let is_known = security.contains(&key.as_str()) || naming.contains(&key.as_str());
            if !is_known && value != NOT_UNDERSTOOD {
                answer.text.push(key, NOT_UNDERSTOOD);
            }
        }
        let chap = self.config.chap.as_ref();
        let answered = self.authentication.answer(chap, pairs, &mut answer.text);
        answered.map_err(|Refused(reason)| self.refused(reason))?;
        self.name_portal_group(pairs, answer);
        Ok(())
    }

    fn operate(&mut self, pairs: &Pairs, answer: &mut LoginAnswer) -> Result<(), u16> {
        let own = &self.config.negotiation;
        for (key, value) in &pairs.0 {
            if let Some(text) = keys::answer(key, value, own, &mut self.params) {
                answer.text.push(key, text);
            }
        }
        self.name_portal_group(pairs, answer);
        self.declare(answer);
        Ok(())
    }

    /// The target portal group tag goes with the answer to TargetName (RFC 7143 section 13.9).
    fn name_portal_group(&self, pairs: &Pairs, answer: &mut LoginAnswer) {
        if pairs.get("TargetName").is_some() && !self.identity.discovery {
            answer.text.push(
                "TargetPortalGroupTag",
                self.config.portal_group_tag.to_string(),
            );
        }
    }

    /// The target's own keys go once, with its first operational answer.
    fn declare(&mut self, answer: &mut LoginAnswer) {
        if std::mem::replace(&mut self.declared, true) {
            return;
        }
        let own = &self.config.negotiation;
        if let Some(bytes) = own.max_recv_data_segment_length {
            self.params.max_recv_bytes = bytes;
            answer
                .text
                .push("MaxRecvDataSegmentLength", bytes.to_string());
        }
        for (key, value) in &own.extra_keys {
            answer.text.push(key, value.clone());
        }
    }

    fn check_keys(&self, pairs: &Pairs) -> Result<(), u16> {
        let repeated = pairs
            .0
            .iter()
            .enumerate()
            .find(|(at, (key, _))| pairs.0.iter().take(*at).any(|(earlier, _)| earlier == key));
        match repeated {
            Some((_, (key, _))) => Err(self.violation(&format!("key {key} twice in one text"))),
            None => Ok(()),
        }
    }

    /// Follows the initiator to the stage it asks for, when nothing speaks against it.
    fn transit(&mut self, request: &Bhs, answer: &mut LoginAnswer) -> Result<(), u16> {
        let Some(next) = nsg(request) else {
            return Ok(());
        };
        if next <= csg(request) || next == 2 {
            return Err(self.violation("login transition backwards"));
        }
        if !self.authentication.passed(self.config.chap.as_ref()) {
            answer.stay();
            return Ok(());
        }
        if next == FULL_FEATURE {
            self.check_agreement(request)?;
        }
        self.stage = Some(next);
        Ok(())
    }

    fn check_agreement(&self, request: &Bhs) -> Result<(), u16> {
        if keys::lacks_required_digest(&self.config.negotiation, &self.params) {
            return Err(status::INITIATOR_ERROR);
        }
        // One connection per session: a TSIH names either no session or one that is full.
        match be16(&request.0, 14) {
            0 => Ok(()),
            tsih if self.shared.sessions.knows_tsih(tsih) => Err(status::TOO_MANY_CONNECTIONS),
            _ => Err(status::NO_SUCH_SESSION),
        }
    }

    /// Cuts a long answer into pieces, when the configuration says so.
    fn split(&mut self, answer: &mut LoginAnswer) {
        let Some(piece_bytes) = self.config.negotiation.answer_chunk_bytes else {
            return;
        };
        let text = answer.text.emit();
        if text.len() <= piece_bytes.max(1) {
            return;
        }
        self.rest = text
            .chunks(piece_bytes.max(1))
            .map(<[u8]>::to_vec)
            .collect();
        // The transition waits for the last piece.
        self.stage = Some(answer.csg);
        answer.stay();
        answer.piece = self.rest.pop_front();
        answer.to_be_continued = true;
    }

    fn continue_answer(
        &mut self,
        piece: Vec<u8>,
        data: &[u8],
        answer: &mut LoginAnswer,
    ) -> Result<(), u16> {
        if !data.is_empty() {
            return Err(self.violation("text before the end of our continued answer"));
        }
        answer.piece = Some(piece);
        if self.rest.is_empty() {
            let next = answer.nsg;
            let passed = self.authentication.passed(self.config.chap.as_ref());
            match next.filter(|_| passed) {
                Some(next) => self.stage = Some(next),
                None => answer.stay(),
            }
        } else {
            answer.stay();
            answer.to_be_continued = true;
        }
        Ok(())
    }

    fn refused(&self, reason: &str) -> u16 {
        log::info!(
            "login of {} refused: {reason}",
            self.identity.initiator_name
        );
        status::AUTHENTICATION_FAILURE
    }

    fn violation(&self, what: &str) -> u16 {
        self.shared.log.record(Event::Violation(what.to_owned()));
        status::INITIATOR_ERROR
    }
}

fn check_header(request: &Bhs) -> Result<(), u16> {
    if request.opcode() != opcode::LOGIN {
        return Err(status::INVALID_REQUEST);
    }
    // Version-min: we know version 0 only.
    if request.0[3] != 0 {
        return Err(status::UNSUPPORTED_VERSION);
    }
    let both = 0xc0;
    if request.flags() & both == both {
        Err(status::INITIATOR_ERROR)
    } else {
        Ok(())
    }
}

pub(crate) fn isid(request: &Bhs) -> [u8; 6] {
    let mut isid = [0; 6];
    isid.copy_from_slice(&request.0[8..14]);
    isid
}

pub(crate) fn csg(request: &Bhs) -> u8 {
    request.flags() >> 2 & 3
}

pub(crate) fn nsg(request: &Bhs) -> Option<u8> {
    (request.flags() & 0x80 != 0).then_some(request.flags() & 3)
}
