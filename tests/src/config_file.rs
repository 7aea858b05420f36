//! A configuration file of many disks, in a directory of its own, for their sockets too.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::control_socket::ControlSocket;
use crate::daemon::{Daemon, Launch};
use crate::frontend::{Frontend, FrontendConfig};
use crate::served::{INITIATOR_NAME, SOON};
use crate::wait;

/// The file, as it is written so far.
pub struct ConfigFile {
    directory: TempDir,
    /// Its text.
    pub text: String,
}

impl ConfigFile {
    /// One with our usual name and no disk yet.
    ///
    /// # Panics
    /// When there can be no temporary directory.
    pub fn new() -> Self {
        Self {
            directory: TempDir::with_prefix("disks-").expect("a temporary directory"),
            text: format!("initiator-name = '{INITIATOR_NAME}'\n"),
        }
    }

    /// A setting of the process: to be added before the first disk.
    pub fn setting(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.text, "{key} = '{value}'");
    }

    /// A control socket.
    pub fn control_socket(&mut self) -> ControlSocket {
        let path = self.directory().join("control");
        self.setting("control-socket", &path.display().to_string());
        ControlSocket::at(path)
    }

    /// Adds a disk with these further settings.
    pub fn disk(&mut self, name: &str, url: &str, settings: &str) {
        let socket = self.socket(name);
        let _ = writeln!(
            self.text,
            "[[disk]]\nname = '{name}'\nsocket-path = '{}'\nurl = '{url}'\n{settings}",
            socket.display()
        );
    }

    /// Where all of it is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The socket of a disk.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.directory().join(format!("{name}.sock"))
    }

    /// Writes the file; its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) -> PathBuf {
        let path = self.directory().join("config.toml");
        fs::write(&path, &self.text).expect("a file in a directory of ours");
        path
    }

    /// Starts a daemon with it.
    pub fn start(&self) -> Daemon {
        Launch::config(&self.write()).spawn()
    }

    /// Connects to a disk as soon as its socket is there.
    ///
    /// # Panics
    /// When there is none; the message holds what the daemon logged.
    pub fn connect(&self, daemon: &Daemon, name: &str) -> Frontend {
        let config = FrontendConfig {
            memory_bytes: 4 << 20,
            ..FrontendConfig::default()
        };
        let socket = self.socket(name);
        let connected = wait::until(SOON, || Frontend::connect(&socket, config).ok());
        connected.unwrap_or_else(|| panic!("{}: {:#?}", socket.display(), daemon.log()))
    }
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self::new()
    }
}
