//! Group: names users. A name with a colon may be written `b64:<base64>`.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Value, json};

use super::fields::Fields;
use super::kind::Column;

/// Its members administer the cluster.
pub const ADMINISTRATORS: &str = "system:masters";

/// A parsed Group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSpec {
    /// Its members, decoded.
    pub users: Vec<String>,
}

/// Columns of `kubectl get`, after the name.
pub(super) const COLUMNS: &[Column] = &[Column::text("Users", "the members")];

/// Reads the body `{"users": […]}`.
pub(super) fn parse(body: &Fields<'_>) -> GroupSpec {
    let mut users = Vec::new();
    for (at, text) in body.texts("users").into_iter().enumerate() {
        match decode(text) {
            Some(user) => users.push(user),
            None => {
                body.error(&format!("users[{at}]"), format!("\"{text}\" is not `b64:` and base64 of a UTF-8 user name"))
            }
        }
    }
    GroupSpec { users }
}

pub(super) fn cells(group: &GroupSpec) -> Vec<Value> {
    vec![json!(group.users.join(", "))]
}

/// `b64:a3ViZTphZG1pbg==` is `kube:admin`; anything else is itself.
fn decode(text: &str) -> Option<String> {
    let Some(encoded) = text.strip_prefix("b64:") else { return Some(text.to_owned()) };
    let bytes = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).ok()?;
    String::from_utf8(bytes).ok().filter(|user| !user.is_empty())
}
