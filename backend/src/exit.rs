//! Exit codes, and the failure that carries one together with its message.

use std::fmt;
use std::io;

use crate::escape::escape_control_characters;

/// What the process tells its caller, after iscsiadm's codes where it has one for the case.
///
/// The numbers are a promise to scripts: one is never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Success = 0,
    /// None of the cases below.
    Other = 1,
    /// The command line or the URL cannot be used; nothing was tried.
    Usage = 2,
    /// Refused, closed, unresolvable, or not iSCSI (`ISCSI_ERR_TRANS`).
    Transport = 4,
    /// Login status 03xx: the target has a problem of its own (`ISCSI_ERR_LOGIN`).
    TargetError = 5,
    /// No answer in time (`ISCSI_ERR_TRANS_TIMEOUT`).
    Timeout = 8,
    /// A secret file or the socket path cannot be used (`ISCSI_ERR_ACCESS`).
    Access = 13,
    /// Login status 02xx, other than those with a code of their own (`ISCSI_ERR_FATAL_LOGIN`).
    LoginRefused = 19,
    /// No such target, no such LUN, not a disk, nothing discovered (`ISCSI_ERR_NO_OBJS_FOUND`).
    NotFound = 21,
    /// CHAP or the authorisation failed, on either side (`ISCSI_ERR_LOGIN_AUTH_FAILED`).
    Authentication = 24,
}

impl ExitCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::Other,
        Self::Usage,
        Self::Transport,
        Self::TargetError,
        Self::Timeout,
        Self::Access,
        Self::LoginRefused,
        Self::NotFound,
        Self::Authentication,
    ];

    /// The number that the process exits with.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The code for a Login Response that refuses (RFC 7143 section 11.13.5).
    ///
    /// Success (class 0) and redirects (class 1) are no refusals: who fails over one of them
    /// knows why, and gets [`ExitCode::Other`] here.
    pub fn for_login_status(status_class: u8, status_detail: u8) -> Self {
        match (status_class, status_detail) {
            (2, 1 | 2) => Self::Authentication,
            (2, 3) => Self::NotFound,
            (2, _) => Self::LoginRefused,
            (3, _) => Self::TargetError,
            _ => Self::Other,
        }
    }

    /// The code for an error of the connection to a target.
    pub fn for_connection_error(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Transport,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// Why the process ends other than well: a message for a person, a code for a script.
///
/// The message says what was tried, what came back and what to do, and holds no secret. Shown, it
/// is one line: control characters (some of its text may come from a target) are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to exit with.
    pub code: ExitCode,
    /// What to say, without the program's name.
    pub message: String,
}

impl Failure {
    /// A failure with its code and message.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// A command line or URL that cannot be used.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// A secret file or socket path that cannot be used.
    pub fn access(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Access, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_control_characters(&self.message))
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_status_has_the_documented_code() {
        for (class, detail, code) in [
            (2, 0, 19),
            (2, 1, 24),
            (2, 2, 24),
            (2, 3, 21),
            (2, 4, 19),
            (2, 0x0b, 19),
            (3, 0, 5),
            (3, 1, 5),
            (3, 2, 5),
            (1, 1, 1),
            (9, 9, 1),
        ] {
            let found = ExitCode::for_login_status(class, detail).number();
            assert_eq!(found, code, "{class:02x}{detail:02x}");
        }
    }

    #[test]
    fn every_code_is_documented() {
        let manual = include_str!("../../docs/operating.md");
        for code in ExitCode::ALL {
            assert!(
                manual.contains(&format!("\n| {} | ", code.number())),
                "{code:?}"
            );
        }
    }

    #[test]
    fn a_connection_error_is_a_time_out_or_a_transport_error() {
        let code = |kind| ExitCode::for_connection_error(kind).number();
        assert_eq!(code(io::ErrorKind::TimedOut), 8);
        assert_eq!(code(io::ErrorKind::ConnectionRefused), 4);
        assert_eq!(code(io::ErrorKind::UnexpectedEof), 4);
    }

    #[test]
    fn a_failure_is_shown_as_one_line_whatever_the_target_said() {
        let failure = Failure::new(ExitCode::Other, "target said: a\nb\x1b[2J");
        assert_eq!(failure.to_string(), "target said: a\\nb\\u{1b}[2J");
    }
}
