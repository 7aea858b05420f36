//! The configuration file: any number of disks, each with the settings of the command line.
//!
//! Its keys are the command line's long options, so each setting is defined, checked and described
//! once, there. At the top they are defaults; a `[[disk]]` overrides them and says what is its own:
//! `name`, `socket-path` and `url`. A `[[portal]]` ([`portals`]) overrides them for all disks that are
//! found there. What is of the process as a whole stands at the top only.
//!
//! Everything that is wrong is found in one reading, each with its line. As on the command line, no
//! message repeats a value: it may be a misplaced secret.

mod keys;
mod portals;
mod problems;
mod reading;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

pub(super) use self::problems::Problems;

use self::keys::Defaults;
use self::problems::Problem;
use self::reading::{Parsed, disk_of_json, parse};
use crate::config::{Configuration, ServeSettings, ServedDisk};
use crate::exit::Failure;
use crate::sandbox;
use crate::system::System;

/// Where the file is unless told otherwise.
pub(super) const DEFAULT_PATH: &str = "/etc/vhost-user-iscsi/config.toml";

/// The longest file that is read: tens of thousands of disks, and not whatever somebody points at.
const MAX_FILE_BYTES: u64 = 4 << 20;

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

#[cfg(test)]
mod tests;
