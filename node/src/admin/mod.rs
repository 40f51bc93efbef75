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
mod shares;

use axum::Router;
use tokio::sync::watch;

use crate::Context;

pub use serve::serve;
use shares::Shares;

/// How much users may have in progress at once, both ports together. What is beyond it is refused and may be tried again.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Watches of all users. Each costs a task and one look at its kind's statuses a second. Default 256.
    pub watches_max: usize,
    /// Watches of one user. Default 64.
    pub watches_per_user_max: usize,
    /// Queries of all users: lists, searches for keys and reports of usage, which look through much. Default 64.
    pub queries_max: usize,
    /// Queries of one user. Default 16.
    pub queries_per_user_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { watches_max: 256, watches_per_user_max: 64, queries_max: 64, queries_per_user_max: 16 }
    }
}

/// What the ports serve.
pub struct Routers {
    /// On the admin port: the Kubernetes-style API, maas-api, `/tollgate/v1/*`, `/metrics`, `/healthz`, `/livez`, `/readyz`.
    pub admin: Router,
    /// On the gateway's port, beside inference: `/maas-api/*`, `/v1/models`, `/healthz`, `/livez`, `/readyz`.
    pub public: Router,
}

/// Both ports' routers. Watches, which would outlast any patience, end as soon as `draining` turns true or its sender is gone.
pub fn routers(context: &Context, draining: watch::Receiver<bool>, bounds: &Bounds) -> Routers {
    let queries = Shares::new("queries in progress", bounds.queries_max, bounds.queries_per_user_max);
    let watches = Shares::new("watches", bounds.watches_max, bounds.watches_per_user_max);
    let admin = Router::new()
        .merge(health::router(context.clone()))
        .merge(health::metrics_router(context.clone()))
        .merge(own::router(context.clone()))
        .merge(maas_api::router(context.clone(), queries.clone()))
        .merge(kube::router(context.clone(), draining, watches, queries.clone()));
    let public = Router::new()
        .merge(health::router(context.clone()))
        .merge(maas_api::router(context.clone(), queries.clone()))
        .merge(maas_api::models_router(context.clone(), queries));
    Routers { admin, public }
}
