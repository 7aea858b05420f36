//! How the control plane and the vhost-user side talk to a lane: messages, and an eventfd that
//! wakes it. Nothing on the path of a request goes through here.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// The lane's end and everybody else's.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    messages: Mutex<VecDeque<T>>,
    wake: OwnedFd,
    /// There may be messages: what a lane looks at that is awake anyway.
    has_mail: AtomicBool,
}

impl<T> Mailbox<T> {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            messages: Mutex::default(),
            wake,
            has_mail: AtomicBool::new(false),
        }))
    }

    /// Leaves a message and wakes the lane.
    pub(super) fn send(&self, message: T) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(message);
        self.has_mail.store(true, Ordering::Release);
        // It fails only when the counter is at its limit, and then the lane is being woken.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The oldest message.
    pub(super) fn take(&self) -> Option<T> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// Whether [`Mailbox::take`] may find something, told without a system call.
    pub(super) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// To be called before the messages are taken: one that comes later wakes again.
    pub(super) fn clear_wake(&self) {
        self.has_mail.store(false, Ordering::Relaxed);
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Readable when there are messages.
    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
