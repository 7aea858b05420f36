//! Ring and inflight region against a plain model, whatever driver and device do, and wherever the
//! process is killed: before any store that outlives it, those of a recovery too.
//!
//! The model knows one thing: the buffers that the driver made available and does not see used, in
//! that order. A new process has to take all of them again in this order, and each is used once.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::io::pread;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Bytes, GuestAddress};

use super::inflight::{Description, InflightQueue, InflightRegion, create};
use super::message::Message;
use super::queue::SplitQueue;
use super::request::{ParsedRequest, RequestParser, Status};
use super::rings::RingSetup;
use super::test_ring::{DATA, DESC_TABLE, INDIRECT, TestRing, WRITE};
use crate::crash_point::killed_at;
use crate::memory_watch::MemoryLoss;

const SECTOR_BYTES: u32 = 512;
/// Header, data with status, and indirect table of a request, each by its head.
const PLACE_BYTES: u64 = 4096;
const ANSWER: u64 = 64;
const TABLE: u64 = 2048;
/// VIRTIO_BLK_T_IN.
const T_IN: u32 = 0;

/// What happens next, and when it is broken off.
#[derive(Clone, Debug)]
struct Step {
    turn: Turn,
    /// The store before which the process is killed, if it gets there, then those of the
    /// recoveries that follow.
    kill: Option<u32>,
    kills_in_recovery: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    /// The driver makes a request available, with one of its free descriptors as the head.
    Offer { choice: usize, is_indirect: bool },
    /// The driver takes what is used.
    Harvest,
    /// The device takes a buffer.
    Pop,
    /// It takes a buffer and puts it back.
    PutBack,
    /// It completes one of those it has taken.
    Push { choice: usize },
    /// It shows what is completed.
    Publish,
    /// It asks for kicks, or for none.
    Notification(bool),
    /// The process is killed between two steps.
    Kill,
}

fn turn() -> impl Strategy<Value = Turn> {
    let offer = (any::<usize>(), any::<bool>());
    prop_oneof![
        6 => offer.prop_map(|(choice, is_indirect)| Turn::Offer { choice, is_indirect }),
        3 => Just(Turn::Harvest),
        6 => Just(Turn::Pop),
        2 => Just(Turn::PutBack),
        5 => any::<usize>().prop_map(|choice| Turn::Push { choice }),
        3 => Just(Turn::Publish),
        1 => any::<bool>().prop_map(Turn::Notification),
        1 => Just(Turn::Kill),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let kill = proptest::option::weighted(0.3, 0_u32..24);
    let recovery = prop::collection::vec(0_u32..12, 0..3);
    (turn(), kill, recovery).prop_map(|(turn, kill, kills_in_recovery)| Step {
        turn,
        kill,
        kills_in_recovery,
    })
}

/// Where a request is, as the present process has to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Available,
    Popped,
    Pushed,
}

/// A request that the driver has made available.
#[derive(Clone, Debug)]
struct Offered {
    /// Its sector, by which it is known.
    id: u64,
    head: u16,
    descriptors: Vec<u16>,
    place: Place,
}

/// A region as a front-end keeps it.
struct Kept {
    description: Description,
    file: OwnedFd,
}

impl Kept {
    fn new(size: u16) -> Self {
        let [s0, s1] = size.to_ne_bytes();
        let shape = [1_u16.to_ne_bytes(), [s0, s1], [0; 2], [0; 2]];
        let body = [[0; 8], [0; 8], shape.as_flattened().try_into().unwrap()];
        let wanted = Description::parse(&Message::new(31, body.as_flattened(), Vec::new()));
        let (description, file) = create(wanted, 1).unwrap();
        Self { description, file }
    }

    fn queue(&self, size: u16) -> InflightQueue {
        let file = self.file.try_clone().unwrap();
        let loss = MemoryLoss::new().unwrap();
        let region = InflightRegion::adopt(self.description, vec![file], 1, &loss).unwrap();
        region.queue(0, size).unwrap()
    }

