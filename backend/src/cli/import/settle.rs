//! Before it is written: what all have in common moves to the top, and each disk gets its name.

use std::collections::{BTreeMap, HashMap};

use iscsi_core::name::IscsiName;

use super::credentials::Chap;
use super::disk_names::Names;
use super::found::{Found, FoundPortal, Place, Scope, Value};

const INITIATOR_NAME: &str = "initiator-name";

/// Makes what was found one configuration.
pub(super) fn settle(found: &mut Found) {
    check_names(found);
    drop_doubles(found);
    join_portals(found);
    move_common_settings_up(found);
    let mut names = Names::default();
    for disk in &mut found.disks {
        disk.name = names.give(&disk.name);
    }
}

/// An initiator's name that is none would make the whole file useless.
fn check_names(found: &mut Found) {
    for index in 0..found.disks.len() {
        if let Some(disk) = found.disks.get_mut(index) {
            let place = disk.place.clone();
            check_name(&mut disk.scope, &place);
        }
    }
    for portal in &mut found.portals {
        let place = portal.place.clone();
        check_name(&mut portal.scope, &place);
    }
}

fn check_name(scope: &mut Scope, place: &Place) {
    let Some(Value::Text(name)) = scope.settings.get(INITIATOR_NAME) else {
        return;
    };
    match IscsiName::parse(name) {
        Ok(name) => scope.set(INITIATOR_NAME, name.as_str()),
        Err(error) => {
            scope.settings.remove(INITIATOR_NAME);
            scope.remark(
                place.clone(),
                format!("the initiator's name is left out: {error}"),
            );
        }
    }
}

/// A LUN that is there twice is served once.
fn drop_doubles(found: &mut Found) {
    let mut known = HashMap::new();
    let mut doubles = Vec::new();
    found.disks.retain(|disk| {
        let url = disk.url.split('?').next().unwrap_or_default().to_owned();
        let first = known.entry(url).or_insert_with(|| disk.place.clone());
        let is_first = *first == disk.place;
        if !is_first {
            doubles.push((
                disk.place.clone(),
                format!("left out: {first} is the same LUN"),
            ));
        }
        is_first
    });
    for (place, message) in doubles {
        found.remark(place, message);
    }
}

/// Targets at one address with the same settings need one entry: a portal is asked for all of them.
fn join_portals(found: &mut Found) {
    let mut joined: Vec<FoundPortal> = Vec::new();
    for portal in std::mem::take(&mut found.portals) {
        let is_like = |other: &&mut FoundPortal| {
            other.address == portal.address
                && !other.include.is_empty()
                && !portal.include.is_empty()
                && other.exclude == portal.exclude
                && other.scope.settings == portal.scope.settings
                && other.scope.chap == portal.scope.chap
        };
        match joined.iter_mut().find(is_like) {
            Some(other) => {
                other.include.extend(portal.include);
                other.scope.remarks.extend(portal.scope.remarks);
            }
            None => joined.push(portal),
        }
    }
    found.portals = joined;
}

/// Settings that every disk and portal has, where there are several, and none that only some have. CHAP is one setting: there
/// is no way to take it back below.
fn move_common_settings_up(found: &mut Found) {
    let scopes: Vec<&Scope> = {
        let disks = found.disks.iter().map(|disk| &disk.scope);
        let portals = found.portals.iter().map(|portal| &portal.scope);
        disks.chain(portals).collect()
    };
    let Some((first, others)) = scopes.split_first() else {
        return;
    };
    let has = |key: &str, value: &Value| {
        let mut others = others.iter();
        others.all(|scope| scope.settings.get(key) == Some(value))
    };
    let is_alone = others.is_empty();
    let common = first.settings.iter();
    let common = common.filter(|(key, value)| !is_alone && has(key, value));
    let common: BTreeMap<_, _> = common.map(|(key, value)| (*key, value.clone())).collect();
    let chap = first.chap.clone();
    let is_common = |chap: &Chap| others.iter().all(|scope| scope.chap.as_ref() == Some(chap));
    let chap = chap.filter(|chap| !is_alone && is_common(chap));
    let is_switch = |value: &Value| matches!(value, Value::On);
    let common = common.into_iter().filter(|(_, value)| !is_switch(value));
    found.defaults.settings.extend(common);
    found.defaults.chap = chap;
    let defaults = found.defaults.clone();
    for scope in found.scopes() {
        scope
            .settings
            .retain(|key, value| defaults.settings.get(key) != Some(value));
        if scope.chap == defaults.chap {
            scope.chap = None;
        }
    }
}
