//! SO_RCVLOWAT, which neither the standard library nor rustix sets.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// A receive that waits, waits until `length_bytes` are there; 1 is the default. The kernel cuts
/// the value to half of what the receive buffer may grow to.
pub(super) fn set_receive_low_water(socket: &TcpStream, length_bytes: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the option is an int; the kernel reads `length` bytes of it during the call only.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const length_bytes).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
