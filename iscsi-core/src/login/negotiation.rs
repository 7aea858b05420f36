//! One login's negotiation: what was offered, answered and settled, key by key.

use alloc::string::String;
use alloc::vec::Vec;

use super::error::{LoginError, Misbehaviour};
use super::keys::{self, ROWS};
use super::negotiated::Negotiated;
use super::rule::{IRRELEVANT, KeyRow, NOT_UNDERSTOOD, REJECT, Rule, Sender};
use super::settings::LoginSettings;
use super::trace::KeyTrace;
use crate::pdu::login::Stage;
use crate::text::{MAX_PAIRS, Pair, TextList};

/// The one key that may be declared again (RFC 7143 section 6.3).
const REPEATABLE_KEY: &str = "TargetAddress";

/// The keys of one login, and the parameters that they come to.
pub(super) struct Negotiation {
    is_discovery: bool,
    draft: Negotiated,
    traces: Vec<KeyTrace>,
    /// Our answers to what the target offered, still to be sent.
    answers: TextList,
    /// An offer of the target among those, if any: it must not come with the last response.
    open_offer: Option<&'static str>,
}

impl Negotiation {
    pub(super) fn new(settings: &LoginSettings) -> Self {
        Self {
            is_discovery: settings.target_name.is_none(),
            draft: keys::defaults(),
            traces: Vec::new(),
            answers: TextList::default(),
            open_offer: None,
        }
    }

    pub(super) fn draft(&self) -> &Negotiated {
        &self.draft
    }

    pub(super) fn traces(&self) -> &[KeyTrace] {
        &self.traces
    }

    /// Sends what we have to say in `stage`.
    pub(super) fn offer(&mut self, settings: &LoginSettings, stage: Stage, list: &mut TextList) {
        for row in ROWS.iter().filter(|row| row.stage == stage) {
            if let Some(value) = row.offer(settings).filter(|_| self.is_relevant(row)) {
                list.push(row.name, &value);
                self.trace_offer(row, value);
            }
        }
    }

    /// Sends the answers that are due.
    pub(super) fn answer(&mut self, list: &mut TextList) {
        list.append(&mut self.answers);
        self.open_offer = None;
    }

    /// Takes one pair of the target's, heard in `stage`.
    pub(super) fn hear(&mut self, pair: Pair<'_>, stage: Stage) -> Result<(), LoginError> {
        match keys::row(pair.key) {
            Some(row) => self.hear_known(row, pair.value, stage),
            None => Ok(self.hear_unknown(pair)?),
        }
    }

    /// Closes what the target left open and checks what belongs together.
    ///
    /// RFC 7143 lets a target leave out an answer that our offer already determines. One left out
    /// against the rules does no harm either: the default holds, as after a Reject.
    pub(super) fn finish(&mut self) -> Result<(), LoginError> {
        if let Some(key) = self.open_offer {
            return Err(Misbehaviour::OfferAtTheEnd { key }.into());
        }
        for trace in self
            .traces
            .iter_mut()
            .filter(|trace| trace.outcome.is_empty())
        {
            if let (Some(row), Some(offered)) = (keys::row(&trace.key), &trace.ours) {
                trace.outcome = row.fall_back(&mut self.draft, offered)?;
            }
        }
        // FirstBurstLength must not exceed MaxBurstLength (section 13.14). Targets answer each key
        // by itself, so one with a small MaxBurstLength can miss that; then the smaller one holds.
        let max_burst_length_bytes = self.draft.max_burst_length_bytes;
        let first_burst_length_bytes = &mut self.draft.first_burst_length_bytes;
        *first_burst_length_bytes = max_burst_length_bytes.min(*first_burst_length_bytes);
        Ok(())
    }

    /// Adds to the trace. The bound is on what a target makes us remember.
    pub(super) fn trace(&mut self, trace: KeyTrace) -> Result<(), Misbehaviour> {
        if self.traces.len() >= MAX_PAIRS {
            return Err(Misbehaviour::TooManyKeys);
        }
        self.traces.push(trace);
        Ok(())
    }

