//! What a serving process says of itself: plain data, made by `control`, sent over the control socket,
//! rendered by `cli`.
//!
//! The names of the fields are a promise to programs (`docs/control-protocol.md`): a field is added, none
//! is renamed. They end in their unit; `null` stands for what there is not, or what the target does not
//! tell. No field holds a secret.

use std::fmt;
use std::time::{Duration, SystemTime};

use iscsi_core::disk::facts::LunFacts;
use serde::{Deserialize, Serialize};

use crate::config::ServedDisk;
use crate::limits::Limits;
use crate::report::NegotiatedKeys;

/// A point in time: in JSON a text after RFC 3339, in UTC, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(pub SystemTime);

impl Timestamp {
    /// The present.
    pub fn now() -> Self {
        Self(SystemTime::now())
    }

    /// How long ago it was at `now`; nothing when the clock was set back since.
    pub fn age(self, now: Self) -> Duration {
        now.0.duration_since(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    /// `2026-11-25T16:30:08Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond the year 9999 it cannot be written: a clock that is out of order.
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        humantime::format_rfc3339_seconds(self.0.clamp(SystemTime::UNIX_EPOCH, end)).fmt(f)
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let time = time.0.clamp(SystemTime::UNIX_EPOCH, end);
        humantime::format_rfc3339_millis(time).to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = humantime::TimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        humantime::parse_rfc3339(&text).map(Self)
    }
}

/// A whole process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The program's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since when it runs.
    pub started: Timestamp,
    /// When all of this was so.
    pub now: Timestamp,
    /// Its disks, or the one that was asked for.
    pub disks: Vec<DiskStatus>,
    /// Its portals; none when one disk was asked for.
    #[serde(default)]
    pub portals: Vec<PortalStatus>,
}

/// Whether a portal says which targets it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortalState {
    /// The first discovery is under way.
    Starting,
    /// The last discovery succeeded.
    Discovered,
    /// The last discovery failed, and is repeated. What was found before is served on.
    Failing,
}

/// A portal whose LUNs are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortalStatus {
    /// As it is configured.
    pub address: String,
    /// Whether it answers.
    pub state: PortalState,
    /// Since when.
    pub since: Timestamp,
    /// Why the last discovery failed.
    pub reason: Option<String>,
    /// When a discovery succeeded last.
    pub last_discovery: Option<Timestamp>,
    /// When the next one begins; `null` while one is under way.
    pub next_discovery: Option<Timestamp>,
    /// How many targets it has that count.
    pub targets: usize,
    /// How many disks are served from it.
    pub disks: usize,
    /// The last thing that went wrong.
    pub last_error: Option<ErrorStatus>,
    /// What needs somebody's attention, in words; empty when all is well.
    pub problems: Vec<String>,
}

/// Where a disk is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Its first login has not succeeded yet: its socket is not there.
    Starting,
    /// As `Starting`, after a login has failed.
    WaitingForTarget,
    /// A front-end can connect, or is connected.
    Serving,
    /// It has ended, and the process has other disks.
    Ended,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// What people call it.
    pub name: String,
    /// Where it is, in full.
    pub url: String,
    /// TargetName.
    pub target: String,
    /// The portal that is asked first.
    pub portal: String,
    /// The path of its socket, or `fd N`.
    pub socket: String,
    /// Where it is in its life.
    pub state: DiskState,
    /// Since when.
    pub since: Timestamp,
    /// Why it waits, or has ended.
    pub reason: Option<String>,
    /// InitiatorName.
    pub initiator_name: String,
    /// The most sessions that it opens.
    pub max_sessions: u16,
    /// How much its guest may ask for now: as it is configured, or as it was set since.
    #[serde(default)]
    pub limits: Limits,
    /// What the last look at it found; `null` before the first login.
    pub lun: Option<LunStatus>,
    /// The front-end that is connected.
    pub front_end: Option<FrontEndStatus>,
    /// The rings that a guest uses.
    pub queues: Vec<QueueStatus>,
    /// The sessions that may have left tasks at the target: no command goes out before it has ended
    /// them.
    pub barrier_raised_by: Vec<usize>,
    /// By their number.
    pub sessions: Vec<SessionStatus>,
    /// What needs somebody's attention, in words; empty when all is well.
    pub problems: Vec<String>,
}

