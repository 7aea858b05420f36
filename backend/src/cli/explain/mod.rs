//! `explain`: what a code means that a log, a target or another initiator shows. It asks nobody.
//!
//! The words for the codes are those of `iscsi-core`, which the log has, too; here is what they do not
//! say: where a code usually comes from, and what to try.

mod iscsi;
mod login;
mod scsi;

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{print, to_json};
use crate::exit::Failure;

/// The arguments of `explain`.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// A login status (0302), sense data (05/25/00), or another code with its kind in front:
    /// reject:04, status:08, response:01, tmf:05
    code: String,

    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// One meaning of a code; the field names are a promise to scripts.
#[derive(Debug, Serialize)]
struct Explanation {
    /// What kind of code it is.
    kind: &'static str,
    /// The standard that says so.
    reference: &'static str,
    /// Name and number.
    name: String,
    /// What usually causes it.
    causes: &'static [&'static str],
    /// What to try, in this order.
    remedies: &'static [&'static str],
    /// What this program does about it by itself.
    reaction: &'static str,
}

#[derive(Serialize)]
struct Document {
    explanations: Vec<Explanation>,
}

/// What causes a code, what to try, and what we do about it.
struct Advice {
    causes: &'static [&'static str],
    remedies: &'static [&'static str],
    reaction: &'static str,
}

impl Advice {
    fn explain(self, kind: &'static str, reference: &'static str, name: String) -> Explanation {
        Explanation {
            kind,
            reference,
            name,
            causes: self.causes,
            remedies: self.remedies,
            reaction: self.reaction,
        }
    }
}

/// What to type.
const FORMS: &str = "a login status (four hexadecimal digits, such as 0302), sense data (key, code and \
                     qualifier, such as 05/25/00), or a code of two hexadecimal digits, with \
                     reject:, status:, response: or tmf: before it to say which";

pub(super) fn run(arguments: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let explanations = explain(&arguments.code)
        .ok_or_else(|| Failure::usage(format!("the code is none that is known: give {FORMS}")))?;
    match arguments.json {
        true => print(out, &to_json(&Document { explanations })?),
        false => print(out, &render(&explanations)),
    }
}

/// All that the code can mean; `None` when it is no code.
fn explain(code: &str) -> Option<Vec<Explanation>> {
    let (kind, number) = match code.split_once(':') {
        Some((kind, number)) => (Some(kind), number),
        None => (None, code),
    };
    let byte = || hexadecimal(number, 2).and_then(|number| u8::try_from(number).ok());
    let one = |explanation| Some(vec![explanation]);
    match kind {
        Some("login") => one(login::explain(login_status(number)?)),
        Some("sense") => one(scsi::explain_sense(sense(number)?)),
        Some("reject") => one(iscsi::explain_reject(byte()?)),
        Some("status") => one(scsi::explain_status(byte()?)),
        Some("response") => one(iscsi::explain_response(byte()?)),
        Some("tmf") => one(iscsi::explain_task_management(byte()?)),
        Some(_) => None,
        None => sense(number)
            .map(scsi::explain_sense)
            .or_else(|| login_status(number).map(login::explain))
            .map(|explanation| vec![explanation])
            .or_else(|| byte().map(of_any_kind)),
    }
}

/// A code of two digits does not say what it is of.
fn of_any_kind(code: u8) -> Vec<Explanation> {
    vec![
        iscsi::explain_reject(code),
        scsi::explain_status(code),
        iscsi::explain_response(code),
        iscsi::explain_task_management(code),
    ]
}

/// Up to `digits` hexadecimal digits, with or without `0x` before or `h` behind.
fn hexadecimal(text: &str, digits: usize) -> Option<u32> {
    let digits_of = text.strip_prefix("0x").or(text.strip_suffix('h'));
    let text = digits_of.unwrap_or(text);
    let is_number = (1..=digits).contains(&text.len());
    let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_number && is_plain).then(|| u32::from_str_radix(text, 16).ok())?
}

/// Class and detail: four digits, for two can be many things.
fn login_status(text: &str) -> Option<[u8; 2]> {
    let digits = text.strip_prefix("0x").unwrap_or(text).len();
    let number = hexadecimal(text, 4).filter(|_| digits >= 3)?;
    Some(u16::try_from(number).ok()?.to_be_bytes())
}

