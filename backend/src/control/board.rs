//! The status board: what the control plane knows of a disk, for whoever looks into the process.
//!
//! Written on events only (a login, a loss, a front-end), by the tasks of the control plane. The data
//! plane does not know that it exists.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::commands::Commands;
use super::error::ControlError;
use crate::config::ServedDisk;
use crate::engine::{Engine, LossReason};
use crate::exit::Failure;
use crate::limits::{DiskLimits, Limits};
use crate::portal::Portal;
use crate::report::NegotiatedKeys;
use crate::stats::DiskStats;
use crate::status::{
    DiskState, DiskStatus, ErrorStatus, FrontEndStatus, LunStatus, QueueStatus, SessionLogin,
    SessionState, SessionStatus, Timestamp,
};

/// What is known of one disk.
#[derive(Debug)]
pub(super) struct Board {
    status: Mutex<DiskStatus>,
    /// Asked for what only it knows, and since when it is there. The board outlives it.
    engine: OnceLock<(Weak<Engine>, Timestamp)>,
}

impl Board {
    pub(super) fn new(served: &ServedDisk) -> Self {
        Self {
            status: Mutex::new(DiskStatus::of(served)),
            engine: OnceLock::new(),
        }
    }

    /// All that is known now. Sessions whose lane has gone are left out, unless they are why something
    /// waits.
    pub(super) fn snapshot(&self) -> DiskStatus {
        let mut status = self.status().clone();
        if let Some(engine) = self.engine() {
            let usage = engine.usage();
            status.queues = usage
                .rings
                .into_iter()
                .map(|(queue, session)| QueueStatus { queue, session })
                .collect();
            status.barrier_raised_by = usage.suspects;
            status.sessions.retain(|session| {
                matches!(
                    session.state,
                    SessionState::Refused | SessionState::EndingTasks
                ) || usage.lanes.contains(&session.session)
            });
        }
        status.problems = status.find_problems();
        status
    }

    /// What its lanes have counted, since there are any.
    pub(super) fn stats(&self) -> DiskStats {
        DiskStats {
            name: self.name(),
            since: self.engine.get().map(|(_, since)| *since),
            sessions: self
                .engine()
                .map(|engine| engine.stats())
                .unwrap_or_default(),
        }
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        let (engine, _) = self.engine.get()?;
        engine.upgrade()
    }

    /// Where the disk is in its life.
    pub(super) fn state(&self) -> DiskState {
        self.status().state
    }

    /// The name of the disk.
    pub(super) fn name(&self) -> String {
        self.status().name.clone()
    }

    /// The first login has failed, and is repeated.
    pub(super) fn waits_for_target(&self, error: &ControlError) {
        let mut status = self.status();
        if status.state != DiskState::WaitingForTarget {
            (status.state, status.since) = (DiskState::WaitingForTarget, Timestamp::now());
        }
        status.reason = Some(error.to_string());
    }

    /// What its guest is limited to.
    pub(super) fn limits(&self) -> DiskLimits {
        let status = self.status();
        DiskLimits {
            name: status.name.clone(),
            limits: status.limits,
        }
    }

    /// Sets the limits, at once; of a disk that waits for its target, for when it is there.
    pub(super) fn set_limits(&self, limits: Limits) {
        // The lock is held meanwhile: of two changes the later one has the last word here and there.
        let mut status = self.status();
        status.limits = limits;
        if let Some(engine) = self.engine() {
            engine.set_limits(&limits);
        }
    }

    /// The first session is there, and an engine with it.
    pub(super) fn serves(&self, engine: &Arc<Engine>) {
        let now = Timestamp::now();
        let _ = self.engine.set((Arc::downgrade(engine), now));
        let mut status = self.status();
        engine.set_limits(&status.limits);
        (status.state, status.since) = (DiskState::Serving, now);
        status.reason = None;
    }

    /// The disk is not served any more.
    pub(super) fn ended(&self, result: &Result<(), Failure>) {
        let mut status = self.status();
        (status.state, status.since) = (DiskState::Ended, Timestamp::now());
        status.reason = Some(match result {
            Ok(()) => "it was told to end".to_owned(),
            Err(failure) => failure.to_string(),
        });
        (status.front_end, status.sessions) = (None, Vec::new());
    }

    pub(super) fn front_end_connected(&self) {
        let mut status = self.status();
        status.front_end = Some(FrontEndStatus {
            connected_since: Timestamp::now(),
            read_only: status.lun.as_ref().is_some_and(|lun| lun.read_only),
        });
    }

