//! What a target saw and did, for tests to read: a bounded log that can be waited on.

use crate::counters::Totals;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Events kept; older ones are forgotten (and counted).
const MAX_EVENTS: usize = 65_536;

/// Tells sessions of one target apart; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted.
    Connected,
    /// A login request came in.
    LoginRequest {
        /// The ISID field as it came.
        isid: [u8; 6],
        /// TSIH: 0 asks for a new session, or reinstates one.
        tsih: u16,
        /// Current stage: 0 security, 1 operational.
        csg: u8,
        /// The stage it asks to go to, when the T bit is set.
        nsg: Option<u8>,
        /// Its text, in order. CHAP answers are among it; secrets never are.
        keys: Vec<(String, String)>,
    },
    /// A login ended in the full-feature phase.
    LoggedIn {
        /// The new session.
        session: SessionId,
        /// Who logged in.
        initiator_name: String,
        /// With which ISID.
        isid: [u8; 6],
        /// The handle it got.
        tsih: u16,
        /// Whether it can only ask for targets.
        discovery: bool,
    },
    /// A login was refused with this status.
    LoginRefused {
        /// Status class.
        class: u8,
        /// Status detail.
        detail: u8,
    },
    /// A login displaced this session (RFC 7143 section 6.3.5): its connection is closed and its
    /// tasks have ended before the login is answered.
    Reinstated {
        /// The session that ended.
        session: SessionId,
    },
    /// A SCSI command came in, in CmdSN order.
    Command {
        /// From where.
        session: SessionId,
        /// The LUN's number, or `None` for an address that has none.
        lun: Option<u16>,
        /// The command descriptor block.
        cdb: [u8; 16],
        /// Its CmdSN.
        cmd_sn: u32,
        /// Its initiator task tag.
        initiator_task_tag: u32,
        /// Expected data transfer length.
        length_bytes: u32,
        /// Data that came with it.
        immediate_bytes: u32,
    },
    /// A command was answered.
    Answered {
        /// To where.
        session: SessionId,
        /// Which task.
        initiator_task_tag: u32,
        /// SCSI status.
        status: u8,
    },
    /// An R2T was sent.
    R2tSent {
        /// Of which task.
        initiator_task_tag: u32,
        /// Buffer offset.
        offset_bytes: u32,
        /// Desired data transfer length.
        length_bytes: u32,
    },
    /// A Data-Out came in for a task that lives.
    DataOut {
        /// Of which task.
        initiator_task_tag: u32,
        /// Target transfer tag; all ones is unsolicited.
        target_transfer_tag: u32,
        /// Buffer offset.
        offset_bytes: u32,
        /// Data in this PDU.
        length_bytes: u32,
    },
    /// A task management request came in and was answered.
    TaskManagement {
        /// From where.
        session: SessionId,
        /// Function code: 1 ABORT TASK, 2 ABORT TASK SET, 5 LOGICAL UNIT RESET, …
        function: u8,
        /// The response code given.
        response: u8,
    },
    /// A NOP-Out that wants an answer, and got it.
    Pinged {
        /// From where.
        session: SessionId,
    },
    /// The answer to a NOP-In of ours.
    Ponged {
        /// From where.
        session: SessionId,
        /// The tag we had given.
        target_transfer_tag: u32,
    },
    /// A logout request came in and was answered.
    Logout {
        /// From where.
        session: SessionId,
        /// 0 close session, 1 close connection, 2 remove connection for recovery.
        reason: u8,
    },
    /// A write of a session that is gone was carried out, unseen by anyone.
    StaleWrite {
        /// Whose it was.
        session: SessionId,
        /// Its command descriptor block.
        cdb: [u8; 16],
    },
    /// The initiator broke a rule; the connection was closed. A correct initiator never sees this.
    Violation(String),
    /// A connection ended, for whatever reason.
    Disconnected {
        /// The session it had, when it had got that far.
        session: Option<SessionId>,
    },
}

/// The log, shared by all connections.
#[derive(Debug)]
pub(crate) struct EventLog {
    /// Whether events are kept at all.
    keeps: bool,
    state: Mutex<State>,
    pub(crate) totals: Totals,
    changed: Condvar,
    changed_async: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    /// How many wait for an event: waking nobody is a system call too.
    waiting: usize,
}

/// Someone who waits for an event.
struct Waiting<'a>(&'a EventLog);

impl<'a> Waiting<'a> {
    fn on(log: &'a EventLog) -> Self {
        log.state().waiting += 1;
        Self(log)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl EventLog {
    /// A log that keeps events, or one that only passes them on to the program's log.
    pub(crate) fn new(keeps: bool) -> Self {
        Self {
            keeps,
            state: Mutex::default(),
            totals: Totals::default(),
            changed: Condvar::new(),
            changed_async: Notify::new(),
        }
    }

    /// Appends an event and wakes whoever waits.
    pub(crate) fn record(&self, event: Event) {
        log::debug!("{event:?}");
        if !self.keeps {
            return;
        }
        let mut state = self.state();
        if state.events.len() >= MAX_EVENTS {
            state.events.pop_front();
            self.totals.forgotten_events.add(1);
        }
        state.events.push_back(event);
        if state.waiting > 0 {
            drop(state);
            self.changed.notify_all();
            self.changed_async.notify_waiters();
        }
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.state().events.iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.state().events.clear();
    }

    /// Blocks until an event, past or to come, satisfies `wanted`; `None` when `limit` is over.
    pub(crate) fn wait_for(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Option<Event> {
        let end = Instant::now() + limit;
        let _waiting = Waiting::on(self);
        let mut state = self.state();
        loop {
            if let Some(found) = state.events.iter().find(|event| wanted(event)) {
                return Some(found.clone());
            }
            let left = end.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The same without blocking the thread.
    pub(crate) async fn wait_for_async(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Option<Event> {
        let _waiting = Waiting::on(self);
        let wait = async {
            loop {
                let changed = self.changed_async.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = self
                    .state()
                    .events
                    .iter()
                    .find(|event| wanted(event))
                    .cloned();
                if let Some(found) = found {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
