//! Bearer tokens for people and service accounts. Only their hash is here, so nothing in the log can be used as one.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{Outcome, State};
use crate::command::{CommandRefusal, NewToken, Reply};
use crate::ids::Timestamp;
use crate::resources::ObjectKey;

/// Bytes of the hash that name a token to people. Too few to be the hash, enough never to meet twice.
const ID_BYTES: usize = 10;
/// Valid tokens of one ServiceAccount.
const PER_ACCOUNT_MAX: usize = 1000;
/// How many expired tokens one log entry forgets.
const SWEPT_MAX: usize = 16;

/// A bearer token.
#[derive(Clone, PartialEq, Debug)]
pub struct Token {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Whom it stands for.
    pub username: String,
    /// The groups it brings beside those that Group objects give its user.
    pub groups: Vec<String>,
    /// When it stops working; `None`: never.
    pub expires: Option<Timestamp>,
    /// The ServiceAccount whose deletion ends it.
    pub service_account: Option<ObjectKey>,
    /// When it was recorded, by the state clock; `None` if a version did that which kept no such time.
    pub created: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

impl Token {
    /// Whether it still works at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Names it to people: 20 hexadecimal digits, the start of its hash.
    pub fn id(&self) -> String {
        self.hash[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl State {
    /// Refused when its service account is gone: a token must not outlive what it stands for. Refused, too, when it was revoked once:
    /// a configuration file may still have it.
    pub(super) fn create_token(&mut self, index: u64, new: NewToken) -> Result<Outcome, CommandRefusal> {
        if self.tokens.contains_key(&new.hash) {
            return Err(CommandRefusal::Duplicate);
        }
        if self.revoked_tokens.contains(&new.hash) {
            return Err(CommandRefusal::TokenRevoked);
        }
        if let Some(account) = new.service_account.as_ref().filter(|account| !self.objects.contains_key(*account)) {
            return Err(CommandRefusal::ObjectNotFound(account.clone()));
        }
        let now = self.time;
        self.put_token(Token {
            hash: new.hash,
            username: new.username,
            groups: new.groups,
            expires: new.expires,
            service_account: new.service_account,
            created: Some(now),
            last_used: None,
        });
        self.access_version = index;
        Ok(Outcome::changed(Reply::Done))
    }

    /// The same for a ServiceAccount, within the bound of what one account may have. Whoever makes tokens is an administrator; this is
    /// for a program of theirs that makes one after the other.
    pub(super) fn make_token(&mut self, index: u64, new: NewToken, seen: u64) -> Result<Outcome, CommandRefusal> {
        self.check_in_time(seen)?;
        if let Some(account) = &new.service_account {
            let hashes = self.tokens_by_account.get(account).into_iter().flatten();
            let tokens = hashes.filter_map(|hash| self.tokens.get(hash));
            if tokens.filter(|token| token.is_valid(self.time)).count() >= PER_ACCOUNT_MAX {
                return Err(CommandRefusal::TooManyTokens { account: account.clone(), max: PER_ACCOUNT_MAX as u64 });
            }
        }
        self.create_token(index, new)
    }

    pub(super) fn revoke_token(&mut self, index: u64, hash: &[u8; 32]) -> Result<Outcome, CommandRefusal> {
        let token = self.remove_token(hash).ok_or(CommandRefusal::TokenNotFound)?;
        if token.expires.is_none() {
            self.revoked_tokens.insert(token.hash);
        }
        self.access_version = index;
        Ok(Outcome::changed(Reply::Done))
    }

    /// As for keys: the latest use stands, unknown tokens are skipped.
    pub(super) fn touch_tokens(&mut self, uses: &[([u8; 32], Timestamp)]) -> Outcome {
        let mut changed = false;
        for (hash, used) in uses {
            if let Some(token) = self.tokens.get_mut(hash)
                && token.last_used.is_none_or(|last| last < *used)
            {
                Arc::make_mut(token).last_used = Some(*used);
                changed = true;
            }
        }
        Outcome { reply: Reply::Done, changed }
    }

    pub(super) fn remove_tokens_of(&mut self, account: &ObjectKey) {
        let hashes: Vec<[u8; 32]> = self.tokens_by_account.get(account).into_iter().flatten().copied().collect();
        for hash in hashes {
            self.remove_token(&hash);
        }
    }

    /// Forgets some of the tokens that have expired.
    pub(super) fn forget_ended_tokens(&mut self) {
        for _ in 0..SWEPT_MAX {
            let Some((end, hash)) = self.token_ends.get_min().copied() else { return };
            if self.time < end {
                return;
            }
            self.remove_token(&hash);
        }
    }

    /// Enters a token, and what is derived from it.
    pub(super) fn put_token(&mut self, token: Token) {
        match &token.service_account {
            Some(account) => self.tokens_by_account.entry(account.clone()).or_default().insert(token.hash),
            None => self.tokens_by_user.entry(token.username.clone()).or_default().insert(token.hash),
        };
        if let Some(end) = token.expires {
            self.token_ends.insert((end, token.hash));
        }
        self.tokens.insert(token.hash, Arc::new(token));
    }

    fn remove_token(&mut self, hash: &[u8; 32]) -> Option<Arc<Token>> {
        let token = self.tokens.remove(hash)?;
        match &token.service_account {
            Some(account) => remove_from(&mut self.tokens_by_account, account, hash),
            None => remove_from(&mut self.tokens_by_user, &token.username, hash),
        }
        if let Some(end) = token.expires {
            self.token_ends.remove(&(end, *hash));
        }
        Some(token)
    }
}

fn remove_from<K: Ord + Clone>(sets: &mut OrdMap<K, OrdSet<[u8; 32]>>, key: &K, hash: &[u8; 32]) {
    if let Some(hashes) = sets.get_mut(key) {
        hashes.remove(hash);
        if hashes.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
