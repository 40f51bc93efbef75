//! What the cluster agrees on: resources, API keys, tokens and the quota ledger; the log that
//! carries them, its storage, and what nodes say to each other.
//!
//! The write path, in order:
//!
//! ```text
//! Cluster::propose -> (peer forward to the leader) -> stamp with the state clock -> log on a quorum of disks
//!   -> State::apply(index, time, command) -> Outcome { reply, changed } -> a new View is published -> reply
//! ```
//!
//! Guaranteed: an answered proposal is on a quorum of disks; `State::apply` is pure (no clock, no
//! chance, no I/O), so equal logs give equal states; views only move forward.
//! Refused: this crate knows nothing of HTTP to users, of model servers, or of actors, and no type of
//! the consensus library appears in its public surface.

pub mod cluster;
pub mod command;
pub mod doors;
pub mod ids;
pub mod journal;
pub mod peers;
pub mod resources;
pub mod state;
pub mod storage;

mod codec;
mod consensus;

pub use cluster::{Applied, Cluster, ProposeError};
pub use command::{Command, CommandRefusal, Reply};
pub use ids::{NodeId, RequestId, Timestamp};
pub use state::{State, View};
