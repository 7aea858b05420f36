//! The binary `vhost-user-iscsi`.

fn main() {}
