//! The directory of the sockets, and the end of everything on a signal.

use std::path::Path;
use std::sync::OnceLock;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use crate::failure::{Failure, Status};

/// Where the directory is, for the thread that removes it on a signal.
static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();

/// A private directory, removed at the end.
pub(crate) struct Workspace {
    directory: TempDir,
}

impl Workspace {
    /// Makes it.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(crate) fn new() -> Result<Self, Failure> {
        let directory = TempDir::with_prefix("bench-")
            .map_err(|error| Failure::part(format!("cannot make a directory: {error}")))?;
        let _ = PATH.set(directory.path().to_owned());
        Ok(Self { directory })
    }

    /// Its path.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// From here on INT, TERM and HUP end the process at once, and the kernel ends its children.
///
/// # Errors
/// When the system refuses.
pub(crate) fn end_on_signals() -> Result<(), Failure> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])
        .map_err(|error| Failure::part(format!("cannot wait for signals: {error}")))?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            end(Status::Interrupted);
        }
    });
    Ok(())
}

/// A part that cannot go on panics, as test helpers do: say why, and end like any other failure.
#[allow(clippy::print_stderr, reason = "a program's complaints")]
pub(crate) fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("vhost-user-iscsi-bench: {panic}");
        end(Status::PartFailed);
    }));
}

fn end(status: Status) -> ! {
    if let Some(path) = PATH.get() {
        let _ = std::fs::remove_dir_all(path);
    }
    std::process::exit(status as i32)
}
