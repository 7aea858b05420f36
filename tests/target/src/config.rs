//! What a target is: names, LUNs, limits, and how it negotiates. Plain structs with defaults.

use crate::chap::{BinaryEncoding, ChapAlgorithm, Secret};
use crate::disk::Disk;
use crate::scsi::sense::Sense;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Everything about a target that does not change while it runs.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Where to listen. Default 127.0.0.1, any free port.
    pub listen: SocketAddr,
    /// Names it answers to; all have the same LUNs. Default one:
    /// `iqn.2026-11.org.example:test-target`.
    pub target_names: Vec<String>,
    /// Target portal group tag. Default 1.
    pub portal_group_tag: u16,
    /// LUNs by number, 0 to 16383. Default: LUN 0, 64 MiB.
    pub luns: BTreeMap<u16, LunConfig>,
    /// How REPORT LUNS writes numbers below 256; larger ones are always flat.
    pub lun_addressing: LunAddressing,
    /// CHAP demanded of the initiator in every session. Default: none.
    pub chap: Option<ChapConfig>,
    /// What it answers to the operational keys.
    pub negotiation: Negotiation,
    /// How it sends its answers in the full-feature phase.
    pub delivery: Delivery,
    /// Further targets named by SendTargets, each with portals as `address,tag` text; nothing
    /// serves them. For long answers and for portals that cannot be reached.
    pub advertised: Vec<(String, Vec<String>)>,
    /// Portals of its own names in SendTargets, as `address,tag` text. Default: where it listens.
    pub advertised_portals: Option<Vec<String>>,
    /// Whether events are kept for `TestTarget::events` and its kin. Default true; false makes room
    /// for speed where nobody asks.
    pub keep_events: bool,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            target_names: vec!["iqn.2026-11.org.example:test-target".to_owned()],
            portal_group_tag: 1,
            luns: BTreeMap::from([(0, LunConfig::default())]),
            lun_addressing: LunAddressing::default(),
            chap: None,
            negotiation: Negotiation::default(),
            delivery: Delivery::default(),
            advertised: Vec::new(),
            advertised_portals: None,
            keep_events: true,
        }
    }
}

/// LUN address formats (SAM-5 section 4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LunAddressing {
    /// Peripheral device addressing below 256, flat from there on.
    #[default]
    Peripheral,
    /// Flat space addressing for every number.
    Flat,
}

/// CHAP as the target demands and answers it.
#[derive(Clone, Debug)]
pub struct ChapConfig {
    /// The name the initiator must give.
    pub user: String,
    /// The initiator's secret.
    pub secret: Secret,
    /// Name and secret with which the target answers a challenge of the initiator (mutual CHAP).
    /// Without one, such a challenge fails the login with 0201.
    pub mutual: Option<(String, Secret)>,
    /// Algorithms it accepts; of these the first in the initiator's list is taken. Default: all.
    pub algorithms: Vec<ChapAlgorithm>,
    /// How it writes its challenge and answer.
    pub encoding: BinaryEncoding,
    /// Length of its challenge. Default 16 bytes; RFC 7143 allows up to 1024.
    pub challenge_bytes: usize,
}

impl ChapConfig {
    /// One-way CHAP with every algorithm.
    pub fn new(user: impl Into<String>, secret: Secret) -> Self {
        Self {
            user: user.into(),
            secret,
            mutual: None,
            algorithms: ChapAlgorithm::ALL.to_vec(),
            encoding: BinaryEncoding::Hex,
            challenge_bytes: 16,
        }
    }

    /// The same with an answer of its own to the initiator's challenge.
    #[must_use]
    pub fn mutual(mut self, user: impl Into<String>, secret: Secret) -> Self {
        self.mutual = Some((user.into(), secret));
        self
    }
}

/// How a digest key is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestPolicy {
    /// Only None.
    Refuse,
    /// The first of the initiator's list.
    #[default]
    Allow,
    /// Only CRC32C; a list without it, and a login without the key, fail.
    Require,
}

