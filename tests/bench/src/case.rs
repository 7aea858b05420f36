//! What is measured: the cases, and who runs in each.

use crate::client::{InflightRegion, Load, Operation, Order};
use crate::parts::server::Digests;
use crate::parts::{Subject, TargetName};

/// How long our back-end may poll in the case that is about that.
pub(crate) const POLL_MAX_US: u32 = 50;
const DEPTHS: [u16; 4] = [1, 8, 32, 128];
const QUEUES: [u16; 2] = [1, 4];
const DEPTH_OF_LARGE: u16 = 16;
/// The depths at which the inflight region is looked at: elsewhere a request costs so much that its
/// part is lost in it.
const DEPTHS_OF_INFLIGHT: [u16; 2] = [32, 128];
/// Rounds of such a case for each of another. What is asked about there is a few hundredths, and a
/// pair of rounds may be off by as much: the median of twenty pairs is off by a quarter of that, of
/// five by a half.
const ROUNDS_OF_INFLIGHT: u32 = 4;
const SMALL_BYTES: u32 = 4 << 10;
const MEDIUM_BYTES: u32 = 64 << 10;
const LARGE_BYTES: u32 = 1 << 20;

/// What is special about a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Everybody with defaults.
    Plain,
    /// Our back-end polls for a while before it sleeps.
    BusyPoll,
    /// Sessions with and without digests, side by side.
    Digests,
    /// Our back-end alone, with and without the inflight region, in turn.
    Inflight,
}

/// One case: a load, and in which variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// The load.
    pub(crate) load: Load,
    /// What is special about it.
    pub(crate) variant: Variant,
}

/// One of those who take turns in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arm {
    /// Who.
    pub(crate) subject: Subject,
    /// With which digests.
    pub(crate) digests: Digests,
    /// Whether it polls.
    pub(crate) busy_poll: bool,
    /// Whether its client takes the inflight region.
    pub(crate) region: InflightRegion,
}

impl Arm {
    /// With defaults.
    pub(crate) fn plain(subject: Subject) -> Self {
        Self {
            subject,
            digests: Digests::Off,
            busy_poll: false,
            region: InflightRegion::Taken,
        }
    }

    fn with_digests(subject: Subject, digests: Digests) -> Self {
        Self {
            digests,
            ..Self::plain(subject)
        }
    }

    /// The arm that its server was started for. The region is between client and server: with and
    /// without it, it is the same process.
    pub(crate) fn of_server(self) -> Self {
        Self {
            region: InflightRegion::Taken,
            ..self
        }
    }
}

impl Case {
    /// Its name, as `read-4k-d32-q1`.
    pub(crate) fn name(&self) -> String {
        let Load {
            operation,
            request_bytes,
            depth,
            queues,
            ..
        } = self.load;
        let length = match request_bytes >> 20 {
            0 => format!("{}k", request_bytes >> 10),
            megabytes => format!("{megabytes}m"),
        };
        let variant = match self.variant {
            Variant::Plain => "",
            Variant::BusyPoll => "-poll",
            Variant::Digests => "-digests",
            Variant::Inflight => "-inflight",
        };
        format!("{operation}-{length}-d{depth}-q{queues}{variant}")
    }

    /// Rounds of this case when most have `rounds`.
    pub(crate) fn rounds(&self, rounds: u32) -> u32 {
        match self.variant {
            Variant::Inflight => rounds * ROUNDS_OF_INFLIGHT,
            _ => rounds,
        }
    }

    /// Who takes turns; the peer has no data digest, and no inflight region.
    pub(crate) fn arms(&self) -> Vec<Arm> {
        let peer = Arm::plain(Subject::Peer);
        match self.variant {
            Variant::Plain => vec![Arm::plain(Subject::Ours), peer],
            Variant::BusyPoll => {
                let ours = Arm {
                    busy_poll: true,
                    ..Arm::plain(Subject::Ours)
                };
                vec![ours, peer]
            }
            Variant::Digests => vec![
                Arm::plain(Subject::Ours),
                Arm::with_digests(Subject::Ours, Digests::Header),
                Arm::with_digests(Subject::Ours, Digests::Both),
                peer,
                Arm::with_digests(Subject::Peer, Digests::Header),
            ],
            Variant::Inflight => {
                let with = Arm::plain(Subject::Ours);
                let without = Arm {
                    region: InflightRegion::LeftOut,
                    ..with
                };
                vec![with, without]
            }
        }
    }

