//! Every fault that the scriptable target can be told, against the whole process: what each costs,
//! and that it costs no more.
//!
//! The tables below match without a wildcard, so a fault that is added to the script does not
//! compile until somebody has decided here what a guest may notice of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::thread;
use std::time::Duration;

use iscsi_test_target::{
    AsyncEvent, ChapConfig, CommandFault, ConnectFault, Event, LoginFault, Rule, Secret, Sense,
    TargetConfig, opcode,
};
use tempfile::TempDir;
use vhost_user_iscsi_tests::frontend::spec::{T_FLUSH, T_IN, T_OUT};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig};
use vhost_user_iscsi_tests::model::{Mix, Model, Moment, random_mix, random_mix_with};
use vhost_user_iscsi_tests::served::{SOON, Served, asks_for_writes};
use vhost_user_iscsi_tests::soak;
use vhost_user_iscsi_tests::tgt::free_port;
use vhost_user_iscsi_tests::wait;

/// A function that returns the cases of all rows. Each variant has to be in a row, each case has to
/// fit its row, and no row may be empty.
macro_rules! decided {
    ($(#[$doc:meta])* $name:ident() -> $case:ident of $fault:ty {
        $($pattern:pat => [$($value:expr),+ $(,)?],)+
    }) => {
        $(#[$doc])*
        fn $name() -> Vec<$case> {
            let _every_fault_has_a_row = |fault: &$fault| match fault { $($pattern => (),)+ };
            let mut cases = Vec::new();
            $(for case in [$($value),+] {
                assert!(matches!(case.fault, $pattern), "{:?} is in the wrong row", case.fault);
                cases.push(case);
            })+
            cases
        }
    };
}

/// Requests of 32 KiB and more: whichever is struck takes several PDUs and R2Ts.
fn mix() -> Mix {
    Mix {
        steps: 60,
        range: 0..2048,
        max_sectors: 256,
        align_sectors: 64,
        ..Mix::default()
    }
}

fn logins(served: &Served) -> usize {
    let events = served.target.events();
    let logins = events
        .iter()
        .filter(|event| matches!(event, Event::LoggedIn { .. }));
    logins.count()
}

/// No rule was broken, all sessions that there were are new ones or reinstate one, and nothing of a
/// dead one was carried out. Then forgets what happened, of which there can be too much to keep.
fn judge_and_forget(served: &Served) {
    assert_eq!(served.target.violations(), [""; 0]);
    for event in served.target.events() {
        match event {
            Event::LoginRequest { tsih, .. } => assert_eq!(tsih, 0),
            Event::StaleWrite { cdb, .. } => panic!("a stale write: {cdb:02x?}"),
            _ => {}
        }
    }
    served.target.clear_events();
}

/// A front-end whose queues have a session each.
fn connect_with_sessions(served: &Served, count: u16) -> Frontend {
    let mut frontend = served.connect(FrontendConfig::with_queues(count));
    for queue in frontend.queues() {
        queue.read(0, 512).unwrap();
    }
    let wanted = usize::from(count);
    let up = wait::until(SOON, || {
        (served.target.sessions().len() == wanted).then_some(())
    });
    assert!(up.is_some(), "{:#?}", served.daemon.log());
    frontend
}

// ---- commands -----------------------------------------------------------------------------------

/// What a fault of a command costs the guest or us.
#[derive(Clone, Copy, Debug)]
enum Cost {
    /// Nothing: the command was good all the same, or is sent again in the same session.
    Nothing,
    /// The session, which is made again, once; the log has this in it. The guest sees a pause.
    Session(&'static str),
    /// The request that was struck, and no other: the guest sees an I/O error.
    Request,
    /// The guest waits until the session ends for another reason.
    Wait,
}

struct CommandCase {
    fault: CommandFault,
    /// What it strikes.
    opcodes: &'static [u8],
    cost: Cost,
    /// Further arguments of the daemon.
    arguments: &'static [&'static str],
}

fn command(fault: CommandFault, opcodes: &'static [u8], cost: Cost) -> CommandCase {
    CommandCase {
        fault,
        opcodes,
        cost,
        arguments: &[],
    }
}

fn with_digests(fault: CommandFault, opcodes: &'static [u8], cost: Cost) -> CommandCase {
    CommandCase {
        arguments: &["--header-digest", "crc32c", "--data-digest", "crc32c"],
        ..command(fault, opcodes, cost)
    }
}

const READ: &[u8] = &[opcode::READ_16];
const WRITE: &[u8] = &[opcode::WRITE_16];
const DATA: &[u8] = &[opcode::READ_16, opcode::WRITE_16];
const MAIN: &[u8] = &[
    opcode::READ_16,
    opcode::WRITE_16,
    opcode::SYNCHRONIZE_CACHE_16,
];
const ALL: &[u8] = &[
    opcode::READ_16,
    opcode::WRITE_16,
    opcode::SYNCHRONIZE_CACHE_16,
    opcode::UNMAP,
    opcode::WRITE_SAME_16,
];

const BROKE: Cost = Cost::Session("broke the protocol");
const LOST: Cost = Cost::Session("is lost");

/// SAM-5 statuses and sense data without a name in the target.
const ACA_ACTIVE: CommandFault = CommandFault::Status(0x30, None);
const TASK_ABORTED: CommandFault = CommandFault::Status(0x40, None);
const ABORTED_COMMAND: Sense = Sense::new(0x0b, 0x00, 0x00);

fn sense(sense: Sense, opcodes: &'static [u8], cost: Cost) -> CommandCase {
    command(CommandFault::check_condition(sense), opcodes, cost)
}

decided! {
    /// What is in the target's script for commands.
    command_cases() -> CommandCase of CommandFault {
        CommandFault::Status(..) => [
            command(CommandFault::BUSY, ALL, Cost::Nothing),
            command(CommandFault::TASK_SET_FULL, ALL, Cost::Nothing),
            command(TASK_ABORTED, MAIN, Cost::Nothing),
            command(CommandFault::Status(0x02, None), MAIN, Cost::Nothing),
            sense(Sense::BECOMING_READY, ALL, Cost::Nothing),
            sense(Sense::RESET_OCCURRED, ALL, Cost::Nothing),
            sense(Sense::CAPACITY_CHANGED, MAIN, Cost::Nothing),
            sense(Sense::LUNS_CHANGED.in_descriptor_format(), MAIN, Cost::Nothing),
            sense(ABORTED_COMMAND, MAIN, Cost::Nothing),
            // A target that has not got its LUNs again.
            sense(Sense::NO_SUCH_LUN, MAIN, Cost::Nothing),
            command(CommandFault::RESERVATION_CONFLICT, MAIN, Cost::Request),
            command(ACA_ACTIVE, MAIN, Cost::Request),
            sense(Sense::UNRECOVERED_READ, MAIN, Cost::Request),
            sense(Sense::UNRECOVERED_READ.in_descriptor_format(), MAIN, Cost::Request),
            sense(Sense::INTERNAL_FAILURE, MAIN, Cost::Request),
            sense(Sense::OUT_OF_RANGE, DATA, Cost::Request),
            sense(Sense::WRITE_PROTECTED, WRITE, Cost::Request),
            sense(Sense::NO_SPACE, WRITE, Cost::Request),
            sense(Sense::MISCOMPARE, DATA, Cost::Request),
        ],
        CommandFault::StatusAfter(..) => [
            command(CommandFault::StatusAfter(0x08, None), ALL, Cost::Nothing),
            command(CommandFault::StatusAfter(0x02, Some(Sense::RECOVERED_ERROR)), ALL, Cost::Nothing),
            command(CommandFault::StatusAfter(0x02, Some(Sense::INTERNAL_FAILURE)), MAIN, Cost::Request),
        ],
        CommandFault::Response(_) => [command(CommandFault::Response(1), MAIN, Cost::Request)],
        CommandFault::StatSnOff(_) => [
            command(CommandFault::StatSnOff(1), DATA, BROKE),
            command(CommandFault::StatSnOff(-1), DATA, BROKE),
            command(CommandFault::StatSnOff(i32::MAX), DATA, BROKE),
        ],
        CommandFault::UnknownTag => [command(CommandFault::UnknownTag, MAIN, BROKE)],
        CommandFault::DataBeyondBuffer => [command(CommandFault::DataBeyondBuffer, READ, BROKE)],
        CommandFault::DataAtWrongOffset => [command(CommandFault::DataAtWrongOffset, READ, BROKE)],
        CommandFault::WrongDataSn => [command(CommandFault::WrongDataSn, READ, BROKE)],
        CommandFault::R2tBeyondBuffer => [command(CommandFault::R2tBeyondBuffer, WRITE, BROKE)],
        CommandFault::R2tOfZero => [command(CommandFault::R2tOfZero, WRITE, BROKE)],
        CommandFault::R2tBeyondMaxBurst => [command(CommandFault::R2tBeyondMaxBurst, WRITE, BROKE)],
        CommandFault::TooManyR2ts => [command(CommandFault::TooManyR2ts, WRITE, BROKE)],
        CommandFault::R2tForRead => [command(CommandFault::R2tForRead, READ, BROKE)],
        CommandFault::ResidualOverflow(_) => [
            command(CommandFault::ResidualOverflow(512), DATA, Cost::Nothing),
        ],
        CommandFault::ResidualUnderflow(_) => [
            command(CommandFault::ResidualUnderflow(512), READ, BROKE),
            command(CommandFault::ResidualUnderflow(512), WRITE, Cost::Request),
        ],
        CommandFault::ShortData(_) => [
            command(CommandFault::ShortData(0), READ, Cost::Request),
            command(CommandFault::ShortData(5000), READ, Cost::Request),
        ],
        CommandFault::WrongHeaderDigest => [
            with_digests(CommandFault::WrongHeaderDigest, MAIN, Cost::Session("header digest")),
        ],
        CommandFault::WrongDataDigest => [
            with_digests(CommandFault::WrongDataDigest, READ, Cost::Session("data digest")),
        ],
        CommandFault::Reject(_) => [
            // RFC 7143 section 11.17.1: protocol error, command not supported, invalid PDU field.
            command(CommandFault::Reject(0x04), DATA, Cost::Request),
            command(CommandFault::Reject(0x05), DATA, Cost::Request),
            command(CommandFault::Reject(0x09), DATA, Cost::Request),
            // Data digest error, waiting for logout.
            command(CommandFault::Reject(0x02), DATA, Cost::Session("refused a PDU")),
            command(CommandFault::Reject(0x0c), DATA, Cost::Session("refused a PDU")),
        ],
        CommandFault::NoAnswer => [command(CommandFault::NoAnswer, MAIN, Cost::Wait)],
        CommandFault::CloseAfter => [command(CommandFault::CloseAfter, ALL, LOST)],
        CommandFault::CloseBefore => [command(CommandFault::CloseBefore, ALL, LOST)],
        CommandFault::CutAnswer(_) => [
            command(CommandFault::CutAnswer(0), DATA, LOST),
            command(CommandFault::CutAnswer(20), DATA, LOST),
            command(CommandFault::CutAnswer(48), DATA, LOST),
            command(CommandFault::CutAnswer(60), DATA, LOST),
        ],
        CommandFault::Hold => [command(CommandFault::Hold, MAIN, Cost::Wait)],
        CommandFault::Delay(_) => [
            command(CommandFault::Delay(Duration::from_millis(300)), MAIN, Cost::Nothing),
        ],
    }
}

/// The type of the guest's requests that become this command.
fn request_type(opcode: u8) -> u32 {
    match opcode {
        opcode::READ_16 => T_IN,
        opcode::WRITE_16 => T_OUT,
        _ => T_FLUSH,
    }
}

/// Commands of which there are few in a mix are struck at once.
fn rule(fault: &CommandFault, opcode: u8) -> Rule {
    let skip = if DATA.contains(&opcode) { 2 } else { 0 };
    Rule::command(fault.clone()).opcode(opcode).skip(skip)
}

/// A mix that has enough of these commands: flushes and their kin are a few in a hundred.
fn mix_with(opcode: u8) -> Mix {
    let steps = if DATA.contains(&opcode) { 60 } else { 180 };
    Mix { steps, ..mix() }
}

/// A mix in which a command is struck once (three times where that costs nothing). Returns how many
/// requests failed.
fn struck_mix(served: &Served, frontend: &mut Frontend, case: &CommandCase, opcode: u8) -> usize {
    let times = match case.cost {
        Cost::Nothing => 3,
        Cost::Session(_) | Cost::Request | Cost::Wait => 1,
    };
    let id = served.target.add(rule(&case.fault, opcode).times(times));
    let mix = Mix {
        may_fail: 3,
        ..mix_with(opcode)
    };
    let summary = random_mix_with(frontend, &mut Model::zeroed(), &mix, |_, _| {});
    let fired = served.target.remove(id);
    assert!(fired > 0, "{:?}: not struck", case.fault);
    soak::report(&[("scripted_faults", fired)]);
    for (kind, range, _) in &summary.failed {
        assert_eq!(*kind, request_type(opcode), "{range:?}");
    }
    summary.failed.len()
}

/// Cases that leave their session alone, one after the other on one disk.
fn judge_in_one_session(cost: fn(&Cost) -> bool, failed: usize) {
    let served = Served::new(asks_for_writes());
    for case in command_cases().iter().filter(|case| cost(&case.cost)) {
        for opcode in case.opcodes {
            // The mix begins with a disk of zeroes.
            let mut frontend = connect_with_sessions(&served, 2);
            assert_eq!(frontend.queue(0).write_zeroes(0, 2048, false).unwrap(), 0);
            judge_and_forget(&served);
            let count = struck_mix(&served, &mut frontend, case, *opcode);
            assert_eq!(count, failed, "{:?} {opcode:#x}", case.fault);
            assert_eq!(logins(&served), 0, "{:?} {opcode:#x}", case.fault);
        }
    }
    judge_and_forget(&served);
}

#[test]
fn what_passes_by_itself_costs_nothing() {
    judge_in_one_session(|cost| matches!(cost, Cost::Nothing), 0);
}

#[test]
fn what_the_guest_has_to_know_costs_that_request_and_no_other() {
    judge_in_one_session(|cost| matches!(cost, Cost::Request), 1);
}

fn costs_a_session(case: &CommandCase, opcode: u8, logged: &str) {
    let served = Served::with(asks_for_writes(), case.arguments);
    let mut frontend = connect_with_sessions(&served, 2);
    let before = logins(&served);
    assert_eq!(struck_mix(&served, &mut frontend, case, opcode), 0);
    let what = format!("{:?} {opcode:#x}: {:#?}", case.fault, served.daemon.log());
    assert_eq!(logins(&served), before + 1, "{what}");
    served.daemon.wait_log(logged, SOON);
    judge_and_forget(&served);
}

#[test]
fn a_broken_rule_or_connection_costs_the_session_and_no_request() {
    let jobs: Vec<_> = command_cases()
        .into_iter()
        .flat_map(|case| {
            let opcodes = case.opcodes;
            let case = std::sync::Arc::new(case);
            opcodes.iter().map(move |opcode| (case.clone(), *opcode))
        })
        .collect();
    for (case, opcode) in jobs {
        if let Cost::Session(logged) = case.cost {
            costs_a_session(&case, opcode, logged);
        }
    }
}

/// The connection is closed when the command has been struck. What the target held of it has ended
/// by the reinstatement, so there is nothing left to carry out.
fn waits_for_the_session_to_end(case: &CommandCase, opcode: u8) {
    let served = Served::new(asks_for_writes());
    let mut frontend = connect_with_sessions(&served, 2);
    let id = served.target.add(rule(&case.fault, opcode).once());
    thread::scope(|scope| {
        scope.spawn(|| {
            let struck = || (served.target.fired(id) > 0).then_some(());
            assert!(wait::until(SOON, struck).is_some(), "{:?}", case.fault);
            served.target.drop_connections();
        });
        let steps = if DATA.contains(&opcode) { 120 } else { 300 };
        random_mix(&mut frontend, &mut Model::zeroed(), &Mix { steps, ..mix() });
    });
    assert_eq!(served.target.release_held(), 0);
    judge_and_forget(&served);
}

#[test]
fn what_is_never_answered_is_sent_again_when_the_session_ends() {
    for case in command_cases() {
        if matches!(case.cost, Cost::Wait) {
            for opcode in case.opcodes {
                waits_for_the_session_to_end(&case, *opcode);
            }
        }
    }
}

// ---- logins -------------------------------------------------------------------------------------

/// What a fault of the login that follows the loss of a session costs. A guest notices none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoginCost {
    /// The login goes on.
    Nothing,
    /// It fails, and there is another.
    Login,
}

