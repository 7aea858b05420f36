//! What the entries of an `iscsi.conf` come to: portals, each with its targets.
//!
//! A DiscoveryAddress becomes a portal. A TargetName with settings of its own is taken out of it, and
//! becomes a portal entry with just this target. A Subnet beats a TargetName; which settings it has
//! for a portal is seen by the portal's address.

use std::net::Ipv4Addr;

use iscsi_core::name::IscsiName;

use super::found::{Found, FoundPortal, Place, Scope};
use super::sfnet::{Entry, EntryKind, Rules, Setting, SettingValue};
use crate::exit::Failure;
use crate::portal::{Host, Portal};

/// A TargetName.
struct Target<'a> {
    name: IscsiName,
    entry: &'a Entry,
}

/// Adds the portals of all entries; without one, what is global becomes the defaults.
pub(super) fn add(entries: &[Entry], global: &Rules, found: &mut Found) -> Result<(), Failure> {
    let of_kind = |kind| entries.iter().filter(move |entry| entry.kind == kind);
    let targets = targets(of_kind(EntryKind::TargetName))?;
    let subnets = subnets(of_kind(EntryKind::Subnet))?;
    for entry in of_kind(EntryKind::Slp).filter(|entry| entry.value != "none") {
        let message = "discovery by SLP is not known: name the portal in a [[portal]]";
        found.remark(entry.place.clone(), message);
    }
    let mut addresses = Vec::new();
    for entry in of_kind(EntryKind::DiscoveryAddress) {
        let address = Portal::parse(&entry.value).map_err(|error| {
            entry
                .place
                .failure(&format!("the address is not valid: {error}"))
        })?;
        portal(entry, &address, &targets, &subnets, found)?;
        addresses.push(address);
    }
    say_what_no_portal_has(&subnets, &addresses, found);
    if addresses.is_empty() {
        found.defaults = scope(global, None, found);
        for target in &targets {
            let message = "there is no DiscoveryAddress, so where this target is cannot be known";
            found.remark(target.entry.place.clone(), message);
        }
    }
    Ok(())
}

fn targets<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<Vec<Target<'a>>, Failure> {
    let target = |entry: &'a Entry| {
        let name = IscsiName::parse(&entry.value).map_err(|error| {
            entry
                .place
                .failure(&format!("not a target's name: {error}"))
        })?;
        Ok(Target { name, entry })
    };
    entries.map(target).collect()
}

