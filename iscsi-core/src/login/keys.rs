//! The text keys of RFC 7143 section 13: one row each, with its rule and with what we offer.
//!
//! The security keys of section 12 are no parameters of a session: [`super::machine`] and
//! [`super::chap`] have them.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use core::ops::RangeInclusive;

use super::negotiated::Negotiated;
use super::rule::BooleanFunction::{And, Or};
use super::rule::NumericalFunction::{Maximum, Minimum};
use super::rule::Sender::{Both, Initiator, Target};
use super::rule::{KeyRow, Rule, parse_in};
use super::settings::{DigestPreference, LoginSettings};
use crate::pdu::login::Stage;

/// What the target may send us in one PDU. Many small reads fit one receive anyway; beyond a
/// quarter of a MiB, headers are no longer what a large read costs, and a PDU that long already
/// fills the socket's buffer.
const OUR_MAX_RECV_DATA_SEGMENT_LENGTH_BYTES: u32 = 262_144;

/// The greatest multiple of 4,096 that a burst may have (section 13.13: at most 2^24 - 1). With
/// one so large a write needs one R2T, and a burst ends at the end of a block for both block
/// sizes.
const OUR_MAX_BURST_LENGTH_BYTES: u32 = (1 << 24) - 4096;

/// What a target that agrees takes without R2T: a write up to this size saves a round trip.
const OUR_FIRST_BURST_LENGTH_BYTES: u32 = 262_144;

/// So many R2Ts of one write may be open. A target that cuts its R2Ts small (64 KiB is common) is
/// kept busy over the round trip; each of them costs us a few words.
const OUR_MAX_OUTSTANDING_R2T: u32 = 8;

/// Sections 13.12 to 13.14: a length that a PDU or a burst can have.
const LENGTHS: RangeInclusive<u32> = 512..=(1 << 24) - 1;

/// Sections 13.15 and 13.16, in seconds.
const TIMES: RangeInclusive<u32> = 0..=3600;

/// Sections 13.2 and 13.17.
const COUNTS: RangeInclusive<u32> = 1..=65_535;

/// RFC 7143 gives an alias 255 bytes (section 13.6); what is longer is cut, not refused.
const MAX_ALIAS_CHARACTERS: usize = 255;

/// The row of a key; `None` for one that RFC 7143 does not know.
pub(super) fn row(name: &str) -> Option<&'static KeyRow> {
    ROWS.iter().find(|row| row.name == name)
}

/// What the fields of a row are unless it says otherwise: an operational key of a normal session.
const fn normal(name: &'static str, section: &'static str, rule: Rule) -> KeyRow {
    KeyRow {
        name,
        section,
        sender: Both,
        stage: Stage::Operational,
        in_discovery: false,
        may_be_irrelevant: false,
        rule,
    }
}

/// An operational key of both kinds of session.
const fn common(name: &'static str, section: &'static str, rule: Rule) -> KeyRow {
    KeyRow {
        in_discovery: true,
        ..normal(name, section, rule)
    }
}

/// A key that one side declares, from the first PDU on, in both kinds of session.
const fn declared(
    name: &'static str,
    section: &'static str,
    sender: super::rule::Sender,
    rule: Rule,
) -> KeyRow {
    KeyRow {
        sender,
        stage: Stage::Security,
        ..common(name, section, rule)
    }
}

