//! What keeps an old write from overwriting a newer one: no command of a disk goes out while a task
//! that we have given up may still run at the target.
//!
//! A command of a dead connection may be carried out at any later time, as long as the target has
//! not been told to end it: by a login with the same ISID (RFC 7143 section 6.3.5), or by a Logout
//! that it has answered. Its guest's request may meanwhile have ended in another way, and what the
//! guest writes next may take another session. So each session of a disk has a bit here, which is
//! set before any such request ends, and all sessions look at all bits before they submit.
//!
//! That the order holds without a lock: whoever loses a session sets its bit, then lets requests of
//! it end; the guest sees the end, then makes its next request available; whoever takes that looks
//! at the bits afterwards. Each step happens before the next, in the guest's memory too.

use core::sync::atomic::{AtomicU64, Ordering};

/// How many sessions a disk can have: a bit for each.
pub const MAX_SESSIONS: usize = 64;

/// The sessions of a disk that may have left tasks at the target.
#[derive(Debug, Default)]
pub struct Barrier {
    suspects: AtomicU64,
}

impl Barrier {
    /// Tasks of `session` may still run, and nobody hears of them any more. To be called before any
    /// request ends that one of them served.
    pub fn raise(&self, session: usize) {
        self.suspects.fetch_or(bit(session), Ordering::SeqCst);
    }

    /// The target has ended all former tasks of `session`. `true` when that was the last one which
    /// was waited for.
    pub fn lower(&self, session: usize) -> bool {
        let before = self.suspects.fetch_and(!bit(session), Ordering::SeqCst);
        before == bit(session)
    }

    /// Whether tasks of `session` may still run.
    pub fn is_suspect(&self, session: usize) -> bool {
        self.suspects.load(Ordering::SeqCst) & bit(session) != 0
    }

    /// Whether no command may be submitted now, on any session.
    pub fn is_raised(&self) -> bool {
        self.suspects.load(Ordering::Acquire) != 0
    }
}

fn bit(session: usize) -> u64 {
    debug_assert!(session < MAX_SESSIONS);
    1 << (session % MAX_SESSIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_until_the_last_suspect_is_cleared() {
        let barrier = Barrier::default();
        assert!(!barrier.is_raised());
        barrier.raise(0);
        barrier.raise(63);
        barrier.raise(63);
        assert!(barrier.is_suspect(63) && !barrier.is_suspect(62));
        assert!(!barrier.lower(0));
        assert!(barrier.is_raised());
        assert!(!barrier.lower(1));
        assert!(barrier.lower(63));
        assert!(!barrier.is_raised());
        assert!(!barrier.lower(63));
    }
}
