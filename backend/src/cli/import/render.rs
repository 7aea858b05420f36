//! What was found as a configuration file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use iscsi_core::name::IscsiName;

use super::credentials::{Chap, Origin, SecretId};
use super::found::{Disk, Found, FoundPortal, LeftOut, Place, Remark, Scope, Value};
use crate::escape::{escape_control_characters, is_unsafe_to_print};

/// Where sockets are; with the service's unit it is there.
const SOCKET_DIRECTORY: &str = "/run/vhost-user-iscsi";

/// How long a line of a comment is.
const COMMENT_WIDTH: usize = 98;

/// How many places of a secret are named.
const MAX_PLACES: usize = 3;

/// The whole file. `paths` are those of the secrets.
pub(super) fn render(found: &Found, paths: &[PathBuf], secrets_are_written: bool) -> String {
    let mut file = File {
        text: String::new(),
        paths,
    };
    let sources: Vec<_> = found.sources.iter().map(|name| &**name).collect();
    file.comment(&format!("Imported from {}.", sources_shown(&sources)));
    file.comment("Before it is used: vhost-user-iscsi check --login --config FILE");
    file.remarks(&found.remarks);
    file.defaults(&found.defaults);
    for portal in &found.portals {
        file.portal(portal);
    }
    for disk in &found.disks {
        file.disk(disk);
    }
    if found.portals.is_empty() && found.disks.is_empty() {
        file.example();
    }
    file.secrets(found, secrets_are_written);
    file.left_out(&found.left_out);
    file.text
}

/// All of a few, or how many.
fn sources_shown(sources: &[&str]) -> String {
    match sources {
        [first, _, _, _, ..] => format!("{first} and {} more", sources.len() - 1),
        few => few.join(", "),
    }
}

struct File<'a> {
    text: String,
    paths: &'a [PathBuf],
}