    /// By head.
    fn marks(&self, size: u16) -> Vec<bool> {
        let mut entries = vec![0; 16 * usize::from(size)];
        let length_bytes = pread(&self.file, &mut entries, 16).unwrap();
        assert_eq!(length_bytes, entries.len());
        entries.iter().step_by(16).map(|mark| *mark != 0).collect()
    }
}

/// Driver, device and model.
struct World {
    ring: TestRing,
    size: u16,
    features: u64,
    kept: Option<Kept>,
    queue: SplitQueue,
    parser: RequestParser,
    /// By head.
    requests: Vec<ParsedRequest>,
    free: Vec<u16>,
    /// Available, and not seen as used by anybody: the model.
    waiting: Vec<Offered>,
    /// The heads of what is pushed, in that order.
    pushed: Vec<u16>,
    /// Published, and not harvested.
    used: VecDeque<Offered>,
    next_id: u64,
    /// How many the driver has harvested, and the device has published.
    harvested: u16,
    published: u64,
    /// With EVENT_IDX, the number of the one that the driver waits for.
    used_event: u64,
}

impl World {
    fn new(size: u16, start: u16, event_idx: bool, is_tracked: bool) -> Self {
        let event_idx = u64::from(event_idx) << VIRTIO_RING_F_EVENT_IDX;
        let features = event_idx | 1 << VIRTIO_RING_F_INDIRECT_DESC;
        let ring = TestRing::starting_at(size, start);
        ring.set_used_event(start);
        let kept = is_tracked.then(|| Kept::new(size));
        let mut queue = SplitQueue::new(&ring.setup(features)).unwrap();
        if let Some(kept) = &kept {
            assert_eq!(queue.track_inflight(kept.queue(size)).unwrap(), None);
        }
        Self {
            queue,
            ring,
            size,
            features,
            kept,
            parser: RequestParser::new(features),
            requests: (0..size).map(|_| ParsedRequest::default()).collect(),
            free: (0..size).collect(),
            waiting: Vec::new(),
            pushed: Vec::new(),
            used: VecDeque::new(),
            next_id: 0,
            harvested: start,
            published: start.into(),
            used_event: start.into(),
        }
    }

    fn count(&self, place: Place) -> usize {
        self.waiting.iter().filter(|r| r.place == place).count()
    }

    fn offer(&mut self, choice: usize, is_indirect: bool) {
        let wanted = if is_indirect { 1 } else { 2 };
        if self.free.len() < wanted {
            return;
        }
        let at = choice % self.free.len();
        self.free.rotate_left(at);
        let descriptors: Vec<u16> = self.free.drain(..wanted).collect();
        let (head, id) = (descriptors[0], self.next_id);
        self.next_id += 1;
        self.place_request(&descriptors, id);
        self.waiting.push(Offered {
            id,
            head,
            descriptors,
            place: Place::Available,
        });
        self.ring.make_available(head);
    }

    /// Two buffers: a header, then the data and the status.
    fn place_request(&self, descriptors: &[u16], id: u64) {
        let place = DATA + PLACE_BYTES * u64::from(descriptors[0]);
        let header = [T_IN.to_le_bytes(), [0; 4]];
        let memory = &self.ring.memory;
        let write = |bytes: &[u8], at| memory.write_slice(bytes, GuestAddress(at)).unwrap();
        write(header.as_flattened(), place);
        write(&id.to_le_bytes(), place + 8);
        write(&[0xff], place + ANSWER + u64::from(SECTOR_BYTES));
        let (first, second) = ((place, 16), (place + ANSWER, SECTOR_BYTES + 1));
        match *descriptors {
            [head] => {
                let table = place + TABLE;
                self.ring.put_descriptor(table, 0, (first.0, first.1, 1, 1));
                self.ring
                    .put_descriptor(table, 1, (second.0, second.1, WRITE, 0));
                self.ring
                    .put_descriptor(DESC_TABLE, head, (table, 32, INDIRECT, 0));
            }
            [head, next] => {
                self.ring
                    .put_descriptor(DESC_TABLE, head, (first.0, first.1, 1, next));
                self.ring
                    .put_descriptor(DESC_TABLE, next, (second.0, second.1, WRITE, 0));
            }
            _ => unreachable!("one or two"),
        }
    }

