//! What answers say about the target and the disk, rather than about their command.

use super::Requests;
use crate::disk::durability::Loss;
use crate::pdu::command::Response;
use crate::scsi::sense::{Sense, SenseKey, UnitAttention};
use crate::scsi::sense_action::{GiveUp, SenseAction};
use crate::scsi::status::ScsiStatus;
use crate::session::{Outcome, RequestTag};

impl Requests {
    /// Whether since the last call the target has told that tasks may have been ended without an
    /// answer (unit attention 29h or 2Fh). The owner then calls
    /// [`Session::expect_answers_by`](crate::session::Session::expect_answers_by) for every session of the logical unit: which of them is told is
    /// the target's affair (SAM-6, "Unit attention conditions").
    pub fn take_tasks_cleared(&mut self) -> bool {
        core::mem::take(&mut self.tasks_cleared)
    }

    /// Whether since the last call the target has told that the disk is not as it was probed: by a unit
    /// attention (capacity, mode parameters, INQUIRY data, medium, logical units), or by refusing to
    /// write to a disk that could be written. The owner then probes it, and calls
    /// [`Requests::set_facts`].
    pub fn take_facts_outdated(&mut self) -> bool {
        core::mem::take(&mut self.facts_outdated)
    }

    /// What an answer says about the target rather than about its command.
    pub(super) fn learn(&mut self, request: RequestTag, outcome: &Outcome) {
        if outcome.response != Response::Completed {
            return;
        }
        if ScsiStatus(outcome.status).is_busy() {
            let first_sent = self.slot_of(request).map_or(0, |slot| slot.first_sent);
            self.depth.refused(first_sent);
        }
        if let Some(sense) = check_condition(outcome) {
            self.learn_from(&sense);
            self.facts_outdated |= self.is_outdated_by(&sense);
        }
    }

    /// A command has ended that is none of a request's: its owner probes the disk on the same session.
    /// What the target tells once, it may have told there.
    pub fn foreign_command_done(&mut self, outcome: &Outcome) {
        if outcome.response != Response::Completed {
            return;
        }
        if let Some(sense) = check_condition(outcome) {
            self.learn_from(&sense);
            if sense.deferred && sense.key != SenseKey::RECOVERED_ERROR {
                self.shared.durability.lose(Loss::Deferred(sense));
            }
        }
    }

    fn learn_from(&mut self, sense: &Sense) {
        let attention = sense.unit_attention();
        self.tasks_cleared |= attention.is_some_and(UnitAttention::may_have_ended_tasks);
        if sense.tells_of_power_loss() {
            self.shared.durability.power_lost(*sense);
        }
    }

    /// Whether the disk is not as it was probed.
    fn is_outdated_by(&self, sense: &Sense) -> bool {
        let is_protected = SenseAction::of(sense) == SenseAction::GiveUp(GiveUp::WriteProtected);
        let tells_of_change = |attention: UnitAttention| {
            // The number may lead to another logical unit now.
            attention.outdates_facts() || attention == UnitAttention::ReportedLunsChanged
        };
        is_protected && !self.facts.write_protected
            || sense.unit_attention().is_some_and(tells_of_change)
    }
}

/// The sense data of a CHECK CONDITION.
fn check_condition(outcome: &Outcome) -> Option<Sense> {
    let is_check_condition = ScsiStatus(outcome.status) == ScsiStatus::CHECK_CONDITION;
    Sense::parse(outcome.sense.as_bytes()).filter(|_| is_check_condition)
}
