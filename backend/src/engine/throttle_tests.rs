//! The limits under a clock of the test's own: what passes, and when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_core::disk::request::Extent;
use proptest::prelude::*;

use super::bucket::Bucket;
use super::throttle::{Load, Throttle};
use crate::device::request::{ParsedRequest, Range, RequestKind};
use crate::limits::{Limits, Rate};

const NS_PER_S: u64 = 1_000_000_000;

fn request(kind: RequestKind, data_length_bytes: u32) -> ParsedRequest {
    ParsedRequest {
        kind,
        data_length_bytes,
        ..ParsedRequest::default()
    }
}

fn read(length_bytes: u32) -> Load {
    Load::of(&request(RequestKind::Read, length_bytes), false).unwrap()
}

fn write(length_bytes: u32) -> Load {
    Load::of(&request(RequestKind::Write, length_bytes), false).unwrap()
}

/// What a lane asks for next, how long it thinks before, and how late it wakes up.
#[derive(Clone, Copy, Debug)]
struct Step {
    tokens: u32,
    think_ns: u64,
    late_ns: u64,
}

/// Runs lanes on a bucket, each going through its steps again and again; what went, in order of
/// time: (when, tokens, lane).
fn run(bucket: &Bucket, lanes: &[Vec<Step>], end_ns: u64) -> Vec<(u64, u32, usize)> {
    let mut went = Vec::new();
    let mut asks: Vec<_> = lanes.iter().map(|steps| (steps[0].think_ns, 0)).collect();
    loop {
        let next = asks.iter().enumerate().min_by_key(|(_, (at, _))| *at);
        let Some((lane, &(now_ns, turn))) = next.filter(|(_, (at, _))| *at < end_ns) else {
            break;
        };
        let steps = &lanes[lane];
        let step = steps[turn % steps.len()];
        let may_go_ns = bucket.take(step.tokens, now_ns);
        let goes_ns = match may_go_ns > now_ns {
            true => may_go_ns + step.late_ns,
            false => now_ns,
        };
        went.push((goes_ns, step.tokens, lane));
        let think_ns = steps[(turn + 1) % steps.len()].think_ns;
        asks[lane] = (goes_ns + think_ns, turn + 1);
    }
    went.sort_unstable();
    went
}

fn any_steps(think_ns: u64) -> impl Strategy<Value = Vec<Step>> {
    let thinks = prop_oneof![3 => Just(0), 1 => 0..=think_ns];
    let step = (1..=64u32, thinks, 0..2_000_000u64);
    let step = step.prop_map(|(tokens, think_ns, late_ns)| Step {
        tokens,
        think_ns,
        late_ns,
    });
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is within any window, however lanes come, wait and oversleep: the rate, the bucket, and
    /// what each lane had waited for.
    #[test]
    fn no_window_has_more_than_rate_and_burst(
        per_s in 50..20_000u64,
        ahead_ms in prop_oneof![Just(0), 1..1000u64],
        lanes in prop::collection::vec(any_steps(300_000_000), 1..5),
    ) {
        let bucket = Bucket::new(per_s, Duration::from_millis(ahead_ms));
        // Some hundred requests.
        let went = run(&bucket, &lanes, NS_PER_S * 10_000 / per_s);
        let burst = per_s * ahead_ms / 1000;
        let held = 64 * (lanes.len() as u64 + 1);
        for (first, (from_ns, ..)) in went.iter().enumerate() {
            let mut sum = 0;
            for (at_ns, tokens, _) in &went[first..] {
                sum += u64::from(*tokens);
                let by_rate = per_s * (at_ns - from_ns) / NS_PER_S;
                prop_assert!(
                    sum <= by_rate + by_rate / 100 + burst + held,
                    "{sum} in {} ns", at_ns - from_ns
                );
            }
        }
    }

    /// Lanes that always want more get the rate to the hundredth, also when they oversleep by less
    /// than the bucket makes up for.
    #[test]
    fn a_busy_disk_gets_its_rate(
        per_s in 50..200_000u64,
        lanes in prop::collection::vec(any_steps(0), 1..5),
    ) {
        let bucket = Bucket::new(per_s, Duration::from_millis(100));
        let seconds = 20_000_u64.div_ceil(per_s).max(2);
        let went = run(&bucket, &lanes, seconds * NS_PER_S);
        let after_burst = went.iter().filter(|(at, ..)| *at < seconds * NS_PER_S);
        let tokens: u64 = after_burst.map(|(_, tokens, _)| u64::from(*tokens)).sum();
        let wanted = per_s * seconds;
        let most = wanted + wanted / 100 + per_s / 10 + 64 * 5;
        // Each lane may be asleep at the end.
        let least = wanted - wanted / 100 - 64 * 5;
        prop_assert!((least..=most).contains(&tokens), "{tokens} of {wanted}");
    }

    /// Equal requests of lanes that always want more go in turn, whoever wakes up late.
    #[test]
    fn no_lane_starves(count in 2..6usize, per_s in 100..5000u64, late in 0..6usize) {
        let step = Step { tokens: 1, think_ns: 0, late_ns: 0 };
        let late_step = Step { late_ns: NS_PER_S / per_s / 4, ..step };
        let lanes: Vec<_> = (0..count)
            .map(|lane| vec![if lane == late { late_step } else { step }])
            .collect();
        let bucket = Bucket::new(per_s, Duration::ZERO);
        let went = run(&bucket, &lanes, NS_PER_S);
        for lane in 0..count {
            let own = went.iter().filter(|(.., of)| *of == lane).count();
            let fair = went.len() / count;
            prop_assert!(own + 2 >= fair, "lane {lane} got {own} of {}", went.len());
        }
    }
}

