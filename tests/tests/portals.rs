//! Portals alone in the configuration: every LUN that is found is served, as long as it is found.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use iscsi_test_target::{
    ChapConfig, LoginFault, LunConfig, Rule, Secret, TargetConfig, TestTarget,
};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::control_socket::ControlSocket;
use vhost_user_iscsi_tests::daemon::{Daemon, Output, run};
use vhost_user_iscsi_tests::disk::{DISK_BYTES, pattern};
use vhost_user_iscsi_tests::frontend::Frontend;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::start_target;
use vhost_user_iscsi_tests::snapshot::{assert_matches, stable};
use vhost_user_iscsi_tests::tgt::{LunOptions, Target, Tgt, free_port};
use vhost_user_iscsi_tests::wait;

/// How long a discovery and what follows from it may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A configuration without a disk of its own.
struct Site {
    config: ConfigFile,
    control: ControlSocket,
}

impl Site {
    fn new() -> Self {
        let mut config = ConfigFile::new();
        let control = config.control_socket();
        config.text.push_str("rediscover = '1s'\n");
        Self { config, control }
    }

    /// Adds a portal with these further settings.
    fn portal(&mut self, address: &str, settings: &str) {
        let _ = writeln!(
            self.config.text,
            "[[portal]]\naddress = '{address}'\n{settings}"
        );
    }

    fn start(&self) -> Running<'_> {
        Running {
            site: self,
            daemon: self.config.start(),
        }
    }

    fn shown(&self, output: &str, volatile: &[(&str, &str)]) -> String {
        let directory = self.config.directory().to_str().unwrap().to_owned();
        stable(
            output,
            &[volatile, &[(directory.as_str(), "DIRECTORY")]].concat(),
        )
    }
}

/// A daemon that serves what its portals have.
struct Running<'a> {
    site: &'a Site,
    daemon: Daemon,
}

impl Running<'_> {
    fn verb(&self, arguments: &[&str]) -> Output {
        self.site.control.verb(arguments)
    }

    fn status(&self) -> Option<Value> {
        let output = self.verb(&["status", "--json"]);
        (output.code == Some(0)).then(|| serde_json::from_str(&output.stdout).unwrap())
    }

    /// The status as soon as it is like this.
    fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let found = wait::until(SOON, || {
            last = self.status();
            last.clone().filter(|status| wanted(status))
        });
        found.unwrap_or_else(|| panic!("{last:#?}, {:#?}", self.daemon.log()))
    }

    /// Waits until exactly these disks are served.
    fn until_served(&self, names: &[&str]) -> Value {
        let mut names = names.to_vec();
        names.sort_unstable();
        self.until(|status| {
            let disks = status["disks"].as_array().unwrap();
            let mut served: Vec<_> = disks
                .iter()
                .map(|disk| disk["name"].as_str().unwrap())
                .collect();
            served.sort_unstable();
            served == names && disks.iter().all(|disk| disk["state"] == "serving")
        })
    }

    fn reload(&self) -> Value {
        self.site.control.ask(b"{\"verb\":\"reload\"}\n")
    }

    /// Waits until a portal was asked once more, from start to end.
    fn until_asked_again(&self, portal: usize) -> Value {
        let asked = |status: &Value| status["portals"][portal]["last_discovery"].clone();
        let before = asked(&self.until(|_| true));
        let once = asked(&self.until(|status| asked(status) != before));
        self.until(|status| asked(status) != once)
    }

    fn connect(&self, name: &str) -> Frontend {
        self.site.config.connect(&self.daemon, name)
    }
}

/// What a disk is called whose target has a short and plain name.
fn name(iqn: &str, lun: u16) -> String {
    format!("{}-lun-{lun}", iqn.replace(':', "_"))
}

fn target(tgt: &mut Tgt, name: &str, luns: &[u16]) -> Target {
    let target = tgt.target(&format!("iqn.2026-11.test.example:{name}"));
    for lun in luns {
        tgt.lun(&target, *lun, DISK_BYTES, &LunOptions::default());
    }
    tgt.allow_all(&target);
    target
}

