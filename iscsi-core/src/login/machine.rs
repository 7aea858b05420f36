//! One login, from the first request to full-feature phase.
//!
//! `transition` has the states, drawn and as a table. Here is what they have in common:
//! the header of each response is checked, its text put together, heard and answered.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::mem;

use super::address::TargetAddress;
use super::chap::{Chap, ChapKeys};
use super::error::{ApiMisuse, AuthenticationFailure, LoginError, Misbehaviour};
use super::negotiated::Negotiated;
use super::negotiation::Negotiation;
use super::rule::REJECT;
use super::settings::{ChapAlgorithm, LoginSettings};
use super::status::LoginStatus;
use super::trace::KeyTrace;
use super::transition::{MOVES_ON, Reaction, State};
use crate::pdu::login::{LoginRequest, LoginResponse, Stage, Stages, VERSION};
use crate::pdu::reject::Reject;
use crate::pdu::{Bhs, Lengths, Opcode, assemble};
use crate::sequence::SerialNumber;
use crate::text::{MAX_LIST_LENGTH_BYTES, Pair, TextError, TextList, parse_list};

/// What either side may send in one PDU during login (RFC 7143 section 13.12).
pub const MAX_LOGIN_SEGMENT_LENGTH_BYTES: usize = 8192;

/// How many requests one login may take. Mutual CHAP takes four; the rest is for targets that
/// send their keys one by one, or in continued PDUs.
pub const MAX_LOGIN_REQUESTS: u32 = 64;

/// The id of the one connection of each session.
pub const CONNECTION_ID: u16 = 0;

/// The longest name or alias of ours; RFC 7143 section 6.1 allows a text value 255 bytes.
const MAX_SETTING_LENGTH_BYTES: usize = 255;

/// The values of a login that are to be new each time.
#[derive(Clone, Copy, Debug)]
pub struct LoginEntropy {
    /// Names the login; not [`RESERVED_TAG`](crate::pdu::RESERVED_TAG).
    pub initiator_task_tag: u32,
    /// The CmdSN of the session's first command; any value will do.
    pub cmd_sn: SerialNumber,
    /// CHAP_I for the target, in mutual CHAP.
    pub chap_identifier: u8,
    /// CHAP_C for the target, in mutual CHAP: from a cryptographic generator, never used before.
    pub chap_challenge: [u8; 32],
}

/// What to do after a response.
#[derive(Debug)]
pub enum LoginStep {
    /// Send these bytes, a whole PDU, and wait for the next response.
    Send(Vec<u8>),
    /// Close the connection and log in there.
    Redirect(Redirect),
    /// The connection is in full-feature phase.
    Done(Box<Negotiated>),
}

/// Status 0101 or 0102: the target is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 0102: it will not come back.
    pub permanent: bool,
    /// Where it is.
    pub address: TargetAddress,
}

/// One login.
///
/// Call [`Login::start`] and send what it returns, then hand each PDU of the target to
/// [`Login::receive`] until that returns something else than [`LoginStep::Send`]. PDUs have no
/// digests before full-feature phase, whatever was agreed on.
pub struct Login {
    settings: LoginSettings,
    entropy: LoginEntropy,
    progress: Progress,
    chap: Option<Chap>,
    negotiation: Negotiation,
    /// What is still to be sent of the current list; not empty only while we send the C bit.
    outbox: TextList,
    /// Where the current list asks to go once it is complete.
    wish: Option<Stage>,
    /// What came of the target's list so far, while it sends the C bit.
    inbox: Vec<u8>,
    /// The stages of the last request.
    asked: Stages,
    requests: u32,
    /// What the next response has to carry; `None` before the first.
    exp_stat_sn: Option<SerialNumber>,
}

enum Progress {
    NotStarted,
    Running(State),
    Over,
}

/// The security keys of one response.
#[derive(Default)]
struct SecurityKeys<'a> {
    auth_method: Option<&'a str>,
    chap: ChapKeys<'a>,
}

