//! Why a floor could not be measured.

use std::io;

use iscsi_core::error::SessionError;
use iscsi_core::login::error::LoginError;
use iscsi_core::name::NameError;
use thiserror::Error;

/// Why a floor could not be measured.
#[derive(Debug, Error)]
pub(crate) enum FloorError {
    /// The configuration cannot be carried out on this disk.
    #[error("cannot measure this: {0}")]
    Config(String),
    /// The target's name is none.
    #[error("the target's name is not valid: {0}")]
    Name(#[from] NameError),
    /// The connection.
    #[error("the connection to the target failed: {0}")]
    Io(#[from] io::Error),
    /// The login was refused or went wrong.
    #[error("the login failed: {0}")]
    Login(#[from] LoginError),
    /// What came before or during the set-up was no PDU.
    #[error("the target sent something that is no PDU: {0}")]
    Framing(#[from] SessionError),
    /// A command did not end well, or the target broke a rule.
    #[error("{0}")]
    Answer(String),
}

impl From<rustix::io::Errno> for FloorError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// An error about what the target answered.
pub(super) fn answer<T>(what: impl Into<String>) -> Result<T, FloorError> {
    Err(FloorError::Answer(what.into()))
}
