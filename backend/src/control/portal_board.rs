//! What is known of one portal, for whoever looks into the process. As the boards of the disks it is
//! written on events only.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::ControlError;
use crate::config::PortalSettings;
use crate::found::Discovered;
use crate::status::{ErrorStatus, PortalState, PortalStatus, Timestamp};

/// What is known of one portal.
#[derive(Debug)]
pub(super) struct PortalBoard(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// Without its problems.
    status: PortalStatus,
    /// What was found wrong at the last discovery that succeeded.
    found: Vec<String>,
    /// What is not served although it was found.
    left_out: Vec<String>,
}

impl PortalBoard {
    pub(super) fn new(settings: &PortalSettings) -> Self {
        Self(Mutex::new(Known {
            status: PortalStatus::new(settings.address.to_string()),
            found: Vec::new(),
            left_out: Vec::new(),
        }))
    }

    /// All that is known now.
    pub(super) fn snapshot(&self) -> PortalStatus {
        let known = self.known();
        let whole = known.status.problem().into_iter();
        let problems = whole.chain(known.found.iter().chain(&known.left_out).cloned());
        PortalStatus {
            problems: problems.collect(),
            ..known.status.clone()
        }
    }

    /// A discovery is under way.
    pub(super) fn asks(&self) {
        self.known().status.next_discovery = None;
    }

    /// A discovery has succeeded.
    pub(super) fn discovered(&self, discovered: &Discovered) {
        let mut known = self.known();
        known.found = discovered.problems();
        let status = &mut known.status;
        enter(status, PortalState::Discovered);
        status.last_discovery = Some(Timestamp::now());
        status.targets = discovered.targets;
        status.reason = None;
    }

    /// A discovery has failed.
    pub(super) fn failed(&self, error: &ControlError) {
        let mut known = self.known();
        let status = &mut known.status;
        enter(status, PortalState::Failing);
        status.reason = Some(error.to_string());
        status.last_error = Some(ErrorStatus {
            message: error.to_string(),
            at: Timestamp::now(),
        });
    }

    /// How many disks are served from it, and what is not.
    pub(super) fn serves(&self, disks: usize, left_out: Vec<String>) {
        let mut known = self.known();
        known.status.disks = disks;
        known.left_out = left_out;
    }

    /// The next discovery comes after this time.
    pub(super) fn waits(&self, pause: Duration) {
        let Timestamp(now) = Timestamp::now();
        self.known().status.next_discovery = now.checked_add(pause).map(Timestamp);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn enter(status: &mut PortalStatus, state: PortalState) {
    if status.state != state {
        (status.state, status.since) = (state, Timestamp::now());
    }
}
