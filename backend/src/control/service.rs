//! What can be asked of the process while it runs: what it does, and that its disks change.
//!
//! Files are read in threads of their own: the runtime's one worker serves front-ends.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::fleet::Fleet;
use super::notify;
use super::plan::Source;
use super::portals::Portals;
use super::registry::Registry;
use crate::changes::Changes;
use crate::config::{Configuration, ControlSocketSettings, ManagementSettings};
use crate::control_protocol::Request;
use crate::exit::{ExitCode, Failure};

/// The process, for those who ask.
#[derive(Debug)]
pub(super) struct Service {
    registry: Arc<Registry>,
    fleet: Arc<Fleet>,
    portals: Arc<Portals>,
    /// What the process was started with.
    management: ManagementSettings,
    /// What is in force, unless the process serves a single disk. Held while that may change, so that
    /// what was read first is never applied last.
    configuration: Mutex<Option<Arc<dyn Configuration>>>,
}

/// Why disks stay as they are.
const SINGLE: &str = "this process serves the one disk of its command line, and ends with it: for disks \
                      that come and go start it with serve --config";

impl Service {
    pub(super) fn new(
        registry: Arc<Registry>,
        fleet: Arc<Fleet>,
        portals: Arc<Portals>,
        management: ManagementSettings,
        configuration: Option<Arc<dyn Configuration>>,
    ) -> Self {
        Self {
            registry,
            fleet,
            portals,
            management,
            configuration: Mutex::new(configuration),
        }
    }

    /// Answers a request of the control socket.
    pub(super) async fn answer(&self, request: &Request) -> Result<Value, Failure> {
        match request {
            Request::Status { disk } => to_value(self.registry.status(disk.as_deref())?),
            Request::Stats { disk } => to_value(self.registry.stats(disk.as_deref())?),
            Request::Limits { disk, set } => {
                to_value(self.registry.limits(disk, set.as_deref().copied())?)
            }
            Request::Reload {} => to_value(self.reload().await?),
            Request::Add { settings } => to_value(self.add(settings).await?),
            Request::Remove { disk, force } => to_value(self.remove(disk, *force).await?),
        }
    }

    /// Reads the configuration again, and makes the disks what it says. Says in the log what has come
    /// of it.
    pub(super) async fn reload(&self) -> Result<Changes, Failure> {
        notify::reloading();
        let result = self.try_to_reload().await;
        notify::reloaded();
        match &result {
            Ok(changes) => log_changes("reload", changes),
            Err(failure) => log::error!("reload: {failure}"),
        }
        result
    }

    async fn try_to_reload(&self) -> Result<Changes, Failure> {
        let mut configuration = self.configuration.lock().await;
        let current = configuration.clone().ok_or_else(single)?;
        let read = blocking(move || current.read_again()).await?;
        let settings = match read {
            Ok(settings) => settings,
            Err(problems) => return Ok(wrong(problems)),
        };
        // A disk that was found may be in the file now, by the same name.
        let made_way = self.portals.yield_to(&settings.disks).await;
        match self.fleet.apply(Source::File, settings.disks).await {
            Ok(changes) => {
                *configuration = settings.configuration;
                let found = self.portals.set(settings.portals).await;
                Ok(Changes {
                    after_restart: differences(&self.management, &settings.management),
                    // Those that stayed are counted by the second of the two.
                    ..changes.and(made_way.without_unchanged()).and(found)
                })
            }
            Err(failures) => {
                self.portals.serve_again().await;
                Ok(wrong(failures.into_iter().map(|f| f.message).collect()))
            }
        }
    }

    async fn add(&self, settings: &Map<String, Value>) -> Result<Changes, Failure> {
        let configuration = self.configuration.lock().await;
        let current = configuration.clone().ok_or_else(single)?;
        let settings = settings.clone();
        let disk = blocking(move || current.disk(&settings)).await??;
        let added = self.fleet.add(Source::Command, disk).await;
        let changes = added.map_err(|failures| joined(&failures))?;
        log_changes("add", &changes);
        Ok(changes)
    }

    async fn remove(&self, disk: &str, is_forced: bool) -> Result<Changes, Failure> {
        let configuration = self.configuration.lock().await;
        configuration.as_ref().ok_or_else(single)?;
        let changes = self.fleet.remove(disk, is_forced).await?;
        log_changes("remove", &changes);
        Ok(changes)
    }
}

/// What has become of the disks, in the log.
pub(super) fn log_changes(occasion: &str, changes: &Changes) {
    for problem in &changes.problems {
        log::error!("{occasion}: {problem}");
    }
    if !changes.problems.is_empty() {
        log::error!("{occasion}: nothing has changed");
        return;
    }
    for line in changes.lines() {
        log::info!("{occasion}: {line}");
    }
}

fn single() -> Failure {
    Failure::usage(SINGLE)
}

fn wrong(problems: Vec<String>) -> Changes {
    Changes {
        problems,
        ..Changes::default()
    }
}

fn joined(failures: &[Failure]) -> Failure {
    let messages = failures.iter().map(|failure| failure.message.as_str());
    let code = failures.first().map_or(ExitCode::Other, |first| first.code);
    Failure::new(code, messages.collect::<Vec<_>>().join("; "))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(ExitCode::Other, error.to_string()))
}

fn to_value<T: Serialize>(value: T) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|error| Failure::new(ExitCode::Other, format!("cannot write JSON: {error}")))
}

/// The settings of the process that are others now than those it runs with.
fn differences(running: &ManagementSettings, read: &ManagementSettings) -> Vec<String> {
    // One that nobody has asked for is where its directory happens to be.
    let asked_for = |settings: &ManagementSettings| {
        let socket = settings.control_socket.clone();
        socket.filter(|socket| socket.is_required)
    };
    let (running_socket, read_socket) = (asked_for(running), asked_for(read));
    let (now, new) = (running_socket.as_ref(), read_socket.as_ref());
    let path = |s: &ControlSocketSettings| s.socket.path.clone();
    let mode = |s: &ControlSocketSettings| s.socket.mode;
    let group = |s: &ControlSocketSettings| s.socket.group_id;
    let keys = [
        ("control-socket", now.map(path) != new.map(path)),
        ("control-socket-mode", now.map(mode) != new.map(mode)),
        ("control-socket-group", now.map(group) != new.map(group)),
        ("sandbox", running.sandbox.mode != read.sandbox.mode),
        (
            "metrics-address",
            running.metrics_address != read.metrics_address,
        ),
    ];
    let different = keys.into_iter().filter(|(_, differs)| *differs);
    different.map(|(key, _)| key.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{SocketPath, SocketPathSettings};

    fn management(path: &str, mode: u32, is_required: bool) -> ManagementSettings {
        let path = SocketPath::new(PathBuf::from(path)).unwrap();
        ManagementSettings {
            control_socket: Some(ControlSocketSettings {
                socket: SocketPathSettings {
                    path,
                    mode,
                    group_id: None,
                },
                is_required,
            }),
            ..ManagementSettings::default()
        }
    }

    #[test]
    fn what_belongs_to_the_process_is_named_by_its_key() {
        let running = management("/run/a", 0o660, true);
        assert_eq!(differences(&running, &running), [""; 0]);
        let mut read = management("/run/b", 0o600, true);
        read.metrics_address = Some(([127, 0, 0, 1], 1).into());
        assert_eq!(
            differences(&running, &read),
            ["control-socket", "control-socket-mode", "metrics-address"]
        );
        let usual = management("/run/vhost-user-iscsi/control", 0o660, false);
        let none = ManagementSettings::default();
        assert_eq!(differences(&none, &usual), [""; 0]);
    }
}
