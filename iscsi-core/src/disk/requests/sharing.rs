//! Several tables on one session: each has its own tags, and leaves the others room.

use super::Requests;
use crate::session::{RequestTag, Session};

impl Requests {
    /// As one of several tables of one session: its tags begin with `first_tag`, in place of 0, and it
    /// takes no more than its share of the session ([`Requests::is_over_share`]). Only while it is
    /// empty.
    #[must_use]
    pub fn sharing(mut self, first_tag: RequestTag) -> Self {
        debug_assert_eq!(self.in_flight(), 0);
        self.first_tag = first_tag.0;
        self.shares_session = true;
        self
    }

    /// Whether the disk has as many commands out as its share of a session with others is: what the
    /// session would still take. A disk alone has half of it, so one that does not answer never takes
    /// all, however many more there are like it.
    pub fn is_over_share(&self, session: &Session) -> bool {
        self.shares_session && self.depth.outstanding() >= session.free_commands()
    }
}
