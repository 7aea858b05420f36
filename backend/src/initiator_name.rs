//! The initiator's name: given, found, derived or fresh.
//!
//! An iqn name is qualified by a domain that its naming authority owned at the date in the name
//! (RFC 7143 section 4.2.7.4). The project owns no domain, and to use somebody else's, or one
//! that anybody could register later, would be a claim that is not ours to make. `internal` is
//! the top-level domain that ICANN set aside for private use in July 2024: it never belongs to
//! anybody, which is just what a name says that a machine made up for itself. What makes the name
//! unlike any other are the 128 bits behind it.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use iscsi_core::name::IscsiName;
use sha2::{Digest, Sha256};

use crate::exit::{ExitCode, Failure};
use crate::system::System;

/// What every name that we make up begins with.
pub const PREFIX: &str = "iqn.2024-08.internal.vhost-user-iscsi:";

/// Where an initiator's name is kept, the first one that can be used wins: open-iscsi's place and
/// the older one.
const NAME_FILES: [&str; 2] = ["/etc/iscsi/initiatorname.iscsi", "/etc/initiatorname.iscsi"];

/// Read no more than this of a file, in bytes: real ones are a tenth of it.
const MAX_FILE_LENGTH_BYTES: u64 = 16 * 1024;

/// The name to use: that of the option, else of a file, else one derived from the machine.
///
/// # Errors
/// `Usage` for an option that is not a name; `Other` when nothing tells this machine from others.
pub fn initiator_name(option: Option<&str>, system: &System<'_>) -> Result<IscsiName, Failure> {
    if let Some(text) = option {
        return IscsiName::parse(text)
            .map_err(|error| Failure::usage(format!("--initiator-name is not valid: {error}")));
    }
    match NAME_FILES
        .iter()
        .find_map(|file| name_from_file(&system.path(file)))
    {
        Some(name) => Ok(name),
        None => derived_name(system),
    }
}

/// A fresh name that nobody else has: 128 random bits.
///
/// # Errors
/// `Other` when the system has no random numbers.
pub fn fresh_name() -> Result<IscsiName, Failure> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| {
        Failure::new(
            ExitCode::Other,
            format!("cannot get random numbers: {error}"),
        )
    })?;
    made_up_name("", &bits)
}

