//! Is the target still there? A ping only when nothing was heard, and any byte is a sign of life.

use crate::error::SessionError;
use crate::limits::{PING_INTERVAL_MS, PING_TIMEOUT_MS};

#[derive(Debug)]
pub(crate) struct Ping {
    last_heard_ms: u64,
    sent_ms: Option<u64>,
}

impl Ping {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            last_heard_ms: now_ms,
            sent_ms: None,
        }
    }

    /// Something arrived.
    pub(crate) fn heard(&mut self, now_ms: u64) {
        self.last_heard_ms = now_ms;
        self.sent_ms = None;
    }

    /// A ping waits for its answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.sent_ms.is_some()
    }

    /// What was sent before the ping is only now being taken in: its time begins anew.
    pub(crate) fn still_sending(&mut self, now_ms: u64) {
        self.sent_ms = self.sent_ms.map(|_| now_ms);
    }

    pub(crate) fn next_timeout_ms(&self) -> u64 {
        match self.sent_ms {
            None => self.last_heard_ms.saturating_add(PING_INTERVAL_MS),
            Some(sent_ms) => sent_ms.saturating_add(PING_TIMEOUT_MS),
        }
    }

    /// Whether a ping is to be sent now.
    pub(crate) fn handle_timeout(&mut self, now_ms: u64) -> Result<bool, SessionError> {
        if now_ms < self.next_timeout_ms() {
            return Ok(false);
        }
        match self.sent_ms {
            None => {
                self.sent_ms = Some(now_ms);
                Ok(true)
            }
            Some(_) => {
                let silence_ms = now_ms.saturating_sub(self.last_heard_ms);
                Err(SessionError::Silence { silence_ms })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_target_is_pinged_once_and_then_given_up() {
        let mut ping = Ping::new(0);
        assert_eq!(ping.handle_timeout(PING_INTERVAL_MS - 1), Ok(false));
        assert_eq!(ping.handle_timeout(PING_INTERVAL_MS), Ok(true));
        let last_ms = PING_INTERVAL_MS + PING_TIMEOUT_MS;
        assert_eq!(ping.handle_timeout(last_ms - 1), Ok(false));
        assert_eq!(
            ping.handle_timeout(last_ms),
            Err(SessionError::Silence {
                silence_ms: last_ms
            })
        );
        assert!(last_ms < 15_000);
    }

    #[test]
    fn the_time_of_a_ping_begins_when_it_is_no_longer_behind_other_things() {
        let mut ping = Ping::new(0);
        ping.still_sending(1);
        assert!(!ping.is_waiting());
        assert_eq!(ping.handle_timeout(PING_INTERVAL_MS), Ok(true));
        assert!(ping.is_waiting());
        let later_ms = PING_INTERVAL_MS + PING_TIMEOUT_MS - 1;
        ping.still_sending(later_ms);
        assert_eq!(
            ping.handle_timeout(later_ms + PING_TIMEOUT_MS - 1),
            Ok(false)
        );
        ping.handle_timeout(later_ms + PING_TIMEOUT_MS).unwrap_err();
    }

    #[test]
    fn anything_heard_counts_as_the_answer() {
        let mut ping = Ping::new(0);
        assert_eq!(ping.handle_timeout(PING_INTERVAL_MS), Ok(true));
        ping.heard(PING_INTERVAL_MS + 1);
        assert_eq!(
            ping.handle_timeout(PING_INTERVAL_MS + PING_TIMEOUT_MS),
            Ok(false)
        );
        assert_eq!(ping.next_timeout_ms(), 2 * PING_INTERVAL_MS + 1);
    }
}
