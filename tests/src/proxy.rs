//! A proxy between initiator and target, on loopback, that does what networks do to connections:
//! it cuts them, falls silent, is slow, is far away, refuses. It can also keep every byte.
//!
//! ```no_run
//! # use vhost_user_iscsi_tests::proxy::{Cut, Direction, Proxy};
//! # let (port, url) = (3260, "iscsi://127.0.0.1:3260/iqn.2026-11.org.example:disk/1");
//! let proxy = Proxy::before(port);
//! let url = proxy.url(url);
//! // … let the initiator work with that URL …
//! proxy.cut(Cut::Reset);
//! proxy.cut_after(Direction::ToInitiator, 100_000, Cut::Fin);
//! ```

mod relay;
#[cfg(test)]
mod tests;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the initiator.
    ToTarget,
    /// From the target.
    ToInitiator,
}

impl Direction {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::ToTarget, Self::ToInitiator];
}

/// How a connection ends; both ends see the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// In good order: end of file, after what was passed on.
    Fin,
    /// By a reset.
    Reset,
}

impl Cut {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Fin, Self::Reset];
}

/// Bytes of one connection, as they came.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Connections count from 0, in the order of their accept.
    pub connection: u16,
    /// Which way they went.
    pub direction: Direction,
    /// At most 32 KiB: with its headers a segment fits an IPv4 packet.
    pub bytes: Vec<u8>,
}

/// What connections meet, by their numbers, which count from 0.
#[derive(Clone, Debug)]
struct Weather {
    /// Connections below this number are to end, like this.
    cut_below: u64,
    cut: Cut,
    /// Connections below this number pass nothing on, by direction.
    silent_below: [u64; 2],
    bytes_per_second: Option<u64>,
    delay: Duration,
}

/// Ends the connection that brings it to zero.
#[derive(Debug)]
struct Fuse {
    direction: Direction,
    left_bytes: u64,
    cut: Cut,
}

struct Shared {
    target_port: u16,
    weather: watch::Sender<Weather>,
    fuse: Mutex<Option<Fuse>>,
    /// Filled only by a proxy that records.
    segments: Option<Mutex<Vec<Segment>>>,
    accepted: AtomicU64,
    cuts: AtomicU64,
    passed_bytes: [AtomicU64; 2],
}

/// A running proxy; dropped, it closes everything. It has a thread of its own, so it works while
/// the thread of the test waits.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    runtime: Handle,
    accepting: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// The thread, and what ends it when it is dropped.
    thread: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
}

impl Proxy {
    /// Listens on a loopback port of its own and passes everything on to `target_port` and back.
    ///
    /// # Panics
    /// When no port can be bound.
    pub fn before(target_port: u16) -> Self {
        Self::start(target_port, None)
    }

    /// The same, and keeps every byte, in an order that both ends could have seen.
    ///
    /// # Panics
    /// As [`Proxy::before`].
    pub fn recording(target_port: u16) -> Self {
        Self::start(target_port, Some(Mutex::default()))
    }

