//! All sessions of a target: who is logged in, what is held, and session reinstatement.

use crate::data::DataOut;
use crate::events::{Event, EventLog, SessionId};
use crate::login::Identity;
use crate::scsi::{lun_number, sense::Sense};
use crate::session::Command;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// Letters a connection may have waiting; more are dropped.
const MAILBOX: usize = 4096;

/// What someone else tells a connection.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Send this asynchronous message.
    Async(AsyncEvent),
    /// Send a NOP-In that wants an answer.
    Ping,
    /// A held command of this session is released.
    Finish(Box<Held>),
    /// A held command of this session ended without an answer.
    Ended,
    /// Another session reset this LUN (all LUNs when `None`): its tasks are gone.
    Abort(Option<[u8; 8]>),
}

/// Asynchronous messages (RFC 7143 section 11.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// The target asks for a logout within `seconds`.
    LogoutRequest {
        /// Parameter3.
        seconds: u16,
    },
    /// The target says it drops the connection, and does.
    DropConnection {
        /// Parameter2: wait this long before the next login.
        time2wait: u16,
        /// Parameter3: tasks live this long after that.
        time2retain: u16,
    },
    /// The target says it drops all connections of the session, and does.
    DropAllConnections {
        /// Parameter2.
        time2wait: u16,
        /// Parameter3.
        time2retain: u16,
    },
    /// The target asks for a renegotiation within `seconds`.
    Renegotiate {
        /// Parameter3.
        seconds: u16,
    },
    /// A SCSI event with this sense, for LUN 0.
    Scsi(Sense),
    /// Any other event code.
    Other(u8),
}

/// A command that was taken with all its data and is not carried out yet.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) key: u64,
    pub(crate) session: SessionId,
    pub(crate) identity: Identity,
    pub(crate) command: Command,
    pub(crate) data: DataOut<'static>,
}

/// What a connection gets for its session.
pub(crate) struct Registration {
    pub(crate) id: SessionId,
    pub(crate) tsih: u16,
    pub(crate) mail: mpsc::Receiver<Mail>,
    /// Turns true when the session is displaced. The session has ended when this is dropped.
    pub(crate) displaced: watch::Receiver<bool>,
}

struct Entry {
    id: SessionId,
    tsih: u16,
    identity: Identity,
    mail: mpsc::Sender<Mail>,
    displace: watch::Sender<bool>,
    attentions: VecDeque<([u8; 8], Sense)>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    last_tsih: u16,
    live: Vec<Entry>,
    held: Vec<Held>,
}

/// The table.
pub(crate) struct Sessions {
    state: Mutex<State>,
    /// Whether any session has a unit attention: without, a command need not take the lock.
    has_attentions: AtomicBool,
    log: Arc<EventLog>,
}

impl Sessions {
    pub(crate) fn new(log: Arc<EventLog>) -> Self {
        Self {
            state: Mutex::default(),
            has_attentions: AtomicBool::new(false),
            log,
        }
    }

    /// Enters a new session, having ended the one it reinstates: same initiator name, ISID and
    /// portal group (RFC 7143 section 6.3.5). Returns when the old connection is closed and every
    /// task of it, held ones too, can no longer take effect.
    pub(crate) async fn enter(&self, identity: Identity) -> Registration {
        while let Some((id, displace)) = self.find_same(&identity) {
            let _ = displace.send(true);
            displace.closed().await;
            self.leave(id);
            self.log.record(Event::Reinstated { session: id });
        }
        self.end_held(|held| held.identity == identity);
        self.register(identity)
    }

    fn find_same(&self, identity: &Identity) -> Option<(SessionId, watch::Sender<bool>)> {
        let state = self.state();
        let same = |entry: &&Entry| !identity.discovery && entry.identity == *identity;
        state
            .live
            .iter()
            .find(same)
            .map(|entry| (entry.id, entry.displace.clone()))
    }

