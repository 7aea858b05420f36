//! What `reload`, `add` and `remove` have come to, for people and for scripts.

use std::io::Write;

use super::{print, to_json};
use crate::changes::Changes;
use crate::escape::escape_control_characters;
use crate::exit::{ExitCode, Failure};

/// Shows what has changed; a failure when that is not all that was wanted.
pub(super) fn show(changes: &Changes, is_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let text = match is_json {
        true => to_json(changes)?,
        false => render(changes),
    };
    print(out, &text)?;
    verdict(changes)
}

fn render(changes: &Changes) -> String {
    let lines = match changes.problems.as_slice() {
        [] => changes.lines(),
        problems => problems.to_vec(),
    };
    let lines = lines.iter().map(|line| escape_control_characters(line));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    if text.is_empty() {
        return "nothing has changed\n".to_owned();
    }
    text
}

fn verdict(changes: &Changes) -> Result<(), Failure> {
    match (changes.problems.len(), changes.failed.len()) {
        (0, 0) => Ok(()),
        (0, failed) => {
            let message = format!("{failed} of the disks cannot be served now");
            Err(Failure::new(ExitCode::Other, message))
        }
        (problems, _) => Err(Failure::usage(format!(
            "{problems} problems in all; nothing has changed"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::NamedReason;

    fn shown(changes: &Changes) -> (String, Result<(), Failure>) {
        let mut out = Vec::new();
        let result = show(changes, false, &mut out);
        (String::from_utf8(out).unwrap(), result)
    }

    #[test]
    fn what_is_wrong_is_all_that_is_said_then() {
        let changes = Changes {
            problems: vec!["config.toml:3: a\u{1b}".to_owned()],
            ..Changes::default()
        };
        let (text, result) = shown(&changes);
        assert_eq!(text, "config.toml:3: a\\u{1b}\n");
        assert_eq!(result.unwrap_err().code, ExitCode::Usage);
    }

    #[test]
    fn a_disk_that_is_kept_is_no_failure_and_one_that_is_not_served_is() {
        let (text, result) = shown(&Changes::default());
        assert_eq!((text.as_str(), result), ("nothing has changed\n", Ok(())));
        let mut changes = Changes {
            kept: vec![NamedReason::new("a", "a guest uses it")],
            ..Changes::default()
        };
        assert!(shown(&changes).1.is_ok());
        changes.failed = vec![NamedReason::new("b", "no")];
        let (text, result) = shown(&changes);
        assert!(text.ends_with("not served: b (no)\n"), "{text}");
        assert_eq!(result.unwrap_err().code, ExitCode::Other);
    }
}
