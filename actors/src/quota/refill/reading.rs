//! The replicated ledger as this node reads it in its View.

use std::sync::Arc;

use raft::command::QuotaBatch;
use raft::resources::{Kind, Limit, ObjectKey, Spec, is_usable_reference};
use raft::state::{Meter, MeterWindow};
use raft::{NodeId, Timestamp, View};
use tokio::time::Instant;

use super::decide::Reading;
use super::ledger_snapshot::LedgerSnapshot;
use crate::quota::allowance::{MeterSet, Slot};
use crate::routing::AccessKey;

/// The ledger's last word on an acquire: worth asking again only when something has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRefusal {
    /// In which window.
    pub(super) window: u64,
    /// Until when it is taken as final even if this node's clock says that the window is over, and no acquire asks again for what other
    /// nodes hold.
    pub(super) until: Instant,
}

impl LastRefusal {
    pub(super) fn stands(&self, now: Instant) -> bool {
        now < self.until
    }
}

/// What the subscription says of the model now; `None` if either is gone.
pub(super) fn limits_in(view: &View, key: &AccessKey) -> Option<Vec<Limit>> {
    let AccessKey { subscription, model } = key;
    if !is_usable_reference(view, &model.namespace, &model.name) {
        return None;
    }
    let object = view.object(&ObjectKey::new(Kind::Subscription, &*subscription.namespace, &*subscription.name))?;
    let Spec::Subscription(spec) = &object.spec else { return None };
    let mut references = spec
        .model_refs
        .iter()
        .filter(|entry| *entry.namespace == *model.namespace && *entry.name == *model.name)
        .peekable();
    references.peek()?;
    Some(references.flat_map(|entry| entry.limits.clone()).collect())
}

/// The window of a slot's meter that is open at `now`, as far as anybody knows.
fn open_window<'a>(view: &'a View, slot: &Slot, now: Timestamp) -> Option<&'a MeterWindow> {
    window(view, slot).filter(|window| window.ends > now)
}

/// The window that is open by the state clock.
pub(super) fn current_window<'a>(view: &'a View, slot: &Slot) -> Option<&'a MeterWindow> {
    open_window(view, slot, view.time)
}

fn window<'a>(view: &'a View, slot: &Slot) -> Option<&'a MeterWindow> {
    view.meters.get(&*slot.rule.id).and_then(|meter: &Arc<Meter>| meter.window.as_ref())
}

/// Reads a slot at `now`. A window that is over by this node's clock, or that nobody has opened, is taken to be wholly available, unless the
/// ledger has just said otherwise.
pub(super) fn read(snapshot: &LedgerSnapshot, set: &MeterSet, slot: &Slot, refusal: Option<LastRefusal>) -> Reading {
    let LedgerSnapshot { view, node, now, instant, .. } = snapshot;
    let last = window(view, slot);
    let number = last.map_or(0, |window| window.number);
    let was_just_refused = refusal.is_some_and(|refusal| refusal.window == number && refusal.stands(*instant));
    let current = if was_just_refused { last } else { open_window(view, slot, *now) };
    let gives_rest = slot.rule.gives_rest;
    let Some(window) = current else {
        let available = if was_just_refused { 0 } else { slot.rule.limit };
        return Reading { free: 0, held: 0, available, others: 0, gives_rest, is_alone: true };
    };
    let own = window.granted.get(node).copied().unwrap_or(0);
    let (free, held, is_alone) = match window.number == slot.meter.number {
        true => (slot.meter.free(), slot.meter.held_of(own), !set.holds_any_of(slot)),
        false => (0, 0, true),
    };
    let (available, others) = (window.free(slot.rule.limit), window.outstanding() - own);
    Reading { free, held, available, others, gives_rest, is_alone }
}

/// Other nodes that hold some of the slot's window, spent or not.
pub(super) fn holders<'a>(snapshot: &'a LedgerSnapshot, slot: &Slot) -> impl Iterator<Item = NodeId> + use<'a> {
    let window = window(&snapshot.view, slot).filter(|window| window.number == slot.meter.number);
    window.into_iter().flat_map(|window| window.granted.keys()).copied().filter(|node| *node != snapshot.node)
}

/// Whether the ledger that `view` shows has counted `batch`.
pub(super) fn has_applied(view: &View, batch: &QuotaBatch) -> bool {
    let last = view.nodes.get(&batch.node).map(|node| (node.incarnation, node.sequence));
    last == Some((batch.incarnation, batch.sequence))
}

/// Copies what the ledger says of the meter's window into the slot.
pub(super) fn refresh(view: &View, slot: &mut Slot, node: NodeId) {
    slot.debt = view.meters.get(&*slot.rule.id).map_or(0, |meter| meter.debt);
    if let Some(window) = window(view, slot).filter(|window| window.number == slot.meter.number) {
        let own = window.granted.get(&node).copied().unwrap_or(0);
        slot.elsewhere = window.held().saturating_sub(own);
        if let Some(told) = slot.meter.told() {
            slot.settled = window.settled.saturating_sub(told);
        }
    }
}

/// Whether a node that goes before this one wants tokens of the slot's window.
pub(super) fn is_wanted_before(view: &View, slot: &Slot, node: NodeId) -> bool {
    let open = window(view, slot).filter(|window| window.number == slot.meter.number);
    open.is_some_and(|window| window.wanted.keys().any(|wanting| *wanting < node))
}

/// Whether the state clock, or a newer window, has ended the meter's window: its grants have lapsed.
pub(super) fn is_over(view: &View, slot: &Slot) -> bool {
    if slot.meter.number == 0 {
        return false;
    }
    slot.meter.ends <= view.time || window(view, slot).is_some_and(|window| window.number > slot.meter.number)
}
