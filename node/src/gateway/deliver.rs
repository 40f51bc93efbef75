//! From a replica's answer to the caller's: streams are relayed, everything else is read whole, judged and settled.

use std::future::poll_fn;
use std::sync::LazyLock;

use actors::Permit;
use actors::epp::Outcome;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use memchr::memmem::Finder;
use serde::Deserialize;

use super::body::CallBody;
use super::dialect::Dialect;
use super::endpoint::{Endpoint, Kind};
use super::outcome::{self, NOT_JSON};
use super::progress::Progress;
use super::proxy::Answer;
use super::refusal::Refusal;
use super::respond;
use super::retry::RetryAdvice;
use super::settle::Bill;
use super::stream::{Body, Relay};
use super::usage::{self, Reported};
use crate::Context;

/// An answer that is not streamed has at most this many bytes. Embeddings of a large batch are the largest.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// Of an error, more is not looked at.
const ERROR_MAX: usize = 64 * 1024;

/// Hands the replica's answer to the caller, in the call's dialect.
pub(super) async fn deliver(
    context: &Context,
    answer: Answer,
    bill: Bill,
    permit: &Permit,
    endpoint: &Endpoint,
    body: &CallBody,
) -> Result<Response<Body>, Refusal> {
    let status = answer.head.status;
    let mut response = if status == StatusCode::OK && answer.is_stream() {
        let progress = Progress::new(endpoint.kind, body.hidden_usage(endpoint), body.choices == 1);
        let standing = bill.standing();
        let (metrics, model) = (context.metrics.clone(), permit.model().id.name.clone());
        let relay = Relay::new(answer.body, answer.route, progress, endpoint.dialect(), bill, metrics, model);
        let mut response = Response::new(Body::Relay(Box::new(relay)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        respond::add_limits(&standing, endpoint.dialect(), headers);
        response
    } else {
        let failed = |stage| context.metrics.upstream_failed(&permit.model().id.name, stage);
        whole(context, answer, bill, endpoint, failed).await?
    };
    *response.status_mut() = status;
    Ok(response)
}

async fn whole(
    context: &Context,
    mut answer: Answer,
    mut bill: Bill,
    endpoint: &Endpoint,
    failed: impl Fn(&'static str),
) -> Result<Response<Body>, Refusal> {
    let status = answer.head.status;
    let retry = RetryAdvice::read(&answer.head.headers, context.doors.clock.wall());
    let judged = match answer.body.collect(if status.is_success() { ANSWER_MAX } else { ERROR_MAX }).await {
        Ok(body) => judge(status, &body, endpoint, retry).map(|reported| (body, reported)),
        Err(error) => Err(error.into()),
    };
    match judged {
        Ok((body, reported)) => {
            answer.route.report(outcome::of_status(status));
            match reported {
                _ if !status.is_success() => bill.waive(),
                Reported::Tokens(usage) => bill.settle_reported(usage),
                Reported::Absurd => bill.settle_estimated(true),
                Reported::Nothing => bill.settle_estimated(false),
            }
            poll_fn(|cx| bill.poll_noted(cx)).await;
            let mut response = Response::new(Body::Whole(body));
            let kind = answer.head.headers.remove(header::CONTENT_TYPE).unwrap_or(JSON);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            if !status.is_success() {
                retry.add_to(response.headers_mut());
            }
            // After settling: whoever reads the headers knows what the call cost, not what it held.
            respond::add_limits(&bill.standing(), endpoint.dialect(), response.headers_mut());
            Ok(response)
        }
        Err(refusal) => {
            let outcome = outcome::of_refusal(&refusal);
            answer.route.report(outcome);
            if outcome != Outcome::Answered {
                failed("before_answer");
            }
            bill.waive();
            Err(refusal)
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Whether an answer is one, and what it used. Its text may repeat the prompt, so it goes to the caller and never into a log.
fn judge(status: StatusCode, body: &Bytes, endpoint: &Endpoint, retry: RetryAdvice) -> Result<Reported, Refusal> {
    match status {
        status if status.is_success() => judge_success(body, endpoint),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::BadAnswer("it wants credentials")),
        status if status.is_client_error() => match complaint(body) {
            Some(Complaint { is_error_object: true, .. }) if endpoint.dialect() != Dialect::Anthropic => {
                Ok(Reported::Nothing)
            }
            other => {
                Err(Refusal::Replica { status, message: message_of(other, "the replica refused the call"), retry })
            }
        },
        status if status.is_server_error() => {
            let message = message_of(complaint(body), "the replica failed");
            // Recorded: some faults of the caller come as 500.
            if endpoint.kind == Kind::Messages && is_about_context_length(&message) {
                return Err(Refusal::InvalidBody { message, field: None });
            }
            Err(Refusal::Replica { status, message, retry })
        }
        _ => Err(Refusal::BadAnswer("it redirects")),
    }
}

fn judge_success(body: &Bytes, endpoint: &Endpoint) -> Result<Reported, Refusal> {
    static ABORT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"abort\""));
    if endpoint.generates() && ABORT.find(body).is_some() && was_aborted(body) {
        return Err(Refusal::BadAnswer("it gave up the call before its end"));
    }
    usage::of_answer(body).map_err(|_| Refusal::BadAnswer(NOT_JSON))
}

fn was_aborted(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Choice {
        finish_reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct Answer {
        choices: Vec<Choice>,
    }
    serde_json::from_slice::<Answer>(body)
        .is_ok_and(|answer| answer.choices.iter().any(|choice| choice.finish_reason.as_deref() == Some("abort")))
}

/// What an error answer says.
struct Complaint {
    message: String,
    /// It is `{"error": {…}}`, which OpenAI's SDKs understand as it is. Anthropic's want a type of theirs in it.
    is_error_object: bool,
}

fn complaint(body: &[u8]) -> Option<Complaint> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = &json["error"];
    let text =
        [&error["message"], error, &json["message"], &json["detail"]].into_iter().find_map(serde_json::Value::as_str);
    Some(Complaint { message: text?.to_owned(), is_error_object: error.is_object() })
}

fn message_of(complaint: Option<Complaint>, otherwise: &str) -> String {
    complaint.map_or_else(|| otherwise.to_owned(), |complaint| complaint.message)
}

fn is_about_context_length(message: &str) -> bool {
    ["max_model_len", "maximum context length", "max_total_tokens"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::usage::Usage;

    #[test]
    fn answers_are_judged_by_what_they_are() {
        let table = [
            ("/v1/chat/completions", 200, r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, "tokens"),
            ("/v1/chat/completions", 200, r#"{"choices":[]}"#, "nothing"),
            ("/v1/chat/completions", 200, "<html>", "502"),
            ("/v1/chat/completions", 200, r#"{"choices":[{"finish_reason":"abort"}],"usage":null}"#, "502"),
            (
                "/v1/chat/completions",
                200,
                r#"{"choices":[{"finish_reason":"stop","message":{"content":"abort"}}]}"#,
                "nothing",
            ),
            ("/v1/chat/completions", 400, r#"{"error":{"message":"too long","code":400}}"#, "nothing"),
            ("/v1/embeddings", 404, r#"{"detail":"Not Found"}"#, "404"),
            ("/v1/chat/completions", 401, r#"{"error":"Unauthorized"}"#, "502"),
            ("/v1/chat/completions", 302, "", "502"),
            (
                "/v1/chat/completions",
                500,
                r#"{"error":{"message":"EngineCore encountered an issue","code":500}}"#,
                "500",
            ),
            (
                "/v1/messages",
                500,
                r#"{"type":"error","error":{"type":"internal_error","message":"max_completion_tokens=50000 cannot be greater than max_model_len=max_total_tokens=40960."}}"#,
                "400",
            ),
            (
                "/v1/messages",
                500,
                r#"{"type":"error","error":{"type":"internal_error","message":"engine died"}}"#,
                "500",
            ),
        ];
        for (path, status, body, expected) in table {
            let endpoint = Endpoint::at(path).unwrap();
            let judged = match judge(
                StatusCode::from_u16(status).unwrap(),
                &Bytes::from(body),
                endpoint,
                RetryAdvice::default(),
            ) {
                Ok(Reported::Tokens(Usage { input: 1, output: 2, .. })) => "tokens".to_owned(),
                Ok(Reported::Nothing) => "nothing".to_owned(),
                Ok(other) => format!("{other:?}"),
                Err(refusal) => refusal.status().as_str().to_owned(),
            };
            assert_eq!(judged, expected, "{path} {status} {body}");
        }
    }
}
