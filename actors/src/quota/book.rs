//! The book: what this node holds of every limit of every user it has seen, as atomics that requests take from.
//!
//! A [`Meter`] is one limit in one window, a [`Slot`] a limit with the window that is open now. A [`MeterSet`] is all limits of one scope that somebody has on one model through one
//! subscription; what it publishes (`slots`) is replaced whole, so a reservation keeps the meters it took from and
//! settles in the window it belongs to, whatever happened since.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwap;
use raft::Timestamp;
use raft::resources::{Enforcement, Limit, LimitScope, Price, Unit};
use raft::state::{MeterId, Subject};

use super::Holding;
use super::actor::QuotaMessage;
use super::amount::{Amount, Rate, Sum};
use super::estimate::OutputSize;
use super::meter::Meter;
use super::past::Replay;
use super::reading::InFlight;
use super::tally::Tally;
use crate::mailbox::Mailbox;
use crate::routing::{AccessKey, Permit};

// === Slots: the limits of a set, each with its current window ===

/// One limit, its current window, and what the ledger last said of it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) rule: Arc<Rule>,
    pub(super) meter: Arc<Meter>,
    /// Charged in the meter's window beside what the meter says was used, as this node last saw it.
    pub(super) settled: u64,
    /// Held in that window by other nodes, or stranded.
    pub(super) elsewhere: u64,
}

/// One limit of somebody.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) id: Arc<MeterId>,
    pub(super) limit: u64,
    /// The window as written.
    pub(super) window: String,
    /// Nothing may ever be used beyond it.
    pub(super) is_hard: bool,
    /// Of tokens, if it counts money.
    pub(super) price: Price,
}

impl Rule {
    /// What the limit counts.
    pub(super) fn unit(&self) -> Unit {
        self.id.limit.unit
    }

    /// How much of it is gone once a call has used `amount` and ended.
    pub(super) fn used_of(&self, amount: Amount) -> u64 {
        amount.used_of(self.unit(), self.price)
    }
}

impl Slot {
    /// A slot of a limit of which nothing is known yet.
    pub(super) fn new(rule: Arc<Rule>) -> Slot {
        Slot { rule, meter: Arc::default(), settled: 0, elsewhere: 0 }
    }

    /// How much of it a call takes that needs `need`: a call larger than the whole limit takes the whole limit, unless that is hard.
    pub(super) fn share_of(&self, need: Amount) -> u64 {
        let share = need.held_of(self.rule.unit(), self.rule.price);
        if self.rule.is_hard { share } else { share.min(self.rule.limit) }
    }

    /// So much a second, as the limit counts it.
    pub(super) fn rate(&self, rate: Rate) -> f64 {
        rate.of(self.rule.unit(), self.rule.price)
    }

    /// Whether `need` cannot be had before the window ends, whatever comes back: so much is really spent.
    pub(super) fn is_spent_for(&self, need: Amount, now: Timestamp) -> bool {
        self.meter.number != 0
            && self.meter.ends > now
            && self.used().saturating_add(self.share_of(need)) > self.rule.limit
    }

    /// Used in the meter's window, by everybody, as far as this node knows.
    pub(super) fn used(&self) -> u64 {
        self.settled.saturating_add(self.meter.used())
    }
}

/// Everything a reservation takes from, published whole.
#[derive(Default, Debug)]
pub(super) struct Slots {
    /// All limits that the subscription said, these slots' among them. `None`: the subscription or the model is gone.
    pub(super) limits: Option<Vec<Limit>>,
    pub(super) slots: Vec<Slot>,
}

impl Slots {
    /// Slots of a party under `limits`; meters of `before` that go on being limits, as high as before or higher, are kept.
    pub(super) fn of(key: &AccessKey, party: &Party, limits: Option<Vec<Limit>>, before: &Slots) -> Slots {
        let mut slots: Vec<Slot> = Vec::new();
        for limit in limits.iter().flatten().filter(|limit| limit.scope == party.scope) {
            let id = Arc::new(MeterId {
                subscription: (key.subscription.namespace.to_string(), key.subscription.name.to_string()),
                model: (key.model.namespace.to_string(), key.model.name.to_string()),
                limit: limit.kind(),
                subject: party.subject.clone(),
            });
            let is_hard = limit.enforcement == Enforcement::Hard;
            let (window, price) = (limit.window.clone(), limit.price);
            let rule = Arc::new(Rule { id, limit: limit.limit, window, is_hard, price });
            // Two limits of one kind are one: the smaller, or of two alike the hard one.
            if let Some(slot) = slots.iter_mut().find(|slot| slot.rule.id == rule.id) {
                if (rule.limit, !rule.is_hard) < (slot.rule.limit, !slot.rule.is_hard) {
                    slot.rule = rule;
                }
                continue;
            }
            // Under a lowered limit the meter begins empty: what was granted under the higher one goes back unspent.
            let known = before.slots.iter().find(|slot| slot.rule.id == rule.id && slot.rule.limit <= rule.limit);
            slots.push(
                known.map_or_else(|| Slot::new(rule.clone()), |slot| Slot { rule: rule.clone(), ..slot.clone() }),
            );
        }
        Slots { limits, slots }
    }

