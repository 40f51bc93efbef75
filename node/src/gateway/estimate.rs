//! How large a call may be, before anybody has counted its tokens.
//!
//! The bound is never below the real number of prompt tokens, so that a limit holds whatever the text is: a tokenizer over bytes
//! makes at most one token of each byte, and JSON only lengthens a text. Pictures are the exception, because few bytes may become
//! many tokens: each has a bound of its own. The guess is what usually comes out, and is what a call is charged for its prompt
//! if no replica ever says better. Where a limit is too short for the bound, `count` asks a replica for the truth.

use memchr::memmem;
use serde_json::Value;

use super::body::CallBody;

/// Tokens that chat templates add by themselves: default system prompts, dates, markers.
const TEMPLATE_TOKENS: u64 = 128;

/// What a prompt may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PromptEstimate {
    /// Never less than its tokens.
    pub(super) bound: u64,
    /// About its tokens.
    pub(super) guess: u64,
}

/// Judges the prompt of a body. `image_tokens_max` bounds one picture.
pub(super) fn prompt(body: &CallBody, image_tokens_max: u64) -> PromptEstimate {
    let mut bytes = body.len() as u64 + body.repeated;
    let (mut text, mut counted) = (0, 0);
    for field in body.prompt_fields() {
        match token_ids(field) {
            Some(ids) => {
                bytes -= field.len() as u64;
                counted += ids;
            }
            None => text += field.len() as u64,
        }
    }
    let pictures = pictures(body);
    bytes = bytes.saturating_sub(pictures.bytes);
    PromptEstimate {
        bound: bytes + counted + pictures.count * image_tokens_max + TEMPLATE_TOKENS,
        guess: (text + body.repeated).saturating_sub(pictures.bytes).div_ceil(4)
            + counted
            + pictures.count * (image_tokens_max / 16),
    }
}

/// How many elements a list of token ids (or a list of such lists) has.
fn token_ids(json: &[u8]) -> Option<u64> {
    let mut bytes = json.iter().filter(|byte| !byte.is_ascii_whitespace());
    if bytes.next() != Some(&b'[') {
        return None;
    }
    let first = match bytes.next() {
        Some(b'[') => bytes.next(),
        other => other,
    };
    first.filter(|byte| byte.is_ascii_digit())?;
    let plain = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_whitespace() || matches!(byte, b'[' | b']' | b',');
    json.iter().all(plain).then(|| 1 + memchr::memchr_iter(b',', json).count() as u64)
}

#[derive(Default)]
struct Pictures {
    count: u64,
    /// Of their base 64 text, which is no part of the prompt.
    bytes: u64,
}

/// Finds pictures. Only bodies that may have some are looked through.
fn pictures(body: &CallBody) -> Pictures {
    let mut pictures = Pictures::default();
    if memmem::find(body.bytes(), b"image").is_some() {
        for field in body.prompt_fields() {
            if let Ok(value) = serde_json::from_slice(field) {
                look(&value, &mut pictures);
            }
        }
    }
    pictures
}

