//! A vhost-user-blk front-end for tests, with a virtqueue driver of its own.
//!
//! It can make every legal layout and, on purpose, illegal chains; it waits for the back-end's
//! notifications with a limit; and it judges the back-end: a head used twice, bytes written
//! beside a buffer, or a missing notification is an error.

mod buffers;
mod changes;
pub mod config;
pub mod error;
pub mod inflight;
mod link;
pub mod memory;
pub mod queue;
pub mod request;
pub mod ring;
pub mod spec;

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};

use crate::wait::{self, Deadline};
use changes::Changes;
use config::{BlockConfig, CONFIG_BYTES, WRITEBACK_OFFSET};
pub use error::{Error, Result};
use inflight::Inflight;
use link::Link;
use memory::Memory;
pub use queue::{Completion, IO_LIMIT, Notifications, Queue};
pub use request::{Layout, Request};
pub use ring::{Descriptor, Next};

/// How long a listener may refuse before a connect gives up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What the client asks for.
#[derive(Clone, Copy, Debug)]
pub struct FrontendConfig {
    /// How many queues are used.
    pub queues: u16,
    /// Descriptors per queue, a power of two up to 32,768.
    pub queue_size: u16,
    /// Features that the driver accepts when they are offered.
    pub features_mask: u64,
    /// Size of guest memory.
    pub memory_bytes: u64,
    /// In how many adjacent regions it lies.
    pub memory_regions: u64,
    /// Whether its files can be sealed.
    pub sealable_memory: bool,
    /// Whether the driver wants notifications.
    pub notifications: Notifications,
    /// Whether the back-end writes down what is in flight (INFLIGHT_SHMFD), if it can.
    pub inflight: bool,
    /// Whether the back-end tells of changes (BACKEND_REQ), if it can.
    pub changes: bool,
}

impl FrontendConfig {
    /// The usual, with so many queues.
    pub fn with_queues(queues: u16) -> Self {
        Self {
            queues,
            ..Self::default()
        }
    }
}

impl Default for FrontendConfig {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 128,
            features_mask: spec::DRIVER_FEATURES,
            memory_bytes: 64 << 20,
            memory_regions: 2,
            sealable_memory: false,
            notifications: Notifications::Wanted,
            inflight: true,
            changes: true,
        }
    }
}

/// A connected front-end with running queues; dropped, it disconnects.
pub struct Frontend {
    link: Link,
    memory: Arc<Memory>,
    queues: Vec<Queue>,
    offered: u64,
    features: u64,
    queue_limit: u64,
    wants_inflight: bool,
    wants_changes: bool,
    changes: Option<Changes>,
    /// The region of the back-end, kept for the next one.
    inflight: Option<Inflight>,
}

impl Frontend {
    /// Connects to the socket at `path`, negotiates, shares memory and starts all queues.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody listens, [`Error::Message`] when the back-end refuses
    /// something or does not answer in time.
    pub fn connect(path: impl AsRef<Path>, config: FrontendConfig) -> Result<Self> {
        Self::over(connect_raw(path)?, config)
    }

    /// As [`Frontend::connect`] over a socket that is connected already.
    pub fn over(socket: UnixStream, config: FrontendConfig) -> Result<Self> {
        let make = if config.sealable_memory {
            Memory::sealable
        } else {
            Memory::new
        };
        let memory = make(config.memory_bytes, config.memory_regions);
        let mut frontend = Self {
            link: Link::new(socket, config.queues),
            memory,
            queues: Vec::new(),
            offered: 0,
            features: 0,
            queue_limit: 1,
            wants_inflight: config.inflight,
            wants_changes: config.changes,
            changes: None,
            inflight: None,
        };
        frontend.negotiate(config.features_mask)?;
        let event_idx = frontend.features & spec::F_EVENT_IDX != 0;
        let queue = |_| {
            Queue::new(
                &frontend.memory,
                config.queue_size,
                event_idx,
                config.notifications,
            )
        };
        frontend.queues = (0..config.queues).map(queue).collect();
        frontend.start()?;
        Ok(frontend)
    }

    /// Connects anew and goes on with the same memory and rings, as QEMU does when a back-end
    /// comes back: it hands back the inflight region, if there is one, and says that each ring goes
    /// on at its used index.
    ///
    /// Without a region what was in flight is not submitted again.
    pub fn reconnect(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let queues = u16::try_from(self.queues.len()).expect("at most 64 queues");
        self.link.hang_up();
        self.link = Link::new(connect_raw(path)?, queues);
        self.negotiate(self.features)?;
        self.start()
    }

    fn negotiate(&mut self, mask: u64) -> Result<()> {
        self.offered = self.link.ask("GET_FEATURES", |link| link.get_features())?;
        if self.offered & spec::F_PROTOCOL_FEATURES == 0 {
            return Err(Error::NotOffered("VHOST_USER_F_PROTOCOL_FEATURES"));
        }
        let features = self.offered & mask;
        self.features = features;
        self.negotiate_protocol()?;
        self.link.ask("SET_OWNER", |link| link.set_owner())?;
        self.link
            .ask("SET_FEATURES", |link| link.set_features(features))
    }

