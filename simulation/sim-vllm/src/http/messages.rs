//! `/v1/messages` and `/v1/messages/count_tokens`: Anthropic's dialect.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Reply,
    call::{Call, Part, Prompt},
    errors::ApiError,
    events::{Streaming, Writer, named},
    fields::Fields,
    pictures::Sight,
    sampling::Sampling,
    template::{Message, render},
    tools::{Choice, Tools, wish},
    usage::UsageStyle,
};
use crate::{config::Kind, script::Finish};

/// Answers a messages request.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn answer(call: Call) -> Result<Reply, ApiError> {
    let fields = call.fields();
    fields.text("model")?;
    let messages = read_conversation(fields, call.sight())?;
    match fields.int("max_tokens")? {
        None => return Err(ApiError::invalid("body.max_tokens", "Field required")),
        Some(limit) if limit < 1 => {
            return Err(ApiError::invalid("body.max_tokens", "Value error, max_tokens must be positive"));
        }
        Some(_) => {}
    }
    let tools = Tools::read(fields)?;
    let mut sampling = Sampling::read(fields, &["max_tokens"], 1)?;
    sampling.bounds.stop = fields.texts("stop_sequences")?;
    sampling.check_stop()?;
    call.check_model()?;
    let Kind::Generative { reasoning, tool_parser, .. } = call.shared.config.kind else {
        return Err(ApiError::bad("The model does not support Messages API"));
    };
    tools.check_parser(tool_parser)?;
    let tokens = render(&messages, tools.shown(), false);
    let id = call.id("chatcmpl");
    let wish = wish(&call, &tools, &messages)?;
    let mut parts = call.start(&id, vec![Prompt { tokens, wish, reasoning }], &sampling, None)?;
    parts.truncate(1);
    let frame = Frame {
        id,
        model: call.shared.config.model().to_owned(),
        usage: UsageStyle::of(&call),
        tool_id: format!("chatcmpl-tool-{}", call.shared.hex()),
    };
    if sampling.stream {
        let writer = MessageWriter { frame, open: None, index: 0, started: false };
        return Ok(Reply::Events(Box::new(Streaming::new(parts, writer, VecDeque::new()))));
    }
    parts[0].finished().await?;
    Ok(Reply::Json(whole(&frame, &parts)))
}

/// Counts the tokens of a conversation.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) fn count(call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields();
    let messages = read_conversation(fields, call.sight())?;
    call.check_model()?;
    let tools = Tools::read(fields)?;
    let count = render(&messages, tools.shown().filter(|_| tools.choice != Choice::None), false).len();
    Ok(Reply::Json(json!({"input_tokens": count, "context_management": {"original_input_tokens": count}})))
}

/// What all events of an answer share.
struct Frame {
    id: String,
    model: String,
    usage: UsageStyle,
    tool_id: String,
}

impl Frame {
    /// Usage in this dialect: input that came from or went into the cache is counted apart.
    fn usage(&self, parts: &[Part]) -> Value {
        let usage = self.usage.of_parts(parts, 1);
        if !self.usage.details {
            return json!({"input_tokens": usage.prompt, "output_tokens": usage.completion});
        }
        let created = usage.created.unwrap_or(0);
        json!({
            "input_tokens": usage.prompt - usage.cached - created,
            "output_tokens": usage.completion,
            "cache_creation_input_tokens": created,
            "cache_read_input_tokens": usage.cached,
        })
    }
}

fn read_conversation(fields: Fields<'_>, sight: Sight<'_>) -> Result<Vec<Message>, ApiError> {
    let mut messages = Vec::new();
    if let Some(system) = fields.get("system") {
        messages.push(Message::new("system", read_content(system, sight)?));
    }
    let Some(list) = fields.list("messages")? else {
        return Err(ApiError::invalid("body.messages", "Field required"));
    };
    for (at, message) in list.iter().enumerate() {
        let Some(role) = message["role"].as_str() else {
            return Err(ApiError::invalid(format!("body.messages.{at}.role"), "Field required"));
        };
        messages.push(Message::new(role, read_content(&message["content"], sight)?));
    }
    if list.is_empty() {
        return Err(ApiError::bad("Cannot apply chat template to an empty conversation."));
    }
    Ok(messages)
}

/// The text of a content: plain, or blocks of text, thinking, tool use and tool results.
fn read_content(content: &Value, sight: Sight<'_>) -> Result<String, ApiError> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => blocks.iter().map(|block| read_block(block, sight)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(ApiError::invalid("body.messages.0.content", "Input should be a valid string"))
        }
    }
}

fn read_block(block: &Value, sight: Sight<'_>) -> Result<String, ApiError> {
    match block["type"].as_str() {
        Some("tool_use") => Ok(format!("{}{}", block["name"].as_str().unwrap_or_default(), block["input"])),
        Some("tool_result") if block["content"].is_null() => Ok(String::new()),
        Some("tool_result") => read_content(&block["content"], sight),
        Some("thinking" | "redacted_thinking") => Ok(String::new()),
        _ => match block["text"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => sight.look(block),
        },
    }
}

