//! A portal: a host and a TCP port, as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// The port that IANA assigned to iSCSI (RFC 7143 section 13.8).
pub const DEFAULT_PORT: u16 = 3260;

/// The longest host name in bytes (RFC 1123 section 2.1).
const MAX_HOST_NAME_LENGTH_BYTES: usize = 253;

/// The longest label of a host name in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL_LENGTH_BYTES: usize = 63;

/// An address or a name that can be looked up; never text that would break a line or a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address; written in brackets.
    V6(Ipv6Addr),
    /// A host name.
    Name(HostName),
}

/// A well-formed host name: not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl HostName {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where an iSCSI target listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Portal {
    /// The host.
    pub host: Host,
    /// The TCP port; never 0 when parsed.
    pub port: u16,
}

/// Why a text is not `host[:port]`. No message repeats the text: it may be a misplaced secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PortalError {
    /// `scheme://…`.
    #[error("it is a host and perhaps a port, not a URL")]
    Url,
    /// Nothing before the port.
    #[error("the host is missing")]
    NoHost,
    /// A character that no host name has, a label that is too long, …
    #[error("the host is neither an IPv4 address, an IPv6 address in brackets nor a host name")]
    Host,
    /// Several colons without brackets.
    #[error("an IPv6 address is written in brackets: [2001:db8::1]:3260")]
    BareIpv6,
    /// An opening bracket without an IPv6 address and a closing bracket.
    #[error("between brackets belongs an IPv6 address without a zone: [2001:db8::1]:3260")]
    Ipv6,
    /// Not a number from 1 to 65535.
    #[error("the port is a number from 1 to 65535")]
    Port,
}

impl Portal {
    /// Parses `host[:port]`; without a port it is [`DEFAULT_PORT`].
    pub fn parse(text: &str) -> Result<Self, PortalError> {
        if text.contains("://") {
            return Err(PortalError::Url);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => split_brackets(rest)?,
            None => split_port(text)?,
        };
        let port = port.map_or(Ok(DEFAULT_PORT), parse_port)?;
        Ok(Self { host, port })
    }
}

impl From<SocketAddr> for Portal {
    fn from(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) => Host::V4(ip),
            IpAddr::V6(ip) => Host::V6(ip),
        };
        let port = address.port();
        Self { host, port }
    }
}

impl FromStr for Portal {
    type Err = PortalError;

    fn from_str(text: &str) -> Result<Self, PortalError> {
        Self::parse(text)
    }
}

impl fmt::Display for Portal {
    /// `host:port`, an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    /// As in a URL: an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "[{address}]"),
            Self::Name(HostName(name)) => f.write_str(name),
        }
    }
}

/// Splits `address][:port]`, what follows an opening bracket.
fn split_brackets(rest: &str) -> Result<(Host, Option<&str>), PortalError> {
    let (address, after) = rest.split_once(']').ok_or(PortalError::Ipv6)?;
    let host = Host::V6(address.parse().map_err(|_| PortalError::Ipv6)?);
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(PortalError::Port),
    }
}

fn split_port(text: &str) -> Result<(Host, Option<&str>), PortalError> {
    let (host, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(PortalError::BareIpv6),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    Ok((parse_host(host)?, port))
}

fn parse_host(text: &str) -> Result<Host, PortalError> {
    if text.is_empty() {
        return Err(PortalError::NoHost);
    }
    if let Ok(address) = text.parse() {
        return Ok(Host::V4(address));
    }
    if is_host_name(text) {
        return Ok(Host::Name(HostName(text.to_owned())));
    }
    Err(PortalError::Host)
}

/// Letters, digits, '-' and '_' in labels; the last label is not a number, or `10.0.0.256` and
/// `10.1` would be looked up as names (and some resolvers would make addresses of them).
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let last_label = name.rsplit('.').next().unwrap_or(name);
    name.len() <= MAX_HOST_NAME_LENGTH_BYTES
        && name.split('.').all(is_label)
        && !last_label.bytes().all(|b| b.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_LENGTH_BYTES).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn parse_port(text: &str) -> Result<u16, PortalError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PortalError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(PortalError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_addresses_and_names_with_and_without_a_port() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1:3260"),
            ("192.0.2.1:860", "192.0.2.1:860"),
            ("[2001:db8::1]", "[2001:db8::1]:3260"),
            ("[2001:DB8:0::1]:1", "[2001:db8::1]:1"),
            ("array", "array:3260"),
            ("san-1.example.com.:65535", "san-1.example.com.:65535"),
            ("disk_a.lan", "disk_a.lan:3260"),
        ] {
            assert_eq!(Portal::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refuses_everything_else_naming_the_part() {
        for (text, error) in [
            ("", PortalError::NoHost),
            ("iscsi://host:3260", PortalError::Url),
            (":3260", PortalError::NoHost),
            ("host:", PortalError::Port),
            ("host:0", PortalError::Port),
            ("host:65536", PortalError::Port),
            ("host:+1", PortalError::Port),
            ("host:http", PortalError::Port),
            ("2001:db8::1", PortalError::BareIpv6),
            ("[2001:db8::1", PortalError::Ipv6),
            ("[fe80::1%eth0]", PortalError::Ipv6),
            ("[192.0.2.1]", PortalError::Ipv6),
            ("[]", PortalError::Ipv6),
            ("[::1]3260", PortalError::Port),
            ("10.0.0.256", PortalError::Host),
            ("10.1", PortalError::Host),
            ("a b", PortalError::Host),
            ("-a", PortalError::Host),
            ("a..b", PortalError::Host),
            (".", PortalError::Host),
            ("hôte", PortalError::Host),
            ("user%host", PortalError::Host),
        ] {
            assert_eq!(Portal::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_longest_label_has_63_bytes_and_the_longest_name_253() {
        let label = "a".repeat(63);
        assert!(Portal::parse(&label).is_ok());
        assert!(Portal::parse(&format!("{label}a")).is_err());
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name.len(), 253);
        assert!(Portal::parse(&name).is_ok());
        assert!(Portal::parse(&format!("{name}a")).is_err());
    }
}
