//! Reading one secret: from a file, from a credential of systemd or from an environment variable,
//! never from a command line.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use iscsi_core::login::settings::Secret;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::sandbox;
use crate::system::System;

/// The longest secret in bytes. RFC 7143 sets no bound; no target known to us takes more than 255,
/// and a file that is longer is the wrong file.
pub const MAX_SECRET_LENGTH_BYTES: usize = 1024;

/// Any access for group or others.
const FORBIDDEN_MODE_BITS: u32 = 0o077;

/// Where systemd puts the credentials of a unit (systemd.exec(5), "Credentials").
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Why a secret cannot be used. No message holds any of it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// It cannot be opened or read.
    #[error("cannot read the secret file {}: {source}{}", path.display(), sandbox::hint(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a device or a socket.
    #[error("{} is not a file that could hold a secret", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Its permissions let others in.
    #[error(
        "the secret file {} is open to group or others (mode {mode:04o}): chmod 600 it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nobody has given this process credentials.
    #[error(
        "there is no credential {name}, for {CREDENTIALS_VARIABLE} is not set: the unit that starts \
         this needs LoadCredential={name}:FILE, and elsewhere a secret file does"
    )]
    NoCredentials {
        /// What was asked for.
        name: CredentialName,
    },
    /// Nothing in it but, perhaps, a newline.
    #[error("the secret in {place} is empty")]
    Empty {
        /// The file or variable.
        place: String,
    },
    /// Longer than [`MAX_SECRET_LENGTH_BYTES`].
    #[error("the secret in {place} has more than {MAX_SECRET_LENGTH_BYTES} bytes")]
    TooLong {
        /// The file or variable.
        place: String,
    },
}

/// The name of a credential: a file's name, and no path to somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialName(String);

impl CredentialName {
    /// What it may be, for messages.
    pub const RULE: &str = "the name of a credential, 1 to 255 letters, digits, '.', '-' and '_'";

