//! API keys: create, revoke, note their use. Only the hash of the secret is here.
//!
//! [`bounds`] is how many a user may have, [`kept`] for how long one is kept that has ended.

mod bounds;
mod kept;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Outcome, State, Token};
use crate::command::{CommandRefusal, NewKey, Reply};
use crate::ids::Timestamp;
use crate::resources::service_account_of;

pub use bounds::{KEY_DESCRIPTION_BYTES_MAX, KEY_LABELS_BYTES_MAX, KEY_NAME_BYTES_MAX};
pub(super) use kept::KeysOfOwner;

/// An API key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: Uuid,
    /// SHA-256 of `key_id || 0x00 || secret`.
    pub hash: [u8; 32],
    /// What its owner calls it.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// The owner's user name.
    pub username: String,
    /// The owner's groups at creation. They count where the Tenant says `spec.apiKeys.groups: frozen`.
    pub groups: Vec<String>,
    /// The name of the MaaSSubscription it is bound to.
    pub subscription: String,
    /// When it was created, by the state clock.
    pub created: Timestamp,
    /// When it stops working.
    pub expires: Timestamp,
    /// Hidden from searches unless asked for.
    pub ephemeral: bool,
    /// Free labels.
    pub labels: Vec<(String, String)>,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

/// What a key is good for at some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyStatus {
    /// It works.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked; stronger than expired.
    Revoked,
}

impl ApiKey {
    /// What it is good for at `now`.
    pub fn status(&self, now: Timestamp) -> KeyStatus {
        if self.revoked.is_some() {
            KeyStatus::Revoked
        } else if self.expires <= now {
            KeyStatus::Expired
        } else {
            KeyStatus::Active
        }
    }

    /// When it stops working, or stopped: by its revocation or by itself.
    pub fn ends(&self) -> Timestamp {
        self.revoked.map_or(self.expires, |revoked| revoked.min(self.expires))
    }
}

impl State {
    /// What a key is good for at `now`, its owner considered: without the owner it is worth as much as if it were revoked.
    pub fn status_of(&self, key: &ApiKey, now: Timestamp) -> KeyStatus {
        match key.status(now) {
            KeyStatus::Active if self.is_left_behind(key) => KeyStatus::Revoked,
            status => status,
        }
    }

    /// Whether the ServiceAccount that owns a key is gone, or is another of the same name. A deletion revokes the account's keys; this
    /// is for deletions by versions that did not.
    fn is_left_behind(&self, key: &ApiKey) -> bool {
        let Some(account) = service_account_of(&key.username) else { return false };
        self.objects.get(&account).is_none_or(|account| account.created > key.created)
    }

    /// Refused when the token has ended since the request was admitted. The token ends with its owner, so no key is made for an owner
    /// who is gone, nor for another owner who has got the name meanwhile.
    pub(super) fn issue_key(&mut self, index: u64, new: NewKey, token: &[u8; 32]) -> Result<Outcome, CommandRefusal> {
        self.token_for(&new, token)?;
        self.create_key(index, new)
    }

    /// The same within the bounds of what one user may have, unless the token is an administrator's.
    pub(super) fn make_key(
        &mut self,
        index: u64,
        new: NewKey,
        token: &[u8; 32],
        seen: u64,
    ) -> Result<Outcome, CommandRefusal> {
        self.check_in_time(seen)?;
        let token = self.token_for(&new, token)?;
        let is_bounded = !self.is_administrators(token);
        bounds::check_texts(&new)?;
        if is_bounded {
            self.check_count(&new.username)?;
        }
        self.make_room(&new, is_bounded);
        if is_bounded {
            self.check_text(&new)?;
        }
        self.create_key(index, new)
    }

    fn token_for(&self, new: &NewKey, token: &[u8; 32]) -> Result<&Token, CommandRefusal> {
        let token = self.tokens.get(token).filter(|token| token.username == new.username && token.is_valid(self.time));
        token.map(|token| &**token).ok_or(CommandRefusal::TokenNotFound)
    }

    pub(super) fn create_key(&mut self, index: u64, new: NewKey) -> Result<Outcome, CommandRefusal> {
        if self.keys.contains_key(&new.id) || self.keys_by_hash.contains_key(&new.hash) {
            return Err(CommandRefusal::Duplicate);
        }
        self.forget_ephemeral_keys();
        let key = Arc::new(ApiKey {
            id: new.id,
            hash: new.hash,
            name: new.name,
            description: new.description,
            username: new.username,
            groups: new.groups,
            subscription: new.subscription,
            created: self.time,
            expires: new.expires,
            ephemeral: new.ephemeral,
            labels: new.labels,
            revoked: None,
            last_used: None,
        });
        self.put_key(Arc::clone(&key));
        self.access_version = index;
        Ok(Outcome::changed(Reply::Key(key)))
    }

    pub(super) fn revoke_key(&mut self, index: u64, id: Uuid, owner: Option<&str>) -> Result<Outcome, CommandRefusal> {
        let key = self.keys.get(&id).ok_or(CommandRefusal::KeyNotFound)?;
        let is_owned = owner.is_none_or(|owner| owner == key.username);
        if !is_owned || key.status(self.time) != KeyStatus::Active {
            return Err(CommandRefusal::KeyNotFound);
        }
        let revoked = self.end_key(&Arc::clone(key));
        self.access_version = index;
        Ok(Outcome::changed(Reply::Key(revoked)))
    }

    pub(super) fn revoke_keys(&mut self, index: u64, username: &str) -> Outcome {
        let revoked = self.end_keys_of(username);
        if revoked == 0 {
            return Outcome::unchanged(Reply::Revoked(0));
        }
        self.access_version = index;
        Outcome::changed(Reply::Revoked(revoked))
    }

    /// Revokes every active key of a user. How many there were.
    pub(super) fn end_keys_of(&mut self, username: &str) -> u64 {
        let active: Vec<Arc<ApiKey>> =
            self.keys_of(username).filter(|key| key.status(self.time) == KeyStatus::Active).cloned().collect();
        for key in &active {
            self.end_key(key);
        }
        active.len() as u64
    }

    fn end_key(&mut self, key: &ApiKey) -> Arc<ApiKey> {
        let revoked = Arc::new(ApiKey { revoked: Some(self.time), ..key.clone() });
        self.remove_key(key.id);
        self.put_key(Arc::clone(&revoked));
        revoked
    }

    /// Uses are reported by several nodes in any order: the latest stands. Unknown keys are skipped.
    pub(super) fn touch_keys(&mut self, uses: &[(Uuid, Timestamp)]) -> Outcome {
        let mut changed = false;
        for (id, used) in uses {
            if let Some(key) = self.keys.get_mut(id)
                && key.last_used.is_none_or(|last| last < *used)
            {
                Arc::make_mut(key).last_used = Some(*used);
                changed = true;
            }
        }
        Outcome { reply: Reply::Done, changed }
    }
}
