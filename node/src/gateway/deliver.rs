//! From a replica's answer to the caller's: streams are relayed, everything else is read whole, judged and settled.

use std::future::poll_fn;
use std::sync::LazyLock;

use actors::Permit;
use actors::epp::Outcome;
use http::{HeaderValue, Response, StatusCode, header};
use memchr::memmem::Finder;
use serde::Deserialize;

use super::body::CallBody;
use super::complaint::Complaint;
use super::endpoint::Endpoint;
use super::outcome::{self, NOT_JSON};
use super::progress::Progress;
use super::proxy::Answer;
use super::refusal::Refusal;
use super::respond;
use super::retry::RetryAdvice;
use super::settle::ChargeGuard;
use super::stream::{Body, Relay};
use super::tally::Choices;
use super::usage::{self, Reported};
use crate::Context;

/// An answer that is not streamed has at most this many bytes. Embeddings of a large batch are the largest.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Hands the replica's answer to the caller, in the call's dialect.
pub(super) async fn deliver(
    context: &Context,
    answer: Answer,
    guard: ChargeGuard,
    permit: &Permit,
    endpoint: &Endpoint,
    body: &CallBody,
) -> Result<Response<Body>, Refusal> {
    let status = answer.head.status;
    let mut response = if status == StatusCode::OK && answer.is_stream() {
        let choices = Choices { prompts: body.prompts, each: body.choices / body.prompts.max(1) };
        let hidden = body.hidden_usage(endpoint);
        let progress = Progress::new(endpoint.kind, hidden, choices, answer.body.learnt().clone());
        let standing = guard.standing();
        let (metrics, model) = (context.metrics.clone(), permit.model().id.name.clone());
        let relay = Relay::new(answer.body, answer.route, progress, endpoint.dialect(), guard, metrics, model);
        let mut response = Response::new(Body::Relay(Box::new(relay)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        respond::add_limits(&standing, endpoint.dialect(), headers);
        response
    } else {
        let failed = |stage| context.metrics.upstream_failed(&permit.model().id.name, stage);
        whole(context, answer, guard, endpoint, failed).await?
    };
    *response.status_mut() = status;
    Ok(response)
}

async fn whole(
    context: &Context,
    mut answer: Answer,
    mut guard: ChargeGuard,
    endpoint: &Endpoint,
    failed: impl Fn(&'static str),
) -> Result<Response<Body>, Refusal> {
    let status = answer.head.status;
    let retry = RetryAdvice::read(&answer.head.headers, context.doors.clock.wall());
    let judged = if status.is_success() {
        match answer.body.collect(ANSWER_MAX).await {
            Ok(body) => judge(&body, endpoint).map(|reported| (body, reported)),
            Err(error) => Err(error.into()),
        }
    } else {
        let complaint = Complaint::read(&answer.head.headers, &mut answer.body).await;
        complaint.into_answer(status, endpoint, retry).map(|body| (body, Reported::Nothing))
    };
    match judged {
        Ok((body, reported)) => {
            answer.route.report(outcome::of_status(status));
            match reported {
                _ if !status.is_success() => guard.waive(),
                Reported::Tokens(usage) => guard.settle_reported(usage),
                Reported::Absurd => guard.settle_estimated(true),
                Reported::Nothing => guard.settle_estimated(false),
            }
            poll_fn(|cx| guard.poll_noted(cx)).await;
            let mut response = Response::new(Body::Whole(body));
            let kind = answer.head.headers.remove(header::CONTENT_TYPE).unwrap_or(JSON);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            if !status.is_success() {
                retry.add_to(response.headers_mut());
            }
            // After settling: whoever reads the headers knows what the call cost, not what it held.
            respond::add_limits(&guard.standing(), endpoint.dialect(), response.headers_mut());
            Ok(response)
        }
        Err(refusal) => {
            let outcome = outcome::of_refusal(&refusal);
            answer.route.report(outcome);
            if outcome != Outcome::Answered {
                failed("before_answer");
            }
            guard.waive();
            Err(refusal)
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Whether an answer is one, and what it used.
fn judge(body: &[u8], endpoint: &Endpoint) -> Result<Reported, Refusal> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::usage::Usage;

    #[test]
    fn answers_are_judged_by_what_they_are() {
        let aborted = r#"{"choices":[{"finish_reason":"abort"}],"usage":null}"#;
        let speaks_of_it = r#"{"choices":[{"finish_reason":"stop","message":{"content":"abort"}}]}"#;
        let table = [
            (r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, "tokens"),
            (r#"{"choices":[]}"#, "nothing"),
            ("<html>", "502"),
            (aborted, "502"),
            (speaks_of_it, "nothing"),
        ];
        for (body, expected) in table {
            let judged = match judge(body.as_bytes(), Endpoint::at("/v1/chat/completions").unwrap()) {
                Ok(Reported::Tokens(Usage { input: 1, output: 2, .. })) => "tokens".to_owned(),
                Ok(Reported::Nothing) => "nothing".to_owned(),
                Ok(other) => format!("{other:?}"),
                Err(refusal) => refusal.status().as_str().to_owned(),
            };
            assert_eq!(judged, expected, "{body}");
        }
    }
}
