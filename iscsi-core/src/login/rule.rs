//! How a key is negotiated (RFC 7143 section 6.2): the rules that the rows of [`super::keys`] name.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use core::ops::RangeInclusive;

use super::error::{LoginError, Misbehaviour, Unsupported};
use super::negotiated::Negotiated;
use super::settings::LoginSettings;
use crate::text::parse_number;

/// The constants that may stand for a value (RFC 7143 section 6.2).
pub(super) const REJECT: &str = "Reject";
pub(super) const IRRELEVANT: &str = "Irrelevant";
pub(super) const NOT_UNDERSTOOD: &str = "NotUnderstood";
/// The value of a digest or authentication method that is none.
const NONE: &str = "None";

/// Where a value of type `T` goes.
pub(super) type Land<T> = fn(&mut Negotiated, T);

/// Who may send a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Initiator,
    Target,
    Both,
}

/// How the value of a key comes about.
pub(super) enum Rule {
    /// One side tells, the other one does not answer. `theirs` says whether the value is one that
    /// the key can have.
    Declaration {
        ours: fn(&LoginSettings) -> Option<String>,
        theirs: fn(&mut Negotiated, &str) -> bool,
    },
    /// The first value of a list that the answering side supports (section 6.2.1).
    List {
        supported: &'static [&'static str],
        default: &'static str,
        offer: fn(&LoginSettings) -> Option<&'static str>,
        land: Land<&'static str>,
    },
    /// Yes or No, joined by a function (section 6.2.2).
    Boolean {
        function: BooleanFunction,
        default: bool,
        offer: bool,
        land: Land<bool>,
    },
    /// A number, the least or the greatest of the two.
    Number {
        function: NumericalFunction,
        range: RangeInclusive<u32>,
        default: u32,
        /// `None` leaves the key to the target.
        offer: Option<u32>,
        land: Land<u32>,
    },
    /// Refused whenever it is offered (section 13.25).
    Obsolete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BooleanFunction {
    And,
    Or,
}

