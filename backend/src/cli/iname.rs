//! `iname`: a fresh initiator name.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{print, to_json};
use crate::exit::Failure;
use crate::initiator_name::fresh_name;

#[derive(Args, Debug)]
pub(super) struct InameArgs {
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    initiator_name: &'a str,
}

pub(super) fn run(arguments: &InameArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let name = fresh_name()?;
    match arguments.json {
        true => print(
            out,
            &to_json(&Document {
                initiator_name: name.as_str(),
            })?,
        ),
        false => print(out, &format!("{name}\n")),
    }
}
