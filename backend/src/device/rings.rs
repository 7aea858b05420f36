//! What the front-end does to a ring, and when the ring changes hands.
//!
//! `vhost-user-backend` keeps the books of each ring in a `VringT` and would start threads to watch
//! its kicks. We let it keep the books and start no thread: [`Ring`] is a `VringT` that listens in,
//! and gives a ring to the [`RingOwner`] when it is ready, enabled and placed, and takes it back
//! when one of these ends.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iscsi_core::disk::record::DiskRecord;
use vhost_user_backend::{VringMutex, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as VirtQueueError, QueueT};
use vm_memory::{GuestAddress, GuestMemoryAtomic};

use super::inflight::{InflightError, InflightQueue, InflightRegion};
use super::queue::SplitQueue;
use crate::guest_memory::{GuestMemory, MemoryTable};

/// The guest's memory as the front-end's messages change it, in the books.
pub(super) type SharedMemory = GuestMemoryAtomic<MemoryTable>;

/// A ring to be served: everything that its new owner needs.
#[derive(Debug)]
pub struct RingSetup {
    /// Which virtqueue.
    pub index: u16,
    /// How many entries; a power of two up to 32,768.
    pub size: u16,
    /// Where the descriptor table is.
    pub desc_table: GuestAddress,
    /// Where the available ring is.
    pub avail_ring: GuestAddress,
    /// Where the used ring is.
    pub used_ring: GuestAddress,
    /// The available index of the first buffer to take. Where the used ring goes on is in guest
    /// memory.
    pub next_avail: u16,
    /// The features that the driver acknowledged.
    pub features: u64,
    /// The memory that addresses refer to.
    pub memory: Arc<GuestMemory>,
    /// Readable when the driver made buffers available. Comes from the front-end: it may be any
    /// kind of file, and blocking.
    pub kick: OwnedFd,
    /// Written to notify the driver; `None` when the driver polls.
    pub call: Option<OwnedFd>,
    /// Where what is in flight is written down; `None` when the front-end keeps no such region.
    pub inflight: Option<InflightQueue>,
}

/// Who serves the rings. Called from the thread of one front-end at a time, in order; a ring is
/// never started twice without a stop between.
pub trait RingOwner: Send + Sync {
    /// The ring is to be served from now on.
    fn start_ring(&self, setup: RingSetup);
    /// Blocks until nothing of the ring is touched any more, with a bound. Returns the available
    /// index of the next buffer, which is what GET_VRING_BASE answers.
    fn stop_ring(&self, index: u16) -> u16;
    /// Another way to notify the driver of a ring that is being served.
    fn set_call(&self, index: u16, call: Option<OwnedFd>);
    /// Another file to be kicked by, for a ring that is being served.
    fn set_kick(&self, index: u16, kick: OwnedFd);
    /// The memory table changed. What is in flight keeps the old memory; the rings go on in the
    /// new. An empty one comes when the front-end has gone, so that its memory is let go.
    fn set_memory(&self, memory: Arc<GuestMemory>);
    /// Whether a completed write may be volatile: at first as the LUN has a cache, then as the
    /// driver asks through CONFIG_WCE. Said at the start of each connection, before any ring. A
    /// driver that did not acknowledge FLUSH wants stable writes whatever is said here.
    fn set_writeback(&self, writeback: bool);
    /// The guest has had `disk` from a former process. Said before any ring is started: what is in
    /// flight may be carried out on that disk only.
    fn take_over(&self, disk: DiskRecord);
}

/// A poisoned lock is as good as any: what panics ends the process.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the rings of a connection have in common.
struct Common {
    owner: Arc<dyn RingOwner>,
    /// What the driver acknowledged; `None` before SET_FEATURES. No ring starts before.
    features: Mutex<Option<u64>>,
    /// The region of INFLIGHT_SHMFD, which rings use that start from now on.
    inflight: Mutex<Option<InflightRegion>>,
    /// The memory that rings are in which start from now on.
    memory: Mutex<Arc<GuestMemory>>,
}

