//! KEYS: no user gets more working keys than one may have, whichever nodes are asked; a key that was not ended is there, one that was
//! is kept for its time unless newer ones take its place; and none comes back that was revoked or forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::View;
use raft::state::{ApiKey, KeyStatus};

use super::Violation;
use crate::world::{Observation, Shared};

/// What nodes have said of keys.
#[derive(Default)]
pub(super) struct Keys {
    /// By node and start: what it knew last.
    before: BTreeMap<(usize, u32), Arc<View>>,
    /// From which log index on a key is revoked.
    revoked: BTreeMap<u128, u64>,
    /// From which log index on a key is forgotten.
    forgotten: BTreeMap<u128, u64>,
}

impl Keys {
    pub(super) fn check(&mut self, shared: &Shared, seen: &Observation) -> Result<(), Violation> {
        let view = &seen.view;
        let before = self.before.insert((seen.node, seen.start), view.clone());
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, view)) {
            return Ok(());
        }
        let violation = |text: String| {
            Err(Violation::new("KEYS", format!("{text}: says node {} at index {}", seen.node, view.applied)))
        };
        for key in view.keys.values() {
            let id = key.id.as_u128();
            let is_since = |marks: &BTreeMap<u128, u64>| marks.get(&id).is_some_and(|index| *index <= view.applied);
            if is_since(&self.forgotten) {
                return violation(format!("key {} of {} was forgotten, and is back", key.id, key.username));
            }
            if key.revoked.is_some() {
                note(&mut self.revoked, id, view.applied);
            } else if is_since(&self.revoked) {
                return violation(format!("key {} of {} was revoked, and works again", key.id, key.username));
            }
        }
        let Some(before) = before else { return Ok(()) };
        for key in before.keys.values().filter(|key| !view.keys.contains_key(&key.id)) {
            note(&mut self.forgotten, key.id.as_u128(), view.applied);
            if let Some(why_not) = may_be_gone(shared, &before, view, key).err() {
                return violation(format!("key {} of {} is forgotten, {why_not}", key.id, key.username));
            }
        }
        let max = view.key_bounds().max_per_user as usize;
        let users: BTreeSet<&String> = view.keys.values().map(|key| &key.username).collect();
        for user in users {
            let (had, has) = (working(&before, user), working(view, user));
            // A bound that was set meanwhile takes nothing away.
            if has > max && has > had && before.key_bounds() == view.key_bounds() {
                return violation(format!("{user} has {has} working keys, and had {had}: {max} at most may be had"));
            }
        }
        Ok(())
    }
}

/// The smallest index, whatever was seen first.
fn note(marks: &mut BTreeMap<u128, u64>, id: u128, index: u64) {
    let mark = marks.entry(id).or_insert(index);
    *mark = index.min(*mark);
}

fn working(view: &View, user: &str) -> usize {
    view.keys_of(user).filter(|key| key.status(view.time) == KeyStatus::Active).count()
}

/// Errors: why it should be there.
fn may_be_gone(shared: &Shared, before: &View, view: &View, key: &ApiKey) -> Result<(), &'static str> {
    let id = key.id.to_string();
    let keys = shared.keys.borrow();
    if keys.iter().any(|known| known.id == id && known.revoking.is_none()) && view.time < key.expires {
        return Err("and nobody has ended it");
    }
    // If it ended in between, that was then or later.
    let ended = key.ends().min(before.time);
    let bounds = view.key_bounds();
    let others = view.keys_of(&key.username).filter(|other| other.status(view.time) != KeyStatus::Active).count();
    if ended.plus(bounds.retention) <= view.time || others >= bounds.max_per_user as usize {
        return Ok(());
    }
    Err("before its time was over, and no newer ones have taken its place")
}
