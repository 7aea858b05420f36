//! What the guest does not notice: a target, a daemon, or connections that end under its load, again
//! and again.
//!
//! fio's checksums, e2fsck and the guest's kernel log judge (`qemu-scripts/guest/fio-verify`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon;
use vhost_user_iscsi_tests::proxy::{Cut, Direction, Proxy};
use vhost_user_iscsi_tests::rng::Rng;
use vhost_user_iscsi_tests::soak;
use vhost_user_iscsi_tests::tgt::{LunOptions, Target, Tgt};
use vhost_user_iscsi_tests::wait;

use super::run::{Guest, Launch};

const LUN_BYTES: u64 = 512 << 20;
/// How long the guest may take to move some megabytes, the pauses of a recovery included.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
/// For what should happen at once.
const SOON: Duration = Duration::from_secs(10);

/// A LUN of tgt, and a daemon that can be started again and again with the same arguments.
struct Host {
    daemon: daemon::Daemon,
    arguments: &'static [&'static str],
    url: String,
    path: PathBuf,
    tgt: Tgt,
    proxy: Proxy,
    _directory: TempDir,
}

impl Host {
    /// With the proxy between daemon and target, or only beside them.
    fn new(arguments: &'static [&'static str], through_proxy: bool) -> Self {
        let mut tgt = Tgt::start();
        let target: Target = tgt.disk(LUN_BYTES, &LunOptions::default());
        let proxy = Proxy::before(tgt.port());
        let direct = tgt.url(&target, 1);
        let url = match through_proxy {
            true => proxy.url(&direct),
            false => direct,
        };
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk.sock");
        Self {
            daemon: launch(&url, &path, arguments).start(),
            arguments,
            url,
            path,
            tgt,
            proxy,
            _directory: directory,
        }
    }

    /// A guest that uses and verifies the disk on four queues, in so many rounds.
    fn guest(&self, rounds: u64) -> Guest {
        Launch::new(&[&self.path])
            .args(&["--with-fio", "--vcpus", "4", "--num-queues", "4"])
            .args(&["--reconnect", "--timeout", &timeout_s(rounds).to_string()])
            .env("ROUNDS", &rounds.to_string())
            .env("BLOCK_SIZE", "4k-512k")
            .script("fio-verify")
            .start()
    }

    /// Waits until the guest is in this phase of its load and has moved so much more.
    fn wait_for_load(&self, guest: &mut Guest, phase: &str, bytes: u64) {
        let begins = format!("fio begins {phase}");
        guest.wait_line(&begins, LOAD_LIMIT);
        let before = self.tgt.moved_bytes();
        let reached = wait::until(LOAD_LIMIT, || {
            let moved = self.tgt.moved_bytes() - before;
            (moved >= bytes || !guest.is_running()).then_some(moved >= bytes)
        });
        assert_eq!(reached, Some(true), "the load ended: {}", guest.said());
    }

    /// Starts the next daemon, whose predecessor has been killed.
    fn restart_daemon(&mut self, crash_at: Option<&str>) {
        let launch = launch(&self.url, &self.path, self.arguments);
        let launch = match crash_at {
            Some(point) => launch.env(daemon::CRASH_AT, point),
            None => launch,
        };
        self.daemon = launch.start();
    }
}

