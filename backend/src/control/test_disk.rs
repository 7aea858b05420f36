//! A disk for unit tests.

use std::path::PathBuf;

use iscsi_core::login::settings::DigestPreference;
use iscsi_core::name::IscsiName;

use crate::config::{
    DEFAULT_LOGIN_TIMEOUT, DiskName, DiskSettings, InitiatorSettings, QueueSize, ServedDisk,
    SocketPath, SocketPathSettings, SocketSettings,
};
use crate::url::TargetUrl;

/// A disk of that name, at a socket of that name.
pub(crate) fn disk(name: &str) -> ServedDisk {
    let url = "iscsi://127.0.0.1:1/iqn.2001-04.com.example:disk/1";
    ServedDisk {
        name: DiskName::new(name).unwrap(),
        disk: DiskSettings {
            target: TargetUrl::parse(url).unwrap(),
            initiator: InitiatorSettings {
                name: IscsiName::parse("iqn.2001-04.com.example:us").unwrap(),
                chap: None,
                header_digest: DigestPreference::Avoid,
                data_digest: DigestPreference::Avoid,
                login_timeout: DEFAULT_LOGIN_TIMEOUT,
            },
            read_only: false,
            num_queues: 1,
            queue_size: QueueSize::MAX,
            sessions: 1,
            poll_limit: std::time::Duration::ZERO,
            command_timeout: None,
            share_sessions: false,
            lun_reset: false,
            io_timeout: None,
            ignore_power_loss: false,
            serial: None,
            capacity_poll: None,
            limits: crate::limits::Limits::default(),
            wait_for_target: true,
        },
        socket: SocketSettings::Path(SocketPathSettings {
            path: SocketPath::new(PathBuf::from(format!("/run/{name}.sock"))).unwrap(),
            mode: 0o660,
            group_id: None,
        }),
    }
}
