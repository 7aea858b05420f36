//! Facts of made-up disks, and what is asked of them, for tests.

use alloc::string::String;
use alloc::vec;

use super::facts::{BlockLimits, CommandWidth, Designator, Identity, LunFacts, Provisioning};
use super::request::BlockOperation;

/// A write that may stay in the disk's cache.
pub(crate) const WRITE: BlockOperation = BlockOperation::Write { stable: false };
/// One that may not.
pub(crate) const STABLE_WRITE: BlockOperation = BlockOperation::Write { stable: true };
/// Zeros, for which blocks may be deallocated.
pub(crate) const ZEROES: BlockOperation = BlockOperation::WriteZeroes {
    unmap: true,
    stable: false,
};

/// A disk of `capacity_blocks` that reports no limits and can do nothing special.
pub(crate) fn disk(block_length_bytes: u32, capacity_blocks: u64) -> LunFacts {
    let value = vec![0x60, 0x01, 0x40, 0x5a, 0, 0, 0, 1];
    LunFacts {
        identity: Identity {
            designators: vec![Designator {
                code_set: 1,
                kind: 3,
                value,
            }],
            serial: b"beaf11".to_vec(),
            block_length_bytes,
        },
        vendor: String::from("IET"),
        product: String::from("VIRTUAL-DISK"),
        revision: String::from("0001"),
        block_length_bytes,
        capacity_blocks,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        write_protected: false,
        write_cache: true,
        fua: false,
        width: CommandWidth::Sixteen,
        sync_cache: CommandWidth::Sixteen,
        provisioning: Provisioning::default(),
        limits: BlockLimits::default(),
        rotates: None,
    }
}

/// The same disk, thin, with all that a thin disk can do.
pub(crate) fn thin_disk(block_length_bytes: u32, capacity_blocks: u64) -> LunFacts {
    let provisioning = Provisioning {
        thin: true,
        reads_zeros: true,
        unmap: true,
        write_same_unmap: true,
    };
    LunFacts {
        provisioning,
        ..disk(block_length_bytes, capacity_blocks)
    }
}
