//! The admin port: heads and credentials are judged by the same rules as on the gateway's, before any route is looked for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use serde_json::json;
use tower::{Service, ServiceExt};

use crate::Context;
use crate::accept::{self, Peer, Port, TooManyAttempts};
use crate::credentials::Shown;

/// Serves `router` on `port` until `drain` resolves and the calls in progress ended, or the port's drain deadline passed.
pub async fn serve(context: Context, router: Router, port: Port, drain: impl Future<Output = ()> + Send + 'static) {
    let metrics = context.metrics.port("admin");
    accept::serve(port, metrics, Admin { context, router }, drain).await;
}

#[derive(Clone)]
struct Admin {
    context: Context,
    router: Router,
}

impl Admin {
    async fn answer(self, request: Request<accept::Body>) -> Response {
        let (head, body) = request.into_parts();
        if let Err(bad) = accept::check_head(&head) {
            return refuse(StatusCode::BAD_REQUEST, "BadRequest", &bad.to_string(), head.version);
        }
        if !accept::is_health_check(head.uri.path())
            && let Err(too_many) = self.judge(&body.peer(), &head.headers)
        {
            let mut response =
                refuse(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", &too_many.to_string(), head.version);
            response.headers_mut().insert(header::RETRY_AFTER, seconds(too_many.retry_after));
            return response;
        }
        let Ok(response) = self.router.oneshot(Request::from_parts(head, Body::new(body))).await;
        response
    }

    /// Counts an invalid credential before the leader is asked about it. A token that was made a moment ago and is not known here yet
    /// counts, too, and is then found.
    fn judge(&self, peer: &Peer, headers: &HeaderMap) -> Result<(), TooManyAttempts> {
        Shown::of(headers).judge(&self.context.actors.auth, peer, headers).map(|_| ())
    }
}

fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
}

/// A refusal that clients of each API here understand: a Kubernetes `Status`, with `error` for the others.
fn refuse(code: StatusCode, reason: &str, message: &str, version: Version) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(), "error": message,
    });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if code == StatusCode::BAD_REQUEST && version < Version::HTTP_2 {
        // Where the next request on it would begin is not certain.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Service<Request<accept::Body>> for Admin {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<accept::Body>) -> Self::Future {
        let admin = self.clone();
        Box::pin(async move { Ok(admin.answer(request).await) })
    }
}
