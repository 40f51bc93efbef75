//! What a replica says when it refuses or fails. It goes to the caller under its own status, whatever its form and size.
//!
//! An error may be large: vLLM's validation errors repeat the request once for each form that it could have had. It may also be plain
//! text, HTML of a proxy before the replica, cut off, or without an end. So it is read up to a bound and for a short time, and what has
//! arrived by then is used. Its text may repeat the prompt: it goes to the caller and never into a log.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use tokio::time::timeout;

use super::dialect::Dialect;
use super::endpoint::{Endpoint, Kind};
use super::refusal::Refusal;
use super::retry::RetryAdvice;
use super::upstream::AnswerBody;

/// An error of up to so many bytes is passed on as it came. Beyond that its message is shortened.
const PASSED_MAX: usize = 1024 * 1024;
/// A message that is taken out of an error has at most so many bytes.
const MESSAGE_MAX: usize = 16 * 1024;
/// The head has said already that the call failed, so the rest of the error is waited for only briefly.
const READ_WAIT: Duration = Duration::from_secs(2);

/// The body of an error, as far as it is here.
pub(super) struct Complaint {
    body: Bytes,
    /// All of it is here.
    is_whole: bool,
    /// Its content type is `text/plain`.
    is_text: bool,
}

impl Complaint {
    /// Reads an error's body. Never fails: what cannot be read does not change the status.
    pub(super) async fn read(head: &HeaderMap, body: &mut AnswerBody) -> Complaint {
        let mut read = BytesMut::new();
        let is_whole = timeout(READ_WAIT, read_up_to_the_bound(body, &mut read)).await.unwrap_or(false);
        let kind = head.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        Complaint { body: read.freeze(), is_whole, is_text: kind.starts_with(b"text/plain") }
    }

    /// What the caller gets under `status`: the body as it came if SDKs understand it, else an error of ours that says the same.
    pub(super) fn into_answer(
        self,
        status: StatusCode,
        endpoint: &Endpoint,
        retry: RetryAdvice,
    ) -> Result<Bytes, Refusal> {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::BadAnswer("it wants credentials")),
            status if status.is_client_error() => {
                // Anthropic's SDKs want a type of theirs in it.
                if endpoint.dialect() != Dialect::Anthropic && self.is_error_object() {
                    return Ok(self.body);
                }
                let otherwise = format!("the replica refused the call: {status}");
                Err(Refusal::Replica { status, message: self.message().unwrap_or(otherwise), retry })
            }
            status if status.is_server_error() => {
                let message = self.message().unwrap_or_else(|| "the replica failed".to_owned());
                // Recorded: some faults of the caller come as 500.
                if endpoint.kind == Kind::Messages && is_about_context_length(&message) {
                    return Err(Refusal::InvalidBody { message, field: None });
                }
                Err(Refusal::Replica { status, message, retry })
            }
            _ => Err(Refusal::BadAnswer("it redirects")),
        }
    }

    /// The same where the status can no longer be told.
    pub(super) fn into_refusal(self, status: StatusCode, endpoint: &Endpoint, retry: RetryAdvice) -> Refusal {
        let message = self.message();
        self.into_answer(status, endpoint, retry).err().unwrap_or_else(|| Refusal::Replica {
            status,
            message: message.unwrap_or_else(|| format!("the replica refused the call: {status}")),
            retry,
        })
    }

    /// Whether it is `{"error": {…}}`, which OpenAI's SDKs understand as it is.
    fn is_error_object(&self) -> bool {
        #[derive(serde::Deserialize)]
        struct Wire {
            error: serde_json::Map<String, serde_json::Value>,
        }
        self.is_whole && serde_json::from_slice::<Wire>(&self.body).is_ok_and(|wire| !wire.error.is_empty())
    }

    /// The message in it, shortened where it is long.
    fn message(&self) -> Option<String> {
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&self.body) {
            let error = &json["error"];
            let places = [&error["message"], error, &json["message"], &json["detail"]];
            let text = places.into_iter().find_map(|place| match place {
                serde_json::Value::String(text) => Some(text.clone()),
                // FastAPI's own validation errors are lists.
                list @ serde_json::Value::Array(_) => Some(list.to_string()),
                _ => None,
            });
            return text.map(shortened);
        }
        if let Some(begun) = begun_message(&self.body) {
            return Some(shortened(begun));
        }
        let text = std::str::from_utf8(&self.body).ok().filter(|_| self.is_text)?.trim();
        (!text.is_empty()).then(|| shortened(text.to_owned()))
    }
}

