//! The device as `vhost-user-backend` asks for it.
//!
//! [`BlockDevice`] is the disk, which outlives its front-ends; `Connection` is what one of them
//! has set up.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::limits::DeviceLimits;
use iscsi_core::disk::record::DiskRecord;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;

use super::config_change::{ConfigChannel, Told};
use super::config_space::{self, CAPACITY, WRITEBACK_OFFSET};
use super::features;
use super::rings::{Ring, RingOwner, RingSet, SharedMemory, lock};
use crate::guest_memory::GuestMemory;
use crate::log_context::LogContext;
use crate::memory_watch::MemoryLoss;
use crate::sandbox::{Trespasser, trespass};

/// What the operator decides about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSettings {
    /// How many virtqueues there are; at least 1.
    pub num_queues: u16,
    /// The size of ring to expect, which bounds the segments per request. Larger and smaller
    /// rings are served all the same.
    pub queue_size: u16,
    /// Refuse writes even if the LUN would take them.
    pub read_only: bool,
}

/// A LUN as a virtio disk.
pub struct BlockDevice {
    facts: Mutex<LunFacts>,
    settings: DeviceSettings,
    owner: Arc<dyn RingOwner>,
    /// The connection of the present front-end.
    present: Mutex<Weak<Connection>>,
    /// The disk that lines of the log are about: the crate below starts threads of its own.
    log: LogContext,
}

impl BlockDevice {
    /// A disk with these facts, whose rings `owner` serves.
    pub fn new(facts: LunFacts, settings: DeviceSettings, owner: Arc<dyn RingOwner>) -> Self {
        Self {
            facts: Mutex::new(facts),
            settings,
            owner,
            present: Mutex::default(),
            log: LogContext::current(),
        }
    }

    /// The LUN has changed: of that, capacity and write protection are shown, the rest stays as it was
    /// when the device was made. The present front-end is told of another capacity; write protection
    /// is a feature, which only those see who come later.
    pub fn show_change(&self, found: &LunFacts) -> Told {
        let mut facts = lock(&self.facts);
        facts.capacity_blocks = found.capacity_blocks;
        facts.write_protected = found.write_protected;
        drop(facts);
        let present = lock(&self.present).upgrade();
        present.map_or(Told::NoFrontEnd, |connection| connection.tell_capacity())
    }

    fn capacity_sectors(&self) -> u64 {
        DeviceLimits::of(&lock(&self.facts)).capacity_sectors
    }

    /// The features that the device offers.
    pub fn offered_features(&self) -> u64 {
        features::offered(&lock(&self.facts), &self.settings)
    }

    /// How many virtqueues there are.
    pub fn num_queues(&self) -> u16 {
        self.settings.num_queues
    }

    /// A new driver finds the device's own cache mode: write-back when there is a cache.
    fn initial_writeback(&self) -> bool {
        lock(&self.facts).write_cache
    }

    fn config_space(&self, writeback: bool) -> [u8; config_space::CONFIG_SPACE_BYTES] {
        config_space::config_space(&lock(&self.facts), &self.settings, writeback)
    }
}

/// The protocol features that are served.
///
/// INFLIGHT_SHMFD is served by the channel: the crate would refuse its messages. BACKEND_REQ is for
/// [`ConfigChannel`] alone. Not among them, and so never to be acknowledged: LOG_SHMFD (live
/// migration), STATUS.
pub(super) fn protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
}

/// One front-end's connection: its rings, and what its driver negotiated.
pub(super) struct Connection {
    device: Arc<BlockDevice>,
    rings: Arc<RingSet>,
    /// What the front-end took away of the memory that it had shared.
    loss: Arc<MemoryLoss>,
    writeback: AtomicBool,
    config_channel: Mutex<ConfigChannel>,
}

impl Connection {
    /// # Errors
    /// When there is no file descriptor left.
    pub(super) fn new(device: Arc<BlockDevice>) -> io::Result<Arc<Self>> {
        let rings = RingSet::new(Arc::clone(&device.owner));
        let connection = Self {
            device,
            rings,
            loss: MemoryLoss::new()?,
            writeback: AtomicBool::new(false),
            config_channel: Mutex::default(),
        };
        connection.set_writeback(connection.device.initial_writeback());
        let connection = Arc::new(connection);
        *lock(&connection.device.present) = Arc::downgrade(&connection);
        Ok(connection)
    }

