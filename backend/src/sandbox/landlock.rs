//! Landlock: which files can still be opened, made and removed, and whom signals reach.
//!
//! Best effort by what the kernel knows (landlock(7)). Its rules for TCP are not used: a redirect or a
//! discovery may name any port of any host, so every port would have to be allowed.

use std::fmt;

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

use super::Policy;

/// The newest set of rights that was looked at here. A kernel that knows fewer enforces those.
const KNOWN: ABI = ABI::V6;

/// How files are confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// By this ABI of Landlock.
    NarrowedDown(ABI),
    /// This kernel has none.
    NoLandlock,
    /// Nobody wants it.
    LeftAlone,
}

impl Files {
    pub(super) fn are_narrowed_down(self) -> bool {
        matches!(self, Self::NarrowedDown(_))
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NarrowedDown(abi) => {
                write!(
                    f,
                    "files are narrowed down by Landlock, ABI {}",
                    *abi as i32
                )
            }
            Self::NoLandlock => f.write_str("files are not narrowed down: no Landlock here"),
            Self::LeftAlone => f.write_str("files are not narrowed down"),
        }
    }
}

/// Denies this thread everything that can be denied of the file system, but for the policy.
pub(super) fn restrict(policy: &Policy) -> Result<Files, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let make = make_bitflags!(AccessFs::{ReadFile | WriteFile | MakeReg | MakeSock | RemoveFile});
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(scopes(policy))?
        .create()?
        .add_rules(path_beneath_rules(&policy.readable, read))?
        .add_rules(path_beneath_rules(&policy.writable_directories, make))?
        .restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Files::NoLandlock,
        (_, LandlockStatus::Available { effective_abi, .. }) => Files::NarrowedDown(effective_abi),
        _ => Files::NoLandlock,
    })
}

/// Nobody else is signalled, nor reached by an abstract socket, which has no permissions.
fn scopes(policy: &Policy) -> BitFlags<Scope> {
    if policy.reaches_abstract_sockets {
        Scope::Signal.into()
    } else {
        Scope::from_all(KNOWN)
    }
}
