//! `[[portal]]`: every LUN of every target that a portal knows is a disk.
//!
//! What such a disk may be told stands in the portal's table, or at the top, as it would in a
//! `[[disk]]`. Beside that a portal has keys of its own, which the command line does not have.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{BLK_FILE, Defaults, NAME, OWN as OF_DISK, PORTAL, SERVICE, SOCKET_PATH, URL};
use super::reading::Reading;
use crate::cli::values::parse_rediscover;
use crate::config::{
    DEFAULT_REDISCOVER, MAX_PORTALS, ManagementSettings, NamePattern, PortalSettings,
    SocketDirectory, SocketSettings, TargetFilter,
};
use crate::control_protocol::DEFAULT_PATH as DEFAULT_CONTROL_SOCKET;
use crate::portal::Portal;
use crate::system::System;

/// Keys of a portal alone.
pub(super) const OWN: [&str; 3] = [ADDRESS, INCLUDE, EXCLUDE];
/// Keys of a portal that may stand at the top as well.
pub(super) const SHARED: [&str; 2] = [SOCKET_DIRECTORY, REDISCOVER];

const ADDRESS: &str = "address";
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
const SOCKET_DIRECTORY: &str = "socket-directory";
const REDISCOVER: &str = "rediscover";

/// What is each disk's own, so that none can be that of all disks of a portal.
const SERIAL: &str = "serial";

/// A target that nobody has, in the place of those that will be found: with it the other settings
/// are checked.
const NO_TARGET: &str = "iqn.1992-01.invalid:any/0";

/// Where a key of portals belongs, in words; `None` when it is none of theirs.
pub(super) fn place_of(key: &str) -> Option<&'static str> {
    if OWN.contains(&key) {
        Some("into a [[portal]]")
    } else {
        SHARED
            .contains(&key)
            .then_some("to the top or into a [[portal]]")
    }
}

type Value<'t, 'i> = &'t Spanned<DeValue<'i>>;

/// The keys of a portal, before all of them have been seen.
#[derive(Clone, Default)]
struct Keys {
    address: Option<Portal>,
    filter: TargetFilter,
    rediscover: Option<Duration>,
    socket_directory: Option<SocketDirectory>,
}

