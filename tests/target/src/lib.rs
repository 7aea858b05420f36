//! An in-memory iSCSI target for tests.
