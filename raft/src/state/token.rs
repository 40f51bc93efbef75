//! Bearer tokens for people and service accounts. Only their hash is here, so nothing in the log can be used as one.

use std::sync::Arc;

use super::{Outcome, State};
use crate::command::{CommandRefusal, NewToken, Reply};
use crate::ids::Timestamp;
use crate::resources::ObjectKey;

/// Bytes of the hash that name a token to people. Too few to be the hash, enough never to meet twice.
const ID_BYTES: usize = 10;

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
        // Administrators draw tokens, so there are few: looking at all of them here is cheap, and none piles up.
        let now = self.time;
        self.remove_tokens(|token| !token.is_valid(now));
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
        self.remove_tokens(|token| token.service_account.as_ref() == Some(account));
    }

    /// Enters a token, and what is derived from it.
    pub(super) fn put_token(&mut self, token: Token) {
        if token.service_account.is_none() {
            self.tokens_by_user.entry(token.username.clone()).or_default().insert(token.hash);
        }
        self.tokens.insert(token.hash, Arc::new(token));
    }

    fn remove_tokens(&mut self, goes: impl Fn(&Token) -> bool) {
        let hashes: Vec<[u8; 32]> = self.tokens.values().filter(|token| goes(token)).map(|token| token.hash).collect();
        for hash in hashes {
            self.remove_token(&hash);
        }
    }

    fn remove_token(&mut self, hash: &[u8; 32]) -> Option<Arc<Token>> {
        let token = self.tokens.remove(hash)?;
        if let Some(hashes) = self.tokens_by_user.get_mut(&token.username) {
            hashes.remove(hash);
            if hashes.is_empty() {
                self.tokens_by_user.remove(&token.username);
            }
        }
        Some(token)
    }
}

#[cfg(test)]
mod tests;
