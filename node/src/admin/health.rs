//! Is the process alive, may it serve, and its counters.
//!
//! `/healthz` and `/livez` say that the process answers. `/readyz` says whether calls should be sent here, and names what is
//! missing, one line each. These need no credentials and tell nothing else. `/metrics` names users and subscriptions, so it
//! is for administrators and members of `system:monitoring`.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use raft::resources::{Kind, Spec};

use crate::Context;
use crate::credentials::bearer;

/// Members may read `/metrics`, as in Kubernetes.
const MONITORING_GROUP: &str = "system:monitoring";

/// `/healthz`, `/livez`, `/readyz`.
pub(super) fn router(context: Context) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .with_state(context)
}

/// `/metrics`.
pub(super) fn metrics_router(context: Context) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(context)
}

async fn ready(State(context): State<Context>) -> Response {
    let missing = missing(&context);
    if missing.is_empty() {
        return "ok".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
}

/// What keeps this node from serving, one line each.
fn missing(context: &Context) -> Vec<String> {
    if context.cluster.is_retired() {
        return vec!["retired: this node was taken out of the cluster: stop it".to_owned()];
    }
    let mut missing = Vec::new();
    if !context.cluster.membership().voters.contains(&context.cluster.node()) {
        missing.push("member: this node has no vote yet: it waits to be added, or to catch up".to_owned());
    }
    if !context.cluster.may_serve() {
        missing.push("lease: this node has not heard from the leader within the serving lease".to_owned());
    }
    if context.cluster.standing().leader.is_none() {
        missing.push("leader: no leader is known".to_owned());
    }
    let unknown = services_without_pool(context);
    if unknown > 0 {
        missing.push(format!("pools: {unknown} services have no pool of replicas here yet"));
    }
    missing
}

/// How many services name replicas that this node's picker does not know yet.
fn services_without_pool(context: &Context) -> usize {
    let pools = context.actors.pools.snapshot();
    let view = context.cluster.view();
    let services = view.objects_of(Kind::InferenceService);
    services
        .filter(|object| matches!(&object.spec, Spec::InferenceService(spec) if !spec.replica_urls.is_empty()))
        .map(|object| (object.key.namespace.as_str(), object.key.name.as_str()))
        .filter(|key| !pools.iter().any(|pool| (&*pool.service.namespace, &*pool.service.name) == *key))
        .count()
}

/// Also where no leader is heard of, since that is when somebody must look: a node that is cut off goes by what it last knew.
async fn metrics(State(context): State<Context>, headers: HeaderMap) -> Response {
    match context.actors.auth.authenticate(bearer(&headers)) {
        Err(_) => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "send a bearer token\n").into_response(),
        Ok(caller)
            if caller.key_id().is_some()
                || !(caller.is_admin() || caller.groups().iter().any(|group| group == MONITORING_GROUP)) =>
        {
            (StatusCode::FORBIDDEN, "metrics are for administrators and members of system:monitoring\n").into_response()
        }
        Ok(_) => {
            let text = context.metrics.encode(&context);
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
    }
}
