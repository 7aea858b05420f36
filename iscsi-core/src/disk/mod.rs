//! A logical unit as a disk: what is known about it, and how block requests become commands.

mod deferred;
mod depth;
pub mod facts;
pub mod identity;
pub mod limits;
pub mod plan;
pub mod probe;
pub mod probe_error;
pub mod request;
pub mod requests;
pub mod setback;

#[cfg(test)]
mod example;