impl Common {
    fn memory(&self) -> Arc<GuestMemory> {
        Arc::clone(&lock(&self.memory))
    }
}

/// All rings of one front-end's connection.
pub(super) struct RingSet {
    common: Arc<Common>,
    rings: Mutex<Vec<Ring>>,
}

thread_local! {
    /// The set that [`Ring::new`] adds rings to; only set within [`RingSet::assemble`].
    static ASSEMBLING: RefCell<Option<Arc<RingSet>>> = const { RefCell::new(None) };
}

impl RingSet {
    pub(super) fn new(owner: Arc<dyn RingOwner>) -> Arc<Self> {
        let common = Arc::new(Common {
            owner,
            features: Mutex::new(None),
            inflight: Mutex::new(None),
            memory: Mutex::default(),
        });
        Arc::new(Self {
            common,
            rings: Mutex::default(),
        })
    }

    /// Runs `build`, which creates the daemon, so that its rings belong to this set.
    ///
    /// `VringT::new` is told neither the index of the ring nor whose it is, and no later call
    /// shows the rings to the back-end. But `VhostUserDaemon::new` creates them one after the
    /// other in the order of their indices, on the thread that calls it: so this thread's variable
    /// says whose they are, and counting says which.
    pub(super) fn assemble<T>(self: &Arc<Self>, build: impl FnOnce() -> T) -> T {
        ASSEMBLING.set(Some(Arc::clone(self)));
        let built = build();
        ASSEMBLING.set(None);
        built
    }

    fn add(&self, memory: SharedMemory, max_queue_size: u16) -> Result<Ring, VirtQueueError> {
        let mut rings = lock(&self.rings);
        let index = u16::try_from(rings.len()).map_err(|_| VirtQueueError::InvalidMaxSize)?;
        let ring = Ring {
            index,
            vring: VringMutex::new(memory, max_queue_size)?,
            common: Arc::clone(&self.common),
            state: Arc::default(),
        };
        rings.push(ring.clone());
        Ok(ring)
    }

    fn for_each(&self, action: impl Fn(&Ring, &mut RingState)) {
        for ring in lock(&self.rings).iter() {
            ring.with_state(|state| action(ring, state));
        }
    }

    /// The driver acknowledged features. Rings that run with others start anew.
    pub(super) fn set_features(&self, features: Option<u64>) {
        let before = std::mem::replace(&mut *lock(&self.common.features), features);
        self.for_each(|ring, state| {
            if before != features {
                ring.stop(state);
            }
            ring.settle(state);
        });
    }

    /// What the driver acknowledged, 0 before it did.
    pub(super) fn features(&self) -> u64 {
        lock(&self.common.features).unwrap_or(0)
    }

    /// The front-end has handed over where to write down what is in flight. It does so before it
    /// starts rings; those that run go on without.
    pub(super) fn set_inflight(&self, region: InflightRegion) {
        *lock(&self.common.inflight) = Some(region);
    }

    /// The guest is told of so many blocks.
    pub(super) fn note_capacity(&self, blocks: u64) {
        if let Some(region) = lock(&self.common.inflight).as_ref() {
            region.note_capacity(blocks);
        }
    }

    /// The memory that the rings are in.
    pub(super) fn memory(&self) -> Arc<GuestMemory> {
        self.common.memory()
    }

    /// The memory table changed.
    pub(super) fn set_memory(&self, memory: Arc<GuestMemory>) {
        *lock(&self.common.memory) = Arc::clone(&memory);
        self.common.owner.set_memory(memory);
    }

    /// Takes back all rings: the front-end has gone.
    pub(super) fn stop_all(&self) {
        self.for_each(|ring, state| {
            state.ready = false;
            ring.settle(state);
        });
    }

