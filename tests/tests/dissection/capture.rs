//! A capture file (libpcap's format) of recorded segments: just enough IPv4 and TCP around them.

use vhost_user_iscsi_tests::proxy::{Direction, Segment};

/// Number of the file format, in the byte order of all its numbers.
const MAGIC: u32 = 0xa1b2_c3d4;
/// LINKTYPE_RAW: packets begin with their IP header.
const LINK_TYPE_RAW: u32 = 101;
/// By this port tshark knows iSCSI.
const TARGET_PORT: u16 = 3260;
/// Clients count from here, one port for each connection.
const FIRST_CLIENT_PORT: u16 = 40_000;
const IP_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
/// PSH and ACK.
const TCP_FLAGS: u8 = 0x18;

/// The whole file.
pub(super) fn of(segments: &[Segment]) -> Vec<u8> {
    let mut file = file_header();
    for (index, segment) in segments.iter().enumerate() {
        let packet = packet(segment, sent(&segments[..index], segment));
        let length = u32::try_from(packet.len()).unwrap();
        let second = u32::try_from(index).unwrap();
        for field in [second, 0, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

fn file_header() -> Vec<u8> {
    let (major, minor, snap_length) = (2_u16, 4_u16, 65_535_u32);
    let mut header = Vec::new();
    header.extend(MAGIC.to_le_bytes());
    header.extend(major.to_le_bytes());
    header.extend(minor.to_le_bytes());
    header.extend([0; 8]);
    header.extend(snap_length.to_le_bytes());
    header.extend(LINK_TYPE_RAW.to_le_bytes());
    header
}

/// How much was sent before on this connection: the segment's way, and the other way.
fn sent(before: &[Segment], segment: &Segment) -> (u32, u32) {
    let by = |own: bool| {
        let sum: usize = before
            .iter()
            .filter(|other| other.connection == segment.connection)
            .filter(|other| (other.direction == segment.direction) == own)
            .map(|other| other.bytes.len())
            .sum();
        u32::try_from(sum).unwrap()
    };
    (by(true), by(false))
}

fn packet(segment: &Segment, (sent, received): (u32, u32)) -> Vec<u8> {
    let client_port = FIRST_CLIENT_PORT + segment.connection;
    let (source, destination) = match segment.direction {
        Direction::ToTarget => ((1, client_port), (2, TARGET_PORT)),
        Direction::ToInitiator => ((2, TARGET_PORT), (1, client_port)),
    };
    let length = IP_HEADER_BYTES + TCP_HEADER_BYTES + segment.bytes.len();
    let mut packet = ip_header(u16::try_from(length).unwrap(), source.0, destination.0);
    packet.extend(source.1.to_be_bytes());
    packet.extend(destination.1.to_be_bytes());
    // Numbers start at 1, as if the opening of the connection had been seen.
    packet.extend((sent + 1).to_be_bytes());
    packet.extend((received + 1).to_be_bytes());
    // Header length in words, flags, window; no checksum, which tshark does not check; no urgent.
    packet.extend([0x50, TCP_FLAGS, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend(&segment.bytes);
    packet
}

/// Version 4, five words, do not fragment, TCP; addresses of a net for documentation.
fn ip_header(length_bytes: u16, source: u8, destination: u8) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length_bytes.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    header.extend([192, 0, 2, source, 192, 0, 2, destination]);
    header
}
