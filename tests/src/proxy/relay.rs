//! One connection of the proxy: two ways, each taken in and passed on, until it ends or is cut.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Cut, Direction, Shared, Weather};

/// Longest piece.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces on their way while there is a delay.
const PIECES: usize = 64;
/// A slow connection takes in this many pieces in a second.
const PIECES_PER_SECOND: u64 = 32;
/// What waits on our side of a slow connection: what is there has been acknowledged, and a sender is
/// to see by that how slow it is.
const SLOW_BUFFER_BYTES: usize = 32 << 10;

/// A piece, and when it is to be passed on.
type Piece = (Instant, Vec<u8>);

/// Why a connection does not go on.
enum End {
    Cut(Cut),
    /// One end has closed it the hard way, which the other sees too.
    Broken,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((initiator, _)) = listener.accept().await {
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(Arc::clone(&shared), initiator, number));
    }
}

/// Without a target the initiator's connection is closed.
async fn serve(shared: Arc<Shared>, mut initiator: TcpStream, number: u64) {
    let Ok(mut target) = TcpStream::connect(("127.0.0.1", shared.target_port)).await else {
        return;
    };
    let way = |direction| Way {
        shared: &shared,
        connection: number,
        direction,
        weather: shared.weather.subscribe(),
    };
    let (mut orders, mut there, mut back) = (
        shared.weather.subscribe(),
        way(Direction::ToTarget),
        way(Direction::ToInitiator),
    );
    let end = {
        let (from_initiator, to_initiator) = initiator.split();
        let (from_target, to_target) = target.split();
        let both = async {
            tokio::try_join!(
                there.pump(from_initiator, to_target),
                back.pump(from_target, to_initiator)
            )
        };
        tokio::select! {
            cut = ordered_cut(&mut orders, number) => End::Cut(cut),
            end = both => match end {
                Ok(_) => return,
                Err(end) => end,
            },
        }
    };
    close(&shared, end, [initiator, target]).await;
}

/// Waits until this connection is to be cut.
async fn ordered_cut(orders: &mut watch::Receiver<Weather>, number: u64) -> Cut {
    match orders.wait_for(|weather| weather.cut_below > number).await {
        Ok(weather) => weather.cut,
        Err(_) => Cut::Reset,
    }
}

async fn close(shared: &Shared, end: End, mut ends: [TcpStream; 2]) {
    if let End::Cut(_) = end {
        shared.cuts.fetch_add(1, Ordering::SeqCst);
    }
    if let End::Cut(Cut::Fin) = end {
        return end_in_order(&mut ends).await;
    }
    for end in &ends {
        // A close becomes a reset.
        let _ = set_socket_linger(end, Some(Duration::ZERO));
    }
}

/// A socket that is closed with bytes unread sends a reset, so they are read, for nobody, until the
/// other ends have closed too.
async fn end_in_order(ends: &mut [TcpStream; 2]) {
    for end in &mut *ends {
        let _ = end.shutdown().await;
    }
    let [one, other] = ends;
    let (mut nothing, mut nowhere) = (tokio::io::sink(), tokio::io::sink());
    let _ = tokio::join!(
        tokio::io::copy(one, &mut nothing),
        tokio::io::copy(other, &mut nowhere)
    );
}

/// One way of a connection.
struct Way<'a> {
    shared: &'a Shared,
    connection: u64,
    direction: Direction,
    weather: watch::Receiver<Weather>,
}

impl Way<'_> {
    /// Until the end of file, which is passed on.
    async fn pump(&mut self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> Result<(), End> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let take_in = self.again().take_in(from, sender);
        tokio::try_join!(take_in, self.pass_on(receiver, to))?;
        Ok(())
    }

    fn again(&self) -> Self {
        Self {
            weather: self.weather.clone(),
            ..*self
        }
    }

    async fn take_in(
        mut self,
        mut from: ReadHalf<'_>,
        pieces: mpsc::Sender<Piece>,
    ) -> Result<(), End> {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            self.while_silent().await;
            let room = self.piece_bytes();
            let length = from.read(&mut buffer[..room]).await?;
            if length == 0 {
                return Ok(());
            }
            let due = Instant::now() + self.weather.borrow().delay;
            if pieces.send((due, buffer[..length].to_vec())).await.is_err() {
                return Ok(());
            }
            self.rest(from.as_ref(), length).await;
        }
    }

    async fn pass_on(
        &mut self,
        mut pieces: mpsc::Receiver<Piece>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), End> {
        while let Some((due, bytes)) = pieces.recv().await {
            sleep_until(due).await;
            self.while_silent().await;
            let (length, cut) = self.shared.burn(self.direction, bytes.len());
            let bytes = &bytes[..length];
            self.shared.note(self.connection, self.direction, bytes);
            to.write_all(bytes).await?;
            if let Some(cut) = cut {
                return Err(End::Cut(cut));
            }
        }
        to.shutdown().await?;
        Ok(())
    }

    async fn while_silent(&mut self) {
        let (number, direction) = (self.connection, self.direction as usize);
        let speaks = |weather: &Weather| weather.silent_below[direction] <= number;
        let _ = self.weather.wait_for(speaks).await;
    }

    /// Small pieces on a slow connection, so that it is slow all the time.
    fn piece_bytes(&self) -> usize {
        let per_second = self.weather.borrow().bytes_per_second;
        let piece = per_second.map_or(u64::MAX, |bytes| bytes / PIECES_PER_SECOND);
        usize::try_from(piece).map_or(PIECE_BYTES, |piece| piece.clamp(1, PIECE_BYTES))
    }

    async fn rest(&self, from: &TcpStream, taken_bytes: usize) {
        let per_second = self.weather.borrow().bytes_per_second;
        if let Some(per_second) = per_second {
            let _ = set_socket_recv_buffer_size(from, SLOW_BUFFER_BYTES);
            let micros = taken_bytes as u64 * 1_000_000 / per_second.max(1);
            sleep(Duration::from_micros(micros)).await;
        }
    }
}