    pub(super) fn rings(&self) -> &Arc<RingSet> {
        &self.rings
    }

    /// What the front-end took away of the memory that it had shared.
    pub(super) fn loss(&self) -> &Arc<MemoryLoss> {
        &self.loss
    }

    /// How many virtqueues there are.
    pub(super) fn max_queues(&self) -> u16 {
        self.device.num_queues()
    }

    /// Which disk the guest is shown.
    pub(super) fn disk(&self) -> DiskRecord {
        DiskRecord::of(&lock(&self.device.facts))
    }

    /// The guest has had `disk` from a former process.
    pub(super) fn take_over(&self, disk: DiskRecord) {
        self.device.owner.take_over(disk);
    }

    /// The front-end wants to be told of changes here.
    pub(super) fn set_config_channel(&self, socket: OwnedFd) {
        lock(&self.config_channel).open(socket);
    }

    /// Tells the front-end to ask for the capacity, unless it knows the present one.
    pub(super) fn tell_capacity(&self) -> Told {
        self.rings.note_capacity(self.disk().capacity_blocks);
        let capacity_sectors = self.device.capacity_sectors();
        lock(&self.config_channel).tell(capacity_sectors)
    }

    /// The front-end has gone: takes back its rings and lets its memory go.
    pub(super) fn end(&self) {
        self.rings.stop_all();
        self.rings.set_memory(Arc::default());
    }

    fn set_writeback(&self, writeback: bool) {
        self.writeback.store(writeback, Ordering::Relaxed);
        self.device.owner.set_writeback(writeback);
    }
}

