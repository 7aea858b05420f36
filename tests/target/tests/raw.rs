//! The target seen through hand-built bytes: logins, faults, and what real initiators never do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod client;

use client::{Client, NAME, OPERATIONAL_TO_FULL, Pdu, SECURITY_TO_OPERATIONAL};
use iscsi_test_target::{
    AsyncEvent, CommandFault, ConnectFault, Disk, Event, LoginFault, LunConfig, Negotiation, Rule,
    Sense, TargetConfig, TestTarget,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn start(config: TargetConfig) -> TestTarget {
    TestTarget::start(config).unwrap()
}

fn plain() -> TestTarget {
    start(TargetConfig::default())
}

fn with(negotiation: Negotiation) -> TestTarget {
    start(TargetConfig {
        negotiation,
        ..TargetConfig::default()
    })
}

/// A first login request, straight into the operational stage.
fn names(target: &TestTarget) -> String {
    format!(
        "InitiatorName={NAME}\0TargetName={}\0SessionType=Normal\0",
        target.name()
    )
}

fn first_answer(target: &TestTarget) -> Pdu {
    Client::connect(target).login(
        OPERATIONAL_TO_FULL,
        &(names(target) + "MaxBurstLength=1024\0"),
    )
}

#[test]
fn logs_in_and_names_portal_group_and_session() {
    let target = plain();
    let answer = first_answer(&target);
    assert_eq!(answer.opcode(), 0x23);
    assert!(answer.text().contains("TargetPortalGroupTag=1\0"));
    assert!(answer.text().contains("MaxBurstLength=1024\0"));
    assert_ne!(&answer.header[14..16], &[0, 0], "TSIH");
    let seen =
        |event: &Event| matches!(event, Event::LoggedIn { isid, .. } if *isid == client::ISID);
    assert!(target.wait_for(LIMIT, seen).is_some());
}

#[test]
fn refuses_logins_with_the_status_of_their_mistake() {
    let target = plain();
    let no_such = format!("InitiatorName={NAME}\0TargetName=iqn.x:other\0");
    for (text, status) in [
        (no_such.as_str(), (2, 3)),
        ("TargetName=iqn.x\0", (2, 7)),
        (&format!("InitiatorName={NAME}\0"), (2, 7)),
        ("nonsense\0", (2, 0)),
        (
            &format!("InitiatorName={NAME}\0InitiatorName={NAME}\0"),
            (2, 0),
        ),
    ] {
        let answer = Client::connect(&target).login(OPERATIONAL_TO_FULL, text);
        assert_eq!(answer.status(), status, "{text}");
    }
}

#[test]
fn refuses_a_full_feature_pdu_before_login() {
    let target = plain();
    let mut client = Client::connect(&target);
    client.send_nop(b"");
    assert_eq!(client.receive().status(), (2, 0x0b));
}

#[test]
fn takes_continued_requests_and_continues_its_answers() {
    let target = with(Negotiation {
        answer_chunk_bytes: Some(20),
        ..Negotiation::default()
    });
    let mut client = Client::connect(&target);
    let text = names(&target);
    let (first, second) = text.split_at(30);
    let empty = client.login(0x44, first);
    assert_eq!((empty.header[1], empty.data.len()), (0x04, 0));
    let mut gathered = String::new();
    let mut answer = client.login(OPERATIONAL_TO_FULL, second);
    while answer.header[1] & 0x40 != 0 {
        assert_eq!(answer.header[1] & 0x80, 0, "T with C");
        gathered += &answer.text();
        answer = client.login(OPERATIONAL_TO_FULL, "");
    }
    gathered += &answer.text();
    assert_eq!(answer.header[1], OPERATIONAL_TO_FULL);
    assert!(
        gathered.contains("MaxRecvDataSegmentLength=262144\0"),
        "{gathered}"
    );
}

#[test]
fn login_faults_spoil_just_what_they_name() {
    let target = plain();
    let spoiled = |fault: LoginFault| {
        let rule = target.add(Rule::login(fault).once());
        let answer = first_answer(&target);
        assert_eq!(target.remove(rule), 1);
        answer
    };
    assert_eq!(
        spoiled(LoginFault::Status {
            class: 3,
            detail: 2
        })
        .status(),
        (3, 2)
    );
    let address = "192.0.2.1:3260".to_owned();
    let redirect = spoiled(LoginFault::Redirect {
        permanent: true,
        address,
    });
    assert_eq!(
        (redirect.status(), redirect.text()),
        ((1, 2), "TargetAddress=192.0.2.1:3260\0".into())
    );
    assert_eq!(spoiled(LoginFault::Opcode(0x24)).opcode(), 0x24);
    assert_ne!(spoiled(LoginFault::WrongInitiatorTaskTag).word(16), 0);
    assert_eq!(spoiled(LoginFault::WrongVersion).header[2..4], [1, 1]);
    assert_eq!(spoiled(LoginFault::StageBackwards).header[1], 0);
    assert_eq!(spoiled(LoginFault::ZeroTsih).header[14..16], [0, 0]);
    assert!(
        spoiled(LoginFault::KeyWithoutEquals)
            .text()
            .ends_with("NoEqualsSign\0")
    );
    assert_eq!(
        spoiled(LoginFault::DuplicateKey)
            .text()
            .matches("MaxBurstLength=")
            .count(),
        2
    );
    assert!(
        spoiled(LoginFault::ValueOutOfRange)
            .text()
            .contains("MaxBurstLength=1\0")
    );
    let rejected = spoiled(LoginFault::reject("MaxBurstLength"));
    assert!(rejected.text().contains("MaxBurstLength=Reject\0"));
    let dropped = spoiled(LoginFault::DropKey("TargetPortalGroupTag".into()));
    assert!(!dropped.text().contains("TargetPortalGroupTag"));
    let added = spoiled(LoginFault::AddKey("X-a".into(), "b".into()));
    assert!(added.text().ends_with("X-a=b\0"));
    assert!(spoiled(LoginFault::TextTooLong(9000)).data.len() > 9000);
    assert_eq!(
        first_answer(&target).status(),
        (0, 0),
        "no fault is left over"
    );
}

#[test]
fn endless_answer_never_ends() {
    let target = plain();
    target.add(Rule::login(LoginFault::ContinueForEver).once());
    let mut client = Client::connect(&target);
    assert_eq!(
        client.login(OPERATIONAL_TO_FULL, &names(&target)).header[1],
        0x44
    );
    for _ in 0..50 {
        let answer = client.login(OPERATIONAL_TO_FULL, "");
        assert_eq!((answer.header[1], answer.data.is_empty()), (0x44, false));
    }
}

#[test]
fn connections_can_be_closed_or_answered_with_garbage() {
    let target = plain();
    target.add(Rule::connect(ConnectFault::Close).once());
    target.add(Rule::connect(ConnectFault::http()).once());
    assert_eq!(Client::connect(&target).receive_to_end(), b"");
    assert!(
        Client::connect(&target)
            .receive_to_end()
            .starts_with(b"HTTP/1.1 400")
    );
    Client::logged_in(&target);
}

#[test]
fn several_r2ts_are_outstanding_and_may_be_answered_in_any_order() {
    let mut config = TargetConfig::default();
    config.delivery.r2t_bytes = Some(512);
    let target = start(config);
    let mut client = Client::logged_in(&target);
    client.send_write(0, 3, &[]);
    let r2ts: Vec<Pdu> = (0..3).map(|_| client.receive()).collect();
    for (r2t_sn, r2t) in (0..).zip(&r2ts) {
        assert_eq!(
            (r2t.opcode(), r2t.word(36), r2t.word(44)),
            (0x31, r2t_sn, 512)
        );
        assert_eq!(r2t.word(24), r2ts[0].word(24), "an R2T uses up no StatSN");
    }
    for (r2t, fill) in r2ts.iter().zip([1, 2, 3]).rev() {
        client.send_data_out(r2t, &[fill; 512]);
    }
    let response = client.receive();
    assert_eq!((response.opcode(), response.header[3]), (0x21, 0));
    client.send_read(0, 3);
    let data = client.receive();
    assert_eq!(data.header[1], 0x81, "final, with status");
    assert_eq!([data.data[0], data.data[512], data.data[1024]], [1, 2, 3]);
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn r2t_faults_show_wrong_pieces() {
    let target = plain();
    let shown = |fault| {
        target.add(Rule::command(fault).once());
        let mut client = Client::logged_in(&target);
        client.send_write(0, 4096, &[]);
        let r2t = client.receive();
        assert_eq!(r2t.opcode(), 0x31);
        (r2t.word(40), r2t.word(44))
    };
    let (offset, length) = shown(CommandFault::R2tBeyondBuffer);
    assert!(offset + length > 4096 * 512);
    assert_eq!(shown(CommandFault::R2tOfZero), (0, 0));
    // The target's MaxBurstLength was not negotiated, so RFC 7143's default counts.
    assert_eq!(shown(CommandFault::R2tBeyondMaxBurst), (0, 262_145));
}

#[test]
fn command_faults_spoil_the_kth_read() {
    let target = plain();
    target.add(
        Rule::command(CommandFault::BUSY)
            .opcode(0x88)
            .skip(1)
            .once(),
    );
    let mut client = Client::logged_in(&target);
    let mut status = || {
        client.send_read(0, 1);
        client.receive()
    };
    assert_eq!(status().opcode(), 0x25);
    let busy = status();
    assert_eq!((busy.opcode(), busy.header[3]), (0x21, 0x08));
    assert_eq!(status().opcode(), 0x25);
}

#[test]
fn faults_of_answers_show_on_the_wire() {
    let target = plain();
    let spoiled = |fault| {
        target.add(Rule::command(fault).once());
        let mut client = Client::logged_in(&target);
        let tag = client.send_read(0, 1);
        (client.receive(), tag)
    };
    let sense = Sense::UNRECOVERED_READ.in_descriptor_format();
    let (pdu, _) = spoiled(CommandFault::check_condition(sense));
    assert_eq!(
        (pdu.header[3], &pdu.data[..6]),
        (2, &[0, 8, 0x72, 3, 0x11, 0][..])
    );
    let (pdu, tag) = spoiled(CommandFault::UnknownTag);
    assert_ne!(pdu.word(16), tag);
    assert_eq!(spoiled(CommandFault::DataBeyondBuffer).0.word(40), 512);
    assert_eq!(spoiled(CommandFault::WrongDataSn).0.word(36), 1);
    let (pdu, _) = spoiled(CommandFault::ResidualOverflow(7));
    assert_eq!((pdu.header[1] & 0x06, pdu.word(44)), (0x04, 7));
    assert_eq!(spoiled(CommandFault::Reject(0x09)).0.opcode(), 0x3f);
    assert_eq!(spoiled(CommandFault::R2tForRead).0.opcode(), 0x31);
    let (pdu, _) = spoiled(CommandFault::ShortData(100));
    assert_eq!(
        (pdu.data.len(), pdu.header[1] & 0x06, pdu.word(44)),
        (100, 0x02, 412)
    );
}

#[test]
fn answers_can_be_cut_in_the_middle() {
    let target = plain();
    target.add(Rule::command(CommandFault::CutAnswer(50)).once());
    let mut client = Client::logged_in(&target);
    client.send_read(0, 1);
    assert_eq!(client.receive_to_end().len(), 50);
}

#[test]
fn reinstatement_ends_the_old_connection_and_its_held_writes() {
    let target = plain();
    target.add(Rule::command(CommandFault::Hold).opcode(0x8a).once());
    let mut old = Client::logged_in(&target);
    old.send_write(0, 1, &[9; 512]);
    target
        .wait_for(LIMIT, |event| matches!(event, Event::Command { .. }))
        .unwrap();
    let mut new = Client::logged_in(&target);
    assert_eq!(old.receive_to_end(), b"", "the old connection is closed");
    assert_eq!((target.held_count(), target.release_held()), (0, 0));
    new.send_read(0, 1);
    assert_eq!(new.receive().data, [0; 512], "the old write took no effect");
    assert!(
        target
            .events()
            .iter()
            .any(|event| matches!(event, Event::Reinstated { .. }))
    );
}

#[test]
fn held_write_of_a_dead_connection_is_carried_out_when_nobody_reinstates() {
    let target = plain();
    target.add(Rule::command(CommandFault::Hold).opcode(0x8a).once());
    let mut client = Client::logged_in(&target);
    client.send_write(0, 1, &[9; 512]);
    target
        .wait_for(LIMIT, |event| matches!(event, Event::Command { .. }))
        .unwrap();
    drop(client);
    target
        .wait_for(LIMIT, |event| matches!(event, Event::Disconnected { .. }))
        .unwrap();
    assert_eq!(target.release_held(), 1);
    assert!(
        target
            .events()
            .iter()
            .any(|event| matches!(event, Event::StaleWrite { .. }))
    );
    let mut block = [0; 512];
    target.disk(0).unwrap().read(0, &mut block);
    assert_eq!(block, [9; 512]);
}

#[test]
fn held_write_is_answered_when_released_and_gone_when_aborted() {
    let target = plain();
    target.add(Rule::command(CommandFault::Hold).opcode(0x8a).times(2));
    let mut client = Client::logged_in(&target);
    let first = client.send_write(0, 1, &[1; 512]);
    let second = client.send_write(1, 1, &[2; 512]);
    client.send_abort(second);
    let answer = client.receive();
    assert_eq!((answer.opcode(), answer.header[2]), (0x22, 0));
    assert_eq!(target.release_held(), 1);
    assert_eq!(client.receive().word(16), first);
    client.send_read(0, 2);
    let data = client.receive().data;
    assert_eq!((data[0], data[512]), (1, 0));
}

#[test]
fn window_closes_while_commands_are_held() {
    let target = with(Negotiation {
        cmd_sn_window: 2,
        ..Negotiation::default()
    });
    target.add(Rule::command(CommandFault::Hold).times(2));
    let mut client = Client::logged_in(&target);
    client.send_read(0, 1);
    client.send_read(0, 1);
    client.send_nop(b"");
    let echo = client.receive();
    assert_eq!(
        echo.word(32).wrapping_sub(echo.word(28)),
        u32::MAX,
        "MaxCmdSN is ExpCmdSN - 1"
    );
    assert_eq!(target.release_held(), 2);
    client.receive();
    let last = client.receive();
    assert_eq!(last.word(32).wrapping_sub(last.word(28)), 1);
}

#[test]
fn stat_sn_counts_through_its_wrap() {
    let target = plain();
    let mut client = Client::logged_in(&target);
    let mut stat_sn = || {
        client.send_nop(b"ping");
        let echo = client.receive();
        assert_eq!(echo.data, b"ping");
        echo.word(24)
    };
    let first = stat_sn();
    for n in 1..8 {
        assert_eq!(stat_sn(), first.wrapping_add(n));
    }
    assert!(first > u32::MAX - 8, "the wrap was met");
}

#[test]
fn long_send_targets_answer_comes_in_many_texts() {
    let target_name = |n| {
        (
            format!("iqn.2026-11.org.example:{n:05}"),
            vec!["192.0.2.1:3260,1".into()],
        )
    };
    let advertised = (0..4000).map(target_name).collect();
    let target = start(TargetConfig {
        advertised,
        ..TargetConfig::default()
    });
    let mut client = Client::connect(&target);
    let text = format!("InitiatorName={NAME}\0SessionType=Discovery\0");
    client.login(OPERATIONAL_TO_FULL, &text);
    client.send_text("SendTargets=All\0", u32::MAX);
    let mut gathered = Vec::new();
    let mut answer = client.receive();
    while answer.header[1] == 0x40 {
        gathered.extend(&answer.data);
        client.send_text("", answer.word(20));
        answer = client.receive();
    }
    gathered.extend(&answer.data);
    assert_eq!((answer.header[1], answer.word(20)), (0x80, u32::MAX));
    assert!(gathered.len() > 250_000);
    assert_eq!(
        String::from_utf8(gathered)
            .unwrap()
            .matches("TargetName=")
            .count(),
        4001
    );
}

#[test]
fn discovery_sessions_get_no_scsi() {
    let target = plain();
    let mut client = Client::connect(&target);
    client.login(
        OPERATIONAL_TO_FULL,
        &format!("InitiatorName={NAME}\0SessionType=Discovery\0"),
    );
    client.send_read(0, 1);
    assert_eq!(client.receive().opcode(), 0x3f);
}

#[test]
fn asynchronous_messages_and_pings_reach_the_initiator() {
    let target = plain();
    let mut client = Client::logged_in(&target);
    target
        .wait_for(LIMIT, |event| matches!(event, Event::LoggedIn { .. }))
        .unwrap();
    assert_eq!(target.ping(), 1);
    let ping = client.receive();
    assert_eq!((ping.opcode(), ping.word(16)), (0x20, u32::MAX));
    assert_ne!(ping.word(20), u32::MAX, "wants an answer");
    assert_eq!(
        target.send_async(AsyncEvent::DropConnection {
            time2wait: 3,
            time2retain: 4
        }),
        1
    );
    let message = client.receive();
    assert_eq!((message.opcode(), message.header[36]), (0x32, 2));
    assert_eq!(message.word(40), 3 << 16 | 4);
    assert_eq!(client.receive_to_end(), b"");
}

#[test]
fn logout_is_answered_and_closes() {
    let target = plain();
    let mut client = Client::logged_in(&target);
    client.send_logout();
    let answer = client.receive();
    assert_eq!((answer.opcode(), answer.header[2]), (0x26, 0));
    assert_eq!(client.receive_to_end(), b"");
}

#[test]
fn one_wake_up_sends_at_most_once() {
    let target = plain();
    let mut client = Client::logged_in(&target);
    let mut batch = Vec::new();
    for block in 0..60 {
        batch.extend(client.read_write(0xc0, 0x88, block, 1));
    }
    client.send_raw(&batch);
    for _ in 0..60 {
        assert_eq!(client.receive().opcode(), 0x25);
    }
    let counters = target.counters();
    assert!(counters.sends <= counters.receives, "{counters:?}");
    assert_eq!(counters.commands, 60);
}

#[test]
fn additional_headers_and_separate_status_change_no_data() {
    let mut config = TargetConfig::default();
    config.delivery.additional_header = vec![0, 5, 2, 0, 0, 0, 0, 0];
    config.delivery.status_with_data = false;
    config.delivery.data_in_bytes = Some(200);
    let target = start(config);
    target.disk(0).unwrap().write(0, &[7; 512]).unwrap();
    let mut client = Client::logged_in(&target);
    client.send_read(0, 1);
    let pieces: Vec<Pdu> = (0..3).map(|_| client.receive()).collect();
    assert!(
        pieces
            .iter()
            .all(|p| p.opcode() == 0x25 && p.header[4] == 2)
    );
    assert_eq!(
        pieces
            .iter()
            .flat_map(|p| p.data.clone())
            .collect::<Vec<_>>(),
        [7; 512]
    );
    assert_eq!(pieces[2].header[1], 0x80);
    let status = client.receive();
    assert_eq!((status.opcode(), status.word(36)), (0x21, 3));
}

#[test]
fn broken_rules_are_recorded_and_end_the_connection() {
    let target = plain();
    let mut client = Client::connect(&target);
    let text = names(&target) + "ImmediateData=No\0";
    client.login(OPERATIONAL_TO_FULL, &text);
    client.send_write(0, 1, &[1; 512]);
    assert_eq!(client.receive_to_end(), b"");
    assert_eq!(target.violations(), ["immediate data that may not be"]);
}

#[test]
fn listens_again_on_the_same_port_with_the_same_data() {
    let target = plain();
    target.refuse_connections();
    target.accept_connections().unwrap();
    Client::logged_in(&target).send_logout();
    let (listen, disk) = (target.portal(), target.disk(0));
    disk.as_ref().unwrap().write(0, b"kept").unwrap();
    target.stop();
    let mut config = TargetConfig {
        listen,
        ..TargetConfig::default()
    };
    config.luns.get_mut(&0).unwrap().disk = disk;
    let target = start(config);
    let mut client = Client::logged_in(&target);
    client.send_read(0, 1);
    assert_eq!(&client.receive().data[..4], b"kept");
}

#[test]
fn security_stage_lets_nobody_jump() {
    let target = plain();
    let mut client = Client::connect(&target);
    client.login(
        SECURITY_TO_OPERATIONAL,
        &(names(&target) + "AuthMethod=None\0"),
    );
    let back = client.login(SECURITY_TO_OPERATIONAL, "");
    assert_eq!(back.status(), (2, 0));
}

#[test]
fn frozen_connections_say_nothing_and_later_ones_work() {
    let target = plain();
    let mut frozen = Client::logged_in(&target);
    target
        .wait_for(LIMIT, |event| matches!(event, Event::LoggedIn { .. }))
        .unwrap();
    target.freeze_connections();
    frozen.send_nop(b"");
    let mut later = Client::logged_in(&target);
    later.send_nop(b"");
    assert_eq!(later.receive().opcode(), 0x20);
    assert_eq!(
        frozen.receive_to_end(),
        b"",
        "closed by reinstatement, unanswered"
    );
    target.freeze_connections();
    later.send_nop(b"late");
    target.thaw();
    assert_eq!(later.receive().data, b"late");
}

#[test]
fn frozen_target_answers_logins_only_when_thawed() {
    let target = plain();
    target.freeze_everything();
    let mut client = Client::connect(&target);
    client.send_login(OPERATIONAL_TO_FULL, &names(&target));
    let connected = |event: &Event| *event == Event::Connected;
    target.wait_for(LIMIT, connected).unwrap();
    assert_eq!(target.sessions(), []);
    target.thaw();
    assert_eq!(client.receive().status(), (0, 0));
    client.send_nop(b"");
    client.receive();
    target.drop_connections();
    let gone = |event: &Event| matches!(event, Event::Disconnected { .. });
    target.wait_for(LIMIT, gone).unwrap();
    assert_eq!(target.sessions(), []);
}

fn null_target(negotiation: Negotiation) -> TestTarget {
    let lun = LunConfig {
        disk: Some(Arc::new(Disk::null())),
        ..LunConfig::default()
    };
    start(TargetConfig {
        luns: BTreeMap::from([(0, lun)]),
        negotiation,
        keep_events: false,
        ..TargetConfig::default()
    })
}

/// GOOD, and no residual.
fn assert_good(answer: &Pdu) {
    assert_eq!((answer.header[1] & 0x06, answer.header[3]), (0, 0));
}

#[test]
fn a_null_disk_takes_writes_in_every_way_and_reads_zeros() {
    let target = null_target(Negotiation {
        first_burst_length: 1024,
        max_burst_length: 2048,
        ..Negotiation::default()
    });
    let mut client = Client::logged_in(&target);
    client.send_write(0, 2, &[1; 1024]);
    assert_good(&client.receive());
    client.send_write(0, 4, &[1; 512]);
    let r2t = client.receive();
    assert_eq!(
        (r2t.opcode(), r2t.word(40), r2t.word(44)),
        (0x31, 512, 1536)
    );
    client.send_data_out(&r2t, &[1; 1536]);
    assert_good(&client.receive());
    assert_eq!(target.counters().data_out_bytes, 3072);
    client.send_read(0, 8);
    let answer = client.receive();
    assert_good(&answer);
    assert!(answer.opcode() == 0x25 && answer.data == [0; 4096]);
}

#[test]
fn a_null_disk_looks_at_data_that_is_to_be_compared() {
    let target = null_target(Negotiation::default());
    let mut client = Client::logged_in(&target);
    for (bytes, status) in [([0; 512], 0), ([1; 512], 2)] {
        let mut verify = client.read_write(0xa0, 0x8f, 0, 1);
        // BYTCHK
        verify[33] = 0x02;
        client.send(&verify, &bytes);
        assert_eq!(client.receive().header[3], status);
    }
}

#[test]
fn a_target_that_keeps_no_events_still_counts() {
    let target = null_target(Negotiation::default());
    let mut client = Client::logged_in(&target);
    client.send_read(0, 1);
    client.receive();
    assert_eq!(target.events(), []);
    let counters = target.counters();
    assert_eq!((counters.logins, counters.commands), (1, 1));
    assert_eq!(counters.data_in_bytes, 512);
}
