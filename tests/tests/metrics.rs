//! Metrics over HTTP: that Prometheus can read them, that they say what a guest did, and what strangers
//! can do there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use iscsi_test_target::TestTarget;
use serde_json::Value;
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::control_socket::ControlSocket;
use vhost_user_iscsi_tests::daemon::{Daemon, run};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::exposition::Exposition;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::{AWAY, SOON, start_small_target};
use vhost_user_iscsi_tests::wait;

/// The longest head of a request that is read.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// How many requests there may be at once.
const MAX_CONNECTIONS: usize = 8;

/// A daemon with metrics and two disks: `a` is served, `b`'s target is away.
struct Measured {
    target: TestTarget,
    config: ConfigFile,
    control: ControlSocket,
    daemon: Daemon,
    address: SocketAddr,
}

impl Measured {
    fn new() -> Self {
        let target = start_small_target();
        let mut config = ConfigFile::new();
        let control = config.control_socket();
        config.setting("metrics-address", "0");
        config.disk(
            "a",
            &target.url(0),
            "sessions = 1\niops-write = 5\nbps-total = '1GiB'",
        );
        config.disk("b", AWAY, "");
        let daemon = config.start();
        let line = daemon.wait_log("metrics are at http://", SOON);
        let (_, address) = line.split_once("http://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().parse().unwrap();
        Self {
            target,
            config,
            control,
            daemon,
            address,
        }
    }

    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(2 * SOON)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn page(&self) -> String {
        let answer = self.exchange(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{head}"
        );
        body.to_owned()
    }

    fn metrics(&self) -> Exposition {
        let page = self.page();
        Exposition::parse(&page).unwrap_or_else(|reason| panic!("{reason}\n{page}"))
    }
}

#[test]
fn metrics_say_what_a_guest_did() {
    let measured = Measured::new();
    let mut guest = measured.config.connect(&measured.daemon, "a");
    for sector in 0..10 {
        assert_eq!(guest.queue(0).write(sector, &pattern(4096)).unwrap(), S_OK);
    }
    assert_ne!(guest.queue(0).read(1 << 40, 512).unwrap().0, S_OK);
    let metrics = measured.metrics();
    let value = |name: &str, labels: &[(&str, &str)]| {
        let name = format!("vhost_user_iscsi_{name}");
        let value = metrics.value(&name, labels);
        value.unwrap_or_else(|| panic!("{name} {labels:?}"))
    };
    let write = [("disk", "a"), ("session", "0"), ("operation", "write")];
    let read = [("disk", "a"), ("session", "0"), ("operation", "read")];
    assert_eq!(value("requests_total", &write), 10.0);
    assert_eq!(value("request_bytes_total", &write), 40960.0);
    assert_eq!(value("request_errors_total", &write), 0.0);
    assert_eq!(value("request_errors_total", &read), 1.0);
    assert_eq!(value("request_duration_seconds_count", &write), 10.0);
    // What a script gets in microseconds, from the control socket.
    let stats = measured.control.document(&["stats"]);
    let session = &stats["disks"][0]["sessions"][0];
    let in_seconds = |us: &Value| us.as_u64().unwrap() as f64 / 1e6;
    let sum = value("request_duration_seconds_sum", &write);
    assert!(sum > 0.0);
    assert_eq!(
        sum,
        in_seconds(&session["operations"]["write"]["latency"]["sum_us"])
    );
    assert_eq!(value("session_up", &[("disk", "a"), ("session", "0")]), 1.0);
    let of_disk = |name: &str, disk: &str| value(name, &[("disk", disk)]);
    assert_eq!(of_disk("disk_serving", "a"), 1.0);
    assert_eq!(of_disk("disk_front_end_connected", "a"), 1.0);
    assert_eq!(of_disk("disk_capacity_bytes", "a"), 16_777_216.0);
    assert_eq!(of_disk("disk_problems", "a"), 0.0);
    assert_eq!(of_disk("disk_serving", "b"), 0.0);
    let limit = |name, direction| value(name, &[("disk", "a"), ("direction", direction)]);
    assert_eq!(limit("disk_limit_requests_per_second", "write"), 5.0);
    let bytes = limit("disk_limit_bytes_per_second", "total");
    assert_eq!(bytes, f64::from(1 << 30));
    let labels = [("disk", "a"), ("session", "0")];
    let throttled = value("throttled_requests_total", &labels);
    assert!((1.0..=9.0).contains(&throttled), "{throttled}");
    let seconds = value("throttled_seconds_total", &labels);
    assert!(seconds > 0.0);
    assert_eq!(seconds, in_seconds(&session["throttled_us"]));
    let waits = wait::until(SOON, || {
        let metrics = measured.metrics();
        let waits = metrics.value("vhost_user_iscsi_disk_waiting_for_target", &[("disk", "b")]);
        (waits == Some(1.0)).then_some(())
    });
    assert!(waits.is_some());
}

/// The client that Prometheus itself offers for Python, with a parser of its own.
#[test]
fn prometheus_own_parser_reads_the_same() {
    let measured = Measured::new();
    let mut guest = measured.config.connect(&measured.daemon, "a");
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    let program = "import sys\n\
                   from prometheus_client.parser import text_string_to_metric_families as parse\n\
                   families = list(parse(sys.stdin.read()))\n\
                   samples = [sample for family in families for sample in family.samples]\n\
                   assert all(family.documentation and family.type != 'unknown' for family in families)\n\
                   print(sum(s.value for s in samples if s.name == 'vhost_user_iscsi_requests_total'))";
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("Debian's python3: {error}"));
    let page = measured.page();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "Debian's python3-prometheus-client is wanted"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1.0");
}

