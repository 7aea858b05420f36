//! Where log lines go: to stderr, as text or as JSON, or to the journal with fields.
//!
//! Each line says which disk it is about, where it is about one ([`LogContext`]). Text of a target is
//! made safe here, once, for every line.

mod journal;

use std::fmt::Write as _;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

use crate::escape::{escape_control_characters, escape_json};
use crate::log_context::LogContext;
use crate::log_writer::LogWriter;
use crate::system::System;
use journal::Journal;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For people: time, level, disk, message.
    Text,
    /// An object per line.
    Json,
    /// Fields, to the journal's own socket.
    Journald,
}

/// For clap.
pub(super) fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "journald" => Ok(Format::Journald),
        _ => Err("text, json or journald".to_owned()),
    }
}

/// Starts logging; at most once in a process, later calls change nothing.
///
/// A server's lines have a thread that writes them: whoever takes the log must not be able to hold up
/// guests. A verb writes its own.
pub(super) fn start(level: LevelFilter, format: Option<Format>, serves: bool, system: &System<'_>) {
    let is_journal = || match stderr_is_journal(system) {
        true => Format::Journald,
        false => Format::Text,
    };
    let format = format.unwrap_or_else(is_journal);
    let sink: Box<dyn Write + Send> = match format {
        Format::Journald => Box::new(Journal::of_machine()),
        Format::Text | Format::Json => Box::new(std::io::stderr()),
    };
    let sink = match serves {
        true => Box::new(LogWriter::of_process(sink)),
        false => sink,
    };
    let logger = Logger {
        level,
        format,
        sink: Mutex::new(sink),
    };
    // A test that runs several command lines in one process has its logger already.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// Whether what is written to stderr goes to the journal: systemd says where that stream is
/// (systemd.exec(5), `JOURNAL_STREAM`), and a redirection since shows as another place.
fn stderr_is_journal(system: &System<'_>) -> bool {
    let stream = system.variable("JOURNAL_STREAM");
    let Some(stream) = stream.and_then(|stream| stream.into_string().ok()) else {
        return false;
    };
    let stat = rustix::fs::fstat(std::io::stderr().as_fd());
    stat.is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

struct Logger {
    level: LevelFilter,
    format: Format,
    /// Where lines go. A server's takes each at once: the lock is held for no longer.
    sink: Mutex<Box<dyn Write + Send>>,
}

/// A line, whatever becomes of it.
struct Line {
    level: Level,
    message: String,
    context: LogContext,
}

impl Log for Logger {
    /// The crates below us have no more to say than warnings: at debug and trace they would bury our own
    /// lines.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = ["vhost_user_iscsi", "iscsi_core"];
        let is_ours = ours.iter().any(|ours| {
            target
                .strip_prefix(ours)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        let level = if is_ours {
            self.level
        } else {
            self.level.min(LevelFilter::Warn)
        };
        metadata.level() <= level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        let line = Line {
            level: record.level(),
            message: escape_control_characters(&message).into_owned(),
            context: LogContext::current(),
        };
        let text = match self.format {
            Format::Text => line.as_text(),
            Format::Json => line.as_json(),
            Format::Journald => line.as_fields(),
        };
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // When nobody can take it there is nobody to be told.
        let _ = sink.write_all(text.as_bytes());
    }

    fn flush(&self) {}
}

impl Line {
    /// The message, after what it is about.
    fn with_subject(&self) -> String {
        let LogContext { disk, target, .. } = &self.context;
        match (disk, target) {
            (Some(disk), _) => format!("disk {disk}: {}", self.message),
            (None, Some(target)) => format!("target {target}: {}", self.message),
            (None, None) => self.message.clone(),
        }
    }

    fn as_text(&self) -> String {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        format!("{time} {:5} {}\n", self.level, self.with_subject())
    }

    fn as_json(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            time: String,
            level: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            disk: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            target: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            session: Option<usize>,
            message: &'a str,
        }
        let document = Document {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            level: self.level.as_str().to_lowercase(),
            disk: self.context.disk.as_deref(),
            target: self.context.target.as_deref(),
            session: self.context.session,
            message: &self.message,
        };
        let json = serde_json::to_string(&document).unwrap_or_default();
        escape_json(&json) + "\n"
    }

    /// As syslog(3) has them.
    fn priority(&self) -> u8 {
        match self.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
    }

    /// As the journal's protocol has them: `NAME=value`, a line each. No value has a newline: the
    /// message is escaped, and the name of a disk or target has letters, digits and a few signs.
    fn as_fields(&self) -> String {
        let mut fields = String::new();
        let _ = write!(
            fields,
            "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER=vhost-user-iscsi\n",
            self.with_subject(),
            self.priority()
        );
        if let Some(disk) = &self.context.disk {
            let _ = writeln!(fields, "DISK={disk}");
        }
        if let Some(target) = &self.context.target {
            let _ = writeln!(fields, "TARGET={target}");
        }
        if let Some(session) = self.context.session {
            let _ = writeln!(fields, "SESSION={session}");
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn line(message: &str) -> Line {
        Line {
            level: Level::Warn,
            message: message.to_owned(),
            context: LogContext::of_disk("root").with_session(2),
        }
    }

    #[test]
    fn a_line_says_which_disk_in_each_format() {
        let line = line("it is lost");
        assert!(line.as_text().ends_with("Z WARN  disk root: it is lost\n"));
        let json: serde_json::Value = serde_json::from_str(&line.as_json()).unwrap();
        assert_eq!(json["level"], "warn");
        assert_eq!(json["disk"], "root");
        assert_eq!(json["session"], 2);
        assert_eq!(json["message"], "it is lost");
        assert_eq!(
            line.as_fields(),
            "MESSAGE=disk root: it is lost\nPRIORITY=4\nSYSLOG_IDENTIFIER=vhost-user-iscsi\nDISK=root\n\
             SESSION=2\n"
        );
    }

    #[test]
    fn other_crates_are_heard_from_warnings_up() {
        let logger = Logger {
            level: LevelFilter::Trace,
            format: Format::Text,
            sink: Mutex::new(Box::new(std::io::sink())),
        };
        let is_heard = |target: &str, level| {
            logger.enabled(&Metadata::builder().target(target).level(level).build())
        };
        assert!(is_heard("vhost_user_iscsi::engine", Level::Trace));
        assert!(is_heard("iscsi_core", Level::Trace));
        assert!(!is_heard("vhost_user_iscsi_other", Level::Debug));
        assert!(!is_heard("vhost_user_backend", Level::Info));
        assert!(is_heard("vhost_user_backend", Level::Warn));
    }

    #[test]
    fn stderr_is_the_journal_only_when_systemd_means_this_very_stream() {
        let stat = rustix::fs::fstat(std::io::stderr().as_fd()).unwrap();
        let is_journal = |value: &str| {
            let variable = |name: &str| (name == "JOURNAL_STREAM").then(|| value.into());
            stderr_is_journal(&System::fake(&variable, std::path::Path::new("/")))
        };
        assert!(is_journal(&format!("{}:{}", stat.st_dev, stat.st_ino)));
        assert!(!is_journal(&format!("{}:{}", stat.st_dev, stat.st_ino + 1)));
        assert!(!is_journal(""));
        assert!(!is_journal("x"));
    }
}