    /// Whether a permit under `limits` may take from these slots.
    pub(super) fn stand_for(&self, limits: &[Limit]) -> bool {
        self.limits.as_deref() == Some(limits)
    }

    /// Reserves `need` in every slot, or in none.
    pub(super) fn take(&self, need: Amount) -> bool {
        for (at, slot) in self.slots.iter().enumerate() {
            if !slot.meter.take(slot.share_of(need)) {
                for taken in &self.slots[..at] {
                    taken.meter.put_back(taken.share_of(need));
                }
                return false;
            }
        }
        true
    }

    /// Ends a reservation of `need` of which (or beyond which) `used` was used.
    pub(super) fn settle(&self, need: Amount, used: Amount) {
        for slot in &self.slots {
            slot.meter.settle(slot.share_of(need), slot.rule.used_of(used));
        }
    }

    /// Gives back what a reservation of `before` holds beyond one of `after`.
    pub(super) fn give_back(&self, before: Amount, after: Amount) {
        for slot in &self.slots {
            slot.meter.put_back(slot.share_of(before) - slot.share_of(after));
        }
    }

    fn is_low(&self) -> bool {
        self.slots.iter().any(|slot| slot.meter.is_low())
    }
}

// === MeterSet: the limits of one scope on one model through one subscription, as one party has them ===

/// Who is counted together, and by limits of which scope. A call counts for one party of each scope that has limits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Party {
    pub(super) scope: LimitScope,
    pub(super) subject: Subject,
}

impl Party {
    /// Whom a permit's calls count for.
    pub(super) fn of(permit: &Permit, scope: LimitScope) -> Party {
        let caller = permit.caller();
        Party { scope, subject: Subject::of(scope, caller.user(), caller.key_id()) }
    }
}

/// What one party holds. Requests share it; the actor looks after it.
pub(crate) struct MeterSet {
    /// Never used twice.
    pub(super) id: u64,
    pub(super) key: Arc<AccessKey>,
    pub(super) party: Party,
    pub(super) size: Arc<OutputSize>,
    pub(super) slots: ArcSwap<Slots>,
    /// Calls that wait for tokens. While there are any, nobody may overtake them.
    waiting: AtomicUsize,
    /// Whether the actor has been told to look at it and has not yet.
    is_marked: AtomicBool,
    /// What was ever reserved: its rate sizes the draws.
    taken: Sum,
    /// Meters of windows that are over, in which calls in progress still settle.
    retired: Mutex<Vec<(Arc<Rule>, Arc<Meter>)>>,
    /// What calls used whose first hold was in this set.
    tally: Mutex<Tally>,
}

impl MeterSet {
    fn new(id: u64, permit: &Permit, party: Party, size: Arc<OutputSize>) -> MeterSet {
        let access = permit.subscription();
        let slots = Slots::of(&access.key, &party, Some(access.limits.clone()), &Slots::default());
        MeterSet {
            id,
            key: access.key.clone(),
            party,
            size,
            slots: ArcSwap::from_pointee(slots),
            waiting: AtomicUsize::new(0),
            is_marked: AtomicBool::new(false),
            taken: Sum::default(),
            retired: Mutex::default(),
            tally: Mutex::default(),
        }
    }

    /// Reserves `need` in `slots` and counts it.
    pub(super) fn take(&self, slots: &Slots, need: Amount) -> bool {
        let is_taken = slots.take(need);
        if is_taken {
            self.taken.add(need);
        }
        is_taken
    }

    /// What was reserved so far.
    pub(super) fn taken(&self) -> Amount {
        self.taken.get()
    }

