//! maas-api: API keys, models and subscriptions, as Models-as-a-Service clients know them.
//!
//! | path below `/maas-api` | what |
//! |---|---|
//! | `GET /health` | the process answers; needs no credentials |
//! | `GET /v1/models`, `GET /v1/models/{id}` | models the caller may use (on the gateway port also without `/maas-api`); ids may have slashes |
//! | `GET /v1/subscriptions`, `GET /v1/model/{name}/subscriptions` | subscriptions the caller owns |
//! | `GET /v1/api-keys/config` | the longest a key may live |
//! | `POST /v1/api-keys` | a new key, shown once; needs a token, which must still work when the key is recorded |
//! | `POST /v1/api-keys/search`, `GET /v1/api-keys/{id}` | the caller's keys (an administrator's: anybody's) |
//! | `DELETE /v1/api-keys/{id}`, `POST /v1/api-keys/bulk-revoke` | revoke; when the answer comes, no node admits the key |
//! | `GET /v1/usage` | what the caller's calls used (an administrator's: anybody's); ours |
//!
//! Upstream's `/internal/v1` routes are not here: they trusted the network, and what they did happens in process.

mod create;
mod error;
mod expiry;
mod key;
mod labels;
mod models;
mod revoke;
mod search;
mod subscriptions;
mod usage;

use actors::{Caller, NotFound, Unauthenticated};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::shares::Shares;
use super::{body, json as unambiguous, path};
use crate::credentials::Shown;
use crate::{Context, anthropic, model_id};
use error::{Family, Refused};

/// Request bodies, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// A client's request id may be so long.
const REQUEST_ID_MAX: usize = 128;
const REQUEST_ID: &str = "x-request-id";
/// Identity headers that upstream's gateway sets. Nobody else may send them, and nothing here reads them.
const IDENTITY_HEADERS: [&str; 2] = ["x-maas-username", "x-maas-group"];

/// Everything below `/maas-api`.
pub(super) fn router(context: Context, queries: Shares) -> Router {
    Router::new()
        .route("/maas-api", any(handle))
        .route("/maas-api/", any(handle))
        .route("/maas-api/{*rest}", any(handle))
        .with_state(Api { context, queries })
}

/// `/v1/models` for OpenAI clients.
pub(super) fn models_router(context: Context, queries: Shares) -> Router {
    let routes = Router::new().route("/v1/models", any(handle)).route("/v1/models/{*id}", any(handle));
    routes.with_state(Api { context, queries })
}

/// What the requests share.
#[derive(Clone)]
struct Api {
    context: Context,
    queries: Shares,
}

