//! URLs as libiscsi takes them, with secrets and arguments that ours may not have.
//!
//! ```text
//! iscsi://[user[%secret]@]host[:port]/target-iqn/lun[?argument[&argument]*]
//! ```

use super::credentials::{Credentials, Origin, Stated};
use super::found::{Found, Place, Scope};
use crate::exit::Failure;
use crate::url::TargetUrl;

/// A URL in parts.
pub(super) struct ImportedUrl {
    /// As ours: without user and secrets.
    pub(super) url: TargetUrl,
    /// Written as ours.
    pub(super) text: String,
    /// What it says of CHAP.
    pub(super) credentials: Credentials,
    /// What else it says.
    pub(super) scope: Scope,
}

/// Whether a text begins as such a URL does.
pub(super) fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("iscsi") || scheme.eq_ignore_ascii_case("iser")
    })
}

/// Takes a URL apart.
pub(super) fn parse(text: &str, place: &Place, found: &mut Found) -> Result<ImportedUrl, Failure> {
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, location) = match location.rsplit_once('@') {
        Some((user, location)) => (Some(user), location),
        None => (None, location),
    };
    let mut imported = Arguments {
        kept: Vec::new(),
        credentials: user.map_or_else(Credentials::default, |user| credentials(user, place)),
        scope: Scope::default(),
    };
    for argument in query.split('&').filter(|argument| !argument.is_empty()) {
        imported.take(argument, place, found);
    }
    if text.starts_with("iser") {
        let message = "iSER is not known: TCP is used, which the target has to listen on, too";
        imported.scope.remark(place.clone(), message);
    }
    let kept = imported.kept.join("&");
    let mark = if kept.is_empty() { "" } else { "?" };
    let text = format!("iscsi://{location}{mark}{kept}");
    let url = TargetUrl::parse(&text)
        .map_err(|error| place.failure(&format!("the URL is not valid: {error}")))?;
    Ok(ImportedUrl {
        text: format!("{url}{mark}{kept}"),
        url,
        credentials: imported.credentials,
        scope: imported.scope,
    })
}

/// `user`, `user%secret` or `user:secret`.
fn credentials(text: &str, place: &Place) -> Credentials {
    let (user, secret) = match text.split_once(['%', ':']) {
        Some((user, secret)) => (user, Some(secret)),
        None => (text, None),
    };
    Credentials {
        user: Some(Stated::new(user.to_owned(), place)),
        secret: secret.map(|secret| Stated::new(Origin::of_text(secret), place)),
        ..Credentials::default()
    }
}

/// What stands behind the `?`.
struct Arguments {
    /// What our URL has, too.
    kept: Vec<String>,
    credentials: Credentials,
    scope: Scope,
}

impl Arguments {
    fn take(&mut self, argument: &str, place: &Place, found: &mut Found) {
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        match key {
            "auth" if matches!(value, "md5" | "sha1" | "sha-256" | "sha3-256") => {
                self.kept.push(argument.to_owned());
            }
            "header_digest" => self.digest("header-digest", value, place),
            "data_digest" => self.digest("data-digest", value, place),
            "target_user" => {
                self.credentials.target_user = Some(Stated::new(value.to_owned(), place));
            }
            "target_password" => {
                let secret = Origin::of_text(value);
                self.credentials.target_secret = Some(Stated::new(secret, place));
            }
            "force_usn" => self.scope.remark(
                place.clone(),
                "force_usn is left out: the disk's identity is recorded at the first login, and checked at \
                 each later one",
            ),
            key => found.leave_out(key, place, super::found::reasons::UNKNOWN),
        }
    }

    fn digest(&mut self, key: &'static str, value: &str, place: &Place) {
        match value {
            "crc32c" | "none" => self.scope.set(key, value),
            _ => self.scope.remark(
                place.clone(),
                format!("{key} has a value that libiscsi does not know: left out"),
            ),
        }
    }
}
