//! The disks of the process, for whoever looks into it: their boards, by name.

use std::sync::Arc;

use serde_json::Value;

use super::board::Board;
use crate::control_protocol::Request;
use crate::exit::{ExitCode, Failure};
use crate::limits::{DiskLimits, Limits};
use crate::metrics;
use crate::stats::ServiceStats;
use crate::status::{ServiceStatus, Timestamp};

/// All disks of the process.
#[derive(Debug)]
pub(super) struct Registry {
    started: Timestamp,
    boards: Vec<Arc<Board>>,
}

impl Registry {
    pub(super) fn new(boards: Vec<Arc<Board>>) -> Self {
        Self {
            started: Timestamp::now(),
            boards,
        }
    }

    /// Answers a request of the control socket.
    pub(super) fn answer(&self, request: &Request) -> Result<Value, Failure> {
        let value = match request {
            Request::Status { disk } => {
                serde_json::to_value(self.status(&self.boards(disk.as_deref())?))
            }
            Request::Stats { disk } => {
                serde_json::to_value(self.stats(&self.boards(disk.as_deref())?))
            }
            Request::Limits { disk, set } => {
                serde_json::to_value(self.limits(disk, set.as_deref().copied())?)
            }
        };
        value.map_err(|error| Failure::new(ExitCode::Other, format!("cannot write JSON: {error}")))
    }

    /// Everything, as Prometheus wants it.
    pub(super) fn metrics(&self) -> String {
        let boards: Vec<_> = self.boards.iter().map(AsRef::as_ref).collect();
        metrics::render(&self.status(&boards), &self.stats(&boards))
    }

    fn boards(&self, name: Option<&str>) -> Result<Vec<&Board>, Failure> {
        let all = self.boards.iter().map(AsRef::as_ref);
        let Some(name) = name else {
            return Ok(all.collect());
        };
        let found: Vec<_> = all.filter(|board| board.name() == name).collect();
        if found.is_empty() {
            let message = "there is no disk of that name; the verb status without a name shows all";
            return Err(Failure::new(ExitCode::NotFound, message));
        }
        Ok(found)
    }

    /// The limits of a disk, which may be changed first.
    fn limits(&self, disk: &str, set: Option<Limits>) -> Result<DiskLimits, Failure> {
        let boards = self.boards(Some(disk))?;
        let set = set.map(Limits::checked).transpose();
        let set = set.map_err(|error| Failure::usage(error.to_string()))?;
        let Some(board) = boards.first() else {
            return Err(Failure::new(
                ExitCode::NotFound,
                "there is no disk of that name",
            ));
        };
        if let Some(limits) = set {
            board.set_limits(limits);
            log::info!("disk {disk}: limits from now on: {limits}");
        }
        Ok(board.limits())
    }

    fn status(&self, boards: &[&Board]) -> ServiceStatus {
        ServiceStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            now: Timestamp::now(),
            disks: boards.iter().map(|board| board.snapshot()).collect(),
        }
    }

    fn stats(&self, boards: &[&Board]) -> ServiceStats {
        ServiceStats {
            started: self.started,
            now: Timestamp::now(),
            disks: boards.iter().map(|board| board.stats()).collect(),
        }
    }
}
