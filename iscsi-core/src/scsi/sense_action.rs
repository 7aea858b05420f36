//! What to do about sense data: one table, from the specific to the general.
//!
//! What passes by itself stays between us and the target: unit attentions, a logical unit that
//! becomes ready, aborted commands, no reason at all. So do two rows that are an answer to the first
//! question about a disk, and an accident to a disk that has been up: [`GiveUp::LunNotSupported`] and
//! [`GiveUp::NeedsAttendance`]. The guest is told at once what another try would not mend: damage,
//! write protection, and requests that are wrong.

use super::sense::{Sense, SenseKey};

/// What to do with a command that ended with CHECK CONDITION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenseAction {
    /// The command has done what it should: complete it.
    Success,
    /// Send the command again. Whoever does so bounds the number of times.
    Retry(Retry),
    /// Report the failure: the same command would fail again.
    GiveUp(GiveUp),
}

/// Why, and how, a command is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once: a unit attention was reported instead of running the command.
    UnitAttention,
    /// At once: the command was ended before it was done.
    Aborted,
    /// At once: an earlier command failed after its GOOD status, and this one has not run. For a
    /// disk that means: a write acknowledged before may be lost, so the next flush must not
    /// succeed.
    DeferredError,
    /// At once: the target gave no reason.
    NoReason,
    /// A little later: the logical unit will be ready by itself.
    BecomingReady,
    /// A little later, or elsewhere: this path does not lead to the logical unit now.
    PathUnavailable,
    /// A little later: the target is short of something.
    NoResources,
}

/// Why a command is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The logical unit waits for somebody to start it, repair it or put it back on line. Who knows
    /// that the disk has been up waits, too: the guest can do nothing of that kind.
    NeedsAttendance,
    /// The logical unit is not there in a way that does not lead back to the same disk: it has lost
    /// its medium.
    NotReady,
    /// The medium is damaged.
    MediumError,
    /// The device is damaged.
    HardwareError,
    /// The command is not implemented.
    InvalidOpcode,
    /// The command is not implemented in this form.
    InvalidField,
    /// The range goes beyond the last block: the disk has become smaller.
    OutOfRange,
    /// There is no such logical unit, or not yet again after a restart of the target.
    LunNotSupported,
    /// The command is wrong in another way.
    IllegalRequest,
    /// The medium may not be written.
    WriteProtected,
    /// A thin disk's pool is full.
    SpaceExhausted,
    /// Data protection information does not fit.
    ProtectionInformation,
    /// None of the above.
    Other,
}

impl SenseAction {
    /// What the table says about `sense`; what is not in the table is given up.
    pub fn of(sense: &Sense) -> Self {
        if sense.deferred {
            // SPC-5, "Deferred errors": the command at hand was not carried out.
            return Self::Retry(Retry::DeferredError);
        }
        let found = TABLE.iter().find(|row| row.matches(sense));
        found.map_or(Self::GiveUp(GiveUp::Other), |row| row.action)
    }

    /// What to do about sense data that cannot be understood, or is missing.
    pub fn of_missing_sense() -> Self {
        Self::Retry(Retry::NoReason)
    }
}

/// A line of the table: a sense key, and for some of them an additional sense code, and for some
/// of those a range of qualifiers.
struct Row {
    key: SenseKey,
    asc: Option<u8>,
    ascq: (u8, u8),
    action: SenseAction,
}

impl Row {
    fn matches(&self, sense: &Sense) -> bool {
        let (first, last) = self.ascq;
        self.key == sense.key
            && self.asc.is_none_or(|asc| asc == sense.asc)
            && (first..=last).contains(&sense.ascq)
    }
}

/// The key with this code and this qualifier.
const fn exactly(key: SenseKey, asc: u8, ascq: u8, action: SenseAction) -> Row {
    Row {
        key,
        asc: Some(asc),
        ascq: (ascq, ascq),
        action,
    }
}

/// The key with this code and a qualifier within `first..=last`.
const fn between(key: SenseKey, asc: u8, (first, last): (u8, u8), action: SenseAction) -> Row {
    Row {
        key,
        asc: Some(asc),
        ascq: (first, last),
        action,
    }
}

/// The key with this code and any qualifier.
const fn code(key: SenseKey, asc: u8, action: SenseAction) -> Row {
    Row {
        key,
        asc: Some(asc),
        ascq: (0, u8::MAX),
        action,
    }
}

/// The key with any code.
const fn any(key: SenseKey, action: SenseAction) -> Row {
    Row {
        key,
        asc: None,
        ascq: (0, u8::MAX),
        action,
    }
}

