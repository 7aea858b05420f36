//! What can go wrong between the client and a back-end.

use std::time::Duration;

/// Why a measurement could not be made. The back-end's own log may say more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens there.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused memory or a descriptor.
    #[error("cannot make the client's memory: {0}")]
    Memory(String),
    /// The back-end refused a vhost-user message, or closed the connection over it.
    #[error("{message}: {source}")]
    Message {
        /// Its name.
        message: &'static str,
        /// What the vhost crate said.
        source: vhost::Error,
    },
    /// No answer to a vhost-user message.
    #[error("no answer to the vhost-user messages within {0:?}")]
    NoReply(Duration),
    /// The back-end serves fewer queues.
    #[error("{wanted} queues are wanted, the back-end has {offered}")]
    Queues {
        /// What the case needs.
        wanted: u16,
        /// What there is.
        offered: u64,
    },
    /// The disk is smaller than one request.
    #[error("the disk has {0} bytes only")]
    SmallDisk(u64),
    /// A request ended with an error.
    #[error("queue {queue}: {request} at sector {sector} ended with status {status}")]
    Status {
        /// On which queue.
        queue: usize,
        /// `read` or `write`.
        request: &'static str,
        /// Where.
        sector: u64,
        /// The status byte, 0xaa when the back-end wrote none.
        status: u8,
    },
    /// The used ring named a request that is not in flight.
    #[error("queue {queue}: the back-end used head {head}, which is not in flight")]
    Head {
        /// On which queue.
        queue: usize,
        /// What it named.
        head: u32,
    },
    /// Nothing was completed for too long.
    #[error("nothing was completed within {limit:?}, {in_flight} requests are in flight")]
    Stalled {
        /// How long it waited.
        limit: Duration,
        /// What is missing.
        in_flight: usize,
    },
}
