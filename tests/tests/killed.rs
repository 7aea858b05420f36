//! The daemon is killed and started again with the same arguments: nothing is lost, nothing ends
//! twice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{CRASH_AT, Daemon, Launch};
use vhost_user_iscsi_tests::disk::{DISK_BYTES, pattern};
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig, IO_LIMIT, Layout, Request};
use vhost_user_iscsi_tests::model::{Mix, Model, Moment, random_mix_with};
use vhost_user_iscsi_tests::rng::Rng;
use vhost_user_iscsi_tests::soak;
use vhost_user_iscsi_tests::tgt::{LunOptions, Target, Tgt};
use vhost_user_iscsi_tests::wait;

/// For what should happen at once.
const SOON: Duration = Duration::from_secs(10);

/// A LUN of tgt, and a daemon that can be started again and again with the same arguments.
struct Host {
    daemon: Daemon,
    arguments: Vec<&'static str>,
    path: PathBuf,
    tgt: Tgt,
    target: Target,
    _directory: TempDir,
}

impl Host {
    fn new(arguments: &[&'static str]) -> Self {
        Self::crashing(arguments, None)
    }

    fn crashing(arguments: &[&'static str], crash_at: Option<&str>) -> Self {
        let mut tgt = Tgt::start();
        let thin = LunOptions {
            thin: true,
            ..LunOptions::default()
        };
        let target = tgt.disk(DISK_BYTES, &thin);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk.sock");
        let launch = Launch::at(&tgt.url(&target, 1), &path).args(arguments.iter().copied());
        Self {
            daemon: crash(launch, crash_at).start(),
            arguments: arguments.to_vec(),
            path,
            tgt,
            target,
            _directory: directory,
        }
    }

    fn connect(&self, config: FrontendConfig) -> Frontend {
        self.daemon.connect(config)
    }

    /// Starts the next daemon, whose predecessor has been killed.
    fn restart(&mut self, crash_at: Option<&str>) {
        self.daemon.wait_exit(SOON);
        let url = self.tgt.url(&self.target, 1);
        let launch = Launch::at(&url, &self.path).args(self.arguments.iter().copied());
        self.daemon = crash(launch, crash_at).start();
    }

    /// The same, and hands it the rings and the region. `false` when it has crashed meanwhile, as it
    /// was told to.
    fn resume(&mut self, frontend: &mut Frontend, crash_at: Option<&str>) -> bool {
        self.restart(crash_at);
        match frontend.reconnect(&self.path) {
            Ok(()) => true,
            Err(_) if crash_at.is_some() => false,
            Err(error) => panic!("{error}: {:#?}", self.daemon.log()),
        }
    }
}

fn crash(launch: Launch, crash_at: Option<&str>) -> Launch {
    match crash_at {
        Some(point) => launch.env(CRASH_AT, point),
        None => launch,
    }
}

fn queues(queues: u16) -> FrontendConfig {
    FrontendConfig {
        queues,
        memory_bytes: 128 << 20,
        ..FrontendConfig::default()
    }
}

/// A mix with a kill about every hundred requests; returns how many there were.
fn killed_again_and_again(host: &mut Host, frontend: &mut Frontend, mix: &Mix) -> u64 {
    let mut rng = Rng::new(mix.seed ^ 0xdead);
    let mut next_kill = rng.below(100);
    let mut kills = 0;
    let summary =
        random_mix_with(
            frontend,
            &mut Model::zeroed(),
            mix,
            |frontend, moment| match moment {
                Moment::Submitted(step) if step >= next_kill => {
                    host.daemon.kill();
                    next_kill = step + 50 + rng.below(100);
                    kills += 1;
                }
                Moment::Submitted(_) => {}
                Moment::Disconnected => assert!(host.resume(frontend, None)),
            },
        );
    soak::report(&[
        ("kills", kills),
        ("guest_errors", summary.failed.len() as u64),
        ("longest_pause_ms", soak::milliseconds(summary.longest)),
    ]);
    kills
}

#[test]
fn nothing_is_lost_with_four_queues_and_sessions() {
    let mut host = Host::new(&["--sessions", "4"]);
    let mut frontend = host.connect(queues(4));
    let mix = Mix {
        seed: 0xde4d,
        steps: 100 * soak::times("VHOST_USER_ISCSI_TEST_KILLS", 20),
        ..Mix::default()
    };
    let kills = killed_again_and_again(&mut host, &mut frontend, &mix);
    assert!(kills >= mix.steps / 200, "{kills}");
    for queue in 0..4 {
        assert_eq!(frontend.inflight().marked(queue), 0, "queue {queue}");
    }
}

#[test]
fn nothing_is_lost_with_fewer_sessions_than_queues() {
    let mut host = Host::new(&["--sessions", "2"]);
    let mut frontend = host.connect(queues(6));
    let mix = Mix {
        seed: 0x5e55,
        steps: 1000,
        max_sectors: 2048,
        ..Mix::default()
    };
    killed_again_and_again(&mut host, &mut frontend, &mix);
}

#[test]
fn nothing_is_lost_on_a_small_ring_that_is_full() {
    let mut host = Host::new(&[]);
    let config = FrontendConfig {
        queue_size: 16,
        ..queues(1)
    };
    let mut frontend = host.connect(config);
    let mix = Mix {
        seed: 0xf011,
        steps: 600,
        depth: 2,
        ..Mix::default()
    };
    killed_again_and_again(&mut host, &mut frontend, &mix);
}

#[cfg(debug_assertions)]
#[test]
fn nothing_is_lost_at_any_point_of_a_batch() {
    const CRASHES: u32 = 6;
    for point in vhost_user_iscsi_tests::daemon::CRASH_POINTS {
        let crash_at = |count: u64| Some(format!("{point}:{count}"));
        let mut rng = Rng::new(0xc4a5);
        let mut host = Host::crashing(&["--sessions", "2"], crash_at(1).as_deref());
        let mut frontend = host.connect(queues(3));
        let mix = Mix {
            seed: 0xc4a5,
            steps: 400,
            ..Mix::default()
        };
        let mut crashes = 0;
        random_mix_with(
            &mut frontend,
            &mut Model::zeroed(),
            &mix,
            |frontend, moment| {
                let mut is_gone = moment == Moment::Disconnected;
                while is_gone {
                    crashes += 1;
                    let next = crash_at(1 + rng.below(60)).filter(|_| crashes < CRASHES);
                    is_gone = !host.resume(frontend, next.as_deref());
                }
            },
        );
        assert_eq!(crashes, CRASHES, "{point}");
    }
}

/// The guest would sleep for ever.
#[cfg(debug_assertions)]
#[test]
fn a_completion_that_was_published_but_not_signalled_is_signalled_at_the_next_start() {
    let mut host = Host::crashing(&[], Some("settled"));
    let mut frontend = host.connect(queues(1));
    let request = Request::write(3, pattern(4096));
    let layout = Layout::usual(&request);
    frontend.queue(0).submit(request, &layout).unwrap();
    host.daemon.wait_exit(SOON);
    assert!(!frontend.queue(0).take_notification());
    host.resume(&mut frontend, None);
    let notified = wait::until(SOON, || frontend.queue(0).take_notification().then_some(()));
    assert_eq!(notified, Some(()));
    let done = frontend.queue(0).wait_used(IO_LIMIT).unwrap();
    assert_eq!(done.status, S_OK);
    assert_eq!(
        frontend.queue(0).read(3, 4096).unwrap(),
        (S_OK, pattern(4096))
    );
}

#[test]
fn a_ring_goes_on_where_the_region_says_whatever_the_base() {
    let mut host = Host::new(&[]);
    let mut frontend = host.connect(queues(1));
    for sector in 0..10 {
        assert_eq!(
            frontend.queue(0).write(sector, &pattern(512)).unwrap(),
            S_OK
        );
    }
    host.daemon.kill();
    host.restart(None);
    frontend.reconnect(&host.path).unwrap();
    frontend.stop_queue(0).unwrap();
    frontend.start_queue(0, 3).unwrap();
    assert_eq!(
        frontend.queue(0).read(9, 512).unwrap(),
        (S_OK, pattern(512))
    );
    assert_eq!(frontend.stop_queue(0).unwrap(), 11);
}

/// A daemon that was killed with a request in flight, and its successor, which has the region not
/// yet.
fn killed_in_flight() -> (Host, Frontend) {
    let mut host = Host::new(&[]);
    let mut frontend = host.connect(queues(1));
    assert_eq!(frontend.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
    host.daemon.kill();
    host.restart(None);
    frontend.inflight().write(0, 16 + 16 * 5, &[1]);
    (host, frontend)
}

/// What is written where into a queue's part of the region.
type Writes = &'static [(u64, [u8; 2])];

#[test]
fn a_region_that_says_what_cannot_be_is_refused_with_a_reason() {
    const VERSION: u64 = 8;
    const DESC_NUM: u64 = 10;
    const LAST_BATCH_HEAD: u64 = 12;
    const USED_IDX: u64 = 14;
    const fn next(head: u64) -> u64 {
        16 + 16 * head + 6
    }
    const fn number(value: u16) -> [u8; 2] {
        value.to_le_bytes()
    }
    const CASES: [(&str, Writes); 6] = [
        ("version 7", &[(VERSION, number(7))]),
        (
            "129 entries where there are 128",
            &[(DESC_NUM, number(129))],
        ),
        ("mark 2 at entry 127", &[(16 + 16 * 127, number(2))]),
        ("its used index is 2", &[(USED_IDX, number(2))]),
        (
            "entry 128 in the last batch",
            &[(USED_IDX, number(0)), (LAST_BATCH_HEAD, number(128))],
        ),
        (
            "a loop",
            &[
                (USED_IDX, number(65_534)),
                (LAST_BATCH_HEAD, number(7)),
                (next(7), number(7)),
            ],
        ),
    ];
    for (reason, writes) in CASES {
        let (mut host, mut frontend) = killed_in_flight();
        for (offset, bytes) in writes {
            frontend.inflight().write(0, *offset, bytes);
        }
        frontend.reconnect(&host.path).unwrap();
        let line = host.daemon.wait_log(reason, SOON);
        assert!(line.contains("queue 0 is damaged"), "{line}");
        goes_on(&mut host, frontend);
    }
}

#[test]
fn marks_that_nobody_made_cost_the_guest_its_ring_and_nobody_else_anything() {
    let (mut host, mut frontend) = killed_in_flight();
    for entry in 0..128 {
        frontend.inflight().write(0, 16 + 16 * entry, &[1]);
    }
    frontend.reconnect(&host.path).unwrap();
    host.daemon.wait_log("the ring is ignored", SOON);
    goes_on(&mut host, frontend);
}

#[test]
fn a_region_that_is_none_is_refused_with_a_reason() {
    let unsealable = || memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
    let short = || {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("region", flags).unwrap();
        ftruncate(&file, 100).unwrap();
        file
    };
    let huge = || {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        let file = memfd_create("region", flags | MemfdFlags::HUGE_2MB).unwrap();
        ftruncate(&file, 2 << 20).unwrap();
        file
    };
    for case in 0..7 {
        let (mut host, mut frontend) = killed_in_flight();
        let region = frontend.inflight();
        let reason = match case {
            0 => {
                region.mmap_size = 2063;
                "2063 bytes, 2112 are needed"
            }
            1 => {
                region.num_queues = 65;
                "65 queues of 128"
            }
            2 => {
                region.queue_size = 100;
                "1 queues of 100"
            }
            3 => {
                region.file = unsealable().into();
                "not sealed against shrinking"
            }
            4 => {
                region.file = short().into();
                "is longer than its file"
            }
            5 => {
                region.file = huge().into();
                "an inflight region of huge pages"
            }
            _ => {
                region.mmap_offset = 1 << 20;
                "is longer than its file"
            }
        };
        let refused = frontend.reconnect(&host.path).is_err();
        assert!(refused, "{reason}: {:#?}", host.daemon.log());
        host.daemon.wait_log(reason, SOON);
        goes_on(&mut host, frontend);
    }
}

/// The daemon lives, and serves the next front-end.
fn goes_on(host: &mut Host, frontend: Frontend) {
    drop(frontend);
    assert!(host.daemon.is_running());
    let mut next = host.connect(queues(1));
    assert_eq!(next.queue(0).read(0, 512).unwrap(), (S_OK, pattern(512)));
}
