//! The processes of the benchmark: the target, the back-end and the peer, each on its processor.
//!
//! All of them end with the benchmark, however that ends: each is killed when its value is
//! dropped, and by the kernel when the benchmark is gone.

pub(crate) mod pin;
pub(crate) mod server;
pub(crate) mod target;
mod template;

pub(crate) use pin::Pinning;
pub(crate) use server::{Server, ServerOptions, Subject};
pub(crate) use target::{Target, TargetName};