#[test]
fn targets_and_luns_come_and_go_and_a_used_disk_stays_until_its_guest_has_gone() {
    let mut tgt = Tgt::start();
    let a = target(&mut tgt, "a", &[1]);
    let mut site = Site::new();
    site.portal(&tgt.portal(), "");
    let running = site.start();
    let a1 = name(&a.iqn, 1);
    running.until_served(&[&a1]);
    let mut guest = running.connect(&a1);
    assert_eq!(guest.queue(0).write(8, &pattern(4096)).unwrap(), S_OK);

    tgt.lun(&a, 2, DISK_BYTES, &LunOptions::default());
    let b = target(&mut tgt, "b", &[7]);
    let (a2, b7) = (name(&a.iqn, 2), name(&b.iqn, 7));
    let status = running.until_served(&[&a1, &a2, &b7]);
    let used = status["disks"].as_array().unwrap().iter();
    let used = used.filter(|disk| disk["front_end"] != Value::Null);
    let used: Vec<_> = used.collect();
    assert_eq!(
        (used.len(), &used[0]["sessions"][0]["reconnects"]),
        (1, &0.into())
    );
    let mut other = running.connect(&b7);
    assert_eq!(other.queue(0).write(8, &vec![7; 4096]).unwrap(), S_OK);
    assert_eq!(other.queue(0).read(8, 4096).unwrap(), (S_OK, vec![7; 4096]));
    assert_eq!(guest.queue(0).read(8, 4096).unwrap(), (S_OK, pattern(4096)));
    drop(other);

    tgt.delete_lun(&a, 2);
    running.until_served(&[&a1, &b7]);
    assert!(!site.config.socket(&a2).exists());
    let lock = site.config.directory().join(format!("{a2}.sock.lock"));
    assert!(!lock.exists(), "what has gone leaves nothing behind");
    tgt.delete_lun(&a, 1);
    running.until_asked_again(0);
    let status = running.until_served(&[&a1, &b7]);
    assert_eq!(status["portals"][0]["disks"], 1, "{status:#}");
    drop(guest);
    running.until_served(&[&b7]);
    assert!(!site.config.socket(&a1).exists());
}

#[test]
fn patterns_choose_targets_and_a_disk_of_the_file_wins() {
    let mut tgt = Tgt::start();
    for name in ["vm1", "vm2", "vm2-backup", "other"] {
        target(&mut tgt, name, &[1]);
    }
    let iqn = |name: &str| format!("iqn.2026-11.test.example:{name}");
    let mut site = Site::new();
    let own = Target {
        tid: 0,
        iqn: iqn("vm1"),
    };
    site.config.disk("mine", &tgt.url(&own, 1), "");
    let patterns = "include = ['*:vm?', '*:vm*-backup']\nexclude = ['*backup*']\nread-only = true";
    site.portal(&tgt.portal(), patterns);
    let running = site.start();
    let vm2 = name(&iqn("vm2"), 1);
    let status = running.until_served(&["mine", &vm2]);
    assert_eq!(status["portals"][0]["targets"], 2);
    let read_only = |name: &str| {
        let disks = status["disks"].as_array().unwrap();
        let disk = disks.iter().find(|disk| disk["name"] == name);
        disk.unwrap()["lun"]["read_only"].clone()
    };
    assert_eq!(
        (read_only("mine"), read_only(&vm2)),
        (false.into(), true.into())
    );
}

/// One target of the scriptable kind.
fn one_lun(config: TargetConfig) -> TestTarget {
    start_target(TargetConfig {
        luns: [(3, LunConfig::of_bytes(16 << 20))].into(),
        ..config
    })
}

