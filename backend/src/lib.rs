//! The back-end of `vhost-user-iscsi`.