/// The target's side of the operational negotiation (RFC 7143 section 13).
#[derive(Clone, Debug)]
pub struct Negotiation {
    /// HeaderDigest.
    pub header_digest: DigestPolicy,
    /// DataDigest.
    pub data_digest: DigestPolicy,
    /// The MaxRecvDataSegmentLength it declares, bytes. `None` declares nothing, which means 8192.
    pub max_recv_data_segment_length: Option<u32>,
    /// MaxBurstLength, bytes; the smaller of both sides counts.
    pub max_burst_length: u32,
    /// FirstBurstLength, bytes; the smaller of both sides counts.
    pub first_burst_length: u32,
    /// InitialR2T; Yes on either side makes it Yes.
    pub initial_r2t: bool,
    /// ImmediateData; No on either side makes it No.
    pub immediate_data: bool,
    /// MaxOutstandingR2T; the smaller of both sides counts.
    pub max_outstanding_r2t: u32,
    /// DefaultTime2Wait, seconds; the larger of both sides counts.
    pub default_time2wait: u32,
    /// DefaultTime2Retain, seconds; the smaller of both sides counts.
    pub default_time2retain: u32,
    /// ErrorRecoveryLevel; the smaller of both sides counts. Only level 0 is really served.
    pub error_recovery_level: u32,
    /// How many commands the CmdSN window holds. Default 64.
    pub cmd_sn_window: u32,
    /// Splits every login answer into texts of this many bytes, all but the last with the C bit.
    pub answer_chunk_bytes: Option<usize>,
    /// Keys put at the end of its first operational answer although nobody asked.
    pub extra_keys: Vec<(String, String)>,
}

impl Default for Negotiation {
    fn default() -> Self {
        Self {
            header_digest: DigestPolicy::default(),
            data_digest: DigestPolicy::default(),
            max_recv_data_segment_length: Some(262_144),
            max_burst_length: 1 << 20,
            first_burst_length: 65_536,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 8,
            default_time2wait: 2,
            default_time2retain: 0,
            error_recovery_level: 0,
            cmd_sn_window: 64,
            answer_chunk_bytes: None,
            extra_keys: Vec::new(),
        }
    }
}

/// How answers are put into PDUs.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Good status rides on the last Data-In (S bit). Default true; false sends it separately.
    pub status_with_data: bool,
    /// Largest Data-In payload, bytes, within what the initiator takes. Default: all it takes.
    pub data_in_bytes: Option<usize>,
    /// Largest single R2T, bytes, within MaxBurstLength. Default: MaxBurstLength.
    pub r2t_bytes: Option<u32>,
    /// Largest text response payload, bytes, within what the initiator takes.
    pub text_bytes: Option<usize>,
    /// Sends a NOP-In that wants an answer after every so many commands.
    pub ping_every_commands: Option<u32>,
    /// An additional header segment on every PDU it sends in the full-feature phase; at most 1020
    /// bytes. It should start with the length and type of RFC 7143 section 11.2.2.
    pub additional_header: Vec<u8>,
    /// CHECK CONDITION carries descriptor format sense instead of fixed.
    pub descriptor_sense: bool,
    /// The largest expected data transfer length that it takes, bytes; beyond that a command gets
    /// CHECK CONDITION 05/24/00. Default 32 MiB.
    pub max_transfer_bytes: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            status_with_data: true,
            data_in_bytes: None,
            r2t_bytes: None,
            text_bytes: None,
            ping_every_commands: None,
            additional_header: Vec::new(),
            descriptor_sense: false,
            max_transfer_bytes: 32 << 20,
        }
    }
}

/// One logical unit.
#[derive(Clone, Debug)]
pub struct LunConfig {
    /// Capacity, bytes; what does not fill a block is left out. 0 is a LUN of zero capacity, to
    /// which READ CAPACITY answers as if the last block were number 0xffff… of a wrapped count.
    pub capacity_bytes: u64,
    /// Logical block length: 512 or 4096 (any power of two from 512 works).
    pub block_bytes: u32,
    /// Logical blocks per physical block, as a power of two.
    pub physical_exponent: u8,
    /// The lowest block that starts a physical block.
    pub lowest_aligned_block: u16,
    /// Thin provisioning; `None` is a fully provisioned LUN without UNMAP.
    pub thin: Option<Thin>,
    /// WCE in the caching page.
    pub write_cache: bool,
    /// DPOFUA in the mode parameter header: FUA is understood. Without it FUA is an error.
    pub dpo_fua: bool,
    /// Write protected: every write ends with 07/27/00.
    pub write_protected: bool,
    /// VPD page 80h, byte for byte: padding is yours. Default `TT` and the LUN's number.
    pub serial: Option<String>,
    /// VPD page 83h. Default: one NAA designator made from the target's name and the LUN.
    pub designators: Option<Vec<Designator>>,
    /// VPD page B0h.
    pub limits: BlockLimits,
    /// VPD page B1h, medium rotation rate: 1 is not rotating, 0 not reported.
    pub rotation_rate: u16,
    /// Peripheral device type: 0 disk, 5 CD, 0x0c controller, 0x1f none.
    pub device_type: u8,
    /// Operation codes it does not know, beside those nobody serves: answered with 05/20/00.
    /// See [`opcode`] for names.
    pub refused_opcodes: Vec<u8>,
    /// VPD pages it does not have: left out of page 00h and answered with 05/24/00.
    pub refused_vpd_pages: Vec<u8>,
    /// Unit attentions delivered one per command, to whoever comes first. INQUIRY, REPORT LUNS and
    /// REQUEST SENSE pass them by.
    pub unit_attentions: Vec<Sense>,
    /// The store. Default: a sparse one of up to 1 GiB. Give the `Arc` of another target's LUN
    /// (see `TestTarget::disk`) to go on with its data, or [`Disk::null`].
    pub disk: Option<Arc<Disk>>,
}

