//! Which limits apply to a key's calls to a model, and where each stands: on every node, by the ledger.
//!
//! `GET /tollgate/v1/quota?key=ID&model=NAMESPACE/NAME`. The key is named by its id: a secret does not belong in a URL. What nodes
//! have spent reaches the ledger within a moment, so `used` may be behind by that much, and `held` ahead.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use raft::resources::{Kind, Limit, LimitKind, ObjectKey, Spec, SubscriptionModel, TENANT_NAMESPACE};
use raft::state::{ApiKey, KeyStatus, MeterId, Subject};
use raft::{NodeId, Timestamp, View};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Refused, authorize, reply};
use crate::Context;

/// `/tollgate/v1/quota`.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/tollgate/v1/quota", get(explain))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    key: String,
    model: String,
}

async fn explain(
    State(context): State<Context>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Refused> {
    authorize(&context, &headers).await?;
    let Query(asked) = asked.map_err(|_| bad("ask with ?key=ID&model=NAMESPACE/NAME"))?;
    let Ok(id) = asked.key.parse::<Uuid>() else {
        // Not repeated: it may be a secret.
        return Err(bad("`key` is not the id of a key: `GET /maas-api/v1/api-keys` and its search show ids"));
    };
    let view = context.cluster.read_barrier().await?;
    let now = view.time.max(context.doors.clock.wall());
    let Some(key) = view.keys.get(&id) else { return Err(absent(format!("there is no key {id}"))) };
    let model = find_model(&view, key, &asked.model)?;
    let of_kind = |kind| explain_limit(&view, key, model, kind, now);
    let limits: Vec<Value> = by_kind(&model.limits).into_values().filter_map(of_kind).collect();
    let status = match view.status_of(key, now) {
        KeyStatus::Active => "active",
        KeyStatus::Expired => "expired",
        KeyStatus::Revoked => "revoked",
    };
    let answer = json!({
        "key": {"id": key.id, "user": key.username, "subscription": key.subscription, "status": status},
        "model": format!("{}/{}", model.namespace, model.name),
        "time": now.to_string(),
        "limits": limits,
    });
    Ok(reply(StatusCode::OK, &answer))
}

fn bad(message: &str) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, message)
}

fn absent(message: String) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, message)
}

/// What the key's subscription says of the model: `namespace/name`, or a name that only one of its models has.
fn find_model<'a>(view: &'a View, key: &ApiKey, name: &str) -> Result<&'a SubscriptionModel, Refused> {
    let subscription = ObjectKey::new(Kind::Subscription, TENANT_NAMESPACE, &*key.subscription);
    let Some(Spec::Subscription(spec)) = view.object(&subscription).map(|object| &object.spec) else {
        return Err(absent(format!("the key's subscription {} does not exist (any more)", key.subscription)));
    };
    let is_it = |model: &&SubscriptionModel| match name.split_once('/') {
        Some((namespace, name)) => (model.namespace.as_str(), model.name.as_str()) == (namespace, name),
        None => model.name == name,
    };
    let mut found = spec.model_refs.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(model), None) => Ok(model),
        (Some(_), Some(_)) => Err(bad("several models have that name: say which, as NAMESPACE/NAME")),
        (None, _) => Err(absent(format!("subscription {} does not include model {name}", key.subscription))),
    }
}

/// Of two limits of one kind the smaller.
fn by_kind(limits: &[Limit]) -> BTreeMap<LimitKind, &Limit> {
    let mut kinds: BTreeMap<LimitKind, &Limit> = BTreeMap::new();
    for limit in limits {
        let smallest = kinds.entry(limit.kind()).or_insert(limit);
        if limit.limit < smallest.limit {
            *smallest = limit;
        }
    }
    kinds
}

fn explain_limit(view: &View, key: &ApiKey, model: &SubscriptionModel, limit: &Limit, now: Timestamp) -> Option<Value> {
    let subject = Subject::of(limit.scope, &key.username, Some(key.id));
    let id = MeterId {
        subscription: (TENANT_NAMESPACE.to_owned(), key.subscription.clone()),
        model: (model.namespace.clone(), model.name.clone()),
        limit: limit.kind(),
        subject: subject.clone(),
    };
    let reading = view.reading(&id, now)?;
    let window = view.meters.get(&id).and_then(|meter| meter.window.as_ref()).filter(|_| reading.ends.is_some());
    let mut nodes: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
    if let Some(window) = window {
        window.granted.iter().for_each(|(node, amount)| nodes.entry(*node).or_default().0 += amount);
        window.orphaned.iter().for_each(|(node, amount)| nodes.entry(*node).or_default().1 += amount);
    }
    let amount = |amount| limit.unit.number(amount);
    let nodes: Vec<Value> = nodes
        .into_iter()
        .map(|(node, (granted, orphaned))| json!({"node": node.0, "granted": amount(granted), "stranded": amount(orphaned)}))
        .collect();
    Some(json!({
        "limit": amount(reading.limit),
        "unit": limit.unit.name(),
        "scope": limit.scope.name(),
        "enforcement": limit.enforcement.name(),
        "subject": subject.to_string(),
        "window": limit.window,
        "used": amount(reading.used),
        "held": amount(reading.held),
        "free": amount(reading.free),
        "debt": amount(reading.debt),
        "resets": reading.ends.filter(|_| !id.is_in_progress()).map(|ends| ends.to_string()),
        "nodes": nodes,
    }))
}