    fn trace_offer(&mut self, row: &KeyRow, value: String) {
        let is_declared = matches!(row.rule, Rule::Declaration { .. });
        let outcome = if is_declared {
            value.clone()
        } else {
            String::new()
        };
        self.traces.push(KeyTrace {
            key: row.name.into(),
            ours: Some(value),
            theirs: None,
            outcome,
        });
    }

    fn is_relevant(&self, row: &KeyRow) -> bool {
        row.in_discovery || !self.is_discovery
    }

    fn hear_known(
        &mut self,
        row: &'static KeyRow,
        value: &str,
        stage: Stage,
    ) -> Result<(), LoginError> {
        // A declaration is answered only by a side that does not know the key (section 6.2). It
        // should know all of ours, but there is nothing to undo.
        if row.sender == Sender::Initiator && value == NOT_UNDERSTOOD {
            return Ok(());
        }
        if row.sender == Sender::Initiator || stage_rank(stage) < stage_rank(row.stage) {
            return Err(row.not_allowed().into());
        }
        match self.traces.iter().position(|trace| trace.key == row.name) {
            None => self.hear_first(row, value),
            Some(position) => self.hear_again(row, value, position),
        }
    }

    /// The target speaks of this key before we do.
    fn hear_first(&mut self, row: &'static KeyRow, value: &str) -> Result<(), LoginError> {
        let mut trace = KeyTrace {
            key: row.name.into(),
            ours: None,
            theirs: Some(value.into()),
            outcome: value.into(),
        };
        if let Rule::Declaration { theirs, .. } = &row.rule {
            check_declared(row, theirs(&mut self.draft, value), value)?;
        } else {
            let answer = self.respond(row, value);
            self.answers.push(row.name, &answer);
            self.open_offer = Some(row.name);
            trace.outcome = if answer == REJECT {
                String::from("none")
            } else {
                answer.clone()
            };
            trace.ours = Some(answer);
        }
        Ok(self.trace(trace)?)
    }

    fn respond(&mut self, row: &KeyRow, proposal: &str) -> String {
        if self.is_relevant(row) {
            row.respond(&mut self.draft, proposal)
        } else {
            IRRELEVANT.into()
        }
    }

    /// The target answers, or declares its own value beside ours; only once.
    fn hear_again(
        &mut self,
        row: &'static KeyRow,
        value: &str,
        position: usize,
    ) -> Result<(), LoginError> {
        let Some(trace) = self.traces.get_mut(position) else {
            return Ok(());
        };
        if trace.theirs.is_some() {
            let again = Misbehaviour::Renegotiated {
                key: row.name.into(),
            };
            return if row.name == REPEATABLE_KEY {
                Ok(())
            } else {
                Err(again.into())
            };
        }
        let offered = trace.ours.clone().unwrap_or_default();
        trace.theirs = Some(value.into());
        if let Rule::Declaration { theirs, .. } = &row.rule {
            trace.outcome = "each its own".into();
            return Ok(check_declared(row, theirs(&mut self.draft, value), value)?);
        }
        trace.outcome = row.settle(&mut self.draft, &offered, value)?;
        Ok(())
    }

    /// A key that nobody told us about is answered with NotUnderstood (section 6.2), unless it
    /// comes with one of the constants that are answers themselves.
    fn hear_unknown(&mut self, pair: Pair<'_>) -> Result<(), Misbehaviour> {
        if self.traces.iter().any(|trace| trace.key == pair.key) {
            return Err(Misbehaviour::Renegotiated {
                key: pair.key.into(),
            });
        }
        let is_answer = matches!(pair.value, NOT_UNDERSTOOD | REJECT | IRRELEVANT);
        if !is_answer {
            self.answers.push(pair.key, NOT_UNDERSTOOD);
        }
        self.trace(KeyTrace {
            key: pair.key.into(),
            ours: (!is_answer).then(|| NOT_UNDERSTOOD.into()),
            theirs: Some(pair.value.into()),
            outcome: String::from("none"),
        })
    }
}

fn check_declared(row: &KeyRow, is_good: bool, value: &str) -> Result<(), Misbehaviour> {
    if is_good {
        Ok(())
    } else {
        Err(row.bad_value(value))
    }
}

fn stage_rank(stage: Stage) -> u8 {
    stage as u8
}
