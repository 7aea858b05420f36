//! Runs the corpus, and mutations of it, through the same functions as the fuzzer, with any
//! compiler and in a few seconds.
//!
//! A failure leaves the input in a file and says how to run it alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use vhost_user_iscsi_fuzz_harness::{TARGETS, Target, seeds};

/// How many mutations of a target's corpus are tried, as long as there is time.
const MUTATIONS: usize = 1500;
/// How long the mutations of one target may take: a debug build on a busy machine is slow.
const MUTATION_TIME: Duration = Duration::from_millis(1200);
/// The longest input that mutations grow to.
const MAX_LENGTH: usize = 4096;

fn corpus_of(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let directory = directory.join(target.name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| {
        panic!("no corpus in {}: {error}", directory.display());
    });
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

fn run(target: &Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let path = env::temp_dir().join(format!("fuzz-{}-failed", target.name));
        fs::write(&path, input).unwrap();
        panic!(
            "{what} breaks a promise; the input is in {path}. Alone: FUZZ_INPUT={path} \
             cargo test -p vhost-user-iscsi-fuzz-harness --test replay {name}",
            path = path.display(),
            name = target.name,
        );
    }
}

/// Numbers that are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 8];
        match self.below(3) {
            0 => TELLING[self.below(TELLING.len())],
            _ => u8::try_from(self.below(256)).unwrap(),
        }
    }

    /// One to four small changes, as libFuzzer makes them.
    fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            match self.below(6) {
                0 => input.insert(at, self.byte()),
                1 if at < input.len() => drop(input.remove(at)),
                2 => input.truncate(at),
                3 => {
                    let from = self.below(other.len() + 1);
                    let count = self.below(64).min(other.len() - from);
                    input.splice(at..at, other[from..from + count].iter().copied());
                }
                _ if at < input.len() => input[at] = self.byte(),
                _ => {}
            }
        }
        input.truncate(MAX_LENGTH);
    }
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    if let Some(path) = env::var_os("FUZZ_INPUT") {
        (target.run)(&fs::read(path).unwrap());
        return;
    }
    let corpus = corpus_of(target);
    assert!(!corpus.is_empty(), "the corpus is empty");
    for (path, input) in &corpus {
        run(target, input, &path.display().to_string());
    }
    let begin = Instant::now();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..MUTATIONS {
        if begin.elapsed() > MUTATION_TIME {
            break;
        }
        let (path, input) = &corpus[random.below(corpus.len())];
        let (_, other) = &corpus[random.below(corpus.len())];
        let mut input = input.clone();
        random.mutate(&mut input, other);
        let what = format!("mutation {number}, of {}", path.display());
        run(target, &input, &what);
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(replayed, TARGETS.map(|target| target.name));
        }
    };
}

replays! {
    block_requests
    chap_values
    command_line
    descriptor_chains
    discovery
    front_end
    front_end_messages
    inflight_region
    login
    probe
    questions
    scsi
    session
    url
}

#[test]
fn every_target_has_a_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets");
    for target in TARGETS {
        let program = directory.join(format!("{}.rs", target.name));
        let text = fs::read_to_string(&program).unwrap();
        assert!(text.contains(&format!("run(\"{}\"", target.name)));
    }
    assert_eq!(fs::read_dir(directory).unwrap().count(), TARGETS.len());
}

#[test]
fn every_seed_leads_somewhere_and_is_in_the_corpus() {
    let mut faults = Vec::new();
    for seed in seeds::all() {
        let target = TARGETS.iter().find(|target| target.name == seed.target);
        let leads = (target.unwrap().run)(&seed.bytes) > 0;
        if !leads && !seed.name.starts_with("bad-") {
            faults.push(format!("{} of {} leads nowhere", seed.name, seed.target));
        }
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
        let path = corpus.join(seed.target).join(format!("seed-{}", seed.name));
        if fs::read(&path).unwrap_or_default() != seed.bytes {
            faults.push(format!("{} of {} is another", seed.name, seed.target));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
