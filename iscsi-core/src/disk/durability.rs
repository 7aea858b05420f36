//! What a disk owes its guest: the writes that it has called good and may still lose.
//!
//! A volatile cache that fails, or loses power, loses writes that were acknowledged. Nobody waits for
//! those any more, so the next flush has to say so, on whichever session it goes out.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::scsi::sense::{Sense, SenseKey};

/// One record for all sessions of a disk.
#[derive(Debug, Default)]
pub struct Durability {
    /// A write has ended well since the last flush began, and may be in a cache.
    is_dirty: AtomicBool,
    /// A [`Loss`] that no flush has reported yet; 0 for none.
    loss: AtomicU32,
    ignores_power_loss: bool,
}

/// How acknowledged writes were lost, or may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A deferred error: the target says that a write failed after its GOOD status.
    Deferred(Sense),
    /// A unit attention says that the target lost power while writes were in its volatile cache.
    Power(Sense),
}

const IS_LOSS: u32 = 1 << 31;
const IS_POWER: u32 = 1 << 30;

impl Loss {
    fn pack(self) -> u32 {
        let (sense, kind) = match self {
            Self::Deferred(sense) => (sense, IS_LOSS),
            Self::Power(sense) => (sense, IS_LOSS | IS_POWER),
        };
        kind | u32::from_be_bytes([0, sense.key.0, sense.asc, sense.ascq])
    }

    fn unpack(packed: u32) -> Option<Self> {
        let [_, key, asc, ascq] = packed.to_be_bytes();
        let sense = Sense {
            deferred: packed & IS_POWER == 0,
            key: SenseKey(key),
            asc,
            ascq,
            information: None,
        };
        match (packed & IS_LOSS, packed & IS_POWER) {
            (0, _) => None,
            (_, 0) => Some(Self::Deferred(sense)),
            _ => Some(Self::Power(sense)),
        }
    }
}

impl Durability {
    /// A record for a target whose word about its power means nothing: its cache has a battery, say.
    pub fn ignoring_power_loss() -> Self {
        Self {
            ignores_power_loss: true,
            ..Self::default()
        }
    }

    /// A write has ended well that may be in a volatile cache.
    pub fn written(&self) {
        // Most find it set: a store would take the line from the other sessions each time.
        if !self.is_dirty.load(Ordering::Relaxed) {
            self.is_dirty.store(true, Ordering::Release);
        }
    }

    /// A flush is submitted, which covers all that has ended. Says whether that was anything; when
    /// the flush does not end well, [`Durability::written`] takes this back.
    pub fn flush_begins(&self) -> bool {
        self.is_dirty.swap(false, Ordering::AcqRel)
    }

    /// Acknowledged writes are lost. The next flush says so.
    pub fn lose(&self, loss: Loss) {
        self.loss.store(loss.pack(), Ordering::Release);
    }

    /// The target has lost its power. Says whether writes may have gone with it: not when all of
    /// them were flushed, or there is no volatile cache.
    pub fn power_lost(&self, sense: Sense) -> bool {
        let is_lost = !self.ignores_power_loss && self.is_dirty.swap(false, Ordering::AcqRel);
        if is_lost {
            self.lose(Loss::Power(sense));
        }
        is_lost
    }

    /// Whether a flush has something to report.
    pub fn has_loss(&self) -> bool {
        self.loss.load(Ordering::Acquire) != 0
    }

    /// What the flush that ends now has to report. It is reported once.
    pub fn take_loss(&self) -> Option<Loss> {
        if self.has_loss() {
            Loss::unpack(self.loss.swap(0, Ordering::AcqRel))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sense(deferred: bool) -> Sense {
        Sense {
            deferred,
            key: SenseKey::UNIT_ATTENTION,
            asc: 0x29,
            ascq: 0x01,
            information: None,
        }
    }

    #[test]
    fn power_is_lost_with_writes_only_between_a_write_and_a_flush() {
        let durability = Durability::default();
        assert!(!durability.power_lost(sense(false)));
        durability.written();
        assert!(durability.flush_begins());
        assert!(!durability.power_lost(sense(false)));
        durability.written();
        assert!(durability.power_lost(sense(false)));
        assert!(!durability.flush_begins());
        assert_eq!(durability.take_loss(), Some(Loss::Power(sense(false))));
        assert_eq!(durability.take_loss(), None);
    }

    #[test]
    fn power_loss_can_be_ignored() {
        let durability = Durability::ignoring_power_loss();
        durability.written();
        assert!(!durability.power_lost(sense(false)));
        assert!(!durability.has_loss());
        assert!(durability.flush_begins());
    }

    #[test]
    fn a_loss_is_reported_once_and_as_it_came() {
        let durability = Durability::default();
        durability.lose(Loss::Deferred(sense(true)));
        assert!(durability.has_loss());
        assert_eq!(durability.take_loss(), Some(Loss::Deferred(sense(true))));
        assert!(!durability.has_loss());
    }
}
