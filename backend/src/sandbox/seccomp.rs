//! seccomp: which system calls are left, by kind of thread.
//!
//! A thread gets two filters. One is the list of what its kind needs: anything else ends the process,
//! for nobody but an intruder asks for it. The other one refuses with an error what a library may try
//! in passing, and can do without. What is on the path of a request is allowed whatever its arguments:
//! then the kernel decides without running a filter.
//!
//! Threads inherit the filters of the one that starts them, and add to them; the strictest answer counts.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;

use seccompiler::{BpfProgram, Error};

/// Which kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// Everything but lanes: the main thread, tokio's, those of the vhost crates, and the log's.
    Control,
    /// Those that carry requests.
    Lanes,
}

/// The filters of a thread, in the order in which they are installed.
#[derive(Clone, Debug)]
pub(super) struct Filters(Vec<BpfProgram>);

impl Filters {
    /// On the present thread, for good.
    pub(super) fn install(&self) -> Result<(), Error> {
        let install = |filter| seccompiler::apply_filter(filter);
        self.0.iter().map(Vec::as_slice).try_for_each(install)
    }
}

/// The filters of a kind of threads; `None` where system calls are not known by number. Unless they
/// are to be enforced, what they would refuse is done and logged by the kernel.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn filters(threads: Threads, is_enforced: bool) -> Result<Option<Filters>, Error> {
    calls::filters(threads, is_enforced).map(|filters| Some(Filters(filters)))
}

/// None: system calls have other numbers here, and other arguments.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn filters(_: Threads, _: bool) -> Result<Option<Filters>, Error> {
    Ok(None)
}