impl File<'_> {
    fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A comment, in as many lines as it needs.
    fn comment(&mut self, text: &str) {
        let text = escape_control_characters(text);
        let mut line = String::from("#");
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if line.len() > 1 && line.len() + 1 + word.len() > COMMENT_WIDTH {
                let _ = writeln!(self.text, "{line}");
                line = String::from("#  ");
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(self.text, "{line}");
    }

    fn remarks(&mut self, remarks: &[Remark]) {
        for Remark { place, message } in remarks {
            self.comment(&format!("{place}: {message}"));
        }
    }

    fn text_of(&mut self, key: &str, text: &str) {
        let _ = writeln!(self.text, "{key} = {}", quoted(text));
    }

    fn path(&mut self, key: &str, SecretId(index): SecretId) {
        let path = self
            .paths
            .get(index)
            .map_or(Path::new(""), PathBuf::as_path);
        self.text_of(key, &path.to_string_lossy());
    }

    fn scope(&mut self, scope: &Scope) {
        self.remarks(&scope.remarks);
        if let Some(chap) = &scope.chap {
            self.chap(chap);
        }
        for (key, value) in &scope.settings {
            match value {
                Value::Text(text) => self.text_of(key, text),
                Value::Number(number) => {
                    let _ = writeln!(self.text, "{key} = {number}");
                }
                Value::On => {
                    let _ = writeln!(self.text, "{key} = true");
                }
            }
        }
    }

    fn defaults(&mut self, defaults: &Scope) {
        let before = self.text.len();
        self.scope(defaults);
        if self.text.len() > before {
            self.text.insert(before, '\n');
        }
    }

    fn chap(&mut self, chap: &Chap) {
        let (user, secret) = &chap.initiator;
        self.text_of("chap-user", user);
        self.path("chap-secret-file", *secret);
        if let Some((user, secret)) = &chap.target {
            self.text_of("chap-target-user", user);
            self.path("chap-target-secret-file", *secret);
        }
    }

    fn portal(&mut self, portal: &FoundPortal) {
        self.blank();
        self.comment(&portal.place.to_string());
        self.text.push_str("[[portal]]\n");
        self.text_of("address", &portal.address.to_string());
        self.names("include", &portal.include);
        self.names("exclude", &portal.exclude);
        self.scope(&portal.scope);
    }

    fn names(&mut self, key: &str, names: &[IscsiName]) {
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(|name| quoted(name.as_str())).collect();
            let _ = writeln!(self.text, "{key} = [{}]", names.join(", "));
        }
    }

    fn disk(&mut self, disk: &Disk) {
        self.blank();
        self.comment(&disk.place.to_string());
        self.text.push_str("[[disk]]\n");
        self.text_of("name", &disk.name);
        self.text_of(
            "socket-path",
            &format!("{SOCKET_DIRECTORY}/{}.sock", disk.name),
        );
        self.text_of("url", &disk.url);
        self.scope(&disk.scope);
    }

    /// Settings alone serve nothing.
    fn example(&mut self) {
        self.blank();
        self.comment("No disk was found. One looks like this:");
        let _ = writeln!(
            self.text,
            "# [[disk]]\n# name = \"root\"\n# socket-path = \"{SOCKET_DIRECTORY}/root.sock\"\n\
             # url = \"iscsi://192.0.2.1/iqn.2001-04.com.example:disk/1\""
        );
    }

    fn secrets(&mut self, found: &Found, are_written: bool) {
        let secrets = found.secrets.0.iter().zip(self.paths);
        let lines = secrets.filter_map(|(secret, path)| {
            let places = places_shown(&secret.places, MAX_PLACES);
            let path = path.display();
            match secret.origin {
                Origin::File(_) => None,
                Origin::Elsewhere => Some(format!(
                    "{path}: the secret of the user at {places}, which did not stand there"
                )),
                Origin::Bytes(_) if are_written => None,
                Origin::Bytes(_) => Some(format!("{path}: the secret at {places}")),
            }
        });
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() {
            self.blank();
            self.comment(
                "Secrets are not written here. These files have to be made, readable by the user of the \
                 service alone (mode 0600); --secrets-directory makes those whose secret is known:",
            );
            lines.iter().for_each(|line| self.comment(line));
        }
    }

    /// Grouped by the reason, each key once.
    fn left_out(&mut self, left_out: &[LeftOut]) {
        let mut reasons: BTreeMap<&str, BTreeMap<&str, Vec<Place>>> = BTreeMap::new();
        for LeftOut { key, place, reason } in left_out {
            let places = reasons.entry(reason).or_default().entry(key).or_default();
            if places.last() != Some(place) {
                places.push(place.clone());
            }
        }
        if !reasons.is_empty() {
            self.blank();
            self.comment("Left out:");
        }
        for (reason, keys) in reasons {
            let keys = keys.iter();
            let keys =
                keys.map(|(key, places)| format!("{} ({})", shown(key), places_shown(places, 1)));
            let keys: Vec<_> = keys.collect();
            self.comment(&format!("- {}: {reason}", keys.join(", ")));
        }
    }
}

/// A name that may be anything: not all of it, where it is no name.
fn shown(key: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']');
    match key.len() <= 64 && key.chars().all(is_plain) {
        true => key,
        false => "something that is no name",
    }
}

fn places_shown(places: &[Place], most: usize) -> String {
    let first = places.iter().take(most).map(Place::to_string);
    let first: Vec<_> = first.collect();
    match places.len().saturating_sub(most) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_unsafe_to_print(c) => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_from_toml_as_it_was() {
        for text in ["", "plain", "a\"b\\c", "\u{1b}[2J\n\u{202e}", "é 日本"] {
            let document = format!("x = {}", quoted(text));
            let table = toml::de::DeTable::parse(&document).unwrap();
            let value = table.get_ref().get("x").unwrap().get_ref();
            assert_eq!(value.as_str(), Some(text));
            assert!(!quoted(text).contains(is_unsafe_to_print));
        }
    }

    #[test]
    fn a_comment_is_never_anything_else() {
        let mut file = File {
            text: String::new(),
            paths: &[],
        };
        file.comment(&format!(
            "a\nchap-user = \"x\" \u{1b} {}",
            "word ".repeat(60)
        ));
        assert!(file.text.lines().count() > 2);
        assert!(
            file.text
                .lines()
                .all(|line| line.starts_with('#') && line.len() <= 100)
        );
    }
}
