//! The benchmark: our back-end and a peer on the same target, in turn, by one client.
//!
//! It reports what it measured, and judges it by the demands in `demands.rs`. A part that cannot
//! go on panics with what failed, as the helpers of the tests do, and the process ends with the
//! status for that.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark has nobody to recover for: it says what failed, and ends"
)]

mod bare;
mod case;
mod cli;
mod client;
mod demands;
mod failure;
mod floors;
mod idle;
mod load_name;
mod measure;
mod one;
mod parts;
mod progress;
mod quiet;
mod report;
mod round;
mod run;
mod scale;
mod stage;
mod statistics;
mod workspace;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use cli::{Cli, RunOptions, ScaleOptions, Verb};
use failure::{Failure, Status};

#[allow(clippy::print_stderr, reason = "a program's complaints")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(status) => status.into(),
        Err(failure) => {
            eprintln!("vhost-user-iscsi-bench: {failure}");
            failure.status.into()
        }
    }
}

fn run(cli: &Cli) -> Result<Status, Failure> {
    workspace::end_on_panic();
    workspace::end_on_signals()?;
    match &cli.verb {
        Some(Verb::One(options)) => one::run(options).map(|()| Status::Met),
        Some(Verb::Scale(options)) => run_scale(options),
        Some(Verb::Run(options)) => run_all(options),
        None => run_all(&cli.run),
    }
}

/// Measures, tells, and says whether it was enough.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the report, and what is missing of it"
)]
fn run_all(options: &RunOptions) -> Result<Status, Failure> {
    let report = run::run(options)?;
    print!("{}", report::text::render(&report));
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    if let Some(path) = &options.markdown {
        write(path, &report::markdown::render(&report))?;
    }
    if let Some(path) = &options.plot {
        match report::plot::render(&report) {
            Some(svg) => write(path, &svg)?,
            None => eprintln!("no plot: it wants two depths of 4 KiB on one queue"),
        }
    }
    let missed = report.verdicts.iter().any(|verdict| !verdict.met);
    Ok(if missed && !options.quick {
        Status::Missed
    } else {
        Status::Met
    })
}

/// Measures and tells; there is no demand to judge by.
#[allow(clippy::print_stdout, reason = "the report")]
fn run_scale(options: &ScaleOptions) -> Result<Status, Failure> {
    let report = scale::run(options)?;
    print!("{}", scale::text::render(&report));
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    Ok(Status::Met)
}

fn write_json(path: &Path, report: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(report).expect("a report is plain data");
    write(path, &(json + "\n"))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::part(format!("cannot write {}: {error}", path.display())))
}
