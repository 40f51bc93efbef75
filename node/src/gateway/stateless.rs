//! Responses stand alone here: a replica keeps them, if at all, in its own memory, and the next call may go to another one. So what refers to
//! an earlier response is refused with the reason, before it costs anything. `store: true`, which is the SDKs' default, does no harm.

use memchr::memmem;
use serde::Deserialize;

use super::body::CallBody;
use super::endpoint::{Endpoint, Kind};
use super::refusal::Refusal;

const REFERENCE: &[u8] = b"\"item_reference\"";

const KEPT: &str = "no response is kept here: each call may go to another replica";

#[derive(Deserialize)]
struct Item {
    r#type: Option<String>,
}

/// Errors: the body is one of a Responses call and needs an earlier response, or wants to be asked for its own later.
pub(super) fn check(endpoint: &Endpoint, body: &CallBody) -> Result<(), Refusal> {
    if endpoint.kind != Kind::Responses {
        return Ok(());
    }
    let is_there = |name: &str| body.state(name).is_some_and(|value| value != "null");
    if is_there("previous_response_id") {
        let message =
            format!("`previous_response_id` is not supported: {KEPT}; send the whole conversation in `input`");
        return Err(Refusal::field("previous_response_id", message));
    }
    if is_there("conversation") {
        let message = format!("`conversation` is not supported: {KEPT}; send the whole conversation in `input`");
        return Err(Refusal::field("conversation", message));
    }
    if body.is_in_background()? {
        let message =
            format!("`background` is not supported: {KEPT}, so it could not be fetched; leave it out, or stream");
        return Err(Refusal::field("background", message));
    }
    // Quotes inside texts are escaped, so that no text contains the word.
    let refers = |input: &[u8]| memmem::find(input, REFERENCE).is_some();
    let items = body
        .prompt_fields()
        .filter(|(_, input)| refers(input))
        .filter_map(|(_, input)| serde_json::from_slice::<Vec<Item>>(input).ok());
    if items.flatten().any(|item| item.r#type.as_deref() == Some("item_reference")) {
        let message =
            format!("`input` has an `item_reference`: {KEPT}; send the item itself (SDKs do with `store: false`)");
        return Err(Refusal::field("input", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

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
            (r#"{"input":"hello","previous\u005fresponse_id":"resp_1"}"#, "previous_response_id"),
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
            let scanned = CallBody::scan(Bytes::from_static(body.as_bytes()), responses).unwrap();
            let field = match check(responses, &scanned) {
                Ok(()) => "",
                Err(Refusal::InvalidBody { field: Some(field), .. }) => field,
                Err(other) => panic!("{body}: {other}"),
            };
            assert_eq!(field, expected, "{body}");
        }
        let chat = Endpoint::at("/v1/chat/completions").unwrap();
        let scanned = CallBody::scan(Bytes::from_static(br#"{"previous_response_id":"resp_1"}"#), chat).unwrap();
        assert!(check(chat, &scanned).is_ok());
    }
}
