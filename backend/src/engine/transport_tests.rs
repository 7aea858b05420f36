//! The send queue and the receive buffer against a real socket that takes and gives a little at a
//! time.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of tests are small"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use iscsi_core::session::{Placement, RequestTag, Transmit};
use vm_memory::{Bytes, GuestAddress};

use super::in_flight::InFlightTable;
use super::transport::{SLOW_BYTES, Sending, Sink, Transport};
use super::unit::UnitId;
use crate::device::request::Status;
use crate::guest_memory::{GuestMemory, MemoryTable};
use crate::raw_io::VectorRoom;

const DATA_BYTES: usize = 300_000;
const TAG: RequestTag = RequestTag(3);

/// A transport and the other end of its connection, with buffers that are soon full.
fn connected() -> (Transport, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    socket2::SockRef::from(&near)
        .set_send_buffer_size(16 * 1024)
        .unwrap();
    socket2::SockRef::from(&far)
        .set_recv_buffer_size(64 * 1024)
        .unwrap();
    (Transport::new(near, &[]).unwrap(), far)
}

fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|n| (n % 251) as u8).collect()
}

/// A request whose data lies in three segments that are not in order of their addresses.
fn in_flight(memory: &Arc<GuestMemory>) -> InFlightTable {
    let mut table = InFlightTable::default();
    table.add_unit(UnitId(0), std::time::Instant::now());
    let buffers = &mut table.get_mut(TAG).unwrap().request.buffers;
    buffers.begin(memory);
    for (address, length) in [
        (0x80000u64, 100_001u32),
        (0x10000, 99_999),
        (0xc0000, 100_000),
    ] {
        buffers.push_segment(GuestAddress(address), length).unwrap();
    }
    table
}

fn memory() -> Arc<GuestMemory> {
    Arc::new(GuestMemory::from(
        MemoryTable::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap(),
    ))
}

fn filled(memory: &Arc<GuestMemory>) -> InFlightTable {
    let table = in_flight(memory);
    table
        .buffers(TAG)
        .unwrap()
        .copy_in(0, &pattern(0, DATA_BYTES))
        .unwrap();
    table
}

/// Sends all that is queued while a reader takes it in small bites; the stream that arrived.
fn send_all(transport: &mut Transport, table: &mut InFlightTable, mut far: TcpStream) -> Vec<u8> {
    let reader = std::thread::spawn(move || {
        let (mut stream, mut bite) = (Vec::new(), [0; 1000]);
        loop {
            match far.read(&mut bite).unwrap() {
                0 => return stream,
                length => stream.extend(&bite[..length]),
            }
        }
    });
    let mut room = VectorRoom::default();
    let mut was_blocked = false;
    while !transport.send(table, &mut room).unwrap() {
        was_blocked = true;
        assert!(
            table.next_released().is_none(),
            "released with pieces in the queue"
        );
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            transport.socket(),
            rustix::event::PollFlags::OUT,
        )];
        rustix::event::poll(&mut fds, None).unwrap();
    }
    assert!(
        was_blocked,
        "the socket took everything at once: nothing was tested"
    );
    rustix::net::shutdown(transport.socket(), rustix::net::Shutdown::Write).unwrap();
    reader.join().unwrap()
}

#[test]
fn pieces_of_all_kinds_arrive_in_order_however_little_the_socket_takes() {
    let (mut transport, far) = connected();
    let mut table = filled(&memory());
    let mut sink = Sink {
        output: &mut transport.output,
        in_flight: &mut table,
    };
    let crc = sink.payload_with_digest(TAG, 5, 70_000, crc32c::crc32c_append);
    assert_eq!(crc, crc32c::crc32c(&pattern(5, 70_000)));
    let mut expected = pattern(5, 70_000);
    for (start, length) in [(0usize, 1000usize), (1000, 199_000), (200_000, 100_000)] {
        sink.bytes(&[0xaa; 48]);
        sink.zeros(100_000);
        sink.payload(TAG, start as u32, length as u32);
        expected.extend([0xaa; 48]);
        expected.resize(expected.len() + 100_000, 0);
        expected.extend(pattern(start, length));
    }
    assert!(
        !table.end(TAG, Status::Ok),
        "pieces wait: the request cannot go back yet"
    );
    assert!(send_all(&mut transport, &mut table, far) == expected);
    assert_eq!(table.next_released(), Some(TAG));
    assert_eq!(table.next_released(), None);
}

