//! An in-memory iSCSI target for tests, with a codec of its own, that can be told to misbehave.
//!
//! It shares no code with the initiator under test, so it does not share its mistakes. It is a
//! real target: other initiators use it too (see `tests/tools.rs`). It is strict: an initiator
//! that breaks a rule of RFC 7143 finds its connection closed and [`Event::Violation`] in the log.
//!
//! # A target, a script, a look at what happened
//!
//! ```no_run
//! use iscsi_test_target::{CommandFault, Event, LunConfig, Rule, TargetConfig, TestTarget, opcode};
//! use std::collections::BTreeMap;
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let config = TargetConfig {
//!     luns: BTreeMap::from([(0, LunConfig::of_bytes(1 << 30))]),
//!     ..TargetConfig::default()
//! };
//! let target = TestTarget::start(config)?;
//! // The second READ(16) gets BUSY, once.
//! let busy = target.add(Rule::command(CommandFault::BUSY).opcode(opcode::READ_16).skip(1).once());
//! println!("log in to {}", target.url(0));
//! // … let the initiator work …
//! let logged_in = target.wait_for(Duration::from_secs(5), |e| matches!(e, Event::LoggedIn { .. }));
//! assert!(logged_in.is_some());
//! assert_eq!(target.fired(busy), 1);
//! assert_eq!(target.violations(), [""; 0]);
//! target.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! * [`TargetConfig`] says what the target is: names, [`LunConfig`], [`Negotiation`], [`Delivery`],
//!   [`ChapConfig`]. It does not change while the target runs.
//! * [`Rule`] says what goes wrong and when: [`ConnectFault`], [`LoginFault`], [`CommandFault`],
//!   [`TaskManagementFault`].
//!   Rules come and go at run time through [`TestTarget::add`] and [`TestTarget::remove`].
//! * [`TestTarget`] also acts of itself: asynchronous messages, pings, cut, frozen and refused
//!   connections, unit attentions, changed capacities, release of held writes.
//! * [`Event`] and [`Counters`] tell what happened.
//!
//! # Stale writes
//!
//! A command struck by [`CommandFault::Hold`] is kept with its data. When its connection is gone,
//! [`TestTarget::release_held`] carries it out all the same, as a real target's I/O thread would:
//! a stale write. Session reinstatement (RFC 7143 section 6.3.5), Logout, ABORT TASK and resets end
//! held commands, so an initiator that does things right never sees [`Event::StaleWrite`].
//!
//! # What it does not do
//!
//! One connection per session; error recovery level 0 (a higher one can be negotiated, SNACK is
//! rejected); no reservations, no bidirectional commands, no autosense negotiation.

#![forbid(unsafe_code)]

mod answers;
mod authentication;
mod awake;
mod bytes;
mod chap;
mod commands;
mod config;
mod connection;
mod counters;
mod data;
mod discovery;
mod disk;
mod events;
mod inbox;
mod keys;
mod login;
mod login_answer;
mod management;
mod outbox;
mod pdu;
mod script;
mod scsi;
mod session;
mod sessions;
mod shared;
mod target;
mod text;
mod write_task;

pub use chap::{BinaryEncoding, ChapAlgorithm, Secret};
pub use config::{
    BlockLimits, ChapConfig, Delivery, Designator, DigestPolicy, LunAddressing, LunConfig,
    Negotiation, TargetConfig, Thin, opcode,
};
pub use counters::Counters;
pub use disk::{Disk, Full};
pub use events::{Event, SessionId};
pub use script::{CommandFault, ConnectFault, LoginFault, Rule, RuleId, TaskManagementFault};
pub use scsi::sense::Sense;
pub use sessions::AsyncEvent;
pub use target::{TestTarget, read_secret};
