//! What one node's batch does to the ledger: settle, give back, charge, acquire.
//!
//! A node is never trusted to have held more than it was granted, and a repeated batch changes nothing: only the next number of the
//! current incarnation counts.

use std::sync::Arc;

use imbl::OrdMap;

use super::{Meter, MeterId, MeterWindow};
use crate::command::{Acquire, CommandRefusal, EarlierEntry, QuotaBatch, QuotaEntry, QuotaGrant, Reply};
use crate::ids::{NodeId, Timestamp};
use crate::resources::Limit;
use crate::state::{NodeLedger, Outcome, State};

/// Meters swept by every batch, beside two for each of its entries: an entry creates one at most, so they cannot pile up.
const SWEPT_MIN: usize = 16;

impl State {
    pub(in crate::state) fn apply_quota(&mut self, index: u64, batch: &QuotaBatch) -> Result<Outcome, CommandRefusal> {
        let known = self.nodes.get(&batch.node).map(|node| (node.incarnation, node.sequence));
        let last = known.unwrap_or_default();
        let this = (batch.incarnation, batch.sequence);
        if batch.sequence == 0 || this < last {
            return Err(CommandRefusal::StaleBatch { incarnation: batch.incarnation, sequence: batch.sequence });
        }
        if this == last
            && let Some(node) = self.nodes.get(&batch.node)
        {
            return Ok(Outcome::unchanged(Reply::Quota(node.reply.clone())));
        }
        if known.is_some() && batch.incarnation > last.0 {
            self.orphan(batch.node);
        }
        // The node counts among those that share from its first batch on.
        let before = self.nodes.get(&batch.node).map(|node| NodeLedger::clone(node)).unwrap_or_default();
        let mut ledger = if batch.incarnation > last.0 { before.begin(batch.incarnation) } else { before };
        (ledger.sequence, ledger.reply) = (batch.sequence, Vec::new());
        if batch.earlier.is_all {
            ledger.forget_earlier();
        }
        self.nodes.insert(batch.node, Arc::new(ledger.clone()));
        self.sweep_meters(SWEPT_MIN + 2 * (batch.entries.len() + batch.earlier.entries.len()));
        self.add_usage(&batch.usage);
        batch.earlier.entries.iter().for_each(|entry| self.apply_earlier(batch.node, entry));
        let reply: Vec<QuotaGrant> =
            batch.entries.iter().map(|entry| self.apply_entry(index, batch.node, entry)).collect();
        self.nodes.insert(batch.node, Arc::new(NodeLedger { reply: reply.clone(), ..ledger }));
        Ok(Outcome::changed(Reply::Quota(reply)))
    }

    /// The node has started anew or was taken out: what it held is neither spent nor free, and what it wanted nobody waits for.
    /// Looks at every meter, which is fine for something as rare as that.
    pub(in crate::state) fn orphan(&mut self, node: NodeId) {
        let held = |meter: &Meter| {
            meter
                .window
                .as_ref()
                .is_some_and(|window| window.granted.contains_key(&node) || window.wanted.contains_key(&node))
        };
        let touched: Vec<MeterId> =
            self.meters.iter().filter(|(_, meter)| held(meter)).map(|(id, _)| id.clone()).collect();
        for id in touched {
            let mut meter = self.meters.get(&id).map(|meter| Meter::clone(meter)).unwrap_or_default();
            if let Some(window) = &mut meter.window {
                window.wanted.remove(&node);
                let amount = window.granted.remove(&node).unwrap_or(0);
                // Calls in progress ended with the node.
                if amount > 0 && !id.is_in_progress() {
                    let before = window.orphaned.get(&node).copied().unwrap_or(0);
                    window.orphaned.insert(node, before.saturating_add(amount));
                }
            }
            self.put_meter(&id, meter);
        }
    }

    /// What an earlier incarnation of the node did with what is orphaned of it.
    fn apply_earlier(&mut self, node: NodeId, entry: &EarlierEntry) {
        let Some(meter) = self.meters.get(&entry.meter) else { return };
        let (mut meter, limit) = (Meter::clone(meter), self.limit_of(&entry.meter));
        meter.pass_time(&entry.meter, self.time, limit);
        let Some(window) = meter.window.as_mut().filter(|window| window.number == entry.window) else { return };
        let spent = take(&mut window.orphaned, node, entry.spent);
        window.settled = window.settled.saturating_add(spent);
        take(&mut window.orphaned, node, entry.returned);
        meter.charge(entry.spent - spent, limit, self.time);
        self.put_meter(&entry.meter, meter);
    }

