//! A report, rendered both ways.

use iscsi_core::disk::facts::{
    BlockLimits, CommandWidth, Designator, Identity, LunFacts, Provisioning,
};
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::name::IscsiName;
use iscsi_core::sequence::SerialNumber;

use super::{render_probe_json, render_probe_text};
use crate::portal::Portal;
use crate::report::{GuestView, ProbeReport};

fn negotiated() -> Negotiated {
    Negotiated {
        header_digest: true,
        data_digest: false,
        max_recv_data_segment_length_bytes: 262_144,
        target_max_recv_data_segment_length_bytes: 8192,
        max_burst_length_bytes: 262_144,
        first_burst_length_bytes: 65_536,
        initial_r2t: true,
        immediate_data: true,
        max_outstanding_r2t: 1,
        default_time2wait_s: 2,
        default_time2retain_s: 0,
        data_pdu_in_order: true,
        data_sequence_in_order: true,
        error_recovery_level: 0,
        max_connections: 1,
        target_alias: Some("evil\n\u{1b}[2J".to_owned()),
        target_portal_group_tag: Some(1),
        tsih: 7,
        authentication: "CHAP (SHA-256)".to_owned(),
        cmd_sn: SerialNumber(5),
        exp_cmd_sn: SerialNumber(u32::MAX),
        max_cmd_sn: SerialNumber(30),
        exp_stat_sn: SerialNumber(9),
    }
}

fn facts() -> LunFacts {
    let naa = Designator {
        code_set: 1,
        kind: 3,
        value: vec![0x60, 0x01, 0x40, 0x5a],
    };
    let t10 = Designator {
        code_set: 2,
        kind: 1,
        value: b"IET     00010001\0\0".to_vec(),
    };
    LunFacts {
        identity: Identity {
            designators: vec![naa, t10],
            serial: b"beaf11\x9b".to_vec(),
            block_length_bytes: 512,
        },
        vendor: "IET".to_owned(),
        product: "VIRTUAL-DISK".to_owned(),
        revision: "0001".to_owned(),
        block_length_bytes: 512,
        capacity_blocks: 2_097_152,
        physical_block_exponent: 3,
        lowest_aligned_block: 0,
        write_protected: false,
        write_cache: true,
        fua: true,
        width: CommandWidth::Sixteen,
        sync_cache: CommandWidth::Ten,
        provisioning: Provisioning {
            thin: true,
            unmap: true,
            ..Provisioning::default()
        },
        limits: BlockLimits {
            max_unmap_blocks: Some(8192),
            ..BlockLimits::default()
        },
        rotates: Some(false),
    }
}

fn report() -> ProbeReport {
    ProbeReport {
        portal: Portal::parse("san").unwrap(),
        address: "[2001:db8::1]:3260".parse().unwrap(),
        redirects: vec![Portal::parse("[2001:db8::1]").unwrap()],
        initiator_name: IscsiName::parse("iqn.2001-04.com.example:me").unwrap(),
        target: IscsiName::parse("iqn.2001-04.com.example:disk").unwrap(),
        lun: 1,
        negotiated: negotiated(),
        command_window: 32,
        facts: facts(),
        luns: vec![0, 1],
        guest: GuestView {
            capacity_sectors: 2_097_152,
            block_length_bytes: 512,
            physical_block_length_bytes: 4096,
            optimal_io_length_bytes: 0,
            read_only: false,
            write_cache: true,
            discard: true,
            write_zeroes: true,
            serial: b"beaf11".to_vec(),
        },
    }
}

