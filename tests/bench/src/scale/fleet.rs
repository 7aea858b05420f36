//! Many disks at once, each with a server and a guest of its own.

use std::path::Path;
use std::time::Duration;

use vhost_user_iscsi::url::TargetUrl;

use super::report::SilentReport;
use crate::client::{Client, InflightRegion, Load, Window, run_together};
use crate::failure::Failure;
use crate::idle;
use crate::measure::machine::{Activity, Moment};
use crate::measure::process::anonymous_bytes;
use crate::parts::{Server, ServerOptions, Subject, Target};
use crate::round::{self, Round};
use crate::stage;

/// Who serves disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// A process for each disk.
    Many,
    /// One process of ours for all of them.
    One {
        /// They share sessions, each with a LUN of its own.
        share_sessions: bool,
    },
}

/// Disks that can be driven; all end with it.
pub(super) struct Fleet {
    /// In the order of their servers; they leave before those end.
    clients: Vec<Client>,
    servers: Vec<Server>,
}

/// The URL of each disk: `url`, or the LUNs from there on.
fn urls(url: &str, disks: u16, one_each: bool) -> Result<Vec<String>, Failure> {
    let first = TargetUrl::parse(url).map_err(|error| Failure::usage(format!("{url}: {error}")))?;
    let of_disk = |disk: u16| TargetUrl {
        lun: first.lun + if one_each { disk } else { 0 },
        ..first.clone()
    };
    Ok((0..disks).map(|disk| of_disk(disk).to_string()).collect())
}

impl Fleet {
    /// Starts servers for disks, on `url` or the LUNs from there on, and connects a client with `load` to each disk.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub(super) fn start(
        (disks, processes): (u16, Processes),
        (subject, options): (Subject, &ServerOptions),
        url: &str,
        directory: &Path,
        load: &Load,
    ) -> Result<Self, Failure> {
        let servers = match processes {
            Processes::Many => (0..disks)
                .map(|_| Server::start(subject, url, directory, options))
                .collect::<Result<Vec<_>, _>>()?,
            Processes::One { share_sessions } => {
                let urls = urls(url, disks, share_sessions)?;
                vec![Server::start_service(
                    &urls,
                    share_sessions,
                    directory,
                    options,
                )?]
            }
        };
        let mut clients = Vec::new();
        for server in &servers {
            for socket in server.sockets() {
                let client = stage::connect(server, socket, load, InflightRegion::Taken)?;
                clients.push(client);
            }
        }
        Ok(Self { clients, servers })
    }

    /// Uses every disk, so that what is made on first use is there.
    ///
    /// # Errors
    /// When a request fails.
    pub(super) fn use_briefly(&mut self) -> Result<(), Failure> {
        let used = run_together(&mut self.clients, idle::USE, &mut |_| ());
        match used {
            Ok(_) => Ok(()),
            Err(failed) => {
                Err(round::server_of(&self.servers, failed.client).failure(failed.error))
            }
        }
    }

    /// Watches the disks for `time` while nobody asks for anything; what else the machine did
    /// comes with it.
    pub(super) fn watch_silent(&self, time: Duration, target: &Target) -> (Activity, SilentReport) {
        let pids: Vec<u32> = self.servers.iter().map(Server::pid).collect();
        let begin = Moment::now();
        let watched = idle::watch(&pids, time);
        let activity = Moment::now().since(&begin, &round::parts(&self.servers, target));
        let anonymous: Vec<u64> = pids.iter().map(|pid| anonymous_bytes(*pid)).collect();
        (
            activity,
            SilentReport::of(&watched, &anonymous, self.clients.len()),
        )
    }

    /// Runs the load on all disks at once and measures them together.
    ///
    /// # Errors
    /// When a request fails.
    pub(super) fn measure(
        &mut self,
        load: &Load,
        target: &Target,
        window: Window,
    ) -> Result<Round, Failure> {
        let everybody = (&self.servers[..], target);
        round::measure_together(&mut self.clients, load, everybody, window)
    }
}
