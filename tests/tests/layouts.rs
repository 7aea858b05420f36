//! A request of any legal layout works (virtio 1.3, sections 2.7.4 and 5.2.6).
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use vhost_user_iscsi_tests::disk::{Disk, pattern};
use vhost_user_iscsi_tests::frontend::spec::{
    DRIVER_FEATURES, F_EVENT_IDX, F_INDIRECT_DESC, HEADER_BYTES, S_OK,
};
use vhost_user_iscsi_tests::frontend::{
    Frontend, FrontendConfig, IO_LIMIT, Layout, Notifications, Request,
};

/// Writes and reads back the same bytes with layouts that `layout` makes.
fn carries(frontend: &mut Frontend, length: usize, layout: impl Fn(&Request) -> Layout) {
    let queue = frontend.queue(0);
    let data = pattern(length);
    let length_bytes = u32::try_from(length).unwrap();
    assert_eq!(queue.write(64, &vec![0; length]).unwrap(), S_OK);
    let write = Request::write(64, data.as_slice());
    let shape = layout(&write);
    assert_eq!(queue.run(write, &shape).unwrap().status, S_OK, "{shape:?}");
    assert!(
        queue.read(64, length_bytes).unwrap() == (S_OK, data.clone()),
        "{shape:?}"
    );
    let read = Request::read(64, length_bytes);
    let shape = layout(&read);
    let done = queue.run(read, &shape).unwrap();
    assert_eq!(done.status, S_OK, "{shape:?}");
    assert!(done.data == data, "{shape:?}");
}

fn connect(disk: &Disk, queue_size: u16) -> Frontend {
    disk.connect(FrontendConfig {
        queue_size,
        ..Default::default()
    })
}

#[test]
fn header_and_status_may_share_descriptors_with_data() {
    let disk = Disk::new();
    carries(&mut connect(&disk, 64), 4096, |_| Layout::merged());
    carries(&mut connect(&disk, 64), 4096, |_| {
        Layout::merged().indirect()
    });
}

#[test]
fn header_may_be_split_anywhere() {
    let disk = Disk::new();
    let mut frontend = connect(&disk, 64);
    for first in 1..=HEADER_BYTES + 1 {
        let readable = vec![first, 3, 20];
        carries(&mut frontend, 512, |_| Layout {
            readable: readable.clone(),
            ..Layout::default()
        });
    }
}

#[test]
fn header_may_come_byte_by_byte() {
    let disk = Disk::new();
    let layout = |_: &Request| Layout {
        readable: vec![1; 16],
        ..Layout::default()
    };
    carries(&mut connect(&disk, 64), 512, layout);
}

#[test]
fn status_may_share_its_descriptor_with_the_last_data() {
    let disk = Disk::new();
    let layout = |_: &Request| Layout {
        writable: vec![500],
        ..Layout::default()
    };
    carries(&mut connect(&disk, 64), 512, layout);
}

#[test]
fn data_segments_may_have_any_length() {
    let disk = Disk::new();
    let mut frontend = connect(&disk, 8192);
    for segment_bytes in [1, 3, 7, 511, 512, 513, 1000, 4095, 4096, 4097] {
        carries(&mut frontend, 4096, |request| {
            Layout::data_in_segments(request, segment_bytes)
        });
        carries(&mut frontend, 4096, |request| {
            Layout::every(request, segment_bytes)
        });
    }
}

#[test]
fn data_may_lie_across_two_memory_regions() {
    let disk = Disk::new();
    let mut frontend = connect(&disk, 128);
    carries(&mut frontend, 65536, |request| {
        Layout::usual(request).across_border()
    });
    let segments = |request: &Request| Layout::data_in_segments(request, 5000).across_border();
    carries(&mut frontend, 65536, segments);
}

#[test]
fn an_indirect_table_may_hold_any_layout() {
    let disk = Disk::new();
    let mut frontend = connect(&disk, 128);
    for segment_bytes in [33, 512, 4096] {
        let layout = |request: &Request| Layout::data_in_segments(request, segment_bytes);
        carries(&mut frontend, 4096, |request| layout(request).indirect());
    }
}

#[test]
fn a_chain_may_fill_the_whole_ring() {
    let disk = Disk::new();
    for queue_size in [64_u32, 256, 1024] {
        let mut frontend = connect(&disk, u16::try_from(queue_size).unwrap());
        // Header and status take two descriptors.
        let segments = queue_size - 2;
        let length = usize::try_from(segments * 512).unwrap();
        carries(&mut frontend, length, |request| {
            Layout::data_in_segments(request, 512)
        });
        assert_eq!(
            frontend.queue(0).ring().free(),
            usize::try_from(queue_size).unwrap()
        );
    }
}

#[test]
fn every_power_of_two_is_a_ring_size() {
    let disk = Disk::new();
    for exponent in 2..=15 {
        let mut frontend = connect(&disk, 1 << exponent);
        carries(&mut frontend, 4096, Layout::usual);
        // Beyond the end of the ring and back to its start, where that takes few requests.
        for sector in 0..(1 << exponent).min(600) {
            assert_eq!(
                frontend.queue(0).write(sector, &pattern(512)).unwrap(),
                S_OK
            );
        }
    }
}

#[test]
fn a_ring_of_two_takes_merged_requests() {
    let disk = Disk::new();
    let mut frontend = connect(&disk, 2);
    carries_without_status_alone(&mut frontend);
}

/// Two descriptors are enough for header with data, and data with status.
fn carries_without_status_alone(frontend: &mut Frontend) {
    let queue = frontend.queue(0);
    let done = queue
        .run(Request::write(0, pattern(1024)), &Layout::merged())
        .unwrap();
    assert_eq!(done.status, S_OK);
    let done = queue
        .run(Request::read(0, 1024), &Layout::merged())
        .unwrap();
    assert_eq!((done.status, done.data), (S_OK, pattern(1024)));
}

#[test]
fn a_request_beyond_the_maximum_transfer_length_is_completed_once() {
    let disk = Disk::new();
    let memory_bytes = 256 << 20;
    let mut frontend = disk.connect(FrontendConfig {
        memory_bytes,
        ..Default::default()
    });
    carries(&mut frontend, 20 << 20, Layout::usual);
    assert!(frontend.queue(0).poll_used().unwrap().is_none());
}

#[test]
fn a_full_ring_of_requests_is_answered_each_once() {
    let disk = Disk::new();
    let mut frontend = connect(&disk, 256);
    let queue = frontend.queue(0);
    for _ in 0..20 {
        let requests = (0..128_u64).map(|at| (Request::write(at, pattern(512)), Layout::merged()));
        queue.submit_batch(requests.collect()).unwrap();
        for _ in 0..128 {
            assert_eq!(queue.wait_used(IO_LIMIT).unwrap().status, S_OK);
        }
        assert_eq!(queue.in_flight(), 0);
    }
}

#[test]
fn notifications_work_with_and_without_event_idx_and_may_be_suppressed() {
    let disk = Disk::new();
    for features_mask in [
        DRIVER_FEATURES,
        DRIVER_FEATURES & !F_EVENT_IDX,
        DRIVER_FEATURES & !F_INDIRECT_DESC,
        DRIVER_FEATURES & !F_EVENT_IDX & !F_INDIRECT_DESC,
    ] {
        for notifications in [Notifications::Wanted, Notifications::Suppressed] {
            let config = FrontendConfig {
                features_mask,
                notifications,
                ..Default::default()
            };
            let mut frontend = disk.connect(config);
            for _ in 0..100 {
                carries(&mut frontend, 512, Layout::usual);
            }
        }
    }
}
