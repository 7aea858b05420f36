//! What a seed decides before it starts: the disk, the sessions, the load.

use iscsi_core::disk::facts::{BlockLimits, CommandWidth, Identity, LunFacts, Provisioning};
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::sequence::SerialNumber;

use crate::faults::Chaos;
use crate::rng::Rng;
use crate::target::Terms;

/// The world of one seed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many sessions the disk has.
    pub lanes: usize,
    /// The size of the disk. Small, so that requests meet.
    pub sectors: usize,
    /// How many requests each lane has in flight at most.
    pub depth: usize,
    /// The longest request.
    pub max_request_sectors: u64,
    /// How many requests are made.
    pub requests: usize,
    /// How long a command may take.
    pub command_timeout_ms: u64,
    /// How long a request is tried again; without it for ever.
    pub patience_ms: Option<u64>,
    /// An abort in vain is followed by a LOGICAL UNIT RESET.
    pub resets_after_abort: bool,
    /// What the initiator knows of the disk.
    pub facts: LunFacts,
    is_tiny: bool,
}

impl Settings {
    /// By choice of `rng`.
    pub fn new(rng: &mut Rng) -> Self {
        let sectors = rng.between(64, 512) as usize;
        Self {
            lanes: rng.between(1, 4) as usize,
            sectors,
            depth: rng.pick(&[1, 4, 16, 32]),
            max_request_sectors: rng.pick(&[2, 16, 64]),
            requests: rng.between(500, 700) as usize,
            command_timeout_ms: rng.pick(&[5_000, 20_000, 90_000]),
            patience_ms: rng.pick(&[None, None, None, Some(3_000)]),
            resets_after_abort: rng.chance(30),
            facts: facts(rng, sectors),
            is_tiny: rng.chance(40),
        }
    }

    /// What the next login agrees on.
    pub fn terms(&self, chaos: &mut Chaos) -> Terms {
        let rng = &mut chaos.rng;
        let (segments, bursts): (&[usize], &[usize]) = if self.is_tiny {
            (&[512, 700, 1_024], &[512, 1_024, 1_500])
        } else {
            (&[4_096, 8_192, 65_536], &[8_192, 65_536])
        };
        let max_burst = rng.pick(bursts);
        Terms {
            header_digest: rng.chance(60),
            data_digest: rng.chance(60),
            initiator_segment: rng.pick(segments),
            target_segment: rng.pick(segments),
            max_burst,
            first_burst: rng.pick(bursts).min(max_burst),
            initial_r2t: rng.chance(50),
            immediate_data: rng.chance(50),
            max_r2ts: rng.between(1, 8) as usize,
            cmd_sn: rng.pick(&[1, u32::MAX - 20, (1 << 31) - 20]),
            stat_sn: rng.pick(&[1, u32::MAX - 20, (1 << 31) - 20]),
            window: rng.pick(&[1, 2, 16, 300]),
        }
    }
}

impl Terms {
    /// The same as the initiator's login would report it.
    pub fn negotiated(&self) -> Negotiated {
        let cmd_sn = SerialNumber(self.cmd_sn);
        Negotiated {
            header_digest: self.header_digest,
            data_digest: self.data_digest,
            max_recv_data_segment_length_bytes: self.initiator_segment as u32,
            target_max_recv_data_segment_length_bytes: self.target_segment as u32,
            max_burst_length_bytes: self.max_burst as u32,
            first_burst_length_bytes: self.first_burst as u32,
            initial_r2t: self.initial_r2t,
            immediate_data: self.immediate_data,
            max_outstanding_r2t: self.max_r2ts as u16,
            default_time2wait_s: 0,
            default_time2retain_s: 0,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            error_recovery_level: 0,
            max_connections: 1,
            target_alias: None,
            target_portal_group_tag: Some(1),
            tsih: 1,
            authentication: String::from("None"),
            cmd_sn,
            exp_cmd_sn: cmd_sn,
            max_cmd_sn: SerialNumber(cmd_sn.0.wrapping_add(self.window).wrapping_sub(1)),
            exp_stat_sn: SerialNumber(self.stat_sn),
        }
    }
}

fn facts(rng: &mut Rng, sectors: usize) -> LunFacts {
    let width = rng.pick(&[CommandWidth::Ten, CommandWidth::Sixteen]);
    let is_thin = rng.chance(70);
    LunFacts {
        identity: Identity {
            designators: Vec::new(),
            serial: b"sim".to_vec(),
            block_length_bytes: 512,
        },
        vendor: String::from("SIM"),
        product: String::from("MODEL"),
        revision: String::from("1"),
        block_length_bytes: 512,
        capacity_blocks: sectors as u64,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        write_protected: false,
        write_cache: rng.chance(70),
        fua: rng.chance(50),
        width,
        sync_cache: width,
        provisioning: Provisioning {
            thin: is_thin,
            reads_zeros: true,
            unmap: is_thin && rng.chance(50),
            write_same_unmap: is_thin && width == CommandWidth::Sixteen,
        },
        limits: BlockLimits {
            max_transfer_blocks: rng.pick(&[None, Some(4), Some(16)]),
            max_write_same_blocks: rng.pick(&[None, Some(8)]),
            max_unmap_blocks: rng.pick(&[None, Some(8)]),
            ..BlockLimits::default()
        },
        rotates: None,
    }
}
