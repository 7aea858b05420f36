//! clap's errors in one line of our own.
//!
//! clap repeats what it does not understand. Somebody may have put a secret there (a URL without
//! its `--blk-file`, a password without the `-file`), so only names of options are repeated.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Error};

use crate::exit::Failure;

/// The failure to report for a command line that clap refuses.
pub(super) fn failure(error: &Error) -> Failure {
    Failure::usage(format!("{}; try --help", describe(error)))
}

/// Refuses every option before a verb but those that all verbs share.
pub(super) fn refuse_options_before_verb(
    command: &mut Command,
    matches: &ArgMatches,
) -> Result<(), Error> {
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let misplaced = command
        .get_arguments()
        .find(|argument| !argument.is_global_set() && given(argument.get_id().as_str()))
        .map(ToString::to_string);
    let Some(misplaced) = misplaced else {
        return Ok(());
    };
    let mut error = Error::new(ErrorKind::ArgumentConflict).with_cmd(command);
    error.insert(ContextKind::InvalidArg, ContextValue::String(misplaced));
    Err(error)
}

/// What is wrong with a command line, without the advice.
pub(super) fn describe(error: &Error) -> String {
    let argument = names(error, ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::UnknownArgument => unknown_argument(error, &argument),
        ErrorKind::InvalidSubcommand => no_such_verb(),
        ErrorKind::InvalidValue if has_no_value(error) => format!("{argument} needs a value"),
        ErrorKind::InvalidValue => format!("the value of {argument} is not one of those it takes"),
        ErrorKind::ValueValidation => {
            // The parsers of `values` say what would be right, never what was given.
            let expected = std::error::Error::source(error).map(ToString::to_string);
            format!("{argument} takes {}", expected.unwrap_or_default())
        }
        ErrorKind::ArgumentConflict => conflict(error, &argument),
        ErrorKind::MissingRequiredArgument => format!("{argument} is missing"),
        ErrorKind::TooManyValues => format!("{argument} takes no value"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ => "the command line cannot be understood".to_owned(),
    }
}

fn no_such_verb() -> String {
    "unexpected argument: the verbs are serve, check, ls, status, stats, top, limits, reload, add, remove, discover, \
     probe, explain, import and iname, a URL to serve belongs behind --blk-file"
        .to_owned()
}

fn unknown_argument(error: &Error, argument: &str) -> String {
    let suggestion = names(error, ContextKind::SuggestedArg);
    match (option_name(argument), suggestion.as_str()) {
        (None, _) => "unexpected argument".to_owned(),
        (Some(option), "") => format!("there is no option {option}"),
        (Some(option), other) => format!("there is no option {option}, but there is {other}"),
    }
}

fn conflict(error: &Error, argument: &str) -> String {
    let other = names(error, ContextKind::PriorArg);
    if other.is_empty() {
        return format!("{argument} cannot stand before a verb");
    }
    if other == argument {
        return format!("{argument} is given more than once");
    }
    format!("{argument} and {other} exclude each other")
}

/// An argument that looks like an option, without what follows a '='.
fn option_name(argument: &str) -> Option<&str> {
    let name = argument.split('=').next().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (name.starts_with('-') && name.chars().all(is_name)).then_some(name)
}

fn has_no_value(error: &Error) -> bool {
    matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if value.is_empty())
}

/// The names of arguments that clap has filed under `kind`.
fn names(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(name)) => name.clone(),
        Some(ContextValue::Strings(names)) => names.join(", "),
        _ => String::new(),
    }
}