#[test]
fn a_secret_opens_discovery_and_sessions_and_a_wrong_one_neither() {
    let secret = "a secret of 20 bytes";
    let target = one_lun(TargetConfig {
        chap: Some(ChapConfig::new("me", Secret::new(secret))),
        ..TargetConfig::default()
    });
    for (given, is_right) in [(secret, true), ("another of 20 bytes.", false)] {
        let mut site = Site::new();
        let file = site.config.directory().join("secret");
        fs::write(&file, given).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let chap = format!("chap-user = 'me'\nchap-secret-file = '{}'", file.display());
        site.portal(&target.portal().to_string(), &chap);
        let running = site.start();
        if is_right {
            running.until_served(&[&name(target.name(), 3)]);
            continue;
        }
        let status = running.until(|status| status["portals"][0]["state"] == "failing");
        let portal = &status["portals"][0];
        assert!(
            portal["reason"].as_str().unwrap().contains("status 0201"),
            "{portal:#}"
        );
        assert_eq!(portal["problems"].as_array().unwrap().len(), 1);
        assert_eq!(status["disks"], Value::Array(Vec::new()));
        let log = running.daemon.log();
        assert!(log.iter().all(|line| !line.contains(given)), "{log:#?}");
    }
}

#[test]
fn a_portal_that_is_away_at_start_is_asked_until_it_comes_and_takes_nothing_with_it_when_it_goes() {
    let port = free_port();
    let mut site = Site::new();
    site.portal(&format!("127.0.0.1:{port}"), "");
    let running = site.start();
    running.until(|status| status["portals"][0]["state"] == "failing");
    let target = one_lun(TargetConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        ..TargetConfig::default()
    });
    let disk = name(target.name(), 3);
    running.until_served(&[&disk]);
    target.refuse_connections();
    let status = running.until(|status| status["portals"][0]["state"] == "failing");
    assert_eq!(status["disks"][0]["state"], "serving", "{status:#}");
    let log = running.daemon.log();
    let said = log.iter().filter(|line| line.contains("is served on"));
    assert_eq!(said.count(), 2, "once each time it went away: {log:#?}");
    target.accept_connections().unwrap();
    running.until(|status| status["portals"][0]["state"] == "discovered");
    running.until_served(&[&disk]);
}

#[test]
fn a_target_that_is_listed_and_lets_nobody_in_keeps_its_disks() {
    // One portal tells of targets that live at another.
    let house = one_lun(TargetConfig::default());
    let door = start_target(TargetConfig {
        target_names: vec!["iqn.2026-11.org.example:door".to_owned()],
        luns: [].into(),
        advertised: vec![(
            house.name().to_owned(),
            vec![format!("{},1", house.portal())],
        )],
        ..TargetConfig::default()
    });
    let mut site = Site::new();
    site.portal(&door.portal().to_string(), "");
    let running = site.start();
    let disk = name(house.name(), 3);
    running.until_served(&[&disk]);
    let (class, detail) = (2, 2);
    house.add(Rule::login(LoginFault::Status { class, detail }));
    let refused = |status: &Value| {
        let problems = status["portals"][0]["problems"].to_string();
        problems.contains(house.name()) && problems.contains("status 0202")
    };
    running.until(refused);
    let status = running.until_asked_again(0);
    assert_eq!(status["disks"][0]["state"], "serving", "{status:#}");
    assert_eq!(status["disks"][0]["sessions"][0]["reconnects"], 0);
    house.clear_rules();
    running.until(|status| status["portals"][0]["problems"] == Value::Array(Vec::new()));
    let log = running.daemon.log();
    let said = log.iter().filter(|line| line.contains("status 0202"));
    assert_eq!(said.count(), 1, "{log:#?}");
}

/// Doors of a target, which name the last one first and then themselves.
fn doors() -> [TestTarget; 3] {
    let ports = [free_port(), free_port(), free_port()];
    let address = |door: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[door]));
    [0, 1, 2].map(|door| {
        let listed = [2, door].map(|door| format!("{},1", address(door)));
        one_lun(TargetConfig {
            listen: address(door),
            advertised_portals: Some(listed.to_vec()),
            ..TargetConfig::default()
        })
    })
}

