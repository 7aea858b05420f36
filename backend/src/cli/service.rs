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
    let mut settings = config_file::read(&arguments.config, system)?;
    for served in &mut settings.disks {
        // One whose target is away must not keep the others from their guests.
        served.disk.wait_for_target = true;
    }
    control.serve(settings)
}
