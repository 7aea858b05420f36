//! A probe's report for people.

use iscsi_core::disk::facts::{CommandWidth, Designator, LunFacts};

use super::negotiated_text;
use super::table::{Rows, Table};
use super::units::{bytes, hex, yes_no};
use crate::report::{GuestView, NegotiatedKeys, ProbeReport};

/// Everything a probe found, in groups of aligned lines. Negotiated keys have their names of
/// RFC 7143; lengths have their units. Control characters of the target's text are escaped.
pub fn render_probe_text(report: &ProbeReport) -> String {
    let mut table = Table::default();
    table.group("Session", session(report));
    let keys = NegotiatedKeys::of(&report.negotiated, report.command_window);
    table.group("Negotiated", negotiated_text::rows(&keys));
    table.group("LUN", lun(report));
    table.group("Limits of the LUN", limits(&report.facts));
    table.group("What the guest sees", guest(&report.guest));
    table.render()
}

fn session(report: &ProbeReport) -> Rows {
    let session = &report.negotiated;
    let mut rows = vec![
        ("portal", report.portal.to_string()),
        ("address", report.address.to_string()),
        ("redirected to", list(&report.redirects)),
        ("target", report.target.to_string()),
        ("target alias", or_none(session.target_alias.clone())),
        ("portal group tag", or_none(session.target_portal_group_tag)),
        ("session handle (TSIH)", session.tsih.to_string()),
        ("initiator name", report.initiator_name.to_string()),
        ("authentication", session.authentication.clone()),
    ];
    rows.retain(|(label, _)| *label != "redirected to" || !report.redirects.is_empty());
    rows
}

fn lun(report: &ProbeReport) -> Rows {
    let facts = &report.facts;
    vec![
        ("LUN", report.lun.to_string()),
        ("LUNs of the target", list(&report.luns)),
        ("vendor", facts.vendor.clone()),
        ("product", facts.product.clone()),
        ("revision", facts.revision.clone()),
        (
            "serial (VPD 0x80)",
            String::from_utf8_lossy(&facts.identity.serial).into_owned(),
        ),
        (
            "designators (VPD 0x83)",
            designators(&facts.identity.designators),
        ),
        ("capacity", bytes(capacity_bytes(facts))),
        ("logical blocks", facts.capacity_blocks.to_string()),
        (
            "logical block length",
            bytes(facts.block_length_bytes.into()),
        ),
        (
            "physical block length",
            bytes(physical_block_length_bytes(facts)),
        ),
        (
            "lowest aligned block",
            facts.lowest_aligned_block.to_string(),
        ),
        ("medium", medium_name(facts.rotates).to_owned()),
        ("write protected", yes_no(facts.write_protected)),
        ("volatile write cache", yes_no(facts.write_cache)),
        ("FUA", yes_no(facts.fua)),
        ("thin", yes_no(facts.provisioning.thin)),
        (
            "unmapped blocks read as zeros",
            yes_no(facts.provisioning.reads_zeros),
        ),
        ("UNMAP", yes_no(facts.provisioning.unmap)),
        (
            "WRITE SAME(16) with UNMAP",
            yes_no(facts.provisioning.write_same_unmap),
        ),
        ("commands", command_names(facts)),
    ]
}

fn limits(facts: &LunFacts) -> Rows {
    let limits = &facts.limits;
    let blocks = |limit: Option<u64>| blocks(limit, facts.block_length_bytes);
    vec![
        (
            "transfer length",
            blocks(limits.max_transfer_blocks.map(u64::from)),
        ),
        (
            "optimal transfer length",
            blocks(limits.optimal_transfer_blocks.map(u64::from)),
        ),
        (
            "optimal granularity",
            blocks(limits.optimal_granularity_blocks.map(u64::from)),
        ),
        (
            "UNMAP length",
            blocks(limits.max_unmap_blocks.map(u64::from)),
        ),
        (
            "UNMAP granularity",
            blocks(limits.unmap_granularity_blocks.map(u64::from)),
        ),
        (
            "UNMAP alignment",
            blocks(limits.unmap_alignment_blocks.map(u64::from)),
        ),
        ("WRITE SAME length", blocks(limits.max_write_same_blocks)),
    ]
}

fn guest(guest: &GuestView) -> Rows {
    let optimal = match guest.optimal_io_length_bytes {
        0 => "no hint".to_owned(),
        length => bytes(length),
    };
    vec![
        (
            "capacity",
            format!("{} sectors of 512 bytes", guest.capacity_sectors),
        ),
        (
            "logical block length",
            bytes(guest.block_length_bytes.into()),
        ),
        (
            "physical block length",
            bytes(guest.physical_block_length_bytes),
        ),
        ("optimal I/O length", optimal),
        ("read-only", yes_no(guest.read_only)),
        (
            "write cache",
            if guest.write_cache {
                "writeback"
            } else {
                "writethrough"
            }
            .to_owned(),
        ),
        ("discard", yes_no(guest.discard)),
        ("write zeroes", yes_no(guest.write_zeroes)),
        (
            "serial",
            String::from_utf8_lossy(&guest.serial).into_owned(),
        ),
    ]
}

/// The capacity; the largest number when it is no real one.
pub(super) fn capacity_bytes(facts: &LunFacts) -> u64 {
    facts
        .capacity_blocks
        .saturating_mul(facts.block_length_bytes.into())
}

/// The physical block length; the largest number when the exponent makes no sense.
pub(super) fn physical_block_length_bytes(facts: &LunFacts) -> u64 {
    let blocks = 1_u64
        .checked_shl(facts.physical_block_exponent.into())
        .unwrap_or(u64::MAX);
    blocks.saturating_mul(facts.block_length_bytes.into())
}

/// Which commands the disk takes, by the length of their descriptor blocks.
fn command_names(facts: &LunFacts) -> String {
    let transfer = match facts.width {
        CommandWidth::Ten => "READ(10), WRITE(10)",
        CommandWidth::Sixteen => "READ(16), WRITE(16)",
    };
    let sync_cache = match facts.sync_cache {
        CommandWidth::Ten => "SYNCHRONIZE CACHE(10)",
        CommandWidth::Sixteen => "SYNCHRONIZE CACHE(16)",
    };
    format!("{transfer}, {sync_cache}")
}

/// A designator with its type (SPC-5 section 7.7.6): `naa.6001405…`, `t10.IET     00010001`.
pub(super) fn designator_name(designator: &Designator) -> String {
    const BINARY: u8 = 1;
    let kind = match designator.kind {
        1 => "t10.".to_owned(),
        2 => "eui.".to_owned(),
        3 => "naa.".to_owned(),
        8 => String::new(),
        kind => format!("type-{kind}."),
    };
    match designator.code_set {
        BINARY => kind + &hex(&designator.value),
        _ => kind + String::from_utf8_lossy(&designator.value).trim_matches(['\0', ' ']),
    }
}

fn designators(designators: &[Designator]) -> String {
    list(&designators.iter().map(designator_name).collect::<Vec<_>>())
}

fn medium_name(rotates: Option<bool>) -> &'static str {
    match rotates {
        Some(true) => "rotating",
        Some(false) => "solid state",
        None => "not told",
    }
}

fn blocks(limit: Option<u64>, block_length_bytes: u32) -> String {
    match limit {
        None => "none reported".to_owned(),
        Some(count) => {
            let length = bytes(count.saturating_mul(block_length_bytes.into()));
            format!("{count} blocks, {length}")
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
