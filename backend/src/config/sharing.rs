//! Which disks share sessions, and what they have to agree on for that.

use std::path::Path;

use iscsi_core::name::IscsiName;

use super::{DiskSettings, ServedDisk, SocketSettings};
use crate::portal::Portal;

/// Disks share for which this is the same: the directory of their sockets, and who logs in where.
pub(crate) type SharingKey<'a> = (&'a Path, &'a Portal, &'a IscsiName, &'a IscsiName);

impl ServedDisk {
    /// Whose sessions it shares; `None` when it has its own.
    pub(crate) fn sharing_key(&self) -> Option<SharingKey<'_>> {
        let SocketSettings::Path(socket) = &self.socket else {
            return None;
        };
        let DiskSettings {
            target, initiator, ..
        } = &self.disk;
        let directory = socket.path.as_path().parent()?;
        let key = (directory, &target.portal, &target.target, &initiator.name);
        self.disk.share_sessions.then_some(key)
    }
}

impl DiskSettings {
    /// A setting of sessions in which the two differ: they are made once, with one of each.
    pub fn session_setting_unlike(&self, other: &Self) -> Option<&'static str> {
        let (this, that) = (&self.initiator, &other.initiator);
        let settings = [
            ("the settings of CHAP", this.chap != that.chap),
            ("header-digest", this.header_digest != that.header_digest),
            ("data-digest", this.data_digest != that.data_digest),
            ("login-timeout", this.login_timeout != that.login_timeout),
            ("sessions", self.sessions != other.sessions),
            ("poll-max-us", self.poll_limit != other.poll_limit),
            (
                "command-timeout",
                self.command_timeout != other.command_timeout,
            ),
            ("lun-reset", self.lun_reset != other.lun_reset),
        ];
        let unlike = settings.into_iter().find(|(_, differs)| *differs);
        unlike.map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SocketPath;
    use crate::control::test_disk::disk;

    #[test]
    fn disks_share_that_have_the_same_target_initiator_and_directory() {
        let alone = disk("a");
        assert_eq!(alone.sharing_key(), None);
        let mut one = disk("a");
        one.disk.share_sessions = true;
        let mut other = disk("b");
        other.disk.share_sessions = true;
        assert!(one.sharing_key().is_some());
        assert_eq!(one.sharing_key(), other.sharing_key());
        other.disk.target.lun += 1;
        assert_eq!(one.sharing_key(), other.sharing_key());
        let SocketSettings::Path(socket) = &mut other.socket else {
            panic!("a path");
        };
        socket.path = SocketPath::new("/elsewhere/b.sock".into()).unwrap();
        assert_ne!(one.sharing_key(), other.sharing_key());
        other.socket = SocketSettings::Fd(3);
        assert_eq!(other.sharing_key(), None);
    }

    #[test]
    fn a_setting_that_differs_is_named() {
        let this = disk("a").disk;
        assert_eq!(this.session_setting_unlike(&this), None);
        let mut other = this.clone();
        other.lun_reset = !other.lun_reset;
        assert_eq!(this.session_setting_unlike(&other), Some("lun-reset"));
        other.sessions += 1;
        assert_eq!(this.session_setting_unlike(&other), Some("sessions"));
        let mut other = this.clone();
        other.read_only = !other.read_only;
        assert_eq!(this.session_setting_unlike(&other), None);
    }
}
