//! For how long keys are kept, and the orders in which they are found again.
//!
//! A key that has ended is kept for the record, for as long as the Tenant says (`spec.apiKeys.retention`), and forgotten earlier if its
//! owner has too many of them. A forgotten key is unknown, as if it had never been: nothing brings it back, since a creation that
//! comes late is refused ([`State::check_in_time`]). Its meters go with it, or when no node holds anything of them. Each log entry
//! forgets a few at most, so none takes long.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdSet;
use uuid::Uuid;

use super::{ApiKey, bounds};
use crate::ids::Timestamp;
use crate::resources::{Kind, LimitScope, Spec};
use crate::state::{Meter, MeterId, State, Subject};

/// An ephemeral key is forgotten so long after its end.
const EPHEMERAL_KEPT: Duration = Duration::from_secs(30 * 60);
/// How many ephemeral keys one creation may sweep away: more than it adds, so that they cannot pile up.
const EPHEMERAL_SWEPT_MAX: usize = 4;
/// How many keys one log entry forgets whose time is over. Entries come by the dozen a second where anybody calls.
const SWEPT_MAX: usize = 16;

/// One user's keys.
#[derive(Clone, PartialEq, Default, Debug)]
pub(in crate::state) struct KeysOfOwner {
    /// By their end: those that have ended come first, longest ago first.
    ends: OrdSet<(Timestamp, Uuid)>,
    /// Of all their texts.
    pub(super) text_bytes: u64,
}

impl KeysOfOwner {
    /// The keys' ids, by their end.
    pub(in crate::state) fn ids(&self) -> impl Iterator<Item = &Uuid> {
        self.ends.iter().map(|(_, id)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many have not ended at `now`; `max` if there are more.
    pub(super) fn working(&self, now: Timestamp, max: usize) -> usize {
        let after_now = (Bound::Excluded((now, Uuid::max())), Bound::Unbounded);
        self.ends.range(after_now).take(max).count()
    }

    /// How many have ended at `now`; `max` if there are more.
    pub(super) fn ended(&self, now: Timestamp, max: usize) -> usize {
        self.ends.range(..=(now, Uuid::max())).take(max).count()
    }

    /// The one that ended the longest ago, if any has at `now`.
    pub(super) fn first_ended(&self, now: Timestamp) -> Option<Uuid> {
        self.ends.get_min().filter(|(end, _)| *end <= now).map(|(_, id)| *id)
    }
}

impl ApiKey {
    /// Whether it is still kept at `now`, `retention` being the Tenant's. One that is not may be in the state for a while, until log
    /// entries come by: it is shown to nobody.
    pub fn is_kept(&self, retention: Duration, now: Timestamp) -> bool {
        let kept = if self.ephemeral { EPHEMERAL_KEPT } else { retention };
        now < self.ends().plus(kept)
    }
}

impl State {
    /// Enters a key, and what is derived from it.
    pub(in crate::state) fn put_key(&mut self, key: Arc<ApiKey>) {
        self.keys_by_hash.insert(key.hash, key.id);
        let place = (key.ends(), key.id);
        let owned = self.keys_by_owner.entry(key.username.clone()).or_default();
        owned.ends.insert(place);
        owned.text_bytes += bounds::text_bytes(&key);
        let ends = if key.ephemeral { &mut self.ephemeral_ends } else { &mut self.key_ends };
        ends.insert(place);
        self.keys.insert(key.id, key);
    }

    /// Takes a key out, and what is derived from it.
    pub(super) fn remove_key(&mut self, id: Uuid) {
        let Some(key) = self.keys.remove(&id) else { return };
        self.keys_by_hash.remove(&key.hash);
        let place = (key.ends(), key.id);
        let ends = if key.ephemeral { &mut self.ephemeral_ends } else { &mut self.key_ends };
        ends.remove(&place);
        if let Some(owned) = self.keys_by_owner.get_mut(&key.username) {
            owned.ends.remove(&place);
            owned.text_bytes -= bounds::text_bytes(&key);
            if owned.ends.is_empty() {
                self.keys_by_owner.remove(&key.username);
            }
        }
    }

    /// Forgets some of the keys whose time is over.
    pub(in crate::state) fn forget_ended_keys(&mut self) {
        let Some((first, _)) = self.key_ends.get_min() else { return };
        if self.time < *first {
            return;
        }
        let retention = self.key_bounds().retention;
        for _ in 0..SWEPT_MAX {
            let Some((end, id)) = self.key_ends.get_min().copied() else { return };
            if self.time < end.plus(retention) {
                return;
            }
            self.forget_key(id);
        }
    }

    pub(super) fn forget_ephemeral_keys(&mut self) {
        for _ in 0..EPHEMERAL_SWEPT_MAX {
            let Some((end, id)) = self.ephemeral_ends.get_min().copied() else { return };
            if self.time < end.plus(EPHEMERAL_KEPT) {
                return;
            }
            self.forget_key(id);
        }
    }

    /// Forgets a key that has ended, and what the ledger keeps for it.
    pub(super) fn forget_key(&mut self, id: Uuid) {
        let Some(key) = self.keys.get(&id).cloned() else { return };
        self.remove_key(id);
        for meter in self.meters_of(&key) {
            let left = self.meters.get(&meter).map(|meter| Meter::clone(meter)).unwrap_or_default();
            self.put_meter(&meter, left);
        }
    }

    /// The meters that count this key alone, as its subscription says now.
    fn meters_of(&self, key: &ApiKey) -> Vec<MeterId> {
        let mut meters = Vec::new();
        for object in self.objects_of(Kind::Subscription).filter(|object| object.key.name == key.subscription) {
            let Spec::Subscription(spec) = &object.spec else { continue };
            for model in &spec.model_refs {
                let of_key = model.limits.iter().filter(|limit| limit.scope == LimitScope::Key);
                meters.extend(of_key.map(|limit| MeterId {
                    subscription: (object.key.namespace.clone(), object.key.name.clone()),
                    model: (model.namespace.clone(), model.name.clone()),
                    limit: limit.kind(),
                    subject: Subject::Key(key.id),
                }));
            }
        }
        meters.retain(|meter| self.meters.contains_key(meter));
        meters
    }
}
