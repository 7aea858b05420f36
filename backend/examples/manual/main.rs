//! Writes the manual pages (`docs/man`) and the completions of shells
//! (`backend/packaging/completions`) from the definition of the command line:
//!
//! ```text
//! cargo run --package vhost-user-iscsi --example manual
//! ```
//!
//! Its tests fail when those in the checkout are not what it would write.

mod config_page;
mod pages;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap_complete::Shell;
use clap_complete::aot::generate;

/// Where manual pages are in the checkout.
const PAGES: &str = "docs/man";
/// Where completions are in the checkout.
const COMPLETIONS: &str = "backend/packaging/completions";
/// The program.
const PROGRAM: &str = "vhost-user-iscsi";
/// Pages and completions are as wide as the one who reads them: no line is broken before.
const NO_WRAPPING: usize = 0;

/// Files by their path in the checkout.
type Documents = BTreeMap<PathBuf, Vec<u8>>;

fn main() -> io::Result<()> {
    let root = checkout();
    for directory in [PAGES, COMPLETIONS] {
        // What there is no longer is a page goes.
        if root.join(directory).exists() {
            fs::remove_dir_all(root.join(directory))?;
        }
        fs::create_dir_all(root.join(directory))?;
    }
    for (path, content) in documents()? {
        fs::write(root.join(path), content)?;
    }
    Ok(())
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documents() -> io::Result<Documents> {
    let mut documents = Documents::new();
    for (name, content) in pages::pages(&command())? {
        documents.insert(Path::new(PAGES).join(name), content);
    }
    let name = format!("{}.5", config_page::NAME);
    documents.insert(Path::new(PAGES).join(name), config_page::page(&command())?);
    for (shell, name) in [
        (Shell::Bash, PROGRAM.to_owned()),
        (Shell::Zsh, format!("_{PROGRAM}")),
        (Shell::Fish, format!("{PROGRAM}.fish")),
    ] {
        let mut content = Vec::new();
        generate(shell, &mut command(), PROGRAM, &mut content);
        documents.insert(Path::new(COMPLETIONS).join(name), content);
    }
    Ok(documents)
}

/// The command line, complete: before it is built its options do not know how they are written.
fn command() -> clap::Command {
    let mut command = vhost_user_iscsi::cli::command().term_width(NO_WRAPPING);
    command.build();
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANEW: &str = "cargo run --package vhost-user-iscsi --example manual";

    #[test]
    fn the_pages_and_completions_of_the_checkout_are_up_to_date() {
        for (path, expected) in documents().unwrap() {
            let found = fs::read(checkout().join(&path)).unwrap_or_default();
            let (found, expected) = (String::from_utf8(found), String::from_utf8(expected));
            let is_same = found == expected;
            assert!(is_same, "{} is out of date: {ANEW}", path.display());
        }
    }

    #[test]
    fn there_is_no_page_of_something_that_is_gone() {
        let documents = documents().unwrap();
        for directory in [PAGES, COMPLETIONS] {
            for entry in fs::read_dir(checkout().join(directory)).unwrap() {
                let path = Path::new(directory).join(entry.unwrap().file_name());
                assert!(documents.contains_key(&path), "{}: {ANEW}", path.display());
            }
        }
    }

    #[test]
    fn each_verb_has_a_page_of_its_own() {
        let documents = documents().unwrap();
        for verb in command().get_subcommands() {
            let page = format!("{PAGES}/{PROGRAM}-{}.1", verb.get_name());
            assert!(documents.contains_key(Path::new(&page)), "{page}");
        }
    }

    #[test]
    fn the_example_configuration_shows_each_key_of_its_page() {
        let path = checkout().join("backend/packaging/config.toml");
        let example = fs::read_to_string(path).unwrap();
        for key in config_page::keys(&command()) {
            // Limits have three forms, of which one is enough.
            let name = key
                .name
                .replace("-read", "-total")
                .replace("-write", "-total");
            let setting = format!("{name} = ");
            let is_shown = |line: &str| line.trim_start_matches(['#', ' ']).starts_with(&setting);
            assert!(example.lines().any(is_shown), "{} is missing", key.name);
        }
    }
}