/// The table. The order is that of the sections, and the order in which we send.
#[rustfmt::skip]
pub(super) static ROWS: [KeyRow; 29] = [
    common("HeaderDigest", "13.1", Rule::List {
        supported: &["CRC32C", "None"],
        default: "None",
        offer: |settings| Some(digests(settings.header_digest)),
        land: |draft, value| draft.header_digest = value == "CRC32C",
    }),
    common("DataDigest", "13.1", Rule::List {
        supported: &["CRC32C", "None"],
        default: "None",
        offer: |settings| Some(digests(settings.data_digest)),
        land: |draft, value| draft.data_digest = value == "CRC32C",
    }),
    normal("MaxConnections", "13.2", Rule::Number {
        function: Minimum,
        range: COUNTS,
        default: 1,
        offer: Some(1),
        land: |draft, value| draft.max_connections = to_u16(value),
    }),
    KeyRow { stage: Stage::FullFeature, ..declared("SendTargets", "13.3", Initiator, NOTHING) },
    declared("TargetName", "13.4", Initiator, ours(|settings| {
        settings.target_name.as_ref().map(ToString::to_string)
    })),
    declared("InitiatorName", "13.5", Initiator, ours(|settings| {
        Some(settings.initiator_name.to_string())
    })),
    declared("TargetAlias", "13.6", Target, theirs(|draft, value| {
        draft.target_alias = Some(value.chars().take(MAX_ALIAS_CHARACTERS).collect());
        true
    })),
    declared("InitiatorAlias", "13.7", Initiator, ours(|settings| {
        settings.initiator_alias.clone()
    })),
    declared("TargetAddress", "13.8", Target, NOTHING),
    declared("TargetPortalGroupTag", "13.9", Target, theirs(|draft, value| {
        let tag = parse_in(&(0..=65_535), value).map(to_u16);
        draft.target_portal_group_tag = tag;
        tag.is_some()
    })),
    normal("InitialR2T", "13.10", Rule::Boolean {
        function: Or,
        default: true,
        offer: false,
        land: |draft, value| draft.initial_r2t = value,
    }),
    normal("ImmediateData", "13.11", Rule::Boolean {
        function: And,
        default: true,
        offer: true,
        land: |draft, value| draft.immediate_data = value,
    }),
    common("MaxRecvDataSegmentLength", "13.12", Rule::Declaration {
        ours: |_| Some(OUR_MAX_RECV_DATA_SEGMENT_LENGTH_BYTES.to_string()),
        theirs: |draft, value| {
            let length_bytes = parse_in(&LENGTHS, value);
            draft.target_max_recv_data_segment_length_bytes = length_bytes.unwrap_or(8192);
            length_bytes.is_some()
        },
    }),
    normal("MaxBurstLength", "13.13", Rule::Number {
        function: Minimum,
        range: LENGTHS,
        default: 262_144,
        offer: Some(OUR_MAX_BURST_LENGTH_BYTES),
        land: |draft, value| draft.max_burst_length_bytes = value,
    }),
    KeyRow { may_be_irrelevant: true, ..normal("FirstBurstLength", "13.14", Rule::Number {
        function: Minimum,
        range: LENGTHS,
        default: 65_536,
        offer: Some(OUR_FIRST_BURST_LENGTH_BYTES),
        land: |draft, value| draft.first_burst_length_bytes = value,
    })},
    // We reconnect as soon as we can; a target that wants time says so, and the greater one holds.
    common("DefaultTime2Wait", "13.15", Rule::Number {
        function: Maximum,
        range: TIMES,
        default: 2,
        offer: Some(0),
        land: |draft, value| draft.default_time2wait_s = to_u16(value),
    }),
    // ErrorRecoveryLevel 0 takes up no task of an old connection.
    common("DefaultTime2Retain", "13.16", Rule::Number {
        function: Minimum,
        range: TIMES,
        default: 20,
        offer: Some(0),
        land: |draft, value| draft.default_time2retain_s = to_u16(value),
    }),
    normal("MaxOutstandingR2T", "13.17", Rule::Number {
        function: Minimum,
        range: COUNTS,
        default: 1,
        offer: Some(OUR_MAX_OUTSTANDING_R2T),
        land: |draft, value| draft.max_outstanding_r2t = to_u16(value),
    }),
    normal("DataPDUInOrder", "13.18", Rule::Boolean {
        function: Or,
        default: true,
        offer: true,
        land: |draft, value| draft.data_pdu_in_order = value,
    }),
    normal("DataSequenceInOrder", "13.19", Rule::Boolean {
        function: Or,
        default: true,
        offer: true,
        land: |draft, value| draft.data_sequence_in_order = value,
    }),
    common("ErrorRecoveryLevel", "13.20", Rule::Number {
        function: Minimum,
        range: 0..=2,
        default: 0,
        offer: Some(0),
        land: |draft, value| draft.error_recovery_level = u8::try_from(value).unwrap_or(u8::MAX),
    }),
    declared("SessionType", "13.21", Initiator, ours(|settings| {
        let normal = settings.target_name.is_some();
        Some(if normal { "Normal" } else { "Discovery" }.to_owned())
    })),
    // Not offered: what it changes is how a target ends tasks, and ours are replayed either way.
    normal("TaskReporting", "13.23", Rule::List {
        supported: &["RFC3720"],
        default: "RFC3720",
        offer: |_| None,
        land: |_, _| {},
    }),
    // Not offered: level 1, plain RFC 7143, is the default (level 2 is RFC 7144).
    normal("iSCSIProtocolLevel", "13.24 and RFC 7144", Rule::Number {
        function: Minimum,
        range: 0..=31,
        default: 1,
        offer: None,
        land: |_, _| {},
    }),
    common("IFMarker", "13.25", Rule::Obsolete),
    common("OFMarker", "13.25", Rule::Obsolete),
    common("IFMarkInt", "13.25", Rule::Obsolete),
    common("OFMarkInt", "13.25", Rule::Obsolete),
    declared("X#NodeArchitecture", "13.26", Both, NOTHING),
];

