//! Quota: whether tokens are left, and how much of them this node may spend without asking.
//!
//! Two rooms and one arrow, `refill -> allowance`. Requests take from the local allowance and give back to it, each with one
//! atomic step. The refill keeps it filled: it alone sends batches to the ledger, one at a time. What is spent, returned and
//! wanted meanwhile travels in the next one, so the ledger sees some dozens of batches a second whatever the request rate.
//! Both reach the cluster through [`ledger::Ledger`].

mod allowance;
mod ledger;
mod refill;

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::Deps;
use crate::routing::Permit;

use allowance::{Allowance, Notice};
use ledger::Ledger;
use refill::{Outbox, Refill};

pub use allowance::{Amount, Charge, Holding, LimitStanding, Limits, QuotaRefusal, Reservation, Source};
pub(crate) use refill::QuotaActor;

/// Handle of the quota actor.
#[derive(Clone)]
pub struct Quota {
    allowance: Arc<Allowance>,
    outbox: Arc<Outbox>,
}

impl Quota {
    pub(crate) fn new(deps: &Deps) -> Quota {
        let allowance = Arc::new(Allowance::new(Ledger::new(deps), deps.settings.clone()));
        let outbox = Arc::new(Outbox::new(&allowance.ledger));
        Quota { allowance, outbox }
    }

    /// What the actor is started with, each time.
    pub(crate) fn refill(&self) -> Refill {
        Refill { allowance: self.allowance.clone(), outbox: self.outbox.clone() }
    }

    /// Holds `need` in every limit of the permit, all or nothing. With a warm local allowance this does not wait. What is above a whole limit
    /// is cut to that limit, so that a large call is possible in a fresh window; what is above a hard one is refused. A call that
    /// nobody competes with is content with the rest of a limit, unless that is hard.
    pub async fn reserve(&self, permit: &Permit, need: Amount) -> Result<Reservation, QuotaRefusal> {
        self.allowance.reserve(permit, need).await
    }

    /// The first limit of the permit of which calls in progress, or other nodes, hold what a call needs that needs `need`, as far as this
    /// node knows: it would have to wait.
    pub fn contended(&self, permit: &Permit, need: Amount) -> Option<LimitStanding> {
        self.allowance.contended(permit, need)
    }

    /// Counts a call that a limit refused. The ledger hears of it with what else there is to tell.
    pub fn note_limited(&self, permit: &Permit) {
        self.allowance.note_limited(permit);
    }

    /// How many output tokens a call will probably need: what the caller asked for (`asked`, all choices together) unless that is far
    /// beyond what this subscription's calls to this model usually need; the learnt size if nothing was asked.
    pub fn output_estimate(&self, permit: &Permit, asked: Option<u64>) -> u64 {
        self.allowance.output_estimate(permit, asked)
    }

    /// What this node holds of every meter, for whoever checks that it adds up; windows that are over included.
    pub fn holdings(&self) -> Vec<Holding> {
        let is_waiting = self.outbox.is_waiting();
        self.allowance.sets().iter().flat_map(|set| set.holdings(is_waiting)).collect()
    }

    /// Tells the ledger what was spent, gives every grant back, and waits until that is in the log.
    pub(crate) async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        if self.allowance.notices.send(Notice::Drain(done)) {
            // Dropped unanswered if the actor fails: what is left comes free when the windows end.
            let _ = drained.await;
        }
    }
}
