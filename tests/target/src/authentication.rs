//! The security stage of a login: AuthMethod and CHAP, one-way and mutual (RFC 7143 section 12.1).

use crate::chap::{self, ChapAlgorithm};
use crate::config::ChapConfig;
use crate::text::Pairs;

/// Why a login is refused with status 0201.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

/// How far one login has come with proving who it is.
#[derive(Debug, Default)]
pub(crate) struct Authentication {
    chosen: Option<ChapAlgorithm>,
    identifier: u8,
    /// The challenge we gave.
    pub(crate) challenge: Vec<u8>,
    /// The initiator's CHAP_R, as it came.
    pub(crate) answer_seen: String,
    /// The initiator's challenge, for a later reflection.
    pub(crate) challenge_seen: Vec<u8>,
    passed: bool,
}

impl Authentication {
    /// Whether the login may leave the security stage.
    pub(crate) fn passed(&self, config: Option<&ChapConfig>) -> bool {
        self.passed || config.is_none()
    }

    /// Answers the security keys among `request` into `reply`.
    pub(crate) fn answer(
        &mut self,
        config: Option<&ChapConfig>,
        request: &Pairs,
        reply: &mut Pairs,
    ) -> Result<(), Refused> {
        if let Some(offered) = request.get("AuthMethod") {
            reply.push("AuthMethod", method(config, offered)?);
        }
        let Some(config) = config else { return Ok(()) };
        if let Some(offered) = request.get("CHAP_A") {
            self.challenge(config, offered, reply)?;
        }
        match (request.get("CHAP_N"), request.get("CHAP_R")) {
            (Some(name), Some(answer)) => self.check(config, name, answer, request, reply),
            (None, None) => Ok(()),
            _ => Err(Refused("only one of CHAP_N and CHAP_R")),
        }
    }

    fn challenge(
        &mut self,
        config: &ChapConfig,
        offered: &str,
        reply: &mut Pairs,
    ) -> Result<(), Refused> {
        let known = |text: &str| {
            config
                .algorithms
                .iter()
                .copied()
                .find(|a| a.number().to_string() == text)
        };
        let chosen = offered.split(',').find_map(known);
        let algorithm = chosen.ok_or(Refused("no CHAP algorithm in common"))?;
        let mut random = vec![0; config.challenge_bytes + 1];
        getrandom::fill(&mut random).map_err(|_| Refused("no random numbers"))?;
        self.identifier = random.pop().unwrap_or(0);
        self.challenge = random;
        self.chosen = Some(algorithm);
        reply.push("CHAP_A", algorithm.number().to_string());
        reply.push("CHAP_I", self.identifier.to_string());
        reply.push("CHAP_C", config.encoding.encode(&self.challenge));
        Ok(())
    }

    fn check(
        &mut self,
        config: &ChapConfig,
        name: &str,
        answer: &str,
        request: &Pairs,
        reply: &mut Pairs,
    ) -> Result<(), Refused> {
        let algorithm = self.chosen.take().ok_or(Refused("CHAP_R before CHAP_A"))?;
        answer.clone_into(&mut self.answer_seen);
        let expected = algorithm.answer(self.identifier, &config.secret, &self.challenge);
        if name != config.user || chap::decode(answer).as_ref() != Some(&expected) {
            return Err(Refused("wrong CHAP name or answer"));
        }
        if request.get("CHAP_I").is_some() || request.get("CHAP_C").is_some() {
            self.prove(config, algorithm, request, reply)?;
        }
        self.passed = true;
        Ok(())
    }

    /// Answers the initiator's own challenge.
    fn prove(
        &mut self,
        config: &ChapConfig,
        algorithm: ChapAlgorithm,
        request: &Pairs,
        reply: &mut Pairs,
    ) -> Result<(), Refused> {
        let (user, secret) = config
            .mutual
            .as_ref()
            .ok_or(Refused("mutual CHAP not set up"))?;
        let identifier = request.get("CHAP_I").and_then(|text| text.parse().ok());
        let identifier = identifier.ok_or(Refused("CHAP_I is no number"))?;
        let challenge = request.get("CHAP_C").and_then(chap::decode);
        let challenge = challenge.ok_or(Refused("CHAP_C is no binary value"))?;
        if challenge == self.challenge {
            return Err(Refused("our own challenge came back"));
        }
        let proof = algorithm.answer(identifier, secret, &challenge);
        self.challenge_seen = challenge;
        reply.push("CHAP_N", user.clone());
        reply.push("CHAP_R", config.encoding.encode(&proof));
        Ok(())
    }
}

fn method(config: Option<&ChapConfig>, offered: &str) -> Result<&'static str, Refused> {
    let wanted = if config.is_some() { "CHAP" } else { "None" };
    let found = offered.split(',').any(|method| method == wanted);
    found
        .then_some(wanted)
        .ok_or(Refused("no authentication method in common"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chap::{BinaryEncoding, Secret};

    fn pairs(items: &[(&str, String)]) -> Pairs {
        items
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect()
    }

    fn config() -> ChapConfig {
        ChapConfig::new("me", Secret::new("my secret words")).mutual("it", Secret::new("its own"))
    }

    /// A login up to the challenge, and the right answer to it.
    fn challenged(config: &ChapConfig, algorithm: ChapAlgorithm) -> (Authentication, String) {
        let mut auth = Authentication::default();
        let offer = pairs(&[("CHAP_A", format!("99,{}", algorithm.number()))]);
        let mut reply = Pairs::default();
        auth.answer(Some(config), &offer, &mut reply).unwrap();
        let identifier = reply.get("CHAP_I").unwrap().parse().unwrap();
        let challenge = chap::decode(reply.get("CHAP_C").unwrap()).unwrap();
        let answer = algorithm.answer(identifier, &config.secret, &challenge);
        (auth, BinaryEncoding::Base64.encode(&answer))
    }

    #[test]
    fn passes_the_right_answer_with_every_algorithm() {
        for algorithm in ChapAlgorithm::ALL {
            let (mut auth, answer) = challenged(&config(), algorithm);
            assert!(!auth.passed(Some(&config())));
            let request = pairs(&[("CHAP_N", "me".into()), ("CHAP_R", answer)]);
            auth.answer(Some(&config()), &request, &mut Pairs::default())
                .unwrap();
            assert!(auth.passed(Some(&config())));
        }
    }

    #[test]
    fn refuses_a_wrong_name_and_a_reflected_challenge() {
        let (mut auth, answer) = challenged(&config(), ChapAlgorithm::Md5);
        let request = pairs(&[("CHAP_N", "you".into()), ("CHAP_R", answer)]);
        assert!(
            auth.answer(Some(&config()), &request, &mut Pairs::default())
                .is_err()
        );
        let (mut auth, answer) = challenged(&config(), ChapAlgorithm::Md5);
        let own = BinaryEncoding::Hex.encode(&auth.challenge);
        let request = pairs(&[
            ("CHAP_N", "me".into()),
            ("CHAP_R", answer),
            ("CHAP_I", "1".into()),
            ("CHAP_C", own),
        ]);
        let refused = auth.answer(Some(&config()), &request, &mut Pairs::default());
        assert_eq!(refused, Err(Refused("our own challenge came back")));
    }

    #[test]
    fn refuses_none_when_chap_is_demanded() {
        let offer = pairs(&[("AuthMethod", "None".into())]);
        let mut auth = Authentication::default();
        assert!(
            auth.answer(Some(&config()), &offer, &mut Pairs::default())
                .is_err()
        );
    }
}
