//! Text of others (targets, users) made safe to print: one line, and nothing a terminal obeys.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces control characters, line separators and characters that turn the direction of
/// writing by Rust's escapes (`\n`, `\u{1b}`); everything else is passed through.
///
/// For showing to people. It cannot be undone, since a backslash is not escaped.
pub fn escape_control_characters(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe_to_print) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe_to_print(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Makes JSON safe to print, without a change of what it means.
///
/// serde_json leaves DEL, C1 control characters and the like as they are, which a terminal may
/// obey; all of them can only be inside strings, where an escape means the same. Newlines between the
/// parts of a document stay.
pub fn escape_json(json: &str) -> String {
    let mut document = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            '\n' => document.push(c),
            c if is_unsafe_to_print(c) => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    let _ = write!(document, "\\u{unit:04x}");
                });
            }
            c => document.push(c),
        }
    }
    document
}

/// Whether a terminal or a reader of logs would obey the character instead of showing it.
pub fn is_unsafe_to_print(c: char) -> bool {
    let separates_lines = matches!(c, '\u{2028}' | '\u{2029}');
    let turns_direction = matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || separates_lines || turns_direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_ordinary_text_alone() {
        for text in ["", "VIRTUAL-DISK", "C:\\disk", "é 日本"] {
            assert_eq!(escape_control_characters(text), text);
        }
    }

    #[test]
    fn escapes_what_a_terminal_or_a_log_reader_would_obey() {
        for (text, escaped) in [
            ("a\nb", "a\\nb"),
            ("a\r\tb", "a\\r\\tb"),
            ("\x1b]0;x\x07", "\\u{1b}]0;x\\u{7}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\0", "\\u{0}"),
            ("x\u{202e}y\u{2028}", "x\\u{202e}y\\u{2028}"),
        ] {
            assert_eq!(escape_control_characters(text), escaped);
        }
    }
}