impl Login {
    /// Prepares a login. Refuses settings that cannot be sent, or with which CHAP is not safe.
    pub fn new(settings: LoginSettings, entropy: LoginEntropy) -> Result<Self, LoginError> {
        check_settings(&settings)?;
        let chap = settings
            .chap
            .as_ref()
            .map(|chap| Chap::new(chap, entropy.chap_identifier, entropy.chap_challenge));
        Ok(Self {
            chap: chap.transpose()?,
            negotiation: Negotiation::new(&settings),
            settings,
            entropy,
            progress: Progress::NotStarted,
            outbox: TextList::default(),
            wish: None,
            inbox: Vec::new(),
            asked: Stages {
                current: Stage::Security,
                next: None,
                continues: false,
            },
            requests: 0,
            exp_stat_sn: None,
        })
    }

    /// The first request: who we are, where to, and how to authenticate.
    pub fn start(&mut self) -> Result<Vec<u8>, LoginError> {
        if !matches!(self.progress, Progress::NotStarted) {
            return Err(ApiMisuse::WrongOrder.into());
        }
        self.negotiation
            .offer(&self.settings, Stage::Security, &mut self.outbox);
        let state = self.offer_auth_method();
        self.progress = Progress::Running(state);
        self.send_list(state)
    }

    /// Takes a PDU of the target: its header, and its data segment without padding.
    ///
    /// After [`LoginStep::Redirect`], [`LoginStep::Done`] or an error the login is over.
    pub fn receive(&mut self, bhs: &Bhs, data: &[u8]) -> Result<LoginStep, LoginError> {
        let Progress::Running(state) = mem::replace(&mut self.progress, Progress::Over) else {
            return Err(ApiMisuse::WrongOrder.into());
        };
        let (step, next) = self.advance(state, bhs, data)?;
        if matches!(step, LoginStep::Send(_)) {
            self.progress = Progress::Running(next);
        }
        Ok(step)
    }

    /// What became of each key so far, in order, without anything of CHAP. Also there after an
    /// error.
    pub fn trace(&self) -> impl Iterator<Item = &KeyTrace> {
        self.negotiation.traces().iter()
    }

    /// Other settings that are worth one more login, after `error` ended this one.
    ///
    /// tgt, as others that stem from the iSCSI Enterprise Target, takes 7 for the number of SHA-1,
    /// chooses it, and answers 0200 to the SHA-256 response that it cannot read. So it is asked
    /// again without SHA-256, if there is another algorithm in the list. A wrong secret has
    /// another status, hence costs no second login. Nothing is weakened: the target could have
    /// chosen the other algorithm in the first place.
    pub fn settings_for_another_attempt(&self, error: &LoginError) -> Option<LoginSettings> {
        const INITIATOR_ERROR: LoginStatus = LoginStatus {
            class: 2,
            detail: 0,
        };
        let chose_7 = self.chap.as_ref()?.chosen() == Some(ChapAlgorithm::Sha256);
        if !chose_7 || *error != LoginError::TargetRefused(INITIATOR_ERROR) {
            return None;
        }
        let mut settings = self.settings.clone();
        let algorithms = &mut settings.chap.as_mut()?.algorithms;
        algorithms.retain(|algorithm| *algorithm != ChapAlgorithm::Sha256);
        (!algorithms.is_empty()).then_some(settings)
    }

    fn offer_auth_method(&mut self) -> State {
        let (method, wish, state) = match self.chap {
            // CHAP takes more than one exchange: there is nothing to ask for yet.
            Some(_) => ("CHAP", None, State::ChapOffered),
            None => ("None", Some(Stage::Operational), State::NoneOffered),
        };
        self.outbox.push("AuthMethod", method);
        self.wish = wish;
        state
    }

    fn advance(
        &mut self,
        state: State,
        bhs: &Bhs,
        data: &[u8],
    ) -> Result<(LoginStep, State), LoginError> {
        let response = parse_response(bhs, data)?;
        if response.status_class != 0 {
            return Ok((self.refused(&response, data)?, state));
        }
        self.check_echoes(&response)?;
        self.count_stat_sn(&response)?;
        let stages = response.stages().map_err(Misbehaviour::from)?;
        self.check_stages(state, stages)?;
        if !self.outbox.is_empty() {
            return self.continue_ours(state, stages, data);
        }
        self.collect(data)?;
        if stages.continues {
            return Ok((
                LoginStep::Send(self.request(state, Vec::new(), None, false)?),
                state,
            ));
        }
        let list = mem::take(&mut self.inbox);
        self.react(state, stages, &list, &response)
    }