struct LoginCase {
    fault: LoginFault,
    cost: LoginCost,
    with_chap: bool,
}

fn login(fault: LoginFault, cost: LoginCost) -> LoginCase {
    LoginCase {
        fault,
        cost,
        with_chap: false,
    }
}

fn fails(fault: LoginFault) -> LoginCase {
    login(fault, LoginCost::Login)
}

fn fails_chap(fault: LoginFault) -> LoginCase {
    LoginCase {
        with_chap: true,
        ..fails(fault)
    }
}

fn set(key: &str, value: &str) -> LoginFault {
    LoginFault::SetKey(key.to_owned(), value.to_owned())
}

fn status(class: u8, detail: u8) -> LoginCase {
    fails(LoginFault::Status { class, detail })
}

fn redirect(address: &str, permanent: bool, cost: LoginCost) -> LoginCase {
    let address = address.to_owned();
    login(LoginFault::Redirect { permanent, address }, cost)
}

/// In the place of an address: that of the target.
const ITSELF: &str = "itself";

decided! {
    /// What is in the target's script for logins.
    login_cases() -> LoginCase of LoginFault {
        LoginFault::Status { .. } => [
            // Not found (a target that restarts), removed, authentication, too many connections;
            // target error, service unavailable, out of resources.
            status(2, 3), status(2, 4), status(2, 1), status(2, 6),
            status(3, 0), status(3, 1), status(3, 2),
        ],
        LoginFault::Redirect { .. } => [
            redirect(ITSELF, false, LoginCost::Nothing),
            redirect(ITSELF, true, LoginCost::Nothing),
            redirect(&format!("127.0.0.1:{}", free_port()), false, LoginCost::Login),
            redirect("", false, LoginCost::Login),
        ],
        LoginFault::Close => [fails(LoginFault::Close)],
        LoginFault::Silence => [fails(LoginFault::Silence)],
        LoginFault::Opcode(_) => [fails(LoginFault::Opcode(0x21)), fails(LoginFault::Opcode(0x3f))],
        LoginFault::WrongInitiatorTaskTag => [fails(LoginFault::WrongInitiatorTaskTag)],
        LoginFault::WrongVersion => [fails(LoginFault::WrongVersion)],
        LoginFault::StageBackwards => [fails(LoginFault::StageBackwards)],
        LoginFault::UnaskedTransition => [fails(LoginFault::UnaskedTransition)],
        LoginFault::ZeroTsih => [fails(LoginFault::ZeroTsih)],
        LoginFault::KeyWithoutEquals => [fails(LoginFault::KeyWithoutEquals)],
        LoginFault::DuplicateKey => [fails(LoginFault::DuplicateKey)],
        LoginFault::ValueOutOfRange => [fails(LoginFault::ValueOutOfRange)],
        LoginFault::SetKey(..) => [
            login(LoginFault::reject("MaxBurstLength"), LoginCost::Nothing),
            fails(LoginFault::not_understood("HeaderDigest")),
            fails(set("InitialR2T", "Maybe")),
            // What follows from it for the session holds from then on.
            login(set("MaxBurstLength", "512"), LoginCost::Nothing),
            // Another portal group is another target port.
            fails(set("TargetPortalGroupTag", "7")),
            fails_chap(LoginFault::unknown_chap_algorithm()),
        ],
        LoginFault::DropKey(_) => [
            login(LoginFault::DropKey("TargetPortalGroupTag".to_owned()), LoginCost::Nothing),
            fails_chap(LoginFault::DropKey("CHAP_R".to_owned())),
        ],
        LoginFault::AddKey(..) => [
            login(LoginFault::AddKey("X-org.example.more".to_owned(), "1".to_owned()), LoginCost::Nothing),
            fails(LoginFault::AddKey("SendTargets".to_owned(), "All".to_owned())),
        ],
        LoginFault::TextTooLong(_) => [fails(LoginFault::TextTooLong(1 << 20))],
        LoginFault::ContinueForEver => [fails(LoginFault::ContinueForEver)],
        LoginFault::WrongChapAnswer => [fails_chap(LoginFault::WrongChapAnswer)],
        LoginFault::ReflectChapAnswer => [fails_chap(LoginFault::ReflectChapAnswer)],
        LoginFault::ReflectChapChallenge => [
            // A challenge of an earlier login: whoever has the secret can answer it.
            LoginCase { cost: LoginCost::Nothing, ..fails_chap(LoginFault::ReflectChapChallenge) },
        ],
        LoginFault::ChapChallengeBytes(_) => [fails_chap(LoginFault::ChapChallengeBytes(1025))],
    }
}

