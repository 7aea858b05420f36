//! What all connections of one target share.

use crate::config::TargetConfig;
use crate::events::{Event, EventLog};
use crate::script::Script;
use crate::scsi::Luns;
use crate::sessions::{Held, Sessions};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

pub(crate) struct Shared {
    pub(crate) config: Arc<TargetConfig>,
    /// Where it listens, with the port it got.
    pub(crate) portal: SocketAddr,
    pub(crate) log: Arc<EventLog>,
    pub(crate) script: Script,
    pub(crate) luns: Luns,
    pub(crate) sessions: Sessions,
    /// Counts how often all connections were cut; a change ends every connection.
    pub(crate) cut: watch::Sender<u64>,
    /// Connections with numbers up to this one neither hear nor speak.
    pub(crate) frozen_up_to: watch::Sender<u64>,
    last_connection: AtomicU64,
    challenge_seen: Mutex<Vec<u8>>,
}

impl Shared {
    pub(crate) fn new(config: TargetConfig, portal: SocketAddr) -> Self {
        let log = Arc::new(EventLog::new(config.keep_events));
        Self {
            luns: Luns::new(&config),
            config: Arc::new(config),
            portal,
            script: Script::default(),
            sessions: Sessions::new(Arc::clone(&log)),
            log,
            cut: watch::Sender::new(0),
            frozen_up_to: watch::Sender::new(0),
            last_connection: AtomicU64::new(0),
            challenge_seen: Mutex::default(),
        }
    }

    /// Ends every connection there is, without a word to the initiators.
    pub(crate) fn cut_connections(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// The number of a new connection, counted from 1.
    pub(crate) fn next_connection(&self) -> u64 {
        self.last_connection.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Freezes the connections that exist now; later ones work.
    pub(crate) fn freeze_connections(&self) {
        self.frozen_up_to
            .send_replace(self.last_connection.load(Ordering::Relaxed));
    }

    /// Carries held commands out. Those whose session is gone take effect without an answer.
    pub(crate) fn release_held(&self, chosen: impl Fn(&Held) -> bool) -> usize {
        let (count, orphans) = self.sessions.release(chosen);
        for held in orphans {
            self.luns
                .execute(&held.command.lun, &held.command.cdb, &held.data, || None);
            let (session, cdb) = (held.session, held.command.cdb);
            self.log.record(Event::StaleWrite { session, cdb });
        }
        count
    }

    /// The last challenge an initiator gave, to be reflected.
    pub(crate) fn challenge_seen(&self) -> Vec<u8> {
        self.challenge_seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn note_challenge(&self, challenge: &[u8]) {
        if !challenge.is_empty() {
            let mut seen = self
                .challenge_seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            challenge.clone_into(&mut seen);
        }
    }
}
