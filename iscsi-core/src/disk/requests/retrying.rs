//! Requests that are sent again: at once, later, or on the next session; and for how long.

use super::Requests;
use super::failure::Failure;
use crate::disk::deferred::delay_ms;
use crate::disk::setback::Setback;
use crate::limits::MAX_IMMEDIATE_RETRIES;
use crate::session::RequestTag;

impl Requests {
    /// How long a request is tried again, in milliseconds, counted from the first time that the target
    /// did not carry it out though it might have later (busy, not ready, LUN not there, aborted, no
    /// answer in time …); `None`, as at first, for ever. After that it fails with
    /// [`Failure::OutOfPatience`].
    ///
    /// The count starts anew with each request. A new session does not start it anew: it is the same
    /// guest that waits, and a target that drops each session would be waited for without end. The
    /// time for which there is no session at all is nobody's refusal, and has no end here.
    pub fn set_patience_ms(&mut self, patience_ms: Option<u64>) {
        self.patience_ms = patience_ms;
    }

    /// How often a request was begun again on the same session, since the table was made.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// The session is gone, and with it every command that was in flight: all requests that have
    /// not ended start again, in the order in which they were admitted.
    pub fn session_lost(&mut self) {
        self.deferred.clear();
        self.depth.session_lost();
        self.to_submit.clear();
        for (index, _) in (0u32..).zip(&self.slots) {
            let request = self.tag(index);
            if self.operation(request).is_some() {
                self.to_submit.push_back(request);
            }
        }
        for at in 0..self.to_submit.len() {
            if let Some(request) = self.to_submit.get(at).copied() {
                self.restart(request);
                if let Some(slot) = self.slot(request) {
                    slot.delays = 0;
                }
            }
        }
        let (slots, first) = (&self.slots, self.first_tag);
        let slot = |request: &RequestTag| slots.get(request.0.wrapping_sub(first) as usize);
        let order = |request: &RequestTag| slot(request).map(|slot| slot.order);
        self.to_submit.make_contiguous().sort_unstable_by_key(order);
    }

    /// Notes the first try in vain, and gives up when that is too long ago.
    pub(super) fn out_of_patience(
        &mut self,
        request: RequestTag,
        setback: Option<Setback>,
        now_ms: u64,
    ) -> Option<Failure> {
        let last = setback?;
        let since_ms = *self.slot(request)?.refused_since_ms.get_or_insert(now_ms);
        let tried_ms = now_ms.saturating_sub(since_ms);
        let is_over = self.patience_ms.is_some_and(|most_ms| tried_ms >= most_ms);
        is_over.then_some(Failure::OutOfPatience { last, tried_ms })
    }

    /// Begins a request again: at once, but after some tries in a row only after a wait.
    pub(super) fn again(&mut self, request: RequestTag, delayed: bool, now_ms: u64) {
        self.retries += 1;
        self.restart(request);
        let patience_ms = self.patience_ms;
        let Some(slot) = self.slot(request) else {
            return;
        };
        slot.immediate_retries = slot.immediate_retries.saturating_add(1);
        if delayed || slot.immediate_retries > MAX_IMMEDIATE_RETRIES {
            let due_ms = now_ms.saturating_add(delay_ms(slot.delays));
            slot.delays = slot.delays.saturating_add(1);
            // The last try is made when patience ends, not some time after.
            let end_ms = slot.refused_since_ms.zip(patience_ms);
            let end_ms = end_ms.map_or(u64::MAX, |(since_ms, most_ms)| {
                since_ms.saturating_add(most_ms)
            });
            let order = slot.order;
            self.deferred.push(due_ms.min(end_ms), order, request);
        } else {
            self.to_submit.push_back(request);
        }
    }

    /// Takes a living request back to its beginning.
    fn restart(&mut self, request: RequestTag) {
        if let Some(operation) = self.operation(request) {
            let zeroing = self.best_zeroing(operation);
            self.flush_undone(request);
            if let Some(slot) = self.slot(request) {
                slot.start(zeroing);
            }
        }
    }
}
