//! The region in which the back-end writes down what is in flight (INFLIGHT_SHMFD), as QEMU keeps
//! it: it is handed to the next back-end and never looked into, except by tests that spoil it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend};

/// A region, its file, and what is said about it.
pub struct Inflight {
    /// Its file.
    pub file: File,
    /// As SET_INFLIGHT_FD will say: the length.
    pub mmap_size: u64,
    /// As SET_INFLIGHT_FD will say: where the region starts in the file.
    pub mmap_offset: u64,
    /// As SET_INFLIGHT_FD will say: how many queues.
    pub num_queues: u16,
    /// As SET_INFLIGHT_FD will say: the size of their rings.
    pub queue_size: u16,
}

impl Inflight {
    /// Has the back-end make a region (GET_INFLIGHT_FD).
    ///
    /// # Errors
    /// When it refuses, or closes the connection.
    pub fn get(link: &mut Frontend, num_queues: u16, queue_size: u16) -> vhost::Result<Self> {
        let wanted = VhostUserInflight::new(0, 0, num_queues, queue_size);
        let (region, file) = VhostUserFrontend::get_inflight_fd(link, &wanted)?;
        Ok(Self {
            file,
            mmap_size: region.mmap_size,
            mmap_offset: region.mmap_offset,
            num_queues: region.num_queues,
            queue_size: region.queue_size,
        })
    }

    /// Hands it to a back-end, the same or another (SET_INFLIGHT_FD).
    ///
    /// # Errors
    /// When that refuses it, or closes the connection.
    pub fn set(&self, link: &mut Frontend) -> vhost::Result<()> {
        let region = VhostUserInflight::new(
            self.mmap_size,
            self.mmap_offset,
            self.num_queues,
            self.queue_size,
        );
        link.set_inflight_fd(&region, self.file.as_raw_fd())
    }

    /// Where the part of a queue starts in the file.
    pub fn queue_offset(&self, queue: u16) -> u64 {
        let queue_bytes = (16 + 16 * u64::from(self.queue_size)).next_multiple_of(64);
        self.mmap_offset + u64::from(queue) * queue_bytes
    }

    /// Writes to the part of a queue.
    ///
    /// # Panics
    /// When it is not in the file.
    pub fn write(&self, queue: u16, offset: u64, bytes: &[u8]) {
        let at = self.queue_offset(queue) + offset;
        self.file.write_all_at(bytes, at).expect("in the region");
    }

    /// Reads from the part of a queue.
    ///
    /// # Panics
    /// When it is not in the file.
    pub fn read<const N: usize>(&self, queue: u16, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let at = self.queue_offset(queue) + offset;
        self.file
            .read_exact_at(&mut bytes, at)
            .expect("in the region");
        bytes
    }

    /// How many descriptors of a queue are marked as in flight.
    pub fn marked(&self, queue: u16) -> usize {
        let entries = 0..u64::from(self.queue_size);
        entries
            .filter(|entry| self.read::<1>(queue, 16 + 16 * entry) != [0])
            .count()
    }
}
