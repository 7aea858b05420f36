//! The inflight region against a plain model: a ring is served, and its process killed anywhere.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use iscsi_core::disk::facts::Identity;
use iscsi_core::disk::record::DiskRecord;
use proptest::prelude::*;
use rustix::io::{pread, pwrite};

use super::inflight::{Description, InflightError, InflightRegion, create};
use super::message::Message;
use super::queue::SplitQueue;
use super::test_ring::TestRing;
use crate::memory_watch::MemoryLoss;

const SIZE: u16 = 16;
/// Where the state of descriptor 0 is, the used index, and the version.
const ENTRIES: u64 = 16;
const USED_IDX: u64 = 14;
const VERSION: u64 = 8;

/// A region as a front-end keeps it.
struct Kept {
    description: Description,
    file: OwnedFd,
}

impl Kept {
    fn new() -> Self {
        let (description, file) = create(description(0, 1, SIZE), 1).unwrap();
        Self { description, file }
    }

    fn region(&self) -> InflightRegion {
        let file = self.file.try_clone().unwrap();
        InflightRegion::adopt(self.description, vec![file], 1, &MemoryLoss::new().unwrap()).unwrap()
    }

    /// The next process.
    fn start(&self, ring: &TestRing) -> SplitQueue {
        let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
        let part = self.region().queue(0, SIZE).unwrap();
        queue.track_inflight(part).unwrap();
        queue
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        assert_eq!(pwrite(&self.file, bytes, at).unwrap(), bytes.len());
    }

    fn number(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        assert_eq!(pread(&self.file, &mut bytes, at).unwrap(), 2);
        u16::from_le_bytes(bytes)
    }

    fn mark(&self, head: u16) {
        self.write(ENTRIES + 16 * u64::from(head), &[1]);
    }
}

fn description(mmap_size: u64, num_queues: u16, queue_size: u16) -> Description {
    let [n0, n1] = num_queues.to_ne_bytes();
    let [s0, s1] = queue_size.to_ne_bytes();
    let tail = [n0, n1, s0, s1, 0, 0, 0, 0];
    let body = [mmap_size.to_ne_bytes(), [0; 8], tail];
    Description::parse(&Message::new(31, body.as_flattened(), Vec::new()))
}

#[test]
fn says_in_24_bytes_what_it_was_told() {
    let said = description(0x0102_0304_0506, 7, 256);
    let message = Message::new(31, &said.body(), Vec::new());
    assert_eq!(Description::parse(&message), said);
    assert_eq!(said.body()[16..20], [7, 0, 0, 1]);
    assert_eq!(said.body().len(), 24);
}

#[test]
fn has_room_for_exactly_the_queues_that_were_asked_for() {
    let (description, file) = create(description(0, 2, 128), 2).unwrap();
    let region =
        InflightRegion::adopt(description, vec![file], 2, &MemoryLoss::new().unwrap()).unwrap();
    for (queue, size, good) in [
        (0, 128, true),
        (1, 64, true),
        (2, 1, false),
        (0, 256, false),
    ] {
        assert_eq!(region.queue(queue, size).is_ok(), good, "{queue} of {size}");
    }
}

#[test]
fn refuses_shapes_that_no_ring_has() {
    for (num_queues, queue_size) in [(0, 128), (3, 128), (1, 0), (1, 100), (1, 65_535)] {
        create(description(0, num_queues, queue_size), 2).unwrap_err();
    }
    create(description(0, 2, 32_768), 2).unwrap();
}

#[test]
fn a_region_that_was_never_used_leaves_the_base_alone() {
    let mut ring = TestRing::starting_at(SIZE, 40);
    let kept = Kept::new();
    let mut queue = kept.start(&ring);
    ring.make_available(3);
    assert_eq!(queue.pop(), Ok(Some(3)));
    assert_eq!(kept.number(USED_IDX), 40);
    assert_eq!(kept.number(VERSION), 1);
}

#[test]
fn a_device_reset_forgets_what_was_in_flight() {
    let mut ring = TestRing::new(SIZE);
    let kept = Kept::new();
    let mut queue = kept.start(&ring);
    ring.make_available(3);
    assert_eq!(queue.pop(), Ok(Some(3)));
    drop(queue);
    kept.region().forget_all();
    let mut queue = kept.start(&TestRing::new(SIZE));
    assert_eq!(queue.pop(), Ok(None));
}

#[test]
fn a_ring_that_was_reset_while_nothing_was_in_flight_starts_anew() {
    let mut ring = TestRing::starting_at(SIZE, 1000);
    let kept = Kept::new();
    let mut queue = kept.start(&ring);
    ring.make_available(3);
    assert_eq!(queue.pop(), Ok(Some(3)));
    queue.push_used(3, 1);
    let _ = queue.publish();
    drop(queue);
    let mut fresh = TestRing::new(SIZE);
    let mut queue = kept.start(&fresh);
    fresh.make_available(5);
    assert_eq!(queue.pop(), Ok(Some(5)));
}

/// What may happen to a ring.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// The driver makes some available.
    Offer(usize),
    /// The device takes some.
    Take(usize),
    /// Some of what was taken is completed, chosen by this number, but not published.
    Complete(usize),
    /// What was completed is published.
    Publish,
    /// The process is killed and another one started.
    Kill,
    /// The same, while it publishes: after the used index moved and this many marks were cleared.
    KillInPublish(usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => (1_usize..6).prop_map(Turn::Offer),
        3 => (1_usize..6).prop_map(Turn::Take),
        4 => any::<usize>().prop_map(Turn::Complete),
        2 => Just(Turn::Publish),
        1 => Just(Turn::Kill),
        2 => (0_usize..6).prop_map(Turn::KillInPublish),
    ]
}

