//! TargetAddress (RFC 7143 section 13.8), and when to stop following redirections.

use alloc::string::String;
use core::fmt;
use core::net::Ipv6Addr;

use thiserror::Error;

/// The port that IANA assigned to iSCSI: meant when a TargetAddress names none.
pub const DEFAULT_PORT: u16 = 3260;

/// The longest host name (RFC 1035 section 2.3.4).
const MAX_HOST_LENGTH_BYTES: usize = 255;

/// A network portal as a target names it: `domainname[:port][,portal-group-tag]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetAddress {
    /// A DNS name or an address; an IPv6 address stands here without its brackets. Of letters,
    /// digits, `-`, `.`, `_` and, in IPv6 addresses, `:` only, hence safe to show.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
    /// The portal group; a redirection names none.
    pub portal_group_tag: Option<u16>,
}

/// Why a text is not a TargetAddress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Empty, too long, or with characters of neither a DNS name nor an address.
    #[error("the host is not a DNS name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// Not a decimal number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Not a decimal number from 0 to 65535.
    #[error("the portal group tag is not a number from 0 to 65535")]
    PortalGroupTag,
}

impl TargetAddress {
    /// Takes the value of a TargetAddress key apart.
    pub fn parse(value: &str) -> Result<Self, AddressError> {
        let (portal, tag) = match value.split_once(',') {
            Some((portal, tag)) => (portal, Some(tag)),
            None => (value, None),
        };
        let (host, port) = split_port(portal)?;
        let port = port
            .map_or(Some(DEFAULT_PORT), parse_u16)
            .filter(|port| *port != 0);
        Ok(Self {
            host: host.into(),
            port: port.ok_or(AddressError::Port)?,
            portal_group_tag: tag
                .map(|tag| parse_u16(tag).ok_or(AddressError::PortalGroupTag))
                .transpose()?,
        })
    }
}

impl fmt::Display for TargetAddress {
    /// `host:port[,tag]`, with an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{}:{}", self.host, self.port)?;
        }
        self.portal_group_tag
            .map_or(Ok(()), |tag| write!(f, ",{tag}"))
    }
}

/// The checked host, and the text behind its colon.
fn split_port(portal: &str) -> Result<(&str, Option<&str>), AddressError> {
    if let Some(bracketed) = portal.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or(AddressError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| AddressError::Host)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(AddressError::Port),
        };
    }
    let (host, port) = match portal.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (portal, None),
    };
    if is_host(host) {
        Ok((host, port))
    } else {
        Err(AddressError::Host)
    }
}

fn is_host(host: &str) -> bool {
    (1..=MAX_HOST_LENGTH_BYTES).contains(&host.len())
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// `parse` alone would also take a plus sign.
fn parse_u16(text: &str) -> Option<u16> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Counts redirections until they look like a loop.
///
/// An address that comes again is not yet one: a portal that answers for many may hand out the
/// same address twice. So the number alone decides.
#[derive(Clone, Debug, Default)]
pub struct RedirectGuard {
    followed: u32,
}

/// Too many redirections without a login.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{} redirections did not lead to a login, the last one to {last}; \
     the targets seem to redirect in a circle",
    RedirectGuard::MAX_REDIRECTIONS
)]
pub struct RedirectLoop {
    /// Where the last one, which was not followed, pointed.
    pub last: TargetAddress,
}

impl RedirectGuard {
    /// How many redirections are followed. One is usual, a few happen where a moved target lies
    /// behind a load balancer.
    pub const MAX_REDIRECTIONS: u32 = 8;

    /// Whether a redirection to `address` may be followed. One guard serves one attempt to log in.
    pub fn follow(&mut self, address: &TargetAddress) -> Result<(), RedirectLoop> {
        if self.followed >= Self::MAX_REDIRECTIONS {
            return Err(RedirectLoop {
                last: address.clone(),
            });
        }
        self.followed += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn reads_each_form_of_an_address_and_shows_it_with_its_port() {
        for (value, shown) in [
            ("192.0.2.1", "192.0.2.1:3260"),
            ("192.0.2.1:860,1", "192.0.2.1:860,1"),
            (
                "storage.example.com,65535",
                "storage.example.com:3260,65535",
            ),
            ("[2001:db8::1]", "[2001:db8::1]:3260"),
            ("[2001:db8::1]:65535,0", "[2001:db8::1]:65535,0"),
        ] {
            assert_eq!(TargetAddress::parse(value).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_ipv6_host_has_no_brackets() {
        assert_eq!(TargetAddress::parse("[::1]:3260,1").unwrap().host, "::1");
    }

    #[test]
    fn refuses_each_malformed_address_with_its_reason() {
        for (value, reason) in [
            ("", AddressError::Host),
            (":3260", AddressError::Host),
            ("a b:3260", AddressError::Host),
            ("[::1", AddressError::Host),
            ("[192.0.2.1]", AddressError::Host),
            ("[fe80::1%eth0]", AddressError::Host),
            ("\u{1b}[2J", AddressError::Host),
            ("host:", AddressError::Port),
            ("host:0", AddressError::Port),
            ("host:65536", AddressError::Port),
            ("host:+1", AddressError::Port),
            ("2001:db8::1", AddressError::Port),
            ("[::1]3260", AddressError::Port),
            ("host:1,", AddressError::PortalGroupTag),
            ("host:1,65536", AddressError::PortalGroupTag),
            ("host:1,1,1", AddressError::PortalGroupTag),
        ] {
            assert_eq!(TargetAddress::parse(value), Err(reason), "{value:?}");
        }
    }

    #[test]
    fn a_host_has_255_bytes_at_most() {
        assert!(TargetAddress::parse(&"h".repeat(255)).is_ok());
        assert_eq!(
            TargetAddress::parse(&"h".repeat(256)),
            Err(AddressError::Host)
        );
    }

    #[test]
    fn eight_redirections_are_followed_and_the_ninth_is_not() {
        let address = TargetAddress::parse("192.0.2.1").unwrap();
        let mut guard = RedirectGuard::default();
        for _ in 0..8 {
            assert!(guard.follow(&address).is_ok());
        }
        assert_eq!(guard.follow(&address), Err(RedirectLoop { last: address }));
    }
}
