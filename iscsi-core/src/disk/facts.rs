//! What is known about a logical unit: found by the probe, used for limits and configuration.

use alloc::string::String;
use alloc::vec::Vec;

/// Everything that the probe learned about a disk.
///
/// Lengths named `_blocks` are in logical blocks of the LUN, not in sectors. A limit of `None`
/// means that the LUN reports none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LunFacts {
    /// Who the disk is, whatever path leads to it.
    pub identity: Identity,
    /// INQUIRY: vendor, product and revision, blanks trimmed.
    pub vendor: String,
    /// See `vendor`.
    pub product: String,
    /// See `vendor`.
    pub revision: String,
    /// The logical block length: 512 or 4096 bytes.
    pub block_length_bytes: u32,
    /// How many logical blocks there are; never 0.
    pub capacity_blocks: u64,
    /// A physical block is 2^this logical blocks (READ CAPACITY(16)).
    pub physical_block_exponent: u8,
    /// The first logical block that starts a physical one (READ CAPACITY(16)).
    pub lowest_aligned_block: u16,
    /// The medium may not be written (MODE SENSE, WP).
    pub write_protected: bool,
    /// There is a volatile write cache (MODE SENSE caching page, WCE). When the page cannot be
    /// had this is true: SYNCHRONIZE CACHE is then sent rather than left out.
    pub write_cache: bool,
    /// READ and WRITE take FUA (MODE SENSE, DPOFUA).
    pub fua: bool,
    /// Which READ and WRITE to use.
    pub width: CommandWidth,
    /// Which SYNCHRONIZE CACHE to use.
    pub sync_cache: CommandWidth,
    /// Logical block provisioning: what UNMAP and WRITE SAME can do.
    pub provisioning: Provisioning,
    /// VPD page B0.
    pub limits: BlockLimits,
    /// VPD page B1: whether the medium rotates; `None` when it does not say.
    pub rotates: Option<bool>,
}

/// Whether commands carry 10-byte or 16-byte descriptor blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandWidth {
    /// READ(10), WRITE(10): READ CAPACITY(16) was refused, the disk is below 2 TiB.
    Ten,
    /// READ(16), WRITE(16).
    Sixteen,
}

/// Who a disk is (SPC-5, "Device Identification VPD page" and "Unit Serial Number VPD page").
///
/// [`Identity::same_disk`] says when two of them are the same disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// VPD 0x83 designators with association "logical unit", each as code set, type and value.
    pub designators: Vec<Designator>,
    /// VPD 0x80, blanks trimmed on both sides; empty when the LUN has none.
    pub serial: Vec<u8>,
    /// The logical block length.
    pub block_length_bytes: u32,
}

/// One designator of VPD page 0x83.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Designator {
    /// Code set: 1 binary, 2 ASCII, 3 UTF-8.
    pub code_set: u8,
    /// Designator type: 1 T10 vendor id, 2 EUI-64, 3 NAA, 8 SCSI name string, …
    pub kind: u8,
    /// The designator itself.
    pub value: Vec<u8>,
}

/// Logical block provisioning (READ CAPACITY(16) and VPD page B2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provisioning {
    /// LBPME: the LUN is thin.
    pub thin: bool,
    /// LBPRZ: unmapped blocks read as zeros.
    pub reads_zeros: bool,
    /// LBPU: UNMAP works, and its limit is not 0.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) with the UNMAP bit works.
    pub write_same_unmap: bool,
}

/// VPD page B0; `None` where the LUN reports no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// Maximum transfer length of a READ or WRITE.
    pub max_transfer_blocks: Option<u32>,
    /// Optimal transfer length.
    pub optimal_transfer_blocks: Option<u32>,
    /// Optimal transfer length granularity.
    pub optimal_granularity_blocks: Option<u16>,
    /// Maximum UNMAP LBA count; 0 means that UNMAP is not implemented, `u32::MAX` that there is no
    /// limit.
    pub max_unmap_blocks: Option<u32>,
    /// Optimal UNMAP granularity.
    pub unmap_granularity_blocks: Option<u32>,
    /// UNMAP granularity alignment, when valid.
    pub unmap_alignment_blocks: Option<u32>,
    /// Maximum WRITE SAME length.
    pub max_write_same_blocks: Option<u64>,
}
