//! The dialects a caller may speak: how an error looks, how a stream says that it failed.

mod anthropic;
mod openai;

use actors::quota::LimitStanding;
use bytes::Bytes;
use http::HeaderMap;

use super::refusal::Refusal;

/// Who the caller's SDK thinks it talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// The same in answers; its streams consist of typed events.
    Responses,
    /// `{"type": "error", "error": {"type", "message"}}`.
    Anthropic,
}

impl Dialect {
    /// The dialect of a request that is refused before it is known what it asks for.
    pub(super) fn of_request(path: &str, headers: &HeaderMap) -> Dialect {
        let is_message = path.contains("/v1/messages") || crate::anthropic::asks(headers);
        if is_message { Dialect::Anthropic } else { Dialect::OpenAi }
    }

    /// The body of a refusal.
    pub(super) fn error_body(self, refusal: &Refusal, request_id: &str) -> Bytes {
        match self {
            Dialect::OpenAi | Dialect::Responses => openai::error_body(refusal),
            Dialect::Anthropic => anthropic::error_body(refusal, request_id),
        }
    }

    /// The event that ends a stream which failed. `kind` is one of Anthropic's types; the other dialects have one type for all failures.
    pub(super) fn error_event(self, kind: &str, message: &str, request_id: &str) -> Bytes {
        match self {
            Dialect::OpenAi => openai::error_event(message),
            Dialect::Responses => openai::responses_error_event(message),
            Dialect::Anthropic => anthropic::error_event(kind, message, request_id),
        }
    }

    /// What stands between two events of a stream and says nothing but that it goes on. Anthropic's API has an event for it.
    pub(super) fn sign_of_life(self) -> &'static [u8] {
        match self {
            Dialect::OpenAi | Dialect::Responses => b": keep-alive\n\n",
            Dialect::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        }
    }

    /// Adds this dialect's own rate-limit headers for a limit, unless a tighter one of its kind has them already.
    pub(super) fn limit_headers(self, limit: &LimitStanding, headers: &mut HeaderMap) {
        match self {
            Dialect::OpenAi | Dialect::Responses => openai::limit_headers(limit, headers),
            Dialect::Anthropic => anthropic::limit_headers(limit, headers),
        }
    }
}
