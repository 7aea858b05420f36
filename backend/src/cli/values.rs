//! Values of options. No message repeats the value: it may be a misplaced secret.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use iscsi_core::login::settings::DigestPreference;
use log::LevelFilter;

use crate::config::{
    MAX_IO_TIMEOUT, MAX_LOGIN_TIMEOUT, MAX_POLL_LIMIT, MAX_QUEUE_SIZE, MAX_REDISCOVER,
    MIN_CAPACITY_POLL, MIN_COMMAND_TIMEOUT, MIN_REDISCOVER, QueueSize, SandboxMode, Serial,
};
use crate::limits::{MAX_BURST_LENGTH_S, Unit};
use crate::secret::CredentialName;

/// `10s`, `1m 30s`, `500ms`: more than nothing, and at most an hour.
pub(super) fn parse_login_timeout(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| !time.is_zero() && *time <= MAX_LOGIN_TIMEOUT)
        .ok_or_else(|| "a time with its unit, more than 0 and at most 1h, such as 10s".to_owned())
}

/// From a tenth of a second to an hour.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3600);
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (SHORTEST..=LONGEST).contains(time))
        .ok_or_else(|| "a time with its unit, from 100ms to 1h, such as 2s".to_owned())
}

/// A time, or `None` for ever or never; a type of its own, for clap takes an `Option` for an option that may
/// be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OptionalTime(pub(super) Option<Duration>);

/// `forever`, `0`, or a time up to [`MAX_IO_TIMEOUT`].
pub(super) fn parse_io_timeout(text: &str) -> Result<OptionalTime, String> {
    let time = match text {
        "forever" => return Ok(OptionalTime(None)),
        "0" => Some(Duration::ZERO),
        _ => humantime::parse_duration(text).ok(),
    };
    let time = time.filter(|time| *time <= MAX_IO_TIMEOUT);
    time.map(|time| OptionalTime(Some(time)))
        .ok_or_else(|| "forever, 0, or a time with its unit, at most 1day, such as 2m".to_owned())
}

/// `forever`, or a time from [`MIN_COMMAND_TIMEOUT`] to [`MAX_IO_TIMEOUT`].
pub(super) fn parse_command_timeout(text: &str) -> Result<OptionalTime, String> {
    if text == "forever" {
        return Ok(OptionalTime(None));
    }
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (MIN_COMMAND_TIMEOUT..=MAX_IO_TIMEOUT).contains(time))
        .map(|time| OptionalTime(Some(time)))
        .ok_or_else(|| "forever, or a time with its unit, from 1s to 1day, such as 30s".to_owned())
}

/// A number, or `None` for no limit; a type of its own, as [`OptionalTime`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OptionalCount(pub(super) Option<u64>);

/// A rate in requests per second, or `none`.
pub(super) fn parse_requests_per_s(text: &str) -> Result<OptionalCount, String> {
    let (least, most) = Unit::Requests.bounds();
    let count = text.parse().ok();
    parse_rate(text, count, Unit::Requests)
        .ok_or_else(|| format!("a number of requests per second from {least} to {most}, or none"))
}

/// A rate in bytes per second, or `none`.
pub(super) fn parse_bytes_per_s(text: &str) -> Result<OptionalCount, String> {
    parse_rate(text, parse_size(text), Unit::Bytes).ok_or_else(|| {
        "a number of bytes per second, perhaps with a unit (KiB, MiB, GiB, or kB, MB, GB), from \
         4KiB to 1024GiB, such as 100MiB, or none"
            .to_owned()
    })
}

fn parse_rate(text: &str, count: Option<u64>, unit: Unit) -> Option<OptionalCount> {
    if text == "none" {
        return Some(OptionalCount(None));
    }
    let (least, most) = unit.bounds();
    let count = count.filter(|count| (least..=most).contains(count));
    count.map(|count| OptionalCount(Some(count)))
}

/// A whole number of bytes, or of a unit that is the same everywhere: not `M`.
fn parse_size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let of_unit = |(name, bytes): &(&str, u64)| Some((text.strip_suffix(name)?, *bytes));
    let (number, unit_bytes) = UNITS.iter().find_map(of_unit).unwrap_or((text, 1));
    let number = number.trim_end();
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    number.checked_mul(unit_bytes)
}

/// The length of a burst in whole seconds, as a time or as a number; or `none`.
pub(super) fn parse_seconds(text: &str) -> Result<OptionalCount, String> {
    if text == "none" {
        return Ok(OptionalCount(None));
    }
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds
        .or_else(|| humantime::parse_duration(text).ok())
        .filter(|time| time.subsec_nanos() == 0)
        .map(|time| time.as_secs())
        .filter(|seconds| (1..=MAX_BURST_LENGTH_S).contains(seconds))
        .map(|seconds| OptionalCount(Some(seconds)))
        .ok_or_else(|| "whole seconds from 1s to 1h, such as 10s, or none".to_owned())
}

