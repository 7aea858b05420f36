//! The limits of a disk: what a guest gets of it by our clock, and that nothing else waits for tokens.
//!
//! A limit is an upper bound, and judged as one in every window. That it is reached, too, depends on
//! who else wants the processor: one of several windows has to show it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use iscsi_test_target::{Event, LunConfig, opcode};
use serde_json::Value;
use vhost_user_iscsi_tests::control_socket::ControlSocket;
use vhost_user_iscsi_tests::daemon::Launch;
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, Served, one_lun};
use vhost_user_iscsi_tests::wait;

/// How exactly a limit is held.
const TOLERANCE: f64 = 0.05;

/// How long a rate is measured. A guest may be ahead by a tenth of a second: a fortieth of it.
const WINDOW: Duration = Duration::from_secs(4);

/// How many windows may be disturbed by others.
const WINDOWS: usize = 5;

/// How long what is in flight may take to end at a SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// How many requests [`held_for_minutes`] makes, and how long each is.
const HELD: u64 = 6;
const HELD_SECTORS: u64 = (1 << 20) / 512;

/// A served disk with a control socket.
struct Limited {
    served: Served,
    control: ControlSocket,
}

impl Limited {
    fn new(arguments: &str) -> Self {
        let control = ControlSocket::new();
        let mut all = control.arguments().to_vec();
        all.extend(arguments.split_whitespace());
        let served = Served::with(one_lun(LunConfig::of_bytes(16 << 20)), &all);
        Self { served, control }
    }

    fn connect(&self, queues: u16, inflight: bool) -> Frontend {
        self.served.connect(FrontendConfig {
            queues,
            inflight,
            ..FrontendConfig::default()
        })
    }

    fn verb(&self, verb: &str, arguments: &[&str]) -> Value {
        let arguments = [&[verb, "disk"], arguments].concat();
        self.control.document(&arguments)
    }

    /// How many requests the limits have held so far.
    fn throttled(&self) -> u64 {
        let stats = self.verb("stats", &[]);
        let sessions = stats["disks"][0]["sessions"].as_array().unwrap().iter();
        let counts = sessions.map(|session| session["throttled"].as_u64().unwrap());
        counts.sum()
    }

    fn wait_until_held(&self, count: u64) {
        let held = wait::until(SOON, || (self.throttled() >= count).then_some(()));
        assert!(held.is_some(), "{} are held", self.throttled());
    }

    /// What was stopped has not waited for its limit until it was given up: that drops the connection.
    fn nothing_was_given_up(&self) {
        let is_login = |event: &Event| matches!(event, Event::LoggedIn { .. });
        let events = self.served.target.events();
        let logins = events.iter().filter(|event| is_login(event)).count();
        assert_eq!(logins, 1, "{:#?}", self.served.daemon.log());
    }
}

fn submit(frontend: &mut Frontend, queue: usize, request: &Request) {
    let layout = Layout::usual(request);
    let queue = frontend.queue(queue);
    queue.submit(request.clone(), &layout).unwrap();
}

/// Keeps every queue full of a request.
struct Load {
    frontend: Frontend,
    request: Request,
    /// Completed so far.
    count: u64,
}

impl Load {
    fn start(mut frontend: Frontend, request: Request, depth: usize) -> Self {
        for queue in 0..frontend.queues().len() {
            (0..depth).for_each(|_| submit(&mut frontend, queue, &request));
        }
        Self {
            frontend,
            request,
            count: 0,
        }
    }

    fn go_on(&mut self) {
        let (queue, completion) = self.frontend.wait_any(IO_LIMIT).unwrap();
        assert_eq!(completion.status, S_OK);
        self.count += 1;
        submit(&mut self.frontend, queue, &self.request);
    }

    fn until_count(&mut self, count: u64) {
        while self.count < count {
            self.go_on();
        }
    }

    /// Completions per second in a window.
    fn measure(&mut self, window: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.count);
        while start.elapsed() < window {
            self.go_on();
        }
        (self.count - before) as f64 / start.elapsed().as_secs_f64()
    }

    /// The rate is never above this, and it is reached.
    fn keeps_to(&mut self, per_s: u64) {
        let wanted = per_s as f64;
        // What may be ahead at first is not of the window.
        self.until_count(self.count + per_s / 4);
        let mut seen = Vec::new();
        for _ in 0..WINDOWS {
            let rate = self.measure(WINDOW);
            assert!(rate <= wanted * (1.0 + TOLERANCE), "{rate} per s");
            if rate >= wanted * (1.0 - TOLERANCE) {
                return;
            }
            seen.push(rate);
        }
        panic!("{wanted} per s is wanted and was never reached: {seen:?}");
    }
}

#[test]
fn iops_are_held_to_the_twentieth_by_all_queues_and_sessions_together() {
    for (queues, sessions) in [(1, 1), (2, 1), (2, 2)] {
        let limited = Limited::new(&format!("--sessions {sessions} --iops-total 500"));
        let frontend = limited.connect(queues, true);
        let mut load = Load::start(frontend, Request::read(0, 4096), 16);
        load.keeps_to(500);
        assert!(limited.throttled() > 0);
    }
}

