//! The network between daemon and target fails in every way it can: the guest sees a pause, and
//! every byte is right.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::thread;
use std::time::Duration;

use iscsi_test_target::{Event, LunConfig, Negotiation, TargetConfig, TestTarget, Thin};
use vhost_user_iscsi_tests::daemon::Daemon;
use vhost_user_iscsi_tests::disk::{DISK_BYTES, pattern};
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::model::{Mix, Model, Moment, Summary, random_mix, random_mix_with};
use vhost_user_iscsi_tests::proxy::{Cut, Direction, Proxy};
use vhost_user_iscsi_tests::rng::Rng;
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, one_lun, start_target};
use vhost_user_iscsi_tests::soak;
use vhost_user_iscsi_tests::tgt::{LunOptions, Tgt};
use vhost_user_iscsi_tests::wait;

/// How long a MiB may take over a link of 64 KiB a second.
const SLOW_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take until something is noticed: 15 s are promised for a silent connection.
const NOTICED: Duration = Duration::from_secs(20);
/// How often a mix is cut. A session that is lost at once again and again is made again more and
/// more slowly, so many cuts take long.
const CUTS: u64 = 8;
const CUTS_VARIABLE: &str = "VHOST_USER_ISCSI_TEST_CUTS";

/// A LUN, served through a proxy. Dropped, it asserts that the in-memory target saw no rule broken
/// and no stale write.
struct Network {
    daemon: Daemon,
    proxy: Proxy,
    /// One of these two.
    memory: Option<TestTarget>,
    _tgt: Option<Tgt>,
}

impl Network {
    fn new(arguments: &[&str]) -> Self {
        Self::before(start_target(config()), arguments)
    }

    fn before(target: TestTarget, arguments: &[&str]) -> Self {
        let (port, url) = (target.portal().port(), target.url(0));
        let mut network = Self::with(port, &url, arguments);
        network.memory = Some(target);
        network
    }

    fn before_tgt(arguments: &[&str]) -> Self {
        let mut tgt = Tgt::start();
        let thin = LunOptions {
            thin: true,
            ..LunOptions::default()
        };
        let target = tgt.disk(DISK_BYTES, &thin);
        let (port, url) = (tgt.port(), tgt.url(&target, 1));
        let mut network = Self::with(port, &url, arguments);
        network._tgt = Some(tgt);
        network
    }

    fn with(port: u16, url: &str, arguments: &[&str]) -> Self {
        let proxy = Proxy::before(port);
        let name = ["--initiator-name", INITIATOR_NAME];
        let daemon = Daemon::start(&proxy.url(url), &[&name, arguments].concat());
        Self {
            daemon,
            proxy,
            memory: None,
            _tgt: None,
        }
    }

    fn connect(&self, queues: u16) -> Frontend {
        self.daemon.connect(FrontendConfig {
            queues,
            memory_bytes: 128 << 20,
            ..FrontendConfig::default()
        })
    }

    /// How many lines of the log have this in them.
    fn logged(&self, part: &str) -> usize {
        let lines = self.daemon.log();
        lines.iter().filter(|line| line.contains(part)).count()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let (Some(target), false) = (&self.memory, thread::panicking()) {
            assert_eq!(target.violations(), [""; 0]);
            let stale = |event: &Event| matches!(event, Event::StaleWrite { .. });
            assert!(!target.events().iter().any(stale));
        }
    }
}

/// Writes take immediate data, and R2Ts for the rest; no PDU has more than 64 KiB.
fn config() -> TargetConfig {
    TargetConfig {
        negotiation: Negotiation {
            max_recv_data_segment_length: Some(65_536),
            first_burst_length: 65_536,
            max_burst_length: 262_144,
            ..Negotiation::default()
        },
        ..one_lun(LunConfig {
            thin: Some(Thin::default()),
            ..LunConfig::of_bytes(DISK_BYTES)
        })
    }
}

fn cuts() -> u64 {
    soak::times(CUTS_VARIABLE, CUTS)
}

fn report(fault: &str, count: u64, summary: &Summary) {
    soak::report(&[
        (fault, count),
        ("guest_errors", summary.failed.len() as u64),
        ("longest_pause_ms", soak::milliseconds(summary.longest)),
    ]);
}