/// What a LUN says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LunStatus {
    /// Its number.
    pub lun: u16,
    /// INQUIRY.
    pub vendor: String,
    /// INQUIRY.
    pub product: String,
    /// INQUIRY.
    pub revision: String,
    /// VPD page 80h; empty when there is none.
    pub serial: String,
    /// VPD page 83h, of the logical unit, as udev writes them: `naa.6001405…`.
    pub designators: Vec<String>,
    /// The capacity.
    pub capacity_bytes: u64,
    /// The capacity that guests are shown: the same, unless the LUN has shrunk.
    pub shown_capacity_bytes: u64,
    /// The logical block length.
    pub block_length_bytes: u32,
    /// There is a volatile write cache.
    pub write_cache: bool,
    /// Guests may not write: the LUN says so, or the configuration.
    pub read_only: bool,
}

/// A front-end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontEndStatus {
    /// Since when it is connected.
    pub connected_since: Timestamp,
    /// It was shown a disk that may not be written.
    pub read_only: bool,
}

/// A ring in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Which virtqueue.
    pub queue: u16,
    /// The session that carries its requests.
    pub session: usize,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// The first login is under way.
    LoggingIn,
    /// In full-feature phase.
    LoggedIn,
    /// Lost; the login is repeated until it succeeds.
    Waiting,
    /// Not to be had: its queues share the first session until the next front-end.
    Refused,
    /// Nobody uses it any more; the target is told to end what it may still run.
    EndingTasks,
}

/// A session of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Which one of the disk, from 0.
    pub session: usize,
    /// Where it is in its life.
    pub state: SessionState,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not logged in.
    pub reason: Option<String>,
    /// ISID, as twelve hexadecimal digits.
    pub isid: String,
    /// How often it was lost and made again.
    pub reconnects: u64,
    /// The last login that succeeded.
    pub login: Option<SessionLogin>,
    /// The last thing that went wrong.
    pub last_error: Option<ErrorStatus>,
}

/// What went wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// In words.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// What a login came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLogin {
    /// When it succeeded.
    pub at: Timestamp,
    /// The portal where it ended up, as it was named.
    pub portal: String,
    /// Its address.
    pub address: Option<String>,
    /// TargetPortalGroupTag.
    pub portal_group_tag: Option<u16>,
    /// The portals that sent us on, in order; empty without a redirect.
    pub redirected_from: Vec<String>,
    /// The target session identifying handle.
    pub tsih: u16,
    /// TargetAlias.
    pub target_alias: Option<String>,
    /// How the two sides proved themselves.
    pub authentication: String,
    /// What was negotiated.
    pub negotiated: NegotiatedKeys,
}

