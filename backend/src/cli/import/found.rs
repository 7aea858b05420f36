//! What was found in the files: disks, portals, settings, and what there is to say about them.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use iscsi_core::name::IscsiName;

use super::credentials::{Chap, Secrets};
use crate::config::{MAX_IO_TIMEOUT, MAX_LOGIN_TIMEOUT, MIN_COMMAND_TIMEOUT};
use crate::escape::escape_control_characters;
use crate::exit::Failure;
use crate::portal::Portal;

/// The most disks and portals: as many disks as a configuration may have.
const MAX_ENTRIES: usize = 1024;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file.
    pub(super) source: Rc<str>,
    /// The line, from 1; 0 for the file as a whole.
    pub(super) line: usize,
}

impl Place {
    /// It cannot be imported at all. As everywhere, `message` repeats no value.
    pub(super) fn failure(&self, message: &str) -> Failure {
        Failure::usage(format!("{self}: {message}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = escape_control_characters(&self.source);
        match self.line {
            0 => f.write_str(&source),
            line => write!(f, "{source}:{line}"),
        }
    }
}

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// In quotes.
    Text(String),
    /// Without.
    Number(u16),
    /// A switch that is on.
    On,
}

/// Something that somebody should read before the configuration is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// What it is about.
    pub(super) place: Place,
    /// What is to be said.
    pub(super) message: String,
}

/// The settings of a disk, of a portal, or of all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// By the keys of our configuration; those of CHAP are apart.
    pub(super) settings: BTreeMap<&'static str, Value>,
    /// Who we are to the target, and it to us.
    pub(super) chap: Option<Chap>,
    /// What there is to say about it.
    pub(super) remarks: Vec<Remark>,
}

impl Scope {
    /// Sets a text.
    pub(super) fn set(&mut self, key: &'static str, text: impl Into<String>) {
        self.settings.insert(key, Value::Text(text.into()));
    }

    /// Says something.
    pub(super) fn remark(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        self.remarks.push(Remark { place, message });
    }

    /// How long requests wait for lost storage; `None` for ever.
    pub(super) fn set_io_timeout(&mut self, time: Option<Duration>, place: &Place) {
        let longest = MAX_IO_TIMEOUT;
        match time {
            None => self.set("io-timeout", "forever"),
            Some(Duration::ZERO) => self.set("io-timeout", "0"),
            Some(time) => self.set_time("io-timeout", time, Duration::ZERO, longest, place),
        }
    }

    /// How long a login may take.
    pub(super) fn set_login_timeout(&mut self, time: Duration, place: &Place) {
        let shortest = Duration::from_secs(1);
        self.set_time("login-timeout", time, shortest, MAX_LOGIN_TIMEOUT, place);
    }

    /// How long a command may be unanswered; `None` for ever.
    pub(super) fn set_command_timeout(&mut self, time: Option<Duration>, place: &Place) {
        let (shortest, longest) = (MIN_COMMAND_TIMEOUT, MAX_IO_TIMEOUT);
        match time {
            None => self.set("command-timeout", "forever"),
            Some(time) => self.set_time("command-timeout", time, shortest, longest, place),
        }
    }

    /// A time, moved into its bounds; that is said.
    fn set_time(
        &mut self,
        key: &'static str,
        time: Duration,
        shortest: Duration,
        longest: Duration,
        place: &Place,
    ) {
        let taken = time.clamp(shortest, longest);
        let shown = humantime::format_duration(taken).to_string();
        if taken != time {
            self.remark(
                place.clone(),
                format!("{key} cannot be that long or short: {shown}"),
            );
        }
        self.set(key, shown);
    }
}

/// A disk with its own URL.
#[derive(Debug)]
pub(super) struct Disk {
    /// What it was called, or what it may be called.
    pub(super) name: String,
    /// As our configuration has it.
    pub(super) url: String,
    /// Its settings.
    pub(super) scope: Scope,
    /// Where it stood.
    pub(super) place: Place,
}

