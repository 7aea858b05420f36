//! The login phase (RFC 7143 sections 6 and 13): what goes in, what was agreed.
//!
//! [`machine::Login`] runs one login; `transition` has its states, drawn and as a table; `keys` has
//! one row per text key: to add a key, add a row.

pub mod address;
mod chap;
pub mod error;
mod hash;
mod keys;
pub mod machine;
pub mod negotiated;
mod negotiation;
mod rule;
pub mod settings;
pub mod status;
pub mod trace;
mod transition;

/// Defaults, for the tests of what comes after a login.
#[cfg(test)]
pub(crate) fn negotiated_for_tests() -> negotiated::Negotiated {
    keys::defaults()
}
