//! The full-feature phase of one session with one connection (RFC 7143 sections 4 and 11).
//!
//! A [`Session`] starts with what a login agreed on, and ends with the first
//! [`SessionError`]. Its owner moves the bytes; the session says which, and what they mean:
//!
//! - **Commands in**: [`Session::submit`], refused while the command window is closed or the
//!   task table is full. [`Session::abort`], [`Session::reset_logical_unit`] and
//!   [`Session::log_out`] ask for the end of a task, of all of them, and of the session.
//! - **Bytes out**: [`Session::transmit`] pushes whole PDUs into a [`Transmit`] sink for as long
//!   as that has room. To be called after commands went in and after bytes came in.
//! - **Bytes in**: [`Session::receive`] with what arrived, again and again until it asks for more
//!   bytes. When it announces a [`Placement`], the owner puts the bytes into the request's buffer
//!   and says so by [`Session::placed`] or [`Session::placed_directly`].
//! - **Time**: [`Session::handle_timeout`] when [`Session::next_timeout_ms`] has come. Whether a
//!   command can be late is the owner's choice ([`Session::set_command_timeout_ms`]). All times are
//!   milliseconds of one monotonic clock of the owner's choice.
//!
//! Nothing is allocated after [`Session::new`] as long as the queue of outgoing PDUs stays within
//! the bound that it was made for.

mod aborts;
mod deadlines;
mod inbound;
mod outbound;
mod ping;
mod task;
mod window;

use crate::crc32c::Crc32c;
use crate::error::{SessionError, SubmitError};
use crate::framer::Framer;
use crate::limits::{
    LOGOUT_TIMEOUT_MS, MAX_SEND_DATA_SEGMENT_LENGTH_BYTES, MAX_SENSE_BYTES, MAX_TASKS,
};
use crate::login::negotiated::Negotiated;
use crate::pdu::Bhs;
use crate::pdu::async_message::AsyncEvent;
use crate::pdu::command::Response;
use crate::pdu::reject::RejectReason;
use crate::pdu::task_management::FunctionResponse;
use crate::scsi::command::ScsiCommand;
use crate::scsi::status::ScsiStatus;
use crate::sequence::SerialNumber;

pub use self::deadlines::Timeouts;

use self::aborts::Aborts;
use self::deadlines::Deadlines;
use self::inbound::Inbound;
use self::outbound::{Outbox, Outgoing};
use self::ping::Ping;
use self::task::TaskTable;
use self::window::CommandWindow;

/// The owner's name for the request that a command serves, and for its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestTag(pub u32);

/// A SCSI command for a logical unit, in the service of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Comes back with the answer, and with every placement.
    pub request: RequestTag,
    /// The LUN field as it goes on the wire.
    pub lun: u64,
    /// The command; its offsets are into the request's buffer.
    pub scsi: ScsiCommand,
}

/// Where the PDUs of [`Session::transmit`] go: pieces of one stream, in order.
pub trait Transmit {
    /// Whether another PDU may be pushed. Asked between PDUs only.
    fn has_room(&self) -> bool;

    /// These bytes are next: a header, a digest, padding. To be copied.
    fn bytes(&mut self, bytes: &[u8]);

    /// `length_bytes` zero bytes are next.
    fn zeros(&mut self, length_bytes: u32);

    /// `length_bytes` of the buffer of `request` from `offset_bytes` are next. They may be read
    /// when they are sent.
    fn payload(&mut self, request: RequestTag, offset_bytes: u32, length_bytes: u32);

    /// Like [`Transmit::payload`], but the bytes are copied now, for `crc32c` continues over them
    /// from 0 and the result is returned: a guest may change its memory at any time, and the
    /// digest has to fit what is sent.
    fn payload_with_digest(
        &mut self,
        request: RequestTag,
        offset_bytes: u32,
        length_bytes: u32,
        crc32c: Crc32c,
    ) -> u32;
}

/// Is shown the header of each PDU, and which way it goes.
pub type PduTrace = fn(Way, &Bhs);

/// Which way a PDU goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the target.
    Out,
    /// From the target.
    In,
}

/// What [`Session::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing more can be done with less than `at_least` bytes, counted from the first one that
    /// was not consumed.
    NeedBytes {
        /// Never 0.
        at_least: usize,
    },
    /// The next bytes of the stream belong into a request's buffer.
    Payload(Placement),
    /// Something happened.
    Event(Event),
}

