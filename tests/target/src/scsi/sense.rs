//! Sense data (SPC-5 section 4.4), fixed and descriptor format.

/// A sense key with additional sense code and qualifier, as in `05/24/00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// Descriptor format, whatever the target's configuration says.
    pub descriptor: bool,
    /// Of an earlier command, whose status was GOOD.
    pub deferred: bool,
}

impl Sense {
    /// RECOVERED ERROR: success, with a remark.
    pub const RECOVERED_ERROR: Self = Self::new(0x01, 0x17, 0x00);
    /// NOT READY, BECOMING READY.
    pub const BECOMING_READY: Self = Self::new(0x02, 0x04, 0x01);
    /// MEDIUM ERROR, UNRECOVERED READ ERROR.
    pub const UNRECOVERED_READ: Self = Self::new(0x03, 0x11, 0x00);
    /// HARDWARE ERROR, INTERNAL TARGET FAILURE.
    pub const INTERNAL_FAILURE: Self = Self::new(0x04, 0x44, 0x00);
    /// ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPCODE: Self = Self::new(0x05, 0x20, 0x00);
    /// ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const OUT_OF_RANGE: Self = Self::new(0x05, 0x21, 0x00);
    /// ILLEGAL REQUEST, INVALID FIELD IN CDB.
    pub const INVALID_FIELD: Self = Self::new(0x05, 0x24, 0x00);
    /// ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED.
    pub const NO_SUCH_LUN: Self = Self::new(0x05, 0x25, 0x00);
    /// ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_PARAMETER: Self = Self::new(0x05, 0x26, 0x00);
    /// ILLEGAL REQUEST, PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LENGTH: Self = Self::new(0x05, 0x1a, 0x00);
    /// UNIT ATTENTION, POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const RESET_OCCURRED: Self = Self::new(0x06, 0x29, 0x00);
    /// UNIT ATTENTION, BUS DEVICE RESET FUNCTION OCCURRED (a LUN reset).
    pub const LUN_RESET_OCCURRED: Self = Self::new(0x06, 0x29, 0x03);
    /// UNIT ATTENTION, CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: Self = Self::new(0x06, 0x2a, 0x09);
    /// UNIT ATTENTION, REPORTED LUNS DATA HAS CHANGED.
    pub const LUNS_CHANGED: Self = Self::new(0x06, 0x3f, 0x0e);
    /// DATA PROTECT, WRITE PROTECTED.
    pub const WRITE_PROTECTED: Self = Self::new(0x07, 0x27, 0x00);
    /// DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const NO_SPACE: Self = Self::new(0x07, 0x27, 0x07);
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE: Self = Self::new(0x0e, 0x1d, 0x00);

    /// A sense triple, in whatever format the target is configured for.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self {
            key,
            asc,
            ascq,
            descriptor: false,
            deferred: false,
        }
    }

    /// The same in descriptor format.
    #[must_use]
    pub const fn in_descriptor_format(self) -> Self {
        Self {
            descriptor: true,
            ..self
        }
    }

    /// The same as a deferred error: of an earlier command, while this one is not carried out.
    #[must_use]
    pub const fn deferred(self) -> Self {
        Self {
            deferred: true,
            ..self
        }
    }

    /// The sense data; response codes of SPC-5, "Sense data".
    pub(crate) fn encode(self, descriptor: bool) -> Vec<u8> {
        let deferred = u8::from(self.deferred);
        if descriptor || self.descriptor {
            return vec![0x72 + deferred, self.key, self.asc, self.ascq, 0, 0, 0, 0];
        }
        let mut data = vec![0; 18];
        crate::bytes::put(
            &mut data,
            0,
            &[0x70 + deferred, 0, self.key, 0, 0, 0, 0, 10],
        );
        crate::bytes::put(&mut data, 12, &[self.asc, self.ascq]);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_the_triple_where_each_format_has_it() {
        let fixed = Sense::MISCOMPARE.encode(false);
        assert_eq!(
            (fixed[0], fixed[2], fixed[12], fixed[13]),
            (0x70, 0x0e, 0x1d, 0)
        );
        assert_eq!(usize::from(fixed[7]) + 8, fixed.len());
        let descriptor = Sense::MISCOMPARE.in_descriptor_format().encode(false);
        assert_eq!(descriptor[..4], [0x72, 0x0e, 0x1d, 0]);
        assert_eq!(Sense::MISCOMPARE.deferred().encode(false)[0], 0x71);
        assert_eq!(Sense::MISCOMPARE.deferred().encode(true)[0], 0x73);
    }
}
