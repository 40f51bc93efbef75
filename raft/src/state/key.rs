//! API keys. Only the hash of the secret is here.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::Timestamp;

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
    /// The owner's groups at creation, frozen.
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
}
