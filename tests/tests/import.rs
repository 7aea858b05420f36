//! `import`: files as other initiators write them (`samples/import`), and what becomes of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vhost_user_iscsi_tests::daemon::{Output, run, run_in};
use vhost_user_iscsi_tests::snapshot::assert_matches;

/// Each sample, and how many disks `check` finds in what becomes of it.
const SAMPLES: [(&str, usize); 6] = [
    ("iscsi.conf", 0),
    ("iscsi-selected.conf", 0),
    ("etc-iscsi", 0),
    ("iscsid-defaults.conf", 0),
    ("urls.txt", 4),
    ("qemu-command.sh", 4),
];

/// Every secret in the samples.
const SECRETS: [&str; 10] = [
    "wonderland1342",
    "nyet12345678",
    "looking-glass",
    "a secret with",
    "mirror-mirror-1",
    "sesame-open-up",
    "march-hare-42",
    "bm8tbW9yZS10ZWE=",
    DECODED,
    "never-shown-0",
];

/// What the one before it says: no sample has it as it is.
const DECODED: &str = "no-more-tea";

/// A file that a sample names as that of a secret.
const SECRET_OF_QEMU: &str = "/etc/qemu/mail.secret";

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/import")
}

fn import(arguments: &[&str]) -> Output {
    run_in(&samples(), &[&["import"], arguments].concat())
}

fn write_secret(path: &Path, secret: &str) {
    fs::write(path, secret).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn each_sample_becomes_a_configuration_that_says_what_is_left_out() {
    for (sample, _) in SAMPLES {
        let output = import(&[sample]);
        assert_eq!(
            (output.code, output.stderr.as_str()),
            (Some(0), ""),
            "{sample}"
        );
        assert_matches(&format!("import/{sample}.toml"), &output.stdout);
    }
}

#[test]
fn what_becomes_of_each_sample_is_accepted() {
    for (sample, disks) in SAMPLES {
        let directory = TempDir::with_prefix("import-").unwrap();
        let secrets = directory.path().join("secrets");
        let output = import(&[sample, "--secrets-directory", secrets.to_str().unwrap()]);
        assert_eq!(output.code, Some(0), "{sample}: {}", output.stderr);
        // The secrets that did not stand in the sample.
        let elsewhere = directory.path().join("mail.secret");
        write_secret(&elsewhere, "cheshire-cat-7");
        write_secret(&secrets.join("bob"), "dormouse-in-pot");
        let text = output
            .stdout
            .replace(SECRET_OF_QEMU, elsewhere.to_str().unwrap());
        let file = directory.path().join("config.toml");
        fs::write(&file, text).unwrap();
        let check = run(&["check", "--config", file.to_str().unwrap()]);
        let found = check
            .stdout
            .lines()
            .filter(|line| line.starts_with("disk "));
        if sample == "iscsid-defaults.conf" {
            assert!(check.stdout.ends_with("no disk yet\n"), "{}", check.stdout);
            continue;
        }
        assert_eq!(
            check.code,
            Some(0),
            "{sample}: {} {}",
            check.stdout,
            check.stderr
        );
        assert_eq!(found.count(), disks, "{sample}: {}", check.stdout);
    }
}

/// All that stands in a file, or in those below a directory.
fn text_of(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| text_of(&entry.unwrap().path()))
        .collect()
}

#[test]
fn no_secret_gets_into_the_output_with_or_without_files_for_them() {
    let all = text_of(&samples());
    let missing = SECRETS
        .into_iter()
        .find(|secret| *secret != DECODED && !all.contains(secret));
    assert_eq!(missing, None, "a secret of no sample");
    for (sample, _) in SAMPLES {
        let directory = TempDir::with_prefix("import-").unwrap();
        let secrets = directory.path().join("secrets");
        let with_files = import(&[sample, "--secrets-directory", secrets.to_str().unwrap()]);
        for output in [import(&[sample]), with_files] {
            let shown = SECRETS
                .into_iter()
                .find(|secret| output.stdout.contains(secret) || output.stderr.contains(secret));
            assert_eq!(shown, None, "{sample}");
        }
    }
}

#[test]
fn secret_files_hold_the_secret_are_private_and_never_overwritten() {
    let directory = TempDir::with_prefix("import-").unwrap();
    let secrets = directory.path().join("new/secrets");
    let arguments = [
        "etc-iscsi",
        "--secrets-directory",
        secrets.to_str().unwrap(),
    ];
    assert_eq!(import(&arguments).code, Some(0));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&secrets), 0o700);
    for (name, secret) in [
        ("host1", "a secret with \"quotes\" # and more\n"),
        ("array1", "mirror-mirror-1\n"),
    ] {
        let path = secrets.join(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), secret);
        assert_eq!(mode(&path), 0o600);
    }
    // One that is there keeps all others from being written, whichever it is.
    for (there, other) in [("host1", "array1"), ("array1", "host1")] {
        fs::remove_file(secrets.join(other)).unwrap();
        fs::write(secrets.join(there), "mine").unwrap();
        let again = import(&arguments);
        assert_eq!((again.code, again.stdout.as_str()), (Some(13), ""));
        let named = format!("{there} is there already");
        assert!(again.stderr.contains(&named), "{}", again.stderr);
        assert_eq!(fs::read_to_string(secrets.join(there)).unwrap(), "mine");
        assert!(!secrets.join(other).exists());
        fs::write(secrets.join(other), "").unwrap();
    }
}