impl Default for LunConfig {
    fn default() -> Self {
        Self {
            capacity_bytes: 64 << 20,
            block_bytes: 512,
            physical_exponent: 3,
            lowest_aligned_block: 0,
            thin: None,
            write_cache: true,
            dpo_fua: true,
            write_protected: false,
            serial: None,
            designators: None,
            limits: BlockLimits::default(),
            rotation_rate: 1,
            device_type: 0,
            refused_opcodes: Vec::new(),
            refused_vpd_pages: Vec::new(),
            unit_attentions: Vec::new(),
            disk: None,
        }
    }
}

impl LunConfig {
    /// A disk of this capacity, bytes; all else as by default.
    pub fn of_bytes(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            ..Self::default()
        }
    }
}

/// What a thin LUN says of itself (SBC-4: READ CAPACITY(16) and VPD page B2h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are the standard's own bits"
)]
pub struct Thin {
    /// LBPRZ: unmapped blocks read as zeros (they do here whatever this says).
    pub reads_zeros: bool,
    /// LBPU: UNMAP is served.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) with UNMAP is served.
    pub write_same: bool,
    /// LBPWS10: WRITE SAME(10) with UNMAP is served.
    pub write_same_10: bool,
}

impl Default for Thin {
    fn default() -> Self {
        Self {
            reads_zeros: true,
            unmap: true,
            write_same: true,
            write_same_10: true,
        }
    }
}

/// VPD page B0h, in its own units; 0 means "not reported" (SBC-4 section 6.6.4).
#[derive(Clone, Debug)]
pub struct BlockLimits {
    /// OPTIMAL TRANSFER LENGTH GRANULARITY, blocks.
    pub optimal_granularity_blocks: u16,
    /// MAXIMUM TRANSFER LENGTH, blocks. Reads and writes beyond it end with 05/24/00.
    pub max_transfer_blocks: u32,
    /// OPTIMAL TRANSFER LENGTH, blocks.
    pub optimal_transfer_blocks: u32,
    /// MAXIMUM UNMAP LBA COUNT, blocks. Enforced with 05/26/00.
    pub max_unmap_blocks: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT. Enforced with 05/26/00.
    pub max_unmap_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY, blocks.
    pub unmap_granularity_blocks: u32,
    /// UNMAP GRANULARITY ALIGNMENT, blocks; `None` clears UGAVALID.
    pub unmap_alignment_blocks: Option<u32>,
    /// MAXIMUM WRITE SAME LENGTH, blocks. Enforced with 05/24/00.
    pub max_write_same_blocks: u64,
    /// WSNZ: a WRITE SAME of 0 blocks is refused instead of meaning "to the end".
    pub write_same_non_zero: bool,
    /// MAXIMUM COMPARE AND WRITE LENGTH, blocks.
    pub max_compare_and_write_blocks: u8,
}

impl Default for BlockLimits {
    fn default() -> Self {
        Self {
            optimal_granularity_blocks: 8,
            max_transfer_blocks: 0,
            optimal_transfer_blocks: 128,
            max_unmap_blocks: 1 << 20,
            max_unmap_descriptors: 64,
            unmap_granularity_blocks: 128,
            unmap_alignment_blocks: Some(0),
            max_write_same_blocks: 1 << 20,
            write_same_non_zero: false,
            max_compare_and_write_blocks: 8,
        }
    }
}

/// A designator of VPD page 83h (SPC-5 section 7.7.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designator {
    /// Code set: 1 binary, 2 ASCII, 3 UTF-8.
    pub code_set: u8,
    /// Association: 0 logical unit, 1 target port, 2 target device.
    pub association: u8,
    /// Designator type: 0 vendor, 1 T10, 2 EUI-64, 3 NAA, 4 relative port, 8 SCSI name.
    pub kind: u8,
    /// The designator; at most 255 bytes of it are used.
    pub bytes: Vec<u8>,
}

/// SCSI operation codes by name, for scripts and [`LunConfig::refused_opcodes`].
pub mod opcode {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const WRITE_AND_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const PRE_FETCH_10: u8 = 0x34;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const COMPARE_AND_WRITE: u8 = 0x89;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_AND_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const PRE_FETCH_16: u8 = 0x90;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    /// READ CAPACITY(16) and GET LBA STATUS.
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const WRITE_AND_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
}
