//! CHAP, one-way and mutual (RFC 7143 sections 9.2.1 and 12.1.3, RFC 1994).
//!
//! ```text
//! initiator                                    target
//! CHAP_A=<list>                          ──▶
//!                                        ◀──   CHAP_A=<one> CHAP_I=<i> CHAP_C=<challenge>
//! CHAP_N=<name> CHAP_R=<response>
//!   [CHAP_I=<i'> CHAP_C=<challenge'>]    ──▶
//!                                        ◀──   [CHAP_N=<name'> CHAP_R=<response'>]
//! ```
//!
//! A response is the hash of identifier, secret and challenge. In brackets what is added when the
//! target has to prove itself too.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use subtle::ConstantTimeEq;

use super::error::{ApiMisuse, AuthenticationFailure, LoginError};
use super::settings::{ChapAlgorithm, ChapCredentials, ChapSettings};
use crate::text::{TextList, format_hexadecimal, parse_binary, parse_number};

/// The longest challenge and response that RFC 7143 section 12.1.3 allows.
const MAX_CHALLENGE_LENGTH_BYTES: usize = 1024;

/// The CHAP keys of one response of the target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChapKeys<'a> {
    pub(super) algorithm: Option<&'a str>,
    pub(super) identifier: Option<&'a str>,
    pub(super) challenge: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) response: Option<&'a str>,
}

impl<'a> ChapKeys<'a> {
    /// Where the value of `key` belongs; `None` when it is no CHAP key.
    pub(super) fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        match key {
            "CHAP_A" => Some(&mut self.algorithm),
            "CHAP_I" => Some(&mut self.identifier),
            "CHAP_C" => Some(&mut self.challenge),
            "CHAP_N" => Some(&mut self.name),
            "CHAP_R" => Some(&mut self.response),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        [
            self.algorithm,
            self.identifier,
            self.challenge,
            self.name,
            self.response,
        ]
        .iter()
        .all(Option::is_none)
    }
}

/// The initiator's side of one CHAP exchange.
pub(super) struct Chap {
    settings: ChapSettings,
    /// CHAP_I that we send in mutual CHAP.
    identifier: u8,
    /// CHAP_C that we send in mutual CHAP.
    challenge: [u8; 32],
    chosen: Option<ChapAlgorithm>,
}

impl Chap {
    /// Refuses settings with which no exchange could be safe.
    pub(super) fn new(
        settings: &ChapSettings,
        identifier: u8,
        challenge: [u8; 32],
    ) -> Result<Self, LoginError> {
        if settings.algorithms.is_empty() {
            return Err(ApiMisuse::NoChapAlgorithm.into());
        }
        if let Some(target) = &settings.target
            && same(target.secret.expose(), settings.initiator.secret.expose())
        {
            return Err(AuthenticationFailure::IdenticalSecrets.into());
        }
        Ok(Self {
            settings: settings.clone(),
            identifier,
            challenge,
            chosen: None,
        })
    }

    /// The algorithm that the target chose, once it has.
    pub(super) fn chosen(&self) -> Option<ChapAlgorithm> {
        self.chosen
    }

    /// CHAP_A with all algorithms of the settings, in their order.
    pub(super) fn offer_algorithms(&self, list: &mut TextList) {
        let numbers: Vec<String> = self
            .settings
            .algorithms
            .iter()
            .map(|a| a.number().to_string())
            .collect();
        list.push("CHAP_A", &numbers.join(","));
    }

    /// Answers the target's challenge and, in mutual CHAP, adds ours.
    pub(super) fn answer(
        &mut self,
        keys: ChapKeys<'_>,
        list: &mut TextList,
    ) -> Result<(), AuthenticationFailure> {
        let algorithm = self.chosen_algorithm(keys.algorithm)?;
        let identifier = parse_identifier(required(keys.identifier, "CHAP_I")?)?;
        let challenge = parse_binary(
            required(keys.challenge, "CHAP_C")?,
            MAX_CHALLENGE_LENGTH_BYTES,
        )
        .ok_or(AuthenticationFailure::MalformedKey { key: "CHAP_C" })?;
        if same(&challenge, &self.challenge) {
            return Err(AuthenticationFailure::ReflectedChallenge);
        }
        self.chosen = Some(algorithm);
        let initiator = &self.settings.initiator;
        let response = expected_response(algorithm, identifier, initiator, &challenge);
        list.push("CHAP_N", &initiator.name);
        list.push("CHAP_R", &format_hexadecimal(&response));
        self.challenge_target(list);
        Ok(())
    }

