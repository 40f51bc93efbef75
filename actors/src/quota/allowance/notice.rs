//! What calls tell the actor that keeps the allowance filled.

use std::sync::Arc;

use raft::journal::JournalError;
use tokio::sync::oneshot;

use super::set::MeterSet;
use super::waiter::Waiter;

/// Bounded: a wait per call in progress, a mark per set.
pub(crate) enum Notice {
    /// A call waits for tokens.
    Wait(Box<Waiter>),
    /// There is something to report of a set, or to acquire for it.
    Marked(Arc<MeterSet>),
    /// Calls cannot be noted any more.
    JournalFailed(JournalError),
    /// The node leaves: give everything back, and answer when that is done.
    Drain(oneshot::Sender<()>),
}
