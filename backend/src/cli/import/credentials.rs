//! Names and secrets of CHAP as they are found. The secrets are kept apart, and never shown.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::found::{Place, Remark};
use crate::secret::MAX_SECRET_LENGTH_BYTES;
use crate::url::is_user;

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// It stood in the file.
    Bytes(Zeroizing<Vec<u8>>),
    /// In a file of its own that we can read, too.
    File(PathBuf),
    /// Somewhere else.
    Elsewhere,
}

impl Origin {
    /// A secret that stood in a file.
    pub(super) fn of_text(text: &str) -> Self {
        Self::Bytes(Zeroizing::new(text.as_bytes().to_vec()))
    }
}

impl fmt::Debug for Origin {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes(_) => "Bytes(…)",
            Self::File(_) => "File",
            Self::Elsewhere => "Elsewhere",
        })
    }
}

/// One of [`Secrets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SecretId(pub(super) usize);

/// A secret, whose it is, and where it stood.
#[derive(Debug)]
pub(super) struct Secret {
    /// Where it is.
    pub(super) origin: Origin,
    /// The name that goes with it.
    pub(super) user: String,
    /// Where it stood, or where the user stands that it belongs to.
    pub(super) places: Vec<Place>,
}

/// All secrets, each once.
#[derive(Debug, Default)]
pub(super) struct Secrets(pub(super) Vec<Secret>);

impl Secrets {
    fn add(&mut self, origin: Origin, user: &str, place: Place) -> SecretId {
        let is_same = |secret: &Secret| secret.origin == origin && secret.user == user;
        if let Some(index) = self.0.iter().position(is_same) {
            if let Some(secret) = self.0.get_mut(index).filter(|s| !s.places.contains(&place)) {
                secret.places.push(place);
            }
            return SecretId(index);
        }
        self.0.push(Secret {
            origin,
            user: user.to_owned(),
            places: vec![place],
        });
        SecretId(self.0.len() - 1)
    }
}

/// Something and where it stood.
#[derive(Clone, Debug)]
pub(super) struct Stated<T> {
    /// What.
    pub(super) value: T,
    /// Where.
    pub(super) place: Place,
}

impl<T> Stated<T> {
    /// Something at its place.
    pub(super) fn new(value: T, place: &Place) -> Self {
        let place = place.clone();
        Self { value, place }
    }
}

/// CHAP, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chap {
    /// We to the target.
    pub(super) initiator: (String, SecretId),
    /// The target to us.
    pub(super) target: Option<(String, SecretId)>,
}

/// Names and secrets as they were found, not yet complete.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    /// Our name.
    pub(super) user: Option<Stated<String>>,
    /// Our secret.
    pub(super) secret: Option<Stated<Origin>>,
    /// The target's name.
    pub(super) target_user: Option<Stated<String>>,
    /// The target's secret.
    pub(super) target_secret: Option<Stated<Origin>>,
}

impl Credentials {
    /// These, and what they do not say from `others`.
    pub(super) fn or(self, others: &Self) -> Self {
        Self {
            user: self.user.or_else(|| others.user.clone()),
            secret: self.secret.or_else(|| others.secret.clone()),
            target_user: self.target_user.or_else(|| others.target_user.clone()),
            target_secret: self.target_secret.or_else(|| others.target_secret.clone()),
        }
    }

    /// What our configuration makes of them. What cannot be used is said.
    pub(super) fn settle(&self, secrets: &mut Secrets, remarks: &mut Vec<Remark>) -> Option<Chap> {
        let sides = [
            (&self.user, &self.secret),
            (&self.target_user, &self.target_secret),
        ];
        let [ours, theirs] =
            sides.map(|(user, secret)| side(user.as_ref(), secret.as_ref(), remarks));
        let Some((user, secret)) = ours else {
            if let Some((user, _)) = theirs {
                let message = "the target's CHAP name without ours: left out, a target that is asked \
                               to prove itself asks the same of us";
                complain(remarks, &user.place, message);
            }
            return None;
        };
        let theirs = theirs.filter(|(_, theirs)| {
            let is_same = theirs.value == secret.value && theirs.value != Origin::Elsewhere;
            if is_same {
                let message = "the target's CHAP secret is the same as ours, which is forbidden (RFC 7143 \
                               9.2.1): the target's is left out; give it another";
                complain(remarks, &theirs.place, message);
            }
            !is_same
        });
        let mut add = |(user, secret): (Stated<String>, Stated<Origin>)| {
            let id = secrets.add(secret.value, &user.value, secret.place);
            (user.value, id)
        };
        Some(Chap {
            initiator: add((user, secret)),
            target: theirs.map(add),
        })
    }
}

/// One side: the name, and where its secret is.
fn side(
    user: Option<&Stated<String>>,
    secret: Option<&Stated<Origin>>,
    remarks: &mut Vec<Remark>,
) -> Option<(Stated<String>, Stated<Origin>)> {
    let Some(user) = user else {
        if let Some(secret) = secret {
            complain(
                remarks,
                &secret.place,
                "a secret without a user name: left out",
            );
        }
        return None;
    };
    if !is_user(&user.value) {
        let message = "a CHAP user has 1 to 255 bytes and no control characters: left out";
        complain(remarks, &user.place, message);
        return None;
    }
    let elsewhere = || Stated::new(Origin::Elsewhere, &user.place);
    let secret = secret.cloned().unwrap_or_else(elsewhere);
    if let Origin::Bytes(bytes) = &secret.value
        && !(1..=MAX_SECRET_LENGTH_BYTES).contains(&bytes.len())
    {
        let message = format!("a secret has 1 to {MAX_SECRET_LENGTH_BYTES} bytes: no CHAP then");
        complain(remarks, &secret.place, &message);
        return None;
    }
    Some((user.clone(), secret))
}

fn complain(remarks: &mut Vec<Remark>, place: &Place, message: &str) {
    remarks.push(Remark {
        place: place.clone(),
        message: message.to_owned(),
    });
}
