//! The disks of the process, for whoever looks into it: their boards, by name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::board::Board;
use crate::exit::{ExitCode, Failure};
use crate::limits::{DiskLimits, Limits};
use crate::metrics;
use crate::stats::ServiceStats;
use crate::status::{ServiceStatus, Timestamp};

/// All disks of the process.
#[derive(Debug)]
pub(super) struct Registry {
    started: Timestamp,
    boards: Mutex<Vec<Arc<Board>>>,
}

impl Registry {
    /// No disk yet.
    pub(super) fn new() -> Self {
        Self {
            started: Timestamp::now(),
            boards: Mutex::default(),
        }
    }

    /// These are the disks from now on.
    pub(super) fn show(&self, boards: Vec<Arc<Board>>) {
        *self.all() = boards;
    }

    /// Where the disks are, or the one of that name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn status(&self, name: Option<&str>) -> Result<ServiceStatus, Failure> {
        Ok(self.status_of(&self.boards(name)?))
    }

    /// What the disks have counted, or the one of that name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn stats(&self, name: Option<&str>) -> Result<ServiceStats, Failure> {
        Ok(self.stats_of(&self.boards(name)?))
    }

    /// Everything, as Prometheus wants it.
    pub(super) fn metrics(&self) -> String {
        let boards = self.all().clone();
        metrics::render(&self.status_of(&boards), &self.stats_of(&boards))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Board>>> {
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn boards(&self, name: Option<&str>) -> Result<Vec<Arc<Board>>, Failure> {
        let all = self.all().clone();
        let Some(name) = name else {
            return Ok(all);
        };
        let named = all.into_iter().filter(|board| board.name() == name);
        let found: Vec<_> = named.collect();
        if found.is_empty() {
            let message = "there is no disk of that name; the verb status without a name shows all";
            return Err(Failure::new(ExitCode::NotFound, message));
        }
        Ok(found)
    }

    /// The limits of a disk, which may be changed first.
    ///
    /// # Errors
    /// When there is none of that name, or the limits cannot be.
    pub(super) fn limits(&self, disk: &str, set: Option<Limits>) -> Result<DiskLimits, Failure> {
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

    fn status_of(&self, boards: &[Arc<Board>]) -> ServiceStatus {
        ServiceStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            now: Timestamp::now(),
            disks: boards.iter().map(|board| board.snapshot()).collect(),
        }
    }

    fn stats_of(&self, boards: &[Arc<Board>]) -> ServiceStats {
        ServiceStats {
            started: self.started,
            now: Timestamp::now(),
            disks: boards.iter().map(|board| board.stats()).collect(),
        }
    }
}
