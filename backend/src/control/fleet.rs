//! The disks that are served, which come and go while the process runs.
//!
//! Each source of disks says what it wants; the fleet starts, ends and leaves alone what follows from
//! that ([`plan`]). A disk that a guest uses is not ended for it: it serves on as it is, and what is
//! wanted in its place is taken up when the guest has gone.
//!
//! There is one change at a time. None waits for a target: a disk is started and logs in by itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, watch};

use super::board::Board;
use super::disk::{Place, serve_disk};
use super::life::{Outcome, Reins, Stop, end_limit, life};
use super::plan::{self, Plan, Source, Start, plan, socket_path};
use super::pool::Pools;
use super::registry::Registry;
use crate::changes::{Changes, NamedReason};
use crate::config::{DiskName, ServedDisk};
use crate::exit::{ExitCode, Failure};
use crate::log_context::LogContext;

/// All disks of the process.
#[derive(Debug)]
pub(super) struct Fleet {
    registry: Arc<Registry>,
    /// Tells all disks that the process ends.
    process: watch::Sender<bool>,
    ends: mpsc::UnboundedSender<End>,
    /// The sessions that disks share.
    pools: Arc<Pools>,
    disks: Mutex<Disks>,
}

/// A disk has ended.
#[derive(Debug)]
pub(super) struct End {
    number: u64,
    pub(super) name: DiskName,
    pub(super) result: Result<(), Failure>,
}

#[derive(Debug, Default)]
struct Disks {
    /// What each source wants; a disk for each of it, and those that could not be ended yet.
    wanted: BTreeMap<Source, Vec<ServedDisk>>,
    members: Vec<Member>,
    /// How many there have been.
    count: u64,
}

#[derive(Debug)]
struct Member {
    /// Unlike that of any other, before or after.
    number: u64,
    source: Source,
    served: ServedDisk,
    board: Arc<Board>,
    reins: Reins,
}

impl Member {
    fn name(&self) -> &DiskName {
        &self.served.name
    }

    fn view(&self) -> plan::Member<'_> {
        plan::Member {
            source: &self.source,
            served: &self.served,
            is_used: self.reins.is_used(),
            has_ended: self.reins.has_ended(),
        }
    }
}

/// Places for disks that are going to be started, by their names.
type Places = HashMap<DiskName, Place>;

impl Fleet {
    /// No disk yet. The second value tells of each one that ends.
    pub(super) fn new(registry: Arc<Registry>) -> (Self, mpsc::UnboundedReceiver<End>) {
        let (ends, ended) = mpsc::unbounded_channel();
        let fleet = Self {
            registry,
            process: watch::Sender::new(false),
            ends,
            pools: Arc::default(),
            disks: Mutex::default(),
        };
        (fleet, ended)
    }

    /// `source` wants these disks, and no other: those that are new start, those that are gone end,
    /// those with other settings end and start again, the rest is left alone.
    ///
    /// # Errors
    /// Everything that stands against it; then nothing has changed. The first one says how to exit.
    pub(super) async fn apply(
        &self,
        source: Source,
        wanted: Vec<ServedDisk>,
    ) -> Result<Changes, Vec<Failure>> {
        self.disks.lock().await.apply(self, source, wanted).await
    }

    /// The same for a source that looks at what others serve before it says what it wants. What cannot be
    /// had stands against nothing else: it is said to have failed, and tried again with the next call.
    pub(super) async fn apply_beside(
        &self,
        source: Source,
        choose: impl FnOnce(Vec<ServedDisk>) -> Vec<ServedDisk>,
    ) -> Changes {
        let mut disks = self.disks.lock().await;
        if *self.process.borrow() {
            return Changes::default();
        }
        let others = disks.of_others(&source).into_iter();
        let wanted = choose(others.map(|(_, disk)| disk.clone()).collect());
        disks.wanted.insert(source.clone(), wanted);
        disks.converge(self, &source, Places::new()).await
    }

    /// One disk more for `source`.
    ///
    /// # Errors
    /// As [`Fleet::apply`].
    pub(super) async fn add(
        &self,
        source: Source,
        disk: ServedDisk,
    ) -> Result<Changes, Vec<Failure>> {
        let mut disks = self.disks.lock().await;
        let mut wanted = disks.wanted.get(&source).cloned().unwrap_or_default();
        wanted.push(disk);
        disks.apply(self, source, wanted).await
    }

