//! Inputs made by hand, where fuzzing starts: each for something that should work or, where its name
//! begins with `bad-`, for something that should not and is a small step away.
//!
//! `cargo run -p vhost-user-iscsi-fuzz-harness` writes them into the corpus, to be done when the
//! form of an input has changed. A test sees to it that each still leads where it should.

use crate::front_end::{MEMORY_BYTES, USER_ADDRESS};
use crate::login::{PROOFS, TEXT_END};

/// An input.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target that it is for.
    pub target: &'static str,
    /// What it is about.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn all() -> Vec<Seed> {
    [
        block_requests(),
        chap_values(),
        command_line(),
        descriptor_chains(),
        discovery(),
        front_end(),
        front_end_messages(),
        inflight_region(),
        login(),
        probe(),
        questions(),
        scsi(),
        session(),
        url(),
    ]
    .concat()
}

fn seed(target: &'static str, name: &str, parts: &[&[u8]]) -> Seed {
    Seed {
        target,
        name: name.into(),
        bytes: parts.concat(),
    }
}

/// What was agreed on: no digests, R2T wanted, no immediate data, and a window of 32.
const PLAIN: &[u8] = &[0x04, 2, 2, 2, 2, 31];
/// Both digests, immediate data, no R2T wanted, eight of them open.
const DIGESTS: &[u8] = &[0x7b, 2, 1, 2, 2, 31];

fn session() -> Vec<Seed> {
    let read = [0, 1, 0, 1];
    let write = [0, 4, 0, 3];
    let send = [6, 255];
    let (data_and_status, status, ask) = ([9, 0x46, 0, 0xff, 0x0f, 0], [9, 0, 0], [9, 7, 0, 3]);
    let seed = |name, parts: &[&[u8]]| seed("session", name, parts);
    vec![
        seed("read", &[PLAIN, &read, &send, &data_and_status]),
        seed(
            "read-with-digests",
            &[DIGESTS, &read, &send, &data_and_status],
        ),
        seed("write", &[PLAIN, &write, &send, &ask, &send, &status]),
        seed("write-with-digests", &[DIGESTS, &write, &send, &status]),
        seed(
            "read-in-fragments",
            &[
                PLAIN,
                &[13, 7],
                &read,
                &send,
                &[9, 3, 0, 100, 0],
                &data_and_status,
            ],
        ),
        seed(
            "check-condition",
            &[
                PLAIN,
                &read,
                &send,
                &[9, 0x40, 0, 0, 2, 0, 20, 0, 18, 0x70, 0, 5],
            ],
        ),
        seed(
            "abort",
            &[PLAIN, &read, &send, &[3, 0], &send, &[9, 11, 0, 0]],
        ),
        seed(
            "abort-crosses-status",
            &[PLAIN, &read, &send, &[3, 0], &send, &status, &[9, 11, 0, 0]],
        ),
        seed(
            "bad-order",
            &[PLAIN, &read, &send, &[9, 0x83, 0, 100, 0, 31, 1, 43, 8]],
        ),
        seed("bad-r2ts", &[PLAIN, &[0, 4, 0, 9], &send, &ask, &ask]),
        seed("bad-ping-flood", &[PLAIN, &[9, 9, 0, 7].repeat(70)]),
        seed("reject", &[PLAIN, &read, &send, &[9, 13, 0, 4, 1]]),
        seed(
            "pings-and-log-out",
            &[
                PLAIN,
                &[9, 9, 0, 7],
                &send,
                &read,
                &send,
                &[5, 60],
                &send,
                &[9, 10, 0],
                &[9, 12, 0, 1],
                &[4],
                &send,
                &data_and_status,
                &[9, 14, 0, 0],
            ],
        ),
        seed(
            "raw-bytes",
            &[PLAIN, &read, &send, &data_and_status, &[15, 48, 0x25, 0x80]],
        ),
    ]
}