/// Key, additional sense code and qualifier.
fn sense(text: &str) -> Option<[u8; 3]> {
    let parts: Vec<_> = text.split(['/', ' ', ',']).collect();
    let [key, asc, ascq] = parts.as_slice() else {
        return None;
    };
    let byte = |text: &str| u8::try_from(hexadecimal(text, 2)?).ok();
    let key = byte(key).filter(|key| *key <= 0x0f)?;
    Some([key, byte(asc)?, byte(ascq)?])
}

fn render(explanations: &[Explanation]) -> String {
    let mut text = String::new();
    for (index, explanation) in explanations.iter().enumerate() {
        let Explanation {
            kind,
            reference,
            name,
            ..
        } = explanation;
        text.push_str(if index == 0 { "" } else { "\n" });
        let _ = writeln!(text, "{kind}: {name}\n  {reference}");
        write_list(&mut text, "Likely causes", explanation.causes);
        write_list(&mut text, "What to try", explanation.remedies);
        let _ = writeln!(text, "What this program does\n  - {}", explanation.reaction);
    }
    text
}

fn write_list(text: &mut String, title: &str, lines: &[&str]) {
    if !lines.is_empty() {
        let _ = writeln!(text, "{title}");
    }
    for line in lines {
        let _ = writeln!(text, "  - {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(code: &str) -> Vec<String> {
        let explanations = explain(code).unwrap_or_default();
        let named = explanations.iter();
        named
            .map(|explanation| format!("{}: {}", explanation.kind, explanation.name))
            .collect()
    }

    #[test]
    fn a_code_is_known_by_its_form() {
        for code in ["0302", "0x0302", "302", "login:0302"] {
            assert_eq!(
                names(code),
                ["Login status: out of resources (status 0302)"],
                "{code}"
            );
        }
        for code in [
            "05/25/00",
            "5/25/0",
            "0x05/0x25/0x00",
            "05 25 00",
            "05h,25h,00h",
            "sense:5/25/0",
        ] {
            let [name] = &names(code)[..] else {
                panic!("{code}");
            };
            assert!(name.starts_with("Sense data: ILLEGAL REQUEST: "), "{name}");
            assert!(name.ends_with("(05/25/00)"), "{name}");
        }
        assert_eq!(
            names("reject:0a"),
            ["Reject reason: long operation reject, out of resources (0x0a)"]
        );
        assert_eq!(names("08").len(), 4);
        assert_eq!(names("status:28").len(), 1);
        assert_eq!(names("tmf:255").len(), 0);
        assert_eq!(
            names("tmf:ff"),
            ["Task management response: function rejected (255)"]
        );
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for code in [
            "",
            "x",
            "0x",
            "-1",
            "+1",
            "12345",
            "5/25",
            "5/25/0/0",
            "10/00/00",
            "5/256/0",
            "foo:01",
            "reject:",
            "reject:100",
            "é",
            "5//0",
            "hunter2",
            "login:02",
            ":",
            "0x0x1",
        ] {
            assert!(explain(code).is_none(), "{code}");
        }
    }

    #[test]
    fn every_code_has_something_to_try_and_says_what_we_do() {
        for code in 0..=u16::MAX {
            let [class, detail] = code.to_be_bytes();
            let mut all = vec![login::explain([class, detail])];
            all.extend((0..=0x0f).map(|key| scsi::explain_sense([key, class, detail])));
            if class == 0 {
                all.extend(of_any_kind(detail));
            }
            for explanation in all {
                let is_fine = explanation.name.contains("success")
                    || explanation.name.contains("GOOD")
                    || explanation.name.contains("complete")
                    || explanation.name.contains("CONDITION MET");
                assert!(!explanation.reaction.is_empty());
                assert!(
                    is_fine || !explanation.remedies.is_empty(),
                    "{explanation:?}"
                );
            }
        }
    }

    #[test]
    fn a_text_begins_with_the_name_and_ends_with_what_we_do() {
        let text = render(&explain("0302").unwrap());
        assert!(
            text.starts_with("Login status: out of resources (status 0302)\n  RFC 7143"),
            "{text}"
        );
        assert!(text.contains("\nLikely causes\n  - "), "{text}");
        assert!(
            text.contains("\nWhat to try\n  - end other sessions"),
            "{text}"
        );
        assert!(text.contains("\nWhat this program does\n  - "), "{text}");
    }
}