    fn negotiate_protocol(&mut self) -> Result<()> {
        let mut wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        if self.wants_changes {
            wanted |= VhostUserProtocolFeatures::BACKEND_REQ;
        }
        let link = &mut self.link;
        let offered = link.ask("GET_PROTOCOL_FEATURES", |link| link.get_protocol_features())?;
        let features = offered & wanted;
        link.ask("SET_PROTOCOL_FEATURES", |link| {
            link.set_protocol_features(features)?;
            if features.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                link.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
            Ok(())
        })?;
        self.wants_inflight &= features.contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD);
        if features.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
            self.changes = Some(link.ask("SET_BACKEND_REQ_FD", Changes::offer)?);
        }
        if features.contains(VhostUserProtocolFeatures::MQ) {
            self.queue_limit = link.ask("GET_QUEUE_NUM", |link| link.get_queue_num())?;
        }
        Ok(())
    }

    /// Waits until the back-end tells that the configuration space has changed.
    ///
    /// # Errors
    /// [`Error::NotTold`] when it does not; [`Error::NotOffered`] when it cannot.
    pub fn wait_config_change(&mut self, limit: Duration) -> Result<()> {
        let changes = self.changes.as_mut();
        changes.ok_or(Error::NotOffered("BACKEND_REQ"))?.wait(limit)
    }

    /// Between negotiation and the memory table, as QEMU does.
    fn share_inflight(&mut self) -> Result<()> {
        if !self.wants_inflight {
            return Ok(());
        }
        if self.inflight.is_none() {
            let queues = u16::try_from(self.queues.len()).expect("at most 64 queues");
            let size = self.queues[0].ring_ref().size();
            let get = |link: &mut _| Inflight::get(link, queues, size);
            self.inflight = Some(self.link.ask("GET_INFLIGHT_FD", get)?);
        }
        match &self.inflight {
            Some(inflight) => self.link.ask("SET_INFLIGHT_FD", |link| inflight.set(link)),
            None => Ok(()),
        }
    }

    /// The inflight region, for tests that spoil it.
    ///
    /// # Panics
    /// When there is none.
    pub fn inflight(&mut self) -> &mut Inflight {
        self.inflight.as_mut().expect("an inflight region")
    }

    fn start(&mut self) -> Result<()> {
        self.share_inflight()?;
        let table = self.memory.table();
        self.link
            .ask("SET_MEM_TABLE", |link| link.set_mem_table(&table))?;
        for index in 0..self.queues.len() {
            let base = self.queues[index].ring_ref().published_used_index();
            self.start_queue(index, base)?;
        }
        Ok(())
    }

    /// Starts or resumes a ring at `base`, an index of the available ring.
    pub fn start_queue(&mut self, index: usize, base: u16) -> Result<()> {
        let queue = &self.queues[index];
        let ring = queue.ring_ref();
        let link = &mut self.link;
        link.ask("SET_VRING_NUM", |link| {
            link.set_vring_num(index, ring.size())
        })?;
        link.ask("SET_VRING_BASE", |link| link.set_vring_base(index, base))?;
        link.ask("SET_VRING_ADDR", |link| {
            link.set_vring_addr(index, &ring.addresses())
        })?;
        link.ask("SET_VRING_CALL", |link| {
            link.set_vring_call(index, &queue.call)
        })?;
        link.ask("SET_VRING_KICK", |link| {
            link.set_vring_kick(index, &queue.kick)
        })?;
        link.ask("SET_VRING_ENABLE", |link| {
            link.set_vring_enable(index, true)
        })
    }

    /// Takes a region of guest memory away (REM_MEM_REG); it stays ours.
    pub fn remove_region(&mut self, index: usize) -> Result<()> {
        let region = self.memory.table().swap_remove(index);
        let link = &mut self.link;
        link.ask("REM_MEM_REG", |link| link.remove_mem_region(&region))
    }

    /// Gives it back (ADD_MEM_REG).
    pub fn add_region(&mut self, index: usize) -> Result<()> {
        let region = self.memory.table().swap_remove(index);
        let link = &mut self.link;
        link.ask("ADD_MEM_REG", |link| link.add_mem_region(&region).map(drop))
    }

    /// Stops a ring (GET_VRING_BASE); returns where to resume it.
    pub fn stop_queue(&mut self, index: usize) -> Result<u16> {
        let base = self
            .link
            .ask("GET_VRING_BASE", |link| link.get_vring_base(index))?;
        Ok(u16::try_from(base & 0xffff).expect("masked"))
    }

    /// Stops all rings, as QEMU does when the guest resets the device, and starts them empty.
    pub fn reset(&mut self) -> Result<()> {
        for index in 0..self.queues.len() {
            self.stop_queue(index)?;
            self.queues[index].reset();
        }
        self.inflight = None;
        self.start()
    }

    /// Sends GET_FEATURES once more and waits for the answer: all messages before it are done.
    pub fn ping(&mut self) -> Result<()> {
        self.link
            .ask("GET_FEATURES", |link| link.get_features())
            .map(drop)
    }

    /// The features the back-end offered.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The features in use.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// How many queues the back-end allows.
    pub fn queue_limit(&self) -> u64 {
        self.queue_limit
    }

    /// Whether the back-end closes the connection within `limit`.
    pub fn is_closed_within(&self, limit: Duration) -> bool {
        wait::readable(&[self.link.hang_up_fd()], limit)
    }

    /// Guest memory, for tests that build chains themselves.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Queue `index`.
    pub fn queue(&mut self, index: usize) -> &mut Queue {
        &mut self.queues[index]
    }

    /// All queues, to be driven by several threads.
    pub fn queues(&mut self) -> &mut [Queue] {
        &mut self.queues
    }

    /// The first `size_bytes` of the configuration space, exactly as they came.
    pub fn get_config(&mut self, size_bytes: u32) -> Result<Vec<u8>> {
        let space = vec![0; usize::try_from(size_bytes).expect("a short size")];
        let flags = VhostUserConfigFlags::empty();
        let answer =
            |link: &mut _| VhostUserFrontend::get_config(link, 0, size_bytes, flags, &space);
        self.link.ask("GET_CONFIG", answer).map(|(_, bytes)| bytes)
    }

    /// The configuration space, taken apart.
    pub fn block_config(&mut self) -> Result<BlockConfig> {
        BlockConfig::parse(&self.get_config(CONFIG_BYTES)?)
    }

    /// Switches the write cache (`writeback` of VIRTIO_BLK_F_CONFIG_WCE).
    pub fn set_writeback(&mut self, on: bool) -> Result<()> {
        let flags = VhostUserConfigFlags::WRITABLE;
        let value = [u8::from(on)];
        self.link.ask("SET_CONFIG", |link| {
            link.set_config(WRITEBACK_OFFSET, flags, &value)
        })
    }

    /// Waits for the next answered request on any queue; returns the queue's index too.
    ///
    /// # Errors
    /// As [`Queue::wait_used`]; [`Error::Disconnected`] when the back-end goes.
    pub fn wait_any(&mut self, limit: Duration) -> Result<(usize, Completion)> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(found) = self.poll_any()? {
                return Ok(found);
            }
            self.queues.iter().for_each(Queue::arm);
            if self.queues.iter().any(Queue::has_used) {
                continue;
            }
            self.sleep(deadline.left(), limit)?;
        }
    }

    fn poll_any(&mut self) -> Result<Option<(usize, Completion)>> {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if let Some(completion) = queue.poll_used()? {
                return Ok(Some((index, completion)));
            }
        }
        Ok(None)
    }

    fn sleep(&self, left: Duration, limit: Duration) -> Result<()> {
        if self.queues.iter().any(Queue::is_suppressed) && !left.is_zero() {
            // There is no event to wait for.
            thread::yield_now();
            return Ok(());
        }
        let hang_up = [self.link.hang_up_fd()];
        let calls = self.queues.iter().map(Queue::call_fd);
        let fds: Vec<_> = calls.chain(hang_up).collect();
        if wait::readable(&fds, left) {
            if wait::readable(&hang_up, Duration::ZERO) {
                return Err(Error::Disconnected);
            }
            for queue in &self.queues {
                queue.take_notification();
            }
            return Ok(());
        }
        match self.queues.iter().find(|queue| queue.has_used()) {
            None => Err(Error::NothingUsed(limit)),
            Some(queue) => {
                let used_index = queue.ring_ref().published_used_index();
                Err(Error::NotNotified { used_index })
            }
        }
    }
}

/// Connects without a word; retries while the listener is not there yet.
pub fn connect_raw(path: impl AsRef<Path>) -> Result<UnixStream> {
    let path = path.as_ref();
    let mut last = None;
    let connected = wait::until(CONNECT_LIMIT, || match UnixStream::connect(path) {
        Ok(socket) => Some(Ok(socket)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            last = Some(error);
            None
        }
        Err(error) => Some(Err(error)),
    });
    let connected = connected
        .or_else(|| last.map(Err))
        .expect("there was an attempt");
    connected.map_err(|source| Error::Connect {
        path: path.display().to_string(),
        source,
    })
}

/// True when the other side closes `socket` within `limit` without having said anything.
pub fn is_closed_within(mut socket: &UnixStream, limit: Duration) -> bool {
    socket
        .set_read_timeout(Some(limit))
        .expect("a limit above zero");
    match socket.read(&mut [0]) {
        Ok(received) => received == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}
