//! Other people's initiators against the target: Debian's libiscsi tools.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use iscsi_test_target::{
    ChapConfig, DigestPolicy, Event, LoginFault, LunConfig, Negotiation, Rule, Secret,
    TargetConfig, TestTarget, Thin,
};
use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long any one tool may run.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs a tool to its end, within the limit; a missing one is an error with a name to install.
fn run(tool: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let child = Command::new(tool)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.unwrap_or_else(|error| {
        panic!("{tool}: {error}. Install the Debian package libiscsi-bin.")
    });
    let id = child.id();
    let waiter = std::thread::spawn(move || child.wait_with_output());
    let end = Instant::now() + LIMIT;
    while !waiter.is_finished() {
        if Instant::now() > end {
            let _ = Command::new("kill").arg(id.to_string()).status();
            panic!("{tool} {arguments:?} did not end within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    waiter.join().unwrap().unwrap()
}

fn stdout(tool: &str, arguments: &[&str]) -> String {
    let output = run(tool, arguments, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {text}{complaint}"
    );
    text
}

fn start(config: TargetConfig) -> TestTarget {
    TestTarget::start(config).unwrap()
}

fn with_lun(lun: LunConfig) -> TargetConfig {
    TargetConfig {
        luns: BTreeMap::from([(0, lun)]),
        ..TargetConfig::default()
    }
}

#[test]
fn iscsi_ls_shows_every_lun() {
    let controller = LunConfig {
        device_type: 0x0c,
        ..LunConfig::default()
    };
    let luns = BTreeMap::from([(0, controller), (1, LunConfig::of_bytes(5 << 30))]);
    let target = start(TargetConfig {
        luns,
        ..TargetConfig::default()
    });
    let text = stdout("iscsi-ls", &["-s", &format!("iscsi://{}", target.portal())]);
    assert!(text.contains(target.name()), "{text}");
    assert!(
        text.contains("Lun:1    Type:DIRECT_ACCESS (Size:4G)"),
        "{text}"
    );
    assert!(
        text.contains("Lun:0    Type:STORAGE_ARRAY_CONTROLLER"),
        "{text}"
    );
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn iscsi_inq_shows_serial_and_limits() {
    let lun = LunConfig {
        serial: Some("  SER 1".into()),
        ..LunConfig::default()
    };
    let target = start(with_lun(lun));
    let serial = stdout("iscsi-inq", &["-e", "1", "-c", "128", &target.url(0)]);
    assert!(serial.contains("[  SER 1]"), "{serial}");
    let limits = stdout("iscsi-inq", &["-e", "1", "-c", "176", &target.url(0)]);
    assert!(
        limits.contains("maximum write same length:1048576"),
        "{limits}"
    );
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn iscsi_readcapacity16_shows_blocks_of_4096_beyond_2_tib() {
    let lun = LunConfig {
        block_bytes: 4096,
        physical_exponent: 0,
        thin: Some(Thin::default()),
        ..LunConfig::of_bytes(8 << 40)
    };
    let target = start(with_lun(lun));
    let text = stdout("iscsi-readcapacity16", &[&target.url(0)]);
    assert!(
        text.contains("RETURNED LOGICAL BLOCK ADDRESS:2147483647"),
        "{text}"
    );
    assert!(
        text.contains("LOGICAL BLOCK LENGTH IN BYTES:4096"),
        "{text}"
    );
    assert!(text.contains("LBPME:1 LBPRZ:1"), "{text}");
}

/// The initiator side of CHAP as libiscsi has it. It takes the secrets from its environment.
fn log_in_with(target: &TestTarget, environment: &[(&str, &str)]) -> Output {
    run("iscsi-readcapacity16", &[&target.url(0)], environment)
}

fn chap_target() -> TestTarget {
    let chap = ChapConfig::new("user", Secret::new("user's secret"));
    let chap = chap.mutual("target", Secret::new("target's secret"));
    start(TargetConfig {
        chap: Some(chap),
        ..TargetConfig::default()
    })
}

const ONE_WAY: [(&str, &str); 2] = [
    ("LIBISCSI_CHAP_USERNAME", "user"),
    ("LIBISCSI_CHAP_PASSWORD", "user's secret"),
];
const TARGET_USER: (&str, &str) = ("LIBISCSI_CHAP_TARGET_USERNAME", "target");

#[test]
fn chap_lets_in_the_right_secret_one_way_and_mutual() {
    let target = chap_target();
    assert!(log_in_with(&target, &ONE_WAY).status.success());
    let answer = ("LIBISCSI_CHAP_TARGET_PASSWORD", "target's secret");
    let mutual = [ONE_WAY[0], ONE_WAY[1], TARGET_USER, answer];
    assert!(log_in_with(&target, &mutual).status.success());
}

#[test]
fn chap_refuses_a_wrong_secret_and_none() {
    let target = chap_target();
    let wrong = [ONE_WAY[0], ("LIBISCSI_CHAP_PASSWORD", "another secret")];
    assert!(!log_in_with(&target, &wrong).status.success());
    assert!(!log_in_with(&target, &[]).status.success());
    let refused = Event::LoginRefused {
        class: 2,
        detail: 1,
    };
    // The tool may be gone before the target has written down that it refused it.
    let mut count = 0;
    let both = target.wait_for(LIMIT, |event| {
        count += usize::from(*event == refused);
        count == 2
    });
    assert!(both.is_some(), "{:#?}", target.events());
}

#[test]
fn digests_are_agreed_with_libiscsi() {
    let negotiation = Negotiation {
        header_digest: DigestPolicy::Require,
        ..Negotiation::default()
    };
    let target = start(TargetConfig {
        negotiation,
        ..TargetConfig::default()
    });
    let url = format!("{}?header_digest=crc32c", target.url(0));
    let text = stdout("iscsi-readcapacity16", &[&url]);
    assert!(text.contains("Total size:67108864"), "{text}");
}

#[test]
fn redirects_are_followed_by_libiscsi() {
    let (first, second) = (
        start(TargetConfig::default()),
        start(TargetConfig::default()),
    );
    let address = second.portal().to_string();
    first.add(Rule::login(LoginFault::Redirect {
        permanent: false,
        address,
    }));
    stdout("iscsi-readcapacity16", &[&first.url(0)]);
    assert_eq!((first.counters().logins, second.counters().logins), (0, 1));
}

/// Runs a family or suite of iscsi-test-cu and demands that it ran something and nothing failed.
fn conform(target: &TestTarget, suite: &str) {
    let text = stdout("iscsi-test-cu", &["-d", "-n", "-t", suite, &target.url(0)]);
    let summary = text
        .lines()
        .find(|line| line.trim_start().starts_with("tests "));
    let numbers: Vec<&str> = summary.unwrap_or_default().split_whitespace().collect();
    assert!(
        numbers.get(2).is_some_and(|ran| *ran != "0"),
        "{suite} ran nothing: {text}"
    );
    assert_eq!(numbers.get(4), Some(&"0"), "{suite}: {text}");
}

/// A disk with all that the conformance tests ask for. One logical block per physical block:
/// GetLBAStatus.UnmapSingle takes the two for the same.
fn conforming() -> LunConfig {
    LunConfig {
        thin: Some(Thin::default()),
        physical_exponent: 0,
        ..LunConfig::of_bytes(64 << 20)
    }
}

#[test]
fn passes_iscsi_test_cu_for_information() {
    let target = start(with_lun(conforming()));
    for suite in [
        "SCSI.Inquiry",
        "SCSI.Mandatory",
        "SCSI.ModeSense6",
        "SCSI.ReadCapacity10",
        "SCSI.ReadCapacity16",
        "SCSI.TestUnitReady",
        "SCSI.GetLBAStatus",
        "SCSI.StartStopUnit",
    ] {
        conform(&target, suite);
    }
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn passes_iscsi_test_cu_for_reads_and_writes() {
    let target = start(with_lun(conforming()));
    for family in ["Read", "Write", "Verify", "WriteVerify"] {
        for length in ["10", "12", "16"] {
            conform(&target, &format!("SCSI.{family}{length}"));
        }
    }
    for suite in [
        "SCSI.Read6",
        "SCSI.CompareAndWrite",
        "SCSI.Prefetch10",
        "SCSI.Prefetch16",
    ] {
        conform(&target, suite);
    }
    assert_eq!(target.violations(), [""; 0]);
}

/// Not WriteSame10.UnmapUntilEnd: it writes 0xff with the UNMAP bit and wants zeros back.
#[test]
fn passes_iscsi_test_cu_for_provisioning() {
    let target = start(with_lun(conforming()));
    for suite in [
        "SCSI.Unmap",
        "SCSI.WriteSame16",
        "SCSI.WriteSame10.Simple",
        "SCSI.WriteSame10.BeyondEol",
        "SCSI.WriteSame10.ZeroBlocks",
        "SCSI.WriteSame10.Unmap",
        "SCSI.WriteSame10.UnmapUnaligned",
        "SCSI.WriteSame10.InvalidDataOutSize",
    ] {
        conform(&target, suite);
    }
    assert_eq!(target.violations(), [""; 0]);
}

/// Not iSCSIdatasn: it takes for granted that a protocol error does not end the connection.
#[test]
fn passes_iscsi_test_cu_for_iscsi() {
    let target = start(with_lun(conforming()));
    for suite in ["iSCSI.iSCSIcmdsn", "iSCSI.iSCSIResiduals", "iSCSI.iSCSITMF"] {
        conform(&target, suite);
    }
}

#[test]
fn passes_iscsi_test_cu_with_small_segments_and_r2t_for_everything() {
    let negotiation = Negotiation {
        max_recv_data_segment_length: Some(512),
        max_burst_length: 4096,
        first_burst_length: 512,
        initial_r2t: true,
        immediate_data: false,
        max_outstanding_r2t: 1,
        answer_chunk_bytes: None,
        ..Negotiation::default()
    };
    let mut config = TargetConfig {
        negotiation,
        ..with_lun(conforming())
    };
    config.delivery.status_with_data = false;
    config.delivery.data_in_bytes = Some(700);
    config.delivery.ping_every_commands = Some(3);
    let target = start(config);
    conform(&target, "SCSI.Write16");
    conform(&target, "SCSI.Read16");
    assert!(
        target
            .events()
            .iter()
            .any(|event| matches!(event, Event::R2tSent { .. }))
    );
    assert!(
        target
            .events()
            .iter()
            .any(|event| matches!(event, Event::Ponged { .. }))
    );
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn iscsi_ls_lists_advertised_targets() {
    let advertised = (0..5).map(|n| {
        (
            format!("iqn.2026-11.org.example:{n}"),
            vec!["192.0.2.1:3260,1".into()],
        )
    });
    let mut config = TargetConfig {
        advertised: advertised.collect(),
        ..TargetConfig::default()
    };
    config.advertised_portals = Some(vec!["[2001:db8::1]:3260,1".into()]);
    let target = start(config);
    let text = stdout("iscsi-ls", &[&format!("iscsi://{}", target.portal())]);
    assert_eq!(text.matches("Target:").count(), 6, "{text}");
}
