//! What a file says, and everything that is wrong with it, found in one reading.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Parser};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::keys::{
    DISK, Defaults, NAME, OWN, PORTAL, SERVICE, SOCKET_PATH, Setting, URL, argument, options,
    unknown,
};
use super::portals;
use super::problems::Problem;
use crate::cli::{Cli, usage};
use crate::config::{
    DiskName, MAX_DISKS, ManagementSettings, PortalSettings, ServedDisk, SocketSettings,
};
use crate::exit::Failure;
use crate::system::System;

/// How much of what is wrong is said: a file of another kind is wrong in every line.
pub(super) const MAX_PROBLEMS: usize = 100;

/// Checks the text of a file.
pub(super) fn parse(text: &str, system: &System<'_>) -> Result<Parsed, Vec<Problem>> {
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

/// A disk whose settings came as JSON: with the keys, the values and the rules of a `[[disk]]`.
pub(super) fn disk_of_json(
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

/// A key with its value.
type Entry<'t, 'i> = (
    &'t Spanned<toml::de::DeString<'i>>,
    &'t Spanned<DeValue<'i>>,
);

/// A reading of a file: what has been found wrong so far, and where its secrets are.
pub(super) struct Reading<'a> {
    text: &'a str,
    options: HashMap<String, Arg>,
    /// What is wrong, and at which byte: the first ones of the file.
    complaints: Vec<(usize, String)>,
    /// How much is wrong in all.
    pub(super) complained: usize,
    /// Where secrets were read from.
    secret_files: Vec<PathBuf>,
}

/// What a file says.
pub(super) struct Parsed {
    pub(super) disks: Vec<ServedDisk>,
    pub(super) portals: Vec<PortalSettings>,
    pub(super) management: ManagementSettings,
    pub(super) defaults: Defaults,
    /// It says which disks there are, be it none.
    pub(super) names_disks: bool,
}

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

    pub(super) fn complain(&mut self, at: usize, message: String) {
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
        self.check_sharing(&disks);
        disks.into_iter().map(|(_, disk)| disk).collect()
    }

    /// The tables of a name, at most `most` of them, each with where it is.
    pub(super) fn tables<'t, 'i>(
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
    pub(super) fn served(
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
    pub(super) fn setting(&mut self, (key, value): Entry<'_, '_>) -> Option<Setting> {
        let name = key.get_ref();
        let Some(option) = self.options.get(name.as_ref()).cloned() else {
            let message = unknown(&self.options, name);
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

    /// Sessions that are shared are made once, with one value of each setting.
    fn check_sharing(&mut self, disks: &[(usize, ServedDisk)]) {
        let mut firsts: HashMap<_, &ServedDisk> = HashMap::new();
        for (at, disk) in disks {
            let Some(key) = disk.sharing_key() else {
                continue;
            };
            let first = *firsts.entry(key).or_insert(disk);
            if let Some(setting) = first.disk.session_setting_unlike(&disk.disk) {
                let first = first.name.as_str();
                let differs = format!("it shares sessions with {first}, and differs in {setting}");
                self.complain(*at, differs);
            }
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