/// `never`, or a time from [`MIN_CAPACITY_POLL`] to [`MAX_IO_TIMEOUT`].
pub(super) fn parse_capacity_poll(text: &str) -> Result<OptionalTime, String> {
    if text == "never" {
        return Ok(OptionalTime(None));
    }
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (MIN_CAPACITY_POLL..=MAX_IO_TIMEOUT).contains(time))
        .map(|time| OptionalTime(Some(time)))
        .ok_or_else(|| "never, or a time with its unit, from 1s to 1day, such as 5m".to_owned())
}

/// A time from [`MIN_REDISCOVER`] to [`MAX_REDISCOVER`].
pub(super) fn parse_rediscover(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (MIN_REDISCOVER..=MAX_REDISCOVER).contains(time))
        .ok_or_else(|| "a time with its unit, from 1s to 1day, such as 5m".to_owned())
}

/// The name of a credential; what it may be is said by its rule.
pub(super) fn parse_credential(text: &str) -> Result<CredentialName, String> {
    CredentialName::new(text).ok_or_else(|| CredentialName::RULE.to_owned())
}

/// A port of loopback, or an address with a port; IPv6 in brackets. Port 0 is any that is free.
pub(super) fn parse_metrics_address(text: &str) -> Result<SocketAddr, String> {
    let of_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let port = text.parse().ok().map(of_loopback);
    port.or_else(|| text.parse().ok()).ok_or_else(|| {
        "a port, or an IP address with a port, such as 9123, 192.0.2.1:9123 or [::1]:9123"
            .to_owned()
    })
}

/// The four ways to offer a digest.
pub(super) fn parse_digest(text: &str) -> Result<DigestPreference, String> {
    match text {
        "none" => Ok(DigestPreference::None),
        "crc32c" => Ok(DigestPreference::Crc32c),
        "prefer" => Ok(DigestPreference::Prefer),
        "avoid" => Ok(DigestPreference::Avoid),
        _ => Err("none, crc32c, prefer or avoid".to_owned()),
    }
}

/// The levels of the `log` crate.
pub(super) fn parse_level(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| "off, error, warn, info, debug or trace".to_owned())
}

/// The three ways to take the sandbox.
pub(super) fn parse_sandbox(text: &str) -> Result<SandboxMode, String> {
    match text {
        "enforce" => Ok(SandboxMode::Enforce),
        "log" => Ok(SandboxMode::Log),
        "off" => Ok(SandboxMode::Off),
        _ => Err("enforce, log or off".to_owned()),
    }
}

/// A power of two that a split ring may have.
pub(super) fn parse_queue_size(text: &str) -> Result<QueueSize, String> {
    let size = text.parse().ok().and_then(QueueSize::new);
    size.ok_or_else(|| format!("a power of two from 2 to {MAX_QUEUE_SIZE}"))
}

/// A number from 1 to 64: of queues, of sessions.
pub(super) fn parse_1_to_64(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=64).contains(number));
    number.ok_or_else(|| "a number from 1 to 64".to_owned())
}

/// A number of microseconds up to [`MAX_POLL_LIMIT`].
pub(super) fn parse_poll_limit(text: &str) -> Result<Duration, String> {
    let limit = text.parse().ok().map(Duration::from_micros);
    limit
        .filter(|limit| *limit <= MAX_POLL_LIMIT)
        .ok_or_else(|| {
            format!(
                "a number of microseconds up to {}",
                MAX_POLL_LIMIT.as_micros()
            )
        })
}

/// Permission bits in octal, as chmod takes them.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let is_octal = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| is_octal && *mode <= 0o777)
        .ok_or_else(|| "permission bits in octal, at most 0777, such as 0660".to_owned())
}

/// A file descriptor's number.
pub(super) fn parse_fd(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| "the number of an open file descriptor".to_owned())
}

