//! What a target is told to do wrong: rules, each for one kind of moment, each for once, a number
//! of times, or always. Rules can come and go while the target runs.

use crate::scsi::sense::Sense;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A fault and when it strikes. Build one with [`Rule::connect`], [`Rule::login`] or
/// [`Rule::command`], then narrow it.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    step: Option<u32>,
    opcode: Option<u8>,
    lun: Option<u16>,
    skip: u64,
    left: Option<u64>,
    fired: u64,
}

#[derive(Clone, Debug)]
enum Fault {
    Connect(ConnectFault),
    Login(LoginFault),
    Command(CommandFault),
    TaskManagement(TaskManagementFault),
}

/// What goes wrong as soon as a connection is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectFault {
    /// Close it.
    Close,
    /// Keep it open, read, and never say anything.
    Silence,
    /// Send these bytes, then close. See [`ConnectFault::http`].
    Garbage(Vec<u8>),
}

impl ConnectFault {
    /// What a web server says to a login request.
    pub fn http() -> Self {
        let text = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
                    Content-Length: 11\r\nConnection: close\r\n\r\nBad Request";
        Self::Garbage(text.into())
    }
}

/// What goes wrong with a login response. A fault that needs a key strikes only at a response that
/// has it; one of the last response only there. Others strike at every response, unless the rule
/// has a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// Refuse with this status and close.
    Status {
        /// Status class: 2 initiator error, 3 target error.
        class: u8,
        /// Status detail.
        detail: u8,
    },
    /// Redirect (0101 temporarily, 0102 permanently) to this `host:port[,tag]` and close.
    Redirect {
        /// 0102 instead of 0101.
        permanent: bool,
        /// The value of TargetAddress. Empty leaves the key out.
        address: String,
    },
    /// Close instead of answering.
    Close,
    /// Do not answer, keep the connection.
    Silence,
    /// Answer with this opcode instead of 0x23.
    Opcode(u8),
    /// Answer with another initiator task tag.
    WrongInitiatorTaskTag,
    /// Answer with Version-active and Version-max of 1.
    WrongVersion,
    /// Answer a request in the operational stage as if in the security stage; strikes only there.
    StageBackwards,
    /// Go on to a stage nobody asked for: T bit and full-feature phase. Strikes only where the
    /// response would not do so.
    UnaskedTransition,
    /// TSIH 0 in the last response.
    ZeroTsih,
    /// A last item of text without `=`.
    KeyWithoutEquals,
    /// The first key of the text once more.
    DuplicateKey,
    /// MaxBurstLength=1, below the range.
    ValueOutOfRange,
    /// Give this key this value; strikes only where it is.
    SetKey(String, String),
    /// Leave this key out; strikes only where it is.
    DropKey(String),
    /// Append a key nobody offered.
    AddKey(String, String),
    /// A text of this many bytes, beyond the 8192 an initiator must take at login.
    TextTooLong(usize),
    /// Every answer from here on says "to be continued" (C bit) and never ends.
    ContinueForEver,
    /// Mutual CHAP: a wrong CHAP_R of its own.
    WrongChapAnswer,
    /// Mutual CHAP: its CHAP_R is the initiator's own.
    ReflectChapAnswer,
    /// Its CHAP_C is the last challenge any initiator sent it (or its own, before there was one).
    ReflectChapChallenge,
    /// A CHAP_C of this many bytes.
    ChapChallengeBytes(usize),
}

impl LoginFault {
    /// Answer this key with Reject.
    pub fn reject(key: &str) -> Self {
        Self::SetKey(key.to_owned(), "Reject".to_owned())
    }

    /// Answer this key with NotUnderstood.
    pub fn not_understood(key: &str) -> Self {
        Self::SetKey(key.to_owned(), "NotUnderstood".to_owned())
    }

    /// An algorithm nobody offered in CHAP_A.
    pub fn unknown_chap_algorithm() -> Self {
        Self::SetKey("CHAP_A".to_owned(), "99".to_owned())
    }
}

/// What goes wrong with a task management function. Nothing is ended then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagementFault {
    /// Answer with this response (RFC 7143 section 11.6.1): 5 is "not supported", 255 "rejected".
    Response(u8),
    /// Do not answer.
    NoAnswer,
}

