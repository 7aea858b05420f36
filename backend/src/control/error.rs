//! What goes wrong between us and a target, as an operator wants to read it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use iscsi_core::discovery::DiscoveryError;
use iscsi_core::disk::probe_error::ProbeError;
use iscsi_core::error::SessionError;
use iscsi_core::login::address::RedirectLoop;
use iscsi_core::login::error::LoginError;
use thiserror::Error;

use crate::engine::InspectionError;
use crate::exit::{ExitCode, Failure};
use crate::portal::{Portal, PortalError};
use crate::url::TargetUrl;

/// What to do about a target that does what it should not.
const LOOK_AT_TARGET: &str = "look into the target's log, and for a newer version of it";

/// A failure between the start of a connection and the last fact of the LUN.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    #[error("cannot find the address of {portal}: {error}; check the name and the resolver")]
    Resolve { portal: Portal, error: io::Error },
    #[error("cannot reach {portal} ({address}): {error}; {}", connect_hint(error))]
    Connect {
        portal: Portal,
        address: SocketAddr,
        error: io::Error,
    },
    #[error(
        "{portal} closed the connection {during}; its own log may say why, or it is no iSCSI \
         target"
    )]
    Closed {
        portal: Portal,
        during: &'static str,
    },
    #[error("the connection to {portal} failed {during}: {error}")]
    Io {
        portal: Portal,
        during: &'static str,
        error: io::Error,
    },
    #[error("{portal} does not speak iSCSI: {reason}; check the port")]
    NotIscsi { portal: Portal, reason: String },
    #[error("login at {portal}: {error}{}", login_hint(error))]
    Login { portal: Portal, error: LoginError },
    #[error("login at {portal}: {error}; look into their redirect settings")]
    RedirectLoop { portal: Portal, error: RedirectLoop },
    #[error(
        "{portal} names the address {address}, which is none: {reason}; correct it on the target"
    )]
    Address {
        portal: Portal,
        address: String,
        reason: PortalError,
    },
    #[error("session with {portal}: {error}; {LOOK_AT_TARGET}")]
    Session { portal: Portal, error: SessionError },
    #[error("discovery at {portal}: {error}; {LOOK_AT_TARGET}")]
    Discovery {
        portal: Portal,
        error: DiscoveryError,
    },
    #[error("LUN {lun} of {target} at {portal}: {error}{}", probe_hint(error))]
    Probe {
        portal: Portal,
        target: String,
        lun: u16,
        error: ProbeError,
    },
    #[error("REPORT LUNS of {target} at {portal} failed: {reason}; {LOOK_AT_TARGET}")]
    ReportLuns {
        portal: Portal,
        target: String,
        reason: String,
    },
    #[error(
        "{portal} did not answer within {} {during}; is it the right port, and is the target \
         alive? --login-timeout sets the limit",
        humantime::format_duration(*limit)
    )]
    Timeout {
        portal: Portal,
        during: &'static str,
        limit: Duration,
    },
    #[error(
        "identity changed: LUN {lun} of {target} at {portal} is now {found}, it was {expected}; \
         nothing is sent to it"
    )]
    IdentityChanged {
        portal: Portal,
        target: String,
        lun: u16,
        expected: String,
        found: String,
    },
    #[error("{target}: {error}")]
    Look {
        target: String,
        error: InspectionError,
    },
    #[error(
        "LUN {lun} of {target} is that of disk {other}, whose sessions this one would share; leave \
         share-sessions out for one of the two"
    )]
    SameLun {
        target: String,
        lun: u16,
        other: String,
    },
    #[error("the disks that share sessions: {0}")]
    OfAnother(String),
    #[error("the sessions of {target} at {portal} cannot be shared: {failure}")]
    Unshared {
        portal: Portal,
        target: String,
        failure: Failure,
    },
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

impl ControlError {
    /// A look at a disk's LUN on a session that is there has come to nothing.
    pub(super) fn of_look(disk: &TargetUrl, error: InspectionError) -> Self {
        match error {
            InspectionError::Probe(error) => Self::Probe {
                portal: disk.portal.clone(),
                target: disk.target.to_string(),
                lun: disk.lun,
                error,
            },
            error => Self::Look {
                target: disk.to_string(),
                error,
            },
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Resolve { .. } | Self::Closed { .. } | Self::NotIscsi { .. } => {
                ExitCode::Transport
            }
            Self::Connect { error, .. } | Self::Io { error, .. } => {
                ExitCode::for_connection_error(error.kind())
            }
            Self::Login { error, .. } => login_exit_code(error),
            Self::Timeout { .. } => ExitCode::Timeout,
            Self::Probe { error, .. } if error.is_not_found() => ExitCode::NotFound,
            _ => ExitCode::Other,
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}

fn login_exit_code(error: &LoginError) -> ExitCode {
    match error {
        _ if error.is_authentication() => ExitCode::Authentication,
        LoginError::TargetRefused(status) => {
            ExitCode::for_login_status(status.class, status.detail)
        }
        _ => ExitCode::Other,
    }
}

fn connect_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "is the target running and listening there?",
        io::ErrorKind::PermissionDenied => "a firewall or a sandbox forbids it",
        _ => "check address, route and firewall",
    }
}

/// What to do, where the error of the core does not say it itself.
fn probe_hint(error: &ProbeError) -> &'static str {
    match error {
        ProbeError::NotADisk(_) | ProbeError::BlockLength(_) => {
            "; choose another LUN (probe lists them)"
        }
        ProbeError::NotConnected | ProbeError::ZeroCapacity => "; give it storage on the target",
        ProbeError::NotReady(_) | ProbeError::Busy { .. } | ProbeError::Unsettled { .. } => {
            "; try again later"
        }
        ProbeError::Failed { .. }
        | ProbeError::Malformed { .. }
        | ProbeError::TooLarge { .. }
        | ProbeError::SizeUnknown => "; look into the target's log",
        ProbeError::NoSuchLun | ProbeError::Reserved { .. } => "",
    }
}

fn login_hint(error: &LoginError) -> &'static str {
    use iscsi_core::login::error::AuthenticationFailure as Failure;
    match error {
        LoginError::TargetMisbehaved(_) => {
            "; look into the target's log, and for a newer version of it"
        }
        LoginError::Unsupported(_) => "; allow one of them on one of the two sides",
        LoginError::AuthenticationFailed(Failure::ChapWanted) => {
            " (--chap-user and --chap-secret-file)"
        }
        LoginError::AuthenticationFailed(Failure::WrongTargetResponse) => "",
        LoginError::AuthenticationFailed(_) => "; compare the CHAP settings of both sides",
        _ => "",
    }
}
