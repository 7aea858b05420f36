//! One place of the table: a request, and how far it has come.

use alloc::vec::Vec;

use super::judgement::Verdict;
use crate::disk::plan::Zeroing;
use crate::disk::request::{BlockOperation, Extent};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) extents: Vec<Extent>,
    /// The place in the order of admission.
    pub(super) order: u64,
    /// What has been submitted.
    pub(super) progress: Progress,
    /// Commands without an answer.
    pub(super) outstanding: u32,
    /// How zeros are written, as long as this goes well.
    pub(super) zeroing: Zeroing,
    /// What is to happen when the last answer is in, instead of going on.
    pub(super) verdict: Option<Verdict>,
    /// Its SYNCHRONIZE CACHE covers writes that no other flush does.
    pub(super) covers_writes: bool,
    pub(super) immediate_retries: u32,
    /// Waits in a row.
    pub(super) delays: u32,
    /// When a try was in vain for the first time.
    pub(super) refused_since_ms: Option<u64>,
    /// The number of its first command since it was started; 0 for none.
    pub(super) first_sent: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Free,
    Live(BlockOperation),
    /// Completed, not yet released.
    Ended,
}

/// How far a request has been submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) extent: usize,
    pub(super) done_bytes: u64,
    pub(super) sync: Sync,
}

/// Whether the cache has still to be written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sync {
    /// Not yet known: the data comes first.
    #[default]
    Later,
    /// The next command is a SYNCHRONIZE CACHE.
    Due,
    /// It has been submitted.
    Submitted,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            state: State::Free,
            extents: Vec::new(),
            order: 0,
            progress: Progress::default(),
            outstanding: 0,
            zeroing: Zeroing::Write,
            verdict: None,
            covers_writes: false,
            immediate_retries: 0,
            delays: 0,
            refused_since_ms: None,
            first_sent: 0,
        }
    }

    /// From the beginning.
    pub(super) fn start(&mut self, zeroing: Zeroing) {
        self.zeroing = zeroing;
        self.progress = Progress::default();
        self.outstanding = 0;
        self.verdict = None;
        self.first_sent = 0;
    }
}
