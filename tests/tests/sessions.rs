//! Sessions while a disk is served: how many, under which ISIDs, and how they are made anew when
//! the target misbehaves, so that the guest never notices.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use iscsi_test_target::{Event, LoginFault, Rule};
use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{Launch, run};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig};
use vhost_user_iscsi_tests::model::{Mix, Model, random_mix};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, Served, asks_for_writes, start_target};
use vhost_user_iscsi_tests::wait;

type Isid = [u8; 6];

fn mix() -> Mix {
    Mix {
        steps: 80,
        range: 0..4096,
        ..Mix::default()
    }
}

/// The ISIDs of all logins so far, by whether they asked for a discovery session.
fn isids(served: &Served) -> BTreeSet<Isid> {
    let isid = |event| match event {
        Event::LoggedIn { isid, .. } => Some(isid),
        _ => None,
    };
    served
        .target
        .events()
        .into_iter()
        .filter_map(isid)
        .collect()
}

fn logins(served: &Served) -> usize {
    let events = served.target.events();
    let logins = events
        .iter()
        .filter(|event| matches!(event, Event::LoggedIn { .. }));
    logins.count()
}

/// That all logins asked for a new session or the reinstatement of one (RFC 7143 section 6.3.5).
fn all_logins_have_tsih_0(served: &Served) {
    for event in served.target.events() {
        if let Event::LoginRequest { tsih, .. } = event {
            assert_eq!(tsih, 0);
        }
    }
}

/// Blocks until so many sessions are logged in.
fn wait_for_sessions(served: &Served, count: usize) {
    let mut seen = BTreeSet::new();
    let found = served.target.wait_for(SOON, |event| {
        if let Event::LoggedIn { isid, .. } = event {
            seen.insert(*isid);
        }
        seen.len() >= count
    });
    assert!(
        found.is_some(),
        "{count} sessions: {:#?}",
        served.daemon.log()
    );
}

// ---- a target that misbehaves -------------------------------------------------------------------

#[test]
fn every_connection_cut_again_and_again_costs_no_request() {
    let served = Served::with(asks_for_writes(), &[]);
    let mut frontend = served.connect(FrontendConfig::with_queues(4));
    let mut model = Model::zeroed();
    for seed in 1..6 {
        random_mix(
            &mut frontend,
            &mut model,
            &Mix {
                seed,
                steps: 40,
                ..mix()
            },
        );
        served.target.drop_connections();
    }
    random_mix(&mut frontend, &mut model, &mix());
    all_logins_have_tsih_0(&served);
    assert!(isids(&served).len() <= 4);
}

#[test]
fn a_connection_that_falls_silent_is_noticed_and_replaced() {
    let served = Served::with(asks_for_writes(), &[]);
    let mut frontend = served.connect(FrontendConfig::with_queues(1));
    assert_eq!(frontend.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    served.target.freeze_connections();
    assert_eq!(
        frontend.queue(0).read(0, 4096).unwrap(),
        (S_OK, pattern(4096))
    );
    assert_eq!(isids(&served).len(), 1);
    assert_eq!(logins(&served), 2);
}

#[test]
fn pings_of_the_target_are_answered_while_nothing_else_happens() {
    let served = Served::with(asks_for_writes(), &[]);
    for _ in 0..3 {
        assert_eq!(served.target.ping(), 1);
    }
    let mut answered = 0;
    let all = served.target.wait_for(SOON, |event| {
        answered += usize::from(matches!(event, Event::Ponged { .. }));
        answered == 3
    });
    assert!(all.is_some());
}

// ---- how many, and under which names ------------------------------------------------------------

/// One write and one read on each queue, each elsewhere.
fn uses_all_queues(frontend: &mut Frontend) {
    for (sector, queue) in (0..).step_by(8).zip(frontend.queues()) {
        assert_eq!(queue.write(sector, &pattern(4096)).unwrap(), S_OK);
        assert_eq!(queue.read(sector, 4096).unwrap(), (S_OK, pattern(4096)));
    }
}

/// A mix on sectors that nobody has written to.
fn mixes_elsewhere(frontend: &mut Frontend) {
    let mix = Mix {
        range: 4096..8192,
        ..mix()
    };
    random_mix(frontend, &mut Model::zeroed(), &mix);
}

#[test]
fn each_queue_in_use_has_a_session_up_to_the_limit() {
    for (count, limit, expected) in [(1, 4, 1), (3, 4, 3), (4, 4, 4), (8, 4, 4), (3, 2, 2)] {
        let served = Served::with(asks_for_writes(), &["--sessions", &limit.to_string()]);
        let mut frontend = served.connect(FrontendConfig::with_queues(count));
        uses_all_queues(&mut frontend);
        wait_for_sessions(&served, expected);
        mixes_elsewhere(&mut frontend);
        assert_eq!(
            isids(&served).len(),
            expected,
            "{count} queues, at most {limit}"
        );
    }
}

/// More than the main thread, the runtime's and the front-end's; far fewer than 64 queues.
const OTHER_THREADS: usize = 8;

/// The threads that serve queues, by their names.
fn lanes(served: &Served) -> BTreeSet<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", served.daemon.id())).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
    };
    let names = tasks.map(name).map(|name| name.trim().to_owned());
    names.filter(|name| name.starts_with("lane-")).collect()
}

