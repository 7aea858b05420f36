//! Logging in to a LUN and finding out what it is.

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::{Probe, ProbeStep};
use iscsi_core::disk::probe_error::Ending;
use iscsi_core::login::settings::Isid;
use iscsi_core::scsi::command::ScsiAnswer;
use iscsi_core::scsi::lun::{Lun, LunAddress};
use iscsi_core::scsi::report_luns::{self, FIRST_LENGTH_BYTES, MAX_LENGTH_BYTES};
use iscsi_core::scsi::sense::Sense;
use iscsi_core::scsi::status::ScsiStatus;

use super::commands::Commands;
use super::error::ControlError;
use super::login::{LoggedIn, LoginRequest, log_in};
use super::time_limit;
use crate::config::InitiatorSettings;
use crate::portal::Portal;
use crate::url::TargetUrl;

/// A session on which a LUN was probed.
pub(super) struct Probed {
    pub(super) commands: Commands,
    pub(super) facts: LunFacts,
    /// The LUN field that reaches it.
    pub(super) lun: u64,
    /// What REPORT LUNS told, empty when the target refused it.
    pub(super) reported: Vec<LunAddress>,
    /// The target said that it lost its power.
    pub(super) power_loss: Option<Sense>,
    /// The portals that sent us on.
    pub(super) redirects: Vec<Portal>,
}

impl Probed {
    /// The numbers of the LUNs that the target reported.
    pub(super) fn luns(&self) -> Vec<u16> {
        let luns = self.reported.iter().filter_map(|address| address.lun());
        luns.map(Lun::number).collect()
    }
}

/// A session of which only is known which LUNs it reaches.
pub(super) struct Opened {
    pub(super) commands: Commands,
    /// What REPORT LUNS told, empty when the target refused it.
    pub(super) reported: Vec<LunAddress>,
    /// The portals that sent us on.
    pub(super) redirects: Vec<Portal>,
}

/// Logs in, and asks for the LUNs, within the login time-out.
pub(super) async fn open(request: LoginRequest<'_>) -> Result<Opened, ControlError> {
    let during = "during login";
    time_limit(request.portal, request.initiator, during, async {
        ask_for_luns(log_in(request).await?).await
    })
    .await
}

async fn ask_for_luns(logged_in: LoggedIn) -> Result<Opened, ControlError> {
    let redirects = logged_in.redirects.clone();
    let mut commands = Commands::new(logged_in);
    let reported = report_luns(&mut commands).await?.luns();
    Ok(Opened {
        commands,
        reported,
        redirects,
    })
}

/// Logs in and probes, all within the login time-out.
pub(super) async fn log_in_and_probe(
    url: &TargetUrl,
    initiator: &InitiatorSettings,
    isid: Isid,
    portal_group_tag: Option<u16>,
) -> Result<Probed, ControlError> {
    let request = LoginRequest {
        portal: &url.portal,
        target: Some(&url.target),
        initiator,
        isid,
        portal_group_tag,
    };
    time_limit(&url.portal, initiator, "during login and probe", async {
        let opened = ask_for_luns(log_in(request).await?).await?;
        probe(url, opened).await
    })
    .await
}

/// Probes a LUN of a session, within the login time-out.
pub(super) async fn probe_opened(
    url: &TargetUrl,
    initiator: &InitiatorSettings,
    opened: Opened,
) -> Result<Probed, ControlError> {
    let during = "during probe";
    time_limit(&url.portal, initiator, during, probe(url, opened)).await
}

async fn probe(url: &TargetUrl, opened: Opened) -> Result<Probed, ControlError> {
    let Opened {
        mut commands,
        reported,
        redirects,
    } = opened;
    let lun = lun_field(url.lun, &reported);
    let mut power_loss = None;
    let mut probe = Probe::new();
    let facts = loop {
        match probe.next() {
            ProbeStep::Done(facts) => break facts,
            ProbeStep::Run(command) => {
                let answer = commands.run(lun, command).await?;
                let status = answer.outcome.scsi_status();
                let sense = answer.outcome.sense;
                // A unit attention is reported once: to the probe, of all commands.
                power_loss = power_loss.or_else(|| power_loss_in(status, sense.as_bytes()));
                let answer = ScsiAnswer {
                    status,
                    sense: sense.as_bytes(),
                    data: &answer.data,
                };
                probe.answer(answer).map_err(|error| ControlError::Probe {
                    portal: url.portal.clone(),
                    target: url.target.to_string(),
                    lun: url.lun,
                    error,
                })?;
            }
        }
    };
    Ok(Probed {
        commands,
        facts,
        lun,
        reported,
        power_loss,
        redirects,
    })
}

fn power_loss_in(status: u8, sense: &[u8]) -> Option<Sense> {
    let sense = Sense::parse(sense).filter(|_| ScsiStatus(status) == ScsiStatus::CHECK_CONDITION);
    sense.filter(Sense::tells_of_power_loss)
}

/// The LUN field: in the format in which the target itself reports the LUN, else in the usual one.
pub(super) fn lun_field(number: u16, reported: &[LunAddress]) -> u64 {
    let own = reported
        .iter()
        .find(|address| address.lun().is_some_and(|lun| lun.number() == number));
    let usual = Lun::new(number).unwrap_or(Lun::ZERO).address();
    own.copied().unwrap_or(usual).to_u64()
}

/// What a target says about its LUNs.
#[derive(Debug)]
pub(super) enum Reported {
    /// These, in its order.
    Luns(Vec<LunAddress>),
    /// Nothing, for this reason.
    Nothing(String),
}

impl Reported {
    /// What the target says it has; nothing when it does not say.
    fn luns(self) -> Vec<LunAddress> {
        match self {
            Self::Luns(luns) => luns,
            Self::Nothing(_) => Vec::new(),
        }
    }
}

/// Asks the target what it has. A unit attention is no answer, so the question is asked a few times.
pub(super) async fn report_luns(commands: &mut Commands) -> Result<Reported, ControlError> {
    const TRIES: u32 = 4;
    let mut length_bytes = FIRST_LENGTH_BYTES;
    let mut reason = String::new();
    for _ in 0..TRIES {
        let command = report_luns::command(length_bytes);
        let answer = commands.run(Lun::ZERO.address().to_u64(), command).await?;
        let status = ScsiStatus(answer.outcome.scsi_status());
        if !status.is_success() {
            let sense = Sense::parse(answer.outcome.sense.as_bytes());
            reason = Ending { status, sense }.to_string();
            continue;
        }
        let list = match report_luns::parse(&answer.data) {
            Ok(list) => list,
            Err(error) => return Ok(Reported::Nothing(error.to_string())),
        };
        if list.whole_length_bytes <= length_bytes || length_bytes == MAX_LENGTH_BYTES {
            return Ok(Reported::Luns(list.luns));
        }
        "the list grows while it is read".clone_into(&mut reason);
        length_bytes = list.whole_length_bytes;
    }
    Ok(Reported::Nothing(reason))
}