/// Bytes of the stream that belong into the buffer of a request. Direction, offset and length
/// are checked: they lie within the data of a living command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Whose buffer.
    pub request: RequestTag,
    /// Where in it.
    pub offset_bytes: u32,
    /// How many, perhaps fewer than the PDU has; never 0.
    pub length_bytes: u32,
    /// Whether the bytes may be read from the socket straight into the buffer
    /// ([`Session::placed_directly`]): not when a digest is computed over them.
    pub may_be_direct: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A command has ended; its request's buffer is not touched any more on its behalf, except
    /// that pieces of it may still wait in the [`Transmit`] sink.
    CommandDone {
        /// The request that it served.
        request: RequestTag,
        /// How it ended.
        outcome: Outcome,
    },
    /// The target did not take a command; it has not run and will not run.
    CommandRejected {
        /// The request that it served.
        request: RequestTag,
        /// Why.
        reason: RejectReason,
    },
    /// The answer to an ABORT TASK, for a late command or by [`Session::abort`]. After `Complete` or
    /// `TaskDoesNotExist` the task is over. After anything else it may live on, and nothing more is
    /// reported of it: the session is to be dropped.
    AbortDone {
        /// The request that the task served.
        request: RequestTag,
        /// What the target said.
        response: FunctionResponse,
    },
    /// The answer to a LOGICAL UNIT RESET; the session is to be dropped, whatever it says.
    ResetDone {
        /// What the target said.
        response: FunctionResponse,
    },
    /// The target announced something.
    Async(AsyncEvent),
    /// The target did not take a PDU that belongs to no command. The session goes on.
    Rejected(RejectReason),
    /// The answer to [`Session::log_out`].
    LoggedOut {
        /// RFC 7143 section 11.15.1; 0 is success.
        response: u8,
        /// How long to wait before a new login, in seconds.
        time2wait_s: u16,
    },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether there is a SCSI status.
    pub response: Response,
    /// The SCSI status.
    pub status: u8,
    /// How many bytes were moved: for a read, what lies in the buffer.
    pub transferred_bytes: u32,
    /// How many bytes the command was to move: its Expected Data Transfer Length.
    pub expected_bytes: u32,
    /// The sense data; empty unless the status is CHECK CONDITION.
    pub sense: SenseData,
}

impl Outcome {
    /// The SCSI status; CHECK CONDITION where the target failed before there was one, so that
    /// nobody takes it for success.
    pub fn scsi_status(&self) -> u8 {
        match self.response {
            Response::Completed => self.status,
            Response::Failed(_) => ScsiStatus::CHECK_CONDITION.0,
        }
    }
}

/// Sense data as it came, cut to [`MAX_SENSE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenseData {
    bytes: [u8; MAX_SENSE_BYTES],
    length_bytes: u8,
}

impl SenseData {
    /// None at all.
    pub const EMPTY: Self = Self {
        bytes: [0; MAX_SENSE_BYTES],
        length_bytes: 0,
    };

    /// Copies what fits.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "MAX_SENSE_BYTES fits a byte"
    )]
    pub fn new(sense: &[u8]) -> Self {
        const { assert!(MAX_SENSE_BYTES <= u8::MAX as usize) };
        let mut data = Self::EMPTY;
        for (to, from) in data.bytes.iter_mut().zip(sense) {
            *to = *from;
        }
        data.length_bytes = sense.len().min(MAX_SENSE_BYTES) as u8;
        data
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length_bytes))
            .unwrap_or_default()
    }
}

/// A session in full-feature phase. The module's documentation says how to drive it.
#[derive(Debug)]
pub struct Session {
    negotiated: Negotiated,
    crc32c: Crc32c,
    window: CommandWindow,
    /// The CmdSN of the first command that has not gone into the sink.
    unsent_cmd_sn: SerialNumber,
    exp_stat_sn: SerialNumber,
    tasks: TaskTable,
    outbox: Outbox,
    framer: Framer,
    inbound: Inbound,
    ping: Ping,
    aborts: Aborts,
    deadlines: Deadlines,
    /// The latest time that the owner told.
    now_ms: u64,
    /// When a PDU went into the sink last.
    last_sent_ms: u64,
    closing: bool,
    /// When the logout was first seen to be unanswered.
    closing_since_ms: Option<u64>,
    trace: Option<PduTrace>,
}

impl Session {
    /// A session that starts at `now_ms` with what a login agreed on, held to our own limits where
    /// the target would grant more.
    pub fn new(mut negotiated: Negotiated, crc32c: Crc32c, now_ms: u64) -> Self {
        let max_send = &mut negotiated.target_max_recv_data_segment_length_bytes;
        *max_send = (*max_send).clamp(1, MAX_SEND_DATA_SEGMENT_LENGTH_BYTES);
        Self {
            crc32c,
            window: CommandWindow::new(
                negotiated.cmd_sn,
                negotiated.exp_cmd_sn,
                negotiated.max_cmd_sn,
            ),
            unsent_cmd_sn: negotiated.cmd_sn,
            exp_stat_sn: negotiated.exp_stat_sn,
            tasks: TaskTable::new(MAX_TASKS),
            outbox: Outbox::new(),
            framer: Framer::new(
                negotiated.header_digest,
                negotiated.data_digest,
                negotiated.max_recv_data_segment_length_bytes,
                crc32c,
            ),
            inbound: Inbound::new(),
            ping: Ping::new(now_ms),
            aborts: Aborts::new(),
            deadlines: Deadlines::new(),
            now_ms,
            last_sent_ms: now_ms,
            closing: false,
            closing_since_ms: None,
            trace: None,
            negotiated,
        }
    }

