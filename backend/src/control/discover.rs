//! Asking a portal what it knows.

use iscsi_core::discovery::{Discovery, DiscoveryStep};
use iscsi_core::whole_pdu::WholePdus;

use super::error::ControlError;
use super::isid::random_isid;
use super::login::{LoginRequest, discovered_portal, log_in};
use super::time_limit;
use crate::config::DiscoverSettings;
use crate::report::DiscoveredPortal;

/// The portal group of a portal that names none.
const DEFAULT_PORTAL_GROUP_TAG: u16 = 1;

/// SendTargets, within the login time-out.
pub(super) async fn discover(
    settings: &DiscoverSettings,
) -> Result<Vec<DiscoveredPortal>, ControlError> {
    let limited = ask(settings);
    time_limit(
        &settings.portal,
        &settings.initiator,
        "during the discovery",
        limited,
    )
    .await
}

async fn ask(settings: &DiscoverSettings) -> Result<Vec<DiscoveredPortal>, ControlError> {
    let request = LoginRequest {
        portal: &settings.portal,
        target: None,
        initiator: &settings.initiator,
        isid: random_isid()?,
        portal_group_tag: None,
    };
    let logged_in = log_in(request).await?;
    let mut stream = logged_in.stream;
    let portal = stream.portal.clone();
    let pdus = WholePdus::of_session(&logged_in.negotiated, crc32c::crc32c_append);
    stream.change_phase(pdus, "during the discovery");
    let mut discovery = Discovery::new(&logged_in.negotiated, getrandom::u32()?);
    stream.send(&discovery.start()).await?;
    let targets = loop {
        let pdu = stream.receive().await?;
        let step = discovery.receive(&pdu.bhs, &pdu.data);
        let failed = |error| ControlError::Discovery {
            portal: portal.clone(),
            error,
        };
        match step.map_err(failed)? {
            DiscoveryStep::Send(bytes) => stream.send(&bytes).await?,
            DiscoveryStep::Wait => {}
            DiscoveryStep::Found { targets, logout } => {
                // The answer is in: the logout is politeness, and not waited for.
                let _ = stream.send(&logout).await;
                break targets;
            }
            DiscoveryStep::LoggedOut => break Vec::new(),
        }
    };
    let mut found = Vec::new();
    for target in targets {
        let own_tag = logged_in.negotiated.target_portal_group_tag;
        if target.portals.is_empty() {
            // RFC 7143 appendix C: without an address the portal that was asked is meant.
            found.push(DiscoveredPortal {
                target: target.name.clone(),
                portal: portal.clone(),
                portal_group_tag: own_tag.unwrap_or(DEFAULT_PORTAL_GROUP_TAG),
            });
        }
        for address in &target.portals {
            let discovered = match discovered_portal(&portal, address) {
                Ok(discovered) => discovered,
                // The others are good all the same.
                Err(error) => {
                    log::warn!("{}: {error}; left out", target.name);
                    continue;
                }
            };
            found.push(DiscoveredPortal {
                target: target.name.clone(),
                portal: discovered,
                portal_group_tag: address.portal_group_tag.unwrap_or(DEFAULT_PORTAL_GROUP_TAG),
            });
        }
    }
    Ok(found)
}