impl DiskStatus {
    /// A disk of which nothing is known but its settings.
    pub fn of(served: &ServedDisk) -> Self {
        let target = &served.disk.target;
        Self {
            name: served.name.as_str().to_owned(),
            url: target.to_string(),
            target: target.target.to_string(),
            portal: target.portal.to_string(),
            socket: served.socket.to_string(),
            state: DiskState::Starting,
            since: Timestamp::now(),
            reason: None,
            initiator_name: served.disk.initiator.name.to_string(),
            max_sessions: served.disk.sessions,
            limits: served.disk.limits,
            lun: None,
            front_end: None,
            queues: Vec::new(),
            barrier_raised_by: Vec::new(),
            sessions: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// What needs somebody's attention. The reasons say themselves what to do.
    pub fn find_problems(&self) -> Vec<String> {
        let reason = self.reason.as_deref().unwrap_or("no reason is known");
        let whole = match self.state {
            DiskState::Starting | DiskState::Serving => None,
            DiskState::WaitingForTarget => Some(format!(
                "not served yet, waiting for the target since {}: {reason}",
                self.since
            )),
            DiskState::Ended => Some(format!(
                "not served any more since {}: {reason}",
                self.since
            )),
        };
        let sessions = self.sessions.iter().filter_map(SessionStatus::problem);
        let barrier = (!self.barrier_raised_by.is_empty()).then(|| {
            let sessions = self.barrier_raised_by.iter().map(ToString::to_string);
            format!(
                "no command goes out before the target has ended the old tasks of session {}",
                sessions.collect::<Vec<_>>().join(", ")
            )
        });
        let lun = self.lun.as_ref().and_then(LunStatus::problem);
        let problems = whole
            .into_iter()
            .chain(lun)
            .chain(self.protection_problem());
        problems.chain(sessions).chain(barrier).collect()
    }

    /// A guest that was shown something else than there is now.
    fn protection_problem(&self) -> Option<String> {
        let (lun, front_end) = (self.lun.as_ref()?, self.front_end.as_ref()?);
        let text = match (front_end.read_only, lun.read_only) {
            (false, true) => {
                "the LUN has become write-protected: the guest's writes fail with an I/O error until \
                 it is writable again"
            }
            (true, false) => {
                "the LUN is writable now, and the guest was shown a read-only disk: start the guest \
                 anew"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl PortalStatus {
    /// A portal that was not asked yet.
    pub fn new(address: String) -> Self {
        Self {
            address,
            state: PortalState::Starting,
            since: Timestamp::now(),
            reason: None,
            last_discovery: None,
            next_discovery: None,
            targets: 0,
            disks: 0,
            last_error: None,
            problems: Vec::new(),
        }
    }

    /// What needs somebody's attention about the portal as a whole.
    pub fn problem(&self) -> Option<String> {
        let Self { since, reason, .. } = self;
        let reason = reason.as_deref().unwrap_or("no reason is known");
        let is_failing = self.state == PortalState::Failing;
        is_failing.then(|| format!("the discovery fails since {since}: {reason}"))
    }
}

impl SessionStatus {
    /// A session before its first login.
    pub fn new(session: usize, isid: String) -> Self {
        Self {
            session,
            state: SessionState::LoggingIn,
            since: Timestamp::now(),
            reason: None,
            isid,
            reconnects: 0,
            login: None,
            last_error: None,
        }
    }

    fn problem(&self) -> Option<String> {
        let Self { session, since, .. } = self;
        let reason = self.reason.as_deref().unwrap_or("no reason is known");
        match self.state {
            SessionState::LoggedIn | SessionState::LoggingIn => None,
            SessionState::Waiting => Some(format!(
                "session {session} is away since {since}, its requests wait: {reason}"
            )),
            SessionState::Refused => Some(format!(
                "session {session} cannot be had, its queues share session 0: {reason}"
            )),
            SessionState::EndingTasks => Some(format!(
                "session {session} has left tasks at the target since {since}: {reason}"
            )),
        }
    }
}

impl LunStatus {
    /// What a probe found, and what guests have of it.
    pub fn of(lun: u16, facts: &LunFacts, served: &LunFacts) -> Self {
        Self {
            lun,
            vendor: facts.vendor.clone(),
            product: facts.product.clone(),
            revision: facts.revision.clone(),
            serial: String::from_utf8_lossy(&facts.identity.serial).into_owned(),
            designators: facts
                .identity
                .designators
                .iter()
                .map(ToString::to_string)
                .collect(),
            capacity_bytes: facts.capacity_bytes(),
            shown_capacity_bytes: served.capacity_bytes(),
            block_length_bytes: facts.block_length_bytes,
            write_cache: facts.write_cache,
            read_only: served.write_protected,
        }
    }

    fn problem(&self) -> Option<String> {
        let Self {
            capacity_bytes,
            shown_capacity_bytes,
            ..
        } = self;
        (capacity_bytes < shown_capacity_bytes).then(|| {
            format!(
                "the LUN has shrunk to {capacity_bytes} bytes, guests are shown {shown_capacity_bytes} \
                 bytes: requests beyond its end fail; grow it again, or, when no guest needs what was \
                 there, start this process anew"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_text_to_the_millisecond_and_back() {
        let time = Timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_624_208_123));
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "\"2026-11-25T16:30:08.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        assert_eq!(time.to_string(), "2026-11-25T16:30:08Z");
    }

    #[test]
    fn a_clock_out_of_order_is_no_panic() {
        let before = Timestamp(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.to_string(), "1970-01-01T00:00:00Z");
        let far = Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40));
        assert_eq!(String::from(far), "9999-12-31T23:59:59.000Z");
        assert_eq!(before.age(before), Duration::ZERO);
        assert_eq!(far.age(before), Duration::ZERO);
    }
}
