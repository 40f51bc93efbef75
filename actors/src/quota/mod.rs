//! Quota: the node's book. Tokens the ledger granted to this node are spent here with one atomic step; an empty book waits for a draw.
//!
//! Requests take from the book and give back to it; the actor keeps it filled. It alone talks to the ledger, with one
//! batch in flight: what is spent, returned and wanted meanwhile travels in the next one, so the ledger sees some dozens
//! of batches a second whatever the request rate.

mod actor;
mod amount;
mod batch;
mod book;
mod charge;
mod decide;
mod estimate;
mod ledger;
mod meter;
mod past;
mod queue;
mod reading;
mod reservation;
mod standing;
mod tally;
mod tend;
mod turns;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use raft::resources::LimitScope;
use raft::state::MeterId;
use tokio::sync::oneshot;

use crate::routing::{Name, Permit};
use crate::{Deps, Settings};

use actor::QuotaMessage;
use book::{Book, MeterSet, Party, Slots};
use ledger::Ledger;
use past::Replay;
use queue::Waiter;
use reservation::{Hold, Holds};

pub(crate) use actor::QuotaActor;
pub use amount::Amount;
pub use charge::{Charge, Source};
pub use reservation::{Limits, Reservation};
pub use standing::LimitStanding;

/// Handle of the quota actor.
#[derive(Clone)]
pub struct Quota {
    shared: Arc<Shared>,
}

/// What requests and the actor share.
pub(crate) struct Shared {
    book: Arc<Book>,
    ledger: Ledger,
    settings: Settings,
}

impl Quota {
    pub(crate) fn new(deps: &Deps) -> Quota {
        let ledger = Ledger::new(deps);
        let shared =
            Shared { book: Arc::new(Book::new(Replay::new(&ledger))), ledger, settings: deps.settings.clone() };
        Quota { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Holds `need` in every limit of the permit, all or nothing. On a warm book this does not wait. What is above a whole limit
    /// is cut to that limit, so that a large call is possible in a fresh window; what is above a hard one is refused.
    pub async fn reserve(&self, permit: &Permit, need: Amount) -> Result<Reservation, QuotaRefusal> {
        let limits = &permit.subscription().limits;
        // What most calls share comes last, and is held the shortest while others are waited for. One order for all: nobody waits in a ring.
        let scopes = LimitScope::NAMES.map(|(_, scope)| scope).into_iter();
        let mut holds = Holds::new();
        for scope in scopes.filter(|scope| limits.iter().any(|limit| limit.scope == *scope)) {
            // Without the last one, the others end here: nothing was used.
            holds.push(self.hold(permit, Party::of(permit, scope), need).await?);
        }
        Ok(Reservation::new(&self.shared, permit.clone(), holds, need))
    }

    /// Holds `need` in every limit of one party.
    async fn hold(&self, permit: &Permit, party: Party, need: Amount) -> Result<Hold, QuotaRefusal> {
        let book = &self.shared.book;
        let set = book.obtain(permit, party);
        let slots = set.slots.load_full();
        if slots.stand_for(&permit.subscription().limits) {
            if !set.somebody_waits() && set.take(&slots, need) {
                book.mark_if_low(&set, &slots);
                return Ok(Hold::new(&self.shared, set, slots, need));
            }
            if let Some(refusal) = self.hopeless(permit, &slots, need) {
                return Err(refusal);
            }
        }
        self.wait(permit, set, need).await
    }

    /// Refuses at once what cannot be had before a window ends, so that refused callers cost the ledger nothing.
    fn hopeless(&self, permit: &Permit, slots: &Slots, need: Amount) -> Option<QuotaRefusal> {
        let now = self.shared.ledger.now();
        let spent = slots.slots.iter().find(|slot| slot.is_spent_for(need, now))?;
        Some(queue::exhausted(permit, spent, need, now, true))
    }

    async fn wait(&self, permit: &Permit, set: Arc<MeterSet>, need: Amount) -> Result<Hold, QuotaRefusal> {
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(permit.clone(), set, need, reply);
        if !self.shared.book.mailbox.send(QuotaMessage::Wait(Box::new(waiter))) {
            return Err(QuotaRefusal::Unavailable);
        }
        // The actor drops the other end only if it fails.
        answer.await.unwrap_or(Err(QuotaRefusal::Unavailable))
    }

    /// Counts a call that a limit refused. The ledger hears of it with what else there is to tell.
    pub fn note_limited(&self, permit: &Permit) {
        let scopes = LimitScope::NAMES.map(|(_, scope)| scope).into_iter();
        let mut sets =
            scopes.filter_map(|scope| self.shared.book.find(&permit.subscription().key, &Party::of(permit, scope)));
        if let Some(set) = sets.next() {
            set.tally().add_limited(permit);
        }
    }

    /// How many output tokens a call will probably need: what the caller asked for (`asked`, all choices together) unless that is far
    /// beyond what this subscription's calls to this model usually need; the learnt size if nothing was asked.
    pub fn output_estimate(&self, permit: &Permit, asked: Option<u64>) -> u64 {
        match self.shared.book.size(permit) {
            Some(size) => size.estimate(asked),
            None => estimate::cold(asked),
        }
    }

    /// What this node holds of every meter, for whoever checks that it adds up; windows that are over included.
    pub fn holdings(&self) -> Vec<Holding> {
        let book = &self.shared.book;
        let is_waiting = book.in_flight.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        book.sets().iter().flat_map(|set| set.holdings(is_waiting)).collect()
    }

    /// Tells the ledger what was spent, gives every grant back, and waits until that is in the log.
    pub(crate) async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        if self.shared.book.mailbox.send(QuotaMessage::Drain(done)) {
            // Dropped unanswered if the actor fails: what is left comes free when the windows end.
            let _ = drained.await;
        }
    }
}

/// What a node holds of one meter, in its unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The meter.
    pub meter: MeterId,
    /// The window; 0 if none is known.
    pub window: u64,
    /// Held by calls in progress.
    pub in_calls: u64,
    /// All of it: free, held, and used without the ledger knowing. `None` while something is on its way to the ledger, because nobody
    /// knows then on which side of the way it is.
    pub all: Option<u64>,
}

/// Why no tokens were reserved.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuotaRefusal {
    /// A limit is used up, or held by calls in progress.
    #[error("{}", standing.refusal(subscription, *needed))]
    Exhausted {
        /// Whose limit.
        subscription: Name,
        /// The limit that refused.
        standing: LimitStanding,
        /// What the call would have needed.
        needed: u64,
        /// When a call of this size can be expected to pass: the window's end, or soon if calls in progress hold the tokens.
        retry_after: Duration,
    },
    /// The ledger cannot be reached, so nothing can be granted: fail closed.
    #[error("the quota ledger cannot be reached; retry in a moment")]
    Unavailable,
    /// The subscription or the limit has just been removed.
    #[error("the subscription's limits have changed; retry")]
    Changed,
}
