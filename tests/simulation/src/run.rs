//! One seed, from its first request to its last.

use std::collections::VecDeque;
use std::sync::Arc;

use iscsi_core::disk::request::{BlockOperation, Extent};
use iscsi_core::disk::shared::SharedDisk;
use iscsi_core::limits::RECONCILE_MS;

use crate::Failure;
use crate::faults::{Chaos, Fault, Faults};
use crate::initiator::{Lane, LeftOver};
use crate::judge::Judge;
use crate::settings::Settings;
use crate::target::Target;
use crate::wire::Link;

/// Turns after which no more faults happen, so that a run has an end.
const MAX_WILD_TURNS: u64 = 100_000;
/// Turns that a run takes at most: more is a run that does not get on.
const MAX_TURNS: u64 = 300_000;
/// Turns in which nothing happens before the clock is put forward to the next thing that is due.
const IDLE_TURNS: u32 = 4;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// How often each fault has fired, in the order of [`Fault::NAMES`].
    pub fired: Vec<u64>,
    /// Requests made, all of which have ended.
    pub requests: usize,
    /// Those that ended with an error which the target had reported.
    pub failed: u64,
    /// Sessions lost and made again.
    pub sessions_lost: u64,
    /// Commands that were late.
    pub timed_out: u64,
    /// Those of them that another initiator's reset had ended, or may have.
    pub reconciled: u64,
    /// Requests that failed because they had been tried for too long.
    pub worn_out: u64,
    /// How much time passed, in the run.
    pub virtual_ms: u64,
    /// Stands for every byte that was sent, and every choice.
    pub fingerprint: u64,
}

/// Everything there is.
struct World {
    settings: Settings,
    chaos: Chaos,
    judge: Judge,
    target: Target,
    lanes: Vec<Lane>,
    links: Vec<Option<Link>>,
    /// What a killed process had in flight and is not submitted again, in the order of the guest.
    left_over: VecDeque<LeftOver>,
    now_ms: u64,
    turns: u64,
}

/// Runs `seed`. The same seed and the same faults give the same run, byte by byte.
pub fn run(seed: u64, faults: &Faults, is_verbose: bool) -> Result<Report, Failure> {
    let mut chaos = Chaos::new(seed, faults.clone(), is_verbose);
    chaos.vary();
    let settings = Settings::new(&mut chaos.rng);
    chaos.tell(|| format!("{settings:?}"));
    let shared = Arc::<SharedDisk>::default();
    let mut world = World {
        judge: Judge::new(settings.sectors, settings.facts.write_cache),
        target: Target::new(&settings),
        lanes: (0..settings.lanes)
            .map(|index| Lane::new(index, &settings, Arc::clone(&shared)))
            .collect(),
        links: (0..settings.lanes).map(|_| None).collect(),
        left_over: VecDeque::new(),
        now_ms: 1_000,
        turns: 0,
        settings,
        chaos,
    };
    world.run()?;
    Ok(world.report())
}

impl World {
    fn run(&mut self) -> Result<(), Failure> {
        let mut idle_turns = 0;
        while self.judge.ended < self.settings.requests {
            let came = self.turn()?;
            idle_turns = if came { 0 } else { idle_turns + 1 };
            if idle_turns > IDLE_TURNS {
                self.skip_to_next()?;
                idle_turns = 0;
            } else {
                self.now_ms += u64::from(self.chaos.rng.chance(30));
            }
        }
        self.judge.check_disk(&self.target.disk)?;
        self.check_failures()
    }