/// Told to nobody and of no consequence when told to us.
const NOTHING: Rule = Rule::Declaration {
    ours: |_| None,
    theirs: |_, _| true,
};

const fn ours(ours: fn(&LoginSettings) -> Option<String>) -> Rule {
    Rule::Declaration {
        ours,
        theirs: |_, _| false,
    }
}

const fn theirs(theirs: fn(&mut Negotiated, &str) -> bool) -> Rule {
    Rule::Declaration {
        ours: |_| None,
        theirs,
    }
}

fn digests(preference: DigestPreference) -> &'static str {
    match preference {
        DigestPreference::None => "None",
        DigestPreference::Crc32c => "CRC32C",
        DigestPreference::Prefer => "CRC32C,None",
        DigestPreference::Avoid => "None,CRC32C",
    }
}

/// The rows' ranges end below 2^16 wherever this is used.
fn to_u16(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// A draft with the defaults of all rows, and with what we declare ourselves.
pub(super) fn defaults() -> Negotiated {
    let mut draft = Negotiated {
        header_digest: false,
        data_digest: false,
        max_recv_data_segment_length_bytes: OUR_MAX_RECV_DATA_SEGMENT_LENGTH_BYTES,
        target_max_recv_data_segment_length_bytes: 8192,
        max_burst_length_bytes: 0,
        first_burst_length_bytes: 0,
        initial_r2t: true,
        immediate_data: false,
        max_outstanding_r2t: 1,
        default_time2wait_s: 0,
        default_time2retain_s: 0,
        data_pdu_in_order: true,
        data_sequence_in_order: true,
        error_recovery_level: 0,
        max_connections: 1,
        target_alias: None,
        target_portal_group_tag: None,
        tsih: 0,
        authentication: String::new(),
        cmd_sn: Default::default(),
        exp_cmd_sn: Default::default(),
        max_cmd_sn: Default::default(),
        exp_stat_sn: Default::default(),
    };
    for row in &ROWS {
        row.land_default(&mut draft);
    }
    draft
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// The subsections of section 13, but for 13.22, which is about keys of vendors.
    #[test]
    fn each_key_of_the_rfc_has_one_row() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
        for section in (1..=26).filter(|section| *section != 22) {
            let section = alloc::format!("13.{section}");
            assert!(
                ROWS.iter()
                    .any(|row| row.section.split(' ').next() == Some(&section))
            );
        }
    }

    #[test]
    fn each_default_and_each_offer_of_a_number_is_in_its_range() {
        for row in &ROWS {
            if let Rule::Number {
                range,
                default,
                offer,
                ..
            } = &row.rule
            {
                assert!(range.contains(default), "{}", row.name);
                assert!(
                    offer.is_none_or(|offer| range.contains(&offer)),
                    "{}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_rfc() {
        let draft = defaults();
        assert!(!draft.header_digest && !draft.data_digest);
        assert!(draft.initial_r2t && draft.immediate_data);
        assert!(draft.data_pdu_in_order && draft.data_sequence_in_order);
        assert_eq!(draft.target_max_recv_data_segment_length_bytes, 8192);
        assert_eq!(
            (draft.max_burst_length_bytes, draft.first_burst_length_bytes),
            (262_144, 65_536)
        );
        assert_eq!(
            (draft.default_time2wait_s, draft.default_time2retain_s),
            (2, 20)
        );
        assert_eq!((draft.max_connections, draft.max_outstanding_r2t), (1, 1));
        assert_eq!(draft.error_recovery_level, 0);
    }

    #[test]
    fn bursts_are_offered_in_order_and_in_whole_blocks() {
        const { assert!(OUR_FIRST_BURST_LENGTH_BYTES <= OUR_MAX_BURST_LENGTH_BYTES) };
        assert_eq!(OUR_MAX_BURST_LENGTH_BYTES % 4096, 0);
        assert!(LENGTHS.contains(&OUR_MAX_BURST_LENGTH_BYTES));
        assert!(!LENGTHS.contains(&(OUR_MAX_BURST_LENGTH_BYTES + 4096)));
    }
}