/// The plain model: where each of the descriptors is.
struct Model {
    free: VecDeque<u16>,
    offered: VecDeque<u16>,
    /// In the order in which they are to be taken by the next process.
    taken: Vec<(u16, bool)>,
    /// To be taken again before anything new.
    again: VecDeque<u16>,
    completed: Vec<u16>,
    /// The order in which heads were made available; the place of each in flight.
    used_index: u16,
    order: Vec<u16>,
}

impl Model {
    fn published(&mut self) {
        for head in self.completed.drain(..) {
            self.used_index = self.used_index.wrapping_add(1);
            self.order.retain(|other| *other != head);
            self.free.push_back(head);
        }
    }

    fn killed(&mut self) {
        self.completed.clear();
        self.taken.clear();
        self.again = self.order.iter().copied().collect();
    }
}

proptest! {
    #[test]
    fn loses_nothing_and_repeats_nothing_that_was_published(
        start in (u16::MAX - 40)..=u16::MAX,
        turns in prop::collection::vec(turn(), 1..150),
    ) {
        let mut ring = TestRing::starting_at(SIZE, start);
        let kept = Kept::new();
        let mut queue = kept.start(&ring);
        let mut model = Model {
            free: (0..SIZE).collect(),
            offered: VecDeque::new(),
            taken: Vec::new(),
            again: VecDeque::new(),
            completed: Vec::new(),
            used_index: start,
            order: Vec::new(),
        };
        for turn in turns {
            match turn {
                Turn::Offer(count) => for _ in 0..count {
                    if let Some(head) = model.free.pop_front() {
                        ring.make_available(head);
                        model.offered.push_back(head);
                    }
                },
                Turn::Take(count) => for _ in 0..count {
                    let again = model.again.pop_front();
                    let expected = again.or_else(|| model.offered.pop_front());
                    prop_assert_eq!(queue.pop(), Ok(expected));
                    model.taken.extend(expected.map(|head| (head, again.is_some())));
                    if again.is_none() {
                        model.order.extend(expected);
                    }
                },
                Turn::Complete(choice) => if !model.taken.is_empty() {
                    let (head, _) = model.taken.swap_remove(choice % model.taken.len());
                    queue.push_used(head, 1);
                    model.completed.push(head);
                },
                Turn::Publish => {
                    let _ = queue.publish();
                    model.published();
                }
                Turn::Kill => {
                    drop(queue);
                    model.killed();
                    queue = kept.start(&ring);
                }
                Turn::KillInPublish(cleared) => {
                    let batch = model.completed.clone();
                    let _ = queue.publish();
                    drop(queue);
                    // As it was between two stores of that.
                    batch.iter().skip(cleared).for_each(|head| kept.mark(*head));
                    kept.write(USED_IDX, &model.used_index.to_le_bytes());
                    model.published();
                    model.killed();
                    queue = kept.start(&ring);
                }
            }
            prop_assert_eq!(ring.used_index(), model.used_index);
            prop_assert_eq!(usize::from(queue.in_flight()), model.taken.len());
        }
    }
}

/// Where the trailer starts: it is the last of the region.
fn trailer_of(description: Description) -> u64 {
    let [size, ..] = *description.body().as_chunks().0 else {
        unreachable!("24 bytes")
    };
    u64::from_ne_bytes(size) - 4096
}

fn disk(serial: &str) -> DiskRecord {
    DiskRecord {
        identity: Identity {
            designators: Vec::new(),
            serial: serial.into(),
            block_length_bytes: 512,
        },
        capacity_blocks: 1000,
    }
}

#[test]
fn the_first_process_writes_down_the_disk_and_every_later_one_is_told_it() {
    let kept = Kept::new();
    assert_eq!(kept.region().former_disk(&disk("a")).unwrap(), None);
    for _ in 0..2 {
        let former = kept.region().former_disk(&disk("b")).unwrap();
        assert_eq!(former, Some(disk("a")));
    }
}

#[test]
fn a_later_process_is_told_of_the_largest_size_that_the_guest_knew() {
    let kept = Kept::new();
    kept.region().former_disk(&disk("a")).unwrap();
    for (noted, expected) in [(999, 1000), (1001, 1001), (1000, 1001)] {
        kept.region().note_capacity(noted);
        let former = kept.region().former_disk(&disk("a")).unwrap();
        assert_eq!(former.unwrap().capacity_blocks, expected);
    }
}

#[test]
fn a_record_that_was_cut_short_by_a_kill_is_none_and_a_damaged_one_an_error() {
    let kept = Kept::new();
    kept.region().former_disk(&disk("a")).unwrap();
    let trailer = trailer_of(kept.description);
    // The magic number is written last.
    kept.write(trailer, &[0; 8]);
    assert_eq!(kept.region().former_disk(&disk("a")).unwrap(), None);
    kept.write(trailer + 8 + 12, &[0xff]);
    let error = kept.region().former_disk(&disk("a")).unwrap_err();
    assert!(matches!(error, InflightError::Record), "{error}");
}

#[test]
fn a_region_of_another_back_end_has_no_room_for_the_disk() {
    let (said, file) = create(description(0, 1, SIZE), 1).unwrap();
    let without_trailer = description(trailer_of(said), 1, SIZE);
    let region =
        InflightRegion::adopt(without_trailer, vec![file], 1, &MemoryLoss::new().unwrap()).unwrap();
    for _ in 0..2 {
        assert_eq!(region.former_disk(&disk("a")).unwrap(), None);
    }
}
