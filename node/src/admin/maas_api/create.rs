//! A new API key: checked, bound to a subscription, drawn, recorded by its hash, shown once.
//!
//! A user who is no administrator makes so many a minute at a node; how many one may have is decided where keys are recorded.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use actors::{Caller, Unauthenticated};
use axum::response::Response;
use http::StatusCode;
use raft::command::NewKey;
use raft::resources::{
    Kind, Object, ObjectKey, Phase, Spec, SubscriptionSpec, TENANT_NAMESPACE, Unit, reference_phase,
};
use raft::state::{KEY_DESCRIPTION_BYTES_MAX, KEY_NAME_BYTES_MAX};
use raft::{Applied, Command, CommandRefusal, Reply, Timestamp, View};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::info;
use uuid::Uuid;

use super::error::{Family, Refused};
use super::expiry::{EPHEMERAL_MAX, lifetime};
use super::{Ask, key, labels, reply, unauthenticated};
use crate::admin::secret;

const NAME_CHARACTERS_MAX: usize = 128;
const _: () = assert!(NAME_CHARACTERS_MAX * 4 <= KEY_NAME_BYTES_MAX, "a character has four bytes at most");
const SECONDS_PER_DAY: u64 = 86_400;
/// What a caller reads when nothing went wrong that they could mend.
const FAILED: &str = "Failed to create API key";

