//! Why a call is not answered by a replica. Facts only: [`super::respond`] turns them into HTTP.

use std::time::Duration;

use actors::{Denied, NoReplica, QuotaRefusal, Unauthenticated};
use http::StatusCode;

use super::retry::RetryAdvice;

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The request's head is not acceptable; the connection closes.
    #[error("{0}")]
    BadRequest(String),
    /// The path is none of the gateway's.
    #[error("no such path: {path}{hint}")]
    NoSuchPath {
        /// As sent, without the query.
        path: String,
        /// What may be wrong with the client's base URL.
        hint: &'static str,
    },
    /// The path exists and wants another method.
    #[error("{path} accepts {allowed} only")]
    MethodNotAllowed {
        /// The upstream path.
        path: &'static str,
        /// What it accepts.
        allowed: &'static str,
    },
    /// The client wants a WebSocket. Codex, for one, goes on over HTTP at once when it is told so.
    #[error(
        "{path} is served over plain HTTP and not over WebSocket: send a POST, with `stream: true` for a stream of events"
    )]
    NoWebSocket {
        /// The upstream path.
        path: &'static str,
    },
    /// A browser asks whether a page of this origin may call.
    #[error("pages of the origin `{0}` may not call: the Tenant's spec.cors.allowedOrigins does not have it")]
    OriginNotAllowed(String),
    /// A browser's question that no browser asks.
    #[error("{0}")]
    BadPreflight(&'static str),
    /// Replicas keep no state that a gateway could find again.
    #[error(
        "no such response or conversation: none is kept here, whatever `store` says; send the whole input with each request"
    )]
    NotStored,
    /// Who calls?
    #[error("{0}")]
    Unauthenticated(#[from] Unauthenticated),
    /// A client may not say who it is in headers that the gateway owns.
    #[error("header `{0}` is set by the gateway only: remove it")]
    ForgedIdentity(&'static str),
    /// Too many invalid credentials came from the caller's address.
    #[error("{0}")]
    TooManyAttempts(#[from] crate::accept::TooManyAttempts),
    /// The body could not be read.
    #[error("{0}")]
    Body(#[from] crate::accept::BodyError),
    /// The body has a coding that is not known here.
    #[error("the request body's Content-Encoding is not one of {}, or there are more than two", super::body::ACCEPTED)]
    UnknownCoding,
    /// There is no room for the body.
    #[error("this node has too many large request bodies in memory: send the request again in a moment")]
    NoRoom,
    /// The body is not what the path wants.
    #[error("{message}")]
    InvalidBody {
        /// What is wrong.
        message: String,
        /// With which field.
        field: Option<&'static str>,
    },
    /// No model of that name.
    #[error("the model `{0}` does not exist")]
    UnknownModel(String),
    /// Several models of that name.
    #[error("the model name `{name}` is ambiguous: use one of {}", candidates.join(", "))]
    AmbiguousModel {
        /// As sent.
        name: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
    /// The path names one model, the body another.
    #[error(
        "the path names model `{path}` and the body names model `{body}`: make them equal, or leave `model` out of the body"
    )]
    ModelMismatch {
        /// Of the path.
        path: String,
        /// Of the body.
        body: String,
    },
    /// The caller may not use the model.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// No tokens left.
    #[error("{0}")]
    Quota(Box<QuotaRefusal>),
    /// This node has not heard from the cluster for too long to admit anybody.
    #[error("this node has lost touch with its cluster and admits no calls until it has found it again")]
    NotServing,
    /// No replica can take the call.
    #[error("{0}")]
    NoReplica(#[from] NoReplica),
    /// Replicas were reached, or nearly, and gave no answer.
    #[error("{0}")]
    Upstream(#[from] super::upstream::UpstreamError),
    /// A replica answered something that is no answer.
    #[error("the replica answered nonsense: {0}")]
    BadAnswer(&'static str),
    /// A replica answered with an error that is passed on under its own status.
    #[error("{message}")]
    Replica {
        /// Of the answer.
        status: StatusCode,
        /// Of the answer, or ours where it had none.
        message: String,
        /// What the replica says about another attempt.
        retry: RetryAdvice,
    },
}

impl From<QuotaRefusal> for Refusal {
    fn from(refusal: QuotaRefusal) -> Refusal {
        Refusal::Quota(Box::new(refusal))
    }
}

impl Refusal {
    /// A body that is wrong in `field`.
    pub(super) fn field(field: &'static str, message: impl Into<String>) -> Refusal {
        Refusal::InvalidBody { message: message.into(), field: Some(field) }
    }

    /// A body that is wrong altogether.
    pub(super) fn body(message: impl Into<String>) -> Refusal {
        Refusal::InvalidBody { message: message.into(), field: None }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Refusal::BadRequest(_)
            | Refusal::BadPreflight(_)
            | Refusal::InvalidBody { .. }
            | Refusal::AmbiguousModel { .. }
            | Refusal::ModelMismatch { .. } => StatusCode::BAD_REQUEST,
            Refusal::NoSuchPath { .. } | Refusal::NotStored | Refusal::UnknownModel(_) => StatusCode::NOT_FOUND,
            Refusal::NoWebSocket { .. } => StatusCode::UPGRADE_REQUIRED,
            Refusal::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Unauthenticated(Unauthenticated::Missing | Unauthenticated::UnknownToken) => {
                StatusCode::UNAUTHORIZED
            }
            // As upstream: whoever sends something that looks like an API key is told 403.
            Refusal::Unauthenticated(_)
            | Refusal::ForgedIdentity(_)
            | Refusal::Denied(_)
            | Refusal::OriginNotAllowed(_) => StatusCode::FORBIDDEN,
            Refusal::Body(error) => match error {
                crate::accept::BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                slow if slow.is_timeout() => StatusCode::REQUEST_TIMEOUT,
                _ => StatusCode::BAD_REQUEST,
            },
            Refusal::TooManyAttempts(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Quota(quota) => match **quota {
                QuotaRefusal::Exhausted { .. } => StatusCode::TOO_MANY_REQUESTS,
                QuotaRefusal::Unavailable | QuotaRefusal::Changed => StatusCode::SERVICE_UNAVAILABLE,
            },
            Refusal::UnknownCoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::NoRoom | Refusal::NotServing | Refusal::NoReplica(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Upstream(error) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Upstream(_) | Refusal::BadAnswer(_) => StatusCode::BAD_GATEWAY,
            Refusal::Replica { status, .. } => *status,
        }
    }

    /// One word for SDKs (`code` of an OpenAI error).
    pub(super) fn code(&self) -> &'static str {
        match self {
            Refusal::BadRequest(_) | Refusal::InvalidBody { .. } => "invalid_request",
            Refusal::NoSuchPath { .. } => "unknown_url",
            Refusal::MethodNotAllowed { .. } => "method_not_allowed",
            Refusal::NoWebSocket { .. } => "web_socket_not_supported",
            Refusal::OriginNotAllowed(_) => "origin_not_allowed",
            Refusal::BadPreflight(_) => "invalid_preflight",
            Refusal::NotStored => "not_stored",
            Refusal::Unauthenticated(_) => "invalid_api_key",
            Refusal::ForgedIdentity(_) => "forged_identity",
            Refusal::TooManyAttempts(_) => "too_many_attempts",
            Refusal::Body(crate::accept::BodyError::TooLarge { .. }) => "request_too_large",
            Refusal::Body(_) => "incomplete_body",
            Refusal::UnknownModel(_) => "model_not_found",
            Refusal::AmbiguousModel { .. } => "ambiguous_model",
            Refusal::ModelMismatch { .. } => "model_mismatch",
            Refusal::Denied(denied) => denied.reason(),
            Refusal::Quota(quota) => match **quota {
                QuotaRefusal::Exhausted { .. } => "rate_limit_exceeded",
                QuotaRefusal::Unavailable | QuotaRefusal::Changed => "quota_unavailable",
            },
            Refusal::UnknownCoding => "unsupported_content_encoding",
            Refusal::NoRoom => "too_many_bodies",
            Refusal::NotServing => "not_serving",
            Refusal::NoReplica(_) => "no_replica",
            Refusal::Upstream(_) => "upstream_failed",
            Refusal::BadAnswer(_) => "bad_upstream_answer",
            Refusal::Replica { .. } => "upstream_error",
        }
    }

    /// Value of `x-ext-auth-reason`, on answers that are about who may do what.
    pub(super) fn auth_reason(&self) -> Option<&'static str> {
        match self {
            Refusal::Unauthenticated(_) | Refusal::ForgedIdentity(_) | Refusal::TooManyAttempts(_) => {
                Some("unauthorized")
            }
            Refusal::Denied(denied) => Some(denied.reason()),
            Refusal::Quota(quota) if matches!(**quota, QuotaRefusal::Exhausted { .. }) => Some("quota_exceeded"),
            _ => None,
        }
    }

    /// When the same call can be expected to pass.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::Quota(quota) => match **quota {
                QuotaRefusal::Exhausted { retry_after, .. } => Some(retry_after),
                QuotaRefusal::Unavailable | QuotaRefusal::Changed => Some(Duration::from_secs(1)),
            },
            Refusal::TooManyAttempts(too_many) => Some(too_many.retry_after),
            Refusal::NoRoom | Refusal::NotServing => Some(Duration::from_secs(1)),
            // Probes look at a replica about that often.
            Refusal::NoReplica(_) => Some(Duration::from_secs(2)),
            Refusal::Replica { retry, .. } => retry.after,
            _ => None,
        }
    }

    /// Value of `x-should-retry`, if a replica has an opinion.
    pub(super) fn should_retry(&self) -> Option<bool> {
        match self {
            Refusal::Replica { retry, .. } => retry.should,
            _ => None,
        }
    }

    /// Value of `x-llm-d-request-dropped-reason`.
    pub(super) fn dropped_reason(&self) -> Option<&'static str> {
        matches!(self, Refusal::NoReplica(_)).then_some("rejected-no-endpoints")
    }

    /// Whether the connection is in an unknown state, or its client not to be trusted with another request on it.
    pub(super) fn closes_connection(&self) -> bool {
        matches!(self, Refusal::BadRequest(_) | Refusal::Body(_) | Refusal::UnknownCoding | Refusal::NoRoom)
    }
}
