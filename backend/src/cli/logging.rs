//! Where log lines go: to stderr, one line each, without colours. Nobody waits for that who serves.

use std::io::Write;

use env_logger::Target;
use log::LevelFilter;

use crate::escape::escape_control_characters;
use crate::log_writer::LogWriter;

/// Starts logging; at most once in a process, later calls change nothing.
///
/// The crates below us have no more to say than warnings: at debug and trace they would bury our
/// own lines. Text of a target is made safe here, once, for every line.
///
/// A server's lines have a thread that writes them: whoever takes the log must not be able to hold up
/// guests. A verb writes its own.
pub(super) fn start(level: LevelFilter, serves: bool) {
    let mut builder = env_logger::Builder::new();
    if serves {
        builder.target(Target::Pipe(Box::new(LogWriter::of_process())));
    }
    let started = builder
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module("vhost_user_iscsi", level)
        .filter_module("iscsi_core", level)
        .format(|line, record| {
            let message = record.args().to_string();
            let message = escape_control_characters(&message);
            writeln!(
                line,
                "{} {:5} {message}",
                line.timestamp_millis(),
                record.level()
            )
        })
        .try_init();
    // A test that runs several command lines in one process has its logger already.
    drop(started);
}
