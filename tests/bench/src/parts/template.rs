//! The peer's command line, with names in braces for what differs from run to run.

use crate::failure::Failure;

/// Fills `template` in and takes it apart at blanks; there is no quoting.
///
/// # Errors
/// When it is empty or has a name in braces that is not among `values`.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> Result<Vec<String>, Failure> {
    let words = template
        .split_whitespace()
        .map(|word| fill_word(word, values));
    let words: Vec<String> = words.collect::<Result<_, _>>()?;
    if words.is_empty() {
        return Err(Failure::usage("the peer's command is empty"));
    }
    Ok(words)
}

fn fill_word(word: &str, values: &[(&str, &str)]) -> Result<String, Failure> {
    let mut filled = String::new();
    let mut rest = word;
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, behind) = behind
            .split_once('}')
            .ok_or_else(|| Failure::usage(format!("no closing brace in {word:?}")))?;
        let value = values.iter().find(|(known, _)| *known == name);
        let known = || {
            values
                .iter()
                .map(|(known, _)| format!("{{{known}}}"))
                .collect::<Vec<_>>()
        };
        let (_, value) = value.ok_or_else(|| {
            Failure::usage(format!(
                "{{{name}}} is unknown; there are {}",
                known().join(" ")
            ))
        })?;
        filled.push_str(before);
        filled.push_str(value);
        rest = behind;
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_after_the_words_are_apart() {
        let words = fill("peer {a},x={b}  --flag", &[("a", "one two"), ("b", "{a}")]).unwrap();
        assert_eq!(words, ["peer", "one two,x={a}", "--flag"]);
    }

    #[test]
    fn unknown_names_and_open_braces_are_refused() {
        for template in ["", "peer {c}", "peer {a"] {
            assert!(fill(template, &[("a", "1")]).is_err(), "{template}");
        }
    }
}
