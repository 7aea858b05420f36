//! The command window (RFC 7143 section 4.2.2.1).

use crate::pdu::Numbers;
use crate::sequence::SerialNumber;

/// Which CmdSN is next, and how far the target lets us go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandWindow {
    cmd_sn: SerialNumber,
    exp_cmd_sn: SerialNumber,
    max_cmd_sn: SerialNumber,
}

impl CommandWindow {
    pub(crate) fn new(
        cmd_sn: SerialNumber,
        exp_cmd_sn: SerialNumber,
        max_cmd_sn: SerialNumber,
    ) -> Self {
        Self {
            cmd_sn,
            exp_cmd_sn,
            max_cmd_sn,
        }
    }

    /// The CmdSN of the next command; immediate PDUs carry it without consuming it.
    pub(crate) fn cmd_sn(&self) -> SerialNumber {
        self.cmd_sn
    }

    /// "The target MUST silently ignore any non-immediate command outside of this range": so
    /// none is sent.
    pub(crate) fn is_open(&self) -> bool {
        self.cmd_sn.is_at_or_before(self.max_cmd_sn)
    }

    /// How many numbers the target takes, from the first it has not seen on.
    pub(crate) fn length(&self) -> u32 {
        self.max_cmd_sn.next().steps_after(self.exp_cmd_sn)
    }

    /// How many of them have not been given away.
    pub(crate) fn open_length(&self) -> u32 {
        if self.is_open() {
            self.max_cmd_sn.next().steps_after(self.cmd_sn)
        } else {
            0
        }
    }

    /// Takes the next CmdSN. To be called only while the window is open.
    pub(crate) fn consume(&mut self) -> SerialNumber {
        debug_assert!(self.is_open());
        let cmd_sn = self.cmd_sn;
        self.cmd_sn = cmd_sn.next();
        cmd_sn
    }

    /// Learns what a PDU of the target says.
    ///
    /// Section 4.2.2.1: "If the PDU MaxCmdSN is less than the PDU ExpCmdSN - 1, they are both
    /// ignored"; each is taken only when it is greater than what is known, for a PDU may have been
    /// overtaken by a later one.
    pub(crate) fn update(&mut self, numbers: &Numbers) {
        let Numbers {
            exp_cmd_sn,
            max_cmd_sn,
            ..
        } = *numbers;
        if max_cmd_sn.next().is_before(exp_cmd_sn) {
            return;
        }
        if self.max_cmd_sn.is_before(max_cmd_sn) {
            self.max_cmd_sn = max_cmd_sn;
        }
        if self.exp_cmd_sn.is_before(exp_cmd_sn) {
            self.exp_cmd_sn = exp_cmd_sn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(exp_cmd_sn: u32, max_cmd_sn: u32) -> Numbers {
        Numbers {
            stat_sn: SerialNumber(0),
            exp_cmd_sn: SerialNumber(exp_cmd_sn),
            max_cmd_sn: SerialNumber(max_cmd_sn),
        }
    }

    fn window(cmd_sn: u32, max_cmd_sn: u32) -> CommandWindow {
        CommandWindow::new(
            SerialNumber(cmd_sn),
            SerialNumber(cmd_sn),
            SerialNumber(max_cmd_sn),
        )
    }

    #[test]
    fn max_cmd_sn_itself_may_be_sent_and_the_next_may_not() {
        let mut window = window(5, 6);
        assert_eq!(window.consume(), SerialNumber(5));
        assert!(window.is_open());
        assert_eq!(window.consume(), SerialNumber(6));
        assert!(!window.is_open());
    }

    #[test]
    fn an_overtaken_pdu_does_not_close_the_window_again() {
        let mut window = window(5, 5);
        window.update(&numbers(5, 9));
        window.update(&numbers(5, 7));
        for cmd_sn in 5..=9 {
            assert_eq!(window.consume(), SerialNumber(cmd_sn));
        }
        assert!(!window.is_open());
    }

    #[test]
    fn a_window_that_contradicts_itself_is_ignored() {
        let mut window = window(5, 4);
        window.update(&numbers(20, 18));
        assert!(!window.is_open());
        window.update(&numbers(5, 5));
        assert!(window.is_open());
    }

    #[test]
    fn the_window_wraps() {
        let mut window = window(u32::MAX, 0);
        assert_eq!(window.consume(), SerialNumber(u32::MAX));
        assert_eq!(window.consume(), SerialNumber(0));
        assert!(!window.is_open());
    }
}
