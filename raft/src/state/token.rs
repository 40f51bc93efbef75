//! Bearer tokens for people and service accounts. Only their hash is here, so nothing in the log can be used as one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Outcome, State};
use crate::command::{NewToken, Refusal, Reply};
use crate::ids::Timestamp;
use crate::resources::ObjectKey;

/// A bearer token.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
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
}

impl Token {
    /// Whether it still works at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl State {
    /// Refused when its service account is gone: a token must not outlive what it stands for.
    pub(super) fn create_token(&mut self, index: u64, new: NewToken) -> Result<Outcome, Refusal> {
        if self.tokens.contains_key(&new.hash) {
            return Err(Refusal::Duplicate);
        }
        if let Some(account) = new.service_account.as_ref().filter(|account| !self.objects.contains_key(*account)) {
            return Err(Refusal::ObjectNotFound(account.clone()));
        }
        // Administrators draw tokens, so there are few: looking at all of them here is cheap, and none piles up.
        let now = self.time;
        self.remove_tokens(|token| !token.is_valid(now));
        let token = Token {
            hash: new.hash,
            username: new.username,
            groups: new.groups,
            expires: new.expires,
            service_account: new.service_account,
        };
        self.tokens.insert(token.hash, Arc::new(token));
        self.access_version = index;
        Ok(Outcome::changed(Reply::Done))
    }

    pub(super) fn remove_tokens_of(&mut self, account: &ObjectKey) {
        self.remove_tokens(|token| token.service_account.as_ref() == Some(account));
    }

    fn remove_tokens(&mut self, goes: impl Fn(&Token) -> bool) {
        let hashes: Vec<[u8; 32]> = self.tokens.values().filter(|token| goes(token)).map(|token| token.hash).collect();
        for hash in hashes {
            self.tokens.remove(&hash);
        }
    }
}