fn stop_reason(part: &Part) -> Value {
    match part.finish() {
        None => Value::Null,
        Some(Finish::Stop) => "end_turn".into(),
        Some(Finish::Length) => "max_tokens".into(),
        Some(Finish::ToolCalls) => "tool_use".into(),
        Some(Finish::Abort) => "abort".into(),
    }
}

fn whole(frame: &Frame, parts: &[Part]) -> Value {
    let part = &parts[0];
    let (script, end) = (&part.script, part.produced);
    let mut content = Vec::new();
    let thinking = script.text(0, script.reasoning.min(end));
    if !thinking.is_empty() {
        content.push(json!({"type": "thinking", "thinking": thinking, "signature": ""}));
    }
    let text = script.text(script.reasoning.min(end), script.content_end().min(end));
    if !text.is_empty() || script.calls.is_empty() {
        content.push(json!({"type": "text", "text": text}));
    }
    for call in script.calls.iter().filter(|call| call.arguments < end) {
        let arguments = script.text(call.arguments, call.end.min(end));
        let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
        content.push(json!({"type": "tool_use", "id": frame.tool_id, "name": call.name, "input": input}));
    }
    let mut answer = json!({
        "id": frame.id, "type": "message", "role": "assistant", "content": content, "model": frame.model,
        "stop_reason": stop_reason(part),
    });
    if frame.usage.tells() {
        answer["usage"] = frame.usage(parts);
    }
    answer
}

/// What kind of block is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Tool(usize),
}

/// Writes `message_*` and `content_block_*` events.
struct MessageWriter {
    frame: Frame,
    open: Option<Block>,
    index: usize,
    started: bool,
}

impl MessageWriter {
    fn push(name: &str, event: &Value, out: &mut VecDeque<Bytes>) {
        out.push_back(named(name, event));
    }

    fn start(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>) {
        self.started = true;
        let mut message = json!({
            "id": self.frame.id, "type": "message", "role": "assistant", "content": [], "model": self.frame.model,
            "stop_reason": null, "stop_sequence": null,
        });
        if self.frame.usage.tells() {
            message["usage"] = json!({"input_tokens": self.frame.usage.of_parts(parts, 1).prompt, "output_tokens": 0});
        }
        Self::push("message_start", &json!({"type": "message_start", "message": message}), out);
    }

    fn delta(&mut self, block: Block, text: &str, part: &Part, out: &mut VecDeque<Bytes>) {
        if self.open != Some(block) {
            self.close(out);
            self.open = Some(block);
            let content = match block {
                Block::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                Block::Text => json!({"type": "text", "text": ""}),
                Block::Tool(number) => {
                    let name = &part.script.calls[number].name;
                    json!({"type": "tool_use", "id": self.frame.tool_id, "name": name, "input": {}})
                }
            };
            let event = json!({"type": "content_block_start", "content_block": content, "index": self.index});
            Self::push("content_block_start", &event, out);
        }
        let delta = match block {
            Block::Thinking => json!({"type": "thinking_delta", "thinking": text}),
            Block::Text => json!({"type": "text_delta", "text": text}),
            Block::Tool(_) => json!({"type": "input_json_delta", "partial_json": text}),
        };
        let event = json!({"type": "content_block_delta", "delta": delta, "index": self.index});
        Self::push("content_block_delta", &event, out);
    }

    fn close(&mut self, out: &mut VecDeque<Bytes>) {
        let Some(block) = self.open.take() else { return };
        if block == Block::Thinking {
            let delta = json!({"type": "signature_delta", "signature": self.frame.id});
            let event = json!({"type": "content_block_delta", "delta": delta, "index": self.index});
            Self::push("content_block_delta", &event, out);
        }
        Self::push("content_block_stop", &json!({"type": "content_block_stop", "index": self.index}), out);
        self.index += 1;
    }
}

impl Writer for MessageWriter {
    fn advance(&mut self, index: usize, parts: &[Part], from: usize, out: &mut VecDeque<Bytes>) {
        if !self.started {
            self.start(parts, out);
        }
        let part = &parts[index];
        let (script, to) = (&part.script, part.produced);
        let mut sections =
            vec![(Block::Thinking, 0, script.reasoning), (Block::Text, script.reasoning, script.content_end())];
        sections.extend(script.calls.iter().enumerate().map(|(at, call)| (Block::Tool(at), call.arguments, call.end)));
        for (block, begin, end) in sections {
            let (begin, end) = (begin.max(from), end.min(to));
            if begin < end {
                self.delta(block, script.text(begin, end), part, out);
            }
        }
    }

    fn end(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>) {
        self.close(out);
        let mut event = json!({"type": "message_delta", "delta": {"stop_reason": stop_reason(&parts[0])}});
        if self.frame.usage.tells() {
            event["usage"] = self.frame.usage(parts);
        }
        Self::push("message_delta", &event, out);
        Self::push("message_stop", &json!({"type": "message_stop"}), out);
    }
}
