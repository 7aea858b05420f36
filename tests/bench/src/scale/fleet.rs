//! Many disks at once, each with a server and a guest of its own.

use std::path::Path;
use std::time::Duration;

use super::report::SilentReport;
use crate::client::{Client, InflightRegion, Load, Window, run_together};
use crate::failure::Failure;
use crate::idle;
use crate::measure::machine::{Activity, Moment};
use crate::measure::process::anonymous_bytes;
use crate::parts::{Server, ServerOptions, Subject, Target};
use crate::round::{self, Round};
use crate::stage;

/// Disks that can be driven; all end with it.
pub(super) struct Fleet {
    /// In the order of their servers; they leave before those end.
    clients: Vec<Client>,
    servers: Vec<Server>,
}

impl Fleet {
    /// Starts a server for each disk, all on `url`, and connects a client with `load` to each.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub(super) fn start(
        disks: u16,
        (subject, options): (Subject, &ServerOptions),
        url: &str,
        directory: &Path,
        load: &Load,
    ) -> Result<Self, Failure> {
        let servers = (0..disks).map(|_| Server::start(subject, url, directory, options));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let connect = |server| stage::connect(server, load, InflightRegion::Taken);
        Ok(Self {
            clients: servers.iter().map(connect).collect::<Result<_, _>>()?,
            servers,
        })
    }

    /// Uses every disk, so that what is made on first use is there.
    ///
    /// # Errors
    /// When a request fails.
    pub(super) fn use_briefly(&mut self) -> Result<(), Failure> {
        let used = run_together(&mut self.clients, idle::USE, &mut |_| ());
        match used {
            Ok(_) => Ok(()),
            Err(failed) => Err(self.servers[failed.client].failure(failed.error)),
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
        (activity, SilentReport::of(&watched, &anonymous))
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
