//! `/etc/iscsi.conf` of the first Linux initiator (sfnet, iscsi.conf(5)): its lines and their scopes.
//!
//! A setting in the first column is global and holds for the entries that follow it, until it is set
//! again. An indented one belongs to the entry above it, and beats the global one. What becomes of
//! the entries is in `sfnet_portals`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::credentials::{Credentials, Origin, Stated};
use super::found::{Found, Place, reasons};
use super::sfnet_portals;
use super::source::Source;
use crate::exit::Failure;

/// The keys, in lower case: the reader did not care.
const KEYS: [(&str, Key); 34] = [
    ("discoveryaddress", Key::DiscoveryAddress),
    ("targetipaddr", Key::DiscoveryAddress),
    ("targetname", Key::TargetName),
    ("subnet", Key::Subnet),
    ("address", Key::Subnet),
    ("slpmulticast", Key::Slp),
    ("slpunicast", Key::Slp),
    ("enabled", Key::Enabled),
    ("username", Key::User),
    ("outgoingusername", Key::User),
    ("password", Key::Password),
    ("outgoingpassword", Key::Password),
    ("incomingusername", Key::TargetUser),
    ("incomingpassword", Key::TargetPassword),
    ("headerdigest", Key::Setting(Setting::HeaderDigest)),
    ("datadigest", Key::Setting(Setting::DataDigest)),
    ("logintimeout", Key::Setting(Setting::LoginTimeout)),
    ("connfailtimeout", Key::Setting(Setting::ConnFailTimeout)),
    ("authtimeout", Key::LeftOut(PART_OF_LOGIN)),
    ("idletimeout", Key::LeftOut(reasons::PING)),
    ("activetimeout", Key::LeftOut(reasons::PING)),
    ("pingtimeout", Key::LeftOut(reasons::PING)),
    ("aborttimeout", Key::LeftOut(reasons::ABORT)),
    ("resettimeout", Key::LeftOut(reasons::ABORT)),
    ("initialr2t", Key::LeftOut(reasons::NEGOTIATED)),
    ("immediatedata", Key::LeftOut(reasons::NEGOTIATED)),
    (
        "maxrecvdatasegmentlength",
        Key::LeftOut(reasons::NEGOTIATED),
    ),
    ("firstburstlength", Key::LeftOut(reasons::NEGOTIATED)),
    ("maxburstlength", Key::LeftOut(reasons::NEGOTIATED)),
    ("tcpwindowsize", Key::LeftOut(reasons::TCP)),
    ("continuous", Key::LeftOut(REDISCOVERED)),
    ("sendasynctext", Key::LeftOut(REDISCOVERED)),
    ("pollinterval", Key::LeftOut(REDISCOVERED)),
    ("discoveryfile", Key::LeftOut(reasons::UNKNOWN)),
];

const PART_OF_LOGIN: &str = "it is part of login-timeout, which is for everything from connect to the last \
                             look at the LUN";
const REDISCOVERED: &str = "a portal is asked again at intervals: see rediscover";

/// What a key does.
#[derive(Clone, Copy, Debug)]
enum Key {
    DiscoveryAddress,
    TargetName,
    Subnet,
    Slp,
    Enabled,
    User,
    Password,
    TargetUser,
    TargetPassword,
    Setting(Setting),
    LeftOut(&'static str),
}

/// Settings that we have, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    HeaderDigest,
    DataDigest,
    LoginTimeout,
    ConnFailTimeout,
}

/// A value that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettingValue {
    Digest(&'static str),
    Time(Duration),
}

/// What holds in a scope.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) settings: BTreeMap<Setting, Stated<SettingValue>>,
    pub(super) credentials: Credentials,
    pub(super) enabled: Option<bool>,
}

impl Rules {
    /// These, and what they do not say from `others`.
    pub(super) fn or(&self, others: &Self) -> Self {
        let mut settings = others.settings.clone();
        settings.extend(self.settings.clone());
        Self {
            settings,
            credentials: self.credentials.clone().or(&others.credentials),
            enabled: self.enabled.or(others.enabled),
        }
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    DiscoveryAddress,
    TargetName,
    Subnet,
    Slp,
}

/// An entry with what is indented below it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) value: String,
    pub(super) place: Place,
    /// What was global when it came.
    pub(super) global: Rules,
    /// What is its own.
    pub(super) local: Rules,
}

/// Whether the file's reader knows a key.
pub(super) fn is_key(key: &str) -> bool {
    look_up(key).is_some()
}

fn look_up(key: &str) -> Option<Key> {
    let key = key.to_ascii_lowercase();
    let known = KEYS.iter().find(|(known, _)| *known == key);
    known.map(|(_, key)| *key)
}

