//! What the machine around the process tells it: environment variables and a few files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The surroundings, as an argument, so that tests can make up their own.
#[derive(Clone, Copy)]
pub struct System<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    root: &'a Path,
}

impl System<'static> {
    /// The machine that we run on.
    pub fn real() -> Self {
        Self {
            variable: &|name| std::env::var_os(name),
            root: Path::new("/"),
        }
    }
}

impl<'a> System<'a> {
    /// Made-up surroundings: `variable` looks up environment variables, `root` is where the files
    /// of `/` are.
    pub fn fake(variable: &'a dyn Fn(&str) -> Option<OsString>, root: &'a Path) -> Self {
        Self { variable, root }
    }

    /// An environment variable; one that is set to nothing counts as not set.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// Where the file is that the machine has at `path`, an absolute path.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}
