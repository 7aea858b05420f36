//! Which processor each part runs on.

use std::str::FromStr;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::failure::Failure;

/// Processors by number; `None` leaves the choice to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Pinning {
    /// Of the target.
    pub(crate) target: Option<usize>,
    /// Of the back-end and of the peer.
    pub(crate) back_end: Option<usize>,
    /// Of the client, and of the bare initiator.
    pub(crate) client: Option<usize>,
}

impl Pinning {
    /// With two processors the target has one, and back-end and client share the other, since a
    /// guest that waits for its disk leaves the processor. With more, each has its own.
    pub(crate) fn for_this_machine() -> Self {
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
        let (first, second, third) = (cpus.next(), cpus.next(), cpus.next());
        Self {
            target: second.and(first),
            back_end: second,
            client: third.or(second),
        }
    }
}

impl FromStr for Pinning {
    type Err = String;

    /// `TARGET,BACKEND,CLIENT`, or `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self {
                target: None,
                back_end: None,
                client: None,
            });
        }
        let numbers: Vec<usize> = text
            .split(',')
            .filter_map(|part| part.parse().ok())
            .collect();
        let [target, back_end, client] = numbers[..] else {
            return Err("expected three processors, as 0,1,1, or none".to_owned());
        };
        Ok(Self {
            target: Some(target),
            back_end: Some(back_end),
            client: Some(client),
        })
    }
}

/// Binds this thread to a processor.
///
/// # Errors
/// When there is no such processor for us.
pub(crate) fn pin_this_thread(cpu: Option<usize>) -> Result<(), Failure> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    if cpu < CpuSet::MAX_CPU {
        set.set(cpu);
    }
    sched_setaffinity(None, &set)
        .map_err(|error| Failure::usage(format!("cannot run on processor {cpu}: {error}")))
}

/// Runs `start` on a processor: the processes that it starts inherit that, with all their threads.
pub(crate) fn on<T>(cpu: Option<usize>, start: impl FnOnce() -> T) -> Result<T, Failure> {
    let before = sched_getaffinity(None)
        .map_err(|error| Failure::part(format!("sched_getaffinity: {error}")))?;
    pin_this_thread(cpu)?;
    let started = start();
    sched_setaffinity(None, &before)
        .map_err(|error| Failure::part(format!("sched_setaffinity: {error}")))?;
    Ok(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_or_none() {
        let pinning: Pinning = "0,2,3".parse().unwrap();
        assert_eq!(
            (pinning.target, pinning.back_end, pinning.client),
            (Some(0), Some(2), Some(3))
        );
        assert_eq!("none".parse::<Pinning>().unwrap().client, None);
        for wrong in ["", "0,1", "0,1,1,1", "a,b,c"] {
            assert!(wrong.parse::<Pinning>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_thread_is_where_it_was_afterwards() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu));
        let inside = on(first, || sched_getaffinity(None).unwrap().count()).unwrap();
        assert_eq!(inside, 1);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        assert!(on(Some(CpuSet::MAX_CPU), || ()).is_err());
    }
}