/// Reads a file.
pub(super) fn read(source: &Source, found: &mut Found) -> Result<(), Failure> {
    let mut reading = Reading {
        global: Rules::default(),
        entries: Vec::new(),
        is_local: false,
        found,
    };
    for (place, line) in source.lines() {
        reading.line(&place, line)?;
    }
    let Reading {
        global, entries, ..
    } = reading;
    sfnet_portals::add(&entries, &global, found)
}

struct Reading<'a> {
    global: Rules,
    entries: Vec<Entry>,
    /// Indented lines belong to the last entry.
    is_local: bool,
    found: &'a mut Found,
}

impl Reading<'_> {
    fn line(&mut self, place: &Place, line: &str) -> Result<(), Failure> {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| place.failure("a line is Key=value, or begins with #"))?;
        let (name, value) = (name.trim(), value.trim());
        let is_indented = line.starts_with([' ', '\t']);
        let Some(key) = look_up(name) else {
            self.found.leave_out(name, place, reasons::UNKNOWN);
            return Ok(());
        };
        match key {
            Key::DiscoveryAddress => self.entry(EntryKind::DiscoveryAddress, value, place),
            Key::TargetName => self.entry(EntryKind::TargetName, value, place),
            Key::Subnet => self.entry(EntryKind::Subnet, value, place),
            Key::Slp => self.entry(EntryKind::Slp, value, place),
            Key::LeftOut(reason) => self.found.leave_out(name, place, reason),
            key => self.setting(key, value, place, is_indented)?,
        }
        Ok(())
    }

    fn entry(&mut self, kind: EntryKind, value: &str, place: &Place) {
        self.is_local = true;
        self.entries.push(Entry {
            kind,
            value: value.to_owned(),
            place: place.clone(),
            global: self.global.clone(),
            local: Rules::default(),
        });
    }

    fn setting(
        &mut self,
        key: Key,
        value: &str,
        place: &Place,
        is_indented: bool,
    ) -> Result<(), Failure> {
        // After a global setting nothing belongs to the entry before it.
        self.is_local &= is_indented;
        let rules = match self.entries.last_mut() {
            Some(entry) if self.is_local => &mut entry.local,
            _ => &mut self.global,
        };
        match key {
            Key::User => rules.credentials.user = stated(value, place),
            Key::Password => rules.credentials.secret = secret(value, place),
            Key::TargetUser => rules.credentials.target_user = stated(value, place),
            Key::TargetPassword => rules.credentials.target_secret = secret(value, place),
            Key::Enabled => rules.enabled = Some(yes_or_no(value, place)?),
            Key::Setting(setting) => {
                let value = setting_value(setting, value, place)?;
                rules.settings.insert(setting, Stated::new(value, place));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A text; an empty one takes back what was there.
fn stated(value: &str, place: &Place) -> Option<Stated<String>> {
    (!value.is_empty()).then(|| Stated::new(value.to_owned(), place))
}

fn secret(value: &str, place: &Place) -> Option<Stated<Origin>> {
    (!value.is_empty()).then(|| Stated::new(Origin::of_text(value), place))
}

fn yes_or_no(value: &str, place: &Place) -> Result<bool, Failure> {
    match value.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(place.failure("this key takes yes or no")),
    }
}

fn setting_value(setting: Setting, value: &str, place: &Place) -> Result<SettingValue, Failure> {
    match setting {
        Setting::HeaderDigest | Setting::DataDigest => digest(value)
            .map(SettingValue::Digest)
            .ok_or_else(|| place.failure("a digest is always, never, prefer-on or prefer-off")),
        Setting::LoginTimeout | Setting::ConnFailTimeout => time(value)
            .map(SettingValue::Time)
            .ok_or_else(|| place.failure("a time is a number of seconds, or as 300s, 5m, 1h")),
    }
}

fn digest(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "always" => Some("crc32c"),
        "never" => Some("none"),
        "prefer-on" => Some("prefer"),
        "prefer-off" => Some("avoid"),
        _ => None,
    }
}

/// `300`, `300s`, `5m`, `1h`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(['s', 'm', 'h']);
    let unit_s: u64 = match text.get(digits.len()..)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let number: u32 = digits.parse().ok()?;
    Some(Duration::from_secs(u64::from(number) * unit_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_one_unit_or_none() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("15", Some(15)),
            ("300s", Some(300)),
            ("5m", Some(300)),
            ("1h", Some(3600)),
            ("4294967295h", Some(15_461_882_262_000)),
            ("4294967296", None),
            ("", None),
            ("s", None),
            ("1sm", None),
            ("-1", None),
            ("1d", None),
        ] {
            assert_eq!(time(text).map(|time| time.as_secs()), seconds, "{text}");
        }
    }
}
