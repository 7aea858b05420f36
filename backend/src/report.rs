//! What the verbs found out, as plain data: made by `control`, rendered by `cli`.

use std::net::SocketAddr;

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::limits::DeviceLimits;
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::name::IscsiName;
use serde::{Deserialize, Serialize};

use crate::portal::Portal;

/// One portal of one target, from an answer to SendTargets (RFC 7143 appendix C).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredPortal {
    /// TargetName.
    pub target: IscsiName,
    /// Host and port of TargetAddress.
    pub portal: Portal,
    /// Portal group tag of TargetAddress.
    pub portal_group_tag: u16,
}

/// What one login and one look at a LUN found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The portal as the URL names it.
    pub portal: Portal,
    /// Where the session ended up after name look-up and redirects.
    pub address: SocketAddr,
    /// Where the target sent us, in this order; empty without a redirect.
    pub redirects: Vec<Portal>,
    /// Who we were.
    pub initiator_name: IscsiName,
    /// The target.
    pub target: IscsiName,
    /// The logical unit.
    pub lun: u16,
    /// What the login agreed on.
    pub negotiated: Negotiated,
    /// How many commands the target takes at once, as it said last.
    pub command_window: u32,
    /// What the LUN says of itself.
    pub facts: LunFacts,
    /// REPORT LUNS: every logical unit of the target, in its order.
    pub luns: Vec<u16>,
    /// What a guest would get to see.
    pub guest: GuestView,
}

/// What a login agreed on, for programs: the names of the fields are a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is named as in RFC 7143 section 13")]
pub struct NegotiatedKeys {
    /// `None` or `CRC32C`.
    pub header_digest: String,
    /// `None` or `CRC32C`.
    pub data_digest: String,
    /// What the target may send us in one PDU.
    pub max_recv_data_segment_length_bytes: u32,
    /// What we may send the target in one PDU.
    pub target_max_recv_data_segment_length_bytes: u32,
    pub max_burst_length_bytes: u32,
    pub first_burst_length_bytes: u32,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    pub max_outstanding_r2t: u16,
    pub max_connections: u16,
    pub error_recovery_level: u8,
    pub data_pdu_in_order: bool,
    pub data_sequence_in_order: bool,
    pub default_time2wait_s: u16,
    pub default_time2retain_s: u16,
    /// How many commands the target took at once when the LUN had been probed.
    pub command_window: u32,
}

impl NegotiatedKeys {
    /// Of a session with this command window.
    pub fn of(session: &Negotiated, command_window: u32) -> Self {
        let digest = |is_on| if is_on { "CRC32C" } else { "None" }.to_owned();
        Self {
            header_digest: digest(session.header_digest),
            data_digest: digest(session.data_digest),
            max_recv_data_segment_length_bytes: session.max_recv_data_segment_length_bytes,
            target_max_recv_data_segment_length_bytes: session
                .target_max_recv_data_segment_length_bytes,
            max_burst_length_bytes: session.max_burst_length_bytes,
            first_burst_length_bytes: session.first_burst_length_bytes,
            initial_r2t: session.initial_r2t,
            immediate_data: session.immediate_data,
            max_outstanding_r2t: session.max_outstanding_r2t,
            max_connections: session.max_connections,
            error_recovery_level: session.error_recovery_level,
            data_pdu_in_order: session.data_pdu_in_order,
            data_sequence_in_order: session.data_sequence_in_order,
            default_time2wait_s: session.default_time2wait_s,
            default_time2retain_s: session.default_time2retain_s,
            command_window,
        }
    }
}

/// The virtio-blk device that would be made of the LUN (virtio 1.2 section 5.2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestView {
    /// `capacity`, in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// `blk_size`.
    pub block_length_bytes: u32,
    /// `blk_size` times 2^`physical_block_exp`.
    pub physical_block_length_bytes: u64,
    /// `opt_io_size` in bytes; 0 when there is no hint.
    pub optimal_io_length_bytes: u64,
    /// VIRTIO_BLK_F_RO.
    pub read_only: bool,
    /// `writeback`.
    pub write_cache: bool,
    /// VIRTIO_BLK_F_DISCARD.
    pub discard: bool,
    /// VIRTIO_BLK_F_WRITE_ZEROES.
    pub write_zeroes: bool,
    /// What VIRTIO_BLK_T_GET_ID answers, without padding.
    pub serial: Vec<u8>,
}

impl GuestView {
    /// What a guest sees of the disk, as the configuration space will tell it.
    pub fn of(facts: &LunFacts, device_id: &[u8]) -> Self {
        let limits = DeviceLimits::of(facts);
        let block_length_bytes = u64::from(limits.block_length_bytes);
        let serial = device_id
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        Self {
            capacity_sectors: limits.capacity_sectors,
            block_length_bytes: limits.block_length_bytes,
            physical_block_length_bytes: block_length_bytes << limits.physical_block_exponent,
            optimal_io_length_bytes: u64::from(limits.optimal_io_blocks) * block_length_bytes,
            read_only: limits.read_only,
            write_cache: limits.has_volatile_cache,
            discard: limits.discard.is_some(),
            write_zeroes: limits.write_zeroes.is_some(),
            serial: serial.to_vec(),
        }
    }
}
