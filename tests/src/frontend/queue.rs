//! One virtqueue: its ring, its two event descriptors, and what is in flight on it.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::buffers::Buffers;
use super::error::{Error, Result};
use super::memory::{Block, Memory};
use super::request::{Layout, Request};
use super::ring::{Descriptor, Next, Ring, UsedElement, encode_table};
use super::spec::DESC_INDIRECT;
use crate::wait::{self, Deadline};

/// How long the blocking operations wait for an answer.
pub const IO_LIMIT: Duration = Duration::from_secs(30);

/// How the client learns of used elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notifications {
    /// It asks to be notified and waits for it.
    #[default]
    Wanted,
    /// It asks for none and looks at the ring again and again.
    Suppressed,
}

/// An answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Head of the chain, as returned when it was submitted.
    pub head: u16,
    /// What was asked; `None` for a raw chain.
    pub request: Option<Request>,
    /// The status byte; `S_UNTOUCHED` when the device left it alone or the chain was raw.
    pub status: u8,
    /// What was read, without the status byte.
    pub data: Vec<u8>,
    /// The length in the used ring.
    pub written_bytes: u32,
}

struct InFlight {
    slots: Vec<u16>,
    request: Option<(Request, Buffers)>,
    _indirect: Option<Block>,
}

/// A queue that can be driven from any one thread.
pub struct Queue {
    memory: Arc<Memory>,
    ring: Ring,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
    event_idx: bool,
    notifications: Notifications,
    in_flight: HashMap<u16, InFlight>,
}