impl Reading<'_> {
    /// All portals of the file.
    pub(super) fn portals(
        &mut self,
        file: &DeTable<'_>,
        settings: &Defaults,
        management: Option<&ManagementSettings>,
        system: &System<'_>,
    ) -> Vec<PortalSettings> {
        let mut defaults = Keys::default();
        for key in SHARED {
            if let Some((key, value)) = file.iter().find(|(known, _)| known.get_ref() == key) {
                self.portal_key(&mut defaults, key.get_ref(), value);
            }
        }
        let usual = beside_control_socket(management, system);
        let mut portals = Vec::new();
        for (at, table) in self.tables(file, PORTAL, MAX_PORTALS) {
            let keys = defaults.clone();
            portals.extend(self.portal((at, table), keys, settings, &usual, system));
        }
        portals
    }

    fn portal(
        &mut self,
        (at, table): (usize, &DeTable<'_>),
        mut keys: Keys,
        defaults: &Defaults,
        usual: &Path,
        system: &System<'_>,
    ) -> Option<PortalSettings> {
        let complained = self.complained;
        let mut settings = defaults.clone();
        self.portal_table(table, &mut keys, &mut settings);
        if !table.iter().any(|(key, _)| key.get_ref() == ADDRESS) {
            self.complain(at, "the portal has no address".to_owned());
        }
        if settings.contains_key(SERIAL) {
            let message = "the disks of a portal cannot all have the same serial: it belongs into \
                           a [[disk]]";
            self.complain(at, message.to_owned());
        }
        if self.complained > complained {
            return None;
        }
        let address = keys.address?;
        let directory = match keys.socket_directory {
            Some(directory) => directory,
            None => self.directory(at, usual.to_owned())?,
        };
        settings.insert(URL.to_owned(), Some(url(&address)));
        settings.insert(
            SOCKET_PATH.to_owned(),
            Some(socket_path(directory.as_path())),
        );
        let arguments = settings.into_values().flatten();
        let common = self.served(at, arguments, system)?;
        let SocketSettings::Path(common_socket) = common.socket else {
            return None;
        };
        Some(PortalSettings {
            address,
            filter: keys.filter,
            rediscover: keys.rediscover.unwrap_or(DEFAULT_REDISCOVER),
            socket_directory: directory,
            common: common.disk,
            common_socket,
        })
    }

    /// Takes what stands in a portal's table: keys of portals, and settings of their disks.
    fn portal_table(&mut self, table: &DeTable<'_>, keys: &mut Keys, settings: &mut Defaults) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if self.portal_key(keys, name, value) {
                continue;
            }
            if let Some(message) = misplaced(name) {
                self.complain(key.span().start, message);
            } else if let Some((option, argument)) = self.setting((key, value)) {
                settings.insert(option, argument);
            }
        }
    }

    /// Takes a key of portals; false when it is none.
    fn portal_key(&mut self, keys: &mut Keys, name: &str, value: Value<'_, '_>) -> bool {
        let at = value.span().start;
        match name {
            ADDRESS => keys.address = self.address(value),
            INCLUDE => keys.filter.include = self.patterns(name, value),
            EXCLUDE => keys.filter.exclude = self.patterns(name, value),
            REDISCOVER => match text(value)
                .ok_or_else(String::new)
                .and_then(parse_rediscover)
            {
                Ok(time) => keys.rediscover = Some(time),
                Err(_) => {
                    let rule = parse_rediscover("").err().unwrap_or_default();
                    self.complain(at, format!("{REDISCOVER} takes {rule}"));
                }
            },
            SOCKET_DIRECTORY => match text(value) {
                Some(path) => keys.socket_directory = self.directory(at, PathBuf::from(path)),
                None => self.complain(at, format!("{SOCKET_DIRECTORY} takes a path in quotes")),
            },
            _ => return false,
        }
        true
    }

    fn address(&mut self, value: Value<'_, '_>) -> Option<Portal> {
        let message = match text(value).map(Portal::parse) {
            Some(Ok(portal)) => return Some(portal),
            Some(Err(error)) => format!("address takes a host and perhaps a port: {error}"),
            None => "address takes a host and perhaps a port, in quotes".to_owned(),
        };
        self.complain(value.span().start, message);
        None
    }

    fn patterns(&mut self, key: &str, value: Value<'_, '_>) -> Vec<NamePattern> {
        let DeValue::Array(elements) = value.get_ref() else {
            let message = format!("{key} takes {}", NamePattern::RULE);
            self.complain(value.span().start, message);
            return Vec::new();
        };
        let mut patterns = Vec::new();
        for element in elements.iter() {
            match text(element).and_then(NamePattern::new) {
                Some(pattern) => patterns.push(pattern),
                None => {
                    let message = format!("{key} takes {}", NamePattern::RULE);
                    self.complain(element.span().start, message);
                }
            }
        }
        patterns
    }

    fn directory(&mut self, at: usize, path: PathBuf) -> Option<SocketDirectory> {
        let complain =
            |error| self.complain(at, format!("{error}; {SOCKET_DIRECTORY} names another"));
        SocketDirectory::new(path).map_err(complain).ok()
    }
}

/// Why a key cannot stand in a portal's table, when that is so.
fn misplaced(key: &str) -> Option<String> {
    if OF_DISK.contains(&key) {
        return Some(match key {
            NAME | SOCKET_PATH => format!(
                "{key} belongs into a [[disk]]: a disk of a portal gets its own from its target's name"
            ),
            _ => format!("{key} belongs into a [[disk]]: a portal has an address"),
        });
    }
    let is_of_service = SERVICE.contains(&key);
    is_of_service.then(|| format!("{key} belongs to the top, not into a [[portal]]"))
}

fn text<'t>(value: Value<'t, '_>) -> Option<&'t str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}