    /// All cases for a target. tgt has no digests, and takes so much of a request that the inflight
    /// region would not show.
    pub(crate) fn all(target: &TargetName) -> Vec<Self> {
        let mut cases = small();
        cases.extend(large());
        cases.push(Self::plain(Operation::Mixed, SMALL_BYTES, 32, 1));
        cases.push(Self {
            variant: Variant::BusyPoll,
            ..Self::plain(Operation::Read, SMALL_BYTES, 1, 1)
        });
        if *target == TargetName::Memory {
            let read = Self::plain(Operation::Read, SMALL_BYTES, 32, 1);
            let write = Self::plain(Operation::Write, MEDIUM_BYTES, DEPTH_OF_LARGE, 1);
            cases.extend([read, write].map(|case| Self {
                variant: Variant::Digests,
                ..case
            }));
            cases.extend(inflight());
        }
        cases
    }

    /// Few cases that touch every part of the benchmark.
    pub(crate) fn few(target: &TargetName) -> Vec<Self> {
        let wanted = [
            "read-4k-d1-q1",
            "read-4k-d32-q1",
            "write-4k-d32-q4",
            "write-64k-d16-q1",
            "read-4k-d32-q1-inflight",
        ];
        let mut cases = Self::all(target);
        cases.retain(|case| wanted.contains(&&*case.name()));
        cases
    }

    fn plain(operation: Operation, request_bytes: u32, depth: u16, queues: u16) -> Self {
        let order = match request_bytes {
            SMALL_BYTES => Order::Random,
            _ => Order::Sequential,
        };
        let load = Load {
            operation,
            order,
            request_bytes,
            depth,
            queues,
        };
        Self {
            load,
            variant: Variant::Plain,
        }
    }
}

/// 4 KiB, random.
fn small() -> Vec<Case> {
    let mut cases = Vec::new();
    for queues in QUEUES {
        for operation in [Operation::Read, Operation::Write] {
            let case = |depth| Case::plain(operation, SMALL_BYTES, depth, queues);
            cases.extend(DEPTHS.map(case));
        }
    }
    cases
}

/// 64 KiB and 1 MiB, sequential.
fn large() -> Vec<Case> {
    let mut cases = Vec::new();
    for request_bytes in [MEDIUM_BYTES, LARGE_BYTES] {
        for operation in [Operation::Read, Operation::Write] {
            cases.push(Case::plain(operation, request_bytes, DEPTH_OF_LARGE, 1));
        }
    }
    cases
}

/// 4 KiB, with and without the inflight region.
fn inflight() -> Vec<Case> {
    let mut cases = Vec::new();
    for operation in [Operation::Read, Operation::Write] {
        cases.extend(DEPTHS_OF_INFLIGHT.map(|depth| Case {
            variant: Variant::Inflight,
            ..Case::plain(operation, SMALL_BYTES, depth, 1)
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_say_the_load() {
        let cases = Case::all(&TargetName::Memory);
        let names: BTreeSet<_> = cases.iter().map(Case::name).collect();
        assert_eq!(names.len(), cases.len());
        for name in ["read-4k-d128-q4", "write-1m-d16-q1", "read-4k-d1-q1-poll"] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn the_few_are_among_all_and_digests_and_the_region_are_not_for_tgt() {
        assert_eq!(Case::few(&TargetName::Tgt).len(), 4);
        assert_eq!(Case::few(&TargetName::Memory).len(), 5);
        let special = |case: &Case| matches!(case.variant, Variant::Digests | Variant::Inflight);
        assert!(!Case::all(&TargetName::Tgt).iter().any(special));
    }

    #[test]
    fn the_region_is_compared_on_one_server_of_ours_in_more_rounds() {
        let cases = Case::all(&TargetName::Memory);
        let of_region = |case: &&Case| case.variant == Variant::Inflight;
        let names: Vec<_> = cases.iter().filter(of_region).map(Case::name).collect();
        assert_eq!(
            names,
            [
                "read-4k-d32-q1-inflight",
                "read-4k-d128-q1-inflight",
                "write-4k-d32-q1-inflight",
                "write-4k-d128-q1-inflight",
            ]
        );
        let case = cases.iter().find(of_region).unwrap();
        let [with, without] = case.arms()[..] else {
            panic!("two take turns");
        };
        assert_eq!(with, Arm::plain(Subject::Ours));
        assert!(with != without && with == without.of_server());
        assert_eq!((case.rounds(5), cases[0].rounds(5)), (20, 5));
    }
}
