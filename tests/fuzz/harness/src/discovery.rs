//! A discovery: text in continued answers, and whatever else a target may send meanwhile.

use iscsi_core::discovery::{Discovery, DiscoveryStep};
use iscsi_core::name::IscsiName;
use iscsi_core::pdu::{BHS_LENGTH_BYTES, Bhs, Lengths};
use iscsi_core::sequence::SerialNumber;
use iscsi_core::whole_pdu::WholePdus;

use crate::Input;
use crate::login::TEXT_END;
use crate::peer::{negotiated, put, spoil};

const TAG: u32 = 7;

/// The first bytes are what was agreed on; then each answer is a byte that says what it is, and
/// its text.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let mut session = negotiated(&mut input);
    (session.header_digest, session.data_digest) = (false, false);
    session.exp_stat_sn = SerialNumber(1000);
    let mut discovery = Discovery::new(&session, TAG);
    check_request(&discovery.start());
    let mut pdus = WholePdus::of_session(&session, crc32c::crc32c_append);
    let mut stat_sn = 1000;
    let mut found = 0;
    while !input.is_empty() {
        let bytes = answer(&mut input, &mut stat_sn);
        let mut rest = bytes.as_slice();
        loop {
            let Ok((consumed, pdu)) = pdus.receive(rest) else {
                return found;
            };
            rest = &rest[consumed..];
            let Some(pdu) = pdu else { break };
            match discovery.receive(&pdu.bhs, &pdu.data) {
                Ok(DiscoveryStep::Send(request)) => check_request(&request),
                Ok(DiscoveryStep::Wait) => {}
                Ok(DiscoveryStep::Found { targets, logout }) => {
                    check_request(&logout);
                    for target in &targets {
                        let name = IscsiName::parse(target.name.as_str());
                        assert_eq!(name.as_ref(), Ok(&target.name));
                        assert!(target.portals.iter().all(|portal| portal.port != 0));
                    }
                    found = targets.len() as u64 + 1;
                }
                Ok(DiscoveryStep::LoggedOut) => {
                    assert!(found > 0, "over before anything was found");
                    assert!(discovery.receive(&pdu.bhs, &pdu.data).is_err());
                    return found;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    assert!(discovery.receive(&pdu.bhs, &pdu.data).is_err());
                    return found;
                }
            }
        }
    }
    found
}

fn answer(input: &mut Input<'_>, stat_sn: &mut u32) -> Vec<u8> {
    let kind = input.byte();
    let mut bhs = [0; BHS_LENGTH_BYTES];
    put(&mut bhs, 16, TAG);
    put(&mut bhs, 20, u32::MAX);
    put(&mut bhs, 24, *stat_sn);
    let mut takes_stat_sn = true;
    (bhs[0], bhs[1]) = match kind & 7 {
        0..=2 => (0x24, [0x80, 0, 0x40][usize::from(kind & 3)]),
        3 => (0x26, 0x80),
        4 => (0x20, 0x80),
        5 => (0x32, 0x80),
        6 => (0x3f, 0x80),
        _ => (input.byte(), input.byte()),
    };
    match kind & 7 {
        1 | 2 => put(&mut bhs, 20, 0x99),
        3 => put(&mut bhs, 16, TAG + 1),
        4 => {
            takes_stat_sn = false;
            put(&mut bhs, 16, u32::MAX);
            put(&mut bhs, 20, u32::from(kind >> 3));
        }
        _ => {}
    }
    let text = input.until(TEXT_END);
    let length = u32::try_from(text.len()).expect("a short text");
    let [_, a, b, c] = length.to_be_bytes();
    (bhs[5], bhs[6], bhs[7]) = (a, b, c);
    if kind & 0x80 != 0 {
        spoil(&mut bhs, input);
    }
    *stat_sn += u32::from(takes_stat_sn);
    let mut bytes = bhs.to_vec();
    bytes.extend(text);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn check_request(pdu: &[u8]) {
    let bhs: &Bhs = pdu.first_chunk().expect("a header");
    let length = Lengths::of(bhs).data_bytes;
    assert_eq!(pdu.len(), BHS_LENGTH_BYTES + length.next_multiple_of(4));
}