/// Whether the body was read to its end.
async fn read_up_to_the_bound(body: &mut AnswerBody, read: &mut BytesMut) -> bool {
    loop {
        match poll_fn(|cx| body.poll_piece(cx)).await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(piece)) => {
                let room = PASSED_MAX - read.len();
                read.extend_from_slice(&piece[..piece.len().min(room)]);
                if piece.len() > room {
                    return false;
                }
            }
        }
    }
}

/// The beginning of the first `message` in an object whose end is missing.
fn begun_message(body: &[u8]) -> Option<String> {
    let key = b"\"message\"";
    let rest = &body[memchr::memmem::find(body, key)? + key.len()..];
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let rest = &rest[..rest.len().min(MESSAGE_MAX + 16)];
    // An escape or a character may be cut in two: at most twelve bytes (`\ud83d\ude00`) are left out.
    let ends = (rest.len().saturating_sub(12)..=rest.len()).rev();
    ends.filter_map(|end| std::str::from_utf8(&rest[..end]).ok())
        .find_map(|begun| serde_json::from_str(&format!("\"{begun}\"")).ok())
}

fn shortened(mut text: String) -> String {
    if text.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("… (the gateway shortened this message)");
    }
    text
}

fn is_about_context_length(message: &str) -> bool {
    ["max_model_len", "maximum context length", "max_total_tokens"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status and what it says, in short.
    fn answer(path: &str, status: u16, (body, is_whole, is_text): (&str, bool, bool)) -> String {
        let complaint = Complaint { body: Bytes::copy_from_slice(body.as_bytes()), is_whole, is_text };
        match complaint.into_answer(
            StatusCode::from_u16(status).unwrap(),
            Endpoint::at(path).unwrap(),
            RetryAdvice::default(),
        ) {
            Ok(passed) => format!("{status} as it came: {}", passed == body.as_bytes()),
            Err(refusal) => format!("{} {refusal}", refusal.status().as_u16()),
        }
    }

    #[test]
    fn errors_keep_their_status_and_say_what_the_replica_said() {
        const CHAT: &str = "/v1/chat/completions";
        let json = |body| (body, true, false);
        let died = r#"{"error":{"message":"EngineCore encountered an issue","code":500}}"#;
        let size =
            r#"{"type":"error","error":{"type":"internal_error","message":"max_model_len=max_total_tokens=40960."}}"#;
        let table = [
            (CHAT, 400, json(r#"{"error":{"message":"too long","code":400}}"#), "400 as it came: true"),
            ("/v1/embeddings", 404, json(r#"{"detail":"Not Found"}"#), "404 Not Found"),
            (CHAT, 422, json(r#"{"detail":[{"msg":"Field required"}]}"#), r#"422 [{"msg":"Field required"}]"#),
            (CHAT, 413, json("<html>too large</html>"), "413 the replica refused the call: 413 Payload Too Large"),
            (CHAT, 429, ("slow down\n", true, true), "429 slow down"),
            (CHAT, 400, json(""), "400 the replica refused the call: 400 Bad Request"),
            (CHAT, 400, (r#"{"error":{"message":"19 errors: {\"a\":\ud83d"#, false, false), "400 19 errors: {\"a\":"),
            (
                CHAT,
                400,
                (r#"{"error":{"type":"x","mess"#, false, false),
                "400 the replica refused the call: 400 Bad Request",
            ),
            (CHAT, 401, json(r#"{"error":"Unauthorized"}"#), "502 the replica answered nonsense: it wants credentials"),
            (CHAT, 302, json(""), "502 the replica answered nonsense: it redirects"),
            (CHAT, 500, json(died), "500 EngineCore encountered an issue"),
            (CHAT, 500, (&died[..40], false, false), "500 EngineCore encounte"),
            ("/v1/messages", 500, json(size), "400 max_model_len=max_total_tokens=40960."),
            ("/v1/messages", 500, json(died), "500 EngineCore encountered an issue"),
        ];
        for (path, status, body, expected) in table {
            assert_eq!(answer(path, status, body), expected, "{path} {status} {body:?}");
        }
    }

    #[test]
    fn a_message_is_shortened_between_two_characters() {
        let long = format!(r#"{{"error":{{"message":"{}""#, "é".repeat(MESSAGE_MAX));
        for is_whole in [true, false] {
            let answer = answer("/v1/responses", 400, (&long, is_whole, false));
            assert!(answer.starts_with("400 éé") && answer.ends_with("é… (the gateway shortened this message)"));
            assert!(answer.len() < MESSAGE_MAX + 100, "{}", answer.len());
        }
    }
}
