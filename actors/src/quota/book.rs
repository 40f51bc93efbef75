//! The book: what this node holds of every limit of every user it has seen, as atomics that requests take from.
//!
//! A [`Meter`] is one limit in one window. A [`MeterSet`] is all limits of one scope that somebody has on one model through one
//! subscription; what it publishes (`slots`) is replaced whole, so a reservation keeps the meters it took from and
//! settles in the window it belongs to, whatever happened since.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwap;
use raft::Timestamp;
use raft::resources::{Enforcement, LimitScope, TokenRateLimit, Unit};
use raft::state::{MeterId, Subject};

use super::Holding;
use super::actor::QuotaMessage;
use super::amount::{Amount, Sum};
use super::estimate::OutputSize;
use super::ledger::InFlight;
use super::tally::Tally;
use crate::mailbox::Mailbox;
use crate::routing::{AccessKey, Permit};

// === Meter: one limit in one window ===

/// What this node has of one limit in one window, in the limit's unit: tokens, or requests. At rest `free + held + used - told` is what was granted and not given back.
#[derive(Default, Debug)]
pub(super) struct Meter {
    /// The window's number; 0: none is known, and nothing is held.
    pub(super) number: u64,
    /// When the window ends, by the state clock.
    pub(super) ends: Timestamp,
    /// Granted, and nobody's.
    free: AtomicU64,
    /// Reserved by calls in progress.
    held: AtomicU64,
    /// Used so far, excess apart. It only grows, so what callers are told does not depend on where a report is.
    used: AtomicU64,
    /// The part of `used` that is on its way to the ledger. Only the actor looks at it.
    reporting: AtomicU64,
    /// The part of `used` that the ledger has confirmed. Only the actor looks at it.
    told: AtomicU64,
    /// Used beyond what was held and free, and not yet told to the ledger.
    excess: AtomicU64,
    /// The window is over, or the limit is gone: nothing may be taken any more, and what comes back goes to the ledger.
    is_retired: AtomicBool,
    /// The window is over: what was granted in it means nothing any more, only excess does.
    is_lapsed: AtomicBool,
    /// Below this the actor wants to hear of it.
    low_water: AtomicU64,
}

impl Meter {
    pub(super) fn new(number: u64, ends: Timestamp) -> Meter {
        Meter { number, ends, ..Meter::default() }
    }