impl VhostUserBackend for Connection {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        self.device.settings.num_queues.into()
    }

    fn max_queue_size(&self) -> usize {
        self.device.settings.queue_size.into()
    }

    fn features(&self) -> u64 {
        trespass(Trespasser::FrontEnd);
        self.device.offered_features()
    }

    /// On the thread of the daemon's messages, before any ring is set up.
    fn acked_features(&self, features: u64) {
        self.device.log.enter_thread();
        for (name, reason) in features::describe(features) {
            log::debug!("the driver uses {name}: {reason}");
        }
        self.rings.set_features(Some(features));
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        protocol_features()
    }

    fn reset_device(&self) {
        self.rings.reset();
        self.set_writeback(self.device.initial_writeback());
    }

    /// Known from the features.
    fn set_event_idx(&self, _enabled: bool) {}

    /// Always as many bytes as asked for, zeros beyond the structure.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let space = self
            .device
            .config_space(self.writeback.load(Ordering::Relaxed));
        if offset == 0 && size as usize >= CAPACITY.len() {
            let capacity = space.first_chunk().copied().map(u64::from_le_bytes);
            lock(&self.config_channel).answered(capacity.unwrap_or_default());
        }
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(space.len());
        let asked = space.iter().skip(from).copied();
        asked
            .chain(std::iter::repeat(0))
            .take(size as usize)
            .collect()
    }

    /// Takes the writeback byte and nothing else. What a driver may not write is ignored: an error
    /// would end the connection, and the guest could not tell why.
    fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let acked = self.rings.features() & (1 << VIRTIO_BLK_F_CONFIG_WCE) != 0;
        let place = usize::try_from(offset)
            .ok()
            .and_then(|at| WRITEBACK_OFFSET.checked_sub(at));
        match place.and_then(|place| bytes.get(place)) {
            Some(&value @ 0..=1) if acked => self.set_writeback(value == 1),
            _ => log::debug!(
                "ignored {} bytes written to config space {offset}",
                bytes.len()
            ),
        }
        Ok(())
    }

    /// Comes before anything of the new memory is touched.
    fn update_memory(&self, memory: SharedMemory) -> io::Result<()> {
        let former = self.rings.memory();
        let memory = GuestMemory::watched(&memory.memory(), &former, &self.loss)?;
        self.rings.set_memory(Arc::new(memory));
        Ok(())
    }

    /// None: the rings have threads of their own. The crate starts no thread, watches no kick and
    /// needs no exit event.
    fn queues_per_thread(&self) -> Vec<u64> {
        Vec::new()
    }

    /// The ring was taken back when it ceased to be ready, just before.
    fn stop_vring(&self, _queue_index: u32) -> io::Result<()> {
        Ok(())
    }

    /// Never called, since there are no worker threads.
    fn handle_event(&self, _: u16, _: EventSet, _: &[Ring], _: usize) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) fn test_facts() -> LunFacts {
    use iscsi_core::disk::facts::{BlockLimits, CommandWidth, Identity, Provisioning};
    let identity = Identity {
        designators: Vec::new(),
        serial: b"S1".to_vec(),
        block_length_bytes: 512,
    };
    LunFacts {
        identity,
        vendor: "V".into(),
        product: "P".into(),
        revision: "1".into(),
        block_length_bytes: 512,
        capacity_blocks: 2048,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        write_protected: false,
        write_cache: true,
        fua: true,
        width: CommandWidth::Sixteen,
        sync_cache: CommandWidth::Sixteen,
        provisioning: Provisioning::default(),
        limits: BlockLimits::default(),
        rotates: None,
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::virtio_blk::VIRTIO_BLK_F_RO;

    use super::super::test_owner::{Event, TestOwner};
    use super::*;

    const SETTINGS: DeviceSettings = DeviceSettings {
        num_queues: 2,
        queue_size: 128,
        read_only: false,
    };

    fn connection(owner: &Arc<TestOwner>) -> Arc<Connection> {
        let owner: Arc<dyn RingOwner> = Arc::clone(owner) as _;
        Connection::new(Arc::new(BlockDevice::new(test_facts(), SETTINGS, owner))).unwrap()
    }

    #[test]
    fn answers_exactly_the_bytes_asked_for() {
        let connection = connection(&Arc::default());
        let whole = connection.get_config(0, 256);
        assert_eq!(whole.len(), 256);
        assert_eq!(whole[..8], 2048_u64.to_le_bytes());
        assert_eq!(connection.get_config(20, 4), whole[20..24]);
        assert_eq!(connection.get_config(94, 4), [0; 4]);
        assert_eq!(connection.get_config(u32::MAX, 3), [0; 3]);
    }

    #[test]
    fn takes_the_writeback_byte_only_once_config_wce_is_acknowledged() {
        let owner = Arc::<TestOwner>::default();
        let connection = connection(&owner);
        connection.set_config(32, &[0]).unwrap();
        assert_eq!(connection.get_config(32, 1), [1]);
        connection.acked_features(1 << VIRTIO_BLK_F_CONFIG_WCE);
        connection.set_config(32, &[2]).unwrap();
        connection.set_config(33, &[0]).unwrap();
        assert_eq!(connection.get_config(32, 1), [1]);
        connection.set_config(32, &[0]).unwrap();
        assert_eq!(connection.get_config(32, 1), [0]);
        assert_eq!(
            owner.events(),
            [Event::Writeback(true), Event::Writeback(false)]
        );
        connection.reset_device();
        assert_eq!(connection.get_config(32, 1), [1]);
    }

    #[test]
    fn shows_a_grown_lun() {
        let connection = connection(&Arc::default());
        let grown = LunFacts {
            capacity_blocks: 4096,
            ..test_facts()
        };
        assert_eq!(connection.device.show_change(&grown), Told::No);
        assert_eq!(connection.get_config(0, 8), 4096_u64.to_le_bytes());
        assert_eq!(connection.device.show_change(&grown), Told::Yes);
    }

    #[test]
    fn shows_write_protection_and_leaves_the_rest_as_it_was() {
        let connection = connection(&Arc::default());
        let device = Arc::clone(&connection.device);
        drop(connection);
        let offered = device.offered_features();
        let mut changed = LunFacts {
            write_cache: false,
            write_protected: true,
            ..test_facts()
        };
        assert_eq!(device.show_change(&changed), Told::NoFrontEnd);
        assert_ne!(device.offered_features() & (1 << VIRTIO_BLK_F_RO), 0);
        changed.write_protected = false;
        device.show_change(&changed);
        assert_eq!(device.offered_features(), offered);
        assert!(device.initial_writeback());
    }
}
