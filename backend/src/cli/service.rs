//! `serve --config FILE`: the disks of a configuration file.

use std::path::PathBuf;

use clap::Args;

use super::Control;
use super::config_file::{self, DEFAULT_PATH};
use crate::exit::Failure;
use crate::system::System;

/// The arguments of `serve`.
#[derive(Args, Debug)]
pub(super) struct ServiceArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
}

pub(super) fn run(
    arguments: &ServiceArgs,
    system: &System<'_>,
    control: &dyn Control,
) -> Result<(), Failure> {
    control.serve(config_file::read(&arguments.config, system)?)
}
