//! The helper that runs tgt does what its names say.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use vhost_user_iscsi_tests::tgt::{LunOptions, Tgt};

const MIB: u64 = 1 << 20;

#[test]
fn a_lun_has_the_options_it_was_given() {
    let mut tgt = Tgt::start();
    let options = LunOptions {
        thin: true,
        serial: Some("S3R1AL".into()),
        read_only: true,
        block_bytes: Some(4096),
        write_cache: Some(false),
        ..LunOptions::default()
    };
    tgt.disk(16 * MIB, &options);
    let shown = tgt.show();
    for fact in [
        "S3R1AL",
        "Block size: 4096",
        "Thin-provisioning: Yes",
        "Readonly: Yes",
    ] {
        assert!(shown.contains(fact), "no {fact:?} in {shown}");
    }
}

#[test]
fn two_instances_run_side_by_side() {
    let (mut first, second) = (Tgt::start(), Tgt::start());
    first.disk(MIB, &LunOptions::default());
    assert_ne!(first.port(), second.port());
    assert!(!second.show().contains("disk"), "{}", second.show());
}

#[test]
fn a_restart_brings_back_the_configuration_on_the_same_port() {
    let mut tgt = Tgt::start();
    let target = tgt.disk(MIB, &LunOptions::default());
    tgt.set(&target, "InitialR2T", "No");
    tgt.chap_incoming(&target, "initiator", "secret-of-test");
    tgt.chap_outgoing(&target, "target", "other-of-tests");
    let (port, shown) = (tgt.port(), tgt.show());
    tgt.restart();
    assert_eq!(tgt.port(), port);
    assert_eq!(tgt.show(), shown);
}

#[test]
fn a_target_can_redirect() {
    let mut tgt = Tgt::start();
    let target = tgt.target("iqn.2026-11.test.example:moved");
    tgt.redirect(&target, 3260, "Temporary");
    tgt.allow_name(&target, "iqn.2026-11.test.example:initiator");
    assert!(tgt.show().contains("moved"));
}