#[test]
fn bytes_are_held_to_the_twentieth_by_all_queues_and_sessions_together() {
    for (queues, sessions) in [(1, 1), (2, 2)] {
        let limited = Limited::new(&format!("--sessions {sessions} --bps-write 8MiB"));
        let frontend = limited.connect(queues, true);
        let request = Request::write(0, pattern(32 * 1024));
        let mut load = Load::start(frontend, request, 8);
        load.keeps_to(256);
    }
}

#[test]
fn each_queue_gets_its_part() {
    let limited = Limited::new("--sessions 2 --iops-total 200");
    let mut frontend = limited.connect(2, true);
    let read = Request::read(0, 4096);
    for queue in [0, 1] {
        (0..16).for_each(|_| submit(&mut frontend, queue, &read));
    }
    let mut counts = [0; 2];
    while counts.iter().sum::<u32>() < 600 {
        let (queue, completion) = frontend.wait_any(IO_LIMIT).unwrap();
        assert_eq!(completion.status, S_OK);
        counts[queue] += 1;
        submit(&mut frontend, queue, &read);
    }
    assert!(counts.iter().all(|count| *count >= 200), "{counts:?}");
}

#[test]
fn a_burst_is_as_fast_as_it_is_set_and_then_over() {
    let limited = Limited::new(
        "--sessions 1 --iops-total 50 --iops-total-max 500 --iops-total-max-length 3s",
    );
    let frontend = limited.connect(1, true);
    let start = Instant::now();
    let mut load = Load::start(frontend, Request::read(0, 4096), 16);
    // 450 more than the average in each of three seconds, whenever that is.
    while (load.count as f64) < 1350.0 + 50.0 * start.elapsed().as_secs_f64() {
        load.go_on();
        let most = 500.0 * (start.elapsed().as_secs_f64() + 0.1) + 2.0;
        assert!(load.count as f64 <= most, "{} of {most}", load.count);
    }
    assert!(start.elapsed() > Duration::from_millis(2600));
    load.keeps_to(50);
}

#[test]
fn a_request_larger_than_any_burst_passes_and_those_behind_it_pay() {
    let limited = Limited::new("--sessions 1 --bps-total 4096");
    let mut frontend = limited.connect(1, true);
    let write = Request::write(0, pattern(1 << 20));
    submit(&mut frontend, 0, &write);
    assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
    submit(&mut frontend, 0, &Request::read(0, 512));
    limited.wait_until_held(1);
    assert_eq!(frontend.queue(0).poll_used().unwrap(), None);
}

#[test]
fn a_flush_is_not_limited_but_stays_behind_what_is() {
    let limited = Limited::new("--sessions 1 --iops-total 1");
    let mut frontend = limited.connect(2, true);
    submit(&mut frontend, 0, &Request::read(0, 512));
    assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
    for request in [
        Request::read(8, 512),
        Request::read(16, 512),
        Request::flush(),
    ] {
        submit(&mut frontend, 0, &request);
    }
    limited.wait_until_held(1);
    // The other ring has nothing that is held.
    for _ in 0..20 {
        assert_eq!(frontend.queue(1).flush().unwrap(), S_OK);
        assert_eq!(frontend.queue(1).get_id().unwrap().0, S_OK);
    }
    let order = (0..3).map(|_| frontend.queue(0).wait_used(IO_LIMIT).unwrap());
    let order: Vec<_> = order.map(|done| done.request.unwrap()).collect();
    assert_eq!(order[2], Request::flush());
}

#[test]
fn limits_change_while_the_disk_is_served() {
    let limited = Limited::new("--sessions 1 --bps-total 4096");
    let shown = limited.verb("limits", &[]);
    assert_eq!(shown["limits"]["bps_total"]["per_s"], 4096);
    let mut frontend = limited.connect(1, true);
    let write = Request::write(0, pattern(1 << 20));
    for _ in 0..4 {
        submit(&mut frontend, 0, &write);
    }
    assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
    limited.wait_until_held(1);
    // They would have had to wait for minutes.
    let none = limited.verb("limits", &["--none"]);
    assert_eq!(none["limits"]["bps_total"], Value::Null);
    for _ in 0..3 {
        assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
    }
    limited.verb("limits", &["--iops-total", "100"]);
    let status = limited.verb("status", &[]);
    assert_eq!(status["disks"][0]["limits"]["iops_total"]["per_s"], 100);
    let mut load = Load::start(frontend, Request::read(0, 4096), 16);
    load.keeps_to(100);
    limited.verb("limits", &["--iops-total", "400"]);
    load.keeps_to(400);
    let log = limited.served.daemon.log();
    let change = "disk disk: limits from now on: iops-total 400";
    assert!(log.iter().any(|line| line.contains(change)), "{log:#?}");
}