    /// A name that fits the rule.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = (1..=255).contains(&text.len())
            && text.chars().all(is_plain)
            && !matches!(text, "." | "..");
        is_name.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a secret file: its bytes as they are, less one newline at the end.
///
/// The file may be a pipe, so that a password manager can feed it. The checks are made on the
/// open file: a path that changes in between is no way around them.
pub fn read_secret_file(path: &Path) -> Result<Secret, SecretError> {
    read_file(path, check_file)
}

/// Reads a secret that systemd hands over as a credential: as a secret file, but for its mode.
///
/// systemd lets our user in by an access control list, which shows as access for the group; the
/// directory around it is closed to everybody else.
pub fn read_credential(name: &CredentialName, system: &System<'_>) -> Result<Secret, SecretError> {
    let Some(directory) = system.variable(CREDENTIALS_VARIABLE) else {
        return Err(SecretError::NoCredentials { name: name.clone() });
    };
    read_file(&Path::new(&directory).join(&name.0), check_kind)
}

fn read_file(
    path: &Path,
    check: fn(&Path, &Metadata) -> Result<(), SecretError>,
) -> Result<Secret, SecretError> {
    let unreadable = |source| SecretError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    check(path, &file.metadata().map_err(unreadable)?)?;

    // All of it is allocated at once: a vector that grows leaves copies of the secret behind.
    let limit = MAX_SECRET_LENGTH_BYTES + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    file.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    check_length(bytes, || path.display().to_string())
}

/// Takes a secret from an environment variable; `None` when it is not set or set to nothing.
pub fn secret_from_environment(
    system: &System<'_>,
    name: &str,
) -> Result<Option<Secret>, SecretError> {
    system
        .variable(name)
        .map(|value| check_length(Zeroizing::new(value.into_vec()), || name.to_owned()))
        .transpose()
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), SecretError> {
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(SecretError::NotAFile {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn check_file(path: &Path, metadata: &Metadata) -> Result<(), SecretError> {
    check_kind(path, metadata)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & FORBIDDEN_MODE_BITS != 0 {
        return Err(SecretError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn check_length(
    mut bytes: Zeroizing<Vec<u8>>,
    place: impl FnOnce() -> String,
) -> Result<Secret, SecretError> {
    match bytes.len() {
        0 => Err(SecretError::Empty { place: place() }),
        1..=MAX_SECRET_LENGTH_BYTES => Ok(Secret::new(std::mem::take(&mut *bytes))),
        _ => Err(SecretError::TooLong { place: place() }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::{self, Permissions};

    use super::*;

    fn secret_file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    fn read(content: &[u8]) -> Result<Vec<u8>, SecretError> {
        let (_directory, path) = secret_file(content, 0o600);
        read_secret_file(&path).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn strips_one_newline_and_nothing_else() {
        assert_eq!(read(b"hunter2").unwrap(), b"hunter2");
        assert_eq!(read(b"hunter2\n").unwrap(), b"hunter2");
        assert_eq!(read(b"hunter2\n\n").unwrap(), b"hunter2\n");
        assert_eq!(read(b" \xff\r\n").unwrap(), b" \xff\r");
    }

    #[test]
    fn refuses_an_empty_secret() {
        assert!(matches!(read(b""), Err(SecretError::Empty { .. })));
        assert!(matches!(read(b"\n"), Err(SecretError::Empty { .. })));
    }

    #[test]
    fn the_longest_secret_has_1024_bytes() {
        let longest = [b'x'; 1024];
        assert_eq!(read(&longest).unwrap(), longest);
        assert_eq!(read(&[&longest[..], b"\n"].concat()).unwrap(), longest);
        let too_long = [&longest[..], b"x"].concat();
        assert!(matches!(read(&too_long), Err(SecretError::TooLong { .. })));
        assert!(matches!(
            read(&[&too_long[..], b"\n"].concat()),
            Err(SecretError::TooLong { .. })
        ));
    }

    #[test]
    fn refuses_a_file_that_group_or_others_can_open() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o601, 0o644] {
            let (_directory, path) = secret_file(b"hunter2", mode);
            let error = read_secret_file(&path).unwrap_err();
            assert!(matches!(error, SecretError::Exposed { .. }), "{mode:o}");
            assert!(!error.to_string().contains("hunter2"));
        }
        for mode in [0o600, 0o400, 0o700] {
            let (_directory, path) = secret_file(b"hunter2", mode);
            assert!(read_secret_file(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let error = read_secret_file(directory.path()).unwrap_err();
        assert!(matches!(error, SecretError::NotAFile { .. }));
        let error = read_secret_file(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, SecretError::NotAFile { .. }));
        let error = read_secret_file(&directory.path().join("absent")).unwrap_err();
        assert!(matches!(error, SecretError::Unreadable { .. }));
    }

    #[test]
    fn a_credential_is_read_whatever_its_mode_shows() {
        let (directory, _) = secret_file(b"hunter2\n", 0o440);
        let variable = |name: &str| {
            (name == CREDENTIALS_VARIABLE).then(|| directory.path().as_os_str().into())
        };
        let system = System::fake(&variable, Path::new("/"));
        let read = |name: &str| read_credential(&CredentialName::new(name).unwrap(), &system);
        assert_eq!(read("secret").unwrap().expose(), b"hunter2");
        let error = read("absent").unwrap_err();
        assert!(matches!(error, SecretError::Unreadable { .. }), "{error}");
        fs::create_dir(directory.path().join("directory")).unwrap();
        let error = read("directory").unwrap_err();
        assert!(matches!(error, SecretError::NotAFile { .. }), "{error}");
    }

    #[test]
    fn without_systemd_there_is_no_credential() {
        let system = System::fake(&|_| None, Path::new("/"));
        let error = read_credential(&CredentialName::new("chap").unwrap(), &system).unwrap_err();
        assert!(error.to_string().contains("LoadCredential=chap:FILE"));
    }

    #[test]
    fn a_credential_has_a_name_and_no_path() {
        let longest = "x".repeat(255);
        for name in ["chap", "a.b-c_9", "...", &longest] {
            assert!(CredentialName::new(name).is_some(), "{name}");
        }
        let too_long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "../chap",
            "/etc/shadow",
            "a b",
            "a\n",
            &too_long,
        ] {
            assert!(CredentialName::new(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_is_not_set() {
        let root = Path::new("/");
        let variable = |name: &str| match name {
            "EMPTY" => Some(OsString::new()),
            "FULL" => Some(OsString::from("hunter2\n")),
            "LONG" => Some(OsString::from("x".repeat(1025))),
            _ => None,
        };
        let system = System::fake(&variable, root);
        assert!(secret_from_environment(&system, "EMPTY").unwrap().is_none());
        assert!(
            secret_from_environment(&system, "ABSENT")
                .unwrap()
                .is_none()
        );
        let secret = secret_from_environment(&system, "FULL").unwrap().unwrap();
        assert_eq!(secret.expose(), b"hunter2\n");
        assert!(secret_from_environment(&system, "LONG").is_err());
    }
}
