//! URLs that are taken, what is wrong with those that are not, and that no secret is repeated.

use proptest::prelude::*;

use super::*;

const IQN: &str = "iqn.2001-04.com.example:disk";

fn parse(text: &str) -> Result<TargetUrl, UrlError> {
    TargetUrl::parse(text)
}

#[test]
fn accepts_hosts_ports_and_the_three_kinds_of_names() {
    for (text, shown) in [
        (
            "iscsi://192.0.2.1/iqn.2001-04.com.example:a/0",
            "iscsi://192.0.2.1:3260/iqn.2001-04.com.example:a/0",
        ),
        (
            "ISCSI://san:860/iqn.2001-04.com.Example:a/16383",
            "iscsi://san:860/iqn.2001-04.com.example:a/16383",
        ),
        (
            "iscsi://[::1]:1/eui.02004567a425678d/1",
            "iscsi://[::1]:1/eui.02004567a425678d/1",
        ),
        (
            "iscsi://san/naa.52004567ba64678d/01",
            "iscsi://san:3260/naa.52004567ba64678d/1",
        ),
        (
            "iscsi://u@san/iqn.2001-04.com.example%3aa/%31",
            "iscsi://san:3260/iqn.2001-04.com.example:a/1",
        ),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), shown);
    }
}

#[test]
fn takes_libiscsis_keys() {
    let url = parse(&format!(
        "iscsi://me@h/{IQN}/3?header_digest=crc32c&data_digest=none&auth=sha3-256&target_user=it%20self@x"
    ))
    .unwrap();
    assert_eq!(url.user.as_deref(), Some("me"));
    assert_eq!(url.header_digest, Some(DigestPreference::Crc32c));
    assert_eq!(url.data_digest, Some(DigestPreference::None));
    assert_eq!(url.auth, Some(ChapAlgorithm::Sha3_256));
    assert_eq!(url.target_user.as_deref(), Some("it self@x"));
}

#[test]
fn each_auth_value_names_its_algorithm() {
    for (value, algorithm) in [
        ("md5", ChapAlgorithm::Md5),
        ("sha1", ChapAlgorithm::Sha1),
        ("sha-256", ChapAlgorithm::Sha256),
        ("sha3-256", ChapAlgorithm::Sha3_256),
    ] {
        let url = parse(&format!("iscsi://h/{IQN}/0?auth={value}")).unwrap();
        assert_eq!(url.auth, Some(algorithm));
    }
}

#[test]
fn refuses_each_malformed_url_naming_the_part() {
    let value = |key, allowed| UrlError::Value { key, allowed };
    for (text, error) in [
        ("", UrlError::Scheme),
        ("/dev/sda", UrlError::Scheme),
        ("iscsi:/h/IQN/0", UrlError::Scheme),
        ("http://h/IQN/0", UrlError::Scheme),
        ("iser://h/IQN/0", UrlError::Iser),
        ("iscsi://", UrlError::Portal(PortalError::NoHost)),
        ("iscsi:///IQN/0", UrlError::Portal(PortalError::NoHost)),
        ("iscsi://h:0/IQN/0", UrlError::Portal(PortalError::Port)),
        ("iscsi://::1/IQN/0", UrlError::Portal(PortalError::BareIpv6)),
        ("iscsi://a%20b/IQN/0", UrlError::Portal(PortalError::Host)),
        ("iscsi://@h/IQN/0", UrlError::User),
        ("iscsi://a/b@h/IQN/0", UrlError::User),
        ("iscsi://a@b@h/IQN/0", UrlError::User),
        ("iscsi://h", UrlError::NoTarget),
        ("iscsi://h/", UrlError::NoTarget),
        ("iscsi://h//0", UrlError::NoTarget),
        ("iscsi://h/disk/0", UrlError::Target(NameError::Prefix)),
        ("iscsi://h/iqn.x/0", UrlError::Target(NameError::Iqn)),
        ("iscsi://h/IQN%2f/0", UrlError::Target(NameError::Character)),
        ("iscsi://h/IQN%/0", UrlError::PercentEncoding(Part::Target)),
        ("iscsi://h/IQN%0/0", UrlError::PercentEncoding(Part::Target)),
        (
            "iscsi://h/IQN%+1/0",
            UrlError::PercentEncoding(Part::Target),
        ),
        (
            "iscsi://h/IQN%ff/0",
            UrlError::PercentEncoding(Part::Target),
        ),
        ("iscsi://h/IQN", UrlError::NoLun),
        ("iscsi://h/IQN/", UrlError::NoLun),
        ("iscsi://h/IQN/-1", UrlError::Lun),
        ("iscsi://h/IQN/+1", UrlError::Lun),
        ("iscsi://h/IQN/0x1", UrlError::Lun),
        ("iscsi://h/IQN/16384", UrlError::Lun),
        ("iscsi://h/IQN/99999999999999999999", UrlError::Lun),
        ("iscsi://h/IQN/%zz", UrlError::PercentEncoding(Part::Lun)),
        ("iscsi://h/IQN/0/", UrlError::TrailingPath),
        ("iscsi://h/IQN/0/1", UrlError::TrailingPath),
        ("iscsi://h/IQN/0#x", UrlError::Fragment),
        ("iscsi://h/IQN/0?", UrlError::UnknownKey(None)),
        (
            "iscsi://h/IQN/0?auth",
            value("auth", "md5, sha1, sha-256 or sha3-256"),
        ),
        (
            "iscsi://h/IQN/0?auth=sha256",
            value("auth", "md5, sha1, sha-256 or sha3-256"),
        ),
        (
            "iscsi://h/IQN/0?header_digest=CRC32C",
            value("header_digest", "none or crc32c"),
        ),
        (
            "iscsi://h/IQN/0?data_digest=prefer",
            value("data_digest", "none or crc32c"),
        ),
        (
            "iscsi://h/IQN/0?auth=%6",
            UrlError::PercentEncoding(Part::Value),
        ),
        ("iscsi://h/IQN/0?%6=1", UrlError::PercentEncoding(Part::Key)),
        (
            "iscsi://h/IQN/0?auth=md5&auth=md5",
            UrlError::DuplicateKey("auth"),
        ),
        ("iscsi://h/IQN/0?iser", UrlError::UnknownKey(None)),
        (
            "iscsi://h/IQN/0?port=1",
            UrlError::UnknownKey(Some("port".to_owned())),
        ),
    ] {
        assert_eq!(parse(&text.replace("IQN", IQN)), Err(error), "{text}");
    }
}

