//! `add`: a process that serves takes one more disk.
//!
//! The options of a disk are judged here as on any command line, and sent as the configuration file
//! would have them: the process that serves judges them again, over its own defaults. Of a secret only
//! the path of its file is sent.

use std::any::TypeId;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use serde_json::{Map, Value};

use super::ask::AskArgs;
use super::changes_text::show;
use super::options::parse_url;
use super::serve::ServeArgs;
use super::{Control, print};
use crate::changes::Changes;
use crate::control_protocol::Request;
use crate::exit::Failure;

/// The arguments of `add`.
#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// The disk: iscsi://[user@]host[:port]/target-iqn/lun[?key=value&…]
    url: String,

    /// What to call it; else the socket's name without .sock
    #[arg(long)]
    name: Option<String>,

    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    ask: AskArgs,
}

/// The options of a disk that were given, by the keys of the configuration file.
#[derive(Clone, Debug)]
struct Given(Map<String, Value>);

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        // What to serve is said by the URL, and nothing can be inherited.
        let hidden = |argument: Arg| argument.hide(true).conflicts_with("url");
        ServeArgs::augment_args(command)
            .mut_arg("fd", hidden)
            .mut_arg("blk_file", hidden)
            .mut_arg("socket_path", |path| path.required(true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let options = ServeArgs::augment_args(Command::new("add"));
        let given = |option: &&Arg| {
            matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
        };
        let settings = options.get_arguments().filter(given).map(|option| {
            let key = option.get_long().unwrap_or_default().to_owned();
            Ok((key, setting(option, matches)?))
        });
        settings.collect::<Result<_, _>>().map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// An option's value as it was given; that of a path without regard to where we are.
fn setting(option: &Arg, matches: &ArgMatches) -> Result<Value, Error> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return Ok(Value::Bool(true));
    }
    let raw = matches.get_raw(option.get_id().as_str());
    let raw = raw.and_then(|mut values| values.next()).unwrap_or_default();
    let text = if is_path(option.get_value_parser()) {
        let absolute = std::path::absolute(raw).map_err(|_| Error::new(ErrorKind::Io))?;
        absolute.into_os_string()
    } else {
        OsString::from(raw)
    };
    let text = text.into_string();
    text.map(Value::String)
        .map_err(|_| Error::new(ErrorKind::InvalidUtf8))
}

fn is_path(parser: &ValueParser) -> bool {
    parser.type_id() == TypeId::of::<PathBuf>()
}

pub(super) fn run(
    arguments: &AddArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    // A secret in it is not to leave this process.
    parse_url(&arguments.url)?;
    let mut settings = arguments.given.0.clone();
    settings.insert("url".to_owned(), arguments.url.clone().into());
    if let Some(name) = &arguments.name {
        settings.insert("name".to_owned(), name.clone().into());
    }
    let changes: Changes = arguments.ask.ask(control, &Request::Add { settings })?;
    show(&changes, arguments.ask.json, out)?;
    match arguments.ask.json {
        true => Ok(()),
        false => print(out, UNTIL),
    }
}

const UNTIL: &str =
    "It is served until the process ends; to keep it, put it into the configuration file.\n";
