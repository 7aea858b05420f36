//! Reading what is to be imported: files, directories, the standard input; all of it with bounds.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use zeroize::Zeroizing;

use super::found::Place;
use crate::exit::Failure;

/// The most that is read, of all files together: node records of a thousand targets, and not
/// whatever somebody points at.
const MAX_BYTES: u64 = 4 << 20;

/// The most files of a directory.
const MAX_FILES: usize = 10_000;

/// How deep a directory is walked: `nodes/TARGET/PORTAL/INTERFACE` in `/etc/iscsi`, and one more.
const MAX_DEPTH: usize = 5;

/// Directories of open-iscsi's database that say nothing which a node record does not.
const SKIPPED: [&str; 6] = ["send_targets", "static", "isns", "slp", "fw", "ifaces"];

/// A text to import.
pub(super) struct Source {
    /// Its name, for people.
    pub(super) name: Rc<str>,
    /// Its content; there may be secrets in it.
    pub(super) text: Zeroizing<String>,
    /// It was found in a directory, not named.
    pub(super) is_from_directory: bool,
}

impl Source {
    /// A line of it, from 1; 0 for the whole.
    pub(super) fn at(&self, line: usize) -> Place {
        Place {
            source: self.name.clone(),
            line,
        }
    }

    /// Its lines, each with its number.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Place, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(index, line)| (self.at(index + 1), line))
    }
}

/// Reads all that was named.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut reading = Reading {
        left_bytes: MAX_BYTES,
        sources: Vec::new(),
    };
    for path in paths {
        reading.named(path)?;
    }
    Ok(reading.sources)
}

struct Reading {
    left_bytes: u64,
    sources: Vec<Source>,
}

impl Reading {
    fn named(&mut self, path: &Path) -> Result<(), Failure> {
        if path == Path::new("-") {
            return self.take("standard input", &mut io::stdin().lock(), false);
        }
        let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
        match metadata.is_dir() {
            true => self.directory(path, 0),
            false => self.file(path, false),
        }
    }

    /// Walks a directory in the order of names. Symbolic links are not followed: in open-iscsi's
    /// database they lead to records that are there anyway.
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), Failure> {
        let error = |error| cannot_read(path, &error);
        let mut entries = fs::read_dir(path)
            .map_err(error)?
            .take(MAX_FILES)
            .collect::<Result<Vec<_>, _>>()
            .map_err(error)?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let kind = entry.file_type().map_err(error)?;
            let is_skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
            if kind.is_file() {
                self.file(&entry.path(), true)?;
            } else if kind.is_dir() && !is_skipped && depth < MAX_DEPTH {
                self.directory(&entry.path(), depth + 1)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, is_from_directory: bool) -> Result<(), Failure> {
        if self.sources.len() >= MAX_FILES {
            let message = format!("{}: more than {MAX_FILES} files", path.display());
            return Err(Failure::usage(message));
        }
        let mut file = File::open(path).map_err(|error| cannot_read(path, &error))?;
        self.take(&path.display().to_string(), &mut file, is_from_directory)
    }

    fn take(
        &mut self,
        name: &str,
        from: &mut dyn Read,
        is_from_directory: bool,
    ) -> Result<(), Failure> {
        let mut bytes = Zeroizing::new(Vec::new());
        from.take(self.left_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| cannot_read(Path::new(name), &error))?;
        let length_bytes = bytes.len() as u64;
        self.left_bytes = self.left_bytes.checked_sub(length_bytes).ok_or_else(|| {
            Failure::usage(format!(
                "{name}: with it there are more than {MAX_BYTES} bytes to import"
            ))
        })?;
        let source = Source {
            name: name.into(),
            text: decode(name, &bytes)?,
            is_from_directory,
        };
        self.sources.push(source);
        Ok(())
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{}: cannot be read: {error}", path.display()))
}

/// UTF-8 without NUL: with one it is no text, and a byte order mark is none of it.
fn decode(name: &str, bytes: &[u8]) -> Result<Zeroizing<String>, Failure> {
    let line_of = |at: usize| {
        let before = bytes.get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    };
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let line = line_of(at);
        let message = format!("{name}:{line}: there is a NUL byte: this is no text file");
        return Err(Failure::usage(message));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_of(error.valid_up_to());
        Failure::usage(format!("{name}:{line}: this line is not UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        decode("f", bytes)
            .err()
            .map_or_else(String::new, |f| f.message)
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        assert!(message(b"a\nb\0").starts_with("f:2: there is a NUL"));
        assert!(message(b"a\n\nb\xff").starts_with("f:3: this line is not UTF-8"));
        assert_eq!(message("\u{feff}é\r\n".as_bytes()), "");
    }

    #[test]
    fn all_files_together_have_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        let size = usize::try_from(MAX_BYTES).unwrap();
        fs::write(&file, vec![b'#'; size]).unwrap();
        let one = read_all(std::slice::from_ref(&file));
        assert_eq!(one.unwrap().len(), 1);
        let more = directory.path().join("g");
        fs::write(&more, "#").unwrap();
        let both = read_all(&[file, more]).err().unwrap();
        assert!(both.message.contains("more than 4194304 bytes"), "{both}");
    }

    #[test]
    fn a_directory_that_leads_to_itself_is_walked_once() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(directory.path(), directory.path().join("loop")).unwrap();
        fs::create_dir(directory.path().join("send_targets")).unwrap();
        fs::write(directory.path().join("send_targets/st_config"), "x").unwrap();
        fs::write(directory.path().join("f"), "x").unwrap();
        assert_eq!(read_all(&[directory.path().to_owned()]).unwrap().len(), 1);
    }
}