/// A mix that is disturbed at random moments, about every fifty requests, `count` times.
fn disturbed(
    network: &Network,
    mix: Mix,
    count: u64,
    mut disturb: impl FnMut(&Proxy, &mut Rng),
) -> Summary {
    let mut frontend = network.connect(4);
    let mut rng = Rng::new(mix.seed ^ 0xc07);
    let mut next = rng.below(50);
    let mix = Mix {
        steps: 100 * count + 100,
        ..mix
    };
    let mut left = count;
    let summary =
        random_mix_with(
            &mut frontend,
            &mut Model::zeroed(),
            &mix,
            |_, moment| match moment {
                Moment::Submitted(step) if step >= next && left > 0 => {
                    disturb(&network.proxy, &mut rng);
                    next = step + 10 + rng.below(80);
                    left -= 1;
                }
                Moment::Submitted(_) => {}
                Moment::Disconnected => panic!("the daemon has gone: {:#?}", network.daemon.log()),
            },
        );
    assert_eq!(left, 0);
    summary
}

fn any_cut(rng: &mut Rng) -> Cut {
    rng.pick(&Cut::BOTH)
}

fn any_direction(rng: &mut Rng) -> Direction {
    rng.pick(&Direction::BOTH)
}

// ---- connections that are cut -------------------------------------------------------------------

/// All connections at once, at random moments.
fn all_cut_again_and_again(network: &Network, seed: u64) {
    let mix = Mix {
        seed,
        ..Mix::default()
    };
    let summary = disturbed(network, mix, cuts(), |proxy, rng| proxy.cut(any_cut(rng)));
    // One that comes before the last one is mended finds nothing to cut.
    assert!(network.proxy.cuts() > cuts() / 2);
    report("cuts", network.proxy.cuts(), &summary);
}

#[test]
fn connections_cut_at_random_moments_cost_no_request() {
    all_cut_again_and_again(&Network::new(&["--sessions", "4"]), 0xc01);
    all_cut_again_and_again(&Network::new(&["--sessions", "1"]), 0xc02);
}

#[test]
fn connections_cut_at_random_moments_cost_no_request_with_tgt() {
    all_cut_again_and_again(&Network::before_tgt(&["--sessions", "4"]), 0xc03);
}

/// One connection, after a random number of bytes: within a header, within data, within a login.
fn cut_at_random_bytes(network: &Network, seed: u64) {
    let mix = Mix {
        seed,
        max_sectors: 2048,
        ..Mix::default()
    };
    let summary = disturbed(network, mix, cuts(), |proxy, rng| {
        let longest = rng.pick(&[200, 5_000, 500_000]);
        proxy.cut_after(any_direction(rng), rng.below(longest), any_cut(rng));
    });
    assert!(network.proxy.cuts() > 0);
    report("cuts", network.proxy.cuts(), &summary);
}

#[test]
fn connections_cut_after_random_numbers_of_bytes_cost_no_request() {
    cut_at_random_bytes(&Network::new(&["--sessions", "2"]), 0xb17);
}

#[test]
fn connections_cut_after_random_numbers_of_bytes_cost_no_request_with_tgt() {
    cut_at_random_bytes(&Network::before_tgt(&["--sessions", "2"]), 0xb18);
}

/// With a digest, data goes another way through the daemon.
#[test]
fn connections_cut_after_random_numbers_of_bytes_cost_no_request_with_digests() {
    let digests = ["--header-digest", "crc32c", "--data-digest", "crc32c"];
    cut_at_random_bytes(&Network::new(&digests), 0xb19);
}

/// The session is lost, and the login that is to replace it is cut, too, at one of many places
/// between its first byte and the last one of its probe.
#[test]
fn a_login_cut_at_any_byte_is_made_again() {
    const PLACES: u64 = 6;
    for direction in Direction::BOTH {
        for place in 0..PLACES {
            let network = Network::new(&[]);
            let at = network.proxy.passed_bytes(direction) * place / PLACES;
            let mut frontend = network.connect(1);
            network.proxy.refuse();
            network.proxy.cut(Cut::Reset);
            network.daemon.wait_log("requests wait", NOTICED);
            network.proxy.cut_after(direction, at, Cut::Fin);
            network.proxy.accept();
            let mix = Mix {
                steps: 50,
                range: 0..2048,
                ..Mix::default()
            };
            random_mix(&mut frontend, &mut Model::zeroed(), &mix);
            assert_eq!(network.proxy.cuts(), 2, "{direction:?} at {at}");
        }
    }
}

