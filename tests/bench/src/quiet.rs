//! Nothing is reported that was measured while something else was running.

use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::measure::machine::Activity;
use crate::progress::Progress;

/// More of one processor than that for others, or for the hypervisor's others, spoils a round.
const MOST_OF_OTHERS: f64 = 0.05;
/// Seconds before a spoilt round is made again; when all have passed, the machine is called busy.
const PAUSES_S: [u64; 3] = [1, 2, 4];

/// Measures, and measures again while something else was running meanwhile.
///
/// # Errors
/// When `measure` fails, or the machine stays busy.
pub(crate) fn measure<T>(
    name: &str,
    progress: &Progress,
    mut measure: impl FnMut() -> Result<(Activity, T), Failure>,
) -> Result<T, Failure> {
    let mut pauses = PAUSES_S.into_iter().map(Duration::from_secs);
    loop {
        let (activity, measured) = measure()?;
        if is_quiet(&activity) {
            return Ok(measured);
        }
        let reason = busy_with(&activity);
        let Some(pause) = pauses.next() else {
            return Err(Failure::busy(format!(
                "the machine is busy with something else: {reason}; nothing is reported"
            )));
        };
        progress.say(format_args!(
            "{name}: once more, the machine was busy: {reason}"
        ));
        thread::sleep(pause);
    }
}

fn is_quiet(activity: &Activity) -> bool {
    activity.others <= MOST_OF_OTHERS && activity.steal <= MOST_OF_OTHERS
}

/// Who took the processors.
fn busy_with(activity: &Activity) -> String {
    let (others, steal) = (activity.others * 100.0, activity.steal * 100.0);
    let most = activity.busiest_other.as_deref().unwrap_or("unknown");
    format!(
        "other processes (most: {most}) took {others:.0} % of a processor, the hypervisor {steal:.0} %"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_of_a_processor_for_others_or_for_the_hypervisor_spoils_a_round() {
        let quiet = |others, steal| {
            is_quiet(&Activity {
                busy: vec![1.0, 1.0],
                steal,
                others,
                busiest_other: None,
            })
        };
        assert!(quiet(0.05, 0.05));
        assert!(!quiet(0.06, 0.0));
        assert!(!quiet(0.0, 0.06));
    }
}
