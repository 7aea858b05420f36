//! The command line: arguments in, checked settings to [`Control`], results out.
//!
//! One file per verb. Without a verb the program serves, as QEMU's conventions for vhost-user
//! back-end programs ask for (docs/interop/vhost-user.rst, "Backend program conventions").

mod add;
mod ask;
mod changes_text;
mod check;
mod columns;
mod config_file;
mod discover;
mod explain;
mod import;
mod iname;
mod limit_options;
mod limits;
mod logging;
mod ls;
mod management;
mod negotiated_text;
mod options;
mod probe;
mod probe_json;
mod probe_text;
mod reload;
mod remove;
mod serve;
mod service;
mod stats;
mod status;
mod table;
mod top;
mod units;
mod usage;
mod values;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;

use crate::capabilities::capabilities_json;
use crate::config::{DiscoverSettings, PortalSettings, ProbeSettings, ServeSettings};
use crate::control_protocol::Request;
use crate::escape::escape_json;
use crate::exit::{ExitCode, Failure};
use crate::found::Discovered;
use crate::report::{DiscoveredPortal, ProbeReport};
use crate::system::System;

pub use discover::{render_discovery_json, render_discovery_text};
pub use probe_json::render_probe_json;
pub use probe_text::render_probe_text;

/// What the command line sets going: the part of the program that talks to targets and guests.
pub trait Control {
    /// Asks a portal which targets it knows (SendTargets); the list may be empty.
    fn discover(&self, settings: DiscoverSettings) -> Result<Vec<DiscoveredPortal>, Failure>;

    /// Logs in once, looks at the LUN, logs out.
    fn probe(&self, settings: ProbeSettings) -> Result<ProbeReport, Failure>;

    /// Asks a portal for its targets, and each of them for its disks.
    fn find_disks(&self, settings: &PortalSettings) -> Result<Discovered, Failure>;

    /// Asks the process that serves behind a control socket.
    fn ask(&self, socket: &Path, request: &Request) -> Result<serde_json::Value, Failure>;

    /// Serves the disks until it is told to stop.
    fn serve(&self, settings: ServeSettings) -> Result<(), Failure>;
}

/// Serves an iSCSI LUN to a QEMU guest as a vhost-user-blk disk.
#[derive(Debug, Parser)]
#[command(
    name = "vhost-user-iscsi",
    version,
    disable_help_subcommand = true,
    override_usage = "vhost-user-iscsi --socket-path PATH | --fd N  --blk-file URL  [OPTIONS]\n       \
                      vhost-user-iscsi serve [--config FILE]\n       \
                      vhost-user-iscsi check [--config FILE] [--login]\n       \
                      vhost-user-iscsi ls [-l] [-c] [OPTIONS]\n       \
                      vhost-user-iscsi status [DISK] [OPTIONS]\n       \
                      vhost-user-iscsi stats [DISK] [OPTIONS]\n       \
                      vhost-user-iscsi limits DISK [--iops-total N] [--none] [OPTIONS]\n       \
                      vhost-user-iscsi reload [OPTIONS]\n       \
                      vhost-user-iscsi add [--name NAME] --socket-path PATH URL [OPTIONS]\n       \
                      vhost-user-iscsi remove NAME [--force] [OPTIONS]\n       \
                      vhost-user-iscsi top [OPTIONS]\n       \
                      vhost-user-iscsi discover HOST[:PORT] [OPTIONS]\n       \
                      vhost-user-iscsi probe URL [OPTIONS]\n       \
                      vhost-user-iscsi explain CODE\n       \
                      vhost-user-iscsi import FILE...\n       \
                      vhost-user-iscsi iname",
    after_help = "Logs go to stderr. Exit codes: 0 done, 1 other, 2 usage or bad URL, 4 connection, \
                  5 target in trouble, 8 time-out, 13 secret file or socket path, 19 login refused, \
                  21 no such target or LUN, 24 authentication."
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,

    /// Print what this back-end can do, as QEMU's vhost-user.json describes it, and exit
    #[arg(long)]
    print_capabilities: bool,

    #[command(flatten)]
    serve: serve::ServeArgs,

    #[command(flatten)]
    management: management::ManagementArgs,

    #[command(flatten)]
    log: options::LogArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the disks of a configuration file
    Serve(service::ServiceArgs),
    /// Say everything that is wrong with a configuration file
    Check(check::CheckArgs),
    /// List the sessions of a process that serves
    Ls(ls::LsArgs),
    /// Say what the disks of a process that serves are doing, and what is wrong
    Status(status::StatusArgs),
    /// Say what guests have asked for, and how fast it went
    Stats(stats::StatsArgs),
    /// Say what a disk is limited to, or change that
    Limits(limits::LimitsArgs),
    /// Have a process that serves read its configuration file again
    Reload(reload::ReloadArgs),
    /// Have a process that serves take one more disk, until it ends
    Add(Box<add::AddArgs>),
    /// Have a process that serves end one of its disks
    Remove(remove::RemoveArgs),
    /// Watch what guests ask for, and how fast it goes, as it happens
    Top(top::TopArgs),
    /// List the portals of every target that a portal knows
    Discover(discover::DiscoverArgs),
    /// Log in to a LUN and show everything that was negotiated and found
    Probe(probe::ProbeArgs),
    /// Say what a code means, where it usually comes from, and what to try
    Explain(explain::ExplainArgs),
    /// Turn the files of another initiator into a configuration file
    Import(import::ImportArgs),
    /// Print a fresh, unique initiator name
    Iname(iname::InameArgs),
}

