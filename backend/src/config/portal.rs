//! Portals whose LUNs are all served.

use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;
use iscsi_core::name::IscsiName;
use thiserror::Error;

use super::{
    DiskName, DiskSettings, InitiatorSettings, MAX_SOCKET_PATH_LENGTH_BYTES, ServedDisk,
    SocketPath, SocketPathSettings, SocketSettings,
};
use crate::found::FoundLun;
use crate::portal::Portal;
use crate::url::TargetUrl;

/// The most portals of one process.
pub const MAX_PORTALS: usize = 64;

/// How often a portal is asked unless told otherwise. Each time costs the target a login: a target
/// of a large array writes that into its log.
pub const DEFAULT_REDISCOVER: Duration = Duration::from_secs(60);

/// The shortest time between two discoveries.
pub const MIN_REDISCOVER: Duration = Duration::from_secs(1);

/// The longest time between two discoveries.
pub const MAX_REDISCOVER: Duration = Duration::from_secs(24 * 3600);

/// The longest path of a directory for the sockets of disks that are found: that of a socket less
/// `/`, the longest name of a disk and `.sock`.
pub const MAX_SOCKET_DIRECTORY_LENGTH_BYTES: usize = MAX_SOCKET_PATH_LENGTH_BYTES - 70;

/// A portal, and how its disks are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalSettings {
    /// Whom to ask.
    pub address: Portal,
    /// Which of its targets count.
    pub filter: TargetFilter,
    /// How long to wait after a discovery before the next: [`MIN_REDISCOVER`] to [`MAX_REDISCOVER`].
    pub rediscover: Duration,
    /// Where the sockets of its disks are.
    pub socket_directory: SocketDirectory,
    /// What its disks have in common. The target is no disk's.
    pub common: DiskSettings,
    /// Who may connect to the sockets of its disks. The path is no disk's.
    pub common_socket: SocketPathSettings,
}

impl PortalSettings {
    /// Who we are to the portal and its targets.
    pub fn initiator(&self) -> &InitiatorSettings {
        &self.common.initiator
    }

    /// A disk behind it, of which `portal` is where to log in.
    pub fn disk(&self, found: &FoundLun, portal: &Portal) -> ServedDisk {
        let name = DiskName::of_lun(&found.target, found.lun);
        let socket = SocketPathSettings {
            path: self.socket_directory.socket(&name),
            ..self.common_socket.clone()
        };
        let disk = DiskSettings {
            target: TargetUrl {
                portal: portal.clone(),
                target: found.target.clone(),
                lun: found.lun,
                ..self.common.target.clone()
            },
            // It was there a moment ago.
            wait_for_target: true,
            ..self.common.clone()
        };
        ServedDisk {
            name,
            disk,
            socket: SocketSettings::Path(socket),
        }
    }
}

/// Which targets count, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetFilter {
    /// Those that match one of them; all when there is none.
    pub include: Vec<NamePattern>,
    /// But not those that match one of these.
    pub exclude: Vec<NamePattern>,
}

impl TargetFilter {
    /// Whether a target counts.
    pub fn wants(&self, target: &IscsiName) -> bool {
        let matches = |pattern: &NamePattern| pattern.matches(target);
        (self.include.is_empty() || self.include.iter().any(matches))
            && !self.exclude.iter().any(matches)
    }
}

/// A pattern for names of targets: `*` any characters, `?` one, `[0-9]` one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(Pattern);

impl NamePattern {
    /// What a pattern may be, in words.
    pub const RULE: &str = "patterns for names of targets, such as [\"iqn.2001-04.com.example:*\"]: * is any \
         characters, ? is one, [0-9] one of those";

    /// Checks a text. Names of targets are in lower case, so patterns are, too.
    pub fn new(text: &str) -> Option<Self> {
        let is_pattern = !text.is_empty() && !text.contains(char::is_whitespace);
        let pattern = Pattern::new(&text.to_lowercase()).ok();
        pattern.filter(|_| is_pattern).map(Self)
    }

    /// Whether the whole of a name fits.
    pub fn matches(&self, target: &IscsiName) -> bool {
        self.0.matches(target.as_str())
    }
}

/// A directory with room for the path of any disk's socket: 1 to
/// [`MAX_SOCKET_DIRECTORY_LENGTH_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketDirectory(PathBuf);

/// Why a directory has no room for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the directory of the sockets has {length_bytes} bytes: it may have 1 to \
     {MAX_SOCKET_DIRECTORY_LENGTH_BYTES}, for a socket's name takes up to 70 more, and the system takes \
     {MAX_SOCKET_PATH_LENGTH_BYTES} in all"
)]
pub struct SocketDirectoryError {
    length_bytes: usize,
}

impl SocketDirectory {
    /// Checks the length; whether a socket can be made there shows later.
    pub fn new(path: PathBuf) -> Result<Self, SocketDirectoryError> {
        match path.as_os_str().len() {
            1..=MAX_SOCKET_DIRECTORY_LENGTH_BYTES => Ok(Self(path)),
            length_bytes => Err(SocketDirectoryError { length_bytes }),
        }
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The socket of a disk: its name and `.sock`.
    pub fn socket(&self, name: &DiskName) -> SocketPath {
        SocketPath(self.0.join(format!("{}.sock", name.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> TargetFilter {
        let patterns = |texts: &[&str]| {
            let pattern = |text: &&str| NamePattern::new(text).unwrap();
            texts.iter().map(pattern).collect()
        };
        TargetFilter {
            include: patterns(include),
            exclude: patterns(exclude),
        }
    }

    #[test]
    fn what_is_included_and_not_excluded_counts() {
        let all = [
            "iqn.2001-04.com.example:a1",
            "iqn.2001-04.com.example:a1-backup",
        ];
        for (include, exclude, expected) in [
            (&[][..], &[][..], [true, true]),
            (&["iqn.2001-04.com.example:*"], &[], [true, true]),
            (&["IQN.2001-04.com.example:A?"], &[], [true, false]),
            (&["*:a[0-9]", "*:b"], &[], [true, false]),
            (&["*:a"], &[], [false, false]),
            (&[], &["*backup*"], [true, false]),
            (&["*:a*"], &["*:a1*"], [false, false]),
        ] {
            let filter = filter(include, exclude);
            let wanted = all.map(|name| filter.wants(&IscsiName::parse(name).unwrap()));
            assert_eq!(wanted, expected, "{include:?} {exclude:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a b", "[a", "a***b"] {
            assert_eq!(NamePattern::new(text), None, "{text:?}");
        }
    }

    /// Each star could begin anew at each character.
    #[test]
    fn many_stars_take_no_time() {
        let pattern = NamePattern::new(&format!("iqn.*{}b", "a*".repeat(30))).unwrap();
        let name = format!("iqn.2001-04.com.example:{}", "a".repeat(190));
        assert!(!pattern.matches(&IscsiName::parse(&name).unwrap()));
    }

    #[test]
    fn a_directory_leaves_room_for_the_longest_name() {
        let longest = DiskName::new(&"x".repeat(64)).unwrap();
        let directory = |n: usize| SocketDirectory::new(PathBuf::from("d".repeat(n)));
        let socket = directory(37).unwrap().socket(&longest);
        assert_eq!(
            SocketPath::new(socket.as_path().to_owned()),
            Ok(socket.clone())
        );
        assert_eq!(socket.as_path().as_os_str().len(), 107);
        assert!(directory(38).is_err() && directory(0).is_err());
    }
}
