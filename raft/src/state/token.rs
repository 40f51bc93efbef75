//! Bearer tokens for people and service accounts. Only their hash is here, so nothing in the log can be used as one.

use serde::{Deserialize, Serialize};

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