/// Where the sockets are unless told otherwise.
fn beside_control_socket(management: Option<&ManagementSettings>, system: &System<'_>) -> PathBuf {
    let configured = management.and_then(|management| management.control_socket.as_ref());
    let control_socket = match configured {
        Some(settings) => settings.socket.path.as_path().to_owned(),
        None => system.path(DEFAULT_CONTROL_SOCKET),
    };
    match control_socket.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The arguments that make a disk of what is not one yet.
fn url(address: &Portal) -> OsString {
    format!("--{BLK_FILE}=iscsi://{address}/{NO_TARGET}").into()
}

fn socket_path(directory: &Path) -> OsString {
    let mut argument = OsString::from(format!("--{SOCKET_PATH}="));
    argument.push(directory.join("disk.sock"));
    argument
}

#[cfg(test)]
mod tests {
    use super::super::Parsed;
    use super::super::tests::{complaints, disk, parse_text};
    use super::*;

    fn portal(settings: &str) -> String {
        format!("[[portal]]\naddress = '192.0.2.1'\n{settings}\n")
    }

    fn portals(text: &str) -> Vec<PortalSettings> {
        let Ok(Parsed { disks, portals, .. }) = parse_text(text) else {
            panic!("{:#?}", complaints(text));
        };
        assert!(disks.is_empty());
        portals
    }

    #[test]
    fn an_address_is_enough() {
        let [portal] = &portals(&portal(""))[..] else {
            panic!("one portal");
        };
        assert_eq!(portal.address.to_string(), "192.0.2.1:3260");
        assert_eq!(portal.filter, TargetFilter::default());
        assert_eq!(portal.rediscover, DEFAULT_REDISCOVER);
        let directory = portal.socket_directory.as_path();
        assert!(directory.ends_with("run/vhost-user-iscsi"), "{directory:?}");
        assert_eq!(portal.common_socket.mode, 0o660);
    }

    #[test]
    fn a_portal_has_its_own_settings_over_the_defaults() {
        let text = format!(
            "control-socket = '/run/c/control'\nrediscover = '2m'\nnum-queues = 8\n\
             io-timeout = '1m'\n{}{}",
            portal(
                "include = ['iqn.2001-04.com.example:*']\nexclude = ['*:backup*']\n\
                 socket-directory = '/run/other'\nnum-queues = 2\nread-only = true\n\
                 socket-mode = '600'\nrediscover = '5s'"
            ),
            portal("")
        );
        let [a, b] = &portals(&text)[..] else {
            panic!("two portals");
        };
        assert_eq!((a.common.num_queues, b.common.num_queues), (2, 8));
        assert_eq!((a.common.read_only, b.common.read_only), (true, false));
        assert_eq!(a.common.io_timeout, b.common.io_timeout);
        assert_eq!((a.common_socket.mode, b.common_socket.mode), (0o600, 0o660));
        assert_eq!(a.rediscover, Duration::from_secs(5));
        assert_eq!(b.rediscover, Duration::from_secs(120));
        assert_eq!((a.filter.include.len(), a.filter.exclude.len()), (1, 1));
        assert_eq!(a.socket_directory.as_path(), Path::new("/run/other"));
        assert_eq!(b.socket_directory.as_path(), Path::new("/run/c"));
    }

    #[test]
    fn all_that_is_wrong_with_portals_is_said_at_once_with_its_line() {
        let text = format!(
            "address = 'h'\nrediscover = 3\n{}[[portal]]\nadress = 'h'\n\
             [[portal]]\naddress = 'me%hunter2@h'\ninclude = 'iqn.*'\nexclude = ['a b', 1, '*']\n\
             rediscover = '500ms'\nurl = 'iscsi://h'\nname = 'a'\ncontrol-socket = 'c'\n\
             fd = 3\nnum-queues = 0\nsocket-directory = '{}'\n",
            disk("include = []\nrediscover = '1m'\n"),
            "x".repeat(38)
        );
        let complaints = complaints(&text);
        let expected = [
            "1: address belongs into a [[portal]]",
            "2: rediscover takes a time with its unit, from 1s to 1day",
            "6: include belongs into a [[portal]], not into a [[disk]]",
            "7: rediscover belongs to the top or into a [[portal]], not into a [[disk]]",
            "9: there is no key adress, but there is address",
            "9: the portal has no address",
            "11: address takes a host and perhaps a port: ",
            "12: include takes patterns for names of targets",
            "13: exclude takes patterns",
            "13: exclude takes patterns",
            "14: rediscover takes a time",
            "15: url belongs into a [[disk]]",
            "16: name belongs into a [[disk]]",
            "17: control-socket belongs to the top",
            "18: there is no key fd",
            "19: num-queues takes a number from 1 to 64",
            "20: the directory of the sockets has 38 bytes",
        ];
        assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
        for (said, expected) in complaints.iter().zip(expected) {
            assert!(said.starts_with(expected), "{expected}: {complaints:#?}");
        }
        assert!(complaints.iter().all(|said| !said.contains("hunter2")));
    }

    #[test]
    fn what_fits_no_disk_fits_no_portal() {
        let said = complaints(&portal("chap-user = 'me'"));
        assert!(said.len() == 1 && said[0].contains("no secret"), "{said:?}");
        for text in [
            portal("serial = 'a'"),
            format!("serial = 'a'\n{}", portal("")),
        ] {
            let said = complaints(&text);
            assert!(
                said.len() == 1 && said[0].contains("same serial"),
                "{said:?}"
            );
        }
        let said = complaints("[portal]\naddress = 'h'\n");
        assert_eq!(said, ["1: portals are written [[portal]]"]);
        let long = format!("control-socket = '{}/c'\n{}", "x".repeat(60), portal(""));
        let said = complaints(&long);
        assert!(
            said[0].contains("socket-directory names another"),
            "{said:?}"
        );
        let many = portal("").repeat(MAX_PORTALS + 1);
        assert_eq!(complaints(&many), ["1: there are more than 64 portals"]);
    }
}