pub(super) fn config(ask: &Ask<'_>) -> Response {
    let days = ask.context.cluster.view().tenant().max_expiration_days;
    reply(StatusCode::OK, &json!({"max_expiration_days": days, "ephemeral_max_expiration": "1h0m0s"}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    name: Option<String>,
    description: Option<String>,
    subscription: Option<String>,
    expires_in: Option<Value>,
    ephemeral: Option<bool>,
    labels: Option<Map<String, Value>>,
}

pub(super) async fn answer(ask: &Ask<'_>) -> Result<Response, Refused> {
    let (context, caller) = (ask.context, &ask.caller);
    let Some(token) = caller.token_hash() else {
        return Err(Refused::forbidden("an API key cannot create API keys: authenticate with your user token"));
    };
    let wanted: Wanted = ask.json()?;
    let now = context.doors.clock.wall();
    let view = context.cluster.view();
    let named = wanted.subscription.clone();
    let checked = wanted.check(&view, now)?;
    let subscription = subscription(&view, caller, named.as_deref())?;
    if !caller.is_admin() {
        let per_minute = view.key_bounds().creations_per_minute;
        context.new_keys.step(caller.user(), per_minute).map_err(|wait| too_fast(per_minute, wait))?;
    }
    let secret = secret::api_key(&*context.doors.chance);
    let key = checked.into_key(caller, &subscription, context.doors.chance.uuid(), secret.hash);

    let key = match context.cluster.propose(Command::MakeKey { key, token, seen: view.applied }).await {
        Ok(Applied { index, reply: answer }) => match answer {
            Reply::Key(key) => {
                context.cluster.spread(index).await;
                key
            }
            Reply::Refused(CommandRefusal::TokenNotFound) => {
                return Err(unauthenticated(Unauthenticated::UnknownToken, Family::Keys));
            }
            Reply::Refused(refusal) => return Err(refused(&refusal)),
            Reply::Done | Reply::Object(_) | Reply::Revoked(_) | Reply::Quota(_) => return Err(failed()),
        },
        Err(error) => return Err(Refused::not_proposed(&error, FAILED)),
    };
    info!(user = key.username, key_id = %key.id, subscription = key.subscription, expires = %key.expires, "api key created");
    let mut shown = json!({
        "key": secret.text,
        "keyPrefix": secret::shown_prefix(&secret.text),
        "id": key.id.to_string(),
        "name": key.name,
        "subscription": key.subscription,
        "createdAt": key.created.to_string(),
        "expiresAt": key.expires.to_string(),
        "ephemeral": key.ephemeral,
    });
    if !key.labels.is_empty() {
        shown["labels"] = key::labels(&key);
    }
    Ok(reply(StatusCode::CREATED, &shown))
}

fn too_fast(per_minute: u32, wait: Duration) -> Refused {
    let message = format!("you are making API keys too fast: {per_minute} a minute at most; try again later");
    Refused::new(StatusCode::TOO_MANY_REQUESTS, Family::Keys, message)
        .with_code("rate_limit_exceeded")
        .with_retry_after(wait)
}

/// What the state says against a key that looked right.
fn refused(refusal: &CommandRefusal) -> Refused {
    let status = match refusal {
        CommandRefusal::TooManyKeys { .. } | CommandRefusal::KeyTextUsedUp { .. } => {
            return Refused::forbidden(refusal.to_string()).with_code("api_key_limit_reached");
        }
        CommandRefusal::KeyFieldTooLong { .. } => StatusCode::BAD_REQUEST,
        CommandRefusal::TooLate => StatusCode::SERVICE_UNAVAILABLE,
        _ => return failed(),
    };
    Refused::new(status, Family::Keys, refusal.to_string())
}

fn failed() -> Refused {
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, Family::Keys, FAILED)
}

/// A checked wish.
struct Checked {
    name: String,
    description: String,
    expires: Timestamp,
    ephemeral: bool,
    labels: Vec<(String, String)>,
}

impl Wanted {
    fn check(self, view: &View, now: Timestamp) -> Result<Checked, Refused> {
        let ephemeral = self.ephemeral.unwrap_or(false);
        let max = match ephemeral {
            true => EPHEMERAL_MAX,
            false => Duration::from_secs(u64::from(view.tenant().max_expiration_days) * SECONDS_PER_DAY),
        };
        let lifetime = lifetime(self.expires_in.as_ref(), max).map_err(Refused::bad_request)?;
        let description = self.description.unwrap_or_default();
        if description.len() > KEY_DESCRIPTION_BYTES_MAX {
            return Err(Refused::bad_request(format!(
                "description has {} bytes: at most {KEY_DESCRIPTION_BYTES_MAX} are kept",
                description.len()
            )));
        }
        Ok(Checked {
            name: name(self.name.as_deref().unwrap_or_default(), ephemeral, now)?,
            description,
            expires: now.plus(lifetime),
            ephemeral,
            labels: labels::check(&self.labels.unwrap_or_default()).map_err(Refused::bad_request)?,
        })
    }
}

impl Checked {
    fn into_key(self, caller: &Caller, subscription: &Object, id: Uuid, hash: [u8; 32]) -> NewKey {
        NewKey {
            id,
            hash,
            name: self.name,
            description: self.description,
            username: caller.user().to_owned(),
            groups: caller.groups().to_vec(),
            subscription: subscription.key.name.clone(),
            expires: self.expires,
            ephemeral: self.ephemeral,
            labels: self.labels,
        }
    }
}

fn name(given: &str, ephemeral: bool, now: Timestamp) -> Result<String, Refused> {
    let name = given.trim();
    match name.chars().count() {
        0 if given.is_empty() && ephemeral => Ok(format!("ephemeral-{}000000", now.millis())),
        0 if given.is_empty() => Err(Refused::bad_request("name is required for non-ephemeral keys")),
        0 => Err(Refused::bad_request("name must not be blank")),
        count if count > NAME_CHARACTERS_MAX => {
            Err(Refused::bad_request(format!("name has {count} characters: at most {NAME_CHARACTERS_MAX} are kept")))
        }
        _ if name.contains(char::is_control) => Err(Refused::bad_request("name must not contain control characters")),
        _ => Ok(name.to_owned()),
    }
}

/// The subscription a new key is bound to: the one named, or the caller's best.
fn subscription(view: &View, caller: &Caller, named: Option<&str>) -> Result<Arc<Object>, Refused> {
    // One text for all: whether a subscription exists cannot be probed.
    let unresolved =
        || Refused::bad_request("Unable to resolve a subscription for this API key").with_code("invalid_subscription");
    let own = owned(view, caller);
    let Some(named) = named.map(str::trim).filter(|name| !name.is_empty()) else {
        let best = own.into_iter().min_by_key(|(object, spec)| rank(object, spec));
        return best.map(|(object, _)| Arc::clone(object)).ok_or_else(unresolved);
    };
    let (object, _) = own.into_iter().find(|(object, _)| object.key.name == named).ok_or_else(unresolved)?;
    if reference_phase(object, view) == Phase::Failed {
        let message = format!("subscription {named} is not ready: none of its models exists; ask who administers it");
        return Err(Refused::forbidden(message).with_code("subscription_not_ready"));
    }
    Ok(Arc::clone(object))
}

/// The caller's subscriptions, by name. Keys and headers name a subscription without its namespace, so one of the tenant's
/// namespace hides others of its name.
pub(super) fn owned<'a>(view: &'a View, caller: &Caller) -> Vec<(&'a Arc<Object>, &'a SubscriptionSpec)> {
    let is_hidden = |key: &ObjectKey| {
        let tenants_own = ObjectKey::new(Kind::Subscription, TENANT_NAMESPACE, key.name.clone());
        key.namespace != TENANT_NAMESPACE && view.object(&tenants_own).is_some()
    };
    let mut own: Vec<(&Arc<Object>, &SubscriptionSpec)> = view
        .objects_of(Kind::Subscription)
        .filter_map(|object| match &object.spec {
            Spec::Subscription(spec) => Some((object, spec)),
            _ => None,
        })
        .filter(|(object, spec)| spec.owner.contains(caller.user(), caller.groups()) && !is_hidden(&object.key))
        .collect();
    own.sort_by_key(|(object, _)| object.key.name.as_str());
    own
}

/// The best subscription sorts first: highest priority (negative ones count as 0), then largest single limit of tokens, then name.
fn rank<'a>(object: &'a Object, spec: &SubscriptionSpec) -> (Reverse<i32>, Reverse<u64>, &'a str) {
    let limits = spec.model_refs.iter().flat_map(|model| &model.limits);
    let of_tokens = limits.filter(|limit| limit.unit == Unit::Total);
    let largest = of_tokens.map(|limit| limit.limit).max().unwrap_or(0);
    (Reverse(spec.priority.max(0)), Reverse(largest), object.key.name.as_str())
}
