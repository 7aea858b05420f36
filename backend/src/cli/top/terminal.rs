//! The terminal: a screen of its own, single keys, and everything as it was at the end.
//!
//! Plain control sequences (ECMA-48, and xterm's alternate screen) and termios(3): a screen that is
//! written anew each second needs no library for more. Signals come through a socket, so that one that
//! ends us is waited for as a key is, and the terminal is restored first.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::low_level::pipe;

use crate::exit::{ExitCode, Failure};

/// Alternate screen, no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Cursor, usual screen.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
/// To the end of the line, and a new one: raw mode adds no carriage return.
const END_OF_LINE: &str = "\x1b[K\r\n";
const CLEAR_BELOW: &str = "\x1b[J";

/// Ctrl-C, which is a key like others in raw mode.
const END_OF_TEXT: u8 = 3;
/// Ctrl-D.
const END_OF_TRANSMISSION: u8 = 4;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// To end.
    Quit,
    /// Sessions, or no sessions.
    Sessions,
    /// The same again: the window has another size.
    Redraw,
}

/// A terminal in raw mode; dropped, it is as it was.
pub(super) struct Terminal<'a> {
    out: &'a mut dyn Write,
    before: Termios,
    /// A byte for each signal that ends us.
    ended: UnixStream,
    /// A byte for each change of the window's size.
    resized: UnixStream,
}

impl<'a> Terminal<'a> {
    /// Takes over the terminal of the standard input.
    pub(super) fn open(out: &'a mut dyn Write) -> Result<Self, Failure> {
        let before = tcgetattr(stdio::stdin()).map_err(|error| failed(error.into()))?;
        let terminal = Self {
            out,
            ended: signals(&[SIGTERM, SIGINT, SIGHUP, SIGQUIT])?,
            resized: signals(&[SIGWINCH])?,
            before,
        };
        let mut raw = terminal.before.clone();
        raw.make_raw();
        set(&raw)?;
        terminal.out.write_all(ENTER.as_bytes()).map_err(failed)?;
        Ok(terminal)
    }

    /// Shows a text, cut to the window.
    pub(super) fn draw(&mut self, text: &str) -> Result<(), Failure> {
        let (columns, rows) = window();
        let lines: Vec<_> = text.lines().collect();
        let (shown, last) = match lines.split_last() {
            // The last line says what can be typed.
            Some((last, shown)) => (shown, *last),
            None => (&[][..], ""),
        };
        let mut screen = String::from(HOME);
        for line in shown.iter().take(rows.saturating_sub(1)) {
            screen.extend(line.chars().take(columns));
            screen.push_str(END_OF_LINE);
        }
        screen.extend(last.chars().take(columns));
        screen.push_str("\x1b[K");
        screen.push_str(CLEAR_BELOW);
        let written = self.out.write_all(screen.as_bytes());
        written.and_then(|()| self.out.flush()).map_err(failed)
    }

    /// Waits for a key, for no longer than `limit`.
    pub(super) fn key(&mut self, limit: Duration) -> Result<Option<Key>, Failure> {
        let stdin = stdio::stdin();
        let mut waited = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(&self.ended, PollFlags::IN),
            PollFd::new(&self.resized, PollFlags::IN),
        ];
        let limit = Timespec::try_from(limit).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        match poll(&mut waited, Some(&limit)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            // The signal has left its byte: the next look finds it.
            Err(Errno::INTR) => return Ok(Some(Key::Redraw)),
            Err(error) => return Err(failed(error.into())),
        }
        let [typed, ended, resized] = waited.map(|waited| !waited.revents().is_empty());
        if ended {
            return Ok(Some(Key::Quit));
        }
        if resized {
            let _ = self.resized.read(&mut [0; 64]);
            return Ok(Some(Key::Redraw));
        }
        match typed {
            true => read_key().map(Some),
            false => Ok(None),
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It may have gone; then there is nothing to restore.
        let _ = self.out.write_all(LEAVE.as_bytes());
        let _ = self.out.flush();
        let _ = set(&self.before);
    }
}

/// What was typed; a sequence of a function key is none of ours.
fn read_key() -> Result<Key, Failure> {
    let mut typed = [0; 16];
    let length = match rustix::io::read(stdio::stdin(), &mut typed) {
        // It has hung up.
        Ok(0) | Err(Errno::IO) => return Ok(Key::Quit),
        Ok(length) => length,
        Err(Errno::INTR | Errno::AGAIN) => return Ok(Key::Redraw),
        Err(error) => return Err(failed(error.into())),
    };
    let typed = typed.get(..length).unwrap_or_default();
    let is_quit = |byte: &u8| matches!(*byte, b'q' | b'Q' | END_OF_TEXT | END_OF_TRANSMISSION);
    Ok(match typed {
        [0x1b, ..] => Key::Redraw,
        typed if typed.iter().any(is_quit) => Key::Quit,
        typed if typed.contains(&b's') => Key::Sessions,
        _ => Key::Redraw,
    })
}

/// Where a byte comes for each of these signals.
fn signals(numbers: &[i32]) -> Result<UnixStream, Failure> {
    let (receiver, sender) = UnixStream::pair().map_err(failed)?;
    receiver.set_nonblocking(true).map_err(failed)?;
    for number in numbers {
        let sender = sender.try_clone().map_err(failed)?;
        pipe::register(*number, sender).map_err(failed)?;
    }
    Ok(receiver)
}

fn set(attributes: &Termios) -> Result<(), Failure> {
    tcsetattr(stdio::stdin(), OptionalActions::Flush, attributes)
        .map_err(|error| failed(error.into()))
}

/// Columns and rows; those of a usual terminal when it does not say.
fn window() -> (usize, usize) {
    let size = tcgetwinsize(stdio::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(
        ExitCode::Other,
        format!("cannot use the terminal: {error}; --batch needs none"),
    )
}
