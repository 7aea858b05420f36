//! What a process could gain, and what it brought along.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What is left to a process that runs as root: to give sockets to a group, and to use directories
/// and secret files of others. Which ones, Landlock says. An unprivileged user has none of them.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER);

/// From now on nothing that this process could execute gives it more rights than it has. Not even
/// with `--sandbox off`: nothing is ever executed.
pub fn gain_no_privileges() {
    if let Err(error) = set_no_new_privs(true) {
        log::debug!("no_new_privs cannot be set: {error}");
    }
}

/// Drops every capability of this thread but [`KEPT`], for good. Who has none to drop makes no system
/// call for it: what started the process may forbid that one.
pub(super) fn drop_capabilities() -> io::Result<()> {
    let present = capabilities(None)?;
    if KEPT.contains(present.permitted) && present.inheritable.is_empty() {
        return Ok(());
    }
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            // Without the right to, or unknown to this kernel. Nothing is executed that could gain by it.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // EINVAL where a kernel has no ambient set.
    let _ = clear_ambient_capability_set();
    let kept = present.permitted.intersection(KEPT);
    set_capabilities(
        None,
        CapabilitySets {
            effective: present.effective.intersection(kept),
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}
