//! A target and the servers on it, started when they are first wanted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::case::{Arm, POLL_MAX_US};
use crate::client::{Client, Error, InflightRegion, Load};
use crate::failure::Failure;
use crate::parts::{Pinning, Server, ServerOptions, Subject, Target, TargetName};

/// What the peer is told to have; a case may use fewer.
const MOST_QUEUES: u16 = 4;
/// The option of our back-end for the case with busy-poll.
const POLL_OPTION: &str = "--poll-max-us";
/// How long a server may take to be ready for the next front-end after one has left.
const TURNOVER_LIMIT: Duration = Duration::from_secs(5);
const TURNOVER_PAUSE: Duration = Duration::from_millis(20);

/// What servers are started with.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// Our back-end.
    pub(crate) back_end: PathBuf,
    /// Arguments of it in every case.
    pub(crate) back_end_arguments: Vec<String>,
    /// The peer's command line.
    pub(crate) peer: String,
}

impl Programs {
    /// What the program of a subject says of its version.
    pub(crate) fn version(&self, subject: Subject) -> String {
        let program = match subject {
            Subject::Ours => self.back_end.as_os_str(),
            Subject::Peer => self
                .peer
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .as_ref(),
        };
        let output = Command::new(program).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.ok()
            .and_then(|text| Some(text.lines().next()?.to_owned()))
            .unwrap_or_default()
    }

    /// Whether our back-end has the option that the case with busy-poll needs.
    pub(crate) fn can_poll(&self) -> bool {
        let help = Command::new(&self.back_end).arg("--help").output();
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(POLL_OPTION))
    }
}

/// A running target with its servers; all end with it.
pub(crate) struct Stage<'a> {
    programs: &'a Programs,
    pinning: Pinning,
    directory: &'a Path,
    servers: BTreeMap<Arm, Server>,
    // Ends after those that are logged in to it.
    target: Target,
}

impl<'a> Stage<'a> {
    /// Starts the target.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn new(
        name: &TargetName,
        programs: &'a Programs,
        pinning: Pinning,
        directory: &'a Path,
    ) -> Result<Self, Failure> {
        Ok(Self {
            programs,
            pinning,
            directory,
            servers: BTreeMap::new(),
            target: Target::start(name, pinning.target)?,
        })
    }

    /// The target.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Starts the server of an arm unless it runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn prepare(&mut self, arm: Arm) -> Result<(), Failure> {
        if self.servers.contains_key(&arm.of_server()) {
            return Ok(());
        }
        let mut back_end_arguments = self.programs.back_end_arguments.clone();
        if arm.busy_poll {
            back_end_arguments.extend([POLL_OPTION.to_owned(), POLL_MAX_US.to_string()]);
        }
        let options = ServerOptions {
            back_end: self.programs.back_end.clone(),
            back_end_arguments,
            peer: self.programs.peer.clone(),
            digests: arm.digests,
            queues: MOST_QUEUES,
            cpu: self.pinning.back_end,
        };
        let server = Server::start(arm.subject, self.target.url(), self.directory, &options)?;
        self.servers.insert(arm.of_server(), server);
        Ok(())
    }

    /// The server of an arm.
    ///
    /// # Panics
    /// When it was not prepared.
    pub(crate) fn server(&self, arm: Arm) -> &Server {
        let server = self.servers.get(&arm.of_server());
        server.expect("a server that was prepared")
    }

    /// Connects a client to the server of an arm.
    ///
    /// # Errors
    /// As [`connect`].
    pub(crate) fn connect(&self, arm: Arm, load: &Load) -> Result<Client, Failure> {
        let server = self.server(arm);
        connect(server, &server.sockets()[0], load, arm.region)
    }
}

/// Connects a client to a socket of a server. One that does not listen yet, or still looks after the front-end
/// before, gets time for it.
///
/// # Errors
/// When it refuses.
pub(crate) fn connect(
    server: &Server,
    socket: &Path,
    load: &Load,
    region: InflightRegion,
) -> Result<Client, Failure> {
    let begin = Instant::now();
    loop {
        match Client::connect(socket, load, region) {
            Ok(client) => return Ok(client),
            Err(Error::Message { .. } | Error::Connect { .. })
                if begin.elapsed() < TURNOVER_LIMIT =>
            {
                thread::sleep(TURNOVER_PAUSE);
            }
            Err(error) => return Err(server.failure(error)),
        }
    }
}