    /// Brings all rings back to where a new device's are (VHOST_USER_RESET_DEVICE).
    pub(super) fn reset(&self) {
        self.stop_all();
        self.set_features(None);
        if let Some(region) = &*lock(&self.common.inflight) {
            region.forget_all();
        }
        self.for_each(|ring, state| {
            *state = RingState::default();
            ring.vring.set_kick(None);
            ring.vring.set_enabled(false);
            ring.vring.get_mut().get_queue_mut().reset();
        });
    }
}

/// What decides whether a ring is served.
#[derive(Default)]
struct RingState {
    ready: bool,
    enabled: bool,
    /// The addresses were given and accepted.
    placed: bool,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    /// The owner has the ring.
    running: bool,
}

/// One virtqueue in the books of `vhost-user-backend`, with an ear on them.
///
/// The call and error files are not passed on: nobody signals through the books. Clones are the
/// same ring.
#[derive(Clone)]
pub struct Ring {
    index: u16,
    vring: VringMutex<SharedMemory>,
    common: Arc<Common>,
    state: Arc<Mutex<RingState>>,
}

impl Ring {
    fn with_state<T>(&self, action: impl FnOnce(&mut RingState) -> T) -> T {
        action(&mut lock(&self.state))
    }

    /// Changes the state, then starts or stops the ring as it says.
    fn update(&self, change: impl FnOnce(&mut RingState)) {
        self.with_state(|state| {
            change(state);
            self.settle(state);
        });
    }

    fn settle(&self, state: &mut RingState) {
        let features = *lock(&self.common.features);
        let runnable = state.ready && state.enabled && state.placed && state.kick.is_some();
        match features.filter(|_| runnable) {
            None => self.stop(state),
            Some(features) if !state.running => self.start(state, features),
            Some(_) => {}
        }
    }

    fn start(&self, state: &mut RingState, features: u64) {
        let setup = match self.setup(state, features) {
            Ok(Some(setup)) => setup,
            Ok(None) => return,
            Err(error) => {
                log::error!(
                    "queue {} is not served: cannot duplicate a file: {error}",
                    self.index
                );
                return;
            }
        };
        if let Err(error) = SplitQueue::new(&setup) {
            return self.refuse(state, &error);
        }
        match self.inflight(setup.size) {
            Ok(inflight) => {
                let setup = RingSetup { inflight, ..setup };
                self.common.owner.start_ring(setup);
                state.running = true;
            }
            Err(error) => self.refuse(state, &error),
        }
    }

    fn refuse(&self, state: &mut RingState, error: &dyn std::error::Error) {
        log::warn!(
            "queue {} is not served until it is placed anew: {error}",
            self.index
        );
        state.placed = false;
    }

    /// The ring's part of the inflight region, if there is one.
    fn inflight(&self, size: u16) -> Result<Option<InflightQueue>, InflightError> {
        let region = lock(&self.common.inflight);
        let queue = region.as_ref().map(|region| region.queue(self.index, size));
        queue.transpose()
    }

    fn stop(&self, state: &mut RingState) {
        if std::mem::take(&mut state.running) {
            let next_avail = self.common.owner.stop_ring(self.index);
            self.vring.set_queue_next_avail(next_avail);
        }
    }

    fn setup(&self, state: &RingState, features: u64) -> io::Result<Option<RingSetup>> {
        let Some(kick) = &state.kick else {
            return Ok(None);
        };
        let kick = kick.try_clone()?;
        let call = duplicate(state.call.as_ref())?;
        let books = self.vring.get_ref();
        let queue = books.get_queue();
        Ok(Some(RingSetup {
            index: self.index,
            size: queue.size(),
            desc_table: GuestAddress(queue.desc_table()),
            avail_ring: GuestAddress(queue.avail_ring()),
            used_ring: GuestAddress(queue.used_ring()),
            next_avail: queue.next_avail(),
            features,
            memory: self.common.memory(),
            kick,
            call,
            inflight: None,
        }))
    }

    /// Whether the books already have these addresses.
    fn is_at(&self, desc_table: u64, avail_ring: u64, used_ring: u64) -> bool {
        let books = self.vring.get_ref();
        let queue = books.get_queue();
        (queue.desc_table(), queue.avail_ring(), queue.used_ring())
            == (desc_table, avail_ring, used_ring)
    }

