//! Which ISIDs we use.
//!
//! All are of format 10b, "random" (RFC 7143 section 11.12.5): 24 bits in the fields B and C, a
//! qualifier of 16 bits in D. The highest bit of the qualifier tells serving sessions (0) from
//! verbs (1): a verb can never log in as a session that serves a disk, and so never ends one.
//!
//! A serving session's ISID is a stable function of the disk, the target, the LUN and the index of
//! the session: after a reconnect or a restart of the process the same session logs in with the
//! same ISID, and the target ends what is left of the former one (section 6.3.5).

use iscsi_core::login::settings::Isid;
use iscsi_core::name::IscsiName;
use sha2::{Digest, Sha256};

/// The two highest bits of the first byte: format 10b.
const FORMAT_RANDOM: u8 = 0x80;
/// The bit of the qualifier that verbs set.
const VERB: u8 = 0x80;
/// The bits of the qualifier's last byte that count sessions: 64 of them.
const SESSION_MASK: u8 = 0x3f;

/// Names the sessions of one disk, or of those that share theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionNames {
    hash: [u8; 5],
}

impl SessionNames {
    /// `disk` is the disk's name on this machine: its socket path.
    pub(crate) fn new(disk: &[u8], target: &IscsiName, lun: u16) -> Self {
        Self::of_parts(&[disk, target.as_str().as_bytes(), &lun.to_be_bytes()])
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, ..] = digest;
        Self {
            hash: [a, b, c, d, e],
        }
    }

    /// Names the sessions that the disks of a directory share to a target at a portal, for an initiator.
    pub(crate) fn shared(
        directory: &[u8],
        portal: &str,
        target: &IscsiName,
        initiator: &IscsiName,
    ) -> Self {
        Self::of_parts(&[
            b"shared sessions",
            directory,
            portal.as_bytes(),
            target.as_str().as_bytes(),
            initiator.as_str().as_bytes(),
        ])
    }

    /// The ISID of a session of the disk; `index` is below 64.
    pub(crate) fn isid(&self, index: usize) -> Isid {
        let [a, b, c, d, e] = self.hash;
        let index = u8::try_from(index).unwrap_or(u8::MAX) & SESSION_MASK;
        Isid([FORMAT_RANDOM, a, b, c, d & !VERB, e & !SESSION_MASK | index])
    }
}

/// A fresh ISID for a verb.
pub(crate) fn random_isid() -> Result<Isid, getrandom::Error> {
    let mut bytes = [0; 5];
    getrandom::fill(&mut bytes)?;
    let [a, b, c, d, e] = bytes;
    Ok(Isid([FORMAT_RANDOM, a, b, c, d | VERB, e]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(disk: &str, target: &str, lun: u16) -> SessionNames {
        SessionNames::new(disk.as_bytes(), &IscsiName::parse(target).unwrap(), lun)
    }

    #[test]
    fn the_same_disk_has_the_same_isid_and_any_other_has_not() {
        let isid = names("/run/a", "iqn.2001-04.com.example:a", 1).isid(0);
        assert_eq!(
            isid,
            names("/run/a", "iqn.2001-04.com.example:a", 1).isid(0)
        );
        assert_eq!(
            isid.to_string(),
            "80a49c9c3b00",
            "it may never change: targets know us by it"
        );
        for other in [
            names("/run/b", "iqn.2001-04.com.example:a", 1).isid(0),
            names("/run/a", "iqn.2001-04.com.example:b", 1).isid(0),
            names("/run/a", "iqn.2001-04.com.example:a", 2).isid(0),
            names("/run/a", "iqn.2001-04.com.example:a", 1).isid(1),
        ] {
            assert_ne!(isid, other);
        }
    }

    #[test]
    fn sixty_four_sessions_have_sixty_four_isids_of_the_random_format() {
        let names = names("/run/a", "iqn.2001-04.com.example:a", 0);
        let isids: std::collections::HashSet<_> = (0..64).map(|n| names.isid(n)).collect();
        assert_eq!(isids.len(), 64);
        assert!(isids.iter().all(|isid| isid.0[0] >> 6 == 0b10));
    }

    #[test]
    fn a_verb_never_has_the_isid_of_a_serving_session() {
        for _ in 0..100 {
            assert_eq!(random_isid().unwrap().0[4] & VERB, VERB);
        }
        for disk in 0..100 {
            let names = names(&disk.to_string(), "iqn.2001-04.com.example:a", 0);
            assert_eq!(names.isid(63).0[4] & VERB, 0);
        }
    }
}
