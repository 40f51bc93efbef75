//! The refill: keeps the local allowance filled, and is the only room that sends batches to the ledger.
//!
//! It reads and changes what is in `allowance`; that room knows nothing of this one.

mod actor;
mod batch;
mod decide;
mod ledger_snapshot;
mod outbox;
mod rate;
mod reading;
mod replay;
mod round_robin;
mod sending;
mod set_state;
mod ticking;
mod waiting;

use std::sync::Arc;

use super::allowance::Allowance;

pub(crate) use actor::QuotaActor;
pub(crate) use outbox::Outbox;

/// What the actor is started with: both outlive it.
#[derive(Clone)]
pub(crate) struct Refill {
    pub(crate) allowance: Arc<Allowance>,
    pub(crate) outbox: Arc<Outbox>,
}
