//! QEMU's command line: words as a shell splits them, options as `key=value,…` or JSON.

use std::collections::BTreeMap;

use serde_json::Value;
use zeroize::Zeroizing;

use super::found::Place;
use super::source::Source;
use crate::exit::Failure;

/// How deep JSON may be; QEMU's own trees of block devices are a few deep.
const MAX_JSON_DEPTH: usize = 16;

/// A word and the line that it begins in.
pub(super) struct Word {
    /// The word.
    pub(super) text: String,
    /// Where it stood.
    pub(super) place: Place,
}

/// Splits a text into words, as a shell does: quotes, backslashes, comments, continued lines.
pub(super) fn words(source: &Source) -> Result<Vec<Word>, Failure> {
    let text = with_blanks_before_newlines(&source.text);
    let mut shell = shlex::Shlex::new(&text);
    let mut words = Vec::new();
    // The line is that of a word's end, and a word may have several.
    while let Some(text) = shell.next() {
        let lines = text.matches('\n').count();
        let line = shell.line_no.saturating_sub(lines).max(1);
        let place = source.at(line);
        words.push(Word { text, place });
    }
    match shell.had_error {
        true => Err(source
            .at(shell.line_no)
            .failure("a quotation mark without its counterpart")),
        false => Ok(words),
    }
}

/// A newline that ends a word counts as read when the word is returned; a blank does not.
fn with_blanks_before_newlines(text: &str) -> Zeroizing<String> {
    let mut blanked = Zeroizing::new(String::with_capacity(text.len() * 2));
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) if !line.ends_with('\\') => {
                blanked.push_str(line);
                blanked.push_str(" \n");
            }
            _ => blanked.push_str(line),
        }
    }
    blanked
}

/// Options by their full names: `file.driver` is that of the `file`.
pub(super) type Options = BTreeMap<String, String>;

/// Reads options; the first may stand without a key, which is `implied` then.
pub(super) fn options(word: &Word, implied: &str) -> Result<Options, Failure> {
    if word.text.trim_start().starts_with('{') {
        return json(&word.text, &word.place);
    }
    let mut options = Options::new();
    for (index, item) in split_commas(&word.text).into_iter().enumerate() {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if index == 0 => (implied.to_owned(), item),
            // A switch.
            None => (item, "on".to_owned()),
        };
        options.insert(key, value);
    }
    expand_json_file(options, &word.place)
}

/// Splits at commas; two of them are one in a value.
fn split_commas(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let is_double = c == ',' && characters.peek() == Some(&',');
        if is_double {
            characters.next();
        }
        match items.last_mut() {
            Some(item) if c != ',' || is_double => item.push(c),
            _ => items.push(String::new()),
        }
    }
    items
}

/// `file=json:{…}` is another way to write `file.driver=…`.
fn expand_json_file(mut options: Options, place: &Place) -> Result<Options, Failure> {
    let json_file = options
        .get("file")
        .and_then(|file| file.strip_prefix("json:"));
    if let Some(text) = json_file {
        let inner = json(text, place)?;
        options.remove("file");
        let inner = inner.into_iter();
        options.extend(inner.map(|(key, value)| (format!("file.{key}"), value)));
    }
    Ok(options)
}

fn json(text: &str, place: &Place) -> Result<Options, Failure> {
    // The message of the parser says where, not what.
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        place.failure(&format!(
            "this JSON cannot be read (its line {line}, column {column})"
        ))
    })?;
    let mut options = Options::new();
    flatten("", &value, 0, &mut options);
    Ok(options)
}

fn flatten(prefix: &str, value: &Value, depth: usize, options: &mut Options) {
    let text = match value {
        Value::Object(members) if depth < MAX_JSON_DEPTH => {
            for (key, value) in members {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, depth + 1, options);
            }
            return;
        }
        Value::String(text) => text.clone(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return,
    };
    options.insert(prefix.to_owned(), text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(text: &str) -> Vec<(String, String)> {
        let source: std::rc::Rc<str> = "f".into();
        let word = Word {
            text: text.to_owned(),
            place: Place { source, line: 1 },
        };
        options(&word, "driver").unwrap().into_iter().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn options_are_split_at_single_commas() {
        let expected = pairs(&[
            ("driver", "iscsi"),
            ("lun", "1"),
            ("user", "a,b"),
            ("x", "on"),
        ]);
        assert_eq!(options_of("iscsi,lun=1,user=a,,b,x"), expected);
    }

    #[test]
    fn json_means_the_same_as_dotted_keys() {
        let expected = pairs(&[
            ("driver", "raw"),
            ("file.driver", "iscsi"),
            ("file.lun", "2"),
        ]);
        let forms = [
            "raw,file.driver=iscsi,file.lun=2",
            "{\"driver\": \"raw\", \"file\": {\"driver\": \"iscsi\", \"lun\": 2}}",
            "raw,file=json:{\"driver\": \"iscsi\",, \"lun\": 2}",
        ];
        for form in forms {
            assert_eq!(options_of(form), expected, "{form}");
        }
    }
}
