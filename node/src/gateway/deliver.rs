//! From a replica's answer to the caller's: streams are relayed, everything else is read whole, judged and settled.

use std::future::poll_fn;
use std::time::Duration;

use actors::Permit;
use actors::epp::Outcome;
use actors::quota::LimitStanding;
use http::{HeaderValue, Response, header};

use super::body::CallBody;
use super::complaint::Complaint;
use super::dialect::Dialect;
use super::endpoint::Endpoint;
use super::judge::{METADATA, Worth, judge};
use super::keep_alive::KeepAlive;
use super::outcome::{self, OTHER_TYPE};
use super::progress::{HiddenUsage, Progress};
use super::proxy::Answer;
use super::refusal::Refusal;
use super::respond;
use super::retry::RetryAdvice;
use super::settle::ChargeGuard;
use super::stream::{Body, Relay};
use super::tally::Choices;
use super::usage::Reported;
use crate::Context;

/// An answer that is not streamed has at most this many bytes. Embeddings of a large batch are the largest.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// What is known of a call's answer before it comes.
pub(super) struct Terms {
    endpoint: &'static Endpoint,
    choices: Choices,
    hidden: HiddenUsage,
    wants_metadata: bool,
    keep_alive: Option<Duration>,
}

impl Terms {
    /// Of the call with this body. In a stream that is silent for `keep_alive` there are signs of life.
    pub(super) fn of(endpoint: &'static Endpoint, body: &CallBody, keep_alive: Option<Duration>) -> Terms {
        let choices = Choices { prompts: body.prompts, each: body.choices / body.prompts.max(1) };
        let (hidden, wants_metadata) = (body.hidden_usage(endpoint), body.wants_metadata());
        Terms { endpoint, choices, hidden, wants_metadata, keep_alive }
    }

    pub(super) fn endpoint(&self) -> &'static Endpoint {
        self.endpoint
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.endpoint.dialect()
    }
}

/// Hands the replica's answer to the caller, in the call's dialect.
pub(super) async fn deliver(
    context: &Context,
    answer: Answer,
    guard: ChargeGuard,
    permit: &Permit,
    terms: &Terms,
) -> Result<Response<Body>, Refusal> {
    if answer.is_stream() {
        let standing = guard.standing();
        let mut relay = relay(context, answer, guard, permit, terms);
        relay.keep_alive(terms.keep_alive.map(|interval| KeepAlive::new(interval, terms.dialect().sign_of_life())));
        return Ok(stream(Body::Relay(relay), &standing, terms.dialect()));
    }
    let status = answer.head.status;
    let failed = |stage| context.metrics.upstream_failed(&permit.model().id.name, stage);
    let mut response = whole(context, answer, guard, terms, failed).await?;
    *response.status_mut() = status;
    Ok(response)
}

/// Passes on what a replica streams.
pub(super) fn relay(
    context: &Context,
    answer: Answer,
    guard: ChargeGuard,
    permit: &Permit,
    terms: &Terms,
) -> Box<Relay> {
    let Terms { endpoint, choices, hidden, .. } = *terms;
    let progress = Progress::new(endpoint.kind, hidden, choices, answer.body.learnt().clone());
    let (metrics, model) = (context.metrics.clone(), permit.model().id.name.clone());
    Box::new(Relay::new(answer.body, answer.route, progress, endpoint.dialect(), guard, metrics, model))
}

/// The head of a stream.
pub(super) fn stream(body: Body, standing: &[LimitStanding], dialect: Dialect) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    respond::add_limits(standing, dialect, headers);
    response
}

async fn whole(
    context: &Context,
    mut answer: Answer,
    mut guard: ChargeGuard,
    terms: &Terms,
    failed: impl Fn(&'static str),
) -> Result<Response<Body>, Refusal> {
    let (status, endpoint) = (answer.head.status, terms.endpoint);
    let retry = RetryAdvice::read(&answer.head.headers, context.doors.clock.wall());
    let judged = if status.is_success() {
        match answer.body.collect(ANSWER_MAX).await {
            Ok(body) => judge(&answer.head.headers, &body, endpoint).map(|worth| (body, worth)),
            Err(error) => Err(error.into()),
        }
    } else {
        let complaint = Complaint::read(&answer.head.headers, &mut answer.body).await;
        complaint.into_answer(status, endpoint, retry).map(|body| (body, Worth::Reported(Reported::Nothing)))
    };
    match judged {
        Ok((bytes, worth)) => {
            answer.route.report(outcome::of_status(status));
            match worth {
                _ if !status.is_success() => guard.waive(),
                Worth::Reported(Reported::Tokens(usage)) => guard.settle_reported(usage),
                Worth::Reported(Reported::Absurd) => guard.settle_estimated(true),
                Worth::Reported(Reported::Nothing) => guard.settle_estimated(false),
                Worth::Text(bytes) => guard.settle_by_text(bytes),
            }
            poll_fn(|cx| guard.poll_noted(cx)).await;
            let mut response = Response::new(Body::Whole(bytes));
            let kind = answer.head.headers.remove(header::CONTENT_TYPE).unwrap_or(JSON);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            if let Some(metadata) = answer.head.headers.remove(METADATA).filter(|_| terms.wants_metadata) {
                response.headers_mut().insert(METADATA, metadata);
            }
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
            match refusal {
                // It cannot be read here, and has cost the replica what a good one costs.
                Refusal::BadAnswer(OTHER_TYPE) => guard.settle_estimated(false),
                _ => guard.waive(),
            }
            Err(refusal)
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
