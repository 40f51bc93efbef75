//! How large a prompt really is: asked of a replica, which renders it as it would for the call and says the tokens. One that does not
//! render is asked to tokenize, if the prompt is text and no limit is hard: media are not counted there, nor what some models' templates
//! add for a call.
//!
//! The bound of [`super::estimate`] is several times the truth, so near the end of a limit it refuses calls that would fit, and calls wait
//! for each other that would fit together. Only then is a count worth its price (a replica's front end tokenizes the prompt, its engine
//! does nothing): [`super::reserve`] asks for one when it decides. It is never asked twice for one call.
//!
//! A node asks for at most [`PLACES`] counts at once, whoever wants them. Whoever finds no place waits a moment for one, because
//! the last tokens of a limit are usually wanted by many at once, and a refusal sends a caller away until the window ends.
//!
//! Every failure means that nothing is known: the replica is too old, too new (the paths are off by default), overloaded, or refuses
//! the call. None is a fault of the replica as its breaker sees it, and no text of a prompt or an answer is kept or logged.

use std::fmt;
use std::time::Duration;

use actors::{NoReplica, Permit};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::debug;

use super::body::{CallBody, Steering};
use super::endpoint::Endpoint;
use super::pick::{Shape, rank};
use super::upstream::{Outgoing, Upstream, UpstreamError};
use crate::Context;

/// Counts in progress on one node.
const PLACES: usize = 8;
/// For one of them. Longer is no use: the rest of a limit is gone, or its replicas do not answer.
const PLACE_WAIT: Duration = Duration::from_secs(1);
/// From picking a replica to the end of its answer. Tokenizing a million tokens takes about a second.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Bytes of an answer: a million ids and more.
const ANSWER_MAX: usize = 8 * 1024 * 1024;

/// Asks replicas for counts, some at a time.
pub(super) struct Counter {
    upstream: Upstream,
    places: Semaphore,
}

/// The right to ask for one count.
pub(super) struct Place<'a> {
    upstream: &'a Upstream,
    /// Whether it had to be waited for.
    pub(super) was_waited_for: bool,
    _held: SemaphorePermit<'a>,
}

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
enum Uncounted {
    #[error("the path has no rendering")]
    NoPath,
    #[error("{0}")]
    NoReplica(#[from] NoReplica),
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    #[error("the replica answered {0}")]
    Status(StatusCode),
    #[error("the replica's answer has no list of token ids")]
    NoTokens,
    #[error("the replica did not answer within {ANSWER_WAIT:?}")]
    TooSlow,
}

impl Counter {
    pub(super) fn new(upstream: Upstream) -> Counter {
        Counter { upstream, places: Semaphore::new(PLACES) }
    }

    /// A place for one count, if one is free.
    pub(super) fn place_now(&self) -> Option<Place<'_>> {
        let held = self.places.try_acquire().ok()?;
        Some(Place { upstream: &self.upstream, was_waited_for: false, _held: held })
    }

    /// A place for one count, at once or after a short wait. `None`: too many others are being counted.
    pub(super) async fn place(&self, context: &Context, permit: &Permit) -> Option<Place<'_>> {
        let (held, was_waited_for) = match self.places.try_acquire() {
            Ok(held) => (Some(held), false),
            Err(_) => (timeout(PLACE_WAIT, self.places.acquire()).await.ok().and_then(Result::ok), true),
        };
        if held.is_none() {
            context.metrics.prompt_counted(&permit.model().id.name, "refused");
        }
        held.map(|held| Place { upstream: &self.upstream, was_waited_for, _held: held })
    }
}

impl Place<'_> {
    /// The tokens of the call's prompts together, as one replica counts them. `None`: it could not be found out. `may_tokenize`: a count
    /// that may be a bit too small will do.
    pub(super) async fn count(
        self,
        context: &Context,
        permit: &Permit,
        endpoint: &Endpoint,
        body: &CallBody,
        may_tokenize: bool,
    ) -> Option<u64> {
        let asked = ask(self.upstream, context, permit, endpoint, body, may_tokenize);
        let counted = match timeout(ANSWER_WAIT, asked).await {
            Ok(counted) => counted,
            Err(_) => Err(Uncounted::TooSlow),
        };
        let model = &*permit.model().id.name;
        context.metrics.prompt_counted(model, if counted.is_ok() { "counted" } else { "failed" });
        counted.inspect_err(|why| debug!(model, %why, "the prompt was not counted")).ok()
    }
}

