//! The journal's own socket: a datagram per line, of fields (systemd.io, "Native Journal Protocol").
//!
//! A datagram of `NAME=value` lines is all of it for values without newlines, and ours have none. The
//! crates that do it have the path of the socket built in, so that no test can see what is sent, and
//! pass long lines in a memory file, which a sandbox would have to allow for.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The longest line: nothing of ours is near it, and a datagram has to fit into a send buffer.
const MAX_LINE_BYTES: usize = 32 * 1024;

/// What a line of fields begins with; anything else is somebody's last word, for stderr.
const MESSAGE: &str = "MESSAGE=";
const PRIORITY: &str = "\nPRIORITY=";

/// The journal, and stderr for what it does not take.
pub(super) struct Journal<F = io::Stderr> {
    /// Not connected: the journal may be started anew. `None` where there can be no socket.
    socket: Option<UnixDatagram>,
    path: PathBuf,
    otherwise: F,
}

impl Journal {
    /// That of this machine.
    pub(super) fn of_machine() -> Self {
        Self::new(Path::new(SOCKET), io::stderr())
    }
}

impl<F: Write> Journal<F> {
    fn new(path: &Path, otherwise: F) -> Self {
        Self {
            socket: UnixDatagram::unbound().ok(),
            path: path.to_owned(),
            otherwise,
        }
    }

    fn send(&self, fields: &[u8]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        socket.send_to(fields, &self.path)?;
        Ok(())
    }
}

impl<F: Write> Write for Journal<F> {
    /// Takes a whole line. What the journal does not take goes to stderr with its priority before it, as
    /// the journal reads that (sd-daemon(3)).
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let Some((message, fields)) = parts(&text) else {
            self.otherwise.write_all(line)?;
            return Ok(line.len());
        };
        let short = cut(message);
        if self
            .send(format!("{MESSAGE}{short}\n{fields}").as_bytes())
            .is_err()
        {
            let priority = fields
                .strip_prefix("PRIORITY=")
                .and_then(|rest| rest.lines().next());
            let priority = priority.unwrap_or("5");
            self.otherwise
                .write_all(format!("<{priority}>{message}\n").as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.otherwise.flush()
    }
}

/// No more of it than there is room for.
fn cut(message: &str) -> &str {
    let mut ends = (0..=MAX_LINE_BYTES.min(message.len())).rev();
    let end = ends.find(|end| message.is_char_boundary(*end));
    end.and_then(|end| message.get(..end)).unwrap_or_default()
}

/// The message, and the fields behind it; `None` when it is no line of fields.
fn parts(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix(MESSAGE)?;
    let end = rest.find(PRIORITY)?;
    Some((rest.get(..end)?, rest.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    /// A journal of our own, and its socket.
    fn journal(directory: &Path) -> (UnixDatagram, Journal<Vec<u8>>) {
        let path = directory.join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        (listener, Journal::new(&path, Vec::new()))
    }

    fn received(listener: &UnixDatagram) -> String {
        let mut datagram = vec![0; 1 << 20];
        let length = listener.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    fn write(journal: &mut Journal<Vec<u8>>, message: &str) {
        journal
            .write_all(line(message).as_fields().as_bytes())
            .unwrap();
    }

    #[test]
    fn a_line_is_one_datagram_of_fields() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, mut journal) = journal(directory.path());
        write(&mut journal, "it is lost");
        assert_eq!(received(&listener), line("it is lost").as_fields());
        assert!(journal.otherwise.is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, mut journal) = journal(directory.path());
        write(&mut journal, &"é".repeat(1 << 20));
        let told = received(&listener);
        assert!(told.len() < MAX_LINE_BYTES + 200);
        assert!(told.contains("é\nPRIORITY=4\n"), "{}", told.len());
    }

    #[test]
    fn without_a_journal_lines_go_to_stderr_with_their_priority() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, mut journal) = journal(directory.path());
        drop(listener);
        write(&mut journal, "it is lost");
        journal.write_all(b"the last word\n").unwrap();
        let written = String::from_utf8(journal.otherwise).unwrap();
        assert_eq!(written, "<4>disk root: it is lost\nthe last word\n");
    }

    #[test]
    fn one_that_was_started_anew_is_written_to_again() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, mut journal) = journal(directory.path());
        drop(listener);
        std::fs::remove_file(directory.path().join("socket")).unwrap();
        let listener = UnixDatagram::bind(directory.path().join("socket")).unwrap();
        write(&mut journal, "again");
        assert!(received(&listener).contains("again"));
    }
}
