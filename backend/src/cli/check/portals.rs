//! The portals of a configuration, and with `--login` what would be served of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::Control;
use crate::cli::units::count;
use crate::config::{PortalSettings, ServeSettings, ServedDisk};
use crate::escape::escape_control_characters;
use crate::exit::Failure;
use crate::found::{Discovered, FoundLuns, select};

/// A portal; the field names are a promise to scripts.
#[derive(Serialize)]
pub(super) struct PortalReport {
    address: String,
    /// What was found; absent when nobody was asked, or the portal did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<FoundReport>,
    /// What is wrong; empty when all is well.
    pub(super) problems: Vec<String>,
}

#[derive(Serialize)]
struct FoundReport {
    /// How many targets count.
    targets: usize,
    /// What would be served.
    disks: Vec<FoundDisk>,
}

#[derive(Serialize)]
struct FoundDisk {
    name: String,
    url: String,
    socket: String,
}

/// All portals, and the first failure of one.
pub(super) struct Portals {
    pub(super) reports: Vec<PortalReport>,
    pub(super) failure: Option<Failure>,
}

/// Asks each portal, if asked to.
pub(super) fn look(settings: &ServeSettings, login: bool, control: &dyn Control) -> Portals {
    let portals = &settings.portals;
    if !login {
        return Portals {
            reports: portals.iter().map(PortalReport::unasked).collect(),
            failure: None,
        };
    }
    let answers: Vec<_> = portals
        .iter()
        .map(|portal| control.find_disks(portal))
        .collect();
    let nothing = FoundLuns::new();
    let found = answers.iter().map(|answer| match answer {
        Ok(discovered) => &discovered.luns,
        Err(_) => &nothing,
    });
    let found: Vec<_> = portals.iter().zip(found).collect();
    let selection = select(&found, &settings.disks, &BTreeMap::new());
    let reports = portals.iter().zip(&answers).enumerate();
    let reports = reports.map(|(index, (portal, answer))| {
        let mut report = PortalReport::of(portal, answer, selection.of_portal(index));
        report.problems.extend(selection.left_out_of(index));
        report
    });
    Portals {
        reports: reports.collect(),
        failure: answers.into_iter().find_map(Result::err),
    }
}

impl PortalReport {
    fn unasked(portal: &PortalSettings) -> Self {
        Self {
            address: portal.address.to_string(),
            found: None,
            problems: Vec::new(),
        }
    }

    fn of<'a>(
        portal: &PortalSettings,
        answer: &Result<Discovered, Failure>,
        disks: impl Iterator<Item = &'a ServedDisk>,
    ) -> Self {
        match answer {
            Ok(discovered) => Self {
                found: Some(FoundReport {
                    targets: discovered.targets,
                    disks: disks.map(FoundDisk::of).collect(),
                }),
                problems: discovered.problems(),
                ..Self::unasked(portal)
            },
            Err(failure) => Self {
                problems: vec![failure.to_string()],
                ..Self::unasked(portal)
            },
        }
    }

    /// A line for the portal, one for each of its disks, and one for each thing that is wrong.
    pub(super) fn render(&self, text: &mut String) {
        let address = &self.address;
        let _ = match &self.found {
            Some(found) => {
                let targets = count(found.targets, "target");
                let disks = count(found.disks.len(), "disk");
                writeln!(text, "portal {address}: {targets}, {disks}")
            }
            None if self.problems.is_empty() => writeln!(text, "portal {address}"),
            None => Ok(()),
        };
        for disk in self.found.iter().flat_map(|found| &found.disks) {
            let FoundDisk { name, url, socket } = disk;
            let url = escape_control_characters(url);
            let _ = writeln!(text, "disk {name}: {url} on {socket}");
        }
        for problem in &self.problems {
            let problem = escape_control_characters(problem);
            let _ = writeln!(text, "portal {address}: {problem}");
        }
    }
}

impl FoundDisk {
    fn of(disk: &ServedDisk) -> Self {
        Self {
            name: disk.name.as_str().to_owned(),
            url: disk.disk.target.to_string(),
            socket: disk.socket.to_string(),
        }
    }
}