/// A portal whose disks are to be found.
#[derive(Debug)]
pub(super) struct FoundPortal {
    /// Where it is.
    pub(super) address: Portal,
    /// The targets to take; none for all.
    pub(super) include: Vec<IscsiName>,
    /// The targets to leave.
    pub(super) exclude: Vec<IscsiName>,
    /// The settings of its disks.
    pub(super) scope: Scope,
    /// Where it stood.
    pub(super) place: Place,
}

/// A setting that has no counterpart, and needs nobody's attention either.
#[derive(Debug)]
pub(super) struct LeftOut {
    /// Its name.
    pub(super) key: String,
    /// Where it stood.
    pub(super) place: Place,
    /// Why it is left out.
    pub(super) reason: &'static str,
}

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The files.
    pub(super) sources: Vec<Rc<str>>,
    /// What stands at the top.
    pub(super) defaults: Scope,
    /// Disks by URL.
    pub(super) disks: Vec<Disk>,
    /// Portals.
    pub(super) portals: Vec<FoundPortal>,
    /// What was not taken over, and has to be seen.
    pub(super) remarks: Vec<Remark>,
    /// What was not taken over, and need not be.
    pub(super) left_out: Vec<LeftOut>,
    /// The secrets, apart from everything that is written.
    pub(super) secrets: Secrets,
}

impl Found {
    /// Says something of the whole.
    pub(super) fn remark(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        self.remarks.push(Remark { place, message });
    }

    /// Leaves a setting out.
    pub(super) fn leave_out(&mut self, key: &str, place: &Place, reason: &'static str) {
        self.left_out.push(LeftOut {
            key: key.to_owned(),
            place: place.clone(),
            reason,
        });
    }

    /// Adds a disk.
    pub(super) fn add_disk(&mut self, disk: Disk) -> Result<(), Failure> {
        self.check_bound(&disk.place)?;
        self.disks.push(disk);
        Ok(())
    }

    /// Adds a portal.
    pub(super) fn add_portal(&mut self, portal: FoundPortal) -> Result<(), Failure> {
        self.check_bound(&portal.place)?;
        self.portals.push(portal);
        Ok(())
    }

    fn check_bound(&self, place: &Place) -> Result<(), Failure> {
        if self.disks.len() + self.portals.len() < MAX_ENTRIES {
            return Ok(());
        }
        let message = format!(
            "more than {MAX_ENTRIES} disks and portals, and a process serves no more: import them in parts"
        );
        Err(place.failure(&message))
    }

    /// The scopes of all disks and portals.
    pub(super) fn scopes(&mut self) -> impl Iterator<Item = &mut Scope> {
        let disks = self.disks.iter_mut().map(|disk| &mut disk.scope);
        let portals = self.portals.iter_mut().map(|portal| &mut portal.scope);
        disks.chain(portals)
    }
}

/// What several files leave out for the same reason.
pub(super) mod reasons {
    /// Keys of the login.
    pub(in super::super) const NEGOTIATED: &str =
        "negotiated with the target, as large as it can be used; there is no setting";
    /// Pings.
    pub(in super::super) const PING: &str = "a connection that says nothing for 5 s is asked for a sign of life, and one that is dead is \
         noticed within 15 s; there is no setting";
    /// Aborts and resets.
    pub(in super::super) const ABORT: &str = "a late command is aborted, then, after 5 s, the session is reinstated; see command-timeout and \
         lun-reset";
    /// Depth and threads.
    pub(in super::super) const DEPTH: &str =
        "as many commands as the target's window and the guest's queues allow; there is no setting";
    /// TCP.
    pub(in super::super) const TCP: &str = "left to the kernel, which tunes it by itself";
    /// Retries.
    pub(in super::super) const RETRY: &str =
        "a disk that was served once is tried again for ever; see wait-for-target and io-timeout";
    /// The bookkeeping of the other program.
    pub(in super::super) const ADMINISTRATION: &str =
        "it steers the other program, and says nothing of the disk";
    /// What is known to nobody.
    pub(in super::super) const UNKNOWN: &str = "it has no counterpart, or is not known at all";
}
