//! What a verb prints, compared with a file in the repository, with whatever is different each time
//! replaced.

use std::path::Path;
use std::{env, fs};

/// Replaces times, ages, hexadecimal session identifiers, and the `volatile` texts by their names.
pub fn stable(text: &str, volatile: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (value, name) in volatile {
        text = text.replace(value, name);
    }
    let lines = text.lines().map(|line| ages(&times(line)));
    lines.map(|line| line + "\n").collect()
}

/// `2026-11-25T16:30:08.123Z` is `TIME`.
fn times(line: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let fits = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() > SHAPE.len()
            && bytes.iter().zip(SHAPE).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                shape => byte == shape,
            })
    };
    let mut stable = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let end = rest.find('Z').filter(|_| fits(rest));
        let (length, shown) = match end {
            Some(end) => (end + 1, "TIME".to_owned()),
            None => (c.len_utf8(), c.to_string()),
        };
        stable.push_str(&shown);
        rest = rest.get(length..).unwrap_or_default();
    }
    stable
}

/// `(5m 3s ago)` and `for 5m 3s` are without the number.
fn ages(line: &str) -> String {
    let mut stable = String::new();
    for (index, part) in line.split("(").enumerate() {
        let part = match part.split_once(" ago)") {
            Some((_, rest)) => format!("AGE ago){rest}"),
            None => part.to_owned(),
        };
        stable.push_str(if index == 0 { "" } else { "(" });
        stable.push_str(&part);
    }
    match stable.split_once(" for ") {
        Some((before, after)) if after.starts_with(|c: char| c.is_ascii_digit()) => {
            let rest = after.find(',').and_then(|comma| after.get(comma..));
            format!("{before} for AGE{}", rest.unwrap_or_default())
        }
        _ => stable,
    }
}

/// Compares with `tests/tests/snapshots/NAME`; with `UPDATE_SNAPSHOTS` set it is written instead.
///
/// # Panics
/// When they differ.
pub fn assert_matches(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(name);
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, text).expect("a snapshot");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        expected,
        "{} (UPDATE_SNAPSHOTS=1 writes it anew)",
        path.display()
    );
}
