//! Staying awake: a target that polls, as storage made for speed does.
//!
//! To wake a thread that sleeps on another processor costs its waker more than a command does,
//! most of all where processors are virtual. An initiator that is measured against a target that
//! sleeps between batches is charged for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::shared::Shared;

/// How long after the last receive the runtime is kept from sleeping.
const AWAKE: Duration = Duration::from_millis(20);
/// How often to look afterwards whether anything was received.
const NAP: Duration = Duration::from_millis(5);

/// Keeps the runtime's thread polling its sockets while any of them is in use. A task that yields
/// is never the reason to wait: the runtime looks at its sockets, without sleeping, and comes back.
pub(crate) async fn stay_awake(shared: Arc<Shared>) {
    let receives = || shared.log.totals.receives.get();
    let (mut seen, mut last) = (receives(), Instant::now());
    loop {
        if receives() != seen {
            (seen, last) = (receives(), Instant::now());
        }
        if last.elapsed() < AWAKE {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(NAP).await;
        }
    }
}
