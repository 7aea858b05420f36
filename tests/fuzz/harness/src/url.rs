//! The URL of a disk.

use iscsi_core::name::IscsiName;
use vhost_user_iscsi::portal::Portal;
use vhost_user_iscsi::url::{MAX_LUN, TargetUrl, UrlError, is_user};

/// What stands for a secret: no message may repeat it.
const SECRET: &str = "hunter2";

/// All of it is one URL.
pub(crate) fn run(data: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(data) else {
        return 0;
    };
    match TargetUrl::parse(text) {
        Ok(url) => {
            check(&url);
            1
        }
        Err(error) => {
            check_error(text, &error);
            0
        }
    }
}

fn check(url: &TargetUrl) {
    assert!(url.lun <= MAX_LUN);
    for user in [&url.user, &url.target_user].into_iter().flatten() {
        assert!(is_user(user), "{user:?}");
    }
    let again = TargetUrl::parse(&url.to_string()).expect("our own URL");
    assert_eq!((&again.portal, again.lun), (&url.portal, url.lun));
    assert_eq!(again.target, url.target);
    assert_eq!(
        Portal::parse(&url.portal.to_string()).as_ref(),
        Ok(&url.portal)
    );
    let name = IscsiName::parse(url.target.as_str());
    assert_eq!(name.as_ref(), Ok(&url.target));
}

fn check_error(text: &str, error: &UrlError) {
    let message = error.to_string();
    assert!(!message.is_empty());
    if message.contains(SECRET) {
        let is_key = matches!(error, UrlError::UnknownKey(Some(key)) if key.contains(SECRET));
        let (before, query) = text.split_once('?').expect("a key");
        assert!(
            is_key && !query.contains('@') && !before.contains(SECRET),
            "{text}"
        );
    }
}
