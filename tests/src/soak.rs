//! What a long run (`tests/soak`) asks of a test, and what the test tells it.

use std::env;
use std::time::Duration;

/// How often a test is to do its thing: what the environment variable says, else `usual`.
///
/// # Panics
/// When the variable is not a number above zero.
pub fn times(variable: &str, usual: u64) -> u64 {
    let Ok(value) = env::var(variable) else {
        return usual;
    };
    let times = value.parse().ok().filter(|times| *times > 0);
    times.unwrap_or_else(|| panic!("{variable}={value}: a number above zero is wanted"))
}

/// Prints a line that `tests/soak` reads: names and numbers. Names that begin with `longest` are the
/// largest of their kind there, all others add up.
#[allow(clippy::print_stdout, reason = "the line is for a script to read")]
pub fn report(counts: &[(&str, u64)]) {
    let counts: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    println!("soak: {}", counts.join(" "));
}

/// As [`report`] has it.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
