//! A model disk, and a long random mix of requests that it judges.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::frontend::spec::{
    F_DISCARD, F_INDIRECT_DESC, F_WRITE_ZEROES, S_OK, SECTOR_BYTES, T_DISCARD, T_IN, T_OUT,
    T_WRITE_ZEROES,
};
use crate::frontend::{Completion, Error, Frontend, IO_LIMIT, Layout, Request};
use crate::rng::Rng;

const SECTOR: usize = SECTOR_BYTES as usize;

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Zeroes,
    /// The bytes that follow from the sector's number and this version.
    Version(u64),
    /// Anything: it was discarded.
    Undefined,
}

/// What every sector of a disk should hold; sectors never touched hold zeroes.
#[derive(Debug, Default)]
pub struct Model {
    sectors: HashMap<u64, Content>,
    last_version: u64,
}

impl Model {
    /// A disk full of zeroes.
    pub fn zeroed() -> Self {
        Self::default()
    }

    /// Data for a write of `sectors` at `sector`, unlike that of any other write.
    pub fn new_data(&mut self, sector: u64, sectors: u64) -> (u64, Vec<u8>) {
        self.last_version += 1;
        let version = self.last_version;
        let data = (sector..sector + sectors)
            .flat_map(|at| bytes_of(at, version))
            .collect();
        (version, data)
    }

    /// Notes that a write of this version was acknowledged.
    pub fn written(&mut self, range: Range<u64>, version: u64) {
        self.fill(range, Content::Version(version));
    }

    /// Notes that the range was zeroed.
    pub fn zeroed_range(&mut self, range: Range<u64>) {
        self.fill(range, Content::Zeroes);
    }

    /// Notes that the range was discarded: its contents are undefined until it is written.
    pub fn discarded(&mut self, range: Range<u64>) {
        self.fill(range, Content::Undefined);
    }

    fn fill(&mut self, range: Range<u64>, content: Content) {
        self.sectors.extend(range.map(|sector| (sector, content)));
    }

    /// Compares what was read from `sector` on.
    ///
    /// # Panics
    /// At the first sector that holds something else; the message says which and what.
    pub fn judge(&self, sector: u64, data: &[u8]) {
        for (at, bytes) in (sector..).zip(data.chunks(SECTOR)) {
            let content = self.sectors.get(&at).copied().unwrap_or(Content::Zeroes);
            let right = match content {
                Content::Undefined => true,
                Content::Zeroes => bytes.iter().all(|byte| *byte == 0),
                Content::Version(version) => bytes == bytes_of(at, version),
            };
            assert!(
                right,
                "sector {at} should hold {content:?}, but: {}",
                describe(bytes)
            );
        }
    }
}

/// The bytes of a sector: its number and version in clear, then noise that follows from both.
fn bytes_of(sector: u64, version: u64) -> [u8; SECTOR] {
    let mut rng = Rng::new(sector ^ version.rotate_left(32));
    let mut bytes = [0; SECTOR];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn describe(bytes: &[u8]) -> String {
    let word = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_le_bytes)
    };
    let (sector, version) = (word(0), word(8));
    if bytes.iter().all(|byte| *byte == 0) {
        "zeroes".to_owned()
    } else if bytes == bytes_of(sector, version) {
        format!("version {version} of sector {sector}")
    } else {
        format!(
            "neither data nor zeroes, it begins with {:02x?}",
            &bytes[..bytes.len().min(16)]
        )
    }
}

/// What a random mix consists of.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Replays the same requests; their completions may come in another order.
    pub seed: u64,
    /// How many requests.
    pub steps: u64,
    /// The part of the disk in use, in sectors of 512 bytes.
    pub range: Range<u64>,
    /// Longest read or write, in sectors.
    pub max_sectors: u32,
    /// Starts and lengths are multiples of this many sectors: the block size.
    pub align_sectors: u32,
    /// Requests in flight per queue.
    pub depth: usize,
    /// Requests that may end with an error. Where one wrote, anything may be afterwards.
    pub may_fail: usize,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 2000,
            range: 0..32 * 1024,
            max_sectors: 512,
            align_sectors: 1,
            depth: 16,
            may_fail: 0,
        }
    }
}

/// What became of a mix.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The requests that ended with an error: type, sectors, status.
    pub failed: Vec<(u32, Range<u64>, u8)>,
    /// The longest time between a request and its answer.
    pub longest: Duration,
}