#[test]
fn threads_take_from_one_bucket_without_losing_a_token() {
    let bucket = Arc::new(Bucket::new(1000, Duration::ZERO));
    let take = |bucket: Arc<Bucket>| {
        move || {
            for _ in 0..10_000 {
                bucket.take(1, 0);
            }
        }
    };
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(take(Arc::clone(&bucket))))
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(bucket.take(1, 0), 40 * NS_PER_S);
    for _ in 0..40_000 {
        bucket.give_back(1);
    }
    assert_eq!(bucket.take(1, 0), NS_PER_S / 1000);
}

#[test]
fn a_request_larger_than_the_bucket_passes_and_the_next_one_pays_for_it() {
    let bucket = Bucket::new(1000, Duration::from_millis(100));
    assert_eq!(bucket.take(5000, 7), 0);
    let paid_ns = 7 + 5 * NS_PER_S;
    assert_eq!(bucket.take(1, 7), paid_ns - NS_PER_S / 10);
}

#[test]
fn the_largest_request_at_the_lowest_rate_is_no_overflow() {
    for per_s in [0, 1, 4096, 1 << 40, u64::MAX / 4] {
        let bucket = Bucket::new(per_s, Duration::MAX);
        for now_ns in [0, u64::MAX] {
            bucket.take(u32::MAX, now_ns);
            bucket.give_back(u32::MAX);
        }
    }
    let limits = Limits {
        iops_total: Some(Rate {
            per_s: 1,
            max_per_s: Some(10_000_000),
            max_length_s: Some(3600),
        }),
        bps_total: Some(Rate::of(4096)),
        ..Limits::default()
    };
    let epoch = Instant::now();
    let throttle = Throttle::new(&limits, epoch).unwrap();
    assert!(throttle.take(write(u32::MAX - 511), epoch).is_none());
    let held = throttle.take(write(512), epoch).unwrap();
    let days = (held.until - epoch).as_secs() / (24 * 3600);
    assert_eq!(days, 12);
}

/// How many of these pass within `window` by a clock that moves when there is something to wait for.
fn passed(throttle: &Throttle, load: Load, from: Instant, window: Duration) -> u64 {
    let mut now = from;
    let mut count = 0;
    loop {
        if let Some(held) = throttle.take(load, now) {
            now = held.until;
        }
        if now >= from + window {
            return count;
        }
        count += 1;
    }
}

