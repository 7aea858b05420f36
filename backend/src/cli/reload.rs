//! `reload`: a process that serves reads its configuration file again.

use std::io::Write;

use clap::Args;

use super::Control;
use super::ask::AskArgs;
use super::changes_text::show;
use crate::control_protocol::Request;
use crate::exit::Failure;

/// The arguments of `reload`.
#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn run(
    arguments: &ReloadArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let changes = arguments.ask.ask(control, &Request::Reload {})?;
    show(&changes, arguments.ask.json, out)
}
