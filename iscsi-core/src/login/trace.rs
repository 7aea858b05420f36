//! What became of each key: for debug logs and for `probe`.

use alloc::string::String;
use core::fmt;

/// One key of a login. Never one of CHAP's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTrace {
    /// The key.
    pub key: String,
    /// What we sent first or answered.
    pub ours: Option<String>,
    /// What the target sent, first or as an answer: its own text, which may be anything.
    pub theirs: Option<String>,
    /// What holds now; empty as long as the key is open.
    pub outcome: String,
}

impl fmt::Display for KeyTrace {
    /// One line, whatever the target sent: `InitialR2T: ours "No", theirs "Yes", result "Yes"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.key)?;
        if let Some(ours) = &self.ours {
            write!(f, " ours {ours:?},")?;
        }
        if let Some(theirs) = &self.theirs {
            write!(f, " theirs {theirs:?},")?;
        }
        write!(f, " result {:?}", self.outcome)
    }
}
