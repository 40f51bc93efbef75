//! Request bodies: bounded in size, whatever the port allows. The port bounds their time.

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::accept::BodyError;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// It is larger than accepted.
    #[error("the request body is larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// It is compressed, and only plain bodies are read here.
    #[error("the request body has a Content-Encoding: send it as it is")]
    Coded,
    /// It did not arrive in time.
    #[error("{0}")]
    TooSlow(String),
    /// The connection failed, or the body is not framed well.
    #[error("{0}")]
    Broken(String),
}

impl Unread {
    /// What a client is told.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Unread::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Unread::Coded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Unread::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Unread::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<BodyError> for Unread {
    fn from(error: BodyError) -> Unread {
        match error {
            BodyError::TooLarge { limit } => Unread::TooLarge { max: limit },
            slow if slow.is_timeout() => Unread::TooSlow(slow.to_string()),
            other => Unread::Broken(other.to_string()),
        }
    }
}

/// The whole body, if it has at most `max` bytes and, as `headers` say, no coding.
pub(super) async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, Unread> {
    let is_plain = |coding: &HeaderValue| {
        let codings = coding.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.into_iter().all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    };
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err(Unread::Coded);
    }
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unread::TooLarge { max }),
        // The router wraps what the port says.
        Err(error) => {
            Err(match error.downcast::<axum::Error>().map(|error| error.into_inner().downcast::<BodyError>()) {
                Ok(Ok(error)) => Unread::from(*error),
                Ok(Err(_)) | Err(_) => Unread::Broken("the request body could not be read".to_owned()),
            })
        }
    }
}