fn threads(served: &Served) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", served.daemon.id()));
    tasks.unwrap().count()
}

#[test]
fn threads_exist_only_for_queues_in_use() {
    let served = Served::with(asks_for_writes(), &["--sessions", "4"]);
    for count in [1, 4, 8] {
        let mut frontend = served.connect(FrontendConfig::with_queues(count));
        uses_all_queues(&mut frontend);
        let expected = usize::from(count.min(4));
        assert_eq!(lanes(&served).len(), expected, "{count} of 64 queues");
        let others = threads(&served) - lanes(&served).len();
        assert!(others <= OTHER_THREADS, "{others} beside the lanes");
        drop(frontend);
        let gone = wait::until(SOON, || (lanes(&served).len() == 1).then_some(()));
        assert!(gone.is_some(), "{:?}", lanes(&served));
    }
}

#[test]
fn sessions_that_the_target_refuses_are_done_without() {
    for (class, detail) in [(3, 2), (2, 6)] {
        let target = start_target(asks_for_writes());
        // A login takes two responses: the first session is granted.
        let refusal = Rule::login(LoginFault::Status { class, detail }).skip(2);
        let rule = target.add(refusal);
        let served = Served::from(target, 0, &[]);
        let mut frontend = served.connect(FrontendConfig::with_queues(4));
        uses_all_queues(&mut frontend);
        mixes_elsewhere(&mut frontend);
        assert!(served.target.fired(rule) > 0);
        assert_eq!(isids(&served).len(), 1);
    }
}

#[test]
fn a_disk_keeps_its_isids_when_its_process_is_killed_and_started_again() {
    let target = start_target(asks_for_writes());
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.sock");
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let launch = Launch::at(&target.url(0), &path).args(["--initiator-name", INITIATOR_NAME]);
        let mut daemon = launch.start();
        uses_all_queues(&mut daemon.connect(FrontendConfig::with_queues(2)));
        daemon.kill();
    }
    for event in target.events() {
        if let Event::LoggedIn { isid, .. } = event {
            seen.insert(isid);
        }
    }
    assert!((1..=2).contains(&seen.len()), "{seen:02x?}");
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn verbs_do_not_disturb_a_running_disk() {
    let served = Served::with(asks_for_writes(), &[]);
    let mut frontend = served.connect(FrontendConfig::with_queues(2));
    uses_all_queues(&mut frontend);
    wait_for_sessions(&served, 2);
    let serving = isids(&served);
    let (url, portal) = (served.target.url(0), served.target.portal().to_string());
    for verb in [["probe", &url], ["discover", &portal]].repeat(3) {
        let name = ["--initiator-name", INITIATOR_NAME];
        let output = run(&[verb.as_slice(), &name].concat());
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        uses_all_queues(&mut frontend);
    }
    assert_eq!(
        isids(&served).len(),
        serving.len() + 6,
        "each verb has an ISID of its own"
    );
    let disturbed = |event: &Event| matches!(event, Event::Reinstated { .. });
    assert!(!served.target.events().iter().any(disturbed));
    assert_eq!(served.target.sessions().len(), serving.len());
}

#[test]
fn sigterm_logs_out_every_session() {
    let mut served = Served::with(asks_for_writes(), &["--sessions", "4"]);
    let mut frontend = served.connect(FrontendConfig::with_queues(4));
    uses_all_queues(&mut frontend);
    wait_for_sessions(&served, 4);
    let (status, _) = served.daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{:#?}", served.daemon.log());
    let mut out = BTreeSet::new();
    let all = served.target.wait_for(Duration::from_secs(5), |event| {
        if let Event::Logout { session, .. } = event {
            out.insert(*session);
        }
        out.len() == 4
    });
    assert!(all.is_some(), "only {out:?} were logged out");
}
