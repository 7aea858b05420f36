//! A logical unit as a disk: what is known about it, and how block requests become commands.

pub mod facts;
pub mod request;
