//! The admin API: two doors to the same commands.

use crate::Context;

/// What the admin port serves: the Kubernetes-style API, maas-api, `/metrics`, `/healthz`, `/readyz`.
pub fn router(context: Context) -> axum::Router {
    let _ = context;
    todo!()
}

/// What the gateway port serves beside inference: `/maas-api/*`, `/v1/models`, `/healthz`, `/readyz`.
pub fn public_router(context: Context) -> axum::Router {
    let _ = context;
    todo!()
}
