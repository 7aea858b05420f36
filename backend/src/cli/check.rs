//! `check`: everything that is wrong with a configuration file, at once.

mod portals;

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use serde::Serialize;

use self::portals::{PortalReport, Portals};
use super::config_file::{self, Problems};
use super::service::ServiceArgs;
use super::{Control, print, to_json};
use crate::config::{ProbeSettings, ServedDisk};
use crate::exit::{ExitCode, Failure};
use crate::system::System;

/// The arguments of `check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Log in to each disk and look at it, and ask each portal what would be served, too
    #[arg(long)]
    login: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found out; the field names are a promise to scripts.
#[derive(Serialize)]
struct Report {
    file: String,
    problems: Vec<FileProblem>,
    disks: Vec<DiskReport>,
    portals: Vec<PortalReport>,
}

#[derive(Serialize)]
struct FileProblem {
    /// From 1; 0 for the file as a whole.
    line: usize,
    message: String,
}

#[derive(Serialize)]
struct DiskReport {
    name: String,
    url: String,
    /// What a login came to; absent when none was asked for, or it went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(super) fn run(
    arguments: &CheckArgs,
    system: &System<'_>,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let path = &arguments.service.config;
    let (problems, settings) = match config_file::read(path, system) {
        Ok(settings) => (Vec::new(), Some(settings)),
        Err(Problems { problems, .. }) => (problems, None),
    };
    let disks = settings.iter().flat_map(|settings| &settings.disks);
    let looked: Vec<_> = disks
        .map(|disk| (disk, look(disk, arguments.login, control)))
        .collect();
    let asked = settings.as_ref();
    let asked = asked.map(|settings| portals::look(settings, arguments.login, control));
    let (portals, portal_failure) = match asked {
        Some(Portals { reports, failure }) => (reports, failure),
        None => (Vec::new(), None),
    };
    let report = Report {
        file: path.display().to_string(),
        problems: problems
            .into_iter()
            .map(|problem| FileProblem {
                line: problem.line,
                message: problem.message,
            })
            .collect(),
        disks: looked.iter().map(DiskReport::of).collect(),
        portals,
    };
    let text = if arguments.json {
        to_json(&report)?
    } else {
        render(&report, arguments.login)
    };
    print(out, &text)?;
    let failure = looked.into_iter().find_map(|(_, failure)| failure);
    verdict(&report, failure.or(portal_failure))
}

/// Logs in, if asked to, and says what went wrong.
fn look(disk: &ServedDisk, login: bool, control: &dyn Control) -> Option<Failure> {
    let settings = || ProbeSettings {
        target: disk.disk.target.clone(),
        initiator: disk.disk.initiator.clone(),
    };
    login.then(|| control.probe(settings()).err()).flatten()
}

impl DiskReport {
    fn of((disk, failure): &(&ServedDisk, Option<Failure>)) -> Self {
        Self {
            name: disk.name.as_str().to_owned(),
            url: disk.disk.target.to_string(),
            problem: failure.as_ref().map(|failure| failure.to_string()),
        }
    }
}

fn render(report: &Report, login: bool) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let place = match problem.line {
            0 => String::new(),
            line => format!("{line}:"),
        };
        let _ = writeln!(text, "{}:{place} {}", report.file, problem.message);
    }
    let is_empty = report.disks.is_empty() && report.portals.is_empty();
    if report.problems.is_empty() && is_empty {
        let _ = writeln!(text, "{}: no disk yet", report.file);
    }
    for disk in &report.disks {
        let DiskReport { name, url, problem } = disk;
        let _ = match problem {
            Some(problem) => writeln!(text, "disk {name}: {problem}"),
            None if login => writeln!(text, "disk {name}: {url}: logged in and found a disk"),
            None => writeln!(text, "disk {name}: {url}"),
        };
    }
    for portal in &report.portals {
        portal.render(&mut text);
    }
    text
}

fn verdict(report: &Report, login: Option<Failure>) -> Result<(), Failure> {
    let disks = report.disks.iter().filter(|disk| disk.problem.is_some());
    let portals = report.portals.iter().map(|portal| portal.problems.len());
    let count = report.problems.len() + disks.count() + portals.sum::<usize>();
    if count == 0 {
        return Ok(());
    }
    let code = match login {
        Some(failure) => failure.code,
        None if !report.problems.is_empty() => ExitCode::Usage,
        None => ExitCode::Other,
    };
    Err(Failure::new(code, format!("{count} problems in all")))
}