    /// A status other than success: a redirection or the end.
    fn refused(&self, response: &LoginResponse, data: &[u8]) -> Result<LoginStep, LoginError> {
        match (response.status_class, response.status_detail) {
            (1, 1) => redirect(false, data),
            (1, 2) => redirect(true, data),
            // There was no secret that could have been wrong.
            (2, 1) if self.chap.is_none() => Err(AuthenticationFailure::ChapWanted.into()),
            (class, detail) => Err(LoginError::TargetRefused(LoginStatus { class, detail })),
        }
    }

    /// Goes on with our own list, which took more than one PDU. The target has to answer each of
    /// them but the last without text (RFC 7143 section 6.2).
    fn continue_ours(
        &mut self,
        state: State,
        stages: Stages,
        data: &[u8],
    ) -> Result<(LoginStep, State), LoginError> {
        if stages.continues || !data.is_empty() {
            return Err(Misbehaviour::Interrupted.into());
        }
        Ok((LoginStep::Send(self.send_list(state)?), state))
    }

    fn collect(&mut self, data: &[u8]) -> Result<(), Misbehaviour> {
        if self.inbox.len() + data.len() > MAX_LIST_LENGTH_BYTES {
            return Err(TextError::ListTooLong.into());
        }
        self.inbox.extend_from_slice(data);
        Ok(())
    }

    /// Takes a complete list and does what the table says.
    fn react(
        &mut self,
        state: State,
        stages: Stages,
        list: &[u8],
        response: &LoginResponse,
    ) -> Result<(LoginStep, State), LoginError> {
        let keys = self.hear(state, list)?;
        self.check_security(state, &keys)?;
        self.check_portal_group()?;
        let (reaction, next) = state.transition(stages.next.is_some());
        match reaction {
            Reaction::Finish => {
                return Ok((LoginStep::Done(Box::new(self.finish(response)?)), next));
            }
            Reaction::RefuseToSkipChap => return Err(AuthenticationFailure::ChapSkipped.into()),
            Reaction::OfferAlgorithms => self.offer_algorithms(),
            Reaction::ProveOurselves => self.prove_ourselves(keys.chap)?,
            Reaction::AskToMoveOn => self.ask_to_move_on(next),
            Reaction::OfferParameters => self.offer_parameters(),
        }
        Ok((LoginStep::Send(self.send_list(next)?), next))
    }

    fn offer_algorithms(&mut self) {
        self.wish = None;
        self.negotiation.answer(&mut self.outbox);
        if let Some(chap) = &self.chap {
            chap.offer_algorithms(&mut self.outbox);
        }
    }

    fn prove_ourselves(&mut self, keys: ChapKeys<'_>) -> Result<(), LoginError> {
        self.wish = Some(Stage::Operational);
        self.negotiation.answer(&mut self.outbox);
        if let Some(chap) = &mut self.chap {
            chap.answer(keys, &mut self.outbox)?;
        }
        Ok(())
    }

    fn ask_to_move_on(&mut self, state: State) {
        self.wish = Some(match state.stage() {
            Stage::Security => Stage::Operational,
            Stage::Operational | Stage::FullFeature => Stage::FullFeature,
        });
        self.negotiation.answer(&mut self.outbox);
    }

    fn offer_parameters(&mut self) {
        self.wish = Some(Stage::FullFeature);
        self.negotiation.answer(&mut self.outbox);
        self.negotiation
            .offer(&self.settings, Stage::Operational, &mut self.outbox);
    }

