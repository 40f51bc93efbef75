//! What a whole answer is worth: whether it is one, and what it used.
//!
//! Most are JSON. Embeddings come as bytes if they are asked for so, with usage in the header `metadata`; speech comes as text in several
//! formats, with no usage at all, or with nothing but the length of what was heard.

use std::sync::LazyLock;

use http::HeaderMap;
use http::header::{self, HeaderName};
use memchr::memmem::Finder;
use serde::Deserialize;

use super::endpoint::{Endpoint, Kind};
use super::outcome::{NOT_JSON, OTHER_TYPE};
use super::refusal::Refusal;
use super::usage::{self, Reported};

/// Where vLLM says what bytes are, and what they cost, as JSON.
pub(super) const METADATA: HeaderName = HeaderName::from_static("metadata");

/// What an answer says of its cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Worth {
    /// Tokens, or nothing of them.
    Reported(Reported),
    /// Nothing, and it is so many bytes of text.
    Text(u64),
}

/// Judges an answer with a good status. Errors: it is none to such a call.
pub(super) fn judge(headers: &HeaderMap, body: &[u8], endpoint: &Endpoint) -> Result<Worth, Refusal> {
    match MediaType::of(headers) {
        MediaType::Json => judge_json(body, endpoint),
        MediaType::Bytes if endpoint.answers_bytes() => {
            let reported = headers.get(METADATA).and_then(|metadata| usage::of_answer(metadata.as_bytes()).ok());
            Ok(Worth::Reported(reported.unwrap_or(Reported::Nothing)))
        }
        MediaType::Text if endpoint.kind == Kind::Speech => Ok(Worth::Text(body.len() as u64)),
        MediaType::Text | MediaType::Html => judge_json(body, endpoint),
        MediaType::Bytes => judge_json(body, endpoint).map_err(|refusal| match refusal {
            Refusal::BadAnswer(NOT_JSON) => Refusal::BadAnswer(OTHER_TYPE),
            refusal => refusal,
        }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MediaType {
    /// Or it does not say.
    Json,
    Text,
    /// What a proxy says in place of a replica.
    Html,
    /// Everything else.
    Bytes,
}

impl MediaType {
    fn of(headers: &HeaderMap) -> MediaType {
        let Some(written) = headers.get(header::CONTENT_TYPE) else { return MediaType::Json };
        let written = written.to_str().unwrap_or_default();
        let essence = written.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" | "" => MediaType::Json,
            "text/html" => MediaType::Html,
            // Subtitles.
            "application/x-subrip" => MediaType::Text,
            other if other.starts_with("text/") => MediaType::Text,
            other if other.ends_with("+json") => MediaType::Json,
            _ => MediaType::Bytes,
        }
    }
}

fn judge_json(body: &[u8], endpoint: &Endpoint) -> Result<Worth, Refusal> {
    static ABORT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"abort\""));
    if endpoint.generates() && ABORT.find(body).is_some() && was_aborted(body) {
        return Err(Refusal::BadAnswer("it gave up the call before its end"));
    }
    let reported = usage::of_answer(body).map_err(|_| Refusal::BadAnswer(NOT_JSON))?;
    match reported {
        Reported::Nothing if endpoint.kind == Kind::Speech => Ok(Worth::Text(length_of_text(body))),
        reported => Ok(Worth::Reported(reported)),
    }
}

/// How many bytes of text were made of speech.
fn length_of_text(body: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Answer {
        text: String,
    }
    // Without a text: all that there is.
    serde_json::from_slice::<Answer>(body).map_or(body.len(), |answer| answer.text.len()) as u64
}