/// What GET_ID can answer.
pub(super) fn parse_serial(text: &str) -> Result<Serial, String> {
    Serial::new(text).ok_or_else(|| {
        "1 to 20 printable ASCII characters without a blank at either end".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_at_loopback_unless_the_address_says_otherwise() {
        for (text, address) in [
            ("9123", "127.0.0.1:9123"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:65535", "[::1]:65535"),
        ] {
            assert_eq!(parse_metrics_address(text), Ok(address.parse().unwrap()));
        }
        for text in [
            "",
            "65536",
            "-1",
            "localhost:9123",
            "::1",
            "127.0.0.1",
            ":9123",
        ] {
            assert!(parse_metrics_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_login_timeout_has_a_unit_and_bounds() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1ms", 1),
            ("1m 30s", 90_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_login_timeout(text), Ok(Duration::from_millis(ms)));
        }
        for text in [
            "",
            "10",
            "0s",
            "-1s",
            "3601s",
            "1h 1ns",
            "ten",
            "99999999999999999999s",
        ] {
            assert!(parse_login_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_portal_is_asked_every_second_to_every_day() {
        for (text, seconds) in [("1s", 1), ("1m 30s", 90), ("1day", 86_400)] {
            assert_eq!(parse_rediscover(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "30", "0s", "999ms", "1day 1s", "never"] {
            assert!(parse_rediscover(text).is_err(), "{text}");
        }
    }

    #[test]
    fn there_are_1_to_64_queues_and_sessions() {
        assert_eq!(parse_1_to_64("1"), Ok(1));
        assert_eq!(parse_1_to_64("64"), Ok(64));
        for text in ["", "0", "65", "-1", "65537", "x"] {
            assert!(parse_1_to_64(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_sandbox_has_three_modes() {
        assert_eq!(parse_sandbox("enforce"), Ok(SandboxMode::Enforce));
        assert_eq!(parse_sandbox("log"), Ok(SandboxMode::Log));
        assert_eq!(parse_sandbox("off"), Ok(SandboxMode::Off));
        for text in ["", "on", "Enforce", "none"] {
            assert!(parse_sandbox(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_queue_size_is_a_power_of_two() {
        assert_eq!(parse_queue_size("128"), Ok(QueueSize::new(128).unwrap()));
        for text in ["", "1", "100", "65536", "x"] {
            assert!(parse_queue_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_has_bounds_and_bytes_have_units() {
        let iops = |text| parse_requests_per_s(text).map(|count| count.0);
        assert_eq!(iops("1"), Ok(Some(1)));
        assert_eq!(iops("10000000"), Ok(Some(10_000_000)));
        assert_eq!(iops("none"), Ok(None));
        for text in ["", "0", "10000001", "-1", "1k", "1.5", "forever"] {
            assert!(iops(text).is_err(), "{text}");
        }
        let bps = |text| parse_bytes_per_s(text).map(|count| count.0);
        for (text, bytes) in [
            ("4096", 4096),
            ("4KiB", 4096),
            ("100MiB", 100 << 20),
            ("100 MiB", 100 << 20),
            ("1024GiB", 1 << 40),
            ("5kB", 5000),
            ("5MB", 5_000_000),
            ("5GB", 5_000_000_000),
        ] {
            assert_eq!(bps(text), Ok(Some(bytes)), "{text}");
        }
        assert_eq!(bps("none"), Ok(None));
        for text in [
            "",
            "0",
            "4095",
            "3KiB",
            "1025GiB",
            "100M",
            "100K",
            "MiB",
            "-1MiB",
            "+9999",
            "1.5MiB",
            "99999999999999GiB",
            "18446744073709551616",
        ] {
            assert!(bps(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_length_of_a_burst_is_in_whole_seconds() {
        let seconds = |text| parse_seconds(text).map(|count| count.0);
        for (text, length) in [
            ("1", 1),
            ("1s", 1),
            ("2m", 120),
            ("1h", 3600),
            ("3600", 3600),
        ] {
            assert_eq!(seconds(text), Ok(Some(length)), "{text}");
        }
        assert_eq!(seconds("none"), Ok(None));
        for text in ["", "0", "0s", "1500ms", "3601", "1h 1s", "-1", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mode_is_octal_without_special_bits() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("777"), Ok(0o777));
        assert_eq!(parse_mode("0"), Ok(0));
        for text in ["", "1777", "1000", "0o660", "+660", "u=rw", "668", "-1"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_descriptor_is_not_negative() {
        assert_eq!(parse_fd("0"), Ok(0));
        assert_eq!(parse_fd("2147483647"), Ok(i32::MAX));
        for text in ["", "-1", "2147483648", "x"] {
            assert!(parse_fd(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_message_repeats_the_value() {
        let value = "me%hunter2@h";
        let messages = [
            parse_login_timeout(value).unwrap_err(),
            parse_digest(value).unwrap_err(),
            parse_level(value).unwrap_err(),
            parse_sandbox(value).unwrap_err(),
            parse_queue_size(value).unwrap_err(),
            parse_1_to_64(value).unwrap_err(),
            parse_mode(value).unwrap_err(),
            parse_fd(value).unwrap_err(),
            parse_serial("me%hunter2@h is too long for it").unwrap_err(),
            parse_requests_per_s(value).unwrap_err(),
            parse_bytes_per_s(value).unwrap_err(),
            parse_seconds(value).unwrap_err(),
        ];
        assert!(messages.iter().all(|message| !message.contains("hunter2")));
    }
}
