//! The keys that a file has, which are options of the command line; and its values as arguments.

use std::collections::HashMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, CommandFactory, Parser};
use toml::de::DeValue;

use super::portals;
use crate::cli::{Cli, usage};

/// The table of a disk.
pub(super) const DISK: &str = "disk";
/// The table of a portal.
pub(super) const PORTAL: &str = "portal";
/// What `--blk-file` is called here.
pub(super) const URL: &str = "url";
pub(super) const BLK_FILE: &str = "blk-file";
/// Of a disk alone, no defaults.
pub(super) const OWN: [&str; 3] = [NAME, SOCKET_PATH, URL];
pub(super) const NAME: &str = "name";
pub(super) const SOCKET_PATH: &str = "socket-path";

/// Of the process as a whole.
pub(super) const SERVICE: [&str; 5] = [
    "metrics-address",
    "control-socket",
    "control-socket-mode",
    "control-socket-group",
    "sandbox",
];

/// How unlike a key may be that is suggested, by Jaro and Winkler: what clap takes.
const LIKENESS: f64 = 0.7;

/// A setting as an argument of the command line; `None` for a switch that is off.
pub(super) type Setting = (String, Option<OsString>);

/// Settings at the top, by their keys.
pub(super) type Defaults = HashMap<String, Option<OsString>>;

/// What can be said about a disk, from the definition of the command line.
pub(super) fn options() -> HashMap<String, Arg> {
    let is_of_disk = |arg: &&Arg| {
        let other = ["fd", "help", "version", "print-capabilities"];
        !arg.is_global_set() && arg.get_long().is_some_and(|long| !other.contains(&long))
    };
    let named = |arg: &Arg| {
        let long = arg.get_long().unwrap_or_default();
        let key = if long == BLK_FILE { URL } else { long };
        (key.to_owned(), arg.clone())
    };
    let mut command = Cli::command();
    // Before that an option does not know how it is written.
    command.build();
    command
        .get_arguments()
        .filter(is_of_disk)
        .map(named)
        .collect()
}

/// Says that there is no such key, and which one may be meant.
pub(super) fn unknown(options: &HashMap<String, Arg>, key: &str) -> String {
    let keys = options.keys().map(String::as_str);
    let keys = keys.chain([NAME, DISK, PORTAL]);
    let keys = keys.chain(portals::OWN).chain(portals::SHARED);
    let likeness = |known: &str| strsim::jaro_winkler(key, known);
    let likely = keys.filter(|known| likeness(known) > LIKENESS);
    match likely.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(likely) => format!("there is no key {}, but there is {likely}", shown(key)),
        None => format!("there is no key {}", shown(key)),
    }
}

/// A value as an argument, judged by the command line's own rule for it.
pub(super) fn argument(
    key: &str,
    option: &Arg,
    value: &DeValue<'_>,
) -> Result<Option<OsString>, String> {
    let long = option.get_long().unwrap_or_default();
    let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
    let text = match value {
        DeValue::Boolean(false) if is_switch => return Ok(None),
        DeValue::Boolean(true) if is_switch => return Ok(Some(format!("--{long}").into())),
        _ if is_switch => return Err(format!("{key} takes true or false")),
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        _ => return Err(format!("{key} takes a text in quotes, or a number")),
    };
    let argument = OsString::from(format!("--{long}={text}"));
    let program = OsString::from("vhost-user-iscsi");
    match Cli::try_parse_from([program, argument.clone()]) {
        Ok(_) => Ok(Some(argument)),
        Err(error) => {
            let option = option.to_string();
            Err(usage::describe(&error).replace(&option, key))
        }
    }
}

/// A key as it can be shown: it may be anything.
fn shown(key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.len() <= 64 && key.chars().all(is_plain) {
        key.to_owned()
    } else {
        "like this".to_owned()
    }
}
