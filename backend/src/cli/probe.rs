//! `probe`: log in, look at the LUN, show everything, log out.

use std::io::Write;

use clap::Args;

use super::options::{InitiatorArgs, parse_url};
use super::{Control, print, render_probe_json, render_probe_text};
use crate::config::ProbeSettings;
use crate::exit::Failure;
use crate::system::System;

#[derive(Args, Debug)]
pub(super) struct ProbeArgs {
    /// The disk: iscsi://[user@]host[:port]/target-iqn/lun[?key=value&…]
    #[arg(value_name = "URL")]
    url: String,

    /// Print a JSON document
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    initiator: InitiatorArgs,
}

impl ProbeArgs {
    fn settings(&self, system: &System<'_>) -> Result<ProbeSettings, Failure> {
        let target = parse_url(&self.url)?;
        let initiator = self.initiator.settings(Some(&target), system)?;
        Ok(ProbeSettings { target, initiator })
    }
}

pub(super) fn run(
    arguments: &ProbeArgs,
    system: &System<'_>,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let report = control.probe(arguments.settings(system)?)?;
    match arguments.json {
        true => print(out, &render_probe_json(&report)?),
        false => print(out, &render_probe_text(&report)),
    }
}
