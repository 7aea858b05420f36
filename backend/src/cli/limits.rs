//! `limits`: what a disk is limited to, and how to change that while it is served.

use std::io::Write;

use clap::Args;

use super::ask::AskArgs;
use super::limit_options::LimitArgs;
use super::table::{Rows, Table};
use super::units::bytes;
use super::{Control, print, to_json};
use crate::control_protocol::Request;
use crate::exit::Failure;
use crate::limits::{DiskLimits, Limits, Unit};

/// The arguments of `limits`.
#[derive(Args, Debug)]
pub(super) struct LimitsArgs {
    /// The disk. Without a limit to set, those in force are shown
    disk: String,

    /// Take all limits away
    #[arg(long)]
    none: bool,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    ask: AskArgs,
}

impl LimitsArgs {
    /// The limits to set, if any are to be.
    fn to_set(&self) -> Result<Option<Limits>, Failure> {
        match (self.none, self.limits.is_empty()) {
            (true, true) => Ok(Some(Limits::default())),
            (true, false) => Err(Failure::usage("--none excludes every limit")),
            (false, true) => Ok(None),
            (false, false) => self.limits.limits().map(Some),
        }
    }
}

pub(super) fn run(
    arguments: &LimitsArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let request = Request::Limits {
        disk: arguments.disk.clone(),
        set: arguments.to_set()?.map(Box::new),
    };
    let answer: DiskLimits = arguments.ask.ask(control, &request)?;
    match arguments.ask.json {
        true => print(out, &to_json(&answer)?),
        false => print(out, &render(&answer)),
    }
}

fn render(answer: &DiskLimits) -> String {
    let mut table = Table::default();
    table.group(
        format!("Disk {}, limits", answer.name),
        rows(&answer.limits),
    );
    table.render()
}

/// A line for each limit, or one that there is none.
pub(super) fn rows(limits: &Limits) -> Rows {
    let set = limits.named().into_iter();
    let set = set.filter_map(|(name, unit, rate)| {
        let rate = rate?;
        let shown = |count: u64| match unit {
            Unit::Requests => format!("{count} per s"),
            Unit::Bytes => format!("{} per s", bytes(count)),
        };
        let burst = rate.max_per_s.map(|max_per_s| {
            let length_s = rate.burst_length_s();
            format!(", in bursts of {length_s} s {}", shown(max_per_s))
        });
        let value = shown(rate.per_s) + &burst.unwrap_or_default();
        Some((name, value))
    });
    let set: Rows = set.collect();
    if set.is_empty() {
        vec![("limits", "none".to_owned())]
    } else {
        set
    }
}
