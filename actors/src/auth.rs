//! Auth: whose credential is this, and is it still good?
//!
//! The check itself reads the newest View, so a revoked key stops working the moment its entry is applied here. The
//! actor only notes when keys were last used and tells the cluster, coarsely.

use std::sync::Arc;

use raft::state::{ApiKey, Token};
use uuid::Uuid;

/// Who calls. Only [`Auth::authenticate`] makes one.
#[derive(Clone, Debug)]
pub struct Caller(Identity);

#[derive(Clone, Debug)]
enum Identity {
    Key(Arc<ApiKey>),
    Token { token: Arc<Token>, groups: Arc<[String]> },
}

impl Caller {
    /// The user's name.
    pub fn user(&self) -> &str {
        match &self.0 {
            Identity::Key(key) => &key.username,
            Identity::Token { token, .. } => &token.username,
        }
    }

    /// The user's groups: frozen at creation for a key, current for a token (with `system:authenticated`).
    pub fn groups(&self) -> &[String] {
        match &self.0 {
            Identity::Key(key) => &key.groups,
            Identity::Token { groups, .. } => groups,
        }
    }

    /// The API key, if that is how they came.
    pub fn key_id(&self) -> Option<Uuid> {
        match &self.0 {
            Identity::Key(key) => Some(key.id),
            Identity::Token { .. } => None,
        }
    }

    /// The name of the subscription their key is bound to.
    pub fn bound_subscription(&self) -> Option<&str> {
        match &self.0 {
            Identity::Key(key) => Some(&key.subscription),
            Identity::Token { .. } => None,
        }
    }

    /// Whether they administer the cluster: member of `system:masters`. A key never does.
    pub fn is_admin(&self) -> bool {
        matches!(&self.0, Identity::Token { groups, .. } if groups.iter().any(|group| group == "system:masters"))
    }
}

/// Why a credential was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// There was none.
    #[error("no credentials: send `Authorization: Bearer <API key>`")]
    Missing,
    /// It is neither an API key nor a token this cluster issued, or the token has expired.
    #[error("the bearer token is not valid here")]
    UnknownToken,
    /// It starts like an API key and is not one.
    #[error("the API key is malformed")]
    MalformedKey,
    /// No such API key.
    #[error("the API key is unknown")]
    UnknownKey,
    /// It was revoked.
    #[error("the API key was revoked")]
    RevokedKey,
    /// Its time is over.
    #[error("the API key has expired")]
    ExpiredKey,
}

/// The prefix of every API key.
pub const KEY_PREFIX: &str = "sk-oai-";

/// Handle of the auth actor.
#[derive(Clone)]
pub struct Auth {}

impl Auth {
    /// Finds who presents `bearer` (the Authorization header's value after `Bearer `, or `x-api-key`).
    pub fn authenticate(&self, bearer: Option<&str>) -> Result<Caller, Unauthenticated> {
        todo!("{}", bearer.is_some())
    }
}

/// SHA-256 of `key_id || 0x00 || secret` for an API key `sk-oai-{key_id}_{secret}`; `None` if it is malformed (contract: both parts
/// non-empty base 62, one separator).
pub fn key_hash(key: &str) -> Option<[u8; 32]> {
    todo!("{}", key.len())
}

/// SHA-256 of a bearer token, as the state keeps it.
pub fn token_hash(token: &str) -> [u8; 32] {
    todo!("{}", token.len())
}
