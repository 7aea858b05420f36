//! What kind of file it is, by what stands in it.

use super::sfnet;

/// The kinds that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/etc/iscsi.conf` of the first Linux initiator (sfnet).
    Sfnet,
    /// `iscsid.conf` or a node record of open-iscsi.
    OpenIscsi,
    /// `initiatorname.iscsi`.
    InitiatorName,
    /// QEMU's command line or parts of it: URLs, `-drive`, `-blockdev`, `-iscsi`, `-object`.
    Qemu,
}

/// What the records and `iscsid.conf` of open-iscsi begin their keys with.
const OPEN_ISCSI_PREFIXES: [&str; 6] =
    ["node.", "iface.", "discovery.", "iscsid.", "isns.", "host."];

/// What somebody may find in a command line of QEMU that concerns us.
const QEMU_MARKS: [&str; 6] = [
    "iscsi://",
    "iser://",
    "driver=iscsi",
    "-blockdev iscsi",
    "-iscsi ",
    "\"iscsi\"",
];

/// For clap.
pub(super) fn parse(text: &str) -> Result<Kind, String> {
    match text {
        "sfnet" => Ok(Kind::Sfnet),
        "open-iscsi" => Ok(Kind::OpenIscsi),
        "initiator-name" => Ok(Kind::InitiatorName),
        "qemu" => Ok(Kind::Qemu),
        _ => Err("sfnet, open-iscsi, initiator-name or qemu".to_owned()),
    }
}

/// The kind of a text: its first line that says anything decides, for a password further down may look
/// like anything. An `iscsid.conf` may say nothing at all but in comments.
pub(super) fn recognise(text: &str) -> Option<Kind> {
    let mut lines = text.lines().map(str::trim);
    let is_comment = |line: &&str| line.is_empty() || line.starts_with('#');
    let first = lines.find(|line| !is_comment(line));
    match first.and_then(of_line) {
        Some(kind) => Some(kind),
        None if QEMU_MARKS.iter().any(|mark| text.contains(mark)) => Some(Kind::Qemu),
        None if first.is_none() && text.contains("node.") => Some(Kind::OpenIscsi),
        None => None,
    }
}

fn of_line(line: &str) -> Option<Kind> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    if matches!(key, "InitiatorName" | "InitiatorAlias") {
        return Some(Kind::InitiatorName);
    }
    if sfnet::is_key(key) {
        return Some(Kind::Sfnet);
    }
    let is_open_iscsi = |prefix: &&&str| key.starts_with(**prefix);
    let found = OPEN_ISCSI_PREFIXES.iter().find(is_open_iscsi);
    found.map(|_| Kind::OpenIscsi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_says_something_decides() {
        for (text, kind) in [
            ("# c\n\nDiscoveryAddress=192.0.2.1\n", Some(Kind::Sfnet)),
            (" username=iscsi://x", Some(Kind::Sfnet)),
            ("node.startup = automatic", Some(Kind::OpenIscsi)),
            ("# BEGIN RECORD\nnode.name = x", Some(Kind::OpenIscsi)),
            ("# node.startup = automatic", Some(Kind::OpenIscsi)),
            ("InitiatorName=iqn.x", Some(Kind::InitiatorName)),
            ("iscsi://h/iqn.x/1", Some(Kind::Qemu)),
            ("qemu -blockdev driver=iscsi,lun=1", Some(Kind::Qemu)),
            ("-blockdev '{\"driver\": \"iscsi\"}'", Some(Kind::Qemu)),
            ("", None),
            ("hello", None),
            ("a = 1\nnode.name = x", None),
        ] {
            assert_eq!(recognise(text), kind, "{text}");
        }
    }
}