    fn change_kick(&self, state: &mut RingState, kick: Option<OwnedFd>) {
        state.kick = kick;
        if let (true, Some(kick)) = (state.running, &state.kick) {
            match kick.try_clone() {
                Ok(kick) => self.common.owner.set_kick(self.index, kick),
                Err(error) => {
                    log::error!("queue {} keeps its old kick: {error}", self.index);
                }
            }
        }
        self.settle(state);
    }

    fn change_call(&self, state: &mut RingState, call: Option<OwnedFd>) {
        state.call = call;
        if !state.running {
            return;
        }
        match duplicate(state.call.as_ref()) {
            Ok(call) => self.common.owner.set_call(self.index, call),
            Err(error) => log::error!("queue {} keeps its old call: {error}", self.index),
        }
    }
}

fn duplicate(fd: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    fd.map(OwnedFd::try_clone).transpose()
}

impl<'a> VringStateGuard<'a, SharedMemory> for Ring {
    type G = <VringMutex<SharedMemory> as VringStateGuard<'a, SharedMemory>>::G;
}

impl<'a> VringStateMutGuard<'a, SharedMemory> for Ring {
    type G = <VringMutex<SharedMemory> as VringStateMutGuard<'a, SharedMemory>>::G;
}

impl VringT<SharedMemory> for Ring {
    fn new(memory: SharedMemory, max_queue_size: u16) -> Result<Self, VirtQueueError> {
        let set = ASSEMBLING
            .with_borrow(Clone::clone)
            .ok_or(VirtQueueError::QueueNotReady)?;
        set.add(memory, max_queue_size)
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, SharedMemory>>::G {
        self.vring.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, SharedMemory>>::G {
        self.vring.get_mut()
    }

    fn set_enabled(&self, enabled: bool) {
        self.vring.set_enabled(enabled);
        self.update(|state| state.enabled = enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.vring.set_queue_ready(ready);
        self.update(|state| state.ready = ready);
    }

    /// QEMU says the addresses again, unchanged, of rings that run: these are left alone.
    fn set_queue_info(
        &self,
        desc_table: u64,
        avail_ring: u64,
        used_ring: u64,
    ) -> Result<(), VirtQueueError> {
        self.with_state(|state| {
            if state.placed && self.is_at(desc_table, avail_ring, used_ring) {
                return Ok(());
            }
            self.stop(state);
            let result = self.vring.set_queue_info(desc_table, avail_ring, used_ring);
            state.placed = result.is_ok();
            self.settle(state);
            result
        })
    }

    fn set_kick(&self, file: Option<File>) {
        let kick = file.as_ref().map(File::try_clone).transpose();
        let kick = kick.unwrap_or_else(|error| {
            log::error!("queue {} has no kick: {error}", self.index);
            None
        });
        self.vring.set_kick(file);
        self.with_state(|state| self.change_kick(state, kick.map(OwnedFd::from)));
    }

    fn set_call(&self, file: Option<File>) {
        self.with_state(|state| self.change_call(state, file.map(OwnedFd::from)));
    }

    /// Closed unused: a broken ring is reported in the log.
    fn set_err(&self, _file: Option<File>) {}

    fn queue_next_avail(&self) -> u16 {
        self.vring.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.vring.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.vring.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, VirtQueueError> {
        self.vring.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.vring.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.vring.set_queue_event_idx(enabled);
    }

    // The rest is for back-ends whose rings the crate's threads serve: nobody calls it here.

    fn add_used(&self, head: u16, length_bytes: u32) -> Result<(), VirtQueueError> {
        self.vring.add_used(head, length_bytes)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.vring.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, VirtQueueError> {
        self.vring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), VirtQueueError> {
        self.vring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, VirtQueueError> {
        self.vring.needs_notification()
    }

    fn read_kick(&self) -> io::Result<bool> {
        self.vring.read_kick()
    }
}
