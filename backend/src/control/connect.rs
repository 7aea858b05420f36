//! From a portal to a TCP connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::error::ControlError;
use crate::portal::{Host, Portal};

/// How long one address of several may take: a name often has one that leads nowhere.
const ADDRESS_LIMIT: Duration = Duration::from_secs(3);

/// Connects to the first address of the portal that takes a connection.
///
/// No limit of its own: the caller's time-out covers all addresses together.
pub(super) async fn connect(portal: &Portal) -> Result<TcpStream, ControlError> {
    let mut last = None;
    let addresses = resolve(portal).await?;
    let limit = if addresses.len() > 1 {
        ADDRESS_LIMIT
    } else {
        Duration::MAX
    };
    for address in addresses {
        log::debug!("connecting to {portal} ({address})");
        let connected = tokio::time::timeout(limit, TcpStream::connect(address)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match connected.and_then(configured) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some((address, error)),
        }
    }
    Err(match last {
        Some((address, error)) => ControlError::Connect {
            portal: portal.clone(),
            address,
            error,
        },
        None => ControlError::Resolve {
            portal: portal.clone(),
            error: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        },
    })
}

/// Commands are small and answers are waited for: nothing is to be held back by Nagle's rule.
fn configured(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn resolve(portal: &Portal) -> Result<Vec<SocketAddr>, ControlError> {
    let at = |ip: IpAddr| vec![SocketAddr::new(ip, portal.port)];
    match &portal.host {
        Host::V4(ip) => Ok(at((*ip).into())),
        Host::V6(ip) => Ok(at((*ip).into())),
        Host::Name(name) => match tokio::net::lookup_host((name.as_str(), portal.port)).await {
            Ok(addresses) => Ok(addresses.collect()),
            Err(error) => Err(ControlError::Resolve {
                portal: portal.clone(),
                error,
            }),
        },
    }
}
