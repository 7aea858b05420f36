//! What can go wrong, how often it does, and how often it did.

use crate::rng::Rng;

/// Declares the faults once: the struct of their probabilities, its default, and the list of names.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident / $variant:ident = $default:literal,)*) => {
        /// The probability of each fault, in 1 of 10,000 of the occasions that its line names.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Faults { $($(#[$doc])* pub $name: u32,)* }

        impl Default for Faults {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// Which fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            /// The name of each, in the order of their numbers.
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];
        }

        impl Faults {
            fn of(&self, fault: Fault) -> u32 {
                match fault { $(Fault::$variant => self.$name,)* }
            }

            /// Each probability, to be changed.
            pub fn each_mut(&mut self) -> Vec<&mut u32> {
                vec![$(&mut self.$name,)*]
            }
        }
    };
}

faults! {
    /// Of a new connection: it breaks after some byte of one direction.
    cut / Cut = 4000,
    /// Of bytes sent: they take up to 6 s.
    delay / Delay = 20,
    /// Of bytes that arrive: only the first part does for now, one byte or more.
    fragment / Fragment = 2500,
    /// Of bytes sent: from here on nothing arrives any more, in either direction.
    blackhole / Blackhole = 4,
    /// Of a moment: the target is killed, and away for up to 20 s.
    restart / Restart = 4,
    /// Of a moment: our process is killed. The next one has the inflight regions, in which the requests
    /// in flight stand, and no more.
    kill / Kill = 6,
    /// Of a turn of a lane without a session: its requests have waited for long enough, and fail.
    give_up / GiveUp = 60,
    /// Of a login: it fails, though the target is there.
    login_refused / LoginRefused = 1500,
    /// Of an answer: it is sent again as it is.
    duplicate / Duplicate = 8,
    /// Of an answer: the task is answered once more, with the next StatSN, a while later.
    answered_twice / AnsweredTwice = 8,
    /// Of a command: it takes up to 60 s, longer than the time-out of commands.
    late / Late = 30,
    /// Of a command: it is lost, and never answered.
    lost / Lost = 6,
    /// Of a command: BUSY.
    busy / Busy = 200,
    /// Of a command: TASK SET FULL.
    task_set_full / TaskSetFull = 200,
    /// Of a command: a unit attention.
    unit_attention / UnitAttention = 150,
    /// Of a command: ABORTED COMMAND, perhaps when half of its data is written.
    aborted_command / AbortedCommand = 150,
    /// Of a command: NOT READY, becoming ready or in need of attendance.
    not_ready / NotReady = 100,
    /// Of a command: logical unit not supported, as after a restart.
    no_lun / NoLun = 50,
    /// Of a command: MEDIUM ERROR, which the guest has to see.
    medium_error / MediumError = 20,
    /// Of a command: it is rejected.
    reject / Reject = 10,
    /// Of a command: it is rejected for want of something, for now.
    reject_for_now / RejectForNow = 50,
    /// Of a command that moves data: GOOD, but less of it, with a residual count.
    short / Short = 20,
    /// Of a WRITE SAME: no such command.
    refused / Refused = 500,
    /// Of a command: a deferred error of an earlier write, which was carried out all the same.
    deferred_error / DeferredError = 20,
    /// Of a turn of a session: one of its requests is aborted, though it is not late.
    abort / Abort = 10,
    /// Of an ABORT TASK: the answer of the task was sent just before it.
    abort_crossed / AbortCrossed = 3000,
    /// Of an ABORT TASK: it is refused, and the task goes on.
    abort_refused / AbortRefused = 2000,
    /// Of an ABORT TASK: its PDU is rejected, and the task goes on.
    abort_rejected / AbortRejected = 1000,
    /// Of an ABORT TASK: it is never answered, and the task goes on or not.
    abort_unanswered / AbortUnanswered = 1500,
    /// Of a LOGICAL UNIT RESET: it is refused.
    reset_refused / ResetRefused = 2500,
    /// Of a LOGICAL UNIT RESET: it is never answered, and done or not.
    reset_unanswered / ResetUnanswered = 2500,
    /// Of a moment: another initiator resets the logical unit; tasks end without an answer.
    reset / Reset = 6,
    /// Of a moment: the same, but tasks end with TASK ABORTED.
    reset_with_status / ResetWithStatus = 6,
    /// Of bytes sent under digests: a bit is flipped.
    corrupt / Corrupt = 12,
    /// Of a PDU of the target: the command window is no longer moved on, for up to 2 s.
    window_closed / WindowClosed = 60,
    /// Of a PDU of the target: a ping goes before it.
    target_ping / TargetPing = 100,
    /// Of a moment: the target asks for a logout.
    logout_request / LogoutRequest = 5,
    /// Of a moment: the target announces that it drops the connection.
    drop_announced / DropAnnounced = 5,
    /// Of a write: it is asked for in more R2Ts than needed, of any legal length.
    odd_r2t / OddR2t = 3000,
    /// Of a read: its data comes in pieces of any legal length.
    odd_data_in / OddDataIn = 3000,
    /// Of a turn of a session: the socket takes only some bytes, or none.
    slow_socket / SlowSocket = 2000,
}

/// The source of all choices of a run, which counts the faults.
#[derive(Debug)]
pub struct Chaos {
    /// Choices that are no faults.
    pub rng: Rng,
    faults: Faults,
    /// How often each fault has fired, in the order of [`Fault::NAMES`].
    pub fired: Vec<u64>,
    /// No new faults: the run is to come to its end.
    pub is_calm: bool,
    /// Every fault and every PDU is told on standard error.
    pub is_verbose: bool,
}

impl Chaos {
    /// Choices by `seed`.
    pub fn new(seed: u64, faults: Faults, is_verbose: bool) -> Self {
        Self {
            rng: Rng::new(seed),
            faults,
            fired: vec![0; Fault::NAMES.len()],
            is_calm: false,
            is_verbose,
        }
    }

    /// Leaves out a third of the faults and makes others rarer or more frequent: some mistakes
    /// show only where others do not get in the way.
    pub fn vary(&mut self) {
        for probability in self.faults.each_mut() {
            let factor = self.rng.pick(&[0, 0, 1, 1, 2, 4]);
            *probability = (*probability * factor / 2).min(9_000);
        }
    }

    /// Whether `fault` is to happen now; counts it.
    pub fn fires(&mut self, fault: Fault) -> bool {
        let fires = self.rolls(fault);
        if fires {
            self.count(fault);
        }
        fires
    }

    /// Whether `fault` is to happen, without counting it.
    pub fn rolls(&mut self, fault: Fault) -> bool {
        !self.is_calm && self.rng.below(10_000) < u64::from(self.faults.of(fault))
    }

    /// It has happened.
    pub fn count(&mut self, fault: Fault) {
        self.fired[fault as usize] += 1;
        self.tell(|| format!("fault {fault:?}"));
    }

    /// Says what happens, when asked to.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_verbose {
            #[allow(clippy::print_stderr, reason = "asked for")]
            {
                eprintln!("{}", what());
            }
        }
    }
}