    /// The driver looks for exactly what was published, in the order of the pushes.
    fn harvest(&mut self) {
        while let Some(offered) = self.used.pop_front() {
            let head = u32::from(offered.head);
            assert_eq!(self.ring.used(self.harvested), (head, SECTOR_BYTES + 1));
            self.harvested = self.harvested.wrapping_add(1);
            let place = DATA + PLACE_BYTES * u64::from(offered.head);
            let status = GuestAddress(place + ANSWER + u64::from(SECTOR_BYTES));
            assert_eq!(self.ring.memory.read_obj::<u8>(status).unwrap(), 0);
            self.free.extend(offered.descriptors);
        }
        assert_eq!(self.ring.used_index(), self.harvested);
        self.used_event = self.published;
        self.ring.set_used_event(self.harvested);
    }

    fn pop(&mut self) {
        let expected = self
            .waiting
            .iter_mut()
            .find(|r| r.place == Place::Available);
        let popped = self.queue.pop().unwrap();
        assert_eq!(popped, expected.as_ref().map(|r| r.head));
        let Some(expected) = expected else { return };
        let request = &mut self.requests[usize::from(expected.head)];
        self.parser
            .parse(&self.queue, expected.head, request)
            .unwrap();
        assert_eq!(request.extent().sector, expected.id);
        expected.place = Place::Popped;
    }

    fn put_back(&mut self) {
        let (in_flight, next_avail) = (self.queue.in_flight(), self.queue.next_avail());
        if let Some(head) = self.queue.pop().unwrap() {
            self.queue.put_back(head);
        }
        let after = (self.queue.in_flight(), self.queue.next_avail());
        assert_eq!(after, (in_flight, next_avail));
    }

    fn push(&mut self, choice: usize) {
        let popped = self.waiting.iter_mut().filter(|r| r.place == Place::Popped);
        let mut popped: Vec<_> = popped.collect();
        let Some(chosen) = choice.checked_rem(popped.len()) else {
            return;
        };
        let offered = popped.swap_remove(chosen);
        let length_bytes = self.requests[usize::from(offered.head)].complete(Status::Ok);
        self.queue.push_used(offered.head, length_bytes);
        offered.place = Place::Pushed;
        self.pushed.push(offered.head);
    }

    fn publish(&mut self) {
        let wants_notification = self.queue.publish();
        let before = self.published;
        self.batch_was_published();
        let expected = if self.features & (1 << VIRTIO_RING_F_EVENT_IDX) == 0 {
            before != self.published
        } else {
            (before..self.published).contains(&self.used_event)
        };
        assert_eq!(wants_notification, expected);
    }

    fn batch_was_published(&mut self) {
        for head in std::mem::take(&mut self.pushed) {
            let at = self.waiting.iter().position(|r| r.head == head).unwrap();
            self.used.push_back(self.waiting.remove(at));
            self.published += 1;
        }
    }

    /// Whether there is more to pop is only known of what is new.
    fn notification(&mut self, is_wanted: bool) {
        if !is_wanted {
            return self.queue.disable_notification();
        }
        let has_more = self.queue.enable_notification();
        assert!(!has_more || self.count(Place::Available) > 0);
        assert!(has_more || !self.queue.has_available());
    }