#[test]
fn refuses_a_target_user_that_cannot_be_sent() {
    let url = |user: &str| parse(&format!("iscsi://h/{IQN}/0?target_user={user}"));
    assert!(url(&"x".repeat(255)).is_ok());
    for user in [String::new(), "x".repeat(256), "a%00b".to_owned()] {
        assert!(matches!(
            url(&user),
            Err(UrlError::Value {
                key: "target_user",
                ..
            })
        ));
    }
}

#[test]
fn finds_a_secret_before_decoding_and_says_where_it_belongs() {
    for (text, hint) in [
        ("iscsi://me%hunter2@h/IQN/0", "--chap-secret-file"),
        ("iscsi://me:hunter2@h/IQN/0", "LIBISCSI_CHAP_PASSWORD"),
        ("iscsi://me%68unter2@h/IQN/0", "--chap-secret-file"),
        ("iscsi://me:hunter2@@/hunter2@h/IQN/0", "--chap-secret-file"),
        ("iscsi://me:hunter2@", "--chap-secret-file"),
        (
            "iscsi://h/IQN/0?target_password=hunter2",
            "--chap-target-secret-file",
        ),
        (
            "iscsi://h/IQN/0?auth=x&target_password=hunter2",
            "--chap-target-secret-file",
        ),
        (
            "iscsi://h/IQN/0?target%5Fp%61ssword=hunter2",
            "LIBISCSI_CHAP_TARGET_PASSWORD",
        ),
        (
            "iscsi://h/IQN/0?PassWord=hunter2",
            "--chap-target-secret-file",
        ),
        (
            "iscsi://?target_password=hunter2",
            "--chap-target-secret-file",
        ),
    ] {
        let message = parse(&text.replace("IQN", IQN)).unwrap_err().to_string();
        assert!(message.contains(hint), "{text}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "(iscsi://)?\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn never_panics_near_a_valid_url(text in "iscsi://[a@:%/\\[\\]]{0,6}h(:[0-9]{0,6})?/iqn\\.2001-04\\.[%a-z0-9]{0,6}/[%0-9]{0,6}(\\?[a-z_=&%0-9]{0,12})?") {
        let _ = parse(&text);
    }

    // The user part is upper case and digits, which no message of ours has in a row of four.
    #[test]
    fn never_repeats_what_is_before_the_at_sign(
        user in "[A-Z0-9]{4,12}([:%/?#&=@][A-Z0-9]{4,12}){0,3}",
        rest in "(@[a-z.]{0,6}(/[a-z.]{0,6}){0,3}(\\?[a-z=&]{0,8})?)"
    ) {
        if let Err(error) = parse(&format!("iscsi://{user}{rest}")) {
            let message = error.to_string();
            for piece in user.split([':', '%', '/', '?', '#', '&', '=', '@']) {
                let is_ours = ["LIBISCSI_CHAP_TARGET_PASSWORD", "16383"].iter().any(|w| w.contains(piece));
                prop_assert!(is_ours || !message.contains(piece), "{message}");
            }
        }
    }
}
