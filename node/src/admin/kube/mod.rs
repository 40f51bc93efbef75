//! A Kubernetes-style resource API, good enough for `kubectl`.
//!
//! A request: authenticate, find the target, read the options, authorize, then read from this node's newest View, or check
//! and propose a change. A client sees its own writes on the node that took them; another node follows within the time the
//! log takes to travel. `resourceVersion` is the log index of an object's last change, so it means the same on every node.
//!
//! Not here: protobuf beyond what kubectl sends, YAML that is not JSON (kubectl sends JSON), field ownership of server-side apply, deletion of
//! collections, writes of `status` (it is computed), finalizers, impersonation.

mod access;
mod discovery;
mod error;
mod history;
mod json_patch;
mod openapi;
mod options;
mod patch;
mod protobuf;
mod read;
mod review;
mod selector;
mod table;
mod target;
mod token_request;
mod tokens;
mod watch;
mod wire;
mod write;

use std::sync::Arc;

use actors::{Caller, NotFound};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use raft::resources::{Kind, Object, ObjectKey, Status};
use raft::{Timestamp, View};
use serde_json::Value;

use crate::Context;
use crate::admin::shares::Shares;
use crate::admin::{body, json};
use crate::credentials::bearer;
use access::{Wish, authorize};
use error::Failure;
use history::History;
use options::Options;
use target::{Document, Part, Target};

/// Request bodies, in bytes: as much as an API server takes.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Everything on the admin port that no other route takes.
pub(super) fn router(
    context: Context,
    draining: tokio::sync::watch::Receiver<bool>,
    watches: Shares,
    queries: Shares,
) -> Router {
    let kube = Kube { context, draining, history: Arc::default(), watches, queries };
    Router::new().fallback(handle).with_state(kube)
}

/// What the requests share.
#[derive(Clone)]
struct Kube {
    context: Context,
    draining: tokio::sync::watch::Receiver<bool>,
    history: Arc<History>,
    watches: Shares,
    queries: Shares,
}

/// An authenticated request whose target is known.
struct Call {
    caller: Caller,
    head: Parts,
    options: Options,
    body: Bytes,
}

async fn handle(State(kube): State<Kube>, request: Request<Body>) -> Response {
    kube.answer(request).await.unwrap_or_else(IntoResponse::into_response)
}

impl Kube {
    async fn answer(&self, request: Request<Body>) -> Result<Response, Failure> {
        let (head, body) = request.into_parts();
        let caller = self.authenticate(&head.headers).await?;
        let target = target::parse(head.uri.path()).ok_or_else(Failure::no_resource)?;
        let options = Options::parse(&head.uri)?;
        let body = body::read(&head.headers, body, BODY_BYTES_MAX).await?;
        let mut call = Call { caller, head, options, body };
        if !matches!(call.method(), Method::GET) && !matches!(target, Target::Review(_)) {
            // What was acknowledged on any node may be what this change is about.
            self.context.cluster.read_barrier().await?;
        }
        // All that may have taken a while, and an administrator who is none any more changes nothing.
        call.caller = self.again(&call.caller)?;
        match target {
            Target::Document(document) => call.describe(&document),
            Target::Review(review) => review::answer(&call, review),
            Target::Tokens(id) => tokens::answer(self, &call, id.as_deref()).await,
            Target::Collection { kind, namespace } => self.collection(call, kind, namespace).await,
            Target::Object { kind, namespace, name, part } => {
                self.object(call, ObjectKey::new(kind, namespace, name), part).await
            }
        }
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Failure> {
        let caller = match self.context.actors.auth.find(bearer(headers)).await {
            Ok(caller) => caller,
            Err(NotFound::Unauthenticated(error)) => return Err(Failure::unauthorized(error.to_string())),
            Err(NotFound::NotAnswered(error)) => return Err(error.into()),
        };
        if caller.key_id().is_some() {
            return Err(Failure::unauthorized("API keys are for models: authenticate with a token here"));
        }
        if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return Err(Failure::new(StatusCode::FORBIDDEN, "Forbidden", "impersonation is not supported"));
        }
        Ok(caller)
    }

    /// The caller as of now. Errors: the token has ended since the request began.
    fn again(&self, caller: &Caller) -> Result<Caller, Failure> {
        self.context.actors.auth.again(caller).map_err(|error| Failure::unauthorized(error.to_string()))
    }

    async fn collection(&self, call: Call, kind: Kind, namespace: Option<String>) -> Result<Response, Failure> {
        let allow =
            |verb: &str| authorize(&call.caller, &Wish::to(verb, kind, namespace.as_deref().unwrap_or_default(), ""));
        match call.method() {
            Method::GET if call.options.watch => {
                allow("watch")?;
                watch::answer(self, &call, kind, namespace).await
            }
            Method::GET => {
                allow("list")?;
                let _share = self.queries.take(call.caller.user())?;
                read::list(self, &call, kind, namespace.as_deref()).await
            }
            Method::POST => {
                allow("create")?;
                write::create(self, &call, kind, namespace).await
            }
            _ => Err(Failure::method_not_allowed()),
        }
    }

