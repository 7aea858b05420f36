//! 32-bit serial numbers: CmdSN, StatSN, DataSN and R2TSN (RFC 7143 section 4.2.2, RFC 1982).

/// A 32-bit serial number that wraps.
///
/// RFC 7143 section 4.2.2.1: "the comparisons and arithmetic on CmdSN use Serial Number
/// Arithmetic as defined in RFC 1982 where SERIAL_BITS = 32". There is no total order, hence no
/// `Ord`: two numbers 2^31 apart are neither before nor after each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SerialNumber(pub u32);

impl SerialNumber {
    /// The number `count` steps later.
    #[must_use]
    pub fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// The next number.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// Whether `self` comes before `other` (RFC 1982 section 3.2).
    pub fn is_before(self, other: Self) -> bool {
        let distance = other.0.wrapping_sub(self.0);
        distance != 0 && distance < 1 << 31
    }

    /// Whether `self` comes before `other` or equals it.
    pub fn is_at_or_before(self, other: Self) -> bool {
        self == other || self.is_before(other)
    }

    /// How many steps lead from `earlier` to `self`, counted forwards.
    pub fn steps_after(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SerialNumber as Sn;

    #[test]
    fn the_order_survives_the_wrap() {
        assert!(Sn(u32::MAX).is_before(Sn(0)));
        assert!(Sn(u32::MAX - 5).is_before(Sn(7)));
        assert!(!Sn(7).is_before(Sn(u32::MAX - 5)));
    }

    #[test]
    fn numbers_half_the_circle_apart_have_no_order() {
        assert!(!Sn(0).is_before(Sn(1 << 31)));
        assert!(!Sn(1 << 31).is_before(Sn(0)));
        assert!(Sn(0).is_before(Sn((1 << 31) - 1)));
    }

    #[test]
    fn steps_count_across_the_wrap() {
        assert_eq!(Sn(2).steps_after(Sn(u32::MAX)), 3);
        assert_eq!(Sn(u32::MAX).plus(3), Sn(2));
    }
}
