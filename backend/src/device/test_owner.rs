//! An owner of rings that writes down what it hears, for tests.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::rings::{RingOwner, RingSetup, lock};
use crate::guest_memory::GuestMemory;
use iscsi_core::disk::record::DiskRecord;
use std::os::fd::OwnedFd;
use vm_memory::GuestMemoryBackend;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Start {
        index: u16,
        size: u16,
        next_avail: u16,
        features: u64,
        has_call: bool,
    },
    Stop(u16),
    Call(u16, bool),
    Kick(u16),
    Memory {
        regions: usize,
    },
    Writeback(bool),
    TakeOver(DiskRecord),
}

/// Answers a stop with 1000 + the index of the ring.
#[derive(Default)]
pub(super) struct TestOwner {
    events: Mutex<Vec<Event>>,
    changed: Condvar,
}

impl TestOwner {
    fn note(&self, event: Event) {
        lock(&self.events).push(event);
        self.changed.notify_all();
    }

    pub(super) fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }

    /// Waits until an event has happened, up to ten seconds, and forgets all up to it.
    pub(super) fn wait_for(&self, wanted: &Event) {
        let limit = Duration::from_secs(10);
        let missing = |events: &mut Vec<Event>| !events.contains(wanted);
        let (mut events, timeout) = self
            .changed
            .wait_timeout_while(lock(&self.events), limit, missing)
            .unwrap();
        assert!(!timeout.timed_out(), "no {wanted:?} in {events:?}");
        let at = events.iter().position(|event| event == wanted).unwrap();
        events.drain(..=at);
    }
}

impl RingOwner for TestOwner {
    fn start_ring(&self, setup: RingSetup) {
        let RingSetup {
            index,
            size,
            next_avail,
            features,
            ref call,
            ..
        } = setup;
        self.note(Event::Start {
            index,
            size,
            next_avail,
            features,
            has_call: call.is_some(),
        });
    }

    fn stop_ring(&self, index: u16) -> u16 {
        self.note(Event::Stop(index));
        1000 + index
    }

    fn set_call(&self, index: u16, call: Option<OwnedFd>) {
        self.note(Event::Call(index, call.is_some()));
    }

    fn set_kick(&self, index: u16, _kick: OwnedFd) {
        self.note(Event::Kick(index));
    }

    fn set_memory(&self, memory: Arc<GuestMemory>) {
        self.note(Event::Memory {
            regions: memory.num_regions(),
        });
    }

    fn set_writeback(&self, writeback: bool) {
        self.note(Event::Writeback(writeback));
    }

    fn take_over(&self, disk: DiskRecord) {
        self.note(Event::TakeOver(disk));
    }
}
