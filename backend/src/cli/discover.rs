//! `discover`: which targets a portal knows, and where they listen.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::options::InitiatorArgs;
use super::{Control, print, to_json};
use crate::config::DiscoverSettings;
use crate::escape::escape_control_characters;
use crate::exit::{ExitCode, Failure};
use crate::portal::Portal;
use crate::report::DiscoveredPortal;
use crate::system::System;

#[derive(Args, Debug)]
pub(super) struct DiscoverArgs {
    /// The portal to ask; an IPv6 address in brackets, port 3260 unless given
    #[arg(value_name = "HOST[:PORT]")]
    portal: String,

    /// Print a JSON document
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    initiator: InitiatorArgs,
}

impl DiscoverArgs {
    fn settings(&self, system: &System<'_>) -> Result<DiscoverSettings, Failure> {
        let portal = Portal::parse(&self.portal).map_err(|error| {
            Failure::usage(format!(
                "the portal is not valid: {error} (expected HOST[:PORT])"
            ))
        })?;
        Ok(DiscoverSettings {
            portal,
            initiator: self.initiator.settings(None, system)?,
        })
    }
}

pub(super) fn run(
    arguments: &DiscoverArgs,
    system: &System<'_>,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let settings = arguments.settings(system)?;
    let asked = settings.portal.clone();
    let portals = control.discover(settings)?;
    if portals.is_empty() {
        return Err(nothing_discovered(&asked));
    }
    match arguments.json {
        true => print(out, &render_discovery_json(&portals)?),
        false => print(out, &render_discovery_text(&portals)),
    }
}

fn nothing_discovered(asked: &Portal) -> Failure {
    Failure::new(
        ExitCode::NotFound,
        format!(
            "discovery at {asked} found no target: the target has to let our initiator name (or \
             address) see one"
        ),
    )
}

/// A line per portal, as iscsiadm prints it: `192.0.2.1:3260,1 iqn.2001-04.com.example:disk`.
pub fn render_discovery_text(portals: &[DiscoveredPortal]) -> String {
    let mut text = String::new();
    for DiscoveredPortal {
        target,
        portal,
        portal_group_tag,
    } in portals
    {
        let target = escape_control_characters(target.as_str());
        let _ = writeln!(text, "{portal},{portal_group_tag} {target}");
    }
    text
}

#[derive(Serialize)]
struct Document<'a> {
    portals: Vec<PortalDocument<'a>>,
}

#[derive(Serialize)]
struct PortalDocument<'a> {
    target: &'a str,
    address: String,
    port: u16,
    portal_group_tag: u16,
}

impl<'a> PortalDocument<'a> {
    fn new(found: &'a DiscoveredPortal) -> Self {
        Self {
            target: found.target.as_str(),
            address: found.portal.host.to_string(),
            port: found.portal.port,
            portal_group_tag: found.portal_group_tag,
        }
    }
}

/// One JSON document: `portals`, a list of objects with `target`, `address` (an IPv6 address in
/// brackets), `port` and `portal_group_tag`.
pub fn render_discovery_json(portals: &[DiscoveredPortal]) -> Result<String, Failure> {
    let portals = portals.iter().map(PortalDocument::new).collect();
    to_json(&Document { portals })
}

#[cfg(test)]
mod tests {
    use iscsi_core::name::IscsiName;

    use super::*;

    fn two_portals() -> Vec<DiscoveredPortal> {
        [("192.0.2.1", 1), ("[2001:db8::1]:860", 2)]
            .map(|(portal, portal_group_tag)| DiscoveredPortal {
                target: IscsiName::parse("iqn.2001-04.com.example:disk").unwrap(),
                portal: Portal::parse(portal).unwrap(),
                portal_group_tag,
            })
            .to_vec()
    }

    #[test]
    fn prints_a_line_per_portal_as_iscsiadm_does() {
        assert_eq!(
            render_discovery_text(&two_portals()),
            "192.0.2.1:3260,1 iqn.2001-04.com.example:disk\n\
             [2001:db8::1]:860,2 iqn.2001-04.com.example:disk\n"
        );
    }

    #[test]
    fn prints_one_json_document() {
        let json = render_discovery_json(&two_portals()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            document,
            serde_json::json!({ "portals": [
                { "target": "iqn.2001-04.com.example:disk", "address": "192.0.2.1",
                  "port": 3260, "portal_group_tag": 1 },
                { "target": "iqn.2001-04.com.example:disk", "address": "[2001:db8::1]",
                  "port": 860, "portal_group_tag": 2 },
            ]})
        );
    }
}