    /// Everybody has a turn, in any order. `true` when something happened.
    fn turn(&mut self) -> Result<bool, Failure> {
        self.turns += 1;
        if self.turns > MAX_TURNS {
            let open = self.judge.made() - self.judge.ended;
            return Err(format!("{open} requests do not get on"));
        }
        let all_made = self.judge.made() >= self.settings.requests;
        self.chaos.is_calm = all_made || self.turns > MAX_WILD_TURNS;
        let mut order: Vec<usize> = (0..self.lanes.len()).collect();
        self.chaos.rng.shuffle(&mut order);
        let mut came = self.die();
        for lane in order {
            came |= self.log_in(lane);
            self.give_up(lane)?;
            came |= self.make_requests(lane)?;
            let link = &mut self.links[lane];
            came |= self.lanes[lane]
                .turn(link, self.now_ms, &mut self.chaos)
                .map_err(|failure| format!("lane {lane}: {failure}"))?;
            self.end_requests(lane)?;
            self.reconcile(lane);
        }
        let (now_ms, chaos) = (self.now_ms, &mut self.chaos);
        Ok(came | self.target.step(&mut self.links, now_ms, chaos)?)
    }

    /// One lane was told that tasks may have been ended: whose, nobody knows.
    fn reconcile(&mut self, lane: usize) {
        if self.lanes[lane].take_tasks_cleared() {
            let at_ms = self.now_ms + RECONCILE_MS;
            for lane in &mut self.lanes {
                lane.expect_answers_by(at_ms);
            }
        }
    }