impl Queue {
    pub(super) fn new(
        memory: &Arc<Memory>,
        size: u16,
        event_idx: bool,
        notifications: Notifications,
    ) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let queue = Self {
            memory: Arc::clone(memory),
            ring: Ring::new(memory, size),
            kick: event(),
            call: event(),
            event_idx,
            notifications,
            in_flight: HashMap::new(),
        };
        queue.arm();
        queue
    }

    /// The ring itself, for what no driver should do.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    pub(super) fn ring_ref(&self) -> &Ring {
        &self.ring
    }

    /// How many chains are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Forgets everything in flight and starts with an empty ring.
    pub fn reset(&mut self) {
        self.in_flight.clear();
        self.ring.reset();
        self.arm();
    }

    /// Makes `request` available and kicks if the back-end wants that; returns the head.
    pub fn submit(&mut self, request: Request, layout: &Layout) -> Result<u16> {
        let before = self.ring.available_index();
        let head = self.enqueue(request, layout)?;
        self.kick_since(before);
        Ok(head)
    }

    /// As [`Queue::submit`] for many requests, with one kick at the end.
    pub fn submit_batch(&mut self, requests: Vec<(Request, Layout)>) -> Result<Vec<u16>> {
        let before = self.ring.available_index();
        let heads = requests
            .into_iter()
            .map(|(request, layout)| self.enqueue(request, &layout));
        let heads = heads.collect();
        self.kick_since(before);
        heads
    }

    fn enqueue(&mut self, request: Request, layout: &Layout) -> Result<u16> {
        let buffers = Buffers::new(&self.memory, &request, layout);
        let mut descriptors = buffers.descriptors();
        let mut indirect = None;
        if layout.indirect {
            let table = self.indirect_table(&descriptors);
            descriptors = vec![point_to(&table)];
            indirect = Some(table);
        }
        let slots = self.ring.place(&descriptors)?;
        Ok(self.publish(InFlight {
            slots,
            request: Some((request, buffers)),
            _indirect: indirect,
        }))
    }

    /// An indirect table with these descriptors in guest memory; keep it while it is in use.
    pub fn indirect_table(&self, descriptors: &[Descriptor]) -> Block {
        let bytes = encode_table(descriptors);
        let table = self.memory.allocate(bytes.len() as u64, 16);
        self.memory.write(table.address, &bytes);
        table
    }

    /// Makes exactly these descriptors available, right or wrong, and kicks; returns the head.
    pub fn submit_raw(&mut self, descriptors: &[Descriptor]) -> Result<u16> {
        let slots = self.ring.place(descriptors)?;
        let head = self.publish(InFlight {
            slots,
            request: None,
            _indirect: None,
        });
        self.kick();
        Ok(head)
    }

    fn publish(&mut self, chain: InFlight) -> u16 {
        let head = chain.slots[0];
        self.in_flight.insert(head, chain);
        self.ring.publish(head);
        head
    }

    /// Kicks without asking whether the back-end wants it.
    pub fn kick(&self) {
        self.kick.write(1).expect("an eventfd takes a 1");
    }

    fn kick_since(&self, before: u16) {
        if self.ring.wants_kick(before, self.event_idx) {
            self.kick();
        }
    }

    /// The next answered request if there is one; never waits.
    ///
    /// # Errors
    /// [`Error::NotInFlight`], [`Error::GuardOverwritten`]: the back-end is broken.
    pub fn poll_used(&mut self) -> Result<Option<Completion>> {
        let Some(used) = self.ring.pop_used() else {
            return Ok(None);
        };
        let head = u16::try_from(used.head).map_err(|_| Error::NotInFlight(used.head))?;
        let chain = self
            .in_flight
            .remove(&head)
            .ok_or(Error::NotInFlight(used.head))?;
        self.ring.release(&chain.slots);
        complete(head, used, chain).map(Some)
    }

    /// Waits for the next answered request, in whatever order the back-end answers.
    ///
    /// # Errors
    /// As [`Queue::poll_used`]; [`Error::NothingUsed`] after `limit`; [`Error::NotNotified`] when
    /// the ring moved but the notification that was asked for did not come.
    pub fn wait_used(&mut self, limit: Duration) -> Result<Completion> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(completion) = self.poll_used()? {
                return Ok(completion);
            }
            self.arm();
            if self.has_used() {
                continue;
            }
            self.sleep(deadline, limit)?;
        }
    }

    fn sleep(&self, deadline: Deadline, limit: Duration) -> Result<()> {
        let woken = match self.notifications {
            Notifications::Suppressed => self.spin(deadline),
            Notifications::Wanted => wait::readable(&[self.call_fd()], deadline.left()),
        };
        if woken {
            let _ = self.call.read();
            return Ok(());
        }
        match self.has_used() {
            true => Err(Error::NotNotified {
                used_index: self.ring.published_used_index(),
            }),
            false => Err(Error::NothingUsed(limit)),
        }
    }

    /// Without notifications there is no event to wait for.
    fn spin(&self, deadline: Deadline) -> bool {
        while !self.has_used() && !deadline.passed() {
            thread::yield_now();
        }
        self.has_used()
    }

    /// True when the driver asks for no notifications.
    pub(super) fn is_suppressed(&self) -> bool {
        self.notifications == Notifications::Suppressed
    }

    /// True when the used ring holds something not yet taken.
    pub(super) fn has_used(&self) -> bool {
        self.ring.has_used()
    }

    /// Asks for a notification of the next used element, unless they are suppressed.
    pub(super) fn arm(&self) {
        let wanted = self.notifications == Notifications::Wanted;
        self.ring.set_notifications(wanted, self.event_idx);
    }

    /// The descriptor the back-end signals.
    pub(super) fn call_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.call`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.call.as_raw_fd()) }
    }

    /// Whoever notifies of a completion waits from now on, until [`Queue::take_notifications`]: the
    /// back-end has made the descriptor one that does not, which its front-end can undo.
    ///
    /// # Panics
    /// When the descriptor cannot be changed.
    pub fn block_notifications(&mut self) {
        self.take_notifications();
        // The largest number there may be: one more does not fit.
        self.call.write(u64::MAX - 1).expect("it is empty");
        let flags = fcntl_getfl(self.call_fd()).expect("a descriptor");
        fcntl_setfl(self.call_fd(), flags - OFlags::NONBLOCK).expect("a descriptor");
        self.arm();
    }

    /// Takes all notifications that there are, and lets those go on who wait for that.
    ///
    /// # Panics
    /// When the descriptor cannot be changed.
    pub fn take_notifications(&mut self) {
        let flags = fcntl_getfl(self.call_fd()).expect("a descriptor");
        fcntl_setfl(self.call_fd(), flags | OFlags::NONBLOCK).expect("a descriptor");
        let _ = self.call.read();
    }

    /// True when a notification is waiting, which this call takes.
    pub fn take_notification(&self) -> bool {
        self.call.read().is_ok()
    }

    /// Submits and waits for this very request, which must be the only one in flight.
    pub fn run(&mut self, request: Request, layout: &Layout) -> Result<Completion> {
        self.submit(request, layout)?;
        self.wait_used(IO_LIMIT)
    }

    fn run_usual(&mut self, request: Request) -> Result<Completion> {
        let layout = Layout::usual(&request);
        self.run(request, &layout)
    }

    /// Reads; returns the status and the data.
    pub fn read(&mut self, sector: u64, length_bytes: u32) -> Result<(u8, Vec<u8>)> {
        let done = self.run_usual(Request::read(sector, length_bytes))?;
        Ok((done.status, done.data))
    }

    /// Writes; returns the status.
    pub fn write(&mut self, sector: u64, data: &[u8]) -> Result<u8> {
        Ok(self.run_usual(Request::write(sector, data))?.status)
    }

    /// Flushes; returns the status.
    pub fn flush(&mut self) -> Result<u8> {
        Ok(self.run_usual(Request::flush())?.status)
    }

    /// Discards; returns the status.
    pub fn discard(&mut self, sector: u64, sectors: u32) -> Result<u8> {
        Ok(self.run_usual(Request::discard(sector, sectors))?.status)
    }

    /// Writes zeroes; returns the status.
    pub fn write_zeroes(&mut self, sector: u64, sectors: u32, unmap: bool) -> Result<u8> {
        Ok(self
            .run_usual(Request::write_zeroes(sector, sectors, unmap))?
            .status)
    }

    /// Asks for the serial; returns the status and 20 bytes.
    pub fn get_id(&mut self) -> Result<(u8, Vec<u8>)> {
        let done = self.run_usual(Request::get_id())?;
        Ok((done.status, done.data))
    }
}

fn point_to(table: &Block) -> Descriptor {
    let length_bytes = u32::try_from(table.length_bytes).expect("a table is short");
    Descriptor {
        address: table.address,
        length_bytes,
        flags: DESC_INDIRECT,
        next: Next::End,
    }
}

fn complete(head: u16, used: UsedElement, chain: InFlight) -> Result<Completion> {
    let written_bytes = used.written_bytes;
    let Some((request, buffers)) = chain.request else {
        let status = super::spec::S_UNTOUCHED;
        return Ok(Completion {
            head,
            request: None,
            status,
            data: Vec::new(),
            written_bytes,
        });
    };
    let (data, status) = buffers.harvest()?;
    Ok(Completion {
        head,
        request: Some(request),
        status,
        data,
        written_bytes,
    })
}
