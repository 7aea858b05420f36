//! Places where a debug build can be told to die, to prove that nothing is lost there.
//!
//! `VHOST_USER_ISCSI_CRASH_AT=POINT` ends the process by SIGKILL when it first gets to the point,
//! `POINT:N` at the Nth time. Builds without debug assertions have none of this.

/// A place between two steps that the next process has to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// A buffer was popped and is marked as in flight; nobody has looked at it yet.
    Marked,
    /// A buffer is in the used ring and in the list of the batch; neither index has moved.
    Linked,
    /// The used index was published; all buffers of the batch are still marked.
    Published,
    /// The first buffer of the batch is no longer marked; the others may be.
    Clearing,
    /// No buffer of the batch is marked; the region's used index has not moved.
    Cleared,
    /// The batch is done; the driver was not notified.
    Settled,
}

/// Comes before each store to memory that outlives the process. Unit tests can have it be the last
/// thing that happens; anywhere else it is nothing.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn before_store() {}

#[cfg(test)]
pub(crate) use in_test::{before_store, killed_at};

#[cfg(test)]
mod in_test {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        /// How many more stores this thread may make.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// What unwinds instead of an error.
    struct Killed;

    /// Does `work`, or the part of it before its store number `at`, counted from 0; then `None`.
    pub(crate) fn killed_at<T>(at: Option<u32>, work: impl FnOnce() -> T) -> Option<T> {
        LEFT.set(at);
        let result = catch_unwind(AssertUnwindSafe(work));
        LEFT.set(None);
        match result {
            Ok(done) => Some(done),
            Err(reason) if reason.is::<Killed>() => None,
            Err(reason) => resume_unwind(reason),
        }
    }

    pub(crate) fn before_store() {
        match LEFT.get() {
            None => {}
            Some(0) => resume_unwind(Box::new(Killed)),
            Some(left) => LEFT.set(Some(left - 1)),
        }
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn reach(_: CrashPoint) {}

#[cfg(debug_assertions)]
pub(crate) use debug::reach;

#[cfg(debug_assertions)]
mod debug {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::CrashPoint;

    const VARIABLE: &str = "VHOST_USER_ISCSI_CRASH_AT";

    impl CrashPoint {
        const ALL: [Self; 6] = [
            Self::Marked,
            Self::Linked,
            Self::Published,
            Self::Clearing,
            Self::Cleared,
            Self::Settled,
        ];

        /// As the variable has it: the name in lower case.
        fn name(self) -> String {
            format!("{self:?}").to_lowercase()
        }
    }

    /// Where to die, and at which time of getting there.
    struct Plan {
        point: CrashPoint,
        at: u64,
        reached: AtomicU64,
    }

    /// Counts a visit to the point, and dies when it is the one that was asked for.
    pub(crate) fn reach(point: CrashPoint) {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let Some(plan) = PLAN.get_or_init(from_environment) else {
            return;
        };
        if plan.point == point && plan.reached.fetch_add(1, Ordering::Relaxed) + 1 == plan.at {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }

    fn from_environment() -> Option<Plan> {
        let value = std::env::var(VARIABLE).ok()?;
        let plan = parse(&value);
        match &plan {
            Some(plan) => log::warn!(
                "{VARIABLE}: this process dies at {}:{}",
                plan.point.name(),
                plan.at
            ),
            None => log::error!("{VARIABLE}={value} names no crash point and is ignored"),
        }
        plan
    }

    fn parse(value: &str) -> Option<Plan> {
        let (name, at) = value.split_once(':').unwrap_or((value, "1"));
        let point = CrashPoint::ALL
            .into_iter()
            .find(|point| point.name() == name)?;
        Some(Plan {
            point,
            at: at.parse().ok()?,
            reached: AtomicU64::new(0),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn reads_a_point_and_a_count() {
            for point in CrashPoint::ALL {
                let plan = parse(&point.name()).unwrap();
                assert_eq!((plan.point, plan.at), (point, 1));
            }
            assert_eq!(parse("published:17").unwrap().at, 17);
            assert!(parse("publish").is_none());
            assert!(parse("published:x").is_none());
        }
    }
}