#[test]
fn strangers_get_an_answer_or_nothing_and_the_guest_does_not_notice() {
    let measured = Measured::new();
    let mut guest = measured.config.connect(&measured.daemon, "a");
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET /metrics HTTP/3\r\n\r\n", "505"),
        ("\u{1}\u{2}\r\n\r\n", "400"),
    ] {
        let answer = measured.exchange(request.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    }
    let head = measured.exchange(b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let start = b"GET /metrics HTTP/1.1\r\nX: ";
    let padded = |length: usize| {
        let filling = length - start.len() - 4;
        [start.as_slice(), &vec![b'x'; filling], b"\r\n\r\n"].concat()
    };
    assert!(
        measured
            .exchange(&padded(MAX_HEAD_BYTES))
            .starts_with("HTTP/1.1 200 ")
    );
    let too_long = measured.exchange(&vec![b'x'; MAX_HEAD_BYTES]);
    assert!(too_long.starts_with("HTTP/1.1 431 "), "{too_long}");
    assert_eq!(measured.target.violations(), [""; 0]);
}

/// Whether the other side has ended the connection.
fn is_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Those who say nothing hold a place each until their time is over: one more than there are places
/// has to wait for the first of them, and one fewer for nobody.
#[test]
fn strangers_who_say_nothing_hold_the_places_that_there_are_and_not_for_ever() {
    let measured = Measured::new();
    let mut guest = measured.config.connect(&measured.daemon, "a");
    let mut silent: Vec<_> = (1..MAX_CONNECTIONS)
        .map(|_| TcpStream::connect(measured.address).unwrap())
        .collect();
    assert!(measured.page().contains("vhost_user_iscsi_build_info"));
    assert!(!silent.iter().any(is_ended));
    silent.push(TcpStream::connect(measured.address).unwrap());
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    assert!(measured.page().contains("vhost_user_iscsi_build_info"));
    assert!(silent.iter().any(is_ended));
}

#[test]
fn an_address_that_is_taken_is_an_error_at_start() {
    let measured = Measured::new();
    let mut other = ConfigFile::new();
    other.setting("metrics-address", &measured.address.to_string());
    other.disk("c", &measured.target.url(0), "");
    let path = other.write();
    let refused = run(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(refused.code, Some(13), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("metrics-address"),
        "{}",
        refused.stderr
    );
}

/// All expressions of a dashboard, wherever they stand.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|value| expressions(value, found)),
        Value::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), value) {
                    ("expr" | "query", Value::String(text)) => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        _ => {}
    }
}

/// The names of our metrics in a text.
fn metric_names(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_name(c));
    let ours = words.filter(|word| word.starts_with("vhost_user_iscsi_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/grafana-dashboard.json"
    );
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let names: Vec<_> = found.iter().flat_map(|text| metric_names(text)).collect();
    assert!(names.len() > 30, "{names:?}");
    let measured = Measured::new();
    let mut guest = measured.config.connect(&measured.daemon, "a");
    assert_eq!(guest.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    let page = measured.page();
    let has = |name: &String| {
        let mut lines = page.lines();
        lines.any(|line| {
            line.strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
    };
    let missing: Vec<_> = names.iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