/// Sends a random mix to all queues of `frontend`, several requests in flight, and judges every
/// read; at the end it reads the whole range back.
///
/// Requests that overlap one in flight are not sent: the device may order those as it likes.
///
/// # Panics
/// When a request fails, a read is wrong, or nothing comes back in time; the message holds the
/// seed.
pub fn random_mix(frontend: &mut Frontend, model: &mut Model, mix: &Mix) {
    random_mix_with(frontend, model, mix, |_, moment| {
        assert!(moment != Moment::Disconnected, "the back-end has gone");
    });
}

/// When a mix is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request of this number was just submitted; others are in flight.
    Submitted(u64),
    /// The back-end has gone, and an answer is waited for: the front-end is to be connected again.
    Disconnected,
}

/// As [`random_mix`], disturbed at every [`Moment`]; says what became of it.
///
/// # Panics
/// As [`random_mix`].
pub fn random_mix_with(
    frontend: &mut Frontend,
    model: &mut Model,
    mix: &Mix,
    disturb: impl FnMut(&mut Frontend, Moment),
) -> Summary {
    let mut disturb = disturb;
    let mut run = Run::new(frontend, model, mix.clone(), &mut disturb);
    for step in 0..mix.steps {
        run.step();
        (run.disturb)(run.frontend, Moment::Submitted(step));
    }
    run.drain();
    run.read_back();
    run.summary
}

struct InFlight {
    range: Range<u64>,
    version: u64,
    since: Instant,
}

impl InFlight {
    fn new(range: Range<u64>, version: u64) -> Self {
        Self {
            range,
            version,
            since: Instant::now(),
        }
    }
}

struct Run<'a> {
    frontend: &'a mut Frontend,
    model: &'a mut Model,
    mix: Mix,
    rng: Rng,
    /// By queue and head.
    in_flight: HashMap<(usize, u16), InFlight>,
    summary: Summary,
    disturb: &'a mut dyn FnMut(&mut Frontend, Moment),
}

impl<'a> Run<'a> {
    fn new(
        frontend: &'a mut Frontend,
        model: &'a mut Model,
        mix: Mix,
        disturb: &'a mut dyn FnMut(&mut Frontend, Moment),
    ) -> Self {
        let rng = Rng::new(mix.seed);
        Self {
            frontend,
            model,
            mix,
            rng,
            in_flight: HashMap::new(),
            summary: Summary::default(),
            disturb,
        }
    }

    fn step(&mut self) {
        let queues = self.frontend.queues().len() as u64;
        let queue = usize::try_from(self.rng.below(queues)).expect("few queues");
        while self.frontend.queue(queue).in_flight() >= self.mix.depth {
            self.await_one();
        }
        let range = self.pick_range();
        while self.overlaps(&range) {
            self.await_one();
        }
        let (request, version) = self.pick_request(&range);
        self.submit(queue, request, InFlight::new(range, version));
    }

    fn submit(&mut self, queue: usize, request: Request, note: InFlight) {
        let layout = self.pick_layout(&request);
        let submitted = self.frontend.queue(queue).submit(request, &layout);
        let head = submitted.unwrap_or_else(|error| self.fail(&error.to_string()));
        self.in_flight.insert((queue, head), note);
    }

    fn overlaps(&self, range: &Range<u64>) -> bool {
        let overlap =
            |note: &InFlight| note.range.start < range.end && range.start < note.range.end;
        self.in_flight.values().any(overlap)
    }

    /// Mostly short ranges, sometimes long ones.
    fn pick_range(&mut self) -> Range<u64> {
        let align = u64::from(self.mix.align_sectors);
        let longest = u64::from(self.mix.max_sectors) / align;
        let bound = if self.rng.chance(80) {
            longest.min(16)
        } else {
            longest
        };
        let length = (1 + self.rng.below(bound)) * align;
        let places = (self.mix.range.end - self.mix.range.start - length) / align + 1;
        let start = self.mix.range.start + self.rng.below(places) * align;
        start..start + length
    }

    fn pick_request(&mut self, range: &Range<u64>) -> (Request, u64) {
        let features = self.frontend.features();
        let sectors = u32::try_from(range.end - range.start).expect("a short range");
        match self.rng.below(100) {
            0..3 => (Request::flush(), 0),
            3..8 if features & F_DISCARD != 0 => (Request::discard(range.start, sectors), 0),
            8..15 if features & F_WRITE_ZEROES != 0 => {
                let unmap = self.rng.chance(50);
                (Request::write_zeroes(range.start, sectors, unmap), 0)
            }
            15..58 => (Request::read(range.start, sectors * SECTOR_BYTES), 0),
            _ => {
                let (version, data) = self.model.new_data(range.start, u64::from(sectors));
                (Request::write(range.start, data), version)
            }
        }
    }