fn launch(url: &str, path: &Path, arguments: &[&'static str]) -> daemon::Launch {
    daemon::Launch::at(url, path).args(arguments.iter().copied())
}

/// A round takes a quarter of a minute where nothing disturbs it.
fn timeout_s(rounds: u64) -> u64 {
    180 + 120 * rounds
}

/// Raw and ext4 in each round.
fn phases(rounds: u64) -> Vec<String> {
    let round = |round| [format!("raw {round}"), format!("ext4 {round}")];
    (1..=rounds).flat_map(round).collect()
}

/// The phase in which the `number`-th of `count` events happens: about as many in each.
fn phase_of(phases: &[String], number: u64, count: u64) -> &str {
    let at = number * phases.len() as u64 / count;
    &phases[usize::try_from(at).unwrap()]
}

/// A few MiB, which take the guest a moment or a second: what was in flight at one kill may be so at
/// the next.
fn some_load(rng: &mut Rng) -> u64 {
    (2 << 20) + rng.below(38 << 20)
}

/// All that the guest wrote was right, and it has seen no error.
fn conclude(guest: Guest, phases: &[String], fault: &str, count: u64) {
    let timeout = Duration::from_secs(timeout_s(phases.len() as u64));
    let printed = guest.finish_within(timeout);
    for phase in phases {
        let verified = format!("fio verified {phase}");
        assert!(printed.contains(&verified), "{phase}: {printed}");
    }
    soak::report(&[
        (fault, count),
        ("guest_errors", 0),
        ("longest_pause_ms", longest_ms(&printed)),
    ]);
}

fn longest_ms(printed: &str) -> u64 {
    let of_line = |line: &str| {
        let (_, rest) = line.split_once("longest request ")?;
        rest.split_whitespace().next()?.parse().ok()
    };
    printed.lines().filter_map(of_line).max().unwrap_or(0)
}

#[test]
fn a_target_killed_and_started_again_and_again_under_load_is_a_pause() {
    let restarts = soak::times("VHOST_USER_ISCSI_TEST_TARGET_RESTARTS", 5);
    let rounds = restarts.div_ceil(5);
    let mut host = Host::new(&["--sessions", "2"], false);
    let mut guest = host.guest(rounds);
    let (phases, mut rng) = (phases(rounds), Rng::new(0x7a6));
    for number in 0..restarts {
        let phase = phase_of(&phases, number, restarts);
        host.wait_for_load(&mut guest, phase, some_load(&mut rng));
        host.tgt.restart();
    }
    conclude(guest, &phases, "target_restarts", restarts);
}

/// Only a debug build that was made here dies where it is told to.
fn has_crash_points() -> bool {
    cfg!(debug_assertions) && std::env::var_os("VHOST_USER_ISCSI").is_none()
}

/// Every second daemon dies by itself, between two steps of a batch; the others are killed.
#[test]
fn a_daemon_killed_and_started_again_and_again_under_load_is_a_pause() {
    let kills = soak::times("VHOST_USER_ISCSI_TEST_KILLS", 10);
    let rounds = kills.div_ceil(10);
    let mut host = Host::new(&["--sessions", "2"], false);
    let mut guest = host.guest(rounds);
    let (phases, mut rng) = (phases(rounds), Rng::new(0xde4d));
    let mut points = daemon::CRASH_POINTS.iter().cycle();
    let mut dies_by_itself = false;
    for number in 0..kills {
        if dies_by_itself {
            host.daemon.wait_exit(LOAD_LIMIT);
        } else {
            let phase = phase_of(&phases, number, kills);
            host.wait_for_load(&mut guest, phase, some_load(&mut rng));
            host.daemon.kill();
            host.daemon.wait_exit(SOON);
        }
        assert!(guest.is_running(), "the load ended: {}", guest.said());
        dies_by_itself = has_crash_points() && !dies_by_itself && number + 1 < kills;
        let point = dies_by_itself.then(|| points.next().unwrap());
        let crash_at = point.map(|point| format!("{point}:{}", 1 + rng.below(200)));
        host.restart_daemon(crash_at.as_deref());
    }
    conclude(guest, &phases, "kills", kills);
}

#[test]
fn connections_cut_again_and_again_under_load_are_a_pause() {
    let cuts = soak::times("VHOST_USER_ISCSI_TEST_CUTS", 8);
    let rounds = cuts.div_ceil(8);
    let host = Host::new(&["--sessions", "2"], true);
    let mut guest = host.guest(rounds);
    let (phases, mut rng) = (phases(rounds), Rng::new(0xc07));
    for number in 0..cuts {
        let phase = phase_of(&phases, number, cuts);
        host.wait_for_load(&mut guest, phase, some_load(&mut rng));
        let cut = rng.pick(&Cut::BOTH);
        match number % 2 {
            0 => host.proxy.cut(cut),
            _ => {
                let direction = rng.pick(&Direction::BOTH);
                host.proxy.cut_after(direction, rng.below(1 << 20), cut);
            }
        }
    }
    let done = host.proxy.cuts();
    conclude(guest, &phases, "cuts", done);
}
