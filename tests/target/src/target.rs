//! The running target and the handle to it.

use crate::awake::stay_awake;
use crate::chap::Secret;
use crate::config::TargetConfig;
use crate::connection;
use crate::counters::Counters;
use crate::disk::Disk;
use crate::events::{Event, SessionId};
use crate::script::{Rule, RuleId};
use crate::scsi::{lun_field, sense::Sense};
use crate::sessions::{AsyncEvent, Mail};
use crate::shared::Shared;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// A running target. It has a thread of its own, so it serves synchronous and asynchronous tests
/// alike, and every method may be called from both. Dropping it stops it.
pub struct TestTarget {
    shared: Arc<Shared>,
    runtime: Handle,
    /// The thread, and what ends it when it is dropped.
    thread: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    accepting: Mutex<Option<AbortHandle>>,
}

impl TestTarget {
    /// Starts a target. When this returns, it accepts connections.
    ///
    /// # Errors
    /// When the address cannot be bound or no thread can be started.
    pub fn start(config: TargetConfig) -> io::Result<Self> {
        let listener = bind_again(config.listen)?;
        let portal = listener.local_addr()?;
        // One thread: commands take effect one after the other, and events are in their order.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("test-target".to_owned());
        // With the runtime go its connections.
        let thread = thread.spawn(move || {
            let _ = runtime.block_on(stopped);
        })?;
        let target = Self {
            shared: Arc::new(Shared::new(config, portal)),
            runtime: handle,
            thread: Some((thread, stop)),
            accepting: Mutex::new(None),
        };
        target.accept_on(listener)?;
        if target.shared.config.stay_awake {
            let shared = Arc::clone(&target.shared);
            target.runtime.spawn(stay_awake(shared));
        }
        Ok(target)
    }

    /// Where it listens.
    pub fn portal(&self) -> SocketAddr {
        self.shared.portal
    }

    /// Its first name.
    pub fn name(&self) -> &str {
        self.shared
            .config
            .target_names
            .first()
            .map_or("", String::as_str)
    }

    /// The URL of one of its LUNs, `iscsi://address:port/name/lun`.
    pub fn url(&self, lun: u16) -> String {
        format!("iscsi://{}/{}/{lun}", self.portal(), self.name())
    }

    /// Adds a rule to the script. When several rules fit one command or connection, the oldest
    /// that still strikes does; all that fit a login response do.
    pub fn add(&self, rule: Rule) -> RuleId {
        self.shared.script.add(rule)
    }

    /// Takes a rule away; says how often it struck.
    pub fn remove(&self, rule: RuleId) -> u64 {
        self.shared.script.remove(rule)
    }

    /// How often a rule struck so far.
    pub fn fired(&self, rule: RuleId) -> u64 {
        self.shared.script.fired(rule)
    }

    /// Takes all rules away.
    pub fn clear_rules(&self) {
        self.shared.script.clear();
    }

