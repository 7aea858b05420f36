//! A proxy before a target that keeps every byte, in an order that both ends could have seen.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use vhost_user_iscsi_tests::tgt::Target;

/// Longest piece: with its headers it fits an IPv4 packet of 65,535 bytes.
const SEGMENT_BYTES: usize = 32 << 10;

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Initiator,
    Target,
}

/// Bytes of one connection, as they came.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Connections count from 0, in the order of their accept.
    pub(super) connection: u16,
    pub(super) sender: Sender,
    pub(super) bytes: Vec<u8>,
}

type Log = Arc<Mutex<Vec<Segment>>>;

/// The proxy; its threads end with their connections, the accepting one with the test.
pub(super) struct Recorder {
    port: u16,
    log: Log,
}

impl Recorder {
    /// Listens on a port of its own and passes everything on to `target_port`.
    pub(super) fn before(target_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        let log = Log::default();
        let sink = Arc::clone(&log);
        thread::spawn(move || {
            for (initiator, connection) in listener.incoming().zip(0..) {
                relay(initiator, target_port, connection, &sink).expect("the target accepts");
            }
        });
        Self { port, log }
    }

    /// Where it listens, on loopback.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the target's LUN 1 through the proxy.
    pub(super) fn url(&self, target: &Target) -> String {
        format!("iscsi://127.0.0.1:{}/{}/1", self.port, target.iqn)
    }

    /// All that was seen so far.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.log.lock().unwrap().clone()
    }
}

fn relay(
    initiator: io::Result<TcpStream>,
    target_port: u16,
    connection: u16,
    log: &Log,
) -> io::Result<()> {
    let initiator = initiator?;
    let target = TcpStream::connect(("127.0.0.1", target_port))?;
    let directions = [
        (
            initiator.try_clone()?,
            target.try_clone()?,
            Sender::Initiator,
        ),
        (target, initiator, Sender::Target),
    ];
    for (from, to, sender) in directions {
        let log = Arc::clone(log);
        thread::spawn(move || pass_on(from, to, connection, sender, &log));
    }
    Ok(())
}

/// Notes first and passes on then: so an answer is never noted before what it answers.
fn pass_on(mut from: TcpStream, mut to: TcpStream, connection: u16, sender: Sender, log: &Log) {
    let mut buffer = vec![0; SEGMENT_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = buffer[..length].to_vec();
        log.lock().unwrap().push(Segment {
            connection,
            sender,
            bytes,
        });
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
