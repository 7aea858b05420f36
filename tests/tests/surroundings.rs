//! What the machine around the process does to it: guests never notice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs::{self, File};
use std::io::{Read, pipe};

use vhost_user_iscsi_tests::config_file::ConfigFile;
use vhost_user_iscsi_tests::daemon::{Daemon, Launch};
use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{Frontend, FrontendConfig};
use vhost_user_iscsi_tests::served::{SOON, start_small_target};

/// Far more lines than a pipe and the queue of the log hold: a request has several at level trace.
const REQUESTS: u64 = 2000;

fn work(frontend: &mut Frontend, requests: u64) {
    let data = pattern(4096);
    for request in 0..requests {
        let sector = request % 64 * 8;
        assert_eq!(frontend.queue(0).write(sector, &data).unwrap(), S_OK);
        let (status, found) = frontend.queue(0).read(sector, 4096).unwrap();
        assert_eq!((status, &found), (S_OK, &data), "request {request}");
    }
}

fn serves_and_ends(mut daemon: Daemon) {
    let mut frontend = daemon.connect(FrontendConfig::default());
    work(&mut frontend, REQUESTS);
    let (status, _) = daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_keeps_no_guest_waiting() {
    let target = start_small_target();
    let (mut unread, log) = pipe().unwrap();
    let launch = Launch::new(&target.url(0)).args(["-vv"]).log_to(log);
    serves_and_ends(launch.start());
    let mut said = Vec::new();
    unread.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("serving iscsi://"), "{said}");
    assert!(said.len() < 1 << 20, "all of it was waited for");
}

#[test]
fn a_log_on_a_full_disk_keeps_no_guest_waiting() {
    let target = start_small_target();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let launch = Launch::new(&target.url(0)).args(["-vv"]).log_to(full);
    serves_and_ends(launch.start());
}

#[test]
fn a_socket_directory_that_vanishes_costs_no_guest_its_disk() {
    let target = start_small_target();
    let mut config = ConfigFile::new();
    config.disk("here", &target.url(0), "");
    let mut daemon = config.start();
    let mut frontend = config.connect(&daemon, "here");
    work(&mut frontend, 10);
    fs::remove_dir_all(config.directory()).unwrap();
    work(&mut frontend, 10);
    // Its session is made anew without that directory, too.
    target.drop_connections();
    work(&mut frontend, 10);
    drop(frontend);
    daemon.wait_log("the front-end has gone", SOON);
    let (status, _) = daemon.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{:#?}", daemon.log());
}