/// What goes wrong with a SCSI command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// Answer with this SCSI status (and sense) without doing anything; data of a write is still
    /// not asked for.
    Status(u8, Option<Sense>),
    /// The same after the command was carried out: it took effect all the same.
    StatusAfter(u8, Option<Sense>),
    /// A SCSI response with this iSCSI response code (1 is target failure).
    Response(u8),
    /// The answer's StatSN is off by this much.
    StatSnOff(i32),
    /// The answer carries a tag nobody gave out.
    UnknownTag,
    /// Data-In with a buffer offset that puts it beyond the task's buffer.
    DataBeyondBuffer,
    /// Data-In with a buffer offset off by one block of 512 bytes.
    DataAtWrongOffset,
    /// Data-In with DataSN off by one.
    WrongDataSn,
    /// The first R2T reaches beyond the end of the buffer.
    R2tBeyondBuffer,
    /// The first R2T asks for nothing.
    R2tOfZero,
    /// The first R2T is longer than MaxBurstLength; strikes writes longer than that.
    R2tBeyondMaxBurst,
    /// One R2T more than MaxOutstandingR2T.
    TooManyR2ts,
    /// An R2T for a command that reads, before its answer.
    R2tForRead,
    /// The response says overflow by this many bytes, whatever happened.
    ResidualOverflow(u32),
    /// The response says underflow by this many bytes, whatever happened.
    ResidualUnderflow(u32),
    /// A read delivers only so many bytes, and says so.
    ShortData(usize),
    /// Wrong header digest on every PDU of the answer, when header digests are in force.
    WrongHeaderDigest,
    /// Wrong data digest on every PDU of the answer, when data digests are in force.
    WrongDataDigest,
    /// A Reject PDU with this reason, instead of an answer.
    Reject(u8),
    /// No answer at all; the command is not carried out.
    NoAnswer,
    /// Carried out, and the connection closed instead of an answer.
    CloseAfter,
    /// The connection is closed, nothing is carried out.
    CloseBefore,
    /// The answer is cut after so many bytes, then the connection is closed.
    CutAnswer(usize),
    /// Kept, with all its data, until `TestTarget::release_held`. It outlives its connection unless
    /// reinstatement, logout or task management ends it: that is how stale writes are made.
    Hold,
    /// Carried out and answered this much later; like `Hold` until then.
    Delay(Duration),
}

impl CommandFault {
    /// SCSI status BUSY.
    pub const BUSY: Self = Self::Status(0x08, None);
    /// SCSI status RESERVATION CONFLICT.
    pub const RESERVATION_CONFLICT: Self = Self::Status(0x18, None);
    /// SCSI status TASK SET FULL.
    pub const TASK_SET_FULL: Self = Self::Status(0x28, None);

    /// CHECK CONDITION with this sense.
    pub fn check_condition(sense: Sense) -> Self {
        Self::Status(0x02, Some(sense))
    }
}

impl Rule {
    /// A fault at accept.
    pub fn connect(fault: ConnectFault) -> Self {
        Self::new(Fault::Connect(fault))
    }

    /// A fault in login responses.
    pub fn login(fault: LoginFault) -> Self {
        Self::new(Fault::Login(fault))
    }

    /// A fault of SCSI commands.
    pub fn command(fault: CommandFault) -> Self {
        Self::new(Fault::Command(fault))
    }

    /// A fault of a task management function: 1 is ABORT TASK, 5 LOGICAL UNIT RESET (RFC 7143 section
    /// 11.5.1).
    pub fn task_management(function: u8, fault: TaskManagementFault) -> Self {
        Self::new(Fault::TaskManagement(fault)).opcode(function)
    }

    fn new(fault: Fault) -> Self {
        Self {
            fault,
            step: None,
            opcode: None,
            lun: None,
            skip: 0,
            left: None,
            fired: 0,
        }
    }

    /// Only at the `step`-th login response of a connection, counted from 1.
    #[must_use]
    pub fn at_step(mut self, step: u32) -> Self {
        self.step = Some(step);
        self
    }

    /// Only commands with this operation code.
    #[must_use]
    pub fn opcode(mut self, opcode: u8) -> Self {
        self.opcode = Some(opcode);
        self
    }

    /// Only commands to this LUN.
    #[must_use]
    pub fn lun(mut self, lun: u16) -> Self {
        self.lun = Some(lun);
        self
    }

    /// Spares the first `count` occasions: `skip(k - 1).once()` strikes the k-th.
    #[must_use]
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Strikes `count` times, then never again. Without this or [`Rule::once`]: always.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.left = Some(count);
        self
    }

    /// Strikes once.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    fn is_for(&self, opcode: u8, lun: Option<u16>) -> bool {
        self.opcode.is_none_or(|own| own == opcode) && (self.lun.is_none() || self.lun == lun)
    }

    /// Whether this occasion is struck; counts it.
    fn strike(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.left == Some(0) {
            return false;
        }
        self.left = self.left.map(|left| left - 1);
        self.fired += 1;
        true
    }
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(u64);

/// The rules of one target, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Whether there is any rule: without one, a command need not take the lock.
    has_rules: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    rules: Vec<(RuleId, Rule)>,
}

impl Script {
    pub(crate) fn add(&self, rule: Rule) -> RuleId {
        let mut state = self.state();
        let id = RuleId(state.next);
        state.next += 1;
        state.rules.push((id, rule));
        self.has_rules.store(true, Ordering::Release);
        id
    }

