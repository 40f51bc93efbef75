//! One API key as people see it.

use axum::response::Response;
use http::StatusCode;
use raft::resources::TENANT_NAMESPACE;
use raft::state::{ApiKey, KeyStatus};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::Refused;
use super::{Ask, reply};

pub(super) fn get(ask: &Ask<'_>, id: &str) -> Result<Response, Refused> {
    let id: Uuid = id.parse().map_err(|_| Refused::no_key())?;
    let view = ask.context.cluster.view();
    let now = ask.context.doors.clock.wall();
    let key = view.keys.get(&id).filter(|key| ask.caller.is_admin() || key.username == ask.caller.user());
    let key = key.filter(|key| key.is_kept(view.key_bounds().retention, now)).ok_or_else(Refused::no_key)?;
    Ok(reply(StatusCode::OK, &write(key, view.status_of(key, now))))
}

/// The key as it is sent. Neither its secret nor its hash is part of it.
pub(super) fn write(key: &ApiKey, status: KeyStatus) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), json!(key.id.to_string()));
    map.insert("name".to_owned(), json!(key.name));
    if !key.description.is_empty() {
        map.insert("description".to_owned(), json!(key.description));
    }
    map.insert("username".to_owned(), json!(key.username));
    map.insert("subscription".to_owned(), json!(key.subscription));
    map.insert("tenant".to_owned(), json!(TENANT_NAMESPACE));
    map.insert("creationDate".to_owned(), json!(key.created.to_string()));
    map.insert("expirationDate".to_owned(), json!(key.expires.to_string()));
    map.insert("status".to_owned(), json!(status_word(status)));
    if let Some(used) = key.last_used {
        map.insert("lastUsedAt".to_owned(), json!(used.to_string()));
    }
    map.insert("ephemeral".to_owned(), json!(key.ephemeral));
    if !key.labels.is_empty() {
        map.insert("labels".to_owned(), labels(key));
    }
    Value::Object(map)
}

pub(super) fn labels(key: &ApiKey) -> Value {
    Value::Object(key.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
}

pub(super) fn status_word(status: KeyStatus) -> &'static str {
    match status {
        KeyStatus::Active => "active",
        KeyStatus::Expired => "expired",
        KeyStatus::Revoked => "revoked",
    }
}
