//! The back-end of `vhost-user-iscsi`.

pub mod device;
pub mod guest_memory;