/// One DiscoveryAddress: an entry for all its targets, and one for each that has settings of its own.
fn portal(
    entry: &Entry,
    address: &Portal,
    targets: &[Target<'_>],
    subnets: &[Subnet<'_>],
    found: &mut Found,
) -> Result<(), Failure> {
    let subnet = subnets.iter().find(|subnet| subnet.contains(address));
    if let Some(subnet) = subnet.filter(|subnet| !is_enabled(&subnet.rules())) {
        let message = format!(
            "not taken over: {} forbids sessions to this address; name an address of another network",
            subnet.entry.place
        );
        found.remark(entry.place.clone(), message);
        return Ok(());
    }
    let rules = of_discovery_session(&entry.local, found).or(&entry.global);
    let targets = targets
        .iter()
        .map(|target| (target, of_target(target, &rules)));
    // A target that is like the others needs no entry of its own.
    let is_like_others =
        |own: &Rules| is_enabled(own) && is_enabled(&rules) && same_settings(own, &rules);
    let own: Vec<_> = targets.filter(|(_, own)| !is_like_others(own)).collect();
    let mut add = |include: Vec<_>, exclude: Vec<_>, rules: &Rules, place: &Place| {
        let scope = scope(rules, subnet, found);
        found.add_portal(FoundPortal {
            address: address.clone(),
            include,
            exclude,
            scope,
            place: place.clone(),
        })
    };
    if is_enabled(&rules) {
        let exclude = own.iter().map(|(target, _)| target.name.clone());
        add(Vec::new(), exclude.collect(), &rules, &entry.place)?;
    }
    let enabled = own.iter().filter(|(_, rules)| is_enabled(rules));
    for (target, rules) in enabled.clone() {
        add(
            vec![target.name.clone()],
            Vec::new(),
            rules,
            &target.entry.place,
        )?;
    }
    if !is_enabled(&rules) && enabled.count() == 0 {
        let message = "not taken over: Enabled=no, and no TargetName is enabled";
        found.remark(entry.place.clone(), message);
    }
    Ok(())
}

fn is_enabled(rules: &Rules) -> bool {
    rules.enabled.unwrap_or(true)
}

/// What an address says of its targets. Its timers were for the discovery session alone.
fn of_discovery_session(local: &Rules, found: &mut Found) -> Rules {
    let mut rules = local.clone();
    for (setting, stated) in std::mem::take(&mut rules.settings) {
        let key = match setting {
            Setting::LoginTimeout => "LoginTimeout",
            Setting::ConnFailTimeout => "ConnFailTimeout",
            Setting::HeaderDigest | Setting::DataDigest => {
                rules.settings.insert(setting, stated);
                continue;
            }
        };
        let reason = "below a DiscoveryAddress it was for the discovery session only";
        found.leave_out(key, &stated.place, reason);
    }
    rules
}

/// What holds for a target: CHAP comes from the portal, for a target could have none of its own.
fn of_target(target: &Target<'_>, portal: &Rules) -> Rules {
    let entry = target.entry;
    let mut rules = entry.local.or(&entry.global);
    rules.credentials = entry.local.credentials.clone().or(&portal.credentials);
    rules
}

fn same_settings(a: &Rules, b: &Rules) -> bool {
    let settings = |rules: &Rules| {
        let settings = rules.settings.iter();
        let settings = settings.map(|(setting, stated)| (*setting, stated.value));
        settings.collect::<Vec<_>>()
    };
    let places = |rules: &Rules| {
        let credentials = &rules.credentials;
        let user = credentials.user.as_ref().map(|user| user.place.clone());
        (
            user,
            credentials
                .secret
                .as_ref()
                .map(|secret| secret.place.clone()),
        )
    };
    settings(a) == settings(b) && places(a) == places(b)
}

/// The rules as ours, a subnet's above them.
fn scope(rules: &Rules, subnet: Option<&Subnet<'_>>, found: &mut Found) -> Scope {
    let mut scope = Scope::default();
    let rules = match subnet {
        Some(subnet) => {
            let message = "the settings of this subnet are in it, too: the address belongs to it";
            scope.remark(subnet.entry.place.clone(), message);
            subnet.rules().or(rules)
        }
        None => rules.clone(),
    };
    for (setting, stated) in &rules.settings {
        set(*setting, stated.value, &stated.place, &mut scope);
    }
    scope.chap = rules
        .credentials
        .settle(&mut found.secrets, &mut scope.remarks);
    scope
}

fn set(setting: Setting, value: SettingValue, place: &Place, scope: &mut Scope) {
    match (setting, value) {
        (Setting::HeaderDigest, SettingValue::Digest(digest)) => scope.set("header-digest", digest),
        (Setting::DataDigest, SettingValue::Digest(digest)) => scope.set("data-digest", digest),
        (Setting::LoginTimeout, SettingValue::Time(time)) => scope.set_login_timeout(time, place),
        (Setting::ConnFailTimeout, SettingValue::Time(time)) => {
            // 0 meant no limit there; here it means not to wait at all.
            scope.set_io_timeout(Some(time).filter(|time| !time.is_zero()), place);
        }
        _ => {}
    }
}

/// A Subnet or an Address.
struct Subnet<'a> {
    network: u32,
    mask: u32,
    entry: &'a Entry,
}

impl Subnet<'_> {
    fn contains(&self, portal: &Portal) -> bool {
        match portal.host {
            Host::V4(address) => address.to_bits() & self.mask == self.network & self.mask,
            Host::V6(_) | Host::Name(_) => false,
        }
    }

    /// Its own rules. What is global holds for the portal in any case, but whether it is enabled.
    fn rules(&self) -> Rules {
        Rules {
            enabled: self.entry.local.enabled.or(self.entry.global.enabled),
            ..self.entry.local.clone()
        }
    }
}

fn subnets<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<Vec<Subnet<'a>>, Failure> {
    let subnet = |entry: &'a Entry| {
        let wrong = || {
            entry
                .place
                .failure("this key takes an IPv4 address, and perhaps /24 or the like")
        };
        let (address, bits) = entry.value.split_once('/').unwrap_or((&entry.value, "32"));
        let address: Ipv4Addr = address.trim().parse().map_err(|_| wrong())?;
        let bits = bits.trim().parse().ok().filter(|bits: &u32| *bits <= 32);
        let bits = bits.ok_or_else(wrong)?;
        Ok(Subnet {
            network: address.to_bits(),
            mask: u32::MAX.checked_shl(32 - bits).unwrap_or(0),
            entry,
        })
    };
    entries.map(subnet).collect()
}

/// A subnet without a DiscoveryAddress in it was for portals that the targets tell.
fn say_what_no_portal_has(subnets: &[Subnet<'_>], addresses: &[Portal], found: &mut Found) {
    let is_used = |subnet: &Subnet<'_>| addresses.iter().any(|address| subnet.contains(address));
    for subnet in subnets.iter().filter(|subnet| !is_used(subnet)) {
        let message = "no DiscoveryAddress belongs to this subnet, so its settings are left out: a disk is \
                       reached at the address that was asked, where the target tells it";
        found.remark(subnet.entry.place.clone(), message);
    }
}
