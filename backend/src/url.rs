//! The URL of a disk, as users of QEMU and libiscsi write it.
//!
//! ```text
//! iscsi://[user@]host[:port]/target-iqn/lun[?key=value&…]
//! ```
//!
//! A command line is visible to every user of the machine, so a secret in it is refused, even
//! where libiscsi takes one. It is looked for before anything is decoded, since `user%secret@`
//! is libiscsi's way to write one. No error repeats any of the URL but the name of an unknown
//! key, and that only where it cannot be a piece of a user part.

use std::fmt;

use iscsi_core::login::settings::{ChapAlgorithm, DigestPreference};
use iscsi_core::name::{IscsiName, NameError};
use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::portal::{Portal, PortalError};

/// How the URL is written; for help texts and messages.
pub const SYNTAX: &str = "iscsi://[user@]host[:port]/target-iqn/lun[?key=value&…]";

/// The largest LUN of the flat addressing format: 14 bits (SAM-5, flat space addressing).
pub const MAX_LUN: u16 = 16_383;

/// The longest user name in bytes: that of a text value (RFC 7143 section 6.1).
pub const MAX_USER_LENGTH_BYTES: usize = 255;

/// A disk on a target, and what the URL says about the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUrl {
    /// Where to connect.
    pub portal: Portal,
    /// The target's name.
    pub target: IscsiName,
    /// The logical unit: 0 to [`MAX_LUN`].
    pub lun: u16,
    /// CHAP_N of the initiator.
    pub user: Option<String>,
    /// `header_digest`.
    pub header_digest: Option<DigestPreference>,
    /// `data_digest`.
    pub data_digest: Option<DigestPreference>,
    /// `auth`: the only CHAP algorithm to offer.
    pub auth: Option<ChapAlgorithm>,
    /// `target_user`: CHAP_N of the target.
    pub target_user: Option<String>,
}

/// Why a text is not such a URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Not `iscsi://`.
    #[error("it does not start with iscsi://")]
    Scheme,
    /// libiscsi's other scheme.
    #[error("iSER is not supported, only iscsi://")]
    Iser,
    /// `user:secret@` or `user%secret@`.
    #[error(
        "there is a secret before the '@', where every user of this machine can read it: put it \
         into a file (--chap-secret-file) or into LIBISCSI_CHAP_PASSWORD, and a user name with \
         ':' or '%' into --chap-user"
    )]
    SecretOfUser,
    /// `target_password=` and whatever looks like it.
    #[error(
        "there is a secret among the keys, where every user of this machine can read it: put it \
         into a file (--chap-target-secret-file) or into LIBISCSI_CHAP_TARGET_PASSWORD"
    )]
    SecretOfTarget,
    /// An empty user name, or one that cannot be sent.
    #[error("the user before the '@' is empty, too long or has a character that it may not have")]
    User,
    /// The host or the port.
    #[error(transparent)]
    Portal(#[from] PortalError),
    /// Nothing behind the host.
    #[error("the target's name is missing")]
    NoTarget,
    /// The target's name.
    #[error("the target's name is not valid: {0}")]
    Target(NameError),
    /// Nothing behind the target's name.
    #[error("the LUN is missing")]
    NoLun,
    /// Not a number from 0 to [`MAX_LUN`].
    #[error("the LUN is a decimal number from 0 to {MAX_LUN}")]
    Lun,
    /// A third part of the path.
    #[error("there is something behind the LUN")]
    TrailingPath,
    /// `#…`.
    #[error("a '#' has to be written %23")]
    Fragment,
    /// `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the percent-encoding of {0} is not valid")]
    PercentEncoding(Part),
    /// A key that is not among the known ones.
    #[error("unknown key{}: the keys are header_digest, data_digest, auth and target_user", shown(.0))]
    UnknownKey(Option<String>),
    /// A key that is there twice.
    #[error("the key {0} is given twice")]
    DuplicateKey(&'static str),
    /// A value that the key does not have.
    #[error("the value of {key} is {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// What its values are.
        allowed: &'static str,
    },
}