/// A write and a read of 2 MiB, each with a cut after so many of its bytes.
fn cut_within_a_large_transfer(network: &Network, left_bytes: u64, cut: Cut) {
    const BYTES: u32 = 2 << 20;
    let data = pattern(BYTES as usize);
    let mut frontend = network.connect(1);
    let proxy = &network.proxy;
    proxy.cut_after(Direction::ToTarget, left_bytes, cut);
    assert_eq!(frontend.queue(0).write(64, &data).unwrap(), S_OK);
    assert_eq!(proxy.cuts(), 1, "at {left_bytes}");
    proxy.cut_after(Direction::ToInitiator, left_bytes, cut);
    let read = frontend.queue(0).read(64, BYTES).unwrap();
    assert!(read == (S_OK, data), "at {left_bytes}");
    assert_eq!(proxy.cuts(), 2, "at {left_bytes}");
}

/// Within the immediate data, before and within what R2Ts ask for, near the end.
const PLACES: [u64; 4] = [100, 70_000, 1_000_000, 2_000_000];

#[test]
fn a_cut_within_a_large_transfer_costs_no_request() {
    for (left_bytes, cut) in PLACES.into_iter().zip(Cut::BOTH.repeat(2)) {
        cut_within_a_large_transfer(&Network::new(&[]), left_bytes, cut);
    }
}

#[test]
fn a_cut_within_a_large_transfer_costs_no_request_with_tgt() {
    for (left_bytes, cut) in PLACES.into_iter().zip(Cut::BOTH.repeat(2)) {
        cut_within_a_large_transfer(&Network::before_tgt(&[]), left_bytes, cut);
    }
}

// ---- connections that fall silent ---------------------------------------------------------------

/// Whether the daemon or the target hears nothing any more, or both.
const SILENCES: [&[Direction]; 3] = [
    &[Direction::ToTarget],
    &[Direction::ToInitiator],
    &Direction::BOTH,
];

/// Requests of any kind are in flight when all connections fall silent.
fn rides_out_silence(network: &Network, directions: &[Direction]) {
    let mut frontend = network.connect(2);
    let mut is_silent = false;
    let mix = Mix {
        seed: 0x51e,
        steps: 200,
        ..Mix::default()
    };
    let summary = random_mix_with(&mut frontend, &mut Model::zeroed(), &mix, |_, moment| {
        assert!(moment != Moment::Disconnected, "the daemon has gone");
        if moment == Moment::Submitted(100) {
            network.proxy.silence(directions);
            is_silent = true;
        }
    });
    assert!(is_silent);
    network.daemon.wait_log("answered nothing", NOTICED);
    report("black_holes", 1, &summary);
}

#[test]
fn a_black_hole_is_noticed_and_costs_no_request() {
    thread::scope(|scope| {
        for directions in SILENCES {
            scope.spawn(move || rides_out_silence(&Network::new(&[]), directions));
        }
    });
}

#[test]
fn a_black_hole_is_noticed_and_costs_no_request_with_tgt() {
    rides_out_silence(&Network::before_tgt(&[]), &Direction::BOTH);
}

/// Nothing is asked of the disk; the path is found dead all the same, before it is needed.
#[test]
fn a_black_hole_is_noticed_by_an_idle_disk() {
    let network = Network::new(&[]);
    let mut frontend = network.connect(1);
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    network.proxy.silence(&Direction::BOTH);
    network.daemon.wait_log("answered nothing", NOTICED);
    network.daemon.wait_log("is up again", NOTICED);
    assert_eq!(
        frontend.queue(0).read(0, 512).unwrap(),
        (S_OK, pattern(512))
    );
}

/// The next connections are silent too, so it is a login that hears nothing.
#[test]
fn a_black_hole_that_swallows_logins_costs_no_request() {
    let network = Network::new(&["--login-timeout", "1s"]);
    let mut frontend = network.connect(1);
    assert_eq!(frontend.queue(0).write(0, &pattern(4096)).unwrap(), S_OK);
    network.proxy.silence_everything(&Direction::BOTH);
    network.proxy.cut(Cut::Reset);
    let request = Request::read(0, 4096);
    let layout = Layout::usual(&request);
    frontend.queue(0).submit(request, &layout).unwrap();
    network.daemon.wait_log("requests wait", NOTICED);
    network.proxy.heal();
    let read = frontend.queue(0).wait_used(IO_LIMIT).unwrap();
    assert_eq!((read.status, read.data), (S_OK, pattern(4096)));
}

