//! Other people's initiators against the target: Debian's libiscsi tools, and QEMU's own driver.

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
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long any one tool may run.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs a tool to its end, within the limit; a missing one is an error with a name to install.
fn run(tool: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(tool);
    command.args(arguments).envs(environment.iter().copied());
    run_command(&mut command, "", "libiscsi-bin")
}

/// The same for a tool of any Debian package, which reads `input`.
fn run_command(command: &mut Command, input: &str, package: &str) -> Output {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("{command:?}: {error}. Install the Debian package {package}.")
    });
    // It may not read all of it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let id = child.id();
    let waiter = std::thread::spawn(move || child.wait_with_output());
    let end = Instant::now() + LIMIT;
    while !waiter.is_finished() {
        if Instant::now() > end {
            let _ = Command::new("kill").arg(id.to_string()).status();
            panic!("{command:?} did not end within {LIMIT:?}");
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

/// What iscsi-test-cu may leave out, since the target does not claim to have it.
const NOT_CLAIMED: [&str; 5] = [
    "PERSISTENT RESERVE IN is not implemented",
    "REPORT_SUPPORTED_OPCODES is not implemented",
    "ORWRITE is not implemented",
    "UNMAP is not implemented",
    "Media is not removable",
];

/// Runs a family or suite of iscsi-test-cu and demands that it ran something, that nothing failed,
/// and that nothing was left out which the target claims to have.
fn conform(target: &TestTarget, suite: &str) {
    conform_at(&target.url(0), suite);
}

fn conform_at(url: &str, suite: &str) {
    let text = stdout("iscsi-test-cu", &["-d", "-n", "-t", suite, url]);
    let left_out = text.lines().filter(|line| line.contains("[SKIPPED]"));
    let claimed = |line: &&str| !NOT_CLAIMED.iter().any(|known| line.contains(known));
    let left_out: Vec<_> = left_out.filter(claimed).collect();
    assert_eq!(left_out, [""; 0], "{suite}");
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

/// A disk with all that the conformance tests ask for: some of them want several logical blocks to
/// a physical one.
fn conforming() -> LunConfig {
    LunConfig {
        thin: Some(Thin::default()),
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
        "SCSI.StartStopUnit",
    ] {
        conform(&target, suite);
    }
    assert_eq!(target.violations(), [""; 0]);
}

/// With one logical block per physical block: UnmapSingle takes the two for the same.
#[test]
fn passes_iscsi_test_cu_for_lba_status() {
    let target = start(with_lun(LunConfig {
        physical_exponent: 0,
        ..conforming()
    }));
    conform(&target, "SCSI.GetLBAStatus");
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
fn passes_iscsi_test_cu_with_4096_byte_blocks() {
    let target = start(with_lun(LunConfig {
        block_bytes: 4096,
        ..conforming()
    }));
    for suite in [
        "Read10",
        "Read16",
        "Write10",
        "Write16",
        "Verify16",
        "WriteVerify16",
        "CompareAndWrite",
        "Unmap",
        "WriteSame16",
        "Prefetch16",
        "Inquiry",
        "ReadCapacity16",
    ] {
        conform(&target, &format!("SCSI.{suite}"));
    }
    assert_eq!(target.violations(), [""; 0]);
}

/// It would skip a LUN that can be written, and say nothing.
#[test]
fn passes_iscsi_test_cu_for_a_write_protected_lun() {
    let lun = LunConfig {
        write_protected: true,
        thin: None,
        ..conforming()
    };
    let target = start(with_lun(lun));
    for suite in ["ReadOnly", "Read16", "ModeSense6"] {
        conform(&target, &format!("SCSI.{suite}"));
    }
    assert_eq!(target.violations(), [""; 0]);
}

#[test]
fn passes_iscsi_test_cu_with_header_digests() {
    let negotiation = Negotiation {
        header_digest: DigestPolicy::Require,
        ..Negotiation::default()
    };
    let target = start(TargetConfig {
        negotiation,
        ..with_lun(conforming())
    });
    let url = format!("{}?header_digest=crc32c", target.url(0));
    for suite in ["SCSI.Read16", "SCSI.Write16", "SCSI.WriteSame16"] {
        conform_at(&url, suite);
    }
    assert_eq!(target.violations(), [""; 0]);
}

// ---- QEMU ---------------------------------------------------------------------------------------

/// What QEMU's block driver is made to do: small and large, discarded and zeroed, beside one another.
const QEMU_IO: [&str; 9] = [
    "write -P 0xa5 0 1M",
    "write -P 0x5a 1M 64k",
    "write -P 0x11 3M 512",
    "flush",
    "read -P 0xa5 0 1M",
    "read -P 0x5a 1M 64k",
    "discard 0 64k",
    "write -z 512k 128k",
    "read -P 0 512k 128k",
];

/// How QEMU says that its package with the iSCSI driver is missing or of another version.
const NO_DRIVER: [&str; 2] = ["Unknown protocol 'iscsi'", "Unknown driver 'iscsi'"];

/// Output of `qemu-io`.
fn by_qemu_io(target: &TestTarget) -> String {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw"]);
    for line in QEMU_IO {
        command.args(["-c", line]);
    }
    all_of(run_command(command.arg(target.url(0)), "", "qemu-utils"))
}

/// Output of the same commands in the monitor of an emulator without a machine: it is of another
/// package, whose version may fit the driver where that of `qemu-io` does not.
fn by_emulator(target: &TestTarget) -> String {
    let blockdev = format!(
        "driver=iscsi,node-name=disk,transport=tcp,portal={},target={},lun=0",
        target.portal(),
        target.name()
    );
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "none", "-nodefaults", "-display", "none"]);
    command.args(["-monitor", "stdio", "-blockdev", &blockdev]);
    let lines = QEMU_IO.map(|line| format!("qemu-io disk \"{line}\"\n"));
    let input = lines.concat() + "quit\n";
    all_of(run_command(&mut command, &input, "qemu-system-x86"))
}

fn all_of(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Each line did its work, on every byte, and what it found was right.
fn judge_qemu(said: &str) {
    let done = |line: &str| {
        let mut words = line.split_whitespace();
        let (verb, bytes) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (done, of) = bytes.split_once('/').unwrap_or(("", "-"));
        ["wrote", "read", "discard"].contains(&verb) && done == of
    };
    let count = said.lines().filter(|line| done(line)).count();
    // A flush says nothing.
    assert_eq!(count, QEMU_IO.len() - 1, "{said}");
    let wrong = ["failed", "error", "rror:"];
    assert!(!wrong.iter().any(|word| said.contains(word)), "{said}");
}

#[test]
fn qemu_reads_and_writes_by_its_own_driver() {
    let mut fitting = 0;
    let mut said = String::new();
    for by in [by_qemu_io, by_emulator] {
        let target = start(with_lun(conforming()));
        said = by(&target);
        if NO_DRIVER.iter().any(|words| said.contains(words)) {
            continue;
        }
        fitting += 1;
        judge_qemu(&said);
        let disk = target.disk(0).unwrap();
        let mut stored = [0; 512];
        for (offset_bytes, byte) in [
            (256 << 10, 0xa5),
            (512 << 10, 0),
            (1 << 20, 0x5a),
            (3 << 20, 0x11),
        ] {
            disk.read(offset_bytes, &mut stored);
            assert_eq!(stored, [byte; 512], "at {offset_bytes}");
        }
        assert_eq!(target.violations(), [""; 0]);
    }
    assert!(
        fitting > 0,
        "install the Debian package qemu-block-extra, of the version of qemu-utils or \
         qemu-system-x86: {said}"
    );
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
