//! Auth: whose credential is this, is it still good, and in which groups is its owner?
//!
//! The check itself reads the newest View, so a key or token that was revoked, or whose owner was deleted, stops working the moment
//! the log entry is applied here; so does what a Group gave. The actor only notes when credentials were last used and tells the
//! cluster, coarsely.

mod groups;
mod last_used;

use std::sync::Arc;

use raft::doors::Doors;
use raft::resources::ADMINISTRATORS;
use raft::state::{ApiKey, KeyStatus, Token};
use raft::{Cluster, ProposeError, Timestamp, View};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::derived::Derived;

use groups::Groups;
pub(crate) use last_used::{LastUsed, LastUsedActor};

/// Who calls. Only [`Auth::authenticate`] makes one.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(crate) credential: Credential,
    pub(crate) groups: Arc<[String]>,
}

/// What they showed.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    Key(Arc<ApiKey>),
    Token(Arc<Token>),
}

impl Caller {
    /// The user's name.
    pub fn user(&self) -> &str {
        match &self.credential {
            Credential::Key(key) => &key.username,
            Credential::Token(token) => &token.username,
        }
    }

    /// Of what they showed, as long as anybody has it: tells callers apart without looking at them.
    pub(crate) fn address(&self) -> usize {
        match &self.credential {
            Credential::Key(key) => Arc::as_ptr(key).addr(),
            Credential::Token(token) => Arc::as_ptr(token).addr(),
        }
    }

    /// The user's groups when the caller was authenticated. For a key those at its creation, if the Tenant says so.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The API key, if that is how they came.
    pub fn key_id(&self) -> Option<Uuid> {
        match &self.credential {
            Credential::Key(key) => Some(key.id),
            Credential::Token(_) => None,
        }
    }

    /// The hash of the bearer token, if that is how they came.
    pub fn token_hash(&self) -> Option<[u8; 32]> {
        match &self.credential {
            Credential::Key(_) => None,
            Credential::Token(token) => Some(token.hash),
        }
    }

    /// The name of the subscription their key is bound to.
    pub fn bound_subscription(&self) -> Option<&str> {
        match &self.credential {
            Credential::Key(key) => Some(&key.subscription),
            Credential::Token(_) => None,
        }
    }

    /// Whether they administer the cluster: member of `system:masters`. A key never does.
    pub fn is_admin(&self) -> bool {
        matches!(self.credential, Credential::Token(_)) && self.groups.iter().any(|group| group == ADMINISTRATORS)
    }
}

/// Why a credential was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// There was none.
    #[error("no credentials: send `Authorization: Bearer <API key>`")]
    Missing,
    /// It is neither an API key nor a token this cluster issued, or the token has expired or was revoked.
    #[error("the bearer token is not valid here")]
    UnknownToken,
    /// It starts like an API key and is not one.
    #[error("the API key is malformed")]
    MalformedKey,
    /// No such API key.
    #[error("the API key is unknown")]
    UnknownKey,
    /// It was revoked, or its owner was deleted.
    #[error("the API key was revoked")]
    RevokedKey,
    /// Its time is over.
    #[error("the API key has expired")]
    ExpiredKey,
}

/// Why nobody was found, when the leader was asked, too.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// The credential is not good.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// This node does not know the credential, and cannot find out whether that is because it does not know enough.
    #[error("this node cannot find out whether the credential is good: {0}")]
    NotAnswered(#[from] ProposeError),
}

/// Unknown credentials that the leader is asked about at the same time. Anybody can send them: they may not keep out what others ask for.
const LOOKUPS_MAX: usize = 16;

/// The prefix of every API key.
pub const KEY_PREFIX: &str = "sk-oai-";

/// Handle of the auth actor.
#[derive(Clone)]
pub struct Auth {
    cluster: Cluster,
    doors: Doors,
    groups: Arc<Derived<Groups>>,
    last_used: LastUsed,
    lookups: Arc<Semaphore>,
}

