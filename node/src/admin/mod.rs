//! The admin API: two doors to the same commands, and one to the cluster itself.
//!
//! - [`kube`]: a Kubernetes-style resource API, for `kubectl` and everything built on it. Admin port only.
//! - [`maas_api`]: API keys, models and subscriptions as Models-as-a-Service clients know them. Both ports.
//! - [`own`]: who is in the cluster, and where limits stand. Admin port only.
//!
//! All authenticate through the same actor, read the newest View of this node, and change things only through
//! `Cluster::propose`. None keeps state of its own, and the gateway never imports this module.

mod body;
mod health;
mod json;
mod kube;
mod maas_api;
mod own;
mod path;
mod secret;
mod serve;

use axum::Router;
use tokio::sync::watch;

use crate::Context;

pub use serve::serve;

/// What the admin port serves: the Kubernetes-style API, maas-api, `/tollgate/v1/*`, `/metrics`, `/healthz`, `/livez`, `/readyz`. Watches, which
/// would outlast any patience, end as soon as `draining` turns true or its sender is gone.
pub fn router(context: Context, draining: watch::Receiver<bool>) -> Router {
    let kube = kube::router(context.clone(), draining);
    Router::new()
        .merge(health::router(context.clone()))
        .merge(health::metrics_router(context.clone()))
        .merge(own::router(context.clone()))
        .merge(maas_api::router(context))
        .merge(kube)
}

/// What the gateway port serves beside inference: `/maas-api/*`, `/v1/models`, `/healthz`, `/livez`, `/readyz`.
pub fn public_router(context: Context) -> Router {
    Router::new()
        .merge(health::router(context.clone()))
        .merge(maas_api::router(context.clone()))
        .merge(maas_api::models_router(context))
}