    /// Its further sessions go with it; one that has to end tasks says so anew.
    pub(super) fn front_end_gone(&self) {
        let mut status = self.status();
        status.front_end = None;
        status
            .sessions
            .retain(|session| session.session == 0 || session.state == SessionState::EndingTasks);
    }

    /// A new session is wanted; `isid` names it to the target.
    pub(super) fn logs_in(&self, session: usize, isid: String) {
        let mut status = self.status();
        status.sessions.retain(|other| other.session != session);
        let at = status
            .sessions
            .partition_point(|other| other.session < session);
        status
            .sessions
            .insert(at, SessionStatus::new(session, isid));
    }

    /// A login has succeeded, and the LUN behind it is the right one.
    pub(super) fn logged_in(&self, session: usize, login: SessionLogin) {
        let mut status = self.status();
        with(&mut status, session, |session| {
            if session.login.is_some() {
                session.reconnects += 1;
            }
            session.state = SessionState::LoggedIn;
            session.since = login.at;
            session.reason = None;
            session.login = Some(login);
        });
    }

    /// A session that was there, or was made for several disks, leads to this one, too.
    pub(super) fn shares(&self, session: usize, isid: String, login: SessionLogin) {
        let is_known = self.status().sessions.iter().any(|s| s.session == session);
        if !is_known {
            self.logs_in(session, isid);
        }
        self.logged_in(session, login);
    }

    /// What the LUN is like from now on.
    pub(super) fn lun_is(&self, lun: LunStatus) {
        self.status().lun = Some(lun);
    }

    /// A session is lost, and will be made again.
    pub(super) fn lost(&self, session: usize, reason: &LossReason) {
        self.note(session, Some(SessionState::Waiting), reason.to_string());
    }

    /// A login has failed, and will be repeated.
    pub(super) fn login_failed(&self, session: usize, error: &ControlError) {
        self.note(session, None, error.to_string());
    }

    /// A session cannot be had, and is not tried again before the next front-end.
    pub(super) fn refused(&self, session: usize, error: &ControlError) {
        self.note(session, Some(SessionState::Refused), error.to_string());
    }

    /// Nobody uses the session any more, but its tasks may live. `isid` names it to the target.
    pub(super) fn ends_tasks(&self, session: usize, isid: String) {
        let is_known = self.status().sessions.iter().any(|s| s.session == session);
        if !is_known {
            self.logs_in(session, isid);
        }
        let reason = "a login that ends them is under way".to_owned();
        with(&mut self.status(), session, |status| {
            if status.state != SessionState::EndingTasks {
                status.since = Timestamp::now();
            }
            status.state = SessionState::EndingTasks;
            status.reason = Some(reason);
        });
    }

    /// The target has ended the tasks that a session had left.
    pub(super) fn tasks_ended(&self, session: usize) {
        let mut status = self.status();
        status
            .sessions
            .retain(|other| other.session != session || other.state != SessionState::EndingTasks);
    }

    /// Something has gone wrong; with a state, that is what follows from it.
    fn note(&self, session: usize, state: Option<SessionState>, message: String) {
        let at = Timestamp::now();
        with(&mut self.status(), session, |session| {
            if let Some(state) = state.filter(|state| *state != session.state) {
                (session.state, session.since) = (state, at);
            }
            session.reason = Some(message.clone());
            session.last_error = Some(ErrorStatus { message, at });
        });
    }

    fn status(&self) -> MutexGuard<'_, DiskStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with(status: &mut DiskStatus, session: usize, change: impl FnOnce(&mut SessionStatus)) {
    let mut sessions = status.sessions.iter_mut();
    if let Some(session) = sessions.find(|other| other.session == session) {
        change(session);
    }
}

/// What a login came to, for the board.
pub(super) fn describe(commands: &Commands, redirects: &[Portal]) -> SessionLogin {
    let session = commands.session();
    let negotiated = session.negotiated();
    SessionLogin {
        at: Timestamp::now(),
        portal: commands.portal().to_string(),
        address: commands.address().ok().map(|address| address.to_string()),
        portal_group_tag: negotiated.target_portal_group_tag,
        redirected_from: redirects.iter().map(ToString::to_string).collect(),
        tsih: negotiated.tsih,
        target_alias: negotiated.target_alias.clone(),
        authentication: negotiated.authentication.clone(),
        negotiated: NegotiatedKeys::of(negotiated, session.window_length()),
    }
}
