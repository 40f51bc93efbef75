//! Holding what a call needs: at once if the local allowance has it, and else by waiting for the refill.

use std::sync::Arc;

use raft::resources::LimitScope;
use tokio::sync::oneshot;

use super::Allowance;
use super::amount::Amount;
use super::hold::{Hold, Holds};
use super::notice::Notice;
use super::refusal::{Obstacle, QuotaRefusal};
use super::reservation::Reservation;
use super::set::{LimitSubject, MeterSet};
use super::slots::{Slot, Slots};
use super::standing::{self, LimitStanding};
use super::waiter::Waiter;
use crate::routing::Permit;

impl Allowance {
    /// Holds `need` in every limit of the permit, all or nothing. With a warm local allowance this does not wait. What is above a whole limit
    /// is cut to that limit, so that a large call is possible in a fresh window; what is above a hard one is refused. A call that
    /// nobody competes with is content with the rest of a limit.
    pub(crate) async fn reserve(self: &Arc<Self>, permit: &Permit, need: Amount) -> Result<Reservation, QuotaRefusal> {
        let limits = &permit.subscription().limits;
        // What most calls share comes last, and is held the shortest while others are waited for. One order for all: nobody waits in a ring.
        let scopes = LimitScope::NAMES.map(|(_, scope)| scope).into_iter();
        let mut holds = Holds::new();
        for scope in scopes.filter(|scope| limits.iter().any(|limit| limit.scope == *scope)) {
            // Without the last one, the others end here: nothing was used.
            holds.push(self.hold(permit, LimitSubject::of(permit, scope), need).await?);
        }
        Ok(Reservation::new(self, permit.clone(), holds, need))
    }

    /// Holds `need` in every limit of one limit subject.
    async fn hold(
        self: &Arc<Self>,
        permit: &Permit,
        limit_subject: LimitSubject,
        need: Amount,
    ) -> Result<Hold, QuotaRefusal> {
        let set = self.obtain(permit, limit_subject);
        let slots = set.slots.load_full();
        if slots.stand_for(&permit.subscription().limits) {
            if !set.somebody_waits()
                && let Some(granted) = set.take(&slots, need)
            {
                self.mark_if_low(&set, &slots);
                return Ok(Hold::new(self, set, slots, granted));
            }
            if let Some(refusal) = self.hopeless(permit, &slots, need) {
                return Err(refusal);
            }
        }
        self.wait(permit, set, need).await
    }

    /// Refuses at once what cannot be had before a window ends, so that refused callers cost the ledger nothing.
    fn hopeless(&self, permit: &Permit, slots: &Slots, need: Amount) -> Option<QuotaRefusal> {
        let now = self.ledger.now();
        let spent = slots.slots.iter().find(|slot| slot.is_spent_for(need, now))?;
        Some(Obstacle { slot: spent, is_spent: true, silent: Vec::new() }.refusal(permit, need, now))
    }

    /// The first limit of the permit of which calls in progress, or other nodes, hold what a call needs that needs `need`.
    pub(crate) fn contended(&self, permit: &Permit, need: Amount) -> Option<LimitStanding> {
        let now = self.ledger.now();
        let is_contended = |slot: &Slot| {
            let is_open = slot.meter.number != 0 && slot.meter.ends > now;
            let is_held = slot.meter.held() > 0 || slot.elsewhere > 0;
            let standing = (is_open && is_held).then(|| standing::of(slot, 0, now))?;
            (standing.remaining < slot.share_of(need)).then_some(standing)
        };
        let limits = &permit.subscription().limits;
        let scopes = LimitScope::NAMES.map(|(_, scope)| scope).into_iter();
        scopes.filter(|scope| limits.iter().any(|limit| limit.scope == *scope)).find_map(|scope| {
            let set = self.find(&permit.subscription().key, &LimitSubject::of(permit, scope))?;
            set.slots.load().slots.iter().find_map(is_contended)
        })
    }

    async fn wait(&self, permit: &Permit, set: Arc<MeterSet>, need: Amount) -> Result<Hold, QuotaRefusal> {
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(permit.clone(), set, need, reply);
        if !self.notices.send(Notice::Wait(Box::new(waiter))) {
            return Err(QuotaRefusal::Unavailable);
        }
        // The actor drops the other end only if it fails.
        answer.await.unwrap_or(Err(QuotaRefusal::Unavailable))
    }

    /// Counts a call that a limit refused. The ledger hears of it with what else there is to tell.
    pub(crate) fn note_limited(&self, permit: &Permit) {
        let scopes = LimitScope::NAMES.map(|(_, scope)| scope).into_iter();
        let mut sets =
            scopes.filter_map(|scope| self.find(&permit.subscription().key, &LimitSubject::of(permit, scope)));
        if let Some(set) = sets.next() {
            set.tally().add_limited(permit);
        }
    }

    /// How many output tokens a call will probably need: what the caller asked for (`asked`, all choices together) unless that is far
    /// beyond what this subscription's calls to this model usually need; the learnt size if nothing was asked.
    pub(crate) fn output_estimate(&self, permit: &Permit, asked: Option<u64>) -> u64 {
        self.size(permit).estimate(asked)
    }
}
