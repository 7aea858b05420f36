//! What is said to a lane, and what a lane says.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::record::DiskRecord;
use iscsi_core::disk::requests::AbortRefused;
use iscsi_core::error::SessionError;
use iscsi_core::pdu::task_management::FunctionResponse;
use iscsi_core::session::Session;
use tokio::sync::mpsc::UnboundedSender;

use super::inspection::Inspection;
use super::reactor::{Reactor, Token};
use super::ring::LaneRing;
use super::throttle::Throttle;
use super::transport::{Sending, Transport};
use super::unit::{UnitConfig, UnitId};
use crate::device::rings::RingSetup;
use crate::guest_memory::GuestMemory;

/// A logged-in session with its TCP connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) session: Session,
    pub(super) transport: Transport,
    /// The socket takes nothing for now; epoll will tell.
    pub(super) blocked: bool,
    pub(super) watched_writable: bool,
    /// How far the target's end had come when it was last looked at, while a ping waits.
    pub(super) sending: Option<Sending>,
}

impl Connection {
    pub(crate) fn new(session: Session, transport: Transport) -> Self {
        Self {
            session,
            transport,
            blocked: false,
            watched_writable: false,
            sending: None,
        }
    }

    /// Has epoll report room to write while the socket is blocked, and only then.
    pub(super) fn watch_writable(&mut self, reactor: &Reactor) -> io::Result<()> {
        if self.watched_writable != self.blocked {
            reactor.watch_writable(self.transport.socket(), Token::Connection, self.blocked)?;
            self.watched_writable = self.blocked;
        }
        Ok(())
    }
}

/// What a lane is told. Boxed where large: messages are rare.
#[derive(Debug)]
pub(super) enum Message {
    /// Here is your session, in place of the one that you had. It leads to the disk of `admitted`; what
    /// the others find behind it has to be looked at first.
    Connected {
        connection: Box<Connection>,
        admitted: Option<UnitId>,
    },
    /// Serve this disk, too.
    AddUnit { unit: UnitId, config: UnitConfig },
    /// Serve this disk no more: its requests in flight have their time, its rings are not touched any
    /// more when `ended` is dropped.
    RemoveUnit { unit: UnitId, ended: UnitEnded },
    /// Something about this disk.
    Unit(UnitId, UnitMessage),
    /// Look at a LUN.
    Inspect(Inspection),
    /// Hand over your rings: another lane will serve them. Only before the first session.
    GiveUpRings { reply: SyncSender<Vec<LaneRing>> },
    /// Serve this ring, which another lane had.
    AdoptRing(Box<LaneRing>),
    /// Commands may go out again, on every session of the target.
    BarrierFell,
    /// The target may have ended tasks without an answer: what is not answered soon is to be ended.
    Reconcile,
    /// Drain, log out, end.
    Close,
}

/// What a lane is told about one of its disks.
#[derive(Debug)]
pub(super) enum UnitMessage {
    /// Serve this ring.
    StartRing(Box<RingSetup>),
    /// Drain this ring, let go of it, and say which available index is next. When nothing is
    /// said the ring was not served. After the deadline what is in flight is given up.
    StopRing {
        index: u16,
        deadline: Instant,
        reply: SyncSender<u16>,
    },
    /// Notify the driver here from now on.
    SetCall { index: u16, call: Option<OwnedFd> },
    /// The driver kicks here from now on.
    SetKick { index: u16, kick: OwnedFd },
    /// The memory table has changed.
    SetMemory(Arc<GuestMemory>),
    /// CONFIG_WCE.
    SetWriteback(bool),
    /// The limits of the disk from now on.
    SetThrottle(Option<Arc<Throttle>>),
    /// The disk is like this now. Let go of `taken` when every request is judged by it.
    SetFacts {
        facts: Box<LunFacts>,
        taken: FactsTaken,
    },
    /// The disk is about to be probed: what is noticed from now on may come too late for that.
    FactsAreRead,
    /// The session of this number leads to the disk.
    Admit(SessionNumber),
    /// Your session does not lead to the disk, for this reason.
    Refuse(LossReason),
}