    /// Usual and unusual layouts; never more descriptors than a small ring has.
    fn pick_layout(&mut self, request: &Request) -> Layout {
        let total = u32::try_from(request.data_out.len()).expect("short") + request.data_in_bytes;
        let piece = total / 6 + 1 + self.rng.below_u32(700);
        let layout = match self.rng.below(5) {
            0 => Layout::merged(),
            1 => Layout::data_in_segments(request, piece),
            2 => Layout::every(request, piece),
            _ => Layout::usual(request),
        };
        let indirect = self.frontend.features() & F_INDIRECT_DESC != 0 && self.rng.chance(50);
        if indirect { layout.indirect() } else { layout }
    }

    fn await_one(&mut self) {
        let waited = loop {
            match self.frontend.wait_any(IO_LIMIT) {
                Err(Error::Disconnected) => (self.disturb)(self.frontend, Moment::Disconnected),
                waited => break waited,
            }
        };
        let (queue, completion) = waited.unwrap_or_else(|error| self.fail(&error.to_string()));
        let note = self
            .in_flight
            .remove(&(queue, completion.head))
            .expect("it was in flight");
        self.judge(&completion, &note);
    }

    fn judge(&mut self, completion: &Completion, note: &InFlight) {
        let request = completion.request.as_ref().expect("no raw chains here");
        let range = note.range.clone();
        self.summary.longest = self.summary.longest.max(note.since.elapsed());
        if completion.status != S_OK {
            return self.judge_failed(request.kind, range, completion.status);
        }
        match request.kind {
            T_IN => self.model.judge(request.sector, &completion.data),
            T_OUT => self.model.written(range, note.version),
            T_WRITE_ZEROES => self.model.zeroed_range(range),
            T_DISCARD => self.model.discarded(range),
            _ => {}
        }
    }

    fn judge_failed(&mut self, kind: u32, range: Range<u64>, status: u8) {
        self.summary.failed.push((kind, range.clone(), status));
        if self.summary.failed.len() > self.mix.may_fail {
            let what = format!("type {kind} on sectors {range:?} ended with status {status}");
            self.fail(&what);
        }
        if matches!(kind, T_OUT | T_WRITE_ZEROES | T_DISCARD) {
            self.model.discarded(range);
        }
    }

    fn drain(&mut self) {
        while !self.in_flight.is_empty() {
            self.await_one();
        }
    }

    fn read_back(&mut self) {
        let step = u64::from(self.mix.max_sectors);
        let mut start = self.mix.range.start;
        while start < self.mix.range.end {
            let sectors = step.min(self.mix.range.end - start);
            let length_bytes = u32::try_from(sectors).expect("short") * SECTOR_BYTES;
            let note = InFlight::new(start..start + sectors, 0);
            self.submit(0, Request::read(start, length_bytes), note);
            self.await_one();
            start += sectors;
        }
    }

    fn fail(&self, reason: &str) -> ! {
        panic!("random mix with seed {}: {reason}", self.mix.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_was_written_last() {
        let mut model = Model::zeroed();
        let (version, data) = model.new_data(7, 2);
        model.written(7..9, version);
        model.judge(7, &data);
        model.judge(9, &[0; SECTOR]);
    }

    #[test]
    #[should_panic(expected = "version 1 of sector 7")]
    fn rejects_an_older_version() {
        let mut model = Model::zeroed();
        let (_, old) = model.new_data(7, 1);
        let (version, _) = model.new_data(7, 1);
        model.written(7..8, version);
        model.judge(7, &old);
    }

    #[test]
    #[should_panic(expected = "version 1 of sector 8")]
    fn rejects_the_right_data_at_the_wrong_place() {
        let mut model = Model::zeroed();
        let (version, data) = model.new_data(7, 2);
        model.written(7..9, version);
        model.judge(7, &data[SECTOR..]);
    }

    #[test]
    #[should_panic(expected = "sector 3 should hold Zeroes")]
    fn rejects_data_where_zeroes_belong() {
        let mut model = Model::zeroed();
        let (_, data) = model.new_data(3, 1);
        model.zeroed_range(3..4);
        model.judge(3, &data);
    }
}