    /// Sorts a list: security keys for the caller, the rest for the negotiation.
    fn hear<'a>(&mut self, state: State, list: &'a [u8]) -> Result<SecurityKeys<'a>, LoginError> {
        let mut keys = SecurityKeys::default();
        for pair in parse_list(list).map_err(Misbehaviour::from)? {
            if pair.key == "AuthMethod" {
                keys.auth_method = Some(pair.value);
            } else if let Some(slot) = keys.chap.slot(pair.key) {
                *slot = Some(pair.value);
            } else {
                self.negotiation.hear(pair, state.stage())?;
            }
        }
        Ok(keys)
    }

    fn check_security(&mut self, state: State, keys: &SecurityKeys<'_>) -> Result<(), LoginError> {
        let expects_chap = matches!(state, State::AlgorithmsOffered | State::ProofSent);
        if !expects_chap && !keys.chap.is_empty() {
            return Err(Misbehaviour::KeyNotAllowed { key: "CHAP_…" }.into());
        }
        match (state, keys.auth_method) {
            (State::NoneOffered, method) => self.check_none(method),
            (State::ChapOffered, method) => self.check_chap_accepted(method),
            (_, Some(_)) => Err(Misbehaviour::Renegotiated {
                key: "AuthMethod".into(),
            }
            .into()),
            (State::ProofSent, None) => self.verify_target(keys.chap),
            (_, None) => Ok(()),
        }
    }

    /// A target that moves on without a word about AuthMethod has nothing against None either.
    fn check_none(&mut self, method: Option<&str>) -> Result<(), LoginError> {
        match method {
            None | Some("None") => self.trace_auth_method("None", method),
            Some(REJECT | "CHAP") => Err(AuthenticationFailure::ChapWanted.into()),
            Some(other) => Err(auth_method_not_offered("None", other).into()),
        }
    }

    fn check_chap_accepted(&mut self, method: Option<&str>) -> Result<(), LoginError> {
        match method {
            Some("CHAP") => self.trace_auth_method("CHAP", method),
            Some(REJECT | "None") => Err(AuthenticationFailure::ChapRefused.into()),
            Some(other) => Err(auth_method_not_offered("CHAP", other).into()),
            None => Err(AuthenticationFailure::MissingKey { key: "AuthMethod" }.into()),
        }
    }

    fn verify_target(&self, keys: ChapKeys<'_>) -> Result<(), LoginError> {
        match &self.chap {
            Some(chap) => Ok(chap.verify(keys)?),
            None => Ok(()),
        }
    }

    fn trace_auth_method(&mut self, ours: &str, theirs: Option<&str>) -> Result<(), LoginError> {
        Ok(self.negotiation.trace(KeyTrace {
            key: "AuthMethod".into(),
            ours: Some(ours.into()),
            theirs: theirs.map(Into::into),
            outcome: ours.into(),
        })?)
    }

    fn check_portal_group(&self) -> Result<(), Misbehaviour> {
        let received = self.negotiation.draft().target_portal_group_tag;
        match (self.settings.expected_portal_group_tag, received) {
            (Some(expected), Some(received)) if expected != received => {
                Err(Misbehaviour::PortalGroupTag { expected, received })
            }
            _ => Ok(()),
        }
    }

    fn check_echoes(&self, response: &LoginResponse) -> Result<(), Misbehaviour> {
        if response.initiator_task_tag != self.entropy.initiator_task_tag {
            return Err(Misbehaviour::NotEchoed {
                field: "Initiator Task Tag",
            });
        }
        if response.isid != self.settings.isid.0 {
            return Err(Misbehaviour::NotEchoed { field: "ISID" });
        }
        if response.version_active != VERSION {
            return Err(Misbehaviour::Version {
                version_active: response.version_active,
            });
        }
        Ok(())
    }

    /// The first response sets the StatSN, each later one adds one (RFC 7143 section 11.13.4).
    fn count_stat_sn(&mut self, response: &LoginResponse) -> Result<(), Misbehaviour> {
        let received = response.numbers.stat_sn;
        match self.exp_stat_sn {
            Some(expected) if expected != received => Err(Misbehaviour::StatSn {
                expected: expected.0,
                received: received.0,
            }),
            _ => {
                self.exp_stat_sn = Some(received.next());
                Ok(())
            }
        }
    }

    /// The target may move on only where, and when, the last request asked to go.
    fn check_stages(&self, state: State, stages: Stages) -> Result<(), LoginError> {
        let leaves = stages.current != Stage::Security || stages.next.is_some();
        if leaves && state.transition(MOVES_ON).0 == Reaction::RefuseToSkipChap {
            return Err(AuthenticationFailure::ChapSkipped.into());
        }
        if stages.current != self.asked.current {
            let (expected, received) = (self.asked.current, stages.current);
            return Err(Misbehaviour::WrongStage { expected, received }.into());
        }
        match stages.next {
            Some(received) if self.asked.next != Some(received) => {
                Err(Misbehaviour::UnaskedTransit { received }.into())
            }
            _ => Ok(()),
        }
    }

    /// The next PDU of the current list; the T bit waits for the last one.
    fn send_list(&mut self, state: State) -> Result<Vec<u8>, LoginError> {
        let segment = self.outbox.next_segment(MAX_LOGIN_SEGMENT_LENGTH_BYTES);
        let continues = !self.outbox.is_empty();
        let next = if continues { None } else { self.wish };
        self.request(state, segment, next, continues)
    }

    fn request(
        &mut self,
        state: State,
        segment: Vec<u8>,
        next: Option<Stage>,
        continues: bool,
    ) -> Result<Vec<u8>, LoginError> {
        if self.requests >= MAX_LOGIN_REQUESTS {
            return Err(Misbehaviour::NeverEnds {
                requests: self.requests,
            }
            .into());
        }
        self.requests += 1;
        self.asked = Stages {
            current: state.stage(),
            next,
            continues,
        };
        let header = LoginRequest {
            stages: self.asked,
            isid: self.settings.isid.0,
            tsih: 0,
            initiator_task_tag: self.entropy.initiator_task_tag,
            cid: CONNECTION_ID,
            cmd_sn: self.entropy.cmd_sn,
            exp_stat_sn: self.exp_stat_sn.unwrap_or_default(),
        };
        Ok(assemble(&header.emit(), &segment))
    }

    fn finish(&mut self, response: &LoginResponse) -> Result<Negotiated, LoginError> {
        if response.tsih == 0 {
            return Err(Misbehaviour::NoTsih.into());
        }
        self.negotiation.finish()?;
        Ok(Negotiated {
            tsih: response.tsih,
            authentication: self
                .chap
                .as_ref()
                .map_or("None".into(), ToString::to_string),
            cmd_sn: self.entropy.cmd_sn,
            exp_cmd_sn: response.numbers.exp_cmd_sn,
            max_cmd_sn: response.numbers.max_cmd_sn,
            exp_stat_sn: response.numbers.stat_sn.next(),
            ..self.negotiation.draft().clone()
        })
    }
}

