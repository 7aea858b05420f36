//! The ring against a driver of its own: what it takes, shows and wakes for.

use super::super::test_ring::{MEMORY_BYTES, TestRing, USED_RING};
use super::*;
use crate::guest_memory::MemoryTable;
use crate::memory_watch::MemoryLoss;
use proptest::prelude::*;
use std::collections::VecDeque;
use vm_memory::{Bytes, GuestAddress, GuestRegionMmap};

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

#[test]
fn refuses_a_size_that_is_no_power_of_two() {
    for (size, good) in [(0, false), (1, true), (3, false), (128, true), (129, false)] {
        let ring = TestRing::new(256);
        let setup = RingSetup {
            size,
            ..ring.setup(0)
        };
        assert_eq!(SplitQueue::new(&setup).is_ok(), good, "size {size}");
    }
}

#[test]
fn refuses_rings_outside_memory() {
    let ring = TestRing::new(8);
    let setup = RingSetup {
        used_ring: GuestAddress(1 << 40),
        ..ring.setup(0)
    };
    let error = SplitQueue::new(&setup).err().unwrap();
    assert!(
        matches!(
            error,
            QueueError::Place {
                part: "used ring",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn starts_at_the_used_index_in_guest_memory() {
    let ring = TestRing::new(8);
    ring.memory
        .write_obj(41_u16, GuestAddress(USED_RING + 2))
        .unwrap();
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    queue.push_used(3, 1);
    assert!(queue.publish());
    assert_eq!(ring.used_index(), 42);
    assert_eq!(ring.used(41), (3, 1));
}

#[test]
fn takes_a_full_ring_and_reports_one_more_once() {
    let mut ring = TestRing::new(8);
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    (0..8).for_each(|head| ring.make_available(head));
    assert_eq!(queue.pop(), Ok(Some(0)));

    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    ring.make_available(0);
    assert_eq!(
        queue.pop(),
        Err(QueueError::IndexJump {
            queue: 0,
            count: 9,
            size: 8
        })
    );
    assert_eq!(queue.pop(), Ok(None));
    assert!(!queue.enable_notification());
    queue.push_used(0, 0);
    assert!(!queue.publish());
    assert_eq!(ring.used_index(), 0);
}

#[test]
fn counts_buffers_in_flight_against_the_size_of_the_ring() {
    let mut ring = TestRing::new(2);
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    for head in 0..2 {
        ring.make_available(head);
        assert_eq!(queue.pop(), Ok(Some(head)));
    }
    ring.make_available(0);
    assert!(matches!(
        queue.pop(),
        Err(QueueError::IndexJump { count: 3, .. })
    ));
}

#[test]
fn reports_a_head_beyond_the_table_and_goes_on_with_the_next() {
    let mut ring = TestRing::new(8);
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    ring.make_available(8);
    ring.make_available(7);
    assert_eq!(
        queue.pop(),
        Err(QueueError::Head {
            queue: 0,
            head: 8,
            size: 8
        })
    );
    assert_eq!(queue.pop(), Ok(Some(7)));
    assert_eq!(queue.in_flight(), 1);
}

#[test]
fn shows_the_driver_a_batch_only_when_published() {
    let mut ring = TestRing::new(8);
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    (0..3).for_each(|head| ring.make_available(head));
    while let Some(head) = queue.pop().unwrap() {
        queue.push_used(head, u32::from(head) + 1);
    }
    assert_eq!(ring.used_index(), 0);
    assert!(queue.publish());
    assert_eq!(ring.used_index(), 3);
    assert!(!queue.publish(), "nothing new");
}

#[test]
fn does_not_notify_a_driver_that_asked_for_no_interrupts() {
    let ring = TestRing::new(8);
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    ring.set_avail_flags(1);
    queue.push_used(0, 0);
    assert!(!queue.publish());
    ring.set_avail_flags(0);
    queue.push_used(1, 0);
    assert!(queue.publish());
}

#[test]
fn notifies_exactly_when_the_used_event_is_passed() {
    for (start, event, pushed, notify) in [
        (0_u16, 0_u16, 1_u16, true),
        (0, 1, 1, false),
        (0, 1, 2, true),
        (5, 4, 3, false),
        (u16::MAX, u16::MAX, 1, true),
        (u16::MAX, 0, 1, false),
        (u16::MAX, 0, 2, true),
    ] {
        let ring = TestRing::new(8);
        ring.memory
            .write_obj(start, GuestAddress(USED_RING + 2))
            .unwrap();
        ring.set_used_event(event);
        let mut queue = SplitQueue::new(&ring.setup(EVENT_IDX)).unwrap();
        (0..pushed).for_each(|head| queue.push_used(head, 0));
        assert_eq!(
            queue.publish(),
            notify,
            "from {start} by {pushed}, event {event}"
        );
    }
}

#[test]
fn finds_what_came_before_kicks_were_enabled() {
    for features in [0, EVENT_IDX] {
        let mut ring = TestRing::new(8);
        let mut queue = SplitQueue::new(&ring.setup(features)).unwrap();
        queue.disable_notification();
        assert_eq!(ring.used_flags(), u16::from(features == 0));
        assert!(!queue.enable_notification());
        assert_eq!(ring.used_flags(), 0);
        queue.disable_notification();
        ring.make_available(1);
        assert!(queue.enable_notification());
        assert_eq!(queue.pop(), Ok(Some(1)));
        assert!(!queue.enable_notification());
        assert_eq!(ring.avail_event(), u16::from(features != 0));
    }
}

#[test]
fn a_ring_whose_memory_leaves_lets_it_go_and_is_back_with_it() {
    let region = GuestRegionMmap::from_range(GuestAddress(0), MEMORY_BYTES, None).unwrap();
    let region = Arc::new(region);
    let table = || MemoryTable::from_arc_regions(vec![Arc::clone(&region)]).unwrap();
    let mut ring = TestRing::new(8);
    ring.memory = Arc::new(GuestMemory::from(table()));
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    (0..3).for_each(|head| ring.make_available(head));
    assert_eq!(queue.pop(), Ok(Some(0)));
    assert_eq!(queue.pop(), Ok(Some(1)));
    queue.push_used(1, 7);

    ring.memory = Arc::default();
    queue.set_memory(&GuestMemory::new()).unwrap_err();
    assert_eq!(Arc::strong_count(&region), 1, "the old mapping is let go");
    assert_eq!(queue.pop(), Ok(None));
    queue.push_used(0, 9);
    assert!(!queue.publish());
    assert!(!queue.is_broken());
    assert_eq!(queue.in_flight(), 0);

    ring.memory = Arc::new(GuestMemory::from(table()));
    queue.set_memory(&ring.memory).unwrap();
    assert_eq!(ring.used_index(), 0);
    assert!(queue.publish());
    assert_eq!(ring.used_index(), 2);
    assert_eq!((ring.used(0), ring.used(1)), ((1, 7), (0, 9)));
    assert_eq!(queue.in_flight(), 0);
    assert_eq!(queue.pop(), Ok(Some(2)));
}

#[test]
fn a_broken_ring_stays_broken_in_any_memory() {
    let mut ring = TestRing::new(2);
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    (0..3).for_each(|_| ring.make_available(0));
    queue.pop().unwrap_err();
    queue.set_memory(&GuestMemory::new()).unwrap();
    queue.set_memory(&ring.memory).unwrap();
    assert!(queue.is_broken());
    assert_eq!(queue.pop(), Ok(None));
}

/// A ring whose front-end has truncated its memory: what is read may be zeros.
#[test]
fn a_ring_of_lost_memory_takes_nothing_and_shows_nothing() {
    let mut ring = TestRing::new(8);
    let loss = MemoryLoss::new().unwrap();
    let watched = GuestMemory::watched(&ring.memory, &GuestMemory::new(), &loss).unwrap();
    ring.memory = Arc::new(watched);
    let mut queue = SplitQueue::new(&ring.setup(0)).unwrap();
    (0..3).for_each(|head| ring.make_available(head));
    assert_eq!(queue.pop(), Ok(Some(0)));
    assert_eq!(queue.pop(), Ok(Some(1)));
    queue.push_used(0, 1);
    assert!(!queue.give_up_lost_memory());
    loss.report();
    assert_eq!(queue.pop(), Ok(None));
    queue.push_used(1, 1);
    assert!(!queue.publish());
    assert_eq!(ring.used_index(), 0);
    assert!(queue.is_broken());
    assert_eq!(queue.in_flight(), 0);
}

proptest! {
    /// The driver and the device take random turns around the wrap of the indices; a plain
    /// queue says what must come out.
    #[test]
    fn behaves_like_a_plain_queue_around_the_wrap(
        start in (u16::MAX - 40)..=u16::MAX,
        turns in prop::collection::vec((0_u8..3, 1_u16..6), 1..80),
        event_idx in any::<bool>(),
    ) {
        const SIZE: u16 = 16;
        let mut ring = TestRing::starting_at(SIZE, start);
        let features = if event_idx { EVENT_IDX } else { 0 };
        let mut queue = SplitQueue::new(&ring.setup(features)).unwrap();
        let mut free: VecDeque<u16> = (0..SIZE).collect();
        let (mut offered, mut taken) = (VecDeque::new(), VecDeque::new());
        let mut used_index = start;
        for (turn, count) in turns {
            match turn {
                0 => for head in free.drain(..usize::from(count).min(free.len())) {
                    ring.make_available(head);
                    offered.push_back(head);
                },
                1 => for _ in 0..count {
                    let expected = offered.pop_front();
                    prop_assert_eq!(queue.pop(), Ok(expected));
                    taken.extend(expected);
                },
                _ => {
                    ring.set_used_event(used_index);
                    let batch: Vec<u16> =
                        taken.drain(..usize::from(count).min(taken.len())).collect();
                    batch.iter().for_each(|&head| queue.push_used(head, 7));
                    prop_assert_eq!(queue.publish(), !batch.is_empty());
                    for head in batch {
                        prop_assert_eq!(ring.used(used_index), (u32::from(head), 7));
                        used_index = used_index.wrapping_add(1);
                        free.push_back(head);
                    }
                    prop_assert_eq!(ring.used_index(), used_index);
                }
            }
            prop_assert_eq!(usize::from(queue.in_flight()), taken.len());
        }
    }
}
