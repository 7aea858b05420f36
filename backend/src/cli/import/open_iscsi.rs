//! open-iscsi: `iscsid.conf`, node records, `initiatorname.iscsi`.
//!
//! A record is a target at a portal, and serves every LUN of it: it becomes a portal with just this
//! target. A record has a copy of all settings; `iscsid.conf` is for records yet to be made, and becomes
//! the defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use iscsi_core::name::IscsiName;

use super::credentials::{Credentials, Origin, Stated};
use super::found::{Found, FoundPortal, Place, Scope, Value, reasons};
use super::source::Source;
use crate::exit::Failure;
use crate::portal::Portal;

/// A value and where it stood; a key that comes again replaces the former.
type Keys<'a> = BTreeMap<&'a str, (&'a str, Place)>;

const SESSION_AUTH: [&str; 4] = [
    "node.session.auth.username",
    "node.session.auth.password",
    "node.session.auth.username_in",
    "node.session.auth.password_in",
];
const SESSION_METHOD: &str = "node.session.auth.authmethod";

/// Keys by what they begin with, and why they are left out; the first that fits counts.
const LEFT_OUT: [(&str, &str); 20] = [
    ("node.session.timeo.", reasons::UNKNOWN),
    ("node.session.err_timeo.", reasons::ABORT),
    ("node.session.iscsi.FastAbort", reasons::ABORT),
    ("node.conn[0].timeo.noop_out", reasons::PING),
    ("node.conn[0].timeo.", TIMES),
    ("node.session.iscsi.", reasons::NEGOTIATED),
    ("node.conn[0].iscsi.", reasons::NEGOTIATED),
    ("node.session.initial_cmdsn", reasons::NEGOTIATED),
    ("node.session.cmds_max", reasons::DEPTH),
    ("node.session.queue_depth", reasons::DEPTH),
    ("node.session.xmit_thread_priority", reasons::DEPTH),
    ("node.conn[0].tcp.", reasons::TCP),
    ("node.session.initial_login_retry_max", reasons::RETRY),
    ("node.session.reopen_max", reasons::RETRY),
    ("node.session.auth.chap_algs", ALGORITHMS),
    ("node.session.nr_sessions", SESSIONS),
    ("node.session.scan", SCAN),
    ("iface.", INTERFACE),
    ("discovery.", DISCOVERY),
    ("", reasons::ADMINISTRATION),
];

const TIMES: &str =
    "the time for a login is login-timeout; a logout has a bound of its own, which cannot be set";
const ALGORITHMS: &str = "all algorithms are offered, the strongest first; for one disk, its URL can name one \
                          (auth=)";
const SESSIONS: &str = "1 is the usual; here a disk has several by itself: see sessions";
const SCAN: &str = "every LUN of the target becomes a disk; see include and exclude";
const INTERFACE: &str = "the kernel's routes decide through which interface and from which address";
const DISCOVERY: &str = "a portal is asked with the settings of its disks";

/// Reads an `iscsid.conf` or a record.
pub(super) fn read(source: &Source, found: &mut Found) -> Result<(), Failure> {
    let keys = keys(source)?;
    let mut left: Keys<'_> = keys.clone();
    let mut take = |key: &str| left.remove(key);
    let mut scope = Scope::default();
    settings(&mut take, &mut scope)?;
    chap(&mut take, found, &mut scope);
    match keys.get("node.name").cloned() {
        Some((name, place)) => record(name, &place, &mut take, scope, found)?,
        None => add_defaults(scope, found),
    }
    for (key, (_, place)) in &left {
        let reason = LEFT_OUT.iter().find(|(prefix, _)| key.starts_with(prefix));
        let reason = reason.map_or(reasons::UNKNOWN, |(_, reason)| reason);
        found.leave_out(key, place, reason);
    }
    Ok(())
}

/// What `iscsid.conf` says; a name may be there already.
fn add_defaults(scope: Scope, found: &mut Found) {
    found.defaults.settings.extend(scope.settings);
    found.defaults.remarks.extend(scope.remarks);
    found.defaults.chap = scope.chap;
}

/// Reads an `initiatorname.iscsi`.
pub(super) fn read_initiator_name(source: &Source, found: &mut Found) -> Result<(), Failure> {
    let keys = keys(source)?;
    let (name, place) = keys
        .get("InitiatorName")
        .ok_or_else(|| source.at(0).failure("there is no line InitiatorName="))?;
    // Read up to the first blank, as the first Linux initiator did.
    let name = name.split_whitespace().next().unwrap_or_default();
    let name = IscsiName::parse(name)
        .map_err(|error| place.failure(&format!("not an initiator's name: {error}")))?;
    found.defaults.set("initiator-name", name.as_str());
    for (key, (_, place)) in keys.iter().filter(|(key, _)| **key != "InitiatorName") {
        found.leave_out(key, place, reasons::UNKNOWN);
    }
    Ok(())
}

/// `key = value`; what is not set is left away or written `<empty>`.
fn keys(source: &Source) -> Result<Keys<'_>, Failure> {
    let mut keys = Keys::new();
    for (place, line) in source.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| place.failure("a line is key = value, or begins with #"))?;
        let value = value.trim();
        if !value.is_empty() && value != "<empty>" {
            keys.insert(key.trim(), (value, place));
        }
    }
    Ok(keys)
}

