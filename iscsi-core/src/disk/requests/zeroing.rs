//! How zeros are written: the best way that the target has not refused.

use super::Requests;
use super::failure::Failure;
use super::judgement::Verdict;
use super::slot::Sync;
use crate::disk::plan::Zeroing;
use crate::disk::request::BlockOperation;
use crate::scsi::sense::Sense;
use crate::session::RequestTag;

impl Requests {
    /// Whether zeros are written as data, for want of a command for them.
    pub fn writes_zeros_as_data(&self) -> bool {
        weaker(self.facts.zeroing(false), self.zeroing) == Zeroing::Write
    }

    /// How zeros for `operation` are written now.
    pub(super) fn best_zeroing(&self, operation: BlockOperation) -> Zeroing {
        let unmap = matches!(operation, BlockOperation::WriteZeroes { unmap: true, .. });
        weaker(self.facts.zeroing(unmap), self.zeroing)
    }

    /// The target does not implement a command: for WRITE SAME there is another way.
    pub(super) fn refused(&mut self, request: RequestTag, operation: BlockOperation, sense: Sense) {
        let is_zeroing = matches!(operation, BlockOperation::WriteZeroes { .. });
        let is_sync = self
            .slot(request)
            .is_some_and(|slot| slot.progress.sync == Sync::Submitted);
        if is_zeroing && !is_sync {
            self.weaken_zeroing(request, sense);
        } else {
            self.decide(request, Verdict::Fail(Failure::Sense(sense)));
        }
    }

    /// From now on zeros are written the next weaker way; plain writes are the weakest. Several
    /// commands of the old way may be refused: that weakens it once.
    fn weaken_zeroing(&mut self, request: RequestTag, sense: Sense) {
        let used = self
            .slot(request)
            .map_or(Zeroing::Write, |slot| slot.zeroing);
        match used.fallback() {
            Some(fallback) => {
                self.zeroing = weaker(self.zeroing, fallback);
                self.decide(
                    request,
                    Verdict::Again {
                        delayed: false,
                        setback: None,
                    },
                );
            }
            None => self.decide(request, Verdict::Fail(Failure::Sense(sense))),
        }
    }
}

/// The weaker of two ways of writing zeros.
fn weaker(a: Zeroing, b: Zeroing) -> Zeroing {
    match (a, b) {
        (Zeroing::Write, _) | (_, Zeroing::Write) => Zeroing::Write,
        (Zeroing::WriteSame, _) | (_, Zeroing::WriteSame) => Zeroing::WriteSame,
        (Zeroing::WriteSameUnmap, Zeroing::WriteSameUnmap) => Zeroing::WriteSameUnmap,
    }
}