/// Files with the secrets of both sides, and the arguments that name them.
struct Chap {
    _directory: TempDir,
    arguments: Vec<String>,
}

const OUR_SECRET: &str = "the initiator's secret";
const THEIR_SECRET: &str = "the target's own secret";

fn chap_config() -> TargetConfig {
    let chap = ChapConfig::new("user", Secret::new(OUR_SECRET));
    TargetConfig {
        chap: Some(chap.mutual("target", Secret::new(THEIR_SECRET))),
        ..asks_for_writes()
    }
}

impl Chap {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let file = |name: &str, secret: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, secret).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, mode).unwrap();
            path.display().to_string()
        };
        let (ours, theirs) = (file("ours", OUR_SECRET), file("theirs", THEIR_SECRET));
        let arguments = [
            ["--chap-user", "user", "--chap-secret-file", &ours],
            [
                "--chap-target-user",
                "target",
                "--chap-target-secret-file",
                &theirs,
            ],
        ];
        Self {
            arguments: arguments.concat().into_iter().map(str::to_owned).collect(),
            _directory: directory,
        }
    }
}

/// The session is lost in the middle of a mix, and the login after it is struck at this response.
/// Returns how often it was.
fn struck_login(served: &Served, case: &LoginCase, step: u32) -> u64 {
    let mut fault = case.fault.clone();
    if let LoginFault::Redirect { address, .. } = &mut fault {
        *address = address.replace(ITSELF, &served.target.portal().to_string());
    }
    let id = served.target.add(Rule::login(fault).at_step(step).once());
    let before = logins(served);
    lose_the_session_in_a_mix(served);
    let what = format!("{:?} at {step}: {:#?}", case.fault, served.daemon.log());
    let made = logins(served) - before;
    // A response that is held back or spoiled ends a login that the target counts.
    assert!((1..=2).contains(&made), "{what}");
    served.target.remove(id)
}

