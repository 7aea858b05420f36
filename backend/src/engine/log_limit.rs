//! A bound for log lines that a guest, a front-end or a target can cause as often as it likes.

/// Lines that pass before the limit is felt.
const BURST: u32 = 10;

/// How long the count of a burst lasts, in milliseconds.
const PERIOD_MS: u64 = 10_000;

/// Lets [`BURST`] lines pass in each [`PERIOD_MS`], and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    period_start_ms: u64,
    passed: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether a line may be written now; with it, how many were suppressed since the last one.
    pub(crate) fn pass(&mut self, now_ms: u64) -> Option<Suppressed> {
        if now_ms.saturating_sub(self.period_start_ms) >= PERIOD_MS {
            (self.period_start_ms, self.passed) = (now_ms, 0);
        }
        if self.passed == BURST {
            self.suppressed += 1;
            return None;
        }
        self.passed += 1;
        Some(Suppressed(std::mem::take(&mut self.suppressed)))
    }
}

/// How many lines were left out; shows nothing when there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suppressed(u64);

impl std::fmt::Display for Suppressed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} lines like this were left out)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_the_rest_is_counted_and_told_later() {
        let mut limit = LogLimit::default();
        for _ in 0..BURST {
            assert_eq!(limit.pass(0), Some(Suppressed(0)));
        }
        assert_eq!(limit.pass(1), None);
        assert_eq!(limit.pass(PERIOD_MS - 1), None);
        assert_eq!(limit.pass(PERIOD_MS), Some(Suppressed(2)));
        assert_eq!(limit.pass(PERIOD_MS), Some(Suppressed(0)));
    }
}
