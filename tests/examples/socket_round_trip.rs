//! `socket_round_trip SOCKET`: is the guest of a disk for a moment. It writes, flushes and reads back
//! what it wrote, as a program of its own for scripts that start the daemon by themselves.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use vhost_user_iscsi_tests::disk::pattern;
use vhost_user_iscsi_tests::frontend::spec::S_OK;
use vhost_user_iscsi_tests::frontend::{self, Frontend, FrontendConfig};

const BYTES: u32 = 64 << 10;

fn main() -> ExitCode {
    let Some(socket) = std::env::args_os().nth(1) else {
        return failed(2, "give the path of a socket");
    };
    match round_trip(Path::new(&socket)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => failed(1, "what was read is not what was written"),
        Err(error) => failed(1, &format!("{}: {error}", socket.display())),
    }
}

fn failed(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "socket_round_trip: {message}");
    ExitCode::from(code)
}

fn round_trip(socket: &Path) -> frontend::Result<bool> {
    let mut frontend = Frontend::connect(socket, FrontendConfig::default())?;
    let queue = frontend.queue(0);
    let data = pattern(BYTES as usize);
    let written = queue.write(0, &data)?;
    let flushed = queue.flush()?;
    let read = queue.read(0, BYTES)?;
    Ok((written, flushed) == (S_OK, S_OK) && read == (S_OK, data))
}
