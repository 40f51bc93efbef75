//! The HTTP front end: one request from its head to its answer.
//!
//! `serve` is the story: route, key, fault, body, handler, answer. Handlers return a [`Reply`] or an [`ApiError`];
//! shapes and headers are given to both here.

mod admin;
mod audio;
mod body;
mod call;
mod chat;
mod chat_stream;
mod completions;
mod embeddings;
mod errors;
mod events;
mod fields;
mod form;
mod logprobs;
mod messages;
mod metrics;
mod models;
mod numbers;
mod pictures;
mod render;
mod respond;
mod responses;
mod responses_stream;
mod route;
mod sampling;
mod structured;
mod template;
mod tools;
mod usage;
pub(crate) mod wire;

pub use self::models::prompt_tokens;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use self::{
    audio::Task,
    body::{Body, Cut, EventSource},
    call::Call,
    errors::{ApiError, detail},
    respond::{Answer, strike},
    route::Route,
    wire::Garble,
};
use crate::{
    fault::{Fault, FaultKind},
    replica::Shared,
};

/// Larger bodies are refused.
const BODY_MAX_BYTES: usize = 256 << 20;

/// What a handler answers.
pub(crate) enum Reply {
    Json(Value),
    Events(Box<dyn EventSource>),
    /// Bytes, and what a header says of them.
    Bytes(Option<Value>, Vec<Bytes>),
    /// Text of a content type.
    Text(&'static str, String),
    /// 200 or 503, and nothing else.
    Health,
}

/// Answers one request.
///
/// # Errors
/// The connection is to be cut (a fault).
pub(crate) async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    garble: Garble,
) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    if shared.config.admin
        && let Some(rest) = head.uri.path().strip_prefix("/sim/")
    {
        let answer = admin::answer(&shared, &head.method, rest, read(body).await?);
        return Ok(answer.into_response(&shared, None));
    }
    let request_id = header(&head, "x-request-id");
    let route = Route::of(head.uri.path(), &shared.config);
    let fault = match own_fault(&head) {
        Ok(own) => shared.fault_for(own, route.as_ref().is_none_or(Route::is_probe)),
        Err(error) => return Ok(Answer::json(error.status, &error.openai()).into_response(&shared, None)),
    };
    if shared.is_slow_to_start() {
        return Err(Cut);
    }
    let answer = match before(fault.as_ref(), &garble).await? {
        Some(answer) => answer,
        None => {
            let answer = handle(&shared, &head, route.as_ref(), body, fault.as_ref()).await?;
            strike(answer, fault.as_ref()).await
        }
    };
    shared.count(route.as_ref().map_or("none", Route::handler), head.method.as_str(), answer.status.as_u16());
    Ok(answer.into_response(&shared, request_id))
}

/// Faults that need no handler.
async fn before(fault: Option<&Fault>, garble: &Garble) -> Result<Option<Answer>, Cut> {
    let Some(fault) = fault else { return Ok(None) };
    match fault.kind {
        FaultKind::Refuse => Err(Cut),
        FaultKind::HangBeforeHeaders => std::future::pending().await,
        FaultKind::Delay => {
            sleep(fault.time).await;
            Ok(None)
        }
        FaultKind::DeadCore => {
            let died = ApiError::engine_died();
            Ok(Some(Answer::json(died.status, &died.openai())))
        }
        FaultKind::Garbage => {
            garble.begin();
            Ok(Some(Answer::text(StatusCode::OK, "text/plain", "")))
        }
        FaultKind::Status(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(Some(Answer::json(status, &ApiError::status(status, "this failure was asked for").openai())))
        }
        _ => Ok(None),
    }
}

