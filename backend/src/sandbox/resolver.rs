//! The system's resolver, made ready for a process that can load no more code.

use std::net::ToSocketAddrs;

use nix::unistd::Group;

/// Has the C library load whatever nsswitch.conf names for host and group names, by a look-up of each
/// that finds nothing: once in the sandbox, a process can map no code.
///
/// The host name is too long to be asked for: its label has 64 bytes, and DNS knows 63. So nothing goes
/// to a name server. What is changed in nsswitch.conf later may need a restart.
pub(super) fn load_modules() {
    let label = "x".repeat(64);
    if (label.as_str(), 0).to_socket_addrs().is_ok() {
        log::debug!("the resolver knows an address of a name that cannot be");
    }
    let _ = Group::from_name("vhost-user-iscsi:none");
}
