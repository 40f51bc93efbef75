//! A set: all limits of one scope that one limit subject has on one model through one subscription.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use raft::resources::LimitScope;
use raft::state::{MeterId, Subject};

use super::amount::{Amount, Sum};
use super::estimate::OutputSize;
use super::meter::LocalMeter;
use super::slots::{Granted, Rule, Slot, Slots};
use super::tally::Tally;
use crate::routing::{AccessKey, Permit};

/// Who is counted together, and by limits of which scope. A call counts for one limit subject of each scope that has limits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LimitSubject {
    pub(crate) scope: LimitScope,
    pub(crate) subject: Subject,
}

impl LimitSubject {
    /// Whom a permit's calls count for.
    pub(super) fn of(permit: &Permit, scope: LimitScope) -> LimitSubject {
        let caller = permit.caller();
        LimitSubject { scope, subject: Subject::of(scope, caller.user(), caller.key_id()) }
    }
}

/// What one limit subject holds. Requests share it; the actor looks after it.
pub(crate) struct MeterSet {
    /// Never used twice.
    pub(crate) id: u64,
    pub(crate) key: Arc<AccessKey>,
    pub(crate) limit_subject: LimitSubject,
    pub(super) size: Arc<OutputSize>,
    pub(crate) slots: ArcSwap<Slots>,
    /// Calls that wait for tokens. While there are any, nobody may overtake them.
    waiting: AtomicUsize,
    /// Whether the actor has been told to look at it and has not yet.
    is_marked: AtomicBool,
    /// What was ever reserved: its rate sizes the acquires.
    taken: Sum,
    /// Meters of windows that are over, in which calls in progress still settle.
    closed: Mutex<Vec<(Arc<Rule>, Arc<LocalMeter>)>>,
    /// What calls used whose first hold was in this set.
    tally: Mutex<Tally>,
}

impl MeterSet {
    pub(super) fn new(id: u64, permit: &Permit, limit_subject: LimitSubject, size: Arc<OutputSize>) -> MeterSet {
        let access = permit.subscription();
        let slots = Slots::of(&access.key, &limit_subject, Some(access.limits.clone()), &Slots::default());
        MeterSet {
            id,
            key: access.key.clone(),
            limit_subject,
            size,
            slots: ArcSwap::from_pointee(slots),
            waiting: AtomicUsize::new(0),
            is_marked: AtomicBool::new(false),
            taken: Sum::default(),
            closed: Mutex::default(),
            tally: Mutex::default(),
        }
    }

    /// Reserves `need` in `slots` and counts it.
    pub(crate) fn take(&self, slots: &Slots, need: Amount) -> Option<Granted> {
        self.take_or_rest(slots, need, |_| false)
    }

    /// The same, with less in slots that have only a rest. Only the actor knows which do.
    pub(crate) fn take_or_rest(
        &self,
        slots: &Slots,
        need: Amount,
        has_rest: impl Fn(usize) -> bool,
    ) -> Option<Granted> {
        let granted = slots.take(need, has_rest)?;
        self.taken.add(need);
        Some(granted)
    }

    /// Whether calls of this node hold anything of the window that `slot` is in.
    pub(crate) fn holds_any_of(&self, slot: &Slot) -> bool {
        let is_same = |rule: &Rule, meter: &LocalMeter| meter.number == slot.meter.number && rule.id == slot.rule.id;
        slot.meter.held() > 0
            || self.closed().iter().any(|(rule, meter)| is_same(rule, meter) && !meter.is_lapsed() && meter.held() > 0)
    }

    /// What was reserved so far.
    pub(crate) fn taken(&self) -> Amount {
        self.taken.get()
    }

    pub(crate) fn somebody_waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    pub(crate) fn closed(&self) -> MutexGuard<'_, Vec<(Arc<Rule>, Arc<LocalMeter>)>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a call is settled here, and while the ledger's batch is made: so both say the same of each call.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held of each meter; `is_waiting`: something is on its way to the ledger.
    pub(crate) fn holdings(&self, is_waiting: bool) -> Vec<Holding> {
        let holding = |rule: &Rule, meter: &LocalMeter| Holding {
            meter: (*rule.id).clone(),
            window: meter.number,
            in_calls: meter.held(),
            all: (!is_waiting).then(|| meter.free() + meter.held() + meter.unreported()),
        };
        let slots = self.slots.load();
        let current = slots.slots.iter().map(|slot| holding(&slot.rule, &slot.meter));
        current.chain(self.closed().iter().map(|(rule, meter)| holding(rule, meter))).collect()
    }

    /// Notes that the actor has to look at it. Whether it has to be told.
    pub(super) fn mark(&self) -> bool {
        !self.is_marked.swap(true, Ordering::AcqRel)
    }

    /// The actor is about to look at it: from now on it wants to be told again.
    pub(crate) fn unmark(&self) {
        self.is_marked.store(false, Ordering::Release);
    }
}

/// A place in the queue of a set; dropping it leaves the queue.
pub(super) struct Ticket(Arc<MeterSet>);

impl Ticket {
    pub(super) fn new(set: &Arc<MeterSet>) -> Ticket {
        set.waiting.fetch_add(1, Ordering::AcqRel);
        Ticket(set.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
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
