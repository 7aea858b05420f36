//! What becomes of the files of other initiators, and what is said of those that are none.

use std::fs;

use super::*;
use crate::exit::ExitCode;

/// Imports one file with this text.
fn import_as(text: &[u8], from: Option<Kind>) -> Result<String, Failure> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, text).unwrap();
    let shown = directory.path().display().to_string() + "/";
    Ok(import_of(file, from)?.replace(&shown, ""))
}

/// Imports a file or a directory.
fn import_of(path: PathBuf, from: Option<Kind>) -> Result<String, Failure> {
    let arguments = ImportArgs {
        files: vec![path],
        from,
        secrets_directory: None,
    };
    let mut out = Vec::new();
    run(&arguments, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn import(text: &str) -> String {
    import_as(text.as_bytes(), None).unwrap()
}

/// What is wrong with a text, without the directory.
fn complaint(text: &[u8]) -> String {
    let failure = import_as(text, None).unwrap_err();
    assert_eq!(failure.code, ExitCode::Usage);
    let message = failure.to_string();
    message.rsplit_once("/file").unwrap().1.to_owned()
}

/// The settings of one table of the output, without comments.
fn table(text: &str, header: &str) -> Vec<String> {
    let tables = text.split(header).nth(1).unwrap_or_default();
    let lines = tables.lines().skip(1).take_while(|line| !line.is_empty());
    let settings = lines.filter(|line| !line.starts_with('#'));
    settings.map(str::to_owned).collect()
}

#[test]
fn what_cannot_be_read_is_said_with_its_line_and_never_repeated() {
    let cases: [(&[u8], &str); 14] = [
        (b"", ": it is neither"),
        (b"hunter2", ": it is neither"),
        (b"\x7fELF\0", ":1: there is a NUL"),
        (b"node.name = x\n\xff\xfe", ":2: this line is not UTF-8"),
        (b"DiscoveryAddress=a\nhunter2", ":2: a line is Key=value"),
        (
            b"DiscoveryAddress=hunter2 x",
            ":1: the address is not valid",
        ),
        (b"LoginTimeout=hunter2", ":1: a time is"),
        (b"Username=x\nHeaderDigest=hunter2", ":2: a digest is"),
        (b"Enabled=hunter2", ":1: this key takes yes or no"),
        (
            b"DiscoveryAddress=a\nSubnet=192.0.2.0/33",
            ":2: this key takes an IPv4",
        ),
        (b"node.name = hunter2", ":1: not a target's name"),
        (
            b"node.name = iqn.2001-04.com.example:a",
            ":1: this record has no",
        ),
        (b"iscsi://me%hunter2@/x/1", ":1: the URL is not valid"),
        (
            b"# x\n-blockdev '{driver=iscsi,hunter2'",
            ":2: this JSON cannot be read",
        ),
    ];
    for (text, expected) in cases {
        let message = complaint(text);
        assert!(message.starts_with(expected), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn quotation_marks_come_in_pairs() {
    let message = complaint(b"\n\n-drive 'file=iscsi://h/iqn.2001-04.com.example/1");
    assert!(message.contains("a quotation mark without"), "{message}");
}

#[test]
fn a_kind_can_be_forced() {
    let text = b"node.startup = automatic";
    let failure = import_as(text, Some(Kind::InitiatorName)).unwrap_err();
    assert!(failure.message.contains("no line InitiatorName="));
    assert!(import_as(b"unknown = 1", Some(Kind::Sfnet)).is_ok());
}

#[test]
fn a_local_setting_of_sfnet_beats_a_global_one_which_holds_until_it_is_set_again() {
    // The example of iscsi.conf(5).
    let text = import(
        "OutgoingUsername=alice\nOutgoingPassword=a\nLoginTimeout=20\n\
         DiscoveryAddress=192.168.250.230\n OutgoingUsername=bob\n OutgoingPassword=b\n\
         LoginTimeout=15\nDiscoveryAddress=192.168.250.240\n",
    );
    let first = table(&text, "192.168.250.230:3260");
    let second = table(&text, "192.168.250.240:3260");
    assert_eq!(first[0], "chap-user = \"bob\"");
    assert_eq!(first[2], "login-timeout = \"20s\"");
    assert_eq!(second[0], "chap-user = \"alice\"");
    assert_eq!(second[2], "login-timeout = \"15s\"");
}

#[test]
fn a_subnet_of_sfnet_beats_a_target() {
    let text = import(
        "DiscoveryAddress=192.168.250.230\nSubnet=192.168.250.0/24\n LoginTimeout=20\n\
         TargetName=iqn.1987-05.com.cisco:disk1\n LoginTimeout=30\n DataDigest=always\n",
    );
    let target = table(&text, "include = ");
    assert_eq!(target, ["data-digest = \"crc32c\""]);
    assert!(text.contains("\nlogin-timeout = \"20s\"\n"), "{text}");
}

#[test]
fn a_network_that_is_not_enabled_gets_no_session() {
    let text = import(
        "DiscoveryAddress=192.0.2.1\nDiscoveryAddress=198.51.100.1\nAddress=192.0.2.1\n Enabled=no\n",
    );
    assert!(!text.contains("address = \"192.0.2.1"), "{text}");
    assert!(text.contains("address = \"198.51.100.1"), "{text}");
    // Where a comment is broken depends on how long the path was.
    let on_one_line = text.replace("\n#   ", " ");
    assert!(on_one_line.contains("file:3 forbids sessions"), "{text}");
}

#[test]
fn one_target_without_chap_keeps_it_from_all() {
    // At the top it could not be taken back.
    let record = |name: &str, method: &str| {
        format!(
            "node.name = iqn.2001-04.com.example:{name}\nnode.conn[0].address = 192.0.2.1\n\
             node.session.auth.authmethod = {method}\nnode.session.auth.username = me\n\
             node.session.auth.password = secret\n"
        )
    };
    let directory = tempfile::tempdir().unwrap();
    for (name, method) in [("a", "CHAP"), ("b", "None")] {
        fs::write(directory.path().join(name), record(name, method)).unwrap();
    }
    let text = import_of(directory.path().to_owned(), None).unwrap();
    assert_eq!(text.matches("chap-user").count(), 1);
    assert!(table(&text, "example:a\"]")[0].starts_with("chap-user"));
    assert!(table(&text, "example:b\"]").is_empty());
}

#[test]
fn targets_of_one_portal_with_the_same_settings_share_an_entry() {
    let directory = tempfile::tempdir().unwrap();
    for (name, address, timeout) in [
        ("a", "192.0.2.1", 5),
        ("b", "192.0.2.1", 5),
        ("c", "192.0.2.1", 6),
        ("d", "192.0.2.2", 5),
    ] {
        let record = format!(
            "node.name = iqn.2001-04.com.example:{name}\nnode.conn[0].address = {address}\n\
             node.session.timeo.replacement_timeout = {timeout}\n"
        );
        fs::write(directory.path().join(name), record).unwrap();
    }
    let text = import_of(directory.path().to_owned(), None).unwrap();
    assert_eq!(text.matches("[[portal]]").count(), 3, "{text}");
    let both = "include = [\"iqn.2001-04.com.example:a\", \"iqn.2001-04.com.example:b\"]";
    assert!(text.contains(both), "{text}");
}

#[test]
fn chap_that_cannot_work_is_left_out_and_said() {
    for (settings, said) in [
        ("Password=p\n", "a secret without a user name"),
        ("IncomingUsername=t\nIncomingPassword=p\n", "without ours"),
        (
            "Username=u\nPassword=p\nIncomingUsername=t\nIncomingPassword=p\n",
            "the same as ours",
        ),
    ] {
        let text = import(&format!("{settings}DiscoveryAddress=192.0.2.1\n"));
        assert!(text.replace("\n#  ", "").contains(said), "{text}");
        assert!(!text.contains("chap-target-user"), "{text}");
    }
}

#[test]
fn times_out_of_bounds_are_moved_into_them() {
    let text = import(
        "node.session.timeo.replacement_timeout = 999999\nnode.conn[0].timeo.login_timeout = 0\n",
    );
    assert!(text.contains("io-timeout = \"1day\""), "{text}");
    assert!(text.contains("login-timeout = \"1s\""), "{text}");
    let forever = import("node.session.timeo.replacement_timeout = -1\n");
    assert!(forever.contains("io-timeout = \"forever\""), "{forever}");
}

#[test]
fn there_is_a_bound_on_disks() {
    let url = |index: usize| format!("iscsi://192.0.2.1/iqn.2001-04.com.example:a/{index}\n");
    let urls = |count| (0..count).map(url).collect::<String>();
    assert_eq!(import(&urls(1024)).matches("[[disk]]").count(), 1024);
    assert!(complaint(urls(1025).as_bytes()).starts_with(":1025: more than 1024"));
}

#[test]
fn a_name_from_a_file_cannot_break_out_of_a_comment_or_a_text() {
    let text = import(
        "-drive 'id=a\"b,file=iscsi://192.0.2.1/iqn.2001-04.com.example:a/1,format=raw,x\ny=1' \
         -name 'g\u{1b}[2J\nchap-user = \"x\"'",
    );
    assert!(!text.contains('\u{1b}'));
    assert!(!text.contains("\nchap-user"), "{text}");
    assert!(text.contains("name = \"a-b\""), "{text}");
}