/// Takes a key out of those that are left.
type Take<'t, 'a> = &'t mut dyn FnMut(&str) -> Option<(&'a str, Place)>;

/// Settings that we have, too.
fn settings(take: Take<'_, '_>, scope: &mut Scope) -> Result<(), Failure> {
    if let Some((value, place)) = take("node.session.timeo.replacement_timeout") {
        let seconds: i64 = number(value, &place)?;
        // Below 0 is for ever, and 0 is at once.
        let time = u64::try_from(seconds).ok().map(Duration::from_secs);
        scope.set_io_timeout(time, &place);
    }
    if let Some((value, place)) = take("node.conn[0].timeo.login_timeout") {
        scope.set_login_timeout(Duration::from_secs(number(value, &place)?), &place);
    }
    for (theirs, ours) in [
        ("node.conn[0].iscsi.HeaderDigest", "header-digest"),
        ("node.conn[0].iscsi.DataDigest", "data-digest"),
    ] {
        if let Some((value, place)) = take(theirs) {
            let wrong = || place.failure("a digest is None, CRC32C, or both with a comma");
            scope.set(ours, digest(value).ok_or_else(wrong)?);
        }
    }
    if let Some((value, place)) = take("node.session.nr_sessions") {
        let sessions = number(value, &place)?;
        if (2..=64).contains(&sessions) {
            scope.settings.insert("sessions", Value::Number(sessions));
        }
    }
    if let Some((value, _)) = take("iface.initiatorname") {
        scope.set("initiator-name", value);
    }
    Ok(())
}

fn number<T: std::str::FromStr>(value: &str, place: &Place) -> Result<T, Failure> {
    let number = value.parse();
    number.map_err(|_| place.failure("this key takes a number that is not that large"))
}

/// `CRC32C,None` means to prefer it, `None,CRC32C` to avoid it.
fn digest(value: &str) -> Option<&'static str> {
    let value = value.to_ascii_lowercase().replace(' ', "");
    match value.as_str() {
        "none" => Some("none"),
        "crc32c" => Some("crc32c"),
        "crc32c,none" => Some("prefer"),
        "none,crc32c" => Some("avoid"),
        _ => None,
    }
}

fn chap(take: Take<'_, '_>, found: &mut Found, scope: &mut Scope) {
    let method = take(SESSION_METHOD);
    let text = |found: Option<(&str, Place)>| {
        found.map(|(value, place)| Stated::new(value.to_owned(), &place))
    };
    let secret = |found: Option<(&str, Place)>| {
        found.map(|(value, place)| Stated::new(Origin::of_text(value), &place))
    };
    let [user, password, user_in, password_in] = SESSION_AUTH.map(&mut *take);
    let credentials = Credentials {
        user: text(user),
        secret: secret(password),
        target_user: text(user_in),
        target_secret: secret(password_in),
    };
    let is_chap = |(method, _): &(&str, Place)| method.eq_ignore_ascii_case("CHAP");
    if method.as_ref().is_some_and(is_chap) {
        scope.chap = credentials.settle(&mut found.secrets, &mut scope.remarks);
    } else if let Some(user) = credentials.user {
        let message = "a CHAP name and secret, but authmethod is not CHAP: they were not used, and are left out";
        scope.remark(user.place, message);
    }
    let discovery = take("discovery.sendtargets.auth.authmethod");
    if let Some((_, place)) = discovery.filter(is_chap) {
        let message = "discovery had a CHAP name and secret of its own; here a portal is asked with those of \
                       its disks";
        scope.remark(place, message);
    }
}

/// A target at a portal.
fn record(
    name: &str,
    place: &Place,
    take: Take<'_, '_>,
    mut scope: Scope,
    found: &mut Found,
) -> Result<(), Failure> {
    take("node.name");
    let target = IscsiName::parse(name)
        .map_err(|error| place.failure(&format!("not a target's name: {error}")))?;
    let address = address(place, take)?;
    if let Some((transport, place)) = take("iface.transport_name")
        && transport != "tcp"
    {
        let message =
            "this record is for another transport than TCP, which the target has to listen on, too";
        scope.remark(place, message);
    }
    if let Some((startup, place)) = take("node.startup")
        && startup == "manual"
    {
        let message = "node.startup was manual: nobody logged in to it at boot; leave it out if it is not wanted";
        scope.remark(place, message);
    }
    let is_known = |portal: &FoundPortal| portal.include == [target.clone()];
    if let Some(known) = found.portals.iter().find(|portal| is_known(portal)) {
        let message = format!(
            "{target} at {address} is left out: {} has it already, and a disk has one path",
            known.address
        );
        found.remark(place.clone(), message);
        return Ok(());
    }
    found.add_portal(FoundPortal {
        address,
        include: vec![target],
        exclude: Vec::new(),
        scope,
        place: place.clone(),
    })
}

fn address(place: &Place, take: Take<'_, '_>) -> Result<Portal, Failure> {
    let missing = || place.failure("this record has no node.conn[0].address");
    let (host, place) = take("node.conn[0].address").ok_or_else(missing)?;
    let port = take("node.conn[0].port").map_or("3260", |(port, _)| port);
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    let text = match is_bare_ipv6 {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    Portal::parse(&text)
        .map_err(|error| place.failure(&format!("the address is not valid: {error}")))
}