async fn ask(
    upstream: &Upstream,
    context: &Context,
    permit: &Permit,
    endpoint: &Endpoint,
    body: &CallBody,
    may_tokenize: bool,
) -> Result<u64, Uncounted> {
    let path = endpoint.render_path().ok_or(Uncounted::NoPath)?;
    // The route ends here: a question takes no slot from calls.
    let base = rank(context, permit, &Shape::of_question())?.next_route()?.base().to_owned();
    let body = body.rewrite(&permit.model().served_name, &Steering::of(permit, endpoint), endpoint, None);
    match post(upstream, &base, path, body.clone()).await {
        Err(Uncounted::Status(
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED,
        )) if may_tokenize && let Some(path) = endpoint.tokenize_path() => {
            count_in(&post(upstream, &base, path, body).await?).ok_or(Uncounted::NoTokens)
        }
        answer => tokens_in(&answer?).ok_or(Uncounted::NoTokens),
    }
}

/// The whole answer of the replica at `base`.
async fn post(upstream: &Upstream, base: &str, path: &'static str, body: Bytes) -> Result<Bytes, Uncounted> {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let request = Outgoing { method: Method::POST, path: Uri::from_static(path), headers, body };
    let mut answer = upstream.send(base, request).await?;
    if answer.head.status != StatusCode::OK {
        return Err(Uncounted::Status(answer.head.status));
    }
    Ok(answer.body.collect(ANSWER_MAX).await?)
}

/// How many tokens the answer of `/tokenize` says. `None`: it says nothing, or that there are none.
fn count_in(answer: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Tokenized {
        count: u64,
    }
    serde_json::from_slice::<Tokenized>(answer).ok().map(|tokenized| tokenized.count).filter(|count| *count > 0)
}

/// The token ids in an answer: one object (a chat), or a list with one for each prompt. `None`: it is neither, or a prompt has none.
fn tokens_in(answer: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Rendered {
        token_ids: Length,
    }
    let rendered = if answer.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<Vec<Rendered>>(answer)
    } else {
        serde_json::from_slice::<Rendered>(answer).map(|one| vec![one])
    };
    let lengths: Vec<u64> = rendered.ok()?.into_iter().map(|one| one.token_ids.0).collect();
    (!lengths.is_empty() && !lengths.contains(&0)).then(|| lengths.iter().sum())
}

/// How many ids a list has; they are read and not kept.
struct Length(u64);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Length, D::Error> {
        deserializer.deserialize_seq(Ids)
    }
}

struct Ids;

impl<'de> Visitor<'de> for Ids {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Length, A::Error> {
        let mut length = 0;
        while ids.next_element::<u64>()?.is_some() {
            length += 1;
        }
        Ok(Length(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_and_nothing_else_is_taken_for_a_count() {
        let table = [
            (r#"{"request_id":"chatcmpl-1","token_ids":[1,1400,202],"features":null,"stream":false}"#, Some(3)),
            (r#"[{"token_ids":[1,2]}, {"request_id":"cmpl-1-1","token_ids":[30000]}]"#, Some(3)),
            (r#" {"token_ids":[7]}"#, Some(1)),
            (r#"{"token_ids":[]}"#, None),
            (r#"[{"token_ids":[1]},{"token_ids":[]}]"#, None),
            ("[]", None),
            ("{}", None),
            (r#"{"token_ids":null}"#, None),
            (r#"{"token_ids":7}"#, None),
            (r#"{"token_ids":"1,2,3"}"#, None),
            (r#"{"token_ids":[1,"2"]}"#, None),
            (r#"{"token_ids":[1,-2]}"#, None),
            (r#"{"token_ids":[1,2"#, None),
            (r#"{"token_ids":[1],"token_ids":[1,2]}"#, None),
            (r#"{"prompt":{"token_ids":[1,2]}}"#, None),
            ("<html>", None),
            ("", None),
        ];
        for (answer, expected) in table {
            assert_eq!(tokens_in(answer.as_bytes()), expected, "{answer}");
        }
    }
    #[test]
    fn what_tokenize_says_is_a_count() {
        let table = [
            (r#"{"count":12,"max_model_len":40960,"tokens":[1,2],"token_strs":null}"#, Some(12)),
            (r#"{"count":0}"#, None),
            (r#"{"count":-1}"#, None),
            (r#"{"tokens":[1]}"#, None),
            ("", None),
        ];
        for (answer, expected) in table {
            assert_eq!(count_in(answer.as_bytes()), expected, "{answer}");
        }
    }
}