/// The whole text for `report()`: what an operator reads.
const TEXT: &str = "\
Session
  portal                               san:3260
  address                              [2001:db8::1]:3260
  redirected to                        [2001:db8::1]:3260
  target                               iqn.2001-04.com.example:disk
  target alias                         evil\\n\\u{1b}[2J
  portal group tag                     1
  session handle (TSIH)                7
  initiator name                       iqn.2001-04.com.example:me
  authentication                       CHAP (SHA-256)

Negotiated
  HeaderDigest                         CRC32C
  DataDigest                           None
  MaxRecvDataSegmentLength (ours)      262144 bytes (256 KiB)
  MaxRecvDataSegmentLength (target's)  8192 bytes (8 KiB)
  MaxBurstLength                       262144 bytes (256 KiB)
  FirstBurstLength                     65536 bytes (64 KiB)
  InitialR2T                           yes
  ImmediateData                        yes
  MaxOutstandingR2T                    1
  MaxConnections                       1
  ErrorRecoveryLevel                   0
  DataPDUInOrder                       yes
  DataSequenceInOrder                  yes
  DefaultTime2Wait                     2 s
  DefaultTime2Retain                   0 s
  commands at once (CmdSN window)      32

LUN
  LUN                                  1
  LUNs of the target                   0, 1
  vendor                               IET
  product                              VIRTUAL-DISK
  revision                             0001
  serial (VPD 0x80)                    beaf11\u{fffd}
  designators (VPD 0x83)               naa.6001405a, t10.IET     00010001
  capacity                             1073741824 bytes (1 GiB)
  logical blocks                       2097152
  logical block length                 512 bytes
  physical block length                4096 bytes (4 KiB)
  lowest aligned block                 0
  medium                               solid state
  write protected                      no
  volatile write cache                 yes
  FUA                                  yes
  thin                                 yes
  unmapped blocks read as zeros        no
  UNMAP                                yes
  WRITE SAME(16) with UNMAP            no
  commands                             READ(16), WRITE(16), SYNCHRONIZE CACHE(10)

Limits of the LUN
  transfer length                      none reported
  optimal transfer length              none reported
  optimal granularity                  none reported
  UNMAP length                         8192 blocks, 4194304 bytes (4 MiB)
  UNMAP granularity                    none reported
  UNMAP alignment                      none reported
  WRITE SAME length                    none reported

What the guest sees
  capacity                             2097152 sectors of 512 bytes
  logical block length                 512 bytes
  physical block length                4096 bytes (4 KiB)
  optimal I/O length                   no hint
  read-only                            no
  write cache                          writeback
  discard                              yes
  write zeroes                         yes
  serial                               beaf11
";

#[test]
fn the_text_is_grouped_aligned_and_safe_to_print() {
    assert_eq!(render_probe_text(&report()), TEXT);
}

#[test]
fn a_session_without_redirect_says_nothing_of_redirects() {
    let report = ProbeReport {
        redirects: Vec::new(),
        ..report()
    };
    assert!(!render_probe_text(&report).contains("redirected"));
}

#[test]
fn the_json_has_stable_names() {
    let json = render_probe_json(&report()).unwrap();
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "session": {
            "portal": "san:3260", "address": "[2001:db8::1]:3260",
            "redirects": ["[2001:db8::1]:3260"], "target": "iqn.2001-04.com.example:disk",
            "target_alias": "evil\n\u{1b}[2J", "target_portal_group_tag": 1, "tsih": 7,
            "initiator_name": "iqn.2001-04.com.example:me", "authentication": "CHAP (SHA-256)"
        },
        "negotiated": {
            "header_digest": "CRC32C", "data_digest": "None",
            "max_recv_data_segment_length_bytes": 262_144,
            "target_max_recv_data_segment_length_bytes": 8192,
            "max_burst_length_bytes": 262_144, "first_burst_length_bytes": 65_536,
            "initial_r2t": true, "immediate_data": true, "max_outstanding_r2t": 1,
            "max_connections": 1, "error_recovery_level": 0, "data_pdu_in_order": true,
            "data_sequence_in_order": true, "default_time2wait_s": 2,
            "default_time2retain_s": 0, "command_window": 32
        },
        "lun": {
            "lun": 1, "luns": [0, 1], "vendor": "IET", "product": "VIRTUAL-DISK",
            "revision": "0001", "serial": "beaf11\u{fffd}",
            "designators": ["naa.6001405a", "t10.IET     00010001"],
            "capacity_bytes": 1_073_741_824, "capacity_blocks": 2_097_152,
            "block_length_bytes": 512, "physical_block_length_bytes": 4096,
            "lowest_aligned_block": 0, "rotates": false, "write_protected": false,
            "write_cache": true, "fua": true, "thin": true, "reads_zeros": false,
            "unmap": true, "write_same_unmap": false, "command_width": 16, "sync_cache_width": 10
        },
        "limits": {
            "max_transfer_blocks": null, "optimal_transfer_blocks": null,
            "optimal_granularity_blocks": null, "max_unmap_blocks": 8192,
            "unmap_granularity_blocks": null, "unmap_alignment_blocks": null,
            "max_write_same_blocks": null
        },
        "guest": {
            "capacity_sectors": 2_097_152, "block_length_bytes": 512,
            "physical_block_length_bytes": 4096, "optimal_io_length_bytes": 0,
            "read_only": false, "write_cache": true, "discard": true, "write_zeroes": true,
            "serial": "beaf11"
        }
    });
    assert_eq!(document, expected);
}

#[test]
fn json_has_no_character_that_a_terminal_obeys() {
    let mut report = report();
    report.facts.vendor = "a\u{9b}b\u{7f}c\u{202e}d".to_owned();
    let json = render_probe_json(&report).unwrap();
    assert!(!json.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')));
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["lun"]["vendor"], report.facts.vendor.as_str());
}

#[test]
fn numbers_that_make_no_sense_are_cut_off_not_wrapped() {
    let mut report = report();
    report.facts.capacity_blocks = u64::MAX;
    report.facts.physical_block_exponent = u8::MAX;
    let text = render_probe_text(&report);
    assert!(text.contains("capacity                             18446744073709551615 bytes"));
    assert!(text.contains("physical block length                18446744073709551615 bytes"));
}
