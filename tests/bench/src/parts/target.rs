//! The target: tgt's null store, our in-memory target, or somebody else's.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use vhost_user_iscsi::url::TargetUrl;
use vhost_user_iscsi_tests::process::Process;
use vhost_user_iscsi_tests::tgt::{Backing, LunOptions, Tgt};

use super::pin;
use crate::failure::Failure;

/// Of the LUN; nothing is stored.
const SIZE_BYTES: u64 = 8 << 30;
const LUN: u16 = 1;

/// How many of them the in-memory target has from there on: as many as disks are measured at once.
const MAX_DISKS: u16 = 64;
const IN_MEMORY_NAME: &str = "iqn.2026-11.test.example:bench";
/// More commands than the deepest case has in flight: waiting for the window is no load.
const IN_MEMORY_WINDOW: &str = "256";
const START_LIMIT: Duration = Duration::from_secs(10);

/// Which target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetName {
    /// tgt, with its null store.
    Tgt,
    /// Our own, which answers in batches.
    Memory,
    /// One that is there already.
    Url(String),
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tgt" => Ok(Self::Tgt),
            "memory" => Ok(Self::Memory),
            url => match TargetUrl::parse(url) {
                Ok(_) => Ok(Self::Url(url.to_owned())),
                Err(error) => Err(format!("it is not tgt or memory, and as a URL {error}")),
            },
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Tgt => "tgt",
            Self::Memory => "memory",
            Self::Url(url) => url,
        })
    }
}

enum Running {
    Tgt(Tgt),
    Memory(Process),
    Elsewhere,
}

/// A target that can be logged in to.
pub(crate) struct Target {
    running: Running,
    url: String,
}

impl Target {
    /// Starts it on a processor.
    ///
    /// # Errors
    /// When its program is missing or does not come up.
    pub(crate) fn start(name: &TargetName, cpu: Option<usize>) -> Result<Self, Failure> {
        match name {
            TargetName::Tgt => pin::on(cpu, start_tgt),
            TargetName::Memory => pin::on(cpu, start_in_memory)?,
            TargetName::Url(url) => Ok(Self {
                running: Running::Elsewhere,
                url: url.clone(),
            }),
        }
    }

    /// Its URL, in the form that the back-end takes.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process id, if it is ours.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.running {
            Running::Tgt(tgt) => Some(tgt.id()),
            Running::Memory(process) => Some(process.id()),
            Running::Elsewhere => None,
        }
    }
}

fn start_tgt() -> Target {
    let mut tgt = Tgt::start();
    let options = LunOptions {
        backing: Backing::Null,
        ..LunOptions::default()
    };
    let target = tgt.disk(SIZE_BYTES, &options);
    Target {
        url: tgt.url(&target, LUN),
        running: Running::Tgt(tgt),
    }
}

fn start_in_memory() -> Result<Target, Failure> {
    let program = beside_us("iscsi-test-target")?;
    let mut command = Command::new(program);
    command.args(["--target-name", IN_MEMORY_NAME]);
    for lun in LUN..LUN + MAX_DISKS {
        command.args(["--lun", &format!("{lun}:{SIZE_BYTES}:null")]);
    }
    command.args(["--cmd-sn-window", IN_MEMORY_WINDOW, "--stay-awake"]);
    let process = Process::start(&mut command, "it was built together with this program");
    let portal = process.stdout.wait_for(":", START_LIMIT).ok_or_else(|| {
        let errors = process.stderr.all().join("\n");
        Failure::part(format!("the in-memory target does not come up: {errors}"))
    })?;
    Ok(Target {
        running: Running::Memory(process),
        url: format!("iscsi://{portal}/{IN_MEMORY_NAME}/{LUN}"),
    })
}

/// A program that cargo puts into the same directory as this one.
///
/// # Errors
/// When it is not there.
pub(crate) fn beside_us(name: &str) -> Result<PathBuf, Failure> {
    let ours = env::current_exe()
        .map_err(|error| Failure::part(format!("cannot find this program: {error}")))?;
    let path = ours.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::part(format!(
        "there is no {}; build it: cargo build --release --package {name}",
        path.display()
    )))
}
