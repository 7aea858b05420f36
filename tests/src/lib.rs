//! The harness: real targets, the daemon, a front-end client.
