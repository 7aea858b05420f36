//! The vhost-user messages: from connect to running rings.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost_user_iscsi_tests::frontend::inflight::Inflight;

use super::error::Error;
use super::queue::Queue;
use super::{
    F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_VERSION_1, InflightRegion, Memory,
};

/// How long the back-end may take for all messages: it may have to log in to the target.
const REPLY_LIMIT: Duration = Duration::from_secs(20);
/// Length of `capacity`, the first field of the configuration space (virtio 1.3, 5.2.4).
const CAPACITY_BYTES: u32 = 8;
/// All of them that a Linux guest's data path depends on. SEG_MAX and SIZE_MAX are left alone: one
/// data segment is within every limit that a back-end could name.
const WANTED: u64 = F_VERSION_1 | F_PROTOCOL_FEATURES | F_INDIRECT_DESC | F_EVENT_IDX | F_MQ;
/// VIRTIO_BLK_F_MQ.
const F_MQ: u64 = 1 << 12;

type Asked<T> = Result<T, Error>;

/// A connection whose features are settled.
pub(super) struct Link {
    frontend: Frontend,
    socket: UnixStream,
    pub(super) features: u64,
    protocol_features: VhostUserProtocolFeatures,
    /// Kept for the next back-end, as QEMU does; the one that is connected has it mapped.
    inflight: Option<Inflight>,
    /// Capacity of the disk in sectors of 512 bytes.
    pub(super) capacity_sectors: u64,
}

/// What the client uses of what a back-end offers.
fn wanted_protocol_features(region: InflightRegion) -> VhostUserProtocolFeatures {
    let always = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK;
    match region {
        InflightRegion::Taken => always | VhostUserProtocolFeatures::INFLIGHT_SHMFD,
        InflightRegion::LeftOut => always,
    }
}

/// Runs one exchange and names it when it fails.
fn ask<T>(message: &'static str, answer: vhost::Result<T>) -> Asked<T> {
    answer.map_err(|source| Error::Message { message, source })
}

impl Link {
    /// Connects and negotiates, for as many queues.
    pub(super) fn connect(path: &Path, queues: u16, region: InflightRegion) -> Asked<Self> {
        let socket = UnixStream::connect(path).map_err(|source| Error::Connect {
            path: path.display().to_string(),
            source,
        })?;
        let ours = socket
            .try_clone()
            .map_err(|source| Error::Memory(source.to_string()))?;
        let mut link = Self {
            frontend: Frontend::from_stream(socket, u64::from(queues)),
            socket: ours,
            features: 0,
            protocol_features: wanted_protocol_features(region),
            inflight: None,
            capacity_sectors: 0,
        };
        link.with_limit(|link| link.negotiate(queues))?;
        Ok(link)
    }

    /// Whether the back-end writes down what is in flight.
    pub(super) fn has_inflight_region(&self) -> bool {
        self.inflight.is_some()
    }

    /// Hands over the inflight region, shares the memory and starts the rings: QEMU's order.
    pub(super) fn start(&mut self, memory: &Memory, queues: &[Queue]) -> Asked<()> {
        self.with_limit(|link| {
            link.share_inflight(queues)?;
            ask(
                "SET_MEM_TABLE",
                link.frontend.set_mem_table(&memory.table()),
            )?;
            for (index, queue) in queues.iter().enumerate() {
                link.start_queue(memory, index, queue)?;
            }
            Ok(())
        })
    }

    fn negotiate(&mut self, queues: u16) -> Asked<()> {
        let link = &mut self.frontend;
        let offered = ask("GET_FEATURES", link.get_features())?;
        self.features = offered & WANTED;
        self.protocol_features &= ask("GET_PROTOCOL_FEATURES", link.get_protocol_features())?;
        ask(
            "SET_PROTOCOL_FEATURES",
            link.set_protocol_features(self.protocol_features),
        )?;
        if self
            .protocol_features
            .contains(VhostUserProtocolFeatures::REPLY_ACK)
        {
            link.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        let offered = ask("GET_QUEUE_NUM", link.get_queue_num())?;
        if u64::from(queues) > offered {
            return Err(Error::Queues {
                wanted: queues,
                offered,
            });
        }
        ask("SET_OWNER", link.set_owner())?;
        ask("SET_FEATURES", link.set_features(self.features))?;
        self.read_capacity()
    }

    fn read_capacity(&mut self) -> Asked<()> {
        let space = [0; CAPACITY_BYTES as usize];
        let flags = VhostUserConfigFlags::empty();
        let answer = self.frontend.get_config(0, CAPACITY_BYTES, flags, &space);
        let (_, bytes) = ask("GET_CONFIG", answer)?;
        let bytes: [u8; 8] = bytes
            .try_into()
            .expect("GET_CONFIG returns the size asked for");
        self.capacity_sectors = u64::from_le_bytes(bytes);
        Ok(())
    }

    /// All rings are of one size.
    fn share_inflight(&mut self, queues: &[Queue]) -> Asked<()> {
        let offered = VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        let (Some(first), true) = (queues.first(), self.protocol_features.contains(offered)) else {
            return Ok(());
        };
        let num_queues = u16::try_from(queues.len()).expect("queues of a load");
        let link = &mut self.frontend;
        let region = Inflight::get(link, num_queues, first.ring.size());
        let region = self.inflight.insert(ask("GET_INFLIGHT_FD", region)?);
        ask("SET_INFLIGHT_FD", region.set(link))
    }

    fn start_queue(&mut self, memory: &Memory, index: usize, queue: &Queue) -> Asked<()> {
        let link = &mut self.frontend;
        let ring = &queue.ring;
        ask("SET_VRING_NUM", link.set_vring_num(index, ring.size()))?;
        ask("SET_VRING_BASE", link.set_vring_base(index, 0))?;
        ask(
            "SET_VRING_ADDR",
            link.set_vring_addr(index, &ring.addresses(memory)),
        )?;
        ask("SET_VRING_CALL", link.set_vring_call(index, &queue.call))?;
        ask("SET_VRING_KICK", link.set_vring_kick(index, &queue.kick))?;
        ask("SET_VRING_ENABLE", link.set_vring_enable(index, true))
    }

    /// Runs `exchange`; nothing inside the vhost crate ends a read that is never answered, so a
    /// watch closes the connection then.
    fn with_limit<T>(&mut self, exchange: impl FnOnce(&mut Self) -> Asked<T>) -> Asked<T> {
        let socket = self
            .socket
            .try_clone()
            .map_err(|source| Error::Memory(source.to_string()))?;
        let (answered, waiting) = channel::<()>();
        let watch = thread::spawn(move || {
            let late = waiting.recv_timeout(REPLY_LIMIT) == Err(RecvTimeoutError::Timeout);
            late && socket.shutdown(Shutdown::Both).is_ok()
        });
        let outcome = exchange(self);
        drop(answered);
        if watch.join().unwrap_or(false) {
            return Err(Error::NoReply(REPLY_LIMIT));
        }
        outcome
    }
}
