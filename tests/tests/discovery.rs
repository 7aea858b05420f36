//! Discovery and redirects, against tgt and the scriptable target.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use iscsi_test_target::{Delivery, LoginFault, Rule, TargetConfig, TestTarget};
use serde_json::Value;
use vhost_user_iscsi_tests::daemon::{Output, run};
use vhost_user_iscsi_tests::disk::{DISK_BYTES, pattern};
use vhost_user_iscsi_tests::frontend::FrontendConfig;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::served::{INITIATOR_NAME, SOON, Served, start_target};
use vhost_user_iscsi_tests::tgt::{LunOptions, Tgt};

fn works(head: &[&str]) -> Output {
    let output = run(&[head, &["--initiator-name", INITIATOR_NAME]].concat());
    assert_eq!(output.code, Some(0), "{head:?}: {}", output.stderr);
    output
}

fn json(head: &[&str]) -> Value {
    serde_json::from_str(&works(&[head, &["--json"]].concat()).stdout).unwrap()
}

#[test]
fn discovery_prints_a_line_per_portal_as_iscsiadm_does() {
    let mut tgt = Tgt::start();
    for number in 0..3 {
        let target = tgt.target(&format!("iqn.2026-11.test.example:disk{number}"));
        tgt.allow_all(&target);
    }
    let portal = tgt.portal();
    let output = works(&["discover", &portal]);
    let mut lines: Vec<_> = output.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    let line = |number| format!("{portal},1 iqn.2026-11.test.example:disk{number}");
    assert_eq!(lines, [line(0), line(1), line(2)]);
}

/// Thousands of targets with several portals each, several hundred KB of text.
fn many_targets(count: usize) -> Vec<(String, Vec<String>)> {
    let portals = [
        "192.0.2.1:3260,1",
        "[2001:db8::1]:3260,2",
        "storage.example.com:860,65535",
    ];
    let target = |number| {
        let name = format!("iqn.2026-11.org.example:{}.{number:05}", "x".repeat(40));
        (name, portals.map(str::to_owned).to_vec())
    };
    (0..count).map(target).collect()
}

#[test]
fn an_answer_of_several_hundred_kb_is_read_to_its_end() {
    for text_bytes in [None, Some(512)] {
        let target = start_target(TargetConfig {
            advertised: many_targets(3000),
            delivery: Delivery {
                text_bytes,
                ..Delivery::default()
            },
            ..TargetConfig::default()
        });
        let output = works(&["discover", &target.portal().to_string()]);
        assert!(output.stdout.len() > 400_000);
        assert_eq!(output.stdout.lines().count(), 3 * 3000 + 1);
        assert!(output.stdout.contains("[2001:db8::1]:3260,2 iqn."));
        assert!(output.stdout.contains(".02999\n"));
        assert_eq!(target.violations(), [""; 0]);
    }
}

#[test]
fn json_is_one_document_with_an_object_per_portal() {
    let target = start_target(TargetConfig {
        advertised: many_targets(2),
        ..TargetConfig::default()
    });
    let found = json(&["discover", &target.portal().to_string()]);
    let portals = found["portals"].as_array().unwrap();
    assert_eq!(portals.len(), 7);
    let ours = portals
        .iter()
        .find(|portal| portal["target"] == target.name());
    assert_eq!(ours.unwrap()["port"], target.portal().port());
    assert_eq!(ours.unwrap()["address"], "127.0.0.1");
}

// ---- redirects ----------------------------------------------------------------------------------

/// Sends every login on to `address`.
fn door_to(address: &str, permanent: bool) -> TestTarget {
    let target = start_target(TargetConfig::default());
    target.add(Rule::login(LoginFault::Redirect {
        permanent,
        address: address.to_owned(),
    }));
    target
}

/// On another loopback address than the door.
fn house() -> TestTarget {
    start_target(TargetConfig {
        listen: SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)),
        ..TargetConfig::default()
    })
}

#[test]
fn a_redirect_is_followed_by_probe_and_reported() {
    for permanent in [false, true] {
        for tag in ["", ",1"] {
            let house = house();
            let door = door_to(&format!("{}{tag}", house.portal()), permanent);
            let found = json(&["probe", &door.url(0)]);
            let shown = found.to_string();
            assert!(shown.contains(&house.portal().to_string()), "{shown}");
            assert_eq!(house.violations(), [""; 0]);
        }
    }
}

#[test]
fn eight_redirects_are_followed_and_nine_are_not() {
    let house = house();
    let mut doors = vec![door_to(&house.portal().to_string(), false)];
    while doors.len() < 8 {
        let next = doors.last().unwrap().portal().to_string();
        doors.push(door_to(&next, doors.len() % 2 == 0));
    }
    works(&["probe", &doors.last().unwrap().url(0)]);
    let ninth = door_to(&doors.last().unwrap().portal().to_string(), false);
    let output = run(&["probe", &ninth.url(0), "--initiator-name", INITIATOR_NAME]);
    assert_eq!(output.code, Some(1), "{}", output.stderr);
}

#[test]
fn a_redirect_is_followed_from_the_test_target_to_tgt_and_back() {
    for (permanent, reason) in [(false, "Temporary"), (true, "Permanent")] {
        let mut tgt = Tgt::start();
        let target = tgt.disk(DISK_BYTES, &LunOptions::default());
        let door = door_to(&tgt.portal(), permanent);
        works(&[
            "probe",
            &format!("iscsi://{}/{}/1", door.portal(), target.iqn),
        ]);

        let house = start_target(TargetConfig {
            listen: SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)),
            target_names: vec!["iqn.2026-11.test.example:moved".to_owned()],
            ..TargetConfig::default()
        });
        let moved = tgt.target(house.name());
        tgt.allow_all(&moved);
        tgt.redirect(&moved, house.portal().port(), reason);
        // tgt sends nobody on to the address that the connection came to, whatever the port.
        tgt.set(&moved, "RedirectAddress", "127.0.0.2");
        works(&["probe", &tgt.url(&moved, 0)]);
        assert_eq!(house.violations(), [""; 0]);
    }
}

#[test]
fn a_redirected_disk_is_served_and_redirected_again_at_each_login() {
    let house = house();
    let door = door_to(&house.portal().to_string(), false);
    let served = Served::from(door, 0, &[]);
    let mut frontend = served.connect(FrontendConfig::default());
    assert_eq!(frontend.queue(0).write(8, &pattern(4096)).unwrap(), S_OK);
    house.drop_connections();
    served.daemon.wait_log("is up again", SOON);
    assert_eq!(
        frontend.queue(0).read(8, 4096).unwrap(),
        (S_OK, pattern(4096))
    );
    assert_eq!(served.target.counters().connections, 2);
    assert_eq!(house.violations(), [""; 0]);
}

#[test]
fn a_portal_with_an_ipv6_address_is_discovered_probed_and_served() {
    let target = start_target(TargetConfig {
        listen: SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ..TargetConfig::default()
    });
    let portal = target.portal();
    let discovered = works(&["discover", &portal.to_string()]).stdout;
    assert_eq!(discovered, format!("{portal},1 {}\n", target.name()));
    let probed = json(&["probe", &target.url(0)]);
    assert_eq!(probed["session"]["address"], portal.to_string());
    let served = Served::from(target, 0, &[]);
    let mut frontend = served.connect(FrontendConfig::default());
    assert_eq!(frontend.queue(0).write(8, &pattern(4096)).unwrap(), S_OK);
}
