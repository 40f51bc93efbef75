use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const PICTURE: u64 = 1600;

fn judge(path: &str, json: &str) -> (PromptEstimate, Option<String>) {
    let endpoint = Endpoint::at(path).unwrap();
    let body = CallBody::scan(Bytes::copy_from_slice(json.as_bytes()), endpoint).unwrap();
    let media = MediaTokens { image_max: PICTURE, ..MediaTokens::default() };
    let (estimate, unbounded) = estimate(&body, endpoint, &media);
    (estimate, unbounded.map(|(_, why)| why.to_string()))
}

#[test]
fn bounds_of_text_are_above_and_guesses_are_near() {
    let table = [
        (CHAT, r#"{"messages":[{"role":"user","content":"12345678"}]}"#, 51 + 128, 10),
        ("/v1/completions", r#"{"prompt":[[1,2],[30000,4]]}"#, 11 + 4 + 128, 4),
        ("/v1/completions", r#"{"prompt":["1,2","3"]}"#, 22 + 128, 3),
        // What is no comparison repeats nothing.
        (CHAT, r#"{"query":"12","documents":["3","4"]}"#, 36 + 128, 4),
        ("/v1/rerank", r#"{"query":"12","documents":["3","4"]}"#, 36 + 4 + 16 + 128, 2 + 3 + 4),
    ];
    for (path, json, bound, guess) in table {
        assert_eq!(
            judge(path, json),
            (PromptEstimate { bound, guess, has_bound: true, has_media: false }, None),
            "{json}"
        );
    }
}

/// A WAV file in base 64: 8 kHz, mono, 8 bits.
fn wav(seconds: usize) -> String {
    let head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0";
    let mut file = head.to_vec();
    // Counted from where the format is.
    file.resize(12 + 8000 * seconds, 0);
    BASE64_STANDARD.encode(file)
}

fn pdf(pages: usize) -> String {
    BASE64_STANDARD.encode(format!("%PDF-1.4 {}", "<</Type /Page>>".repeat(pages)))
}

fn data_url(media_type: &str, file: &str) -> String {
    format!("data:{media_type};base64,{file}")
}

/// Content, the file in it that is no text, what its media cost, and the beginning of the reason why there is no bound.
type Row<'a> = (Value, &'a str, u64, &'a str);

/// Checks bodies that `around` makes of content.
fn check(path: &str, around: impl Fn(Value) -> Value, table: &[Row<'_>]) {
    for (content, file, cost, why) in table {
        let json = around(content.clone()).to_string();
        let (estimate, unbounded) = judge(path, &json);
        let shown: String = json.chars().take(300).collect();
        assert_eq!(estimate.bound, (json.len() - file.len()) as u64 + cost + 128, "{path} {shown}");
        let unbounded = unbounded.unwrap_or_default();
        assert!(unbounded.starts_with(why) && unbounded.is_empty() == why.is_empty(), "{unbounded}: {path} {shown}");
    }
}

/// The content of one message.
fn user(content: Value) -> Value {
    json!({"max_tokens": 1, "messages": [{"role": "user", "content": content}]})
}

#[test]
fn texts_and_pictures_of_chats_count_by_their_kind() {
    let picture = data_url("image/png", &"A".repeat(4000));
    let url = "https://a/b";
    let table: &[Row<'_>] = &[
        (json!("a text"), "", 0, ""),
        (json!(["a text"]), "", 0, ""),
        (json!([{"type": "text", "text": "hello"}, {"type": "refusal", "refusal": "no"}]), "", 0, ""),
        (json!([{"type": "thinking", "thinking": "well", "closed": true}]), "", 0, ""),
        (json!([{"type": "text", "text": picture}]), "", 0, ""),
        (json!([{"type": "text", "text": "hello", "image_url": null}]), "", 0, ""),
        (json!([{"type": "hologram", "hologram": url}]), "", 0, "a content part has the unknown type `hologram`"),
        (json!([{"type": "image_url", "image_url": {"url": picture}}]), &*picture, PICTURE, ""),
        (json!([{"type": "image_url", "image_url": picture}]), &picture, PICTURE, ""),
        (json!([{"image_url": picture}]), &picture, PICTURE, ""),
        (json!([{"image_url": {"url": picture}, "uuid": "x"}]), &picture, PICTURE, ""),
        (json!([{"image_url": {"url": picture}, "type": "image_url", "detail": "low"}]), &picture, PICTURE, ""),
        (json!([{"type": "image_url", "image_url": {"url": url}}]), "", PICTURE, ""),
        (json!([{"type": "image_url", "image_url": null, "uuid": "known"}]), "", PICTURE, ""),
        (json!([{"image_url": null, "uuid": "known"}]), "", PICTURE, ""),
        (json!([{"type": "image_pil", "image_pil": picture}]), &picture, PICTURE, ""),
    ];
    check(CHAT, user, table);
    check("/v1/embeddings", user, table);
    check("/v1/chat/completions/batch", |content| json!({"messages": [[{"role": "user", "content": content}]]}), table);
}

#[test]
fn other_media_of_chats_count_by_their_kind() {
    let picture = data_url("image/png", &"A".repeat(4000));
    let (bytes, sound) = (wav(31), data_url("audio/wav", &wav(31)));
    let document = data_url("application/pdf", &pdf(2));
    let frames = data_url("video/jpeg", &["AAAA"; 100].join(","));
    let tensor = "A".repeat(4000);
    let url = "https://a/b";
    let table: &[Row<'_>] = &[
        (json!([{"type": "input_audio", "input_audio": {"data": bytes, "format": "wav"}}]), &*bytes, 60 * 50, ""),
        (json!([{"type": "audio_url", "audio_url": {"url": sound}}]), &sound, 60 * 50, ""),
        (json!([{"audio_url": sound}]), &sound, 60 * 50, ""),
        (json!([{"type": "audio_url", "audio_url": {"url": url}}]), "", 300 * 50, "`audio_url` is at a URL"),
        (json!([{"type": "audio_url", "uuid": "known"}]), "", 300 * 50, "`audio_url` is at a URL"),
        (json!([{"type": "video_url", "video_url": {"url": frames}}]), &frames, 50 * 1536, ""),
        (
            json!([{"type": "video_url", "video_url": {"url": picture}}]),
            &picture,
            16 * 1536,
            "the length of `video_url`",
        ),
        (
            json!([{"type": "input_audio", "input_audio": {"data": tensor}}]),
            &tensor,
            1500,
            "the length of `input_audio`",
        ),
        (json!([{"video_url": url}]), "", 16 * 1536, "`video_url` is at a URL"),
        (json!([{"type": "file", "file": {"file_data": document, "filename": "a.pdf"}}]), &document, 10_000, ""),
        (json!([{"type": "file", "file": {"file_id": "file-1"}}]), "", 25_000, "`file` is at a URL"),
        (json!([{"type": "image_embeds", "image_embeds": tensor}]), &tensor, 2, "`image_embeds` does not"),
        (json!([{"type": "audio_embeds", "audio_embeds": {"a": "AAAA"}}]), "", PICTURE, "`audio_embeds` does not"),
        (json!([{"type": "prompt_embeds", "data": tensor}]), &tensor, 2, "`prompt_embeds` does not"),
    ];
    check(CHAT, user, table);
    check("/pooling", user, table);
}

#[test]
fn parts_of_messages_count_by_their_kind() {
    let picture = "A".repeat(4000);
    let document = pdf(3);
    let based =
        |kind: &str, data: &str| json!({"type": kind, "source": {"data": data, "media_type": "x/y", "type": "base64"}});
    let document_of = |source: Value| json!([{"type": "document", "source": source}]);
    let result = |content: Value| json!([{"type": "tool_result", "tool_use_id": "t", "content": content}]);
    let found = |content: Value| json!([{"type": "search_result", "source": "https://a", "content": content}]);
    let hidden = BASE64_STANDARD.encode("%PDF-1.7 /Type /ObjStm");
    let table: &[Row<'_>] = &[
        (json!([based("image", &picture)]), &*picture, PICTURE, ""),
        (json!([{"type": "image", "source": {"type": "url", "url": "https://a/b"}}]), "", PICTURE, ""),
        (json!([based("document", &document)]), &document, 15_000, ""),
        (json!([based("document", &hidden)]), &hidden, 5000, "the pages of `document` cannot be counted"),
        (document_of(json!({"type": "url", "url": "https://a/b"})), "", 25_000, "`document` is at a URL"),
        (document_of(json!({"type": "file", "file_id": "f"})), "", 25_000, "`document` is at a URL"),
        (document_of(json!({"type": "text", "data": picture})), "", 0, ""),
        (document_of(json!({"type": "content", "content": [based("image", &picture)]})), &picture, PICTURE, ""),
        (result(json!("a text")), "", 0, ""),
        (result(json!([based("image", &picture), {"type": "text", "text": "x"}])), &picture, PICTURE, ""),
        (found(json!([{"type": "text", "text": "x"}])), "", 0, ""),
        (json!([{"type": "tool_use", "name": "n", "input": {"content": [based("image", &picture)]}}]), "", 0, ""),
        (json!([{"type": "redacted_thinking", "data": picture}]), "", 0, ""),
    ];
    check(MESSAGES, user, table);
    check(MESSAGES, |content| json!({"max_tokens": 1, "messages": [], "system": content}), table);
}

#[test]
fn parts_of_responses_count_by_their_kind() {
    let picture = data_url("image/png", &"A".repeat(4000));
    let (bytes, document) = (wav(10), data_url("application/pdf", &pdf(2)));
    let table: &[Row<'_>] = &[
        (json!([{"type": "input_text", "text": "x"}, {"type": "output_text", "text": "x"}]), "", 0, ""),
        (json!([{"type": "input_image", "detail": "auto", "image_url": picture}]), &*picture, PICTURE, ""),
        (json!([{"type": "input_image", "image_url": null, "file_id": "file-1"}]), "", PICTURE, ""),
        (json!([{"type": "input_audio", "input_audio": {"data": bytes, "format": "wav"}}]), &bytes, 1500, ""),
        (json!([{"type": "input_file", "file_data": document, "file_id": null}]), &document, 10_000, ""),
        (json!([{"type": "input_file", "file_url": "https://a/b.pdf"}]), "", 25_000, "`input_file` is at a URL"),
        (json!([{"type": "input_file", "file_id": "file-1"}]), "", 25_000, "`input_file` is at a URL"),
    ];
    let item = |item: Value| json!({"input": [item]});
    check(RESPONSES, |content| item(json!({"role": "user", "content": content})), table);
    check(RESPONSES, |content| item(json!({"type": "message", "role": "user", "content": content})), table);
    check(RESPONSES, |output| item(json!({"type": "function_call_output", "output": output})), table);
    let screen: &[Row<'_>] = &[
        (json!({"type": "computer_screenshot", "image_url": picture}), &*picture, PICTURE, ""),
        (json!({"type": "computer_screenshot", "file_id": "f"}), "", PICTURE, ""),
    ];
    check(RESPONSES, |output| item(json!({"type": "computer_call_output", "output": output})), screen);
}

#[test]
fn media_of_encoders_count_wherever_those_take_them() {
    let picture = data_url("image/png", &"A".repeat(4000));
    let content = json!({"content": [{"type": "image_url", "image_url": {"url": picture}}]});
    let cost = |between| PICTURE + between;
    check("/score", |one| json!({"data_1": one, "data_2": ["x"]}), &[(content.clone(), &picture, cost(8), "")]);
    check("/v1/rerank", |one| json!({"query": "x", "documents": [one]}), &[(content.clone(), &picture, cost(8), "")]);
    check("/v2/embed", |one| json!({"inputs": [one]}), &[(content.clone(), &picture, cost(0), "")]);
    check("/v2/embed", |one| json!({"images": [one]}), &[(json!(picture), &picture, cost(0), "")]);
    // The picture is read with each of three texts.
    let json = json!({"query": content, "documents": ["a", "b", "c"]}).to_string();
    let query = content.to_string().len() - picture.len();
    let expected = json.len() - picture.len() + 2 * query + 3 * 8 + 128;
    assert_eq!(judge("/v1/rerank", &json).0.bound, expected as u64 + 3 * PICTURE);
}

#[test]
fn media_where_no_replica_looks_are_text() {
    let picture = data_url("image/png", &"A".repeat(4000));
    let part = json!({"type": "image_url", "image_url": {"url": picture}});
    let table = [
        json!({"messages": [part]}),
        json!({"messages": [{"role": "user", "content": "x", "image_url": picture}]}),
        json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": part.to_string()}}]}]}),
        json!({"messages": [], "tools": [part]}),
        json!({"messages": [], "documents": [{"content": [part]}]}),
        json!({"messages": [], "metadata": [part]}),
    ];
    check(CHAT, |body| body, &table.map(|body| (body, "", 0, "")));
}

#[test]
fn media_are_found_however_they_are_written() {
    let escaped = data_url("audio/wav", &wav(10)).replace('/', "\\/");
    let elsewhere = r#"{"type":"audio_url","audio_url":{"url":"http://a/b"}}"#;
    let table = [
        (
            format!(r#"{{"typ\u0065":"audio\u005furl","audio\u005furl":{{"ur\u006c":"{escaped}"}}}}"#),
            escaped.len(),
            1500,
            "",
        ),
        // Of two fields of one name Python takes the last.
        (format!(r#"{{"type":"text","type":"audio_url","audio_url":"{escaped}"}}"#), escaped.len(), 1500, ""),
        (
            format!(r#"{{"type":"audio_url","audio_url":{{"url":"{escaped}","url":"http://a/b"}}}}"#),
            0,
            300 * 50,
            "`audio_url` is at a URL",
        ),
        // What cannot be read hides nothing.
        (format!(r#"{{"\ud800":1}},{elsewhere}"#), 0, 0, "a name of a field is not Unicode"),
    ];
    for (part, file, cost, why) in table {
        let json = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
        let (estimate, unbounded) = judge(CHAT, &json);
        assert_eq!(estimate.bound, (json.len() - file) as u64 + cost + 128, "{}", &part[..part.len().min(200)]);
        assert!(unbounded.unwrap_or_default().starts_with(why), "{why}");
    }
}

#[test]
fn a_configured_maximum_bounds_every_medium_of_its_kind() {
    let media = MediaTokens {
        audio_max: Some(1000),
        video_max: Some(2000),
        document_max: Some(3000),
        ..MediaTokens::default()
    };
    let url = "https://a/b";
    let hidden = data_url("application/pdf", &BASE64_STANDARD.encode("%PDF-1.7 /Type /ObjStm"));
    let parts = json!([
        {"type": "audio_url", "audio_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": wav(31)}},
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "file", "file": {"file_data": hidden}},
    ]);
    let mut tally = Tally::new(&media);
    walk::look(parts.to_string().as_bytes(), Place::Content, &mut tally);
    assert_eq!((tally.bound, tally.unbounded), (1000 + 1000 + 2000 + 3000 + 3000, None));
}

#[test]
fn completions_with_embeddings_have_no_bound() {
    let is_unbounded = |json: &str| judge("/v1/completions", json).1.is_some();
    assert!(is_unbounded(r#"{"prompt_embeds":"AAAA"}"#));
    assert!(!is_unbounded(r#"{"prompt_embeds":null,"prompt":"x"}"#));
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
        let bound = judge(path, &body.to_string()).0.bound as usize;
        let simulated = sim_vllm::prompt_tokens(&body).unwrap();
        prop_assert!(simulated <= bound, "the simulated replica counts {} of {}", simulated, bound);
        // What gpt-oss and its like cut texts with; its template's own tokens are in the bound.
        let real = tiktoken_rs::o200k_harmony_singleton();
        let real = tokens_of(&body, &|text| real.encode_ordinary(text).len()) + TEMPLATE_TOKENS as usize;
        prop_assert!(real <= bound, "o200k_harmony counts {} of {}", real, bound);
    }
}