    /// What was published has happened, and nothing else; a new process takes over.
    fn killed(&mut self, kills_in_recovery: &[u32]) {
        let published = self.published.wrapping_add(self.pushed.len() as u64);
        if self.ring.used_index() == low_word(published) {
            self.batch_was_published();
        }
        assert_eq!(self.ring.used_index(), low_word(self.published));
        self.pushed.clear();
        self.waiting
            .iter_mut()
            .for_each(|r| r.place = Place::Available);
        self.requests.iter_mut().for_each(|r| r.buffers.clear());
        let kills = kills_in_recovery.iter().map(|kill| Some(*kill));
        let recovered = kills
            .chain([None])
            .find_map(|kill| killed_at(kill, || self.recover()));
        let (queue, count) = recovered.expect("the last is not killed");
        self.queue = queue;
        // The oldest of them, and all that the region says.
        let oldest = self.waiting.iter().take(count).map(|r| r.head);
        let mut expected = vec![false; self.size.into()];
        oldest.for_each(|head| expected[usize::from(head)] = true);
        assert_eq!(self.marks(), expected);
    }

    /// A front-end whose back-end was killed gives the used index as the base.
    fn recover(&self) -> (SplitQueue, usize) {
        let setup = RingSetup {
            next_avail: self.ring.used_index(),
            ..self.ring.setup(self.features)
        };
        let mut queue = SplitQueue::new(&setup).unwrap();
        let kept = self.kept.as_ref().expect("only with a region");
        let count = queue.track_inflight(kept.queue(self.size)).unwrap();
        (queue, count.unwrap_or(0))
    }

    fn marks(&self) -> Vec<bool> {
        let kept = self.kept.as_ref().expect("only with a region");
        kept.marks(self.size)
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Offer {
                choice,
                is_indirect,
            } => self.offer(choice, is_indirect),
            Turn::Harvest => self.harvest(),
            Turn::Pop => self.pop(),
            Turn::PutBack => self.put_back(),
            Turn::Push { choice } => self.push(choice),
            Turn::Publish => self.publish(),
            Turn::Notification(is_wanted) => self.notification(is_wanted),
            Turn::Kill => {}
        }
    }

    fn step(&mut self, step: &Step) {
        let kill = step.kill.filter(|_| self.kept.is_some());
        let is_done = killed_at(kill, || self.turn(step.turn)).is_some();
        let is_killed = !is_done || matches!(step.turn, Turn::Kill);
        if is_killed && self.kept.is_some() {
            self.killed(&step.kills_in_recovery);
        }
        self.check();
    }

    /// What holds between any two steps.
    fn check(&self) {
        assert_eq!(
            usize::from(self.queue.in_flight()),
            self.count(Place::Popped)
        );
        assert_eq!(self.ring.used_index(), low_word(self.published));
        if self.kept.is_some() {
            let mut unmarked = self.marks();
            for offered in &self.waiting {
                let mark = &mut unmarked[usize::from(offered.head)];
                assert!(*mark || offered.place == Place::Available);
                *mark = false;
            }
            assert!(!unmarked.contains(&true), "marked, and not waiting");
        }
    }

    /// All that was made available is used in the end, and that once.
    fn finish(&mut self) {
        while self.count(Place::Available) > 0 {
            self.pop();
        }
        while self.count(Place::Popped) > 0 {
            self.push(0);
        }
        self.publish();
        self.harvest();
        self.check();
        assert_eq!(self.free.len(), usize::from(self.size));
        assert_eq!(self.queue.pop(), Ok(None));
    }
}

/// The index of a ring, which counts on for ever and wraps around.
fn low_word(count: u64) -> u16 {
    u16::try_from(count & 0xffff).unwrap()
}

fn start() -> impl Strategy<Value = u16> {
    prop_oneof![3 => u16::MAX - 20..=u16::MAX, 1 => Just(0), 1 => any::<u16>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_buffer_is_used_once_and_taken_in_order_wherever_the_process_is_killed(
        size in prop::sample::select(vec![1_u16, 2, 4, 16]),
        start in start(),
        event_idx in any::<bool>(),
        is_tracked in prop::bool::weighted(0.8),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(size, start, event_idx, is_tracked);
        steps.iter().for_each(|step| world.step(step));
        world.finish();
    }
}