/// Tells all sessions of the process apart: a lane may answer for another that has gone, and one of the
/// same index may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionNumber(u64);

impl SessionNumber {
    /// One that no session has had.
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Held by a lane until it has let go of a disk; nothing is ever sent.
pub(super) type UnitEnded = SyncSender<()>;

/// Held by each lane that has yet to take the facts; nothing is ever sent.
pub(super) type FactsTaken = tokio::sync::mpsc::Sender<Infallible>;

/// What a lane reports to the control plane.
#[derive(Debug)]
pub(crate) enum LaneEvent {
    /// A new lane has rings and no session yet.
    SessionWanted {
        /// Which.
        lane: usize,
    },
    /// The session is gone; the lane waits for another.
    SessionLost {
        /// Which.
        lane: usize,
        /// Why.
        reason: LossReason,
    },
    /// The target may have ended tasks of any session, without an answer.
    TasksCleared,
    /// Nobody serves this session any more, and the target may still run tasks of it: it has to be
    /// told to end them. Until then no command goes out.
    TasksLeft {
        /// Which.
        lane: usize,
    },
}

/// What a lane reports about one of its disks.
#[derive(Debug)]
pub(crate) enum DiskEvent {
    /// The lane has a session, and nobody has looked whether it leads to the disk.
    Unseen {
        /// Whose session.
        lane: usize,
    },
    /// The target says, or shows, that the disk is not as it was probed.
    FactsOutdated {
        /// Who was told.
        lane: usize,
    },
    /// A guest has this disk from a former process, which may have shown it larger.
    TakenOver {
        /// How many blocks it knows of.
        capacity_blocks: u64,
    },
}

/// Why a session is gone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LossReason {
    /// The socket failed, or the target closed the connection.
    #[error("{0}")]
    Io(io::Error),
    /// The session ended by a protocol error or by silence.
    #[error("{0}")]
    Session(SessionError),
    /// The target announced the end.
    #[error("the target dropped the session")]
    Dropped {
        /// How long it wants to be left alone.
        time2wait_s: u16,
    },
    /// The target had asked for a logout.
    #[error("logged out at the target's request")]
    LoggedOut {
        /// How long it wants to be left alone.
        time2wait_s: u16,
    },
    /// A ring had to be given back while commands were in flight.
    #[error("requests were given up after the drain limit; the target must forget them")]
    Drained,
    /// The target would not end a command that it had not answered in time.
    #[error("a command is late, and the target will not end it: {0}")]
    AbortRefused(AbortRefused),
    /// The logical unit was reset, and whoever had tasks there may not be told.
    #[error("the logical unit was reset, for a command that the target would not end: {0}")]
    LunReset(FunctionResponse),
    /// The guest has another disk than the one that the session leads to.
    #[error("identity changed: the guest's disk is {expected}; this is {found}")]
    WrongDisk {
        /// What the guest uses.
        expected: Box<DiskRecord>,
        /// What is behind the LUN now.
        found: Box<DiskRecord>,
    },
    /// Data was to be sent that is not there any more, in the middle of a PDU.
    #[error("the guest memory that a write was being sent from is gone")]
    MemoryLost,
}

impl LossReason {
    /// How long to wait before the next login.
    pub(crate) fn time2wait_s(&self) -> u16 {
        match self {
            Self::Dropped { time2wait_s } | Self::LoggedOut { time2wait_s } => *time2wait_s,
            Self::Io(_)
            | Self::Session(_)
            | Self::Drained
            | Self::MemoryLost
            | Self::AbortRefused(_)
            | Self::LunReset(_)
            | Self::WrongDisk { .. } => 0,
        }
    }
}

/// Where lanes report to.
pub(crate) type LaneReports = UnboundedSender<LaneEvent>;

/// Where they report what is about one disk.
pub(crate) type DiskReports = UnboundedSender<DiskEvent>;

/// Reports; when nobody listens any more it is ending.
pub(crate) fn report<T>(reports: &UnboundedSender<T>, event: T) {
    let _ = reports.send(event);
}
