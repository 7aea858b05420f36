//! The configuration file: any number of disks, each with the settings of the command line.
//!
//! Its keys are the command line's long options, so each setting is defined, checked and described
//! once, there. At the top they are defaults; a `[[disk]]` overrides them and says what is its own:
//! `name`, `socket-path` and `url`. A `[[portal]]` ([`portals`]) overrides them for all disks that are
//! found there. What is of the process as a whole stands at the top only.
//!
//! Everything that is wrong is found in one reading, each with its line. As on the command line, no
//! message repeats a value: it may be a misplaced secret.

mod portals;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, CommandFactory, Parser};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{Cli, usage};
use crate::config::{
    Configuration, DiskName, MAX_DISKS, ManagementSettings, PortalSettings, ServeSettings,
    ServedDisk, SocketSettings,
};
use crate::exit::Failure;
use crate::sandbox;
use crate::system::System;

/// Where the file is unless told otherwise.
pub(super) const DEFAULT_PATH: &str = "/etc/vhost-user-iscsi/config.toml";

/// The longest file that is read: tens of thousands of disks, and not whatever somebody points at.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// How much of what is wrong is said: a file of another kind is wrong in every line.
const MAX_PROBLEMS: usize = 100;

/// The table of a disk.
const DISK: &str = "disk";
/// The table of a portal.
const PORTAL: &str = "portal";
/// What `--blk-file` is called here.
const URL: &str = "url";
const BLK_FILE: &str = "blk-file";
/// Of a disk alone, no defaults.
const OWN: [&str; 3] = [NAME, SOCKET_PATH, URL];
const NAME: &str = "name";
const SOCKET_PATH: &str = "socket-path";

/// Of the process as a whole.
const SERVICE: [&str; 5] = [
    "metrics-address",
    "control-socket",
    "control-socket-mode",
    "control-socket-group",
    "sandbox",
];

/// How unlike a key may be that is suggested, by Jaro and Winkler: what clap takes.
const LIKENESS: f64 = 0.7;

/// Something wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problems {
    /// The file.
    pub path: PathBuf,
    /// At least one, in the order of the lines.
    pub problems: Vec<Problem>,
}

impl Problems {
    /// All of them.
    fn lines(&self) -> Vec<String> {
        self.problems
            .iter()
            .map(|problem| self.line_of(problem))
            .collect()
    }

    fn line_of(&self, problem: &Problem) -> String {
        let path = self.path.display();
        match problem.line {
            0 => format!("{path}: {}", problem.message),
            line => format!("{path}:{line}: {}", problem.message),
        }
    }
}

impl fmt::Display for Problems {
    /// The first one, for there is one line for a failure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.problems.first() {
            f.write_str(&self.line_of(first))?;
        }
        match self.problems.len() {
            0 | 1 => Ok(()),
            count => write!(f, " (and {} more: the verb check says all)", count - 1),
        }
    }
}

/// Reads and checks the file.
///
/// # Errors
/// All that is wrong with it.
pub(super) fn read(path: &Path, system: &System<'_>) -> Result<ServeSettings, Problems> {
    Ok(settings_of(path, parse_file(path, system)?))
}

/// The same for a process that serves already: a file that has become empty is taken for an accident,
/// which must not end all disks.
fn read_again(path: &Path, system: &System<'_>) -> Result<ServeSettings, Problems> {
    let parsed = parse_file(path, system)?;
    if parsed.names_disks {
        return Ok(settings_of(path, parsed));
    }
    let message = "there is no [[disk]] and no [[portal]]; disk = [] says that none is meant";
    Err(Problems {
        path: path.to_owned(),
        problems: vec![Problem {
            line: 0,
            message: message.to_owned(),
        }],
    })
}

fn parse_file(path: &Path, system: &System<'_>) -> Result<Parsed, Problems> {
    let failed = |problems| Problems {
        path: path.to_owned(),
        problems,
    };
    let text = read_text(path).map_err(|message| failed(vec![Problem { line: 0, message }]))?;
    parse(&text, system).map_err(failed)
}

fn settings_of(path: &Path, parsed: Parsed) -> ServeSettings {
    let Parsed {
        disks,
        portals,
        mut management,
        defaults,
        ..
    } = parsed;
    management.sandbox.read_again.push(path.to_owned());
    ServeSettings {
        disks,
        portals,
        management,
        configuration: Some(Arc::new(ConfigFile {
            path: path.to_owned(),
            defaults,
        })),
    }
}

