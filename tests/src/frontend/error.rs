//! What can go wrong between the client and a back-end.

use std::time::Duration;

/// A failure of the back-end, or of the test that drives it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be connected.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A vhost-user message failed: refused, answered wrongly, or the connection was closed.
    #[error("{message}: {source}")]
    Message {
        /// Which message.
        message: &'static str,
        /// What came back.
        source: vhost::Error,
    },
    /// A vhost-user message was not answered.
    #[error("{message} was not answered within {limit:?}")]
    NoReply {
        /// Which message.
        message: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The back-end has gone while an answer was waited for.
    #[error("the back-end has closed the connection")]
    Disconnected,
    /// Nothing was used within the limit.
    #[error("no used element within {0:?}")]
    NothingUsed(Duration),
    /// Elements were used, but nobody said so.
    #[error("the used index moved to {used_index} without a notification")]
    NotNotified {
        /// The index found in the used ring.
        used_index: u16,
    },
    /// The used ring names a chain that is not in flight.
    #[error("the used ring names head {0}, which is not in flight")]
    NotInFlight(u32),
    /// Bytes beside a buffer of the request were changed.
    #[error("memory around the buffers was overwritten at {0:#x}")]
    GuardOverwritten(u64),
    /// The test wants more descriptors than are free.
    #[error("{wanted} descriptors wanted, {free} free")]
    RingFull {
        /// How many the chain needs.
        wanted: usize,
        /// How many there are.
        free: usize,
    },
    /// The configuration space is shorter than asked for.
    #[error("asked for {asked} bytes of configuration, {got} came")]
    ShortConfig {
        /// Asked for.
        asked: usize,
        /// Received.
        got: usize,
    },
    /// The back-end told of no change.
    #[error("no config change message within {0:?}")]
    NotTold(Duration),
    /// The back-end sent something else.
    #[error("the header {0:x?} is not that of a config change message")]
    NotAConfigChange([u32; 3]),
    /// The back-end lacks something the test relies on.
    #[error("the back-end does not offer {0}")]
    NotOffered(&'static str),
}

/// Result of the client.
pub type Result<T> = std::result::Result<T, Error>;