    fn start(target_port: u16, segments: Option<Mutex<Vec<Segment>>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound socket").port();
        // One thread: what is noted, counted and passed on has one order.
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        let proxy = Self {
            port,
            shared: Arc::new(Shared::new(target_port, segments)),
            runtime: handle,
            accepting: Mutex::new(None),
            thread: Some((thread, stop)),
        };
        proxy.accept_on(listener);
        proxy
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A URL of the target, through the proxy.
    ///
    /// # Panics
    /// When the URL does not name the target's portal.
    pub fn url(&self, url: &str) -> String {
        let portal = |port| format!("127.0.0.1:{port}/");
        let of_target = portal(self.shared.target_port);
        assert!(url.contains(&of_target), "{url} is not at {of_target}");
        url.replace(&of_target, &portal(self.port))
    }

    /// Cuts all connections that exist now.
    pub fn cut(&self, cut: Cut) {
        let below = self.accepted();
        self.shared.weather.send_modify(|weather| {
            (weather.cut_below, weather.cut) = (below, cut);
        });
    }

    /// Cuts one connection when so many more bytes have gone in that direction over all
    /// connections: the one that brings the last of them, and right after it. Replaces an earlier
    /// such order; once cut, none is left.
    pub fn cut_after(&self, direction: Direction, left_bytes: u64, cut: Cut) {
        *self.shared.fuse() = Some(Fuse {
            direction,
            left_bytes,
            cut,
        });
    }

    /// Lets all connections that exist now fall silent in these directions: they stay open, nothing
    /// is read any more, nothing passed on. Later connections work. Ends with [`Proxy::heal`].
    pub fn silence(&self, directions: &[Direction]) {
        self.silence_below(directions, self.accepted());
    }

    /// The same for connections to come as well: accepted, and never a word.
    pub fn silence_everything(&self, directions: &[Direction]) {
        self.silence_below(directions, u64::MAX);
    }

    fn silence_below(&self, directions: &[Direction], number: u64) {
        self.shared.weather.send_modify(|weather| {
            for direction in directions {
                weather.silent_below[*direction as usize] = number;
            }
        });
    }

    /// Ends silence, slowness, distance, and the order to cut later.
    pub fn heal(&self) {
        *self.shared.fuse() = None;
        self.shared.weather.send_modify(|weather| {
            *weather = Weather {
                cut_below: weather.cut_below,
                ..Weather::default()
            };
        });
    }

    /// Passes on at most so much, each way of each connection by itself.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.weather.send_modify(|weather| {
            weather.bytes_per_second = Some(bytes_per_second);
        });
    }

    /// Passes on everything so much later, each way.
    pub fn delay(&self, delay: Duration) {
        self.shared
            .weather
            .send_modify(|weather| weather.delay = delay);
    }

    /// Stops listening: connects are refused. What is connected stays.
    pub fn refuse(&self) {
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
            // The listener goes with the task.
            let _ = self.runtime.block_on(task);
        }
    }

    /// Listens again on the same port.
    ///
    /// # Panics
    /// When somebody else has taken it meanwhile.
    pub fn accept(&self) {
        self.refuse();
        let listener = TcpListener::bind(("127.0.0.1", self.port));
        self.accept_on(listener.expect("the port of before"));
    }

    fn accept_on(&self, listener: TcpListener) {
        listener.set_nonblocking(true).expect("a listener");
        let _guard = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
        let accepting = relay::accept(Arc::clone(&self.shared), listener);
        *self.accepting.lock().unwrap() = Some(self.runtime.spawn(accepting));
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections it has cut.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// How many bytes have gone that way, over all connections.
    pub fn passed_bytes(&self, direction: Direction) -> u64 {
        self.shared.passed_bytes[direction as usize].load(Ordering::SeqCst)
    }

    /// All that a recording proxy has seen so far.
    pub fn segments(&self) -> Vec<Segment> {
        let segments = self.shared.segments.as_ref();
        segments.map_or_else(Vec::new, |segments| segments.lock().unwrap().clone())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some((thread, stop)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            cut_below: 0,
            cut: Cut::Fin,
            silent_below: [0, 0],
            bytes_per_second: None,
            delay: Duration::ZERO,
        }
    }
}

impl Shared {
    fn new(target_port: u16, segments: Option<Mutex<Vec<Segment>>>) -> Self {
        Self {
            target_port,
            weather: watch::Sender::default(),
            fuse: Mutex::new(None),
            segments,
            accepted: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            passed_bytes: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    fn fuse(&self) -> MutexGuard<'_, Option<Fuse>> {
        self.fuse.lock().unwrap()
    }

    /// How many of `length_bytes` may still pass, and whether the connection is cut after them.
    fn burn(&self, direction: Direction, length_bytes: usize) -> (usize, Option<Cut>) {
        let mut fuse = self.fuse();
        let Some(burning) = fuse.as_mut().filter(|fuse| fuse.direction == direction) else {
            return (length_bytes, None);
        };
        let left = usize::try_from(burning.left_bytes).unwrap_or(usize::MAX);
        if length_bytes < left {
            burning.left_bytes -= length_bytes as u64;
            return (length_bytes, None);
        }
        let cut = burning.cut;
        *fuse = None;
        (left, Some(cut))
    }

    /// Notes what is about to be passed on: so an answer is never noted before what it answers.
    fn note(&self, connection: u64, direction: Direction, bytes: &[u8]) {
        self.passed_bytes[direction as usize].fetch_add(bytes.len() as u64, Ordering::SeqCst);
        if let Some(segments) = &self.segments {
            segments.lock().unwrap().push(Segment {
                connection: u16::try_from(connection).expect("few connections"),
                direction,
                bytes: bytes.to_vec(),
            });
        }
    }
}
