//! A block request: what a virtio-blk queue asks for, in bytes, checked against nothing yet.

/// The unit of virtio-blk addresses: 512 bytes, whatever the block size of the LUN
/// (virtio 1.2 section 5.2.6).
pub const SECTOR_LENGTH_BYTES: u64 = 512;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOperation {
    /// Read the extent into the request's buffer.
    Read,
    /// Write the extent from the request's buffer. When `stable`, it completes only when the data
    /// would survive a loss of power (the driver runs without FLUSH, or with writeback 0).
    Write {
        /// Whether completion means stable.
        stable: bool,
    },
    /// Make every write completed so far stable. The extent is ignored.
    Flush,
    /// The guest no longer needs the extent: deallocate what can be deallocated.
    Discard,
    /// Fill the extent with zeros.
    WriteZeroes {
        /// Whether the target may deallocate, as long as zeros are read back.
        unmap: bool,
        /// Whether completion means stable.
        stable: bool,
    },
}

/// A run of bytes on the disk. Nothing is promised about alignment or bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first sector, in units of [`SECTOR_LENGTH_BYTES`], as the guest gave it.
    pub sector: u64,
    /// The length in bytes.
    pub length_bytes: u64,
}
