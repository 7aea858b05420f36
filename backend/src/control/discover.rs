//! Asking a portal what it knows.

use std::net::SocketAddr;

use iscsi_core::discovery::{
    DiscoveredTarget, Discovery, DiscoveryStep, MAX_DISCOVERY_LENGTH_BYTES,
};
use iscsi_core::whole_pdu::WholePdus;

use super::error::ControlError;
use super::isid::random_isid;
use super::login::{LoginRequest, discovered_portal, log_in};
use super::time_limit;
use crate::config::{DiscoverSettings, InitiatorSettings};
use crate::portal::Portal;
use crate::report::DiscoveredPortal;

/// The portal group of a portal that names none.
const DEFAULT_PORTAL_GROUP_TAG: u16 = 1;

/// What a portal answered to SendTargets.
pub(super) struct SendTargets {
    /// The portal that answered: the one that was asked, or where that sent us.
    pub(super) portal: Portal,
    /// Its address, where the system knows.
    pub(super) address: Option<SocketAddr>,
    /// Its portal group.
    pub(super) portal_group_tag: u16,
    /// What it knows, in its order.
    pub(super) targets: Vec<DiscoveredTarget>,
}

/// SendTargets, within the login time-out: a line for each portal of each target.
pub(super) async fn discover(
    settings: &DiscoverSettings,
) -> Result<Vec<DiscoveredPortal>, ControlError> {
    let limit_bytes = MAX_DISCOVERY_LENGTH_BYTES;
    let answer = send_targets(&settings.portal, &settings.initiator, limit_bytes).await?;
    let portals = answer.targets.iter().flat_map(|target| {
        let of_target = |portal| match portal {
            Ok((portal, portal_group_tag)) => Some(DiscoveredPortal {
                target: target.name.clone(),
                portal,
                portal_group_tag,
            }),
            // The others are good all the same.
            Err(error) => {
                log::warn!("{}: {error}; left out", target.name);
                None
            }
        };
        answer.portals(target).filter_map(of_target)
    });
    Ok(portals.collect())
}

/// SendTargets, within the login time-out. The answer has `limit_bytes` at most.
pub(super) async fn send_targets(
    portal: &Portal,
    initiator: &InitiatorSettings,
    limit_bytes: usize,
) -> Result<SendTargets, ControlError> {
    let limited = ask(portal, initiator, limit_bytes);
    time_limit(portal, initiator, "during the discovery", limited).await
}

async fn ask(
    portal: &Portal,
    initiator: &InitiatorSettings,
    limit_bytes: usize,
) -> Result<SendTargets, ControlError> {
    let request = LoginRequest {
        portal,
        target: None,
        initiator,
        isid: random_isid()?,
        portal_group_tag: None,
    };
    let logged_in = log_in(request).await?;
    let mut stream = logged_in.stream;
    let portal = stream.portal.clone();
    let pdus = WholePdus::of_session(&logged_in.negotiated, crc32c::crc32c_append);
    stream.change_phase(pdus, "during the discovery");
    let discovery = Discovery::new(&logged_in.negotiated, getrandom::u32()?);
    let mut discovery = discovery.limited_to(limit_bytes);
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
    let own_tag = logged_in.negotiated.target_portal_group_tag;
    Ok(SendTargets {
        address: stream.stream.peer_addr().ok(),
        portal,
        portal_group_tag: own_tag.unwrap_or(DEFAULT_PORTAL_GROUP_TAG),
        targets,
    })
}

impl SendTargets {
    /// The portals of a target, with their portal groups; an error for an address that is none.
    pub(super) fn portals(
        &self,
        target: &DiscoveredTarget,
    ) -> impl Iterator<Item = Result<(Portal, u16), ControlError>> {
        // RFC 7143 appendix C: without an address the portal that was asked is meant.
        let own = (self.portal.clone(), self.portal_group_tag);
        let own = target.portals.is_empty().then_some(Ok(own));
        let named = target.portals.iter().map(|address| {
            let tag = address.portal_group_tag.unwrap_or(DEFAULT_PORTAL_GROUP_TAG);
            Ok((discovered_portal(&self.portal, address)?, tag))
        });
        own.into_iter().chain(named)
    }
}