/// The definition of the command line, for its manual and for shells that complete it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line says; the first argument is the program's name.
///
/// Results go to `out`, logs to stderr. Nothing else is printed: the caller shows the failure.
///
/// # Errors
/// A [`Failure`] whose message is complete and holds no secret, whatever was on the command line.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    system: &System<'_>,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    if asks_for_capabilities(&arguments) {
        return print(out, &capabilities_json().map_err(not_json)?);
    }
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return Err(usage::failure(&error)),
        Err(help) => return print(out, &help.to_string()),
    };
    let serves = matches!(cli.verb, None | Some(Verb::Serve(_)));
    logging::start(cli.log.level(!serves), cli.log.format(), serves, system);
    match cli.verb {
        None => control.serve(ServeSettings {
            disks: vec![cli.serve.settings(system)?],
            portals: Vec::new(),
            management: cli.management.settings()?,
            configuration: None,
        }),
        Some(Verb::Serve(arguments)) => service::run(&arguments, system, control),
        Some(Verb::Check(arguments)) => check::run(&arguments, system, control, out),
        Some(Verb::Ls(arguments)) => ls::run(&arguments, control, out),
        Some(Verb::Status(arguments)) => status::run(&arguments, control, out),
        Some(Verb::Stats(arguments)) => stats::run(&arguments, control, out),
        Some(Verb::Limits(arguments)) => limits::run(&arguments, control, out),
        Some(Verb::Reload(arguments)) => reload::run(&arguments, control, out),
        Some(Verb::Add(arguments)) => add::run(&arguments, control, out),
        Some(Verb::Remove(arguments)) => remove::run(&arguments, control, out),
        Some(Verb::Top(arguments)) => top::run(&arguments, control, out),
        Some(Verb::Discover(arguments)) => discover::run(&arguments, system, control, out),
        Some(Verb::Probe(arguments)) => probe::run(&arguments, system, control, out),
        Some(Verb::Explain(arguments)) => explain::run(&arguments, out),
        Some(Verb::Import(arguments)) => import::run(&arguments, out),
        Some(Verb::Iname(arguments)) => iname::run(&arguments, out),
    }
}

/// Parses arguments; a request for help is an error, too.
///
/// Without a look at what stands before a verb, `--read-only probe …` would be accepted and mean
/// nothing. The options of the log may stand there.
fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    if matches.subcommand_name().is_some() {
        usage::refuse_options_before_verb(&mut command, &matches)?;
    }
    Cli::from_arg_matches(&matches)
}

/// QEMU's conventions: with `--print-capabilities` all other arguments are to be ignored, so it
/// is looked for before they are judged.
fn asks_for_capabilities(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .skip(1)
        .any(|argument| argument == OsStr::new("--print-capabilities"))
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| {
            Failure::new(
                ExitCode::Other,
                format!("cannot write to the standard output: {error}"),
            )
        })
}

/// One JSON document with a final newline, safe to print.
fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(value).map_err(not_json)?;
    Ok(escape_json(&json) + "\n")
}

fn not_json(error: serde_json::Error) -> Failure {
    Failure::new(ExitCode::Other, format!("cannot write JSON: {error}"))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod probe_tests;
