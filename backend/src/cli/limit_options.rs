//! The options of limits: three for each of six rates, named as in QEMU. Serving has them, and the verb
//! `limits`.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use super::values::{OptionalCount, parse_bytes_per_s, parse_requests_per_s, parse_seconds};
use crate::exit::Failure;
use crate::limits::{Limits, Rate};

/// What was given, which may not fit together.
#[derive(Clone, Debug, Default)]
pub(super) struct LimitArgs {
    rates: [Given; RATES.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Given {
    per_s: Option<u64>,
    max_per_s: Option<u64>,
    max_length_s: Option<u64>,
}

/// A rate's options.
struct RateOptions {
    per_s: &'static str,
    max: &'static str,
    max_length: &'static str,
    help: &'static str,
    parse: fn(&str) -> Result<OptionalCount, String>,
}

/// In the order of [`LimitArgs::limits`].
const RATES: [RateOptions; 6] = [
    RateOptions {
        per_s: "iops-total",
        max: "iops-total-max",
        max_length: "iops-total-max-length",
        help: "The most requests per second, or none",
        parse: parse_requests_per_s,
    },
    RateOptions {
        per_s: "iops-read",
        max: "iops-read-max",
        max_length: "iops-read-max-length",
        help: "The most reads per second, or none",
        parse: parse_requests_per_s,
    },
    RateOptions {
        per_s: "iops-write",
        max: "iops-write-max",
        max_length: "iops-write-max-length",
        help: "The most writes, discards and write zeroes per second, or none",
        parse: parse_requests_per_s,
    },
    RateOptions {
        per_s: "bps-total",
        max: "bps-total-max",
        max_length: "bps-total-max-length",
        help: "The most bytes per second, such as 100MiB, or none",
        parse: parse_bytes_per_s,
    },
    RateOptions {
        per_s: "bps-read",
        max: "bps-read-max",
        max_length: "bps-read-max-length",
        help: "The most bytes read per second, or none",
        parse: parse_bytes_per_s,
    },
    RateOptions {
        per_s: "bps-write",
        max: "bps-write-max",
        max_length: "bps-write-max-length",
        help: "The most bytes written per second, or none",
        parse: parse_bytes_per_s,
    },
];

const HEADING: &str = "Limits";

impl LimitArgs {
    /// Whether none was given.
    pub(super) fn is_empty(&self) -> bool {
        self.rates.iter().all(|given| *given == Given::default())
    }

    /// Checks them.
    pub(super) fn limits(&self) -> Result<Limits, Failure> {
        for (given, options) in self.rates.iter().zip(&RATES) {
            let of_nothing = given.max_per_s.map(|_| options.max);
            let of_nothing = of_nothing.or(given.max_length_s.map(|_| options.max_length));
            if let (None, Some(option)) = (given.per_s, of_nothing) {
                let message = format!("--{option} needs --{}, of which it is more", options.per_s);
                return Err(Failure::usage(message));
            }
        }
        let checked = self.limits_given().checked();
        checked.map_err(|error| Failure::usage(error.to_string()))
    }

    fn limits_given(&self) -> Limits {
        let rate = |given: Given| {
            given.per_s.map(|per_s| Rate {
                per_s,
                max_per_s: given.max_per_s,
                max_length_s: given.max_length_s,
            })
        };
        let [
            iops_total,
            iops_read,
            iops_write,
            bps_total,
            bps_read,
            bps_write,
        ] = self.rates.map(rate);
        Limits {
            iops_total,
            iops_read,
            iops_write,
            bps_total,
            bps_read,
            bps_write,
        }
    }
}

fn arguments() -> impl Iterator<Item = Arg> {
    RATES.iter().flat_map(|rate| {
        let option = |name: &'static str, value: &'static str, help: String| {
            let arg = Arg::new(name).long(name).value_name(value).help(help);
            arg.help_heading(HEADING)
        };
        let per_s = option(rate.per_s, "N", rate.help.to_owned());
        let max = format!("As much in a burst, when less than {} was used", rate.per_s);
        let max = option(rate.max, "N", max);
        let length = format!("How long {} may last: 1s, or a time up to 1h", rate.max);
        let length = option(rate.max_length, "TIME", length);
        [
            per_s.value_parser(rate.parse),
            max.value_parser(rate.parse),
            length.value_parser(parse_seconds),
        ]
    })
}

impl Args for LimitArgs {
    fn augment_args(command: Command) -> Command {
        command.args(arguments())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LimitArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut arguments = Self::default();
        arguments.update_from_arg_matches(matches)?;
        Ok(arguments)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        let value = |name: &str| {
            let value = matches.get_one::<OptionalCount>(name);
            value.and_then(|count| count.0)
        };
        for (given, options) in self.rates.iter_mut().zip(&RATES) {
            *given = Given {
                per_s: value(options.per_s),
                max_per_s: value(options.max),
                max_length_s: value(options.max_length),
            };
        }
        Ok(())
    }
}
