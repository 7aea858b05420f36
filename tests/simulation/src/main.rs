//! Runs seeds of the simulation.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

use std::process::ExitCode;

use clap::Parser;
use vhost_user_iscsi_sim::faults::{Fault, Faults};
use vhost_user_iscsi_sim::run::{Report, run};

/// Runs the protocol core against a model target, with every fault there is.
#[derive(Parser)]
#[command(name = "sim")]
struct Options {
    /// This run, exactly; without it, new ones
    seed: Option<u64>,
    /// How many new runs
    #[arg(long, default_value_t = 200, value_name = "COUNT")]
    seeds: u64,
    /// Where new runs begin; without it, anywhere
    #[arg(long, value_name = "SEED", conflicts_with = "seed")]
    first: Option<u64>,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Tell every PDU and every fault of the run on standard error
    #[arg(long, requires = "seed")]
    verbose: bool,
}

/// The sum of all runs.
#[derive(Default)]
struct Summary {
    runs: u64,
    failures: Vec<u64>,
    fired: Vec<u64>,
    requests: usize,
    failed: u64,
    sessions_lost: u64,
    timed_out: u64,
    reconciled: u64,
    worn_out: u64,
    virtual_ms: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (first, count) = match (options.seed, options.first) {
        (Some(seed), _) => (seed, 1),
        (None, Some(first)) => (first, options.seeds),
        (None, None) => match getrandom::u32() {
            Ok(random) => (u64::from(random) << 20, options.seeds),
            Err(error) => {
                eprintln!("sim: no random number for the first seed: {error}");
                return ExitCode::from(2);
            }
        },
    };
    if count > 1 {
        // A run that never ends would name no seed.
        println!("seeds from {first}");
    }
    let mut summary = Summary::default();
    for seed in (0..count).map(|at| first.wrapping_add(at)) {
        summary.runs += 1;
        match run(seed, &Faults::default(), options.verbose) {
            Ok(report) => summary.add(&report, options.seed.is_some()),
            Err(failure) => {
                println!("seed {seed} FAILED: {failure}\n  again: tests/sim {seed} --verbose");
                summary.failures.push(seed);
                if !options.keep_going {
                    break;
                }
            }
        }
    }
    summary.print(options.seed.is_none() && count >= 200)
}

impl Summary {
    fn add(&mut self, report: &Report, is_only: bool) {
        self.fired.resize(report.fired.len(), 0);
        for (sum, fired) in self.fired.iter_mut().zip(&report.fired) {
            *sum += fired;
        }
        self.requests += report.requests;
        self.failed += report.failed;
        self.sessions_lost += report.sessions_lost;
        self.timed_out += report.timed_out;
        self.reconciled += report.reconciled;
        self.worn_out += report.worn_out;
        self.virtual_ms += report.virtual_ms;
        if is_only {
            println!("fingerprint {:016x}", report.fingerprint);
        }
    }

    /// With `wants_all`, a fault that never fired is a failure too: it tests nothing.
    fn print(&self, wants_all: bool) -> ExitCode {
        println!(
            "{} runs, {} failed: {} requests, {} ended with an error of the target's, {} sessions \
             lost, {} commands late and {} of them after a reset, {} requests given up, {} s of \
             virtual time",
            self.runs,
            self.failures.len(),
            self.requests,
            self.failed,
            self.sessions_lost,
            self.timed_out,
            self.reconciled,
            self.worn_out,
            self.virtual_ms / 1000
        );
        let mut is_complete = true;
        for (name, fired) in Fault::NAMES.iter().zip(&self.fired) {
            println!("  {name:<18} {fired}");
            is_complete &= *fired > 0;
        }
        let is_good = self.failures.is_empty() && (is_complete || !wants_all);
        if self.failures.is_empty() && !is_good {
            println!("FAILED: a fault never fired");
        }
        ExitCode::from(u8::from(!is_good))
    }
}
