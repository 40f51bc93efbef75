//! Chat completions: text that means nothing, with the usage a gateway settles by.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::events::{Events, Pieces};
use super::replica::Replica;

/// Tokens every prompt is said to have.
pub(super) const PROMPT_TOKENS: u32 = 256;
/// Tokens every answer that is no stream is said to have.
const ANSWER_TOKENS: u32 = 400;
const WORDS: &str = "and then the answer goes on for a while, as answers do; ";

/// As much of a request as matters here.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Answers with JSON or a stream of events. Errors: the caller went away before its request was complete.
pub(super) async fn answer(replica: &Replica, body: Incoming) -> Result<Response<Body>, hyper::Error> {
    let mut running = replica.begin();
    let body = body.collect().await?.to_bytes();
    let asked: Asked<'_> = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => {
            let body = json!({"error": {"message": error.to_string(), "type": "BadRequestError", "code": 400}});
            return Ok(answer::json(StatusCode::BAD_REQUEST, body.to_string()));
        }
    };
    let settings = replica.pace().get();
    if settings.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(settings.latency_ms)).await;
    }
    let id = format!("chatcmpl-{}-{}", replica.port, replica.counts().calls.get());
    if !asked.stream {
        running.finish();
        return Ok(answer::json(StatusCode::OK, whole(&id, &asked.model, settings.body_bytes)));
    }
    let wants_usage = asked.stream_options.is_some_and(|options| options.include_usage);
    let pieces = Pieces::new(&id, &asked.model, settings.chunks, wants_usage);
    let events = Events::new(running, pieces, settings.chunks, Duration::from_millis(settings.gap_ms));
    Ok(answer::respond(StatusCode::OK, "text/event-stream; charset=utf-8", Body::Events(events)))
}

/// An answer of `bytes` bytes, or a few more if that is too short for what must be in it.
fn whole(id: &str, model: &str, bytes: usize) -> Bytes {
    let before = format!(
        r#"{{"id":"{id}","object":"chat.completion","created":1700000000,"model":{},"choices":[{{"index":0,"message":{{"role":"assistant","content":""#,
        Value::from(model),
    );
    let after = format!(
        r#""}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{ANSWER_TOKENS},"total_tokens":{}}}}}"#,
        PROMPT_TOKENS + ANSWER_TOKENS,
    );
    let text_bytes = bytes.saturating_sub(before.len() + after.len());
    let mut body = String::with_capacity(before.len() + text_bytes + after.len());
    body.push_str(&before);
    body.extend(WORDS.chars().cycle().take(text_bytes));
    body.push_str(&after);
    Bytes::from(body)
}

/// The list of the one model.
pub(super) fn models() -> Value {
    let model =
        json!({"id": "mock", "object": "model", "created": 1_700_000_000, "owned_by": "vllm", "max_model_len": 32_768});
    json!({"object": "list", "data": [model]})
}