// ---- connections that are slow, far, or refused -------------------------------------------------

/// A slow path is not a dead one.
fn is_slow_but_not_lost(network: &Network, mix: &Mix) {
    let mut frontend = network.connect(2);
    network.proxy.throttle(1 << 20);
    random_mix(&mut frontend, &mut Model::zeroed(), mix);
    assert_eq!(network.logged("is lost"), 0, "{:#?}", network.daemon.log());
}

#[test]
fn a_slow_connection_costs_no_request_and_no_session() {
    let mix = Mix {
        steps: 200,
        range: 0..4096,
        max_sectors: 1024,
        ..Mix::default()
    };
    is_slow_but_not_lost(&Network::new(&[]), &mix);
    is_slow_but_not_lost(&Network::before_tgt(&[]), &mix);
}

/// A ping waits behind the data of a write for longer than a silent target is waited for: 16 seconds,
/// or more on a busy machine. The target asks for all of the data at once, so it says nothing meanwhile.
#[test]
fn writes_that_keep_a_slow_link_busy_for_long_are_sent_once() {
    const WRITE_BYTES: usize = 1 << 20;
    let target = start_target(TargetConfig {
        negotiation: Negotiation {
            max_burst_length: 1 << 20,
            ..config().negotiation
        },
        ..config()
    });
    let network = Network::before(target, &[]);
    let target = network.memory.as_ref().unwrap();
    let mut frontend = network.connect(1);
    network.proxy.throttle(64 << 10);
    target.clear_events();
    let before_bytes = network.proxy.passed_bytes(Direction::ToTarget);
    let written = frontend.queue(0);
    let request = Request::write(0, pattern(WRITE_BYTES));
    let layout = Layout::usual(&request);
    written.submit(request, &layout).unwrap();
    assert_eq!(written.wait_used(SLOW_LIMIT).unwrap().status, S_OK);
    let passed_bytes = network.proxy.passed_bytes(Direction::ToTarget) - before_bytes;
    let once = WRITE_BYTES as u64..2 * WRITE_BYTES as u64;
    assert!(once.contains(&passed_bytes), "{passed_bytes}");
    assert_eq!(network.logged("is lost"), 0, "{:#?}", network.daemon.log());
    // It was asked, and the answer waited for.
    let is_ping = |event: &Event| matches!(event, Event::Pinged { .. });
    let pinged = || target.events().iter().any(is_ping).then_some(());
    assert!(wait::until(NOTICED, pinged).is_some());
}

#[test]
fn a_connection_that_is_slow_and_cut_costs_no_request() {
    let network = Network::new(&["--sessions", "2"]);
    network.proxy.throttle(2 << 20);
    let mix = Mix {
        range: 0..4096,
        ..Mix::default()
    };
    let summary = disturbed(&network, mix, 3, |proxy, rng| proxy.cut(any_cut(rng)));
    report("cuts", network.proxy.cuts(), &summary);
}

#[test]
fn a_target_that_is_far_away_costs_no_request_and_no_session() {
    let network = Network::new(&[]);
    network.proxy.delay(Duration::from_millis(30));
    let mut frontend = network.connect(4);
    let mix = Mix {
        steps: 300,
        range: 0..8192,
        ..Mix::default()
    };
    random_mix(&mut frontend, &mut Model::zeroed(), &mix);
    assert_eq!(network.logged("is lost"), 0, "{:#?}", network.daemon.log());
}

#[test]
fn a_target_that_refuses_connections_for_a_while_costs_no_request() {
    let network = Network::new(&[]);
    let mut frontend = network.connect(4);
    let mix = Mix {
        steps: 200,
        ..Mix::default()
    };
    let mut waited = None;
    random_mix_with(&mut frontend, &mut Model::zeroed(), &mix, |_, moment| {
        if moment == Moment::Submitted(100) {
            network.proxy.refuse();
            network.proxy.cut(Cut::Reset);
            waited = Some(network.daemon.wait_log("requests wait", NOTICED));
            network.proxy.accept();
        }
    });
    assert!(waited.is_some());
    let again = || (network.logged("is up again") > 0).then_some(());
    assert!(wait::until(NOTICED, again).is_some());
}
