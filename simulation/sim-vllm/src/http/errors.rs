//! Refusals, in the shapes that vLLM's front end gives them.
//!
//! There are three: OpenAI's envelope, Anthropic's (`/v1/messages`, but only for semantic errors), and FastAPI's bare
//! `detail`. Texts name the thing as vLLM does, without echoing the whole request.

use http::StatusCode;
use serde_json::{Value, json};

/// A refusal before it has a shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
}

/// What vLLM answers when its engine process is gone.
pub(crate) const ENGINE_DIED: &str = "EngineCore encountered an issue. See stack trace (above) for the root cause.";

impl ApiError {
    /// A request that means something impossible.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "BadRequestError", message: message.into(), param: None }
    }

    /// The same, about one parameter.
    pub(crate) fn bad_param(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::bad(message) }
    }

    /// A request that does not have the form (pydantic's answer): `at` is the path that `param` carries.
    pub(crate) fn invalid(at: impl Into<String>, message: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "Bad Request",
            message: format!("1 validation error:\n  {{'msg': '{message}'}}"),
            param: Some(at.into()),
        }
    }

    /// Only `application/json` is read.
    pub(crate) fn media_type() -> Self {
        let message = "Unsupported Media Type: Only 'application/json' is allowed";
        Self { message: format!("1 validation error:\n  {message}"), param: None, ..Self::invalid("", "") }
    }

    pub(crate) fn unknown_model(name: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "NotFoundError",
            message: format!("The model `{name}` does not exist."),
            param: Some("model".to_owned()),
        }
    }

    /// The Responses API keeps nothing.
    pub(crate) fn unknown_response(id: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "invalid_request_error",
            message: format!("Response with id '{id}' not found."),
            param: Some("response_id".to_owned()),
        }
    }

    pub(crate) fn engine_died() -> Self {
        Self::status(StatusCode::INTERNAL_SERVER_ERROR, ENGINE_DIED)
    }

    /// A Python exception in the front end: a client's fault that answers 500.
    pub(crate) fn crash(message: &str) -> Self {
        Self::status(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// An error for a bare status.
    pub(crate) fn status(status: StatusCode, message: &str) -> Self {
        let kind = match status.as_u16() {
            404 => "NotFoundError",
            422 => "UnprocessableEntityError",
            429 => "RateLimitError",
            500 => "InternalServerError",
            501 => "NotImplementedError",
            503 => "ServiceUnavailableError",
            _ => "BadRequestError",
        };
        Self { status, kind, message: message.to_owned(), param: None }
    }

    /// OpenAI's envelope.
    pub(crate) fn openai(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status.as_u16(),
        }})
    }

    /// Anthropic's envelope and its status: what vLLM raises while it makes a chat request of the message becomes 500 (sizes
    /// as recorded), what it finds wrong before that does not.
    pub(crate) fn anthropic(&self) -> (StatusCode, Value) {
        const PARAMS: [&str; 6] =
            ["input_tokens", "max_tokens", "max_completion_tokens", "min_tokens", "temperature", "top_p"];
        const MESSAGES: [&str; 2] = ["stop cannot contain", "Cannot apply chat template"];
        let is_raised = self.param.as_deref().is_some_and(|param| PARAMS.contains(&param))
            || MESSAGES.iter().any(|message| self.message.starts_with(message))
            || self.status == StatusCode::INTERNAL_SERVER_ERROR;
        let (status, kind) =
            if is_raised { (StatusCode::INTERNAL_SERVER_ERROR, "internal_error") } else { (self.status, self.kind) };
        (status, json!({"type": "error", "error": {"type": kind, "message": self.message}}))
    }

    /// A validation error keeps OpenAI's envelope everywhere.
    pub(crate) fn is_validation(&self) -> bool {
        self.kind == "Bad Request"
    }
}

/// FastAPI's own answers.
pub(crate) fn detail(text: &str) -> Value {
    json!({"detail": text})
}
