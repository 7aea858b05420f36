//! The sandbox: what is left of the process's rights once it serves.
//!
//! Everything is applied to the main thread while it is the only one, so that every thread inherits it:
//! capabilities are dropped (`privileges`), files are narrowed down (`landlock`, by a `Policy`),
//! system calls are a list (`seccomp`). A lane narrows its own list further, first thing.
//! docs/security.md says what is allowed, and why.

mod landlock;
mod policy;
mod privileges;
mod resolver;
mod seccomp;
mod trespass;

use std::io;
use std::sync::OnceLock;

use thiserror::Error;

pub(crate) use self::policy::Policy;
pub use self::privileges::gain_no_privileges;
pub(crate) use self::trespass::{Trespasser, trespass};

use self::seccomp::{Filters, Threads};
use crate::config::SandboxMode;
use crate::exit::{ExitCode, Failure};

/// Set when this process has entered its sandbox.
static SANDBOX: OnceLock<Sandbox> = OnceLock::new();

struct Sandbox {
    /// What a lane installs; none where there are none for this architecture.
    lane: Option<Filters>,
    /// Files outside of the policy cannot be opened any more.
    narrows_files: bool,
}

/// Why the process cannot be confined.
#[derive(Debug, Error)]
pub(crate) enum SandboxError {
    #[error("system calls cannot be filtered: {0}")]
    Seccomp(#[from] ::seccompiler::Error),
    #[error("files cannot be narrowed down: {0}")]
    Landlock(#[from] ::landlock::RulesetError),
    #[error("capabilities cannot be dropped: {0}")]
    Capabilities(#[source] io::Error),
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let message = format!(
            "cannot confine this process: {error}; --sandbox off (sandbox = \"off\" in the \
             configuration file) serves without"
        );
        Self::new(ExitCode::Other, message)
    }
}

/// Confines this thread, and all that it starts from now on. Everything that the policy does not name
/// has to be open already.
///
/// # Errors
/// When the kernel refuses. One that has no Landlock is no error: it is said in the log.
pub(crate) fn enter(mode: SandboxMode, policy: &Policy) -> Result<(), SandboxError> {
    if mode == SandboxMode::Off {
        log::info!("the sandbox is off");
        return Ok(());
    }
    resolver::load_modules();
    let is_enforced = mode == SandboxMode::Enforce;
    let files = if is_enforced {
        privileges::drop_capabilities().map_err(SandboxError::Capabilities)?;
        landlock::restrict(policy)?
    } else {
        landlock::Files::LeftAlone
    };
    let lane = seccomp::filters(Threads::Lanes, is_enforced)?;
    if let Some(filters) = seccomp::filters(Threads::Control, is_enforced)? {
        filters.install()?;
    }
    // Nobody needs a line for what is usual; that an older kernel has no Landlock is.
    let level = if is_enforced && lane.is_some() {
        log::Level::Debug
    } else {
        log::Level::Info
    };
    log::log!(
        level,
        "sandbox: {}; {files}",
        system_calls(lane.is_some(), mode)
    );
    let _ = SANDBOX.set(Sandbox {
        lane,
        narrows_files: files.are_narrowed_down(),
    });
    Ok(())
}

fn system_calls(are_filtered: bool, mode: SandboxMode) -> &'static str {
    match mode {
        _ if !are_filtered => "there is no list of system calls for this architecture",
        SandboxMode::Log => "system calls beyond the list are logged by the kernel, not refused",
        _ => "a system call beyond the list ends the process",
    }
}

/// Narrows the present thread, a lane, down to what lanes do. Nothing where there is no sandbox.
pub(crate) fn confine_lane() {
    let filters = SANDBOX.get().and_then(|sandbox| sandbox.lane.as_ref());
    if let Some(Err(error)) = filters.map(Filters::install) {
        // That of the control plane stands.
        log::error!("a lane's own filter of system calls cannot be installed: {error}");
    }
}

/// What to add to the message of an error that may be the sandbox's doing; mostly nothing.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    let is_refusal = error.kind() == io::ErrorKind::PermissionDenied;
    match SANDBOX.get() {
        Some(sandbox) if sandbox.narrows_files && is_refusal => {
            " (it may be outside of what the sandbox opened at start: then restart this process)"
        }
        _ => "",
    }
}