#[test]
fn what_a_digest_covers_is_what_is_sent_whatever_the_guest_does_meanwhile() {
    let memory = memory();
    let (mut transport, far) = connected();
    let mut table = filled(&memory);
    let mut sink = Sink {
        output: &mut transport.output,
        in_flight: &mut table,
    };
    sink.payload_with_digest(TAG, 0, DATA_BYTES as u32, crc32c::crc32c_append);
    memory
        .write_slice(&[0xff; 100_000], GuestAddress(0x80000))
        .unwrap();
    assert!(send_all(&mut transport, &mut table, far) == pattern(0, DATA_BYTES));
}

#[test]
fn a_lost_connection_releases_what_had_ended() {
    let (mut transport, _far) = connected();
    let mut table = filled(&memory());
    let mut sink = Sink {
        output: &mut transport.output,
        in_flight: &mut table,
    };
    sink.payload(TAG, 0, 10);
    assert!(!table.end(TAG, Status::Ok));
    table.forget_pieces();
    assert_eq!(table.next_released(), Some(TAG));
}

#[test]
fn a_request_without_pieces_goes_back_at_once() {
    let mut table = filled(&memory());
    assert!(table.end(TAG, Status::Ok));
    assert_eq!(table.next_released(), None);
}

#[test]
fn payload_is_received_into_guest_memory_and_what_follows_into_the_buffer() {
    let memory = memory();
    let (mut transport, mut far) = connected();
    let table = in_flight(&memory);
    let writer = std::thread::spawn(move || {
        far.write_all(&pattern(0, DATA_BYTES)).unwrap();
        far.write_all(b"the next header").unwrap();
        far
    });
    let mut room = VectorRoom::default();
    let mut done = 0;
    while done < DATA_BYTES {
        let placement = Placement {
            request: TAG,
            offset_bytes: done as u32,
            length_bytes: (DATA_BYTES - done) as u32,
            may_be_direct: true,
        };
        let (placed, _) = transport
            .receive_payload(&placement, &table, &mut room)
            .unwrap();
        done += placed;
    }
    while transport.input.bytes().len() < 15 {
        transport.receive(&mut room).unwrap();
    }
    assert_eq!(transport.input.bytes(), b"the next header");
    let mut seen = vec![0; DATA_BYTES];
    table.buffers(TAG).unwrap().copy_out(0, &mut seen).unwrap();
    assert!(seen == pattern(0, DATA_BYTES));
    drop(writer.join().unwrap());
    let closed = transport.receive(&mut room).unwrap_err();
    assert_eq!(closed.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_arrived_before_the_hand_over_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut transport = Transport::new(near, b"early").unwrap();
    assert_eq!(transport.input.bytes(), b"early");
    transport.input.consume(2);
    assert_eq!(transport.input.bytes(), b"rly");
    transport.input.consume(3);
    assert!(transport.input.is_empty());
}

#[test]
fn only_a_link_that_has_much_to_move_and_moves_it_is_slow() {
    let sending = |acknowledged_bytes, waiting_bytes| Sending {
        acknowledged_bytes,
        waiting_bytes,
    };
    let ping = sending(1000, 48);
    assert!(!sending(1048, 0).has_moved_since(ping));
    let much = sending(1000, SLOW_BYTES);
    assert!(sending(1001, SLOW_BYTES - 1).has_moved_since(much));
    assert!(!sending(1000, SLOW_BYTES + 48).has_moved_since(much));
}
