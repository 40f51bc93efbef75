//! The chat template: messages to tokens, and what is wrong with messages.
//!
//! Each message costs its content and five tokens around it; the start of the answer costs five.

use serde_json::Value;

use super::{errors::ApiError, fields::Fields, pictures::Sight};
use crate::{
    chance,
    text::{SPECIAL, encode},
};

const START: u32 = SPECIAL + 6;
const END: u32 = SPECIAL + 7;
const LINE: u32 = SPECIAL + 8;
const CHANNEL: u32 = SPECIAL + 9;
const ANSWER: u32 = SPECIAL + 10;

/// One message, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) text: String,
}

impl Message {
    pub(crate) fn new(role: &str, text: impl Into<String>) -> Self {
        Self { role: role.to_owned(), text: text.into() }
    }
}

/// Reads `messages` of a chat request.
///
/// # Errors
/// Messages that are missing, malformed or empty, pictures that cannot be seen, tool calls whose arguments are not JSON.
pub(crate) fn read_messages(fields: Fields<'_>, sight: Sight<'_>) -> Result<Vec<Message>, ApiError> {
    let Some(values) = fields.list("messages")? else {
        return Err(ApiError::invalid("body.messages", "Field required"));
    };
    let messages: Vec<Message> =
        values.iter().enumerate().map(|(at, value)| read_message(at, value, sight)).collect::<Result<_, _>>()?;
    if messages.is_empty() {
        return Err(ApiError::bad(
            "Cannot apply chat template to an empty conversation. Provide at least one message.",
        ));
    }
    Ok(messages)
}

fn read_message(at: usize, value: &Value, sight: Sight<'_>) -> Result<Message, ApiError> {
    let place = format!("body.messages.{at}.ChatCompletionDeveloperMessageParam");
    let Some(object) = value.as_object() else {
        return Err(ApiError::invalid(place, "Input should be a valid dictionary"));
    };
    let Some(role) = object.get("role").and_then(Value::as_str) else {
        return Err(ApiError::invalid(format!("{place}.role"), "Field required"));
    };
    let mut text = match object.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => read_parts(parts, sight)?,
        None => String::new(),
        Some(Value::Null) if matches!(role, "assistant" | "tool") => String::new(),
        _ => return Err(ApiError::invalid(format!("{place}.content"), "Input should be a valid string")),
    };
    for call in object.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        check_arguments(&call["function"]["arguments"])?;
        text.push_str(&call["function"].to_string());
    }
    Ok(Message { role: role.to_owned(), text })
}

/// The arguments of an earlier tool call are read again, because templates render them as JSON.
///
/// # Errors
/// They are not JSON.
pub(crate) fn check_arguments(arguments: &Value) -> Result<(), ApiError> {
    match arguments.as_str().filter(|text| !text.is_empty()).map(serde_json::from_str::<Value>) {
        Some(Err(error)) => Err(ApiError::bad(format!("Expecting value: {error}"))),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// The texts of a list of content parts.
///
/// # Errors
/// Pictures that cannot be seen.
pub(crate) fn read_parts(parts: &[Value], sight: Sight<'_>) -> Result<String, ApiError> {
    let mut text = String::new();
    for part in parts {
        match part {
            Value::String(plain) => text.push_str(plain),
            _ => match part["text"].as_str().or_else(|| part["refusal"].as_str()) {
                Some(plain) => text.push_str(plain),
                None => text.push_str(&sight.look(part)?),
            },
        }
    }
    Ok(text)
}

/// The tokens of a conversation. `tools` is what the model is told of its tools; `open` continues the last message
/// instead of beginning an answer.
pub(crate) fn render(messages: &[Message], tools: Option<&Value>, open: bool) -> Vec<u32> {
    let mut tokens = Vec::new();
    if let Some(tools) = tools {
        push_message(&mut tokens, "developer", &tools.to_string());
    }
    for message in messages {
        push_message(&mut tokens, &message.role, &message.text);
    }
    if open {
        tokens.truncate(tokens.len().saturating_sub(2));
    } else {
        tokens.extend([START, role_token("assistant"), CHANNEL, ANSWER, LINE]);
    }
    tokens
}

fn push_message(tokens: &mut Vec<u32>, role: &str, text: &str) {
    tokens.extend([START, role_token(role), LINE]);
    tokens.extend(encode(text));
    tokens.extend([END, LINE]);
}

fn role_token(role: &str) -> u32 {
    SPECIAL + 100 + (chance::hash(role.as_bytes(), 0) % 900) as u32
}