fn lose_the_session_in_a_mix(served: &Served) {
    let mut frontend = served.connect(FrontendConfig::with_queues(1));
    let zeroed = frontend.queue(0).write_zeroes(0, 2048, false);
    assert_eq!(zeroed.unwrap(), 0);
    random_mix_with(&mut frontend, &mut Model::zeroed(), &mix(), |_, moment| {
        if moment == Moment::Submitted(20) {
            served.target.drop_connections();
        }
    });
}

fn is_ridden_out(case: &LoginCase, chap: &Chap) {
    let (config, steps) = match case.with_chap {
        true => (chap_config(), 4),
        false => (asks_for_writes(), 2),
    };
    let chap: Vec<_> = chap.arguments.iter().map(String::as_str).collect();
    let chap = if case.with_chap { &chap[..] } else { &[] };
    let arguments = [&["--login-timeout", "1s"], chap].concat();
    let served = Served::with(config, &arguments);
    let struck: u64 = (1..=steps)
        .map(|step| struck_login(&served, case, step))
        .sum();
    assert!(struck > 0, "{:?} found no place", case.fault);
    soak::report(&[("scripted_faults", struck)]);
    let waited = served
        .daemon
        .log()
        .iter()
        .any(|line| line.contains("requests wait"));
    let what = format!("{:?}: {:#?}", case.fault, served.daemon.log());
    assert_eq!(waited, case.cost == LoginCost::Login, "{what}");
    judge_and_forget(&served);
}

