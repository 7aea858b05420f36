//! The proxy does what it says, before a server that sends everything back.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::{Cut, Direction, Proxy};
use crate::wait;

const SOON: Duration = Duration::from_secs(10);
/// Long enough for what should not come to come.
const MOMENT: Duration = Duration::from_millis(200);

/// A proxy before an echo, and a connection through it.
fn echo() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                let _ = std::io::copy(&mut from, &mut to);
            });
        }
    });
    let proxy = Proxy::before(port);
    let stream = connect(&proxy);
    (proxy, stream)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn comes_back(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

/// What is left to read, and how it ends.
fn read_out(stream: &mut TcpStream) -> (usize, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    (bytes.len(), end.map(drop).map_err(|error| error.kind()))
}

#[test]
fn passes_on_bytes_and_the_end_of_file() {
    let (proxy, mut stream) = echo();
    comes_back(&mut stream, &vec![7; 1 << 20]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_out(&mut stream), (0, Ok(())));
    for direction in Direction::BOTH {
        assert_eq!(proxy.passed_bytes(direction), 1 << 20);
    }
    assert_eq!((proxy.accepted(), proxy.cuts()), (1, 0));
}

#[test]
fn cuts_what_is_there_either_way_and_nothing_later() {
    for (cut, end) in [
        (Cut::Fin, Ok(())),
        (Cut::Reset, Err(ErrorKind::ConnectionReset)),
    ] {
        let (proxy, mut stream) = echo();
        comes_back(&mut stream, b"before");
        proxy.cut(cut);
        assert_eq!(read_out(&mut stream), (0, end));
        assert_eq!(proxy.cuts(), 1);
        comes_back(&mut connect(&proxy), b"after");
    }
}

#[test]
fn cuts_after_exactly_so_many_bytes() {
    for left_bytes in [0, 1, 100_000] {
        let (proxy, mut stream) = echo();
        comes_back(&mut stream, b"before");
        proxy.cut_after(Direction::ToInitiator, left_bytes, Cut::Fin);
        stream.write_all(&[1; 200_000]).unwrap();
        let (length_bytes, end) = read_out(&mut stream);
        assert_eq!((length_bytes as u64, end), (left_bytes, Ok(())));
        comes_back(&mut connect(&proxy), b"after");
    }
}

#[test]
fn is_silent_in_a_direction_until_it_is_healed() {
    for directions in [
        &[Direction::ToTarget][..],
        &[Direction::ToInitiator],
        &Direction::BOTH,
    ] {
        let (proxy, mut stream) = echo();
        comes_back(&mut stream, b"before");
        proxy.silence(directions);
        stream.write_all(b"held").unwrap();
        assert!(!wait::readable(&[&stream], MOMENT), "{directions:?}");
        comes_back(&mut connect(&proxy), b"another");
        proxy.heal();
        let mut held = [0; 4];
        stream.read_exact(&mut held).unwrap();
        assert_eq!(&held, b"held");
    }
}

#[test]
fn is_slow_and_far_away_and_loses_nothing() {
    let (proxy, mut stream) = echo();
    proxy.throttle(1 << 20);
    proxy.delay(Duration::from_millis(20));
    comes_back(&mut stream, &vec![3; 300_000]);
    proxy.heal();
    comes_back(&mut stream, &vec![4; 300_000]);
}

#[test]
fn refuses_and_accepts_again_on_the_same_port() {
    let (proxy, mut stream) = echo();
    comes_back(&mut stream, b"before");
    proxy.refuse();
    let refused = TcpStream::connect(("127.0.0.1", proxy.port()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    comes_back(&mut stream, b"still there");
    proxy.accept();
    comes_back(&mut connect(&proxy), b"after");
}
