//! SCSI status codes (SAM-6, "Status codes").

use core::fmt;

/// The status a command ended with. Any byte may come from a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScsiStatus(pub u8);

impl ScsiStatus {
    /// The command succeeded.
    pub const GOOD: Self = Self(0x00);
    /// Sense data says what happened.
    pub const CHECK_CONDITION: Self = Self(0x02);
    /// The command succeeded and its condition was met.
    pub const CONDITION_MET: Self = Self(0x04);
    /// The logical unit cannot take the command now.
    pub const BUSY: Self = Self(0x08);
    /// Another initiator holds a reservation.
    pub const RESERVATION_CONFLICT: Self = Self(0x18);
    /// The logical unit has as many commands as it can hold.
    pub const TASK_SET_FULL: Self = Self(0x28);
    /// An auto contingent allegiance is in the way.
    pub const ACA_ACTIVE: Self = Self(0x30);
    /// Another initiator aborted the command.
    pub const TASK_ABORTED: Self = Self(0x40);

    /// Whether the command succeeded as far as the status alone can tell.
    pub fn is_success(self) -> bool {
        matches!(self, Self::GOOD | Self::CONDITION_MET)
    }

    /// Whether the target asks for nothing but another try a little later.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::BUSY | Self::TASK_SET_FULL)
    }
}

impl fmt::Display for ScsiStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::GOOD => "GOOD",
            Self::CHECK_CONDITION => "CHECK CONDITION",
            Self::CONDITION_MET => "CONDITION MET",
            Self::BUSY => "BUSY",
            Self::RESERVATION_CONFLICT => "RESERVATION CONFLICT",
            Self::TASK_SET_FULL => "TASK SET FULL",
            Self::ACA_ACTIVE => "ACA ACTIVE",
            Self::TASK_ABORTED => "TASK ABORTED",
            Self(code) => return write!(f, "unknown status {code:02X}h"),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn only_good_and_condition_met_are_success() {
        let successes = (0..=u8::MAX).filter(|&code| ScsiStatus(code).is_success());
        assert!(successes.eq([0x00, 0x04]));
    }

    #[test]
    fn a_status_is_named_and_an_unknown_one_is_numbered() {
        assert_eq!(ScsiStatus(0x28).to_string(), "TASK SET FULL");
        assert_eq!(ScsiStatus(0x22).to_string(), "unknown status 22h");
    }
}
