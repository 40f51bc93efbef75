//! The local allowance: what this node holds of every limit of every user it has seen, as atomics that requests take from.
//!
//! A [`LocalMeter`] is one limit in one window, a [`Slot`] a limit with the window that is open now, a [`MeterSet`] all limits of
//! one scope that one limit subject has on one model through one subscription.
//!
//! This room knows nothing of the one that keeps it filled (`refill`). Calls reach that room by a [`Notice`].

mod amount;
mod charge;
mod estimate;
mod hold;
mod limits;
mod meter;
mod note;
mod notice;
mod refusal;
mod reservation;
mod reserve;
mod set;
mod slots;
mod standing;
mod tally;
mod waiter;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::Settings;
use crate::mailbox::Mailbox;
use crate::quota::ledger::Ledger;
use crate::routing::{AccessKey, Permit};

use estimate::OutputSize;

pub use amount::Amount;
pub use charge::{Charge, Source};
pub use limits::Limits;
pub use refusal::QuotaRefusal;
pub use reservation::Reservation;
pub use set::Holding;
pub use standing::LimitStanding;

pub(crate) use hold::Hold;
pub(crate) use meter::LocalMeter;
pub(crate) use notice::Notice;
pub(crate) use refusal::Obstacle;
pub(crate) use set::{LimitSubject, MeterSet};
pub(crate) use slots::{Granted, Rule, Slot, Slots};
pub(crate) use tally::label_bytes;
pub(crate) use waiter::Waiter;

/// All that this node holds. It outlives the actor that keeps it filled.
pub(crate) struct Allowance {
    accounts: RwLock<HashMap<Arc<AccessKey>, Account>>,
    ids: AtomicU64,
    /// How calls reach the refill.
    pub(crate) notices: Mailbox<Notice>,
    pub(crate) ledger: Ledger,
    pub(crate) settings: Settings,
}

/// A subscription's model.
struct Account {
    size: Arc<OutputSize>,
    sets: HashMap<LimitSubject, Arc<MeterSet>>,
}

impl Allowance {
    pub(crate) fn new(ledger: Ledger, settings: Settings) -> Allowance {
        let (accounts, ids, notices) = (RwLock::default(), AtomicU64::new(1), Mailbox::new());
        Allowance { accounts, ids, notices, ledger, settings }
    }

    /// The set that `limit_subject` has through a permit.
    pub(crate) fn obtain(&self, permit: &Permit, limit_subject: LimitSubject) -> Arc<MeterSet> {
        if let Some(known) = self.find(&permit.subscription().key, &limit_subject) {
            return known;
        }
        // What earlier calls teach is looked up before anybody has to wait for it.
        let size = self.size(permit);
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let account = accounts
            .entry(permit.subscription().key.clone())
            .or_insert_with(|| Account { size: size.clone(), sets: HashMap::new() });
        let size = account.size.clone();
        let set = account.sets.entry(limit_subject.clone()).or_insert_with(|| {
            let id = self.ids.fetch_add(1, Ordering::AcqRel);
            Arc::new(MeterSet::new(id, permit, limit_subject, size))
        });
        set.clone()
    }

    /// The learnt sizes of a permit's calls. At first they are what usage says of earlier ones, also of those of other nodes.
    fn size(&self, permit: &Permit) -> Arc<OutputSize> {
        let key = &permit.subscription().key;
        {
            let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(account) = accounts.get(key) {
                return account.size.clone();
            }
        }
        let size = Arc::new(OutputSize::of_usage(&self.ledger.view().usage, key));
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        accounts.entry(key.clone()).or_insert_with(|| Account { size, sets: HashMap::new() }).size.clone()
    }

    /// The set of a limit subject, if there is one.
    pub(crate) fn find(&self, key: &AccessKey, limit_subject: &LimitSubject) -> Option<Arc<MeterSet>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(key)?.sets.get(limit_subject).cloned()
    }

    /// All sets, oldest first.
    pub(crate) fn sets(&self) -> Vec<Arc<MeterSet>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let mut sets: Vec<Arc<MeterSet>> =
            accounts.values().flat_map(|account| account.sets.values()).cloned().collect();
        sets.sort_by_key(|set| set.id);
        sets
    }

    /// Forgets a set in which there is nothing.
    pub(crate) fn forget(&self, set: &MeterSet) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let Some(account) = accounts.get_mut(&set.key) else { return };
        if account.sets.get(&set.limit_subject).is_some_and(|known| known.id == set.id) {
            account.sets.remove(&set.limit_subject);
        }
    }

    /// Forgets what was learnt of those that are gone.
    pub(crate) fn prune(&self, is_gone: impl Fn(&AccessKey) -> bool) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|key, account| !(account.sets.is_empty() && is_gone(key)));
    }

    /// Asks the refill to look at `set`; does nothing if it was asked already.
    fn mark(&self, set: &Arc<MeterSet>) {
        if set.mark() {
            self.notices.send(Notice::Marked(set.clone()));
        }
    }

    /// Asks the refill to look at `set` if an acquire would spare the next calls the wait.
    fn mark_if_low(&self, set: &Arc<MeterSet>, slots: &Slots) {
        if slots.is_low() {
            self.mark(set);
        }
    }
}
