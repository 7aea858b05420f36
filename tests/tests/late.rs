//! Commands that a living target does not answer, and targets that answer and will not do it.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use iscsi_test_target::{
    CommandFault, Event, LunConfig, Rule, Sense, TargetConfig, TaskManagementFault, opcode,
};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::{S_IOERR, S_OK};
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::served::{SOON, Served, one_lun};
use vhost_user_iscsi_tests::wait;

/// RFC 7143 section 11.5.1.
const ABORT_TASK: u8 = 1;
const LOGICAL_UNIT_RESET: u8 = 5;
/// RFC 7143 section 11.6.1.
const COMPLETE: u8 = 0;
const NO_SUCH_TASK: u8 = 1;
const NOT_SUPPORTED: u8 = 5;

const SOON_LATE: [&str; 4] = ["--command-timeout", "1s", "--sessions", "2"];

fn config() -> TargetConfig {
    one_lun(LunConfig::default())
}

fn warm_up(frontend: &mut Frontend) {
    for queue in frontend.queues() {
        assert_eq!(queue.write(4096, &pattern(512)).unwrap(), S_OK);
    }
}

/// The task management functions that came in so far, each with its answer.
fn functions(served: &Served) -> Vec<(u8, u8)> {
    let function = |event| match event {
        Event::TaskManagement {
            function, response, ..
        } => Some((function, response)),
        _ => None,
    };
    let events = served.target.events();
    events.into_iter().filter_map(function).collect()
}

fn logins(served: &Served) -> usize {
    let is_login = |event: &Event| matches!(event, Event::LoggedIn { .. });
    let events = served.target.events();
    events.iter().filter(|event| is_login(event)).count()
}

/// Writes with this fault, and reads back what was written.
fn struck_write(served: &Served, frontend: &mut Frontend, fault: CommandFault, length: usize) {
    let rule = Rule::command(fault).opcode(opcode::WRITE_16).once();
    served.target.add(rule);
    let queue = frontend.queue(0);
    assert_eq!(queue.write(0, &pattern(length)).unwrap(), S_OK);
    let length = u32::try_from(length).unwrap();
    let (status, data) = frontend.queue(1).read(0, length).unwrap();
    assert!((status, data) == (S_OK, pattern(length as usize)));
}

#[test]
fn a_command_that_is_not_answered_is_aborted_and_sent_again_on_the_same_session() {
    // One that the target has forgotten, and one that it still has.
    for (fault, response) in [
        (CommandFault::NoAnswer, NO_SUCH_TASK),
        (CommandFault::Hold, COMPLETE),
    ] {
        for length in [4096, 256 * 1024] {
            let served = Served::with(config(), &SOON_LATE);
            let mut frontend = served.connect(FrontendConfig::with_queues(2));
            warm_up(&mut frontend);
            let before = logins(&served);
            struck_write(&served, &mut frontend, fault.clone(), length);
            assert_eq!(functions(&served), [(ABORT_TASK, response)]);
            assert_eq!(logins(&served), before);
            assert_eq!(served.target.release_held(), 0);
            served.daemon.wait_log("not answered in time", SOON);
        }
    }
}

#[test]
fn a_target_that_will_not_abort_is_made_to_by_reinstatement() {
    for fault in [
        TaskManagementFault::Response(NOT_SUPPORTED),
        TaskManagementFault::NoAnswer,
    ] {
        let served = Served::with(config(), &SOON_LATE);
        let mut frontend = served.connect(FrontendConfig::with_queues(2));
        warm_up(&mut frontend);
        let before = logins(&served);
        let rule = Rule::task_management(ABORT_TASK, fault);
        let rule = served.target.add(rule);
        struck_write(&served, &mut frontend, CommandFault::Hold, 4096);
        assert_eq!(served.target.fired(rule), 1);
        assert_eq!(logins(&served), before + 1, "{:#?}", served.daemon.log());
        assert_eq!(served.target.release_held(), 0);
        served.daemon.wait_log("late", SOON);
    }
}

#[test]
fn a_lun_is_reset_only_when_asked_for() {
    let arguments = [&SOON_LATE[..], &["--lun-reset"]].concat();
    let served = Served::with(config(), &arguments);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    warm_up(&mut frontend);
    let refusal = TaskManagementFault::Response(NOT_SUPPORTED);
    served
        .target
        .add(Rule::task_management(ABORT_TASK, refusal));
    struck_write(&served, &mut frontend, CommandFault::Hold, 4096);
    let expected = [(ABORT_TASK, NOT_SUPPORTED), (LOGICAL_UNIT_RESET, COMPLETE)];
    assert_eq!(functions(&served), expected);
    served.daemon.wait_log("resetting the LUN", SOON);
}

#[test]
fn commands_that_another_host_has_had_ended_are_asked_after_on_every_session() {
    // Of these two the second one only is told of the reset.
    let served = Served::with(config(), &["--sessions", "2"]);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    warm_up(&mut frontend);
    let rule = Rule::command(CommandFault::NoAnswer).opcode(opcode::WRITE_16);
    let rule = served.target.add(rule.once());
    let request = Request::write(0, pattern(4096));
    let layout = Layout::usual(&request);
    frontend.queue(0).submit(request, &layout).unwrap();
    let struck = wait::until(SOON, || (served.target.fired(rule) == 1).then_some(()));
    assert!(struck.is_some());
    served
        .target
        .push_unit_attention(0, Sense::LUN_RESET_OCCURRED);
    assert_eq!(frontend.queue(1).read(64, 512).unwrap().0, S_OK);
    // The time-out of commands is far longer than this.
    let completion = frontend.queue(0).wait_used(SOON).unwrap();
    assert_eq!(completion.status, S_OK);
    assert_eq!(functions(&served), [(ABORT_TASK, NO_SUCH_TASK)]);
}

#[test]
fn a_target_that_is_busy_for_ever_is_waited_for_as_long_as_io_timeout_says() {
    let served = Served::with(config(), &["--io-timeout", "1s"]);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    for fault in [
        CommandFault::BUSY,
        CommandFault::TASK_SET_FULL,
        CommandFault::check_condition(Sense::BECOMING_READY),
    ] {
        let rule = served
            .target
            .add(Rule::command(fault.clone()).opcode(opcode::WRITE_16));
        assert_eq!(
            frontend.queue(0).write(0, &pattern(512)).unwrap(),
            S_IOERR,
            "{fault:?}"
        );
        served.target.remove(rule);
        assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    }
}

#[test]
fn a_target_with_a_full_task_set_gets_fewer_commands_at_once_and_all_of_them_in_the_end() {
    const REQUESTS: u64 = 64;
    let served = Served::with(config(), &["--sessions", "1"]);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    let full = Rule::command(CommandFault::TASK_SET_FULL).opcode(opcode::WRITE_16);
    let full = served.target.add(full.times(100));
    let requests = (0..32).map(|at| {
        let request = Request::write(at * 8, pattern(4096));
        let layout = Layout::usual(&request).indirect();
        (request, layout)
    });
    let requests: Vec<_> = requests.collect();
    for queue in frontend.queues() {
        queue.submit_batch(requests.clone()).unwrap();
    }
    for _ in 0..REQUESTS {
        let (_, completion) = frontend.wait_any(IO_LIMIT).unwrap();
        assert_eq!(completion.status, S_OK);
    }
    assert_eq!(served.target.fired(full), 100);
}
