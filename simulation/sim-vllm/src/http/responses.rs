//! `/v1/responses`: OpenAI's Responses API. Nothing is stored, so an earlier response is never found.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Reply,
    call::{Call, Part, Prompt},
    errors::ApiError,
    events::Streaming,
    fields::Fields,
    pictures::Sight,
    responses_stream::{ResponseWriter, function_call, text_part},
    sampling::Sampling,
    template::{Message, check_arguments, read_parts, render},
    tools::{Choice, Tools, wish},
    usage::UsageStyle,
};
use crate::{config::Kind, script::Finish};

/// Answers a responses request.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn answer(call: Call) -> Result<Reply, ApiError> {
    let fields = call.fields();
    fields.text("model")?;
    let messages = read_input(fields, call.sight())?;
    let tools = Tools::read(fields)?;
    let sampling = Sampling::read(fields, &["max_output_tokens"], 1)?;
    call.check_model()?;
    if fields.flag("background")? {
        let message =
            "This vLLM engine does not support `store=True` and therefore does not support the background mode.";
        let kind = "invalid_request_error";
        return Err(ApiError { kind, ..ApiError::bad_param("background", message) });
    }
    if let Some(previous) = fields.text("previous_response_id")? {
        return Err(ApiError::unknown_response(previous));
    }
    let Kind::Generative { reasoning, tool_parser, .. } = call.shared.config.kind else {
        return Err(ApiError::status(StatusCode::NOT_FOUND, "The model does not support Responses API"));
    };
    let tokens = render(&messages, tools.shown(), false);
    let id = format!("resp_{}", call.shared.hex());
    let frame = frame(&call, &id, &tools, &sampling)?;
    // Without a parser tools are offered and never called.
    let tools = if tool_parser { tools } else { tools.silenced() };
    let wish = wish(&call, &tools, &messages)?;
    let record = call.id("resp");
    let mut parts = call.start(&record, vec![Prompt { tokens, wish, reasoning }], &sampling, None)?;
    parts.truncate(1);
    let style = UsageStyle::of(&call);
    if sampling.stream {
        let (writer, first) =
            ResponseWriter::begin(frame, style, [call.shared.hex(), call.shared.hex(), call.shared.hex()]);
        return Ok(Reply::Events(Box::new(Streaming::new(parts, writer, first))));
    }
    parts[0].finished().await?;
    Ok(Reply::Json(complete(frame, &parts, style, &[call.shared.hex(), call.shared.hex(), call.shared.hex()])))
}

/// `GET /v1/responses/{id}` and its cancelling.
///
/// # Errors
/// Always: nothing is stored.
pub(crate) fn stored(id: &str) -> Result<Reply, ApiError> {
    Err(ApiError::unknown_response(id))
}

/// The conversation in `instructions` and `input`.
fn read_input(fields: Fields<'_>, sight: Sight<'_>) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> =
        fields.text("instructions")?.into_iter().map(|text| Message::new("system", text)).collect();
    match fields.get("input") {
        None => return Err(ApiError::invalid("body.input", "Field required")),
        Some(Value::String(text)) => messages.push(Message::new("user", text)),
        Some(Value::Array(items)) => {
            if let Some(unknown) = items.iter().find(|item| !is_known(item)) {
                return Err(unknown_item(unknown));
            }
            for item in items {
                messages.push(read_item(item, sight)?);
            }
        }
        Some(_) => return Err(ApiError::invalid("body.input", "Input should be a valid string")),
    }
    Ok(messages)
}

/// The types that an item of the input may have. Without one it is a message.
const ITEM_TYPES: [&str; 25] = [
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "file_search_call",
    "web_search_call",
    "image_generation_call",
    "code_interpreter_call",
    "computer_call",
    "computer_call_output",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "compaction",
    "tool_search_call",
    "item_reference",
];

fn is_known(item: &Value) -> bool {
    item["type"].as_str().is_none_or(|kind| ITEM_TYPES.contains(&kind))
}

/// The answer to an item that has none of these types: pydantic says of each what is wrong, and repeats the item every time. So a request
/// of some kilobytes is answered with more than 64 KiB.
fn unknown_item(item: &Value) -> ApiError {
    let wrong = ITEM_TYPES.iter().flat_map(|form| {
        ["id", "type", "status"].map(|field| {
            format!(
                "\n  {{'type': 'missing', 'loc': ('body', 'input', 'list[union]', 0, '{form}', '{field}'), 'msg': 'Field required', 'input': {item}}}"
            )
        })
    });
    let message = format!("{} validation errors:{}", 3 * ITEM_TYPES.len(), wrong.collect::<String>());
    ApiError { message, ..ApiError::invalid("body.input.list[union].0", "") }
}

