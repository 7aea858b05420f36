//! System calls on raw pointers and raw descriptors: gathered sends and scattered receives over
//! our own bytes and guest memory alike, the descriptor that a parent process passed on, and the
//! signal of a page of guest memory that is gone.
//!
//! The second of the two files with unsafe code: it lends pointers into guest memory to the
//! kernel, which is the one reader and writer that a racing guest cannot confuse.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use crate::guest_memory::{GuestBuffers, GuestMemoryError, MAX_IOVECS};
use crate::memory_watch::{self, LostPage};

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

/// How many of the bytes that were written to a TCP socket its peer has not acknowledged (SIOCOUTQ,
/// tcp(7)).
pub(crate) fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which has the number of SIOCOUTQ, writes an int, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(count).unwrap_or(0))
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

/// How long a page of memory is.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: sysconf reads a number of the system's.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page_bytes).unwrap_or(4096)
}

/// Has `memory_watch` asked about every SIGBUS from now on, for as long as the process lives. Only
/// the first call does anything.
///
/// # Errors
/// When the system refuses, which it has no reason to.
pub(crate) fn catch_sigbus() -> io::Result<()> {
    static RESULT: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || {
        let handler: extern "C" fn(_, _, _) = on_sigbus;
        set_sigbus_action(handler as libc::sighandler_t, libc::SA_SIGINFO)
    };
    RESULT
        .get_or_init(install)
        .map_err(io::Error::from_raw_os_error)
}

fn set_sigbus_action(handler: libc::sighandler_t, flags: libc::c_int) -> Result<(), i32> {
    // SAFETY: a sigaction of zeros is a valid one, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: `action` outlives the call. The handler is SIG_DFL or `on_sigbus`, which has the type
    // that SA_SIGINFO wants and does only what a signal handler may.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// What a handler has to leave as it was.
fn set_errno(value: i32) {
    // SAFETY: says where errno of this thread is.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it is there as long as the thread, which alone uses it.
    unsafe { place.write(value) };
}

/// The handler. It may interrupt this thread at any access to guest memory: no allocation, no lock,
/// no panic, and errno as it was.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let errno_before = errno();
    // SAFETY: the kernel passes a siginfo_t, which nothing else refers to.
    let info = unsafe { info.read() };
    // SAFETY: of a SIGBUS that comes from a fault it is the address; else it is not looked at.
    let address = unsafe { info.si_addr() }.addr();
    // Anything else is a broken page of the machine's (BUS_MCEERR_AR), or sent by somebody.
    let page = (info.si_code == libc::BUS_ADRERR).then(|| memory_watch::lose(address));
    match page.flatten() {
        Some(page) if put_zeros_under(&page) => write_byte(page.pipe),
        _ => die_of_sigbus(),
    }
    set_errno(errno_before);
}

/// Puts zeros of our own in the place of a page that holds nothing.
fn put_zeros_under(page: &LostPage) -> bool {
    let start = std::ptr::without_provenance_mut(page.start);
    // SAFETY: the page is one, or a run, of a mapping that is watched, so it is mapped for guest
    // memory and will be until the interrupted access is over; there are no references to it. Who
    // unmaps the mapping unmaps this part of it, too.
    let mapped = unsafe {
        libc::mmap(
            start,
            page.length_bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}

/// Makes a pipe readable.
fn write_byte(pipe: RawFd) {
    // SAFETY: the kernel reads a byte that outlives the call. The descriptor belongs to the
    // `MemoryLoss` of a watched mapping, which is held while somebody is within an access to it. A
    // full pipe is readable already.
    unsafe { libc::write(pipe, [1_u8].as_ptr().cast(), 1) };
}

/// Has the process end as it would have without a handler, with one line of what it was.
fn die_of_sigbus() {
    const LINE: &[u8] = b"vhost-user-iscsi: SIGBUS outside of any memory that a front-end shared\n";
    let _ = set_sigbus_action(libc::SIG_DFL, 0);
    // SAFETY: the kernel reads the line, which is static.
    unsafe { libc::write(libc::STDERR_FILENO, LINE.as_ptr().cast(), LINE.len()) };
    // SAFETY: a handler may call raise(3). The signal is blocked until this one returns, and then
    // ends the process.
    unsafe { libc::raise(libc::SIGBUS) };
}
