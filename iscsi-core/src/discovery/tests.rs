//! What a discovery makes of answers, good and bad.

use alloc::format;
use alloc::string::ToString;

use proptest::prelude::*;

use super::*;

const TAG: u32 = 7;
const FINAL: u8 = 0x80;
const MORE: u8 = 0x00;
const CONTINUED: u8 = 0x40;

fn session() -> Negotiated {
    Negotiated {
        cmd_sn: SerialNumber(50),
        exp_stat_sn: SerialNumber(1000),
        ..crate::login::negotiated_for_tests()
    }
}

/// A discovery with a scripted target.
struct Script {
    discovery: Discovery,
    stat_sn: u32,
}

impl Script {
    fn new() -> Self {
        let mut discovery = Discovery::new(&session(), TAG);
        discovery.start();
        Self {
            discovery,
            stat_sn: 1000,
        }
    }

    fn header(&mut self, opcode: u8, flags: u8, length: usize) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        (bhs[0], bhs[1], bhs[19]) = (opcode, flags, 7);
        bhs[5..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
        let transfer_tag = if flags & FINAL == 0 {
            0x99_u32
        } else {
            RESERVED_TAG
        };
        bhs[20..24].copy_from_slice(&transfer_tag.to_be_bytes());
        bhs[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        self.stat_sn += 1;
        bhs
    }

    fn text(&mut self, flags: u8, text: &str) -> Result<DiscoveryStep, DiscoveryError> {
        let bhs = self.header(0x24, flags, text.len());
        self.discovery.receive(&bhs, text.as_bytes())
    }
}

fn found(step: Result<DiscoveryStep, DiscoveryError>) -> Vec<DiscoveredTarget> {
    match step.unwrap() {
        DiscoveryStep::Found { targets, .. } => targets,
        step => panic!("{step:?}"),
    }
}

#[test]
fn the_request_asks_for_all_targets() {
    let pdu = Discovery::new(&session(), TAG).start();
    assert_eq!(pdu[..2], [0x44, 0x80]);
    assert_eq!(
        pdu[16..32],
        [0, 0, 0, 7, 255, 255, 255, 255, 0, 0, 0, 50, 0, 0, 3, 0xe8]
    );
    assert_eq!(&pdu[48..], b"SendTargets=All\0");
}

#[test]
fn a_target_has_the_addresses_that_follow_its_name() {
    let targets = found(Script::new().text(
        FINAL,
        "TargetName=iqn.2001-04.com.example:a\0TargetAddress=192.0.2.1:3260,1\0\
         TargetAddress=[2001:db8::1]:3260,2\0TargetName=iqn.2001-04.com.example:b\0",
    ));
    assert_eq!(targets.len(), 2);
    let portals: Vec<_> = targets[0].portals.iter().map(ToString::to_string).collect();
    assert_eq!(portals, ["192.0.2.1:3260,1", "[2001:db8::1]:3260,2"]);
    assert_eq!(targets[1].name.as_str(), "iqn.2001-04.com.example:b");
    assert!(targets[1].portals.is_empty());
}

#[test]
fn no_targets_is_an_answer() {
    assert!(found(Script::new().text(FINAL, "")).is_empty());
}

#[test]
fn an_answer_cut_anywhere_is_asked_for_to_its_end() {
    let whole = "TargetName=iqn.2001-04.com.example:a\0TargetAddress=192.0.2.1:3260,1\0";
    for cut in 0..whole.len() {
        let mut script = Script::new();
        let step = script.text(CONTINUED, &whole[..cut]).unwrap();
        let DiscoveryStep::Send(request) = step else {
            panic!("{step:?}")
        };
        assert_eq!(request[1], 0x80);
        assert_eq!(request[16..24], [0, 0, 0, 7, 0, 0, 0, 0x99]);
        assert_eq!(request.len(), 48);
        assert_eq!(found(script.text(FINAL, &whole[cut..]))[0].portals.len(), 1);
    }
}

#[test]
fn an_answer_in_whole_pairs_goes_on_without_the_c_bit() {
    let mut script = Script::new();
    script
        .text(MORE, "TargetName=iqn.2001-04.com.example:a\0")
        .unwrap();
    let targets = found(script.text(FINAL, "TargetName=iqn.2001-04.com.example:b\0"));
    assert_eq!(targets.len(), 2);
}

#[test]
fn thousands_of_targets_are_found() {
    let mut script = Script::new();
    for i in 0..5000 {
        script
            .text(MORE, &format!("TargetName=iqn.2001-04.com.example:{i}\0"))
            .unwrap();
    }
    assert_eq!(found(script.text(FINAL, "")).len(), 5000);
}

#[test]
fn a_ping_is_answered_and_consumes_no_stat_sn() {
    let mut script = Script::new();
    let mut ping = script.header(0x20, 0x80, 0);
    ping[16..24].copy_from_slice(&[255, 255, 255, 255, 0, 0, 0, 5]);
    script.stat_sn -= 1;
    let step = script.discovery.receive(&ping, b"").unwrap();
    let DiscoveryStep::Send(answer) = step else {
        panic!("{step:?}")
    };
    assert_eq!(answer[0], 0x40);
    assert_eq!(answer[16..24], [255, 255, 255, 255, 0, 0, 0, 5]);
    assert!(found(script.text(FINAL, "")).is_empty());
}

#[test]
fn a_ping_that_wants_no_answer_gets_none() {
    let mut script = Script::new();
    let mut ping = script.header(0x20, 0x80, 0);
    ping[16..24].fill(0xff);
    assert!(matches!(
        script.discovery.receive(&ping, b""),
        Ok(DiscoveryStep::Wait)
    ));
}

#[test]
fn a_logout_ends_the_session() {
    let mut script = Script::new();
    let Ok(DiscoveryStep::Found { logout, .. }) = script.text(FINAL, "") else {
        panic!()
    };
    assert_eq!(logout[..2], [0x46, 0x80]);
    assert_eq!(logout[16..20], [0, 0, 0, 8]);
    assert_eq!(logout[28..32], [0, 0, 3, 0xe9]);
    let mut bhs = script.header(0x26, 0x80, 0);
    bhs[19] = 8;
    assert!(matches!(
        script.discovery.receive(&bhs, b""),
        Ok(DiscoveryStep::LoggedOut)
    ));
    let again = script.discovery.receive(&bhs, b"").map(|_| ());
    assert_eq!(again, Err(DiscoveryError::ApiMisuse));
}

#[test]
fn rejects_each_malformed_answer_with_its_reason() {
    for (text, reason) in [
        ("TargetName=x", "Text(Unterminated)"),
        ("TargetName\0", "Text(NoEqualsSign"),
        ("TargetName=disk\0", "BadName"),
        ("TargetAddress=192.0.2.1\0", "AddressWithoutName"),
        (
            "TargetName=iqn.2001-04.com.example\0TargetAddress=:\0",
            "BadAddress",
        ),
        ("MaxBurstLength=1\0", "UnexpectedKey"),
        ("SendTargets=NotUnderstood\0", "Refused"),
    ] {
        let error = Script::new().text(FINAL, text).unwrap_err();
        assert!(
            format!("{error:?}").starts_with(reason),
            "{text:?}: {error:?}"
        );
    }
}

#[test]
fn rejects_a_pair_cut_without_the_c_bit() {
    let error = Script::new().text(MORE, "TargetName=iqn").unwrap_err();
    assert_eq!(error, TextError::Unterminated.into());
}

#[test]
fn a_pair_that_never_ends_is_given_up() {
    let mut script = Script::new();
    script.text(CONTINUED, &"x".repeat(8256)).unwrap();
    assert!(matches!(
        script.text(CONTINUED, "x"),
        Err(DiscoveryError::Text(_))
    ));
}

#[test]
fn an_answer_that_never_ends_is_given_up_at_64_mib() {
    let mut script = Script::new();
    script.discovery.received_bytes = MAX_DISCOVERY_LENGTH_BYTES - 2 * BHS_LENGTH_BYTES;
    script.text(MORE, "").unwrap();
    script.text(MORE, "").unwrap();
    assert_eq!(
        script.text(MORE, "").map(|_| ()),
        Err(DiscoveryError::NeverEnds {
            limit_bytes: MAX_DISCOVERY_LENGTH_BYTES
        })
    );
}

#[test]
fn an_answer_may_be_given_up_sooner() {
    let limit_bytes = 2 * BHS_LENGTH_BYTES;
    let mut script = Script::new();
    script.discovery = script.discovery.limited_to(limit_bytes);
    script.text(MORE, "").unwrap();
    script.text(MORE, "").unwrap();
    assert_eq!(
        script.text(FINAL, "").map(|_| ()),
        Err(DiscoveryError::NeverEnds { limit_bytes })
    );
}

#[test]
fn rejects_more_data_in_a_pdu_than_was_declared() {
    let limit = session().max_recv_data_segment_length_bytes as usize;
    assert!(Script::new().text(FINAL, &"\0".repeat(limit)).is_ok());
    let result = Script::new()
        .text(FINAL, &"\0".repeat(limit + 1))
        .map(|_| ());
    assert_eq!(
        result,
        Err(DiscoveryError::SegmentTooLong {
            length_bytes: limit + 1
        })
    );
}

#[test]
fn rejects_another_tag_and_another_stat_sn() {
    let mut script = Script::new();
    let mut bhs = script.header(0x24, FINAL, 0);
    bhs[19] = 6;
    assert_eq!(
        script.discovery.receive(&bhs, b"").map(|_| ()),
        Err(DiscoveryError::WrongTag)
    );
    let mut script = Script::new();
    script.stat_sn = 1001;
    let wrong = DiscoveryError::StatSn {
        expected: 1000,
        received: 1001,
    };
    assert_eq!(script.text(FINAL, "").map(|_| ()), Err(wrong));
}

#[test]
fn rejects_pdus_that_have_no_place_here() {
    for (opcode, reason) in [
        (0x21, "UnexpectedPdu"),
        (0x26, "UnexpectedPdu"),
        (0x3f, "Rejected"),
        (0x15, "Pdu"),
    ] {
        let mut script = Script::new();
        let bhs = script.header(opcode, FINAL, 0);
        let error = script.discovery.receive(&bhs, b"").unwrap_err();
        assert!(format!("{error:?}").starts_with(reason), "{error:?}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_a_discovery_panic(
        answers in proptest::collection::vec(
            (any::<u8>(), "(Target(Name|Address)=[\\PC\0]{0,9}\0?){0,3}"), 0..6)
    ) {
        let mut script = Script::new();
        for (flags, text) in answers {
            if script.text(flags, &text).is_err() {
                break;
            }
        }
    }

    #[test]
    fn no_header_makes_a_discovery_panic(
        bytes in proptest::collection::vec(any::<u8>(), BHS_LENGTH_BYTES)
    ) {
        let mut bhs: Bhs = bytes.try_into().unwrap();
        bhs[5..8].fill(0);
        let _ = Discovery::new(&session(), TAG).receive(&bhs, b"");
    }
}
