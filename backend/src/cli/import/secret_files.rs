//! The files that secrets belong into: their names, and, when asked to, the files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::credentials::{Origin, Secrets};
use super::disk_names::Names;
use crate::exit::Failure;

/// Where they are unless told otherwise.
const DEFAULT_DIRECTORY: &str = "/etc/vhost-user-iscsi/secrets";

/// The directory as it is named in the configuration: absolute, for that is read from anywhere.
pub(super) fn directory(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let given = given.unwrap_or(Path::new(DEFAULT_DIRECTORY));
    std::path::absolute(given).map_err(|error| cannot(given, "be found", &error))
}

/// The file of each secret, by its number: named after the user whose it is.
pub(super) fn paths(secrets: &Secrets, directory: &Path) -> Vec<PathBuf> {
    let mut names = Names::default();
    let path = |origin: &Origin, user: &str| match origin {
        Origin::File(path) => path.clone(),
        Origin::Bytes(_) | Origin::Elsewhere => directory.join(names.give(user)),
    };
    let mut path = path;
    let secrets = secrets.0.iter();
    secrets
        .map(|secret| path(&secret.origin, &secret.user))
        .collect()
}

/// Writes the secrets that are known, each into a new file that only its owner can read. None is written
/// when one of them is there already.
pub(super) fn write(secrets: &Secrets, paths: &[PathBuf], directory: &Path) -> Result<(), Failure> {
    let known = secrets.0.iter().zip(paths);
    let known = known.filter_map(|(secret, path)| match &secret.origin {
        Origin::Bytes(bytes) => Some((bytes, path)),
        Origin::File(_) | Origin::Elsewhere => None,
    });
    let known: Vec<_> = known.collect();
    for (_, path) in &known {
        if fs::symlink_metadata(path).is_ok() {
            return Err(exists(path));
        }
    }
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory)
        .map_err(|error| cannot(directory, "be made", &error))?;
    for (bytes, path) in known {
        write_one(bytes, path)?;
    }
    Ok(())
}

fn write_one(bytes: &[u8], path: &Path) -> Result<(), Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        // A newline at the end is not part of a secret, and one that is has this behind it.
        file.write_all(b"\n")
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => cannot(path, "be written", &error),
    })
}

fn exists(path: &Path) -> Failure {
    let path = path.display();
    Failure::access(format!(
        "{path} is there already, and is not overwritten: name another --secrets-directory"
    ))
}

fn cannot(path: &Path, what: &str, error: &io::Error) -> Failure {
    Failure::access(format!("{} cannot {what}: {error}", path.display()))
}