    /// One disk less, whoever wants it: until its source says again what it wants.
    ///
    /// # Errors
    /// When there is none of that name, or a guest uses it and it is not to end in spite of that.
    pub(super) async fn remove(&self, name: &str, is_forced: bool) -> Result<Changes, Failure> {
        let mut disks = self.disks.lock().await;
        let removed = disks.remove(name, is_forced).await;
        self.registry.show(disks.boards());
        removed
    }

    /// What follows from the end of a disk: if it was to end as soon as its guest has gone, what is
    /// wanted in its place starts now.
    pub(super) async fn follow(&self, end: &End) -> Changes {
        let mut disks = self.disks.lock().await;
        let ended = disks.members.iter().find(|disk| disk.number == end.number);
        let Some(source) = ended
            .filter(|disk| disk.reins.is_retiring() || end.result.is_ok())
            .map(|disk| disk.source.clone())
        else {
            return Changes::default();
        };
        if *self.process.borrow() {
            return Changes::default();
        }
        disks.converge(self, &source, Places::new()).await
    }

    /// All disks are to end, with the process.
    pub(super) fn end(&self) {
        self.process.send_replace(true);
    }

    /// When all disks have ended.
    pub(super) async fn ended(&self) {
        let disks = self.disks.lock().await;
        let limit = end_limit();
        for disk in &disks.members {
            if disk.reins.ended(limit).await == Outcome::Overdue {
                log::error!("disk {} does not end", disk.name().as_str());
            }
        }
    }

    /// Serves a disk from now on, in a task of its own.
    fn start(&self, number: u64, source: &Source, served: ServedDisk, place: Place) -> Member {
        let board = Arc::new(Board::new(&served));
        let (reins, stop) = life(self.process.subscribe());
        let member = Member {
            number,
            source: source.clone(),
            served: served.clone(),
            board: Arc::clone(&board),
            reins,
        };
        let (ends, pools) = (self.ends.clone(), Arc::clone(&self.pools));
        tokio::spawn(async move {
            let name = served.name.clone();
            let result = serve(served, place, &pools, stop, &board).await;
            let _ = ends.send(End {
                number,
                name,
                result,
            });
        });
        member
    }

    /// A disk that is wanted and cannot be served, for everybody to see.
    fn absent(&self, number: u64, source: &Source, served: ServedDisk, failure: Failure) -> Member {
        let board = Arc::new(Board::new(&served));
        board.ended(&Err(failure));
        let (reins, stop) = life(self.process.subscribe());
        drop(stop);
        Member {
            number,
            source: source.clone(),
            served,
            board,
            reins,
        }
    }
}

async fn serve(
    served: ServedDisk,
    place: Place,
    pools: &Pools,
    mut stop: Stop,
    board: &Arc<Board>,
) -> Result<(), Failure> {
    let name = LogContext::of_disk(served.name.as_str());
    let result = serve_disk(served.disk, place, pools, &mut stop, board);
    let result = name.scope(result).await;
    board.ended(&result);
    result
}

impl Disks {
    async fn apply(
        &mut self,
        fleet: &Fleet,
        source: Source,
        wanted: Vec<ServedDisk>,
    ) -> Result<Changes, Vec<Failure>> {
        let clashes = plan::clashes(&self.of_others(&source), &source, &wanted);
        if !clashes.is_empty() {
            return Err(clashes.into_iter().map(Failure::usage).collect());
        }
        let places = self.claim_ahead(&source, &wanted).await?;
        self.wanted.insert(source.clone(), wanted);
        Ok(self.converge(fleet, &source, places).await)
    }