fn look(value: &Value, pictures: &mut Pictures) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| look(item, pictures)),
        Value::Object(fields) => {
            if fields
                .get("type")
                .and_then(Value::as_str)
                .is_some_and(|kind| matches!(kind, "image_url" | "input_image" | "image"))
            {
                pictures.count += 1;
                pictures.bytes += picture_bytes(value);
            } else {
                fields.values().for_each(|field| look(field, pictures));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The base 64 text of one picture, in any of the three dialects.
fn picture_bytes(picture: &Value) -> u64 {
    let data =
        [&picture["image_url"]["url"], &picture["image_url"], &picture["source"]["data"], &picture["source"]["url"]];
    data.into_iter()
        .filter_map(Value::as_str)
        .filter(|url| !url.starts_with("http"))
        .map(|data| data.len() as u64)
        .sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::gateway::endpoint::Endpoint;

    fn estimate(json: &str) -> PromptEstimate {
        estimate_at("/v1/chat/completions", json)
    }

    fn estimate_at(path: &str, json: &str) -> PromptEstimate {
        let endpoint = Endpoint::at(path).unwrap();
        prompt(&CallBody::scan(Bytes::copy_from_slice(json.as_bytes()), endpoint).unwrap(), 1600)
    }

    #[test]
    fn bounds_are_above_and_guesses_are_near() {
        let data = "A".repeat(4000);
        let table = [
            (r#"{"messages":[{"role":"user","content":"12345678"}]}"#.to_owned(), 51 + 128, 10),
            (r#"{"prompt":[[1,2],[30000,4]]}"#.to_owned(), 11 + 4 + 128, 4),
            (r#"{"prompt":["1,2","3"]}"#.to_owned(), 22 + 128, 3),
            (
                format!(
                    r#"{{"messages":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}"#
                ),
                58 + 1600 + 128,
                12 + 100,
            ),
            (
                format!(r#"{{"messages":[{{"type":"image","source":{{"type":"base64","data":"{data}"}}}}]}}"#),
                68 + 1600 + 128,
                14 + 100,
            ),
            // What is no comparison repeats nothing.
            (r#"{"query":"12","documents":["3","4"]}"#.to_owned(), 36 + 128, 4),
            // A text about pictures is text.
            (r#"{"messages":[{"type":"text","text":"data:image/png;base64,AAAA"}]}"#.to_owned(), 66 + 128, 14),
        ];
        for (json, bound, guess) in table {
            assert_eq!(estimate(&json), PromptEstimate { bound, guess }, "{}", &json[..60.min(json.len())]);
        }
    }

    /// Texts of every script, of whatever tokenizers cut badly, and of what looks like their own marks.
    fn text() -> impl Strategy<Value = String> {
        let marks =
            prop::sample::select(vec!["<|im_start|>", "<|end|>", "\u{200b}", "👩‍👩‍👧", "\t\n", "\\\"", "Ω≈ç", "\u{fffd}"]);
        prop_oneof![
            4 => any::<String>(),
            2 => "[a-zA-Z ,.]{0,200}",
            1 => "[\\u{4e00}-\\u{9fff}\\u{0600}-\\u{06ff}]{0,60}",
            1 => prop::collection::vec(marks, 0..30).prop_map(|marks| marks.concat()),
            1 => "[0-9a-f]{0,200}",
        ]
    }

    fn body() -> impl Strategy<Value = (&'static str, Value)> {
        let role = prop::sample::select(vec!["system", "user", "assistant"]);
        let message = (role, text()).prop_map(|(role, text)| json!({"role": role, "content": text}));
        let texts = || prop::collection::vec(text(), 1..6);
        let chat = prop::collection::vec(message, 1..8).prop_map(|messages| json!({"messages": messages}));
        prop_oneof![
            chat.prop_map(|body| ("/v1/chat/completions", body)),
            texts().prop_map(|texts| ("/v1/completions", json!({"prompt": texts}))),
            (text(), texts()).prop_map(|(query, texts)| ("/v1/rerank", json!({"query": query, "documents": texts}))),
        ]
    }

    /// Of all strings in a body, read once for each document where they are compared.
    fn tokens_of(body: &Value, count: &impl Fn(&str) -> usize) -> usize {
        match body {
            Value::String(text) => count(text),
            Value::Array(items) => items.iter().map(|item| tokens_of(item, count)).sum(),
            Value::Object(fields) => match (fields.get("query"), fields.get("documents").and_then(Value::as_array)) {
                (Some(query), Some(documents)) => {
                    documents.iter().map(|document| tokens_of(query, count) + tokens_of(document, count)).sum()
                }
                _ => fields.values().map(|value| tokens_of(value, count)).sum(),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }

    proptest! {
        #[test]
        fn no_prompt_has_more_tokens_than_its_bound((path, body) in body()) {
            let bound = estimate_at(path, &body.to_string()).bound as usize;
            let simulated = sim_vllm::prompt_tokens(&body).unwrap();
            prop_assert!(simulated <= bound, "the simulated replica counts {} of {}", simulated, bound);
            // What gpt-oss and its like cut texts with; its template's own tokens are in the bound.
            let real = tiktoken_rs::o200k_harmony_singleton();
            let real = tokens_of(&body, &|text| real.encode_ordinary(text).len()) + TEMPLATE_TOKENS as usize;
            prop_assert!(real <= bound, "o200k_harmony counts {} of {}", real, bound);
        }
    }
}
