//! Firmware, boot loaders, drivers that follow one another, and reboots.

use vhost_user_iscsi_tests::daemon::Daemon;
use vhost_user_iscsi_tests::disk::Disk;
use vhost_user_iscsi_tests::tgt::{LunOptions, Tgt};

use super::run::{Launch, on_host};

/// A disk that `program` has prepared for a boot, before the daemon saw it.
fn prepared(program: &str, arguments: &[&str]) -> Disk {
    let mut tgt = Tgt::start();
    let target = tgt.disk(128 << 20, &LunOptions::default());
    let file = tgt.lun_file(&target, 1);
    on_host(program, &[arguments, &[file.to_str().unwrap()]].concat());
    let daemon = Daemon::start(&tgt.url(&target, 1), &[]);
    Disk {
        daemon,
        tgt,
        target,
    }
}

fn survives(extra: &[(&str, &str)]) {
    let disk = Disk::new();
    let mut guest = Launch::new(&[disk.daemon.socket()]).args(&["--allow-reboot"]);
    for (name, value) in extra {
        guest = guest.env(name, value);
    }
    let printed = guest.env("RUN_ID", "one").script("reboot-check").run();
    assert!(printed.contains("written; rebooting"), "{printed}");
    assert!(printed.contains("holds after the reboot"), "{printed}");
}

#[test]
fn data_survives_a_reboot() {
    survives(&[]);
}

#[test]
fn data_survives_a_sudden_reset() {
    survives(&[("RESET", "yes")]);
}

#[test]
fn the_firmware_reads_the_boot_sector_and_what_it_asks_for() {
    let text = "read from the LUN by the firmware";
    let disk = prepared("make-boot-disk", &["--text", text]);
    Launch::new(&[disk.daemon.socket()])
        .args(&["--firmware-boot", "--expect", text])
        .run();
}

#[test]
fn linux_boots_from_the_disk_takes_it_over_and_reboots_from_it() {
    let disk = prepared("make-linux-disk", &[]);
    let guest = Launch::new(&[disk.daemon.socket()])
        .args(&["--firmware-boot", "--allow-reboot"])
        .env("RUN_ID", "one")
        .env("OFFSET_MIB", "64")
        .script("reboot-check");
    let printed = guest.run();
    assert!(printed.contains("holds after the reboot"), "{printed}");
}
