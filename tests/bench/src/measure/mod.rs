//! Looking at processes and at the machine while a load runs.

pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod syscalls;