impl BooleanFunction {
    fn join(self, a: bool, b: bool) -> bool {
        match self {
            Self::And => a && b,
            Self::Or => a || b,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumericalFunction {
    Minimum,
    Maximum,
}

impl NumericalFunction {
    fn join(self, a: u32, b: u32) -> u32 {
        match self {
            Self::Minimum => a.min(b),
            Self::Maximum => a.max(b),
        }
    }
}

/// One text key: everything that there is to know about it.
pub(super) struct KeyRow {
    pub(super) name: &'static str,
    /// Of RFC 7143, unless it says otherwise.
    pub(super) section: &'static str,
    pub(super) sender: Sender,
    /// The first stage in which it may be sent, and the one in which we send it.
    pub(super) stage: crate::pdu::login::Stage,
    /// Whether it means something in a discovery session; else the answer there is Irrelevant.
    pub(super) in_discovery: bool,
    /// Whether Irrelevant is an answer that RFC 7143 provides for outside discovery.
    pub(super) may_be_irrelevant: bool,
    pub(super) rule: Rule,
}

impl KeyRow {
    /// What we send without being asked.
    pub(super) fn offer(&self, settings: &LoginSettings) -> Option<String> {
        match &self.rule {
            Rule::Declaration { ours, .. } => ours(settings),
            Rule::List { offer, .. } => offer(settings).map(ToOwned::to_owned),
            Rule::Boolean { offer, .. } => Some(yes_or_no(*offer).into()),
            Rule::Number { offer, .. } => offer.map(|number| number.to_string()),
            Rule::Obsolete => None,
        }
    }

    /// Puts the value that holds without any negotiation into `draft`, and returns it.
    pub(super) fn land_default(&self, draft: &mut Negotiated) -> String {
        match &self.rule {
            Rule::Declaration { .. } | Rule::Obsolete => String::new(),
            Rule::List { default, land, .. } => {
                land(draft, default);
                (*default).into()
            }
            Rule::Boolean { default, land, .. } => {
                land(draft, *default);
                yes_or_no(*default).into()
            }
            Rule::Number { default, land, .. } => {
                land(draft, *default);
                default.to_string()
            }
        }
    }

    /// Takes the target's answer to what we offered, and returns what holds now.
    pub(super) fn settle(
        &self,
        draft: &mut Negotiated,
        offered: &str,
        answer: &str,
    ) -> Result<String, LoginError> {
        match answer {
            REJECT => self.fall_back(draft, offered),
            IRRELEVANT if self.may_be_irrelevant => self.fall_back(draft, offered),
            IRRELEVANT => Err(self.not_negotiated(IRRELEVANT)),
            NOT_UNDERSTOOD => Err(self.not_negotiated(NOT_UNDERSTOOD)),
            _ => self.settle_value(draft, offered, answer),
        }
    }

    /// Without an agreement, by Reject or for want of an answer, the key keeps its default
    /// (section 6.2). That is no way out for a list that does not have the default in it.
    pub(super) fn fall_back(
        &self,
        draft: &mut Negotiated,
        offered: &str,
    ) -> Result<String, LoginError> {
        if let Rule::List { default, .. } = &self.rule
            && !has_item(offered, default)
        {
            return Err(Unsupported::NoCommonValue {
                key: self.name,
                offered: offered.into(),
            }
            .into());
        }
        Ok(self.land_default(draft))
    }

    fn settle_value(
        &self,
        draft: &mut Negotiated,
        offered: &str,
        answer: &str,
    ) -> Result<String, LoginError> {
        match &self.rule {
            Rule::List {
                supported, land, ..
            } => {
                let chosen = supported.iter().find(|item| **item == answer);
                let chosen = chosen.filter(|item| has_item(offered, item));
                if chosen.is_none() && answer == NONE {
                    // It should be Reject; targets without digests say it this way.
                    return Err(Unsupported::NoCommonValue {
                        key: self.name,
                        offered: offered.into(),
                    }
                    .into());
                }
                land(
                    draft,
                    chosen.ok_or_else(|| self.not_offered(offered, answer))?,
                );
            }
            Rule::Boolean {
                function,
                offer,
                land,
                ..
            } => {
                let value = parse_boolean(answer).ok_or_else(|| self.bad_value(answer))?;
                self.check_result(function.join(*offer, value) == value, offered, answer)?;
                land(draft, value);
            }
            Rule::Number {
                function,
                range,
                land,
                offer,
                ..
            } => {
                let value = parse_in(range, answer).ok_or_else(|| self.bad_value(answer))?;
                let joined = offer.map_or(value, |offer| function.join(offer, value));
                self.check_result(joined == value, offered, answer)?;
                land(draft, value);
            }
            Rule::Declaration { .. } | Rule::Obsolete => return Err(self.not_allowed().into()),
        }
        Ok(answer.into())
    }

    /// Answers what the target offers and we did not; the answer is what holds from now on.
    ///
    /// A value that the key cannot have is answered with Reject (section 6.2.2).
    pub(super) fn respond(&self, draft: &mut Negotiated, proposal: &str) -> String {
        let answer = match &self.rule {
            Rule::Declaration { .. } | Rule::Obsolete => None,
            Rule::List {
                supported, land, ..
            } => proposal
                .split(',')
                .find_map(|item| supported.iter().find(|ours| **ours == item))
                .map(|chosen| {
                    land(draft, chosen);
                    (*chosen).to_owned()
                }),
            Rule::Boolean {
                function,
                offer,
                land,
                ..
            } => parse_boolean(proposal).map(|theirs| {
                let value = function.join(*offer, theirs);
                land(draft, value);
                yes_or_no(value).to_owned()
            }),
            Rule::Number {
                function,
                range,
                default,
                land,
                ..
            } => parse_in(range, proposal).map(|theirs| {
                let value = function.join(*default, theirs);
                land(draft, value);
                value.to_string()
            }),
        };
        answer.unwrap_or_else(|| REJECT.into())
    }

    pub(super) fn bad_value(&self, value: &str) -> Misbehaviour {
        Misbehaviour::BadValue {
            key: self.name,
            section: self.section,
            value: value.into(),
        }
    }

    pub(super) fn not_allowed(&self) -> Misbehaviour {
        Misbehaviour::KeyNotAllowed { key: self.name }
    }

    fn not_negotiated(&self, answer: &'static str) -> LoginError {
        Misbehaviour::NotNegotiated {
            key: self.name,
            answer,
        }
        .into()
    }

    fn not_offered(&self, offered: &str, value: &str) -> Misbehaviour {
        Misbehaviour::NotOffered {
            key: self.name,
            offered: offered.into(),
            value: value.into(),
        }
    }

    fn check_result(&self, is_right: bool, offered: &str, value: &str) -> Result<(), Misbehaviour> {
        if is_right {
            return Ok(());
        }
        Err(Misbehaviour::WrongResult {
            key: self.name,
            section: self.section,
            offered: offered.into(),
            value: value.into(),
        })
    }
}

fn has_item(list: &str, item: &str) -> bool {
    list.split(',').any(|each| each == item)
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

fn parse_boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// A number within `range`.
pub(super) fn parse_in(range: &RangeInclusive<u32>, value: &str) -> Option<u32> {
    parse_number(value)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| range.contains(number))
}

#[cfg(test)]
mod tests {
    use super::super::keys::{defaults, row};

    /// No target in its right mind offers these to us first, since we offer them; but the rules
    /// have to hold for whatever row is added next.
    #[test]
    fn each_kind_of_offer_is_answered_by_its_function() {
        for (key, offer, answer) in [
            ("InitialR2T", "Yes", "Yes"),
            ("InitialR2T", "No", "No"),
            ("InitialR2T", "maybe", "Reject"),
            ("ImmediateData", "No", "No"),
            ("MaxOutstandingR2T", "1", "1"),
            ("MaxOutstandingR2T", "65535", "1"),
            ("MaxOutstandingR2T", "65536", "Reject"),
            ("DefaultTime2Wait", "1", "2"),
            ("DefaultTime2Wait", "3", "3"),
            ("HeaderDigest", "CRC64,None", "None"),
            ("HeaderDigest", "CRC64", "Reject"),
            ("TaskReporting", "ResponseFence", "Reject"),
            ("OFMarker", "No", "Reject"),
        ] {
            assert_eq!(
                row(key).unwrap().respond(&mut defaults(), offer),
                answer,
                "{key}={offer}"
            );
        }
    }
}
