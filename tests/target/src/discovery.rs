//! SendTargets (RFC 7143 appendix C).

use crate::config::TargetConfig;
use crate::text::Pairs;
use std::net::SocketAddr;

/// The answer to a text request. `name` is the target of a normal session, which may ask only
/// about itself.
pub(crate) fn answer(
    request: &Pairs,
    name: Option<&str>,
    config: &TargetConfig,
    portal: SocketAddr,
) -> Pairs {
    let mut reply = Pairs::default();
    for (key, value) in &request.0 {
        match (key.as_str(), value.as_str(), name) {
            ("SendTargets", "All", None) => list_all(config, portal, &mut reply),
            ("SendTargets", "", Some(own)) => list_own(own, config, portal, &mut reply),
            ("SendTargets", wanted, _) => list_own(wanted, config, portal, &mut reply),
            _ => reply.push(key, "NotUnderstood"),
        }
    }
    reply
}

fn list_all(config: &TargetConfig, portal: SocketAddr, reply: &mut Pairs) {
    for name in &config.target_names {
        list_own(name, config, portal, reply);
    }
    for (name, portals) in &config.advertised {
        list(name, portals, reply);
    }
}

/// Lists one of our names; nothing for any other.
fn list_own(name: &str, config: &TargetConfig, portal: SocketAddr, reply: &mut Pairs) {
    if !config
        .target_names
        .iter()
        .any(|own| own.eq_ignore_ascii_case(name))
    {
        return;
    }
    let own = || vec![format!("{portal},{}", config.portal_group_tag)];
    list(
        name,
        &config.advertised_portals.clone().unwrap_or_else(own),
        reply,
    );
}

fn list(name: &str, portals: &[String], reply: &mut Pairs) {
    reply.push("TargetName", name);
    for portal in portals {
        reply.push("TargetAddress", portal.clone());
    }
}
