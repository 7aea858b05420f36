//! Loads by name, as `read-4k` or `write-1m`.

use std::str::FromStr;

use crate::client::{Operation, Order, SECTOR_BYTES};

/// From this length on, requests follow each other; shorter ones are random.
const SEQUENTIAL_FROM_BYTES: u32 = 64 << 10;

/// What a load does, without how much of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadName {
    /// What is done.
    pub(crate) operation: Operation,
    /// Where.
    pub(crate) order: Order,
    /// Length of each request.
    pub(crate) request_bytes: u32,
}

impl FromStr for LoadName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: expected read, write or mixed, and a length: read-4k");
        let (operation, length) = text.split_once('-').ok_or_else(wrong)?;
        let operation = match operation {
            "read" => Operation::Read,
            "write" => Operation::Write,
            "mixed" => Operation::Mixed,
            _ => return Err(wrong()),
        };
        let request_bytes = parse_length(length).ok_or_else(wrong)?;
        let order = if request_bytes < SEQUENTIAL_FROM_BYTES {
            Order::Random
        } else {
            Order::Sequential
        };
        Ok(Self {
            operation,
            order,
            request_bytes,
        })
    }
}

/// `4k`, `1m`, or bytes; a multiple of a sector, at most 16 MiB.
fn parse_length(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let unit = [('k', 10), ('m', 20)].into_iter();
    let mut unit = unit.filter_map(|(letter, shift)| Some((lower.strip_suffix(letter)?, shift)));
    let (digits, shift) = unit.next().unwrap_or((&lower, 0));
    let bytes = digits.parse::<u32>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0 && bytes <= 16 << 20 && bytes % SECTOR_BYTES == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_are_random_and_large_ones_sequential() {
        let small: LoadName = "mixed-4k".parse().unwrap();
        assert_eq!(
            (small.operation, small.order, small.request_bytes),
            (Operation::Mixed, Order::Random, 4096)
        );
        let large: LoadName = "write-1M".parse().unwrap();
        assert_eq!(
            (large.operation, large.order, large.request_bytes),
            (Operation::Write, Order::Sequential, 1 << 20)
        );
    }

    #[test]
    fn what_is_no_load_is_refused() {
        for text in [
            "read",
            "erase-4k",
            "read-",
            "read-0",
            "read-100",
            "read-32m",
            "read-5000m",
        ] {
            assert!(text.parse::<LoadName>().is_err(), "{text}");
        }
    }
}