    /// What happened so far, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.shared.log.all()
    }

    /// Forgets what happened so far.
    pub fn clear_events(&self) {
        self.shared.log.clear();
    }

    /// Blocks until an event, past or to come, is wanted, and returns the first such; `None` when
    /// `limit` is over.
    pub fn wait_for(&self, limit: Duration, wanted: impl FnMut(&Event) -> bool) -> Option<Event> {
        self.shared.log.wait_for(limit, wanted)
    }

    /// The same for asynchronous tests.
    pub async fn wait_for_async(
        &self,
        limit: Duration,
        wanted: impl FnMut(&Event) -> bool,
    ) -> Option<Event> {
        self.shared.log.wait_for_async(limit, wanted).await
    }

    /// The rules the initiator broke. Assert that this is empty.
    pub fn violations(&self) -> Vec<String> {
        let violation = |event| match event {
            Event::Violation(what) => Some(what),
            _ => None,
        };
        self.events().into_iter().filter_map(violation).collect()
    }

    /// Running totals.
    pub fn counters(&self) -> Counters {
        self.shared.log.totals.read()
    }

    /// The sessions that live now, discovery sessions included.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.shared.sessions.ids()
    }

    /// Sends an asynchronous message on every session; says on how many.
    pub fn send_async(&self, event: AsyncEvent) -> usize {
        self.shared.sessions.post(|_| true, || Mail::Async(event))
    }

    /// Sends a NOP-In that wants an answer on every session; says on how many. The answers are
    /// [`Event::Ponged`].
    pub fn ping(&self) -> usize {
        self.shared.sessions.post(|_| true, || Mail::Ping)
    }

    /// Closes every connection without a word. Held commands stay.
    pub fn drop_connections(&self) {
        self.shared.cut_connections();
    }

    /// Turns the connections that exist now into black holes: they stay open, and nothing is heard
    /// or said on them any more. Later connections work. Ends with [`TestTarget::thaw`];
    /// reinstatement and [`TestTarget::drop_connections`] close frozen connections too.
    pub fn freeze_connections(&self) {
        self.shared.freeze_connections();
    }

    /// The same for connections to come as well: accepted, and never a word.
    pub fn freeze_everything(&self) {
        self.shared.frozen_up_to.send_replace(u64::MAX);
    }

    /// Ends all freezing; what was sent meanwhile is answered now.
    pub fn thaw(&self) {
        self.shared.frozen_up_to.send_replace(0);
    }

    /// Stops listening: connects are refused. What is connected stays.
    pub fn refuse_connections(&self) {
        if let Some(task) = self.accepting().take() {
            task.abort();
        }
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn accept_connections(&self) -> io::Result<()> {
        self.refuse_connections();
        self.accept_on(bind_again(self.portal())?)
    }

    /// Carries out what `CommandFault::Hold` kept back, in the order in which it came; says how
    /// many commands that were. Sessions that live get their answer.
    pub fn release_held(&self) -> usize {
        self.shared.release_held(|_| true)
    }

    /// How many commands are held.
    pub fn held_count(&self) -> usize {
        self.shared.sessions.held_count()
    }

    /// Adds a unit attention of a LUN for whoever comes first. False when there is no such LUN.
    pub fn push_unit_attention(&self, lun: u16, sense: Sense) -> bool {
        let unit = self.shared.luns.units.get(&lun);
        unit.map(|unit| unit.push_attention(sense)).is_some()
    }

    /// Adds a unit attention of a LUN to each session that lives, as a real target does.
    pub fn push_unit_attention_to_all(&self, lun: u16, sense: Sense) {
        let field = lun_field(lun, self.shared.config.lun_addressing);
        self.shared.sessions.attention(field, sense, None);
    }

    /// Changes a LUN's capacity, without a unit attention. False when there is no such LUN.
    pub fn set_capacity_bytes(&self, lun: u16, capacity_bytes: u64) -> bool {
        let unit = self.shared.luns.units.get(&lun);
        unit.map(|unit| unit.set_capacity_bytes(capacity_bytes))
            .is_some()
    }

    /// Changes a LUN's write protection, without a unit attention. False when there is no such LUN.
    pub fn set_write_protected(&self, lun: u16, on: bool) -> bool {
        let unit = self.shared.luns.units.get(&lun);
        unit.map(|unit| unit.set_write_protected(on)).is_some()
    }

    /// A LUN's store: to look into it, to prepare it, or to hand it to the next target.
    pub fn disk(&self, lun: u16) -> Option<Arc<Disk>> {
        self.shared
            .luns
            .units
            .get(&lun)
            .map(|unit| Arc::clone(&unit.disk))
    }

    /// Stops: closes the listener and every connection, and returns when that is done.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn accept_on(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let _guard = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accepting = accept(Arc::clone(&self.shared), listener);
        *self.accepting() = Some(self.runtime.spawn(accepting).abort_handle());
        Ok(())
    }

    fn accepting(&self) -> std::sync::MutexGuard<'_, Option<AbortHandle>> {
        self.accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_down(&mut self) {
        if let Some((thread, stop)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Drop for TestTarget {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// The old listener is closed by its own task, a moment later.
fn bind_again(portal: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(portal) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 200 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => return bound,
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection::serve(Arc::clone(&shared), stream));
            }
            Err(error) => {
                // Out of descriptors: wait for some to come back.
                log::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Reads a secret from a file, without one newline at its end.
///
/// # Errors
/// When the file cannot be read.
pub fn read_secret(path: &std::path::Path) -> io::Result<Secret> {
    let mut bytes = std::fs::read(path)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Secret::new(bytes))
}