/// Routes a request and answers it.
async fn handle(
    shared: &Arc<Shared>,
    head: &Parts,
    route: Option<&Route>,
    body: Incoming,
    fault: Option<&Fault>,
) -> Result<Answer, Cut> {
    let path = head.uri.path();
    if let Some(preflight) = respond::preflight(head) {
        return Ok(preflight);
    }
    if let Some(key) = &shared.config.api_key
        && (path.starts_with("/v1") || path.starts_with("/inference"))
        && !header(head, "authorization").is_some_and(|given| key.admits(&given))
    {
        return Ok(Answer::json(StatusCode::UNAUTHORIZED, &json!({"error": "Unauthorized"})));
    }
    let Some(route) = route else {
        return Ok(respond::unknown_path(head, &shared.config));
    };
    if !route.methods().contains(&head.method) {
        return Ok(Answer::json(StatusCode::METHOD_NOT_ALLOWED, &detail("Method Not Allowed")).allow(route.methods()));
    }
    let read = if route.takes_form() { form::read(head, body).await? } else { read_json(head, route, body).await? };
    let (body, file) = match read {
        Ok(read) => read,
        Err(answer) => return Ok(answer),
    };
    let call = Call {
        shared: shared.clone(),
        body,
        file,
        request_id: header(head, "x-request-id"),
        client_id: header(head, "x-client-request-id").unwrap_or_default(),
        data_parallel_rank: header(head, "x-data-parallel-rank"),
        fault: fault.map(|fault| fault.kind),
    };
    Ok(match Box::pin(answer(route, call)).await {
        Ok(Reply::Json(value)) => Answer::json(StatusCode::OK, &value),
        Ok(Reply::Events(events)) => Answer::events(events),
        Ok(Reply::Bytes(metadata, pieces)) => Answer::bytes(metadata.as_ref(), pieces),
        Ok(Reply::Text(content_type, text)) => Answer::text(StatusCode::OK, content_type, text),
        Ok(Reply::Health) if shared.is_healthy() => Answer::empty(StatusCode::OK),
        Ok(Reply::Health) => Answer::empty(StatusCode::SERVICE_UNAVAILABLE),
        Err(error) if *route == Route::Messages && !error.is_validation() => {
            let (status, value) = error.anthropic();
            Answer::json(status, &value)
        }
        Err(error) => Answer::json(error.status, &error.openai()),
    })
}

async fn answer(route: &Route, call: Call) -> Result<Reply, ApiError> {
    match route {
        Route::Chat => chat::answer(call).await,
        Route::ChatRender => render::chat(call).await,
        Route::Completions => completions::answer(call).await,
        Route::CompletionsRender => render::completions(call).await,
        Route::Responses => responses::answer(call).await,
        Route::Response(id) => responses::stored(id),
        Route::Messages => messages::answer(call).await,
        Route::CountTokens => messages::count(&call),
        Route::Transcriptions => audio::answer(call, Task::Transcribe).await,
        Route::Translations => audio::answer(call, Task::Translate).await,
        Route::Embeddings => embeddings::embed(call).await,
        Route::Score => embeddings::score(call).await,
        Route::Rerank => embeddings::rerank(call).await,
        Route::Pooling => embeddings::pool(call).await,
        Route::Tokenize => models::tokenize(&call),
        Route::Detokenize => models::detokenize(&call),
        Route::Models => Ok(Reply::Json(models::list(&call.shared))),
        Route::Version => Ok(Reply::Json(models::version())),
        Route::Load => Ok(Reply::Json(models::load(&call.shared))),
        Route::Health | Route::Ping => Ok(Reply::Health),
        Route::Metrics { content_type } => Ok(Reply::Text(content_type, metrics::render(&call.shared))),
    }
}

/// The fields of a body, and the file of a form; or the answer why not.
type ReadBody = Result<(Map<String, Value>, Option<Bytes>), Answer>;

/// Reads a JSON body.
async fn read_json(head: &Parts, route: &Route, body: Incoming) -> Result<ReadBody, Cut> {
    if head.method == Method::GET || matches!(route, Route::Ping | Route::Response(_)) {
        return Ok(Ok((Map::new(), None)));
    }
    let content_type = header(head, "content-type").unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("application/json") {
        return Ok(Err(Answer::json(StatusCode::BAD_REQUEST, &ApiError::media_type().openai())));
    }
    Ok(fields::parse(&read(body).await?).map(|fields| (fields, None)).map_err(|error| match error {
        Some(error) if error.status.is_server_error() => Answer::json(error.status, &error.openai()).anonymous(),
        Some(error) => Answer::json(error.status, &error.openai()),
        None => Answer::json(StatusCode::BAD_REQUEST, &detail("There was an error parsing the body")),
    }))
}

/// The whole body; a client that leaves half-way is cut.
async fn read(body: Incoming) -> Result<Bytes, Cut> {
    Ok(Limited::new(body, BODY_MAX_BYTES).collect().await.map_err(|_| Cut)?.to_bytes())
}

fn header(head: &Parts, name: &str) -> Option<String> {
    head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The fault that a request asks for itself.
fn own_fault(head: &Parts) -> Result<Option<Fault>, ApiError> {
    let Some(text) = header(head, "x-sim-fault") else { return Ok(None) };
    text.parse().map(Some).map_err(|error: crate::fault::UnknownFault| ApiError::bad(error.to_string()))
}
