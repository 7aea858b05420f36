//! The operational keys (RFC 7143 section 13): what the target answers to each, and what is agreed.

use crate::config::{DigestPolicy, Negotiation};
use crate::pdu::Digests;

/// A MaxRecvDataSegmentLength that nobody declared.
pub(crate) const DEFAULT_SEGMENT_BYTES: u32 = 8192;

/// What both sides agreed on. Starts as the defaults of RFC 7143.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pub(crate) digests: Digests,
    /// The largest data segment the initiator takes.
    pub(crate) max_send_bytes: u32,
    /// The largest data segment we take.
    pub(crate) max_recv_bytes: u32,
    pub(crate) max_burst_bytes: u32,
    pub(crate) first_burst_bytes: u32,
    pub(crate) initial_r2t: bool,
    pub(crate) immediate_data: bool,
    pub(crate) max_outstanding_r2t: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            digests: Digests::default(),
            max_send_bytes: DEFAULT_SEGMENT_BYTES,
            max_recv_bytes: DEFAULT_SEGMENT_BYTES,
            max_burst_bytes: 262_144,
            first_burst_bytes: 65_536,
            initial_r2t: true,
            immediate_data: true,
            max_outstanding_r2t: 1,
        }
    }
}

/// The answer to one key, `None` for a declaration, which has none. What is agreed goes to
/// `params`.
pub(crate) fn answer(
    key: &str,
    value: &str,
    own: &Negotiation,
    params: &mut Params,
) -> Option<String> {
    let p = params;
    let text = match key {
        "HeaderDigest" => digest(value, own.header_digest, &mut p.digests.header),
        "DataDigest" => digest(value, own.data_digest, &mut p.digests.data),
        "InitialR2T" => either(value, own.initial_r2t, &mut p.initial_r2t),
        "ImmediateData" => both(value, own.immediate_data, &mut p.immediate_data),
        "MaxRecvDataSegmentLength" => return declared(value, &mut p.max_send_bytes),
        "MaxBurstLength" => least(value, own.max_burst_length, SIZES, &mut p.max_burst_bytes),
        "FirstBurstLength" => least(
            value,
            own.first_burst_length,
            SIZES,
            &mut p.first_burst_bytes,
        ),
        "MaxOutstandingR2T" => least(
            value,
            own.max_outstanding_r2t,
            (1, 65_535),
            &mut p.max_outstanding_r2t,
        ),
        "MaxConnections" => least(value, 1, (1, 65_535), &mut 0),
        "DefaultTime2Wait" => most(value, own.default_time2wait, (0, 3600)),
        "DefaultTime2Retain" => least(value, own.default_time2retain, (0, 3600), &mut 0),
        "ErrorRecoveryLevel" => least(value, own.error_recovery_level, (0, 2), &mut 0),
        "DataPDUInOrder" | "DataSequenceInOrder" => either(value, true, &mut false),
        "iSCSIProtocolLevel" => least(value, 1, (0, 31), &mut 0),
        "TaskReporting" => listed(value, "RFC3720"),
        // Obsolete, and answered for the sake of old initiators (RFC 7143 section 13.25).
        "IFMarker" | "OFMarker" => "No".to_owned(),
        "IFMarkInt" | "OFMarkInt" => REJECT.to_owned(),
        "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType" => return None,
        // An answer to a key of ours is not answered (RFC 7143 section 6.2).
        _ if value == NOT_UNDERSTOOD => return None,
        _ => NOT_UNDERSTOOD.to_owned(),
    };
    Some(text)
}

/// Whether a required digest was left out of the negotiation.
pub(crate) fn lacks_required_digest(own: &Negotiation, params: &Params) -> bool {
    let lacks = |policy, on: bool| policy == DigestPolicy::Require && !on;
    lacks(own.header_digest, params.digests.header) || lacks(own.data_digest, params.digests.data)
}

/// Bytes a burst or a segment may have (RFC 7143 section 13.13).
const SIZES: (u32, u32) = (512, 0x00ff_ffff);
const REJECT: &str = "Reject";
pub(crate) const NOT_UNDERSTOOD: &str = "NotUnderstood";

fn number(value: &str, (low, high): (u32, u32)) -> Option<u32> {
    let parsed = match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.ok().filter(|n| (low..=high).contains(n))
}