#[test]
fn a_burst_is_as_fast_and_as_long_as_it_is_set() {
    let limits = Limits {
        iops_total: Some(Rate {
            per_s: 100,
            max_per_s: Some(1000),
            max_length_s: Some(5),
        }),
        ..Limits::default()
    };
    let epoch = Instant::now();
    let seconds = Duration::from_secs;
    let throttle = Throttle::new(&limits, epoch).unwrap();
    let in_burst = passed(&throttle, read(512), epoch, seconds(5));
    assert!((4900..=5150).contains(&in_burst), "{in_burst}");
    let after = passed(&throttle, read(512), epoch + seconds(6), seconds(10));
    assert!((900..=1110).contains(&after), "{after}");
    // Unused for long enough, it is due again, and no more than that.
    let later = epoch + seconds(10_000);
    let again = passed(&throttle, read(512), later, seconds(5));
    assert!((4900..=5150).contains(&again), "{again}");
}

#[test]
fn reads_and_writes_have_limits_of_their_own_or_a_common_one() {
    let epoch = Instant::now();
    let second = Duration::from_secs(1);
    let per_s = |limits: &Limits, load| {
        let throttle = Throttle::new(limits, epoch).unwrap();
        // What may be ahead is used up first.
        for _ in 0..50 {
            let _ = throttle.take(write(65_536), epoch);
        }
        passed(&throttle, load, epoch + 10 * second, 10 * second) / 10
    };
    let rate = Some(Rate::of(100));
    let of_writes = Limits {
        iops_write: rate,
        iops_read: Some(Rate::of(1000)),
        ..Limits::default()
    };
    assert!((99..=102).contains(&per_s(&of_writes, write(512))));
    assert!((990..=1020).contains(&per_s(&of_writes, read(512))));
    let of_both = Limits {
        iops_total: rate,
        ..Limits::default()
    };
    let throttle = Throttle::new(&of_both, epoch).unwrap();
    let held = (0..12).map(|_| [read(512), write(512)].map(|load| throttle.take(load, epoch)));
    let held = held.flatten().flatten().count();
    assert_eq!(held, 24 - 11, "a tenth of a second's worth may be ahead");
    let bytes = Limits {
        bps_read: Some(Rate::of(100 * 4096)),
        ..Limits::default()
    };
    assert!((99..=102).contains(&per_s(&bytes, read(4096))));
    let throttle = Throttle::new(&bytes, epoch).unwrap();
    assert!((0..10_000).all(|_| throttle.take(write(4096), epoch).is_none()));
}

#[test]
fn what_is_given_back_was_never_taken() {
    let limits = Limits {
        iops_total: Some(Rate {
            per_s: 10,
            max_per_s: Some(20),
            max_length_s: Some(1),
        }),
        bps_write: Some(Rate::of(4096)),
        ..Limits::default()
    };
    let epoch = Instant::now();
    let throttle = Throttle::new(&limits, epoch).unwrap();
    assert!(throttle.take(write(4096), epoch).is_none());
    let first = throttle.take(write(4096), epoch).unwrap();
    throttle.give_back(first.load);
    let second = throttle.take(write(4096), epoch).unwrap();
    assert_eq!(first.until, second.until);
}

#[test]
fn what_a_request_takes_is_what_the_network_carries() {
    let load = |kind, ranges: &[u64], as_data| {
        let range = |length_bytes: &u64| Range {
            extent: Extent {
                sector: 0,
                length_bytes: *length_bytes,
            },
            unmap: false,
        };
        let ranges = ranges.iter().map(range).collect();
        let request = ParsedRequest {
            ranges,
            ..request(kind, 0)
        };
        format!("{:?}", Load::of(&request, as_data))
    };
    let of = |requests: u32, bytes: u32| {
        format!("Some(Load {{ direction: Write, requests: {requests}, bytes: {bytes} }})")
    };
    for kind in [RequestKind::Flush, RequestKind::GetId] {
        assert_eq!(Load::of(&request(kind, 20), true), None);
    }
    let ranges = [512, 4096, 8192];
    assert_eq!(load(RequestKind::Discard, &ranges, true), of(3, 0));
    assert_eq!(load(RequestKind::WriteZeroes, &ranges, false), of(3, 0));
    assert_eq!(load(RequestKind::WriteZeroes, &ranges, true), of(3, 12_800));
    let huge = [1 << 40; 2];
    assert_eq!(load(RequestKind::WriteZeroes, &huge, true), of(2, u32::MAX));
    assert_eq!(load(RequestKind::Discard, &[], true), of(1, 0));
}
