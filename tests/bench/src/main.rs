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

mod cli;
mod client;
mod failure;
mod load_name;
mod measure;
mod one;
mod parts;
mod round;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};
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
        Verb::One(options) => one::run(options).map(|()| Status::Met),
    }
}
