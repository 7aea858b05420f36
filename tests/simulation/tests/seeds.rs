//! Some runs of the simulation, and what can be said of all of them. `tests/sim` runs more.

use vhost_user_iscsi_sim::faults::{Fault, Faults};
use vhost_user_iscsi_sim::run::run;

#[test]
fn nothing_is_lost_stale_or_doubled_and_every_fault_fires() {
    let mut fired = vec![0; Fault::NAMES.len()];
    let mut remedies = [
        ("time-out", 0),
        ("reconciliation", 0),
        ("end of patience", 0),
    ];
    for seed in 0..50 {
        let report = run(seed, &Faults::default(), false)
            .unwrap_or_else(|failure| panic!("tests/sim {seed}: {failure}"));
        assert!(report.requests >= 500, "seed {seed}");
        let counts = [report.timed_out, report.reconciled, report.worn_out];
        for ((_, sum), count) in remedies.iter_mut().zip(counts) {
            *sum += count;
        }
        for (sum, count) in fired.iter_mut().zip(report.fired) {
            *sum += count;
        }
    }
    let faults = Fault::NAMES.iter().copied().zip(fired);
    for (name, count) in faults.chain(remedies) {
        assert!(count > 0, "{name} never happened");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in [7, 8] {
        let fingerprint = || run(seed, &Faults::default(), false).unwrap().fingerprint;
        assert_eq!(fingerprint(), fingerprint());
    }
}

#[test]
fn without_faults_no_session_is_lost_and_no_request_fails() {
    let mut faults = Faults::default();
    for probability in faults.each_mut() {
        *probability = 0;
    }
    for seed in 0..5 {
        let report = run(seed, &faults, false).unwrap();
        assert_eq!((report.failed, report.sessions_lost), (0, 0), "seed {seed}");
    }
}