/// The name in a file, or `None` with a warning unless the file simply is not there.
fn name_from_file(path: &Path) -> Option<IscsiName> {
    let found = match read_text(path) {
        Ok(text) => parse_name_file(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    found
        .map_err(|reason| log::warn!("no initiator name from {}: {reason}", path.display()))
        .ok()
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(MAX_FILE_LENGTH_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The first `InitiatorName=` line; `#` starts a comment line.
fn parse_name_file(text: &str) -> Result<IscsiName, String> {
    let value = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .find_map(|(key, value)| (key.trim() == "InitiatorName").then_some(value.trim()))
        .ok_or("there is no line InitiatorName=")?;
    IscsiName::parse(value).map_err(|error| error.to_string())
}

/// A stable name from the machine's id or, failing that, its host name.
fn derived_name(system: &System<'_>) -> Result<IscsiName, Failure> {
    if let Some(id) = read_text(&system.path("/etc/machine-id"))
        .ok()
        .and_then(machine_id)
    {
        return made_up_name("machine-", &hash("machine-id", &id));
    }
    let host_name = read_text(&system.path("/proc/sys/kernel/hostname"))
        .ok()
        .and_then(host_name);
    let Some(host_name) = host_name else {
        return Err(Failure::new(
            ExitCode::Other,
            "there is no initiator name: neither /etc/iscsi/initiatorname.iscsi nor \
             /etc/machine-id nor a host name can be used; give --initiator-name (the verb iname \
             makes one up)",
        ));
    };
    log::warn!(
        "the initiator name is derived from the host name, for want of /etc/machine-id; \
         --initiator-name makes sure that no other host has it"
    );
    made_up_name("host-", &hash("hostname", &host_name))
}

/// 32 hexadecimal digits, not all zero (machine-id(5)). `uninitialized` is none.
fn machine_id(text: String) -> Option<String> {
    let id = text.trim();
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id && id.bytes().any(|b| b != b'0')).then(|| id.to_ascii_lowercase())
}

/// A host name that is likely to be this host's alone.
fn host_name(text: String) -> Option<String> {
    let name = text.trim();
    let is_common = matches!(name, "" | "(none)" | "localhost" | "localhost.localdomain");
    (!is_common).then(|| name.to_ascii_lowercase())
}

/// The machine's id is confidential, so only a hash leaves the machine, and one that no other
/// program makes (machine-id(5) asks for both). `purpose` keeps the two sources apart.
fn hash(purpose: &str, value: &str) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(b"vhost-user-iscsi initiator name 1\0");
    hasher.update(purpose.as_bytes());
    hasher.update(b"\0");
    hasher.update(value.as_bytes());
    let mut bits = [0; 16];
    bits.iter_mut()
        .zip(hasher.finalize())
        .for_each(|(bit, byte)| *bit = byte);
    bits
}

fn made_up_name(kind: &str, bits: &[u8; 16]) -> Result<IscsiName, Failure> {
    let number = u128::from_be_bytes(*bits);
    IscsiName::parse(&format!("{PREFIX}{kind}{number:032x}"))
        .map_err(|error| Failure::new(ExitCode::Other, format!("made-up initiator name: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    /// The name that a machine with these files gets.
    fn name_with(files: &[(&str, &str)]) -> Result<String, Failure> {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let system = System::fake(&|_| None, root.path());
        initiator_name(None, &system).map(|name| name.to_string())
    }

    #[test]
    fn the_option_wins_and_is_checked() {
        let system = System::fake(&|_| None, Path::new("/nonexistent"));
        let name = initiator_name(Some("iqn.2001-04.com.example:me"), &system).unwrap();
        assert_eq!(name.as_str(), "iqn.2001-04.com.example:me");
        let failure = initiator_name(Some("me"), &system).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
    }

    #[test]
    fn takes_the_first_file_with_a_name() {
        let first = (
            "etc/iscsi/initiatorname.iscsi",
            "# mine\n\nInitiatorName=iqn.2001-04.a:1\n",
        );
        let second = (
            "etc/initiatorname.iscsi",
            "  InitiatorName = iqn.2001-04.a:2  \n",
        );
        assert_eq!(name_with(&[first, second]).unwrap(), "iqn.2001-04.a:1");
        assert_eq!(name_with(&[second]).unwrap(), "iqn.2001-04.a:2");
        for useless in [
            "",
            "#InitiatorName=iqn.2001-04.a:3\n",
            "InitiatorName=me\n",
            "GenerateName=yes\n",
        ] {
            let first = ("etc/iscsi/initiatorname.iscsi", useless);
            assert_eq!(
                name_with(&[first, second]).unwrap(),
                "iqn.2001-04.a:2",
                "{useless}"
            );
        }
    }

    #[test]
    fn a_directory_in_place_of_the_file_is_passed_over() {
        let below = ("etc/iscsi/initiatorname.iscsi/x", "");
        assert!(name_with(&[below, ("etc/machine-id", ID)]).is_ok());
    }

    #[test]
    fn the_derived_name_is_stable_and_does_not_show_the_id() {
        let name = name_with(&[("etc/machine-id", &format!("{ID}\n"))]).unwrap();
        // Pinned: a name that changes with a version locks people out of their targets.
        assert_eq!(
            name,
            format!("{PREFIX}machine-3082e9be2f6a4ea38681bf476dc10e97")
        );
        assert!(!name.contains(ID));
        let other = name_with(&[("etc/machine-id", &ID.replace("0123", "0124"))]).unwrap();
        assert_ne!(name, other);
    }

    #[test]
    fn falls_back_to_the_host_name_when_there_is_no_id() {
        let host = ("proc/sys/kernel/hostname", "hv1.example.com\n");
        for no_id in [
            "",
            "uninitialized\n",
            "00000000000000000000000000000000\n",
            "0123\n",
        ] {
            let name = name_with(&[("etc/machine-id", no_id), host]).unwrap();
            assert!(name.starts_with(&format!("{PREFIX}host-")), "{name}");
        }
    }

    #[test]
    fn refuses_to_share_a_name_with_every_other_localhost() {
        for name in ["", "localhost\n", "(none)\n"] {
            let failure = name_with(&[("proc/sys/kernel/hostname", name)]).unwrap_err();
            assert!(failure.message.contains("--initiator-name"));
        }
    }

    #[test]
    fn fresh_names_differ() {
        assert_ne!(fresh_name().unwrap(), fresh_name().unwrap());
    }
}