    /// Takes a rule away; says how often it struck.
    pub(crate) fn remove(&self, id: RuleId) -> u64 {
        let mut state = self.state();
        let at = state.rules.iter().position(|(rule_id, _)| *rule_id == id);
        let fired = at.map_or(0, |at| state.rules.remove(at).1.fired);
        self.has_rules
            .store(!state.rules.is_empty(), Ordering::Release);
        fired
    }

    pub(crate) fn fired(&self, id: RuleId) -> u64 {
        let state = self.state();
        state
            .rules
            .iter()
            .find(|(rule_id, _)| *rule_id == id)
            .map_or(0, |(_, rule)| rule.fired)
    }

    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.rules.clear();
        self.has_rules.store(false, Ordering::Release);
    }

    /// What to do with a connection just accepted.
    pub(crate) fn on_connect(&self) -> Option<ConnectFault> {
        let mut state = self.state();
        state
            .rules
            .iter_mut()
            .find_map(|(_, rule)| match &rule.fault {
                Fault::Connect(fault) => {
                    let fault = fault.clone();
                    rule.strike().then_some(fault)
                }
                _ => None,
            })
    }

    /// What to do with the `step`-th login response; `applies` says which faults can strike it.
    pub(crate) fn on_login(
        &self,
        step: u32,
        applies: impl Fn(&LoginFault) -> bool,
    ) -> Vec<LoginFault> {
        let mut state = self.state();
        let struck = state
            .rules
            .iter_mut()
            .filter_map(|(_, rule)| match &rule.fault {
                Fault::Login(fault) if rule.step.is_none_or(|s| s == step) && applies(fault) => {
                    let fault = fault.clone();
                    rule.strike().then_some(fault)
                }
                _ => None,
            });
        struck.collect()
    }

    /// What to do with a command.
    pub(crate) fn on_command(
        &self,
        opcode: u8,
        lun: Option<u16>,
        applies: impl Fn(&CommandFault) -> bool,
    ) -> Option<CommandFault> {
        if !self.has_rules.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        state
            .rules
            .iter_mut()
            .find_map(|(_, rule)| match &rule.fault {
                Fault::Command(fault) if rule.is_for(opcode, lun) && applies(fault) => {
                    let fault = fault.clone();
                    rule.strike().then_some(fault)
                }
                _ => None,
            })
    }

    /// What to do with a task management function.
    pub(crate) fn on_task_management(&self, function: u8) -> Option<TaskManagementFault> {
        let mut state = self.state();
        state
            .rules
            .iter_mut()
            .find_map(|(_, rule)| match rule.fault {
                Fault::TaskManagement(fault) if rule.is_for(function, None) => {
                    rule.strike().then_some(fault)
                }
                _ => None,
            })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_the_kth_command_only() {
        let script = Script::default();
        let id = script.add(
            Rule::command(CommandFault::BUSY)
                .opcode(0x28)
                .skip(1)
                .once(),
        );
        let hit = |opcode| script.on_command(opcode, Some(0), |_| true).is_some();
        assert_eq!(
            [hit(0x28), hit(0x2a), hit(0x28), hit(0x28)],
            [false, false, true, false]
        );
        assert_eq!(script.fired(id), 1);
    }

    #[test]
    fn strikes_always_until_it_is_removed() {
        let script = Script::default();
        let id = script.add(Rule::connect(ConnectFault::Close));
        assert!(script.on_connect().is_some() && script.on_connect().is_some());
        assert_eq!(script.remove(id), 2);
        assert!(script.on_connect().is_none());
    }

    #[test]
    fn spares_other_luns() {
        let script = Script::default();
        script.add(Rule::command(CommandFault::BUSY).lun(3));
        assert!(script.on_command(0x28, Some(2), |_| true).is_none());
        assert!(script.on_command(0x28, None, |_| true).is_none());
        assert!(script.on_command(0x28, Some(3), |_| true).is_some());
    }

    #[test]
    fn spares_other_functions() {
        let script = Script::default();
        script.add(Rule::task_management(1, TaskManagementFault::NoAnswer).once());
        assert_eq!(script.on_task_management(5), None);
        assert!(script.on_command(1, None, |_| true).is_none());
        let fault = script.on_task_management(1);
        assert_eq!(fault, Some(TaskManagementFault::NoAnswer));
        assert_eq!(script.on_task_management(1), None);
    }

    #[test]
    fn spares_other_steps() {
        let script = Script::default();
        script.add(Rule::login(LoginFault::Close).at_step(2));
        assert!(script.on_login(1, |_| true).is_empty());
        assert_eq!(script.on_login(2, |_| true), [LoginFault::Close]);
        assert!(script.on_login(2, |_| false).is_empty());
    }
}