    fn views(&self) -> Vec<plan::Member<'_>> {
        self.members.iter().map(Member::view).collect()
    }

    /// What other sources have, and what they want in its place.
    fn of_others(&self, source: &Source) -> Vec<(&Source, &ServedDisk)> {
        let there = self.members.iter().map(|disk| (&disk.source, &disk.served));
        let lists = self.wanted.iter();
        let wanted = lists.flat_map(|(source, disks)| disks.iter().map(move |disk| (source, disk)));
        there
            .chain(wanted)
            .filter(|(other, _)| *other != source)
            .collect()
    }

    fn boards(&self) -> Vec<Arc<Board>> {
        let boards = self.members.iter().map(|disk| Arc::clone(&disk.board));
        boards.collect()
    }

    /// The places of disks to be started that no disk of ours has: what is wrong with them shows before
    /// anything has ended.
    async fn claim_ahead(
        &self,
        source: &Source,
        wanted: &[ServedDisk],
    ) -> Result<Places, Vec<Failure>> {
        let live = self.members.iter().filter(|disk| !disk.reins.has_ended());
        let taken: Vec<_> = live.map(|disk| socket_path(&disk.served)).collect();
        let plan = plan(&self.views(), source, wanted);
        let free = plan.start.into_iter().map(|(_, disk)| disk);
        let free: Vec<_> = free
            .filter(|disk| !taken.contains(&socket_path(disk)))
            .collect();
        let (mut places, mut failures) = (Places::new(), Vec::new());
        for (name, place) in claim(free).await {
            match place {
                Ok(place) => {
                    places.insert(name, place);
                }
                Err(failure) => failures.push(about(&name, failure)),
            }
        }
        if failures.is_empty() {
            Ok(places)
        } else {
            Err(failures)
        }
    }

    /// Does what has to be done that `source` has what it wants, as far as guests allow.
    async fn converge(&mut self, fleet: &Fleet, source: &Source, mut places: Places) -> Changes {
        let wanted = self.wanted.get(source).cloned().unwrap_or_default();
        let Plan {
            stay,
            keep,
            end,
            start,
            wait,
        } = plan(&self.views(), source, &wanted);
        let mut changes = Changes {
            unchanged: stay.len(),
            ..Changes::default()
        };
        self.wish(&stay, Reins::stay);
        self.retire_kept(keep, &mut changes);
        self.end_all(&end, &wanted, &mut changes).await;
        self.drop_ended(source);
        let is_served = |name: &DiskName| self.members.iter().any(|disk| disk.name() == name);
        let start: Vec<_> = start
            .into_iter()
            .filter(|(_, disk)| !is_served(&disk.name))
            .collect();
        let unclaimed = start.iter().map(|(_, disk)| disk);
        let unclaimed = unclaimed.filter(|disk| !places.contains_key(&disk.name));
        let mut claimed: HashMap<_, _> = claim(unclaimed.cloned().collect())
            .await
            .into_iter()
            .collect();
        for (why, disk) in start {
            let ahead = places.remove(&disk.name).map(Ok);
            match ahead.or_else(|| claimed.remove(&disk.name)) {
                Some(Ok(place)) => self.start(fleet, source, why, disk, place, &mut changes),
                Some(Err(failure)) => self.fail(fleet, source, disk, failure, &mut changes),
                None => {}
            }
        }
        for (disk, reason) in wait {
            let failure = Failure::new(ExitCode::Other, reason);
            self.fail(fleet, source, disk, failure, &mut changes);
        }
        self.sort();
        fleet.registry.show(self.boards());
        changes
    }

    fn wish(&self, names: &[DiskName], wish: impl Fn(&Reins)) {
        let named = self
            .members
            .iter()
            .filter(|disk| names.contains(disk.name()));
        named.for_each(|disk| wish(&disk.reins));
    }

    /// Those that are not to end now do so when they can.
    fn retire_kept(&self, keep: Vec<NamedReason>, changes: &mut Changes) {
        for kept in keep {
            let mut named = self.members.iter();
            if let Some(disk) = named.find(|disk| disk.name().as_str() == kept.name) {
                // One that only has nowhere to go must not end for that.
                if disk.reins.is_used() {
                    disk.reins.retire();
                } else {
                    disk.reins.stay();
                }
            }
            changes.kept.push(kept);
        }
    }

    /// Ends these disks, all at once, but those that a guest came to meanwhile.
    async fn end_all(&mut self, names: &[DiskName], wanted: &[ServedDisk], changes: &mut Changes) {
        self.wish(names, Reins::retire);
        let limit = end_limit();
        for disk in self
            .members
            .iter()
            .filter(|disk| names.contains(disk.name()))
        {
            let name = disk.name().as_str();
            match disk.reins.retired(limit).await {
                Outcome::Ended if wanted.iter().any(|disk| disk.name.as_str() == name) => {}
                Outcome::Ended => changes.removed.push(name.to_owned()),
                Outcome::Used => changes.kept.push(NamedReason::new(name, plan::USED)),
                Outcome::Overdue => changes.kept.push(NamedReason::new(name, "it does not end")),
            }
        }
    }

    fn drop_ended(&mut self, source: &Source) {
        self.members
            .retain(|disk| disk.source != *source || !disk.reins.has_ended());
    }

    fn start(
        &mut self,
        fleet: &Fleet,
        source: &Source,
        why: Start,
        disk: ServedDisk,
        place: Place,
        changes: &mut Changes,
    ) {
        let list = match why {
            Start::Added => &mut changes.added,
            Start::Changed => &mut changes.changed,
            Start::Restarted => &mut changes.restarted,
        };
        list.push(disk.name.as_str().to_owned());
        self.count += 1;
        let member = fleet.start(self.count, source, disk, place);
        self.members.push(member);
    }

    fn fail(
        &mut self,
        fleet: &Fleet,
        source: &Source,
        disk: ServedDisk,
        failure: Failure,
        changes: &mut Changes,
    ) {
        let reason = NamedReason::new(disk.name.as_str(), failure.to_string());
        changes.failed.push(reason);
        self.count += 1;
        let member = fleet.absent(self.count, source, disk, failure);
        self.members.push(member);
    }

    /// In the order in which they are wanted; those that are not come last.
    fn sort(&mut self) {
        let wanted = &self.wanted;
        let place = |disk: &Member| {
            let named = |other: &ServedDisk| other.name == *disk.name();
            let mut lists = wanted.get(&disk.source).into_iter().flatten();
            lists.position(named).unwrap_or(usize::MAX)
        };
        self.members
            .sort_by_cached_key(|disk| (disk.source.clone(), place(disk)));
    }

    async fn remove(&mut self, name: &str, is_forced: bool) -> Result<Changes, Failure> {
        let mut named = self.members.iter().enumerate();
        let Some((at, disk)) = named.find(|(_, disk)| disk.name().as_str() == name) else {
            let message = "there is no disk of that name; ls and status show all";
            return Err(Failure::new(ExitCode::NotFound, message));
        };
        let was_retiring = disk.reins.is_retiring();
        let outcome = if is_forced {
            disk.reins.end();
            disk.reins.ended(end_limit()).await
        } else {
            disk.reins.retire();
            disk.reins.retired(end_limit()).await
        };
        if outcome == Outcome::Used {
            if !was_retiring {
                disk.reins.stay();
            }
            let message = "a guest uses the disk: end the guest, or take it away with --force";
            return Err(Failure::new(ExitCode::Other, message));
        }
        if let Some(wanted) = self.wanted.get_mut(&disk.source) {
            wanted.retain(|other| other.name != *disk.name());
        }
        if outcome == Outcome::Overdue {
            let message = "the disk does not end in time; it is removed as soon as it has";
            return Err(Failure::new(ExitCode::Timeout, message));
        }
        self.members.remove(at);
        Ok(Changes {
            removed: vec![name.to_owned()],
            ..Changes::default()
        })
    }
}

/// Claims the places of these disks. It asks the file system, so it has a thread of its own.
async fn claim(disks: Vec<ServedDisk>) -> Vec<(DiskName, Result<Place, Failure>)> {
    if disks.is_empty() {
        return Vec::new();
    }
    let names: Vec<_> = disks.iter().map(|disk| disk.name.clone()).collect();
    let claims = tokio::task::spawn_blocking(move || {
        let claims = disks
            .into_iter()
            .map(|disk| Place::claim(disk.socket, &disk.disk));
        claims.collect::<Vec<_>>()
    });
    match claims.await {
        Ok(places) => names.into_iter().zip(places).collect(),
        Err(error) => {
            let failed = |name| (name, Err(Failure::new(ExitCode::Other, error.to_string())));
            names.into_iter().map(failed).collect()
        }
    }
}

fn about(name: &DiskName, failure: Failure) -> Failure {
    let message = format!("disk {}: {}", name.as_str(), failure.message);
    Failure::new(failure.code, message)
}
