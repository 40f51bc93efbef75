//! Responses stand alone here: a replica keeps them, if at all, in its own memory, and the next call may go to another one. So what refers to
//! an earlier response is refused with the reason, before it costs anything. `store: true`, which is the SDKs' default, does no harm.

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::endpoint::{Endpoint, Kind};
use super::refusal::Refusal;

/// The words of JSON that call for a closer look. Quotes inside texts are escaped, so that texts do not contain these.
const WORDS: [&str; 4] = ["\"previous_response_id\"", "\"conversation\"", "\"background\"", "\"item_reference\""];

const KEPT: &str = "no response is kept here: each call may go to another replica";

/// The fields that refer to what earlier calls left behind.
#[derive(Deserialize)]
struct Fields<'a> {
    previous_response_id: Option<Value>,
    conversation: Option<Value>,
    background: Option<Value>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item {
    r#type: Option<String>,
}

/// Errors: the body is one of a Responses call and needs an earlier response, or wants to be asked for its own later.
pub(super) fn check(endpoint: &Endpoint, body: &[u8]) -> Result<(), Refusal> {
    if endpoint.kind != Kind::Responses || !WORDS.iter().any(|word| memmem::find(body, word.as_bytes()).is_some()) {
        return Ok(());
    }
    let fields: Fields<'_> = serde_json::from_slice(body)
        .map_err(|error| Refusal::body(format!("the request body cannot be read: {error}")))?;
    if fields.previous_response_id.is_some() {
        let message =
            format!("`previous_response_id` is not supported: {KEPT}; send the whole conversation in `input`");
        return Err(Refusal::field("previous_response_id", message));
    }
    if fields.conversation.is_some() {
        let message = format!("`conversation` is not supported: {KEPT}; send the whole conversation in `input`");
        return Err(Refusal::field("conversation", message));
    }
    if fields.background.is_some_and(|background| !is_off(&background)) {
        let message =
            format!("`background` is not supported: {KEPT}, so it could not be fetched; leave it out, or stream");
        return Err(Refusal::field("background", message));
    }
    let items = fields.input.and_then(|input| serde_json::from_str::<Vec<Item>>(input.get()).ok()).unwrap_or_default();
    if items.iter().any(|item| item.r#type.as_deref() == Some("item_reference")) {
        let message =
            format!("`input` has an `item_reference`: {KEPT}; send the item itself (SDKs do with `store: false`)");
        return Err(Refusal::field("input", message));
    }
    Ok(())
}

/// `false`, in any form in which pydantic reads it. What cannot be read counts as `true`.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "0" | "false" | "f" | "no" | "n" | "off"),
        Value::Null => true,
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_an_earlier_response_is_refused_and_everything_else_passes() {
        let table = [
            (r#"{"input":"hello","store":true}"#, ""),
            (r#"{"input":"hello","previous_response_id":null,"background":false,"conversation":null}"#, ""),
            (r#"{"input":"say \"background\" and \"previous_response_id\"","background":"off"}"#, ""),
            (r#"{"input":"hello","tools":[{"name":"f","parameters":{"enum":["item_reference"]}}]}"#, ""),
            (r#"{"input":"hello","metadata":{"conversation":"x","background":"true"}}"#, ""),
            (r#"{"input":"hello","previous_response_id":"resp_1"}"#, "previous_response_id"),
            (r#"{"input":"hello","conversation":"conv_1"}"#, "conversation"),
            (r#"{"input":"hello","conversation":{"id":"conv_1"}}"#, "conversation"),
            (r#"{"input":"hello","background":true}"#, "background"),
            (r#"{"input":"hello","background":"yes"}"#, "background"),
            (r#"{"input":"hello","background":1}"#, "background"),
            (r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#, "input"),
            (r#"{"input":[{"role":"user","content":"hi"},{"type":"item_reference","id":"m"}]}"#, "input"),
        ];
        let responses = Endpoint::at("/v1/responses").unwrap();
        for (body, expected) in table {
            let field = match check(responses, body.as_bytes()) {
                Ok(()) => "",
                Err(Refusal::InvalidBody { field: Some(field), .. }) => field,
                Err(other) => panic!("{body}: {other}"),
            };
            assert_eq!(field, expected, "{body}");
        }
        let chat = Endpoint::at("/v1/chat/completions").unwrap();
        assert!(check(chat, br#"{"previous_response_id":"resp_1"}"#).is_ok());
    }
}