fn least(value: &str, own: u32, range: (u32, u32), agreed: &mut u32) -> String {
    let Some(offered) = number(value, range) else {
        return REJECT.to_owned();
    };
    *agreed = offered.min(own);
    agreed.to_string()
}

fn most(value: &str, own: u32, range: (u32, u32)) -> String {
    number(value, range).map_or(REJECT.to_owned(), |offered| offered.max(own).to_string())
}

fn declared(value: &str, agreed: &mut u32) -> Option<String> {
    let Some(offered) = number(value, SIZES) else {
        return Some(REJECT.to_owned());
    };
    *agreed = offered;
    None
}

fn either(value: &str, own: bool, agreed: &mut bool) -> String {
    boolean(value, |offered| offered || own, agreed)
}

fn both(value: &str, own: bool, agreed: &mut bool) -> String {
    boolean(value, |offered| offered && own, agreed)
}

fn boolean(value: &str, combine: impl Fn(bool) -> bool, agreed: &mut bool) -> String {
    *agreed = match value {
        "Yes" => combine(true),
        "No" => combine(false),
        _ => return REJECT.to_owned(),
    };
    if *agreed { "Yes" } else { "No" }.to_owned()
}

fn digest(value: &str, policy: DigestPolicy, agreed: &mut bool) -> String {
    let served: &[&str] = match policy {
        DigestPolicy::Refuse => &["None"],
        DigestPolicy::Allow => &["CRC32C", "None"],
        DigestPolicy::Require => &["CRC32C"],
    };
    let chosen = value.split(',').find(|offered| served.contains(offered));
    *agreed = chosen == Some("CRC32C");
    chosen.unwrap_or(REJECT).to_owned()
}

fn listed(value: &str, served: &str) -> String {
    if value.split(',').any(|offered| offered == served) {
        served
    } else {
        REJECT
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(key: &str, value: &str, own: &Negotiation) -> (Option<String>, Params) {
        let mut params = Params::default();
        (answer(key, value, own, &mut params), params)
    }

    #[test]
    fn takes_the_smaller_burst_and_rejects_one_out_of_range() {
        let own = Negotiation {
            max_burst_length: 4096,
            ..Negotiation::default()
        };
        assert_eq!(ask("MaxBurstLength", "512", &own).0.unwrap(), "512");
        assert_eq!(ask("MaxBurstLength", "16777215", &own).0.unwrap(), "4096");
        assert_eq!(ask("MaxBurstLength", "511", &own).0.unwrap(), "Reject");
        assert_eq!(ask("MaxBurstLength", "16777216", &own).0.unwrap(), "Reject");
    }

    #[test]
    fn combines_booleans_by_the_rule_of_their_key() {
        let own = Negotiation {
            initial_r2t: true,
            immediate_data: false,
            ..Negotiation::default()
        };
        assert_eq!(ask("InitialR2T", "No", &own).0.unwrap(), "Yes");
        assert_eq!(ask("ImmediateData", "Yes", &own).0.unwrap(), "No");
        assert_eq!(ask("ImmediateData", "yes", &own).0.unwrap(), "Reject");
    }

    #[test]
    fn chooses_the_initiators_first_digest_within_its_policy() {
        let with = |header_digest| Negotiation {
            header_digest,
            ..Negotiation::default()
        };
        let (text, params) = ask("HeaderDigest", "None,CRC32C", &with(DigestPolicy::Allow));
        assert_eq!(
            (text.unwrap().as_str(), params.digests.header),
            ("None", false)
        );
        let (text, params) = ask("HeaderDigest", "None,CRC32C", &with(DigestPolicy::Require));
        assert_eq!(
            (text.unwrap().as_str(), params.digests.header),
            ("CRC32C", true)
        );
        let (text, params) = ask("HeaderDigest", "CRC32C", &with(DigestPolicy::Refuse));
        assert_eq!(
            (text.unwrap().as_str(), params.digests.header),
            ("Reject", false)
        );
    }

    #[test]
    fn does_not_understand_unknown_keys() {
        let own = Negotiation::default();
        assert_eq!(ask("X-com.example", "1", &own).0.unwrap(), NOT_UNDERSTOOD);
        assert_eq!(ask("X-com.example", NOT_UNDERSTOOD, &own).0, None);
    }
}
