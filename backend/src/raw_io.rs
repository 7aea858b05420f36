//! System calls on raw pointers and raw descriptors: gathered sends and scattered receives over
//! our own bytes and guest memory alike, and the descriptor that a parent process passed on.
//!
//! The second of the two files with unsafe code: it lends pointers into guest memory to the
//! kernel, which is the one reader and writer that a racing guest cannot confuse.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::guest_memory::{GuestBuffers, GuestMemoryError, MAX_IOVECS};

/// Room for the vector of one system call, kept so that no call has to allocate it.
#[derive(Debug, Default)]
pub(crate) struct VectorRoom(Vec<libc::iovec>);

// SAFETY: the pointers inside are used only through a `Vector`, which starts by clearing them;
// what is left behind by an earlier one is never looked at.
unsafe impl Send for VectorRoom {}

/// The vector of one system call. Everything in it lives for `'a`.
pub(crate) struct Vector<'a> {
    iovecs: &'a mut Vec<libc::iovec>,
    lives: PhantomData<&'a [u8]>,
}

impl<'a> Vector<'a> {
    /// An empty vector in `room`.
    pub(crate) fn new(room: &'a mut VectorRoom) -> Self {
        room.0.clear();
        Self {
            iovecs: &mut room.0,
            lives: PhantomData,
        }
    }

    /// Whether another entry fits into one system call.
    pub(crate) fn has_room(&self) -> bool {
        self.iovecs.len() < MAX_IOVECS
    }

    /// Adds bytes to be sent.
    pub(crate) fn push(&mut self, bytes: &'a [u8]) {
        let iov_base = bytes.as_ptr().cast_mut().cast();
        self.iovecs.push(libc::iovec {
            iov_base,
            iov_len: bytes.len(),
        });
    }

    /// Adds room to receive into.
    pub(crate) fn push_mut(&mut self, bytes: &'a mut [u8]) {
        self.iovecs.push(libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        });
    }

    /// Adds a run of a request's data; says how much of it, less than all only when the vector
    /// is full.
    pub(crate) fn push_guest(
        &mut self,
        buffers: &'a GuestBuffers,
        offset_bytes: u64,
        length_bytes: usize,
    ) -> Result<usize, GuestMemoryError> {
        buffers.iovecs(offset_bytes, length_bytes, self.iovecs)
    }

    /// Sends what the vector holds, or a part of it; never waits.
    pub(crate) fn send(self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let message = self.message();
        // SAFETY: `message` points to the vector, which outlives the call. Its entries were
        // borrowed for `'a` by `push`, or are pinned by the `GuestBuffers` borrowed for `'a` in
        // `push_guest`; the kernel only reads them.
        let sent = unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &message,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        length(sent)
    }

    /// Receives what is there into the vector, from its start on; never waits. 0 is the end of
    /// the stream. Not to be called on a vector that [`Vector::push`] added to.
    pub(crate) fn receive(self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut message = self.message();
        // SAFETY: as in `send`; the entries were borrowed mutably by `push_mut`, or are guest
        // memory, to which no Rust reference exists.
        let received =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        length(received)
    }

    fn message(&self) -> libc::msghdr {
        // SAFETY: a msghdr of zeros is an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.iovecs.as_ptr().cast_mut();
        message.msg_iovlen = self.iovecs.len();
        message
    }
}

/// Has `socket` count as readable only when `length_bytes` have arrived or the stream has ended
/// (SO_RCVLOWAT, socket(7)). A receive that does not wait takes what is there all the same.
pub(crate) fn set_receive_low_water(
    socket: BorrowedFd<'_>,
    length_bytes: libc::c_int,
) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "4 bytes")]
    const LENGTH_BYTES: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const length_bytes).cast(),
            LENGTH_BYTES,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Takes over the descriptor that the command line names. To be called once for each number,
/// before anything else of the process opens descriptors.
pub(crate) fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag and fails when the number names no open descriptor.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and the parent that named it left it to us: nothing else in
    // this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