async fn handle(State(api): State<Api>, request: Request<Body>) -> Response {
    let request_id = request_id(&api.context, request.headers());
    let is_anthropic = anthropic::asks(request.headers());
    let mut response = match answer(&api, request).await {
        Ok(response) => response,
        Err(refused) if is_anthropic => refused.to_anthropic(request_id.to_str().unwrap_or_default()),
        Err(refused) => refused.into_response(),
    };
    let headers = response.headers_mut();
    if is_anthropic {
        headers.insert("request-id", request_id.clone());
    }
    headers.insert(REQUEST_ID, request_id);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The client's own request id if it is plain, else a fresh one.
fn request_id(context: &Context, headers: &HeaderMap) -> HeaderValue {
    let is_plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    headers.get(REQUEST_ID).filter(is_plain).cloned().unwrap_or_else(|| {
        let fresh = context.doors.chance.uuid().to_string();
        HeaderValue::try_from(fresh).expect("a UUID is ASCII")
    })
}

async fn answer(Api { context, queries }: &Api, request: Request<Body>) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    if head.method == Method::OPTIONS {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (path, model) = model_id::split(head.uri.path())
        .map_err(|bad| Refused::new(StatusCode::BAD_REQUEST, Family::Models, bad.to_string()))?;
    let segments = path::segments(path).ok_or_else(Refused::no_route)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let segments = segments.strip_prefix(&["maas-api"]).unwrap_or(&segments);
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    if (&method, segments) == (&Method::GET, &["health"][..]) {
        return Ok(reply(StatusCode::OK, &json!({"status": "healthy"})));
    }

    let family = match segments {
        ["v1", "models" | "subscriptions" | "model", ..] => Family::Models,
        _ => Family::Keys,
    };
    let caller = authenticate(context, &head.headers, family).await?;
    let body = body::read(&head.headers, body, BODY_BYTES_MAX).await?;
    // What looks through much is counted from here on: it waits for the cluster, too.
    let is_query = matches!((&method, segments), (_, ["v1", "api-keys", "search"] | ["v1", "usage"]));
    let _share = if is_query { Some(queries.take(caller.user())?) } else { None };
    if method != Method::GET {
        // What was acknowledged on any node may be what this change is about.
        context.cluster.read_barrier().await.map_err(|error| Refused::not_answered(&error, family))?;
    }
    // All that may have taken a while, and what is ended meanwhile changes nothing.
    let caller = context.actors.auth.again(&caller).map_err(|error| unauthenticated(error, family))?;
    let ask = Ask { context, caller, uri: head.uri, headers: head.headers, body };
    match (&method, segments) {
        (&Method::GET, ["v1", "models"]) => match model {
            Some(id) => models::retrieve(&ask, &id),
            None => models::list(&ask),
        },
        (&Method::GET, ["v1", "subscriptions"]) => Ok(subscriptions::list(&ask)),
        (&Method::GET, ["v1", "model", name, "subscriptions"]) => Ok(subscriptions::list_of_model(&ask, name)),
        (&Method::GET, ["v1", "usage"]) => usage::answer(&ask).await,
        (&Method::GET, ["v1", "api-keys", "config"]) => Ok(create::config(&ask)),
        (&Method::POST, ["v1", "api-keys"]) => create::answer(&ask).await,
        (&Method::POST, ["v1", "api-keys", "search"]) => search::answer(&ask).await,
        (&Method::POST, ["v1", "api-keys", "bulk-revoke"]) => revoke::bulk(&ask).await,
        (&Method::GET, ["v1", "api-keys", id]) => key::get(&ask, id),
        (&Method::DELETE, ["v1", "api-keys", id]) => revoke::one(&ask, id).await,
        (_, ["v1", "api-keys"] | ["v1", "api-keys", "search" | "bulk-revoke"]) => Err(Refused::method(family, "POST")),
        (_, ["v1", "api-keys", "config"]) => Err(Refused::method(family, "GET, HEAD")),
        (_, ["v1", "api-keys", _]) => Err(Refused::method(family, "GET, HEAD, DELETE")),
        (_, ["health"] | ["v1", "models" | "subscriptions" | "usage"] | ["v1", "model", _, "subscriptions"]) => {
            Err(Refused::method(family, "GET, HEAD"))
        }
        _ => Err(Refused::no_route()),
    }
}

/// An authenticated request.
struct Ask<'a> {
    context: &'a Context,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask<'_> {
    /// The body, which must be a JSON object of this shape. Fields that nobody knows are ignored.
    fn json<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        let value = unambiguous::parse(&self.body)
            .map_err(|error| Refused::bad_request(format!("invalid request body: {error}")))?;
        if !value.is_object() {
            return Err(Refused::bad_request("invalid request body: send a JSON object"));
        }
        serde_json::from_value(value).map_err(|error| Refused::bad_request(format!("invalid request body: {error}")))
    }
}

async fn authenticate(context: &Context, headers: &HeaderMap, family: Family) -> Result<Caller, Refused> {
    let found = Shown::of(headers).find(&context.actors.auth).await;
    let caller = found.map_err(|error| match error {
        NotFound::NotAnswered(error) => Refused::not_answered(&error, family),
        NotFound::Unauthenticated(error) => unauthenticated(error, family),
    })?;
    match IDENTITY_HEADERS.iter().find(|name| headers.contains_key(**name)) {
        None => Ok(caller),
        Some(name) => {
            Err(Refused::new(StatusCode::FORBIDDEN, family, format!("the header {name} is not for clients to send")))
        }
    }
}

fn unauthenticated(error: Unauthenticated, family: Family) -> Refused {
    match error {
        Unauthenticated::Missing => {
            let message = match family {
                Family::Keys => "Authentication required",
                Family::Models => "Authorization required",
            };
            Refused::new(StatusCode::UNAUTHORIZED, family, message)
        }
        Unauthenticated::UnknownToken => Refused::new(StatusCode::UNAUTHORIZED, family, error.to_string()),
        Unauthenticated::MalformedKey
        | Unauthenticated::UnknownKey
        | Unauthenticated::RevokedKey
        | Unauthenticated::ExpiredKey => Refused::new(StatusCode::FORBIDDEN, family, error.to_string()),
    }
}

fn reply(status: StatusCode, value: &Value) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], value.to_string()).into_response()
}
