//! What a login is told before it starts.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use crate::name::IscsiName;

/// The initiator session id: six bytes that, with the initiator's name and the target portal
/// group, name a session (RFC 7143 section 11.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isid(pub [u8; 6]);

impl fmt::Display for Isid {
    /// Twelve hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Everything a login needs to know.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// InitiatorName.
    pub initiator_name: IscsiName,
    /// InitiatorAlias, when there is one.
    pub initiator_alias: Option<String>,
    /// TargetName; `None` logs in to a discovery session.
    pub target_name: Option<IscsiName>,
    /// The same value at every login of a session makes the target reinstate it
    /// (RFC 7143 section 6.3.5).
    pub isid: Isid,
    /// Authentication; `None` offers AuthMethod=None only, `Some` offers CHAP only.
    pub chap: Option<ChapSettings>,
    /// HeaderDigest.
    pub header_digest: DigestPreference,
    /// DataDigest.
    pub data_digest: DigestPreference,
    /// The portal group that the first login found; a login that ends elsewhere is refused.
    pub expected_portal_group_tag: Option<u16>,
}

/// Which values are offered for HeaderDigest or DataDigest, in order of preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestPreference {
    /// `None` only.
    None,
    /// `CRC32C` only.
    Crc32c,
    /// `CRC32C,None`.
    Prefer,
    /// `None,CRC32C`.
    #[default]
    Avoid,
}

/// CHAP (RFC 7143 section 12.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChapSettings {
    /// What we prove to the target.
    pub initiator: ChapCredentials,
    /// What the target has to prove to us (mutual CHAP). Never given up when set.
    pub target: Option<ChapCredentials>,
    /// CHAP_A, in order of preference; not empty.
    pub algorithms: Vec<ChapAlgorithm>,
}

/// CHAP_N and the secret behind CHAP_R.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChapCredentials {
    /// CHAP_N.
    pub name: String,
    /// Never shown.
    pub secret: Secret,
}

/// A CHAP secret: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over the bytes of a secret.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for hashing.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A CHAP hash with the number that CHAP_A carries (RFC 7143 section 12.1.3 and the IANA
/// registry "PPP Authentication Algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChapAlgorithm {
    /// MD5.
    Md5 = 5,
    /// SHA-1.
    Sha1 = 6,
    /// SHA-256.
    Sha256 = 7,
    /// SHA3-256.
    Sha3_256 = 8,
}

impl ChapAlgorithm {
    /// The strongest first: what is offered unless told otherwise.
    pub const ALL: [Self; 4] = [Self::Sha3_256, Self::Sha256, Self::Sha1, Self::Md5];
}