    fn challenge_target(&self, list: &mut TextList) {
        if self.settings.target.is_some() {
            list.push("CHAP_I", &self.identifier.to_string());
            list.push("CHAP_C", &format_hexadecimal(&self.challenge));
        }
    }

    /// Checks the target's proof. In one-way CHAP none was asked for, and what comes is not looked at.
    pub(super) fn verify(&self, keys: ChapKeys<'_>) -> Result<(), AuthenticationFailure> {
        let (Some(target), Some(algorithm)) = (&self.settings.target, self.chosen) else {
            return Ok(());
        };
        let name = required(keys.name, "CHAP_N")?;
        let value = required(keys.response, "CHAP_R")?;
        let expected = expected_response(algorithm, self.identifier, target, &self.challenge);
        let response = parse_binary(value, expected.len())
            .ok_or(AuthenticationFailure::WrongTargetResponse)?;
        if name != target.name {
            return Err(AuthenticationFailure::WrongTargetName);
        }
        if !same(&response, &expected) {
            return Err(AuthenticationFailure::WrongTargetResponse);
        }
        Ok(())
    }

    fn chosen_algorithm(
        &self,
        value: Option<&str>,
    ) -> Result<ChapAlgorithm, AuthenticationFailure> {
        let value = required(value, "CHAP_A")?;
        if value == "Reject" {
            return Err(AuthenticationFailure::NoCommonAlgorithm);
        }
        parse_number(value)
            .and_then(ChapAlgorithm::of_number)
            .filter(|algorithm| self.settings.algorithms.contains(algorithm))
            .ok_or(AuthenticationFailure::AlgorithmNotOffered)
    }
}

impl fmt::Display for Chap {
    /// `CHAP (SHA-256)` or `mutual CHAP (SHA-256)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = if self.settings.target.is_some() {
            "mutual "
        } else {
            ""
        };
        let algorithm = self.chosen.map_or("no algorithm yet", ChapAlgorithm::name);
        write!(f, "{mutual}CHAP ({algorithm})")
    }
}

/// RFC 1994 section 4.1: the hash over identifier, secret and challenge.
fn expected_response(
    algorithm: ChapAlgorithm,
    identifier: u8,
    credentials: &ChapCredentials,
    challenge: &[u8],
) -> Vec<u8> {
    algorithm.hash(&[&[identifier], credentials.secret.expose(), challenge])
}

/// Takes the same time wherever the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn required<'a>(
    value: Option<&'a str>,
    key: &'static str,
) -> Result<&'a str, AuthenticationFailure> {
    value.ok_or(AuthenticationFailure::MissingKey { key })
}

/// One octet, as in RFC 1994 section 4.1.
fn parse_identifier(value: &str) -> Result<u8, AuthenticationFailure> {
    parse_number(value)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or(AuthenticationFailure::MalformedKey { key: "CHAP_I" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::settings::Secret;

    /// Computed with another implementation of the hashes.
    #[test]
    fn a_response_hashes_identifier_secret_and_challenge_in_that_order() {
        let credentials = ChapCredentials {
            name: "user".into(),
            secret: Secret::new(b"a secret of ours".to_vec()),
        };
        let challenge: Vec<u8> = (0..16).collect();
        for (algorithm, expected) in [
            (ChapAlgorithm::Md5, "0x6aafc8a3da75e6a7bd400df463d9cd6b"),
            (
                ChapAlgorithm::Sha1,
                "0x0c57fbabd8822b474aa900579656146ab4668c26",
            ),
            (
                ChapAlgorithm::Sha256,
                "0x71039133c9e503b396099f564795c669493ba067c3af33b4848d31e2b75ab5b1",
            ),
            (
                ChapAlgorithm::Sha3_256,
                "0x36d0b4d21d39c511c5b508f85870521948beab337a985502034c3077721a2c3d",
            ),
        ] {
            let response = expected_response(algorithm, 0x2a, &credentials, &challenge);
            assert_eq!(
                format_hexadecimal(&response),
                expected,
                "{}",
                algorithm.name()
            );
        }
    }
}
