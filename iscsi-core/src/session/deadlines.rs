//! Answers that are late: when a command counts as lost, without a timer for each.
//!
//! One time says when the next look at the table could find a late command. It is right or too
//! early: whatever is exchanged for a task only puts its end off. So the table is looked through
//! about once per time-out, however many commands come and go.

use super::Session;
use crate::error::SessionError;

/// What the passing of time brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// How many commands have just been found late; their end is asked for.
    pub timed_out: u32,
    /// An abort was not answered, and now a LOGICAL UNIT RESET is asked for.
    pub resetting: bool,
}

#[derive(Debug)]
pub(super) struct Deadlines {
    command_timeout_ms: Option<u64>,
    /// No task is late before this.
    next_check_ms: u64,
    /// Since when the window has been seen closed without a task in flight.
    closed_since_ms: Option<u64>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self {
            command_timeout_ms: None,
            next_check_ms: u64::MAX,
            closed_since_ms: None,
        }
    }

    /// The time-out, counted from `since_ms`; `u64::MAX` for never.
    fn after(&self, since_ms: u64) -> u64 {
        self.command_timeout_ms
            .map_or(u64::MAX, |timeout_ms| since_ms.saturating_add(timeout_ms))
    }

    /// A command is taken; `is_first` when no other is in flight.
    pub(super) fn submitted(&mut self, now_ms: u64, is_first: bool) {
        let due_ms = self.after(now_ms);
        if is_first || due_ms < self.next_check_ms {
            self.next_check_ms = due_ms;
        }
    }
}

impl Session {
    /// How long a command may take, in milliseconds; `None` (which is how a session starts) for ever.
    ///
    /// It is late when for so long nothing was exchanged for it: no part of its data either. What is
    /// slow is not lost, and to send it again would make it slower still. [`Session::handle_timeout`]
    /// asks the target to end a late command (ABORT TASK), which is answered by an
    /// [`Event::AbortDone`](super::Event::AbortDone); when the target does not answer that within
    /// [`ABORT_TIMEOUT_MS`](crate::limits::ABORT_TIMEOUT_MS), the session is over.
    ///
    /// A command that waits for the connection to take it cannot be aborted, for the target does
    /// not know it, and it cannot be left out, for its CmdSN is given away. Its time counts from when
    /// anything at all was sent last: when it is up, the session is over, too. A command that the
    /// window keeps out was never taken in; a window that stays closed for as long, without a
    /// command in flight that could open it, ends the session as well.
    pub fn set_command_timeout_ms(&mut self, timeout_ms: Option<u64>) {
        self.deadlines.command_timeout_ms = timeout_ms;
        self.deadlines.next_check_ms = 0;
    }

    /// Each command that was sent so far and is not answered at `at_ms` counts as late then, whatever
    /// its time-out. To be called after the news that the target may have ended tasks without an
    /// answer: a unit attention 29h (reset occurred) or 2Fh (commands cleared by another initiator; SPC-5,
    /// "Numeric order codes"). Later commands are not meant, nor are those that have not been sent.
    pub fn expect_answers_by(&mut self, at_ms: u64) {
        for (_, task) in self.tasks.iter_mut() {
            if task.sent {
                task.answer_by_ms = task.answer_by_ms.min(at_ms);
            }
        }
        self.deadlines.next_check_ms = self.deadlines.next_check_ms.min(at_ms);
    }

    /// When [`Session::handle_deadlines`] may find something; `u64::MAX` for never.
    pub(super) fn next_deadline_ms(&self) -> u64 {
        if self.closing {
            return u64::MAX;
        }
        let closed = self.deadlines.closed_since_ms;
        let window_ms = closed.map_or(u64::MAX, |since_ms| self.deadlines.after(since_ms));
        let check_ms = if self.may_be_late() {
            self.deadlines.next_check_ms
        } else {
            u64::MAX
        };
        window_ms.min(check_ms).min(self.aborts.next_timeout_ms())
    }

    /// Finds what is late. While a logout waits for its answer nothing else is asked for: that has a
    /// bound of its own.
    pub(super) fn handle_deadlines(&mut self, now_ms: u64) -> Result<Timeouts, SessionError> {
        if self.closing {
            return Ok(Timeouts::default());
        }
        let resetting = self.check_aborts(now_ms)?;
        let timed_out = if self.may_be_late() && now_ms >= self.deadlines.next_check_ms {
            self.abort_late(now_ms)?
        } else {
            0
        };
        self.check_window(now_ms)?;
        Ok(Timeouts {
            timed_out,
            resetting,
        })
    }

    /// Whether there is a task to look at: a reset ends them all.
    fn may_be_late(&self) -> bool {
        !self.tasks.is_empty() && !self.aborts.is_resetting()
    }

    /// Asks for the end of each late task, and says how many there were.
    fn abort_late(&mut self, now_ms: u64) -> Result<u32, SessionError> {
        let (mut next_check_ms, mut count) = (u64::MAX, 0);
        for (id, task) in self.tasks.iter_mut() {
            if task.abort_asked {
                continue;
            }
            let since_ms = if task.sent {
                task.since_ms
            } else {
                task.since_ms.max(self.last_sent_ms)
            };
            let due_ms = self.deadlines.after(since_ms).min(task.answer_by_ms);
            if now_ms < due_ms {
                next_check_ms = next_check_ms.min(due_ms);
            } else if task.sent {
                task.abort_asked = true;
                self.aborts.push(id);
                count += 1;
            } else {
                let waited_ms = now_ms.saturating_sub(since_ms);
                return Err(SessionError::NotSent { waited_ms });
            }
        }
        self.deadlines.next_check_ms = next_check_ms;
        self.next_abort();
        Ok(count)
    }

    fn check_window(&mut self, now_ms: u64) -> Result<(), SessionError> {
        if self.window.is_open() || !self.tasks.is_empty() {
            self.deadlines.closed_since_ms = None;
            return Ok(());
        }
        let since_ms = *self.deadlines.closed_since_ms.get_or_insert(now_ms);
        if now_ms < self.deadlines.after(since_ms) {
            return Ok(());
        }
        let waited_ms = now_ms.saturating_sub(since_ms);
        Err(SessionError::WindowStaysClosed { waited_ms })
    }
}
