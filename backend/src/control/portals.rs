//! The portals of the process: each is asked at intervals, and what was found at all of them is served.
//!
//! Nothing but a portal's own word takes its disks away: one that cannot be asked keeps what it had. The
//! disks themselves are the fleet's, which does not end one that a guest uses.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use iscsi_core::name::IscsiName;
use tokio::sync::{Mutex, watch};

use super::backoff::start_pauses;
use super::error::ControlError;
use super::find_disks::find_disks;
use super::fleet::Fleet;
use super::plan::Source;
use super::portal_board::PortalBoard;
use super::registry::Registry;
use crate::changes::Changes;
use crate::config::{PortalSettings, ServedDisk};
use crate::found::{Discovered, FoundLun, FoundLuns, Selection, select};

/// How many things of a kind a log line names, and how many lines of a kind one discovery may cost: a
/// target chooses how many there are.
const MAX_NAMED: usize = 10;

/// All portals of the process.
pub(super) struct Portals {
    fleet: Arc<Fleet>,
    registry: Arc<Registry>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order of the file.
    members: Vec<Member>,
    /// Which member each disk is served from.
    origins: BTreeMap<FoundLun, u64>,
    /// How many members there have been.
    count: u64,
    /// What was said of the disks last.
    said: Vec<String>,
}

struct Member {
    /// Unlike that of any other, before or after.
    number: u64,
    settings: PortalSettings,
    found: FoundLuns,
    /// Why targets could not be asked, as it was said last.
    troubles: BTreeMap<IscsiName, String>,
    board: Arc<PortalBoard>,
    /// Dropped, the portal is not asked any more.
    _stop: watch::Sender<()>,
}

impl State {
    /// Number and finds of a member with these settings: those of a former one of the same address, if
    /// that is not wanted as it is.
    fn inherit(
        &mut self,
        former: &mut Vec<Member>,
        settings: &PortalSettings,
        wanted: &[PortalSettings],
    ) -> (u64, FoundLuns) {
        let changed = former.iter().position(|member| {
            member.settings.address == settings.address && !wanted.contains(&member.settings)
        });
        if let Some(at) = changed {
            let Member { number, found, .. } = former.remove(at);
            return (number, found);
        }
        self.count += 1;
        (self.count, FoundLuns::new())
    }
}

impl Portals {
    /// No portal yet.
    pub(super) fn new(fleet: Arc<Fleet>, registry: Arc<Registry>) -> Self {
        Self {
            fleet,
            registry,
            state: Mutex::default(),
        }
    }

    /// These are the portals from now on. One that is the same goes on; one whose settings changed keeps
    /// what was found; the disks of one that is gone end.
    pub(super) async fn set(self: &Arc<Self>, wanted: Vec<PortalSettings>) -> Changes {
        let mut state = self.state.lock().await;
        let mut former = std::mem::take(&mut state.members);
        for settings in &wanted {
            let same = former
                .iter()
                .position(|member| member.settings == *settings);
            let member = match same {
                Some(at) => former.remove(at),
                None => {
                    let (number, found) = state.inherit(&mut former, settings, &wanted);
                    self.start(number, settings.clone(), found)
                }
            };
            state.members.push(member);
        }
        let boards = state.members.iter().map(|member| Arc::clone(&member.board));
        self.registry.show_portals(boards.collect());
        self.serve(&mut state, &[]).await
    }

    /// Makes way for these disks, which are about to be served by another.
    pub(super) async fn yield_to(&self, disks: &[ServedDisk]) -> Changes {
        let mut state = self.state.lock().await;
        self.serve(&mut state, disks).await
    }

    /// What is found is served again, as far as nobody else serves it.
    pub(super) async fn serve_again(&self) {
        let mut state = self.state.lock().await;
        self.serve(&mut state, &[]).await;
    }

    fn start(self: &Arc<Self>, number: u64, settings: PortalSettings, found: FoundLuns) -> Member {
        let board = Arc::new(PortalBoard::new(&settings));
        let (stop, stopped) = watch::channel(());
        let watcher = Watcher {
            portals: Arc::clone(self),
            number,
            settings: settings.clone(),
            board: Arc::clone(&board),
            failure: None,
        };
        tokio::spawn(watcher.run(stopped));
        Member {
            number,
            settings,
            found,
            troubles: BTreeMap::new(),
            board,
            _stop: stop,
        }
    }

    async fn known(&self, number: u64) -> FoundLuns {
        let state = self.state.lock().await;
        let member = state.members.iter().find(|member| member.number == number);
        member
            .map(|member| member.found.clone())
            .unwrap_or_default()
    }

    /// What a portal has is known anew.
    async fn take_in(&self, number: u64, discovered: Discovered) {
        let mut state = self.state.lock().await;
        let mut members = state.members.iter_mut();
        let Some(member) = members.find(|member| member.number == number) else {
            return;
        };
        member.say_troubles(&discovered);
        member.board.discovered(&discovered);
        member.troubles = discovered.troubles;
        member.found = discovered.luns;
        let address = member.settings.address.clone();
        let changes = self.serve(&mut state, &[]).await;
        let lines = summary(&changes);
        if state.said != lines {
            for line in &lines {
                log::info!("portal {address}: {line}");
            }
            state.said = lines;
        }
    }