    pub(super) fn somebody_waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    pub(super) fn retired(&self) -> MutexGuard<'_, Vec<(Arc<Rule>, Arc<Meter>)>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a call is settled here, and while the ledger's batch is made: so both say the same of each call.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held of each meter; `is_waiting`: something is on its way to the ledger.
    pub(super) fn holdings(&self, is_waiting: bool) -> Vec<Holding> {
        let holding = |rule: &Rule, meter: &Meter| Holding {
            meter: (*rule.id).clone(),
            window: meter.number,
            in_calls: meter.held(),
            all: (!is_waiting).then(|| meter.free() + meter.held() + meter.unreported()),
        };
        let slots = self.slots.load();
        let current = slots.slots.iter().map(|slot| holding(&slot.rule, &slot.meter));
        current.chain(self.retired().iter().map(|(rule, meter)| holding(rule, meter))).collect()
    }

    /// The actor is about to look at it: from now on it wants to be told again.
    pub(super) fn unmark(&self) {
        self.is_marked.store(false, Ordering::Release);
    }
}

/// A place in the queue of a set; dropping it leaves the queue.
pub(super) struct Ticket(Arc<MeterSet>);

impl Ticket {
    pub(super) fn draw(set: &Arc<MeterSet>) -> Ticket {
        set.waiting.fetch_add(1, Ordering::AcqRel);
        Ticket(set.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

// === Book: all sets ===

/// All that this node holds. It outlives the actor that looks after it.
pub(super) struct Book {
    accounts: RwLock<HashMap<Arc<AccessKey>, Account>>,
    ids: AtomicU64,
    pub(super) mailbox: Mailbox<QuotaMessage>,
    /// What was last sent to the ledger, until it is answered: kept here so that a restarted actor sends it again.
    pub(super) in_flight: Mutex<Option<Arc<InFlight>>>,
    /// The number of the last batch.
    pub(super) sequence: AtomicU64,
    /// What earlier lives of this node left.
    pub(super) past: Mutex<Replay>,
}

/// A subscription's model.
struct Account {
    size: Arc<OutputSize>,
    sets: HashMap<Party, Arc<MeterSet>>,
}

impl Book {
    pub(super) fn new(past: Replay) -> Book {
        Book {
            accounts: RwLock::default(),
            ids: AtomicU64::new(1),
            mailbox: Mailbox::new(),
            in_flight: Mutex::default(),
            sequence: AtomicU64::new(0),
            past: Mutex::new(past),
        }
    }

    /// The set that `party` has through a permit.
    pub(super) fn obtain(&self, permit: &Permit, party: Party) -> Arc<MeterSet> {
        if let Some(known) = self.find(&permit.subscription().key, &party) {
            return known;
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let account = accounts
            .entry(permit.subscription().key.clone())
            .or_insert_with(|| Account { size: Arc::default(), sets: HashMap::new() });
        let size = account.size.clone();
        let set = account.sets.entry(party.clone()).or_insert_with(|| {
            let id = self.ids.fetch_add(1, Ordering::AcqRel);
            Arc::new(MeterSet::new(id, permit, party, size))
        });
        set.clone()
    }

    /// The learnt sizes of a permit's calls, if there were any.
    pub(super) fn size(&self, permit: &Permit) -> Option<Arc<OutputSize>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        Some(accounts.get(&permit.subscription().key)?.size.clone())
    }

    /// The set of a party, if there is one.
    pub(super) fn find(&self, key: &AccessKey, party: &Party) -> Option<Arc<MeterSet>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(key)?.sets.get(party).cloned()
    }

    /// All sets, oldest first.
    pub(super) fn sets(&self) -> Vec<Arc<MeterSet>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let mut sets: Vec<Arc<MeterSet>> =
            accounts.values().flat_map(|account| account.sets.values()).cloned().collect();
        sets.sort_by_key(|set| set.id);
        sets
    }

    /// Forgets a set in which there is nothing.
    pub(super) fn forget(&self, set: &MeterSet) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let Some(account) = accounts.get_mut(&set.key) else { return };
        if account.sets.get(&set.party).is_some_and(|known| known.id == set.id) {
            account.sets.remove(&set.party);
        }
    }

    /// Forgets what was learnt of those that are gone.
    pub(super) fn prune(&self, is_gone: impl Fn(&AccessKey) -> bool) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|key, account| !(account.sets.is_empty() && is_gone(key)));
    }

    /// Asks the actor to look at `set`; does nothing if it was asked already.
    pub(super) fn mark(&self, set: &Arc<MeterSet>) {
        if !set.is_marked.swap(true, Ordering::AcqRel) {
            self.mailbox.send(QuotaMessage::Marked(set.clone()));
        }
    }

    /// Asks the actor to look at `set` if a draw would spare the next calls the wait.
    pub(super) fn mark_if_low(&self, set: &Arc<MeterSet>, slots: &Slots) {
        if slots.is_low() {
            self.mark(set);
        }
    }
}

#[cfg(test)]
mod tests;