impl Auth {
    pub(crate) fn new(cluster: Cluster, doors: Doors) -> Auth {
        let groups = Arc::new(Derived::new(&cluster.view(), Groups::of));
        Auth { cluster, doors, groups, last_used: LastUsed::default(), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// Finds who presents `bearer` (the Authorization header's value after `Bearer `, or `x-api-key`).
    pub fn authenticate(&self, bearer: Option<&str>) -> Result<Caller, Unauthenticated> {
        let bearer = bearer.map(str::trim).filter(|bearer| !bearer.is_empty()).ok_or(Unauthenticated::Missing)?;
        let view = self.cluster.view();
        let now = self.now(&view);
        let credential = match bearer.starts_with(KEY_PREFIX) {
            true => Credential::Key(find_key(&view, bearer, now)?.clone()),
            false => Credential::Token(find_token(&view, bearer, now)?.clone()),
        };
        self.last_used.note(&credential, now);
        Ok(self.caller(&view, credential, now))
    }

    /// The caller as of now: with the groups that the user has by now. Errors: the credential has ended meanwhile. Whoever admits
    /// somebody to something that lasts, or comes later, asks again when it happens.
    pub fn again(&self, caller: &Caller) -> Result<Caller, Unauthenticated> {
        let view = self.cluster.view();
        let now = self.now(&view);
        let credential = match &caller.credential {
            Credential::Key(key) => Credential::Key(good_key(&view, view.keys.get(&key.id), now)?.clone()),
            Credential::Token(token) => Credential::Token(good_token(view.token_by_hash(&token.hash), now)?.clone()),
        };
        Ok(self.caller(&view, credential, now))
    }

    fn caller(&self, view: &View, credential: Credential, now: Timestamp) -> Caller {
        let table = self.groups.of(view);
        let groups = match &credential {
            Credential::Key(key) => table.of_key(view, key, now),
            Credential::Token(token) => table.of_token(token),
        };
        Caller { credential, groups }
    }

    /// The same for administration. Whoever was just given a credential uses it, on any node: one that this node does not know is
    /// looked for again when it has heard what the leader knows. And no fence waits for a node without a lease, so what such a node
    /// knows may have ended: it asks the leader first.
    pub async fn find(&self, bearer: Option<&str>) -> Result<Caller, NotFound> {
        if self.cluster.may_serve() {
            match self.authenticate(bearer) {
                Err(Unauthenticated::UnknownToken | Unauthenticated::UnknownKey) => {}
                known => return Ok(known?),
            }
        }
        {
            // Never closed: without a turn there is no bound, which is better than no answer.
            let _turn = self.lookups.acquire().await;
            self.cluster.read_barrier().await?;
        }
        Ok(self.authenticate(bearer)?)
    }

    /// The later of the two clocks: the state clock stands still while nothing is written, and wall time may be slow or jump back.
    /// Neither may let an expired credential live. A wall clock that is fast ends credentials early on this node, which is the safe mistake.
    fn now(&self, view: &View) -> Timestamp {
        view.time.max(self.doors.clock.wall())
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn last_used(&self) -> &LastUsed {
        &self.last_used
    }

    /// Builds what derives from the objects, so that no request has to.
    pub(crate) fn refresh(&self) {
        self.groups.of(&self.cluster.view());
    }
}

fn find_key<'a>(view: &'a View, bearer: &str, now: Timestamp) -> Result<&'a Arc<ApiKey>, Unauthenticated> {
    let hash = key_hash(bearer).ok_or(Unauthenticated::MalformedKey)?;
    good_key(view, view.key_by_hash(&hash), now)
}

fn good_key<'a>(view: &View, key: Option<&'a Arc<ApiKey>>, now: Timestamp) -> Result<&'a Arc<ApiKey>, Unauthenticated> {
    let key = key.ok_or(Unauthenticated::UnknownKey)?;
    match view.status_of(key, now) {
        KeyStatus::Active => Ok(key),
        KeyStatus::Expired => Err(Unauthenticated::ExpiredKey),
        KeyStatus::Revoked => Err(Unauthenticated::RevokedKey),
    }
}

fn find_token<'a>(view: &'a View, bearer: &str, now: Timestamp) -> Result<&'a Arc<Token>, Unauthenticated> {
    good_token(view.token_by_hash(&token_hash(bearer)), now)
}

fn good_token(token: Option<&Arc<Token>>, now: Timestamp) -> Result<&Arc<Token>, Unauthenticated> {
    token.filter(|token| token.is_valid(now)).ok_or(Unauthenticated::UnknownToken)
}

/// SHA-256 of `key_id || 0x00 || secret` for an API key `sk-oai-{key_id}_{secret}`; `None` if it is malformed (contract: both parts
/// non-empty base 62, one separator).
pub fn key_hash(key: &str) -> Option<[u8; 32]> {
    let (id, secret) = key.strip_prefix(KEY_PREFIX)?.split_once('_')?;
    let is_base62 = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_base62(id) || !is_base62(secret) {
        return None;
    }
    Some(Sha256::new().chain_update(id).chain_update([0]).chain_update(secret).finalize().into())
}

/// SHA-256 of a bearer token, as the state keeps it.
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests;