    fn register(&self, identity: Identity) -> Registration {
        let mut state = self.state();
        state.last_id += 1;
        // TSIH 0 means "new", so it is never given out.
        state.last_tsih = state.last_tsih.checked_add(1).unwrap_or(1);
        let (id, tsih) = (SessionId(state.last_id), state.last_tsih);
        let (mail_sender, mail) = mpsc::channel(MAILBOX);
        let (displace, displaced) = watch::channel(false);
        let attentions = VecDeque::new();
        let entry = Entry {
            id,
            tsih,
            identity,
            mail: mail_sender,
            displace,
            attentions,
        };
        state.live.push(entry);
        Registration {
            id,
            tsih,
            mail,
            displaced,
        }
    }

    /// Takes a session out; its held commands stay.
    pub(crate) fn leave(&self, id: SessionId) {
        let mut state = self.state();
        state.live.retain(|entry| entry.id != id);
        self.note_attentions(&state);
    }

    pub(crate) fn knows_tsih(&self, tsih: u16) -> bool {
        self.state().live.iter().any(|entry| entry.tsih == tsih)
    }

    /// The sessions that live.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        self.state().live.iter().map(|entry| entry.id).collect()
    }

    /// Writes to every session that `chosen` picks; says to how many.
    pub(crate) fn post(
        &self,
        chosen: impl Fn(SessionId) -> bool,
        mut letter: impl FnMut() -> Mail,
    ) -> usize {
        let state = self.state();
        let chosen = state.live.iter().filter(|entry| chosen(entry.id));
        chosen
            .filter(|entry| entry.mail.try_send(letter()).is_ok())
            .count()
    }

    /// Adds a unit attention to every session but `except`.
    pub(crate) fn attention(&self, lun: [u8; 8], sense: Sense, except: Option<SessionId>) {
        let mut state = self.state();
        for entry in &mut state.live {
            if Some(entry.id) != except && entry.attentions.len() < 64 {
                entry.attentions.push_back((lun, sense));
            }
        }
        self.note_attentions(&state);
    }

    /// Takes the next unit attention of a session for a LUN.
    pub(crate) fn pop_attention(&self, id: SessionId, lun: &[u8; 8]) -> Option<Sense> {
        if !self.has_attentions.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        let entry = state.live.iter_mut().find(|entry| entry.id == id)?;
        let at = entry
            .attentions
            .iter()
            .position(|(of, _)| lun_number(of) == lun_number(lun))?;
        let (_, sense) = entry.attentions.remove(at)?;
        self.note_attentions(&state);
        Some(sense)
    }

    fn note_attentions(&self, state: &State) {
        let any = state.live.iter().any(|entry| !entry.attentions.is_empty());
        self.has_attentions.store(any, Ordering::Release);
    }

    /// Keeps a command. Returns the key to release it by.
    pub(crate) fn hold(
        &self,
        session: SessionId,
        identity: Identity,
        command: Command,
        data: DataOut<'static>,
    ) -> u64 {
        let mut state = self.state();
        state.last_id += 1;
        let key = state.last_id;
        state.held.push(Held {
            key,
            session,
            identity,
            command,
            data,
        });
        key
    }

    /// How many commands are held.
    pub(crate) fn held_count(&self) -> usize {
        self.state().held.len()
    }

    /// Lets go of held commands. Those of a live session go back to it; the others are returned.
    pub(crate) fn release(&self, chosen: impl Fn(&Held) -> bool) -> (usize, Vec<Held>) {
        let mut state = self.state();
        let (released, kept): (Vec<_>, Vec<_>) = state.held.drain(..).partition(|h| chosen(h));
        state.held = kept;
        let count = released.len();
        let mut orphans = Vec::new();
        for held in released {
            match state.live.iter().find(|entry| entry.id == held.session) {
                Some(entry) => {
                    let _ = entry.mail.try_send(Mail::Finish(Box::new(held)));
                }
                None => orphans.push(held),
            }
        }
        (count, orphans)
    }

    /// Ends held commands for good; says how many. Live sessions learn of it.
    pub(crate) fn end_held(&self, chosen: impl Fn(&Held) -> bool) -> usize {
        let mut state = self.state();
        let (ended, kept): (Vec<_>, Vec<_>) = state.held.drain(..).partition(|h| chosen(h));
        state.held = kept;
        for held in &ended {
            if let Some(entry) = state.live.iter().find(|entry| entry.id == held.session) {
                let _ = entry.mail.try_send(Mail::Ended);
            }
        }
        ended.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
