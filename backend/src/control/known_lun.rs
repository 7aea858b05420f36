//! What is known of a disk's LUN, and what guests are shown of it: the two differ when it has shrunk.

use std::fmt;

use iscsi_core::disk::facts::LunFacts;

/// What the last look at the LUN found, and the size that guests were told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownLun {
    found: LunFacts,
    shown_blocks: u64,
    /// Guests may not write, whatever the LUN says.
    read_only: bool,
}

/// A change that somebody should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There is more than guests were told of: they are told now.
    Grown { from_bytes: u64, to_bytes: u64 },
    /// There is less than guests were told of.
    Shrunk { shown_bytes: u64, to_bytes: u64 },
    /// After it had shrunk, it is as large again as guests were told.
    Restored { bytes: u64 },
    /// Writes are refused from now on.
    Protected,
    /// Writes are carried out again.
    Unprotected,
}

impl KnownLun {
    /// What the first login found; `read_only` when the configuration says so.
    pub(super) fn new(found: LunFacts, read_only: bool) -> Self {
        Self {
            shown_blocks: found.capacity_blocks,
            found,
            read_only,
        }
    }

    /// The LUN, as it was found last.
    pub(super) fn found(&self) -> &LunFacts {
        &self.found
    }

    /// The disk that guests have: never smaller than they were told. What lies beyond the end of a LUN
    /// that has shrunk is for the target to refuse.
    pub(super) fn served(&self) -> LunFacts {
        LunFacts {
            capacity_blocks: self.shown_blocks,
            write_protected: self.found.write_protected || self.read_only,
            ..self.found.clone()
        }
    }

    /// The LUN was found to be like this. Returns what somebody should hear of.
    pub(super) fn learn(&mut self, found: LunFacts) -> Vec<Change> {
        let former = std::mem::replace(&mut self.found, found);
        let size = self.size_change(former.capacity_blocks);
        self.shown_blocks = self.shown_blocks.max(self.found.capacity_blocks);
        let protection = match (former.write_protected, self.found.write_protected) {
            _ if self.read_only => None,
            (false, true) => Some(Change::Protected),
            (true, false) => Some(Change::Unprotected),
            _ => None,
        };
        size.into_iter().chain(protection).collect()
    }

    /// A guest was told of so many blocks by a former process. Returns what follows from it, if that
    /// is news.
    pub(super) fn show_at_least(&mut self, blocks: u64) -> Option<Change> {
        if blocks <= self.shown_blocks {
            return None;
        }
        self.shown_blocks = blocks;
        Some(self.shrunk())
    }

    fn size_change(&self, former_blocks: u64) -> Option<Change> {
        let blocks = self.found.capacity_blocks;
        if blocks > self.shown_blocks {
            return Some(Change::Grown {
                from_bytes: self.bytes(self.shown_blocks),
                to_bytes: self.bytes(blocks),
            });
        }
        if blocks == former_blocks {
            return None;
        }
        if blocks == self.shown_blocks {
            let bytes = self.bytes(blocks);
            return Some(Change::Restored { bytes });
        }
        Some(self.shrunk())
    }

    fn shrunk(&self) -> Change {
        Change::Shrunk {
            shown_bytes: self.bytes(self.shown_blocks),
            to_bytes: self.bytes(self.found.capacity_blocks),
        }
    }

    fn bytes(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(self.found.block_length_bytes.into())
    }
}

impl Change {
    /// How loud it is to be said.
    pub(super) fn level(self) -> log::Level {
        match self {
            Self::Grown { .. } | Self::Restored { .. } | Self::Unprotected => log::Level::Info,
            Self::Protected => log::Level::Warn,
            Self::Shrunk { .. } => log::Level::Error,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grown {
                from_bytes,
                to_bytes,
            } => write!(f, "the LUN has grown from {from_bytes} to {to_bytes} bytes"),
            Self::Shrunk {
                shown_bytes,
                to_bytes,
            } => write!(
                f,
                "the LUN has shrunk to {to_bytes} bytes, which is refused: guests are still shown \
                 {shown_bytes} bytes, and requests beyond the LUN's end fail. Grow it again; or, when \
                 no guest needs what was there, start this process anew"
            ),
            Self::Restored { bytes } => {
                write!(
                    f,
                    "the LUN has {bytes} bytes again, as many as guests are shown"
                )
            }
            Self::Protected => f.write_str(
                "the LUN was writable and is write-protected now: writes fail with an I/O error \
                 until it is writable again",
            ),
            Self::Unprotected => f.write_str(
                "the LUN was write-protected and is writable now; a guest that was shown a read-only \
                 disk sees it after its next start",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::test_facts;

    fn facts(capacity_blocks: u64) -> LunFacts {
        LunFacts {
            capacity_blocks,
            ..test_facts()
        }
    }

    fn known(read_only: bool) -> KnownLun {
        KnownLun::new(facts(100), read_only)
    }

    fn protected(write_protected: bool) -> LunFacts {
        LunFacts {
            write_protected,
            ..facts(100)
        }
    }

    #[test]
    fn a_lun_that_grows_is_shown_larger() {
        let mut known = known(false);
        let (from_bytes, to_bytes) = (51_200, 51_712);
        assert_eq!(
            known.learn(facts(101)),
            [Change::Grown {
                from_bytes,
                to_bytes
            }]
        );
        assert_eq!(known.served().capacity_blocks, 101);
        assert_eq!(known.learn(facts(101)), []);
    }

    #[test]
    fn a_lun_that_shrinks_is_shown_as_before_and_each_size_is_told_once() {
        let mut known = known(false);
        let shown_bytes = 51_200;
        for blocks in [99, 50] {
            let to_bytes = blocks * 512;
            let shrunk = Change::Shrunk {
                shown_bytes,
                to_bytes,
            };
            assert_eq!(known.learn(facts(blocks)), [shrunk]);
            assert_eq!(known.learn(facts(blocks)), []);
            assert_eq!(known.served().capacity_blocks, 100);
            assert_eq!(known.found().capacity_blocks, blocks);
        }
        let bytes = shown_bytes;
        assert_eq!(known.learn(facts(100)), [Change::Restored { bytes }]);
        assert!(matches!(
            known.learn(facts(200))[..],
            [Change::Grown { .. }]
        ));
    }

    #[test]
    fn what_a_guest_was_told_by_a_former_process_is_shown() {
        let mut known = known(false);
        assert_eq!(known.show_at_least(100), None);
        let shrunk = Change::Shrunk {
            shown_bytes: 102_400,
            to_bytes: 51_200,
        };
        assert_eq!(known.show_at_least(200), Some(shrunk));
        assert_eq!(known.served().capacity_blocks, 200);
    }

    #[test]
    fn write_protection_is_told_when_it_comes_and_goes() {
        let mut known = known(false);
        assert_eq!(known.learn(protected(true)), [Change::Protected]);
        assert!(known.served().write_protected);
        assert_eq!(known.learn(protected(true)), []);
        assert_eq!(known.learn(protected(false)), [Change::Unprotected]);
        assert!(!known.served().write_protected);
    }

    #[test]
    fn write_protection_is_no_news_where_nobody_may_write() {
        let mut known = known(true);
        assert_eq!(known.learn(protected(true)), []);
        assert_eq!(known.learn(protected(false)), []);
        assert!(known.served().write_protected);
    }
}
