//! `/v1/chat/completions/render` and `/v1/completions/render`: what a call would hand to the engine, without calling it.
//!
//! Requests are read and rendered by the code that answers them, so the ids are as many as the call's
//! `usage.prompt_tokens`. The chat's answer is as recorded; of completions there is no recording (one such object per
//! prompt, in a list, its id numbered as the sequences of a call are).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Reply,
    call::Call,
    chat,
    completions::{self, DEFAULT_MAX_TOKENS},
    errors::ApiError,
    sampling::Sampling,
};

/// What one rendering takes (recorded), before its tokens.
const FRONT_END: Duration = Duration::from_micros(3_400);

/// Renders a chat request.
///
/// # Errors
/// As vLLM refuses the call.
pub(crate) async fn chat(call: Call) -> Result<Reply, ApiError> {
    let chat::Request { sampling, tokens, .. } = chat::read(&call)?;
    let rendered = object(&call, call.id("chatcmpl"), &tokens, &sampling, None)?;
    take_time(&call, tokens.len()).await;
    Ok(Reply::Json(rendered))
}

/// Renders a completion request.
///
/// # Errors
/// As vLLM refuses the call.
pub(crate) async fn completions(call: Call) -> Result<Reply, ApiError> {
    let (prompts, sampling, _) = completions::read(&call)?;
    let id = call.id("cmpl");
    let rendered: Vec<Value> = prompts
        .iter()
        .enumerate()
        .map(|(at, tokens)| object(&call, format!("{id}-{at}"), tokens, &sampling, Some(DEFAULT_MAX_TOKENS)))
        .collect::<Result<_, _>>()?;
    take_time(&call, prompts.iter().map(Vec::len).sum()).await;
    Ok(Reply::Json(rendered.into()))
}

async fn take_time(call: &Call, tokens: usize) {
    let config = &call.shared.config;
    let tokenizing = Duration::from_nanos((tokens as f64 * config.timing.front_end_token_ns) as u64);
    sleep(config.scaled(FRONT_END + tokenizing)).await;
}

/// One prompt as the engine would get it.
fn object(
    call: &Call,
    id: String,
    tokens: &[u32],
    sampling: &Sampling,
    default_limit: Option<usize>,
) -> Result<Value, ApiError> {
    let fields = call.fields();
    let fitting = sampling.limit(call.shared.config.context_len(), tokens.len(), default_limit.unwrap_or(1))?;
    let limit = if sampling.max_tokens.is_some() { fitting } else { default_limit.unwrap_or(fitting).min(fitting) };
    Ok(json!({
        "request_id": id,
        "token_ids": tokens,
        "assistant_tokens_mask": null,
        "token_offsets": null,
        "features": null,
        "sampling_params": {
            "presence_penalty": fields.float("presence_penalty")?.unwrap_or(0.0),
            "frequency_penalty": fields.float("frequency_penalty")?.unwrap_or(0.0),
            "repetition_penalty": fields.float("repetition_penalty")?.unwrap_or(1.0),
            "temperature": fields.float("temperature")?.unwrap_or(1.0),
            "seed": fields.int("seed")?,
            "stop": sampling.bounds.stop,
            "stop_token_ids": sampling.bounds.stop_token_ids,
            "max_tokens": limit,
            // Only the end, or each piece.
            "output_kind": if sampling.stream { 1 } else { 2 },
            "skip_clone": true,
            "bad_words": fields.texts("bad_words")?,
            "skip_reading_prefix_cache": sampling.prompt_logprobs.is_some(),
        },
        "model": fields.text("model")?.unwrap_or(call.shared.config.model()),
        "stream": sampling.stream,
        "stream_options": fields.get("stream_options"),
        "cache_salt": Some(sampling.salt.as_str()).filter(|salt| !salt.is_empty()),
        "priority": sampling.priority,
        "kv_transfer_params": fields.get("kv_transfer_params"),
        "ec_transfer_params": fields.get("ec_transfer_params"),
    }))
}
