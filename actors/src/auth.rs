//! Auth: whose credential is this, and is it still good?
//!
//! The check itself reads the newest View, so a revoked key stops working the moment its entry is applied here. The
//! actor only notes when keys were last used and tells the cluster, coarsely.

mod last_used;

use std::collections::HashMap;
use std::sync::Arc;

use raft::doors::Doors;
use raft::resources::{Kind, Spec};
use raft::state::{ApiKey, KeyStatus, Token};
use raft::{Cluster, ProposeError, Timestamp, View};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::derived::Derived;

pub(crate) use last_used::{LastUsed, LastUsedActor};

/// Who calls. Only [`Auth::authenticate`] makes one.
#[derive(Clone, Debug)]
pub struct Caller(pub(crate) Identity);

/// What they showed.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
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

    /// Of what they showed, as long as anybody has it: tells callers apart without looking at them.
    pub(crate) fn address(&self) -> usize {
        match &self.0 {
            Identity::Key(key) => Arc::as_ptr(key).addr(),
            Identity::Token { token, .. } => Arc::as_ptr(token).addr(),
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

/// The group of everybody who shows a good token.
const AUTHENTICATED: &str = "system:authenticated";

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
        if bearer.starts_with(KEY_PREFIX) {
            let key = find_key(&view, bearer, now)?;
            self.last_used.note(key, now);
            return Ok(Caller(Identity::Key(key.clone())));
        }
        let token = find_token(&view, bearer, now)?;
        let groups = self.groups.of(&view).all_of(token);
        Ok(Caller(Identity::Token { token: token.clone(), groups }))
    }

    /// The same for administration, where whoever was just given a credential uses it, on any node: one that this node does not know is
    /// looked for again when it has heard what the leader knows.
    pub async fn find(&self, bearer: Option<&str>) -> Result<Caller, NotFound> {
        match self.authenticate(bearer) {
            Err(Unauthenticated::UnknownToken | Unauthenticated::UnknownKey) => {}
            known => return Ok(known?),
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
    let key = view.key_by_hash(&hash).ok_or(Unauthenticated::UnknownKey)?;
    match key.status(now) {
        KeyStatus::Active => Ok(key),
        KeyStatus::Expired => Err(Unauthenticated::ExpiredKey),
        KeyStatus::Revoked => Err(Unauthenticated::RevokedKey),
    }
}

fn find_token<'a>(view: &'a View, bearer: &str, now: Timestamp) -> Result<&'a Arc<Token>, Unauthenticated> {
    let token = view.token_by_hash(&token_hash(bearer)).ok_or(Unauthenticated::UnknownToken)?;
    match token.expires {
        Some(expires) if expires <= now => Err(Unauthenticated::UnknownToken),
        Some(_) | None => Ok(token),
    }
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

// === Groups: what Group objects give a token's user ===

/// The groups of every user named by a Group object, sorted.
struct Groups(HashMap<String, Vec<String>>);

impl Groups {
    fn of(view: &View) -> Groups {
        let mut groups: HashMap<String, Vec<String>> = HashMap::new();
        for object in view.objects_of(Kind::Group) {
            let Spec::Group(group) = &object.spec else { continue };
            for user in &group.users {
                let names = groups.entry(user.clone()).or_default();
                if names.last() != Some(&object.key.name) {
                    names.push(object.key.name.clone());
                }
            }
        }
        Groups(groups)
    }

    /// The token's own groups, those of Group objects, and [`AUTHENTICATED`]: each once.
    fn all_of(&self, token: &Token) -> Arc<[String]> {
        let named = self.0.get(&token.username).into_iter().flatten();
        let mut all: Vec<String> = token.groups.clone();
        for group in named.map(String::as_str).chain([AUTHENTICATED]) {
            if !all.iter().any(|known| known == group) {
                all.push(group.to_owned());
            }
        }
        all.into()
    }
}

#[cfg(test)]
mod tests;