/// The part of a URL that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The target's name.
    Target,
    /// The LUN.
    Lun,
    /// A key.
    Key,
    /// A key's value.
    Value,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Target => "the target's name",
            Self::Lun => "the LUN",
            Self::Key => "a key",
            Self::Value => "a value",
        })
    }
}

fn shown(key: &Option<String>) -> String {
    key.as_ref()
        .map_or_else(String::new, |key| format!(" '{key}'"))
}

impl TargetUrl {
    /// Parses and checks a URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = strip_scheme(text)?;
        let (location, query) = match rest.split_once('?') {
            Some((location, query)) => (location, Some(query)),
            None => (rest, None),
        };
        refuse_secrets(location, query)?;
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (user, location) = split_user(location)?;
        let (portal, target, lun) = parse_location(location)?;
        let keys = query.map_or_else(|| Ok(Keys::default()), Keys::parse)?;
        Ok(Self {
            portal,
            target,
            lun,
            user,
            header_digest: keys.header_digest,
            data_digest: keys.data_digest,
            auth: keys.auth,
            target_user: keys.target_user,
        })
    }
}

impl fmt::Display for TargetUrl {
    /// The disk's place, without user and keys: `iscsi://host:port/target-iqn/lun`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iscsi://{}/{}/{}", self.portal, self.target, self.lun)
    }
}

fn strip_scheme(text: &str) -> Result<&str, UrlError> {
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("iscsi") => Ok(rest),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("iser") => Err(UrlError::Iser),
        _ => Err(UrlError::Scheme),
    }
}

/// Looks for a secret in everything that libiscsi would take one from, and in everything that
/// somebody may have meant that way.
fn refuse_secrets(location: &str, query: Option<&str>) -> Result<(), UrlError> {
    let user = location.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains([':', '%']) {
        return Err(UrlError::SecretOfUser);
    }
    let mut keys = query
        .unwrap_or_default()
        .split('&')
        .map(|pair| key_of(pair).0);
    if keys.any(names_a_secret) {
        return Err(UrlError::SecretOfTarget);
    }
    Ok(())
}

fn names_a_secret(key: &str) -> bool {
    let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
    key.contains("pass") || key.contains("secret")
}

/// Splits `key=value`; the value of a lone key is `None`.
fn key_of(pair: &str) -> (&str, Option<&str>) {
    match pair.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (pair, None),
    }
}

/// Splits `user@rest`. The last '@' counts: whatever is before it may be private.
fn split_user(location: &str) -> Result<(Option<String>, &str), UrlError> {
    match location.rsplit_once('@') {
        None => Ok((None, location)),
        Some((user, rest)) if is_plain_user(user) => Ok((Some(user.to_owned()), rest)),
        Some(_) => Err(UrlError::User),
    }
}

/// Without the characters that have a meaning in a URL (RFC 3986 section 2.2, `gen-delims`).
fn is_plain_user(user: &str) -> bool {
    is_user(user) && !user.contains(['/', '?', '#', '[', ']', '@', ' '])
}

/// Whether a text can be sent as CHAP_N: not empty, not too long, without control characters.
pub fn is_user(user: &str) -> bool {
    (1..=MAX_USER_LENGTH_BYTES).contains(&user.len()) && !user.chars().any(char::is_control)
}

fn parse_location(location: &str) -> Result<(Portal, IscsiName, u16), UrlError> {
    let mut parts = location.split('/');
    let portal = Portal::parse(parts.next().unwrap_or_default())?;
    let target = parts
        .next()
        .filter(|part| !part.is_empty())
        .ok_or(UrlError::NoTarget)?;
    let target = decode(Part::Target, target)?;
    let target = IscsiName::parse(&target).map_err(UrlError::Target)?;
    let lun = parts
        .next()
        .filter(|part| !part.is_empty())
        .ok_or(UrlError::NoLun)?;
    let lun = parse_lun(&decode(Part::Lun, lun)?)?;
    match parts.next() {
        None => Ok((portal, target, lun)),
        Some(_) => Err(UrlError::TrailingPath),
    }
}

