//! Buffers, ranges and copies over regions that touch, and one that stands alone.

use super::*;
use proptest::prelude::*;
use vm_memory::Bytes;

const REGION_BYTES: usize = 0x1000;

/// Two regions that touch at 0x2000, and one that stands alone.
fn memory() -> Arc<GuestMemory> {
    let ranges = [0x1000, 0x2000, 0x8000].map(|start| (GuestAddress(start), REGION_BYTES));
    Arc::new(GuestMemory::from(
        MemoryTable::from_ranges(&ranges).unwrap(),
    ))
}

fn buffers(segments: &[(u64, u32)]) -> GuestBuffers {
    let mut buffers = GuestBuffers::default();
    buffers.begin(&memory());
    for &(address, length_bytes) in segments {
        buffers
            .push_segment(GuestAddress(address), length_bytes)
            .unwrap();
    }
    buffers
}

#[test]
fn splits_a_segment_where_regions_meet() {
    let buffers = buffers(&[(0x1ff0, 0x20)]);
    let mut iovecs = Vec::new();
    assert_eq!(buffers.iovecs(0, 0x20, &mut iovecs), Ok(0x20));
    assert_eq!(
        iovecs.iter().map(|v| v.iov_len).collect::<Vec<_>>(),
        [0x10, 0x10]
    );
}

#[test]
fn takes_a_segment_up_to_the_last_byte_of_memory_and_not_one_more() {
    let mut buffers = buffers(&[(0x8ff0, 0x10)]);
    assert_eq!(buffers.len(), 0x10);
    buffers
        .push_segment(GuestAddress(0x8ff0), 0x11)
        .unwrap_err();
    buffers.push_segment(GuestAddress(0xfff), 2).unwrap_err();
    buffers.push_segment(GuestAddress(u64::MAX), 2).unwrap_err();
}

#[test]
fn copies_both_ways_across_segments_in_the_guests_order() {
    let memory = memory();
    let mut buffers = GuestBuffers::default();
    buffers.begin(&memory);
    buffers.push_segment(GuestAddress(0x8000), 3).unwrap();
    buffers.push_segment(GuestAddress(0x1ffe), 4).unwrap();
    buffers.copy_in(1, &[1, 2, 3, 4, 5]).unwrap();
    let mut seen = [0; 4];
    memory.read_slice(&mut seen, GuestAddress(0x1ffe)).unwrap();
    assert_eq!(seen, [3, 4, 5, 0]);
    let mut back = [0; 6];
    buffers.copy_out(1, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4, 5, 0]);
}

#[test]
fn copies_nothing_when_one_byte_would_not_fit() {
    let buffers = buffers(&[(0x1000, 4)]);
    buffers.copy_in(0, &[9; 5]).unwrap_err();
    buffers.copy_in(u64::MAX, &[9; 5]).unwrap_err();
    let mut back = [1; 4];
    buffers.copy_out(0, &mut back).unwrap();
    assert_eq!(back, [0; 4]);
    buffers.copy_out(4, &mut []).unwrap();
    buffers.copy_out(5, &mut []).unwrap_err();
}

#[test]
fn stops_at_the_most_iovecs_that_a_system_call_takes() {
    let segments = vec![(0x1000, 2); MAX_IOVECS + 1];
    let buffers = buffers(&segments);
    let mut iovecs = Vec::new();
    let all_bytes = 2 * (MAX_IOVECS + 1);
    assert_eq!(
        buffers.iovecs(0, all_bytes, &mut iovecs),
        Ok(2 * MAX_IOVECS)
    );
    assert_eq!(buffers.iovecs(0, 2, &mut iovecs), Ok(0));
}

#[test]
fn copies_out_across_regions_and_nothing_beyond_them() {
    let memory = memory();
    memory
        .write_slice(&[1, 2, 3, 4], GuestAddress(0x1ffe))
        .unwrap();
    let mut bytes = [0; 4];
    copy_from_guest(&memory, GuestAddress(0x1ffe), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    for address in [0xffd, 0x2ffd, 0x8ffd, u64::MAX - 3, u64::MAX] {
        copy_from_guest(&memory, GuestAddress(address), &mut bytes).unwrap_err();
    }
    copy_from_guest(&memory, GuestAddress(u64::MAX), &mut []).unwrap();
}

#[test]
fn holds_the_mapping_until_cleared() {
    let memory = memory();
    let mut buffers = GuestBuffers::default();
    buffers.begin(&memory);
    assert_eq!(Arc::strong_count(&memory), 2);
    buffers.clear();
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn gives_back_the_room_of_a_giant_request() {
    let mut buffers = buffers(&vec![(0x1000, 1); 10_000]);
    buffers.clear();
    assert!(buffers.segments.capacity() < 10_000);
}

#[test]
fn bounds_the_segments_of_a_request() {
    let mut buffers = buffers(&vec![(0x1000, 1); MAX_SEGMENTS]);
    let result = buffers.push_segment(GuestAddress(0x1000), 1);
    assert_eq!(result, Err(GuestMemoryError::TooManySegments));
}

#[test]
fn refuses_a_ring_part_over_two_regions_or_badly_aligned() {
    let memory = memory();
    assert!(GuestRange::resolve(&memory, GuestAddress(0x1ff0), 16, 16).is_ok());
    assert!(GuestRange::resolve(&memory, GuestAddress(0x1ff0), 17, 16).is_err());
    assert!(GuestRange::resolve(&memory, GuestAddress(0x1008), 16, 16).is_err());
    assert!(GuestRange::resolve(&memory, GuestAddress(0x3000), 1, 1).is_err());
}

proptest! {
    #[test]
    fn reads_back_what_it_wrote_whatever_the_segments(
        lengths in prop::collection::vec(1_u32..300, 1..12),
        offset in 0_u64..600,
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        // Segments one after the other from just below a region border, so none overlap.
        let mut address = 0x1f00;
        let mut buffers = GuestBuffers::default();
        buffers.begin(&memory());
        for &length in &lengths {
            if address + u64::from(length) > 0x3000 { break; }
            buffers.push_segment(GuestAddress(address), length).unwrap();
            address += u64::from(length);
        }
        let fits = offset + bytes.len() as u64 <= buffers.len();
        prop_assert_eq!(buffers.copy_in(offset, &bytes).is_ok(), fits);
        if fits {
            let mut back = vec![0; bytes.len()];
            buffers.copy_out(offset, &mut back).unwrap();
            prop_assert_eq!(&back, &bytes);
            let mut iovecs = Vec::new();
            prop_assert_eq!(buffers.iovecs(offset, bytes.len(), &mut iovecs), Ok(bytes.len()));
            prop_assert_eq!(iovecs.iter().map(|v| v.iov_len).sum::<usize>(), bytes.len());
        }
    }
}
