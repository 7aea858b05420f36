//! Login status in words (RFC 7143 section 11.13.5).

use core::fmt;

/// Status-Class and Status-Detail of a login response that is not a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginStatus {
    /// Status-Class.
    pub class: u8,
    /// Status-Detail.
    pub detail: u8,
}

/// One row per status of the RFC: class, detail, its name, what to do.
const STATUSES: [(u8, u8, &str, &str); 18] = [
    (0, 0x00, "success", ""),
    (
        1,
        0x01,
        "target moved temporarily",
        "follow the TargetAddress",
    ),
    (
        1,
        0x02,
        "target moved permanently",
        "use the new TargetAddress from now on",
    ),
    (2, 0x00, "initiator error", "look into the target's log"),
    (
        2,
        0x01,
        "authentication failure",
        "check the CHAP names and secrets on both sides",
    ),
    (
        2,
        0x02,
        "authorization failure",
        "allow this initiator's name or address on the target",
    ),
    (
        2,
        0x03,
        "not found",
        "check the target's name: a discovery lists those there are",
    ),
    (
        2,
        0x04,
        "target removed",
        "ask the target's administrator where it went",
    ),
    (
        2,
        0x05,
        "unsupported version",
        "the target does not speak iSCSI version 0",
    ),
    (
        2,
        0x06,
        "too many connections",
        "end other sessions, or raise the target's limit",
    ),
    (2, 0x07, "missing parameter", "look into the target's log"),
    (
        2,
        0x08,
        "can't include in session",
        "look into the target's log",
    ),
    (
        2,
        0x09,
        "session type not supported",
        "the target does not do this kind of session",
    ),
    (2, 0x0a, "session does not exist", "log in anew"),
    (
        2,
        0x0b,
        "invalid during login",
        "look into the target's log",
    ),
    (3, 0x00, "target error", "look into the target's log"),
    (3, 0x01, "service unavailable", "try again later"),
    (
        3,
        0x02,
        "out of resources",
        "end other sessions, or try again later",
    ),
];

impl LoginStatus {
    /// Authentication or authorization failed (0201, 0202): the same settings will fail
    /// again.
    pub fn is_authentication(self) -> bool {
        self.class == 2 && matches!(self.detail, 0x01 | 0x02)
    }

    /// There is no such target (0203).
    pub fn is_not_found(self) -> bool {
        self.class == 2 && self.detail == 0x03
    }

    /// The target cannot serve now (03xx): a later attempt may succeed.
    pub fn is_server_error(self) -> bool {
        self.class == 3
    }

    /// What a person can do about it.
    pub fn hint(self) -> &'static str {
        self.row()
            .map_or("look into the target's log", |(.., hint)| hint)
    }

    fn row(self) -> Option<(u8, u8, &'static str, &'static str)> {
        STATUSES
            .into_iter()
            .find(|(class, detail, ..)| (*class, *detail) == (self.class, self.detail))
    }

    fn class_name(self) -> &'static str {
        match self.class {
            0 => "success with an unknown detail",
            1 => "redirection with an unknown detail",
            2 => "initiator error with an unknown detail",
            3 => "target error with an unknown detail",
            _ => "unknown status class",
        }
    }
}

impl fmt::Display for LoginStatus {
    /// `authentication failure (status 0201)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.row().map_or(self.class_name(), |(_, _, name, _)| name);
        write!(f, "{name} (status {:02x}{:02x})", self.class, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn status(class: u8, detail: u8) -> LoginStatus {
        LoginStatus { class, detail }
    }

    #[test]
    fn each_status_is_there_once_with_name_and_hint() {
        for (i, (class, detail, name, hint)) in STATUSES.into_iter().enumerate() {
            assert!(
                !STATUSES[..i]
                    .iter()
                    .any(|row| (row.0, row.1) == (class, detail))
            );
            assert!(!name.is_empty());
            assert!(!hint.is_empty() || class == 0);
        }
    }

    #[test]
    fn a_status_reads_as_words_and_number() {
        assert_eq!(
            status(2, 1).to_string(),
            "authentication failure (status 0201)"
        );
        assert_eq!(status(3, 2).to_string(), "out of resources (status 0302)");
    }

    #[test]
    fn a_status_beyond_the_table_is_shown_by_its_class() {
        assert_eq!(
            status(2, 0x0c).to_string(),
            "initiator error with an unknown detail (status 020c)"
        );
        assert_eq!(
            status(9, 9).to_string(),
            "unknown status class (status 0909)"
        );
    }

    #[test]
    fn the_predicates_draw_their_lines_between_neighbours() {
        let authentication = [0, 1, 2, 3].map(|detail| status(2, detail).is_authentication());
        assert_eq!(authentication, [false, true, true, false]);
        let not_found = [2, 3, 4].map(|detail| status(2, detail).is_not_found());
        assert_eq!(not_found, [false, true, false]);
        assert_eq!(
            [2, 3, 4].map(|class| status(class, 0).is_server_error()),
            [false, true, false]
        );
    }
}
