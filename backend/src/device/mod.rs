//! The vhost-user side: what the front-end and the guest's driver see.
//!
//! [`serve_front_end`] runs one front-end's connection. The rings it sets up go to the
//! [`RingOwner`], who serves them with [`SplitQueue`] and [`RequestParser`].

pub mod backend;
mod chain;
pub mod channel;
#[cfg(test)]
mod channel_tests;
mod config_change;
pub mod config_space;
pub mod features;
mod file_length;
mod filter;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod inflight;
#[cfg(test)]
mod inflight_tests;
mod message;
pub mod queue;
#[cfg(test)]
mod queue_model_tests;
pub mod request;
pub mod rings;
pub mod serial;
#[cfg(test)]
mod test_owner;
#[cfg(test)]
mod test_ring;

pub use backend::{BlockDevice, DeviceSettings};
pub use chain::ChainError;
pub use channel::{ChannelError, serve_front_end};
pub use config_change::Told;
pub use inflight::InflightError;
pub use message::MessageError;
pub use queue::{QueueError, SplitQueue};
pub use request::{Malformed, ParsedRequest, Range, RequestKind, RequestParser, Status};
pub use rings::{RingOwner, RingSetup};
