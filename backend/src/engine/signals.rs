//! Which signals a lane takes: none that somebody sends.

use nix::sys::signal::{SigSet, Signal};

/// What a thread brings upon itself: to block one of these is to die of it without a handler.
const OF_THE_THREAD: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Leaves the signals of the process to the control plane's threads: a handler tells the runtime by a
/// system call that a lane may not make, and at a bad time for a guest's requests.
pub(super) fn leave_to_others() {
    let mut signals = SigSet::all();
    for signal in OF_THE_THREAD {
        signals.remove(signal);
    }
    if let Err(error) = signals.thread_block() {
        log::warn!("a lane takes signals of the process: {error}");
    }
}