    fn apply_entry(&mut self, index: u64, node: NodeId, entry: &QuotaEntry) -> QuotaGrant {
        let id = &entry.meter;
        let rule = self.rule_of(id);
        let (limit, gives_rest) = (rule.map(|rule| rule.limit), rule.is_some_and(Limit::gives_rest));
        let mut meter = self.meters.get(id).map(|meter| Meter::clone(meter)).unwrap_or_default();
        meter.pass_time(id, self.time, limit);
        let uncovered = meter.settle(node, entry);
        meter.charge(entry.excess.saturating_add(uncovered), limit, self.time);
        // A node that was taken out may tell what it spent; it gets nothing to spend.
        let acquire = entry.acquire.filter(|_| !self.retired.contains(&node));
        let granted = match (acquire, limit) {
            (Some(acquire), Some(limit)) => {
                let sharers = self.sharers();
                let opening = Opening { number: index, ends: id.limit.window_end(self.time) };
                let acquire = Acquire { alone: acquire.alone && gives_rest, ..acquire };
                meter.acquire(node, acquire, limit, sharers, opening)
            }
            (Some(_), None) | (None, _) => {
                meter.stop_wanting(node);
                0
            }
        };
        let grant = match (&meter.window, limit) {
            (Some(window), Some(_)) => QuotaGrant { granted, window: window.number, ends: window.ends },
            _ => QuotaGrant { granted: 0, window: 0, ends: Timestamp::default() },
        };
        self.put_meter(id, meter);
        grant
    }
}

/// The window that an acquire opens if none is open.
struct Opening {
    number: u64,
    ends: Timestamp,
}

impl Meter {
    /// Records what the node spent and gives back of this window's grants: of its own, then of what earlier incarnations of it left.
    /// Returns what it spent beyond them. For a window that has closed nothing changes: its grants have lapsed.
    fn settle(&mut self, node: NodeId, entry: &QuotaEntry) -> u64 {
        let Some(window) = self.window.as_mut().filter(|window| window.number == entry.window) else { return 0 };
        let spent = take(&mut window.granted, node, entry.spent);
        let spent = spent + take(&mut window.orphaned, node, entry.spent - spent);
        window.settled = window.settled.saturating_add(spent);
        let returned = take(&mut window.granted, node, entry.returned);
        take(&mut window.orphaned, node, entry.returned - returned);
        entry.spent - spent
    }

    /// Records what was used beyond any grant: from free tokens, and what those do not cover as debt.
    fn charge(&mut self, excess: u64, limit: Option<u64>, time: Timestamp) {
        if excess == 0 {
            return;
        }
        let covered = match &mut self.window {
            Some(window) => {
                let covered = window.free(limit.unwrap_or(0)).min(excess);
                window.settled = window.settled.saturating_add(covered);
                covered
            }
            None => {
                self.idle_since = time;
                0
            }
        };
        self.debt = self.debt.saturating_add(excess - covered);
    }

    /// Grants all that is needed, and some more if plenty is free. Where less is free a node that acquires alone gets that, unless another node
    /// holds something; any other acquire gets nothing. An acquire beyond the whole limit opens no window: it can never be met.
    fn acquire(&mut self, node: NodeId, acquire: Acquire, limit: u64, sharers: u64, opening: Opening) -> u64 {
        let need = acquire.need.max(1);
        if need > limit {
            self.stop_wanting(node);
            return 0;
        }
        let carried = if self.window.is_none() { self.debt.min(limit) } else { 0 };
        self.debt -= carried;
        let window = self.window.get_or_insert_with(|| MeterWindow::open(opening, carried));
        let free = window.free(limit);
        let is_rest = acquire.alone && free > 0 && window.held_beside(node) == 0;
        if need > free && !is_rest {
            window.refuse(node, acquire, free);
            return 0;
        }
        let need = need.min(free);
        window.wanted.remove(&node);
        // While somebody waits for tokens, nobody is given more than it needs.
        let share = if window.wanted.is_empty() { (free - need) / (2 * sharers.max(1)) } else { 0 };
        let granted = need + acquire.extra.min(share);
        let held = window.granted.get(&node).copied().unwrap_or(0);
        window.granted.insert(node, held + granted);
        granted
    }

    fn stop_wanting(&mut self, node: NodeId) {
        if let Some(window) = &mut self.window {
            window.wanted.remove(&node);
        }
    }
}

impl MeterWindow {
    fn open(opening: Opening, carried: u64) -> MeterWindow {
        MeterWindow {
            number: opening.number,
            ends: opening.ends,
            settled: carried,
            granted: OrdMap::new(),
            orphaned: OrdMap::new(),
            wanted: OrdMap::new(),
        }
    }

    /// Tokens that other nodes hold, spent or not.
    fn held_beside(&self, node: NodeId) -> u64 {
        self.outstanding() - self.granted.get(&node).copied().unwrap_or(0)
    }

    /// Marks the meter if what other nodes hold could meet the acquire, or is all that keeps it from the rest; nothing is recalled in vain.
    fn refuse(&mut self, node: NodeId, acquire: Acquire, free: u64) {
        let others = self.held_beside(node);
        if others > 0 && (acquire.alone || acquire.need <= free.saturating_add(others)) {
            self.wanted.insert(node, acquire.need);
        } else {
            self.wanted.remove(&node);
        }
    }
}

/// Takes up to `amount` out of the node's part, and returns how much that was.
fn take(parts: &mut OrdMap<NodeId, u64>, node: NodeId, amount: u64) -> u64 {
    let part = parts.get(&node).copied().unwrap_or(0);
    let taken = part.min(amount);
    if taken == part {
        parts.remove(&node);
    } else {
        parts.insert(node, part - taken);
    }
    taken
}
