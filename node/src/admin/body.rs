//! Request bodies: bounded in size, whatever the port allows. The port bounds their time.

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
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

/// The whole body, if it has at most `max` bytes.
pub(super) async fn read(body: Body, max: usize) -> Result<Bytes, Unread> {
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
