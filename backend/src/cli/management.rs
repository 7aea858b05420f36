//! Options of the process as a whole: how it can be looked into.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::serve::group_id;
use super::values::{parse_metrics_address, parse_mode, parse_sandbox};
use crate::config::{
    ControlSocketSettings, ManagementSettings, SandboxMode, SandboxSettings, SocketPath,
    SocketPathSettings,
};
use crate::control_protocol::DEFAULT_PATH;
use crate::exit::Failure;
use crate::system::System;

/// Of the process, not of a disk: in a configuration file they stand at the top only.
#[derive(Args, Debug)]
#[command(next_help_heading = "Management")]
pub(super) struct ManagementArgs {
    /// Listen on a UNIX socket at this path for ls, status and the like
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,

    /// The control socket's permission bits
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = parse_mode)]
    control_socket_mode: u32,

    /// The control socket's group, by name or number
    #[arg(long, value_name = "GROUP")]
    control_socket_group: Option<String>,

    /// Answer Prometheus at http://ADDRESS:PORT/metrics; a port alone is one of loopback
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = parse_metrics_address)]
    metrics_address: Option<SocketAddr>,

    /// What becomes of what the sandbox does not allow: enforce ends the process or refuses it, log
    /// has the kernel log system calls, off does without a sandbox
    #[arg(long, value_name = "MODE", default_value = "enforce", value_parser = parse_sandbox)]
    sandbox: SandboxMode,
}

impl ManagementArgs {
    /// Checks them.
    pub(super) fn settings(&self) -> Result<ManagementSettings, Failure> {
        let path = self.control_socket.clone();
        let control_socket = path.map(|path| self.socket(path, true)).transpose()?;
        Ok(ManagementSettings {
            control_socket,
            metrics_address: self.metrics_address,
            sandbox: SandboxSettings {
                mode: self.sandbox,
                ..SandboxSettings::default()
            },
        })
    }

    /// The same for a service: its control socket is at the usual place, where there is one.
    pub(super) fn settings_of_service(
        &self,
        system: &System<'_>,
    ) -> Result<ManagementSettings, Failure> {
        let mut settings = self.settings()?;
        let usual = usual_place(system);
        if settings.control_socket.is_none() && usual.parent().is_some_and(Path::is_dir) {
            settings.control_socket = Some(self.socket(usual, false)?);
        }
        Ok(settings)
    }

    fn socket(&self, path: PathBuf, is_required: bool) -> Result<ControlSocketSettings, Failure> {
        let group = self.control_socket_group.as_deref();
        Ok(ControlSocketSettings {
            socket: SocketPathSettings {
                path: SocketPath::new(path).map_err(|error| Failure::access(error.to_string()))?,
                mode: self.control_socket_mode,
                group_id: group
                    .map(|group| group_id("--control-socket-group", group))
                    .transpose()?,
            },
            is_required,
        })
    }
}

/// Where a service has its control socket unless told otherwise: in the directory that systemd made
/// for it (`RuntimeDirectory=`; the first, where there are several), so that each has its own.
fn usual_place(system: &System<'_>) -> PathBuf {
    let directories = system.variable("RUNTIME_DIRECTORY");
    let directory = directories.as_ref().and_then(|list| {
        let first = list.as_bytes().split(|byte| *byte == b':').next()?;
        Some(Path::new(OsStr::from_bytes(first)))
    });
    match directory {
        Some(directory) => directory.join("control"),
        None => system.path(DEFAULT_PATH),
    }
}
