//! What an answer, or its lack, says of the replica that gave it. The one place where the endpoint picker's [`Outcome`] is decided.
//!
//! Most failures can be provoked by the call: vLLM answers 500 to some bodies that are the caller's fault. Those are
//! [`Outcome::Failed`], which the picker counts by caller. What is about the call only is an answer.

use std::io::ErrorKind;

use actors::epp::Outcome;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;
use super::upstream::UpstreamError;

/// How vLLM begins its message when the engine behind its server died: with status 500, or in an event of a stream.
const ENGINE_DIED: &str = "EngineCore encountered an issue";

/// Of a call without an answer, or without its end.
pub(super) fn of_error(error: &UpstreamError) -> Outcome {
    match error {
        UpstreamError::Connect(error) if error.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
        UpstreamError::Connect(_) | UpstreamError::ConnectTimeout | UpstreamError::Url(_) => Outcome::Unreachable,
        UpstreamError::Closed | UpstreamError::Broken => Outcome::Lost,
        UpstreamError::HeaderTimeout | UpstreamError::Silent => Outcome::Failed,
        // The caller decides how much it asks for.
        UpstreamError::TooLarge => Outcome::Answered,
    }
}

/// Of an answer with this status.
pub(super) fn of_status(status: StatusCode) -> Outcome {
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Outcome::Busy,
        StatusCode::NOT_IMPLEMENTED => Outcome::Answered,
        status if status.is_server_error() => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

/// Of a whole answer that became this refusal.
pub(super) fn of_refusal(refusal: &Refusal) -> Outcome {
    match refusal {
        Refusal::Upstream(error) => of_error(error),
        Refusal::Replica { message, .. } if message.starts_with(ENGINE_DIED) => Outcome::EngineDied,
        Refusal::Replica { status, .. } => of_status(*status),
        // A body that is not JSON may be what the caller asked for.
        Refusal::BadAnswer(what) if [NOT_JSON, OTHER_TYPE].contains(what) => Outcome::Answered,
        Refusal::BadAnswer(_) => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

/// What is wrong with an answer that is not JSON.
pub(super) const NOT_JSON: &str = "it is not JSON";
/// What is wrong with an answer of a type that no caller here can read. A replica has worked for it.
pub(super) const OTHER_TYPE: &str = "it is of a type that no such call has";

/// Of an error in a stream: the data of an event such as `{"error":{"message":…,"code":500}}` (OpenAI),
/// `{"type":"error","error":{"type":"overloaded_error",…}}` (Anthropic) or `{"type":"error","code":…}` (Responses).
pub(super) fn of_error_event(data: &[u8]) -> Outcome {
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return Outcome::Failed };
    let error = if event["error"].is_object() { &event["error"] } else { &event };
    if error["message"].as_str().is_some_and(|message| message.starts_with(ENGINE_DIED)) {
        return Outcome::EngineDied;
    }
    let code = &error["code"];
    let status = code.as_u64().or_else(|| code.as_str()?.parse().ok());
    let status = status.and_then(|code| u16::try_from(code).ok()).and_then(|code| StatusCode::from_u16(code).ok());
    if let Some(status) = status {
        return of_status(status);
    }
    // Anthropic's types; a code that is a word is OpenAI's, and about the call.
    match error["type"].as_str() {
        Some("overloaded_error" | "rate_limit_error") => Outcome::Busy,
        Some(
            "invalid_request_error"
            | "authentication_error"
            | "permission_error"
            | "not_found_error"
            | "request_too_large"
            | "BadRequestError"
            | "NotFoundError",
        ) => Outcome::Answered,
        _ => Outcome::Failed,
    }
}

/// vLLM's message that its engine died, if `body` (of an answer with status 500) is that.
pub(super) fn engine_died(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let Body { error } = serde_json::from_slice(body).ok()?;
    error.message.starts_with(ENGINE_DIED).then_some(error.message)
}

/// The same, if the first piece of a stream begins with an event that says so.
pub(super) fn engine_died_at_once(piece: &[u8]) -> Option<String> {
    let first = piece.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data:"))?;
    engine_died(first.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::gateway::retry::RetryAdvice;

    #[test]
    fn what_says_something_of_the_replica_is_told_from_what_is_about_the_call() {
        let refused = || UpstreamError::Connect(io::Error::from(ErrorKind::ConnectionRefused));
        let reset = || UpstreamError::Connect(io::Error::from(ErrorKind::ConnectionReset));
        let replica = |status: u16, message: &str| Refusal::Replica {
            status: StatusCode::from_u16(status).unwrap(),
            message: message.to_owned(),
            retry: RetryAdvice::default(),
        };
        let table = [
            (Refusal::Upstream(refused()), Outcome::Refused),
            (Refusal::Upstream(reset()), Outcome::Unreachable),
            (Refusal::Upstream(UpstreamError::ConnectTimeout), Outcome::Unreachable),
            (Refusal::Upstream(UpstreamError::Closed), Outcome::Lost),
            (Refusal::Upstream(UpstreamError::Broken), Outcome::Lost),
            (Refusal::Upstream(UpstreamError::Silent), Outcome::Failed),
            (Refusal::Upstream(UpstreamError::HeaderTimeout), Outcome::Failed),
            (Refusal::Upstream(UpstreamError::TooLarge), Outcome::Answered),
            (replica(400, "bad"), Outcome::Answered),
            (replica(429, "slow down"), Outcome::Busy),
            (replica(503, "busy"), Outcome::Busy),
            (replica(501, "no such thing"), Outcome::Answered),
            (replica(500, "list index out of range"), Outcome::Failed),
            (replica(500, "EngineCore encountered an issue. See stack trace"), Outcome::EngineDied),
            (replica(500, "it says EngineCore encountered an issue"), Outcome::Failed),
            (replica(504, "late"), Outcome::Failed),
            (Refusal::BadAnswer(NOT_JSON), Outcome::Answered),
            (Refusal::BadAnswer(OTHER_TYPE), Outcome::Answered),
            (Refusal::BadAnswer("it redirects"), Outcome::Failed),
            (Refusal::body("the prompt is too long"), Outcome::Answered),
        ];
        for (refusal, outcome) in table {
            assert_eq!(of_refusal(&refusal), outcome, "{refusal:?}");
        }
    }

    #[test]
    fn errors_in_streams_are_told_apart_too() {
        let table = [
            (r#"{"error":{"message":"EngineCore encountered an issue. See","code":500}}"#, Outcome::EngineDied),
            (
                r#"{"error":{"message":"list index out of range","type":"InternalServerError","code":500}}"#,
                Outcome::Failed,
            ),
            (r#"{"error":{"message":"too long","type":"BadRequestError","code":400}}"#, Outcome::Answered),
            (r#"{"error":{"message":"too long","code":"400"}}"#, Outcome::Answered),
            (r#"{"error":{"message":"wait","code":503}}"#, Outcome::Busy),
            (r#"{"error":{"message":"too long","type":"BadRequestError"}}"#, Outcome::Answered),
            (r#"{"type":"error","error":{"type":"invalid_request_error","message":"bad"}}"#, Outcome::Answered),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"wait"}}"#, Outcome::Busy),
            (r#"{"type":"error","error":{"type":"internal_error","message":"boom"}}"#, Outcome::Failed),
            (
                r#"{"type":"error","error":{"type":"api_error","message":"EngineCore encountered an issue."}}"#,
                Outcome::EngineDied,
            ),
            (r#"{"type":"error","code":"500","message":"boom"}"#, Outcome::Failed),
            (r#"{"error":"boom"}"#, Outcome::Failed),
            ("boom", Outcome::Failed),
        ];
        for (data, outcome) in table {
            assert_eq!(of_error_event(data.as_bytes()), outcome, "{data}");
        }
    }

    #[test]
    fn an_engine_that_died_is_known_by_the_first_event_of_a_stream() {
        let death = r#"{"error": {"message": "EngineCore encountered an issue. See", "type": "InternalServerError", "code": 500}}"#;
        let table = [
            (format!("data: {death}\n\ndata: [DONE]\n\n"), true),
            (format!("event: error\r\ndata:{death}\r\n\r\n"), true),
            (format!("data: {{\"choices\":[]}}\n\ndata: {death}\n\n"), false),
            (
                "data: {\"choices\":[{\"delta\":{\"content\":\"EngineCore encountered an issue\"}}]}\n\n".to_owned(),
                false,
            ),
            (": comment\n\n".to_owned(), false),
            (String::new(), false),
        ];
        for (piece, died) in table {
            assert_eq!(engine_died_at_once(piece.as_bytes()).is_some(), died, "{piece}");
        }
    }
}
