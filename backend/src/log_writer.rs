//! A log that keeps nobody waiting: lines go through a bounded queue to a thread of their own, and
//! what does not fit is counted and said later. A process that serves starts the thread in its sandbox,
//! for threads inherit it; until then lines wait in the queue.
//!
//! Whoever takes the log may be stuck (a full pipe, a journal that hangs), and those who log are the
//! threads that serve guests.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How many lines may wait to be written: what a process of a thousand disks says when all of them lose
/// their target.
const MAX_LINES: usize = 4096;

/// How long the end of the process waits for the last lines.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// What the writing thread is told.
enum Order {
    Line(Vec<u8>),
    /// All lines before are to be written by then.
    Finish(SyncSender<()>),
}

/// Where the lines of the process go, once there is such a place.
static STARTED: OnceLock<LogWriter> = OnceLock::new();

/// The far end of that, until it has its thread.
static BACKLOG: Mutex<Option<(Backlog, Box<dyn Write + Send>)>> = Mutex::new(None);

/// The near end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// The one of this process, for `sink`. Its lines wait until [`start_writing`].
    pub(crate) fn of_process(sink: impl Write + Send + 'static) -> Self {
        let queue = || {
            let (writer, backlog) = Self::queue();
            let waiting = (backlog, Box::new(sink) as Box<dyn Write + Send>);
            *BACKLOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting);
            writer
        };
        STARTED.get_or_init(queue).clone()
    }

    fn queue() -> (Self, Backlog) {
        let (orders, lines) = sync_channel(MAX_LINES);
        let dropped = Arc::<AtomicU64>::default();
        let backlog = Backlog {
            orders: lines,
            dropped: Arc::clone(&dropped),
        };
        (Self { orders, dropped }, backlog)
    }

    /// Returns when every line so far is written, or after a while.
    fn finish(&self) -> Result<(), RecvTimeoutError> {
        let (done, is_done) = sync_channel(1);
        // A queue that is full belongs to somebody who does not read.
        if self.orders.try_send(Order::Finish(done)).is_err() {
            return Err(RecvTimeoutError::Timeout);
        }
        is_done.recv_timeout(FINISH_LIMIT)
    }
}

/// The far end of the queue.
struct Backlog {
    orders: Receiver<Order>,
    dropped: Arc<AtomicU64>,
}

impl Backlog {
    /// Has a thread write what is there, and whatever comes.
    fn write_to(self, sink: impl Write + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&self.orders, &self.dropped, sink))?;
        Ok(())
    }
}

/// Starts the thread that writes the log of this process, if there is one to write. Only the first call
/// does anything.
///
/// # Errors
/// When there can be no thread.
pub(crate) fn start_writing() -> io::Result<()> {
    let backlog = BACKLOG
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    backlog.map_or(Ok(()), |(backlog, sink)| backlog.write_to(sink))
}

impl Write for LogWriter {
    /// Takes a whole line; never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.orders.try_send(Order::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says the last word of the process, behind all that it has logged: as far as somebody takes it.
pub fn say_at_the_end(line: &str) {
    let line = format!("{line}\n");
    let Some(writer) = STARTED.get() else {
        let _ = io::stderr().write_all(line.as_bytes());
        return;
    };
    let _ = writer.clone().write_all(line.as_bytes());
    finish();
}

/// Waits a moment for the log to be written.
pub fn finish() {
    if let Some(writer) = STARTED.get() {
        // A process that fails before it serves has not done so.
        let _ = start_writing();
        let _ = writer.finish();
    }
}

/// A line that cannot be written (a disk that is full) is lost: there is nobody to tell.
fn write_lines(orders: &Receiver<Order>, dropped: &AtomicU64, mut sink: impl Write) {
    while let Ok(order) = orders.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                sink,
                "{lost} lines of the log are lost here: whoever takes it was too slow"
            );
        }
        match order {
            Order::Line(line) => {
                let _ = sink.write_all(&line);
            }
            Order::Finish(done) => {
                let _ = sink.flush();
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Takes lines when it is let.
    struct Gate {
        open: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Closed for good means open.
            let _ = self.open.recv();
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogWriter, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (opener, open) = channel();
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        let gate = Gate {
            open,
            taken: Arc::clone(&taken),
        };
        let (writer, backlog) = LogWriter::queue();
        backlog.write_to(gate).unwrap();
        (writer, opener, taken)
    }

    #[test]
    fn lines_are_written_in_order_and_all_of_them_before_the_end() {
        let (mut writer, opener, taken) = gated();
        drop(opener);
        for line in 0..1000 {
            writeln!(writer, "{line}").unwrap();
        }
        writer.finish().unwrap();
        let expected: String = (0..1000).map(|line| format!("{line}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&taken.lock().unwrap()), expected);
    }

    #[test]
    fn lines_wait_for_the_thread_that_writes_them() {
        let (mut writer, backlog) = LogWriter::queue();
        writer.write_all(b"early\n").unwrap();
        let (opener, open) = channel();
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        let gate = Gate {
            open,
            taken: Arc::clone(&taken),
        };
        drop(opener);
        backlog.write_to(gate).unwrap();
        writer.write_all(b"late\n").unwrap();
        writer.finish().unwrap();
        assert_eq!(*taken.lock().unwrap(), b"early\nlate\n");
    }

    #[test]
    fn who_logs_does_not_wait_for_who_reads_and_what_is_lost_is_counted() {
        let (mut writer, opener, taken) = gated();
        for _ in 0..MAX_LINES + 100 {
            writer.write_all(b"x\n").unwrap();
        }
        assert!(writer.finish().is_err());
        drop(opener);
        // The queue has room again as soon as the first lines are taken.
        while writer.finish().is_err() {
            std::thread::yield_now();
        }
        let taken = String::from_utf8_lossy(&taken.lock().unwrap()).into_owned();
        let lost: usize = taken
            .lines()
            .filter_map(|line| {
                line.strip_suffix(" lines of the log are lost here: whoever takes it was too slow")
            })
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        assert_eq!(
            taken.lines().filter(|line| *line == "x").count() + lost,
            MAX_LINES + 100
        );
        assert!(lost >= 99, "{lost}");
    }
}
