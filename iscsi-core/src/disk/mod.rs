//! A logical unit as a disk: what is known about it, and how block requests become commands.

pub mod barrier;
mod deferred;
mod depth;
pub mod durability;
pub mod facts;
pub mod identity;
pub mod limits;
pub mod plan;
pub mod probe;
pub mod probe_error;
pub mod record;
pub mod request;
pub mod requests;
pub mod setback;
pub mod shared;

#[cfg(test)]
mod example;