/// The first row that matches decides. Keys: SPC-5, "Sense key codes"; codes: SPC-5,
/// "Numeric order codes".
#[rustfmt::skip]
const TABLE: &[Row] = {
    use self::{GiveUp as G, Retry as R, SenseAction::{GiveUp, Retry, Success}, SenseKey as K};
    &[
        // The key for a command that succeeded after the device had to help itself.
        any(K::RECOVERED_ERROR, Success),
        // No reason is given, and nothing says that the command was carried out: a write must
        // not be taken for done.
        any(K::NO_SENSE, Retry(R::NoReason)),

        // SAM-6, "Unit attention condition": the condition is cleared by reporting it, the command has not run.
        any(K::UNIT_ATTENTION, Retry(R::UnitAttention)),

        // Code 04h is LOGICAL UNIT NOT READY, its qualifier says why (SPC-5, annex "Numeric order
        // codes"). These end by themselves: becoming ready; format, rebuild, recalculation,
        // operation, long write, self-test; security session; spin-up; SA creation; space
        // allocation; START STOP UNIT, sanitize, power use not yet granted, configuration;
        // depopulation and its restoration.
        exactly(K::NOT_READY, 0x04, 0x01, Retry(R::BecomingReady)),
        between(K::NOT_READY, 0x04, (0x04, 0x09), Retry(R::BecomingReady)),
        exactly(K::NOT_READY, 0x04, 0x0e, Retry(R::BecomingReady)),
        exactly(K::NOT_READY, 0x04, 0x11, Retry(R::BecomingReady)),
        between(K::NOT_READY, 0x04, (0x13, 0x14), Retry(R::BecomingReady)),
        between(K::NOT_READY, 0x04, (0x1a, 0x1d), Retry(R::BecomingReady)),
        between(K::NOT_READY, 0x04, (0x24, 0x25), Retry(R::BecomingReady)),
        // SPC-5: LOGICAL UNIT HAS NOT SELF-CONFIGURED YET.
        exactly(K::NOT_READY, 0x3e, 0x00, Retry(R::BecomingReady)),
        // SPC-5, "Asymmetric logical unit access": transition, standby, unavailable.
        between(K::NOT_READY, 0x04, (0x0a, 0x0c), Retry(R::PathUnavailable)),
        // A controller that does not reach its own disks now.
        code(K::NOT_READY, 0x08, Retry(R::PathUnavailable)),
        // The rest of code 04h: cause not reportable (00h), initializing command required (02h),
        // manual intervention required (03h), offline (12h), resets and power cycles required (20h
        // to 22h) and whatever a later standard adds. SPC-5, "Sense key codes", says of the key: "the
        // logical unit is not accessible. Operator intervention may be required to correct this
        // condition". Arrays answer this during a failover and while a LUN is off line.
        code(K::NOT_READY, 0x04, GiveUp(G::NeedsAttendance)),
        // MEDIUM NOT PRESENT (3Ah) and the like: what comes back may be another medium.
        any(K::NOT_READY, GiveUp(G::NotReady)),

        // SBC-4, "Protection information model": the data is wrong, whoever sends it again.
        code(K::ABORTED_COMMAND, 0x10, GiveUp(G::ProtectionInformation)),
        // The key for a command the device ended without its being at fault.
        any(K::ABORTED_COMMAND, Retry(R::Aborted)),

        // SPC-5, "Numeric order codes". 25h is LOGICAL UNIT NOT SUPPORTED: no such LUN, which targets
        // also say for a while after a restart.
        code(K::ILLEGAL_REQUEST, 0x20, GiveUp(G::InvalidOpcode)),
        code(K::ILLEGAL_REQUEST, 0x21, GiveUp(G::OutOfRange)),
        code(K::ILLEGAL_REQUEST, 0x24, GiveUp(G::InvalidField)),
        code(K::ILLEGAL_REQUEST, 0x25, GiveUp(G::LunNotSupported)),
        // 55h/02h and /03h: resources that others free again.
        between(K::ILLEGAL_REQUEST, 0x55, (0x02, 0x03), Retry(R::NoResources)),
        any(K::ILLEGAL_REQUEST, GiveUp(G::IllegalRequest)),

        // SBC-4, "Thin provisioned logical units": no more space behind a thin disk.
        exactly(K::DATA_PROTECT, 0x27, 0x07, GiveUp(G::SpaceExhausted)),
        any(K::DATA_PROTECT, GiveUp(G::WriteProtected)),

        any(K::MEDIUM_ERROR, GiveUp(G::MediumError)),
        any(K::HARDWARE_ERROR, GiveUp(G::HardwareError)),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    fn action(key: u8, asc: u8, ascq: u8) -> SenseAction {
        let key = SenseKey(key);
        SenseAction::of(&Sense {
            deferred: false,
            key,
            asc,
            ascq,
            information: None,
        })
    }

    #[test]
    fn a_recovered_error_is_success_and_nothing_else_is() {
        for key in 0..16 {
            let success = action(key, 0x18, 0x00) == SenseAction::Success;
            assert_eq!(
                success,
                SenseKey(key) == SenseKey::RECOVERED_ERROR,
                "key {key:X}h"
            );
        }
    }

    #[test]
    fn any_unit_attention_is_retried() {
        for asc in 0..=u8::MAX {
            assert_eq!(action(6, asc, 0), SenseAction::Retry(Retry::UnitAttention));
        }
    }

    #[test]
    fn not_ready_is_retried_when_it_ends_by_itself() {
        let becoming_ready = SenseAction::Retry(Retry::BecomingReady);
        let path = SenseAction::Retry(Retry::PathUnavailable);
        let attendance = SenseAction::GiveUp(GiveUp::NeedsAttendance);
        let give_up = SenseAction::GiveUp(GiveUp::NotReady);
        assert_eq!(action(2, 0x04, 0x00), attendance);
        assert_eq!(action(2, 0x04, 0x01), becoming_ready);
        assert_eq!(action(2, 0x04, 0x02), attendance);
        assert_eq!(action(2, 0x04, 0x03), attendance);
        assert_eq!(action(2, 0x04, 0x04), becoming_ready);
        assert_eq!(action(2, 0x04, 0x09), becoming_ready);
        assert_eq!(action(2, 0x04, 0x0a), path);
        assert_eq!(action(2, 0x04, 0x0c), path);
        assert_eq!(action(2, 0x04, 0x0d), attendance);
        for ascq in [0x0e, 0x11, 0x13, 0x14, 0x1a, 0x1d, 0x24, 0x25] {
            assert_eq!(action(2, 0x04, ascq), becoming_ready, "{ascq:#x}");
        }
        for ascq in [0x0f, 0x10, 0x12, 0x15, 0x19, 0x1e, 0x23, 0x26, 0xff] {
            assert_eq!(action(2, 0x04, ascq), attendance, "{ascq:#x}");
        }
        assert_eq!(action(2, 0x3a, 0x00), give_up);
    }

    #[test]
    fn an_aborted_command_is_retried_unless_its_data_is_wrong() {
        assert_eq!(action(0xb, 0x47, 0x05), SenseAction::Retry(Retry::Aborted));
        let give_up = SenseAction::GiveUp(GiveUp::ProtectionInformation);
        assert_eq!(action(0xb, 0x10, 0x01), give_up);
    }

    #[test]
    fn failures_are_told_apart() {
        assert_eq!(
            action(5, 0x20, 0x00),
            SenseAction::GiveUp(GiveUp::InvalidOpcode)
        );
        assert_eq!(
            action(5, 0x21, 0x00),
            SenseAction::GiveUp(GiveUp::OutOfRange)
        );
        assert_eq!(
            action(5, 0x25, 0x00),
            SenseAction::GiveUp(GiveUp::LunNotSupported)
        );
        assert_eq!(
            action(5, 0x26, 0x00),
            SenseAction::GiveUp(GiveUp::IllegalRequest)
        );
        assert_eq!(
            action(7, 0x27, 0x00),
            SenseAction::GiveUp(GiveUp::WriteProtected)
        );
        assert_eq!(
            action(7, 0x27, 0x07),
            SenseAction::GiveUp(GiveUp::SpaceExhausted)
        );
        assert_eq!(
            action(3, 0x11, 0x00),
            SenseAction::GiveUp(GiveUp::MediumError)
        );
        assert_eq!(
            action(4, 0x44, 0x00),
            SenseAction::GiveUp(GiveUp::HardwareError)
        );
        assert_eq!(action(0xe, 0x1d, 0x00), SenseAction::GiveUp(GiveUp::Other));
    }

    #[test]
    fn a_deferred_error_never_completes_the_command_at_hand() {
        let key = SenseKey::RECOVERED_ERROR;
        let sense = Sense {
            deferred: true,
            key,
            asc: 0,
            ascq: 0,
            information: None,
        };
        assert_eq!(
            SenseAction::of(&sense),
            SenseAction::Retry(Retry::DeferredError)
        );
    }
}
