//! Trespasses that a debug build can be told to commit, to prove that the sandbox is there.
//!
//! `VHOST_USER_ISCSI_TRESPASS=WHO:WHAT` has a thread of that kind do, as soon as it runs, what it must
//! not, and log what came of it. Builds without debug assertions have none of this.

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trespasser {
    /// The main thread.
    Main,
    /// A worker of tokio's.
    Worker,
    /// A thread for work that blocks.
    Blocking,
    /// A thread of the vhost crates.
    FrontEnd,
    /// A lane.
    Lane,
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn trespass(_: Trespasser) {}

#[cfg(debug_assertions)]
pub(crate) use debug::trespass;

#[cfg(debug_assertions)]
mod debug {
    use std::fs::File;
    use std::io;

    use rustix::net::{AddressFamily, SocketType, socket};
    use vm_memory::mmap::MmapRegion;

    use super::Trespasser;

    const VARIABLE: &str = "VHOST_USER_ISCSI_TRESPASS";

    /// Does what the environment asks this kind of thread for.
    pub(crate) fn trespass(who: Trespasser) {
        let Ok(value) = std::env::var(VARIABLE) else {
            return;
        };
        let Some((name, what)) = value.split_once(':') else {
            return;
        };
        if name == format!("{who:?}").to_lowercase() {
            log::warn!("{VARIABLE}: {value}");
            match attempt(what) {
                Ok(()) => log::warn!("{value}: done"),
                Err(error) => log::warn!("{value}: {error}{}", crate::sandbox::hint(&error)),
            }
        }
    }

    fn attempt(what: &str) -> io::Result<()> {
        match what {
            // On nobody's list.
            "call" => rustix::process::getsid(None).map(drop)?,
            // On the list of the control plane.
            "socket" => socket(AddressFamily::INET, SocketType::STREAM, None).map(drop)?,
            // On nobody's list with this argument.
            "raw" => socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop)?,
            "code" => return map_code(),
            "panic" => panic_here(),
            path => File::open(path).map(drop)?,
        }
        Ok(())
    }

    #[expect(clippy::panic, reason = "what is to be seen")]
    fn panic_here() {
        panic!("a trespass")
    }

    fn map_code() -> io::Result<()> {
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        match MmapRegion::<()>::build(None, 4096, protection, flags) {
            Ok(_) => Ok(()),
            Err(vm_memory::mmap::MmapRegionError::Mmap(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
