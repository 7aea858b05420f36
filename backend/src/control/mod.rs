//! The control plane: everything slow or rare, on one tokio runtime.
//!
//! Login, discovery and probe; the sessions of the lanes, made and made again; the front-ends'
//! socket; signals. Nothing here is on the path of a request.

mod ask;
mod attached;
mod backoff;
mod board;
mod commands;
mod connect;
mod control_socket;
mod discover;
mod disk;
mod error;
mod find_disks;
mod fleet;
mod home;
mod isid;
mod known_lun;
mod life;
mod login;
mod metrics_http;
mod notify;
mod plan;
mod pool;
mod portal_board;
mod portals;
mod probe;
mod registry;
mod serve;
mod service;
mod sessions;
mod socket;
mod stream;
mod target_luns;
#[cfg(test)]
pub(crate) mod test_disk;
mod watch;

use std::future::Future;
use std::path::Path;

use tokio::runtime::{Builder, Runtime};

use self::error::ControlError;
use crate::cli::Control;
use crate::config::{
    DiscoverSettings, InitiatorSettings, PortalSettings, ProbeSettings, ServeSettings,
};
use crate::control_protocol::Request;
use crate::device::serial::device_id;
use crate::exit::{ExitCode, Failure};
use crate::found::{Discovered, FoundLuns};
use crate::portal::Portal;
use crate::report::{DiscoveredPortal, GuestView, ProbeReport};

/// The initiator behind the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Initiator;

impl Control for Initiator {
    fn discover(&self, settings: DiscoverSettings) -> Result<Vec<DiscoveredPortal>, Failure> {
        run_once(async { Ok(discover::discover(&settings).await?) })
    }

    fn probe(&self, settings: ProbeSettings) -> Result<ProbeReport, Failure> {
        run_once(probe_report(&settings))
    }

    fn find_disks(&self, settings: &PortalSettings) -> Result<Discovered, Failure> {
        let nothing = FoundLuns::new();
        run_once(async { Ok(find_disks::find_disks(settings, &nothing).await?) })
    }

    fn ask(&self, socket: &Path, request: &Request) -> Result<serde_json::Value, Failure> {
        ask::ask(socket, request)
    }

    fn serve(&self, settings: ServeSettings) -> Result<(), Failure> {
        serve::serve(settings)
    }
}

async fn probe_report(settings: &ProbeSettings) -> Result<ProbeReport, Failure> {
    let ProbeSettings {
        target: url,
        initiator,
    } = settings;
    let isid = isid::random_isid().map_err(ControlError::from)?;
    let mut probed = probe::log_in_and_probe(url, initiator, isid, None).await?;
    let (address, luns) = (probed.commands.address(), probed.luns());
    let report = ProbeReport {
        portal: probed.commands.portal().clone(),
        address: address.map_err(|error| Failure::new(ExitCode::Transport, error.to_string()))?,
        redirects: probed.redirects,
        initiator_name: initiator.name.clone(),
        target: url.target.clone(),
        lun: url.lun,
        negotiated: probed.commands.session().negotiated().clone(),
        command_window: probed.commands.session().window_length(),
        guest: GuestView::of(&probed.facts, &device_id(&probed.facts, None)),
        luns,
        facts: probed.facts,
    };
    // All that was asked for is known: a target that does not answer a logout is no failure.
    let limited = probed.commands.log_out();
    if tokio::time::timeout(crate::engine::LOGOUT_LIMIT, limited)
        .await
        .is_err()
    {
        log::debug!("{} did not answer the logout in time", report.portal);
    }
    Ok(report)
}

/// Runs the work of a verb to its end.
///
/// What it has given up waiting for is left behind: the system's resolver knows nothing of our
/// time-out, and to drop a runtime is to wait for the resolver.
fn run_once<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::Other, format!("cannot start: {error}")))
}

/// The login time-out: it covers everything from connect to the last answer.
async fn time_limit<T>(
    portal: &Portal,
    initiator: &InitiatorSettings,
    during: &'static str,
    work: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    let limit = initiator.login_timeout;
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(ControlError::Timeout {
            portal: portal.clone(),
            during,
            limit,
        }),
    }
}