    async fn object(&self, call: Call, key: ObjectKey, part: Part) -> Result<Response, Failure> {
        let wish = |verb: &str| Wish::to(verb, key.kind, &key.namespace, &key.name);
        let allow = |verb: &str| authorize(&call.caller, &wish(verb));
        match (call.method(), part) {
            (Method::GET, Part::Whole) => {
                allow("get")?;
                read::get(self, &call, &key).await
            }
            (Method::GET, Part::Status) => {
                authorize(&call.caller, &wish("get").on("status"))?;
                read::get(self, &call, &key).await
            }
            (Method::PUT, Part::Whole) => {
                allow("update")?;
                write::replace(self, &call, key).await
            }
            (Method::PATCH, Part::Whole) => {
                allow("patch")?;
                patch::answer(self, &call, key).await
            }
            (Method::DELETE, Part::Whole) => {
                allow("delete")?;
                write::delete(self, &call, key).await
            }
            (Method::PUT | Method::PATCH, Part::Status) => {
                let message = "status is computed by the server from what it sees: it cannot be written";
                Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message))
            }
            (Method::POST, Part::Token) => {
                authorize(&call.caller, &wish("create").on("token"))?;
                token_request::answer(self, &call, key).await
            }
            _ => Err(Failure::method_not_allowed()),
        }
    }

    /// The newest view, noted so that a watch can go on from it.
    fn view(&self) -> Arc<View> {
        let view = self.context.cluster.view();
        self.history.note(&view);
        view
    }

    fn now(&self) -> Timestamp {
        self.context.doors.clock.wall()
    }

    fn status(&self, object: &Object, view: &View) -> Status {
        raft::resources::status(object, view, &self.context.actors.pools)
    }

    /// An object with its status in `view`, as it is sent.
    fn shown(&self, object: &Object, view: &View) -> Value {
        wire::write(object, &self.status(object, view))
    }
}

impl Call {
    /// HEAD is a GET whose body nobody reads.
    fn method(&self) -> Method {
        if self.head.method == Method::HEAD { Method::GET } else { self.head.method.clone() }
    }

    fn describe(&self, document: &Document) -> Result<Response, Failure> {
        if self.method() != Method::GET {
            return Err(Failure::method_not_allowed());
        }
        let takes = |media_type| accepts(&self.head.headers, media_type);
        let takes_protobuf = takes(openapi::OPENAPI2_PROTOBUF_ASKED) || takes(openapi::OPENAPI2_PROTOBUF);
        if *document == Document::OpenApi2 && takes_protobuf {
            let protobuf = HeaderValue::from_static(openapi::OPENAPI2_PROTOBUF);
            return Ok(([(CONTENT_TYPE, protobuf)], openapi::openapi2_protobuf()).into_response());
        }
        let value = match document {
            Document::OpenApi2 => openapi::openapi2_json(),
            Document::OpenApi3Index => openapi::openapi3_index(),
            Document::OpenApi3(group, version) => openapi::openapi3(group, version),
            other => discovery::document(other).ok_or_else(Failure::no_resource)?,
        };
        Ok(reply(StatusCode::OK, &value))
    }

    fn media_type(&self) -> String {
        let value = self.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The body as JSON. YAML is accepted as far as it is JSON. `None` if it is empty.
    fn json(&self) -> Result<Option<Value>, Failure> {
        let media_type = self.media_type();
        if media_type == protobuf::MEDIA_TYPE {
            return self.protobuf().map(Some);
        }
        let is_yaml = matches!(media_type.as_str(), "application/yaml" | "application/apply-patch+yaml");
        if !(media_type.is_empty() || media_type.ends_with("json") || is_yaml) {
            return Err(Failure::unsupported_media_type("application/json, application/yaml (if it is JSON)"));
        }
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        match json::parse(&self.body) {
            Ok(value) => Ok(Some(value)),
            Err(_) if is_yaml => {
                let message =
                    "YAML is understood here only as far as it is JSON: send the object as JSON (kubectl does)";
                Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message))
            }
            Err(error) => Err(Failure::bad_request(format!("the body is not valid JSON: {error}"))),
        }
    }

    fn protobuf(&self) -> Result<Value, Failure> {
        protobuf::read(&self.body).map_err(|why| {
            let message = format!("this protobuf body is not understood here ({why}): send the object as JSON");
            Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
        })
    }

    /// The body as JSON, which must not be empty.
    fn some_json(&self) -> Result<Value, Failure> {
        self.json()?.ok_or_else(|| Failure::bad_request("the body is empty: send the object as JSON"))
    }
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(media_type))
}

/// A JSON answer.
fn reply(code: StatusCode, value: &Value) -> Response {
    (code, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], value.to_string()).into_response()
}

/// Adds what the client's user should know though the request was fulfilled.
fn warn(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        // What a header cannot carry is left out rather than the whole answer refused.
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}