fn block_requests() -> Vec<Seed> {
    // A thin disk with a cache and everything that there is; a plain one of large blocks.
    let thin: &[u8] = &[0xc4, 0x03, 8, 8, 4, 0, 8, 7];
    let large: &[u8] = &[0x09, 0, 0, 0, 0, 0, 0, 7];
    let admit = |kind: u8, sector: u8, sectors: u8| [0, kind, sector, 0, sectors, 255];
    let good = [5, 0, 0];
    let fails = |kind: u8| [5, 4, 0, 2, kind];
    let seed = |name, parts: &[&[u8]]| seed("block_requests", name, parts);
    vec![
        seed(
            "read",
            &[thin, PLAIN, &admit(0, 8, 32), &good, &good, &good],
        ),
        seed(
            "write",
            &[large, PLAIN, &admit(0x43, 8, 16), &good, &[4, 9], &good],
        ),
        seed("flush", &[thin, PLAIN, &[0, 5, 9], &good]),
        seed("discard", &[thin, PLAIN, &admit(0x0e, 0, 40), &good]),
        seed(
            "write-zeroes",
            &[
                thin,
                PLAIN,
                &admit(0xcf, 0, 40),
                &fails(1),
                &[4, 99],
                &fails(2),
            ],
        ),
        seed(
            "unit-attention",
            &[thin, PLAIN, &admit(0, 0, 4), &fails(0), &[4, 99], &good],
        ),
        seed(
            "deferred-error",
            &[thin, PLAIN, &admit(3, 0, 4), &fails(0x14), &[0, 5, 9]],
        ),
        seed(
            "busy",
            &[
                thin,
                DIGESTS,
                &admit(3, 0, 4),
                &[5, 4, 0, 8, 0x80, 0],
                &[12, 20, 4, 9],
            ],
        ),
        seed(
            "lost-session",
            &[
                thin,
                DIGESTS,
                &admit(0, 0, 9),
                &admit(3, 9, 9),
                &[14, 0xc8, 0],
            ],
        ),
        seed(
            "abandoned",
            &[thin, PLAIN, &admit(0, 0, 9), &admit(3, 9, 9), &[15, 0]],
        ),
    ]
}

fn login() -> Vec<Seed> {
    let end: &[u8] = &[TEXT_END];
    let to_operational: &[u8] = b"\x01AuthMethod=None\0TargetPortalGroupTag=1\0\xff";
    let keys: &[u8] = b"\x03HeaderDigest=None\0DataDigest=None\0MaxConnections=1\0InitialR2T=No\0\
        ImmediateData=Yes\0MaxRecvDataSegmentLength=262144\0MaxBurstLength=262144\0\
        FirstBurstLength=65536\0DefaultTime2Wait=2\0DefaultTime2Retain=0\0MaxOutstandingR2T=1\0\
        DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0\0TargetAlias=a disk\0\xff";
    let chap: &[u8] = b"\x00AuthMethod=CHAP\0TargetPortalGroupTag=1\0\xff";
    let challenge = |algorithm: u8| {
        let text =
            format!("\0CHAP_A={algorithm}\0CHAP_I=12\0CHAP_C=0x00112233445566778899aabbccddeeff\0");
        [text.as_bytes(), end].concat()
    };
    let base64: &[u8] = b"\x00CHAP_A=7\0CHAP_I=0x0c\0CHAP_C=0bABEiM0RVZneImaq7zN3u/w==\0\xff";
    let proven: &[u8] = b"\x01\xff";
    let seed = |name: &str, parts: &[&[u8]]| seed("login", name, parts);
    let mut seeds = vec![
        seed("plain", &[&[0, 0, 0], to_operational, keys]),
        seed(
            "digests",
            &[
                &[0x50, 0x0a, 9],
                to_operational,
                b"\x03HeaderDigest=CRC32C\0DataDigest=CRC32C\0\xff",
            ],
        ),
        seed(
            "discovery",
            &[&[0x20, 0x0f, 0], b"\x01AuthMethod=None\0\xff\x03\xff"],
        ),
        seed(
            "step-by-step",
            &[
                &[0, 0, 0],
                b"\x00AuthMethod=None\0\xff\x01\xff",
                b"\x02MaxBurstLength=65536\0\xff\x03\xff",
            ],
        ),
        seed(
            "continued",
            &[
                &[0, 0, 0],
                b"\x04AuthMethod=No\xff\x00ne\0\xff\x01\xff",
                b"\x05MaxBurst\xff\x02Length=262144\0\xff\x03\xff",
            ],
        ),
        seed("chap", &[&[1, 0x0a, 0], chap, &challenge(7), proven, keys]),
        seed("chap-base64", &[&[9, 0x0a, 0], chap, base64, proven, keys]),
        seed(
            "redirect",
            &[
                &[0, 0, 0],
                b"\x10\x01\x01TargetAddress=[2001:db8::1]:860,3\0\xff",
            ],
        ),
    ];
    for (algorithm, proof) in [8, 7, 6, 5].into_iter().zip(PROOFS) {
        let response = format!("\x01CHAP_N=disk\0CHAP_R={proof}\0");
        seeds.push(seed(
            &format!("mutual-chap-{algorithm}"),
            &[
                &[2, 0x0a, 0],
                chap,
                &challenge(algorithm),
                response.as_bytes(),
                end,
                keys,
            ],
        ));
    }
    seeds
}

