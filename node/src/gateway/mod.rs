//! The data plane: the life of one call.

use crate::Context;
use crate::accept::Port;

/// Settings of the data plane.
#[derive(Clone, Debug)]
pub struct Settings {}

/// Serves inference on `port`, and hands `/maas-api/*`, `/v1/models`, `/healthz` and `/readyz` to `public`. Returns after
/// `drain` resolved and the calls in progress ended, or the drain deadline passed.
pub async fn serve(
    context: Context,
    settings: Settings,
    port: Port,
    public: axum::Router,
    drain: impl Future<Output = ()> + Send + 'static,
) {
    let _ = (context, settings, port, public, drain.await);
    todo!()
}
