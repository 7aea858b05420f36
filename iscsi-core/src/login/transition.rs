//! The stages of a login as a transition table.
//!
//! Each state says what was sent; each response of the target that is complete (its C bit clear)
//! either stays in the stage or, with the T bit that was asked for, moves on.
//!
//! ```text
//! what we send             SecurityNegotiation (CSG 0)
//!
//! AuthMethod=CHAP          ChapOffered
//!                               │
//! CHAP_A                   AlgorithmsOffered
//!                               │
//! CHAP_N, CHAP_R, T        ProofSent ═════════════╗      ──▶ the target stays in the stage
//!                               │                 ║      ══▶ it moves on
//!                               ▼                 ║
//! answers if due, T     ┌▶ LeavingSecurity ═══════╣
//!                       └───────┘ ▲               ║
//!                                 │               ║
//! AuthMethod=None, T       NoneOffered ═══════════╣
//!                                                 ║
//!                          LoginOperationalNegotiation (CSG 1)
//!                                                 ▼
//! keys or answers, T                   ┌▶ ParametersOffered ═══▶ full-feature phase
//!                                      └──────────┘
//! ```
//!
//! A target that moves on before CHAP is done is left.
//!
//! A login always starts in the security stage: at least one target in use reinstates a session
//! (RFC 7143 section 6.3.5) only there.

use crate::pdu::login::Stage;

/// What was sent last. See the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    NoneOffered,
    ChapOffered,
    AlgorithmsOffered,
    ProofSent,
    LeavingSecurity,
    ParametersOffered,
}

/// What a response makes us do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Send CHAP_A.
    OfferAlgorithms,
    /// Send CHAP_N and CHAP_R, in mutual CHAP also CHAP_I and CHAP_C, and ask to move on.
    ProveOurselves,
    /// Send the answers that are due, if any, and ask to move on.
    AskToMoveOn,
    /// Send the operational keys and ask to move on.
    OfferParameters,
    /// Enter full-feature phase.
    Finish,
    /// Give up: the target goes on without the authentication that we demand.
    RefuseToSkipChap,
}

struct Transition {
    state: State,
    moves_on: bool,
    reaction: Reaction,
    next: State,
}

const fn when(state: State, moves_on: bool, reaction: Reaction, next: State) -> Transition {
    Transition {
        state,
        moves_on,
        reaction,
        next,
    }
}

const STAYS: bool = false;
pub(super) const MOVES_ON: bool = true;

/// The drawing above, row by row.
#[rustfmt::skip]
static TRANSITIONS: [Transition; 12] = [
    when(State::NoneOffered, STAYS, Reaction::AskToMoveOn, State::LeavingSecurity),
    when(State::NoneOffered, MOVES_ON, Reaction::OfferParameters, State::ParametersOffered),
    when(State::ChapOffered, STAYS, Reaction::OfferAlgorithms, State::AlgorithmsOffered),
    when(State::ChapOffered, MOVES_ON, Reaction::RefuseToSkipChap, State::ChapOffered),
    when(State::AlgorithmsOffered, STAYS, Reaction::ProveOurselves, State::ProofSent),
    when(State::AlgorithmsOffered, MOVES_ON, Reaction::RefuseToSkipChap, State::AlgorithmsOffered),
    when(State::ProofSent, STAYS, Reaction::AskToMoveOn, State::LeavingSecurity),
    when(State::ProofSent, MOVES_ON, Reaction::OfferParameters, State::ParametersOffered),
    when(State::LeavingSecurity, STAYS, Reaction::AskToMoveOn, State::LeavingSecurity),
    when(State::LeavingSecurity, MOVES_ON, Reaction::OfferParameters, State::ParametersOffered),
    when(State::ParametersOffered, STAYS, Reaction::AskToMoveOn, State::ParametersOffered),
    when(State::ParametersOffered, MOVES_ON, Reaction::Finish, State::ParametersOffered),
];

impl State {
    /// The stage in which a response finds us.
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::ParametersOffered => Stage::Operational,
            _ => Stage::Security,
        }
    }

    /// The row for a response; the table has one for each (a test counts them).
    pub(super) fn transition(self, moves_on: bool) -> (Reaction, Self) {
        TRANSITIONS
            .iter()
            .find(|row| row.state == self && row.moves_on == moves_on)
            .map_or((Reaction::RefuseToSkipChap, self), |row| {
                (row.reaction, row.next)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_one_row_for_each_response() {
        for row in &TRANSITIONS {
            let same =
                |other: &&Transition| other.state == row.state && other.moves_on == row.moves_on;
            assert_eq!(TRANSITIONS.iter().filter(same).count(), 1);
        }
        assert_eq!(TRANSITIONS.len(), 2 * 6);
    }

    #[test]
    fn the_stage_changes_only_when_the_target_moves_on() {
        for row in &TRANSITIONS {
            assert!(row.moves_on || row.state.stage() == row.next.stage());
        }
    }
}