#[test]
fn what_a_server_is_asked_for_is_checked_there_too() {
    let limited = Limited::new("--iops-read 7");
    let ask = |set: &str| {
        let line = format!("{{\"verb\":\"limits\",\"disk\":\"disk\",\"set\":{set}}}\n");
        limited.control.ask(line.as_bytes())
    };
    for bad in [
        r#"{"iops_total":{"per_s":0}}"#,
        r#"{"iops_total":{"per_s":5},"iops_read":{"per_s":5}}"#,
        r#"{"bps_read":{"per_s":4095}}"#,
        r#"{"iops_total":{"per_s":5,"max_per_s":4}}"#,
        r#"{"iops_total":{"per_s":18446744073709551616}}"#,
        r#"{"iops":{"per_s":5}}"#,
    ] {
        assert_eq!(ask(bad)["ok"], false, "{bad}");
    }
    let limits = limited.verb("limits", &[]);
    assert_eq!(limits["limits"]["iops_read"]["per_s"], 7);
    assert_eq!(ask("{}")["result"]["limits"]["iops_read"], Value::Null);
}

/// Data unlike that of any other number.
fn mebibyte(number: u64) -> Vec<u8> {
    let mut data = pattern(1 << 20);
    data[..8].copy_from_slice(&number.to_be_bytes());
    data
}

/// A ring with one request that is answered, and others that have to wait for minutes, each of a
/// mebibyte of its own.
fn held_for_minutes(limited: &Limited, inflight: bool) -> Frontend {
    let mut frontend = limited.connect(1, inflight);
    for number in 0..HELD {
        let write = Request::write(number * HELD_SECTORS, mebibyte(number));
        submit(&mut frontend, 0, &write);
    }
    assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
    limited.wait_until_held(1);
    frontend
}

#[test]
fn a_reset_does_not_wait_for_tokens() {
    for inflight in [true, false] {
        let limited = Limited::new("--sessions 1 --bps-total 4096");
        let mut frontend = held_for_minutes(&limited, inflight);
        frontend.reset().unwrap();
        // What was held has paid for nothing.
        assert_eq!(frontend.queue(0).flush().unwrap(), S_OK);
        limited.verb("limits", &["--none"]);
        assert_eq!(frontend.queue(0).read(0, 4096).unwrap().0, S_OK);
        limited.nothing_was_given_up();
    }
}

#[test]
fn a_stopped_ring_leaves_what_is_held_to_whoever_starts_it() {
    for inflight in [true, false] {
        let limited = Limited::new("--sessions 1 --bps-total 4096");
        let mut frontend = held_for_minutes(&limited, inflight);
        let base = frontend.stop_queue(0).unwrap();
        let left = frontend
            .queue(0)
            .ring()
            .available_index()
            .wrapping_sub(base);
        assert_eq!(u64::from(left), HELD - 1);
        frontend.start_queue(0, base).unwrap();
        limited.wait_until_held(2);
        limited.verb("limits", &["--none"]);
        while frontend.queue(0).in_flight() > 0 {
            assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
        }
        limited.nothing_was_given_up();
    }
}

/// The first blocks of the writes that came to the target so far.
fn written(limited: &Limited) -> Vec<u64> {
    let first_block = |cdb: [u8; 16]| u64::from_be_bytes(cdb[2..10].try_into().unwrap());
    let writes = limited.served.commands(opcode::WRITE_16);
    writes.into_iter().map(first_block).collect()
}

/// Nothing of what was held has gone out, and all of it goes out once when another process serves.
fn the_next_process_does_what_was_held(limited: &Limited, mut frontend: Frontend) {
    let before = written(limited);
    assert!(
        before.iter().all(|block| *block < HELD_SECTORS),
        "{before:?}"
    );
    let path = limited.served.daemon.socket().to_owned();
    let name = ["--initiator-name", INITIATOR_NAME, "--sessions", "1"];
    let launch = Launch::at(&limited.served.target.url(0), &path).args(name);
    let _next = launch.start();
    frontend.reconnect(&path).unwrap();
    while frontend.queue(0).in_flight() > 0 {
        assert_eq!(frontend.queue(0).wait_used(IO_LIMIT).unwrap().status, S_OK);
    }
    let all = written(limited);
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
    for number in 0..HELD {
        let read = frontend.queue(0).read(number * HELD_SECTORS, 1 << 20);
        assert!(read.unwrap() == (S_OK, mebibyte(number)), "{number}");
    }
}

/// One that waited would take all that a drain may take, however quick the machine is. Others may
/// want the processor: one try in a few has to show it.
#[test]
fn sigterm_does_not_wait_for_tokens() {
    let mut took = (0..WINDOWS).map(|_| {
        let mut limited = Limited::new("--sessions 1 --bps-total 4096");
        let frontend = held_for_minutes(&limited, true);
        let (status, took) = limited.served.daemon.terminate(SOON);
        let log = limited.served.daemon.log();
        assert_eq!(status.code(), Some(0), "{log:#?}");
        the_next_process_does_what_was_held(&limited, frontend);
        took
    });
    assert!(took.any(|took| took < DRAIN_LIMIT));
}

#[test]
fn a_killed_process_leaves_what_is_held_to_the_next_one() {
    let mut limited = Limited::new("--sessions 1 --bps-total 4096");
    let frontend = held_for_minutes(&limited, true);
    limited.served.daemon.kill();
    the_next_process_does_what_was_held(&limited, frontend);
}