/// Whichever of them answers first has the disk, and keeps it when the other one answers, too.
#[test]
fn two_portals_of_one_target_are_one_disk_at_the_address_that_was_asked() {
    for first in [0, 1] {
        let doors = doors();
        let disk = name(doors[0].name(), 3);
        let mut site = Site::new();
        // By its name, and by the address that it is listed with.
        site.portal(&format!("localhost:{}", doors[0].portal().port()), "");
        site.portal(&doors[1].portal().to_string(), "");
        let (open, late) = (&doors[first], &doors[1 - first]);
        late.refuse_connections();
        let running = site.start();
        let is_there = |status: &Value| {
            let shares = [0, 1].map(|at| status["portals"][at]["disks"].as_u64().unwrap());
            let disks = status["disks"].as_array().unwrap();
            assert_eq!(disks.len(), 1, "{status:#}");
            assert_eq!((shares[first], shares[1 - first]), (1, 0), "{status:#}");
            assert_eq!(disks[0]["portal"], open.portal().to_string());
        };
        is_there(&running.until_served(&[&disk]));
        late.accept_connections().unwrap();
        running.until(|status| status["portals"][1 - first]["state"] == "discovered");
        // What it has found counts before it is asked again.
        running.until_asked_again(1 - first);
        is_there(&running.until_served(&[&disk]));
        let mut guest = running.connect(&disk);
        assert_eq!(guest.queue(0).write(0, &pattern(512)).unwrap(), S_OK);
        running.until_asked_again(first);
        is_there(&running.until_served(&[&disk]));
        assert_eq!(guest.queue(0).read(0, 512).unwrap(), (S_OK, pattern(512)));
    }
}

