//! Revocation: answered when it has happened everywhere.
//!
//! After the entry is committed the node waits until every member has applied it, or has been without a leader for so long
//! that it admits nobody. So when the answer comes no node admits the key again.
//!
//! Where nothing is left to revoke nothing is written: whoever asks for that in a loop costs no log.

use axum::response::Response;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use raft::cluster::Applied;
use raft::state::KeyStatus;
use raft::{Command, CommandRefusal, Reply};
use serde::Deserialize;
use serde_json::json;
use tracing::info;
use uuid::Uuid;

use super::error::{Family, Refused};
use super::{Ask, key, reply};
use crate::Context;

/// Proposals in flight while the keys of one subscription are revoked one by one.
const IN_FLIGHT_MAX: usize = 16;
const FAILED: &str = "Failed to revoke API key";
const BULK_FAILED: &str = "Failed to bulk revoke API keys";

pub(super) async fn one(ask: &Ask<'_>, id: &str) -> Result<Response, Refused> {
    let id: Uuid = id.parse().map_err(|_| Refused::no_key())?;
    let owner = (!ask.caller.is_admin()).then(|| ask.caller.user().to_owned());
    let view = ask.context.cluster.view();
    let key = view.keys.get(&id).filter(|key| owner.as_ref().is_none_or(|owner| *owner == key.username));
    if key.is_none_or(|key| key.status(view.time) != KeyStatus::Active) {
        if key.is_some_and(|key| key.revoked.is_some()) {
            // Perhaps an earlier request revoked it, and its answer was lost.
            ask.context.cluster.fence(view.applied).await;
        }
        return Err(Refused::no_key());
    }
    let proposed = ask.context.cluster.propose(Command::RevokeKey { id, owner }).await;
    let Applied { index, reply: answer } = proposed.map_err(|error| Refused::not_proposed(&error, FAILED))?;
    match answer {
        Reply::Key(revoked) => {
            ask.context.cluster.fence(index).await;
            info!(user = ask.caller.user(), key_id = %id, owner = revoked.username, "api key revoked");
            Ok(reply(StatusCode::OK, &key::write(&revoked, KeyStatus::Revoked)))
        }
        Reply::Refused(CommandRefusal::KeyNotFound) => {
            // Another request was faster: it may not have been answered yet.
            ask.context.cluster.fence(index).await;
            Err(Refused::no_key())
        }
        Reply::Done | Reply::Object(_) | Reply::Revoked(_) | Reply::Quota(_) | Reply::Refused(_) => {
            Err(unexpected(FAILED))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    username: Option<String>,
    subscription: Option<String>,
    dry_run: Option<bool>,
}

/// Whose keys, of which subscription. At least one is named.
struct Scope {
    username: Option<String>,
    subscription: Option<String>,
}

pub(super) async fn bulk(ask: &Ask<'_>) -> Result<Response, Refused> {
    let (context, caller) = (ask.context, &ask.caller);
    let wanted: Wanted = ask.json()?;
    let scope = Scope {
        username: wanted.username.filter(|name| !name.is_empty()),
        subscription: wanted.subscription.filter(|name| !name.is_empty()),
    };
    let is_own = scope.username.as_deref() == Some(caller.user());
    match (&scope.username, &scope.subscription) {
        (None, None) => return Err(Refused::bad_request("at least one of username or subscription is required")),
        (_, Some(_)) if !caller.is_admin() => {
            return Err(Refused::forbidden("Access denied: admin privileges required for this bulk revoke operation"));
        }
        (Some(_), None) if !(is_own || caller.is_admin()) => {
            return Err(Refused::forbidden("Access denied: you can only bulk revoke your own API keys"));
        }
        _ => {}
    }
    if wanted.dry_run == Some(true) {
        let count = scope.active(context).len();
        let message = format!("Dry run: {count} active key(s) would be revoked for {scope}");
        return Ok(reply(StatusCode::OK, &json!({"revokedCount": count, "message": message, "dryRun": true})));
    }
    let count = match &scope {
        Scope { username: Some(username), subscription: None } => revoke_all(context, username.clone()).await?,
        _ => revoke_each(context, scope.active(context)).await?,
    };
    info!(user = caller.user(), %scope, count, "api keys revoked");
    let message = format!("Successfully revoked {count} active API key(s) for {scope}");
    Ok(reply(StatusCode::OK, &json!({"revokedCount": count, "message": message})))
}

async fn revoke_all(context: &Context, username: String) -> Result<u64, Refused> {
    let view = context.cluster.view();
    if !view.keys_of(&username).any(|key| key.status(view.time) == KeyStatus::Active) {
        context.cluster.fence(view.applied).await;
        return Ok(0);
    }
    let proposed = context.cluster.propose(Command::RevokeKeys { username }).await;
    let Applied { index, reply: answer } = proposed.map_err(|error| Refused::not_proposed(&error, BULK_FAILED))?;
    let Reply::Revoked(count) = answer else { return Err(unexpected(BULK_FAILED)) };
    context.cluster.fence(index).await;
    Ok(count)
}

async fn revoke_each(context: &Context, ids: Vec<Uuid>) -> Result<u64, Refused> {
    let proposals = ids.into_iter().map(|id| context.cluster.propose(Command::RevokeKey { id, owner: None }));
    let mut answers = stream::iter(proposals).buffer_unordered(IN_FLIGHT_MAX);
    let (mut count, mut last) = (0, 0);
    while let Some(proposed) = answers.next().await {
        let applied = proposed.map_err(|error| Refused::not_proposed(&error, BULK_FAILED))?;
        // Somebody else may have revoked it meanwhile: that counts as theirs.
        count += u64::from(matches!(applied.reply, Reply::Key(_)));
        last = last.max(applied.index);
    }
    context.cluster.fence(last).await;
    Ok(count)
}

impl Scope {
    fn active(&self, context: &Context) -> Vec<Uuid> {
        let now = context.doors.clock.wall();
        let view = context.cluster.view();
        let fits = |name: &Option<String>, actual: &str| name.as_deref().is_none_or(|name| name == actual);
        view.keys
            .values()
            .filter(|key| fits(&self.username, &key.username) && fits(&self.subscription, &key.subscription))
            .filter(|key| view.status_of(key, now) == KeyStatus::Active)
            .map(|key| key.id)
            .collect()
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.username, &self.subscription) {
            (Some(user), Some(subscription)) => write!(f, "user {user} in subscription {subscription}"),
            (Some(user), None) => write!(f, "user {user}"),
            (None, Some(subscription)) => write!(f, "subscription {subscription}"),
            (None, None) => write!(f, "nobody"),
        }
    }
}

fn unexpected(message: &str) -> Refused {
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, Family::Keys, message)
}
