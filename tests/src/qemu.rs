//! `qemu-storage-daemon` as a vhost-user-blk back-end: the judge of our own front-end client.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::wait;

/// How long it may take until its socket is there.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A `qemu-storage-daemon` that exports one image file; killed when dropped.
pub struct StorageDaemon {
    _process: Process,
    socket: PathBuf,
}

impl StorageDaemon {
    /// Exports `image` with `queues` virtqueues on a socket in `directory`.
    ///
    /// # Panics
    /// When the program is missing or does not come up.
    pub fn start(directory: &Path, image: &Path, queues: u16) -> Self {
        let socket = directory.join("qsd.sock");
        let blockdev = format!(
            "driver=file,node-name=f,discard=unmap,filename={}",
            image.display()
        );
        let export = format!(
            "type=vhost-user-blk,id=e,node-name=f,writable=on,num-queues={queues},\
             addr.type=unix,addr.path={}",
            socket.display()
        );
        let mut command = Command::new("qemu-storage-daemon");
        command.args(["--blockdev", &blockdev, "--export", &export]);
        let process = Process::start(&mut command, "install the Debian package qemu-utils");
        wait::until(START_LIMIT, || socket.exists().then_some(()))
            .unwrap_or_else(|| panic!("no socket: {:?}", process.stderr.all()));
        Self {
            _process: process,
            socket,
        }
    }

    /// The socket it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