    /// Reserves `tokens` if so many are free.
    pub(super) fn take(&self, tokens: u64) -> bool {
        // Held first: whoever looks in between sees too much held, never a meter that nobody uses.
        self.held.fetch_add(tokens, Ordering::AcqRel);
        let taken =
            self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(tokens)).is_ok();
        if !taken {
            self.held.fetch_sub(tokens, Ordering::AcqRel);
        }
        taken
    }

    /// Undoes a [`Meter::take`].
    pub(super) fn put_back(&self, tokens: u64) {
        self.free.fetch_add(tokens, Ordering::AcqRel);
        self.held.fetch_sub(tokens, Ordering::AcqRel);
    }

    /// Ends a reservation of `held` tokens of which (or beyond which) `used` were used. What was used beyond it is taken from what
    /// is free here, and else is excess.
    pub(super) fn settle(&self, held: u64, used: u64) {
        let covered = used.min(held);
        let beyond = used - covered;
        let found = if beyond == 0 || self.is_retired.load(Ordering::Acquire) { 0 } else { self.take_free(beyond) };
        self.used.fetch_add(covered + found, Ordering::AcqRel);
        self.excess.fetch_add(beyond - found, Ordering::AcqRel);
        self.free.fetch_add(held - covered, Ordering::AcqRel);
        self.held.fetch_sub(held, Ordering::AcqRel);
    }

    /// Adds tokens the ledger granted.
    pub(super) fn grant(&self, tokens: u64) {
        self.free.fetch_add(tokens, Ordering::AcqRel);
    }

    /// Takes up to `max` free tokens, and returns how many: they belong to the caller now.
    pub(super) fn take_free(&self, max: u64) -> u64 {
        let before = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| Some(free.saturating_sub(max)));
        before.unwrap_or(0).min(max)
    }

    /// Takes what has to be reported as spent; [`Meter::reported`] ends it.
    pub(super) fn start_report(&self) -> u64 {
        let spent = self.unreported() - self.reporting.load(Ordering::Acquire);
        self.reporting.fetch_add(spent, Ordering::AcqRel);
        spent
    }

    /// The ledger knows of `spent` now.
    pub(super) fn reported(&self, spent: u64) {
        self.told.fetch_add(spent, Ordering::AcqRel);
        self.reporting.fetch_sub(spent, Ordering::AcqRel);
    }

    /// How much of what the ledger says was settled is in `used`, too. `None` while a report is on its way: nobody knows then
    /// whether the ledger has it.
    pub(super) fn told(&self) -> Option<u64> {
        (self.reporting.load(Ordering::Acquire) == 0).then(|| self.told.load(Ordering::Acquire))
    }

    /// Takes what has to be reported as excess.
    pub(super) fn take_excess(&self) -> u64 {
        self.excess.swap(0, Ordering::AcqRel)
    }

    /// Nothing may be taken any more.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Its window is over.
    pub(super) fn lapse(&self) {
        self.is_lapsed.store(true, Ordering::Release);
        self.free.store(0, Ordering::Release);
    }

    pub(super) fn is_lapsed(&self) -> bool {
        self.is_lapsed.load(Ordering::Acquire)
    }

    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Acquire)
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Of `granted` tokens: what may come back. Beside what is held here, that is what is on its way back to the ledger, and what
    /// is held in a meter that another one has replaced.
    pub(super) fn held_of(&self, granted: u64) -> u64 {
        self.held().max(granted.saturating_sub(self.free()).saturating_sub(self.unreported()))
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Used, and not in the ledger as far as this node knows.
    fn unreported(&self) -> u64 {
        self.used() - self.told.load(Ordering::Acquire)
    }

    /// Whether there is something to tell the ledger.
    pub(super) fn has_news(&self) -> bool {
        let may_return = self.is_retired.load(Ordering::Acquire) && self.free() > 0;
        let has_spent = self.unreported() > self.reporting.load(Ordering::Acquire);
        let has_news_of_window = has_spent || may_return;
        self.excess.load(Ordering::Acquire) > 0 || (has_news_of_window && !self.is_lapsed())
    }

    /// Whether nothing is in it, and nobody will settle in it.
    pub(super) fn is_empty(&self) -> bool {
        let has_excess = self.excess.load(Ordering::Acquire) > 0;
        self.held() == 0 && !has_excess && (self.is_lapsed() || (self.free() == 0 && self.unreported() == 0))
    }

    pub(super) fn set_low_water(&self, tokens: u64) {
        self.low_water.store(tokens, Ordering::Release);
    }

    fn is_low(&self) -> bool {
        self.free() < self.low_water.load(Ordering::Acquire)
    }
}

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
    pub(super) id: MeterId,
    pub(super) limit: u64,
    /// The window as written.
    pub(super) window: String,
    /// Nothing may ever be used beyond it.
    pub(super) is_hard: bool,
}

impl Slot {
    /// A slot of a limit of which nothing is known yet.
    pub(super) fn new(rule: Arc<Rule>) -> Slot {
        Slot { rule, meter: Arc::default(), settled: 0, elsewhere: 0 }
    }

    /// How much of it a call takes that needs `need`: a call larger than the whole limit takes the whole limit, unless that is hard.
    pub(super) fn share_of(&self, need: Amount) -> u64 {
        let share = need.in_unit(self.unit());
        if self.rule.is_hard { share } else { share.min(self.rule.limit) }
    }

    /// What the limit counts.
    pub(super) fn unit(&self) -> Unit {
        self.rule.id.limit.unit
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
    pub(super) limits: Option<Vec<TokenRateLimit>>,
    pub(super) slots: Vec<Slot>,
}

impl Slots {
    /// Slots of a party under `limits`; meters of `before` that go on being limits, as high as before or higher, are kept.
    pub(super) fn of(key: &AccessKey, party: &Party, limits: Option<Vec<TokenRateLimit>>, before: &Slots) -> Slots {
        let mut slots: Vec<Slot> = Vec::new();
        for limit in limits.iter().flatten().filter(|limit| limit.scope == party.scope) {
            let id = MeterId {
                subscription: (key.subscription.namespace.to_string(), key.subscription.name.to_string()),
                model: (key.model.namespace.to_string(), key.model.name.to_string()),
                limit: limit.kind(),
                subject: party.subject.clone(),
            };
            let is_hard = limit.enforcement == Enforcement::Hard;
            let rule = Arc::new(Rule { id, limit: limit.limit, window: limit.window.clone(), is_hard });
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
    pub(super) fn stand_for(&self, limits: &[TokenRateLimit]) -> bool {
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
            slot.meter.settle(slot.share_of(need), used.in_unit(slot.unit()));
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
            meter: rule.id.clone(),
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
}

/// A subscription's model.
struct Account {
    size: Arc<OutputSize>,
    sets: HashMap<Party, Arc<MeterSet>>,
}

impl Book {
    pub(super) fn new() -> Book {
        Book {
            accounts: RwLock::default(),
            ids: AtomicU64::new(1),
            mailbox: Mailbox::new(),
            in_flight: Mutex::default(),
            sequence: AtomicU64::new(0),
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