    /// Now and then all of us is killed, and replaced at once. The successor knows which sessions
    /// there were, and nothing goes out before all of them are reinstated.
    fn die(&mut self) -> bool {
        if !self.chaos.fires(Fault::Kill) {
            return false;
        }
        let shared = Arc::<SharedDisk>::default();
        let mut left_over = Vec::from(std::mem::take(&mut self.left_over));
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            shared.barrier.raise(index);
            left_over.extend(lane.kill(&self.settings, &shared));
            lane.login_at_ms = self.now_ms + self.chaos.rng.below(200);
            self.links[index] = None;
        }
        left_over.sort_by_key(|request| request.owner);
        self.left_over = left_over.into();
        true
    }

    fn give_up(&mut self, lane: usize) -> Result<(), Failure> {
        if !self.lanes[lane].is_connected() && self.chaos.fires(Fault::GiveUp) {
            self.lanes[lane].give_up(&mut self.chaos)?;
            self.end_requests(lane)?;
        }
        Ok(())
    }

    /// What a killed process left goes first, to whichever lane has room.
    fn submit_left_over(&mut self, lane: usize) -> Result<(), Failure> {
        while self.lanes[lane].has_room(self.now_ms)
            && let Some(request) = self.left_over.pop_front()
        {
            let LeftOver {
                owner,
                operation,
                extents,
                data,
            } = request;
            self.chaos
                .tell(|| format!("request {owner} once more, on lane {lane}"));
            self.lanes[lane].admit(owner, operation, &extents, data)?;
            self.end_requests(lane)?;
        }
        Ok(())
    }

    fn log_in(&mut self, lane: usize) -> bool {
        let is_due = self.lanes[lane].login_at_ms <= self.now_ms;
        if self.lanes[lane].is_connected() || !is_due {
            return false;
        }
        let (now_ms, chaos) = (self.now_ms, &mut self.chaos);
        let login = self.target.log_in(lane, now_ms, &self.settings, chaos);
        match login {
            Some((negotiated, link)) => {
                self.lanes[lane].connect(negotiated, now_ms);
                self.links[lane] = Some(link);
            }
            None => {
                self.lanes[lane].login_at_ms = now_ms + chaos.rng.between(50, 5_000);
            }
        }
        true
    }

    fn make_requests(&mut self, lane: usize) -> Result<bool, Failure> {
        let mut came = !self.left_over.is_empty();
        self.submit_left_over(lane)?;
        for _ in 0..self.chaos.rng.below(8) {
            let is_enough = self.judge.made() >= self.settings.requests;
            if is_enough || !self.lanes[lane].has_room(self.now_ms) {
                break;
            }
            came = true;
            let (operation, extents) = self.choose_request();
            let owner = self.judge.start(operation, &extents);
            let data = match operation {
                BlockOperation::Write { .. } => Judge::fill(owner, &extents[0]),
                _ => Vec::new(),
            };
            self.chaos
                .tell(|| format!("request {owner} on lane {lane}: {operation:?} {extents:?}"));
            self.lanes[lane].admit(owner, operation, &extents, data)?;
            self.end_requests(lane)?;
        }
        Ok(came)
    }

    fn choose_request(&mut self) -> (BlockOperation, Vec<Extent>) {
        let can_discard = self.settings.facts.can_discard();
        let rng = &mut self.chaos.rng;
        let stable = rng.chance(20);
        let unmap = rng.chance(50);
        let operation = match rng.below(100) {
            0..40 => BlockOperation::Read,
            40..80 => BlockOperation::Write { stable },
            80..88 => BlockOperation::Flush,
            88..94 if can_discard => BlockOperation::Discard,
            _ => BlockOperation::WriteZeroes { unmap, stable },
        };
        let extents = match operation {
            BlockOperation::Discard | BlockOperation::WriteZeroes { .. } => rng.between(1, 3),
            BlockOperation::Flush => 0,
            BlockOperation::Read | BlockOperation::Write { .. } => 1,
        };
        let (sectors, most) = (
            self.settings.sectors as u64,
            self.settings.max_request_sectors,
        );
        let extent = |_| {
            let count = rng.between(1, most);
            Extent {
                sector: rng.below(sectors - count + 1),
                length_bytes: count * 512,
            }
        };
        (operation, (0..extents).map(extent).collect())
    }

    fn end_requests(&mut self, lane: usize) -> Result<(), Failure> {
        for ended in self.lanes[lane].take_ended() {
            let (owner, is_good) = (ended.owner, ended.is_good);
            self.chaos
                .tell(|| format!("{} request {owner} ended, good: {is_good}", self.now_ms));
            self.judge
                .end(owner, is_good, &ended.buffer, &self.target.disk)?;
        }
        Ok(())
    }

    /// Nothing can happen now: the next thing that is due.
    fn skip_to_next(&mut self) -> Result<(), Failure> {
        let lanes = self.lanes.iter().filter_map(Lane::next_ms);
        let links = self.links.iter().flatten().filter_map(Link::next_ms);
        let all = lanes.chain(links).chain(self.target.next_ms());
        let Some(next_ms) = all.filter(|at_ms| *at_ms > self.now_ms).min() else {
            // What is due already was not taken by choice.
            self.now_ms += 1;
            return Ok(());
        };
        self.now_ms = next_ms;
        Ok(())
    }

    /// The guest sees no error that the target has not meant for it.
    fn check_failures(&self) -> Result<(), Failure> {
        let meant = [
            Fault::MediumError,
            Fault::Reject,
            Fault::Short,
            Fault::DeferredError,
        ];
        let meant = meant.iter().map(|fault| self.chaos.fired[*fault as usize]);
        let worn_out = self.lanes.iter().map(|lane| lane.worn_out + lane.given_up);
        let meant: u64 = meant.chain(worn_out).sum();
        if self.judge.failed <= meant {
            return Ok(());
        }
        Err(format!(
            "{} requests failed, the target had meant {meant} to",
            self.judge.failed
        ))
    }

    fn report(mut self) -> Report {
        let links = self.links.iter().flatten();
        let wire = links.fold(0, |sum, link| {
            sum ^ u64::from(link.up.fingerprint) ^ u64::from(link.down.fingerprint) << 32
        });
        Report {
            fingerprint: wire ^ self.chaos.rng.next_u64(),
            fired: self.chaos.fired,
            requests: self.judge.ended,
            failed: self.judge.failed,
            sessions_lost: self.lanes.iter().map(|lane| lane.lost).sum(),
            timed_out: self.lanes.iter().map(|lane| lane.timed_out).sum(),
            reconciled: self.lanes.iter().map(|lane| lane.reconciled).sum(),
            worn_out: self.lanes.iter().map(|lane| lane.worn_out).sum(),
            virtual_ms: self.now_ms,
        }
    }
}