    /// The owner's clock changes: from now on time is counted as in `now_ms`. Only while no command
    /// is in flight.
    pub fn set_clock(&mut self, now_ms: u64) {
        debug_assert!(self.tasks.is_empty());
        self.now_ms = now_ms;
        self.last_sent_ms = now_ms;
        self.ping.heard(now_ms);
    }

    fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Has `trace` called for the header of every PDU, for debugging.
    pub fn trace_pdus(&mut self, trace: PduTrace) {
        self.trace = Some(trace);
    }

    /// How many commands the target takes at once, as it said last: from ExpCmdSN to MaxCmdSN.
    pub fn window_length(&self) -> u32 {
        self.window.length()
    }

    /// What the login agreed on.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// How many commands have not ended.
    pub fn tasks_in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// How many bytes the target has still to send for them, about: a header each, and the data of
    /// reads. What arrives before says something about the target's speed.
    pub fn awaited_bytes(&self) -> u64 {
        self.tasks.awaited_bytes()
    }

    /// How many bytes they move in all, in whichever direction.
    pub fn data_bytes(&self) -> u64 {
        self.tasks.data_bytes()
    }

    /// Whether [`Session::submit`] would take a command.
    pub fn can_submit(&self) -> Result<(), SubmitError> {
        if self.closing || self.is_resetting() {
            Err(SubmitError::Closing)
        } else if self.tasks.is_full() {
            Err(SubmitError::TableFull)
        } else if !self.window.is_open() {
            Err(SubmitError::WindowClosed)
        } else {
            Ok(())
        }
    }

    /// How many commands it would take, one after the other, if nothing ended meanwhile.
    pub fn free_commands(&self) -> u32 {
        let free_tasks = MAX_TASKS.saturating_sub(self.tasks.len());
        let free_tasks = u32::try_from(free_tasks).unwrap_or(u32::MAX);
        free_tasks.min(self.window.open_length())
    }

    /// Takes a command; it goes out with the next [`Session::transmit`], in order. Its time-out counts
    /// from `now_ms`.
    pub fn submit(&mut self, command: Command, now_ms: u64) -> Result<(), SubmitError> {
        self.can_submit()?;
        self.tick(now_ms);
        self.deadlines.submitted(now_ms, self.tasks.is_empty());
        let cmd_sn = self.window.cmd_sn();
        let task = self.tasks.insert(command, cmd_sn, &self.negotiated, now_ms);
        let task = task.ok_or(SubmitError::TableFull)?;
        self.window.consume();
        self.outbox.push(Outgoing::Command { task });
        Ok(())
    }

    /// Asks for the end of the session; no command is taken any more. Answered by
    /// [`Event::LoggedOut`].
    pub fn log_out(&mut self) {
        if !self.closing {
            self.closing = true;
            self.outbox.push(Outgoing::Logout);
        }
    }

    /// Whether a ping waits for its answer: nothing was heard for a while.
    pub fn is_pinging(&self) -> bool {
        self.ping.is_waiting()
    }

    /// The connection is still taking in what was sent before the ping: a slow link is not a silent
    /// one, so the time for the answer begins anew. To be said only of progress, for then a link that
    /// takes nothing any more has its end.
    pub fn still_sending(&mut self, now_ms: u64) {
        self.ping.still_sending(now_ms);
    }

    /// When [`Session::handle_timeout`] is to be called next, at the latest.
    pub fn next_timeout_ms(&self) -> u64 {
        let logout = self
            .closing_since_ms
            .map(|since_ms| since_ms.saturating_add(LOGOUT_TIMEOUT_MS));
        let others_ms = self.ping.next_timeout_ms().min(self.next_deadline_ms());
        logout.unwrap_or(u64::MAX).min(others_ms)
    }

    /// Asks for the end of late commands, sends a ping when nothing was heard for a while, and gives
    /// up when one of these is not answered. Costs little when nothing is due.
    ///
    /// # Errors
    /// The session is over; a command that was late may still run, until the next session has
    /// reinstated this one.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Result<Timeouts, SessionError> {
        self.tick(now_ms);
        if self.closing {
            let since_ms = *self.closing_since_ms.get_or_insert(now_ms);
            if now_ms >= since_ms.saturating_add(LOGOUT_TIMEOUT_MS) {
                return Err(SessionError::LogoutUnanswered);
            }
        }
        let timeouts = self.handle_deadlines(now_ms)?;
        if self.ping.handle_timeout(now_ms)? {
            self.outbox.push_ping();
        }
        Ok(timeouts)
    }
}

#[cfg(test)]
mod tests;