    /// Serves what was found, but for what others serve, or will: `next` are those.
    async fn serve(&self, state: &mut State, next: &[ServedDisk]) -> Changes {
        let members = &state.members;
        let found = members
            .iter()
            .map(|member| (&member.settings, &member.found));
        let found: Vec<_> = found.collect();
        let former = state.origins.iter().filter_map(|(lun, number)| {
            let index = members.iter().position(|member| member.number == *number)?;
            Some((lun.clone(), index))
        });
        let former = former.collect();
        let mut selection = Selection::default();
        let choose = |mut others: Vec<ServedDisk>| {
            others.extend_from_slice(next);
            selection = select(&found, &others, &former);
            selection.disks.clone()
        };
        let changes = self.fleet.apply_beside(Source::Portals, choose).await;
        for (index, member) in members.iter().enumerate() {
            let disks = selection.of_portal(index).count();
            member.board.serves(disks, selection.left_out_of(index));
        }
        let origins = selection.origins.into_iter();
        let origins = origins.filter_map(|(lun, index)| Some((lun, members.get(index)?.number)));
        state.origins = origins.collect();
        changes
    }
}

impl fmt::Debug for Portals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Portals").finish_non_exhaustive()
    }
}

impl Member {
    /// Says which targets cannot be asked, once for each reason, and which can again.
    fn say_troubles(&self, discovered: &Discovered) {
        let address = &self.settings.address;
        let troubles = &discovered.troubles;
        let new = troubles
            .iter()
            .filter(|(target, reason)| self.troubles.get(*target) != Some(*reason));
        let new =
            new.map(|(target, reason)| format!("portal {address}: target {target}: {reason}"));
        say(log::Level::Warn, new);
        let over = self
            .troubles
            .keys()
            .filter(|target| !troubles.contains_key(*target));
        let over = over.map(|target| {
            format!(
                "portal {address}: target {target} can be asked again, or is not listed any more"
            )
        });
        say(log::Level::Info, over);
        let former = self.board.snapshot().problems;
        let cuts = discovered.cuts.iter().filter(|cut| !former.contains(cut));
        say(
            log::Level::Warn,
            cuts.map(|cut| format!("portal {address}: {cut}")),
        );
    }
}

/// Says the first few of these lines, and how many more there are.
fn say(level: log::Level, lines: impl Iterator<Item = String>) {
    let mut more = 0_usize;
    for (index, line) in lines.enumerate() {
        if index < MAX_NAMED {
            log::log!(level, "{line}");
        } else {
            more += 1;
        }
    }
    if more > 0 {
        log::log!(level, "… and {more} more: status shows all");
    }
}

/// What has become of the disks, in a few lines of bounded length.
fn summary(changes: &Changes) -> Vec<String> {
    let short = |names: &[String]| {
        let shown: Vec<_> = names.iter().take(MAX_NAMED).map(String::as_str).collect();
        match names.len().saturating_sub(MAX_NAMED) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    };
    let lists = [
        ("found", &changes.added),
        ("gone", &changes.removed),
        ("changed", &changes.changed),
        ("started again", &changes.restarted),
    ];
    let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
    let mut lines: Vec<_> = lists
        .map(|(what, names)| format!("{what}: {}", short(names)))
        .collect();
    let kept = changes.kept.iter().map(|kept| ("kept as it was", kept));
    let failed = changes.failed.iter().map(|failed| ("not served", failed));
    let reasons = kept.take(MAX_NAMED).chain(failed.take(MAX_NAMED));
    lines.extend(reasons.map(|(what, named)| format!("{what}: {} ({})", named.name, named.reason)));
    lines
}

/// Asks one portal, again and again.
struct Watcher {
    portals: Arc<Portals>,
    number: u64,
    settings: PortalSettings,
    board: Arc<PortalBoard>,
    /// Why the last discovery failed.
    failure: Option<String>,
}

impl Watcher {
    /// Until the other end of `stopped` is gone. What has begun to be served is served to its end.
    async fn run(mut self, mut stopped: watch::Receiver<()>) {
        let mut pauses = start_pauses();
        loop {
            self.board.asks();
            let known = self.portals.known(self.number).await;
            let found = tokio::select! {
                found = find_disks(&self.settings, &known) => found,
                _ = stopped.changed() => return,
            };
            let rediscover = self.settings.rediscover;
            let pause = match found {
                Ok(discovered) => {
                    self.succeeded();
                    pauses = start_pauses();
                    self.portals.take_in(self.number, discovered).await;
                    rediscover
                }
                Err(error) => {
                    self.failed(&error);
                    pauses.next().unwrap_or(rediscover).min(rediscover)
                }
            };
            self.board.waits(pause);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.changed() => return,
            }
        }
    }

    fn succeeded(&mut self) {
        if self.failure.take().is_some() {
            log::info!(
                "portal {}: the discovery succeeds again",
                self.settings.address
            );
        }
    }

    /// A new reason may need somebody's attention; the same one again is of interest only to those who
    /// debug.
    fn failed(&mut self, error: &ControlError) {
        self.board.failed(error);
        let reason = error.to_string();
        let level = if self.failure.as_ref() == Some(&reason) {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        let address = &self.settings.address;
        log::log!(
            level,
            "portal {address}: {reason}; what was found there before is served on"
        );
        self.failure = Some(reason);
    }
}