fn auth_method_not_offered(offered: &str, value: &str) -> Misbehaviour {
    Misbehaviour::NotOffered {
        key: "AuthMethod",
        offered: offered.into(),
        value: value.into(),
    }
}

/// A login response within the limits of the login phase, or what came instead.
fn parse_response(bhs: &Bhs, data: &[u8]) -> Result<LoginResponse, LoginError> {
    match Opcode::of_target(bhs).map_err(Misbehaviour::from)? {
        Opcode::LoginResponse => {}
        Opcode::Reject => return Err(Misbehaviour::Rejected(Reject::parse(bhs).reason).into()),
        opcode => {
            return Err(Misbehaviour::NotALoginResponse {
                opcode: opcode as u8,
            }
            .into());
        }
    }
    let length_bytes = Lengths::of(bhs).data_bytes;
    if length_bytes != data.len() {
        return Err(ApiMisuse::DataLength.into());
    }
    if length_bytes > MAX_LOGIN_SEGMENT_LENGTH_BYTES {
        return Err(Misbehaviour::SegmentTooLong { length_bytes }.into());
    }
    Ok(LoginResponse::parse(bhs))
}

/// Where statuses 0101 and 0102 point.
fn redirect(permanent: bool, data: &[u8]) -> Result<LoginStep, LoginError> {
    let pairs = parse_list(data).map_err(Misbehaviour::from)?;
    let is_address = |pair: &&Pair<'_>| pair.key == "TargetAddress";
    let pair = pairs
        .iter()
        .find(is_address)
        .ok_or(Misbehaviour::RedirectWithoutAddress)?;
    let address = TargetAddress::parse(pair.value).map_err(Misbehaviour::RedirectAddress)?;
    Ok(LoginStep::Redirect(Redirect { permanent, address }))
}

/// Names of ours go onto the wire as they are, so nothing in them may end a pair.
fn check_settings(settings: &LoginSettings) -> Result<(), ApiMisuse> {
    let chap = settings.chap.as_ref();
    let alias = settings.initiator_alias.as_deref();
    let user = chap.map(|chap| chap.initiator.name.as_str());
    let target_user = chap
        .and_then(|chap| chap.target.as_ref())
        .map(|c| c.name.as_str());
    for (setting, value) in [
        ("the initiator's alias", alias),
        ("the CHAP user name", user),
        ("the target's CHAP user name", target_user),
    ] {
        if value.is_some_and(|value| !is_sendable(value)) {
            return Err(ApiMisuse::BadSetting { setting });
        }
    }
    Ok(())
}

fn is_sendable(value: &str) -> bool {
    (1..=MAX_SETTING_LENGTH_BYTES).contains(&value.len()) && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