fn parse_lun(text: &str) -> Result<u16, UrlError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UrlError::Lun);
    }
    text.parse()
        .ok()
        .filter(|lun| *lun <= MAX_LUN)
        .ok_or(UrlError::Lun)
}

/// Decodes percent-encoding (RFC 3986 section 2.1), strictly.
fn decode(part: Part, text: &str) -> Result<String, UrlError> {
    let error = UrlError::PercentEncoding(part);
    let mut after_percent = text.split('%').skip(1);
    if !after_percent.all(starts_with_hex_digits) {
        return Err(error);
    }
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| error)
}

fn starts_with_hex_digits(text: &str) -> bool {
    text.len() >= 2 && text.bytes().take(2).all(|b| b.is_ascii_hexdigit())
}

/// What follows the '?'.
#[derive(Default)]
struct Keys {
    header_digest: Option<DigestPreference>,
    data_digest: Option<DigestPreference>,
    auth: Option<ChapAlgorithm>,
    target_user: Option<String>,
}

impl Keys {
    fn parse(query: &str) -> Result<Self, UrlError> {
        let mut keys = Self::default();
        for pair in query.split('&') {
            let (raw_key, value) = key_of(pair);
            let key = decode(Part::Key, raw_key)?;
            let value = decode(Part::Value, value.unwrap_or_default())?;
            match key.as_str() {
                "header_digest" => {
                    let digest = parse_digest("header_digest", &value)?;
                    set_once(&mut keys.header_digest, digest, "header_digest")?;
                }
                "data_digest" => {
                    let digest = parse_digest("data_digest", &value)?;
                    set_once(&mut keys.data_digest, digest, "data_digest")?;
                }
                "auth" => set_once(&mut keys.auth, parse_auth(&value)?, "auth")?,
                "target_user" => {
                    set_once(
                        &mut keys.target_user,
                        parse_target_user(value)?,
                        "target_user",
                    )?;
                }
                _ => return Err(UrlError::UnknownKey(harmless_key(query, raw_key))),
            }
        }
        Ok(keys)
    }
}

/// The key, where it may be repeated: when it is a word, and when no '@' in the query makes it
/// possible that all this was meant as a user part.
fn harmless_key(query: &str, key: &str) -> Option<String> {
    let is_word = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let is_key = query
        .split('&')
        .any(|pair| matches!(key_of(pair), (k, Some(_)) if k == key));
    let may_repeat = is_word && is_key && key.len() <= 32 && !query.contains('@');
    may_repeat.then(|| key.to_owned())
}

fn set_once<T>(slot: &mut Option<T>, value: T, key: &'static str) -> Result<(), UrlError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UrlError::DuplicateKey(key)),
    }
}

/// libiscsi's two values. `prefer` and `avoid` are values of our options only.
fn parse_digest(key: &'static str, value: &str) -> Result<DigestPreference, UrlError> {
    match value {
        "none" => Ok(DigestPreference::None),
        "crc32c" => Ok(DigestPreference::Crc32c),
        _ => Err(UrlError::Value {
            key,
            allowed: "none or crc32c",
        }),
    }
}

fn parse_auth(value: &str) -> Result<ChapAlgorithm, UrlError> {
    match value {
        "md5" => Ok(ChapAlgorithm::Md5),
        "sha1" => Ok(ChapAlgorithm::Sha1),
        "sha-256" => Ok(ChapAlgorithm::Sha256),
        "sha3-256" => Ok(ChapAlgorithm::Sha3_256),
        _ => Err(UrlError::Value {
            key: "auth",
            allowed: "md5, sha1, sha-256 or sha3-256",
        }),
    }
}

fn parse_target_user(value: String) -> Result<String, UrlError> {
    match is_user(&value) {
        true => Ok(value),
        false => Err(UrlError::Value {
            key: "target_user",
            allowed: "a name of 1 to 255 bytes without control characters",
        }),
    }
}

#[cfg(test)]
mod tests;
