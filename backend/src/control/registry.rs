//! The disks and portals of the process, for whoever looks into it: their boards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::board::Board;
use super::notify::DiskCounts;
use super::portal_board::PortalBoard;
use crate::exit::{ExitCode, Failure};
use crate::limits::{DiskLimits, Limits};
use crate::metrics;
use crate::stats::ServiceStats;
use crate::status::{DiskState, PortalState, PortalStatus, ServiceStatus, Timestamp};

/// All disks and portals of the process.
#[derive(Debug)]
pub(super) struct Registry {
    started: Timestamp,
    boards: Mutex<Vec<Arc<Board>>>,
    portals: Mutex<Vec<Arc<PortalBoard>>>,
}

impl Registry {
    /// No disk yet.
    pub(super) fn new() -> Self {
        Self {
            started: Timestamp::now(),
            boards: Mutex::default(),
            portals: Mutex::default(),
        }
    }

    /// These are the disks from now on.
    pub(super) fn show(&self, boards: Vec<Arc<Board>>) {
        *self.all() = boards;
    }

    /// These are the portals from now on.
    pub(super) fn show_portals(&self, boards: Vec<Arc<PortalBoard>>) {
        *self.portals() = boards;
    }

    /// Where the disks and portals are, or the one disk of that name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn status(&self, name: Option<&str>) -> Result<ServiceStatus, Failure> {
        let status = self.status_of(&self.boards(name)?);
        let portals = if name.is_none() {
            self.portal_status()
        } else {
            Vec::new()
        };
        Ok(ServiceStatus { portals, ..status })
    }

    /// What the disks have counted, or the one of that name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn stats(&self, name: Option<&str>) -> Result<ServiceStats, Failure> {
        Ok(self.stats_of(&self.boards(name)?))
    }

    /// How many disks there are in each state. A portal that was not asked yet counts as one that is
    /// being started.
    pub(super) fn counts(&self) -> DiskCounts {
        let portals = self.portal_status().into_iter();
        let unasked = portals.filter(|portal| portal.state == PortalState::Starting);
        let unasked: Vec<_> = unasked.map(|_| DiskState::Starting).collect();
        let disks = self.all().clone();
        DiskCounts::of(disks.iter().map(|board| board.state()).chain(unasked))
    }

    /// Everything, as Prometheus wants it.
    pub(super) fn metrics(&self) -> String {
        let boards = self.all().clone();
        let status = ServiceStatus {
            portals: self.portal_status(),
            ..self.status_of(&boards)
        };
        metrics::render(&status, &self.stats_of(&boards))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Board>>> {
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn portals(&self) -> MutexGuard<'_, Vec<Arc<PortalBoard>>> {
        self.portals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn portal_status(&self) -> Vec<PortalStatus> {
        let portals = self.portals().clone();
        portals.iter().map(|board| board.snapshot()).collect()
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
            portals: Vec::new(),
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
