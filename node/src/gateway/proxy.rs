//! Gets an answer from a replica: builds the request, sends it, and asks another replica where that is safe.
//!
//! Safe means: nothing of an answer has arrived and the failure says that nothing was produced (no connection, a connection
//! closed before the first byte of a body, 502, 503, an engine that died). A stream counts as answered when its first event is
//! here, because its head comes before the first token; signs of life ([`super::keep_alive`]) change nothing of that. A replica that
//! stays silent is waited for and not replaced: it may be at work. A call is retried once, within the pool's retry budget.

use actors::epp::Outcome;
use actors::{Permit, Route};
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, response};

use super::endpoint::Endpoint;
use super::keep_alive::Begun;
use super::outcome;
use super::pick::{Shape, rank};
use super::refusal::Refusal;
use super::retry::RetryAdvice;
use super::settle::ChargeGuard;
use super::upstream::{AnswerBody, Outgoing, Upstream, UpstreamError};
use crate::Context;

/// What of a client's head is told to replicas. Everything else stays here: credentials, cookies, `x-maas-*`, and all headers
/// that concern one connection.
const FORWARDED: [HeaderName; 15] = [
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-session-affinity"),
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("x-client-request-id"),
];

/// A replica's answer: its head, the body to be read, and the route that is held while it is.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) body: AnswerBody,
    pub(super) route: Route,
}

impl Answer {
    /// Whether it is a stream of events.
    pub(super) fn is_stream(&self) -> bool {
        self.head.status == StatusCode::OK && is_event_stream(&self.head.headers)
    }
}

/// The request that a replica gets: a body and its type.
pub(super) fn outgoing(
    endpoint: &Endpoint,
    from: &HeaderMap,
    id: &HeaderValue,
    (body, media_type): (Bytes, HeaderValue),
) -> Outgoing {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(HeaderName::from_static("x-request-id"), id.clone());
    for (name, value) in from {
        if FORWARDED.contains(name) && !is_hop_by_hop(name, from) {
            headers.append(name, value.clone());
        }
    }
    Outgoing { method: Method::POST, path: Uri::from_static(endpoint.path), headers, body }
}

/// Tells the replica the call's priority, if it has one, in the header of vLLM: it is for request types without such a field, too.
pub(super) fn prioritize(request: &mut Outgoing, priority: Option<i32>) {
    if let Some(priority) = priority {
        request.headers.insert(HeaderName::from_static("x-vllm-priority"), HeaderValue::from(priority));
    }
}

/// Whether the client said that a header concerns its own connection only (RFC 9110, section 7.6.1).
fn is_hop_by_hop(name: &HeaderName, from: &HeaderMap) -> bool {
    let options = from.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    options.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}

/// Sends `request` to one replica after the other until one answers. Notes in `begun` when a stream has begun. Errors: none did; then
/// nothing is charged.
pub(super) async fn proxy(
    context: &Context,
    upstream: &Upstream,
    permit: &Permit,
    shape: &Shape,
    request: Outgoing,
    guard: &mut ChargeGuard,
    begun: Option<&Begun>,
) -> Result<Answer, Refusal> {
    let mut ranking = rank(context, permit, shape).inspect_err(|_| guard.waive())?;
    let mut route = ranking.next_route().inspect_err(|_| guard.waive())?;
    loop {
        guard.sent(route.base(), upstream.learnt(route.base()), route.engine_output());
        let failed = match attempt(context, upstream, &route, request.clone(), begun).await {
            Ok((head, body)) => return Ok(Answer { head, body, route }),
            Err(failed) => failed,
        };
        if let Some(begun) = begun {
            begun.is_gone();
        }
        route.report(failed.outcome());
        context.metrics.upstream_failed(&permit.model().id.name, "before_first_byte");
        guard.not_sent();
        match if failed.is_retryable() { ranking.retry() } else { None } {
            Some(next) => route = next,
            None => {
                guard.waive();
                return Err(failed.into_refusal());
            }
        }
    }
}

/// Why one attempt failed.
enum Failed {
    Upstream(UpstreamError),
    /// 502 or 503.
    Status(StatusCode, RetryAdvice),
    /// The engine behind the replica died, as this message of the replica says.
    EngineDied(String),
}

impl Failed {
    fn is_retryable(&self) -> bool {
        match self {
            Failed::Upstream(error) => error.is_retryable(),
            Failed::Status(..) | Failed::EngineDied(_) => true,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Failed::Upstream(error) => outcome::of_error(error),
            Failed::Status(status, _) => outcome::of_status(*status),
            Failed::EngineDied(_) => Outcome::EngineDied,
        }
    }

    fn into_refusal(self) -> Refusal {
        match self {
            Failed::Upstream(error) => error.into(),
            Failed::Status(status, retry) => {
                Refusal::Replica { status, message: "the replicas cannot take the call now".to_owned(), retry }
            }
            Failed::EngineDied(message) => {
                let (status, retry) = (StatusCode::INTERNAL_SERVER_ERROR, RetryAdvice::default());
                Refusal::Replica { status, message, retry }
            }
        }
    }
}

async fn attempt(
    context: &Context,
    upstream: &Upstream,
    route: &Route,
    request: Outgoing,
    begun: Option<&Begun>,
) -> Result<(response::Parts, AnswerBody), Failed> {
    let mut exchange = upstream.send(route.base(), request).await.map_err(Failed::Upstream)?;
    let status = exchange.head.status;
    if status == StatusCode::BAD_GATEWAY || status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(Failed::Status(status, RetryAdvice::read(&exchange.head.headers, context.doors.clock.wall())));
    }
    let is_stream = is_event_stream(&exchange.head.headers);
    let mut death = None;
    if is_stream {
        if let Some(begun) = begun.filter(|_| status == StatusCode::OK) {
            begun.is_here();
        }
        let first = exchange.body.first().await.map_err(Failed::Upstream)?.ok_or(UpstreamError::Closed);
        death = outcome::engine_died_at_once(first.map_err(Failed::Upstream)?);
    } else if status == StatusCode::INTERNAL_SERVER_ERROR
        && let Some(body) = exchange.body.first().await.map_err(Failed::Upstream)?
    {
        death = outcome::engine_died(body);
    }
    match death {
        Some(message) => Err(Failed::EngineDied(message)),
        None => {
            if is_stream {
                route.hears();
            }
            Ok((exchange.head, exchange.body))
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_sees_only_what_concerns_it() {
        let mut from = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer sk-oai-a_b"),
            ("x-api-key", "sk-oai-a_b"),
            ("cookie", "a=b"),
            ("x-maas-subscription", "s"),
            ("connection", "close, X-Session-Id"),
            ("x-session-id", "of this hop"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("host", "gateway"),
            ("x-request-id", "theirs"),
            ("x-data-parallel-rank", "1"),
            ("user-agent", "sdk/1"),
            ("traceparent", "00-1-2-3"),
            ("anthropic-version", "2023-06-01"),
        ] {
            from.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let endpoint = Endpoint::at("/v1/messages").unwrap();
        let json = HeaderValue::from_static("application/json");
        let request = outgoing(endpoint, &from, &HeaderValue::from_static("ours"), (Bytes::new(), json));
        let mut seen: Vec<_> =
            request.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        seen.sort();
        let expected = [
            "anthropic-version: 2023-06-01",
            "content-type: application/json",
            "traceparent: 00-1-2-3",
            "user-agent: sdk/1",
            "x-request-id: ours",
        ];
        assert_eq!(seen, expected);
    }
}
