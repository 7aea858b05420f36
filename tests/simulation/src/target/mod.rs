//! The model target: one disk, a session for each lane of the initiator, and bad days.

mod codec;
pub mod disk;
mod session;
mod task;

use iscsi_core::login::negotiated::Negotiated;

use self::disk::Disk;
use self::session::TargetSession;
use crate::Failure;
use crate::faults::{Chaos, Fault};
use crate::settings::Settings;
use crate::wire::Link;

/// What a login agreed on, from the target's side. Lengths in bytes.
#[derive(Clone, Debug)]
pub struct Terms {
    pub header_digest: bool,
    pub data_digest: bool,
    /// What the initiator takes in one PDU.
    pub initiator_segment: usize,
    /// What the target takes in one PDU.
    pub target_segment: usize,
    pub max_burst: usize,
    pub first_burst: usize,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    pub max_r2ts: usize,
    pub cmd_sn: u32,
    pub stat_sn: u32,
    /// How many commands the window takes when it is open.
    pub window: u32,
}

/// The target.
#[derive(Debug)]
pub struct Target {
    /// Its medium.
    pub disk: Disk,
    sessions: Vec<Option<TargetSession>>,
    /// By lane: unit attentions that wait for a command.
    attentions: Vec<Vec<(u8, u8)>>,
    down_until_ms: u64,
}

impl Target {
    /// A target for `lanes` sessions.
    pub fn new(settings: &Settings) -> Self {
        Self {
            disk: Disk::new(settings.sectors),
            sessions: (0..settings.lanes).map(|_| None).collect(),
            attentions: vec![Vec::new(); settings.lanes],
            down_until_ms: 0,
        }
    }

    /// A login with the ISID of `lane`: an old session with it ends first (RFC 7143 section
    /// 6.3.5), with all its tasks. `None` when the login fails.
    pub fn log_in(
        &mut self,
        lane: usize,
        now_ms: u64,
        settings: &Settings,
        chaos: &mut Chaos,
    ) -> Option<(Negotiated, Link)> {
        if now_ms < self.down_until_ms || chaos.fires(Fault::LoginRefused) {
            return None;
        }
        let terms = settings.terms(chaos);
        let negotiated = terms.negotiated();
        let link = Link::new(terms.header_digest && terms.data_digest, chaos);
        self.sessions[lane] = Some(TargetSession::new(terms));
        Some((negotiated, link))
    }

    /// A moment passes. `true` when something happened.
    pub fn step(
        &mut self,
        links: &mut [Option<Link>],
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<bool, Failure> {
        self.bad_day(links, now_ms, chaos);
        let mut came = false;
        let mut order: Vec<usize> = (0..self.sessions.len()).collect();
        chaos.rng.shuffle(&mut order);
        for &lane in &order {
            let link = links[lane].as_mut().filter(|link| !link.is_cut);
            if let Some(session) = &mut self.sessions[lane] {
                let attentions = &mut self.attentions[lane];
                let disk = &mut self.disk;
                let result = session.step(link, disk, attentions, now_ms, chaos);
                came |= result.map_err(|failure| format!("session {lane}: {failure}"))?;
            }
            self.finish_reset(lane);
        }
        Ok(came)
    }

    /// The initiator of `lane` has reset the logical unit, on which it has other sessions, too.
    fn finish_reset(&mut self, lane: usize) {
        let session = self.sessions[lane].as_mut();
        if session.is_some_and(|session| std::mem::take(&mut session.has_reset)) {
            self.reset(false, (0x29, 0x03));
        }
    }

    fn reset(&mut self, has_status: bool, attention: (u8, u8)) {
        let sessions = self.sessions.iter_mut().flatten();
        sessions.for_each(|session| session.reset(has_status));
        for attentions in &mut self.attentions {
            attentions.push(attention);
        }
    }

    /// What happens to a target as a whole, or comes from elsewhere.
    fn bad_day(&mut self, links: &mut [Option<Link>], now_ms: u64, chaos: &mut Chaos) {
        if now_ms >= self.down_until_ms && chaos.fires(Fault::Restart) {
            self.sessions.iter_mut().for_each(|session| *session = None);
            links
                .iter_mut()
                .flatten()
                .for_each(|link| link.is_cut = true);
            self.down_until_ms = now_ms + chaos.rng.between(1, 20_000);
            self.attentions.fill(vec![(0x29, 0x00)]);
        }
        for (fault, has_status) in [(Fault::Reset, false), (Fault::ResetWithStatus, true)] {
            if chaos.fires(fault) {
                let attention = chaos.rng.pick(&[(0x29, 0x03), (0x2f, 0x00)]);
                self.reset(has_status, attention);
            }
        }
        let lane = chaos.rng.index(self.sessions.len());
        if let (Some(session), Some(link)) = (&mut self.sessions[lane], &mut links[lane]) {
            session.announce(link, now_ms, chaos);
        }
    }

    /// When something will happen by the passing of time alone.
    pub fn next_ms(&self) -> Option<u64> {
        let sessions = self.sessions.iter().flatten();
        sessions.filter_map(TargetSession::next_ms).min()
    }
}
