//! `remove`: a process that serves ends one of its disks.

use std::io::Write;

use clap::Args;

use super::Control;
use super::ask::AskArgs;
use super::changes_text::show;
use crate::control_protocol::Request;
use crate::exit::Failure;

/// The arguments of `remove`.
#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    /// The name of the disk
    name: String,

    /// Take it away from a guest that uses it, too
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn run(
    arguments: &RemoveArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let request = Request::Remove {
        disk: arguments.name.clone(),
        force: arguments.force,
    };
    let changes = arguments.ask.ask(control, &request)?;
    show(&changes, arguments.ask.json, out)
}
