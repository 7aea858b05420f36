//! A probe's report for programs. The names of the fields are a promise: none is renamed.

use iscsi_core::disk::facts::{CommandWidth, LunFacts};
use serde::Serialize;

use super::probe_text::{capacity_bytes, designator_name, physical_block_length_bytes};
use super::to_json;
use crate::exit::Failure;
use crate::report::{GuestView, NegotiatedKeys, ProbeReport};

/// One JSON document with the objects `session`, `negotiated`, `lun`, `limits` and `guest`.
///
/// Fields end in their unit; `null` stands for what the target does not tell. Control
/// characters in the target's text are escaped as JSON does it.
pub fn render_probe_json(report: &ProbeReport) -> Result<String, Failure> {
    to_json(&Document {
        session: session(report),
        negotiated: NegotiatedKeys::of(&report.negotiated, report.command_window),
        lun: lun(report),
        limits: limits(&report.facts),
        guest: guest(&report.guest),
    })
}

#[derive(Serialize)]
struct Document<'a> {
    session: Session<'a>,
    negotiated: NegotiatedKeys,
    lun: Lun<'a>,
    limits: Limits,
    guest: Guest,
}

#[derive(Serialize)]
struct Session<'a> {
    portal: String,
    address: String,
    redirects: Vec<String>,
    target: &'a str,
    target_alias: Option<&'a str>,
    target_portal_group_tag: Option<u16>,
    tsih: u16,
    initiator_name: &'a str,
    authentication: &'a str,
}

fn session(report: &ProbeReport) -> Session<'_> {
    Session {
        portal: report.portal.to_string(),
        address: report.address.to_string(),
        redirects: report.redirects.iter().map(ToString::to_string).collect(),
        target: report.target.as_str(),
        target_alias: report.negotiated.target_alias.as_deref(),
        target_portal_group_tag: report.negotiated.target_portal_group_tag,
        tsih: report.negotiated.tsih,
        initiator_name: report.initiator_name.as_str(),
        authentication: &report.negotiated.authentication,
    }
}

#[derive(Serialize)]
struct Lun<'a> {
    lun: u16,
    luns: &'a [u16],
    vendor: &'a str,
    product: &'a str,
    revision: &'a str,
    serial: String,
    designators: Vec<String>,
    capacity_bytes: u64,
    capacity_blocks: u64,
    block_length_bytes: u32,
    physical_block_length_bytes: u64,
    lowest_aligned_block: u16,
    rotates: Option<bool>,
    write_protected: bool,
    write_cache: bool,
    fua: bool,
    thin: bool,
    reads_zeros: bool,
    unmap: bool,
    write_same_unmap: bool,
    command_width: u8,
    sync_cache_width: u8,
}

fn lun(report: &ProbeReport) -> Lun<'_> {
    let facts = &report.facts;
    Lun {
        lun: report.lun,
        luns: &report.luns,
        vendor: &facts.vendor,
        product: &facts.product,
        revision: &facts.revision,
        serial: String::from_utf8_lossy(&facts.identity.serial).into_owned(),
        designators: facts
            .identity
            .designators
            .iter()
            .map(designator_name)
            .collect(),
        capacity_bytes: capacity_bytes(facts),
        capacity_blocks: facts.capacity_blocks,
        block_length_bytes: facts.block_length_bytes,
        physical_block_length_bytes: physical_block_length_bytes(facts),
        lowest_aligned_block: facts.lowest_aligned_block,
        rotates: facts.rotates,
        write_protected: facts.write_protected,
        write_cache: facts.write_cache,
        fua: facts.fua,
        thin: facts.provisioning.thin,
        reads_zeros: facts.provisioning.reads_zeros,
        unmap: facts.provisioning.unmap,
        write_same_unmap: facts.provisioning.write_same_unmap,
        command_width: cdb_length_bytes(facts.width),
        sync_cache_width: cdb_length_bytes(facts.sync_cache),
    }
}

fn cdb_length_bytes(width: CommandWidth) -> u8 {
    match width {
        CommandWidth::Ten => 10,
        CommandWidth::Sixteen => 16,
    }
}

#[derive(Serialize)]
struct Limits {
    max_transfer_blocks: Option<u32>,
    optimal_transfer_blocks: Option<u32>,
    optimal_granularity_blocks: Option<u16>,
    max_unmap_blocks: Option<u32>,
    unmap_granularity_blocks: Option<u32>,
    unmap_alignment_blocks: Option<u32>,
    max_write_same_blocks: Option<u64>,
}

fn limits(facts: &LunFacts) -> Limits {
    let limits = &facts.limits;
    Limits {
        max_transfer_blocks: limits.max_transfer_blocks,
        optimal_transfer_blocks: limits.optimal_transfer_blocks,
        optimal_granularity_blocks: limits.optimal_granularity_blocks,
        max_unmap_blocks: limits.max_unmap_blocks,
        unmap_granularity_blocks: limits.unmap_granularity_blocks,
        unmap_alignment_blocks: limits.unmap_alignment_blocks,
        max_write_same_blocks: limits.max_write_same_blocks,
    }
}

#[derive(Serialize)]
struct Guest {
    capacity_sectors: u64,
    block_length_bytes: u32,
    physical_block_length_bytes: u64,
    optimal_io_length_bytes: u64,
    read_only: bool,
    write_cache: bool,
    discard: bool,
    write_zeroes: bool,
    serial: String,
}

fn guest(guest: &GuestView) -> Guest {
    Guest {
        capacity_sectors: guest.capacity_sectors,
        block_length_bytes: guest.block_length_bytes,
        physical_block_length_bytes: guest.physical_block_length_bytes,
        optimal_io_length_bytes: guest.optimal_io_length_bytes,
        read_only: guest.read_only,
        write_cache: guest.write_cache,
        discard: guest.discard,
        write_zeroes: guest.write_zeroes,
        serial: String::from_utf8_lossy(&guest.serial).into_owned(),
    }
}
