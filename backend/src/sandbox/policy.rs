//! Which files a serving process may still use.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::{ServeSettings, SocketSettings};
use crate::secret::CREDENTIALS_VARIABLE;

/// What the resolver, group names and our own name are read from. Whatever a link leads to counts,
/// too: resolv.conf is most often one.
const SYSTEM: [&str; 3] = ["/etc", "/usr/etc", "/proc/sys/kernel/hostname"];
const MAY_BE_LINKS: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/machine-id",
];

/// The one place that says what of the file system is used after the start.
///
/// A directory stands for itself: when it is removed and made anew, the new one is outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What is read: files, and all below directories.
    pub(super) readable: BTreeSet<PathBuf>,
    /// Where sockets and lock files are made, opened and removed.
    pub(super) writable_directories: BTreeSet<PathBuf>,
    /// Whether abstract sockets of other processes are reached.
    pub(super) reaches_abstract_sockets: bool,
}

impl Policy {
    /// What serving needs with these settings.
    pub(crate) fn of(settings: &ServeSettings) -> Self {
        let mut policy = Self::of_system(std::env::var_os("NOTIFY_SOCKET").as_deref());
        let sandbox = &settings.management.sandbox;
        // Whoever changes a file most often puts a new one into its place.
        let read_again = sandbox
            .read_again
            .iter()
            .filter_map(|file| directory_of(file));
        policy.readable.extend(read_again);
        let credentials = std::env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from);
        policy.readable.extend(credentials);
        let control_socket = settings.management.control_socket.iter();
        let sockets = settings.disks.iter().filter_map(|disk| match &disk.socket {
            SocketSettings::Path(socket) => Some(socket),
            SocketSettings::Fd(_) => None,
        });
        let sockets = sockets.chain(control_socket.map(|control| &control.socket));
        let directories = sockets.filter_map(|socket| directory_of(socket.path.as_path()));
        policy.writable_directories.extend(directories);
        let more = sandbox.socket_directories.iter().cloned();
        policy.writable_directories.extend(more);
        policy
    }

    fn of_system(notify_socket: Option<&OsStr>) -> Self {
        let led_to = MAY_BE_LINKS
            .iter()
            .filter_map(|link| led_to(Path::new(link)));
        Self {
            readable: SYSTEM.iter().map(PathBuf::from).chain(led_to).collect(),
            writable_directories: BTreeSet::new(),
            reaches_abstract_sockets: notify_socket
                .is_some_and(|name| name.as_bytes().starts_with(b"@")),
        }
    }
}

/// The directory of a file, without links; as it was given where it is not there.
fn directory_of(file: &Path) -> Option<PathBuf> {
    let file = std::path::absolute(file).ok()?;
    let directory = file.parent()?;
    Some(directory.canonicalize().unwrap_or(directory.to_owned()))
}

/// The directory that a link leads to, also when what it names is not there yet.
fn led_to(link: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(link).ok()?;
    let end = link.canonicalize().ok();
    directory_of(&end.unwrap_or(link.parent()?.join(target)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_directory_of_a_file_is_found_without_links_and_before_the_file_is_there() {
        let directory = tempfile::TempDir::new().unwrap();
        let real = directory.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = directory.path().join("link");
        symlink(&real, &link).unwrap();
        assert_eq!(directory_of(&link.join("disk.sock")), Some(real.clone()));
        let file = directory.path().join("resolv.conf");
        symlink("real/not-there-yet", &file).unwrap();
        assert_eq!(led_to(&file), Some(real.clone()));
        assert_eq!(led_to(&real), None, "no link");
        assert_eq!(directory_of(Path::new("/")), None);
    }

    #[test]
    fn abstract_sockets_are_reached_only_to_notify() {
        let reaches =
            |name: Option<&str>| Policy::of_system(name.map(OsStr::new)).reaches_abstract_sockets;
        assert!(reaches(Some("@/org/freedesktop/systemd1/notify")));
        assert!(!reaches(Some("/run/systemd/notify")));
        assert!(!reaches(None));
    }
}
