//! The limits of a disk: how many requests and bytes per second its guest may have. Plain data, as it is
//! configured, said over the control socket and shown; `engine::throttle` holds them.
//!
//! Names and meaning are those of QEMU's `throttling.*`, which libvirt's `<iotune>` sets for other disks.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most requests per second that can be asked for: more than a disk does.
pub const MAX_REQUESTS_PER_S: u64 = 10_000_000;

/// The fewest bytes per second: a page. With less, one large request would hold its ring for days.
pub const MIN_BYTES_PER_S: u64 = 4096;

/// The most bytes per second that can be asked for.
pub const MAX_BYTES_PER_S: u64 = 1 << 40;

/// The longest burst, in seconds.
pub const MAX_BURST_LENGTH_S: u64 = 3600;

/// What a disk is limited to; without one there is no limit. A total excludes those of reads and writes
/// beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests of any kind.
    #[serde(default)]
    pub iops_total: Option<Rate>,
    /// Reads.
    #[serde(default)]
    pub iops_read: Option<Rate>,
    /// Writes, discards and write zeroes.
    #[serde(default)]
    pub iops_write: Option<Rate>,
    /// Bytes in both directions.
    #[serde(default)]
    pub bps_total: Option<Rate>,
    /// Bytes read.
    #[serde(default)]
    pub bps_read: Option<Rate>,
    /// Bytes written.
    #[serde(default)]
    pub bps_write: Option<Rate>,
}

/// So many a second, requests or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// On average.
    pub per_s: u64,
    /// In a burst, after less was asked for than there may be.
    #[serde(default)]
    pub max_per_s: Option<u64>,
    /// How long a burst may take at `max_per_s`, in seconds; one unless it is said.
    #[serde(default)]
    pub max_length_s: Option<u64>,
}

/// The limits of a disk by its name: what the verb `limits` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimits {
    /// What people call it.
    pub name: String,
    /// What it is limited to now.
    pub limits: Limits,
}

/// Why limits cannot be set. Names are those of the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// A total beside one of its parts.
    #[error(
        "{unit}-total is a limit of reads and writes together: it excludes {unit}-read and {unit}-write"
    )]
    TotalAndParts {
        /// `iops` or `bps`.
        unit: &'static str,
    },
    /// A rate that is none, or absurd.
    #[error("{name} is a number from {least} to {most}; to have no limit, leave it out")]
    Rate {
        /// The option.
        name: &'static str,
        /// The least that it may be.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A burst that is slower than the average, or absurd.
    #[error("{name}-max is a number from {name} itself, {least}, to {most}")]
    Max {
        /// The option that it belongs to.
        name: &'static str,
        /// The least that it may be.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A burst without length, or without end.
    #[error("{name}-max-length is a number of seconds from 1 to {MAX_BURST_LENGTH_S}")]
    Length {
        /// The option that it belongs to.
        name: &'static str,
    },
    /// A length of nothing.
    #[error("{name}-max-length needs {name}-max, of which it is the length")]
    LengthOfNothing {
        /// The option that it belongs to.
        name: &'static str,
    },
}

impl Limits {
    /// Each with the name of its option, and its unit.
    pub fn named(&self) -> [(&'static str, Unit, Option<Rate>); 6] {
        [
            ("iops-total", Unit::Requests, self.iops_total),
            ("iops-read", Unit::Requests, self.iops_read),
            ("iops-write", Unit::Requests, self.iops_write),
            ("bps-total", Unit::Bytes, self.bps_total),
            ("bps-read", Unit::Bytes, self.bps_read),
            ("bps-write", Unit::Bytes, self.bps_write),
        ]
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Checks them, and says what was left open.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn checked(mut self) -> Result<Self, LimitsError> {
        for (unit, total, parts) in [
            ("iops", self.iops_total, [self.iops_read, self.iops_write]),
            ("bps", self.bps_total, [self.bps_read, self.bps_write]),
        ] {
            if total.is_some() && parts.iter().any(Option::is_some) {
                return Err(LimitsError::TotalAndParts { unit });
            }
        }
        for (name, unit, rate) in self.named() {
            rate.map_or(Ok(()), |rate| rate.check(name, unit))?;
        }
        self.rates_mut().into_iter().flatten().for_each(|rate| {
            rate.max_length_s = rate.max_per_s.map(|_| rate.burst_length_s());
        });
        Ok(self)
    }

    fn rates_mut(&mut self) -> [&mut Option<Rate>; 6] {
        [
            &mut self.iops_total,
            &mut self.iops_read,
            &mut self.iops_write,
            &mut self.bps_total,
            &mut self.bps_read,
            &mut self.bps_write,
        ]
    }
}

impl fmt::Display for Limits {
    /// `iops-total 500 (2000 for 10 s), bps-read 1048576`, or `none`: for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.named().into_iter();
        let set = set.filter_map(|(name, _, rate)| Some((name, rate?)));
        for (index, (name, rate)) in set.enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name} {}", rate.per_s)?;
            if let Some(max_per_s) = rate.max_per_s {
                write!(f, " ({max_per_s} for {} s)", rate.burst_length_s())?;
            }
        }
        if self.is_none() {
            f.write_str("none")
        } else {
            Ok(())
        }
    }
}

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The least and the most per second.
    pub fn bounds(self) -> (u64, u64) {
        match self {
            Self::Requests => (1, MAX_REQUESTS_PER_S),
            Self::Bytes => (MIN_BYTES_PER_S, MAX_BYTES_PER_S),
        }
    }
}

