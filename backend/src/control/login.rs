//! A login, from connect to full-feature phase, redirections followed.

use iscsi_core::login::address::{RedirectGuard, TargetAddress};
use iscsi_core::login::error::LoginError;
use iscsi_core::login::machine::{Login, LoginEntropy, LoginStep};
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::login::settings::{Isid, LoginSettings};
use iscsi_core::name::IscsiName;
use iscsi_core::sequence::SerialNumber;
use iscsi_core::whole_pdu::{WholePdu, WholePdus};

use super::connect::connect;
use super::error::ControlError;
use super::stream::PduStream;
use crate::config::InitiatorSettings;
use crate::portal::Portal;

/// A connection in full-feature phase.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) stream: PduStream,
    pub(super) negotiated: Negotiated,
    /// The portals that sent us on, in order.
    pub(super) redirects: Vec<Portal>,
}

/// What to log in to, and as whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoginRequest<'a> {
    pub(super) portal: &'a Portal,
    /// `None` for a discovery session.
    pub(super) target: Option<&'a IscsiName>,
    pub(super) initiator: &'a InitiatorSettings,
    pub(super) isid: Isid,
    /// What the first login of the session found.
    pub(super) portal_group_tag: Option<u16>,
}

/// Logs in. No limit of its own: the caller's time-out covers it, redirections included.
pub(super) async fn log_in(request: LoginRequest<'_>) -> Result<LoggedIn, ControlError> {
    let mut portal = request.portal.clone();
    let mut guard = RedirectGuard::default();
    let mut redirects = Vec::new();
    loop {
        match log_in_at(&portal, request, redirects.is_empty()).await? {
            Attempt::Done(stream, negotiated) => {
                return Ok(LoggedIn {
                    stream: *stream,
                    negotiated: *negotiated,
                    redirects,
                });
            }
            Attempt::Redirected { address, permanent } => {
                guard
                    .follow(&address)
                    .map_err(|error| ControlError::RedirectLoop {
                        portal: portal.clone(),
                        error,
                    })?;
                let kind = if permanent {
                    "permanently"
                } else {
                    "temporarily"
                };
                log::info!("{portal} sends us {kind} to {address}");
                let next = portal_of(&portal, &address)?;
                redirects.push(std::mem::replace(&mut portal, next));
            }
        }
    }
}

enum Attempt {
    Done(Box<PduStream>, Box<Negotiated>),
    Redirected {
        address: TargetAddress,
        permanent: bool,
    },
}

/// One login at one portal; a second one where the first shows that the target numbers the CHAP
/// algorithms in its own way.
async fn log_in_at(
    portal: &Portal,
    request: LoginRequest<'_>,
    is_first: bool,
) -> Result<Attempt, ControlError> {
    let mut login = prepare(portal, settings(request, is_first))?;
    let error = match exchange(portal, &mut login).await {
        Err(ControlError::Login { error, .. }) => error,
        ended => return ended,
    };
    let Some(settings) = login.settings_for_another_attempt(&error) else {
        return Err(failed(portal, error));
    };
    log::info!("login at {portal}: {error}; trying once more with other CHAP algorithms");
    exchange(portal, &mut prepare(portal, settings)?).await
}

fn prepare(portal: &Portal, settings: LoginSettings) -> Result<Login, ControlError> {
    Login::new(settings, entropy()?).map_err(|error| failed(portal, error))
}

fn failed(portal: &Portal, error: LoginError) -> ControlError {
    ControlError::Login {
        portal: portal.clone(),
        error,
    }
}

/// Connects, and goes from the first request to the last answer.
async fn exchange(portal: &Portal, login: &mut Login) -> Result<Attempt, ControlError> {
    let failed = |error| failed(portal, error);
    let pdus = WholePdus::of_login(crc32c::crc32c_append);
    let tcp = connect(portal).await?;
    let mut stream = PduStream::new(portal.clone(), tcp, pdus, "during the login");
    stream.send(&login.start().map_err(failed)?).await?;
    stream.expect_login_response().await?;
    loop {
        let WholePdu { bhs, data } = stream.receive().await?;
        match login.receive(&bhs, &data).map_err(failed)? {
            LoginStep::Send(pdu) => stream.send(&pdu).await?,
            LoginStep::Redirect(redirect) => {
                let (address, permanent) = (redirect.address, redirect.permanent);
                return Ok(Attempt::Redirected { address, permanent });
            }
            LoginStep::Done(negotiated) => {
                for key in login.trace() {
                    log::debug!("login at {portal}: {key}");
                }
                return Ok(Attempt::Done(Box::new(stream), negotiated));
            }
        }
    }
}

fn settings(request: LoginRequest<'_>, is_first: bool) -> LoginSettings {
    let initiator = request.initiator;
    LoginSettings {
        initiator_name: initiator.name.clone(),
        initiator_alias: None,
        target_name: request.target.cloned(),
        isid: request.isid,
        chap: initiator.chap.clone(),
        header_digest: initiator.header_digest,
        data_digest: initiator.data_digest,
        // A redirection may lead to another portal group: that is then the session's.
        expected_portal_group_tag: request.portal_group_tag.filter(|_| is_first),
    }
}

fn entropy() -> Result<LoginEntropy, ControlError> {
    let mut chap_challenge = [0; 32];
    getrandom::fill(&mut chap_challenge)?;
    let [chap_identifier, ..] = getrandom::u32()?.to_le_bytes();
    Ok(LoginEntropy {
        // Any value but the reserved one.
        initiator_task_tag: getrandom::u32()? >> 1,
        cmd_sn: SerialNumber(getrandom::u32()?),
        chap_identifier,
        chap_challenge,
    })
}

fn portal_of(from: &Portal, address: &TargetAddress) -> Result<Portal, ControlError> {
    let (host, port) = (&address.host, address.port);
    let text = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    Portal::parse(&text).map_err(|reason| ControlError::Address {
        portal: from.clone(),
        address: text,
        reason,
    })
}

/// The portal that an address in a SendTargets answer names.
pub(super) fn discovered_portal(
    asked: &Portal,
    address: &TargetAddress,
) -> Result<Portal, ControlError> {
    portal_of(asked, address)
}