fn chap_values() -> Vec<Seed> {
    [
        ("hexadecimal", 0, "0x00112233445566778899aabbccddeeff"),
        ("hexadecimal-odd", 0, "0Xabc"),
        ("base64", 0, "0bABEiM0RVZneImaq7zN3u/w=="),
        ("base64-unpadded", 0, "0BABEiM0RVZneImaq7zN3u/w"),
        ("decimal", 1, "65535"),
        ("number", 1, "0xffff"),
        ("iqn", 2, "iqn.2001-04.com.example:disk"),
        ("eui", 2, "eui.02004567a425678d"),
        ("naa", 2, "naa.52004567ba64678d"),
        ("address", 2, "san.example.com:860,1"),
        ("address-of-6", 2, "[2001:db8::1],65535"),
        (
            "list",
            3,
            "TargetName=iqn.2001-04.com.example:disk\0TargetAddress=a:1,1\0X=\0",
        ),
    ]
    .into_iter()
    .map(|(name, kind, text)| seed("chap_values", name, &[&[kind, 0, 4], text.as_bytes()]))
    .collect()
}

fn discovery() -> Vec<Seed> {
    let first: &[u8] = b"TargetName=iqn.2001-04.com.example:a\0TargetAddress=192.0.2.1:3260,1\0";
    let second: &[u8] = b"TargetAddress=[2001:db8::1]:860,2\0TargetName=eui.02004567a425678d\0";
    let end: &[u8] = &[TEXT_END];
    let seed = |name, parts: &[&[u8]]| seed("discovery", name, parts);
    vec![
        seed("at-once", &[PLAIN, &[0], first, second, end, &[3], end]),
        seed(
            "continued",
            &[
                PLAIN,
                &[1],
                first,
                end,
                &[2],
                &second[..9],
                end,
                &[0],
                &second[9..],
                end,
            ],
        ),
        seed("nothing", &[PLAIN, &[0], end]),
        seed(
            "pinged",
            &[PLAIN, &[0x0c], end, &[5], end, &[0], first, end, &[3], end],
        ),
    ]
}

