//! The LUNs of a target, and which of them are disks.

use std::collections::BTreeMap;

use iscsi_core::name::IscsiName;
use iscsi_core::scsi::inquiry::{self, DeviceType, PeripheralQualifier};
use iscsi_core::scsi::lun::LunAddress;
use iscsi_core::scsi::status::ScsiStatus;

use super::commands::Commands;
use super::error::ControlError;
use super::isid::random_isid;
use super::login::{LoginRequest, log_in};
use super::probe::{Reported, report_luns};
use super::time_limit;
use crate::config::InitiatorSettings;
use crate::engine::LOGOUT_LIMIT;
use crate::portal::Portal;

/// The most LUNs of a target that are looked at: as many as a process has disks.
pub(super) const MAX_LUNS: usize = crate::config::MAX_DISKS;

/// How often a LUN is asked what it is: it may be busy, or have something to say first.
const TRIES: u32 = 4;

/// What a target has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TargetLuns {
    /// The disks.
    pub(super) disks: Vec<u16>,
    /// Those that did not say what they are.
    pub(super) unknown: Vec<u16>,
    /// How many were not asked, for there are more than [`MAX_LUNS`].
    pub(super) left_out: usize,
}

/// Logs in, asks, and logs out, all within the login time-out.
pub(super) async fn target_luns(
    portal: &Portal,
    target: &IscsiName,
    initiator: &InitiatorSettings,
) -> Result<TargetLuns, ControlError> {
    let request = LoginRequest {
        portal,
        target: Some(target),
        initiator,
        isid: random_isid()?,
        portal_group_tag: None,
    };
    let looked = time_limit(
        portal,
        initiator,
        "while it was asked for its LUNs",
        async {
            let mut commands = Commands::new(log_in(request).await?);
            let luns = look(&mut commands, target).await?;
            Ok((commands, luns))
        },
    );
    let (mut commands, luns) = looked.await?;
    // All is known: a target that does not answer a logout is no failure.
    let _ = tokio::time::timeout(LOGOUT_LIMIT, commands.log_out()).await;
    Ok(luns)
}

async fn look(commands: &mut Commands, target: &IscsiName) -> Result<TargetLuns, ControlError> {
    let addresses = match report_luns(commands).await? {
        Reported::Luns(addresses) => numbered(&addresses),
        Reported::Nothing(reason) => {
            return Err(ControlError::ReportLuns {
                portal: commands.portal().clone(),
                target: target.to_string(),
                reason,
            });
        }
    };
    let mut luns = TargetLuns {
        left_out: addresses.len().saturating_sub(MAX_LUNS),
        ..TargetLuns::default()
    };
    for (lun, address) in addresses.into_iter().take(MAX_LUNS) {
        match is_disk(commands, address).await? {
            Some(true) => luns.disks.push(lun),
            Some(false) => {}
            None => luns.unknown.push(lun),
        }
    }
    Ok(luns)
}

/// Those that a URL can name, each once, in order.
fn numbered(addresses: &[LunAddress]) -> BTreeMap<u16, LunAddress> {
    let number = |address: &LunAddress| Some((address.lun()?.number(), *address));
    addresses.iter().filter_map(number).collect()
}

/// Whether it is a disk that is there; `None` when it does not say.
async fn is_disk(
    commands: &mut Commands,
    address: LunAddress,
) -> Result<Option<bool>, ControlError> {
    for _ in 0..TRIES {
        let answer = commands.run(address.to_u64(), inquiry::command()).await?;
        if !ScsiStatus(answer.outcome.scsi_status()).is_success() {
            continue;
        }
        let inquiry = inquiry::parse(&answer.data).ok();
        return Ok(inquiry.map(|inquiry| {
            inquiry.device_type == DeviceType::DISK
                && inquiry.qualifier == PeripheralQualifier::Connected
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use iscsi_core::scsi::lun::Lun;

    use super::*;

    #[test]
    fn a_lun_that_is_reported_twice_is_one_and_what_no_url_can_name_is_none() {
        let lun = |number| Lun::new(number).unwrap();
        let well_known = LunAddress([0xc1, 1, 0, 0, 0, 0, 0, 0]);
        let reported = [
            lun(7).address(),
            well_known,
            lun(300).address(),
            lun(7).flat_address(),
            lun(0).address(),
        ];
        let numbers: Vec<_> = numbered(&reported).into_keys().collect();
        assert_eq!(numbers, [0, 7, 300]);
    }
}
