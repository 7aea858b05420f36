//! Numbers for people.

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes, with its size in a binary unit where it is large: `65536 bytes (64 KiB)`.
/// What does not divide evenly is cut to a tenth: `(1.5 KiB)`.
pub(super) fn bytes(count: u64) -> String {
    match in_binary_unit(count) {
        None => format!("{count} bytes"),
        Some(size) => format!("{count} bytes ({size})"),
    }
}

/// The size in the largest unit that it reaches: `64 KiB`, `512 bytes`.
pub(super) fn size(count: u64) -> String {
    in_binary_unit(count).unwrap_or_else(|| format!("{count} bytes"))
}

/// `1 queue`, `2 queues`.
pub(super) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// The size in the largest unit that it reaches; `None` below 1 KiB.
fn in_binary_unit(count: u64) -> Option<String> {
    let (unit_bytes, name) = (1..)
        .zip(UNITS)
        .map(|(power, name)| (1_u64 << (10 * power), name))
        .take_while(|(unit_bytes, _)| count >= *unit_bytes)
        .last()?;
    let tenths = u128::from(count) * 10 / u128::from(unit_bytes);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    Some(match tenth {
        0 => format!("{whole} {name}"),
        _ => format!("{whole}.{tenth} {name}"),
    })
}

/// `yes` or `no`.
pub(super) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Hexadecimal digits, two for each byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_bytes_in_the_largest_unit_that_they_reach() {
        for (count, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1024 bytes (1 KiB)"),
            (1536, "1536 bytes (1.5 KiB)"),
            ((1 << 20) - 1, "1048575 bytes (1023.9 KiB)"),
            (1 << 40, "1099511627776 bytes (1 TiB)"),
            (u64::MAX, "18446744073709551615 bytes (15.9 EiB)"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