#[test]
fn a_login_that_fails_after_a_loss_is_made_again_and_the_guest_waits() {
    let chap = Chap::new();
    for case in login_cases() {
        is_ridden_out(&case, &chap);
    }
}

// ---- connections --------------------------------------------------------------------------------

struct ConnectCase {
    fault: ConnectFault,
}

fn connecting(fault: ConnectFault) -> ConnectCase {
    ConnectCase { fault }
}

decided! {
    /// What is in the target's script for connections; a guest notices none of them.
    connect_cases() -> ConnectCase of ConnectFault {
        ConnectFault::Close => [connecting(ConnectFault::Close)],
        ConnectFault::Silence => [connecting(ConnectFault::Silence)],
        ConnectFault::Garbage(_) => [
            connecting(ConnectFault::http()),
            connecting(ConnectFault::Garbage(vec![0xff; 5000])),
            connecting(ConnectFault::Garbage(vec![0x23; 20])),
        ],
    }
}

#[test]
fn a_connection_that_leads_nowhere_after_a_loss_is_made_again_and_the_guest_waits() {
    for case in connect_cases() {
        let served = Served::with(asks_for_writes(), &["--login-timeout", "1s"]);
        let id = served
            .target
            .add(Rule::connect(case.fault.clone()).times(2));
        lose_the_session_in_a_mix(&served);
        assert_eq!(served.target.fired(id), 2, "{:?}", case.fault);
        served.daemon.wait_log("requests wait", SOON);
        judge_and_forget(&served);
    }
}