fn probe() -> Vec<Seed> {
    let answer = |data: &[u8]| {
        let length = u8::try_from(data.len()).expect("a short answer");
        [&[0, length], data].concat()
    };
    let filled = |data: &[u8]| {
        let length = u8::try_from(data.len()).expect("a short answer");
        [&[0x20, length], data].concat()
    };
    let refused = [7, 0];
    let inquiry = filled(b"\0\0\x05\x02\x5b\0\0\0IET     VIRTUAL-DISK    0001");
    let pages = answer(&[0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    let serial = answer(b"\0\x80\0\x06beaf11");
    let designators = answer(&[0, 0x83, 0, 12, 1, 3, 0, 8, 0x60, 1, 0x40, 5, 0, 0, 0, 1]);
    let limits = filled(&[0, 0xb0, 0, 60, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0, 4, 0]);
    let rotation = answer(&[0, 0xb1, 0, 60, 0, 1]);
    let provisioning = answer(&[0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
    let ready = answer(&[]);
    let capacity_16 = filled(&[0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0]);
    let capacity_10 = answer(&[0, 0x1f, 0xff, 0xff, 0, 0, 2, 0]);
    let caching = filled(&[23, 0, 0x10, 0, 8, 18, 4]);
    let everything = [
        inquiry.as_slice(),
        &pages,
        &serial,
        &designators,
        &limits,
        &rotation,
        &provisioning,
        &ready,
        &capacity_16,
        &caching,
        &ready,
    ];
    let old = [
        inquiry.as_slice(),
        &refused,
        &ready,
        &refused,
        &capacity_10,
        &refused,
        &refused,
        &refused,
        &refused,
        &refused,
        &ready,
    ];
    // As many bytes as a signed number of 64 bits can say.
    let capacity = filled(&[0, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0, 2, 0]);
    let largest = [
        inquiry.as_slice(),
        &refused,
        &ready,
        &capacity,
        &caching,
        &ready,
    ];
    let capacity = filled(&[0, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
    let too_large = [
        inquiry.as_slice(),
        &refused,
        &ready,
        &capacity,
        &caching,
        &ready,
    ];
    let attention = [4, 6, 0x29, 0, 0];
    let resized = [4, 6, 0x2a, 9, 0];
    let mut restless = vec![attention.as_slice(), &inquiry, &resized];
    restless.extend(everything);
    vec![
        seed(
            "probe",
            "modern",
            &[&everything.concat(), &[1, 1, 1, 0, 1, 0, 1, 0, 0, 255]],
        ),
        seed(
            "probe",
            "old",
            &[&old.concat(), &[1, 1, 1, 0, 1, 0, 1, 0, 0, 255]],
        ),
        seed(
            "probe",
            "largest",
            &[&largest.concat(), &[1, 1, 1, 0, 1, 0, 1, 0, 0, 255]],
        ),
        seed("probe", "bad-too-large", &[&too_large.concat(), &[1; 10]]),
        seed("probe", "restless", &[&restless.concat(), &[0; 12], &[1]]),
    ]
}

fn scsi() -> Vec<Seed> {
    let seed = |name, kind: u8, data: &[u8]| seed("scsi", name, &[&[kind], data]);
    let mut luns = vec![0, 0, 0, 24, 0, 0, 0, 0];
    luns.extend([
        0, 1, 0, 0, 0, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0, 0xc1, 1, 0, 0, 0, 0, 0, 0,
    ]);
    vec![
        seed(
            "inquiry",
            0,
            b"\0\0\x05\x02\x1f\0\0\0IET     VIRTUAL-DISK    0001",
        ),
        seed("pages", 1, &[0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]),
        seed("serial", 2, b"\0\x80\0\x08  beaf11"),
        seed(
            "designators",
            3,
            &[
                0, 0x83, 0, 38, 1, 3, 0, 8, 0x60, 1, 0x40, 5, 0, 0, 0, 1, 2, 1, 0, 8, b'I', b'E',
                b'T', b' ', b' ', b' ', b' ', b' ', 1, 0x13, 0, 8, 0x60, 1, 0x40, 5, 0, 0, 0, 2, 3,
                8,
            ],
        ),
        seed(
            "limits",
            4,
            &[
                0, 0xb0, 0, 60, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
                0, 1, 0, 0, 0, 16, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0,
            ],
        ),
        seed("rotation", 5, &[0, 0xb1, 0, 60, 0x1c, 0x20]),
        seed("provisioning", 6, &[0, 0xb2, 0, 4, 0, 0xe4, 2, 0]),
        seed("capacity-10", 7, &[0, 0x1f, 0xff, 0xff, 0, 0, 2, 0]),
        seed(
            "capacity-16",
            8,
            &[
                0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        seed(
            "mode-6",
            9,
            &[
                23, 0, 0x90, 0, 8, 18, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        seed(
            "mode-10",
            10,
            &[
                0, 34, 0, 0x10, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 8, 18, 4, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        seed("luns", 11, &luns),
        seed(
            "sense-fixed",
            12,
            &[0xf0, 0, 3, 0, 0, 1, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0],
        ),
        seed(
            "sense-descriptors",
            12,
            &[
                0x72, 6, 0x29, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            ],
        ),
    ]
}

fn questions() -> Vec<Seed> {
    [
        ("status", "\0{\"verb\":\"status\"}"),
        (
            "stats-of-disk",
            "\0 {\"disk\": \"a\\u0062\", \"verb\": \"stats\"} ",
        ),
        (
            "limits",
            "\0{\"verb\":\"limits\",\"disk\":\"a\",\"set\":{\"iops_total\":{\"per_s\":5,\"max_per_s\":9}}}",
        ),
        ("reload", "\0{\"verb\":\"reload\"}"),
        (
            "add",
            "\0{\"verb\":\"add\",\"settings\":{\"name\":\"a\",\"sessions\":2,\"read-only\":true}}",
        ),
        (
            "remove",
            "\0{\"verb\":\"remove\",\"disk\":\"a\",\"force\":true}",
        ),
        ("get", "\u{1}GET /metrics HTTP/1.1\r\nHost: a:9123\r\n\r\n"),
        ("head", "\u{1}HEAD /metrics?x HTTP/1.0\r\n\r\n"),
    ]
    .into_iter()
    .map(|(name, text)| seed("questions", name, &[text.as_bytes()]))
    .collect()
}

fn url() -> Vec<Seed> {
    [
        ("plain", "iscsi://192.0.2.1/iqn.2001-04.com.example:disk/0"),
        (
            "with-port",
            "ISCSI://san.example.com.:860/eui.02004567a425678d/16383",
        ),
        ("of-6", "iscsi://[2001:db8::1]:1/naa.52004567ba64678d/1"),
        ("bad-secret", "iscsi://me%hunter2@h/iqn.2001-04.a:b/0"),
        (
            "bad-secret-among-keys",
            "iscsi://h/iqn.2001-04.a:b/0?target_password=hunter2",
        ),
        (
            "encoded",
            "iscsi://u@san/iqn.2001-04.com.example%3aa/%31?target_user=d%20k",
        ),
        (
            "keys",
            "iscsi://me@h/iqn.2001-04.a:b/7?header_digest=crc32c&data_digest=none&auth=sha-256",
        ),
    ]
    .into_iter()
    .map(|(name, text)| seed("url", name, &[text.as_bytes()]))
    .collect()
}

fn command_line() -> Vec<Seed> {
    let arguments = |kind: u8, secret: &str, name: &str, arguments: &[&str]| {
        let texts = [&[secret, name], arguments].concat();
        [&[kind], texts.join("\0").as_bytes()].concat()
    };
    let seed = |name, bytes: &[u8]| seed("command_line", name, &[bytes]);
    let file = "# ours\nInitiatorName=iqn.2001-04.com.example:host\n";
    let id = "0123456789abcdef0123456789abcdef\n";
    vec![
        seed(
            "serve",
            &arguments(
                1,
                "",
                file,
                &[
                    "--num-queues=4",
                    "--queue-size",
                    "256",
                    "--sessions=2",
                    "--poll-max-us=50",
                    "--read-only",
                    "--serial=disk1",
                    "--socket-mode=0600",
                    "--login-timeout=1m 30s",
                    "--wait-for-target",
                ],
            ),
        ),
        seed(
            "serve-by-fd",
            &arguments(
                0,
                "",
                file,
                &[
                    "--fd=3",
                    "--blk-file",
                    "iscsi://[::1]/iqn.2001-04.com.example:disk/1",
                    "-v",
                ],
            ),
        ),
        seed(
            "chap",
            &arguments(
                1,
                "\n",
                file,
                &[
                    "--chap-user=me",
                    "--chap-secret-file=f",
                    "--header-digest=prefer",
                    "--data-digest=avoid",
                ],
            ),
        ),
        seed(
            "chap-from-environment",
            &arguments(0x1f & !0x11, "x", file, &["--log-level=off"]),
        ),
        seed(
            "probe",
            &arguments(
                6,
                "x",
                file,
                &["--initiator-name=iqn.2001-04.com.example:me"],
            ),
        ),
        seed(
            "discover",
            &arguments(0x13, "", id, &["--login-timeout=500ms"]),
        ),
        seed(
            "discover-by-host-name",
            &arguments(0x33, "", "hv1.example.com\n", &[]),
        ),
        seed("help", &arguments(0, "", "", &["--help"])),
        seed(
            "capabilities",
            &arguments(0, "", "", &["--print-capabilities"]),
        ),
        seed("iname", &arguments(0, "", "", &["iname"])),
    ]
}

fn descriptor_chains() -> Vec<Seed> {
    // A ring of eight with every feature, from 65534 on.
    let ring: &[u8] = &[3, 0x0f, 0xfe, 0xff];
    let header = |kind: u8| [15, 0, 0, 0x80, kind, 77, 0];
    // In the ring's table or the one at 0x9000; a length in bytes, of sectors or of segments.
    let place = |unit: u8, flags: u8| unit << 1 | flags << 3;
    let descriptor = |index: u8, at: u8, unit: u8, length: u8, flags: u8| {
        [0, place(unit, flags), index, 0, 0, at, length, index + 1, 0]
    };
    let indirect = |index: u8, at: u8, unit: u8, length: u8, flags: u8| {
        let place = place(unit, flags) | 1;
        [0, place, 0, 0, 0x90, index, 0, 0, at, length, index + 1, 0]
    };
    let serve: &[u8] = &[3, 0, 0, 8, 11, 0, 0, 12, 13];
    let (next, write, table) = (1, 2, 4);
    let status = |index| descriptor(index, 0xf0, 0, 1, write);
    let seed = |name, parts: &[&[u8]]| seed("descriptor_chains", name, parts);
    let request = |kind: u8, data: &[u8]| {
        [
            &header(kind),
            descriptor(0, 0x80, 0, 16, next).as_slice(),
            data,
        ]
        .concat()
    };
    let read = [descriptor(1, 0xa0, 1, 8, next | write), status(2)].concat();
    let write_data = [descriptor(1, 0xa0, 1, 8, next), status(2)].concat();
    let range: &[u8] = &[
        6, 0, 0, 0xa0, 16, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0,
    ];
    let ranges = [range, &descriptor(1, 0xa0, 2, 1, next), &status(2)].concat();
    let id = [descriptor(1, 0xa0, 0, 20, next | write), status(2)].concat();
    let in_table = [
        header(0).to_vec(),
        descriptor(0, 0x90, 2, 3, table).to_vec(),
        indirect(0, 0x80, 0, 16, next).to_vec(),
        indirect(1, 0xa0, 1, 8, next | write).to_vec(),
        indirect(2, 0xf0, 0, 1, write).to_vec(),
    ];
    vec![
        seed("read", &[ring, &request(0, &read), serve]),
        seed("write", &[ring, &request(1, &write_data), serve]),
        seed("flush", &[ring, &request(2, &status(1)), serve]),
        seed("get-id", &[ring, &request(3, &id), serve]),
        seed("discard", &[ring, &request(4, &ranges), serve]),
        seed("write-zeroes", &[ring, &request(5, &ranges), serve]),
        seed("indirect", &[ring, &in_table.concat(), serve]),
        seed(
            "bad-loop",
            &[
                ring,
                &header(0),
                &descriptor(0, 0x80, 0, 16, next),
                &[0, place(0, next), 1, 0, 0, 0xa0, 8, 0, 0],
                serve,
            ],
        ),
        seed(
            "bad-indirect-loop",
            &[
                ring,
                &header(0),
                &descriptor(0, 0x90, 2, 3, table),
                &indirect(0, 0x80, 0, 16, next),
                &[
                    0,
                    place(1, next | write) | 1,
                    0,
                    0,
                    0x90,
                    1,
                    0,
                    0,
                    0xa0,
                    8,
                    1,
                    0,
                ],
                serve,
            ],
        ),
        seed(
            "bad-length",
            &[
                ring,
                &request(
                    0,
                    &[&descriptor(1, 0xa0, 0, 100, next | write), &status(2)[..]].concat(),
                ),
                serve,
            ],
        ),
        seed("bad-head", &[ring, &request(0, &read), &[3, 8, 0, 8, 12]]),
        seed(
            "bad-index",
            &[ring, &request(0, &read), &[7, 99, 0, 8, 8, 12]],
        ),
        seed(
            "new-memory",
            &[
                ring,
                &request(0, &read),
                &[3, 0, 0, 8, 14, 3, 3, 0, 0, 9, 12],
            ],
        ),
    ]
}

fn inflight_region() -> Vec<Seed> {
    let seed = |name, parts: &[&[u8]]| seed("inflight_region", name, parts);
    let piece = |at: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("a short piece");
        [&[at, 0, length], bytes].concat()
    };
    // A ring of 16 at used index 10, three of its buffers completed again; all of a file.
    let ring: &[u8] = &[4, 10, 0, 3, 0, 1];
    let version: &[u8] = &piece(8, &[1, 0, 16, 0, 2, 0, 9, 0]);
    let marks = [
        piece(16, &[1, 0, 0, 0, 0, 0, 0, 0, 5]),
        piece(48, &[1, 0, 0, 0, 0, 0, 7, 0, 4]),
        piece(80, &[1, 0, 0, 0, 0, 0, 0, 0, 6]),
    ]
    .concat();
    vec![
        seed("never-used", &[ring]),
        seed("idle", &[ring, version]),
        seed(
            "in-flight",
            &[ring, &piece(8, &[1, 0, 16, 0, 2, 0, 10, 0]), &marks],
        ),
        seed("interrupted-batch", &[ring, version, &marks]),
        seed("bad-mark", &[ring, version, &marks, &piece(96, &[2])]),
        seed("bad-version", &[ring, &piece(8, &[2, 0, 16])]),
        seed(
            "bad-batch-is-a-loop",
            &[ring, &piece(8, &[1, 0, 16, 0, 2, 0, 6, 0]), &marks],
        ),
        seed(
            "bad-batch-leaves",
            &[
                ring,
                &piece(8, &[1, 0, 16, 0, 2, 0, 8, 0]),
                &marks,
                &piece(54, &[200]),
            ],
        ),
        seed(
            "bad-used-index",
            &[ring, &piece(8, &[1, 0, 16, 0, 2, 0, 200, 0]), &marks],
        ),
        seed("of-several-queues", &[&[4, 10, 0, 3, 1, 3, 0, 1]]),
    ]
}

fn front_end_messages() -> Vec<Seed> {
    let seed = |name, parts: &[&[u8]]| seed("front_end_messages", name, parts);
    // Without a file, with an event file, with a memory file of 4 KiB.
    let bare = |code: u8, words: &[[u8; 2]]| {
        let count = u8::try_from(words.len()).expect("a few words");
        [&[0, code, count], words.as_flattened()].concat()
    };
    let filed = |file: u8, code: u8, words: &[[u8; 2]]| {
        let count = u8::try_from(words.len()).expect("a few words");
        [&[1, file, code, count], words.as_flattened()].concat()
    };
    let memory = filed(16, 5, &[[1, 0], [0, 0], [0, 16], [0, 0], [0, 0]]);
    let get_inflight = [
        0x04, 31, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let shape = [1, 0, 16, 0, 0, 0, 0, 0];
    vec![
        seed(
            "negotiation",
            &[
                &bare(3, &[]),
                &bare(1, &[]),
                &bare(15, &[]),
                &bare(16, &[[0, 0]]),
            ],
        ),
        seed(
            "memory",
            &[
                &bare(3, &[]),
                &memory,
                &filed(16, 37, &[[0, 0], [0, 64], [0, 16], [0, 64], [0, 0]]),
            ],
        ),
        seed(
            "ring",
            &[
                &[4, 8, 2, 0, 0, 0, 0, 16, 0, 0, 0],
                &bare(10, &[[0, 0]]),
                &filed(1, 12, &[[0, 0]]),
            ],
        ),
        seed("inflight", &[&get_inflight, &shape]),
        seed("raw", &[&[0x80, 12, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]]),
    ]
}

fn front_end() -> Vec<Seed> {
    let [low, high, ..] = u64::to_le_bytes(USER_ADDRESS & 0xffff);
    debug_assert!(low == 0 && high == 0 && MEMORY_BYTES == 0x1_0000);
    let message = |code: u8, words: &[&[u8]]| {
        let count = u8::try_from(words.len()).expect("a few words");
        [&[0, code, count], words.concat().as_slice()].concat()
    };
    let with_file = |file: u8, code: u8, words: &[&[u8]]| {
        let count = u8::try_from(words.len()).expect("a few words");
        [&[1, code, file, count], words.concat().as_slice()].concat()
    };
    let (zero, one): (&[u8], &[u8]) = (&[0, 0, 0], &[0, 1, 0]);
    let number = |low: u8, high: u8| [1, low, high];
    let at = |high: u8| [2, 0, high];
    // A request in the ring: a flush, made available.
    let header: &[u8] = &[0, 0x80, 1, 4];
    let head: &[u8] = &[
        0, 0x10, 16, 0, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0,
    ];
    let status: &[u8] = &[
        0x10, 0x10, 16, 0, 0xf0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0,
    ];
    let available: &[u8] = &[2, 0x30, 1, 1];
    let guest = [&[4], header, head, status, available].concat();
    // Version 1, flushes, and protocol features, of which only the last one is told apart here.
    let features: &[u8] = &[6, 0, 2, 0, 0x40, 1, 0, 0, 0];
    let memory = with_file(
        0,
        5,
        &[&number(1, 0), &number(0, 0), zero, &[3], &at(0), zero],
    );
    let above = [6, 0, 0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let wrapping = [6, 0, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let address = [
        &number(0, 0)[..],
        &number(0, 0),
        &at(0x10),
        &at(0x40),
        &at(0x30),
        zero,
    ];
    let ring = [
        message(8, &[&number(0, 0), &number(8, 0)]),
        message(10, &[&number(0, 0), &number(0, 0)]),
        message(9, &address),
        with_file(2, 12, &[zero]),
        with_file(2, 13, &[zero]),
        message(18, &[&number(0, 0), &number(1, 0)]),
    ]
    .concat();
    let begin = [
        message(3, &[]),
        message(1, &[]),
        message(15, &[]),
        message(16, &[&[6, 8, 0x82, 0, 0, 0, 0, 0, 0]]),
    ];
    let set_features = message(2, &[features]);
    let stop = message(11, &[&number(0, 0), &number(0, 0)]);
    let seed = |name, parts: &[&[u8]]| seed("front_end", name, parts);
    vec![
        seed(
            "ring",
            &[
                &guest,
                &begin.concat(),
                &set_features,
                &memory,
                &ring,
                &stop,
            ],
        ),
        seed(
            "left-running",
            &[&guest, &begin.concat(), &set_features, &memory, &ring],
        ),
        seed(
            "bad-region-of-user",
            &[
                &guest,
                &begin.concat(),
                &set_features,
                &memory,
                &with_file(
                    0,
                    37,
                    &[zero, &[6, 0, 0, 0x20, 0, 0, 0, 0, 0], &[3], &wrapping, zero],
                ),
                &message(
                    9,
                    &[&number(0, 0), &number(0, 0), &above, &above, &above, zero],
                ),
            ],
        ),
        seed(
            "bad-region",
            &[
                &guest,
                &begin.concat(),
                &set_features,
                &with_file(0, 37, &[zero, &wrapping, &[3], &at(0), zero]),
                &ring,
            ],
        ),
        seed(
            "reset",
            &[
                &guest,
                &begin.concat(),
                &set_features,
                &memory,
                &ring,
                &message(34, &[]),
                &message(24, &[one]),
            ],
        ),
    ]
}
