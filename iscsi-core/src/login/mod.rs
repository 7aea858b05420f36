//! The login phase (RFC 7143 sections 6 and 13): what goes in, what was agreed.

pub mod negotiated;
pub mod settings;
