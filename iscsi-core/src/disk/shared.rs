//! What the sessions of one disk have in common. Everything else of a session is its own.

use alloc::sync::Arc;

use super::barrier::Barrier;
use super::durability::Durability;

/// Shared by the [`Requests`](super::requests::Requests) of all sessions of a disk, without a lock.
#[derive(Debug, Default)]
pub struct SharedDisk {
    /// Sessions that may have left tasks at the target. Disks that share sessions share it, too.
    pub barrier: Arc<Barrier>,
    /// Writes that were called good and may be lost.
    pub durability: Durability,
}