// ---- asynchronous messages ----------------------------------------------------------------------

struct AsyncCase {
    fault: AsyncEvent,
    /// Whether each session is made again.
    costs_sessions: bool,
}

fn session_ends(fault: AsyncEvent) -> AsyncCase {
    AsyncCase {
        fault,
        costs_sessions: true,
    }
}

fn session_goes_on(fault: AsyncEvent) -> AsyncCase {
    AsyncCase {
        fault,
        costs_sessions: false,
    }
}

decided! {
    /// What the target can announce; a guest notices none of it.
    async_cases() -> AsyncCase of AsyncEvent {
        AsyncEvent::LogoutRequest { .. } => [session_ends(AsyncEvent::LogoutRequest { seconds: 3 })],
        AsyncEvent::DropConnection { .. } => [
            session_ends(AsyncEvent::DropConnection { time2wait: 0, time2retain: 0 }),
            // More than we are willing to wait.
            session_ends(AsyncEvent::DropConnection { time2wait: 600, time2retain: 0 }),
        ],
        AsyncEvent::DropAllConnections { .. } => [
            session_ends(AsyncEvent::DropAllConnections { time2wait: 1, time2retain: 0 }),
        ],
        AsyncEvent::Renegotiate { .. } => [session_ends(AsyncEvent::Renegotiate { seconds: 3 })],
        AsyncEvent::Scsi(_) => [
            session_goes_on(AsyncEvent::Scsi(Sense::CAPACITY_CHANGED)),
            session_goes_on(AsyncEvent::Scsi(Sense::RESET_OCCURRED)),
        ],
        AsyncEvent::Other(_) => [session_goes_on(AsyncEvent::Other(255))],
    }
}

#[test]
fn asynchronous_messages_cost_no_request() {
    const SESSIONS: usize = 2;
    for case in async_cases() {
        let served = Served::new(asks_for_writes());
        let mut frontend = connect_with_sessions(&served, 2);
        let before = logins(&served);
        random_mix_with(&mut frontend, &mut Model::zeroed(), &mix(), |_, moment| {
            if moment == Moment::Submitted(20) {
                assert_eq!(served.target.send_async(case.fault), SESSIONS);
            }
        });
        let expected = if case.costs_sessions { SESSIONS } else { 0 };
        let what = format!("{:?}: {:#?}", case.fault, served.daemon.log());
        assert_eq!(logins(&served), before + expected, "{what}");
        judge_and_forget(&served);
    }
}