#[test]
fn a_reload_changes_portals_and_a_disk_of_the_file_takes_the_place_of_what_was_found() {
    let mut tgt = Tgt::start();
    let a = target(&mut tgt, "a", &[1, 2]);
    let b = target(&mut tgt, "b", &[1]);
    let (a1, a2, b1) = (name(&a.iqn, 1), name(&a.iqn, 2), name(&b.iqn, 1));
    let mut site = Site::new();
    site.portal(&tgt.portal(), "exclude = ['*:b']");
    let running = site.start();
    running.until_served(&[&a1, &a2]);
    let mut guest = running.connect(&a2);
    assert_eq!(guest.queue(0).write(8, &pattern(4096)).unwrap(), S_OK);

    // The file cannot have the one that is used: nothing changes.
    let file = site.config.directory().join("config.toml");
    let table = |name: &str, lun: u16| {
        format!(
            "[[disk]]\nname = '{name}'\nsocket-path = '{}'\nurl = '{}'\nread-only = true\n",
            site.config.socket(name).display(),
            tgt.url(&a, lun)
        )
    };
    fs::write(&file, format!("{}{}", site.config.text, table(&a2, 2))).unwrap();
    let refused = running.reload();
    let problem = refused["result"]["problems"][0].as_str().unwrap();
    assert!(
        problem.contains(&a2) && problem.contains("found at a portal"),
        "{problem}"
    );
    drop(guest);
    running.until_asked_again(0);
    running.until_served(&[&a1, &a2]);
    let mut guest = running.connect(&a2);

    // The other one is the file's now, by the same name and socket; the patterns have changed.
    let text = &site.config.text;
    let portal = text.replace("exclude = ['*:b']", "include = ['*:a', '*:b']");
    let disk = table(&a1, 1);
    fs::write(&file, format!("{portal}{disk}")).unwrap();
    let reloaded = running.reload();
    assert_eq!(reloaded["ok"], true, "{reloaded:#}");
    let result = &reloaded["result"];
    assert_eq!(result["problems"], Value::Array(Vec::new()), "{result:#}");
    assert_eq!(result["added"], serde_json::json!([a1]), "{result:#}");
    assert_eq!(result["removed"], serde_json::json!([a1]), "{result:#}");
    let status = running.until_served(&[&a1, &a2, &b1]);
    let served = |name: &str| {
        let disks = status["disks"].as_array().unwrap();
        disks
            .iter()
            .find(|disk| disk["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(served(&a1)["lun"]["read_only"], true);
    assert_eq!(served(&a2)["sessions"][0]["reconnects"], 0);
    assert_eq!(guest.queue(0).read(8, 4096).unwrap(), (S_OK, pattern(4096)));

    // Without its portal a disk is gone, as soon as its guest is.
    let (without, _) = portal.split_once("[[portal]]").unwrap();
    fs::write(&file, format!("{without}{disk}")).unwrap();
    let reloaded = running.reload();
    assert_eq!(reloaded["result"]["kept"][0]["name"], a2, "{reloaded:#}");
    assert_eq!(
        reloaded["result"]["removed"],
        serde_json::json!([b1]),
        "{reloaded:#}"
    );
    let status = running.until_served(&[&a1, &a2]);
    assert_eq!(status["portals"], Value::Array(Vec::new()));
    drop(guest);
    running.until_served(&[&a1]);
}

#[test]
fn a_disk_whose_socket_cannot_be_had_is_tried_again_at_the_next_discovery() {
    let target = one_lun(TargetConfig::default());
    let mut site = Site::new();
    site.portal(&target.portal().to_string(), "");
    let disk = name(target.name(), 3);
    // Another process has it.
    let lock = File::create(site.config.directory().join(format!("{disk}.sock.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let running = site.start();
    let status = running.until(|status| status["disks"][0]["state"] == "ended");
    let problem = status["disks"][0]["problems"][0].as_str().unwrap();
    assert!(problem.contains("by another process already"), "{problem}");
    running.until_asked_again(0);
    let log = running.daemon.log();
    let said = log.iter().filter(|line| line.contains("not served: "));
    assert_eq!(said.count(), 1, "{log:#?}");
    drop(lock);
    running.until_served(&[&disk]);
}

/// A target with a short name, and one with a long one.
fn mixed() -> TestTarget {
    let long = format!("iqn.2026-11.org.example:{}", "x".repeat(60));
    start_target(TargetConfig {
        target_names: vec!["iqn.2026-11.org.example:short".to_owned(), long],
        luns: [(1, LunConfig::of_bytes(16 << 20))].into(),
        ..TargetConfig::default()
    })
}

#[test]
fn check_and_status_show_portals_and_their_disks() {
    let target = mixed();
    let portal = target.portal().to_string();
    let mut site = Site::new();
    site.portal(&portal, "rediscover = '1day'");
    site.portal("127.0.0.1:1", "rediscover = '1day'");
    let path = site.config.write();
    let path = path.to_str().unwrap();
    let volatile = [(portal.as_str(), "PORTAL")];
    let check = |arguments: &[&str]| {
        let output = run(&[&["check", "--config", path], arguments].concat());
        (output.code, site.shown(&output.stdout, &volatile))
    };
    let (code, shown) = check(&[]);
    assert_eq!(code, Some(0));
    assert_matches("portals/check.txt", &shown);
    let (code, shown) = check(&["--login"]);
    assert_eq!(code, Some(4));
    assert_matches("portals/check-login.txt", &shown);
    let (_, shown) = check(&["--login", "--json"]);
    assert_matches("portals/check-login.json", &shown);

    let running = site.start();
    let status = running.until(|status| {
        let portals = status["portals"].as_array().unwrap();
        let states = [0, 1].map(|index| portals[index]["state"].clone());
        let disks = status["disks"].as_array().unwrap();
        states == ["discovered", "failing"]
            && portals
                .iter()
                .all(|portal| portal["next_discovery"].is_string())
            && disks.len() == 2
            && disks.iter().all(|disk| disk["state"] == "serving")
    });
    let version = env!("CARGO_PKG_VERSION");
    let process = format!("process {},", running.daemon.id());
    let volatile = [
        volatile[0],
        (version, "VERSION"),
        (&process, "process PID,"),
    ];
    // The one that fails is asked again and again: its next time is not always there.
    let shown = wait::until(SOON, || {
        let shown = running.verb(&["status"]).stdout;
        (shown.matches(", again ").count() == 2).then_some(shown)
    });
    assert_matches(
        "portals/status.txt",
        &site.shown(&shown.unwrap(), &volatile),
    );
    let portals = serde_json::to_string_pretty(&status["portals"]).unwrap();
    assert_matches("portals/status.json", &site.shown(&portals, &volatile));
    assert_eq!(target.violations(), [""; 0]);
}
