//! `/v1/chat/completions`.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{
    Reply,
    call::{Call, Part, Prompt},
    chat_stream::ChatWriter,
    errors::ApiError,
    events::Streaming,
    logprobs,
    sampling::Sampling,
    template::{Message, read_messages, render},
    tools::{Tools, wish},
    usage::UsageStyle,
};
use crate::config::Kind;

/// The most alternatives that may be asked for.
const TOP_LOGPROBS_MAX: i64 = 20;

/// A chat request that may be answered.
pub(super) struct Request {
    messages: Vec<Message>,
    tools: Tools,
    top_logprobs: Option<usize>,
    reasoning: bool,
    pub(super) sampling: Sampling,
    /// The prompt.
    pub(super) tokens: Vec<u32>,
}

/// Reads a chat request and renders its prompt.
///
/// # Errors
/// As vLLM refuses it.
pub(super) fn read(call: &Call) -> Result<Request, ApiError> {
    let fields = call.fields();
    fields.text("model")?;
    let messages = read_messages(fields, call.sight());
    // A body that is malformed in two ways is reported for its messages last, semantic errors of messages after all.
    if let Err(error) = &messages
        && error.is_validation()
    {
        return Err(error.clone());
    }
    let tools = Tools::read(fields)?;
    let top_logprobs = read_logprobs(call)?;
    super::structured::check_form(fields)?;
    let sampling_form = Sampling::read(fields, &["max_completion_tokens", "max_tokens"], 1);
    if let Err(error) = &sampling_form
        && error.is_validation()
    {
        return Err(error.clone());
    }
    call.check_model()?;
    check_rank(call)?;
    let Kind::Generative { reasoning, tool_parser, .. } = call.shared.config.kind else {
        return Err(ApiError::bad("The model does not support Chat Completions API"));
    };
    tools.check_parser(tool_parser)?;
    let messages = messages?;
    let sampling = sampling_form?;
    let open = fields.flag("continue_final_message")?;
    let tokens = render(&messages, tools.shown(), open);
    Ok(Request { messages, tools, top_logprobs, reasoning, sampling, tokens })
}

/// Answers a chat request.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn answer(call: Call) -> Result<Reply, ApiError> {
    let Request { messages, tools, top_logprobs, reasoning, sampling, tokens } = read(&call)?;
    let id = call.id("chatcmpl");
    let wish = wish(&call, &tools, &messages)?;
    let mut parts = call.start(&id, vec![Prompt { tokens, wish, reasoning }], &sampling, None)?;
    if sampling.stream {
        let writer = ChatWriter::new(&call, id, &sampling, top_logprobs);
        return Ok(Reply::Events(Box::new(Streaming::new(parts, writer, VecDeque::new()))));
    }
    for part in &mut parts {
        part.finished().await?;
    }
    Ok(Reply::Json(whole(&call, &id, &parts, &sampling, top_logprobs)))
}

fn whole(call: &Call, id: &str, parts: &[Part], sampling: &Sampling, top_logprobs: Option<usize>) -> Value {
    let choices: Vec<Value> =
        parts.iter().enumerate().map(|(index, part)| choice(call, index, part, sampling, top_logprobs)).collect();
    let style = UsageStyle::of(call);
    let prompt = &parts[0].prompt;
    let mut answer = json!({
        "id": id,
        "object": "chat.completion",
        "created": call.shared.unix_seconds(),
        "model": call.shared.config.model(),
        "choices": choices,
        "service_tier": null,
        "system_fingerprint": call.shared.fingerprint,
        "usage": style.of_parts(parts, sampling.n).full(style, false),
        "prompt_logprobs": sampling.prompt_logprobs.map(|_| logprobs::prompt(prompt)),
        "prompt_token_ids": sampling.return_token_ids.then(|| prompt.to_vec()),
        "prompt_text": null,
        "kv_transfer_params": null,
        "ec_transfer_params": null,
        "metrics": null,
    });
    if !style.tells() {
        answer.as_object_mut().map(|object| object.shift_remove("usage"));
    }
    answer
}

fn choice(call: &Call, index: usize, part: &Part, sampling: &Sampling, top_logprobs: Option<usize>) -> Value {
    let script = &part.script;
    let end = part.produced;
    let content = script.text(script.reasoning.min(end), script.content_end().min(end));
    let reasoning = script.text(0, script.reasoning.min(end));
    let calls: Vec<Value> = script
        .calls
        .iter()
        .filter(|tool| tool.arguments < end)
        .map(|tool| {
            json!({
                "id": format!("chatcmpl-tool-{}", call.shared.hex()),
                "type": "function",
                "function": {"name": tool.name, "arguments": script.text(tool.arguments, tool.end.min(end))},
            })
        })
        .collect();
    let mut message = json!({
        "role": "assistant",
        "content": if calls.is_empty() || !content.is_empty() { Value::from(content) } else { Value::Null },
        "refusal": null,
        "annotations": null,
        "audio": null,
        "function_call": null,
    });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message["reasoning"] = if reasoning.is_empty() { Value::Null } else { reasoning.into() };
    json!({
        "index": index,
        "message": message,
        "logprobs": top_logprobs.map(|top| logprobs::chat(part, 0, end, top)),
        "finish_reason": part.finish().map(|finish| finish.as_str()),
        "stop_reason": script.stop_reason,
        "token_ids": sampling.return_token_ids.then(|| &script.tokens[..end]),
        "routed_experts": null,
    })
}

/// How many alternatives each token carries; `None` without logprobs.
fn read_logprobs(call: &Call) -> Result<Option<usize>, ApiError> {
    let fields = call.fields();
    let wanted = fields.flag("logprobs")?;
    let top = fields.int("top_logprobs")?;
    match top {
        Some(top) if top > 0 && !wanted => Err(ApiError::invalid(
            "top_logprobs",
            "Value error, when using `top_logprobs`, `logprobs` must be set to true.",
        )),
        Some(top) if top > TOP_LOGPROBS_MAX => Err(ApiError::bad_param(
            "logprobs",
            format!("Requested sample logprobs of {top}, which is greater than max allowed: {TOP_LOGPROBS_MAX}"),
        )),
        top => Ok(wanted.then(|| top.unwrap_or(0).max(0) as usize)),
    }
}

fn check_rank(call: &Call) -> Result<(), ApiError> {
    match call.data_parallel_rank.as_deref() {
        None | Some("0") => Ok(()),
        Some(rank) => Err(ApiError::bad(format!("data_parallel_rank {rank} is out of range [0, 1)."))),
    }
}