impl Rate {
    /// A rate without burst.
    pub fn of(per_s: u64) -> Self {
        Self {
            per_s,
            max_per_s: None,
            max_length_s: None,
        }
    }

    /// How long a burst may take, in seconds.
    pub fn burst_length_s(&self) -> u64 {
        self.max_length_s.unwrap_or(1)
    }

    fn check(&self, name: &'static str, unit: Unit) -> Result<(), LimitsError> {
        let (least, most) = unit.bounds();
        if !(least..=most).contains(&self.per_s) {
            return Err(LimitsError::Rate { name, least, most });
        }
        let least = self.per_s;
        match (self.max_per_s, self.max_length_s) {
            (Some(max), _) if !(least..=most).contains(&max) => {
                Err(LimitsError::Max { name, least, most })
            }
            (None, Some(_)) => Err(LimitsError::LengthOfNothing { name }),
            (Some(_), Some(length)) if !(1..=MAX_BURST_LENGTH_S).contains(&length) => {
                Err(LimitsError::Length { name })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iops(rate: Rate) -> Limits {
        Limits {
            iops_total: Some(rate),
            ..Limits::default()
        }
    }

    #[test]
    fn each_bound_holds_on_both_sides() {
        let bps = |per_s| Limits {
            bps_read: Some(Rate::of(per_s)),
            ..Limits::default()
        };
        let burst = |max, length| {
            iops(Rate {
                per_s: 10,
                max_per_s: Some(max),
                max_length_s: length,
            })
        };
        for (good, bad) in [
            (iops(Rate::of(1)), iops(Rate::of(0))),
            (iops(Rate::of(10_000_000)), iops(Rate::of(10_000_001))),
            (bps(4096), bps(4095)),
            (bps(1 << 40), bps((1 << 40) + 1)),
            (burst(10, None), burst(9, None)),
            (burst(10_000_000, None), burst(10_000_001, None)),
            (burst(20, Some(1)), burst(20, Some(0))),
            (burst(20, Some(3600)), burst(20, Some(3601))),
        ] {
            assert!(good.checked().is_ok(), "{good:?}");
            assert!(bad.checked().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_total_excludes_its_parts_and_no_others() {
        let rate = Some(Rate::of(5000));
        let mut limits = Limits {
            iops_total: rate,
            bps_read: rate,
            bps_write: rate,
            ..Limits::default()
        };
        assert_eq!(limits.checked(), Ok(limits));
        limits.iops_write = rate;
        let unit = "iops";
        assert_eq!(limits.checked(), Err(LimitsError::TotalAndParts { unit }));
        let limits = Limits {
            bps_total: rate,
            bps_read: rate,
            ..Limits::default()
        };
        assert!(limits.checked().is_err());
    }

    #[test]
    fn a_burst_lasts_a_second_unless_it_is_said_and_a_length_needs_a_burst() {
        let checked = iops(Rate {
            max_per_s: Some(20),
            ..Rate::of(10)
        })
        .checked()
        .unwrap();
        assert_eq!(checked.iops_total.unwrap().max_length_s, Some(1));
        let name = "iops-total";
        let alone = iops(Rate {
            max_length_s: Some(2),
            ..Rate::of(10)
        });
        assert_eq!(alone.checked(), Err(LimitsError::LengthOfNothing { name }));
    }

    #[test]
    fn what_is_not_known_is_no_limit() {
        let read = serde_json::from_str::<Limits>;
        assert_eq!(read("{}").unwrap(), Limits::default());
        let limits = read(r#"{"iops_total":{"per_s":7}}"#).unwrap();
        assert_eq!(limits, iops(Rate::of(7)));
        for text in [
            r#"{"iops":{"per_s":7}}"#,
            r#"{"iops_total":{"per_s":7,"max":8}}"#,
            r#"{"iops_total":{}}"#,
            r#"{"iops_total":{"per_s":-1}}"#,
            r#"{"iops_total":7}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
