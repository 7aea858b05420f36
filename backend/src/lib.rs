//! The back-end of `vhost-user-iscsi`.

pub mod capabilities;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod escape;
pub mod exit;
pub mod initiator_name;
pub mod portal;
pub mod report;
pub mod secret;
pub mod system;
pub mod url;