fn read_item(item: &Value, sight: Sight<'_>) -> Result<Message, ApiError> {
    let text = match (&item["content"], item["type"].as_str()) {
        (Value::String(text), _) => text.clone(),
        (Value::Array(parts), _) => read_parts(parts, sight)?,
        (_, Some("function_call_output")) => match &item["output"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
        _ => {
            check_arguments(&item["arguments"])?;
            format!("{}{}", item["name"], item["arguments"])
        }
    };
    let role = item["role"].as_str().unwrap_or(match item["type"].as_str() {
        Some("function_call_output") => "tool",
        _ => "assistant",
    });
    Ok(Message::new(role, text))
}

/// The response object before anything is produced.
fn frame(call: &Call, id: &str, tools: &Tools, sampling: &Sampling) -> Result<Value, ApiError> {
    let fields = call.fields();
    let number = |name: &str, default: f64| fields.float(name).map(|value| value.unwrap_or(default));
    let tool = |tool: &Value| {
        json!({
            "name": tool["name"], "parameters": tool["parameters"], "strict": tool["strict"], "type": tool["type"],
            "allowed_callers": null, "defer_loading": null, "description": tool["description"], "output_schema": null,
        })
    };
    let listed: Vec<Value> = fields.list("tools")?.unwrap_or_default().iter().map(tool).collect();
    let choice = fields.get("tool_choice").cloned().unwrap_or_else(|| match tools.choice {
        Choice::None => "none".into(),
        Choice::Auto | Choice::Required | Choice::Named(_) => "auto".into(),
    });
    Ok(json!({
        "id": id, "created_at": call.shared.unix_seconds(), "incomplete_details": null,
        "instructions": fields.get("instructions"), "metadata": fields.get("metadata"),
        "model": call.shared.config.model(), "object": "response", "output": [],
        "parallel_tool_calls": fields.get("parallel_tool_calls").unwrap_or(&Value::Bool(true)),
        "temperature": number("temperature", 1.0)?, "tool_choice": choice, "tools": listed,
        "top_p": number("top_p", 1.0)?, "background": false,
        "max_output_tokens": sampling.max_tokens.unwrap_or(call.shared.config.context_len()),
        "max_tool_calls": null, "previous_response_id": null, "prompt": null, "reasoning": fields.get("reasoning"),
        "service_tier": "auto", "status": "in_progress", "text": fields.get("text"), "top_logprobs": null,
        "truncation": "disabled", "usage": null, "user": fields.get("user"),
        "presence_penalty": number("presence_penalty", 0.0)?, "frequency_penalty": number("frequency_penalty", 0.0)?,
        "kv_transfer_params": null, "ec_transfer_params": null, "input_messages": null, "output_messages": null,
    }))
}

/// The response object at the end; `ids` are for its reasoning, its message and its calls.
pub(super) fn complete(mut frame: Value, parts: &[Part], style: UsageStyle, ids: &[String; 3]) -> Value {
    let finish = parts[0].finish();
    let completed = matches!(finish, Some(Finish::Stop | Finish::ToolCalls));
    if finish == Some(Finish::Length) {
        frame["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    frame["status"] = if completed { "completed" } else { "incomplete" }.into();
    frame["output"] = output(&parts[0], ids);
    if style.tells() {
        frame["usage"] = usage(parts, style);
    }
    frame
}

fn output(part: &Part, ids: &[String; 3]) -> Value {
    let script = &part.script;
    let end = part.produced;
    let mut items = Vec::new();
    let reasoning = script.text(0, script.reasoning.min(end));
    if !reasoning.is_empty() {
        items.push(json!({
            "id": format!("rs_{}", ids[0]), "summary": [], "type": "reasoning",
            "content": [{"text": reasoning, "type": "reasoning_text"}], "encrypted_content": null, "status": null,
        }));
    }
    let content = script.text(script.reasoning.min(end), script.content_end().min(end));
    if !content.is_empty() || script.calls.is_empty() {
        items.push(json!({
            "id": format!("msg_{}", ids[1]), "content": [text_part(content)], "role": "assistant",
            "status": "completed", "type": "message", "phase": null,
        }));
    }
    for call in script.calls.iter().filter(|call| call.arguments < end) {
        items.push(function_call(&ids[2], call, script.text(call.arguments, call.end.min(end)), "completed"));
    }
    items.into()
}

fn usage(parts: &[Part], style: UsageStyle) -> Value {
    let usage = style.of_parts(parts, 1);
    let reasoning = parts[0].script.reasoning.min(parts[0].produced);
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details":
            {"cached_tokens": usage.cached, "input_tokens_per_turn": [], "cached_tokens_per_turn": []},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": reasoning, "tool_output_tokens": 0, "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": []},
        "total_tokens": usage.prompt + usage.completion,
    })
}
