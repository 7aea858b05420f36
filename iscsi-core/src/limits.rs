//! Every bound of the full-feature phase, named once, with its reason.
//!
//! Both sides of us are strangers: whatever they send, nothing here grows beyond these numbers.
//! Bounds of the login phase and of discovery stand with their own code.

/// Tasks that a session can have outstanding. Twice QEMU's default ring of 128: two full queues
/// share a session before one waits for the other. Targets grant windows of 32 to a few hundred.
pub const MAX_TASKS: usize = 256;

/// R2Ts that one task can have outstanding, and what we offer as MaxOutstandingR2T.
pub const MAX_OUTSTANDING_R2T: usize = 8;

/// Answers to pings of the target that wait for the socket. A target that sends more without
/// reading our answers is flooding us.
pub const MAX_QUEUED_NOP_ANSWERS: usize = 64;

/// How much of a data segment that is not payload is kept: sense data (252 bytes at most), the
/// header inside a Reject, the text of an event. The rest is checked by its digest and dropped.
pub const MAX_COLLECTED_BYTES: usize = 512;

/// The longest sense data that is handed on: SPC-5 section 4.4 ends it at 252 bytes; the fields
/// that anything here looks at are within the first 64.
pub const MAX_SENSE_BYTES: usize = 64;

/// Silence after which a ping is sent, in milliseconds. Together with [`PING_TIMEOUT_MS`] a dead
/// path is noticed within 15 seconds.
pub const PING_INTERVAL_MS: u64 = 5_000;

/// How long a logout may stay unanswered, in milliseconds: meanwhile no command is taken.
pub const LOGOUT_TIMEOUT_MS: u64 = 5_000;

/// How long a ping may stay unanswered, in milliseconds, while nothing else is heard.
pub const PING_TIMEOUT_MS: u64 = 5_000;

/// How long an ABORT TASK may stay unanswered, in milliseconds. It asks for nothing but bookkeeping:
/// a target that cannot do that in five seconds is served better by a new session.
pub const ABORT_TIMEOUT_MS: u64 = 5_000;

/// How long a LOGICAL UNIT RESET may stay unanswered, in milliseconds. It ends whatever the logical
/// unit is doing, so it may take longer than an abort; the guest waits all the while.
pub const RESET_TIMEOUT_MS: u64 = 10_000;

/// How long after the news that tasks were ended without an answer those in flight may still be
/// answered, in milliseconds. What lives is answered sooner as a rule; what does not is sent again,
/// and a task aborted too early costs only another try.
pub const RECONCILE_MS: u64 = 2_000;

/// How often a request is sent again at once before each further try waits [`RETRY_DELAY_MS`].
/// A LUN may have several unit attentions pending; more than a few in a row mean that waiting is
/// better than asking.
pub const MAX_IMMEDIATE_RETRIES: u32 = 8;

/// How long a request waits that the target was too busy for, or not ready for, in milliseconds;
/// twice as long each further time, up to [`MAX_RETRY_DELAY_MS`].
pub const RETRY_DELAY_MS: u64 = 100;

/// The longest that a request waits for its next try, in milliseconds: a target that is away for
/// minutes is asked rarely enough, and found back soon enough.
pub const MAX_RETRY_DELAY_MS: u64 = 1_600;

/// The most data that goes into one PDU, whatever the target takes: the data of one PDU with a
/// digest is copied, and a target must not choose how much memory that needs.
pub const MAX_SEND_DATA_SEGMENT_LENGTH_BYTES: u32 = 256 * 1024;