fn was_aborted(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Choice {
        finish_reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct Answer {
        choices: Vec<Choice>,
    }
    serde_json::from_slice::<Answer>(body)
        .is_ok_and(|answer| answer.choices.iter().any(|choice| choice.finish_reason.as_deref() == Some("abort")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::usage::Usage;

    const CHAT: &str = "/v1/chat/completions";
    const EMBEDDINGS: &str = "/v1/embeddings";
    const SPEECH: &str = "/v1/audio/transcriptions";
    const METADATA_OF_ONE: &str = r#"{"id":"embd-1","data":[],"usage":{"prompt_tokens":1,"total_tokens":1}}"#;

    #[test]
    fn answers_are_judged_by_what_they_are() {
        let aborted = r#"{"choices":[{"finish_reason":"abort"}],"usage":null}"#;
        let speaks_of_it = r#"{"choices":[{"finish_reason":"stop","message":{"content":"abort"}}]}"#;
        let tokens = r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let (json, bytes) = ("application/json", "application/octet-stream");
        let table = [
            (CHAT, json, "", tokens, "1+2"),
            (CHAT, "", "", tokens, "1+2"),
            (CHAT, "application/problem+json; charset=utf-8", "", tokens, "1+2"),
            (CHAT, bytes, "", tokens, "1+2"),
            (CHAT, json, "", r#"{"choices":[]}"#, "nothing"),
            (CHAT, json, "", "<html>", "it is not JSON"),
            (CHAT, "text/html", "", "<html>", "it is not JSON"),
            (CHAT, bytes, METADATA_OF_ONE, "\0\0", OTHER_TYPE),
            (CHAT, json, "", aborted, "it gave up the call before its end"),
            (CHAT, json, "", speaks_of_it, "nothing"),
            (EMBEDDINGS, bytes, METADATA_OF_ONE, "\0\0", "1+0"),
            ("/pooling", "application/octet-stream", METADATA_OF_ONE, "\0\0", "1+0"),
            (EMBEDDINGS, bytes, r#"{"usage":{"prompt_tokens":-1}}"#, "\0\0", "absurd"),
            (EMBEDDINGS, bytes, "not JSON", "\0\0", "nothing"),
            (EMBEDDINGS, bytes, "", "\0\0", "nothing"),
            (EMBEDDINGS, "application/x-msgpack", METADATA_OF_ONE, "\0\0", "1+0"),
            (EMBEDDINGS, "text/html", "", "<html>", "it is not JSON"),
            ("/v1/rerank", bytes, METADATA_OF_ONE, "\0\0", OTHER_TYPE),
            (SPEECH, json, "", r#"{"text":"hello","usage":{"type":"duration","seconds":3}}"#, "text of 5"),
            (SPEECH, json, "", r#"{"text":"hello"}"#, "text of 5"),
            (SPEECH, json, "", r#"{"words":[]}"#, "text of 12"),
            (SPEECH, json, "", r#"{"text":"x","usage":{"type":"tokens","input_tokens":1,"output_tokens":2}}"#, "1+2"),
            (SPEECH, "text/plain; charset=utf-8", "", "hello", "text of 5"),
            (SPEECH, "text/vtt", "", "WEBVTT", "text of 6"),
            (SPEECH, "application/x-subrip", "", "1\n", "text of 2"),
            (SPEECH, "text/html", "", "<html>", "it is not JSON"),
            (SPEECH, "audio/wav", "", "RIFF", OTHER_TYPE),
        ];
        for (path, media_type, metadata, body, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::CONTENT_TYPE, media_type), (METADATA, metadata)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let judged = match judge(&headers, body.as_bytes(), Endpoint::at(path).unwrap()) {
                Ok(Worth::Reported(Reported::Tokens(Usage { input, output, .. }))) => format!("{input}+{output}"),
                Ok(Worth::Reported(Reported::Nothing)) => "nothing".to_owned(),
                Ok(Worth::Reported(Reported::Absurd)) => "absurd".to_owned(),
                Ok(Worth::Text(bytes)) => format!("text of {bytes}"),
                Err(Refusal::BadAnswer(what)) => what.to_owned(),
                Err(refusal) => refusal.to_string(),
            };
            assert_eq!(judged, expected, "{path} {media_type} {body}");
        }
    }
}