/// A file that was read, for what may be asked of it later.
#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    defaults: Defaults,
}

impl Configuration for ConfigFile {
    fn read_again(&self) -> Result<ServeSettings, Vec<String>> {
        read_again(&self.path, &System::real()).map_err(|problems| problems.lines())
    }

    fn disk(&self, settings: &Map<String, Value>) -> Result<ServedDisk, Failure> {
        disk_of_json(settings, &self.defaults, &System::real())
    }
}

/// A disk whose settings came as JSON: with the keys, the values and the rules of a `[[disk]]`.
fn disk_of_json(
    settings: &Map<String, Value>,
    defaults: &Defaults,
    system: &System<'_>,
) -> Result<ServedDisk, Failure> {
    let mut reading = Reading::of("");
    let mut table = DeTable::new();
    for (key, value) in settings {
        let value = match value {
            Value::String(text) => DeValue::String(text.into()),
            Value::Bool(is_on) => DeValue::Boolean(*is_on),
            Value::Number(number) => DeValue::String(number.to_string().into()),
            // No key takes one: it says itself what it takes.
            _ => DeValue::Array(DeArray::new()),
        };
        table.insert(
            Spanned::new(0..0, key.as_str().into()),
            Spanned::new(0..0, value),
        );
    }
    let disk = reading.disk(0, &table, defaults, system);
    disk.ok_or_else(|| {
        let problems = reading.problems().into_iter();
        let messages: Vec<_> = problems.map(|problem| problem.message).collect();
        Failure::usage(messages.join("; "))
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |error| format!("cannot be read: {error}{}", sandbox::hint(&error));
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is longer than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// Checks the text of a file.
fn parse(text: &str, system: &System<'_>) -> Result<Parsed, Vec<Problem>> {
    let mut reading = Reading::of(text);
    let settings = match DeTable::parse(text) {
        Ok(table) => reading.settings(table.get_ref(), system),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            reading.complain(at, error.message().to_owned());
            None
        }
    };
    match settings.filter(|_| reading.complaints.is_empty()) {
        Some(settings) => Ok(settings),
        None => Err(reading.problems()),
    }
}

/// What can be said about a disk, from the definition of the command line.
fn options() -> HashMap<String, Arg> {
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

struct Reading<'a> {
    text: &'a str,
    options: HashMap<String, Arg>,
    /// What is wrong, and at which byte: the first ones of the file.
    complaints: Vec<(usize, String)>,
    /// How much is wrong in all.
    complained: usize,
    /// Where secrets were read from.
    secret_files: Vec<PathBuf>,
}

/// A setting as an argument of the command line; `None` for a switch that is off.
type Setting = (String, Option<OsString>);

/// Settings at the top, by their keys.
type Defaults = HashMap<String, Option<OsString>>;

/// What a file says.
struct Parsed {
    disks: Vec<ServedDisk>,
    portals: Vec<PortalSettings>,
    management: ManagementSettings,
    defaults: Defaults,
    /// It says which disks there are, be it none.
    names_disks: bool,
}

type Entry<'t, 'i> = (
    &'t Spanned<toml::de::DeString<'i>>,
    &'t Spanned<DeValue<'i>>,
);

impl<'a> Reading<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            options: options(),
            complaints: Vec::new(),
            complained: 0,
            secret_files: Vec::new(),
        }
    }

    fn complain(&mut self, at: usize, message: String) {
        self.complained += 1;
        self.complaints.push((at, message));
        if self.complaints.len() >= 2 * MAX_PROBLEMS {
            self.keep_the_first();
        }
    }

    /// The lines are counted for what is said only: a file of another kind is wrong in every line.
    fn problems(mut self) -> Vec<Problem> {
        self.keep_the_first();
        let line_of = |at: usize| {
            let before = self.text.get(..at).unwrap_or_default();
            before.matches('\n').count() + 1
        };
        let problem = |(at, message)| Problem {
            line: line_of(at),
            message,
        };
        self.complaints.into_iter().map(problem).collect()
    }

    fn keep_the_first(&mut self) {
        self.complaints.sort_by_key(|(at, _)| *at);
        self.complaints.truncate(MAX_PROBLEMS);
    }

    /// The whole file; `None` when something is wrong with the process's own settings.
    fn settings(&mut self, file: &DeTable<'_>, system: &System<'_>) -> Option<Parsed> {
        let mut defaults = self.defaults(file);
        let is_of_service = |option: &String| SERVICE.contains(&option.as_str());
        let service = defaults.extract_if(|option, _| is_of_service(option));
        let service: Vec<_> = service.filter_map(|(_, argument)| argument).collect();
        let disks = self.disks(file, &defaults, system);
        let mut management = self.management(service, system);
        let portals = self.portals(file, &defaults, management.as_ref(), system);
        if let Some(ManagementSettings { sandbox, .. }) = &mut management {
            sandbox.read_again.append(&mut self.secret_files);
            let directories = portals.iter().map(|portal| &portal.socket_directory);
            let directories = directories.map(|directory| directory.as_path().to_owned());
            sandbox.socket_directories.extend(directories);
        }
        Some(Parsed {
            disks,
            portals,
            management: management?,
            defaults,
            names_disks: [DISK, PORTAL].iter().any(|key| file.contains_key(*key)),
        })
    }

    fn management(
        &mut self,
        arguments: Vec<OsString>,
        system: &System<'_>,
    ) -> Option<ManagementSettings> {
        let program = OsString::from("vhost-user-iscsi");
        let cli = Cli::try_parse_from([program].into_iter().chain(arguments));
        let settings = match cli {
            Ok(cli) => cli.management.settings_of_service(system),
            Err(error) => Err(Failure::usage(usage::describe(&error))),
        };
        let complain = |failure: Failure| self.complain(0, failure.message);
        settings.map_err(complain).ok()
    }

    /// The settings at the top.
    fn defaults(&mut self, file: &DeTable<'_>) -> Defaults {
        let mut defaults = HashMap::new();
        let is_table = |key: &str| [DISK, PORTAL].contains(&key);
        for (key, value) in file.iter().filter(|(key, _)| !is_table(key.get_ref())) {
            if OWN.contains(&key.get_ref().as_ref()) {
                let message = format!("{} belongs into a [[disk]]", key.get_ref());
                self.complain(key.span().start, message);
            } else if portals::OWN.contains(&key.get_ref().as_ref()) {
                let message = format!("{} belongs into a [[portal]]", key.get_ref());
                self.complain(key.span().start, message);
            } else if portals::SHARED.contains(&key.get_ref().as_ref()) {
                // Defaults of portals, read with those.
            } else if let Some((option, argument)) = self.setting((key, value)) {
                defaults.insert(option, argument);
            }
        }
        defaults
    }

    fn disks(
        &mut self,
        file: &DeTable<'_>,
        defaults: &Defaults,
        system: &System<'_>,
    ) -> Vec<ServedDisk> {
        let tables = self.tables(file, DISK, MAX_DISKS);
        let disks: Vec<_> = tables
            .into_iter()
            .filter_map(|(at, table)| Some((at, self.disk(at, table, defaults, system)?)))
            .collect();
        self.check_unique(&disks);
        disks.into_iter().map(|(_, disk)| disk).collect()
    }

    /// The tables of a name, at most `most` of them, each with where it is.
    fn tables<'t, 'i>(
        &mut self,
        file: &'t DeTable<'i>,
        name: &str,
        most: usize,
    ) -> Vec<(usize, &'t DeTable<'i>)> {
        let Some((key, value)) = file.iter().find(|(key, _)| key.get_ref() == name) else {
            // One that has just been installed has no disk yet.
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
            self.complain(key.span().start, format!("{name}s are written [[{name}]]"));
            return Vec::new();
        };
        if array.len() > most {
            let message = format!("there are more than {most} {name}s");
            self.complain(key.span().start, message);
        }
        let mut tables = Vec::new();
        for element in array.iter().take(most) {
            match element.get_ref() {
                DeValue::Table(table) => tables.push((start_of(table, element), table)),
                _ => self.complain(
                    element.span().start,
                    format!("a {name} is a [[{name}]] table"),
                ),
            }
        }
        tables
    }

    /// One disk: its settings on top of the defaults, as if they stood on a command line.
    fn disk(
        &mut self,
        at: usize,
        table: &DeTable<'_>,
        defaults: &Defaults,
        system: &System<'_>,
    ) -> Option<ServedDisk> {
        let before = self.complained;
        let mut settings = defaults.clone();
        let mut name = None;
        for (key, value) in table {
            if key.get_ref() == NAME {
                name = self.name(value);
            } else if let Some(place) = portals::place_of(key.get_ref()) {
                let message = format!("{} belongs {place}, not into a [[disk]]", key.get_ref());
                self.complain(key.span().start, message);
            } else if SERVICE.contains(&key.get_ref().as_ref()) {
                let message = format!("{} belongs to the top, not into a [[disk]]", key.get_ref());
                self.complain(key.span().start, message);
            } else if let Some((option, argument)) = self.setting((key, value)) {
                settings.insert(option, argument);
            }
        }
        for needed in [SOCKET_PATH, URL] {
            if !table.iter().any(|(key, _)| key.get_ref() == needed) {
                self.complain(at, format!("the disk has no {needed}"));
            }
        }
        if self.complained > before {
            return None;
        }
        let arguments = settings.into_values().flatten();
        let disk = self.served(at, arguments, system)?;
        Some(named(disk, name))
    }

    /// What a command line with these arguments would serve.
    fn served(
        &mut self,
        at: usize,
        arguments: impl Iterator<Item = OsString>,
        system: &System<'_>,
    ) -> Option<ServedDisk> {
        let program = OsString::from("vhost-user-iscsi");
        let cli = Cli::try_parse_from([program].into_iter().chain(arguments));
        let served = match &cli {
            Ok(cli) => cli.serve.settings(system),
            Err(error) => Err(Failure::usage(usage::describe(error))),
        };
        let complain = |failure: Failure| self.complain(at, failure.message);
        let served = served.map_err(complain).ok();
        let files = cli.iter().flat_map(|cli| cli.serve.secret_files());
        self.secret_files.extend(files.filter(|_| served.is_some()));
        served
    }

    fn name(&mut self, value: &Spanned<DeValue<'_>>) -> Option<DiskName> {
        let text = match value.get_ref() {
            DeValue::String(text) => DiskName::new(text),
            _ => None,
        };
        if text.is_none() {
            let message = format!("name takes {}", DiskName::RULE);
            self.complain(value.span().start, message);
        }
        text
    }

    /// A key and its value as an argument; complains when it is none.
    fn setting(&mut self, (key, value): Entry<'_, '_>) -> Option<Setting> {
        let name = key.get_ref();
        let Some(option) = self.options.get(name.as_ref()).cloned() else {
            let message = self.unknown(name);
            self.complain(key.span().start, message);
            return None;
        };
        match argument(name, &option, value.get_ref()) {
            Ok(argument) => Some((name.to_string(), argument)),
            Err(message) => {
                self.complain(value.span().start, message);
                None
            }
        }
    }

    fn unknown(&self, key: &str) -> String {
        let keys = self.options.keys().map(String::as_str);
        let keys = keys.chain([NAME, DISK, PORTAL]);
        let keys = keys.chain(portals::OWN).chain(portals::SHARED);
        let likeness = |known: &str| strsim::jaro_winkler(key, known);
        let likely = keys.filter(|known| likeness(known) > LIKENESS);
        match likely.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
            Some(likely) => format!("there is no key {}, but there is {likely}", shown(key)),
            None => format!("there is no key {}", shown(key)),
        }
    }

    /// Two disks on one socket, or of one name, cannot be told apart.
    fn check_unique(&mut self, disks: &[(usize, ServedDisk)]) {
        let mut names = HashMap::new();
        let mut sockets = HashMap::new();
        for (at, disk) in disks {
            if names.insert(disk.name.as_str(), *at).is_some() {
                self.complain(*at, "another disk has the same name".to_owned());
            }
            if let SocketSettings::Path(socket) = &disk.socket
                && sockets.insert(socket.path.as_path(), *at).is_some()
            {
                self.complain(*at, "another disk has the same socket-path".to_owned());
            }
        }
    }
}

/// Where a disk's table begins: at its first key, for the header has no place of its own.
fn start_of(table: &DeTable<'_>, element: &Spanned<DeValue<'_>>) -> usize {
    let keys = table.keys().map(|key| key.span().start);
    keys.min().unwrap_or(element.span().start)
}

/// A disk among others, as it is called. One whose target is away must not keep the others from their
/// guests.
fn named(mut disk: ServedDisk, name: Option<DiskName>) -> ServedDisk {
    disk.disk.wait_for_target = true;
    match name {
        Some(name) => ServedDisk { name, ..disk },
        None => disk,
    }
}

/// A value as an argument, judged by the command line's own rule for it.
fn argument(key: &str, option: &Arg, value: &DeValue<'_>) -> Result<Option<OsString>, String> {
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

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::usage(problems.to_string())
    }
}

#[cfg(test)]
mod tests;
