//! The files of the package: the example configuration, and what QEMU reads about us.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The example configuration, and the files that it names, in a directory of their own.
struct Example {
    directory: TempDir,
    text: String,
}

impl Example {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = packaging().join("config.toml");
        let text = fs::read_to_string(path).unwrap();
        for (name, secret) in [
            ("array1", "a secret of ours"),
            ("array1-target", "one of theirs"),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, secret).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        }
        Self { directory, text }
    }

    /// The settings that it shows, set; with secrets and groups that there are on this machine.
    fn uncommented(&self) -> String {
        let is_setting =
            |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
        let uncommented = |line: &str| {
            line.strip_prefix('#')
                .filter(is_setting)
                .unwrap_or(line)
                .to_owned()
                + "\n"
        };
        let text: String = self.text.lines().map(uncommented).collect();
        let directory = self.directory.path().to_str().unwrap();
        text.replace("/etc/vhost-user-iscsi/secrets", directory)
            .replace("-group = \"vhost-user-iscsi\"", "-group = \"root\"")
            .replace("-group = \"kvm\"", "-group = \"root\"")
    }

    /// What `check` says to a text.
    fn checked(&self, text: &str) -> String {
        let path = self.directory.path().join("config.toml");
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-user-iscsi"));
        let output = command
            .arg("check")
            .arg("--config")
            .arg(path)
            .env_clear()
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    }
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

#[test]
fn the_example_configuration_is_valid_and_sets_nothing() {
    let example = Example::new();
    let is_comment = |line: &str| line.is_empty() || line.starts_with('#');
    assert!(example.text.lines().all(is_comment));
    assert!(example.checked(&example.text).contains("no disk yet"));
}

#[test]
fn the_settings_that_the_example_shows_are_valid() {
    let example = Example::new();
    let said = example.checked(&example.uncommented());
    for disk in ["disk root: iscsi://", "disk data: iscsi://"] {
        assert!(said.contains(disk), "{said}");
    }
}

#[test]
fn qemu_is_told_what_the_program_prints_of_itself() {
    let text = fs::read_to_string(packaging().join("50-vhost-user-iscsi.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-user-iscsi"));
    let output = command.arg("--print-capabilities").output().unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["type"], printed["type"]);
    assert_eq!(told["binary"], "/usr/bin/vhost-user-iscsi");
    assert!(told["description"].is_string());
}
